"""The peer's console, on a terminal: commands, what others say, and what cannot fool the reader."""

import re
import time
from itertools import pairwise

import pytest

from helpers import free_port, let_pass, wait_until
from programs import Program, Programs
from terminals import Terminal

COMMANDS = ["/neighbours", "/members", "/seeds", "/stats", "/history", "/to", "/quit"]


def at_a_console(programs: Programs) -> tuple[Program, list[Program], Terminal, str]:
    """A seed, two peers, and a third at a terminal, all one network; the terminal's address."""
    seed, peers = programs.network(2)
    port = free_port()
    terminal = programs.terminal("peer.py", port, "--gossip-every", 0)
    address = f"127.0.0.1:{port}"
    wait_until(
        lambda: all(address in peer.neighbours() for peer in peers), what="the terminal's links"
    )
    for peer in peers:  # and nothing more is shown by itself, so that what is typed stays whole
        terminal.wait_to_see(re.escape(peer.address))
    return seed, peers, terminal, address


def test_a_typed_line_is_heard_by_all_and_heard_lines_are_shown(programs: Programs) -> None:
    _, [first, second], terminal, address = at_a_console(programs)
    terminal.type("good morning, grüße 🙂")
    for peer in (first, second):
        heard = peer.wait_for("message", text="good morning, grüße 🙂")
        assert heard["origin"] == address
    before = len(terminal.screen)
    first.say("good evening")
    shown = terminal.wait_to_see("good evening", since=before)
    assert first.address in shown


def test_neighbours_are_listed(programs: Programs) -> None:
    _, [first, second], terminal, _ = at_a_console(programs)
    since = terminal.type("/neighbours")
    for peer in (first, second):
        terminal.wait_to_see(re.escape(peer.address), since=since)


def test_members_are_all_live_peers_asked_of_the_seeds(programs: Programs) -> None:
    seed, [first, second], terminal, _ = at_a_console(programs)
    since = terminal.type("/members")
    for member in (first.address, second.address):
        terminal.wait_to_see(re.escape(member), since=since)
    second.terminate()
    seed.wait_for("peer_removed", peer=second.address)
    since = terminal.type("/members")
    terminal.wait_to_see(re.escape(first.address), since=since)
    let_pass(0.5)
    shown = [line.strip() for line in terminal.screen[since:].splitlines()]
    assert second.address not in shown


def test_members_when_every_seed_is_down_is_explained(programs: Programs) -> None:
    seed, [first, _], terminal, _ = at_a_console(programs)
    seed.kill()
    terminal.ask("/members")
    first.say("still here")
    terminal.wait_to_see("still here")


def test_seeds_are_listed(programs: Programs) -> None:
    seed, _, terminal, _ = at_a_console(programs)
    since = terminal.type("/seeds")
    terminal.wait_to_see(re.escape(seed.address), since=since)


def test_stats_show_numbers(programs: Programs) -> None:
    *_, terminal, _ = at_a_console(programs)
    since = terminal.type("/stats")
    terminal.wait_to_see(r"[a-z]{3}\D*\d", since=since)


def test_history_shows_the_last_messages(programs: Programs) -> None:
    _, [first, second], terminal, _ = at_a_console(programs)
    for number in range(5):
        first.say(f"thing {number}")
        terminal.wait_to_see(f"thing {number}")
    second.wait_for("message", count=5)
    since = terminal.type("/history 2")
    terminal.wait_to_see("thing 3", since=since)
    shown = terminal.wait_to_see("thing 4", since=since)
    assert "thing 2" not in shown
    assert shown.index("thing 3") < shown.index("thing 4")
    since = terminal.type("/history")
    for number in range(5):
        terminal.wait_to_see(f"thing {number}", since=since)


def test_to_reaches_that_one_peer(programs: Programs) -> None:
    _, [first, second], terminal, address = at_a_console(programs)
    terminal.type(f"/to {first.address} between the two of us")
    direct = first.wait_for("direct")
    assert (direct["origin"], direct["text"]) == (address, "between the two of us")
    terminal.type("for all")
    second.wait_for("message", text="for all")
    assert second.all("direct") == []


def test_a_direct_message_is_shown(programs: Programs) -> None:
    _, [first, _], terminal, address = at_a_console(programs)
    first.say(f"/to {address} psst, over here")
    terminal.wait_to_see("psst, over here")


@pytest.mark.parametrize(
    "line",
    [
        "/to",
        "/to nowhere hello",
        "/to 127.0.0.1:99999 hello",
        "/history many",
        "/history -1",
        "/nonsense",
        "/",
        "/ quit",
        "/quit now",
        "/QUITE",
    ],
)
def test_a_bad_command_is_explained_and_not_broadcast(programs: Programs, line: str) -> None:
    _, [first, second], terminal, _ = at_a_console(programs)
    terminal.ask(line)
    terminal.type("the next line")
    for peer in (first, second):
        peer.wait_for("message", text="the next line")
        assert [payload for _, _, payload in peer.heard()] == [b"the next line"]


def test_to_an_address_where_nobody_is_is_explained(programs: Programs) -> None:
    _, [first, _], terminal, _ = at_a_console(programs)
    nobody = f"127.0.0.1:{free_port()}"
    terminal.ask(f"/to {nobody} hello")
    terminal.type("the next line")
    assert first.wait_for("message")["text"] == "the next line"


def test_help_names_every_other_command(programs: Programs) -> None:
    *_, terminal, _ = at_a_console(programs)
    since = terminal.type("/help")
    for command in COMMANDS:
        terminal.wait_to_see(rf"{command}\b.*\w", since=since)


