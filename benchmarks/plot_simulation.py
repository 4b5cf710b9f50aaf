"""Take the figures of docs/simulation.md, and draw its plots from them.

    python3 benchmarks/plot_simulation.py measure    adds the runs that docs/simulation.jsonl lacks
    python3 benchmarks/plot_simulation.py draw       docs/*.svg; needs matplotlib (requirements.txt)

Each line of the file is one run, with the command that gives the same figures. A network is built
once for all that is tried on it: each trial is made in a copy of the process.
"""

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inhabitants import Onlooker, SimulatedPeer
from scenario import GLOMERS, GLOMERS_MODES, Experiment, GlomersWorkload, Setting
from streams import Gap
from wire import Run
from world import World

DOCS = Path(__file__).resolve().parent.parent / "docs"
RUNS = DOCS / "simulation.jsonl"
SEEDS = (1, 2, 3)
LARGE = 10_000
KILLED = (0.95, 0.9, 0.8, 0.5, 0.2)
SILENT = (0.9, 0.5)
WITHHELD = (0.1, 0.3)
SIZES = (10, 30, 100, 300)
SENDERS = (10, 100)  # beside one

Line = dict[str, Any]

# ---- what is tried -------------------------------------------------------------------------------


def trials() -> Iterator[tuple[str, Setting]]:
    """Every run, with the name of what it is for; those on the same network in a row.

    What is most telling comes first, for all of it takes hours.
    """
    for seed in SEEDS:
        yield from on_one_network(1000, seed)
        yield from (("size", Setting(peers=n, seed=seed)) for n in SIZES)
    for seed in SEEDS:
        yield "size", Setting(peers=3000, seed=seed)
        yield from (("silent", Setting(peers=3000, silent=f, seed=seed)) for f in SILENT)
    for seed in SEEDS:
        yield from on_one_network(LARGE, seed)


def on_one_network(size: int, seed: int) -> Iterator[tuple[str, Setting]]:
    """Everything that is tried on a network of that size."""
    yield "size", Setting(peers=size, seed=seed)
    yield from (("silent", Setting(peers=size, silent=f, seed=seed)) for f in SILENT)
    yield from (("withheld", Setting(peers=size, withhold=f, seed=seed)) for f in WITHHELD)
    yield from (("killed", Setting(peers=size, fail=f, messages=2, seed=seed)) for f in KILLED)
    yield from (("senders", Setting(peers=size, senders=k, seed=seed)) for k in SENDERS)
    yield "cut", Setting(peers=size, partition=0.5, senders=10, messages=10, seed=seed)


def command(setting: Setting) -> str:
    """The command that does the same run."""
    usual = Setting()
    words = ["python3 simulate.py"]
    for field in dataclasses.fields(setting):
        value = getattr(setting, field.name)
        if value != getattr(usual, field.name) or field.name in ("peers", "seed"):
            words.append(f"--{field.name} {value}")
    return " ".join(words)


# ---- measuring -----------------------------------------------------------------------------------


