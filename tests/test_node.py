"""What a peer says to its neighbours, and what it makes of whatever they say."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actions import Close, Try
from liveness import Tried
from messages import (
    Beacon,
    Contacts,
    Direct,
    Echo,
    Have,
    Holding,
    ListPeers,
    LivenessReply,
    LivenessRequest,
    Message,
    Opinion,
    OpinionRequest,
    Probe,
    Refused,
    Register,
    StaleRoot,
    Want,
    Wanted,
    Welcome,
)
from node import Node
from nodes import (
    LIMITS,
    ME,
    OLDEST,
    STREAM,
    come,
    dialled,
    hello,
    neighbours,
    node_of,
    of,
    receive,
    said,
    silent,
)
from pure import BOOT_MS, MESSAGES, address, addresses, key, name, run
from settings import Tunables
from wire import MAX_NUMBER, Run, decode, encode, new_run

# ---- what is said --------------------------------------------------------------------------------


def ask_and_reply(node: Node, number: int, digest: int) -> list[Have]:
    """The neighbour replies with that digest. Gives what it is told then."""
    receive(node, number, LivenessReply(1, digest, links=2, heard=0))
    return said(node, number, Have)


def test_a_difference_that_lasts_three_replies_is_resolved_by_telling_all() -> None:
    node = node_of(1, 2)
    node.broadcast(b"hello", now_s=0)
    node.take(address(1))
    other = node.gossip.digest ^ 1
    assert ask_and_reply(node, 1, other) == []
    assert ask_and_reply(node, 1, other) == []
    assert ask_and_reply(node, 1, other) == [Have((Holding(key(ME), 1, 1),), is_news=True)]
    assert ask_and_reply(node, 1, other) == []


def test_a_difference_that_passes_is_not_resolved() -> None:
    node = node_of(1)
    node.broadcast(b"hello", now_s=0)
    same = node.gossip.digest
    for digest in (same ^ 1, same ^ 1, same, same ^ 1, same ^ 1, same):
        assert ask_and_reply(node, 1, digest) == []


def test_a_reply_tells_how_many_links_the_neighbour_has() -> None:
    node = node_of(1)
    receive(node, 1, LivenessReply(1, 0, links=9, heard=0))
    assert node.overlay.neighbours[address(1)].links == 9


def test_what_a_neighbour_lacks_of_ours_is_known_from_its_replies() -> None:
    node = node_of(1)
    assert node.is_heard()
    node.broadcast(b"hello", now_s=0)
    assert not node.is_heard()
    assert said(node, 1, LivenessRequest), "it is asked"
    receive(node, 1, LivenessReply(0, 0, links=1, heard=1))
    assert node.is_heard()


def test_who_has_no_neighbour_is_not_heard() -> None:
    assert not node_of().is_heard()


def test_what_one_neighbour_says_reaches_the_others() -> None:
    node = node_of(1, 2)
    receive(node, 1, run(STREAM, 1, 2), now_s=0)
    node.tick(now_s=1)
    assert [have.holdings for have in said(node, 2, Have)] == [(Holding(STREAM, 1, 2),)]
    receive(node, 2, Want((Wanted(STREAM, 0),)), now_s=1)
    assert said(node, 2, Run) == [run(STREAM, 1, 2)]
    assert said(node, 1, Run) == []


def test_what_a_neighbour_has_more_is_asked_for() -> None:
    node = node_of(1)
    receive(node, 1, Have((Holding(STREAM, 1, 4),), is_news=False))
    assert said(node, 1, Want) == [Want((Wanted(STREAM, 0),))]


def test_when_the_asked_neighbour_is_lost_another_is_asked_at_once() -> None:
    node = node_of(1, 2)
    for number in (1, 2):
        receive(node, number, Have((Holding(STREAM, 1, 4),), is_news=False))
    [asked] = [number for number in (1, 2) if said(node, number, Want)]
    node.link_down(address(asked), "lost", now_s=0.1)
    assert said(node, 3 - asked, Want) == [Want((Wanted(STREAM, 0),))]


def test_contacts_are_answered_with_contacts_once() -> None:
    node = node_of(1, 2)
    assert dialled(receive(node, 1, Contacts((address(8),), is_reply=False))) == addresses(8)
    [reply] = said(node, 1, Contacts)
    assert reply.is_reply
    assert sorted(reply.addresses) == addresses(2, 8)
    receive(node, 1, Contacts((address(9),), is_reply=True))
    assert said(node, 1, Contacts) == []
    assert address(9) in node.overlay.book


def test_neighbours_are_asked_for_contacts_now_and_then() -> None:
    node = node_of(1)
    asked = 0
    for second in range(60):
        receive(node, 1, now_s=second)
        node.tick(now_s=second)
        requests = said(node, 1, Contacts)
        assert not any(request.is_reply for request in requests)
        asked += len(requests)
    assert 4 <= asked <= 8


def test_who_is_root_says_so_to_every_neighbour_again_and_again() -> None:
    node = node_of(1, 2)
    for number in (1, 2):
        receive(node, number, now_s=5)
    node.tick(now_s=5)
    for number in (1, 2):
        [beacon] = said(node, number, Beacon)
        assert (beacon.root, beacon.hops) == (key(ME), 0)


def test_a_neighbour_for_whom_something_waits_is_ready() -> None:
    node = node_of(1, 2)
    node.ready.clear()
    receive(node, 1, LivenessRequest(1))
    assert node.ready == {address(1)}
    assert node.has_something_for(address(1))
    assert not node.has_something_for(address(2))


def test_of_very_many_contacts_only_a_few_are_learned() -> None:
    """One neighbour shall not fill the book alone."""
    node = node_of(1)
    many = tuple(addresses(*range(100, 1000)))
    receive(node, 1, Contacts(many, is_reply=True))
    assert len(node.overlay.book) == 1 + LIMITS.contacts_per_exchange
    node.turned_away(address(2), Refused(address(2), "full", many[100:]), now_s=0)
    assert len(node.overlay.book) == 1 + 2 * LIMITS.contacts_per_exchange


@pytest.mark.parametrize(
    "message",
    [
        hello(1),
        Welcome(address(1), BOOT_MS, 1),
        Refused(address(1), "no", ()),
        Probe(1),
        Echo(1),
        Direct(address(1), b"psst"),
        Register(address(1), BOOT_MS),
        ListPeers(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_neighbours_do_not_say_to_each_other_is_a_fault(message: Message) -> None:
    node = node_of(1, 2)
    actions = receive(node, 1, message)
    [close] = of(Close, actions)
    assert close.neighbour == address(1)
    assert close.last_words is not None
    assert type(message).__name__ in close.last_words.reason
    assert neighbours(node) == addresses(2)


def test_who_asks_and_does_not_read_is_parted_from() -> None:
    node = node_of(1, 2)
    bound = LIMITS.max_queued_messages
    assert receive(node, 1, *[LivenessRequest(n) for n in range(bound)]) == []
    assert node.refusals.stats()["refused_outboxes"] == 0
    actions = receive(node, 1, LivenessRequest(1))
    [close] = of(Close, actions)
    assert close.neighbour == address(1)
    assert node.refusals.stats()["refused_outboxes"] == 1
    assert neighbours(node) == addresses(2)


def test_who_asks_much_and_reads_is_not() -> None:
    node = node_of(1)
    for number in range(3 * LIMITS.max_queued_messages):
        assert receive(node, 1, LivenessRequest(number)) == []
        assert len(said(node, 1, LivenessReply)) == 1


def test_what_waits_for_a_neighbour_that_does_not_read_is_bounded_whoever_causes_it() -> None:
    node = node_of(1, 2)
    for epoch in range(1, 3 * LIMITS.max_queued_messages):
        receive(node, 1, Beacon(OLDEST, epoch, hops=0, stale=()))
        node.take(address(1))
    node.tick(now_s=0.1)
    if address(2) in neighbours(node):  # to part from it is as good
        assert len(node.take(address(2))) <= LIMITS.max_queued_messages + 100


def test_a_beacon_is_passed_on_without_a_tail_that_serves_nobody() -> None:
    node = node_of(1, 2)
    node.take(address(2))
    stale = tuple(StaleRoot(key(number), 1) for number in range(2000, 12_000))
    receive(node, 1, Beacon(OLDEST, epoch=1, hops=0, stale=stale))
    for beacon in said(node, 2, Beacon):
        assert len(beacon.stale) <= 100


# ---- faults in the middle ------------------------------------------------------------------------


FAULT = Probe(1)  # no neighbour's business


def test_a_dial_decided_before_a_fault_is_made() -> None:
    """Otherwise the address would count as being dialled for ever, and soon nobody is dialled."""
    node = node_of(1)
    contacts = Contacts(tuple(addresses(5, 6, 7, 8)), is_reply=True)
    actions = receive(node, 1, contacts, FAULT)
    assert set(dialled(actions)) == node.overlay.dialling


def test_an_attempt_decided_before_a_fault_is_made() -> None:
    """Otherwise there would soon be no attempt left for anybody's opinion."""
    node = node_of(1, 2)
    actions = receive(node, 1, *[OpinionRequest(address(n)) for n in range(100, 116)], FAULT)
    for tried in of(Try, actions):
        node.tried(tried.accused, Tried.SILENT, now_s=1)
    assert receive(node, 2, OpinionRequest(address(200))) == [Try(address(200))]


