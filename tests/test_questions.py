"""Whom a peer asks for what it lacks, whom it blames for that, and when it looks for others."""

import pytest

from gossip import Gossip
from gossips import (
    GAP_PATIENCE_S,
    PATIENCE_S,
    A,
    B,
    C,
    S,
    T,
    announce,
    asked,
    gaps,
    gossip_of,
    meet,
    sent,
)
from messages import Address, Beacon, Have, Holding, Mode
from nodes import OLDEST, STREAM, node_of, receive
from pure import address, key, run
from questions import LATE_FOR_S, MOST_IN_VAIN, TRICKLE
from settings import Tunables

LEAST_S, MOST_S = Tunables().least_want_delay_s, Tunables().most_want_delay_s
TICK_S = Tunables().tick_interval_s


@pytest.fixture
def gossip() -> Gossip:
    """A is on the tree, B and C are not."""
    gossip = gossip_of()
    gossip.set_eager(B, False)
    gossip.set_eager(C, False)
    return gossip


def is_starved(gossip: Gossip) -> bool:
    return bool(gossip.questions.in_vain)


# ---- a tree that is at work ----------------------------------------------------------------------


def question_s(
    gossip: Gossip, brought: int, announced: int, claimants: tuple[Address, ...]
) -> float:
    """B announces a message of S. When it is asked for, while the tree brings other things.

    Each tick it brings so much of T, of which each of the claimants announces so much.
    """
    announce(gossip, B, S, 1, 1, now_s=0, is_news=True)
    for tick in range(1, 200):
        now_s = tick * TICK_S
        for claimant in claimants:
            announce(gossip, claimant, T, 1, tick * announced, now_s, is_news=True)
        gossip.hear(A, run(T, (tick - 1) * brought + 1, tick * brought), now_s)
        gossip.tick(now_s)
        if (B, S, 0) in asked(gossip):
            return now_s
    raise AssertionError("never asked")


def test_a_tree_that_brings_other_things_is_given_time_but_not_for_ever(gossip: Gossip) -> None:
    """What is missing lies behind them: who asks another gets it twice."""
    assert question_s(gossip, 1, 1, (B, C)) == pytest.approx(MOST_S, abs=3 * LEAST_S)


def test_a_tree_that_brings_a_trickle_of_them_is_not(gossip: Gossip) -> None:
    assert question_s(gossip, 1, TRICKLE + 2, (B, C)) < 0.5


def test_one_who_says_that_it_is_a_trickle_may_be_lying(gossip: Gossip) -> None:
    assert question_s(gossip, 1, TRICKLE + 2, (B,)) > 0.9 * MOST_S


def test_what_an_origin_has_said_shows_no_trickle(gossip: Gossip) -> None:
    """It has it at once, however much; nobody else can."""
    for number in (B, C):
        announce(gossip, number, key(number.port - 10_000), 1, 10_000, 0.01, is_news=True)
    assert question_s(gossip, 1, 1, (B, C)) > 0.9 * MOST_S


def test_what_is_missing_may_be_under_way_while_the_tree_brings_the_stream(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 5), now_s=0)
    announce(gossip, B, S, 1, 9, now_s=LEAST_S)
    assert asked(gossip) == []
    announce(gossip, C, S, 1, 9, now_s=1)
    [(who, _, after)] = asked(gossip)
    assert who in (B, C)
    assert after == 5


# ---- who is blamed, and who is not ---------------------------------------------------------------


def test_streams_that_wait_for_the_same_tree_are_one_failure(gossip: Gossip) -> None:
    for number in range(5):
        announce(gossip, B, key(100 + number), 1, 1, now_s=0, is_news=True)
    assert gossip.tick(now_s=1) == [None]
    assert len(asked(gossip)) == 5


def test_who_was_late_itself_lets_others_have_that_time_too(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 1, now_s=0, is_news=True)
    gossip.questions.was_late(0.5, now_s=0.5)
    assert gossip.tick(now_s=0.5) == []
    assert asked(gossip) == []
    gossip.tick(now_s=1)
    assert asked(gossip) == [(B, S, 0)]


def test_who_is_late_all_the_time_asks_all_the_same(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 1, now_s=0, is_news=True)
    second = 0
    while not asked(gossip):
        second += 1
        gossip.questions.was_late(1, now_s=second)
        gossip.tick(now_s=second)
    assert second <= MOST_S + 1


def test_who_was_late_itself_blames_nobody_for_a_while(gossip: Gossip) -> None:
    gossip.questions.was_late(0.1, now_s=0)
    announce(gossip, B, S, 1, 1, now_s=0, is_news=True)
    assert gossip.tick(now_s=0.9 * LATE_FOR_S) == []
    assert asked(gossip) == [(B, S, 0)]
    announce(gossip, B, T, 1, 1, now_s=LATE_FOR_S, is_news=True)
    assert gossip.tick(now_s=LATE_FOR_S + 1) == [None]


def test_a_child_cannot_set_us_against_our_parent() -> None:
    """It announces each message a moment before the parent brings it."""
    node = node_of(1, 2, 3)
    receive(node, 1, Beacon(OLDEST, 1, 2, ()), now_s=0)
    receive(node, 3, Mode(wants_payload=True), now_s=0)
    for number in range(1, 50):
        told_s = number * 0.1
        receive(node, 3, Have((Holding(STREAM, 1, number),), is_news=True), now_s=told_s)
        node.tick(told_s + 0.05)
        receive(node, 1, run(STREAM, number, number), now_s=told_s + 0.06)
        assert node.tree.parent == address(1)
        assert not node.tree.is_loud


