"""What each neighbour is owed: payload, announcements, and answers to what it asks."""

import contextlib
import random

import pytest

from gossip import Gossip
from gossips import (
    GAP_PATIENCE_S,
    MANY_BYTES,
    ME,
    PATIENCE_S,
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
    StreamKey,
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
    assert announced(outside_the_tree, now_s=0.9 * interval_s) == {}
    both = (Holding(S, 1, 2), Holding(T, 1, 4))
    assert announced(outside_the_tree, now_s=interval_s) == {B: both, C: both}
    assert not outside_the_tree.is_busy


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


def test_a_link_that_gets_no_more_payload_still_gets_what_it_is_owed(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    gossip.set_eager(B, False)
    gossip.hear(A, run(S, 3, 3), now_s=0)
    assert sent(gossip, B)[:2] == [(S, 1), (S, 2)]


# ---- how long to let the tree bring what others announced ----------------------------------------

LEAST_S, MOST_S = Tunables().least_want_delay_s, Tunables().most_want_delay_s


def question_delay_s(gossip: Gossip, stream: StreamKey, began_s: float) -> float:
    """How long after B's announcement the question is put, while the tree brings nothing."""
    announce(gossip, B, stream, 1, 1, began_s, is_news=True)
    for step in range(1000):
        delay_s = step / 100
        gossip.tick(began_s + delay_s)
        if asked(gossip):
            return delay_s
    raise AssertionError("no question in 10 s")


def let_the_tree_take(gossip: Gossip, tree_delay_s: float, times: int, began_s: float) -> None:
    """So many messages are announced by B and then brought by A, which takes so long."""
    for turn in range(times):
        stream, now_s = key(1000 + turn, int(began_s)), began_s + 10 * turn
        announce(gossip, B, stream, 1, 1, now_s, is_news=True)
        gossip.hear(A, run(stream, 1, 1), now_s + tree_delay_s)
        gossip.tick(now_s + tree_delay_s)
    assert asked(gossip) == []


def test_what_the_tree_brings_in_time_is_not_asked_for(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 3, is_news=True)
    gossip.tick(now_s=LEAST_S / 2)
    gossip.hear(A, run(S, 1, 3), now_s=LEAST_S)
    for tenth in range(100):
        assert gossip.tick(now_s=LEAST_S + tenth / 10) == 0
    assert asked(gossip) == []


def test_what_the_tree_does_not_bring_in_time_is_asked_for_and_counted(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 3, is_news=True)
    assert gossip.is_busy
    assert gossip.tick(now_s=LEAST_S / 2) == 0
    assert asked(gossip) == []
    assert gossip.tick(now_s=MOST_S) == 1
    assert asked(gossip) == [(B, S, 0)]
    assert gossip.tick(now_s=MOST_S + 0.1) == 0, "once"


def test_what_is_no_news_is_asked_for_at_once(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 3, is_news=True)
    assert asked(gossip) == []
    announce(gossip, C, S, 1, 3, is_news=False)
    [(who, _, _)] = asked(gossip)
    assert who in (B, C)


def test_a_quick_tree_is_waited_for_less(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.2, times=200, began_s=1000)
    assert 0.4 <= question_delay_s(gossip, S, began_s=5000) <= 0.5


def test_no_tree_is_waited_for_so_little_that_it_has_no_chance(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.0, times=200, began_s=1000)
    assert 0.99 * LEAST_S <= question_delay_s(gossip, S, began_s=5000) <= 1.2 * LEAST_S


def test_a_tree_that_is_slow_once_is_waited_for_longer_at_once(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.15, times=200, began_s=1000)
    let_the_tree_take(gossip, 0.25, times=1, began_s=4000)
    assert 0.49 <= question_delay_s(gossip, S, began_s=5000) <= 0.6


def test_a_tree_of_which_nothing_is_known_yet_is_not_waited_for_long(gossip: Gossip) -> None:
    assert LEAST_S < question_delay_s(gossip, S, began_s=1000) < 0.3


def test_a_tree_that_is_quicker_than_announcements_is_hardly_waited_for(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 1.0, times=1, began_s=1000)
    gossip.hear(A, run(T, 1, 200), now_s=2000)
    for number in range(1, 201):
        announce(gossip, B, T, 1, number, 2000 + number, is_news=True)
    assert question_delay_s(gossip, S, began_s=5000) <= 1.2 * LEAST_S


def test_only_the_first_announcement_tells_how_quick_the_tree_is(gossip: Gossip) -> None:
    """Others that announce it later, when the tree has brought it, make it no quicker."""
    for turn in range(100):
        stream, now_s = key(1000 + turn), 1000.0 + 10 * turn
        announce(gossip, B, stream, 1, 1, now_s, is_news=True)
        gossip.hear(A, run(stream, 1, 1), now_s + 0.1)
        gossip.tick(now_s + 0.1)
        for _ in range(10):
            announce(gossip, C, stream, 1, 1, now_s + 0.2, is_news=True)
    assert 0.19 <= question_delay_s(gossip, S, began_s=5000) <= 0.25


def let_the_tree_be_late(gossip: Gossip, tree_delay_s: float, answer_s: float) -> None:
    """B announces a message and is asked for it; the tree, which is A, brings it as well."""
    gossip.set_eager(B, False)
    began_s = 4000.0
    asked_s = began_s + question_delay_s(gossip, T, began_s)
    for who, at_s in sorted(((A, began_s + tree_delay_s), (B, asked_s + answer_s)), key=last):
        gossip.hear(who, run(T, 1, 1), at_s)
        gossip.tick(at_s)


def last(pair: tuple[Address, float]) -> float:
    return pair[1]


@pytest.mark.parametrize("answer_s", [0.05, 5.0], ids=["answered first", "answered last"])
def test_a_tree_that_brings_what_was_asked_for_already_is_waited_for_longer(
    gossip: Gossip, answer_s: float
) -> None:
    let_the_tree_take(gossip, 0.1, times=200, began_s=1000)
    let_the_tree_be_late(gossip, 0.8, answer_s)
    assert 1.59 <= question_delay_s(gossip, S, began_s=5000) <= 1.7


def test_an_answer_tells_nothing_of_the_tree(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.1, times=200, began_s=1000)
    question_delay_s(gossip, T, began_s=4000)
    gossip.hear(B, run(T, 1, 1), now_s=4000.9)
    gossip.tick(now_s=4000.9)
    assert question_delay_s(gossip, S, began_s=5000) <= 0.25


def test_however_late_the_tree_was_once_it_is_waited_for_less_again(gossip: Gossip) -> None:
    let_the_tree_be_late(gossip, 500.0, 0.1)
    let_the_tree_take(gossip, 0.1, times=100, began_s=5000)
    assert question_delay_s(gossip, S, began_s=9000) <= 0.3


def test_no_tree_is_waited_for_very_long(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.99 * MOST_S, times=1, began_s=1000)
    assert 0.99 * MOST_S <= question_delay_s(gossip, S, began_s=5000) <= 1.01 * MOST_S


def test_a_slow_application_is_no_fault_of_the_tree() -> None:
    gossip = gossip_of(inbox_bytes=1)
    gossip.hear(A, run(T, 1, 1), now_s=0)
    announce(gossip, B, S, 1, 3, is_news=True)
    for second in range(10):
        assert gossip.tick(now_s=second) == 0
    assert asked(gossip) == []


def test_who_sends_payload_anyway_is_asked_first(outside_the_tree: Gossip) -> None:
    for turn in range(20):
        for neighbour in (A, B, C):
            announce(outside_the_tree, neighbour, key(100 + turn), 1, 1, is_news=True)
    outside_the_tree.tick(now_s=MOST_S)
    questions = asked(outside_the_tree)
    assert len(questions) == 20
    assert {who for who, _, _ in questions} == {A}


# ---- how long to wait for an answer --------------------------------------------------------------


def second_question_s(gossip: Gossip, stream: StreamKey, began_s: float) -> float:
    """How long after the first question another neighbour is asked, since no answer comes."""
    began_s += question_delay_s(gossip, stream, began_s)
    announce(gossip, C, stream, 1, 1, began_s, is_news=True)
    for step in range(1, 1000):
        gossip.tick(began_s + step / 100)
        if asked(gossip):
            return step / 100
    raise AssertionError("nobody else was asked in 10 s")


def let_answers_take(gossip: Gossip, answer_s: float, times: int, began_s: float) -> None:
    """So many messages do not come by the tree; B, who announced them, is asked, and answers."""
    gossip.set_eager(B, False)
    for turn in range(times):
        stream, now_s = key(2000 + turn, int(began_s)), began_s + 20 * turn
        now_s += question_delay_s(gossip, stream, now_s) + answer_s
        gossip.hear(B, run(stream, 1, 1), now_s)
        gossip.tick(now_s)


def test_who_does_not_give_what_is_new_is_not_waited_for_long(gossip: Gossip) -> None:
    assert LEAST_S < second_question_s(gossip, S, began_s=1000) < 0.3


def test_slow_answers_are_waited_for_longer(gossip: Gossip) -> None:
    let_answers_take(gossip, 0.4, times=1, began_s=1000)
    assert 0.79 <= second_question_s(gossip, S, began_s=5000) <= 0.85


def test_quick_answers_are_hardly_waited_for(gossip: Gossip) -> None:
    let_answers_take(gossip, 0.4, times=1, began_s=1000)
    let_answers_take(gossip, 0.02, times=100, began_s=2000)
    assert second_question_s(gossip, S, began_s=5000) <= 1.2 * LEAST_S


def test_no_answer_is_waited_for_very_long(gossip: Gossip) -> None:
    let_answers_take(gossip, 100.0, times=1, began_s=1000)
    assert 0.99 * PATIENCE_S <= second_question_s(gossip, S, began_s=5000) <= 1.01 * PATIENCE_S


def test_an_answer_that_may_be_long_is_given_time(gossip: Gossip) -> None:
    """On a new link it may be all that was ever said: nobody is to send that twice."""
    for neighbour in (B, C):
        announce(gossip, neighbour, S, 1, 5000, now_s=1000)
    assert len(asked(gossip)) == 1
    gossip.tick(now_s=1000 + 0.99 * PATIENCE_S)
    assert asked(gossip) == []
    gossip.tick(now_s=1000 + PATIENCE_S)
    assert len(asked(gossip)) == 1


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
    gossip.hear(A, run(S, 1, 2), now_s=0)
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
