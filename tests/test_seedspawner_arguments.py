"""What the seedspawner hands on to all it starts, and what it leaves alone if it cannot start."""

import pytest

from helpers import free_port, free_ports, wait_until
from programs import Programs

OTHER_NAME = "127.0.0.2"  # of this machine, and not what `localhost` means


def test_all_it_starts_advertise_the_host_given(programs: Programs) -> None:
    programs.start(
        *("seedspawner.py", 2, "--base-port", free_ports(8), "--host", "0.0.0.0"),
        *("--peers", 2, "--peer-base-port", free_ports(8), "--map", free_ports(4)),
        *("--advertise", OTHER_NAME),
    )
    wait_until(lambda: len(programs.logged("listening")) == 5, what="seeds, peers and a map's peer")
    told = [line.split(" ")[2].rpartition(":") for line in programs.logged("listening")]
    assert {host for host, _, _ in told} == {OTHER_NAME}
    assert len({port for _, _, port in told}) == 5
    wait_until(lambda: len(programs.logged("registered")) >= 6, what="three registered peers")


@pytest.mark.parametrize(
    "more", [["2"], ["1", "--peers", "1"], ["1", "--map"]], ids=["seeds", "a peer", "a map"]
)
def test_one_port_cannot_be_advertised_for_several(programs: Programs, more: list[str]) -> None:
    programs.config.write_text("127.0.0.1:5000\n")
    ports = ["--base-port", free_ports(8)]
    done = programs.run("seedspawner.py", *more, *ports, "--advertise=127.0.0.1:5001")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "--advertise" in line
    assert "127.0.0.1:5001" in line
    assert programs.config.read_text() == "127.0.0.1:5000\n"


def test_one_seed_may_advertise_a_port(programs: Programs) -> None:
    address = f"127.0.0.1:{free_port()}"
    programs.start("seedspawner.py", 1, "--base-port", free_ports(8), "--advertise", address)
    wait_until(lambda: programs.listed() == [address], what="the seed in the list")


def test_bad_lines_are_reported_as_they_are_removed(programs: Programs) -> None:
    programs.config.write_text("# ours\nlocalhost\n127.0.0.1:5000\nlocalhost:http # why not\n")
    base = free_ports(8)
    spawner = programs.start("seedspawner.py", 1, "--base-port", base)
    wait_until(lambda: programs.listed() == [f"127.0.0.1:{base}"], what="only the new seed")
    spawner.terminate()
    assert spawner.wait() == 0
    first, second = spawner.stderr.splitlines()
    for line, number, reason in [(first, 2, "host:port"), (second, 4, "port from 1 to 65535")]:
        assert f"{programs.config}, line {number}: " in line
        assert reason in line
        assert line.endswith("removed")


@pytest.mark.parametrize(
    "bad",
    [
        ["--host", "203.0.113.7"],
        ["--advertise", "no host"],
        ["--log", "{folder}"],
        ["--log", "{folder}/missing/log"],
    ],
    ids="-".join,
)
def test_what_cannot_be_started_leaves_the_files_alone(programs: Programs, bad: list[str]) -> None:
    programs.config.write_text("127.0.0.1:5000\nlocalhost\n")
    programs.log.write_text("old\n")
    bad = [word.format(folder=programs.folder) for word in bad]
    done = programs.run("seedspawner.py", 1, "--base-port", free_ports(8), *given(programs, bad))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert programs.config.read_text() == "127.0.0.1:5000\nlocalhost\n"
    assert programs.log.read_text() == "old\n"


def given(programs: Programs, bad: list[str]) -> list[str]:
    """The bad arguments, and the test's own files behind nothing that they say."""
    programs.are_files_named = False
    files = {"--config": str(programs.config), "--log": str(programs.log)} | dict([bad])
    return [word for pair in files.items() for word in pair]