class Healing(Onlooker):
    """Counts, second tenth by second tenth, what is heard after a cut was healed."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.onlookers.append(self)
        self.heard_by: dict[float, int] = {}  # how many messages until then, since the cut began

    def heard(self, _: SimulatedPeer, item: Run | Gap, upto: int) -> None:
        if self._world.cut_s and not self._world.side:
            tenth = round(self._world.now_s - self._world.cut_s + 0.05, 1)
            count = item.last - max(item.first - 1, upto)
            self.heard_by[tenth] = self.heard_by.get(tenth, 0) + count


def measure() -> None:
    """Do the runs that are not in the file yet."""
    DOCS.mkdir(exist_ok=True)
    done = {line["command"] for line in lines()} if RUNS.exists() else set()
    for _, group in groupby(trials(), key=lambda trial: (trial[1].peers, trial[1].seed)):
        missing = [trial for trial in group if command(trial[1]) not in done]
        if missing:
            try_on_one_network(missing)
    play_glomers(done)


def play_glomers(done: set[str]) -> None:
    """The workload of the Gossip Glomers, without a cut and with one."""
    for seed in SEEDS:
        said = f"python3 simulate.py --workload glomers --seed {seed}"
        for cut in (0.0, 0.4):
            line = said + (f" --partition {cut}" if cut else "")
            if line not in done:
                for mode in GLOMERS_MODES:
                    setting = dataclasses.replace(GLOMERS, seed=seed, partition=cut)
                    add("glomers", line, GlomersWorkload(mode, setting).run(tell))


def try_on_one_network(missing: list[tuple[str, Setting]]) -> None:
    """Build the network that all of these trials need, and make each in a process of its own."""
    gc.disable()  # as simulate.py does; a collection would also copy every page
    experiment = Experiment(missing[0][1], tell)
    experiment.build()
    for name, setting in missing:
        child = os.fork()
        if not child:
            play(name, experiment, setting)
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"failed: {command(setting)}")


def play(name: str, experiment: Experiment, setting: Setting) -> None:
    """One trial on a network that is built."""
    experiment.setting = setting
    healing = Healing(experiment.world)
    result = experiment.play()
    rounds = [dataclasses.asdict(each) for each in experiment.figures_by_round()]
    more: Line = {"setting": dataclasses.asdict(setting), "rounds": rounds}
    if setting.partition:
        more["heard_by"] = sorted(healing.heard_by.items())
    add(name, command(setting), result, more)


def add(name: str, said: str, result: Line, more: Line | None = None) -> None:
    """Write a run down."""
    with RUNS.open("a", encoding="utf-8") as file:
        line = {"for": name, "command": said, "commit": commit(), "result": result, **(more or {})}
        file.write(json.dumps(line) + "\n")
    print(said, result, flush=True)


def commit() -> str:
    """Which version this is, if it is a checkout."""
    words = ["git", "-C", str(DOCS.parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def tell(_: str) -> None:
    """Nobody looks at the progress."""


def lines() -> list[Line]:
    """The runs of the file."""
    return [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()]


# ---- drawing -------------------------------------------------------------------------------------


def draw() -> None:
    """One plot for each question, with a point for every run."""
    import matplotlib as mpl  # noqa: PLC0415  # measuring does without it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "simulation"  # the same figures give the same file
    runs = lines()
    plot_killed([line for line in runs if line["for"] == "killed"])
    plot_sizes([line for line in runs if line["for"] == "size"])
    plot_senders([line for line in runs if line["for"] in ("size", "senders")])
    plot_healing([line for line in runs if line["for"] == "cut"])


def axes(across: str, up: str) -> Any:
    """An empty plot."""
    from matplotlib import pyplot  # noqa: PLC0415

    _, made = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    made.set(xlabel=across, ylabel=up)
    made.grid(alpha=0.3)
    return made


def save(made: Any, name: str) -> None:
    made.figure.savefig(DOCS / f"{name}.svg", metadata={"Date": None})


def sizes_of(runs: list[Line]) -> list[int]:
    return sorted({line["setting"]["peers"] for line in runs})


def plot_killed(runs: list[Line]) -> None:
    """Who hears what is said in the instant of the deaths, and what is said later."""
    made = axes("killed, % of the peers", "reached, % of the survivors (the worst run)")
    for size in sizes_of(runs):
        for number, told, mark in ((0, "in that instant", "o-"), (1, "afterwards", "x--")):
            worst: dict[float, float] = {}
            for line in runs:
                if line["setting"]["peers"] == size:
                    share = 100 * line["setting"]["fail"]
                    reached = 100 * line["rounds"][number]["reached"]
                    worst[share] = min(reached, worst.get(share, 100.0))
            made.plot(*zip(*sorted(worst.items()), strict=True), mark, label=f"{size}, {told}")
    made.set_ylim(0, 105)
    made.legend(title="peers, said")
    save(made, "killed")


def plot_sizes(runs: list[Line]) -> None:
    """How long the last peer waits, by the size of the network."""
    made = axes("peers", "last delivery, s")
    points = [(line["setting"]["peers"], line["result"]["last_delivery_s"]) for line in runs]
    made.plot(*zip(*sorted(points), strict=True), "o")
    made.set_xscale("log")
    made.set_ylim(0)
    save(made, "sizes")


def plot_senders(runs: list[Line]) -> None:
    """Copies beyond the one needed, by how many peers speak at once."""
    made = axes("senders at once", "copies beyond the one needed, per delivery")
    spoke = [line for line in runs if line["for"] == "senders"]
    for size in sizes_of(spoke):
        points = [
            (line["setting"]["senders"], line["result"]["rmr"])
            for line in runs
            if line["setting"]["peers"] == size
        ]
        made.plot(*zip(*sorted(points), strict=True), "o", label=f"{size} peers")
    made.axhline(0.05, color="grey", linestyle=":", label="the most that is promised")
    made.set_xscale("log")
    made.set_ylim(-0.002, 0.055)
    made.legend()
    save(made, "senders")


def plot_healing(runs: list[Line]) -> None:
    """How much of what was missed in a cut has come, by the time since it was healed."""
    made = axes("since the cut was healed, s", "of what was missed, % heard")
    for line in runs:
        setting, times, shares, heard = line["setting"], [0.0], [0.0], 0
        most = sum(count for _, count in line["heard_by"])
        for tenth, count in line["heard_by"]:
            heard += count
            times.append(tenth)
            shares.append(100 * heard / most)
        made.plot(times, shares, label=f"{setting['peers']} peers, seed {setting['seed']}")
    made.set_xlim(0)
    made.legend()
    save(made, "healing")


def main() -> None:
    """Do what is asked for."""
    tasks = {"measure": measure, "draw": draw}
    if len(sys.argv) != 2 or sys.argv[1] not in tasks:
        raise SystemExit("expected: measure, or draw")
    tasks[sys.argv[1]]()


if __name__ == "__main__":
    main()
