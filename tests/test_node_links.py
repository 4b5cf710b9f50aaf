"""A peer's links: who is let in, who is dialled, and what follows when a link ends."""

import random
from collections import deque
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actions import Action, Close, Dial, Notify, Report, Try
from liveness import Tried
from messages import (
    PROTOCOL_VERSION,
    Address,
    Beacon,
    Bye,
    Have,
    Hello,
    Holding,
    LivenessRequest,
    Refused,
    Welcome,
)
from node import Node
from nodes import (
    LIMITS,
    ME,
    OLDEST,
    STREAM,
    come,
    details,
    dialled,
    events,
    hello,
    neighbours,
    node_of,
    of,
    receive,
    refusal,
    said,
    welcomed,
)
from overlay import Dialled, Direction
from pure import BOOT_MS, address, addresses, key, name, run

# ---- links that others dial ----------------------------------------------------------------------


def test_who_dials_is_welcomed_and_told_what_we_have() -> None:
    node = node_of()
    node.broadcast(b"hello", now_s=0)
    refused, actions = node.admit(hello(1), now_s=0)
    assert refused is None
    up = {"neighbour": str(address(1)), "direction": "in"}
    assert actions == [Notify("neighbour_up", up)]
    welcome, *rest = node.take(address(1))
    assert welcome == Welcome(address(ME), BOOT_MS, links=1)
    assert Have((Holding(key(ME), 1, 1),), is_news=False) in rest
    assert address(1) in node.ready


def test_another_version_of_the_protocol_is_refused() -> None:
    words = Hello(PROTOCOL_VERSION + 1, address(1), BOOT_MS, 0, False, key(1))
    assert "version" in refusal(node_of(), words).reason


def full_node() -> Node:
    """All links are inbound and taken; number 11 has most links itself."""
    return node_of(*range(LIMITS.max_links))


def test_a_full_peer_gives_others_to_try_to_whom_it_refuses() -> None:
    refused = refusal(full_node(), hello(99))
    assert refused.address == address(ME)
    assert "links are taken" in refused.reason
    assert len(set(refused.contacts)) == LIMITS.contacts_per_exchange
    assert set(refused.contacts) <= set(addresses(*range(12)))


def test_a_full_peer_lets_in_who_has_no_link_for_the_inbound_neighbour_with_most() -> None:
    node = full_node()
    actions = come(node, 99, links=0)
    [close] = of(Close, actions)
    assert close.neighbour == address(11)
    assert close.last_words is not None
    assert not close.last_words.is_leaving
    assert events(actions) == ["neighbour_down", "neighbour_up"]
    assert neighbours(node) == addresses(*range(11), 99)


def test_a_full_peer_keeps_within_its_links_when_a_dial_succeeds() -> None:
    node = full_node()
    actions = welcomed(node, 99)
    assert len(of(Close, actions)) == 1
    assert len(neighbours(node)) == LIMITS.max_links
    assert address(99) in neighbours(node)


def test_a_later_life_replaces_the_link_of_an_earlier_one() -> None:
    node = node_of(1)
    actions = come(node, 1, boot_ms=BOOT_MS + 1)
    assert of(Close, actions) == [Close(address(1), Bye("replaced by a newer link", False))]
    assert "replaced" in details(actions, "neighbour_down")["reason"]
    assert events(actions)[-1] == "neighbour_up"
    assert node.overlay.neighbours[address(1)].boot_ms == BOOT_MS + 1
    assert of(Try, actions) == [], "it lives"


def test_an_earlier_life_is_refused() -> None:
    node = node_of(1)
    assert "later life" in refusal(node, hello(1, boot_ms=BOOT_MS - 1)).reason
    assert neighbours(node) == addresses(1)


def test_a_feeler_of_the_same_network_is_refused_and_remembered() -> None:
    node = node_of()
    assert "one network" in refusal(node, hello(1, root=node.tree.root)).reason
    assert address(1) in node.overlay.book


