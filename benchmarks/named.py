"""What scripts have in common that take measurements by their names: arguments, table, report."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from conductor import Failed
from figures import shown
from machine import Row, reporting

Measurements = Mapping[str, Callable[[argparse.Namespace], Iterator[Row]]]

FIGURE_LINE = "{what:<58} {value:>10} {unit}"


def figure(what: str, value: float, unit: str) -> Row:
    """A row that is one figure; shown as FIGURE_LINE."""
    return {"what": what, "value": value, "unit": unit}


def parser(doc: str | None, measurements: Measurements) -> argparse.ArgumentParser:
    """A parser that takes the names; the script adds its own arguments."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    known = ", ".join(measurements)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {known}")
    return made


def parsed(
    made: argparse.ArgumentParser, arguments: list[str], measurements: Measurements
) -> argparse.Namespace:
    """The options; every measurement is asked for when none is named."""
    made.add_argument("--json", metavar="FILE", help="also write every figure there")
    options = made.parse_args(arguments)
    options.names = options.names or list(measurements)
    for name in options.names:
        if name not in measurements:
            made.error(f"{name!r}: expected any of {', '.join(measurements)}")
    return options


def take(
    measurements: Measurements,
    options: argparse.Namespace,
    line: str,
    script: str,
    arguments: list[str],
) -> int:
    """Measure what is named, print the table, write the JSON."""
    rows: list[Row] = []
    with reporting(options.json, script, arguments, rows):
        for name in options.names:
            for row in measurements[name](options):
                rows.append(row)
                print(line.format(**{key: shown(value) for key, value in row.items()}), flush=True)
    return 0


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Be the program; Ctrl-C ends it as a shell says it, and a failure with one line."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        sys.exit(f"{Path(sys.argv[0]).name}: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)
