"""The log: one event a line, by many processes at once, and nobody can forge one."""

import re

from helpers import free_port, wait_until
from programs import Programs

# 2026-11-22 12:04:31.207 127.0.0.1:6002 dead neighbour=127.0.0.1:6003 reason="no reply"
VALUE = r'(?:"(?:[^"\\]|\\.)*"|[^\s"\\=]+)'
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"  # when
    r" (?:[\w.-]+|\[[0-9a-f:]+\]):\d+"  # who
    r" [a-z_]+"  # what
    rf"(?: [a-z_0-9]+={VALUE})*"  # and further keys
)


def check_lines(programs: Programs) -> list[str]:
    """Every line of the log, each of them in the promised form."""
    text = programs.log.read_bytes().decode()
    assert text.endswith("\n")
    lines = text.split("\n")[:-1]
    for line in lines:
        assert LINE.fullmatch(line), f"not a line of the log: {line!r}"
        assert line.isprintable(), f"not fit for a terminal: {line!r}"
    return lines


def test_the_log_tells_what_the_events_tell(programs: Programs) -> None:
    seed, [first, second] = programs.network(2)
    first.say("hello there")
    second.wait_for("message")
    second.kill()
    first.wait_for("dead")
    seed.wait_for("peer_removed")
    first.terminate()
    seed.terminate()
    assert (first.wait(), seed.wait()) == (0, 0)
    lines = check_lines(programs)
    for program in (seed, first, second):
        told = [line.split(" ")[3] for line in lines if line.split(" ")[2] == program.address]
        for event in program.events:
            assert event["event"] in told, f"{event} is not in the log"
    [message] = programs.logged("message")
    assert f"origin={first.address}" in message
    assert "seq=1" in message
    assert 'text="hello there"' in message
    [dead] = programs.logged("dead")
    assert f"neighbour={second.address}" in dead
    assert "reason=" in dead


def test_the_log_is_appended_to(programs: Programs) -> None:
    before = "2026-01-01 00:00:00.000 127.0.0.1:1 listening address=127.0.0.1:1\n"
    programs.log.write_text(before)
    programs.network(1)
    assert programs.log.read_text().startswith(before)
    assert len(check_lines(programs)) > 1


def test_lines_of_many_processes_stay_whole(programs: Programs) -> None:
    count = 100
    _, peers = programs.network(8)
    for peer in peers:
        peer.say(*(f"number {number} " + "x" * 200 for number in range(count)))
    for peer in peers:
        peer.wait_for("message", count=7 * count)
    for peer in peers:
        peer.terminate()
        assert peer.wait() == 0
    check_lines(programs)
    messages = programs.logged("message")
    assert len(messages) == 8 * 7 * count
    assert len({line.partition(" message ")[0][24:] for line in messages}) == 8


def test_nobody_forges_a_line_by_what_it_says(programs: Programs) -> None:
    forged = "2026-01-01 00:00:00.000 127.0.0.1:9 dead neighbour=127.0.0.1:8 reason=forged"
    _, [speaker, listener] = programs.network(2)
    speaker.say(
        f"\r{forged}",
        f"\x0b{forged}\x0c{forged}\x1c{forged}\x85{forged}\u2028{forged}\u2029{forged}",
        f'" reason=forged neighbour=127.0.0.1:8 "{forged}',
        f'\\" {forged} \\',
        "\x1b[2J\x1b]0;title\x07\x08\x7f\x00",
        "\u202eback to front\u2066",
        b"\xff\xfe no text\r",
        "the end",
    )
    listener.wait_for("message", text="the end")
    wait_until(lambda: len(programs.logged("message")) == 8, what="all eight in the log")
    lines = check_lines(programs)
    assert programs.logged("dead") == []
    assert not [line for line in lines if line.split(" ")[2] == "127.0.0.1:9"]
    assert not [line for line in lines if re.search(r" reason=forged", unquoted(line))]


def unquoted(line: str) -> str:
    """The line without what stands in quotes."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)


def test_a_log_of_its_own_for_each_program(programs: Programs) -> None:
    seed = programs.seed()
    shared = programs.log
    programs.log = programs.folder / "mine.log"
    peer = programs.peer()
    seed.wait_for("peer_registered", peer=peer.address)
    peer.terminate()
    peer.wait()
    assert check_lines(programs)
    assert all(line.split(" ")[2] == peer.address for line in check_lines(programs))
    assert all(f" {seed.address} " in line for line in shared.read_text().splitlines())


def test_the_log_does_not_name_what_did_not_happen(programs: Programs) -> None:
    programs.network(3)
    for event in ("dead", "suspect", "gap", "stopped", "direct", "peer_removed"):
        assert programs.logged(event) == []


def test_many_seeds_and_peers_share_a_log_from_their_first_line(programs: Programs) -> None:
    """Nobody starts it anew, whoever comes first."""
    ports = [free_port() for _ in range(8)]
    for port in ports[:4]:
        programs.start("seed.py", port)
    for port in ports[4:]:
        programs.start("peer.py", port, "--gossip-every", 0)
    wait_until(lambda: len(programs.logged("listening")) == 8, what="eight programs in the log")
    check_lines(programs)
