"""Measure what a loaded network does to others: `python3 benchmarks/hardship.py`.

`flood`: all peers but one say 64 KiB as fast as they can; meanwhile the one says something small
now and then, and it is measured how long that takes, and how long a liveness reply and an echo
take. `slow`: one peer reads at 1 MB a second; how much later the others are.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import named
from conductor import network
from figures import percentile
from link import dial, try_address
from liveness import Tried
from machine import Row
from messages import (
    PROTOCOL_VERSION,
    Address,
    Hello,
    LivenessReply,
    LivenessRequest,
    Message,
    Mode,
    Progress,
    StreamKey,
    StreamName,
    Welcome,
)
from wire import Run
from workloads import WORKLOADS, Workload

LIMIT_S = 120.0
ASK_INTERVAL_S = 0.1  # between liveness requests, and between echoes
SMALL = Workload("small", count=200, size=100, per_s=20, is_timed=True)
BULK = Workload("bulk", count=300, size=64 << 10, speakers="others")


# ---- everybody says 64 KiB at once


def flood(options: argparse.Namespace) -> Iterator[Row]:
    """Small messages, liveness replies and echoes, in a quiet network and in a flooded one."""
    for what, workloads in (("quiet", [SMALL]), ("flooded", [SMALL, BULK])):
        with network(["ours"] * options.peers, sys.executable) as net:
            net.connect()
            addresses = [Address.parse(address) for address in net.addresses]
            with Observer(addresses[1]) as observer, echoes(addresses) as echoes_s:
                figures = net.measure_together(workloads, LIMIT_S)
        small = figures[0]
        yield named.figure(f"{what}: small message to each peer, p50", small["each_p50_ms"], "ms")
        yield named.figure(f"{what}: small message to each peer, p99", small["each_p99_ms"], "ms")
        yield named.figure(f"{what}: small messages missing", small["missing"], "")
        for name, delays_s in (("liveness reply", observer.delays_s), ("echo", echoes_s)):
            yield named.figure(f"{what}: {name}, p50", percentile(delays_s, 50) * 1000, "ms")
            yield named.figure(f"{what}: {name}, p99", percentile(delays_s, 99) * 1000, "ms")
            yield named.figure(f"{what}: {name}, longest", max(delays_s) * 1000, "ms")
        yield named.figure(f"{what}: liveness requests without a reply", observer.unanswered, "")
    bulk = figures[1]
    yield named.figure("flooded: deliveries of 64 KiB", bulk["deliveries_per_s"], "per second")
    yield named.figure("flooded: deliveries of 64 KiB missing", bulk["missing"], "")
    yield named.figure("flooded: most memory of a peer", bulk["peak_rss_mib"], "MiB")


class Observer:
    """A neighbour that takes all payload, says so, and asks for a sign of life all the time."""

    def __init__(self, peer: Address) -> None:
        self.delays_s: list[float] = []
        self._asked_s: list[float] = []  # by the request's number
        self._stopping = threading.Event()
        self._connection = dial(peer, timeout_s=5, trust=None)
        self._sending = threading.Lock()
        self._read_thread = threading.Thread(target=self._read, name="observer reads")
        self._ask_thread = threading.Thread(target=self._ask, name="observer asks")

    @property
    def unanswered(self) -> int:
        return len(self._asked_s) - len(self.delays_s)

    def __enter__(self) -> "Observer":
        me = StreamName(Address("127.0.0.1", 9), time.time_ns() // 1_000_000)
        hello = Hello(PROTOCOL_VERSION, *me, links=0, is_feeler=False, root=me.key)
        answer = self._connection.ask(hello, timeout_s=5)
        assert isinstance(answer, Welcome), f"not let in: {answer}"
        self._connection.send([Mode(wants_payload=True)])
        self._connection.socket.settimeout(None)
        self._read_thread.start()
        self._ask_thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._ask_thread.join()
        self._connection.abort()
        self._read_thread.join()
        self._connection.close()

    def _ask(self) -> None:
        """Ask until the observer is closed."""
        while not self._stopping.wait(ASK_INTERVAL_S):
            self._asked_s.append(time.monotonic())
            self._send([LivenessRequest(len(self._asked_s) - 1)])

    def _read(self) -> None:
        """Take whatever comes, until the connection ends."""
        for items in self._connection.frames():
            heard: dict[StreamKey, int] = {}
            for item in items:
                if isinstance(item, LivenessReply):
                    self.delays_s.append(time.monotonic() - self._asked_s[item.number])
                elif isinstance(item, Run):
                    heard[item.stream] = item.last
            with suppress(OSError):  # the end comes while we speak, too
                self._send([Progress(stream, upto) for stream, upto in heard.items()])

    def _send(self, messages: list[Message]) -> None:
        """Say these, whole: two threads say something here."""
        with self._sending:
            self._connection.send(messages)


@contextmanager
def echoes(addresses: list[Address]) -> Iterator[list[float]]:
    """While this lasts, each peer in turn is dialled afresh, as a witness would: the delays."""
    delays_s: list[float] = []
    stopping = threading.Event()

    def ask() -> None:
        number = 0
        while not stopping.wait(ASK_INTERVAL_S):
            began_s = time.monotonic()
            outcome = try_address(addresses[number % len(addresses)], timeout_s=10, trust=None)
            delays_s.append(time.monotonic() - began_s)
            assert outcome is Tried.ECHOED, f"a live peer gave no echo: {outcome}"
            number += 1

    thread = threading.Thread(target=ask, name="echoes")
    thread.start()
    try:
        yield delays_s
    finally:
        stopping.set()
        thread.join()


# ---- one that reads slowly


def slow(options: argparse.Namespace) -> Iterator[Row]:
    """How long the others take for workload c, with all peers alike and with one that is slow."""
    last = options.peers - 1
    cases = {
        "no peer is slow": None,
        "the last to join is slow": last,  # others hardly get anything through it
        "the second to join is slow": 1,  # a neighbour of the speaker, which many others chose
    }
    took_s: dict[str, list[float]] = {case: [] for case in cases}
    missing = 0
    for _ in range(options.repeat):
        for case, number in cases.items():
            systems = ["ours"] * options.peers
            if number is not None:
                systems[number] = "slow"
            with network(systems, sys.executable) as net:
                net.connect()
                figures = net.measure(WORKLOADS["c"], LIMIT_S, but=[1, last])
            took_s[case].append(figures["elapsed_s"])
            missing += figures["missing"]
    normal_s = statistics.median(took_s["no peer is slow"])
    for case, samples in took_s.items():
        median_s = statistics.median(samples)
        yield named.figure(f"workload c at the others, {case}, median", median_s, "s")
        yield named.figure(f"workload c at the others, {case}, longest", max(samples), "s")
        if cases[case] is not None:
            yield named.figure("so the median is later by", (median_s / normal_s - 1) * 100, "%")
    yield named.figure("missing at the others", missing, "")


# ---- the command

MEASUREMENTS = {"flood": flood, "slow": slow}


def main(arguments: list[str]) -> int:
    """Measure what is named, print the table, write the JSON."""
    parser = named.parser(__doc__, MEASUREMENTS)
    add = parser.add_argument
    add("--peers", type=int, default=16, metavar="N", help="size of the network (16)")
    add("--repeat", type=int, default=5, metavar="K", help="runs of each kind for `slow` (5)")
    options = named.parsed(parser, arguments, MEASUREMENTS)
    return named.take(MEASUREMENTS, options, named.FIGURE_LINE, __file__, arguments)


if __name__ == "__main__":
    named.run(main)
