"""How long a peer waits: for the tree to bring what others announced, and for answers."""

import pytest

from gossip import Gossip
from gossips import PATIENCE_S, A, B, C, S, T, announce, asked, gossip_of, meet, sent
from messages import Address, StreamKey
from pure import address, addresses, key, run
from questions import ASKED_TO_STARVE, ROUNDS_TO_STARVE, TRICKLE, Ways
from settings import Tunables

D = address(8)  # a stranger at first


@pytest.fixture
def gossip() -> Gossip:
    """A and C are on the tree, B is not."""
    gossip = gossip_of()
    gossip.set_eager(B, False)
    return gossip


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
        assert gossip.tick(now_s=LEAST_S + tenth / 10) == []
    assert asked(gossip) == []


def test_what_the_tree_does_not_bring_in_time_is_asked_for_and_counted(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 3, is_news=True)
    assert gossip.is_busy
    assert gossip.tick(now_s=LEAST_S / 2) == []
    assert asked(gossip) == []
    assert gossip.tick(now_s=MOST_S) == [None]
    assert asked(gossip) == [(B, S, 0)]
    assert gossip.tick(now_s=MOST_S + 0.1) == [], "once"


def let_it_flow(
    gossip: Gossip, announced: int, brought: int, claimants: tuple[Address, ...] = (B, C)
) -> list[Address | None]:
    """For three seconds others announce so many a tick; A, on the tree, brings so many of them."""
    gossip.set_eager(C, False)
    for tick in range(1, 61):
        for claimant in claimants:
            announce(gossip, claimant, S, 1, tick * announced, tick / 20, is_news=True)
        gossip.hear(A, run(S, (tick - 1) * brought + 1, tick * brought), tick / 20)
        if failed := gossip.tick(tick / 20 + 0.01):
            return failed
    return []


def test_a_trickle_is_not_waited_for_while_others_have_much_more(gossip: Gossip) -> None:
    assert let_it_flow(gossip, announced=TRICKLE + 2, brought=1) == [A]
    [(who, _, after)] = asked(gossip)
    assert who in (B, C)
    assert after < 10, "within half a second"


def test_one_who_claims_to_have_much_more_may_be_lying(gossip: Gossip) -> None:
    assert let_it_flow(gossip, announced=TRICKLE + 2, brought=1, claimants=(B,)) == [None]
    assert [who for who, _, _ in asked(gossip)] == [B], "it is asked, and nobody is blamed"


def test_a_tree_that_brings_a_fair_part_is_waited_for(gossip: Gossip) -> None:
    assert let_it_flow(gossip, announced=TRICKLE - 2, brought=1) == []
    assert asked(gossip) == []


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
    let_the_tree_take(gossip, 0.1, times=300, began_s=5000)
    assert question_delay_s(gossip, S, began_s=9000) <= 0.3


def test_no_tree_is_waited_for_very_long(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.99 * MOST_S, times=1, began_s=1000)
    assert 0.99 * MOST_S <= question_delay_s(gossip, S, began_s=5000) <= 1.01 * MOST_S


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_tree_that_fell_silent_is_not_waited_for(is_silent: bool) -> None:
    gossip = gossip_of(ways=Ways(is_tree_silent=lambda: is_silent))
    gossip.set_eager(B, False)
    assert (question_delay_s(gossip, S, began_s=1000) == 0) is is_silent


def test_a_slow_application_is_no_fault_of_the_tree() -> None:
    gossip = gossip_of(inbox_bytes=1)
    gossip.hear(A, run(T, 1, 1), now_s=0)
    announce(gossip, B, S, 1, 3, is_news=True)
    for second in range(10):
        assert gossip.tick(now_s=second) == []
    assert asked(gossip) == []


def test_what_is_announced_along_the_tree_is_not_waited_for(gossip: Gossip) -> None:
    """Who tells of it in place of sending it had to ask for it, and will not send it."""
    gossip.set_eager(B, True)
    announce(gossip, B, S, 1, 1, now_s=1000, is_news=True)
    gossip.tick(now_s=1000)
    assert asked(gossip) == [(B, S, 0)]


def test_a_tree_that_is_known_to_be_slow_is_waited_for_all_the_same(gossip: Gossip) -> None:
    let_the_tree_take(gossip, 0.5, times=1, began_s=1000)
    gossip.set_eager(B, True)
    assert question_delay_s(gossip, S, began_s=5000) >= 0.99


def test_what_is_announced_elsewhere_the_tree_may_bring(gossip: Gossip) -> None:
    announce(gossip, B, S, 1, 1, now_s=1000, is_news=True)
    gossip.tick(now_s=1000)
    assert asked(gossip) == []


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
    for turn in range(times):
        stream, now_s = key(2000 + turn, int(began_s)), began_s + 20 * turn
        now_s += question_delay_s(gossip, stream, now_s) + answer_s
        gossip.hear(B, run(stream, 1, 1), now_s)
        gossip.tick(now_s)


