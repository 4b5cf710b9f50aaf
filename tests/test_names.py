"""Seeds by name: one that stands for many machines means many seeds. The name service is a fake."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import registration
from embedding import Embedded
from helpers import free_port, wait_until
from link import each_of, try_address
from liveness import Tried
from messages import Address, BadAddress
from registration import SeedSource

NAME = "seeds.example"


class NameService:
    """Answers for one name; all others are looked up as ever."""

    def __init__(self) -> None:
        self.hosts: list[str] | None = []  # None: it is silent
        self.questions = 0
        self._real: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *args: Any, **keywords: Any) -> list[Any]:
        if host != NAME:
            found: list[Any] = self._real(host, port, *args, **keywords)
            return found
        self.questions += 1
        if self.hosts is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        families = {host: socket.AF_INET6 if ":" in host else socket.AF_INET for host in self.hosts}
        return [(family, socket.SOCK_STREAM, 6, "", (h, port)) for h, family in families.items()]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameService:
    fake = NameService()
    monkeypatch.setattr(socket, "getaddrinfo", fake.getaddrinfo)
    return fake


@pytest.fixture
def _asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "NAMES_INTERVAL_S", 0.1)


def hosts_behind(names: NameService, *hosts: str) -> list[str]:
    names.hosts = list(hosts)
    return [address.host for address in each_of(Address(NAME, 5000))]


def test_a_name_with_many_addresses_is_each_of_them(names: NameService) -> None:
    assert hosts_behind(names, "10.0.0.1", "10.0.0.2", "10.0.0.3") == [
        *("10.0.0.1", "10.0.0.2", "10.0.0.3")
    ]
    assert hosts_behind(names, "fd00::1", "fd00::2") == ["fd00::1", "fd00::2"]


def test_a_name_with_one_address_of_each_family_is_one_seed(names: NameService) -> None:
    """So `localhost` is one, whichever of its addresses the seed listens on."""
    assert hosts_behind(names, "127.0.0.1") == [NAME]
    assert hosts_behind(names, "127.0.0.1", "::1") == [NAME]


def test_machines_with_both_families_count_once_each(names: NameService) -> None:
    assert hosts_behind(names, "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2") == [
        *("10.0.0.1", "10.0.0.2")
    ]


def test_an_address_is_itself() -> None:
    for host in ("127.0.0.1", "::1", "192.0.2.1"):
        assert each_of(Address(host, 5000)) == [Address(host, 5000)]


@pytest.mark.usefixtures("names")
def test_a_host_that_cannot_be_a_name_is_an_error_like_any_other() -> None:
    with pytest.raises(OSError, match="no host name") as raised:
        each_of(Address("x" * 64 + ".example", 5000))
    assert raised.value.errno == errno.EINVAL


@pytest.mark.usefixtures("_asked_all_the_time")
def test_while_the_name_service_is_silent_its_last_answer_holds(names: NameService) -> None:
    source = SeedSource([Address(NAME, 5000)], "no file")
    names.hosts = None
    assert source.listed() == [Address(NAME, 5000)]
    names.hosts = ["10.0.0.1", "10.0.0.2"]
    both = [Address("10.0.0.1", 5000), Address("10.0.0.2", 5000)]
    wait_until(lambda: source.listed() == both, what="both seeds")
    names.hosts = None
    before = names.questions
    wait_until(lambda: source.listed() == both and names.questions > before + 1, what="two more")
    assert source.listed() == both


def test_the_name_service_is_asked_now_and_then_and_not_each_time(names: NameService) -> None:
    names.hosts = ["10.0.0.1", "10.0.0.2"]
    source = SeedSource([Address(NAME, 5000)], "no file")
    for _ in range(100):
        source.listed()
    assert names.questions == 1
    source.look_anew()
    source.listed()
    assert names.questions == 2


def test_a_new_line_of_the_list_is_looked_up_at_once(names: NameService, tmp_path: Path) -> None:
    config = tmp_path / "config.txt"
    config.write_text("127.0.0.1:5000\n")
    names.hosts = ["10.0.0.1", "127.0.0.1"]
    source = SeedSource(None, str(config))
    assert source.listed() == [Address("127.0.0.1", 5000)]
    config.write_text(f"127.0.0.1:5000\n{NAME}:5000\n")
    assert source.listed() == [Address("127.0.0.1", 5000), Address("10.0.0.1", 5000)]


@pytest.mark.usefixtures("_asked_all_the_time")
def test_a_peer_registers_with_a_majority_of_the_seeds_behind_a_name(
    names: NameService, embedded: Embedded
) -> None:
    """And follows the name: a seed that is behind it no more is given up, a new one is found."""
    port = free_port()
    seeds = [embedded.seed(ip=f"127.0.0.{number}", port=port) for number in (1, 2, 3)]
    names.hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    peer = embedded.peer(seeds=[f"{NAME}:{port}"])
    wait_until(lambda: sum(peer.seeds().values()) == 2, what="two registrations")
    assert sorted(peer.seeds()) == sorted(seed.address for seed in seeds)
    names.hosts = ["127.0.0.1", "127.0.0.4"]
    fourth = embedded.seed(ip="127.0.0.4", port=port)
    expected = {seeds[0].address: True, fourth.address: True}
    wait_until(lambda: peer.seeds() == expected, what="the seeds behind the name now")
    wait_until(lambda: fourth.peers() == [peer.address], what="the peer on the new seed's list")


def test_localhost_is_this_machine_even_where_no_file_says_so(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def bare(host: str, port: int, *args: Any, **keywords: Any) -> list[Any]:
        if host.replace(".", "").isdigit():
            return real(host, port, *args, **keywords)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", bare)
    seed = embedded.seed()
    peer = embedded.peer(seeds=[f"localhost:{seed.address.rpartition(':')[2]}"])
    wait_until(lambda: seed.peers() == [peer.address], what="its registration")
    with pytest.raises(BadAddress):
        embedded.peer(ip="elsewhere.example")


# ---- whether a peer behind a name lives ----------------------------------------------------------


class Unconnected(socket.socket):
    """As on a machine that has no IPv6 address: nothing can be dialled from there."""

    def connect(self, address: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        super().connect(address)


@pytest.mark.parametrize("hosts", [["127.0.0.1", "::1"], ["::1", "127.0.0.1"]])
def test_an_address_that_we_have_no_way_to_hides_nothing_of_the_others_behind_a_name(
    names: NameService, monkeypatch: pytest.MonkeyPatch, hosts: list[str]
) -> None:
    names.hosts = hosts
    monkeypatch.setattr(socket, "socket", Unconnected)
    assert try_address(Address(NAME, free_port()), 5.0, trust=None) is Tried.REFUSED
    names.hosts = ["::1"]
    assert try_address(Address(NAME, free_port()), 5.0, trust=None) is Tried.UNTRIED


def test_a_name_that_cannot_be_looked_up_for_want_of_descriptors_proves_nothing(
    names: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure of a look-up does not tell why it failed."""
    names.hosts = None
    unknown = Address(NAME, 5000)
    assert try_address(unknown, 5.0, trust=None) is Tried.SILENT

    def no_descriptor(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", no_descriptor)
    assert try_address(unknown, 5.0, trust=None) is Tried.UNTRIED
