"""What the seedspawner hands on to all it starts."""

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
