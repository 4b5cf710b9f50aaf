"""What is retained for others, our own stream, and whether two peers have the same."""

import contextlib

import pytest

from gossip import Gossip
from gossips import (
    GAP_PATIENCE_S,
    MANY_BYTES,
    ME,
    A,
    B,
    C,
    S,
    T,
    announce,
    asked,
    delivered,
    gossip_of,
    numbers,
    sent,
    told,
)
from limits import Refusals
from messages import (
    Have,
    Holding,
    Want,
    Wanted,
    WireError,
)
from pure import BOOT_MS, key, name, run
from streams import ITEMS_PER_FRAME, RUN_OVERHEAD_BYTES
from wire import Run


@pytest.fixture
def gossip() -> Gossip:
    return gossip_of()


# ---- the history ---------------------------------------------------------------------------------


def test_the_history_is_bounded_in_bytes() -> None:
    gossip = gossip_of(history_bytes=100_000)
    for number in range(1, 1000):
        gossip.hear(A, run(S, number, number, payload=bytes(1000)), now_s=number)
        assert gossip.history_size <= 100_000
        assert gossip.history_size == sum(stream.size for stream in gossip.streams.values())
    assert gossip.history_size > 80_000, "the bound is used"
    assert gossip.streams[S].upto == 999


def test_the_history_counts_what_small_runs_cost_beside_their_bytes(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 1), now_s=0)
    assert gossip.history_size == len(run(S, 1, 1).data) + RUN_OVERHEAD_BYTES


def test_a_loud_stream_does_not_push_out_a_quiet_one() -> None:
    gossip = gossip_of(history_bytes=100_000)
    gossip.hear(A, run(T, 1, 3), now_s=0)
    for number in range(1, 1000):
        gossip.hear(A, run(S, number, number, payload=bytes(1000)), now_s=number)
    assert gossip.streams[T].first == 1
    assert gossip.streams[S].first > 900
    gossip.neighbour_wants(B, Want((Wanted(T, 0), Wanted(S, 0))))
    assert [number for stream, number in sent(gossip, B) if stream == T] == [1, 2, 3]


def test_a_stream_is_bounded_in_messages() -> None:
    gossip = gossip_of(stream_messages=10)
    for number in range(1, 100):
        gossip.hear(A, run(S, number, number), now_s=0)
        assert number - gossip.streams[S].first < 10
    assert gossip.streams[S].first == 90
    assert numbers(gossip) == list(range(1, 100))


def test_who_fell_behind_the_history_is_told_where_it_begins() -> None:
    gossip = gossip_of(stream_messages=10)
    gossip.hear(A, run(S, 1, 1), now_s=0)
    assert sent(gossip, B) == [(S, 1)]
    for number in range(2, 100):
        gossip.hear(A, run(S, number, number), now_s=0)
    assert gossip.take(B, MANY_BYTES) == told(Holding(S, 90, 99))
    gossip.neighbour_wants(B, Want((Wanted(S, 89),)))
    assert sent(gossip, B) == [(S, number) for number in range(90, 100)]


def test_there_are_never_more_streams_than_the_bound() -> None:
    gossip = gossip_of(max_streams=32)
    for number in range(100, 400):
        gossip.hear(A, run(key(number), 1, 1), now_s=number)
        assert len(gossip.streams) <= 32
    assert ME.key in gossip.streams, "its own is never forgotten"
    assert key(399) in gossip.streams
    assert len(delivered(gossip)) == 300


def quiet_then_forgotten() -> Gossip:
    """It heard three messages of S, and then so many other streams that it holds S no more."""
    gossip = gossip_of(max_streams=32)
    gossip.hear(A, run(S, 1, 3), now_s=0)
    for number in range(100, 140):
        gossip.hear(A, run(key(number), 1, 1), now_s=number)
    assert S not in gossip.streams
    delivered(gossip)
    return gossip


def test_a_forgotten_stream_is_not_delivered_twice() -> None:
    gossip = quiet_then_forgotten()
    announce(gossip, A, S, 1, 3)
    assert asked(gossip) == []
    assert gossip.hear(A, run(S, 1, 3), now_s=200) == 0
    assert delivered(gossip) == []


def test_a_forgotten_stream_goes_on_where_it_was() -> None:
    gossip = quiet_then_forgotten()
    announce(gossip, A, S, 1, 5)
    assert asked(gossip) == [(A, S, 3)]
    gossip.hear(A, run(S, 1, 5), now_s=200)
    assert delivered(gossip) == [(S, 4), (S, 5)]


