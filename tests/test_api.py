"""Peers and seeds as Python objects: what a program that embeds them relies on."""

import contextlib
import inspect
import socket
import threading
import time
from pathlib import Path

import pytest

from embedding import Embedded
from helpers import STOP_LIMIT_S, free_port, let_pass, wait_until
from journal import Event
from peer import (
    AddressInUse,
    BadAddress,
    BroadcastTimeout,
    Message,
    MessageTooLarge,
    NetworkError,
    NotRunning,
    Peer,
)
from programs import Programs
from seed import Seed


def two_neighbours(embedded: Embedded) -> tuple[Peer, Peer]:
    first = embedded.peer()
    second = embedded.peer(join=[str(first.address)])
    wait_until(lambda: first.neighbours() and second.neighbours(), what="the two as neighbours")
    return first, second


def dial(address: object) -> None:
    """Raise OSError unless somebody listens there."""
    host, _, port = str(address).rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


# ---- starting and stopping


def test_port_zero_is_a_free_port_and_the_address_tells_which(embedded: Embedded) -> None:
    first, second = embedded.peer(), embedded.peer()
    assert str(first.address) != str(second.address)
    dial(first.address)
    dial(second.address)


def test_a_seed_listens_once_start_has_returned(embedded: Embedded) -> None:
    port = free_port()
    embedded.seed(port=port)
    dial(f"127.0.0.1:{port}")


def test_the_with_statement_starts_and_stops_a_peer(embedded: Embedded) -> None:
    with embedded.new_peer() as peer:
        address = peer.address
        dial(address)
    with pytest.raises(OSError, match="refused"):
        dial(address)


def test_nothing_is_left_of_what_was_stopped(embedded: Embedded) -> None:
    before = set(threading.enumerate())
    seed = embedded.seed(port=free_port())
    first, second = two_neighbours(embedded)
    assert set(threading.enumerate()) > before
    began_s = time.monotonic()
    for running in (first, second, seed):
        running.stop()
    assert time.monotonic() - began_s < 3 * STOP_LIMIT_S
    assert set(threading.enumerate()) <= before


def test_threads_have_names_of_their_own(embedded: Embedded) -> None:
    before = set(threading.enumerate())
    two_neighbours(embedded)
    started = set(threading.enumerate()) - before
    assert not [thread.name for thread in started if thread.name.startswith("Thread-")]


def test_stopping_twice_or_before_the_start_does_no_harm(embedded: Embedded) -> None:
    peer = embedded.new_peer()
    peer.stop()
    peer = embedded.peer()
    peer.stop()
    peer.stop()
    seed = embedded.seed()
    seed.stop()
    seed.stop()


def test_a_seed_that_listens_blocks_until_it_is_stopped(embedded: Embedded) -> None:
    port = free_port()
    seed = embedded.new_seed(port=port)
    thread = threading.Thread(target=seed.listen, name="listening")
    thread.start()

    def is_listening() -> bool:
        try:
            dial(f"127.0.0.1:{port}")
        except OSError:
            return False
        return True

    wait_until(is_listening, what="a listening seed")
    let_pass(0.3)
    assert thread.is_alive()
    seed.stop()
    thread.join(STOP_LIMIT_S)
    assert not thread.is_alive()


def test_a_callback_may_stop_its_peer(embedded: Embedded) -> None:
    first, second = two_neighbours(embedded)
    stopped = threading.Event()

    def stop(_: object) -> None:
        second.stop()
        stopped.set()

    second.on_message(stop)
    first.broadcast(b"enough")
    assert stopped.wait(STOP_LIMIT_S)
    wait_until(lambda: not first.neighbours(), what="no neighbour any more")


def test_a_slow_listener_hears_nothing_after_stopped(embedded: Embedded) -> None:
    events: list[str] = []

    def listen(event: dict[str, object]) -> None:
        events.append(str(event["event"]))
        if event["event"] == "message":
            let_pass(0.05)

    first = embedded.peer()
    second = embedded.peer(join=[first.address], on_event=listen)
    wait_until(first.neighbours, what="the two as neighbours")
    for _ in range(200):  # ten seconds of listening; a stop takes two at most
        first.broadcast(b"x")
    wait_until(lambda: "message" in events, what="the first message")
    second.stop()
    heard = list(events)
    let_pass(0.3)
    assert events == heard
    assert events[-1] == "stopped"


