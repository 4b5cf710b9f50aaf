"""How peers find seeds and each other, and whom they hold."""

import re

import pytest

from helpers import free_port, has_ipv6, let_pass, wait_until
from programs import Program, Programs, is_connected
from relays import Relay

LINKS_DIALLED = 4  # a peer dials so many others, and
LINKS_AT_MOST = 12  # never holds more than so many


def test_the_first_peer_registers_and_hears_of_nobody(programs: Programs) -> None:
    seed = programs.seed()
    peer = programs.peer()
    assert peer.wait_for("registered")["seed"] == seed.address
    assert peer.wait_for("peer_list")["peers"] in (0, 1)  # itself may be on the list
    registered = seed.wait_for("peer_registered", peer=peer.address)
    assert registered["peers"] == 1
    assert peer.neighbours() == []


def test_two_peers_become_neighbours_and_both_say_so(programs: Programs) -> None:
    programs.seed()
    first = programs.peer()
    first.wait_for("registered")
    second = programs.peer()
    assert second.wait_for("neighbour_up", neighbour=first.address)["direction"] == "out"
    assert first.wait_for("neighbour_up", neighbour=second.address)["direction"] == "in"


def test_ten_peers_started_at_once_are_one_network(programs: Programs) -> None:
    _, peers = programs.network(10)
    for peer in peers:
        assert len(peer.neighbours()) >= 1


def test_nobody_holds_itself_or_anyone_twice_or_too_many(programs: Programs) -> None:
    _, peers = programs.network(16)

    def has_settled() -> bool:
        return all(len(peer.neighbours()) >= LINKS_DIALLED for peer in peers)

    wait_until(has_settled, what=f"{LINKS_DIALLED} links for each of 16 peers")
    wait_until(lambda: all(is_sound(peer) for peer in peers), what="no link doubled")
    let_pass(2)
    for peer in peers:
        held = peer.neighbours()
        assert is_sound(peer), f"{peer.address} holds {held}"


def is_sound(peer: Program) -> bool:
    """No link to itself, none twice, not more than allowed."""
    held = peer.neighbours()
    return peer.address not in held and len(set(held)) == len(held) and len(held) <= LINKS_AT_MOST


def test_a_peer_registers_with_a_majority_of_the_seeds(programs: Programs) -> None:
    """So any two peers share a seed, whichever each of them has chosen."""
    seeds = {programs.seed().address for _ in range(3)}
    peers = programs.peers(4)
    chosen = []
    for peer in peers:
        peer.wait_for("registered", count=2)
        chosen.append({event["seed"] for event in peer.all("registered")})
    assert all(len(some) >= 2 and some <= seeds for some in chosen)
    wait_until(lambda: is_connected(peers), what="one network")


def test_the_seeds_of_the_config_file_are_used(programs: Programs) -> None:
    seed = programs.seed()
    assert len(programs.listed()) == 1
    assert programs.peer().wait_for("registered")["seed"] == seed.address


def test_seeds_given_as_arguments_replace_the_config_file(programs: Programs) -> None:
    listed = programs.seed()
    given = programs.seed()
    programs.config.write_text(f"{listed.address}\n")
    peer = programs.peer("--seed", given.address)
    assert peer.wait_for("registered")["seed"] == given.address
    let_pass(1)
    assert listed.all("peer_registered") == []


def test_several_seeds_can_be_given_as_arguments(programs: Programs) -> None:
    seeds = [programs.seed() for _ in range(2)]
    peer = programs.peer("--seed", seeds[0].address, "--seed", seeds[1].address)
    for seed in seeds:
        peer.wait_for("registered", seed=seed.address)
        seed.wait_for("peer_registered", peer=peer.address)


def test_a_seed_that_is_down_is_reported_and_the_others_are_used(programs: Programs) -> None:
    gone = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    seed = programs.seed()
    programs.config.write_text("\n".join([*gone, seed.address, ""]))
    first, second = programs.peers(2)
    for peer in (first, second):
        peer.wait_for("registered", seed=seed.address)
        unreachable = peer.wait_for("seed_unreachable")
        assert unreachable["seed"] in gone
        assert unreachable["reason"]
    wait_until(lambda: is_connected([first, second]), what="one network")


def test_a_seed_that_is_up_is_not_called_unreachable(programs: Programs) -> None:
    _, peers = programs.network(3)
    assert [peer.all("seed_unreachable") for peer in peers] == [[], [], []]


def test_peers_that_were_first_wait_for_their_seed(programs: Programs) -> None:
    port = free_port()
    first, second = programs.peers(2, "--seed", f"127.0.0.1:{port}")
    for peer in (first, second):
        peer.wait_for("seed_unreachable", seed=f"127.0.0.1:{port}")
    seed = programs.seed(port=port)
    for peer in (first, second):
        seed.wait_for("peer_registered", peer=peer.address)
        peer.wait_for("registered", seed=seed.address)
    wait_until(lambda: is_connected([first, second]), what="one network")