def test_a_feeler_of_another_network_is_let_in_even_when_there_is_no_room() -> None:
    node = full_node()
    refused, actions = node.admit(hello(99, root=key(99)), now_s=0)
    assert refused is None
    assert len(of(Close, actions)) == 1
    assert address(99) in neighbours(node)


# ---- links that we dial --------------------------------------------------------------------------


def test_contacts_are_dialled_with_a_hello_of_ours() -> None:
    node = node_of(1)
    dials = of(Dial, node.learn(addresses(2, 3), now_s=0))
    assert sorted(dial.address for dial in dials) == addresses(2, 3)
    words = Hello(PROTOCOL_VERSION, address(ME), BOOT_MS, 1, False, node.tree.root)
    assert [dial.hello for dial in dials] == [words] * 2


def test_a_dial_that_succeeds_is_an_outbound_link() -> None:
    node = node_of()
    node.learn(addresses(1), now_s=0)
    up = {"neighbour": str(address(1)), "direction": "out"}
    assert welcomed(node, 1) == [Notify("neighbour_up", up)]
    assert said(node, 1, Welcome) == [], "who dials is not the one to welcome"
    assert node.overlay.dialling == set()


def test_who_is_turned_away_tries_the_others_it_was_given() -> None:
    node = node_of()
    node.learn(addresses(1), now_s=0)
    refused = Refused(address(1), "full", (address(2), address(ME), address(3)))
    assert sorted(dialled(node.turned_away(address(1), refused, now_s=0))) == addresses(2, 3)
    assert address(1) in node.overlay.book, "it lives"
    assert dialled(node.tick(now_s=0.7)) == [], "and is left alone for a while"
    assert dialled(node.tick(now_s=1.3)) == addresses(1)


def test_who_turns_out_to_be_ourselves_is_not_dialled_again() -> None:
    node = node_of()
    alias = Address("alias", 1)
    assert dialled(node.learn([alias], now_s=0)) == [alias]
    node.turned_away(alias, Refused(address(ME), "that is this peer itself", ()), now_s=0)
    assert dialled(node.learn([alias], now_s=1000)) == []


def test_nobody_is_let_in_under_our_own_name() -> None:
    assert "itself" in refusal(node_of(), hello(ME)).reason


def test_a_peer_is_known_by_the_name_it_calls_itself() -> None:
    node = node_of()
    alias = Address("alias", 1)
    node.learn([alias], now_s=0)
    conflict, _ = node.link_up(alias, Welcome(address(1), BOOT_MS, 1), now_s=0)
    assert conflict == ""
    assert neighbours(node) == addresses(1)
    assert list(node.overlay.book) == addresses(1)
    assert node.overlay.dialling == set()


def test_a_dial_that_fails_is_followed_by_others() -> None:
    node = node_of()
    node.learn(addresses(*range(10)), now_s=0)
    first = set(node.overlay.dialling)
    failed = min(first)
    actions = node.dial_failed(failed, Dialled.SILENT, now_s=0)
    others = dialled(actions)
    assert others
    assert not first & set(others)


def test_a_dial_that_could_not_be_made_says_nothing_of_the_peer_and_is_made_later() -> None:
    node = node_of()
    node.learn(addresses(*range(10)), now_s=0)
    first = set(node.overlay.dialling)
    untried = min(first)
    assert node.dial_failed(untried, Dialled.UNTRIED, now_s=0) == []
    assert node.overlay.dialling == first - {untried}
    others = dialled(node.tick(now_s=0.1))
    assert len(others) == 1
    assert untried not in others


