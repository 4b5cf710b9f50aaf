"""The events with `--json`: their names, their keys, their order, and nothing else in between."""

import re
import time
from typing import Any

import pytest

from embedding import Embedded
from helpers import free_port, let_pass, wait_until
from programs import EVENT_KEYS, Program, Programs

ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):\d{1,5}")
KINDS: dict[str, type] = {
    "reason": str,
    "peers": int,
    "seq": int,
    "first_seq": int,
    "last_seq": int,
    "text": str,
    "base64": str,
    "at": float,
}
ADDRESSES = {"self", "address", "seed", "neighbour", "origin", "peer", "reporter"}


def check(event: dict[str, Any]) -> None:
    """Every key that the contract names is there, and of the right kind."""
    assert {"event", "at", "self"} | EVENT_KEYS.get(event["event"], set()) <= event.keys(), event
    for key, value in event.items():
        if key in ADDRESSES:
            assert ADDRESS.fullmatch(value), event
        elif key in KINDS:
            assert type(value) is KINDS[key], event


def eventful(programs: Programs) -> list[Program]:
    """Four programs in whose life nearly everything happens."""
    began_s = time.time()
    nobody = f"127.0.0.1:{free_port()}"
    seed = programs.seed()
    programs.config.write_text(f"{nobody}\n{seed.address}\n")
    first, second = programs.peers(2)
    first.wait_for("neighbour_up", neighbour=second.address)
    second.wait_for("neighbour_up", neighbour=first.address)
    second.say("text", b"\xff", f"/to {first.address} direct", b"/to %s \xff" % own(first))
    first.wait_for("message", count=2)
    first.wait_for("direct", count=2)
    second.pause()
    for event in ("suspect", "dead", "neighbour_down", "isolated"):
        first.wait_for(event)
    seed.wait_for("dead_report")
    seed.wait_for("peer_removed")
    second.kill()
    dashboard = programs.start("dashboard.py", free_port())
    dashboard.wait_for("serving")
    for program in (first, seed, dashboard):
        program.terminate()
        program.wait()
    assert all(began_s - 1 < event["at"] < time.time() + 1 for event in first.events)
    return [seed, first, second, dashboard]


def own(program: Program) -> bytes:
    return program.address.encode()


def test_each_event_has_its_keys(programs: Programs) -> None:
    told = eventful(programs)
    for program in told:
        for event in program.events:
            check(event)
            assert event["self"] == program.address
    names = {event["event"] for program in told for event in program.events}
    assert names >= EVENT_KEYS.keys() - {"gap"}


def test_seeds_and_peers_keep_to_their_own_events(programs: Programs) -> None:
    seed, first, *_ = eventful(programs)
    of_seeds = {"listening", "peer_registered", "peer_removed", "dead_report", "stopped"}
    assert {event["event"] for event in seed.events} <= of_seeds
    assert {event["event"] for event in first.events} & of_seeds == {"listening", "stopped"}


def test_it_begins_with_listening_and_ends_with_stopped(programs: Programs) -> None:
    for program in eventful(programs)[:2]:
        names = [event["event"] for event in program.events]
        assert (names[0], names[-1]) == ("listening", "stopped")
        assert names.count("listening") == names.count("stopped") == 1


def test_a_verdict_is_one_of_two(programs: Programs) -> None:
    seed, *_ = eventful(programs)
    assert {e["verdict"] for e in seed.all("dead_report")} <= {"removed", "still alive"}


def test_ups_and_downs_alternate_for_every_neighbour(programs: Programs) -> None:
    _, peers = programs.network(6)
    dead = {victim.address for victim in peers[4:]}
    for victim in peers[4:]:
        victim.kill()
    wait_until(
        lambda: all(dead.isdisjoint(peer.neighbours()) for peer in peers[:4]),
        what="the end of the links to the dead",
    )
    let_pass(1)
    for peer in peers[:4]:
        up: set[str] = set()
        for event in peer.events:
            if event["event"] == "neighbour_up":
                assert event["direction"] in ("in", "out")
                assert event["neighbour"] not in up, event
                up.add(event["neighbour"])
            elif event["event"] == "neighbour_down":
                assert event["neighbour"] in up, event
                up.remove(event["neighbour"])


def test_messages_come_in_order_exactly_once_while_peers_die_and_come_back(
    programs: Programs,
) -> None:
    """The path of the messages changes all the time; what the application gets does not."""
    _, peers = programs.network(6)
    speaker, listener, *passers = peers
    said = 0
    for passer in passers:
        speaker.say(*(str(said + number) for number in range(50)))
        passer.pause()
        said += 50
        speaker.say(*(str(said + number) for number in range(50)))
        said += 50
        listener.wait_for("message", count=said)
        passer.resume()
    for peer in [listener, *passers]:
        peer.wait_for("message", count=said)
    let_pass(2)
    for peer in [listener, *passers]:
        expected = [(speaker.address, n + 1, b"%d" % n) for n in range(said)]
        assert peer.heard() == expected


@pytest.mark.timeout(300)
def test_what_nobody_can_provide_any_more_is_reported_as_a_gap(
    embedded: Embedded, programs: Programs
) -> None:
    """More is said than anybody retains while one peer hangs; it hears the rest, and of the gap."""
    count, size = 80, 1_000_000  # 64 MiB are retained
    speaker = embedded.peer()
    other = embedded.peer(join=[str(speaker.address)])
    victim = programs.peer("--join", speaker.address)
    speaker.broadcast(b"one")
    victim.wait_for("message", seq=1)
    victim.pause()
    wait_until(
        lambda: len(speaker.neighbours()) == 1 and len(other.neighbours()) == 1,
        what="a network without the hung peer",
    )
    for number in range(count):
        speaker.broadcast(b"\xa5" * size)
        embedded.wait_to_hear(other, number + 2)
    victim.resume()
    victim.wait_for("message", seq=count + 1, timeout_s=100)
    speaker.broadcast(b"last")
    victim.wait_for("message", seq=count + 2)
    [gap] = victim.all("gap")
    check(gap)
    assert gap["origin"] == str(speaker.address)
    lost = set(range(gap["first_seq"], gap["last_seq"] + 1))
    assert lost
    heard = [seq for _, seq, _ in victim.heard()]
    assert heard == [seq for seq in range(1, count + 3) if seq not in lost]
    assert len(heard) > 40, "what is retained is heard"


def test_there_is_no_gap_where_nothing_was_lost(programs: Programs) -> None:
    _, peers = programs.network(4)
    peers[0].say(*("x" * 1000 for _ in range(1000)))
    late = programs.peer()
    for peer in [*peers[1:], late]:
        peer.wait_for("message", count=1000)
        assert peer.all("gap") == []
