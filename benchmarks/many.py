"""Measure many at once: `python3 benchmarks/many.py`.

`traffic`: what a peer sends its neighbours, at rest and for each message. `crowd`: 200 peers in one
process. `seed`: one seed that 3,000 peers are registered with, while others register 1,000 times a
second.
"""

import argparse
import math
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import named
from figures import percentile
from helpers import wait_until
from link import ask
from machine import Row, cpu_s, let_pass, peak_rss_kib, rss_kib
from messages import Address, ListPeers
from peer import Message, Peer
from programs import Programs
from seed import Seed
from village import Inhabitant, Schedule, Village
from wire import encode

PATIENCE_S = 120.0
FEW = 16  # peers whose traffic is measured
SETTLE_S = 10.0  # until their links and their tree have come to rest
PAYLOAD_BYTES = 100
SWITCH = "how long a thread may run while others wait (0.1; Python's own default is 0.005)"
VILLAGES = 2  # processes full of peers that register
COMERS = 5_000  # that register after the first, and leave at once

Act = Callable[[Inhabitant], None]


# ---- what travels


def traffic(options: argparse.Namespace) -> Iterator[Row]:
    """What a peer sends its neighbours: at rest, and for each message that somebody says."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        seed = stack.enter_context(Seed(port=0, config=f"{folder}/config.txt", log=None))
        peers = [Peer(seeds=[seed.address], log=None) for _ in range(FEW)]
        for peer in peers:
            stack.enter_context(peer)
        wait_for(lambda: is_one_network(peers), "one network")
        let_pass(SETTLE_S)
        rest = sent_per_s(peers, options.seconds)
        yield named.figure(
            f"a peer of {FEW} sends its neighbours, at rest", rest, "bytes per second"
        )
        links = [len(peer.neighbours()) for peer in peers]
        yield named.figure("over so many links", sum(links) / len(links), "")
        for per_s in (1, 100):
            stopping = threading.Event()
            payload = bytes(PAYLOAD_BYTES)
            speaker = threading.Thread(target=say, args=[peers[0], payload, per_s, stopping])
            speaker.start()
            before, began_s = peers[0].stats()["broadcast"], time.monotonic()
            sent = sent_per_s(peers, options.seconds)
            said = peers[0].stats()["broadcast"] - before
            said_per_s = said / (time.monotonic() - began_s)
            stopping.set()
            speaker.join()
            what = f"and for each message of {PAYLOAD_BYTES} bytes, at {per_s} a second"
            yield named.figure(what, (sent - rest) / said_per_s, "bytes")


def say(peer: Peer, payload: bytes, per_s: float, stopping: threading.Event) -> None:
    """Say it at that rate until told to stop."""
    while not stopping.wait(1 / per_s):
        peer.broadcast(payload)


def sent_per_s(peers: list[Peer], seconds: float) -> float:
    """Bytes that one peer sends its neighbours in a second, on average over all of them."""
    before = [sent_bytes(peer) for peer in peers]
    passed_s = let_pass(seconds)
    sent = sum(
        now.get(link, 0) - then.get(link, 0)
        for then, now in zip(before, map(sent_bytes, peers), strict=True)
        for link in now
    )
    return sent / passed_s / len(peers)


def sent_bytes(peer: Peer) -> dict[tuple[str, int], int]:
    """What the kernel has sent on each link: by neighbour and descriptor."""
    found = {}
    for neighbour, link in peer.sockets_to_peers.items():
        info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
        found[neighbour, link.fileno()] = int.from_bytes(info[120:128], sys.byteorder)
    return found


# ---- 200 peers in one process


def crowd(options: argparse.Namespace) -> Iterator[Row]:
    """Peers of one process join, each says something, all hear all, all stop."""
    sys.setswitchinterval(options.switch)
    count = options.crowd
    threads_before = threading.active_count()
    with (
        tempfile.TemporaryDirectory() as folder,
        Seed(port=0, config=f"{folder}/config.txt", log=None) as seed,
    ):
        heard = [0] * count
        peers = [Peer(seeds=[seed.address], log=None) for _ in range(count)]
        for number, peer in enumerate(peers):
            peer.on_message(partial(count_one, heard, number))
        yield named.figure("peers in one process", count, "")
        began_s = time.monotonic()
        for peer in peers:
            peer.start()
        wait_for(lambda: is_one_network(peers), "one network")
        yield named.figure("all started and one network", time.monotonic() - began_s, "s")
        began_s = time.monotonic()
        for peer in peers:
            peer.broadcast(b"hello from a crowd")
        wait_for(lambda: min(heard) == count - 1, "every message at every peer")
        passed_s = time.monotonic() - began_s
        yield named.figure("every peer heard a message of every other", passed_s, "s")
        yield named.figure("deliveries", count * (count - 1) / passed_s, "per second")
        yield named.figure("threads", threading.active_count() - threads_before, "")
        yield named.figure("memory of the process", rss_kib(os.getpid()) / 1024, "MiB")
        began_s = time.monotonic()
        with ThreadPoolExecutor(count) as stopping:
            list(stopping.map(Peer.stop, peers))
        yield named.figure("all stopped at once", time.monotonic() - began_s, "s")
    wait_for(lambda: threading.active_count() <= threads_before, "the end of all threads")
    yield named.figure("threads left behind", threading.active_count() - threads_before, "")


def count_one(counts: list[int], number: int, _: Message) -> None:
    counts[number] += 1  # only that peer's own thread does


def is_one_network(peers: list[Peer]) -> bool:
    """Whether every peer is reached from the first, over links."""
    links = {peer.address: peer.neighbours() for peer in peers}
    seen: set[str] = set()
    ahead = [peers[0].address]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += links.get(here, [])
    return len(seen) == len(peers)


# ---- a seed under load


def seed(options: argparse.Namespace) -> Iterator[Row]:
    """A seed with thousands of peers on its list, that renew, and a stream of newcomers."""
    allow_open_files(2 * options.registered + 1000)
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder))
        try:
            yield from seed_load(programs, options)
        finally:
            faults = programs.close()
    for fault in faults:
        print(fault, file=sys.stderr)


def seed_load(programs: Programs, options: argparse.Namespace) -> Iterator[Row]:
    seed = programs.seed("--log", "/dev/null")
    pid, address = seed.process.pid, Address.parse(seed.address)
    count = options.registered
    yield named.figure("memory of a seed that nobody knows", rss_kib(pid) / 1024, "MiB")
    with ExitStack() as stack:
        villages = [stack.enter_context(Village(address)) for _ in range(VILLAGES)]

        def load(what: str, act: Act, numbers: range, per_s: float) -> Iterator[Row]:
            began_s, spent_s = time.monotonic(), cpu_s(pid)
            delays_s = all_do(villages, act, numbers, per_s)
            passed_s, spent_s = time.monotonic() - began_s, cpu_s(pid) - spent_s
            yield named.figure(f"{what} made", len(delays_s) / passed_s, "per second")
            yield named.figure(f"{what}: one took, p50", percentile(delays_s, 50) * 1000, "ms")
            yield named.figure(f"{what}: one took, p99", percentile(delays_s, 99) * 1000, "ms")
            cost_us = spent_s / len(delays_s) * 1e6
            yield named.figure(f"{what}: processor time of the seed for one", cost_us, "µs")

        yield from load("first registrations", Inhabitant.register, range(count), math.inf)
        wait_for(lambda: len(seed.all("peer_registered")) == count, "the last registration")
        listed = max(event["peers"] for event in seed.all("peer_registered"))
        yield named.figure("peers on the list, and connected", listed, "")
        yield named.figure("memory of the seed then", rss_kib(pid) / 1024, "MiB")
        answer = encode(ask(address, ListPeers(), PATIENCE_S, None))
        yield named.figure("bytes of its answer to each", len(answer), "bytes")
        yield named.figure(
            "renewals, and further registrations asked for", options.rate, "per second"
        )
        yield from load("renewals", Inhabitant.renew, range(count), options.rate)
        comers = range(count, count + COMERS)
        yield from load("further registrations", Inhabitant.visit, comers, options.rate)
        yield named.figure("most memory the seed ever held", peak_rss_kib(pid) / 1024, "MiB")


def all_do(villages: list[Village], act: Act, numbers: range, per_s: float) -> list[float]:
    """Have the peers do it at that rate; gives how long each waited for its answer."""
    began_s, interval_s = time.monotonic(), len(villages) / per_s
    working = [
        village.begin(act, Schedule(numbers[n :: len(villages)], began_s, interval_s))
        for n, village in enumerate(villages)
    ]
    return [delay_s for done in working for delay_s in done.result(PATIENCE_S)]


def allow_open_files(count: int) -> None:
    """As many as this process and the seed, which inherits the limit, will have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


# ---- the command

MEASUREMENTS = {"traffic": traffic, "crowd": crowd, "seed": seed}


def wait_for(predicate: Callable[[], bool], what: str) -> None:
    wait_until(predicate, what=what, timeout_s=PATIENCE_S)


def main(arguments: list[str]) -> int:
    """Measure what is named, print the table, write the JSON."""
    parser = named.parser(__doc__, MEASUREMENTS)
    add = parser.add_argument
    add("--seconds", type=float, default=30, help="how long each traffic is watched (30)")
    add("--crowd", type=int, default=200, metavar="N", help="peers in one process (200)")
    add("--switch", type=float, default=0.1, metavar="SECONDS", help=f"of the crowd: {SWITCH}")
    add("--registered", type=int, default=3000, metavar="N", help="peers at the seed (3000)")
    add("--rate", type=int, default=1000, metavar="N", help="further registrations a second (1000)")
    options = named.parsed(parser, arguments, MEASUREMENTS)
    if options.seconds < 3:
        parser.error("--seconds: expected at least 3, to see a few messages at 1 a second")
    return named.take(MEASUREMENTS, options, named.FIGURE_LINE, __file__, arguments)


if __name__ == "__main__":
    named.run(main)
