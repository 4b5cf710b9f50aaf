"""A whole network from one command."""

import socket

import pytest

from helpers import free_port, free_ports, let_pass, wait_until
from programs import Programs
from seedspawner import MAX_STARTING, hello_interval_s
from visits import served, visit


def ports_listed(programs: Programs) -> list[int]:
    return sorted(int(entry.rpartition(":")[2]) for entry in programs.listed())


@pytest.mark.parametrize("count", [1, 3, 5])
def test_it_starts_as_many_seeds_as_asked(programs: Programs, count: int) -> None:
    base = free_ports(8)
    programs.start("seedspawner.py", count, "--base-port", base)
    wait_until(lambda: len(programs.logged("listening")) == count, what=f"{count} seeds")
    wait_until(lambda: len(programs.listed()) == count, what=f"{count} entries in the list")
    assert ports_listed(programs)[0] == base
    for port in ports_listed(programs):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    let_pass(1)
    assert len(programs.logged("listening")) == count


def test_peers_find_its_seeds(programs: Programs) -> None:
    programs.start("seedspawner.py", 3, "--base-port", free_ports(8))
    wait_until(lambda: len(programs.listed()) == 3, what="three seeds")
    first, second = programs.peers(2)
    second.say("good morning")
    first.wait_for("message", text="good morning")


def test_it_skips_a_busy_port_and_says_so(programs: Programs) -> None:
    base = free_ports(8)
    with socket.create_server(("127.0.0.1", base)):
        terminal = programs.terminal("seedspawner.py", 2, "--base-port", base)
        terminal.wait_to_see(rf"\b{base}\b.*(use|busy|skip)|(use|busy|skip).*\b{base}\b")
        wait_until(lambda: len(programs.listed()) == 2, what="two seeds all the same")
        assert base not in ports_listed(programs)
        assert ports_listed(programs) == [base + 1, base + 2]


def test_it_mentions_no_busy_port_when_none_is(programs: Programs) -> None:
    base = free_ports(8)
    terminal = programs.terminal("seedspawner.py", 1, "--base-port", base)
    wait_until(lambda: ports_listed(programs) == [base], what="one seed on the base port")
    assert "in use" not in terminal.screen
    assert "skip" not in terminal.screen


def test_it_starts_peers_as_well(programs: Programs) -> None:
    """Each its own process, and all of them one network."""
    peer_base = free_ports(8)
    programs.start(
        *("seedspawner.py", 2, "--base-port", free_ports(8)),
        *("--peers", 3, "--peer-base-port", peer_base),
    )
    wait_until(lambda: len(programs.logged("listening")) == 5, what="two seeds and three peers")
    wait_until(lambda: len(programs.logged("neighbour_up")) >= 4, what="a network of three")
    assert len(programs.left_behind()) >= 4
    dialled = programs.peer()
    dialled.say("to all three")
    wait_until(
        lambda: sum("to all three" in line for line in programs.logged("message")) == 3,
        what="the message at all three",
    )
    speakers = {line.split(" ")[2] for line in programs.logged("peer_list")}
    assert f"127.0.0.1:{peer_base}" in speakers


def test_few_peers_start_at_a_time(programs: Programs) -> None:
    """All at once they would only take each other's time, and that of those that are there."""
    programs.start(
        *("seedspawner.py", 1, "--base-port", free_ports(8)),
        *("--peers", 20, "--peer-base-port", free_ports(24)),
    )
    most = 0

    def are_all_there() -> bool:
        nonlocal most
        started = sum("peer.py" in command for command in programs.left_behind().values())
        ready = len(programs.logged("listening")) - 1
        most = max(most, started - ready)
        return ready == 20

    wait_until(are_all_there, what="twenty peers")
    assert 1 < most <= MAX_STARTING


@pytest.mark.parametrize(("peers", "interval_s"), [(1, 5), (31, 5), (100, 50), (300, 450)])
def test_many_peers_say_hello_less_often(peers: int, interval_s: float) -> None:
    assert hello_interval_s(peers) == interval_s


def test_the_peers_it_starts_are_full_members(programs: Programs) -> None:
    """They say their periodic messages, and whoever joins by hand hears them."""
    programs.start(
        *("seedspawner.py", 1, "--base-port", free_ports(8)),
        *("--peers", 2, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.listed()) == 1, what="the seed")
    listener = programs.peer()
    listener.wait_for("message")
    wait_until(
        lambda: len({origin for origin, _, _ in listener.heard()}) == 2, what="both peers heard"
    )