def test_streams_that_are_only_announced_push_out_nothing_that_was_heard() -> None:
    """To announce costs nothing; otherwise anybody could have everything delivered twice."""
    gossip = gossip_of(max_streams=32, remembered_streams=64)
    gossip.hear(A, run(S, 1, 3), now_s=0)
    for number in range(100, 500):
        announce(gossip, B, key(number), 1, 5, now_s=1)
    assert len(gossip.streams) <= 32
    assert gossip.hear(C, run(S, 1, 3), now_s=2) == 0
    assert delivered(gossip) == [(S, 1), (S, 2), (S, 3)]


def test_streams_that_somebody_makes_up_have_nothing_delivered_twice() -> None:
    """They push out even the memory of what was heard: then it is refused, not heard again."""
    gossip = gossip_of(max_streams=32, remembered_streams=64, new_streams_per_s=1e9)
    gossip.hear(A, run(S, 1, 3), now_s=0)
    for number in range(100, 500):
        gossip.hear(B, run(key(number, boot_ms=BOOT_MS + 1), 1, 1), now_s=number)
    delivered(gossip)
    assert len(gossip._threshold) <= 64
    assert gossip.hear(C, run(S, 1, 3), now_s=1000) == 0
    announce(gossip, C, S, 1, 9, now_s=1000)
    assert asked(gossip) == []
    assert delivered(gossip) == []
    assert gossip.hear(C, run(key(500, boot_ms=BOOT_MS + 2), 1, 3), now_s=1000) == 3


def test_nothing_is_too_old_while_everything_is_remembered() -> None:
    gossip = gossip_of(max_streams=32, remembered_streams=512)
    for number in range(100, 500):
        gossip.hear(B, run(key(number), 1, 1), now_s=number)
    assert gossip.hear(C, run(key(1, boot_ms=1), 1, 3), now_s=500) == 3


def test_one_source_brings_so_many_new_streams_at_once_and_then_so_many_a_second() -> None:
    refusals = Refusals("streams")
    gossip = gossip_of(max_streams=32, new_streams_per_s=2.0, refusals=refusals)
    heard = [gossip.hear(A, run(key(number), 1, 1), now_s=5) for number in range(100, 150)]
    assert heard == [1] * 32 + [0] * 18
    assert refusals.counts["streams"] == 18
    [said] = refusals.collect()
    assert said["source"] == A.host
    announce(gossip, A, key(149), 1, 1, now_s=5.9)
    assert key(149) in gossip.streams
    assert gossip.hear(A, run(key(148), 1, 1), now_s=6) == 1
    assert gossip.hear(A, run(key(147), 1, 1), now_s=6) == 0


def test_a_source_without_budget_goes_on_with_the_streams_that_are_known() -> None:
    gossip = gossip_of(max_streams=32, new_streams_per_s=1e-9)
    for number in range(100, 150):
        gossip.hear(A, run(key(number), 1, 1), now_s=0)
    assert gossip.hear(A, run(key(131), 2, 1000), now_s=0) == 999


def test_another_source_has_a_budget_of_its_own() -> None:
    gossip = gossip_of(neighbours=(), max_streams=32, new_streams_per_s=1e-9)
    gossip.open(A, "10.0.0.1")
    gossip.open(B, "10.0.0.2")
    for number in range(100, 150):
        gossip.hear(A, run(key(number), 1, 1), now_s=0)
    assert gossip.hear(B, run(key(200), 1, 1), now_s=0) == 1


def test_who_comes_back_has_no_new_budget() -> None:
    gossip = gossip_of(neighbours=(), max_streams=32, new_streams_per_s=1e-9)
    for number in range(100, 150):
        gossip.open(A, "10.0.0.1")
        gossip.hear(A, run(key(number), 1, 1), now_s=0)
        gossip.close(A, now_s=0)
    assert key(149) not in gossip.streams


@pytest.mark.parametrize("count", [ITEMS_PER_FRAME, ITEMS_PER_FRAME + 1])
def test_a_frame_speaks_of_so_many_streams_and_no_more(gossip: Gossip, count: int) -> None:
    have = Have(tuple(Holding(key(n), 1, 1) for n in range(100, 100 + count)), is_news=False)
    want = Want(tuple(Wanted(key(n), 1) for n in range(100, 100 + count)))
    expected = pytest.raises(WireError) if count > ITEMS_PER_FRAME else contextlib.nullcontext()
    with expected:
        gossip.neighbour_has(A, have, now_s=0)
    with expected:
        gossip.neighbour_wants(A, want)


