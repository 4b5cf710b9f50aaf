"""A socket under TLS that two threads share: every byte once and in order, whoever else is busy."""

import contextlib
import itertools
import random
import socket
import subprocess
import threading
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest

import link
import tls
from helpers import PATIENCE_S
from link import Connection
from tls import Certificate, NotTrusted, TlsSocket, plain_name
from trust import Trust

SEED = 20261122
TIMEOUT_S = 20.0

Pair = tuple[TlsSocket, TlsSocket]


class Sockets:
    """Connected sockets, and threads on them; all ended after the test."""

    def __init__(self, folder: Path) -> None:
        self.trust = Trust(str(folder))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def plain(self) -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair()
        self._open += ends
        return ends

    def shaken(self) -> Pair:
        """Two ends that trust each other."""
        return self.secured(*self.plain())

    def secured(self, near: socket.socket, far: socket.socket) -> Pair:
        accepted: list[TlsSocket] = []
        accepting = self.run(lambda: accepted.append(self.trust.accept(far).shake_hands(TIMEOUT_S)))
        dialled = self.trust.connect(near).shake_hands(TIMEOUT_S)
        accepting.join(TIMEOUT_S)
        for end in (near, far):
            end.settimeout(TIMEOUT_S)
        return dialled, accepted[0]

    def run(self, target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=target)
        self._threads.append(thread)
        thread.start()
        return thread

    def keep(self, end: socket.socket) -> None:
        self._open.append(end)

    def close(self) -> None:
        for end in self._open:
            end.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


@pytest.fixture
def sockets(certificate: Path) -> Iterator[Sockets]:
    made = Sockets(certificate)
    yield made
    made.close()


def received(end: TlsSocket, count: int, space_bytes: int = 1 << 18) -> bytes:
    """So many bytes, read into spaces of that size."""
    data, space = bytearray(), memoryview(bytearray(space_bytes))
    while len(data) < count:
        got = end.recv_into(space)
        assert got, f"ended after {len(data)} bytes"
        data += space[:got]
    return bytes(data)


# ---- every byte once and in order


def test_millions_of_numbers_go_both_ways_at_once_and_none_is_lost_or_moved(
    sockets: Sockets,
) -> None:
    """Four threads, two on each end; each way 60,000 sends of all sizes, and more TLS records."""
    numbers = array("Q", range(3_000_000)).tobytes()
    heard: dict[int, bytes] = {}

    def say(end: TlsSocket, seed: int) -> None:
        chance, at = random.Random(seed), 0
        while at < len(numbers):
            size = chance.randrange(1, 400) if chance.random() < 0.999 else 300_000
            end.sendall(numbers[at : at + size])
            at += size

    def hear(end: TlsSocket, space_bytes: int) -> None:
        heard[id(end)] = received(end, len(numbers), space_bytes)

    ends = sockets.shaken()
    threads = [
        sockets.run(partial(say, ends[0], SEED)),
        sockets.run(partial(say, ends[1], SEED + 1)),
        sockets.run(partial(hear, ends[0], 1 << 18)),
        sockets.run(partial(hear, ends[1], 10_007)),
    ]
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [heard.get(id(end)) == numbers for end in ends] == [True, True]


@pytest.mark.parametrize("space_bytes", [1, 7, 16_384, 16_385, 1 << 20])
def test_whatever_space_it_is_read_into_nothing_is_left_behind(
    sockets: Sockets, space_bytes: int
) -> None:
    near, far = sockets.shaken()
    data = random.Random(SEED).randbytes(40_000)
    near.sendall(data)
    assert received(far, len(data), space_bytes) == data


def test_who_receives_is_not_held_up_by_who_cannot_send(sockets: Sockets) -> None:
    near, far = sockets.shaken()
    flood = sockets.run(lambda: near.sendall(bytes(1 << 25)))  # nobody reads that yet
    far.sendall(b"good morning")
    assert received(near, 12) == b"good morning"
    assert flood.is_alive()
    received(far, 1 << 25)
    flood.join(TIMEOUT_S)
    assert not flood.is_alive()


# ---- the end


