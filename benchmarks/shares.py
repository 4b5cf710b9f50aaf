"""Where the processor time goes: `python3 benchmarks/shares.py`.

Looks at all peers of a network with `perf` while they do a workload, and sorts its samples by what
a processor was at. Needs root, and Debian's package linux-perf.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import named
from conductor import Failed, network
from machine import Row
from workloads import WORKLOADS

LIMIT_S = 60.0
SAMPLES_PER_S = 499  # of each processor; a prime, so that it does not beat with what it looks at
SYSTEMS = ("ours", "limit")
LINE = "{system:<6} {workload}  {where:<42} {us:>8} µs a delivery"

# What a sample counts as: the first of these that a line of its stack speaks of.
KINDS = {
    "memory that is touched for the first time": r"page_fault",
    "threads that wait for, and wake, each other": r"sys_futex",
    "sending": r"sys_send",
    "receiving": r"sys_recv",
    "the rest of the kernel": r"\(\[kernel",
    "copies within a program": r"\A\s*\S+ \S*mem(move|cpy)",
    "Python, the check of each payload included": r"",
}


def shares(options: argparse.Namespace) -> Iterator[Row]:
    """Microseconds of processor time for each delivery, by what they were spent on."""
    for workload in options.workloads.split(","):
        for system in SYSTEMS:
            with network([system] * options.peers, sys.executable) as net:
                net.connect()
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder, "samples")
                    watcher = watch(net.pids, file)
                    figures = net.measure(WORKLOADS[workload], LIMIT_S)
                    watcher.send_signal(signal.SIGINT)
                    watcher.wait()
                    counts = count(file)
            for where in KINDS:
                us = figures["cpu_us_per_delivery"] * counts[where] / counts.total()
                yield {"system": system, "workload": workload, "where": where, "us": us}


def watch(pids: list[int], file: Path) -> "subprocess.Popen[bytes]":
    """Begin to take samples of these processes."""
    command = ["perf", "record", "--quiet", "--event", "cpu-clock", "--call-graph", "fp"]
    command += ["--freq", str(SAMPLES_PER_S), "--output", str(file)]
    return subprocess.Popen([*command, "--pid", ",".join(map(str, pids))])


def count(file: Path) -> Counter[str]:
    """How many samples there are of each kind. Raises Failed if perf wrote none."""
    command = ["perf", "script", "--input", str(file), "--fields", "ip,sym,dso"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"perf script: expected samples in {file}; it says: {done.stderr.strip()}")
    return Counter(map(kind_of, filter(str.strip, done.stdout.split("\n\n"))))


def kind_of(stack: str) -> str:
    """What a processor was at, by the functions it was in, the innermost first."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, stack))


# ---- the command

MEASUREMENTS = {"shares": shares}


def main(arguments: list[str]) -> int:
    """Measure, print the table, write the JSON."""
    parser = named.parser(__doc__, MEASUREMENTS)
    add = parser.add_argument
    add("--peers", type=int, default=16, metavar="N", help="size of the network (16)")
    add("--workloads", default="b,c,d", metavar="NAMES", help="what is said (b,c,d)")
    options = named.parsed(parser, arguments, MEASUREMENTS)
    if unknown := set(options.workloads.split(",")) - set(WORKLOADS):
        parser.error(f"--workloads: {min(unknown)!r}: expected any of {', '.join(WORKLOADS)}")
    if shutil.which("perf") is None:
        parser.error("perf is not installed; Debian has it in the package linux-perf")
    return named.take(MEASUREMENTS, options, LINE, __file__, arguments)


if __name__ == "__main__":
    named.run(main)
