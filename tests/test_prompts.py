"""What a person is asked, and what becomes of the answers."""

import contextlib
import re
import socket

import pytest

from helpers import ROOT, free_port, free_ports, wait_until
from programs import Programs
from terminals import Terminal
from unprivileged import needs_reserved_ports

BAD_PORTS = ["abc", "0", "-1", "65536", "99999999999999999999", "50.5", "1 2", "0x50"]
PROMPT = r"[^\n]*\[[^]\n]+\][^\n]*$"  # the line the cursor is in, with a default in brackets


def started(programs: Programs, script: str) -> Terminal:
    """The program on a terminal, without the answer it will ask for."""
    quiet = ["--gossip-every", 0] if script == "peer.py" else []
    spread = ["--base-port", free_ports(8)] if script == "seedspawner.py" else []
    return programs.terminal(script, *quiet, *spread)


def question(terminal: Terminal) -> str:
    """The prompt it shows first, as a pattern to look for."""
    return re.escape(terminal.wait_to_see(PROMPT).splitlines()[-1])


@pytest.mark.parametrize(
    ("script", "default"),
    [
        ("seedspawner.py", r"\[3\]"),
        ("seed.py", r"\[12345\]"),
        ("peer.py", r"\[[^]\n]+\]"),
        ("dashboard.py", r"\[8000\]"),
    ],
)
def test_a_prompt_states_its_default_in_brackets(
    programs: Programs, script: str, default: str
) -> None:
    shown = started(programs, script).wait_to_see(default)
    assert shown.count("\n") <= 5, f"a prompt, not a page: {shown}"


def test_an_empty_answer_gives_a_peer_a_free_port(programs: Programs) -> None:
    terminal = started(programs, "peer.py")
    question(terminal)
    terminal.type("")
    wait_until(lambda: programs.logged("listening"), what="a listening peer")
    host, _, port = programs.logged("listening")[0].split(" ")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def test_an_empty_answer_to_the_seedspawner_starts_three_seeds(programs: Programs) -> None:
    terminal = started(programs, "seedspawner.py")
    terminal.wait_to_see(r"\[3\]")
    terminal.type("")
    wait_until(lambda: len(programs.listed()) == 3, what="three seeds in the list")


