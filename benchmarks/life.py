"""Measure the life of a network of the real programs: `python3 benchmarks/life.py`.

What a peer costs while nothing is said; how soon a killed and a stopped one are known to be dead;
that one that only pauses is not; how soon a newcomer is part of everything. Times come from the
programs' own `--json` events.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import named
from helpers import wait_until
from machine import Row, cpu_s, let_pass, rss_kib
from programs import Program, Programs, is_connected

SEEDS = 3
SETTLE_S = 10.0  # the links and the tree of a new network, before anything is measured
HISTORY = 1_000  # messages that a newcomer has to be given
PAUSE_S = 2.5
WATCH_S = 8.0  # after a pause: a verdict takes about 5 s
LINE = "{what:<54} median {median:>7}, worst {worst:>7} of {count:>2} {unit}"


class Network:
    """Seeds and peers, each its own process; what was killed is replaced."""

    def __init__(self, programs: Programs, peers: int, *arguments: object) -> None:
        self._programs = programs
        self.seeds = [programs.seed() for _ in range(SEEDS)]
        self.peers = programs.peers(peers, *arguments)
        wait_until(lambda: is_connected(self.peers), what="one network", timeout_s=120)
        let_pass(SETTLE_S)

    def replace(self, gone: Program) -> Program:
        """A new peer takes its place; returns it once it is one of the network."""
        self.peers.remove(gone)
        [newcomer] = self._programs.peers(1)
        self.peers.append(newcomer)
        wait_until(lambda: is_connected(self.peers), what="the newcomer's links")
        return newcomer

    def neighbours_of(self, peer: Program) -> list[Program]:
        return [other for other in self.peers if peer.address in other.neighbours()]

    def registered_at(self, peer: Program) -> list[Program]:
        return [seed for seed in self.seeds if seed.all("peer_registered", peer=peer.address)]


# ---- what a peer costs at rest


def rest(options: argparse.Namespace) -> Iterator[Row]:
    """Memory, and processor time of each peer while nobody types."""
    for gossip_every_s in (0, 5):
        with run_of(options.peers, "--gossip-every", gossip_every_s) as network:
            pids = [peer.process.pid for peer in network.peers]
            before_s = [cpu_s(pid) for pid in pids]
            passed_s = let_pass(options.seconds)
            spent = zip(pids, before_s, strict=True)
            shares = [(cpu_s(pid) - spent_s) / passed_s * 100 for pid, spent_s in spent]
            said = "a message each 5 s" if gossip_every_s else "nothing said"
            yield row(f"CPU of a peer at rest, {said}", "% of a core", shares)
            memory = [rss_kib(pid) / 1024 for pid in pids]
            yield row(f"memory of a peer at rest, {said}", "MiB", memory)


# ---- deaths


def crash(options: argparse.Namespace) -> Iterator[Row]:
    """How soon a killed process is known: to all its neighbours, and to the seeds."""
    with run_of(options.peers) as network:
        yield from deaths(network, options.repeat, "killed", lambda victim: victim.kill())


def hang(options: argparse.Namespace) -> Iterator[Row]:
    """How soon a stopped process is known, whose sockets all stay open."""
    with run_of(options.peers) as network:
        yield from deaths(network, options.repeat, "stopped", lambda victim: victim.pause())


def deaths(
    network: Network, repeat: int, how: str, strike: Callable[[Program], None]
) -> Iterator[Row]:
    first, last, seeds = [], [], []
    for _ in range(repeat):
        victim = network.peers[0]  # the oldest: the root of the tree above all
        address = victim.address
        bereaved = network.neighbours_of(victim)
        listing = network.registered_at(victim)
        struck_at = time.time()
        strike(victim)
        verdicts = [peer.wait_for("dead", neighbour=address)["at"] for peer in bereaved]
        removals = [seed.wait_for("peer_removed", peer=address)["at"] for seed in listing]
        first.append(min(verdicts) - struck_at)
        last.append(max(verdicts) - struck_at)
        seeds.append(max(removals) - struck_at)
        victim.kill()
        network.replace(victim)
        let_pass(1)
    yield row(f"{how} peer known to its first neighbour", "s", first)
    yield row(f"{how} peer known to all its neighbours", "s", last)
    yield row(f"{how} peer off the list of every seed", "s", seeds)


def pause(options: argparse.Namespace) -> Iterator[Row]:
    """Verdicts on a peer that was only stopped for a moment; there must be none."""
    verdicts = []
    with run_of(options.peers) as network:
        for _ in range(options.repeat):
            sleeper = network.peers[0]
            marks = {peer: peer.mark() for peer in [*network.peers, *network.seeds]}
            sleeper.pause()
            let_pass(PAUSE_S)
            sleeper.resume()
            let_pass(WATCH_S)
            events = ("dead", "peer_removed")
            found = [p.all(event, after=mark) for p, mark in marks.items() for event in events]
            verdicts.append(sum(map(len, found)))
            network.peers.append(network.peers.pop(0))
    yield row(f"false verdicts after a pause of {PAUSE_S:g} s", "", verdicts)


# ---- newcomers


def newcomer(options: argparse.Namespace) -> Iterator[Row]:
    """How soon a new peer listens, has a link, and has all that was said before it came."""
    listening, linked, complete = [], [], []
    with run_of(options.peers) as network:
        speaker = network.peers[0]
        speaker.say(*(f"message {number} of the past" for number in range(HISTORY)))
        for peer in network.peers[1:]:
            peer.wait_for("message", count=HISTORY)
        for _ in range(options.repeat):
            gone = network.peers[-1]
            gone.terminate()
            gone.wait()
            started_at = time.time()
            peer = network.replace(gone)
            listens_at = peer.wait_for("listening")["at"]
            listening.append(listens_at - started_at)
            linked.append(peer.wait_for("neighbour_up")["at"] - listens_at)
            complete.append(peer.wait_for("message", count=HISTORY)["at"] - listens_at)
    yield row("newcomer listens, after its start", "s", listening)
    yield row("newcomer has its first link, after that", "s", linked)
    yield row(f"newcomer has all {HISTORY:,} earlier messages, after that", "s", complete)


# ---- the command


MEASUREMENTS = {"rest": rest, "crash": crash, "hang": hang, "pause": pause, "newcomer": newcomer}


@contextmanager
def run_of(peers: int, *arguments: object) -> Iterator[Network]:
    """A network in a folder of its own; all of it is ended in the end."""
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder))
        try:
            yield Network(programs, peers, *arguments)
        finally:
            faults = programs.close()
    for fault in faults:
        print(fault, file=sys.stderr)


def row(what: str, unit: str, samples: list[float] | list[int]) -> Row:
    """One line of the table, with every sample for the JSON."""
    return {
        "what": what,
        "unit": unit,
        "median": statistics.median(samples),
        "worst": max(samples),
        "count": len(samples),
        "samples": samples,
    }


def main(arguments: list[str]) -> int:
    """Measure what is named, print the table, write the JSON."""
    parser = named.parser(__doc__, MEASUREMENTS)
    add = parser.add_argument
    add("--peers", type=int, default=16, help="size of the network (16)")
    add("--repeat", type=int, default=5, help="deaths, pauses and newcomers (5)")
    add("--seconds", type=float, default=60, help="how long a network at rest is watched (60)")
    options = named.parsed(parser, arguments, MEASUREMENTS)
    return named.take(MEASUREMENTS, options, LINE, __file__, arguments)


if __name__ == "__main__":
    named.run(main)
