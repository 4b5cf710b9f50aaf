"""Put measured figures into docs/performance.md: `python3 benchmarks/publish.py`.

Reads what is in docs/figures: the `--json` files of the other scripts, and what `simulate.py
--json` printed. Draws the plots beside them, and fills the parts of the page between `<!-- figures:
NAME -->` and `<!-- end -->`. With `--measure` it first takes all figures anew, which needs a quiet
machine for an hour; `--measure NAMES` takes some of them. Any Python will do.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from math import log10
from pathlib import Path
from typing import Any

import environment
from figures import shown
from machine import Row
from run import SYSTEMS, listed, medians
from workloads import GROUPS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "figures"
STANDARD_PEERS = 16
PART = re.compile(r"(<!-- figures: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)
COLOURS = {"ours": "#c0392b", "ours_tls": "#e59866", "limit": "#7f8c8d", "nats": "#2471a3"}
COLOURS |= {"pyre": "#1e8449", "p2pnetwork": "#7d3c98", "naive": "#b7950b"}

# What each file of docs/figures was made by. The order is that of the page.
COMMANDS = {
    "1-standard": "benchmarks/run.py --peers 16",
    "2-growth": "benchmarks/run.py --only ours,nats,limit --peers 8,32,64 --workloads b,d",
    "2-sweeps": "benchmarks/run.py --only ours --peers 16 --workloads sizes,rates",
    "2-shares": "benchmarks/shares.py",
    "3-life": "benchmarks/life.py",
    "4-hardship": "benchmarks/hardship.py",
    "5-many": "benchmarks/many.py",
    "6-simulate-01000": "simulate.py --peers 1000 --messages 3 --json",
    "6-simulate-03000": "simulate.py --peers 3000 --messages 3 --json",
    "6-simulate-10000": "simulate.py --peers 10000 --messages 3 --json",
}
MILLION = 1_000_000
COST = "cpu_us_per_delivery"
RENEW_S = 30  # a peer registers again so often
REST = "a peer of 16 sends its neighbours, at rest"
EACH = "and for each message of 100 bytes, at 100 a second"
MEMORY = "memory of a peer at rest, nothing said"
EMPTY, HELD = "memory of a seed that nobody knows", "memory of the seed then"
LISTED = "peers on the list, and connected"
RENEWAL = "renewals: processor time of the seed for one"

# What is drawn of each group of workloads.
PLOTS = {
    "sizes": {
        "size-cost": "CPU per delivery, by size",
        "size-rate": "deliveries a second, by size",
    },
    "rates": {"rate-delay": "time to each peer, by rate", "rate-cost": "CPU per delivery, by rate"},
}
HEADER_LINES = 2  # of a table

Report = dict[str, Any]
Points = list[tuple[Any, Any]]


# ---- tables


def conditions(reports: list[Report]) -> list[str]:
    """What was run, when, on what, and how busy the machine was before."""
    lines = header("command", "commit", "at (UTC)", "load before", "machine")
    for report in reports:
        machine = report["machine"]
        command = " ".join([f"{report['script']}.py", *report["arguments"]])
        at = machine["at"].replace("T", " ")[:16]
        what = f"{machine['cores']} cores, {machine['cpu']}, {machine['memory_gib']} GiB, "
        what += f"Linux {machine['kernel']}, Python {machine['python']}"
        lines.append(
            cells(f"`{command}`", f"`{machine['commit']}`", at, machine["load_before"], what)
        )
    return lines


def standard(rows: list[Row]) -> list[str]:
    """Every system with workloads a to d in a network of 16."""
    found = {(row["system"], row["workload"]): row for row in rows if is_standard(row)}
    titles = ["a: p50 / p99 ms", "a: to the last, p99", "b: deliveries/s", "b: CPU µs"]
    titles += ["c: deliveries/s", "d: deliveries/s", "d: CPU µs", "peak MiB", "missing"]
    lines = header("system", *titles)
    for system in (name for name in SYSTEMS if (name, "a") in found):
        a, b, c, d = (found.get((system, name), {}) for name in "abcd")
        each = f"{shown(a.get('each_p50_ms'))} / {shown(a.get('each_p99_ms'))}"
        rates = [b.get("deliveries_per_s"), b.get("cpu_us_per_delivery")]
        rates += [c.get("deliveries_per_s"), d.get("deliveries_per_s")]
        rates += [
            d.get("cpu_us_per_delivery"),
            max(r.get("peak_rss_mib") or 0.0 for r in (a, b, c, d)),
        ]
        figures = [shown(figure) for figure in (a.get("last_p99_ms"), *rates)]
        lines.append(cells(system, each, *figures, missing(a, b, c, d)))
    return lines


def is_standard(row: Row) -> bool:
    return row["peers"] == STANDARD_PEERS and row["workload"] in GROUPS["standard"]


def missing(*workloads: Row) -> str:
    """The share that never came, by workload."""
    said = []
    for row in workloads:
        if row.get("missing"):
            said.append(f"{row['workload']}: {share(row['missing'] / row['expected'])}")
        if row.get("note"):
            said.append(f"{row['workload']}: {row['note']}")
    return ", ".join(said) or "none"


def share(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.01 else f"{fraction:.1%}"


def growth(rows: list[Row]) -> list[str]:
    """Processor time for each delivery, by the number of peers."""
    found = {(row["system"], row["workload"], row["peers"]): row for row in rows}
    counts = sorted({row["peers"] for row in rows if row["workload"] == "b"})
    lines = header("system", "workload", *(f"{count} peers" for count in counts))
    for system in SYSTEMS:
        for name in ("b", "d"):
            figures = [
                found.get((system, name, count), {}).get("cpu_us_per_delivery") for count in counts
            ]
            if any(figures):
                lines.append(cells(system, name, *map(shown, figures)))
    if len(counts) > 1:
        lines += images({f"peers-{name}": f"workload {name}, by peers" for name in "bd"})
    return lines


def sweep(rows: list[Row], group: str, columns: dict[str, str]) -> list[str]:
    """Our own figures for one group of workloads."""
    lines = header("workload", *columns.values())
    for row in rows:
        if row["system"] == "ours" and row["workload"] in GROUPS[group]:
            lines.append(cells(row["workload"], *(shown(row.get(key)) for key in columns)))
    if len(lines) > HEADER_LINES:
        lines += images(PLOTS[group])
    return lines


def shares(rows: list[Row]) -> list[str]:
    """What each delivery costs, by what the time goes to."""
    found = {(row["workload"], row["system"], row["where"]): row["us"] for row in rows}
    runs = list(dict.fromkeys(key[:2] for key in found))
    lines = header("µs a delivery", *(f"{workload}: {system}" for workload, system in runs))
    for where in dict.fromkeys(row["where"] for row in rows):
        lines.append(cells(where, *(shown(found[*run, where]) for run in runs)))
    return lines


def list_of(rows: list[Row], script: str) -> list[str]:
    """The rows of a script that measures one thing after the other."""
    wanted = [row for row in rows if row["script"] == script]
    if any("median" in row for row in wanted):
        lines = header("what", "median", "worst", "of", "unit")
        keys = ["what", "median", "worst", "count", "unit"]
    else:
        lines = header("what", "figure", "unit")
        keys = ["what", "value", "unit"]
    return lines + [cells(*(shown(row[key]) for key in keys)) for row in wanted]


def million(rows: list[Row], others: list[Row], simulated: list[Row]) -> list[str]:
    """What a network of a million peers would cost, each term from a figure above."""
    figure: dict[str, float] = {
        row["what"]: row["value"] if "value" in row else row["median"] for row in others
    }
    lines = header("what", "measured or simulated", "so, with a million peers")

    def line(what: str, measured: str, so: str) -> None:
        lines.append(cells(what, measured, so))

    largest = max(
        (r for r in rows if (r["system"], r["workload"]) == ("ours", "b") and r.get(COST)),
        key=lambda row: int(row["peers"]),
        default=None,
    )
    if largest:
        cost = largest[COST]
        so = f"the same; 1,000 messages a second, over all peers, take {cost / 10:.2g} % of a core"
        line("processor time", f"{shown(cost)} µs a delivery, {largest['peers']} peers", so)
    if REST in figure:
        at_rest = figure[REST]
        so = "the same, for a peer has its few links however many peers there are"
        line("traffic of a peer at rest", f"{shown(at_rest)} bytes/s sent", so)
        each = figure[EACH]
        so = f"the same; 1,000 messages a second are {shown(each / 1000)} MB/s at each peer"
        line("traffic of a peer for a message", f"{shown(each)} bytes sent for 100", so)
    if MEMORY in figure:
        so = "the same, and at most 64 MiB of history"
        line("memory of a peer", f"{shown(figure[MEMORY])} MiB at rest", so)
    if len(simulated) > 1:
        told = ", ".join(f"{run['last_delivery_s']:.2f} s ({run['peers']:,})" for run in simulated)
        seconds = extended([(run["peers"], run["last_delivery_s"]) for run in simulated], MILLION)
        hops = extended([(run["peers"], run["ldh"]) for run in simulated], MILLION)
        so = f"{seconds:.2f} s, {hops:.0f} hops: both grow with the logarithm"
        line("time until all have heard, links of 10 to 50 ms", told, so)
    if HELD in figure:
        kib = (figure[HELD] - figure[EMPTY]) * 1024 / figure[LISTED]
        at_each = MILLION * 2 / 3
        so = f"{at_each:,.0f} at each of 3 seeds: {at_each * kib / (1 << 20):.0f} GiB"
        line("memory of a seed", f"{kib:.0f} KiB for each peer registered", so)
    if RENEWAL in figure:
        cost_us, per_s = figure[RENEWAL], MILLION * 2 / 3 / RENEW_S
        enough = MILLION / (per_s * cost_us / 1e6)
        so = f"{per_s:,.0f}/s at each of 3 seeds: {per_s * cost_us / 1e6:.1f} cores; "
        so += f"the one core that a seed can use does for {enough:,.0f} peers"
        line("renewals, each peer every 30 s at 2 of 3 seeds", f"{shown(cost_us)} µs for one", so)
    return lines


def extended(points: list[tuple[float, float]], x: float) -> float:
    """The straight line through the points, over the logarithm of x, at another x."""
    slope, start = statistics.linear_regression(
        [log10(a) for a, _ in points], [b for _, b in points]
    )
    return slope * log10(x) + start


def images(plots: dict[str, str]) -> list[str]:
    """The plots of these names, each with what it shows."""
    return [line for name, what in plots.items() for line in ("", f"![{what}](figures/{name}.svg)")]


def header(*titles: str) -> list[str]:
    return [cells(*titles), "|---" * len(titles) + "|"]


def cells(*texts: object) -> str:
    return f"| {' | '.join(map(str, texts))} |"


# ---- plots


def plot(rows: list[Row]) -> None:
    """Draw everything that there are figures for."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # installed for this alone

    plt.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 10})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams.update({"axes.grid": True, "grid.color": "#dddddd", "figure.figsize": (7, 4.2)})

    def drawn(
        name: str, title: str, x: str, y: str, lines: dict[str, list[tuple[Any, Any]]]
    ) -> None:
        figure, axes = plt.subplots(layout="constrained")
        axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
        for label, points in lines.items():
            style = {"color": COLOURS.get(label), "marker": "o", "markersize": 4}
            axes.plot(*zip(*points, strict=True), label=label, **style)
        ticks = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)

    for name in ("b", "d"):
        by_system = {
            system: points(
                [r for r in rows if (r["system"], r["workload"]) == (system, name)],
                lambda row: row["peers"],
                "cpu_us_per_delivery",
            )
            for system in SYSTEMS
        }
        title = f"What one delivery costs, workload {name}"
        if lines := {system: found for system, found in by_system.items() if len(found) > 1}:
            drawn(f"peers-{name}", title, "peers", "CPU µs per delivery", lines)
    ours = [row for row in rows if row["system"] == "ours"]
    sizes = [row for row in ours if row["workload"] in GROUPS["sizes"]]
    if sizes:
        cost = points(sizes, size_of, "cpu_us_per_delivery")
        rate = points(sizes, size_of, "deliveries_per_s")
        drawn("size-cost", "What one delivery costs, by size", "bytes", "CPU µs", {"ours": cost})
        drawn("size-rate", "Throughput, by size", "bytes", "deliveries per second", {"ours": rate})
    rates = [row for row in ours if row["workload"] in GROUPS["rates"]]
    if rates:
        delays = {p: points(rates, rate_of, f"each_{p}_ms") for p in ("p50", "p99")}
        drawn("rate-delay", "Time to each peer, by rate", "messages per second", "ms", delays)
        cost = points(rates, rate_of, "cpu_us_per_delivery")
        title = "What one delivery costs, by rate"
        drawn("rate-cost", title, "messages per second", "CPU µs", {"ours": cost})


