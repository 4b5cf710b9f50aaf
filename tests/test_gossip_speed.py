"""How many messages a second one origin may say: at its own peer, and at those that hear it."""

import time

import pytest

from embedding import Embedded
from gossip import Gossip
from gossips import A, B, S, T, announce, asked, gossip_of, numbers
from helpers import wait_until
from inhabitants import SimulatedPeer
from limits import OF_GOSSIP, Refusals
from messages import Address, stream_name
from peer import BroadcastTimeout, Peer
from pure import run
from settings import Tunables
from world import World

MOST, PER_S = 100, 10  # of a history, and a second
AT_ONCE = MOST + PER_S  # a whole history, and what its origin says at once


@pytest.fixture
def refusals() -> Refusals:
    return Refusals(*OF_GOSSIP)


@pytest.fixture
def gossip(refusals: Refusals) -> Gossip:
    return gossip_of(stream_messages=MOST, stream_messages_per_s=PER_S, refusals=refusals)


# ---- who hears it --------------------------------------------------------------------------------


def test_as_much_as_an_origin_may_say_is_taken(gossip: Gossip, refusals: Refusals) -> None:
    for number in range(1, AT_ONCE + 1):
        assert gossip.hear(A, run(S, number, number), now_s=0) == 1
    for second in range(1, 100):
        first = AT_ONCE + 1 + (second - 1) * PER_S
        assert gossip.hear(A, run(S, first, first + PER_S - 1), now_s=second) == PER_S
    assert refusals.counts["messages"] == 0
    assert asked(gossip) == []


def test_what_is_too_much_is_as_if_it_had_not_come_and_is_said_once(
    gossip: Gossip, refusals: Refusals
) -> None:
    heard = [gossip.hear(A, run(S, number, number), now_s=5) for number in range(1, 200)]
    assert heard == [1] * AT_ONCE + [0] * (199 - AT_ONCE)
    assert numbers(gossip) == list(range(1, AT_ONCE + 1))
    assert gossip.streams[S].upto == AT_ONCE, "so it is not passed on either"
    assert refusals.counts["messages"] == 1, "those behind the first only come out of order"
    [said] = refusals.collect()
    assert said["what"] == "messages"
    assert said["source"] == A.host
    assert str(stream_name(S).origin) in said["reason"]


def test_other_streams_of_that_neighbour_are_taken_all_the_same(gossip: Gossip) -> None:
    for number in range(1, 200):
        gossip.hear(A, run(S, number, number), now_s=5)
    assert gossip.hear(A, run(T, 1, AT_ONCE), now_s=5) == AT_ONCE


def test_copies_cost_nothing(gossip: Gossip, refusals: Refusals) -> None:
    for _ in range(10):
        gossip.hear(A, run(S, 1, MOST), now_s=5)
        gossip.hear(B, run(S, 1, MOST), now_s=5)
    assert gossip.hear(A, run(S, MOST + 1, AT_ONCE), now_s=5) == PER_S
    assert refusals.counts["messages"] == 0


def test_one_large_run_passes_and_is_paid_for_afterwards(gossip: Gossip) -> None:
    """Else it would never pass, for it comes the same again when it is asked for."""
    assert gossip.hear(A, run(S, 1, 10 * AT_ONCE), now_s=0) == 10 * AT_ONCE
    owes_s = 9 * AT_ONCE / PER_S
    assert gossip.hear(A, run(S, 10 * AT_ONCE + 1, 10 * AT_ONCE + 1), now_s=owes_s - 1) == 0
    assert gossip.hear(A, run(S, 10 * AT_ONCE + 1, 10 * AT_ONCE + 1), now_s=owes_s + 1) == 1


def test_what_was_refused_is_asked_for_when_there_is_room_for_it_and_blames_nobody(
    gossip: Gossip, refusals: Refusals
) -> None:
    upto = 300
    announce(gossip, B, S, 1, upto)  # so it is no news, and the tree owes nothing
    announce(gossip, A, S, 1, upto)
    asked(gossip)
    had = now_s = 0.0
    while had < upto:
        assert had <= AT_ONCE + now_s * PER_S + 1
        for number in range(int(had) + 1, upto + 1):
            had += gossip.hear(A, run(S, number, number), now_s)
        while had < upto and not asked(gossip):
            now_s += 0.05
            assert gossip.tick(now_s) == [], "no fault of the tree"
    assert numbers(gossip) == list(range(1, upto + 1))
    assert now_s == pytest.approx((upto - AT_ONCE) / PER_S, rel=0.3)
    assert not gossip.questions.in_vain
    assert refusals.counts["messages"] > 1


