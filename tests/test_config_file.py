"""The list of seeds: many write it at once, people edit it, and nobody loses a line."""

import re
from functools import partial

import pytest

from helpers import free_port, let_pass, wait_until
from programs import Program, Programs

COMMENTED = """\
# the seeds of our network

# the cellar
{kept}
   # indented, and with a trailing space \n
"""


def test_a_seed_adds_itself_once_and_removes_itself_at_a_clean_end(programs: Programs) -> None:
    seed = programs.seed()
    assert len(programs.listed()) == 1
    seed.terminate()
    assert seed.wait() == 0
    assert programs.listed() == []


def test_a_seed_that_was_killed_and_is_started_again_is_listed_once(programs: Programs) -> None:
    seed = programs.seed()
    seed.kill()
    assert len(programs.listed()) == 1
    again = programs.seed(port=seed.port)
    assert len(programs.listed()) == 1
    again.terminate()
    assert again.wait() == 0
    assert programs.listed() == []


def test_a_seed_removes_no_entry_but_its_own(programs: Programs) -> None:
    first, second = programs.seed(), programs.seed()
    first.terminate()
    first.wait()
    [left] = programs.listed()
    assert left.endswith(f":{second.port}")


def test_comments_and_blank_lines_are_kept(programs: Programs) -> None:
    text = COMMENTED.format(kept=f"127.0.0.1:{free_port()}")
    programs.config.write_text(text)
    seed = programs.seed()
    assert programs.config.read_text().startswith(text)
    seed.terminate()
    seed.wait()
    assert programs.config.read_text() == text


def test_a_last_line_without_its_end_is_no_trap(programs: Programs) -> None:
    entry = f"127.0.0.1:{free_port()}"
    programs.config.write_text(entry)
    seed = programs.seed()
    assert programs.listed()[0] == entry
    assert programs.listed()[1].endswith(f":{seed.port}")


def test_many_seeds_starting_and_stopping_at_once_lose_no_entry(programs: Programs) -> None:
    text = COMMENTED.format(kept=f"127.0.0.1:{free_port()}")
    programs.config.write_text(text)
    kept = programs.listed()
    ports = [free_port() for _ in range(12)]
    seeds = [programs.start("seed.py", port) for port in ports]

    def all_are_listed() -> bool:
        check_whole(programs, kept)
        return ports_listed(programs) >= set(ports)

    wait_until(all_are_listed, what="all seeds in the list")
    assert len(programs.listed()) == len(ports) + len(kept)
    for seed in seeds:
        seed.terminate()

    def all_are_gone() -> bool:
        check_whole(programs, kept)
        return programs.listed() == kept

    wait_until(all_are_gone, what="no seed in the list but the one of before")
    assert [seed.wait() for seed in seeds] == [0] * len(seeds)
    assert programs.config.read_text() == text


def check_whole(programs: Programs, kept: list[str]) -> None:
    """At any instant: the lines of before are there, and every other line is a whole entry."""
    lines = programs.listed()
    assert lines[: len(kept)] == kept
    assert all(re.fullmatch(r"(127\.0\.0\.1|localhost):\d{4,5}", line) for line in lines), lines


def ports_listed(programs: Programs) -> set[int]:
    return {int(entry.rpartition(":")[2]) for entry in programs.listed()}


def test_some_start_while_others_stop(programs: Programs) -> None:
    leaving = [programs.seed() for _ in range(5)]
    ports = [free_port() for _ in range(5)]
    for seed, port in zip(leaving, ports, strict=True):
        seed.terminate()
        programs.start("seed.py", port)
    wait_until(lambda: ports_listed(programs) == set(ports), what="exactly the new ones")


BAD_LINES = [
    "localhost",
    "localhost:",
    "localhost:http",
    ":5000",
    "localhost:0",
    "localhost:65536",
    "localhost:-1",
    "two words:5000",
    "[::1:5000",
    "::1:5000",
    "localhost:5000 localhost:5001",
    "localhost:5000:",
    "http://localhost:5000/",
    "\x1b[2Jlocalhost:99999",
    "x" * 5000,
]


def test_a_bad_line_is_reported_with_its_place_and_reason_and_skipped(
    programs: Programs,
) -> None:
    seed = programs.seed()
    good = programs.listed()
    programs.config.write_text("\n".join([*BAD_LINES, *good, "# a comment", ""]))
    peer = programs.peer()
    peer.wait_for("registered", seed=seed.address)
    for number in range(1, len(BAD_LINES) + 1):
        what = f"a report of line {number}, {BAD_LINES[number - 1]!r:.60}"
        wait_until(partial(report, programs, peer, number), what=what)
    for number in range(len(BAD_LINES) + 1, len(BAD_LINES) + 4):
        assert report(programs, peer, number) == []
    assert "\x1b" not in peer.stderr


def report(programs: Programs, peer: Program, number: int) -> list[str]:
    """What was said about that line of the file, with a reason after its number."""
    log = programs.log.read_text() if programs.log.exists() else ""
    pattern = re.compile(rf"config\.txt\D{{1,12}}{number}\b.*\w{{3}}")
    return [line for line in (peer.stderr + log).splitlines() if pattern.search(line)]


def test_bytes_that_are_no_text_are_a_bad_line(programs: Programs) -> None:
    seed = programs.seed()
    programs.config.write_bytes(b"\xff\xfe\x00\n" + programs.config.read_bytes())
    peer = programs.peer()
    peer.wait_for("registered", seed=seed.address)
    assert report(programs, peer, 1)


def test_bad_lines_survive_what_a_seed_does_to_the_file(programs: Programs) -> None:
    """They may be a slip of the pen: nobody but a person throws them away."""
    text = "localhost\n# about the next\nlocalhost:http\n"
    programs.config.write_text(text)
    seed = programs.seed()
    seed.terminate()
    seed.wait()
    assert programs.config.read_text() == text


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_an_empty_list_is_no_error(programs: Programs, script: str) -> None:
    programs.config.write_text("")
    program = programs.start(script, free_port())
    program.wait_for("listening")
    let_pass(1)
    assert program.process.poll() is None


def test_an_entry_that_is_there_twice_is_one_seed(programs: Programs) -> None:
    seed = programs.seed()
    [entry] = programs.listed()
    programs.config.write_text(f"{entry}\n{entry}\n")
    peer = programs.peer()
    peer.wait_for("registered", seed=seed.address)
    let_pass(1)
    assert len(peer.all("registered")) == 1


def test_windows_line_ends_are_no_trap(programs: Programs) -> None:
    seed = programs.seed()
    [entry] = programs.listed()
    programs.config.write_bytes(f"# from elsewhere\r\n{entry}\r\n".encode())
    assert programs.peer().wait_for("registered")["seed"] == seed.address
