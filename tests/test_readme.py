"""The README tells the truth: its commands and its code run, its tables agree with the programs.

A command is run as it stands, in a copy of the project. Only ports named in it are exchanged for
free ones, and the address of a machine that nobody has for that of this one.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from command_line import BAD_INPUT, FAILURE, SUCCESS
from console import HELP
from embedding import Embedded
from helpers import ROOT, RUN_LIMIT_S, free_port, wait_until
from journal import log_line
from programs import EVENT_KEYS, Programs
from settings import Tunables
from terminals import Terminal
from trust import DENIED_FILE
from visits import visit

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "console")
SCRIPTS = ["seedspawner", "seed", "peer", "dashboard"]
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def commands_by_section() -> dict[str, list[str]]:
    """Every command of the README, under the heading that it stands below."""
    found: dict[str, list[str]] = {}
    parts = re.split(r"^#+ (.+)$", README, flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        commands = [line for kind, block in blocks if kind in SHELLS for line in block.splitlines()]
        if commands:
            found[heading] = commands
    return found


COMMANDS = commands_by_section()


def table(first_header: str) -> list[list[str]]:
    """The rows of the table whose first column has that header, cell by cell."""
    [body] = re.findall(
        rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", README, re.MULTILINE
    )
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in body.splitlines()]


def quoted(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# ---- commands


@pytest.fixture
def project(programs: Programs) -> Programs:
    """A copy of the project, as somebody who has just downloaded it; the programs run there."""
    for module in ROOT.glob("*.py"):
        shutil.copy(module, programs.folder)
    shutil.copytree(ROOT / "page", programs.folder / "page")
    shutil.copytree(
        ROOT / "tests", programs.folder / "tests", ignore=shutil.ignore_patterns("__pycache__")
    )
    programs.config.write_text("# The seeds of the network\n")
    programs.root = programs.folder
    programs.are_files_named = False
    here = str(Path(sys.executable).parent)  # so that `python3` is the one that runs the tests
    programs.environment["PATH"] = f"{here}{os.pathsep}{programs.environment['PATH']}"
    return programs


def typed(project: Programs, command: str) -> Terminal:
    """The command, typed on a terminal in the project's folder."""
    python, script, *arguments = shlex.split(command)
    assert python == "python3"
    return project.terminal(script, *arguments)


def ran(project: Programs, command: str) -> subprocess.CompletedProcess[str]:
    """The command, given to a shell in the project's folder, once it has ended."""
    return subprocess.run(
        command,
        shell=True,
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )


def stop(*terminals: Terminal) -> None:
    """Ctrl-C at each; all end cleanly."""
    for terminal in terminals:
        terminal.press_ctrl_c()
    for terminal in terminals:
        assert terminal.wait() == 0, terminal.screen


def at_free_ports(commands: list[str]) -> list[str]:
    """The same commands with other ports, since those in the README may be taken."""
    ports: dict[str, str] = defaultdict(lambda: str(free_port()))
    return [re.sub(r"\b[568]\d{3}\b", lambda port: ports[port[0]], line) for line in commands]


