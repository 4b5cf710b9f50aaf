"""Figures from many samples: percentiles, medians, and tables of them."""

import math
from collections.abc import Sequence
from typing import Any


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of all are not above (nearest rank)."""
    assert samples, "no samples, no percentile"
    rank = max(1, math.ceil(len(samples) * percent / 100))
    return sorted(samples)[rank - 1]


def delays_ms(by_worker: list[list[list[float]]]) -> dict[str, float | None]:
    """How long messages took: to each peer, and to the last one of each message.

    Each worker gives a list of (sender, number, microseconds).
    """
    each: list[float] = []
    last: dict[tuple[float, float], float] = {}
    for delays in by_worker:
        for sender, number, delay_us in delays:
            each.append(delay_us)
            last[sender, number] = max(delay_us, last.get((sender, number), 0.0))
    found: dict[str, float | None] = {}
    for name, samples in (("each", each), ("last", list(last.values()))):
        for percent in (50, 99):
            key = f"{name}_p{percent}_ms"
            found[key] = percentile(samples, percent) / 1000 if samples else None
    return found


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Lines of text: `columns` are keys and headings; numbers stand to the right."""
    cells = [list(columns.values())]
    cells += [[shown(row.get(key)) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [any(isinstance(row.get(key), int | float) for row in rows) for key in columns]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def shown(value: object) -> str:
    """A figure with as many digits as it deserves."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
