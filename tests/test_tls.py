"""With `--tls`: who has a certificate of the network's authority is let in, and nobody else."""

from pathlib import Path

from helpers import free_ports, wait_until
from programs import Programs, is_connected

PLAIN_THERE = "it does not speak TLS: was it started without --tls?"
START_WITH = "it says: here everybody speaks TLS: start with --tls"
TLS_THERE = "it speaks TLS: was this program started without --tls?"


# ---- let in


def test_a_network_with_certificates_does_all_that_one_without_does(
    programs: Programs, certificate: Path
) -> None:
    seed = programs.seed("--tls", certificate)
    peers = programs.peers(4, "--tls", certificate)
    wait_until(lambda: is_connected(peers), what="four peers in one network")
    peers[0].say("good morning", f"/to {peers[1].address} only you")
    for peer in peers[1:]:
        peer.wait_for("message", origin=peers[0].address, text="good morning")
    peers[1].wait_for("direct", origin=peers[0].address, text="only you")
    peers[3].kill()
    seed.wait_for("peer_removed", peer=peers[3].address)
    for program in (seed, *peers):
        assert program.all("refused") == []


def test_one_certificate_serves_a_whole_network_of_the_spawner(
    programs: Programs, certificate: Path
) -> None:
    spawner = programs.start(
        *("seedspawner.py", 3, "--base-port", free_ports(8)),
        *("--peers", 8, "--peer-base-port", free_ports(16), "--tls", certificate),
    )
    wait_until(
        lambda: len({e["self"] for e in spawner.all("message")}) == 8, what="eight peers that hear"
    )
    spawner.press_ctrl_c()
    assert spawner.wait() == 0
    assert spawner.all("refused") == []


# ---- plain and TLS


def test_a_plain_peer_and_one_with_tls_tell_each_other_apart(
    programs: Programs, certificate: Path
) -> None:
    secure = programs.peer("--tls", certificate)
    plain = programs.peer("--join", secure.address)
    plain.wait_for("peer_unreachable", peer=secure.address, reason=START_WITH)
    secure.wait_for("refused", what="certificate", reason=PLAIN_THERE)
    assert (plain.neighbours(), secure.neighbours()) == ([], [])


def test_a_peer_with_tls_and_a_plain_one_tell_each_other_apart(
    programs: Programs, certificate: Path
) -> None:
    plain = programs.peer()
    secure = programs.peer("--tls", certificate, "--join", plain.address)
    secure.wait_for("peer_unreachable", peer=plain.address, reason=PLAIN_THERE)
    plain.wait_for("refused", what="certificate", reason=TLS_THERE)
    assert (plain.neighbours(), secure.neighbours()) == ([], [])


def test_a_plain_peer_cannot_register_at_a_seed_with_tls(
    programs: Programs, certificate: Path
) -> None:
    seed = programs.seed("--tls", certificate)
    peer = programs.peer()
    peer.wait_for("seed_unreachable", seed=seed.address, reason=START_WITH)
    seed.wait_for("refused", what="certificate", reason=PLAIN_THERE)
    assert seed.all("peer_registered") == []


def test_a_peer_with_tls_does_not_register_at_a_plain_seed(
    programs: Programs, certificate: Path
) -> None:
    seed = programs.seed()
    peer = programs.peer("--tls", certificate)
    peer.wait_for("seed_unreachable", seed=seed.address, reason=PLAIN_THERE)
    seed.wait_for("refused", what="certificate", reason=TLS_THERE)
    assert seed.all("peer_registered") == []