@contextlib.contextmanager
def default_ports() -> Iterator[None]:
    """One test on this machine at a time starts programs on their default ports.

    A port is looked at first and taken by a new process later, so two could choose the same.
    """
    with (Path(tempfile.gettempdir()) / f"default-ports-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_test_run(command: str) -> bool:
    """Whether this is `python3 tests`, with arguments or without; it is not run from a test."""
    python, folder, *_ = shlex.split(command)
    return (python, folder) == ("python3", "tests") and (ROOT / folder / "__main__.py").exists()


def first_screen(project: Programs, commands: list[str]) -> None:
    """Three seeds and eight peers start and say hello to each other; Ctrl-C ends all of them."""
    run, test = commands
    assert is_test_run(test)
    with default_ports():
        spawner = typed(project, run)
        wait_until(lambda: len(project.logged("listening")) == 11, what="seeds and peers")
    assert len(project.listed()) == 3
    wait_until(
        lambda: len({line.split(" ")[2] for line in project.logged("message")}) == 8,
        what="a message at every peer",
    )
    spawner.wait_to_see(r"says: .*hello")
    stop(spawner)
    assert project.left_behind() == {}
    assert project.listed() == []


def with_prompts(project: Programs, commands: list[str]) -> None:
    """Enter takes every default; what is typed at one peer appears at the other."""
    start_seeds, start_peer = commands
    with default_ports():
        spawner = typed(project, start_seeds)
        spawner.wait_to_see(r"\[3\]: ")
        spawner.type("")
        wait_until(lambda: len(project.listed()) == 3, what="three seeds in the list")
    first, second = typed(project, start_peer), typed(project, start_peer)
    for peer in (first, second):
        peer.wait_to_see(r"\[a free one\]: ")
        peer.type("")
    for peer in (first, second):
        peer.wait_to_see("linked with")
    first.type("good morning")
    second.wait_to_see("says: good morning")
    second.type("/quit")
    assert second.wait() == 0
    stop(first, spawner)
    assert project.listed() == []


def by_hand(project: Programs, commands: list[str]) -> None:
    """A peer finds the network by the list, by a named seed, and by a peer with no seed there."""
    start_seed, by_list, by_seed, by_peer = at_free_ports(commands)
    seed = typed(project, start_seed)
    wait_until(lambda: len(project.listed()) == 1, what="the seed in the list")
    first = typed(project, by_list)
    first.wait_to_see("registered with seed")
    second = typed(project, by_seed)
    second.wait_to_see("linked with")
    stop(seed)
    assert project.listed() == []
    third = typed(project, by_peer)
    third.wait_to_see("linked with")
    stop(first, second, third)


def on_several_machines(project: Programs, commands: list[str]) -> None:
    """The seed tells an address that others can dial; a peer is listed as it advertises itself."""
    start_seed, *start_peers = at_free_ports(commands)
    seed = typed(project, start_seed)
    wait_until(project.listed, what="the seed in the list")
    [seed_address] = project.listed()
    assert not seed_address.startswith("0.0.0.0")
    seed.wait_to_see(rf"listening on 0\.0\.0\.0:\d+.*{re.escape(seed_address)}")
    plain, advertised = (
        re.sub(r"192\.0\.2\.10:\d+", seed_address, command) for command in start_peers
    )
    peer = typed(project, plain)
    peer.wait_to_see(f"registered with seed {re.escape(seed_address)}")
    stop(peer)
    advertised = advertised.replace("203.0.113.7:", "127.0.0.1:")  # no router leads here
    told = shlex.split(advertised)[-1]
    peer = typed(project, advertised)
    seed.wait_to_see(f"{re.escape(told)} registered")
    stop(peer, seed)


def with_certificates(project: Programs, commands: list[str]) -> None:
    """An authority and two certificates are made; the network has eight peers, and no stranger.

    And one of the certificates is revoked.
    """
    new, issue_here, start, issue_there, revoke = commands
    for command in (new, issue_here, issue_there):
        done = ran(project, command)
        assert (done.returncode, done.stderr) == (0, "")
    made = {str(p.relative_to(project.folder)) for p in project.folder.glob("trust/*/*.*")}
    hosts = ("localhost", "192.0.2.10")
    files = ("ca.pem", "node.pem", "node.key")
    assert made == {f"trust/{host}/{file}" for host in hosts for file in files}
    with default_ports():
        spawner = typed(project, start)
        wait_until(lambda: len(project.logged("listening")) == 11, what="seeds and peers")
    wait_until(
        lambda: len({line.split(" ")[2] for line in project.logged("message")}) == 8,
        what="a message at every peer",
    )
    assert project.logged("refused") == []  # looked at before some are stopped and others not yet
    stop(spawner)
    done = ran(project, revoke)
    assert (done.returncode, done.stderr) == (0, "")
    assert (project.folder / "trust" / DENIED_FILE).exists()


def in_scripts(project: Programs, commands: list[str]) -> None:
    """One pipeline shows the messages; another says one, and leaves once it is heard."""
    listen, say = at_free_ports(commands)
    seed = project.seed()
    with subprocess.Popen(
        listen,
        shell=True,
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as listener:
        assert listener.stdout is not None
        seed.wait_for("peer_registered")
        said = ran(project, say)
        assert (said.returncode, said.stderr) == (0, "")
        assert json.loads(listener.stdout.readline())["text"] == "the build is green"
        os.killpg(listener.pid, signal.SIGINT)
        assert listener.stdout.read() == b""
    assert set(project.left_behind()) == {seed.process.pid}


def in_the_browser(project: Programs, commands: list[str]) -> None:
    """The map of a whole network, and of a network that is there already."""
    whole, joining = commands
    with default_ports():
        spawner = typed(project, whole)
        spawner.wait_to_see("the live map: ")
    [url] = re.findall(r"the live map: (http://localhost:\d+/)", spawner.screen)
    wait_until(
        lambda: len(visit(url, "/api/network").json["peers"]) == 9, what="eight peers and its own"
    )
    [free] = at_free_ports([joining])
    dashboard = typed(project, free)
    dashboard.wait_to_see("linked with")
    wait_until(
        lambda: len(visit(url, "/api/network").json["peers"]) == 10, what="the other map's peer"
    )
    stop(dashboard, spawner)
    assert project.left_behind() == {}


def over_http(project: Programs, commands: list[str]) -> None:
    """What is posted is heard by the peer, and comes out of the stream; metrics are read.

    And opened to other machines, it answers to who knows the token.
    """
    if shutil.which("curl") is None:
        pytest.skip("NOT CHECKED: there is no curl on this machine")
    serve, network, say, stream, metrics, *with_token = at_free_ports(commands)
    _, [peer] = project.network(1)
    dashboard = typed(project, serve)
    dashboard.wait_to_see("linked with")
    shown = json.loads(ran(project, network).stdout)
    assert peer.address in [found["address"] for found in shown["peers"]]
    assert ran(project, say).stdout == '{"seq": 1}\n'
    peer.wait_for("message", text="the build is green")
    with subprocess.Popen(
        stream,
        shell=True,
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as reader:
        assert reader.stdout is not None
        said = next(line for line in reader.stdout if line.startswith(b"data: "))
        assert json.loads(said.removeprefix(b"data: "))["text"] == "the build is green"
        os.killpg(reader.pid, signal.SIGTERM)
    assert "\np2p_neighbours 1\n" in ran(project, metrics).stdout
    stop(dashboard)
    choose, serve_openly, ask = with_token
    assert ran(project, choose).returncode == 0
    dashboard = typed(project, serve_openly)
    dashboard.wait_to_see("linked with")
    answered = ran(project, ask.replace("192.0.2.10", "127.0.0.1")).stdout
    assert peer.address in [found["address"] for found in json.loads(answered)["peers"]]
    stop(dashboard)


def by_the_thousand(project: Programs, commands: list[str]) -> None:
    """The survivors of a simulated network hear everything."""
    [simulate] = commands
    done = ran(project, simulate)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("100.00 %") == 2
    assert "40 of 200 peers live on, 1 network(s)" in done.stdout


def the_project(project: Programs, commands: list[str]) -> None:
    """A schedule of the simulator tells what happens, and settles."""
    test, schedule = commands
    assert is_test_run(test)
    done = ran(project, schedule)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r" s  \w+ 10\.0\.0\.\d+:6000\n", done.stdout)
    assert re.search(
        r"^schedule 17: settled after \d+ s, trace [0-9a-f]{16}\n\Z", done.stdout, re.MULTILINE
    )


CHECKS: dict[str, Callable[[Programs, list[str]], None]] = {
    "Peer-to-peer in plain Python": first_screen,
    "In terminals, with prompts": with_prompts,
    "By hand": by_hand,
    "On several machines": on_several_machines,
    "Let nobody in uninvited": with_certificates,
    "In scripts": in_scripts,
    "In the browser": in_the_browser,
    "Over HTTP": over_http,
    "By the thousand, simulated": by_the_thousand,
    "The project": the_project,
}


@pytest.mark.parametrize("section", COMMANDS)
def test_the_commands_of_a_section_do_what_it_says(project: Programs, section: str) -> None:
    assert section in CHECKS, f"no test runs the commands of {section!r}"
    CHECKS[section](project, COMMANDS[section])


# ---- code


EXAMPLES = [(code, shown) for (kind, code), (_, shown) in pairwise(BLOCKS) if kind == "python"]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_stands_below_it(project: Programs, number: int) -> None:
    code, shown = EXAMPLES[number]
    (project.folder / "example.py").write_text(code)
    done = ran(project, "python3 -W error example.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
    assert project.listed() == []


# ---- what it shows and refers to


def told_by(line: str) -> dict[str, str]:
    """A line of the log, taken apart: the event's keys and values as text."""
    date, clock, who, event, details = line.split(" ", maxsplit=4)
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', details)
    values = {key: text or plain for key, text, plain in pairs}
    return {"event": event, "at": f"{date} {clock}", "self": who, **values}


LOG_LINES = [line for _, text in BLOCKS for line in text.splitlines() if line[:5] == "2026-"]
LOGGED = [told_by(line)["event"] for line in LOG_LINES]


@pytest.mark.parametrize("line", LOG_LINES, ids=LOGGED)
def test_a_log_line_is_one_that_the_programs_write(line: str) -> None:
    told = told_by(line)
    seconds, milliseconds = told["at"].split(".")
    at = time.mktime(time.strptime(seconds, "%Y-%m-%d %H:%M:%S")) + (int(milliseconds) + 0.5) / 1000
    assert log_line({**told, "at": at}) == line + "\n"
    assert EVENT_KEYS[told["event"]] <= told.keys()


def test_the_log_lines_tell_of_a_join_a_message_and_a_death() -> None:
    assert LOGGED == ["registered", "neighbour_up", "message", "suspect", "dead", "peer_removed"]


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "SECURITY.md"])
def test_what_a_document_refers_to_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("https://")]
    targets += re.findall(r"`([\w/]+\.(?:py|txt|log|md))`", text)
    made = {DENIED_FILE}  # by a program, when it is needed
    assert [t for t in targets if not (ROOT / t).exists() and t not in made] == []


