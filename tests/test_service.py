"""Run by a service manager: it is told of readiness, and SIGHUP has the files read again."""

import os
import signal
import socket
from pathlib import Path

import pytest

from helpers import free_port, let_pass, wait_until
from programs import Program, Programs


def hang_up(program: Program) -> int:
    """Send SIGHUP; give how many events there were before."""
    before = program.mark()
    program.process.send_signal(signal.SIGHUP)
    return before


def test_a_peer_reads_the_list_of_seeds_again_and_says_so(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    added = f"127.0.0.1:{free_port()}"
    with programs.config.open("a") as file:
        file.write(f"{added}\nno seed at all\n")
    wait_until(lambda: "no seed at all" in peer.stderr, what="the complaint")
    before = hang_up(peer)
    assert peer.wait_for("config_read", after=before)["seeds"] == 2
    wait_until(lambda: peer.stderr.count("no seed at all") == 2, what="the complaint again")
    assert len(programs.logged("config_read")) == 1


def test_a_peer_says_nothing_of_the_list_unless_told_to(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    with programs.config.open("a") as file:
        file.write(f"127.0.0.1:{free_port()}\n")
    let_pass(2)
    assert peer.all("config_read") == []


def test_a_seed_lists_itself_again_in_a_file_that_was_replaced(programs: Programs) -> None:
    seed = programs.seed()
    programs.config.write_text("# a new list\n192.0.2.1:5000\n")
    before = hang_up(seed)
    assert seed.wait_for("config_read", after=before)["seeds"] == 2
    assert programs.listed() == ["192.0.2.1:5000", seed.address]


def test_a_seed_whose_list_cannot_be_read_says_so_and_goes_on(programs: Programs) -> None:
    seed = programs.seed()
    programs.config.unlink()
    programs.config.mkdir()
    hang_up(seed)
    wait_until(lambda: "Is a directory" in seed.stderr, what="the complaint")
    programs.config.rmdir()
    before = hang_up(seed)
    seed.wait_for("config_read", after=before)


def test_the_spawner_has_all_its_seeds_and_peers_read_their_files_again(
    programs: Programs,
) -> None:
    spawner = programs.start(
        *("seedspawner.py", 2, "--peers", 2, "--base-port", free_port()),
        *("--peer-base-port", free_port()),
    )
    spawner.wait_for("registered", count=4)
    hang_up(spawner)
    spawner.wait_for("config_read", count=4)
    assert len({event["self"] for event in spawner.all("config_read")}) == 4


def test_a_peer_whose_terminal_is_closed_leaves_cleanly(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    port = free_port()
    terminal = programs.terminal("peer.py", port, "--gossip-every", 0)
    peer.wait_for("neighbour_up", neighbour=f"127.0.0.1:{port}")
    terminal.hang_up()
    assert terminal.wait() == 0
    down = peer.wait_for("neighbour_down", neighbour=f"127.0.0.1:{port}")
    assert down["reason"] == "it has left"


# ---- the manager's socket


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "seedspawner.py"])
@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_manager_is_told_when_it_is_ready_and_when_it_stops(
    programs: Programs, script: str, is_abstract: bool
) -> None:
    name = f"@{programs.folder}" if is_abstract else str(programs.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(name.replace("@", "\0", 1) if is_abstract else name)
        programs.environment["NOTIFY_SOCKET"] = name
        number = 1 if script == "seedspawner.py" else free_port()
        program = programs.start(script, number)
        assert manager.recv(100) == b"READY=1"
        wait_until(lambda: programs.logged("listening"), what="the line in the log")
        program.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert program.wait() == 0


def test_a_manager_that_is_gone_is_no_reason_to_fail(programs: Programs) -> None:
    programs.environment["NOTIFY_SOCKET"] = str(programs.folder / "nobody")
    seed = programs.seed()
    wait_until(lambda: "READY=1" in seed.stderr, what="a complaint")
    seed.terminate()
    assert seed.wait() == 0


def test_nobody_is_told_without_a_manager(programs: Programs) -> None:
    programs.environment.pop("NOTIFY_SOCKET", None)
    seed = programs.seed()
    seed.terminate()
    assert seed.wait() == 0
    assert seed.stderr == ""


# ---- logs that somebody moves away


def test_after_a_rotation_every_line_is_there_once_and_whole(programs: Programs) -> None:
    """Four speakers and listeners write to one log, which is moved away twice meanwhile."""
    count = 300
    _, peers = programs.network(4)
    rotated: list[Path] = []
    for _ in range(2):
        for peer in peers:
            peer.say(*(f"{len(rotated)} {number} " + "x" * 100 for number in range(count)))
        for peer in peers:
            wait_until(lambda p=peer: len(p.all("message")) > 50, what="a few messages")  # type: ignore[misc]
        rotated.append(programs.folder / f"outputfile.log.{len(rotated) + 1}")
        programs.log.rename(rotated[-1])
        wait_until(programs.log.exists, what="a new log")
    for peer in peers:
        peer.wait_for("message", count=2 * 3 * count)
        peer.say("the end")
    for peer in peers:
        peer.wait_for("message", count=2 * 3 * count + 3)
        peer.terminate()
        assert peer.wait() == 0
    texts = [path.read_text() for path in [*rotated, programs.log]]
    assert all(texts)
    assert all(text.endswith("\n") for text in texts)
    logged = [line for text in texts for line in text.splitlines() if " message " in line]
    told = [
        f"{event['self']} message origin={event['origin']} boot_ms={event['boot_ms']} "
        f'seq={event["seq"]} text="{event["text"]}"'
        for peer in peers
        for event in peer.all("message")
    ]
    assert sorted(line[24:] for line in logged) == sorted(told)


def test_sighup_begins_the_new_log_at_once(programs: Programs) -> None:
    seed = programs.seed()
    before = hang_up(seed)  # so that it has just looked at its log
    seed.wait_for("config_read", after=before)
    os.rename(programs.log, programs.folder / "old.log")
    hang_up(seed)
    wait_until(lambda: programs.logged("config_read"), what="the first line of the new log")
    assert len(programs.logged("config_read")) == 1
