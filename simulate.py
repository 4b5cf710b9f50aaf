"""Try out a network of thousands of peers on one machine, in virtual time, and measure it.

The peers are those of `peer.py`, with the same nodes; only sockets and threads are missing. One
number decides a whole run: the same arguments give the same figures.
"""

import argparse
import dataclasses
import gc
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from command_line import (
    BAD_INPUT,
    FAILURE,
    SUCCESS,
    argument,
    complain,
    count_number,
    seconds,
    times,
)
from scenario import (
    GLOMERS,
    GLOMERS_MODES,
    GLOMERS_OPTIONS,
    Experiment,
    GlomersMode,
    GlomersWorkload,
    NotBuilt,
    Progress,
    Result,
    Setting,
)
from screen import Screen
from settings import VERSION
from world import BrokenPromise

PROGRESS_INTERVAL_S = 0.2
MOST_PEERS = 1_000_000
ROW = "{:>6}  {:>9}  {:>13}  {:>5}  {:>7}"
EXAMPLES = """
figures:
  reached              lowest share of the surviving peers that a message reached
  last_delivery_s      longest time to the last of them; said into a cut: since it was healed
  rmr                  copies beyond the one that each delivery needs
  ldh                  hops of the last delivery
  control_per_message  announcements, questions and changes of the tree, per delivery

examples:
  python3 simulate.py --peers 10000 --fail 0.8
  python3 simulate.py --peers 1000 --partition 0.5 --heal-after 60 --messages 10
  python3 simulate.py --peers 1000 --withhold 0.3 --runs 8 --json
  python3 simulate.py --workload glomers
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run has to tell: to a person, and to a script."""

    lines: list[str]
    result: dict[str, object]


Play = Callable[[Setting, Progress], Report]


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    play: Play
    setting: Setting

    def __call__(self, progress: Progress) -> Report:
        """Do it. Raises NotBuilt, and BrokenPromise."""
        return self.play(self.setting, progress)


# ---- arguments -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One clear line, and the exit code of bad input."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (--help shows what is possible)\n")


def peers_number(text: str) -> int:
    """How many peers, from a person. Raises ValueError."""
    number = times(text)
    if not 1 <= number <= MOST_PEERS:
        raise ValueError(f"expected 1 to {MOST_PEERS} peers, got {text!r:.60}")
    return number


def share(text: str) -> float:
    """A part of something, from a person: 0 to under 1. Raises ValueError."""
    try:
        number = seconds(text)
    except ValueError:
        number = 1.0
    if number >= 1:
        raise ValueError(f"expected a fraction from 0 to under 1, got {text!r:.60}")
    return number