def test_every_picture_is_shown_somewhere_and_described() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        (text.parent / target).resolve()
        for text in texts
        for _, target in re.findall(
            r"!\[([^]]{20,})\]\(([^)]+)\)", text.read_text(encoding="utf-8")
        )
    }
    files = [path for folder in ("docs", "extras") for path in (ROOT / folder).rglob("*")]
    assert sorted(shown) == sorted(path for path in files if path.suffix in (".svg", ".png"))


def test_the_pictures_name_the_threads(embedded: Embedded) -> None:
    before = set(threading.enumerate())
    seed = embedded.seed()
    peers = [embedded.peer(seeds=[seed.address], gossip_every_s=60) for _ in range(2)]
    wait_until(lambda: all(peer.neighbours() for peer in peers), what="the two as neighbours")
    names = {thread.name for thread in set(threading.enumerate()) - before}
    for address, picture in [(seed.address, "seed"), *((peer.address, "peer") for peer in peers)]:
        text = (ROOT / "extras" / f"{picture}-threads.svg").read_text(encoding="utf-8")
        labels = set(re.findall(r'mono"[^>]*>(\w+)<', text))
        ours = {name.split(" ")[1] for name in names if name.split(" ")[0] == address}
        assert len(ours) >= 3
        assert ours <= labels, f"{picture}-threads.svg lacks {ours - labels}"


