"""The network as the gateway shows it: every peer and link, and what becomes of them."""

import time
from pathlib import Path
from typing import Any

import pytest

import survey
from embedding import Embedded
from helpers import PATIENCE_S, free_port, let_pass, wait_until
from link import ask
from messages import Address, Inspected, Linked, Message
from programs import Programs
from survey import ANSWER_TIMEOUT_S, LONGEST_ANSWER_S, Survey
from threads import Threads
from trust import Trust
from visits import say, served, visit


def by_address(url: str) -> dict[str, dict[str, Any]]:
    return {peer["address"]: peer for peer in visit(url, "/api/network").json["peers"]}


def states(url: str) -> dict[str, str]:
    """What the network looks like: each peer's address and state, those that are gone too."""
    network = visit(url, "/api/network").json
    return {peer["address"]: peer["state"] for peer in network["peers"] + network["gone"]}


def test_it_shows_every_peer_and_every_link(programs: Programs) -> None:
    seed, peers = programs.network(3)
    dashboard = programs.start("dashboard.py", free_port())
    url, ours = served(dashboard), {dashboard.address, *(peer.address for peer in peers)}

    def is_whole() -> bool:
        found = by_address(url)
        ends = {(a, b) for a, peer in found.items() for b in peer["neighbours"]}
        return found.keys() == ours and len(ends) == 12 and all((b, a) in ends for a, b in ends)

    wait_until(is_whole, what="four peers, each with three links")
    network = visit(url, "/api/network").json
    assert network["self"] == dashboard.address
    assert network["seeds"] == [{"address": seed.address, "reachable": True}]
    assert network["gone"] == []
    for peer in network["peers"]:
        assert {"address", "neighbours", "delivered", "since"} <= peer.keys()
        assert set(peer["tree"]) <= set(peer["neighbours"])
        assert peer["state"] == "alive"
        assert abs(peer["since"] - dashboard.wait_for("listening")["at"]) < 120


def test_the_tree_links_join_everybody(programs: Programs) -> None:
    _, peers = programs.network(4)
    url = served(programs.start("dashboard.py", free_port()))

    def is_joined() -> bool:
        found, seen, ahead = by_address(url), set(), [peers[0].address]
        while ahead:
            here = ahead.pop()
            if here in found and here not in seen:
                seen.add(here)
                ahead += found[here]["tree"]
        return len(seen) == 5

    wait_until(is_joined, what="a tree over all five")


def test_the_numbers_follow_what_is_said(programs: Programs) -> None:
    _, [peer, _] = programs.network(2)
    url = served(programs.start("dashboard.py", free_port()))
    peer.say("one", "two", "three")
    wait_until(
        lambda: (
            sorted((p["said"], p["delivered"]) for p in by_address(url).values())
            == [(0, 3), (0, 3), (3, 0)]
        ),
        what="three messages in everybody's numbers",
    )
    assert visit(url, "/api/network").json["messages_per_s"] > 0


def test_a_killed_peer_is_dead_and_one_that_leaves_has_left(programs: Programs) -> None:
    _, [killed, leaver, _] = programs.network(3)
    url = served(programs.start("dashboard.py", free_port()))
    wait_until(lambda: list(states(url).values()) == ["alive"] * 4, what="four live peers")
    killed.kill()
    leaver.terminate()
    addresses = (killed.address, leaver.address)
    wait_until(lambda: [states(url).get(a) for a in addresses] == ["dead", "left"], what="both")
    assert sorted(by_address(url)) == sorted(states(url).keys() - set(addresses))


def test_a_hanging_peer_is_silent_then_dead_and_lives_again(programs: Programs) -> None:
    _, [hanging, _] = programs.network(2)
    url = served(programs.start("dashboard.py", free_port()))
    wait_until(lambda: states(url).get(hanging.address) == "alive", what="a live peer")
    hanging.pause()
    wait_until(lambda: states(url).get(hanging.address) == "silent", what="its silence")
    wait_until(lambda: states(url).get(hanging.address) == "dead", what="its death")
    hanging.resume()
    wait_until(lambda: states(url).get(hanging.address) == "alive", what="its return")


def test_a_seed_that_is_gone_is_not_reachable(programs: Programs) -> None:
    seed = programs.seed()
    url = served(programs.start("dashboard.py", free_port(), "--seed", seed.address))
    expected = {"address": seed.address, "reachable": True}
    wait_until(lambda: visit(url, "/api/network").json["seeds"] == [expected], what="the seed")
    seed.kill()
    expected["reachable"] = False
    wait_until(lambda: visit(url, "/api/network").json["seeds"] == [expected], what="its loss")


def test_with_certificates_it_shows_a_network_that_has_them(
    programs: Programs, certificate: Path
) -> None:
    seed = programs.seed("--tls", certificate)
    peers = programs.peers(2, "--tls", certificate)
    dashboard = programs.start("dashboard.py", free_port(), "--tls", certificate)
    url, ours = served(dashboard), {dashboard.address, *(peer.address for peer in peers)}
    wait_until(lambda: states(url) == dict.fromkeys(ours, "alive"), what="all three")
    network = visit(url, "/api/network").json
    assert network["seeds"] == [{"address": seed.address, "reachable": True}]
    say(url, "to those with a certificate")
    peers[0].wait_for("message", text="to those with a certificate")


