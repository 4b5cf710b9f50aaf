"""Payloads of every kind and size, from many at once, through the Python API."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding import Embedded
from helpers import wait_until
from peer import Peer

LARGEST_BYTES = 1 << 20

Pair = tuple[Embedded, Peer, Peer]


def meshed(embedded: Embedded, count: int) -> list[Peer]:
    """As many peers, each joined to the first, once each has a neighbour."""
    first = embedded.peer()
    peers = [first, *(embedded.peer(join=[str(first.address)]) for _ in range(count - 1))]
    wait_until(lambda: all(peer.neighbours() for peer in peers), what="neighbours for all")
    return peers


@pytest.fixture
def pair(embedded: Embedded) -> Pair:
    """Two neighbours, and who knows what they hear."""
    speaker, listener = meshed(embedded, 2)
    return embedded, speaker, listener


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\n",
        bytes(range(256)),
        b"\xff" * 65_535,
        b"\x00" * 65_536,
        b"\r\n" * 32_769,
        bytes(LARGEST_BYTES - 1),
        b"\xa5" * LARGEST_BYTES,
    ],
    ids=lambda payload: f"{len(payload)}-bytes-{payload[:1].hex()}",
)
def test_a_payload_of_any_size_arrives_byte_for_byte(embedded: Embedded, payload: bytes) -> None:
    speaker, *listeners = meshed(embedded, 3)
    speaker.broadcast(payload)
    speaker.broadcast(b"next")
    expected = [(str(speaker.address), 1, payload), (str(speaker.address), 2, b"next")]
    for listener in listeners:
        assert embedded.wait_to_hear(listener, 2) == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(max_size=3000), min_size=1, max_size=20))
def test_any_payloads_arrive_in_order(pair: Pair, payloads: list[bytes]) -> None:
    """One pair of peers serves all examples; each looks at what came since the one before."""
    embedded, speaker, listener = pair
    before = len(embedded.heard(listener))
    for payload in payloads:
        speaker.broadcast(payload)
    heard = embedded.wait_to_hear(listener, before + len(payloads))
    assert [payload for *_, payload in heard[before:]] == payloads


def test_everybody_says_64_kib_messages_at_once(embedded: Embedded) -> None:
    """The case in which peers that write before they read stop each other for good."""
    count, filling = 40, b"\xa5" * ((64 << 10) - 4)
    peers = meshed(embedded, 6)

    def say(peer: Peer) -> None:
        for number in range(count):
            peer.broadcast(number.to_bytes(4, "big") + filling)

    threads = [threading.Thread(target=say, args=(peer,), name="saying") for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive(), "a broadcast that never returned"
    for peer in peers:
        heard = embedded.wait_to_hear(peer, 5 * count, timeout_s=100)
        for other in peers:
            said = [entry for entry in heard if entry[0] == str(other.address)]
            numbers = [int.from_bytes(payload[:4], "big") for *_, payload in said]
            assert numbers == ([] if other is peer else list(range(count)))
            assert all(payload[4:] == filling for *_, payload in said)


def test_many_threads_may_broadcast_through_one_peer(embedded: Embedded) -> None:
    speaker, listener = meshed(embedded, 2)
    numbers: list[int] = []

    def say() -> None:
        numbers.extend([speaker.broadcast(b"x") for _ in range(200)])

    threads = [threading.Thread(target=say, name="saying") for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == list(range(1, 801))
    heard = embedded.wait_to_hear(listener, 800)
    assert [seq for _, seq, _ in heard] == list(range(1, 801))


def test_a_fast_speaker_waits_for_its_neighbour_and_nothing_is_lost(embedded: Embedded) -> None:
    """More than anybody retains is said as fast as can be, to one healthy neighbour."""
    count, filling = 100, b"\xa5" * 1_000_000
    speaker, listener = meshed(embedded, 2)
    for number in range(count):
        speaker.broadcast(b"%03d" % number + filling)
    heard = embedded.wait_to_hear(listener, count, timeout_s=90)
    assert [(seq, int(payload[:3])) for _, seq, payload in heard] == [
        (number + 1, number) for number in range(count)
    ]