def test_a_link_given_up_before_a_fault_is_closed() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    node.tried(address(1), Tried.SILENT, now_s=5)
    receive(node, 2, Opinion(address(1), is_alive=False), now_s=5)
    actions = receive(node, 3, Opinion(address(1), is_alive=False), FAULT)
    assert {close.neighbour for close in of(Close, actions)} == set(addresses(1, 3))
    assert neighbours(node) == addresses(2)


# ---- numbers at their limit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "beacon",
    [
        Beacon(OLDEST, epoch=MAX_NUMBER, hops=0, stale=()),
        Beacon(OLDEST, epoch=1, hops=MAX_NUMBER, stale=()),
        Beacon(OLDEST, epoch=1, hops=MAX_NUMBER - 1, stale=()),
        Beacon(OLDEST, epoch=1, hops=0, stale=(StaleRoot(key(ME), MAX_NUMBER),)),
    ],
)
def test_no_beacon_makes_us_say_what_fits_no_frame(beacon: Beacon) -> None:
    """It is passed on with one hop more, and who becomes root after it says another epoch."""
    node = node_of(1, 2)
    receive(node, 1, beacon)
    for step in range(100):
        node.tick(now_s=step / 2)
        for neighbour in neighbours(node):
            for item in node.take(neighbour):
                assert isinstance(item, Run) or encode(item)