@pytest.mark.parametrize("announces", [False, True], ids=["silently", "announcing more each time"])
def test_one_that_is_asked_and_answers_in_a_trickle_is_left_for_others(announces: bool) -> None:
    """It is our parent, and gives one message each 0.9 s; B and C have a hundred a second."""
    gossip = gossip_of()
    for honest in (B, C):
        gossip.set_eager(honest, False)
    announce(gossip, A, S, 1, 1 << 20, now_s=0, is_news=True)
    trickled, next_s, failures = 0, float("inf"), []
    for tick in range(1, 600):
        now_s = tick * TICK_S
        for honest in (B, C):
            announce(gossip, honest, S, 1, 5 * tick, now_s, is_news=True)
        failures += gossip.tick(now_s)
        for who, _, after in asked(gossip):
            if who == A:
                trickled, next_s = after, min(next_s, now_s + TICK_S)
            else:
                gossip.hear(who, run(S, after + 1, 5 * tick), now_s)
        if now_s >= next_s:
            trickled, next_s = trickled + 1, now_s + 0.9
            gossip.hear(A, run(S, trickled, trickled), now_s)
            if announces:
                announce(gossip, A, S, 1, (1 << 20) + tick, now_s, is_news=True)
    assert gossip.streams[S].upto > 0.8 * 5 * 600
    assert announces or A in failures


# ---- who was asked in vain, and who was not ------------------------------------------------------


def test_who_answers_while_we_can_take_nothing_in_was_not_asked_in_vain() -> None:
    """The application is slow, and another stream fills its inbox before the answer comes."""
    gossip = gossip_of(inbox_bytes=500)
    for neighbour in (A, B, C):
        announce(gossip, neighbour, S, 1, 50, now_s=0)
    number = 0
    for tick in range(200):
        now_s = tick * TICK_S
        for who, _, after in asked(gossip):
            number += 1
            gossip.hear(A, run(T, number, number, bytes(600)), now_s)
            gossip.hear(who, run(S, after + 1, 50), now_s)
        if tick % 10 == 9:
            gossip.inbox.collect(1 << 20)
        gossip.tick(now_s)
        assert not is_starved(gossip)
    assert number >= 10


def test_a_whole_answer_ends_the_starving_although_more_is_told_of_at_once() -> None:
    gossip = gossip_of(neighbours=(B, C))
    now_s = 0.0
    for neighbour in (B, C):
        announce(gossip, neighbour, S, 1, 5, now_s)
    while not is_starved(gossip):
        now_s += PATIENCE_S / 2
        gossip.tick(now_s)
        asked(gossip)
    meet(gossip, A)
    gossip.set_eager(A, False)
    announce(gossip, A, S, 1, 5, now_s)
    assert [who for who, _, _ in asked(gossip)] == [A]
    gossip.hear(A, run(S, 1, 5), now_s)
    announce(gossip, A, S, 1, 6, now_s, is_news=True)
    assert not is_starved(gossip)


def test_those_asked_in_vain_are_remembered_only_so_far(gossip: Gossip) -> None:
    """One claims to have more than there is, and others come, claim so too, and go."""
    announce(gossip, B, S, 1, 1 << 30, now_s=0)
    for number in range(5 * MOST_IN_VAIN):
        stranger, now_s = address(100 + number), 2 * number * PATIENCE_S
        meet(gossip, stranger)
        announce(gossip, stranger, S, 1, 1 << 30, now_s)
        gossip.tick(now_s + PATIENCE_S)
        asked(gossip)
        gossip.close(stranger, now_s + PATIENCE_S)
        assert len(gossip.questions.in_vain) <= MOST_IN_VAIN
    assert is_starved(gossip)


def test_after_progress_the_patience_before_a_gap_begins_anew(gossip: Gossip) -> None:
    announce(gossip, B, S, 100, 200, now_s=0)
    gossip.tick(now_s=0.9 * GAP_PATIENCE_S)
    gossip.hear(A, run(S, 1, 50), now_s=0.9 * GAP_PATIENCE_S)
    for tick in range(int(0.9 * GAP_PATIENCE_S / TICK_S)):
        gossip.tick(now_s=0.9 * GAP_PATIENCE_S + tick * TICK_S)
    assert gaps(gossip) == []
    for tick in range(100):
        gossip.tick(now_s=2 * GAP_PATIENCE_S + tick * TICK_S)
    assert [(gap.first, gap.last) for gap in gaps(gossip)] == [(51, 99)]


# ---- what a link is for --------------------------------------------------------------------------


def test_to_be_told_again_that_payload_is_wanted_changes_nothing() -> None:
    """What had to be asked for is only announced, and stays so."""
    gossip = gossip_of()
    gossip.set_eager(B, False)
    announce(gossip, B, T, 1, 1, now_s=0, is_news=True)
    gossip.tick(now_s=1)
    assert asked(gossip) == [(B, T, 0)]
    gossip.hear(B, run(T, 1, 1), now_s=1.1)
    for _ in range(3):
        gossip.set_eager(A, True)
    assert sent(gossip, A) == []


def test_a_new_parent_is_asked_for_what_is_on_its_way_from_where_we_are() -> None:
    gossip = gossip_of()
    gossip.hear(A, run(S, 1, 5), now_s=100)
    gossip.hear(B, run(T, 1, 7), now_s=1)
    assert [
        [(item.stream, item.after) for item in want.wanted] for want in gossip.wanted_from(100)
    ] == [[(S, 5)]]
