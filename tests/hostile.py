"""Somebody who speaks the protocol and means harm; and what it must not achieve."""

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

from helpers import wait_until
from link import Connection, dial
from messages import (
    PROTOCOL_VERSION,
    Address,
    Bye,
    Echo,
    Have,
    Hello,
    LivenessReply,
    LivenessRequest,
    Message,
    Probe,
    StreamKey,
    StreamName,
    Want,
    Wanted,
    Welcome,
    WireError,
)
from peer import Peer
from programs import Program, Programs, is_connected
from wire import Run

T = TypeVar("T")
Item = Message | Run

TIMEOUT_S = 30.0
LIVES_LONGEST = 1  # a boot time before everybody's: who has it is the root


class Insider:
    """A neighbour of one peer, driven by the test. It listens, echoes, and answers for its life."""

    def __init__(self, victim: Program | Peer, boot_ms: int = 1 << 62, reads: bool = True) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.stream = StreamName(self.address, boot_ms)
        self.heard: list[Item] = []  # whatever the victim sent; only one thread adds to it
        self._upto: dict[StreamKey, int] = {}
        self.is_over = threading.Event()
        self.connection = dial(Address.parse(victim.address), TIMEOUT_S, trust=None)
        hello = Hello(PROTOCOL_VERSION, self.address, boot_ms, 0, False, self.stream.key)
        welcome = self.connection.ask(hello, TIMEOUT_S)
        assert isinstance(welcome, Welcome), f"not let in: {welcome}"
        self.connection.socket.settimeout(None)
        self._threads = [threading.Thread(target=self._echo)]
        self._threads += [threading.Thread(target=self._read)] if reads else []
        for thread in self._threads:
            thread.start()

    def say(self, *items: Item) -> None:
        """Send this, whatever it is. Raises OSError once the victim has parted."""
        self.connection.send(items)

    def send_bytes(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it may part in the middle
            self.connection.socket.sendall(data)

    def of(self, kind: type[T]) -> list[T]:
        """What the victim sent, of that kind."""
        return [item for item in list(self.heard) if isinstance(item, kind)]

    def last_words(self) -> str:
        """Why the victim parted, once it has."""
        assert self.is_over.wait(TIMEOUT_S), "it still holds the link"
        return self.of(Bye)[-1].reason

    def _read(self) -> None:
        """Take in what comes, and show life, until the link ends."""
        with contextlib.suppress(OSError, WireError):
            for items in self.connection.frames():
                self.heard += items
                for item in items:
                    self._answer(item)
        self.is_over.set()

    def _answer(self, item: Item) -> None:
        """Show life, and ask for whatever the victim has; so the test hears all there is."""
        match item:
            case LivenessRequest(number):
                self.say(LivenessReply(number, digest=0, links=4, heard=0))
            case Run(stream, _, last):
                self._upto[stream] = max(last, self._upto.get(stream, 0))
            case Have(holdings):
                behind = [h.stream for h in holdings if h.upto > self._upto.get(h.stream, 0)]
                if behind:
                    self.say(Want(tuple(Wanted(key, self._upto.get(key, 0)) for key in behind)))

    def _echo(self) -> None:
        """Give whoever tries the address an echo, until closed."""
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self._listener.accept()[0])
                with contextlib.suppress(OSError, WireError):
                    match connection.receive_one(2.0):
                        case Probe(number):
                            connection.send([Echo(number)])
                connection.close()

    def close(self) -> None:
        self.connection.abort()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        self.connection.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlackHoles:
    """Addresses that take connections and never say a word."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.addresses = [Address("127.0.0.1", s.getsockname()[1]) for s in self._sockets]

    def close(self) -> None:
        for listener in self._sockets:
            listener.close()


class Honest:
    """A network of honest programs, and what must hold of it whatever anybody does."""

    MOST_THREADS = 400  # those of 12 links and of all that may be half open
    MOST_GROWTH_BYTES = 300 << 20  # history, inbox and events each have their bounds

    def __init__(self, programs: Programs, count: int = 3) -> None:
        self.programs = programs
        self.seed, self.peers = programs.network(count)
        self._sizes = {program.name: memory_bytes(program) for program in self.all()}
        self._said: dict[str, list[bytes]] = {peer.address: [] for peer in self.peers}

    def all(self) -> list[Program]:
        return [self.seed, *self.peers]

    def say(self, *texts: str) -> None:
        """Every honest peer says this."""
        for peer in self.peers:
            peer.say(*texts)
            self._said[peer.address] += [text.encode() for text in texts]

    def check(self) -> None:
        """All live, hear everything that honest ones say, once and in order; nobody grew."""
        self.say(*(f"all is well {number}" for number in range(20)))
        for peer in self.peers:
            for origin in self.peers:
                said = self._said[origin.address]
                if origin is not peer:
                    peer.wait_for("message", origin=origin.address, count=len(said), timeout_s=60)
                    heard = [payload for _, _, payload in peer.heard(origin.address)]
                    assert heard == said, f"{peer.name} heard {len(heard)} of {origin.name}"
        honest = {peer.address for peer in self.peers}
        for program in self.all():
            assert program.process.poll() is None, f"{program.name} has ended"
            assert program.all("error") == []
            assert threads(program) <= self.MOST_THREADS
            assert memory_bytes(program) - self._sizes[program.name] <= self.MOST_GROWTH_BYTES
        for peer in self.peers:
            assert {event["neighbour"] for event in peer.all("dead")}.isdisjoint(honest)
        assert {event["peer"] for event in self.seed.all("peer_removed")}.isdisjoint(honest)
        wait_until(lambda: is_connected(self.peers), what="one network of the honest")


def memory_bytes(program: Program) -> int:
    """What the process takes of real memory now."""
    pages = Path(f"/proc/{program.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def threads(program: Program) -> int:
    """How many threads the process has now."""
    return len(list(Path(f"/proc/{program.process.pid}/task").iterdir()))


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """Let this process open as many sockets as the system allows it, for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