def test_a_stream_that_is_refused_is_not_asked_for_again_at_once(gossip: Gossip) -> None:
    for number in range(1, 200):
        gossip.hear(A, run(S, number, number), now_s=5)
    assert asked(gossip) == [], "what came would be refused again"


# ---- who says it ---------------------------------------------------------------------------------


def test_a_peer_may_say_so_much_at_once_and_then_so_much_a_second() -> None:
    gossip = gossip_of(stream_messages_per_s=PER_S)
    assert said_at(gossip, now_s=100) == PER_S
    assert gossip.is_busy, "so that it is looked at again soon"
    assert said_at(gossip, now_s=100.09) == 0
    assert said_at(gossip, now_s=100.11) == 1
    assert said_at(gossip, now_s=100.51) == 4


def said_at(gossip: Gossip, now_s: float) -> int:
    """How much it may say then, and says."""
    gossip.tick(now_s)
    before = gossip.own.upto
    while not gossip.pace.is_far_ahead:
        gossip.broadcast(b"now", now_s)
    return gossip.own.upto - before


def test_a_peer_that_was_silent_for_long_says_no_more_at_once() -> None:
    gossip = gossip_of(stream_messages_per_s=PER_S)
    assert [said_at(gossip, now_s=3600.0 * hour) for hour in range(1, 5)] == [PER_S] * 4


def test_even_less_than_one_message_a_second_can_be_said() -> None:
    gossip = gossip_of(stream_messages_per_s=0.1)
    assert [said_at(gossip, now_s) for now_s in (0, 9, 10.1, 20.0, 20.2)] == [1, 0, 1, 0, 1]


# ---- networks ------------------------------------------------------------------------------------


def simulated(count: int) -> tuple[World, list[SimulatedPeer]]:
    world = World(3, Tunables(stream_messages=1000, stream_messages_per_s=50.0))
    peers = [world.start_peer(Address(f"10.0.0.{n}", 6000)) for n in range(1, count + 1)]
    world.run_until(10.0)
    return world, peers


def has_all(peers: list[SimulatedPeer], origin: SimulatedPeer) -> bool:
    upto = origin.node.gossip.own.upto
    return all(peer.heard.get(origin.node.me.key) == upto for peer in peers)


def refused(peers: list[SimulatedPeer]) -> int:
    return sum(peer.node.refusals.counts["messages"] for peer in peers)


def test_who_says_all_that_it_may_is_refused_nowhere_and_late_joiners_hear_it() -> None:
    world, peers = simulated(6)
    origin = peers[0]
    for step in range(300):
        while not origin.node.gossip.pace.is_far_ahead:
            origin.say()
        if step == 200:
            peers.append(world.start_peer(Address("10.0.0.99", 6000)))
        world.run_until(world.now_s + 0.1)
    assert 50 * 28 < origin.node.gossip.own.upto <= 50 * 31
    world.run_until(world.now_s + 5)
    assert has_all(peers[:6], origin)
    assert peers[6].heard[origin.node.me.key] == origin.node.gossip.own.upto
    assert refused(peers) == 0


def test_who_says_more_than_it_may_is_heard_late_and_nobody_else_is() -> None:
    world, peers = simulated(6)
    cheat, honest = peers[0], peers[1]
    began_s = world.now_s
    for _ in range(1400):
        cheat.say()
    honest.say()
    world.run_until(began_s + 2)
    assert has_all(peers, honest)
    assert not has_all(peers, cheat)
    assert refused(peers) > 0
    while not has_all(peers, cheat):
        world.run_until(world.now_s + 1)
        assert world.now_s < began_s + 30
    took_s = world.now_s - began_s
    assert took_s > (1400 - 1050) / 50 - 1
    assert sum(peer.gaps for peer in peers) == 0


def say_in_a_hurry(speaker: Peer, count: int) -> None:
    for _ in range(count):
        speaker.broadcast(b"at once", timeout=0.001)


def test_a_broadcast_waits_until_more_may_be_said(embedded: Embedded) -> None:
    speaker = embedded.peer(tunables=Tunables(stream_messages_per_s=50.0))
    hearer = embedded.peer(join=[speaker.address])
    wait_until(lambda: speaker.neighbours() and hearer.neighbours(), what="the two as neighbours")
    began_s = time.monotonic()
    for number in range(150):
        speaker.broadcast(b"%d" % number)
        assert number + 1 <= 50 + 50 * (time.monotonic() - began_s) + 1
    assert time.monotonic() - began_s >= 1.9
    with pytest.raises(BroadcastTimeout, match="more was said than is allowed"):
        say_in_a_hurry(speaker, 10)
    heard = embedded.wait_to_hear(hearer, 150)[:150]
    assert [int(payload) for _, _, payload in heard] == list(range(150))
    assert hearer.stats()["refused_messages"] == 0