def test_a_failed_dial_is_reported_once_for_each_time_that_a_peer_goes_away() -> None:
    node = node_of()
    node.learn(addresses(1), now_s=0)
    unreachable = []
    for second in (0, 10, 20):
        actions = node.dial_failed(address(1), Dialled.SILENT, now_s=second)
        unreachable += [n.details for n in of(Notify, actions) if n.event == "peer_unreachable"]
    assert unreachable == [{"peer": str(address(1)), "reason": "no answer"}]
    welcomed(node, 1, now_s=30)
    node.leave("a pause", now_s=31)
    actions = node.dial_failed(address(1), Dialled.REFUSED, now_s=32)
    assert details(actions, "peer_unreachable")["reason"] == "connection refused"


def test_a_peer_that_turns_us_away_is_not_unreachable() -> None:
    node = node_of()
    node.learn(addresses(1), now_s=0)
    assert events(node.dial_failed(address(1), Dialled.TURNED_AWAY, now_s=0)) == ["isolated"]


def test_a_link_that_a_feeler_made_replaces_another_of_ours() -> None:
    node = node_of()
    for number in range(1, 6):
        welcomed(node, number, links=5)
    actions = node.tick(now_s=0)
    [close] = of(Close, actions)
    assert close.neighbour in addresses(1, 2, 3, 4)
    assert close.last_words == Bye("making room", is_leaving=False)
    assert len(neighbours(node)) == LIMITS.out_links
    assert of(Close, node.tick(now_s=0.1)) == []


def test_a_feeler_says_what_it_is() -> None:
    node = node_of()
    for number in (1, 2, 3, 4):
        node.overlay.learn(addresses(number))
        welcomed(node, number)
    node.overlay.learn(addresses(20))
    feelers = [dial for second in range(31) for dial in of(Dial, node.tick(second))]
    assert [(dial.address, dial.hello.is_feeler) for dial in feelers] == [(address(20), True)]
    assert feelers[0].hello.root == node.tree.root


@pytest.mark.parametrize("is_given", [False, True])
def test_a_feeler_comes_as_from_another_network_if_neighbours_give_nothing(is_given: bool) -> None:
    node = node_of()
    for number in (1, 2, 3, 4):
        welcomed(node, number)
        receive(node, number, Have((Holding(STREAM, 1, 1),), is_news=False))
    if is_given:
        receive(node, 1, run(STREAM, 1, 1))
    node.overlay.learn(addresses(20))
    for second in count():
        receive(node, 1, Beacon(OLDEST, second, 0, ()), now_s=second)
        feelers = [d for d in of(Dial, node.tick(second)) if d.hello.is_feeler]
        if feelers:
            break
    assert (feelers[0].hello.root == node.tree.root == OLDEST) == is_given


# ---- two that dial each other at once ------------------------------------------------------------


class Connection:
    """A connection between nodes 0 and 1: what is under way to each."""

    def __init__(self, dialler: int, dial: Dial) -> None:
        self.dialler = dialler
        self.dialled = dial.address
        self.to: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self.to[1 - dialler].append(dial.hello)


class Meeting:
    """Two nodes that know of each other, perhaps by another name, and dial at once."""

    def __init__(self, names: tuple[Address, Address]) -> None:
        self.nodes = [Node(name(n), LIMITS, random.Random(n), now_s=0.0) for n in (0, 1)]
        self.connections: list[Connection] = []
        self.links: list[Connection | None] = [None, None]  # the one each node holds
        for number, node in enumerate(self.nodes):
            self.carry_out(number, node.learn([names[1 - number]], now_s=0.0))

    def under_way(self) -> list[tuple[Connection, int]]:
        return [(c, number) for c in self.connections for number in (0, 1) if c.to[number]]

    def carry_out(self, number: int, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dial):
                self.connections.append(Connection(number, action))
            elif isinstance(action, Close):
                connection = self.links[number]
                assert connection is not None
                connection.to[1 - number].append(action.last_words)
                self.links[number] = None

    def arrive(self, connection: Connection, number: int) -> None:
        """The next thing on this connection reaches that node."""
        node, other = self.nodes[number], connection.to[1 - number]
        match connection.to[number].popleft():
            case Hello() as words:
                refused, actions = node.admit(words, now_s=0.0)
                self.carry_out(number, actions)
                if refused is None:
                    self.links[number] = connection
                    other.append(node.take(address(1 - number))[0])
                else:
                    other.append(refused)
            case Refused() as refused:
                self.carry_out(number, node.turned_away(connection.dialled, refused, now_s=0.0))
            case Welcome() as welcome:
                conflict, actions = node.link_up(connection.dialled, welcome, now_s=0.0)
                self.carry_out(number, actions)
                if conflict:
                    other.append(Bye(conflict, is_leaving=False))
                else:
                    self.links[number] = connection
            case Bye() as bye if self.links[number] is connection:
                self.carry_out(number, receive(node, 1 - number, bye))
            case Bye() if number == connection.dialler and self.links[number] is None:
                failed = node.dial_failed(connection.dialled, Dialled.TURNED_AWAY, 0.0)
                self.carry_out(number, failed)