# ---- tables


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_arguments_are_those_of_the_help(programs: Programs, script: str) -> None:
    rows = [(quoted(cells[0])[0], cells[1].split(", ")) for cells in table("argument")]
    ours = [argument for argument, who in rows if who == ["all"] or script in who]
    shown = " ".join(programs.run(f"{script}.py", "--help").stdout.split())
    options = {argument.split(" ")[0] for argument in ours if argument.startswith("--")}
    assert options == set(re.findall(r"--[a-z][a-z-]*", shown))
    for argument in ours:
        assert argument == "--help" or f"[{argument}]" in shown
    usage = shown.partition(" positional arguments: ")[0]
    positional = re.findall(r" \[([A-Z]+)\] ", f"{usage} ")
    assert positional == [argument for argument in ours if not argument.startswith("--")]


def test_the_programs_of_the_argument_table_exist() -> None:
    named = {name for _, programs, *_ in table("argument") for name in programs.split(", ")}
    assert named == {"all", *SCRIPTS}


def test_the_exit_codes_are_all_there_are() -> None:
    assert [int(code) for code, _ in table("exit code")] == [SUCCESS, FAILURE, BAD_INPUT]


def test_the_console_commands_are_those_of_its_help() -> None:
    ours = [quoted(cells[0])[0] for cells in table("you type")]
    in_help = [re.split(r"  +", line)[0] for line in HELP.splitlines()]
    assert sorted(ours) == sorted([*in_help, "/help"])


def test_the_events_are_those_that_programs_rely_on() -> None:
    keys = {quoted(event)[0]: set(quoted(cell)) for event, _, cell in table("event")}
    assert keys.keys() == EVENT_KEYS.keys()
    assert [event for event in keys if not EVENT_KEYS[event] <= keys[event]] == []


def test_the_tunables_have_the_defaults_they_are_said_to_have() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Tunables)}
    for name, default, _ in table("name"):
        number, _, unit = default.replace(",", "").partition(" ")
        assert float(number) * UNITS[unit] == defaults[quoted(name)[0]], name


def test_the_modules_are_all_there_are() -> None:
    modules = [quoted(module)[0] for module, _ in table("module")]
    assert sorted(modules) == sorted(path.name for path in ROOT.glob("*.py"))