def test_an_empty_answer_to_a_seed_means_port_12345(programs: Programs) -> None:
    """Told apart without a seed on that port: it is busy by then, and the seed says so."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else holds it: as good
            holder.bind(("127.0.0.1", 12345))
            holder.listen(1)
        terminal = started(programs, "seed.py")
        terminal.wait_to_see(r"\[12345\]")
        since = terminal.type("")
        terminal.wait_to_see(r"12345.*in use|in use.*12345", since=since)
        terminal.wait_to_see(r"\[12345\]", since=since)


def test_a_port_typed_at_the_prompt_is_taken(programs: Programs) -> None:
    port = free_port()
    terminal = started(programs, "seed.py")
    question(terminal)
    terminal.type(str(port))
    wait_until(
        lambda: [entry.rpartition(":")[2] for entry in programs.listed()] == [str(port)],
        what="the seed in the list",
    )


def test_a_number_typed_at_the_seedspawner_is_taken(programs: Programs) -> None:
    terminal = started(programs, "seedspawner.py")
    question(terminal)
    terminal.type("2")
    wait_until(lambda: len(programs.logged("listening")) == 2, what="two seeds")
    wait_until(lambda: len(programs.listed()) == 2, what="two seeds in the list")


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_bad_port_is_explained_in_one_line_and_asked_again(
    programs: Programs, script: str
) -> None:
    terminal = started(programs, script)
    asked = question(terminal)
    for times, answer in enumerate(BAD_PORTS, start=2):
        since = terminal.type(answer)
        terminal.wait_to_see(asked, count=times)
        explained = terminal.screen[since:].splitlines()[1:-1]  # between the answer and the prompt
        assert len([line for line in explained if line.strip()]) == 1, explained
    assert terminal.process.poll() is None


@pytest.mark.parametrize("answer", ["abc", "0", "-1", "2.5"])
def test_a_bad_number_of_seeds_is_explained_and_asked_again(
    programs: Programs, answer: str
) -> None:
    terminal = started(programs, "seedspawner.py")
    asked = question(terminal)
    since = terminal.type(answer)
    terminal.wait_to_see(asked, count=2)
    explained = terminal.screen[since:].splitlines()[1:-1]
    assert len([line for line in explained if line.strip()]) == 1, explained
    terminal.type("1")
    wait_until(lambda: len(programs.listed()) == 1, what="the one seed then asked for")


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_busy_port_is_explained_and_asked_again(programs: Programs, script: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        terminal = started(programs, script)
        asked = question(terminal)
        since = terminal.type(str(busy))
        terminal.wait_to_see(rf"{busy}.*in use|in use.*{busy}", since=since)
        terminal.wait_to_see(asked, count=2)
        terminal.type(str(free_port()))
        wait_until(lambda: programs.logged("listening"), what="the port then given")


@needs_reserved_ports
@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_port_for_the_administrator_is_explained_and_asked_again(
    programs: Programs, script: str
) -> None:
    programs.root = ROOT / "tests"
    quiet = ["--gossip-every", 0] if script == "peer.py" else []
    terminal = programs.terminal("unprivileged.py", ROOT / script, *quiet)
    asked = question(terminal)
    since = terminal.type("1")
    terminal.wait_to_see("below 1024 are for the administrator", since=since)
    terminal.wait_to_see(asked, count=2)
    terminal.type(str(free_port()))
    wait_until(lambda: programs.logged("listening"), what="the port then given")


@needs_reserved_ports
@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_port_for_the_administrator_from_a_pipe_ends_the_program(
    programs: Programs, script: str
) -> None:
    programs.root = ROOT / "tests"
    done = programs.run("unprivileged.py", ROOT / script, typed=b"1\n")
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_bad_host_ends_the_program_since_no_port_would_help(
    programs: Programs, script: str
) -> None:
    terminal = programs.terminal(script, "--host", "203.0.113.7")
    question(terminal)
    terminal.type(str(free_port()))
    assert terminal.wait() == 2
    assert "no address of this machine" in terminal.screen


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "seedspawner.py", "dashboard.py"])
@pytest.mark.parametrize("answer", [b"abc\n", b"0\n", b"-1\n", b"7.0\n", b"\xff\xfe\n"])
def test_a_bad_answer_from_a_pipe_ends_the_program_with_one_line(
    programs: Programs, script: str, answer: bytes
) -> None:
    done = programs.run(script, typed=answer)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
def test_a_busy_port_from_a_pipe_ends_the_program_with_one_line(
    programs: Programs, script: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        done = programs.run(script, typed=f"{busy}\n".encode())
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(busy) in done.stderr


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_the_first_line_of_a_pipe_answers_the_port_question(
    programs: Programs, script: str
) -> None:
    port = free_port()
    program = programs.start(script)
    program.say(str(port))
    assert program.port == port


def test_an_empty_first_line_of_a_pipe_gives_a_peer_a_free_port(programs: Programs) -> None:
    peer = programs.start("peer.py", "--gossip-every", 0)
    peer.say("")
    assert peer.port > 0


def test_later_lines_of_a_pipe_are_messages_and_the_answer_is_none(programs: Programs) -> None:
    programs.seed()
    listener = programs.peer()
    speaker = programs.start("peer.py", "--gossip-every", 0)
    speaker.say(str(free_port()), "first", "second")
    listener.wait_for("message", count=2)
    assert [payload for _, _, payload in listener.heard()] == [b"first", b"second"]


def test_nothing_is_asked_when_the_answer_is_an_argument(programs: Programs) -> None:
    """Then the first line of a pipe is a message like any other."""
    programs.seed()
    listener = programs.peer()
    speaker = programs.peer()
    speaker.say("17")
    assert listener.wait_for("message")["text"] == "17"


def test_who_takes_every_default_gets_a_network(programs: Programs) -> None:
    """A spawner and two peers on terminals: what one types, the other sees."""
    spawner = started(programs, "seedspawner.py")
    question(spawner)
    spawner.type("")
    wait_until(lambda: len(programs.listed()) == 3, what="three seeds in the list")
    first, second = started(programs, "peer.py"), started(programs, "peer.py")
    for terminal in (first, second):
        question(terminal)
        terminal.type("")
    wait_until(lambda: len(programs.logged("neighbour_up")) >= 2, what="the two as neighbours")
    first.type("good morning")
    second.wait_to_see("good morning")