# ---- messages


def test_broadcast_numbers_the_messages_from_one(embedded: Embedded) -> None:
    first, second = two_neighbours(embedded)
    assert [first.broadcast(b"x") for _ in range(3)] == [1, 2, 3]
    assert [seq for _, seq, _ in embedded.wait_to_hear(second, 3)] == [1, 2, 3]
    assert embedded.heard(first) == []


def test_a_message_has_origin_number_and_payload(embedded: Embedded) -> None:
    first, second = two_neighbours(embedded)
    first.broadcast(b"\x00payload\xff")
    assert embedded.wait_to_hear(second, 1) == [(str(first.address), 1, b"\x00payload\xff")]


def test_the_boot_time_tells_two_lives_of_an_origin_apart(embedded: Embedded) -> None:
    """Also to one who joins after both, and to one who reads events."""
    port = free_port()
    hub = embedded.peer()
    for life in (b"first", b"second"):
        with embedded.new_peer(port=port, join=[hub.address]) as origin:
            origin.broadcast(life)
            wait_until(lambda: hub.neighbours() and origin.is_heard(), what="to be heard")
    messages: list[Message] = []
    events: list[Event] = []
    late = embedded.new_peer(join=[hub.address], on_event=events.append)
    late.on_message(messages.append)
    late.start()
    wait_until(lambda: len(messages) == 2, what="both lives")
    messages.sort(key=lambda message: message.boot_ms)
    assert [message.payload for message in messages] == [b"first", b"second"]
    assert {(message.origin, message.seq) for message in messages} == {(f"127.0.0.1:{port}", 1)}
    now_ms = time.time() * 1000
    assert now_ms - 60_000 < messages[0].boot_ms < messages[1].boot_ms < now_ms
    told = {event["text"]: event["boot_ms"] for event in events if event["event"] == "message"}
    assert told == {message.payload.decode(): message.boot_ms for message in messages}


def test_the_iterator_gives_messages_and_ends_when_the_peer_stops(embedded: Embedded) -> None:
    first, second = two_neighbours(embedded)
    seen: list[bytes] = []

    def collect() -> None:
        seen.extend(bytes(message.payload) for message in second.messages())

    thread = threading.Thread(target=collect, name="collecting")
    thread.start()
    for number in range(10):
        first.broadcast(b"%d" % number)
    embedded.wait_to_hear(second, 10)
    assert thread.is_alive()
    second.stop()
    thread.join(STOP_LIMIT_S)
    assert not thread.is_alive()
    assert seen == [b"%d" % number for number in range(10)]


def test_every_callback_gets_every_message(embedded: Embedded) -> None:
    first, second = two_neighbours(embedded)
    more: list[int] = []
    second.on_message(lambda message: more.append(message.seq))
    for _ in range(5):
        first.broadcast(b"x")
    wait_until(lambda: len(more) == 5 and len(embedded.heard(second)) == 5, what="all five, twice")
    assert more == [1, 2, 3, 4, 5]


