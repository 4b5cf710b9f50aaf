"""What each neighbour is owed: payload, announcements, and answers to what it asks."""

import contextlib
import random
from itertools import pairwise

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
    gossip_of,
    meet,
    sent,
    told,
)
from messages import (
    Address,
    Holding,
    StreamName,
    Want,
    Wanted,
    WireError,
)
from pure import BOOT_MS, address, key, run
from settings import Tunables
from wire import MAX_FRAME_BYTES, MAX_NUMBER, Run, encode


@pytest.fixture
def gossip() -> Gossip:
    return gossip_of()


# ---- what is owed --------------------------------------------------------------------------------


def test_what_is_new_is_owed_to_all_but_who_brought_it(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    assert [gossip.is_owed(neighbour) for neighbour in (A, B, C)] == [False, True, True]
    assert sent(gossip, A) == []
    assert sent(gossip, B) == sent(gossip, C) == [(S, 1), (S, 2)]


def test_what_was_sent_is_owed_no_more(gossip: Gossip) -> None:
    gossip.broadcast(b"hello", now_s=0)
    assert sent(gossip, A) == [(ME.key, 1)]
    assert sent(gossip, A) == []
    assert not gossip.is_owed(A)
    assert gossip.is_owed(B)


def test_the_very_bytes_that_came_in_are_passed_on(gossip: Gossip) -> None:
    came = run(S, 1, 3)
    gossip.hear(A, came, now_s=0)
    assert gossip.take(B, MANY_BYTES) == [came]
    gossip.hear(A, run(S, 2, 5), now_s=0)
    assert gossip.take(B, MANY_BYTES) == [run(S, 4, 5)]


def test_what_a_neighbour_has_shown_to_have_is_not_sent(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 4), now_s=0)
    announce(gossip, B, S, 1, 3)
    gossip.hear(C, run(S, 1, 4), now_s=0)
    assert sent(gossip, B) == [(S, 4)]
    assert sent(gossip, C) == []


def test_a_slow_neighbour_gets_a_part_at_a_time_and_in_order(gossip: Gossip) -> None:
    for number in range(1, 11):
        gossip.hear(A, run(S, number, number), now_s=0)
    size = len(run(S, 1, 1).data)
    parts = []
    while gossip.is_owed(B):
        parts.append(gossip.take(B, budget=3 * size))
        assert len(parts[-1]) <= 3
    taken = [item.first for part in parts for item in part if isinstance(item, Run)]
    assert taken == list(range(1, 11))


def test_a_neighbour_that_takes_nothing_holds_nobody_up(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 5), now_s=0)
    assert len(sent(gossip, C)) == 5
    assert gossip.lag(B) == 5
    assert gossip.lag(C) == 0


def test_streams_take_turns_at_a_slow_neighbour(gossip: Gossip) -> None:
    for number in range(1, 4):
        gossip.hear(A, run(S, number, number), now_s=0)
        gossip.hear(A, run(T, number, number), now_s=0)
    turns = [item.stream for _ in range(6) for item in gossip.take(B, 1) if isinstance(item, Run)]
    assert turns == [S, T, S, T, S, T]


def test_a_neighbour_to_whom_something_is_owed_is_ready() -> None:
    ready: set[Address] = set()
    gossip = Gossip(ME, Tunables(), random.Random(1), ready)
    for neighbour in (A, B):
        meet(gossip, neighbour)
    assert ready == set()
    gossip.hear(A, run(S, 1, 1), now_s=0)
    assert ready == {B}
    gossip.neighbour_wants(A, Want((Wanted(S, 0),)))
    assert ready == {A, B}


def test_a_neighbour_that_is_to_get_payload_from_now_on_is_ready_if_there_is_some() -> None:
    ready: set[Address] = set()
    gossip = Gossip(ME, Tunables(), random.Random(1), ready)
    for neighbour in (A, B):
        gossip.open(neighbour)
    gossip.hear(A, run(S, 1, 1), now_s=0)
    assert ready == set()
    for neighbour in (A, B):
        gossip.set_eager(neighbour, True)
    assert ready == {B}


# ---- links without payload -----------------------------------------------------------------------


@pytest.fixture
def outside_the_tree() -> Gossip:
    """A gossip with payload on the link to A alone; B and C get announcements."""
    gossip = gossip_of()
    for neighbour in (B, C):
        gossip.set_eager(neighbour, False)
    return gossip


def announced(gossip: Gossip, now_s: float) -> dict[Address, tuple[Holding, ...]]:
    """Who is told of what now."""
    haves = gossip.announcements(now_s)
    assert all(have.is_news for _, have in haves)
    assert len({who for who, _ in haves}) == len(haves), "what fits is told in one frame"
    return {who: have.holdings for who, have in haves}


