"""What a seed keeps of the peers, and whom it believes."""

import time

from embedding import Embedded
from helpers import free_port, let_pass, wait_until
from programs import Programs, is_connected
from relays import Relay
from settings import Tunables

BRIEF = Tunables(lease_s=3.0, renew_interval_s=1.0)


def test_a_seed_counts_its_peers_up_and_down(programs: Programs) -> None:
    seed = programs.seed()
    peers = []
    for number in range(1, 4):
        peers.append(programs.peer())
        assert seed.wait_for("peer_registered", peer=peers[-1].address)["peers"] == number
    for left in (2, 1, 0):
        leaving = peers.pop()
        leaving.terminate()
        assert leaving.wait() == 0
        assert seed.wait_for("peer_removed", peer=leaving.address)["peers"] == left


def test_a_peer_that_renews_is_not_registered_twice(programs: Programs) -> None:
    seed = programs.seed()
    peer = programs.peer("--seed", seed.address, "--seed", seed.address)
    seed.wait_for("peer_registered", peer=peer.address)
    let_pass(2)
    assert len(seed.all("peer_registered")) == 1


def test_a_newcomer_is_told_of_all_the_others(programs: Programs) -> None:
    programs.network(5)
    assert programs.peer().wait_for("peer_list")["peers"] in (5, 6)  # itself may be counted


def test_the_list_is_the_union_of_what_the_seeds_know(programs: Programs) -> None:
    seeds = [programs.seed() for _ in range(2)]
    peers = [programs.peer("--seed", seed.address) for seed in seeds for _ in range(3)]
    for number, peer in enumerate(peers):
        seeds[number // 3].wait_for("peer_registered", peer=peer.address)
    newcomer = programs.peer("--seed", seeds[0].address, "--seed", seeds[1].address)
    sizes = (6, 7)  # itself may be counted
    wait_until(
        lambda: any(event["peers"] in sizes for event in newcomer.all("peer_list")),
        what="a list of the peers of both seeds",
    )
    wait_until(lambda: is_connected([*peers, newcomer]), what="one network through the newcomer")


def test_a_report_of_a_dead_peer_removes_it(programs: Programs) -> None:
    seed, [first, second] = programs.network(2)
    second.kill()
    report = seed.wait_for("dead_report", peer=second.address)
    assert report["reporter"] == first.address
    seed.wait_for("peer_removed", peer=second.address)
    verdicts = {event["verdict"] for event in seed.all("dead_report", peer=second.address)}
    assert verdicts <= {"removed", "still alive"}
    assert "still alive" not in verdicts


def test_a_report_of_a_live_peer_removes_nobody(programs: Programs) -> None:
    """The way to it is cut for one peer, which takes it for dead; the seed still gets through."""
    seed = programs.seed()
    port = free_port()
    with Relay(port) as relay:
        accused = programs.peer("--advertise", relay.address, port=port)
        accused.wait_for("registered")
        accuser = programs.peer()
        accuser.wait_for("neighbour_up", neighbour=accused.address)
        relay.hold(but_for_pid=seed.process.pid)
        accuser.wait_for("dead", neighbour=accused.address)
        report = seed.wait_for("dead_report", peer=accused.address)
        assert report["reporter"] == accuser.address
        assert report["verdict"] == "still alive"
        relay.release()
        wait_until(lambda: is_connected([accused, accuser]), what="the two as neighbours again")
        assert seed.all("peer_removed") == []


def test_a_lease_runs_out_for_the_silent_and_for_nobody_else(
    programs: Programs, embedded: Embedded
) -> None:
    """Each peer is alone at its seed, so no neighbour can report it."""
    began_s = time.monotonic()
    seeds = [embedded.seed(tunables=BRIEF, log=None) for _ in range(2)]
    silent = programs.peer("--seed", seeds[0].address)
    alive = embedded.peer(seeds=[seeds[1].address], tunables=BRIEF, log=None)
    wait_until(lambda: seeds[0].peers() == [silent.address], what="its registration")
    wait_until(lambda: seeds[1].peers() == [alive.address], what="the other's registration")
    silent.pause()
    wait_until(lambda: seeds[0].peers() == [], what="its removal")
    assert time.monotonic() - began_s >= BRIEF.lease_s
    let_pass(2 * BRIEF.lease_s)
    assert seeds[1].peers() == [alive.address]


def test_a_seed_forgets_a_lone_peer_that_is_killed(programs: Programs) -> None:
    """Nobody else is there to report it."""
    seed = programs.seed()
    peer = programs.peer()
    seed.wait_for("peer_registered", peer=peer.address)
    peer.kill()
    seed.wait_for("peer_removed", peer=peer.address)


def test_a_seed_hears_no_message_and_tells_of_none(programs: Programs) -> None:
    seed, [speaker, listener] = programs.network(2)
    speaker.say("for peers only")
    listener.wait_for("message")
    assert seed.all("message") == []


def test_two_networks_with_different_seeds_do_not_mix(programs: Programs) -> None:
    groups = [programs.peers(2, "--seed", programs.seed().address) for _ in range(2)]
    wait_until(lambda: all(is_connected(group) for group in groups), what="two networks")
    for name, [speaker, listener] in zip("ab", groups, strict=True):
        speaker.say(f"only {name}")
        listener.wait_for("message", text=f"only {name}")
    let_pass(1)
    assert [len(peer.heard()) for group in groups for peer in group] == [0, 1, 0, 1]