NAMES = [(address(n), Address("alias", 1 + n)) for n in (0, 1)]


@settings(max_examples=120)
@given(st.tuples(*map(st.sampled_from, NAMES)), st.lists(st.integers(0, 3), max_size=20))
def test_two_that_dial_each_other_at_once_end_with_one_link(
    names: tuple[Address, Address], order: list[int]
) -> None:
    meeting = Meeting(names)
    choices = iter(order)
    while arriving := meeting.under_way():
        meeting.arrive(*arriving[next(choices, 0) % len(arriving)])
    [one, other] = meeting.links
    assert one is not None
    assert one is other
    directions = [
        node.overlay.neighbours[address(1 - n)].direction for n, node in enumerate(meeting.nodes)
    ]
    assert directions[one.dialler] is Direction.OUT
    assert directions[1 - one.dialler] is Direction.IN
    assert all(node.overlay.dialling == set() for node in meeting.nodes)


# ---- links that end ------------------------------------------------------------------------------


def test_a_link_that_breaks_is_no_death_and_its_peer_is_tried_at_once() -> None:
    node = node_of(1, 2)
    actions = node.link_down(address(1), "closed by the neighbour", now_s=5)
    assert of(Try, actions) == [Try(address(1))]
    down = details(actions, "neighbour_down")
    assert down == {"neighbour": str(address(1)), "reason": "closed by the neighbour"}
    assert "dead" not in events(actions)
    assert neighbours(node) == addresses(2)


def test_a_peer_that_refuses_after_its_link_broke_is_dead_and_reported_at_once() -> None:
    node = node_of(1, 2)
    node.link_down(address(1), "closed by the neighbour", now_s=5)
    actions = node.tried(address(1), Tried.REFUSED, now_s=5.01)
    assert of(Report, actions) == [Report(address(1))]
    reason = details(actions, "dead")["reason"]
    assert "closed by the neighbour" in reason
    assert "refused" in reason


def test_a_peer_that_answers_after_its_link_broke_is_dialled_again() -> None:
    node = node_of(1, 2)
    node.link_down(address(1), "closed by the neighbour", now_s=5)
    actions = node.tried(address(1), Tried.ECHOED, now_s=5.01)
    assert dialled(actions) == addresses(1)
    assert of(Report, actions) == []
    assert "dead" not in events(actions)


def test_a_lost_link_is_replaced_at_once() -> None:
    node = node_of()
    node.learn(addresses(*range(1, 5)), now_s=0)
    for number in range(1, 5):
        welcomed(node, number)
    node.learn(addresses(8), now_s=0)
    assert dialled(node.link_down(address(1), "lost", now_s=1)) == addresses(8)