def test_a_link_without_payload_gets_an_announcement_instead(outside_the_tree: Gossip) -> None:
    outside_the_tree.broadcast(b"hello", now_s=0)
    assert sent(outside_the_tree, B) == []
    assert sent(outside_the_tree, A) == [(ME.key, 1)]
    holding = Holding(ME.key, 1, 1)
    assert announced(outside_the_tree, now_s=0) == {B: (holding,), C: (holding,)}
    assert announced(outside_the_tree, now_s=9) == {}, "once"


def test_announcements_wait_for_each_other(outside_the_tree: Gossip) -> None:
    interval_s = Tunables().announce_interval_s
    outside_the_tree.hear(A, run(S, 1, 1), now_s=0)
    assert outside_the_tree.is_busy
    assert len(announced(outside_the_tree, now_s=0)) == 2
    outside_the_tree.hear(A, run(S, 2, 2), now_s=0)
    outside_the_tree.hear(A, run(T, 1, 4), now_s=0)
    assert announced(outside_the_tree, now_s=1.9 * interval_s) == {}
    both = (Holding(S, 1, 2), Holding(T, 1, 4))
    assert announced(outside_the_tree, now_s=2 * interval_s) == {B: both, C: both}
    for _ in range(2):
        outside_the_tree.tick(now_s=2 * interval_s)
    assert not outside_the_tree.is_busy


def test_where_there_is_always_something_to_announce_it_is_told_less_often(
    outside_the_tree: Gossip,
) -> None:
    interval_s = Tunables().announce_interval_s

    def told_at(since_s: float) -> list[int]:
        """In which tenths of an interval something was announced, of 200."""
        tenths = []
        for tenth in range(200):
            now_s = since_s + tenth * interval_s / 10
            outside_the_tree.broadcast(b"more", now_s)
            if announced(outside_the_tree, now_s):
                tenths.append(tenth)
        return tenths

    waits = [later - sooner for sooner, later in pairwise(told_at(since_s=0))]
    assert waits == [pytest.approx(each, abs=1) for each in (20, 40, 40, 40, 40)]
    assert announced(outside_the_tree, now_s=30 * interval_s), "the last of it"
    assert announced(outside_the_tree, now_s=40 * interval_s) == {}, "a pause"
    first, second, *_ = told_at(since_s=50 * interval_s)
    assert first == 0, "at once again"
    assert second == pytest.approx(20, abs=1)


def test_nothing_is_announced_to_who_has_it(outside_the_tree: Gossip) -> None:
    outside_the_tree.hear(A, run(S, 1, 3), now_s=0)
    announce(outside_the_tree, B, S, 1, 3)
    outside_the_tree.hear(C, run(S, 1, 2), now_s=0)
    assert announced(outside_the_tree, now_s=0) == {C: (Holding(S, 1, 3),)}


def test_who_asks_for_what_was_announced_is_sent_it(outside_the_tree: Gossip) -> None:
    outside_the_tree.hear(A, run(S, 1, 3), now_s=0)
    announced(outside_the_tree, now_s=0)
    outside_the_tree.neighbour_wants(B, Want((Wanted(S, 1),)))
    assert sent(outside_the_tree, B) == [(S, 2), (S, 3)]
    assert sent(outside_the_tree, C) == []


def test_a_link_that_gets_payload_from_now_on_is_sent_what_was_not_announced(
    outside_the_tree: Gossip,
) -> None:
    outside_the_tree.hear(A, run(S, 1, 1), now_s=0)
    announced(outside_the_tree, now_s=0)
    outside_the_tree.hear(A, run(S, 2, 2), now_s=0)
    outside_the_tree.set_eager(B, True)
    assert sent(outside_the_tree, B) == [(S, 2)]
    assert announced(outside_the_tree, now_s=9) == {C: (Holding(S, 1, 2),)}


def test_a_link_that_gets_no_more_payload_is_told_of_what_it_was_not_sent_yet(
    gossip: Gossip,
) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    gossip.set_eager(B, False)
    assert sent(gossip, B) == []
    assert announced(gossip, now_s=0)[B] == (Holding(S, 1, 2),)


