"""Measure many at once: `python3 benchmarks/many.py`.

`crowd`: 200 peers in one process. `seed`: one seed that 3,000 peers are registered with, while
others register 1,000 times a second.
"""

import argparse
import itertools
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from figures import percentile, shown
from helpers import wait_until
from machine import Row, cpu_s, peak_rss_kib, reporting, rss_kib
from messages import Address, Bye, PeerList, Register
from peer import Message, Peer
from programs import Programs
from seed import Seed
from wire import encode, type_of_kind

PATIENCE_S = 120.0
SWITCH = "how long a thread may run while others wait (0.1; Python's own default is 0.005)"
CLIENTS = 8  # threads that register peers
CHURN_S = 10.0  # how long others register meanwhile
PORT = 6000  # of every registered peer; nobody listens there, so a seed that tries it is refused


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
        yield row("peers in one process", count, "")
        began_s = time.monotonic()
        for peer in peers:
            peer.start()
        wait_for(lambda: is_one_network(peers), "one network")
        yield row("all started and one network", time.monotonic() - began_s, "s")
        began_s = time.monotonic()
        for peer in peers:
            peer.broadcast(b"hello from a crowd")
        wait_for(lambda: min(heard) == count - 1, "every message at every peer")
        passed_s = time.monotonic() - began_s
        yield row("every peer heard a message of every other", passed_s, "s")
        yield row("deliveries", count * (count - 1) / passed_s, "per second")
        yield row("threads", threading.active_count() - threads_before, "")
        yield row("memory of the process", rss_kib(os.getpid()) / 1024, "MiB")
        began_s = time.monotonic()
        with ThreadPoolExecutor(count) as stopping:
            list(stopping.map(Peer.stop, peers))
        yield row("all stopped at once", time.monotonic() - began_s, "s")
    wait_for(lambda: threading.active_count() <= threads_before, "the end of all threads")
    yield row("threads left behind", threading.active_count() - threads_before, "")


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
    """A seed with thousands of peers on its list, and a stream of further registrations."""
    allow_open_files(2 * options.registered + 100)
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
    yield row("memory of a seed that nobody knows", rss_kib(pid) / 1024, "MiB")
    began_s, spent_s = time.monotonic(), cpu_s(pid)
    with ThreadPoolExecutor(CLIENTS) as clients:
        held = list(clients.map(lambda n: register(address, n), range(options.registered)))
    passed_s = time.monotonic() - began_s
    yield row("peers registered, and connected still", len(held), "")
    yield row("they registered", len(held) / passed_s, "per second")
    yield row("processor time of the seed for it", (cpu_s(pid) - spent_s) / passed_s * 100, "%")
    yield row("memory of the seed then", rss_kib(pid) / 1024, "MiB")

    spent_s, began_s = cpu_s(pid), time.monotonic()
    delays_s = churn(address, options)
    passed_s = time.monotonic() - began_s
    yield row("further registrations asked for", options.rate, "per second")
    yield row("further registrations made", len(delays_s) / passed_s, "per second")
    yield row("one took, p50", percentile(delays_s, 50) * 1000, "ms")
    yield row("one took, p99", percentile(delays_s, 99) * 1000, "ms")
    yield row("processor time of the seed for it", (cpu_s(pid) - spent_s) / passed_s * 100, "%")
    yield row("most memory the seed ever held", peak_rss_kib(pid) / 1024, "MiB")
    for link, _ in held:
        link.close()


def churn(seed: Address, options: argparse.Namespace) -> list[float]:
    """Others come at the wanted rate, and leave at once; how long each waited to be registered."""
    numbers = itertools.count(options.registered)
    began_s = time.monotonic()
    total = int(options.rate * CHURN_S)

    def come_and_go(index: int) -> float:
        due_s: float = began_s + index / options.rate
        time.sleep(max(0.0, due_s - time.monotonic()))
        link, listed_s = register(seed, next(numbers))
        link.sendall(encode(Bye("leaving", is_leaving=True)))
        link.close()
        return listed_s - due_s

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(come_and_go, range(total)))


def register(seed: Address, number: int) -> tuple[socket.socket, float]:
    """Register a peer that seems to have a machine of its own; its connection, and when it was.

    The list that it answers with is read and not understood: the machine is left to the seed.
    """
    host = f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"
    link = socket.create_connection(seed, PATIENCE_S, source_address=(host, 0))
    link.sendall(encode(Register(Address(host, PORT), time.time_ns() // 1_000_000)))
    with link.makefile("rb") as answer:
        size = int.from_bytes(answer.read(4), "big")
        kind = type_of_kind.get(answer.read(1)[0])
        assert kind is PeerList, f"expected a list of peers, got {kind}"
        answer.read(size - 1)
    return link, time.monotonic()


def allow_open_files(count: int) -> None:
    """As many as this process and the seed, which inherits the limit, will have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


# ---- the command

MEASUREMENTS = {"crowd": crowd, "seed": seed}


def row(what: str, value: float, unit: str) -> Row:
    return {"what": what, "value": value, "unit": unit}


def wait_for(predicate: Callable[[], bool], what: str) -> None:
    wait_until(predicate, what=what, timeout_s=PATIENCE_S)


def main(arguments: list[str]) -> int:
    """Measure what is named, print the table, write the JSON."""
    options = parsed(arguments)
    rows: list[Row] = []
    with reporting(options.json, arguments, rows):
        for name in options.names:
            for row in MEASUREMENTS[name](options):
                rows.append(row)
                print(f"{row['what']:<58} {shown(row['value']):>10} {row['unit']}", flush=True)
    return 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(MEASUREMENTS)}")
    add("--crowd", type=int, default=200, metavar="N", help="peers in one process (200)")
    add("--switch", type=float, default=0.1, metavar="SECONDS", help=f"of the crowd: {SWITCH}")
    add("--registered", type=int, default=3000, metavar="N", help="peers at the seed (3000)")
    add("--rate", type=int, default=1000, metavar="N", help="further registrations a second (1000)")
    add("--json", metavar="FILE", help="also write every figure there")
    options = parser.parse_args(arguments)
    options.names = options.names or list(MEASUREMENTS)
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"{name!r}: expected any of {', '.join(MEASUREMENTS)}")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
