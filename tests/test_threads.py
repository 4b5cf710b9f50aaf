"""What a program does while the system gives no further thread, as under a container's limit.

It keeps what it has, accuses nobody, and goes on by itself once there are threads again.
"""

import re
import socket
import threading
from pathlib import Path

import pytest

from embedding import Embedded
from helpers import free_port, free_ports, let_pass, wait_until
from link import Listener, ask
from messages import Address, Register
from peer import Peer
from programs import Event, Programs
from settings import Tunables
from threads import Threads
from visits import visit

SAID = "the system gives no further thread"
NOBODY = [f"127.0.0.9:{port}" for port in range(1, 400)]  # addresses that refuse at once

SITE = """
import os, threading
start = threading.Thread.start
def may_start(thread):
    if any(word in thread.name for word in os.environ["NO_THREADS"].split()):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = may_start
"""  # what a program does before anything else: see `without`


class Scarcity:
    """The system gives no thread in whose name one of these patterns is found."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.words: set[str] = set()
        start = threading.Thread.start

        def may_start(thread: threading.Thread) -> None:
            if any(re.search(word, thread.name) for word in self.words):
                raise RuntimeError("can't start new thread")
            start(thread)

        patch.setattr(threading.Thread, "start", may_start)


@pytest.fixture
def scarcity(monkeypatch: pytest.MonkeyPatch) -> Scarcity:
    return Scarcity(monkeypatch)


def without(programs: Programs, *words: str) -> None:
    """Programs started from now on get no thread in whose name is one of these words."""
    folder = programs.folder / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    programs.environment |= {"PYTHONPATH": str(folder), "NO_THREADS": " ".join(words)}


class Told(list[Event]):
    """What a peer told of itself."""

    def of(self, *events: str, **details: str) -> list[Event]:
        return [e for e in self if e["event"] in events and details.items() <= e.items()]


def are_linked(*peers: Peer) -> bool:
    return all(len(peer.neighbours()) == len(peers) - 1 for peer in peers)


def threads_of(address: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(address)]


# ---- threads themselves --------------------------------------------------------------------------


def test_what_the_system_refuses_is_an_error_of_the_system() -> None:
    threads = Threads("test", lambda _: None)
    usual = threading.stack_size(1 << 46)  # more than there is
    try:
        with pytest.raises(OSError, match=SAID):
            threads.start("none", let_pass, 0)
    finally:
        threading.stack_size(usual)
    threads.start("one", let_pass, 0).join()


def test_work_is_done_by_as_many_threads_as_there_are(scarcity: Scarcity) -> None:
    threads = Threads("test", lambda _: None)
    done: list[tuple[int, str]] = []
    have_met = threading.Barrier(4)

    def work(number: int) -> None:
        if number < 4:
            have_met.wait(20)
        done.append((number, threading.current_thread().name))

    threads.each("helps", work, range(20), 4)
    here = threading.current_thread().name
    assert sorted(number for number, _ in done) == list(range(20))
    assert {name for _, name in done} == {here, "test helps"}
    done.clear()
    scarcity.words = {"helps"}
    threads.each("helps", work, range(4, 9), 4)
    assert done == [(number, here) for number in range(4, 9)]


# ---- a peer --------------------------------------------------------------------------------------


def test_a_peer_keeps_its_neighbours_and_later_takes_others(
    embedded: Embedded, scarcity: Scarcity
) -> None:
    told = Told()
    poor = embedded.peer(on_event=told.append)
    friend = embedded.peer(join=[poor.address])
    wait_until(lambda: are_linked(poor, friend), what="a link")
    scarcity.words = {poor.address}
    newcomers = [embedded.peer(join=[poor.address]) for _ in range(3)]
    wait_until(lambda: told.of("refused", what="threads"), what="word of it")
    friend.broadcast(b"can you hear me?")
    embedded.wait_to_hear(poor, 1)
    poor.broadcast(b"I can")
    embedded.wait_to_hear(friend, 1)
    let_pass(6)  # longer than it takes to call somebody dead
    assert poor.neighbours() == [friend.address]
    assert poor.stats()["refused_threads"] > 0
    assert len(told.of("refused", what="threads")) == 1
    scarcity.words = set()
    for newcomer in newcomers:
        embedded.wait_to_hear(newcomer, 2)
    assert told.of("dead", "suspect", "error") == []


def test_a_peer_dials_once_there_are_threads(embedded: Embedded, scarcity: Scarcity) -> None:
    friend, told = embedded.peer(), Told()
    scarcity.words = {"connect$"}
    poor = embedded.peer(join=[friend.address, *NOBODY], on_event=told.append)
    wait_until(lambda: poor.stats()["refused_threads"] > 20, what="dials that were not made")
    assert not poor.neighbours()
    assert told.of("peer_unreachable", "error") == []
    assert len(told.of("refused", what="threads")) == 1
    scarcity.words = set()
    wait_until(lambda: are_linked(poor, friend), what="a link")


def test_whom_a_peer_cannot_try_it_does_not_accuse(embedded: Embedded, scarcity: Scarcity) -> None:
    friend, told = embedded.peer(), Told()
    poor = embedded.peer(join=[friend.address], on_event=told.append)
    wait_until(lambda: are_linked(poor, friend), what="a link")
    scarcity.words = {
        f"{poor.address} try",
        f"{poor.address} connect",
        f"{friend.address} connect$",
    }
    poor.sockets_to_peers[friend.address].shutdown(socket.SHUT_RDWR)
    wait_until(lambda: told.of("neighbour_down"), what="the end of the link")
    wait_until(lambda: poor.stats()["refused_threads"], what="a try that was not made")
    let_pass(3)  # longer than a case is open
    assert poor.stats()["suspects"] == 0
    scarcity.words = set()
    wait_until(lambda: are_linked(poor, friend), what="a link again")
    assert told.of("dead", "suspect", "error") == []


@pytest.mark.parametrize("wanting", ["generate_messages", "liveness_test"])
@pytest.mark.parametrize("is_dialled", [False, True])
def test_a_link_that_would_lack_a_thread_is_not_begun(
    embedded: Embedded, scarcity: Scarcity, wanting: str, is_dialled: bool
) -> None:
    told, told_friend = Told(), Told()
    port, friends_port = free_port(), free_port()
    scarcity.words = {f":{port} {wanting}"}
    poor = embedded.new_peer(
        port=port,
        on_event=told.append,
        join=[] if is_dialled else [f"127.0.0.1:{friends_port}"],
    )
    friend = embedded.new_peer(
        port=friends_port,
        on_event=told_friend.append,
        join=[f"127.0.0.1:{port}"] if is_dialled else [],
    )
    for peer in (poor, friend) if is_dialled else (friend, poor):
        peer.start()
    wait_until(lambda: poor.stats()["refused_threads"] > 1, what="two links that were not begun")
    assert told.of("neighbour_up") == told_friend.of("neighbour_up") == []
    scarcity.words = set()
    wait_until(lambda: are_linked(poor, friend), what="a link")
    for each in (told, told_friend):
        assert each.of("dead", "suspect", "error") == []


@pytest.mark.parametrize("wanting", ["deliver", "listen", "handle_seeds", "connect_to_peers"])
def test_a_peer_that_cannot_start_leaves_nothing_behind(
    embedded: Embedded, scarcity: Scarcity, wanting: str
) -> None:
    port = free_port()
    peer = embedded.new_peer(port=port)
    scarcity.words = {wanting}
    with pytest.raises(OSError, match=SAID):
        peer.start()
    assert threads_of(peer.address) == []
    Listener("localhost", port).close()


# ---- a seed --------------------------------------------------------------------------------------


def test_a_seed_keeps_its_peers_and_later_takes_others(
    embedded: Embedded, scarcity: Scarcity
) -> None:
    told = Told()
    seed = embedded.seed(on_event=told.append)
    old = embedded.peer(seeds=[seed.address])
    wait_until(lambda: seed.peers() == [old.address], what="a peer on the list")
    scarcity.words = {seed.address}
    new = embedded.peer(seeds=[seed.address])
    wait_until(lambda: told.of("refused", what="threads"), what="word of it")
    let_pass(2)
    assert seed.peers() == [old.address]
    assert seed.stats()["refused_threads"] == 1
    scarcity.words = set()
    wait_until(lambda: sorted(seed.peers()) == sorted([old.address, new.address]), what="both")
    assert told.of("peer_removed", "error") == []


def test_a_seed_finds_out_who_is_gone_without_a_further_thread(
    embedded: Embedded, scarcity: Scarcity
) -> None:
    few = Tunables(lease_s=3, renew_interval_s=1)
    seed = embedded.seed(tunables=few)
    live = embedded.peer(seeds=[seed.address], tunables=few)
    gone = [embedded.peer(tunables=few) for _ in range(2)]
    wait_until(lambda: seed.peers() == [live.address], what="a peer on the list")
    for peer in gone:
        register = Register(Address.parse(peer.address), peer.stats()["boot_ms"])
        ask(Address.parse(seed.address), register, timeout_s=20, trust=None)
    wait_until(lambda: len(seed.peers()) == 3, what="three of them")
    scarcity.words = {f"{seed.address} try"}
    for peer in gone:
        peer.stop()
    wait_until(lambda: seed.peers() == [live.address], what="the end of those that are gone")


@pytest.mark.parametrize("wanting", ["accept", "expire"])
def test_a_seed_that_cannot_start_leaves_nothing_behind(
    embedded: Embedded, scarcity: Scarcity, tmp_path: Path, wanting: str
) -> None:
    port = free_port()
    seed = embedded.new_seed(port=port)
    scarcity.words = {wanting}
    with pytest.raises(OSError, match=SAID):
        seed.start()
    assert threads_of(seed.address) == []
    assert str(port) not in (tmp_path / "config.txt").read_text()
    Listener("localhost", port).close()


# ---- the gateway, the spawner, and programs as such ----------------------------------------------


def test_a_visitor_without_a_thread_is_turned_away(embedded: Embedded, scarcity: Scarcity) -> None:
    url = embedded.dashboard()
    scarcity.words = {"dashboard visit"}
    for _ in range(3):
        assert visit(url, "/metrics").status == 503
    scarcity.words = set()
    assert visit(url, "/metrics").status == 200


def test_the_map_is_drawn_without_a_further_thread(embedded: Embedded, scarcity: Scarcity) -> None:
    peers = [embedded.peer() for _ in range(3)]
    url = embedded.dashboard(join=[peer.address for peer in peers])
    scarcity.words = {"dashboard ask"}
    wait_until(lambda: len(visit(url, "/api/network").json["peers"]) == 4, what="all of them")


@pytest.mark.parametrize(
    ("script", "wanting", "exit_code"),
    [
        ("seed.py", "expire", 2),
        ("peer.py", "handle_seeds", 2),
        ("dashboard.py", "serve", 2),
        ("seedspawner.py", "expire", 2),
        ("peer.py", "_run_body", 1),
    ],
)
def test_a_program_that_cannot_start_says_so_in_one_line(
    programs: Programs, script: str, wanting: str, exit_code: int
) -> None:
    without(programs, wanting)
    programs.config.touch()
    base = ["1", "--base-port", free_ports(2)] if script == "seedspawner.py" else [free_port()]
    done = programs.run(script, *base)
    assert done.returncode == exit_code
    [line] = done.stderr.splitlines()
    assert "thread" in line


def test_a_program_ends_well_without_a_further_thread(programs: Programs) -> None:
    _, [friend] = programs.network(1)
    without(programs, "(close)")
    peer = programs.peer()
    peer.wait_for("neighbour_up")
    peer.terminate()
    assert peer.wait() == 0
    assert "has left" in friend.wait_for("neighbour_down")["reason"]


def test_a_spawner_without_threads_says_what_it_cannot_start_and_ends_well(
    programs: Programs,
) -> None:
    base = free_ports(4)
    without(programs, "spawner")
    spawner = programs.start(
        *("seedspawner.py", 2, "--base-port", base, "--peers", 1, "--peer-base-port", base + 3)
    )
    wait_until(lambda: "-9" in spawner.stderr, what="the end of the peer")
    assert SAID in spawner.stderr
    spawner.press_ctrl_c()
    assert spawner.wait() == 0
    assert programs.listed() == []