def test_an_answer_goes_on_when_the_link_gets_no_more_payload(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    gossip.neighbour_wants(B, Want((Wanted(S, 0),)))
    gossip.set_eager(B, False)
    assert sent(gossip, B) == [(S, 1), (S, 2)]


def test_no_announcement_cuts_an_answer_short(outside_the_tree: Gossip) -> None:
    for number in range(1, 9):
        outside_the_tree.hear(A, run(S, number, number), now_s=0)
    outside_the_tree.neighbour_wants(B, Want((Wanted(S, 0),)))
    answer = outside_the_tree.take(B, 1)
    outside_the_tree.hear(A, run(S, 9, 9), now_s=0)
    assert announced(outside_the_tree, now_s=0) == {C: (Holding(S, 1, 9),)}
    while taken := outside_the_tree.take(B, 1):
        answer += taken
    assert [run.first for run in answer if isinstance(run, Run)] == list(range(1, 10))
    outside_the_tree.hear(A, run(S, 10, 10), now_s=0)
    assert announced(outside_the_tree, now_s=9)[B] == (Holding(S, 1, 10),), "from then on"


def test_who_sends_payload_anyway_is_asked_first(outside_the_tree: Gossip) -> None:
    for turn in range(20):
        for neighbour in (A, B, C):
            announce(outside_the_tree, neighbour, key(100 + turn), 1, 1, is_news=True)
    outside_the_tree.tick(now_s=Tunables().most_want_delay_s)
    questions = asked(outside_the_tree)
    assert len(questions) == 20
    assert {who for who, _, _ in questions} == {A}


# ---- a new link, and who asks --------------------------------------------------------------------


def test_a_new_neighbour_is_told_what_we_have_and_sent_nothing_unasked(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 4), now_s=0)
    gossip.broadcast(b"mine", now_s=0)
    gossip.take(A, MANY_BYTES)
    newcomer = address(9)
    [have] = meet(gossip, newcomer)
    assert set(have.holdings) == {Holding(S, 1, 4), Holding(ME.key, 1, 1)}
    assert sent(gossip, newcomer) == []
    gossip.broadcast(b"more", now_s=0)
    assert sent(gossip, newcomer) == [(ME.key, 2)]


def test_a_newcomer_to_a_quiet_peer_is_told_nothing(gossip: Gossip) -> None:
    assert gossip.open(address(9)) == []


def test_who_asks_is_sent_what_follows(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 5), now_s=0)
    meet(gossip, address(9))
    assert gossip.neighbour_wants(address(9), Want((Wanted(S, 2),))) == []
    assert sent(gossip, address(9)) == [(S, 3), (S, 4), (S, 5)]


def test_who_asks_again_is_sent_it_again(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 5), now_s=0)
    for _ in range(2):
        gossip.neighbour_wants(B, Want((Wanted(S, 3),)))
        assert sent(gossip, B)[-2:] == [(S, 4), (S, 5)]


def test_who_asks_for_what_we_do_not_have_yet_is_sent_it_when_it_comes(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    sent(gossip, B)
    assert gossip.neighbour_wants(B, Want((Wanted(S, 2),))) == []
    assert sent(gossip, B) == []
    gossip.hear(A, run(S, 3, 3), now_s=0)
    assert sent(gossip, B) == [(S, 3)]


def test_who_asks_for_what_we_hold_no_more_is_told_so(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=-1)
    announce(gossip, A, S, 6, 9)
    gossip.tick(now_s=GAP_PATIENCE_S)
    assert gossip.neighbour_wants(B, Want((Wanted(S, 1),))) == told(Holding(S, 6, 5))
    assert gossip.neighbour_wants(B, Want((Wanted(T, 0),))) == told(Holding(T, 1, 0))
    assert sent(gossip, B) == []


def test_what_we_have_fits_frames_however_much_it_is() -> None:
    gossip = gossip_of(max_streams=4096)
    host = ".".join(["a" * 63] * 3 + ["a" * 61])  # the longest host name there is
    for port in range(2, 4096):
        gossip.hear(
            A, run(StreamName(Address(host, 60_000 + port % 5000), port).key, 1, 1), now_s=0
        )
    haves = gossip.open(address(9))
    assert sum(len(have.holdings) for have in haves) == 4094
    assert all(len(encode(have)) <= MAX_FRAME_BYTES for have in haves)


@pytest.mark.parametrize(("first", "upto"), [(0, 5), (7, 5), (0, 0), (MAX_NUMBER, 1)])
def test_an_announcement_that_cannot_be_is_a_wire_error(
    gossip: Gossip, first: int, upto: int
) -> None:
    with pytest.raises(WireError, match="first"):
        announce(gossip, A, S, first, upto)


@pytest.mark.parametrize("wants_history", [True, False])
def test_no_announcement_makes_us_say_what_fits_no_frame(wants_history: bool) -> None:
    """Numbers have 8 bytes; the first that we lack must fit as well."""
    older = key(21, BOOT_MS - 1)
    gossip = gossip_of(wants_history=wants_history)
    with contextlib.suppress(WireError):  # to refuse it is as good
        announce(gossip, A, older, 1, MAX_NUMBER)
    gossip.tick(now_s=GAP_PATIENCE_S)
    gossip.tick(now_s=2 * GAP_PATIENCE_S)
    for have in gossip.open(address(9)):
        encode(have)


def test_every_stream_has_its_part_of_a_batch() -> None:
    gossip = gossip_of()
    for stream in (S, T):
        for number in range(1, 101):
            gossip.hear(A, run(stream, number, number, bytes(1000)), now_s=0)
    taken = [item for item in gossip.take(B, budget=64 << 10) if isinstance(item, Run)]
    for stream in (S, T):
        assert 28 <= sum(run.stream == stream for run in taken) <= 36