def test_who_does_not_give_what_is_new_is_not_waited_for_long(gossip: Gossip) -> None:
    assert LEAST_S <= second_question_s(gossip, S, began_s=1000) < 0.3


def test_slow_answers_are_waited_for_longer(gossip: Gossip) -> None:
    let_answers_take(gossip, 0.4, times=1, began_s=1000)
    assert 0.79 <= second_question_s(gossip, S, began_s=5000) <= 0.85


def test_quick_answers_are_hardly_waited_for() -> None:
    gossip = gossip_of(ways=Ways(round_trip_s=lambda _: 0.01))
    gossip.set_eager(B, False)
    let_answers_take(gossip, 0.4, times=1, began_s=1000)
    let_answers_take(gossip, 0.02, times=300, began_s=2000)
    assert second_question_s(gossip, S, began_s=9000) <= 1.2 * LEAST_S


@pytest.mark.parametrize(
    ("round_trip_s", "wait_s"), [(0.01, LEAST_S), (0.2, 0.3), (5.0, PATIENCE_S)]
)
def test_an_answer_is_waited_for_half_as_long_again_as_the_way_is(
    round_trip_s: float, wait_s: float
) -> None:
    gossip = gossip_of(ways=Ways(round_trip_s=lambda _: round_trip_s))
    gossip.set_eager(B, False)
    assert second_question_s(gossip, S, began_s=1000) == pytest.approx(wait_s, abs=0.011)


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


def asked_while_it_trickles(gossip: Gossip, is_from_who_was_asked: bool) -> list[Address]:
    """B and C have much more; a message comes each fifth of the patience. Who is asked in turn."""
    for neighbour in (B, C):
        announce(gossip, neighbour, S, 1, 5000, now_s=1000)
    turn = [who for who, _, _ in asked(gossip)]
    for number in range(1, 10):
        now_s = 1000 + number * PATIENCE_S / 5
        gossip.hear(turn[-1] if is_from_who_was_asked else A, run(S, number, number), now_s)
        gossip.tick(now_s)
        turn += [who for who, _, _ in asked(gossip)]
    return turn


def test_who_is_asked_and_gives_nothing_is_not_spared_by_a_trickle_of_others(
    gossip: Gossip,
) -> None:
    assert set(asked_while_it_trickles(gossip, is_from_who_was_asked=False)) == {B, C}


def test_who_answers_is_given_time_as_long_as_something_comes(gossip: Gossip) -> None:
    assert len(asked_while_it_trickles(gossip, is_from_who_was_asked=True)) == 1


def asked_in_turn(gossip: Gossip) -> tuple[Address, Address]:
    """All have much more, and who is asked first gives nothing in time, so another is asked."""
    for neighbour in (A, B, C):
        announce(gossip, neighbour, S, 1, 5000, now_s=1000)
    [(first, _, _)] = asked(gossip)
    gossip.tick(now_s=1000 + PATIENCE_S)
    [(second, _, _)] = asked(gossip)
    assert second != first
    return first, second


def test_who_answers_late_is_given_time_as_well(gossip: Gossip) -> None:
    """On a slow line the answer of another would only come in addition."""
    first, _ = asked_in_turn(gossip)
    for number in range(1, 50):
        now_s = 1000 + PATIENCE_S + number * PATIENCE_S / 5
        gossip.hear(first, run(S, number, number), now_s)
        gossip.tick(now_s)
    assert asked(gossip) == []


def test_who_answers_late_and_is_gone_is_asked_no_more(gossip: Gossip) -> None:
    first, second = asked_in_turn(gossip)
    gossip.hear(first, run(S, 1, 1), now_s=1000 + PATIENCE_S)
    gossip.close(first, now_s=1000 + PATIENCE_S)
    gossip.tick(now_s=1000 + PATIENCE_S)
    announce(gossip, second, S, 1, 5001, now_s=1000 + PATIENCE_S, is_news=True)
    gossip.tick(now_s=1000 + 2 * PATIENCE_S)
    assert [who for who, _, _ in asked(gossip)] == [({A, B, C} - {first, second}).pop()]


def test_when_an_answer_is_over_the_rest_is_asked_for_at_once(gossip: Gossip) -> None:
    """Meanwhile more was said; what the tree brings of it may begin after a hole."""
    announce(gossip, B, S, 1, 50, now_s=1000)
    assert asked(gossip) == [(B, S, 0)]
    announce(gossip, B, S, 1, 60, now_s=1000, is_news=True)
    assert asked(gossip) == [], "it told so before it was asked"
    gossip.hear(B, run(S, 1, 60), now_s=1000.1)
    announce(gossip, A, S, 1, 90, now_s=1000.1, is_news=True)
    assert asked(gossip) == [], "the answer may go on"
    announce(gossip, B, S, 1, 80, now_s=1000.1, is_news=True)
    assert asked(gossip) == [(A, S, 60)]
    gossip.tick(now_s=1000.1 + PATIENCE_S)
    assert asked(gossip) == [(B, S, 60)]
    assert gossip.questions.in_vain == set(), (
        "A alone gave nothing: that is no reason to look for strangers"
    )