def test_a_known_peer_is_enough_when_no_seed_is_alive(programs: Programs) -> None:
    _, peers = programs.network(3)
    nobody = f"127.0.0.1:{free_port()}"
    newcomer = programs.peer("--seed", nobody, "--join", peers[0].address)
    newcomer.wait_for("neighbour_up")
    peers[2].say("welcome")
    newcomer.wait_for("message", text="welcome")
    newcomer.say("thank you")
    for peer in peers:
        peer.wait_for("message", text="thank you")


def test_of_several_known_peers_one_alive_is_enough(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    nobody = f"127.0.0.1:{free_port()}"
    newcomer = programs.peer(
        "--seed", nobody, "--join", nobody, "--join", peer.address, "--join", nobody
    )
    newcomer.wait_for("neighbour_up", neighbour=peer.address)


def test_without_seed_or_known_peer_it_is_isolated_and_goes_on_trying(
    programs: Programs,
) -> None:
    port = free_port()
    lonely = programs.peer("--join", f"127.0.0.1:{port}", "--seed", f"127.0.0.1:{free_port()}")
    lonely.wait_for("isolated")
    friend = programs.peer("--seed", f"127.0.0.1:{free_port()}", port=port)
    lonely.wait_for("neighbour_up", neighbour=friend.address)


def test_the_addresses_are_those_of_the_default_host(programs: Programs) -> None:
    seed = programs.seed()
    peer = programs.peer()
    for program in (seed, peer):
        assert re.fullmatch(r"127\.0\.0\.1:\d+", program.address)
        assert program.wait_for("listening")["address"] == program.address


@pytest.mark.skipif(not has_ipv6(), reason="THIS MACHINE HAS NO IPv6 LOOPBACK: NOT TESTED")
def test_ipv6_from_end_to_end(programs: Programs) -> None:
    seed = programs.seed("--host", "::1", port=free_port())
    assert re.fullmatch(r"\[::1\]:\d+", seed.address)
    assert programs.listed() == [seed.address]
    peers = [programs.peer("--host", "::1", port=free_port()) for _ in range(3)]
    wait_until(lambda: is_connected(peers), what="one network")
    peers[0].say("over six")
    for peer in peers[1:]:
        assert re.fullmatch(r"\[::1\]:\d+", peer.address)
        heard = peer.wait_for("message", text="over six")
        assert heard["origin"] == peers[0].address


@pytest.mark.skipif(not has_ipv6(), reason="THIS MACHINE HAS NO IPv6 LOOPBACK: NOT TESTED")
def test_peers_of_both_ip_versions_share_a_network(programs: Programs) -> None:
    seed = programs.seed()
    four = programs.peer("--seed", seed.address)
    six = programs.peer("--seed", seed.address, "--host", "::1", port=free_port())
    wait_until(lambda: is_connected([four, six]), what="one network")
    four.say("from four")
    six.say("from six")
    assert six.wait_for("message", text="from four")["origin"] == four.address
    assert four.wait_for("message", text="from six")["origin"] == six.address


def test_listening_everywhere_needs_an_address_for_others(programs: Programs) -> None:
    port = free_port()
    seed = programs.seed()
    peer = programs.peer("--host", "0.0.0.0", "--advertise", "127.0.0.1", port=port)
    listening = peer.wait_for("listening")
    assert listening["address"] == f"0.0.0.0:{port}"
    assert listening["self"] == f"127.0.0.1:{port}"
    seed.wait_for("peer_registered", peer=f"127.0.0.1:{port}")
    other = programs.peer()
    other.wait_for("neighbour_up", neighbour=f"127.0.0.1:{port}")


def test_others_dial_what_a_peer_advertises(programs: Programs) -> None:
    seed = programs.seed()
    port = free_port()
    with Relay(port) as relay:
        hidden = programs.peer("--advertise", relay.address, port=port)
        assert hidden.address == relay.address
        assert hidden.wait_for("listening")["address"] == f"127.0.0.1:{port}"
        seed.wait_for("peer_registered", peer=relay.address)
        other = programs.peer()
        other.wait_for("neighbour_up", neighbour=relay.address)
        assert relay.connections >= 1
        hidden.say("from behind")
        assert other.wait_for("message", text="from behind")["origin"] == relay.address


def test_a_seed_lists_what_it_advertises(programs: Programs) -> None:
    port = free_port()
    with Relay(port) as relay:
        seed = programs.seed("--advertise", relay.address, port=port)
        assert seed.address == relay.address
        assert programs.listed() == [relay.address]
        assert programs.peer().wait_for("registered")["seed"] == relay.address