def latency(text: str) -> tuple[float, float]:
    """LOW-HIGH in milliseconds, from a person; given back in seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)-(\d{1,6}(?:\.\d{1,3})?)", text.strip())
    low, high = (float(part) / 1000 for part in match.groups()) if match else (1.0, 0.0)
    if low > high:
        raise ValueError(f"expected LOW-HIGH in milliseconds, as 10-50, got {text!r:.60}")
    return low, high


def parser() -> argparse.ArgumentParser:
    """Every option; those not given are absent from the result, but for three."""
    made = _Parser(
        description=__doc__,
        epilog=EXAMPLES,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(
        option: str, field: str, metavar: str, convert: Callable[[str], object], told: str
    ) -> None:
        made.add_argument(option, dest=field, metavar=metavar, type=argument(convert), help=told)

    add("--peers", "peers", "N", peers_number, "how many peers (1000)")
    add("--senders", "senders", "K", peers_number, "how many say something at once (1)")
    add("--messages", "messages", "M", count_number, "how many each of them says (1)")
    add("--fail", "fail", "F", share, "share killed in the instant of the first message")
    add("--silent", "silent", "F", share, "share that falls silent in it, closing no connection")
    add("--withhold", "withhold", "F", share, "share that passes on no payload, the root among it")
    add("--partition", "partition", "F", share, "share that is cut off in that instant")
    add("--heal-after", "heal_after_s", "S", seconds, "seconds until the cut is healed (60)")
    add("--loss", "loss", "P", share, "share of the connections that breaks per minute")
    add("--latency-ms", "latency_s", "LOW-HIGH", latency, "of each link, once and for all (10-50)")
    add("--seed", "seed", "N", times, "decides the whole run (1)")
    made.add_argument(
        "--runs",
        default=1,
        metavar="K",
        type=argument(count_number),
        help="seeds N to N+K-1, several at a time; one JSON object a line",
    )
    made.add_argument(
        "--workload",
        default="rounds",
        choices=["rounds", "glomers"],
        help="glomers: 25 nodes, 100 ms, 100 operations a second, as in the Gossip Glomers",
    )
    made.add_argument("--json", action="store_true", default=False, help="the figures as JSON")
    made.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return made


def asked_for(arguments: list[str]) -> tuple[list[Job], bool]:
    """What the arguments ask for, and whether as JSON. Ends the program if they cannot be."""
    made = parser()
    given = vars(made.parse_args(arguments))
    runs, workload, as_json = given.pop("runs"), given.pop("workload"), given.pop("json")
    if "heal_after_s" in given and not given.get("partition"):
        made.error("--heal-after goes with --partition")
    if workload == "glomers":
        if unfit := given.keys() - GLOMERS_OPTIONS:
            made.error(f"--workload glomers does not go with {', '.join(sorted(unfit))}")
        first = dataclasses.replace(GLOMERS, **given)
        plays: list[Play] = [partial(play_glomers, mode) for mode in GLOMERS_MODES]
    else:
        first = Setting(**given)
        plays = [play_rounds]
    if first.senders > first.possible_senders:
        made.error(f"expected at most {first.possible_senders} senders, got {first.senders}")
    settings = [dataclasses.replace(first, seed=first.seed + number) for number in range(runs)]
    return [Job(play, setting) for setting in settings for play in plays], as_json


# ---- runs ----------------------------------------------------------------------------------------


def play_rounds(setting: Setting, progress: Progress) -> Report:
    """One experiment."""
    experiment = Experiment(setting, progress)
    result = timed(experiment.run)
    low_ms, high_ms = (1000 * latency_s for latency_s in setting.latency_s)
    lines = [
        f"{setting.peers} peers, links of {low_ms:g} to {high_ms:g} ms, seed {setting.seed}",
        ROW.format("round", "reached", "last delivery", "hops", "copies"),
    ]
    for number, each in enumerate(experiment.figures_by_round(), start=1):
        reached, last = f"{100 * each.reached:.2f} %", f"{each.last_delivery_s:.3f} s"
        lines.append(ROW.format(number, reached, last, each.ldh, f"{each.rmr:.3f}"))
    summary = (
        "{survivors} of {peers} peers live on, {components} network(s); "
        "{control_per_message:.2f} control frames per delivery; {duplicates_to_application} "
        "duplicates, {order_violations} out of order; {simulated_s:g} s simulated in {wall_s:.1f} s"
    )
    return Report([*lines, summary.format_map(result)], result)


def play_glomers(mode: GlomersMode, setting: Setting, progress: Progress) -> Report:
    """One mode of the Gossip Glomers' workload."""
    workload = GlomersWorkload(mode, setting)
    result = timed(partial(workload.run, progress))
    line = (
        "{mode}: {messages_per_operation:.2f} messages per operation; everywhere after "
        "{median_latency_s:.3f} s (median), {max_latency_s:.3f} s (longest); "
        "{lost} of {broadcasts} broadcasts lost"
    )
    return Report([f"seed {setting.seed}, {line.format_map(result)}"], result)


def timed(measure: Callable[[], Result]) -> Result:
    """The result, with how long it took. Nothing is collected: a network lives to the end."""
    gc.disable()
    began_s = time.perf_counter()
    result = measure()
    return {**result, "wall_s": round(time.perf_counter() - began_s, 3)}


class Runs:
    """Does the jobs, and shows what comes of each, in order."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._screen = Screen(as_json)
        self._progress = ProgressLine()
        self.failed = 0

    def do_all(self, jobs: list[Job]) -> None:
        """One job here; several in as many processes as there are cores."""
        if len(jobs) == 1:
            self._show(jobs[0], partial(jobs[0], self._progress.show))
            return
        with ProcessPoolExecutor(os.cpu_count(), initializer=be_a_worker) as pool:
            try:
                futures = [pool.submit(job, ignore) for job in jobs]
                for number, (job, future) in enumerate(zip(jobs, futures, strict=True)):
                    self._progress.show(f"{number} of {len(jobs)} runs are over")
                    self._show(job, future.result)
            except KeyboardInterrupt:
                for worker in multiprocessing.active_children():
                    worker.kill()
                raise

    def _show(self, job: Job, outcome: Callable[[], Report]) -> None:
        try:
            report = outcome()
        except (NotBuilt, BrokenPromise, BrokenProcessPool) as error:
            self._progress.clear()
            complain(f"seed {job.setting.seed}: {error}")
            self.failed += 1
            return
        self._progress.clear()
        for line in [json.dumps(report.result)] if self._as_json else report.lines:
            self._screen.write(line)


def be_a_worker() -> None:
    """The main process ends its workers; Ctrl-C, which the terminal sends to all, is for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ignore(_: str) -> None:
    """Nobody looks at the progress of a worker."""


class ProgressLine:
    """One line on the terminal that tells how far it is; nothing when there is no terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next_s = 0.0
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the line, unless that was done a moment ago."""
        if self._is_shown and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PROGRESS_INTERVAL_S
            self._write(text)

    def clear(self) -> None:
        """Make room for something else."""
        if self._width:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r{text.ljust(self._width)}\r", end="", file=sys.stderr, flush=True)
        self._width = len(text)


def main(arguments: list[str]) -> int:
    """The program. Returns its exit code; Ctrl-C and SIGTERM are a clean end."""
    jobs, as_json = asked_for(arguments)
    runs = Runs(as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runs.do_all(jobs)
    except KeyboardInterrupt:
        return SUCCESS
    return FAILURE if runs.failed else SUCCESS


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(exit_code)  # to free what a large network holds would take seconds
