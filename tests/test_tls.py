"""With `--tls`: who has a certificate of the network's authority is let in, and nobody else."""

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from authorities import Authority, disguised, wear
from embedding import Embedded
from helpers import free_port, free_ports, let_pass, wait_until
from journal import Event
from link import Connection, ask, dial, try_address
from liveness import Tried
from messages import (
    PROTOCOL_VERSION,
    Address,
    DeadReport,
    Direct,
    Echo,
    Hello,
    Inspect,
    Inspected,
    ListPeers,
    Message,
    PeerList,
    Probe,
    Register,
    StreamName,
)
from peer import NetworkError
from programs import Programs, is_connected
from seed import TRIES
from tls import NotTrusted
from trust import Trust

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


def test_whatever_is_no_tls_is_not_let_in(programs: Programs, certificate: Path) -> None:
    peer = programs.peer("--tls", certificate)
    with socket.create_connection(("127.0.0.1", peer.port), timeout=20) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        peer.wait_for("refused", what="certificate", reason=PLAIN_THERE)


# ---- certificates that are not good

FOREIGN = "certificate is from another authority"
SAID = "it says: your "


def expired(authority: Authority, folder: Path) -> Path:
    return authority.issue_odd(folder, begins_s=-7200, ends_s=-3600)


def not_valid_yet(authority: Authority, folder: Path) -> Path:
    return authority.issue_odd(folder, begins_s=3600, ends_s=7200)


def foreign(_: Authority, folder: Path) -> Path:
    return Authority(folder / "theirs").issue("localhost")


def issued_by_an_insider(authority: Authority, folder: Path) -> Path:
    insider = authority.issue_odd(folder / "insider")
    return authority.issue_odd(folder / "outsider", issuer=insider)


FAULTS: dict[str, tuple[Callable[[Authority, Path], Path], str, str]] = {
    "expired": (expired, "its certificate has expired", f"{SAID}certificate has expired"),
    "not valid yet": (
        not_valid_yet,
        "its certificate is not valid yet: do the clocks agree?",
        f"{SAID}certificate is not accepted: do the clocks agree?",
    ),
    "foreign": (foreign, f"its {FOREIGN}", f"{SAID}{FOREIGN}"),
    "issued by an insider": (
        issued_by_an_insider,
        "its certificate is not accepted: invalid CA certificate",
        f"{SAID}{FOREIGN}",
    ),
}
every_fault = pytest.mark.parametrize("fault", FAULTS)


@every_fault
def test_who_dials_with_a_bad_certificate_is_not_let_in(
    programs: Programs, authority: Authority, certificate: Path, tmp_path: Path, fault: str
) -> None:
    make, ours, theirs = FAULTS[fault]
    trust = disguised(certificate, make(authority, tmp_path / "bad"))
    seed = programs.seed("--tls", certificate)
    peer = programs.peer("--tls", certificate, "--seed", seed.address)
    for program in (seed, peer):
        with pytest.raises(NotTrusted) as caught:
            ask(Address.parse(program.address), Probe(7), 20, trust)
        assert str(caught.value) == theirs
        program.wait_for("refused", what="certificate", reason=ours)


@every_fault
def test_who_is_dialled_and_has_a_bad_certificate_is_not_linked_with(
    programs: Programs,
    embedded: Embedded,
    authority: Authority,
    certificate: Path,
    tmp_path: Path,
    fault: str,
) -> None:
    make, ours, theirs = FAULTS[fault]
    told: list[Event] = []
    bad = embedded.new_peer(tls=str(certificate), on_event=told.append)
    assert bad.trust is not None
    wear(bad.trust, make(authority, tmp_path / "bad"))
    bad.start()
    good = programs.peer("--tls", certificate, "--join", bad.address)
    good.wait_for("peer_unreachable", peer=bad.address, reason=ours)
    wait_until(lambda: any(e.get("reason") == theirs for e in told), what=f"{theirs!r} in {told}")
    assert good.neighbours() == bad.neighbours() == []


def test_a_dialler_without_a_certificate_is_not_let_in(
    programs: Programs, certificate: Path
) -> None:
    peer = programs.peer("--tls", certificate)
    context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", peer.port), timeout=20) as sock,
        pytest.raises(ssl.SSLError, match="certificate required"),
        context.wrap_socket(sock, server_hostname="127.0.0.1") as stranger,
    ):
        stranger.recv(1)
    peer.wait_for("refused", what="certificate", reason="it shows no certificate")


def test_an_older_tls_is_not_spoken(programs: Programs, certificate: Path) -> None:
    peer = programs.peer("--tls", certificate)
    context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
    context.load_cert_chain(certificate / "node.pem", certificate / "node.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", peer.port), timeout=20) as sock,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(sock, server_hostname="127.0.0.1")
    peer.wait_for("refused", what="certificate", reason="it does not speak TLS 1.3")