def test_who_has_said_its_last_is_read_to_the_end(sockets: Sockets) -> None:
    near, far = sockets.shaken()
    near.sendall(b"bye")
    near.finish_sending()
    assert received(far, 3) == b"bye"
    assert far.recv_into(memoryview(bytearray(10))) == 0


def test_what_comes_after_ones_last_words_is_thrown_away(sockets: Sockets) -> None:
    near, far = sockets.shaken()
    far.sendall(b"one" * 1000)
    near.finish_sending()
    far.sendall(b"two")
    far.finish_sending()
    assert near.recv_into(memoryview(bytearray(10))) == 0


def test_a_cut_is_not_taken_for_a_goodbye(sockets: Sockets) -> None:
    plain_near, plain_far = sockets.plain()
    near, far = sockets.secured(plain_near, plain_far)
    near.sendall(b"half")
    plain_near.shutdown(socket.SHUT_RDWR)
    assert received(far, 4) == b"half"
    with pytest.raises(ConnectionResetError):
        far.recv_into(memoryview(bytearray(10)))


def test_a_record_that_was_changed_on_the_way_ends_it(sockets: Sockets) -> None:
    plain_near, plain_far = sockets.plain()
    near, far = sockets.secured(plain_near, plain_far)
    near.sendall(b"pay 1 to anna")
    record = bytearray(plain_far.recv(1000))
    record[10] ^= 1
    plain_near.sendall(record)
    with pytest.raises(ConnectionAbortedError, match="bad record mac"):
        far.recv_into(memoryview(bytearray(100)))


def test_a_record_that_comes_again_ends_it(sockets: Sockets) -> None:
    plain_near, plain_far = sockets.plain()
    near, far = sockets.secured(plain_near, plain_far)
    near.sendall(b"pay 1 to anna")
    record = plain_far.recv(1000, socket.MSG_PEEK)
    assert received(far, 13) == b"pay 1 to anna"
    plain_near.sendall(record)
    with pytest.raises(ConnectionAbortedError, match="bad record mac"):
        far.recv_into(memoryview(bytearray(100)))


def test_it_is_ended_from_another_thread_with_the_reason(sockets: Sockets) -> None:
    near, _ = sockets.shaken()
    reasons: list[str] = []

    def hear() -> None:
        try:
            near.recv_into(memoryview(bytearray(10)))
        except NotTrusted as error:
            reasons.append(str(error))

    reader = sockets.run(hear)
    near.end(NotTrusted("enough"))
    reader.join(TIMEOUT_S)
    assert reasons == ["enough"]


# ---- shaking hands


def test_whoever_says_nothing_is_waited_for_as_long_as_agreed(sockets: Sockets) -> None:
    _, far = sockets.plain()
    with pytest.raises(TimeoutError):
        sockets.trust.accept(far).shake_hands(0.1)


class AlwaysOneMore:
    """A socket whose other side always has another byte, before any time-out of its own."""

    def __init__(self, data: bytes) -> None:
        self._data = itertools.chain(data, itertools.repeat(0))

    def recv_into(self, space: memoryview) -> int:
        space[0] = next(self._data)
        return 1

    def recv(self, count: int, flags: int = 0) -> bytes:
        taken = bytes([next(self._data)])
        if flags & socket.MSG_PEEK:
            self._data = itertools.chain(taken, self._data)
        return taken[:count]

    def sendall(self, data: bytes) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None  # its settings


def test_a_byte_now_and_then_buys_no_time(sockets: Sockets) -> None:
    tls = sockets.trust.accept(cast(socket.socket, AlwaysOneMore(HELLO_OF_TLS)))
    with pytest.raises(TimeoutError):
        tls.shake_hands(0.01)


HELLO_OF_TLS = bytes.fromhex("1603014000010000c40303") + bytes(0x4000)  # longer than anybody waits


def test_nor_does_it_in_a_message() -> None:
    connection = Connection(cast(socket.socket, AlwaysOneMore(b"\x00\x10\x00\x00")))
    with pytest.raises(TimeoutError):
        connection.receive_first(None, 0.01)


