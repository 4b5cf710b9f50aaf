"""What the programs take on the command line, and what they answer to what they cannot take."""

import re
import socket

import pytest

from helpers import free_port, free_ports, wait_until
from programs import Programs

SCRIPTS = ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"]
COMMON = [
    "--host",
    "--advertise",
    "--config",
    "--log",
    "--json",
    "--tls",
    "--verbose",
    "--help",
    "--version",
]
OWN = {
    "seed.py": [],
    "peer.py": ["--seed", "--join", "--gossip-every", "--gossip-count", "--drain", "--no-history"],
    "seedspawner.py": ["--base-port", "--peers", "--peer-base-port", "--map"],
    "dashboard.py": ["--seed", "--join", "--no-history", "--peer-port", "--web-host", "--token"],
}
NO_ADDRESSES = [
    "nowhere",
    ":5000",
    "localhost:",
    "localhost:0",
    "localhost:65536",
    "localhost:-1",
    "localhost:http",
    "local host:5000",
    "[::1:5000",
    "::1:5000",
    "",
]
NO_PORTS = ["abc", "0", "-1", "65536", "1.5", "", "0x10"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_argument(programs: Programs, script: str, option: str) -> None:
    done = programs.run(script, option)
    assert (done.returncode, done.stderr) == (0, "")
    missing = [name for name in COMMON + OWN[script] if name not in done.stdout]
    assert not missing, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_version_is_one_line(programs: Programs, script: str) -> None:
    done = programs.run(script, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[^\n]*\d+\.\d+[^\n]*\n", done.stdout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_version_touch_no_file(programs: Programs, script: str) -> None:
    for option in ("--help", "--version"):
        programs.run(script, option)
    assert list(programs.folder.iterdir()) == []


def needed(script: str) -> list[object]:
    """Good arguments, without which it would ask or use a port that others use."""
    return [1, "--base-port", free_ports(8)] if script == "seedspawner.py" else [free_port()]


def refused(programs: Programs, script: str, *arguments: object) -> str:
    """The one line with which the program refuses these arguments."""
    done = programs.run(script, *arguments)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "dashboard.py"])
@pytest.mark.parametrize("port", NO_PORTS)
def test_a_bad_port_is_refused(programs: Programs, script: str, port: str) -> None:
    refused(programs, script, port)


@pytest.mark.parametrize("count", ["abc", "0", "-1", "1.5", "70000"])
def test_a_bad_number_of_seeds_is_refused(programs: Programs, count: str) -> None:
    refused(programs, "seedspawner.py", count)


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_a_port_in_use_is_refused(programs: Programs, script: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        assert str(busy) in refused(programs, script, busy)


@pytest.mark.parametrize("option", ["--seed", "--join"])
@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_a_bad_address_is_refused(programs: Programs, option: str, address: str) -> None:
    said = refused(programs, "peer.py", free_port(), f"{option}={address}")
    assert option in said or address in said, said


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("address", ["host:0", "host:65536", "host:", ":", "two words", "[::1"])
def test_a_bad_advertised_address_is_refused(programs: Programs, script: str, address: str) -> None:
    refused(programs, script, *needed(script), f"--advertise={address}")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("host", ["999.1.1.1", "two words", "", "203.0.113.7", "::ffff::1"])
def test_a_host_this_machine_cannot_listen_on_is_refused(
    programs: Programs, script: str, host: str
) -> None:
    """203.0.113.0/24 is reserved for documentation: nobody has such an address."""
    refused(programs, script, *needed(script), f"--host={host}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gossip-every=-1"],
        ["--gossip-every=soon"],
        ["--gossip-every=nan"],
        ["--gossip-every=inf"],
        ["--gossip-every="],
        ["--gossip-count=-1"],
        ["--gossip-count=1.5"],
        ["--gossip-count=many"],
        ["--gossip-every"],
        ["--seed"],
        ["--drain=yes"],
        ["--no-such-option"],
        ["5001"],
    ],
)
def test_a_bad_option_of_a_peer_is_refused(programs: Programs, arguments: list[str]) -> None:
    refused(programs, "peer.py", free_port(), *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--base-port=0"],
        ["--base-port=65536"],
        ["--base-port=x"],
        ["--base-port=-5"],
        ["--peers=-1"],
        ["--peers=x"],
        ["--peer-base-port=0", "--peers=1"],
        ["--peer-base-port=65536", "--peers=1"],
        ["--map=0"],
        ["--map=here"],
        ["--no-such-option"],
    ],
)
def test_a_bad_option_of_the_seedspawner_is_refused(
    programs: Programs, arguments: list[str]
) -> None:
    refused(programs, "seedspawner.py", 1, *arguments)