@pytest.mark.parametrize("hops", [0, 100, 2**32, MAX_NUMBER - 2, MAX_NUMBER - 1, MAX_NUMBER])
def test_no_beacon_sets_honest_neighbours_against_each_other(hops: int) -> None:
    """What somebody bears and passes on is what its neighbours bear."""
    insider, honest = 1, 60
    node, other = node_of(insider, honest), Node(name(honest), LIMITS, random.Random(1), now_s=0.0)
    come(other, ME)
    receive(node, insider, Beacon(OLDEST, epoch=1, hops=hops, stale=()))
    assert receive(other, ME, *node.take(address(honest))) == []


# ---- whatever neighbours say ---------------------------------------------------------------------

BROADCASTS = st.builds(
    new_run,
    st.sampled_from([STREAM, key(ME), key(1)]),
    st.integers(1, 4) | st.just(MAX_NUMBER - 1),
    st.binary(max_size=10),
)


FRIEND = 60
ROUNDS = st.lists(
    st.tuples(st.integers(1, 3), st.lists(MESSAGES | BROADCASTS, max_size=4), st.integers(0, 2)),
    max_size=8,
)


class Crowd:
    """A node, an honest friend, and insiders that say anything; every bound is checked."""

    def __init__(self, wants_history: bool) -> None:
        self.limits = Tunables(max_links=4, out_links=2, book_size=10, max_streams=20)
        self.node, self.friend = (
            Node(name(n, BOOT_MS + 1000), self.limits, random.Random(n), 0.0, wants_history)
            for n in (ME, FRIEND)
        )
        self.now_s = 0.0
        come(self.node, FRIEND)
        come(self.friend, ME)

    def hear(self, insider: int, items: list[Message | Run]) -> None:
        """An insider says these things; if it has no link, it dials first."""
        if address(insider) not in self.node.overlay.neighbours:
            come(self.node, insider, links=0)
        self.node.receive(address(insider), items, self.now_s)
        self._check()

    def pass_time(self) -> None:
        self.now_s += 0.5
        for node in (self.node, self.friend):
            node.tick(self.now_s)
            for neighbour in neighbours(node):
                if neighbour in node.overlay.neighbours:
                    node.test_liveness(neighbour, self.now_s)
        self._check()

    def _check(self) -> None:
        self._let_friends_talk()
        for node in (self.node, self.friend):
            for neighbour in neighbours(node):
                while items := node.take(neighbour):
                    assert all(isinstance(item, Run) or encode(item) for item in items)
            node.gossip.inbox.collect(1 << 30)
            assert len(node.overlay.neighbours) <= self.limits.max_links
            assert node.me.origin not in node.overlay.neighbours
            assert len(node.overlay.book) <= self.limits.book_size
            assert len(node.gossip.streams) <= self.limits.max_streams
            assert node.gossip.history_size <= self.limits.history_bytes

    def _let_friends_talk(self) -> None:
        """Neither ever finds fault with what the other says or passes on."""
        for _ in range(4):
            self.friend.receive(address(ME), as_sent(self.node.take(address(FRIEND))), self.now_s)
            assert address(ME) in self.friend.overlay.neighbours
            self.node.receive(address(FRIEND), as_sent(self.friend.take(address(ME))), self.now_s)
            assert address(FRIEND) in self.node.overlay.neighbours


