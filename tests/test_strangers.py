"""Whoever dials a port and is no peer: refused, and nobody else notices."""

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from helpers import let_pass, wait_until
from programs import Program, Programs

SEED = 20261122  # of the random bytes; the same on every run
HANDSHAKE_LIMIT_S = 5

HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OPENINGS = {
    "http": HTTP,
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(193),
    "zeros": bytes(10_000),
    "ones": b"\xff" * 10_000,
    "the greatest length": struct.pack(">I", 0xFFFF_FFFF) + b"x" * 100,
    "a length of nothing": struct.pack(">I", 0) * 1000,
    "half a length": b"\x00\x00",
    "json": b'{"event": "dead"}\n' * 100,
    "deep json": b"[" * 100_000,
    "text": "Grüße\n".encode() * 1000,
    "the old protocol": b"alive?:1700000000.0:127.0.0.1:6001\n",
}


@pytest.fixture(params=["seed", "peer"])
def victim(request: pytest.FixtureRequest, programs: Programs) -> Iterator[Program]:
    """One program of a network of three that must go on as if nothing were; checked afterwards."""
    seed, [first, second] = programs.network(2)
    for peer in (first, second):
        seed.wait_for("peer_registered", peer=peer.address)
    yield seed if request.param == "seed" else first
    assert {seed.process.poll(), first.process.poll(), second.process.poll()} == {None}
    second.say("all is well")
    first.wait_for("message", text="all is well")
    newcomer = programs.peer()
    newcomer.wait_for("message", text="all is well")
    for peer in (first, second):
        assert peer.all("dead") == []
    assert seed.all("peer_removed") == []


def dial(victim: Program) -> socket.socket:
    return socket.create_connection(("127.0.0.1", victim.port), timeout=20)


def is_closed(stranger: socket.socket) -> bool:
    """Whether the other side has ended the connection; what it says before is thrown away."""
    try:
        while stranger.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("opening", OPENINGS)
def test_bytes_that_are_no_protocol_end_the_connection(victim: Program, opening: str) -> None:
    with dial(victim) as stranger:
        stranger.sendall(OPENINGS[opening])
        assert is_closed(stranger)


def test_random_bytes_end_the_connection(victim: Program) -> None:
    chance = random.Random(SEED)
    for _ in range(30):
        with dial(victim) as stranger:
            stranger.sendall(chance.randbytes(chance.randrange(1, 5000)))
            stranger.shutdown(socket.SHUT_WR)
            assert is_closed(stranger)


def test_whoever_says_nothing_is_not_kept(victim: Program) -> None:
    with dial(victim) as stranger:
        stranger.settimeout(HANDSHAKE_LIMIT_S + 15)
        assert is_closed(stranger)


def test_whoever_dials_and_hangs_up_is_no_event(victim: Program) -> None:
    before = victim.mark()
    for _ in range(50):
        dial(victim).close()
    let_pass(0.5)
    assert victim.all("neighbour_up", after=before) == []
    assert victim.all("peer_registered", after=before) == []


def test_many_silent_connections_keep_nobody_out(victim: Program, programs: Programs) -> None:
    strangers = [dial(victim) for _ in range(200)]
    try:
        newcomer = programs.peer()
        newcomer.wait_for("neighbour_up")
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_flood_of_garbage_is_survived(victim: Program) -> None:
    with dial(victim) as stranger:
        try:
            for _ in range(200):
                stranger.sendall(bytes(100_000))
        except OSError:
            return  # refused, as it should be
        wait_until(lambda: is_closed(stranger), what="the end of the connection")