def test_whom_we_part_from_cannot_keep_us(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told why, and has time to read that; it goes on talking instead."""
    monkeypatch.setattr(link, "PARTING_TIMEOUT_S", 0.05)
    connection = Connection(cast(socket.socket, AlwaysOneMore(b"GET / HTTP/1.1")))
    with pytest.raises(NotTrusted, match="does not speak TLS"):
        connection.receive_first(sockets.trust, TIMEOUT_S)


# ---- new keys in the middle


class OpenSsl:
    """The `openssl` program, connected to one of our sockets: another's TLS beside ours."""

    def __init__(self, sockets: Sockets, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [
                    *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"),
                    *("-cert", "node.pem", "-key", "node.key", "-CAfile", "ca.pem"),
                ],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            accepted, _ = listener.accept()
        sockets.keep(accepted)
        self.ours = sockets.trust.accept(accepted).shake_hands(TIMEOUT_S)
        accepted.settimeout(TIMEOUT_S)

    def type(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        for line in lines:  # one at a time: it looks for commands at the beginning of what it reads
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """May be called twice."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def openssl(sockets: Sockets, certificate: Path) -> Iterator[OpenSsl]:
    started = OpenSsl(sockets, certificate)
    yield started
    started.close()


def wait_until_read(openssl: OpenSsl, text: bytes) -> None:
    """Read what it prints as far as this text."""
    assert openssl.process.stdout is not None
    while (line := openssl.process.stdout.readline()) and text not in line:
        pass
    assert text in line, f"it ended before {text!r}"


def ask_for_keys(openssl: OpenSsl) -> None:
    """Until the other side has had enough."""
    with contextlib.suppress(BrokenPipeError, ValueError, AssertionError):
        while True:
            openssl.type(b"K")
            wait_until_read(openssl, b"KEYUPDATE")


def test_new_keys_in_the_middle_change_nothing(openssl: OpenSsl) -> None:
    openssl.type(b"before")
    assert received(openssl.ours, 7) == b"before\n"
    for number in range(3):
        openssl.type(b"K")  # its command to ask for new keys, and to take some itself
        wait_until_read(openssl, b"KEYUPDATE")
        openssl.type(b"after %d" % number)
        assert received(openssl.ours, 8) == b"after %d\n" % number
        openssl.ours.sendall(b"answer %d\n" % number)
        wait_until_read(openssl, b"answer %d" % number)


def test_who_asks_for_new_keys_again_and_again_is_parted_from(
    openssl: OpenSsl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if our side could not send: the answers pile up, to a bound."""
    monkeypatch.setattr(tls, "MAX_UNSENT_BYTES", 1000)
    asking = threading.Thread(target=ask_for_keys, args=(openssl,))
    asking.start()
    with openssl.ours._sending, pytest.raises(ConnectionAbortedError, match="new keys"):
        openssl.ours.recv_into(memoryview(bytearray(10)))
    openssl.process.kill()
    asking.join(TIMEOUT_S)


# ---- names


def test_a_host_has_one_spelling() -> None:
    assert plain_name("Seed.Example.ORG.") == "seed.example.org"
    assert plain_name("0:0:0:0:0:0:0:1") == plain_name("::1") == "::1"
    assert plain_name("fe80::1%eth0") == "fe80::1"
    assert plain_name("127.0.0.1") != plain_name("localhost")


NAMES = frozenset({"192.0.2.10", "seed.example.org", "2001:db8::7"})


@pytest.mark.parametrize("host", ["192.0.2.10", "SEED.example.org", "2001:DB8:0::7"])
def test_a_certificate_is_for_the_hosts_it_names(host: str) -> None:
    Certificate(1, NAMES, 0.0).require(host)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "example.org", "a.seed.example.org", "*.example.org", "2001:db8::", ""]
)
def test_and_for_no_other(host: str) -> None:
    with pytest.raises(NotTrusted) as caught:
        Certificate(1, NAMES, 0.0).require(host)
    assert "192.0.2.10, 2001:db8::7, seed.example.org" in str(caught.value)
    assert caught.value.told.startswith("your certificate is not for")


def test_a_star_in_a_certificate_stands_for_nothing() -> None:
    with pytest.raises(NotTrusted):
        Certificate(1, frozenset({"*.example.org"}), 0.0).require("seed.example.org")