def test_nobody_is_asked_while_nobody_looks(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[Address] = []

    def ask_and_count(
        peer: Address, message: Message, timeout_s: float, trust: Trust | None
    ) -> Message:
        questions.append(peer)
        return ask(peer, message, timeout_s, trust)

    monkeypatch.setattr(survey, "ask", ask_and_count)
    monkeypatch.setattr(survey, "INTEREST_S", 0.5)
    url = embedded.dashboard()
    let_pass(1.5)
    assert questions == []
    assert len(by_address(url)) == 1
    wait_until(lambda: len(questions) >= 1, what="a question")
    let_pass(2)
    asked = len(questions)
    let_pass(1.5)
    assert len(questions) == asked


def network_of_three(embedded: Embedded) -> tuple[str, list[str]]:
    """Two peers and a dashboard, all neighbours: its page, and the addresses of the two."""
    first = embedded.peer()
    second = embedded.peer(join=[first.address])
    url = embedded.dashboard(join=[first.address, second.address], log=None)
    return url, [first.address, second.address]


def test_peers_that_answer_slowly_are_shown_as_alive_all_the_time(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has little time for each of hundreds."""

    def ask_the_slow(
        peer: Address, message: Message, timeout_s: float, trust: Trust | None
    ) -> Message:
        let_pass(min(timeout_s, 1.5))
        if timeout_s <= 1.5:
            raise TimeoutError
        return ask(peer, message, timeout_s, trust)

    monkeypatch.setattr(survey, "ask", ask_the_slow)
    url, _ = network_of_three(embedded)
    wait_until(lambda: list(states(url).values()) == ["alive"] * 3, what="all three")
    for _ in range(10):
        let_pass(0.5)
        assert list(states(url).values()) == ["alive"] * 3


def test_who_was_found_dead_holds_up_the_look_at_others_no_longer_than_need_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where many are unplugged at once: the rest of the map must go on."""
    me, gone = Address("10.0.0.1", 6000), Address("10.0.0.2", 6000)
    waited_s: list[float] = []
    found_dead: list[Address] = []

    def ask_in_a_script(peer: Address, _: Message, timeout_s: float, *__: object) -> Message:
        if peer == gone:
            waited_s.append(timeout_s)
            if len(waited_s) > 1:
                raise TimeoutError
        links = (Linked(gone, is_tree=True),)
        return Inspected(peer, 1, 0, 0, 0, 0, links, dead=tuple(found_dead))

    monkeypatch.setattr(survey, "ask", ask_in_a_script)
    monkeypatch.setattr(survey, "LOOK_INTERVAL_S", 0.05)
    faults: list[str] = []
    threads = Threads("map", faults.append)
    seen = Survey(me, list, None, threads)
    threads.start("look", seen.keep)
    try:
        wait_until(lambda: seen.see() and len(waited_s) > 3, what="some questions")
        assert waited_s[2:] == [LONGEST_ANSWER_S] * len(waited_s[2:]), "it may only be slow"
        found_dead.append(gone)
        wait_until(lambda: seen.see() and waited_s[-1] == ANSWER_TIMEOUT_S, what="a short one")
    finally:
        seen.stop()
        threads.join(time.monotonic() + PATIENCE_S)
    assert faults == []


def test_a_silent_peer_is_shown_for_as_long_as_others_name_it(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, [first, second] = network_of_three(embedded)
    wait_until(lambda: list(states(url).values()) == ["alive"] * 3, what="all three")

    def ask_all_but_the_first(
        peer: Address, message: Message, timeout_s: float, trust: Trust | None
    ) -> Message:
        if str(peer) == first:
            raise TimeoutError
        return ask(peer, message, timeout_s, trust)

    monkeypatch.setattr(survey, "FORGET_AFTER_S", 2.5)
    monkeypatch.setattr(survey, "ask", ask_all_but_the_first)
    wait_until(lambda: states(url)[first] == "silent", what="its silence")
    for _ in range(10):
        let_pass(0.5)
        assert (states(url).get(first), states(url).get(second)) == ("silent", "alive")


def test_nobody_is_forgotten_while_most_do_not_answer(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, addresses = network_of_three(embedded)
    wait_until(lambda: list(states(url).values()) == ["alive"] * 3, what="all three")

    def ask_in_vain(*_: object) -> Message:
        raise TimeoutError

    monkeypatch.setattr(survey, "FORGET_AFTER_S", 1.0)
    monkeypatch.setattr(survey, "ask", ask_in_vain)
    wait_until(lambda: list(states(url).values()) == ["silent"] * 3, what="silence")
    for _ in range(8):
        let_pass(0.5)
        assert {*addresses} < states(url).keys()
