"""A seed that hangs holds up nobody: not the other seeds, not who joins, and not who stops."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding import Embedded
from helpers import wait_until
from peer import Peer
from programs import Programs
from settings import Tunables

PATIENT = Tunables(handshake_timeout_s=600, dial_timeout_s=600)  # far beyond what a test waits


def threads_of(peer: Peer) -> list[str]:
    """The threads of this peer that run now."""
    return [t.name for t in threading.enumerate() if t.name.startswith(f"{peer.address} ")]


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """An address that answers not even the first packet, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(3):
            dialler = stack.enter_context(socket.socket())
            dialler.setblocking(False)
            dialler.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


def test_who_stops_while_a_seed_hangs_says_goodbye_to_the_others(
    programs: Programs, embedded: Embedded
) -> None:
    healthy, hanging = programs.seed(), programs.seed()
    hanging.pause()
    peer = embedded.peer(seeds=[healthy.address, hanging.address], tunables=PATIENT)
    healthy.wait_for("peer_registered", peer=peer.address)
    wait_until(lambda: peer.seeds()[healthy.address], what="its registration")
    peer.stop()
    assert threads_of(peer) == []
    assert "it has left" in healthy.wait_for("peer_removed", peer=peer.address)["reason"]


def test_who_stops_while_a_registered_seed_hangs_waits_for_it_no_longer(
    programs: Programs, embedded: Embedded
) -> None:
    healthy, hanging = programs.seed(), programs.seed()
    tunables = Tunables(handshake_timeout_s=600, renew_interval_s=0.1)
    peer = embedded.peer(seeds=[healthy.address, hanging.address], tunables=tunables)
    for seed in (healthy, hanging):
        seed.wait_for("peer_registered", peer=peer.address)
    hanging.pause()
    wait_until(lambda: any("ask_seed" in name for name in threads_of(peer)), what="a renewal")
    peer.stop()
    assert threads_of(peer) == []
    assert "it has left" in healthy.wait_for("peer_removed", peer=peer.address)["reason"]
    hanging.resume()
    assert hanging.wait_for("peer_removed", peer=peer.address)["reason"].startswith("it has left")


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_who_stops_while_a_seed_takes_connections_only_is_awake_at_once(
    embedded: Embedded, certificate: Path, is_secure: bool
) -> None:
    tls = str(certificate) if is_secure else None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        peer = embedded.peer(seeds=[address], tunables=PATIENT, tls=tls)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            peer.stop()
            assert threads_of(peer) == []


def test_who_stops_while_it_dials_a_seed_is_awake_at_once(embedded: Embedded) -> None:
    with unreachable() as nobody:
        peer = embedded.peer(seeds=[nobody], tunables=PATIENT)
        wait_until(
            lambda: any("ask_seed" in name for name in threads_of(peer)), what="a dial under way"
        )
        peer.stop()
        assert threads_of(peer) == []


def test_a_stop_calls_no_seed_unreachable(programs: Programs, embedded: Embedded) -> None:
    hanging = programs.seed()
    hanging.pause()
    events: list[str] = []
    peer = embedded.peer(
        seeds=[hanging.address], tunables=PATIENT, on_event=lambda e: events.append(e["event"])
    )
    wait_until(lambda: any("ask_seed" in name for name in threads_of(peer)), what="its question")
    peer.stop()
    assert "seed_unreachable" not in events


def test_one_healthy_seed_is_enough_to_find_neighbours_soon(
    programs: Programs, embedded: Embedded
) -> None:
    seeds = [programs.seed() for _ in range(3)]
    neighbour = programs.peer("--seed", seeds[0].address)
    seeds[0].wait_for("peer_registered", peer=neighbour.address)
    for hanging in seeds[1:]:
        hanging.pause()
    peer = embedded.peer(seeds=[seed.address for seed in seeds], tunables=PATIENT)
    wait_until(lambda: peer.neighbours() == [neighbour.address], what="its first neighbour")


def test_a_death_is_reported_although_another_seed_hangs(
    programs: Programs, embedded: Embedded
) -> None:
    healthy, hanging = programs.seed(), programs.seed()
    addresses = [healthy.address, hanging.address]
    tunables = Tunables(handshake_timeout_s=600)
    neighbours = [programs.peer("--seed", healthy.address) for _ in range(2)]
    peer = embedded.peer(seeds=addresses, tunables=tunables)
    wait_until(lambda: len(peer.neighbours()) == 2, what="two neighbours")
    wait_until(lambda: all(peer.seeds().values()), what="two registrations")
    hanging.pause()
    for neighbour in neighbours:
        neighbour.kill()
        healthy.wait_for("dead_report", peer=neighbour.address, reporter=peer.address)


def test_a_seed_taken_off_the_list_while_it_hangs_is_forgotten(
    programs: Programs, embedded: Embedded
) -> None:
    healthy, hanging = programs.seed(), programs.seed()
    hanging.pause()
    peer = embedded.peer(seeds=None, tunables=Tunables(handshake_timeout_s=1))
    wait_until(lambda: peer.seeds().get(healthy.address), what="its registration")
    programs.config.write_text(f"{healthy.address}\n")
    wait_until(lambda: peer.seeds() == {healthy.address: True}, what="one seed alone")
