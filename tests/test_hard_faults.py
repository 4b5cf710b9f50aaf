"""What breaks around a program: disks, files, clocks, descriptors, and the program it is part of.

Each outcome is told in docs/reliability.md.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding import Embedded
from helpers import ROOT, free_port, let_pass, wait_until
from link import Connection
from messages import Address, DeadReport, ListPeers, PeerList, Verdict
from programs import Programs, is_connected
from settings import Tunables
from test_reception import Strangers
from wire import FrameBuffer

IS_ROOT = os.geteuid() == 0
HOUR_S = 3600
MOST_DESCRIPTORS = 40

SITE = """
import os, resource, time
if "CLOCK_FILE" in os.environ:
    _time, _time_ns = time.time, time.time_ns
    def _ahead_s():
        try:
            return float(open(os.environ["CLOCK_FILE"]).read())
        except (OSError, ValueError):
            return 0.0
    time.time = lambda: _time() + _ahead_s()
    time.time_ns = lambda: _time_ns() + int(_ahead_s() * 1e9)
if "MOST_DESCRIPTORS" in os.environ:
    most = int(os.environ["MOST_DESCRIPTORS"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""  # what a program does before anything else: see `unusual`


@contextlib.contextmanager
def unusual(programs: Programs, **environment: object) -> Iterator[None]:
    """Programs started meanwhile have a clock that the test sets, or few descriptors."""
    usual = dict(programs.environment)
    folder = programs.folder / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    programs.environment["PYTHONPATH"] = str(folder)
    programs.environment |= {name: str(value) for name, value in environment.items()}
    try:
        yield
    finally:
        programs.environment.clear()
        programs.environment |= usual


# ---- disks and files -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    if not IS_ROOT:
        pytest.skip("only root may mount a disk")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return ballast


def test_a_full_disk_under_the_log_costs_lines_and_nothing_else(
    programs: Programs, small_disk: Path
) -> None:
    _, [speaker] = programs.network(1)
    log = programs.log = small_disk / "outputfile.log"
    peer = programs.peer()
    peer.wait_for("neighbour_up")
    ballast = fill(small_disk)
    speaker.say(*(f"{number} " + "x" * 100 for number in range(200)))
    peer.wait_for("message", origin=speaker.address, count=200)
    wait_until(lambda: "cannot write" in peer.stderr, what="one line about it")
    assert peer.stderr.count("cannot write") == 1
    ballast.unlink()
    speaker.say("there is room again")
    wait_until(lambda: "there is room again" in log.read_text(), what="a line in the log")
    peer.terminate()
    assert peer.wait() == 0


def test_a_seed_that_cannot_list_itself_says_so_and_ends(
    programs: Programs, small_disk: Path
) -> None:
    programs.are_files_named = False
    fill(small_disk)
    done = programs.run("seed.py", free_port(), "--config", small_disk / "config.txt")
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
@pytest.mark.parametrize("place", [".", "no-such-folder/file"])
def test_a_log_that_cannot_be_written_is_one_line_and_exit_code_2(
    programs: Programs, script: str, place: str
) -> None:
    programs.are_files_named = False
    done = programs.run(script, free_port(), "--log", programs.folder / place)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_list_of_seeds_that_becomes_unreadable_leaves_the_network_as_it_is(
    programs: Programs,
) -> None:
    seed, peers = programs.network(2)
    programs.config.unlink()
    programs.config.mkdir()
    let_pass(2)
    peers[0].say("we go on")
    peers[1].wait_for("message", text="we go on")
    assert peers[0].all("dead") == []
    seed.terminate()
    assert seed.wait() == 0
    assert "stays listed" in seed.stderr


# ---- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_changes_the_times_in_the_log_and_nothing_else(
    programs: Programs, tmp_path: Path, jump_s: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    with unusual(programs, CLOCK_FILE=clock):
        seed, peers = programs.network(3)
    peers[0].say("before")
    for peer in peers[1:]:
        peer.wait_for("message", text="before")
    clock.write_text(str(jump_s))
    peers[0].say("after")
    for peer in peers[1:]:
        event = peer.wait_for("message", text="after")
        assert abs(event["at"] - time.time() - jump_s) < HOUR_S / 2
    let_pass(5)  # longer than it takes to call somebody dead
    for peer in peers:
        assert peer.all("dead") == peer.all("suspect") == []
    assert seed.all("peer_removed") == []


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_a_peer_with_a_wrong_clock_is_heard_and_may_come_back(
    programs: Programs, tmp_path: Path, ahead_s: int
) -> None:
    """Its boot time is wrong too, and with it who is the root; and its next life may look older."""
    clock = tmp_path / "clock"
    clock.write_text(str(ahead_s))
    _, peers = programs.network(2)
    port = free_port()
    for moment, text in ((ahead_s, "first life"), (ahead_s - HOUR_S, "second life")):
        clock.write_text(str(moment))
        with unusual(programs, CLOCK_FILE=clock):
            odd = programs.peer(port=port)
        odd.say(text)
        for peer in peers:
            peer.wait_for("message", origin=odd.address, text=text)
        peers[0].say(f"I hear you, {text}")
        odd.wait_for("message", text=f"I hear you, {text}")
        odd.kill()


# ---- descriptors ---------------------------------------------------------------------------------


def test_a_peer_without_descriptors_keeps_its_neighbours_and_later_takes_others(
    programs: Programs,
) -> None:
    seed, [friend] = programs.network(1)
    with unusual(programs, MOST_DESCRIPTORS=MOST_DESCRIPTORS):
        poor = programs.peer()
    poor.wait_for("neighbour_up", neighbour=friend.address)
    with contextlib.ExitStack() as stack:
        strangers = Strangers(stack)
        for _ in range(60):
            strangers.dial_address(poor.address)
        friend.say("can you hear me?")
        poor.wait_for("message", text="can you hear me?")
    newcomer = programs.peer("--join", poor.address)
    wait_until(lambda: is_connected([friend, poor, newcomer]), what="one network of three")
    assert friend.all("dead") == poor.all("dead") == []
    assert seed.all("peer_removed") == []


def test_a_seed_without_descriptors_takes_nobody_off_its_list_whom_it_cannot_try(
    programs: Programs,
) -> None:
    with unusual(programs, MOST_DESCRIPTORS=MOST_DESCRIPTORS):
        seed = programs.seed()
    peer = programs.peer()
    seed.wait_for("peer_registered", peer=peer.address)
    with contextlib.ExitStack() as stack:
        strangers = Strangers(stack)
        reporter = Connection(strangers.dial_address(seed.address))
        assert isinstance(reporter.ask(ListPeers(), timeout_s=20), PeerList)
        for _ in range(2 * MOST_DESCRIPTORS):
            strangers.dial_address(seed.address)
        descriptors = f"/proc/{seed.process.pid}/fd"
        wait_until(lambda: len(os.listdir(descriptors)) == MOST_DESCRIPTORS, what="none left")
        accused = Address.parse(peer.address)
        verdict = reporter.ask(DeadReport(accused, Address("127.0.0.1", 1)), timeout_s=20)
        assert verdict == Verdict(accused, is_removed=False)
    assert seed.all("peer_removed") == []
    newcomer = programs.peer()
    seed.wait_for("peer_registered", peer=newcomer.address)
    peer.kill()
    seed.wait_for("peer_removed", peer=peer.address)


# ---- the program around a peer -------------------------------------------------------------------


def test_a_callback_that_hangs_holds_up_its_own_peer_alone(embedded: Embedded) -> None:
    speaker = embedded.peer()
    limits = Tunables(inbox_bytes=100_000)
    hanging = embedded.new_peer(join=[speaker.address], tunables=limits)
    go_on = threading.Event()
    hanging.on_message(lambda _: go_on.wait())
    hanging.start()
    other = embedded.peer(join=[speaker.address])
    try:
        wait_until(lambda: len(speaker.neighbours()) == 2, what="two neighbours")
        for number in range(4000):
            speaker.broadcast(b"%d" % number + bytes(1000))
        embedded.wait_to_hear(other, 4000)
        let_pass(5)  # longer than it takes to call somebody dead
        assert hanging.address in speaker.neighbours()
        assert hanging.stats()["waiting_bytes"] < limits.inbox_bytes + FrameBuffer.RECEIVE_BYTES
    finally:
        go_on.set()
    embedded.wait_to_hear(hanging, 4000)


ENDINGS = {
    "by its last line": ("", 0),
    "by an exception": ("raise SystemExit(3)", 3),
    "in a callback": ("other.on_message(lambda m: os._exit(4)); threading.Event().wait()", 4),
    "by sys.exit in a thread": ("threading.Thread(target=sys.exit).start()", 0),
}  # what the program does, and its exit code


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_that_ends_without_stopping_its_peers_just_ends(tmp_path: Path, how: str) -> None:
    ending, exit_code = ENDINGS[how]
    program = f"""
import os, sys, threading
from helpers import wait_until
from peer import Peer
peer, other = (Peer(seeds=[], log=None) for _ in range(2))
peer.start(); other.start(); third = Peer(seeds=[], join=[peer.address, other.address], log=None)
third.start()
wait_until(peer.neighbours, what="a neighbour")
for _ in range(2000): peer.broadcast(bytes(1000))
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exit_code
    assert done.stderr == b""