def test_more_seeds_than_there_are_ports_left_are_refused(programs: Programs) -> None:
    done = programs.run("seedspawner.py", 5, "--base-port", 65534)
    assert done.returncode in (1, 2), done
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("script", "kind"),
    [(script, "log") for script in SCRIPTS] + [(script, "config") for script in SCRIPTS[:2]],
)
def test_a_folder_in_place_of_a_file_is_named(programs: Programs, script: str, kind: str) -> None:
    folder = a_folder_as(programs, kind)
    done = programs.run(script, *needed(script))
    assert done.returncode in (1, 2), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert folder in done.stderr


def test_a_peer_that_cannot_read_the_list_says_so(programs: Programs) -> None:
    """Whether it ends or goes on without a seed: others may still come to it."""
    folder = a_folder_as(programs, "config")
    peer = programs.start("peer.py", free_port())
    wait_until(lambda: folder in peer.stderr, what="the name of the folder")
    assert len(peer.stderr.splitlines()) == 1, peer.stderr


def a_folder_as(programs: Programs, kind: str) -> str:
    """Name a folder where a file is meant; give its path."""
    folder = programs.folder / "folder"
    folder.mkdir()
    setattr(programs, kind, folder)
    return str(folder)


def test_a_port_as_an_argument_is_listened_on(programs: Programs) -> None:
    for script in ("seed.py", "peer.py"):
        port = free_port()
        program = programs.start(script, port)
        assert program.wait_for("listening")["address"] == f"127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), timeout=10).close()


def test_periodic_messages_come_until_their_count_and_not_one_more(programs: Programs) -> None:
    _, [listener] = programs.network(1)
    speaker = programs.peer("--gossip-every", 0.2, "--gossip-count", 3)
    listener.wait_for("message", origin=speaker.address, count=3)
    speaker.say("the end")
    listener.wait_for("message", origin=speaker.address, count=4)
    assert [seq for _, seq, _ in listener.heard(speaker.address)] == [1, 2, 3, 4]
    assert listener.heard()[-1][2] == b"the end"


def test_periodic_messages_go_on_unless_counted(programs: Programs) -> None:
    _, [listener] = programs.network(1)
    speaker = programs.peer("--gossip-every", 0.1)
    listener.wait_for("message", origin=speaker.address, count=12)


def test_no_periodic_message_when_they_are_turned_off(programs: Programs) -> None:
    _, [listener, speaker] = programs.network(2)
    speaker.say("only this")
    listener.wait_for("message")
    assert listener.heard() == [(speaker.address, 1, b"only this")]


def test_verbose_shows_more_and_breaks_nothing(programs: Programs) -> None:
    programs.seed("--verbose")
    first, second = programs.peers(2, "--verbose")
    second.wait_for("neighbour_up", neighbour=first.address)
    first.say("hello")
    second.wait_for("message", text="hello")


def test_drain_leaves_once_the_neighbours_have_everything(programs: Programs) -> None:
    _, [first, second] = programs.network(2)
    speaker = programs.start("peer.py", free_port(), "--gossip-every", 0, "--drain")
    speaker.say(*(f"line {number}" for number in range(500)))
    speaker.end_input()
    assert speaker.wait() == 0
    for listener in (first, second):
        listener.wait_for("message", count=500)
        heard = listener.heard(speaker.address)
        assert [payload for _, _, payload in heard] == [b"line %d" % n for n in range(500)]


def test_without_drain_a_peer_stays_after_its_input_has_ended(programs: Programs) -> None:
    _, [first, second] = programs.network(2)
    first.end_input()
    second.say("are you there?")
    first.wait_for("message", text="are you there?")
    assert first.process.poll() is None
