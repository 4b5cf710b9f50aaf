"""Peers that die, hang, come back and leave; seeds that vanish and return."""

import pytest

from helpers import let_pass, wait_until
from programs import Program, Programs, is_connected

PAUSE_FORGIVEN_S = 2.5
HANG_LIMIT_S = 80.0  # usually 6; a seed whose echoes are slow waits for a renewal as well


def others(peers: list[Program], one: Program) -> list[Program]:
    return [peer for peer in peers if peer is not one]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_killed_peer_is_dead_to_its_neighbours_and_gone_from_the_seed(
    programs: Programs, count: int
) -> None:
    seed, peers = programs.network(count)
    victim = peers[-1]
    holding = [peer for peer in peers if victim.address in peer.neighbours()]
    assert holding
    victim.kill()
    for peer in holding:
        dead = peer.wait_for("dead", neighbour=victim.address, timeout_s=15)
        assert dead["reason"]
        peer.wait_for("neighbour_down", neighbour=victim.address)
    removed = seed.wait_for("peer_removed", peer=victim.address, timeout_s=15)
    assert removed["reason"]
    assert removed["peers"] == count - 1
    report = seed.wait_for("dead_report", peer=victim.address)
    assert report["reporter"] in [peer.address for peer in others(peers, victim)]


def test_nobody_else_is_called_dead(programs: Programs) -> None:
    seed, peers = programs.network(6)
    victim = peers[0]
    victim.kill()
    seed.wait_for("peer_removed", peer=victim.address)
    let_pass(6)  # longer than it takes to accuse anybody
    for peer in others(peers, victim):
        assert {event["neighbour"] for event in peer.all("dead")} <= {victim.address}
    assert len(seed.all("peer_removed")) == 1


def test_nobody_is_dead_in_a_network_at_rest(programs: Programs) -> None:
    seed, peers = programs.network(5)
    let_pass(10)
    for peer in peers:
        assert peer.all("dead") == []
        assert peer.all("isolated") == []
    assert seed.all("peer_removed") == []
    assert seed.all("dead_report") == []


def test_the_rest_goes_on_talking_when_many_are_killed_at_once(programs: Programs) -> None:
    _, peers = programs.network(10)
    for victim in peers[5:]:
        victim.process.kill()
    peers[0].say("who is left?")
    for peer in peers[1:5]:
        peer.wait_for("message", origin=peers[0].address, text="who is left?")
    wait_until(lambda: is_connected(peers[:5]), what="one network of the five left")


def test_the_last_one_left_says_it_is_isolated(programs: Programs) -> None:
    _, [survivor, victim] = programs.network(2)
    assert survivor.wait_for("neighbour_up")
    before = survivor.mark()
    victim.kill()
    survivor.wait_for("isolated", after=before)
    newcomer = programs.peer()
    survivor.wait_for("neighbour_up", neighbour=newcomer.address)


@pytest.mark.parametrize("count", [2, 4])
def test_a_hung_peer_is_suspect_and_then_dead(programs: Programs, count: int) -> None:
    seed, peers = programs.network(count)
    victim = peers[-1]
    holding = [peer for peer in peers if victim.address in peer.neighbours()]
    victim.pause()
    for peer in holding:
        suspect = peer.wait_for("suspect", neighbour=victim.address, timeout_s=20)
        dead = peer.wait_for("dead", neighbour=victim.address, timeout_s=20)
        assert suspect["reason"]
        assert dead["reason"]
        assert suspect["at"] <= dead["at"]
    seed.wait_for("peer_removed", peer=victim.address, timeout_s=HANG_LIMIT_S)


def test_a_short_pause_kills_nobody(programs: Programs) -> None:
    seed, peers = programs.network(4)
    victim = peers[-1]
    paused_s = PAUSE_FORGIVEN_S + 1
    while paused_s > PAUSE_FORGIVEN_S + 0.5:  # the machine was late: that proves nothing, again
        victim.pause()
        paused_s = let_pass(PAUSE_FORGIVEN_S)
        victim.resume()
    victim.say("I only blinked")
    for peer in others(peers, victim):
        peer.wait_for("message", text="I only blinked")
    let_pass(5)
    for peer in peers:
        assert peer.all("dead") == []
    assert seed.all("peer_removed") == []


