"""Ctrl-C and SIGTERM end everything soon, cleanly, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from helpers import PATIENCE_S, STOP_LIMIT_S, free_port, free_ports, let_pass, wait_until
from programs import Program, Programs

HOWS = ["press_ctrl_c", "terminate"]


def stop_in_time(programs: Programs, program: Program, how: str) -> None:
    """Stop it in that way; check its exit code, its last event, its haste, and what it left."""
    stop: Callable[[], None] = getattr(program, how)
    began_s = time.monotonic()
    stop()
    exit_code = program.wait()
    took_s = time.monotonic() - began_s
    with program.telling_its_story():
        assert exit_code == 0
        assert took_s < STOP_LIMIT_S
        assert program.events[-1]["event"] == "stopped"
        assert program.events[-1]["reason"]
        assert program.process.pid not in programs.left_behind()


@pytest.mark.parametrize("how", HOWS)
def test_a_seed_stops(programs: Programs, how: str) -> None:
    seed, _ = programs.network(3)
    stop_in_time(programs, seed, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_peer_stops(programs: Programs, how: str) -> None:
    _, [peer, *_] = programs.network(3)
    stop_in_time(programs, peer, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_peer_without_a_network_stops(programs: Programs, how: str) -> None:
    peer = programs.peer("--seed", f"127.0.0.1:{free_port()}")
    peer.wait_for("seed_unreachable")
    stop_in_time(programs, peer, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_peer_stops_whose_seed_and_neighbour_hang(programs: Programs, how: str) -> None:
    seed, [peer, neighbour] = programs.network(2)
    seed.pause()
    neighbour.pause()
    peer.say_in_background(*("x" * 100_000 for _ in range(300)))  # now its writer is stuck as well
    let_pass(0.5)
    stop_in_time(programs, peer, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_seed_stops_whose_peers_hang(programs: Programs, how: str) -> None:
    seed, peers = programs.network(2)
    for peer in peers:
        peer.pause()
    stop_in_time(programs, seed, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_peer_stops_that_waits_for_a_seed_that_never_answers(
    programs: Programs, how: str
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        peer = programs.peer("--seed", f"127.0.0.1:{silent.getsockname()[1]}")
        let_pass(0.5)
        stop_in_time(programs, peer, how)


@pytest.mark.parametrize("how", HOWS)
def test_a_peer_stops_in_the_middle_of_heavy_traffic(programs: Programs, how: str) -> None:
    _, peers = programs.network(4)
    for peer in peers:
        peer.say(*("x" * 10_000 for _ in range(300)))
    peers[0].wait_for("message")
    stop_in_time(programs, peers[0], how)


@pytest.mark.parametrize("how", HOWS)
def test_a_whole_network_stops_at_once(programs: Programs, how: str) -> None:
    seed, peers = programs.network(5)
    for program in [seed, *peers]:
        getattr(program, how)()
    assert [program.wait() for program in [seed, *peers]] == [0] * 6
    assert programs.left_behind() == {}


def spawned(programs: Programs, peers: int) -> Program:
    """Three seeds and peers of one seedspawner, once they are a network."""
    spawner = programs.start(
        *("seedspawner.py", 3, "--base-port", free_ports(8)),
        *("--peers", peers, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.logged("listening")) == 3 + peers, what="all of them")
    wait_until(lambda: len(programs.logged("registered")) >= 2 * peers, what="registered peers")
    return spawner


def stop_all_in_time(programs: Programs, spawner: Program, how: str) -> None:
    """Stop the seedspawner in that way; see its haste, and that nothing is left behind."""
    began_s = time.monotonic()
    getattr(spawner, how)()
    with spawner.telling_its_story():
        assert spawner.wait() == 0
        assert time.monotonic() - began_s < STOP_LIMIT_S
        assert programs.left_behind() == {}
    assert programs.listed() == []


@pytest.mark.parametrize("how", HOWS)
def test_the_seedspawner_stops_with_all_it_started(programs: Programs, how: str) -> None:
    spawner = spawned(programs, 3)
    assert len(programs.left_behind()) >= 4, "each peer is its own process"
    stop_all_in_time(programs, spawner, how)
    assert len(programs.logged("stopped")) >= 6
    assert programs.logged("dead") == []


@pytest.mark.parametrize("how", HOWS)
def test_the_seedspawner_stops_although_its_peers_hang(programs: Programs, how: str) -> None:
    spawner = spawned(programs, 3)
    for pid, command in programs.left_behind().items():
        if "peer.py" in command:
            os.kill(pid, signal.SIGSTOP)
    stop_all_in_time(programs, spawner, how)


@pytest.mark.parametrize("how", [*HOWS, "kill"])
def test_the_seedspawner_stops_although_nobody_reads_what_it_shows(
    programs: Programs, how: str
) -> None:
    """As on a terminal that is held by Ctrl-S, or in a pipe to something that hangs."""
    terminal = programs.terminal(
        *("seedspawner.py", 2, "--base-port", free_ports(8), "--verbose"),
        *("--peers", 3, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.logged("listening")) == 5, what="two seeds and three peers")
    terminal.look_away()
    speaker = programs.peer()
    speaker.wait_for("neighbour_up")
    speaker.say(*["x" * 1000] * 1000)
    wait_until(lambda: len(programs.logged("message")) >= 180, what="full pipes")
    terminal.press_ctrl_c() if how == "press_ctrl_c" else getattr(terminal.process, how)()
    expected = -signal.SIGKILL if how == "kill" else 0
    assert terminal.process.wait(STOP_LIMIT_S) == expected
    speaker.terminate()
    speaker.wait()
    wait_until(lambda: programs.left_behind() == {}, what="the end of all", timeout_s=10)
    assert how == "kill" or programs.listed() == []


def test_what_does_not_stop_in_time_is_killed(programs: Programs) -> None:
    """For a machine so busy that not even the stopping gets anywhere."""
    hanging = programs.folder / "hanging.py"
    hanging.write_text(
        "import sys, threading, command_line\n"
        "def program(running):\n"
        "    never = threading.Event()\n"
        "    running.begin(lambda: None, lambda reason: never.wait())\n"
        "    running.kill_with(lambda: print('killed', flush=True))\n"
        "    print('ready', flush=True)\n"
        "    command_line.wait_for_ever()\n"
        "sys.exit(command_line.run(program))\n"
    )
    environment = {**programs.environment, "PYTHONPATH": str(programs.root)}
    with subprocess.Popen(
        [sys.executable, hanging], env=environment, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        program.terminate()
        assert program.wait(STOP_LIMIT_S) == 0
        assert program.stdout.read() == b"killed\n"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("processes", [2, 4, 6])
def test_the_seedspawner_stopped_while_it_starts_peers_leaves_none(
    programs: Programs, how: str, processes: int
) -> None:
    spawner = programs.start(
        *("seedspawner.py", 1, "--base-port", free_ports(4), "--map", free_ports(4)),
        *("--peers", 5, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.left_behind()) >= processes, what="some processes")
    stop_all_in_time(programs, spawner, how)


@pytest.mark.parametrize("script", ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"])
@pytest.mark.parametrize("how", HOWS)
def test_a_program_stops_while_it_asks(programs: Programs, script: str, how: str) -> None:
    terminal = programs.terminal(script)
    terminal.wait_to_see(r"\[")
    if how == "terminate":
        terminal.process.terminate()
    else:
        terminal.press_ctrl_c()
    assert terminal.wait(STOP_LIMIT_S) == 0
    assert programs.left_behind() == {}


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_ctrl_c_on_a_terminal_stops_a_program(programs: Programs, script: str) -> None:
    terminal = programs.terminal(script, free_port())
    wait_until(lambda: programs.logged("listening"), what="a listening program")
    terminal.press_ctrl_c()
    assert terminal.wait(STOP_LIMIT_S) == 0
    assert programs.logged("stopped")
    assert programs.left_behind() == {}


def test_ctrl_c_on_a_terminal_stops_the_seedspawner_and_its_children(programs: Programs) -> None:
    terminal = programs.terminal(
        *("seedspawner.py", 2, "--base-port", free_ports(8)),
        *("--peers", 2, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.logged("listening")) == 4, what="two seeds and two peers")
    terminal.press_ctrl_c()
    assert terminal.wait(STOP_LIMIT_S) == 0
    assert programs.left_behind() == {}
    assert programs.listed() == []


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_a_second_ctrl_c_does_no_harm(programs: Programs, script: str) -> None:
    programs.seed()
    program = programs.start(script, free_port())
    program.wait_for("listening")
    program.press_ctrl_c()
    program.press_ctrl_c()
    assert program.wait() == 0


@pytest.mark.parametrize("script", ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"])
def test_an_early_ctrl_c_leaves_no_traceback(programs: Programs, script: str) -> None:
    """It may come before the program has found its feet; the fixture looks for the traceback."""
    programs.config.write_text("")
    for _ in range(3):
        number = 1 if script == "seedspawner.py" else free_port()
        spread = ["--base-port", free_ports(8)] if script == "seedspawner.py" else []
        program = programs.start(script, number, *spread)
        wait_until(programs.log.exists, what="the first it does to a file")
        program.press_ctrl_c()
        program.wait()
        programs.log.unlink(missing_ok=True)
    assert programs.left_behind() == {}


@pytest.mark.parametrize("how", HOWS)
def test_the_seedspawner_stopped_while_it_starts_seeds_leaves_none_listed(
    programs: Programs, how: str
) -> None:
    spawner = programs.start("seedspawner.py", 300, "--base-port", 20_000, "--peers", 3)
    spawner.wait_for("listening")
    getattr(spawner, how)()
    assert spawner.wait() == 0
    assert programs.listed() == []
    assert len(spawner.all("listening")) == len(spawner.all("stopped")) < 300
    assert programs.left_behind() == {}


@pytest.mark.parametrize("script", ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"])
def test_a_hang_up_while_python_still_imports_is_obeyed_later(
    programs: Programs, script: str
) -> None:
    programs.config.write_text("")
    programs.environment["PYTHONPROFILEIMPORTTIME"] = "1"  # then it tells of each import
    number = 1 if script == "seedspawner.py" else free_port()
    spread = ["--base-port", free_ports(8)] if script == "seedspawner.py" else []
    program = programs.start(script, number, *spread)
    wait_until(lambda: "logging" in program.stderr, what="the first imports")
    program.process.send_signal(signal.SIGHUP)
    program.wait_for("config_read")
    program.terminate()
    assert program.wait() == 0


@pytest.mark.parametrize("script", ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"])
def test_ctrl_c_while_python_still_imports_is_a_clean_end(programs: Programs, script: str) -> None:
    programs.environment["PYTHONPROFILEIMPORTTIME"] = "1"  # then it tells of each import
    program = programs.start(script)
    wait_until(lambda: "logging" in program.stderr, what="the first imports")
    program.press_ctrl_c()
    assert program.wait() == 0
    assert program.events == []


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_who_reads_the_events_may_go_away(programs: Programs, script: str) -> None:
    """As in `peer.py 6001 --json | head -1`: no traceback, whether it ends or goes on."""
    programs.seed()
    command = [sys.executable, *programs.arguments(script, free_port(), "--json")]
    with subprocess.Popen(
        command, env=programs.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert b"listening" in program.stdout.readline()
        program.stdout.close()
        programs.peer().wait_for("registered")  # so that there is more to say
        let_pass(1)
        program.terminate()
        assert program.wait(PATIENCE_S) in (0, 1)
        assert b"Traceback" not in program.stderr.read()


def test_a_peer_stops_although_nobody_reads_its_events(programs: Programs) -> None:
    speaker = programs.peer()
    arguments = programs.arguments("peer.py", free_port(), "--join", speaker.address, "--json")
    with subprocess.Popen(
        [sys.executable, *arguments], env=programs.environment, stdout=subprocess.PIPE
    ) as program:
        speaker.wait_for("neighbour_up")
        speaker.say(*["x" * 10_000] * 100)  # a pipe holds 64 KiB
        wait_until(lambda: len(programs.logged("message")) >= 7, what="events that nobody reads")
        program.terminate()
        assert program.wait(STOP_LIMIT_S) == 0


def test_a_port_is_free_again_at_once(programs: Programs) -> None:
    """A restart on the same port must not fail because old connections linger."""
    seed, [peer, _] = programs.network(2)
    for script, program in (("seed.py", seed), ("peer.py", peer)):
        program.terminate()
        assert program.wait() == 0
        programs.start(script, program.port).wait_for("listening")
