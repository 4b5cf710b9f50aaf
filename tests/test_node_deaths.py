"""Who is taken for dead, by whose word, and who is not."""

import pytest

from actions import Action, Close, Dial, Report, Try
from liveness import Tried
from messages import (
    Bye,
    LivenessReply,
    LivenessRequest,
    Opinion,
    OpinionRequest,
)
from node import Node
from nodes import (
    ME,
    details,
    dialled,
    events,
    neighbours,
    node_of,
    of,
    receive,
    said,
    silent,
    welcomed,
)
from pure import address, addresses, key, run

# ---- who lives -----------------------------------------------------------------------------------


def test_a_liveness_request_is_answered_with_its_number_and_what_we_have() -> None:
    node = node_of(1, 2)
    receive(node, 2, run(key(1), 1, 3))
    receive(node, 1, LivenessRequest(7))
    [reply] = said(node, 1, LivenessReply)
    assert reply == LivenessReply(7, node.gossip.digest, links=2, heard=3)


def test_a_silent_neighbour_is_asked_three_times_and_then_suspect() -> None:
    node = node_of(1, 2, 3, 4, 5, 6)
    actions = silent(node, 1)
    assert [request.number for request in said(node, 1, LivenessRequest)] == [1, 2, 3]
    assert events(actions) == ["liveness_test"] * 3 + ["suspect"]
    assert details(actions, "suspect")["reason"] == "no reply to 3 liveness requests"
    assert of(Try, actions) == [Try(address(1))]


def test_up_to_three_neighbours_are_asked_for_their_opinion_on_a_suspect() -> None:
    node = node_of(1, 2, 3, 4, 5, 6)
    silent(node, 1)
    asked = [number for number in range(2, 7) if said(node, number, OpinionRequest)]
    assert len(asked) == 3
    assert said(node, 1, OpinionRequest) == []


def test_a_suspect_that_nobody_reaches_is_dead() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    assert node.tried(address(1), Tried.SILENT, now_s=5) == []
    assert receive(node, 2, Opinion(address(1), is_alive=False), now_s=5) == []
    actions = receive(node, 3, Opinion(address(1), is_alive=False), now_s=5)
    reason = "no reply to 3 liveness requests"
    assert of(Close, actions) == [Close(address(1), Bye(reason, is_leaving=False))]
    assert of(Report, actions) == [Report(address(1))]
    assert details(actions, "dead") == {"neighbour": str(address(1)), "reason": reason}
    assert neighbours(node) == addresses(2, 3)


def test_a_suspect_that_one_neighbour_reaches_keeps_its_link() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    assert receive(node, 2, Opinion(address(1), is_alive=True), now_s=5) == []
    assert node.tried(address(1), Tried.SILENT, now_s=5) == []
    assert neighbours(node) == addresses(1, 2, 3)


def test_a_suspect_that_speaks_keeps_its_link() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    receive(node, 1, LivenessRequest(1), now_s=4.2)
    assert node.tried(address(1), Tried.SILENT, now_s=5) == []
    assert "dead" not in events(node.tick(now_s=6))
    assert neighbours(node) == addresses(1, 2, 3)


def test_a_suspect_is_not_waited_for_when_witnesses_stay_silent() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    node.tried(address(1), Tried.SILENT, now_s=5.0)
    assert of(Report, node.tick(now_s=5.0)) == []
    assert of(Report, node.tick(now_s=5.5)) == [Report(address(1))]


def check_closed(actions: list[Action], number: int) -> None:
    """That one link is closed, with words that do not say that this peer leaves the network."""
    [close] = of(Close, actions)
    assert close.neighbour == address(number)
    assert close.last_words is not None
    assert not close.last_words.is_leaving


def test_a_link_that_twice_stays_silent_while_others_reach_its_peer_is_closed() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    assert node.tried(address(1), Tried.ECHOED, now_s=4.5) == []
    silent(node, 1, from_s=4.5)
    actions = node.tried(address(1), Tried.ECHOED, now_s=9)
    check_closed(actions, 1)
    assert of(Report, actions) == []
    assert "dead" not in events(actions)


def test_when_half_the_neighbours_are_silent_links_end_and_nobody_is_accused() -> None:
    node = node_of(1, 2)
    for step in range(90):
        for number in (1, 2):
            node.test_liveness(address(number), step / 20)
    actions = node.tried(address(1), Tried.SILENT, now_s=4.5)
    check_closed(actions, 1)
    assert of(Report, actions) == []
    assert "dead" not in events(actions)
    assert "half" in details(actions, "neighbour_down")["reason"]


def test_whom_we_have_no_means_to_try_is_let_go_of_and_not_accused() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    actions = node.tried(address(1), Tried.UNTRIED, now_s=4.5)
    check_closed(actions, 1)
    assert of(Report, actions) == []
    assert not {"suspect", "dead"} & set(events(actions))


