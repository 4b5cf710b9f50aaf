"""Thousands of peers, as a seed sees them: each has an address of its own, and gives an echo.

Each village is a process, so that nobody else is slowed. Its peers do no more than a seed can see:
the lists that they are answered are read, but not understood. All are of this machine: every
address that begins with 127 is.
"""

import multiprocessing
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

from link import Connection
from messages import Address, Bye, Echo, PeerList, Probe, Register
from wire import encode, type_of_kind

PATIENCE_S = 120.0
AT_ONCE = 16  # peers of a village that may wait for the seed at the same time
RECEIVE_BYTES = 64 << 10  # more than a list has


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which peers shall do something, and when."""

    numbers: range
    began_s: float  # on the clock that all processes of a machine share
    interval_s: float  # between one and the next; 0: as fast as it goes


class Village:
    """A process full of peers."""

    def __init__(self, seed: Address) -> None:
        spawned = multiprocessing.get_context("spawn")  # no copy of this process and its threads
        self._seed = seed
        self._process = ProcessPoolExecutor(1, spawned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def begin(
        self, act: Callable[["Inhabitant"], None], schedule: Schedule
    ) -> "Future[list[float]]":
        """Have each of them do it; gives how many seconds it took."""
        return self._process.submit(_all_do, act, self._seed, schedule)


class Inhabitant:
    """One of them, with an address of its own."""

    def __init__(self, number: int, seed: Address) -> None:
        self._host = f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"
        self._seed = seed

    def register(self) -> None:
        """Listen, connect, register, and give the echo that the seed asks for."""
        self._listener = socket.create_server((self._host, 0))
        self._listener.settimeout(PATIENCE_S)
        me = Address(self._host, self._listener.getsockname()[1])
        self._register = encode(Register(me, time.time_ns() // 1_000_000))
        source = (self._host, 0)
        self._link = socket.create_connection(self._seed, PATIENCE_S, source_address=source)
        self._link.sendall(self._register)
        self._give_echo()
        self._read_list()

    def renew(self) -> None:
        """Register again over the same connection; no echo is asked for then."""
        self._link.sendall(self._register)
        self._read_list()

    def visit(self) -> None:
        """Register, and leave as a peer does: listen no more, say goodbye, hang up."""
        self.register()
        self._listener.close()
        self._link.sendall(encode(Bye("leaving", is_leaving=True)))
        self._link.close()

    def _give_echo(self) -> None:
        connection = Connection(self._listener.accept()[0])
        probe = connection.receive_one(PATIENCE_S)
        assert isinstance(probe, Probe), f"expected a probe, got {probe!r:.80}"
        connection.send([Echo(probe.number)])
        connection.close()

    def _read_list(self) -> None:
        answer = self._link.recv(RECEIVE_BYTES)
        while len(answer) < 5 or len(answer) < 4 + int.from_bytes(answer[:4], "big"):
            more = self._link.recv(RECEIVE_BYTES)
            assert more, "the seed has hung up"
            answer += more
        kind = type_of_kind.get(answer[4])
        assert kind is PeerList, f"expected a list of peers, got {kind}"


_peers: dict[int, Inhabitant] = {}  # of this process, if it is a village


def _all_do(act: Callable[[Inhabitant], None], seed: Address, schedule: Schedule) -> list[float]:
    for number in schedule.numbers:
        _peers.setdefault(number, Inhabitant(number, seed))
    with ThreadPoolExecutor(AT_ONCE) as waiting:
        return list(waiting.map(partial(_does, act, schedule), schedule.numbers))


def _does(act: Callable[[Inhabitant], None], schedule: Schedule, number: int) -> float:
    """At its time, or as soon as another has done; gives how long it took."""
    due_s = schedule.began_s + schedule.numbers.index(number) * schedule.interval_s
    time.sleep(max(0.0, due_s - time.monotonic()))
    began_s = time.monotonic()
    act(_peers[number])
    return time.monotonic() - began_s
