"""What is heard, in order and once; what is asked for; what is lost for good."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip import Gossip
from gossips import (
    GAP_PATIENCE_S,
    MANY_BYTES,
    PATIENCE_S,
    A,
    B,
    C,
    S,
    T,
    announce,
    asked,
    delivered,
    gaps,
    gossip_of,
    numbers,
    sent,
)
from messages import (
    Address,
    Have,
    Holding,
    StreamKey,
    Want,
)
from pure import BOOT_MS, address, key, name, payload_of, run
from settings import Tunables
from streams import Gap
from wire import Run


@pytest.fixture
def gossip() -> Gossip:
    return gossip_of()


# ---- hearing -------------------------------------------------------------------------------------


def test_what_is_heard_is_handed_on_in_order(gossip: Gossip) -> None:
    assert gossip.hear(A, run(S, 1, 3), now_s=0) == 3
    assert gossip.hear(A, run(S, 4, 4), now_s=0) == 1
    assert delivered(gossip) == [(S, 1), (S, 2), (S, 3), (S, 4)]
    assert delivered(gossip) == []


def test_what_is_heard_twice_is_handed_on_once(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 3), now_s=0)
    assert gossip.hear(B, run(S, 1, 3), now_s=0) == 0
    assert gossip.hear(A, run(S, 2, 2), now_s=0) == 0
    assert numbers(gossip) == [1, 2, 3]
    assert (gossip.delivered, gossip.surplus) == (3, 4)


def test_of_a_run_that_overlaps_only_the_rest_is_new(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 3), now_s=0)
    assert gossip.hear(B, run(S, 2, 5), now_s=0) == 2
    assert numbers(gossip) == [1, 2, 3, 4, 5]
    assert (gossip.delivered, gossip.surplus) == (5, 2)


def test_streams_do_not_wait_for_each_other(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 2, 2), now_s=0)
    gossip.hear(A, run(T, 1, 1), now_s=0)
    assert delivered(gossip) == [(T, 1)]


def test_two_lives_of_one_origin_are_two_streams(gossip: Gossip) -> None:
    later = key(21, BOOT_MS + 1)
    gossip.hear(A, run(S, 1, 2), now_s=0)
    gossip.hear(A, run(later, 1, 1), now_s=0)
    assert delivered(gossip) == [(S, 1), (S, 2), (later, 1)]


def test_the_application_may_take_a_little_at_a_time(gossip: Gossip) -> None:
    for number in range(1, 6):
        gossip.hear(A, run(S, number, number), now_s=0)
    assert [len(gossip.inbox.collect(budget=1)) for _ in range(6)] == [1, 1, 1, 1, 1, 0]
    assert gossip.inbox.size == 0


# ---- a hole --------------------------------------------------------------------------------------


def test_a_run_beyond_what_we_have_waits_for_the_answer_to_one_question(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    assert gossip.hear(B, run(S, 5, 6), now_s=1) == 0
    assert asked(gossip) == [(B, S, 2)]
    assert numbers(gossip) == [1, 2]
    gossip.hear(B, run(S, 3, 6), now_s=1.1)
    assert numbers(gossip) == [3, 4, 5, 6]


def test_a_hole_that_the_tree_may_be_about_to_fill_has_a_moment(gossip: Gossip) -> None:
    """A new parent sends what follows on what it told us of, which the old one still brings."""
    gossip.hear(A, run(S, 1, 2), now_s=0)
    assert gossip.hear(B, run(S, 5, 6), now_s=0) == 0
    assert asked(gossip) == []
    gossip.hear(A, run(S, 3, 4), now_s=0.1)
    gossip.tick(now_s=0.1)
    assert asked(gossip) == []
    gossip.tick(now_s=1)
    assert asked(gossip) == [(B, S, 4)]


def test_a_hole_that_many_show_is_one_question_to_one_of_them(gossip: Gossip) -> None:
    for number in range(2, 20):
        for neighbour in (A, B, C):
            gossip.hear(neighbour, run(S, number, number), now_s=number / 100)
            announce(gossip, neighbour, S, 1, number, now_s=number / 100)
    [(who, stream, after)] = asked(gossip)
    assert who in (A, B, C)
    assert (stream, after) == (S, 0)
    gossip.tick(now_s=0.9)
    assert asked(gossip) == []


def test_each_stream_has_its_own_question(gossip: Gossip) -> None:
    announce(gossip, A, S, 1, 5)
    announce(gossip, A, T, 1, 5)
    assert asked(gossip) == [(A, S, 0), (A, T, 0)]


def test_nothing_is_asked_of_who_has_no_more_than_we(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 5), now_s=0)
    announce(gossip, B, S, 1, 5)
    announce(gossip, C, S, 1, 3)
    assert asked(gossip) == []


def test_only_who_still_holds_the_next_message_is_asked(gossip: Gossip) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    announce(gossip, A, S, 4, 9, now_s=1)
    announce(gossip, C, S, 9, 9, now_s=1)
    assert asked(gossip) == []
    announce(gossip, B, S, 3, 9, now_s=1)
    assert asked(gossip) == [(B, S, 2)]


def test_without_progress_another_is_asked_and_not_before(gossip: Gossip) -> None:
    for neighbour in (A, B, C):
        announce(gossip, neighbour, S, 1, 5)
    order = []
    for turn in range(3):
        gossip.tick(now_s=(turn + 0.99) * PATIENCE_S)
        [(who, _, _)] = asked(gossip)
        order.append(who)
        gossip.tick(now_s=(turn + 1) * PATIENCE_S)
    assert sorted(order) == [A, B, C]


def test_who_was_asked_in_vain_is_asked_again_when_there_is_nobody_else(gossip: Gossip) -> None:
    announce(gossip, A, S, 1, 5)
    for turn in range(5):
        assert asked(gossip) == [(A, S, 0)]
        gossip.tick(now_s=(turn + 1) * PATIENCE_S)


def test_progress_is_given_more_time(gossip: Gossip) -> None:
    for neighbour in (A, B):
        announce(gossip, neighbour, S, 1, 50)
    [(who, _, _)] = asked(gossip)
    for step in range(1, 20):
        gossip.hear(who, run(S, step, step), now_s=step * 0.9 * PATIENCE_S)
        gossip.tick(now_s=step * 0.9 * PATIENCE_S)
        assert asked(gossip) == []
    gossip.tick(now_s=30 * PATIENCE_S)
    [(other, _, after)] = asked(gossip)
    assert other != who
    assert after == 19


def test_when_the_link_to_the_asked_ends_another_is_asked_at_once(gossip: Gossip) -> None:
    for neighbour in (A, B):
        announce(gossip, neighbour, S, 1, 5)
    [(who, _, _)] = asked(gossip)
    gossip.close(who, now_s=0.1)
    other = B if who == A else A
    assert asked(gossip) == [(other, S, 0)]


def test_when_another_link_ends_nothing_is_asked_again(gossip: Gossip) -> None:
    for neighbour in (A, B):
        announce(gossip, neighbour, S, 1, 5)
    [(who, _, _)] = asked(gossip)
    gossip.close(B if who == A else A, now_s=0.1)
    gossip.close(C, now_s=0.1)
    assert asked(gossip) == []


def test_a_question_to_a_neighbour_that_is_gone_is_not_put(gossip: Gossip) -> None:
    announce(gossip, A, S, 1, 5)
    gossip.close(A, now_s=0)
    assert asked(gossip) == []


def test_who_has_caught_up_asks_no_more(gossip: Gossip) -> None:
    announce(gossip, A, S, 1, 2)
    asked(gossip)
    gossip.hear(B, run(S, 1, 2), now_s=0.5)
    for tenth in range(5, 100):
        gossip.tick(now_s=tenth / 10)
    assert asked(gossip) == []
    assert not gossip.is_busy


# ---- a gap ---------------------------------------------------------------------------------------


def test_what_nobody_can_provide_is_a_gap_after_the_patience_and_not_before(
    gossip: Gossip,
) -> None:
    gossip.hear(A, run(S, 1, 2), now_s=0)
    delivered(gossip)
    announce(gossip, A, S, 6, 9, now_s=10)
    announce(gossip, B, S, 5, 9, now_s=10)
    gossip.tick(now_s=10 + 0.99 * GAP_PATIENCE_S)
    assert (gaps(gossip), asked(gossip)) == ([], [])
    gossip.tick(now_s=10 + GAP_PATIENCE_S)
    assert gaps(gossip) == [Gap(S, 3, 4)]
    assert asked(gossip) == [(B, S, 4)]
    gossip.hear(B, run(S, 5, 9), now_s=13)
    assert numbers(gossip) == [5, 6, 7, 8, 9]


def test_who_can_provide_it_in_time_prevents_the_gap(gossip: Gossip) -> None:
    announce(gossip, A, S, 6, 9)
    gossip.tick(now_s=0.9 * GAP_PATIENCE_S)
    announce(gossip, B, S, 1, 9, now_s=0.95 * GAP_PATIENCE_S)
    assert asked(gossip) == [(B, S, 0)]
    for tenth in range(100):
        gossip.tick(now_s=GAP_PATIENCE_S + tenth / 10)
    assert gaps(gossip) == []
    gossip.hear(B, run(S, 1, 9), now_s=13)
    assert numbers(gossip) == list(range(1, 10))


def test_a_silent_neighbour_that_can_provide_it_is_no_reason_for_a_gap(gossip: Gossip) -> None:
    announce(gossip, A, S, 1, 9)
    announce(gossip, B, S, 9, 9)
    for second in range(100):
        gossip.tick(now_s=second)
    assert gaps(gossip) == []


def test_there_is_no_gap_once_nobody_is_ahead(gossip: Gossip) -> None:
    announce(gossip, A, S, 6, 9)
    gossip.close(A, now_s=1)
    for second in range(1, 100):
        gossip.tick(now_s=second)
    assert gaps(gossip) == []


def test_a_stream_of_which_nothing_is_retained_is_one_gap(gossip: Gossip) -> None:
    announce(gossip, A, S, 10, 9)
    gossip.tick(now_s=GAP_PATIENCE_S)
    assert gaps(gossip) == [Gap(S, 1, 9)]
    gossip.hear(A, run(S, 10, 10), now_s=5)
    assert numbers(gossip) == [10]


def test_what_lies_before_a_gap_is_not_offered_to_others(gossip: Gossip) -> None:
    """Messages are retained without holes."""
    gossip.hear(A, run(S, 1, 2), now_s=-1)
    announce(gossip, A, S, 6, 9)
    gossip.tick(now_s=GAP_PATIENCE_S)
    assert Holding(S, 6, 5) in gossip.open(address(9))[0].holdings
    assert sent(gossip, B) == []


# ---- an application that is slow -----------------------------------------------------------------


def test_a_full_inbox_refuses_and_catches_up_later() -> None:
    gossip = gossip_of(inbox_bytes=2000)
    took = [gossip.hear(A, run(S, n, n, payload=bytes(500)), now_s=0) for n in range(1, 11)]
    assert gossip.inbox.is_full
    assert 0 < sum(took) < 10
    assert gossip.inbox.size < 2000 + 600
    upto = sum(took)
    for second in range(1, 10):
        gossip.tick(now_s=second)
    assert asked(gossip) == [], "what came would be refused again"
    gossip.inbox.collect(MANY_BYTES)
    gossip.tick(now_s=11)
    assert asked(gossip) == [(A, S, upto)]
    gossip.hear(A, run(S, upto + 1, 10), now_s=12)
    assert numbers(gossip) == list(range(upto + 1, 11))


# ---- a joiner that wants no history --------------------------------------------------------------


@pytest.fixture
def joiner() -> Gossip:
    return gossip_of(name(0, BOOT_MS + 1000), wants_history=False)


def test_a_joiner_without_history_takes_only_what_is_said_from_now_on(joiner: Gossip) -> None:
    announce(joiner, A, S, 1, 50)
    assert asked(joiner) == []
    joiner.hear(A, run(S, 51, 52), now_s=0)
    assert numbers(joiner) == [51, 52]


def test_a_joiner_with_history_takes_all_of_it() -> None:
    joiner = gossip_of(name(0, BOOT_MS + 1000))
    announce(joiner, A, S, 1, 50)
    assert asked(joiner) == [(A, S, 0)]


def test_a_joiner_without_history_begins_with_the_first_it_hears(joiner: Gossip) -> None:
    joiner.hear(A, run(S, 7, 8), now_s=0)
    assert numbers(joiner) == [7, 8]
    assert asked(joiner) == []


def test_a_joiner_without_history_misses_nothing_afterwards(joiner: Gossip) -> None:
    announce(joiner, A, S, 1, 50)
    joiner.hear(A, run(S, 53, 53), now_s=0)
    assert asked(joiner) == [(A, S, 50)]


def test_a_joiner_without_history_hears_all_of_those_that_come_later(joiner: Gossip) -> None:
    later = key(21, BOOT_MS + 2000)
    announce(joiner, A, later, 1, 5)
    assert asked(joiner) == [(A, later, 0)]


def test_a_joiner_without_history_reports_no_gap_for_it(joiner: Gossip) -> None:
    announce(joiner, A, S, 40, 50)
    for second in range(10):
        joiner.tick(now_s=second)
    assert gaps(joiner) == []


# ---- whatever happens ----------------------------------------------------------------------------


Item = Run | Have | Want
PEERS = range(4)
STEPS = ["join or cut", "carry", "carry", "carry", "say", "wait", "eager", "lazy"]


def number_of(peer: Address) -> int:
    return peer.port - address(0).port


class Circle:
    """Four peers' gossip and the links between them; every delivery is checked."""

    def __init__(self) -> None:
        self.gossips = [Gossip(name(n), Tunables(), random.Random(n), set()) for n in PEERS]
        self.under_way: dict[tuple[int, int], list[Item]] = {}  # by sender and receiver
        self.heard: list[dict[StreamKey, int]] = [{} for _ in PEERS]
        self.now_s = 0.0

    def join_or_cut(self, one: int, other: int) -> None:
        """A link begins or ends; what was under way is lost."""
        for sender, receiver in ((one, other), (other, one)):
            if (sender, receiver) in self.under_way:
                del self.under_way[sender, receiver]
                self.gossips[sender].close(address(receiver), self.now_s)
            else:
                self.under_way[sender, receiver] = list(
                    self.gossips[sender].open(address(receiver))
                )

    def carry(self, sender: int, receiver: int) -> None:
        """What is under way arrives; then what is owed is under way."""
        items, self.under_way[sender, receiver] = self.under_way[sender, receiver], []
        for item in items:
            self._arrive(sender, receiver, item)
        for whom, want in self.gossips[sender].questions.collect():
            self.under_way[sender, number_of(whom)].append(want)
        self.under_way[sender, receiver] += self.gossips[sender].take(address(receiver), 100)

    def _arrive(self, sender: int, receiver: int, item: Item) -> None:
        gossip, neighbour = self.gossips[receiver], address(sender)
        match item:
            case Run():
                gossip.hear(neighbour, item, self.now_s)
            case Have():
                gossip.neighbour_has(neighbour, item, self.now_s)
            case Want():
                assert gossip.neighbour_wants(neighbour, item) == [], "all is retained"
        for stream, number in delivered(gossip):
            assert number == self.heard[receiver].get(stream, 0) + 1, "in order, and once"
            self.heard[receiver][stream] = number

    def say(self, peer: int) -> None:
        gossip = self.gossips[peer]
        number = gossip.broadcast(payload_of(gossip.own.upto + 1), self.now_s)
        self.heard[peer][gossip.own.key] = number

    def pass_time(self) -> None:
        self.now_s += 0.5
        for sender, gossip in enumerate(self.gossips):
            gossip.tick(self.now_s)
            for neighbour, have in gossip.announcements(self.now_s):
                self.under_way[sender, number_of(neighbour)].append(have)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join or cut", "carry", "carry", "say", "wait"]), st.integers(0, 11)
        ),
        max_size=60,
    )
)
def test_whatever_breaks_everybody_has_everything_in_the_end(steps: list[tuple[str, int]]) -> None:
    circle = Circle()
    pairs = [(one, other) for one in PEERS for other in PEERS if one < other]
    for step, choice in steps:
        links = sorted(circle.under_way)
        match step:
            case "join or cut":
                circle.join_or_cut(*pairs[choice % len(pairs)])
            case "carry" if links:
                circle.carry(*links[choice % len(links)])
            case "say":
                circle.say(choice % len(PEERS))
            case "wait":
                circle.pass_time()
            case "eager" | "lazy" if links:
                sender, receiver = links[choice % len(links)]
                circle.gossips[sender].set_eager(address(receiver), step == "eager")
    for pair in [(0, 1), (1, 2), (2, 3)]:
        if pair not in circle.under_way:
            circle.join_or_cut(*pair)
    for _ in range(100):
        for link in sorted(circle.under_way):
            circle.carry(*link)
        circle.pass_time()
    everything = {gossip.own.key: gossip.own.upto for gossip in circle.gossips if gossip.own.upto}
    assert circle.heard == [everything] * len(PEERS)
    assert len({gossip.digest for gossip in circle.gossips}) == 1
    assert not any(circle.under_way.values()), "and then nobody says any more"