def test_a_peer_at_an_address_that_its_certificate_does_not_name_is_not_linked_with(
    programs: Programs, authority: Authority, certificate: Path
) -> None:
    elsewhere = authority.issue("elsewhere.example")
    port = free_port()
    other = programs.peer("--tls", elsewhere, "--advertise", f"elsewhere.example:{port}", port=port)
    dialled = f"127.0.0.1:{port}"
    peer = programs.peer("--tls", certificate, "--join", dialled)
    fault = "certificate is not for 127.0.0.1, but for elsewhere.example"
    peer.wait_for("peer_unreachable", peer=dialled, reason=f"its {fault}")
    other.wait_for("refused", what="certificate", reason=f"{SAID}{fault}")
    assert peer.neighbours() == other.neighbours() == []


def test_a_refused_peer_is_tried_again_later_and_later(
    programs: Programs,
    embedded: Embedded,
    authority: Authority,
    certificate: Path,
    tmp_path: Path,
) -> None:
    """Both sides say it once, and nobody dials in a frenzy."""
    told: list[Event] = []
    bad = foreign(authority, tmp_path / "bad")
    foreigner = embedded.peer(tls=str(bad), on_event=told.append)
    peer = programs.peer("--tls", certificate, "--join", foreigner.address)
    peer.wait_for("peer_unreachable", peer=foreigner.address)
    let_pass(4)
    assert len(peer.all("peer_unreachable")) == 1
    assert [event["event"] for event in told if event["event"] != "isolated"] == [
        "listening",
        "refused",
    ]
    assert 2 <= foreigner.stats()["refused_certificate"] <= 5


# ---- whom one may claim to be


def claims(claimed: Address) -> dict[str, tuple[str, Message]]:
    """Messages in which the sender says who it is: to which program, and the message."""
    stream = StreamName(claimed, 1).key
    return {
        "hello": ("peer", Hello(PROTOCOL_VERSION, claimed, 1, 0, is_feeler=False, root=stream)),
        "feeler": ("peer", Hello(PROTOCOL_VERSION, claimed, 1, 0, is_feeler=True, root=stream)),
        "direct": ("peer", Direct(claimed, b"I am somebody else")),
        "register": ("seed", Register(claimed, 1)),
        "report": ("seed", DeadReport(Address("127.0.0.1", 9), reporter=claimed)),
    }


@pytest.mark.parametrize("kind", claims(Address("192.0.2.1", 1)))
def test_nobody_speaks_as_a_host_that_is_not_in_its_certificate(
    programs: Programs, certificate: Path, kind: str
) -> None:
    seed = programs.seed("--tls", certificate)
    peer = programs.peer("--tls", certificate, "--seed", seed.address)
    peer.wait_for("registered")
    to, message = claims(Address("192.0.2.1", 6001))[kind]
    program = seed if to == "seed" else peer
    fault = "certificate is not for 192.0.2.1, but for 127.0.0.1, ::1, localhost"
    with pytest.raises(NotTrusted) as caught:
        ask(Address.parse(program.address), message, 20, Trust(str(certificate)))
    assert str(caught.value) == f"{SAID}{fault}"
    program.wait_for("refused", what="certificate", reason=f"its {fault}")
    assert peer.all("direct") + peer.all("neighbour_up") + seed.all("dead_report") == []
    assert len(seed.all("peer_registered")) == 1


@pytest.mark.parametrize("kind", claims(Address("192.0.2.1", 1)))
def test_who_speaks_as_a_host_of_its_certificate_is_answered(
    programs: Programs, certificate: Path, kind: str
) -> None:
    seed = programs.seed("--tls", certificate)
    peer = programs.peer("--tls", certificate, "--seed", seed.address)
    to, message = claims(Address("127.0.0.1", free_port()))[kind]
    program = seed if to == "seed" else peer
    ask(Address.parse(program.address), message, 20, Trust(str(certificate)))
    assert program.all("refused", what="certificate") == []


@pytest.mark.parametrize(
    "question", [Probe(7), ListPeers(), Inspect()], ids=lambda q: type(q).__name__
)
def test_a_stranger_gets_no_answer_of_any_kind(
    programs: Programs, certificate: Path, question: Message
) -> None:
    seed = programs.seed("--tls", certificate)
    peer = programs.peer("--tls", certificate, "--seed", seed.address)
    for program in (seed, peer):
        with pytest.raises(NotTrusted, match="start with --tls"):
            ask(Address.parse(program.address), question, 20, None)


def test_an_insider_gets_the_answers(programs: Programs, certificate: Path) -> None:
    trust = Trust(str(certificate))
    seed = programs.seed("--tls", certificate)
    peer = programs.peer("--tls", certificate, "--seed", seed.address)
    peer.wait_for("registered")
    members = ask(Address.parse(seed.address), ListPeers(), 20, trust)
    assert members == PeerList((Address.parse(peer.address),))
    assert isinstance(ask(Address.parse(peer.address), Inspect(), 20, trust), Inspected)


