"""Typing at a peer's console while others speak, seen as on a real terminal."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import free_port, free_ports, let_pass, wait_until
from programs import Program, Programs
from screen import width_of, wrapped
from terminals import Terminal

LEFT, UP, HOME, TAB, CTRL_U = "\x1b[D", "\x1b[A", "\x01", "\t", "\x15"


def at_a_console(programs: Programs, columns: int = 80) -> tuple[Program, Terminal]:
    """A peer, and another at a terminal that is its only neighbour and waits to be typed at."""
    _, [peer] = programs.network(1)
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.resize(columns)
    terminal.wait_to_see("linked with")
    wait_until(lambda: typed_line(terminal) == ">", what="the prompt")
    return peer, terminal


def typed_line(terminal: Terminal) -> str:
    """The lowest row, where one types."""
    return (terminal.rows or [""])[-1]


def wait_for_row(terminal: Terminal, row: str) -> None:
    wait_until(lambda: row in terminal.rows, what=f"{row!r} as a row of {terminal.rows}")


def test_a_line_being_typed_stays_whole_while_others_speak(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.press("half a li")
    for number in range(40):  # more than the window has rows
        peer.say(f"interruption {number}")
    terminal.wait_to_see("interruption 39")
    wait_until(lambda: typed_line(terminal) == "> half a li", what="the typed line, whole")
    above = terminal.rows[:-1]
    assert len(above) > 20
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d  \S+ says: interruption \d+", row) for row in above)
    numbers = [int(row.rpartition(" ")[2]) for row in above]
    assert numbers == list(range(numbers[0], 40))
    terminal.type("ne, and its end")
    assert peer.wait_for("message")["text"] == "half a line, and its end"


def test_the_cursor_stays_where_it_was(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.press("good ning" + 4 * LEFT)
    peer.say("one", "two")
    terminal.wait_to_see("two")
    terminal.press("mor")
    wait_until(lambda: typed_line(terminal) == "> good morning", what="the line")
    peer.say("three")
    terminal.wait_to_see("three")
    terminal.press(HOME + "a ")
    wait_until(lambda: typed_line(terminal) == "> a good morning", what="the line")
    terminal.type("")
    assert peer.wait_for("message")["text"] == "a good morning"


def test_a_line_longer_than_the_window_stays_one_row(programs: Programs) -> None:
    peer, terminal = at_a_console(programs, columns=40)
    line = " ".join(f"word{number}" for number in range(30))
    terminal.press(line)
    wait_until(lambda: typed_line(terminal).endswith("word29"), what="the end of the line")
    peer.say("an interruption")
    terminal.wait_to_see("interruption")
    wait_until(lambda: typed_line(terminal).endswith("word29"), what="the end of the line")
    assert sum("word" in row for row in terminal.rows) == 1
    terminal.type("")
    assert peer.wait_for("message")["text"] == line


def test_lines_typed_before_come_back_with_the_arrow_keys(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.type("the first")
    terminal.type("the second")
    peer.wait_for("message", count=2)
    terminal.press(UP + UP + ", again\n")
    assert peer.wait_for("message", count=3)["text"] == "the first, again"


def test_each_line_of_what_is_pasted_is_a_message(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.press("one\ntwo\nthree\n")
    peer.wait_for("message", count=3)
    assert [payload for _, _, payload in peer.heard()] == [b"one", b"two", b"three"]


def test_commands_and_addresses_are_completed(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.press("/nei" + TAB)
    wait_until(lambda: typed_line(terminal) == "> /neighbours", what="the command")
    terminal.press(CTRL_U + "/to 1" + TAB + "psst\n")
    assert peer.wait_for("direct")["text"] == "psst"


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("/neighbors", "did you mean /neighbours?"),
        ("/q", "did you mean /quit?"),
        ("/STATS", "did you mean /stats?"),
        ("/s", "did you mean /seeds or /stats?"),
        ("/xyzzy", "/help lists them"),
        ("/", "/help lists them"),
    ],
)
def test_an_unknown_command_gets_a_suggestion(
    programs: Programs, typed: str, suggested: str
) -> None:
    _, terminal = at_a_console(programs)
    terminal.type(typed)
    wait_for_row(terminal, f"there is no command {typed}; {suggested}")


def test_quit_with_an_argument_is_no_unknown_command(programs: Programs) -> None:
    _, terminal = at_a_console(programs)
    terminal.type("/quit now")
    wait_for_row(terminal, "/quit takes no argument")


def test_neighbours_are_a_table_and_a_list_where_that_is_too_wide(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    peer.wait_for("neighbour_up")
    terminal.type("hello")
    peer.wait_for("message")
    terminal.type("/neighbours")
    terminal.wait_to_see("on the tree")
    wait_until(lambda: terminal.rows[-2].startswith(peer.address), what="the table")
    header, row = terminal.rows[-3:-1]
    cells = re.split(r" {2,}", row)
    assert re.split(r" {2,}", header) == [
        *("neighbour", "dialled by", "round trip", "behind by", "on the tree")
    ]
    assert cells[1] in ("this peer", "it")
    assert re.fullmatch(r"\d+\.\d ms|not yet known", cells[2])
    assert cells[3:] == ["nothing", "yes"]  # of two peers, either is the other's parent
    terminal.resize(40)
    since = terminal.type("/neighbours")
    terminal.wait_to_see("on the tree", since=since)
    wait_until(lambda: terminal.rows[-2] == "  on the tree: yes", what="the list")
    assert terminal.rows[-6] == peer.address


def test_long_texts_are_broken_between_words(programs: Programs) -> None:
    peer, terminal = at_a_console(programs, columns=40)
    words = [f"{'x' * (number % 9)}{number}" for number in range(60)]
    peer.say(" ".join(words))
    terminal.wait_to_see("xxxxx59")
    rows = terminal.rows
    start = max(at for at, row in enumerate(rows) if "says:" in row)
    said = " ".join([rows[start].partition("says:")[2], *rows[start + 1 : -1]]).split()
    assert said == words
    assert all(row.startswith(" " * 10) for row in rows[start + 1 : -1])


def test_a_very_long_text_is_cut_and_says_so(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    peer.say("y" * 50_000)
    terminal.wait_to_see("characters")
    assert re.search(r"and 48,\d{3}\s+characters\s+more", " ".join(terminal.rows))
    assert terminal.screen.count("y") < 2100


def test_warnings_do_not_tear_the_line(programs: Programs) -> None:
    _, terminal = at_a_console(programs)
    terminal.press("half a li")
    with programs.config.open("a") as file:
        file.write("no seed at all\n")
    terminal.wait_to_see("skipped")
    wait_until(lambda: typed_line(terminal) == "> half a li", what="the typed line")


def test_the_end_of_the_input_takes_the_prompt_away(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    terminal.press_ctrl_d()
    terminal.wait_to_see("the input has ended")
    peer.say("are you there?")
    terminal.wait_to_see("are you there")
    wait_until(lambda: typed_line(terminal).endswith("are you there?"), what="no prompt")


# ---- colours


def coloured(terminal: Terminal) -> bool:
    return re.search(r"\x1b\[[0-9;]*m", terminal.screen) is not None


def test_colours_on_a_terminal(programs: Programs) -> None:
    peer, terminal = at_a_console(programs)
    peer.say("hello")
    terminal.wait_to_see("hello")
    assert f"\x1b[36m{peer.address}\x1b[0m says: hello" in terminal.screen


def test_no_colours_with_no_color(programs: Programs) -> None:
    programs.environment["NO_COLOR"] = "1"
    peer, terminal = at_a_console(programs)
    terminal.press("half a li")
    peer.say("hello")
    terminal.wait_to_see("hello")
    wait_until(lambda: typed_line(terminal) == "> half a li", what="the typed line")
    assert not coloured(terminal)


def test_nothing_but_text_on_a_dumb_terminal(programs: Programs) -> None:
    programs.environment["TERM"] = "dumb"
    _, [peer] = programs.network(1)
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.wait_to_see("linked with")
    peer.say("hello")
    terminal.wait_to_see("says: hello")
    assert "\x1b" not in terminal.screen


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "seedspawner.py"])
def test_nothing_but_text_in_a_pipe(programs: Programs, script: str) -> None:
    is_spawner = script == "seedspawner.py"
    given = (1, "--base-port", free_ports(8)) if is_spawner else (free_port(),)
    with subprocess.Popen(
        [sys.executable, *programs.arguments(script, *given)],
        env=programs.environment,
        cwd=programs.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        program.terminate()
        rest = program.stdout.read()
    assert b"listening on" in line
    assert b"\x1b" not in line + rest
    assert program.returncode == 0


# ---- pipes


def test_what_tail_follows_is_said_as_it_comes_and_drained_at_its_end(programs: Programs) -> None:
    """`tail -f x | python3 peer.py 6001 --drain`."""
    _, [listener] = programs.network(1)
    notes = programs.folder / "notes.txt"
    notes.write_text("the first\n")
    tail = subprocess.Popen(["tail", "-f", str(notes)], stdout=subprocess.PIPE)
    command = programs.arguments("peer.py", free_port(), "--gossip-every", 0, "--drain")
    with subprocess.Popen(
        [sys.executable, *command],
        env=programs.environment,
        cwd=programs.folder,
        stdin=tail.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as peer:
        assert tail.stdout is not None
        tail.stdout.close()
        listener.wait_for("message", text="the first")
        with notes.open("a") as file:
            file.write("the second\n/to nobody hello\n")
        listener.wait_for("message", text="the second")
        assert peer.poll() is None
        with notes.open("a") as file:
            file.write("".join(f"{number}\n" for number in range(500)))
        listener.wait_for("message", text="499")
        tail.terminate()
        tail.wait()
        _, stderr = peer.communicate(timeout=30)
    assert (peer.returncode, stderr) == (0, b"peer.py: expected host:port, got 'nobody'\n")
    assert len(listener.all("message")) == 502


def test_json_on_a_terminal_is_json_alone(programs: Programs) -> None:
    """What is typed is not answered on standard output; and there is no prompt."""
    _, [peer] = programs.network(1)
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0, "--json")
    terminal.wait_to_see('"event": "neighbour_up"')
    peer.say("x" * 300)
    terminal.wait_to_see("x" * 300 + '"')
    let_pass(0.2)
    assert not re.search(r"^> ", terminal.screen, re.MULTILINE)


# ---- rows


@given(st.text(), st.integers(20, 100), st.integers(0, 12))
def test_rows_fit_and_lose_nothing_but_spaces(text: str, columns: int, indent: int) -> None:
    text = text.replace("\n", "")
    rows = wrapped(text, columns, indent)
    assert all(width_of(row) <= columns for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


@given(st.lists(st.text("abc日", min_size=1, max_size=5), min_size=1), st.integers(30, 60))
def test_words_that_fit_are_not_broken(words: list[str], columns: int) -> None:
    rows = wrapped(" ".join(words), columns, 4)
    assert " ".join(rows).split() == words
    assert all(row.startswith("    ") for row in rows[1:])


def test_wide_and_combining_characters_count_as_a_terminal_counts_them() -> None:
    assert [width_of(text) for text in ("abc", "日本", "e\u0301", "🙂", "")] == [3, 4, 1, 2, 0]
