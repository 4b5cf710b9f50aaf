"""Measure this project beside other systems, all in one run: `python3 benchmarks/run.py`.

Every system gets the same workloads, the same processes (one for each peer) and the same checks of
every payload. The systems take turns within each workload, so that noise hits all alike.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import environment
import named
from conductor import Failed, network
from figures import table
from machine import Row, reporting
from workloads import GROUPS, WORKLOADS, Workload

FROM_PACKAGES = ["p2pnetwork", "pyre", "nats"]
SYSTEMS = ["ours", "ours_tls", *FROM_PACKAGES, "naive", "limit"]
PEERS = [8, 16, 32, 64]
LIMIT_S = 60.0  # what has not come by then is missing
SHORT_PEERS = [8]
SHORT_FACTOR = 0.1  # of the messages
SHORT_LIMIT_S = 6.0
FIGURES = ["deliveries_per_s", "cpu_us_per_delivery", "each_p50_ms", "each_p99_ms"]
FIGURES += ["last_p50_ms", "last_p99_ms", "peak_rss_mib", "expected", "missing"]
COLUMNS = {
    "peers": "peers",
    "workload": "workload",
    "system": "system",
    "deliveries_per_s": "deliveries/s",
    "spread": "±",
    "cpu_us_per_delivery": "CPU µs",
    "each_p50_ms": "p50 ms",
    "each_p99_ms": "p99 ms",
    "last_p50_ms": "last p50",
    "last_p99_ms": "last p99",
    "peak_rss_mib": "peak MiB",
    "missing": "missing",
    "note": "",
}


def main(arguments: list[str]) -> int:
    """Measure, print the table, write the JSON; 0 unless a system could not be measured."""
    options = parsed(arguments)
    scale = SHORT_FACTOR if options.short else 1.0
    systems, python = prepared(options.only)
    left_out = [system for system in options.only if system not in systems]
    versions = environment.versions()
    rows: list[Row] = []
    with reporting(options.json, __file__, arguments, rows, versions=versions, left_out=left_out):
        for repeat, peers, name in product(range(options.repeat), options.peers, options.workloads):
            workload = WORKLOADS[name].scaled(scale)
            for system in systems:
                run = measured(system, workload, peers, options.limit, python)
                rows.append({**run, "repeat": repeat})
                told(run)
    columns = {key: COLUMNS[key] for key in COLUMNS if options.repeat > 1 or key != "spread"}
    print("\n".join(table(medians(rows), columns)))
    return 1 if any(run["failure"] for run in rows) else 0


def prepared(systems: list[str]) -> tuple[list[str], str]:
    """Those systems that can run here, and the Python that all of them run with."""
    if not set(systems) & set(FROM_PACKAGES):
        return systems, sys.executable
    if python := environment.python():
        return systems, python
    left = [system for system in systems if system not in FROM_PACKAGES]
    print(f"left out: {', '.join(sorted(set(systems) - set(left)))}", file=sys.stderr)
    return left, sys.executable


def measured(system: str, workload: Workload, peers: int, limit_s: float, python: str) -> Row:
    """One system with one workload, on a network made for it alone."""
    run: Row = {"system": system, "workload": workload.name, "peers": peers}
    try:
        with network([system] * peers, python) as net:
            net.connect()
            run |= net.measure(workload, limit_s)
    except Failed as failure:
        return run | {"failure": str(failure)}
    if workload.per_s:
        run["deliveries_per_s"] = None  # it is what was asked for
    return run


def told(run: Row) -> None:
    """Say on a terminal how far it is."""
    if sys.stderr.isatty():
        told = "  ".join(str(run[key]) for key in ("peers", "workload", "system"))
        print(f"measured: {told}", file=sys.stderr)


def medians(runs: list[Row]) -> list[Row]:
    """One row for each system, workload and number of peers; median and spread over repeats."""
    rows: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs:
        rows.setdefault((run["peers"], run["workload"], run["system"]), []).append(run)
    return [_median(repeats) for repeats in rows.values()]


def _median(repeats: list[Row]) -> Row:
    row = {key: repeats[0][key] for key in ("peers", "workload", "system")}
    for key in FIGURES:
        samples = [run[key] for run in repeats if run.get(key) is not None]
        row[key] = statistics.median(samples) if samples else None
    rates = [run["deliveries_per_s"] for run in repeats if run.get("deliveries_per_s")]
    if len(rates) > 1:
        row["spread"] = f"{(max(rates) - min(rates)) / 2 / statistics.median(rates):.0%}"
    row["note"] = next((run["failure"] for run in repeats if run["failure"]), "")
    return row


# ---- arguments


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", type=listed(SYSTEMS), default=SYSTEMS, metavar="NAMES", help="these systems")
    add("--peers", type=listed_counts, metavar="COUNTS", help="network sizes (8,16,32,64)")
    workloads = listed(WORKLOADS, GROUPS)
    standard = GROUPS["standard"]
    help_text = "a,b,c,d; or of the groups standard,sizes,rates"
    add("--workloads", type=workloads, default=standard, metavar="NAMES", help=help_text)
    add("--repeat", type=count, default=1, metavar="K", help="measure everything K times (1)")
    add("--limit", type=float, metavar="SECONDS", help="how long one measurement may take (60)")
    add("--short", action="store_true", help="8 peers, a tenth of the messages; under 3 minutes")
    add("--json", metavar="FILE", help="also write every figure there")
    options = parser.parse_args(arguments)
    options.peers = options.peers or (SHORT_PEERS if options.short else PEERS)
    options.limit = options.limit or (SHORT_LIMIT_S if options.short else LIMIT_S)
    return options


def listed(
    known: Iterable[str], groups: dict[str, list[str]] | None = None
) -> Callable[[str], list[str]]:
    """A list with commas, of known names; a group stands for all of its names."""

    def names(text: str) -> list[str]:
        found = []
        for name in text.split(","):
            group = (groups or {}).get(name, [name])
            if not set(group) <= set(known):
                choice = ",".join([*(groups or ()), *known])
                raise argparse.ArgumentTypeError(f"{name!r}: expected any of {choice}")
            found += group
        return found

    return names


def listed_counts(text: str) -> list[int]:
    """A list with commas, of numbers of peers."""
    counts = [count(part) for part in text.split(",")]
    if min(counts) < 2:
        raise argparse.ArgumentTypeError("a network has at least 2 peers")
    return counts


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return int(text)


if __name__ == "__main__":
    named.run(main)