def test_who_asks_for_a_forgotten_stream_is_told_that_it_cannot_be_had() -> None:
    gossip = quiet_then_forgotten()
    assert gossip.neighbour_wants(B, Want((Wanted(S, 0),))) == told(Holding(S, 4, 3))


def test_a_forgotten_stream_is_owed_and_asked_for_no_more() -> None:
    gossip = gossip_of(max_streams=32)
    announce(gossip, A, S, 1, 5)
    gossip.hear(A, run(T, 1, 1), now_s=0)
    for number in range(100, 140):
        gossip.hear(A, run(key(number), 1, 1), now_s=number)
    asked(gossip)
    gossip.tick(now_s=500)
    assert asked(gossip) == []
    assert (T, 1) not in sent(gossip, B)


# ---- our own stream ------------------------------------------------------------------------------


def test_our_own_messages_are_numbered_from_1_and_not_delivered_to_us(gossip: Gossip) -> None:
    assert [gossip.broadcast(b"x", now_s=0) for _ in range(3)] == [1, 2, 3]
    assert delivered(gossip) == []


def test_nobody_speaks_for_us(gossip: Gossip) -> None:
    gossip.broadcast(b"mine", now_s=0)
    assert gossip.hear(A, run(ME.key, 2, 9), now_s=0) == 0
    announce(gossip, A, ME.key, 1, 9)
    gossip.tick(now_s=100)
    assert delivered(gossip) == []
    assert asked(gossip) == []
    assert gossip.own.upto == 1
    assert sent(gossip, B) == [(ME.key, 1)]


def test_what_we_said_in_an_earlier_life_is_a_stream_like_any_other(gossip: Gossip) -> None:
    earlier = key(0, BOOT_MS - 1)
    announce(gossip, A, earlier, 1, 2)
    assert asked(gossip) == [(A, earlier, 0)]
    gossip.hear(A, run(earlier, 1, 2), now_s=0)
    assert delivered(gossip) == [(earlier, 1), (earlier, 2)]


def test_a_neighbour_has_all_of_ours_once_it_has_shown_so(gossip: Gossip) -> None:
    assert gossip.has_all_of_ours(A)
    gossip.broadcast(b"one", now_s=0)
    sent(gossip, A)
    assert not gossip.has_all_of_ours(A), "it was sent, and may be lost with the link"
    gossip.neighbour_heard_us(A, 1)
    assert gossip.has_all_of_ours(A)
    assert not gossip.has_all_of_ours(B)
    gossip.broadcast(b"two", now_s=0)
    gossip.neighbour_heard_us(A, 1)
    assert not gossip.has_all_of_ours(A)


def test_how_far_we_have_a_peers_own_stream(gossip: Gossip) -> None:
    gossip.hear(B, run(key(1), 1, 4), now_s=0)
    assert gossip.heard_from(name(1)) == 4
    assert gossip.heard_from(name(1, BOOT_MS + 1)) == 0
    assert gossip.heard_from(name(2)) == 0


# ---- digests -------------------------------------------------------------------------------------


def test_peers_that_have_the_same_have_the_same_digest() -> None:
    one, other = gossip_of(name(1)), gossip_of(name(2))
    assert one.digest == other.digest
    one.hear(B, run(S, 1, 3), now_s=0)
    one.hear(C, run(T, 1, 1), now_s=0)
    other.hear(C, run(T, 1, 1), now_s=5)
    for number in range(1, 4):
        other.hear(B, run(S, number, number), now_s=6)
    assert one.digest == other.digest


@pytest.mark.parametrize("more", [run(S, 3, 3), run(T, 1, 2), run(key(21, BOOT_MS + 1), 1, 2)])
def test_peers_that_differ_have_different_digests(more: Run) -> None:
    one, other = gossip_of(name(1)), gossip_of(name(2))
    for gossip in (one, other):
        gossip.hear(B, run(S, 1, 2), now_s=0)
    before = one.digest
    one.hear(B, more, now_s=0)
    assert one.digest != before
    assert other.digest == before


def test_what_we_say_and_what_is_lost_count_for_the_digest_too(gossip: Gossip) -> None:
    digests = [gossip.digest]
    gossip.broadcast(b"x", now_s=0)
    digests.append(gossip.digest)
    announce(gossip, A, S, 6, 5)
    gossip.tick(now_s=GAP_PATIENCE_S)
    digests.append(gossip.digest)
    assert len(set(digests)) == 3