def test_a_direct_message_to_a_stranger_says_why_it_cannot_be_sent(
    embedded: Embedded, certificate: Path
) -> None:
    plain = embedded.peer()
    peer = embedded.peer(tls=str(certificate))
    with pytest.raises(NetworkError, match="does not speak TLS"):
        peer.send(plain.address, b"are you one of us?")
    with pytest.raises(NetworkError, match="everybody speaks TLS"):
        plain.send(peer.address, b"are you one of us?")


@pytest.mark.parametrize(
    ("delay_s", "outcome"), [(0, Tried.ECHOED), (1.5, Tried.ECHOED), (30, Tried.SILENT)]
)
def test_an_echo_counts_though_the_handshake_before_it_was_late(
    certificate: Path, delay_s: float, outcome: Tried
) -> None:
    """As of a live peer on a machine that is too small: no try alone would find it alive."""
    trust, closing = Trust(str(certificate)), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def echo(sock: socket.socket) -> None:
        closing.wait(delay_s)
        connection = Connection(sock)
        with contextlib.suppress(OSError):
            probe = connection.receive_first(trust, 20)
            assert isinstance(probe, Probe)
            connection.send([Echo(probe.number)])
        connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=echo, args=(listener.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    address = Address("127.0.0.1", listener.getsockname()[1])
    try:
        assert try_address(address, 1.0, trust, TRIES) is outcome
    finally:
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(20)
        for thread in threads:
            thread.join(20)
        listener.close()


# ---- while it runs


@pytest.fixture
def own(tmp_path: Path, certificate: Path) -> Path:
    """A copy of the certificate's folder, to be changed."""
    return Path(shutil.copytree(certificate, tmp_path / "own"))


def serial(folder: Path) -> str:
    """A certificate's serial number, as the list of denied ones has it."""
    return f"{Trust(str(folder))._papers.own.serial:x}"


def test_who_is_revoked_is_cut_off_and_told_so(
    programs: Programs, authority: Authority, own: Path
) -> None:
    thief = authority.issue("127.0.0.1")  # the same machine, another certificate
    seed = programs.seed("--tls", own)
    honest = programs.peers(2, "--tls", own)
    stolen = programs.peer("--tls", thief)
    wait_until(lambda: is_connected([*honest, stolen]), what="three peers in one network")
    (own / "denied.txt").write_text(f"# stolen on the train\n{serial(thief)}  # 127.0.0.1\n")
    reason = "its certificate was revoked"
    for peer in honest:
        peer.wait_for("neighbour_down", neighbour=stolen.address, reason=reason)
    seed.wait_for("peer_removed", peer=stolen.address)
    stolen.wait_for("seed_unreachable", seed=seed.address, reason=f"{SAID}certificate was revoked")
    stolen.wait_for("peer_unreachable", reason=f"{SAID}certificate was revoked")
    seed.wait_for("refused", what="certificate", reason=reason)
    before = [peer.mark() for peer in honest]
    stolen.say("let me in")
    let_pass(3)
    for peer, after in zip(honest, before, strict=True):
        assert peer.all("message", text="let me in") == []
        assert peer.all("neighbour_up", neighbour=stolen.address, after=after) == []
        assert peer.all("dead", neighbour=honest[0].address) == []
    honest[0].say("we go on")
    honest[1].wait_for("message", text="we go on")


def test_who_is_no_longer_denied_is_let_in(programs: Programs, own: Path) -> None:
    first = programs.peer("--tls", own)
    (own / "denied.txt").write_text(f"{serial(own)}\n")
    first.wait_for("certificates")
    second = programs.peer("--tls", own, "--join", first.address)
    second.wait_for("peer_unreachable", peer=first.address)
    (own / "denied.txt").unlink()
    second.wait_for("neighbour_up", neighbour=first.address)


def test_a_new_certificate_is_shown_without_a_restart(
    programs: Programs, authority: Authority, own: Path
) -> None:
    peer = programs.peer("--tls", own)
    newer = authority.issue("127.0.0.1")
    for name in ("node.pem", "node.key"):
        shutil.copy(newer / name, own)
    peer.wait_for("certificates")
    connection = dial(Address.parse(peer.address), 20, Trust(str(newer)))
    assert connection._certificate is not None
    assert f"{connection._certificate.serial:x}" == serial(newer)
    connection.close()


def test_a_folder_that_is_no_longer_good_is_said_and_changes_nothing(
    programs: Programs, certificate: Path, own: Path
) -> None:
    peer = programs.peer("--tls", own)
    (own / "node.pem").write_text("a slip of the hand\n")
    said = peer.wait_for("certificates")["reason"]
    assert said.startswith(f"{own / 'node.pem'} and node.key hold no certificate")
    assert said.endswith("going on with what was read before")
    assert ask(Address.parse(peer.address), Probe(7), 20, Trust(str(certificate))) == Echo(7)


def test_a_seed_reads_its_folder_again_too(programs: Programs, own: Path) -> None:
    seed = programs.seed("--tls", own)
    (own / "denied.txt").write_text("")
    seed.wait_for("certificates")