def as_sent(items: list[Message | Run]) -> list[Message | Run]:
    """The items as they are after their way over the wire."""
    return [i if isinstance(i, Run) else decode(encode(i)[4], encode(i)[5:]) for i in items]


@settings(max_examples=250)
@given(st.booleans(), ROUNDS)
def test_whatever_insiders_say_honest_neighbours_stay_together_and_every_bound_holds(
    wants_history: bool, rounds: list[tuple[int, list[Message | Run], int]]
) -> None:
    crowd = Crowd(wants_history)
    for insider, items, steps in rounds:
        crowd.hear(insider, items)
        for _ in range(steps):
            crowd.pass_time()
    for _ in range(6):
        crowd.pass_time()


def test_who_was_idle_is_not_late_when_it_becomes_busy() -> None:
    node = node_of(1, 2)
    now_s = 0.0
    while node.is_busy or now_s == 0:
        now_s += LIMITS.tick_interval_s
        node.tick(now_s)
    now_s += 0.4
    receive(node, 2, Have((Holding(STREAM, 1, 1),), is_news=True), now_s=now_s)
    for tick in range(7):
        node.tick(now_s + tick * LIMITS.tick_interval_s)
    assert said(node, 2, Want), "it is asked for as if nothing had been"


def test_who_was_busy_and_is_late_lets_others_have_that_time() -> None:
    node = node_of(1, 2)
    receive(node, 2, Have((Holding(STREAM, 1, 1),), is_news=True), now_s=1.0)
    node.tick(now_s=1.0)
    node.tick(now_s=1.0 + LIMITS.most_want_delay_s / 4)
    assert not said(node, 2, Want)