def test_a_peer_that_leaves_is_no_dead_one_and_is_forgotten() -> None:
    node = node_of(1, 2)
    actions = receive(node, 1, Bye("asked to", is_leaving=True))
    assert of(Close, actions) == [Close(address(1), None)]
    assert details(actions, "neighbour_down")["reason"] == "it has left"
    assert of(Try, actions) == []
    assert of(Report, actions) == []
    assert address(1) not in node.overlay.book
    assert neighbours(node) == addresses(2)


def test_a_peer_that_closes_one_link_is_remembered_and_left_alone_for_a_while() -> None:
    node = node_of(1, 2)
    actions = receive(node, 1, Bye("making room", is_leaving=False))
    assert "making room" in details(actions, "neighbour_down")["reason"]
    assert of(Try, actions) == []
    assert dialled(actions) == []
    assert address(1) in node.overlay.book
    assert dialled(node.tick(now_s=0.5)) == []
    assert dialled(node.tick(now_s=2)) == addresses(1)


def test_what_follows_a_bye_is_not_heard() -> None:
    node = node_of(1, 2)
    receive(node, 1, Bye("bye", is_leaving=True), LivenessRequest(1), run(STREAM, 1, 1))
    assert node.gossip.delivered == 0


def test_who_breaks_the_protocol_is_told_why_and_left_alone_for_a_while() -> None:
    node = node_of(1, 2)
    actions = node.misbehaved(address(1), "broke the protocol", now_s=0)
    assert of(Close, actions) == [Close(address(1), Bye("broke the protocol", is_leaving=False))]
    assert of(Try, actions) == []
    assert of(Report, actions) == []
    assert dialled(actions) == []
    assert neighbours(node) == addresses(2)
    assert dialled(node.tick(now_s=2)) == addresses(1), "it may have been a newer program's"


def test_who_leaves_says_so_to_every_neighbour() -> None:
    node = node_of(1, 2, 3)
    actions = node.leave("asked to", now_s=0)
    closes = of(Close, actions)
    assert sorted(close.neighbour for close in closes) == addresses(1, 2, 3)
    assert {close.last_words for close in closes} == {Bye("asked to", is_leaving=True)}
    assert dialled(actions) == []
    assert neighbours(node) == []


# ---- isolated ------------------------------------------------------------------------------------


def isolations(*many: list[Action]) -> int:
    return sum(events(actions).count("isolated") for actions in many)


def test_who_loses_its_last_neighbour_for_good_is_isolated_and_says_so_once() -> None:
    node = node_of(1)
    assert isolations(node.link_down(address(1), "lost", now_s=1)) == 0, "it is being tried"
    assert isolations(node.tried(address(1), Tried.REFUSED, now_s=1)) == 1
    later = [node.tick(1 + tenth / 10) for tenth in range(1000)]
    assert isolations(*later) == 0
    assert any(dialled(actions) for actions in later), "it goes on trying"


def test_who_was_linked_again_may_be_isolated_again() -> None:
    node = node_of(1)
    for second in (1, 5):
        node.link_down(address(1), "lost", now_s=second)
        assert isolations(node.tried(address(1), Tried.REFUSED, now_s=second)) == 1
        welcomed(node, 1, now_s=second + 1)


def test_who_still_has_somebody_to_try_is_not_isolated() -> None:
    node = node_of(1)
    node.learn(addresses(2), now_s=0)
    node.link_down(address(1), "lost", now_s=1)
    assert isolations(node.tried(address(1), Tried.REFUSED, now_s=1)) == 0
    assert isolations(node.dial_failed(address(2), Dialled.SILENT, now_s=1.1)) == 1


def test_the_first_peer_of_a_network_is_not_isolated() -> None:
    node = node_of()
    assert isolations(node.learn([], now_s=0), *(node.tick(second) for second in range(10))) == 0


def test_who_knows_nobody_and_reaches_no_seed_is_isolated() -> None:
    node = node_of()
    assert isolations(node.nobody_introduces(now_s=0)) == 1
    assert isolations(node.nobody_introduces(now_s=5)) == 0