def test_no_peers_unless_asked(programs: Programs) -> None:
    programs.start("seedspawner.py", 2, "--base-port", free_ports(8))
    wait_until(lambda: len(programs.listed()) == 2, what="two seeds")
    let_pass(1)
    assert programs.logged("peer_registered") == []


def test_it_empties_the_list_of_old_entries_and_keeps_comments(programs: Programs) -> None:
    old = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    programs.config.write_text(f"# ours\n\n{old[0]}\n# more\n{old[1]}\n")
    base = free_ports(8)
    programs.start("seedspawner.py", 1, "--base-port", base)
    wait_until(lambda: ports_listed(programs) == [base], what="only the new seed in the list")
    lines = programs.config.read_text().splitlines()
    assert lines[:3] == ["# ours", "", "# more"]


def test_it_starts_the_log_anew(programs: Programs) -> None:
    programs.log.write_text("2026-01-01 00:00:00.000 127.0.0.1:1 listening address=127.0.0.1:1\n")
    programs.start("seedspawner.py", 1, "--base-port", free_ports(8))
    wait_until(lambda: len(programs.listed()) == 1, what="the seed")
    wait_until(
        lambda: len(programs.logged("listening")) == 1 and "2026-01-01 " not in log(programs),
        what="a log without what was there before",
    )


def log(programs: Programs) -> str:
    return programs.log.read_text()


def test_a_seed_started_by_hand_does_neither(programs: Programs) -> None:
    entry = f"127.0.0.1:{free_port()}"
    line = "2026-01-01 00:00:00.000 127.0.0.1:1 listening address=127.0.0.1:1\n"
    programs.config.write_text(f"{entry}\n")
    programs.log.write_text(line)
    programs.seed()
    assert programs.listed()[0] == entry
    assert len(programs.listed()) == 2
    assert log(programs).startswith(line)


def test_a_refused_command_leaves_the_files_alone(programs: Programs) -> None:
    programs.config.write_text("127.0.0.1:5000\n")
    programs.log.write_text("old\n")
    assert programs.run("seedspawner.py", "many").returncode == 2
    assert programs.config.read_text() == "127.0.0.1:5000\n"
    assert log(programs) == "old\n"


def test_the_other_seeds_go_on_when_a_peer_it_started_is_killed(programs: Programs) -> None:
    programs.start(
        *("seedspawner.py", 2, "--base-port", free_ports(8)),
        *("--peers", 3, "--peer-base-port", free_ports(8)),
    )
    wait_until(lambda: len(programs.logged("neighbour_up")) >= 4, what="a network of three")
    peer_pids = [pid for pid, command in programs.left_behind().items() if "peer.py" in command]
    assert len(peer_pids) == 3
    programs.kill_child(peer_pids[0])
    wait_until(lambda: programs.logged("peer_removed"), what="its removal from a seed")
    newcomer = programs.peer()
    newcomer.wait_for("neighbour_up")


# ---- the live map


def test_no_map_unless_asked(programs: Programs) -> None:
    programs.start("seedspawner.py", 1, "--base-port", free_ports(8))
    wait_until(lambda: len(programs.listed()) == 1, what="the seed")
    let_pass(1)
    assert programs.logged("serving") == []


def test_it_serves_a_map_of_its_network(programs: Programs) -> None:
    spawner = programs.start(
        *("seedspawner.py", 2, "--base-port", free_ports(8)),
        *("--peers", 2, "--peer-base-port", free_ports(8), "--map", free_ports(4)),
    )
    url = served(spawner)

    def is_whole() -> bool:
        shown = visit(url, "/api/network").json
        seeds = [seed["reachable"] for seed in shown["seeds"]]
        return len(shown["peers"]) == 3 and seeds == [True, True]

    wait_until(is_whole, what="two peers, the map's own, and two seeds")
    spawner.terminate()
    assert spawner.wait() == 0
    assert programs.left_behind() == {}


def test_a_busy_port_of_the_map_is_skipped_and_said(programs: Programs) -> None:
    first = free_ports(4)
    with socket.create_server(("127.0.0.1", first)):
        terminal = programs.terminal(
            *("seedspawner.py", 1, "--base-port", free_ports(8), "--map", first)
        )
        terminal.wait_to_see(f"port {first} is in use: skipped")
        terminal.wait_to_see(rf"the live map: http://localhost:{first + 1}/")