def test_whom_a_cut_off_peer_let_go_of_is_not_dialled_at_once() -> None:
    node = node_of(1, 2)
    fall_silent(node, 1, 2, until_s=4.5)
    actions = node.tried(address(1), Tried.SILENT, now_s=4.5)
    assert dialled(actions) == []
    assert address(1) in dialled(node.tick(now_s=6.0))


def fall_silent(node: Node, *numbers: int, until_s: float) -> list[Action]:
    """These neighbours say nothing, and are tested."""
    actions: list[Action] = []
    for step in range(round(20 * until_s)):
        for number in numbers:
            actions += node.test_liveness(address(number), step / 20)
        node.tick(step / 20)
    return actions


def test_a_suspects_place_is_filled_before_the_verdict() -> None:
    node = welcoming_node()
    assert len(dialled(silent(node, 1))) == 1
    assert neighbours(node) == addresses(1, 2, 3, 4)


def welcoming_node() -> Node:
    """A node that has dialled four neighbours, and knows many others."""
    node = node_of()
    node.learn(addresses(1, 2, 3, 4), now_s=0)
    for number in (1, 2, 3, 4):
        welcomed(node, number)
    assert node.learn(addresses(*range(60, 90)), now_s=0) == []
    return node


def test_when_half_fall_silent_others_are_dialled_before_they_are_suspect() -> None:
    """And as one that has no other links, if all did: so nobody turns it away."""
    node = welcoming_node()
    actions = fall_silent(node, 1, 2, until_s=2.5)
    assert "suspect" not in events(actions)
    dials = of(Dial, actions)
    assert len(dials) == 4
    assert {dial.hello.links for dial in dials} == {2}


def test_a_peer_that_was_asleep_accuses_nobody() -> None:
    node = node_of(1, 2, 3)
    silent(node, 1)
    node.tick(now_s=9.0)
    assert node.tried(address(1), Tried.SILENT, now_s=9.1) == []
    assert [events(node.tick(now_s=9.0 + tenth / 10)) for tenth in range(20)] == [[]] * 20
    assert neighbours(node) == addresses(1, 2, 3)


def test_a_peer_that_slept_still_finds_out_about_a_link_that_broke_before() -> None:
    node = node_of(1)
    assert of(Try, node.link_down(address(1), "lost", now_s=0)) == [Try(address(1))]
    assert of(Try, node.tick(now_s=100)) == [Try(address(1))]
    actions = node.tried(address(1), Tried.REFUSED, now_s=100)
    assert of(Report, actions) == [Report(address(1))]


# ---- opinions for others -------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Tried)
def test_who_is_asked_for_an_opinion_tries_and_tells(outcome: Tried) -> None:
    node = node_of(1, 2)
    assert receive(node, 1, OpinionRequest(address(9))) == [Try(address(9))]
    assert said(node, 1, Opinion) == []
    assert node.tried(address(9), outcome, now_s=1) == []
    opinion = Opinion(address(9), is_alive=outcome.is_alive)
    assert said(node, 1, Opinion) == ([] if outcome is Tried.UNTRIED else [opinion])
    assert said(node, 2, Opinion) == []


def test_many_that_ask_about_one_peer_share_an_attempt() -> None:
    node = node_of(1, 2)
    assert receive(node, 1, OpinionRequest(address(9))) == [Try(address(9))]
    assert receive(node, 2, OpinionRequest(address(9))) == []
    node.tried(address(9), Tried.ECHOED, now_s=1)
    for number in (1, 2):
        assert said(node, number, Opinion) == [Opinion(address(9), is_alive=True)]


def test_who_is_asked_about_itself_lives() -> None:
    node = node_of(1)
    assert receive(node, 1, OpinionRequest(address(ME))) == []
    assert said(node, 1, Opinion) == [Opinion(address(ME), is_alive=True)]


def test_an_opinion_is_not_told_to_who_has_gone() -> None:
    node = node_of(1, 2)
    receive(node, 1, OpinionRequest(address(9)))
    receive(node, 1, Bye("bye", is_leaving=True))
    assert node.tried(address(9), Tried.ECHOED, now_s=1) == []


def test_attempts_for_others_are_bounded() -> None:
    node = node_of(1)
    requests = [OpinionRequest(address(number)) for number in range(100, 200)]
    tries = of(Try, receive(node, 1, *requests))
    assert 0 < len(tries) <= 16
    assert node.refusals.stats()["refused_opinions"] == 100 - len(tries)
    node.tried(tries[0].accused, Tried.SILENT, now_s=1)
    assert of(Try, receive(node, 1, OpinionRequest(address(300)))) == [Try(address(300))]


def test_an_opinion_about_another_closes_no_case_here() -> None:
    node = node_of(1, 2, 3)
    assert receive(node, 1, Opinion(address(2), is_alive=False)) == []
    assert neighbours(node) == addresses(1, 2, 3)