# ---- what had to be asked for --------------------------------------------------------------------


def answered_by(gossip: Gossip, answer: Address) -> None:
    """B announces a message, and is asked for it, as the tree is late; then somebody brings it."""
    at_s = 1000 + question_delay_s(gossip, T, began_s=1000)
    gossip.hear(answer, run(T, 1, 1), at_s + 0.05)
    gossip.tick(at_s + 0.05)


def test_an_answer_is_announced_for_the_tree_may_be_about_to_bring_it(gossip: Gossip) -> None:
    answered_by(gossip, B)
    assert sent(gossip, A) == sent(gossip, C) == []
    told = gossip.announcements(now_s=2000)
    assert {who for who, _ in told} == {A, C}


def test_what_the_tree_brings_after_all_travels_on_along_it(gossip: Gossip) -> None:
    answered_by(gossip, A)
    assert sent(gossip, C) == [(T, 1)]


def test_an_answer_on_a_new_link_travels_on_along_the_tree(gossip: Gossip) -> None:
    """It tells of what this part of the network missed: nobody else is about to bring it."""
    announce(gossip, B, T, 1, 1, now_s=1000)
    assert asked(gossip) == [(B, T, 0)]
    gossip.hear(B, run(T, 1, 1), now_s=1000.1)
    assert sent(gossip, A) == sent(gossip, C) == [(T, 1)]


def test_what_follows_an_answer_travels_along_the_tree_again(gossip: Gossip) -> None:
    answered_by(gossip, B)
    gossip.announcements(now_s=2000)
    gossip.hear(A, run(T, 2, 2), now_s=2000)
    assert sent(gossip, C) == [(T, 2)]


# ---- when all is in vain -------------------------------------------------------------------------


def starved_after(gossip: Gossip, *claimants: Address) -> int:
    """How many questions are put, all in vain, until strangers are looked for."""
    for claimant in claimants:
        announce(gossip, claimant, S, 1, 5, now_s=1000)
    for count in range(1, 100):
        gossip.tick(now_s=1000 + count * PATIENCE_S)
        if bool(gossip.questions.in_vain):
            return count
    raise AssertionError("strangers are never looked for")


def test_who_is_given_nothing_by_two_looks_for_strangers_soon(gossip: Gossip) -> None:
    assert starved_after(gossip, A, B) == 2


def test_who_is_given_nothing_by_some_of_many_looks_for_strangers_and_asks_the_others(
    gossip: Gossip,
) -> None:
    everybody = [A, B, C, *addresses(4, 5, 6, 7)]
    for neighbour in everybody[3:]:
        meet(gossip, neighbour)
    assert starved_after(gossip, *everybody) == ASKED_TO_STARVE
    for count in range(ASKED_TO_STARVE + 1, len(everybody)):
        gossip.tick(now_s=1000 + count * PATIENCE_S)
    assert {who for who, _, _ in asked(gossip)} == set(everybody)


def test_who_is_given_nothing_by_one_looks_for_strangers_later_for_it_may_lie(
    gossip: Gossip,
) -> None:
    assert starved_after(gossip, A) == ROUNDS_TO_STARVE


def test_who_is_given_something_looks_for_no_strangers(gossip: Gossip) -> None:
    count = starved_after(gossip, A)
    gossip.hear(B, run(S, 1, 1), now_s=1000 + count)
    gossip.tick(now_s=1000 + count)
    assert not bool(gossip.questions.in_vain)


def test_who_is_given_nothing_asks_a_newcomer_at_once_and_looks_for_more(
    gossip: Gossip,
) -> None:
    now_s = 1000 + starved_after(gossip, A, B) * PATIENCE_S
    asked(gossip)
    announce(gossip, C, S, 1, 5, now_s + 0.1)
    assert asked(gossip) == [(C, S, 0)]
    assert bool(gossip.questions.in_vain)
    meet(gossip, D)
    announce(gossip, D, S, 1, 5, now_s + 0.2)
    assert asked(gossip) == [], "a newcomer has its time to answer"
    gossip.tick(now_s + 0.1 + PATIENCE_S)
    assert asked(gossip) == [(D, S, 0)], "then the next is asked"
    gossip.hear(D, run(S, 1, 5), now_s + 0.3 + PATIENCE_S)
    gossip.tick(now_s + 0.3 + PATIENCE_S)
    assert not bool(gossip.questions.in_vain)