def test_quit_leaves_cleanly(programs: Programs) -> None:
    seed, [first, second], terminal, address = at_a_console(programs)
    terminal.type("/quit")
    assert terminal.wait() == 0
    for peer in (first, second):
        peer.wait_for("neighbour_down", neighbour=address)
    seed.wait_for("peer_removed", peer=address)
    let_pass(5)
    for peer in (first, second):
        assert peer.all("dead") == []


def test_a_doubled_slash_broadcasts_a_line_with_one(programs: Programs) -> None:
    _, [first, _], terminal, _ = at_a_console(programs)
    terminal.type("//quit")
    assert first.wait_for("message")["text"] == "/quit"
    assert terminal.process.poll() is None


def test_ctrl_d_ends_the_input_without_a_traceback(programs: Programs) -> None:
    _, [first, _], terminal, _ = at_a_console(programs)
    terminal.press_ctrl_d()
    let_pass(1)
    if terminal.process.poll() is None:
        first.say("are you there?")
        terminal.wait_to_see("are you there")
    else:
        assert terminal.process.returncode == 0


def test_nothing_that_others_say_reaches_the_terminal_as_a_command(programs: Programs) -> None:
    _, [first, _], terminal, _ = at_a_console(programs)
    since = len(terminal.screen)
    first.say("\x1b[2J\x1b]0;mine\x07\x9b31m\rdead\x08\x7f", "and no more")
    shown = terminal.wait_to_see("and no more", since=since)
    assert not re.search(r"[\x07\x08\x7f\x9b]|\x1b\[2J|\x1b\]|\rdead", shown)


def test_nothing_that_others_say_forges_a_line_on_the_terminal(programs: Programs) -> None:
    _, [first, second], terminal, _ = at_a_console(programs)
    since = len(terminal.screen)
    first.say(f"x\u2028{second.address} dead\x85forged\x0bforged\x0cforged", "and no more")
    shown = terminal.wait_to_see("and no more", since=since)
    assert not re.search(r"[\u2028\x85\x0b\x0c]", shown)


# ---- what a newcomer meets


def test_a_peer_that_knows_nobody_says_what_to_do_and_sees_a_seed_that_starts(
    programs: Programs,
) -> None:
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.wait_to_see(r"lists no seed: start seedspawner\.py or seed\.py")
    terminal.type("first words")
    terminal.wait_to_see("nobody is here yet")
    programs.seed()
    terminal.wait_to_see("registered with seed")
    peer = programs.peer()
    peer.wait_for("message", text="first words")
    terminal.wait_to_see("linked with")
    since = terminal.type("second words")
    peer.wait_for("message", text="second words")
    assert "nobody is here" not in terminal.screen[since:].lower()


def test_when_a_peer_began_is_shown_as_a_time(programs: Programs) -> None:
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.wait_to_see("listening on")
    terminal.type("/stats")
    terminal.wait_to_see("received bytes")
    today = time.strftime("%Y-%m-%d")
    assert re.search(rf"running since +{today} \d\d:\d\d:\d\d", terminal.screen)
    assert "boot ms" not in terminal.screen


def test_a_dashboard_that_knows_nobody_says_what_to_do(programs: Programs) -> None:
    terminal = programs.terminal("dashboard.py", free_port())
    terminal.wait_to_see(r"lists no seed: start seedspawner\.py or seed\.py")


def test_who_forgets_the_host_is_told_that_other_machines_cannot_dial_it(
    programs: Programs,
) -> None:
    seeds = [programs.seed(), programs.seed()]
    ways = [word for seed in seeds for word in ("--seed", f"0.0.0.0:{seed.port}")]  # not local
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0, *ways)
    terminal.wait_to_see("registered with seed", count=2)
    terminal.type("/help")
    terminal.wait_to_see("leave the network")
    assert terminal.screen.count("--host 0.0.0.0") == 1


def test_on_one_machine_nobody_is_told_of_other_machines(programs: Programs) -> None:
    seed = programs.seed()
    terminal = programs.terminal("peer.py", free_port(), "--seed", f"localhost:{seed.port}")
    programs.peer().say("good morning")
    terminal.wait_to_see("good morning")
    assert "--host" not in terminal.screen


def test_who_joins_by_a_peer_is_not_told_that_nobody_can_be_reached(programs: Programs) -> None:
    hub = programs.peer()
    joining = programs.peer("--join", hub.address)
    joining.wait_for("neighbour_up")
    assert joining.all("isolated") == []


def test_how_many_peers_there_are_is_shown_when_it_changes(programs: Programs) -> None:
    seed, _, terminal, _ = at_a_console(programs)
    terminal.wait_to_see("that the seeds know: 2")
    seed.kill()
    terminal.wait_to_see("is no help now")
    programs.seed(port=seed.port)
    terminal.wait_to_see("registered with seed", count=2)
    let_pass(0.5)
    shown = re.findall(r"that the seeds know: (\d+)", terminal.screen)
    assert all(before != after for before, after in pairwise(shown)), shown


@pytest.mark.parametrize(
    ("arguments", "explained"),
    [
        (("6001", "--host", "192.0.2.1"), "that is no address of this machine"),
        (("6001", "--host", "no.such.host.invalid"), "no address found for the host"),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_explained_in_one_line(
    programs: Programs, arguments: tuple[str, ...], explained: str
) -> None:
    done = programs.run("peer.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert explained in done.stderr