def points(rows: list[Row], x: Callable[[Row], Any], y: str) -> Points:
    return sorted((x(row), row[y]) for row in rows if row.get(y))


def size_of(row: Row) -> int:
    return WORKLOADS[row["workload"]].size


def rate_of(row: Row) -> int:
    return round(WORKLOADS[row["workload"]].per_s)


# ---- the command


def read(files: list[Path]) -> tuple[list[Report], list[Row]]:
    """The reports of measurements, and what the simulator said."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [r for r in found if "script" in r], [r for r in found if "script" not in r]


def parts(reports: list[Report], simulated: list[Row]) -> dict[str, list[str]]:
    """The lines of every part of the page, by its name."""
    runs = [row for report in reports if report["script"] == "run" for row in report["rows"]]
    rows = medians(runs)
    others = [{**row, "script": r["script"]} for r in reports for row in r["rows"] if "what" in row]
    size_columns = {"deliveries_per_s": "deliveries/s", "cpu_us_per_delivery": "CPU µs"}
    size_columns["peak_rss_mib"] = "peak MiB"
    rate_columns = {"each_p50_ms": "p50 ms", "each_p99_ms": "p99 ms", "last_p99_ms": "last, p99"}
    rate_columns["cpu_us_per_delivery"] = "CPU µs"
    return {
        "million": million(rows, others, simulated),
        "conditions": conditions(reports),
        "standard": standard(rows),
        "growth": growth(rows),
        "sizes": sweep(rows, "sizes", size_columns),
        "rates": sweep(rows, "rates", rate_columns),
        "shares": shares([row for r in reports if r["script"] == "shares" for row in r["rows"]]),
        **{script: list_of(others, script) for script in ("life", "many", "hardship")},
    }


def filled(page: str, found: dict[str, list[str]]) -> str:
    """The page with each part exchanged for these lines."""

    def part(match: re.Match[str]) -> str:
        lines = found[match[2]]
        if len(lines) <= HEADER_LINES:
            lines = ["Not measured yet."]
        return "\n".join([match[1], *lines, match[3]])

    return PART.sub(part, page)


def measure(names: list[str]) -> None:
    """Take these figures anew; each command's table goes to standard error."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        file = FOLDER / f"{name}.json"
        script, *arguments = COMMANDS[name].split()
        command = [sys.executable, str(ROOT / script), *arguments]
        print(f"measuring {name}: {COMMANDS[name]}", file=sys.stderr)
        if script == "simulate.py":
            file.write_bytes(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        else:
            subprocess.run([*command, "--json", str(file)], stdout=sys.stderr, check=False)


def main(arguments: list[str]) -> int:
    """Measure what is wanted, fill the page and draw the plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = listed(COMMANDS, {"all": list(COMMANDS)})
    help_text = f"first take these figures anew: {', '.join(COMMANDS)}; or all (the default)"
    parser.add_argument(
        "--measure", type=names, nargs="?", const=[*COMMANDS], metavar="NAMES", help=help_text
    )
    options = parser.parse_args(arguments)
    python = environment.python()
    if python is None:
        return 1
    measure(options.measure or [])
    if Path(sys.executable) != Path(python):
        os.execv(python, [python, __file__])
    reports, simulated = read(sorted(FOLDER.glob("*.json")))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, parts(reports, simulated)), encoding="utf-8")
    plot(medians([row for r in reports if r["script"] == "run" for row in r["rows"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