def test_a_hung_peer_that_comes_back_catches_up(programs: Programs) -> None:
    _, peers = programs.network(4)
    victim, speaker = peers[-1], peers[0]
    speaker.say("before")
    victim.wait_for("message", text="before")
    victim.pause()
    for peer in others(peers, victim):
        if victim.address in peer.neighbours():
            peer.wait_for("dead", neighbour=victim.address)
    speaker.say(*(f"missed {number}" for number in range(200)))
    peers[1].wait_for("message", text="missed 199")
    victim.resume()
    victim.wait_for("message", text="missed 199")
    heard = [payload for _, _, payload in victim.heard(speaker.address)]
    assert heard == [b"before", *(b"missed %d" % number for number in range(200))]
    assert victim.all("gap") == []
    wait_until(lambda: is_connected(peers), what="one network of all four again")


def test_a_hung_peer_that_comes_back_is_on_the_seeds_list_again(programs: Programs) -> None:
    seed, [first, victim] = programs.network(2)
    victim.pause()
    seed.wait_for("peer_removed", peer=victim.address, timeout_s=HANG_LIMIT_S)
    before = seed.mark()
    victim.resume()  # long before it would renew its lease
    seed.wait_for("peer_registered", peer=victim.address, after=before, timeout_s=12)
    wait_until(lambda: is_connected([first, victim]), what="the two as one network again")


def test_a_hung_peer_holds_up_nobody(programs: Programs) -> None:
    _, peers = programs.network(4)
    victim, speaker, *listeners = peers
    victim.pause()
    speaker.say(*("x" * 50_000 for _ in range(100)))  # far more than sockets hold
    for listener in listeners:
        listener.wait_for("message", origin=speaker.address, count=100)


def test_messages_still_spread_when_every_seed_is_killed(programs: Programs) -> None:
    seeds = [programs.seed() for _ in range(3)]
    peers = programs.peers(5)
    wait_until(lambda: is_connected(peers), what="one network")
    for seed in seeds:
        seed.kill()
    peers[0].say("nobody needs them")
    for peer in peers[1:]:
        peer.wait_for("message", text="nobody needs them")
    newcomer = programs.peer("--join", peers[3].address)
    newcomer.say("nor do I")
    for peer in peers:
        peer.wait_for("message", text="nor do I")


def test_a_peer_that_dies_while_every_seed_is_down_is_dead_all_the_same(
    programs: Programs,
) -> None:
    seed, peers = programs.network(3)
    seed.kill()
    victim = peers[-1]
    holding = [peer for peer in peers if victim.address in peer.neighbours()]
    victim.kill()
    for peer in holding:
        peer.wait_for("dead", neighbour=victim.address, timeout_s=15)
    peers[0].say("we go on")
    peers[1].wait_for("message", text="we go on")


def test_a_restarted_seed_is_filled_again(programs: Programs) -> None:
    seed, peers = programs.network(4)
    marks = {peer.address: peer.mark() for peer in peers}
    port = seed.port
    seed.kill()
    again = programs.seed(port=port)
    for peer in peers:
        again.wait_for("peer_registered", peer=peer.address, timeout_s=60)
        peer.wait_for("registered", seed=again.address, after=marks[peer.address])
    assert again.all("peer_registered")[-1]["peers"] == 4
    newcomer = programs.peer()
    assert newcomer.wait_for("peer_list")["peers"] >= 4
    newcomer.wait_for("neighbour_up")


@pytest.mark.parametrize("how", ["terminate", "press_ctrl_c"])
def test_a_peer_that_leaves_is_not_dead(programs: Programs, how: str) -> None:
    seed, peers = programs.network(4)
    leaving = peers[-1]
    holding = [peer for peer in peers if leaving.address in peer.neighbours()]
    getattr(leaving, how)()
    assert leaving.wait() == 0
    for peer in holding:
        assert peer.wait_for("neighbour_down", neighbour=leaving.address)["reason"]
    assert seed.wait_for("peer_removed", peer=leaving.address)["peers"] == 3
    let_pass(6)  # longer than it takes to call somebody dead
    for peer in others(peers, leaving):
        with peer.telling_its_story():
            assert peer.all("dead") == []
            assert peer.all("suspect", neighbour=leaving.address) == []
    assert seed.all("dead_report") == []


def test_a_peer_restarted_on_its_port_is_a_member_again(programs: Programs) -> None:
    seed, peers = programs.network(3)
    port = peers[-1].port
    peers[-1].kill()
    seed.wait_for("peer_removed", peer=peers[-1].address)
    again = programs.peer(port=port)
    alive = [*peers[:-1], again]
    wait_until(lambda: is_connected(alive), what="one network with who came back")
    again.say("back")
    for peer in peers[:-1]:
        peer.wait_for("message", text="back")