def test_a_callback_that_raises_is_logged_and_costs_nobody_a_message(
    embedded: Embedded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the program's own log, or where Python's `logging` takes it."""
    first = embedded.peer()
    second = embedded.new_peer(join=[str(first.address)])
    after: list[int] = []

    def fail(message: object) -> None:
        raise ZeroDivisionError(f"by {message} of the callback's own fault")

    second.on_message(fail)
    second.on_message(lambda message: after.append(message.seq))
    second.start()
    third = embedded.peer(join=[str(second.address)])
    for _ in range(3):
        first.broadcast(b"x")
    for peer in (second, third):
        embedded.wait_to_hear(peer, 3)
    wait_until(lambda: after == [1, 2, 3], what="all three at the next callback")
    log = tmp_path / "outputfile.log"
    wait_until(
        lambda: "ZeroDivisionError" in caplog.text + log.read_text(), what="the error in a log"
    )
    assert "Traceback" in caplog.text + log.read_text()
    assert "test_api.py" in caplog.text + log.read_text()


def test_a_callback_may_broadcast(embedded: Embedded) -> None:
    """An answer from within the callback; a lock held meanwhile would stop both for good."""
    first, second = two_neighbours(embedded)
    second.on_message(lambda message: second.broadcast(b"re: " + message.payload))
    for number in range(50):
        first.broadcast(b"%d" % number)
    answers = [payload for *_, payload in embedded.wait_to_hear(first, 50)]
    assert answers == [b"re: %d" % number for number in range(50)]


def test_no_periodic_message_unless_asked_for(embedded: Embedded) -> None:
    _, second = two_neighbours(embedded)
    let_pass(6)  # a peer started by hand says something every 5 s
    assert embedded.heard(second) == []


def test_periodic_messages_when_asked_for(embedded: Embedded) -> None:
    first = embedded.peer(gossip_every_s=0.1, gossip_count=3)
    second = embedded.peer(join=[str(first.address)])
    embedded.wait_to_hear(second, 3)
    let_pass(0.5)
    assert len(embedded.heard(second)) == 3


def test_send_reaches_one_peer(embedded: Embedded, programs: Programs) -> None:
    first = embedded.peer()
    meant, other = (programs.peer("--join", first.address) for _ in range(2))
    wait_until(lambda: len(first.neighbours()) == 2, what="two neighbours")
    first.send(meant.address, b"only you")
    direct = meant.wait_for("direct")
    assert (direct["origin"], direct["text"]) == (str(first.address), "only you")
    first.broadcast(b"all")
    other.wait_for("message", text="all")
    assert other.all("direct") == []


def test_broadcast_gives_up_while_the_only_neighbour_is_far_behind(
    embedded: Embedded, programs: Programs
) -> None:
    """And what it gave up was not sent, while all the rest arrives."""
    first = embedded.peer()
    slow = programs.peer("--join", first.address)
    wait_until(first.neighbours, what="a neighbour")
    slow.pause()
    said = 0

    def say_too_much() -> None:
        nonlocal said
        while said < 300:
            first.broadcast(b"%03d" % said + b"\xa5" * 1_000_000, timeout=0.3)
            said += 1

    with pytest.raises(BroadcastTimeout):
        say_too_much()
    slow.resume()
    slow.wait_for("message", seq=said)
    first.broadcast(b"%03d" % said)
    slow.wait_for("message", seq=said + 1)
    heard = [(seq, int(payload[:3])) for _, seq, payload in slow.heard()]
    assert heard == [(number + 1, number) for number in range(said + 1)]


def test_a_waiting_broadcast_goes_on_once_the_neighbour_is_dead(
    embedded: Embedded, programs: Programs
) -> None:
    """Without a time-out, and with nobody left who could be behind."""
    first = embedded.peer()
    slow = programs.peer("--join", first.address)
    wait_until(first.neighbours, what="a neighbour")
    slow.pause()

    def say() -> None:
        with contextlib.suppress(NotRunning):  # if it never goes on, and the test has failed
            for _ in range(60):
                first.broadcast(b"\xa5" * 1_000_000)

    saying = threading.Thread(target=say, name="saying")
    saying.start()
    saying.join(60)
    assert not saying.is_alive()


# ---- what it tells of the network


def test_neighbours_members_and_stats(embedded: Embedded) -> None:
    seed = embedded.seed(port=free_port())
    seeds = [str(seed.address)]
    first, second = embedded.peer(seeds=seeds), embedded.peer(seeds=seeds)
    wait_until(lambda: first.neighbours() and second.neighbours(), what="the two as neighbours")
    both = {str(first.address), str(second.address)}
    assert [str(address) for address in first.neighbours()] == [str(second.address)]
    assert {str(address) for address in first.members()} in (both, {str(second.address)})
    assert {str(address) for address in seed.peers()} == both
    assert first.stats()
    second.stop()
    wait_until(lambda: not first.neighbours(), what="no neighbour any more")
    wait_until(lambda: len(seed.peers()) == 1, what="one peer at the seed")


def test_the_sockets_of_the_neighbours_are_an_attribute(embedded: Embedded) -> None:
    assert embedded.new_peer().sockets_to_peers == {}
    first, second = two_neighbours(embedded)
    assert len(first.sockets_to_peers) == 1
    second.stop()
    wait_until(lambda: len(first.sockets_to_peers) == 0, what="no socket any more")


def test_the_methods_of_the_mission_keep_their_names() -> None:
    for method in (
        *("start", "listen", "connect_to_seeds", "handle_seeds", "connect_to_peers"),
        *("handle_peer", "handle_messages", "liveness_test", "generate_messages"),
        *("stop", "broadcast", "send", "neighbours", "members", "stats", "messages"),
    ):
        assert inspect.isfunction(getattr(Peer, method)), method
    for method in ("config_entry", "listen", "handle_peer", "start", "stop", "peers"):
        assert inspect.isfunction(getattr(Seed, method)), method


def test_the_defaults_of_the_constructors_are_those_of_the_contract() -> None:
    seed = inspect.signature(Seed).parameters
    assert (seed["port"].default, seed["ip"].default) == (12345, "localhost")
    peer = inspect.signature(Peer).parameters
    assert (peer["ip"].default, peer["seeds"].default) == ("localhost", None)


def test_without_seeds_the_config_file_is_read(embedded: Embedded) -> None:
    seed = embedded.seed(port=free_port())
    peer = embedded.peer(seeds=None)
    wait_until(
        lambda: [str(address) for address in seed.peers()] == [str(peer.address)],
        what="the peer at the seed of the config file",
    )


def test_the_round_trip_is_known_on_links_that_are_never_silent(embedded: Embedded) -> None:
    first = embedded.peer(gossip_every_s=0.05)
    embedded.peer(gossip_every_s=0.05, join=[first.address])

    def trips_s() -> list[float]:
        return [link["round_trip_s"] for link in first.links() if link["round_trip_s"] is not None]

    wait_until(trips_s, what="a round trip", timeout_s=10)
    assert 0 < trips_s()[0] < 5


# ---- errors


def test_every_error_is_a_network_error() -> None:
    for error in (MessageTooLarge, NotRunning, AddressInUse, BadAddress, BroadcastTimeout):
        assert issubclass(error, NetworkError)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 21])
def test_a_message_too_large_is_refused_and_costs_nothing(embedded: Embedded, size: int) -> None:
    first, second = two_neighbours(embedded)
    with pytest.raises(MessageTooLarge):
        first.broadcast(bytes(size))
    with pytest.raises(MessageTooLarge):
        first.send(str(second.address), bytes(size))
    assert first.broadcast(b"small") == 1
    assert embedded.wait_to_hear(second, 1) == [(str(first.address), 1, b"small")]


def test_a_peer_that_is_not_running_refuses(embedded: Embedded) -> None:
    peer = embedded.new_peer()
    with pytest.raises(NotRunning):
        peer.broadcast(b"too early")
    peer.start()
    peer.stop()
    with pytest.raises(NotRunning):
        peer.broadcast(b"too late")
    with pytest.raises(NotRunning):
        peer.send("127.0.0.1:5000", b"too late")


def test_a_port_in_use_is_an_error_and_leaves_nothing(embedded: Embedded) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        with pytest.raises(AddressInUse, match=str(busy)):
            embedded.peer(port=busy)
        with pytest.raises(AddressInUse, match=str(busy)):
            embedded.seed(port=busy)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "keywords",
    [
        {"port": 65536},
        {"port": -1},
        {"ip": "999.1.1.1"},
        {"ip": "two words"},
        {"seeds": ["nowhere"]},
        {"seeds": ["localhost:99999"]},
        {"join": ["nowhere"]},
        {"advertise": "host:99999"},
    ],
)
def test_a_bad_address_is_an_error(embedded: Embedded, keywords: dict[str, object]) -> None:
    with pytest.raises(BadAddress):
        embedded.peer(**keywords)


@pytest.mark.parametrize("address", ["nowhere", "host:99999", ":1", ""])
def test_sending_to_a_bad_address_is_an_error(embedded: Embedded, address: str) -> None:
    with pytest.raises(BadAddress):
        embedded.peer().send(address, b"x")
