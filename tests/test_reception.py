"""Who connects and does not say who it is: so many may wait, and past that the oldest must go."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from directory import RENEWALS_TO_DOUBT, SLOW_ECHOES
from driver import MAX_DIRECT_BYTES
from embedding import Embedded
from helpers import let_pass, wait_until
from journal import Event
from link import Connection, ask, source_of
from messages import (
    PROTOCOL_VERSION,
    Address,
    Bye,
    DeadReport,
    Echo,
    Hello,
    ListPeers,
    Message,
    NetworkError,
    PeerList,
    Probe,
    Refused,
    Register,
    StreamName,
    Verdict,
    Welcome,
)
from peer import Peer
from seed import LEASE_LOOK_INTERVAL_S, Seed
from settings import Tunables

FEW = Tunables(half_open=6, half_open_per_source=4, handshake_timeout_s=60)


@pytest.fixture
def strangers() -> Iterator["Strangers"]:
    with ExitStack() as stack:
        yield Strangers(stack)


class Strangers:
    """Connections of a test that say nothing."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def dial(self, host: Peer | Seed, source: str = "127.0.0.1") -> socket.socket:
        """Connect from that address of this machine."""
        return self.dial_address(host.address, source)

    def dial_address(self, address: str, source: str = "127.0.0.1") -> socket.socket:
        found = Address.parse(address)
        sock = socket.create_connection(found, timeout=20, source_address=(source, 0))
        return self._stack.enter_context(sock)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed it; does not wait."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def refused(host: Peer | Seed) -> int:
    return host.stats()["refused_half_open"]


@pytest.fixture(params=["peer", "seed"])
def host(request: pytest.FixtureRequest, embedded: Embedded) -> Peer | Seed:
    if request.param == "peer":
        return embedded.peer(tunables=FEW)
    return embedded.seed(tunables=FEW)


def test_as_many_as_the_bound_may_wait(host: Peer | Seed, strangers: Strangers) -> None:
    silent = [strangers.dial(host) for _ in range(4)]
    silent += [strangers.dial(host, "127.0.0.2") for _ in range(2)]
    assert ask(Address.parse(host.address), Probe(7), timeout_s=20, trust=None) == Echo(7)
    wait_until(lambda: refused(host) == 1, what="the room made for the one that asked")
    assert sum(map(is_closed, silent)) == 1


def test_past_the_bound_of_a_source_its_own_oldest_goes(
    host: Peer | Seed, strangers: Strangers
) -> None:
    other = strangers.dial(host, "127.0.0.2")
    silent = [strangers.dial(host) for _ in range(7)]
    wait_until(lambda: refused(host) == 3, what="three refusals")
    wait_until(lambda: all(map(is_closed, silent[:3])), what="the end of the oldest three")
    assert not any(map(is_closed, [other, *silent[3:]]))


def test_past_the_bound_of_all_the_oldest_of_the_busiest_source_goes(
    host: Peer | Seed, strangers: Strangers
) -> None:
    other = strangers.dial(host, "127.0.0.2")
    busy = [strangers.dial(host, "127.0.0.3") for _ in range(4)]
    last = strangers.dial(host, "127.0.0.4")
    assert refused(host) == 0
    newcomer = strangers.dial(host, "127.0.0.5")
    wait_until(lambda: is_closed(busy[0]), what="the end of the oldest of the busiest")
    assert not any(map(is_closed, [other, *busy[1:], last, newcomer]))


def test_a_crowd_is_said_once(embedded: Embedded, strangers: Strangers) -> None:
    told: list[str] = []
    host = embedded.peer(
        tunables=FEW, on_event=lambda event: told.append(event["event"] + event.get("what", ""))
    )
    for _ in range(50):
        strangers.dial(host)
    wait_until(lambda: refused(host) == 46, what="46 refusals")
    wait_until(lambda: "refusedhalf_open" in told, what="word of it")
    assert told.count("refusedhalf_open") == 1


def test_who_has_said_who_it_is_is_not_counted(embedded: Embedded, strangers: Strangers) -> None:
    seed = embedded.seed(tunables=FEW)
    peers = [embedded.peer(seeds=[seed.address], tunables=FEW) for _ in range(8)]
    wait_until(lambda: len(seed.peers()) == 8, what="eight registered peers")
    wait_until(lambda: all(map(is_registered, peers)), what="peers that know that they are")
    wait_until(lambda: all(peer.neighbours() for peer in peers), what="links")
    silent = [strangers.dial(seed) for _ in range(4)]
    assert ask(Address.parse(seed.address), ListPeers(), timeout_s=20, trust=None)
    wait_until(lambda: sum(map(is_closed, silent)) == 1, what="the end of one that says nothing")
    assert all(map(is_registered, peers))


def is_registered(peer: Peer) -> bool:
    return any(peer.seeds().values())


@pytest.mark.parametrize("kind", ["peer", "seed"])
def test_who_is_too_slow_to_speak_is_closed_and_counted(
    embedded: Embedded, strangers: Strangers, kind: str
) -> None:
    limits = Tunables(handshake_timeout_s=0.5)
    host = embedded.peer(tunables=limits) if kind == "peer" else embedded.seed(tunables=limits)
    quick = Connection(strangers.dial(host))
    assert isinstance(quick.ask(Probe(1), timeout_s=20), Echo)
    slow = strangers.dial(host)
    slow.send(b"\0")  # and no more
    wait_until(lambda: is_closed(slow), what="the end of who is slow")
    wait_until(lambda: host.stats()["refused_handshakes"] == 1, what="a count of it")


@pytest.mark.parametrize("kind", ["peer", "seed"])
def test_who_breaks_the_protocol_is_closed_and_counted(
    embedded: Embedded, strangers: Strangers, kind: str
) -> None:
    host = embedded.peer() if kind == "peer" else embedded.seed()
    quick = Connection(strangers.dial(host))
    assert isinstance(quick.ask(Probe(1), timeout_s=20), Echo)
    assert host.stats()["refused_frames"] == 0
    noisy = strangers.dial(host)
    noisy.send(b"\xff" * 100)
    wait_until(lambda: is_closed(noisy), what="the end of who makes noise")
    wait_until(lambda: host.stats()["refused_frames"] == 1, what="a count of it")


def test_newcomers_of_one_address_past_the_bound_are_turned_away(
    embedded: Embedded, strangers: Strangers
) -> None:
    peer = embedded.peer(tunables=Tunables(admissions=2, admissions_per_s=0.001))

    def enter(port: int, source: str) -> Message:
        me = StreamName(Address(source, port), 1)
        hello = Hello(PROTOCOL_VERSION, me.origin, me.boot_ms, 0, False, me.key)
        return Connection(strangers.dial(peer, source)).ask(hello, timeout_s=20)

    assert [type(enter(port, "127.0.0.1")) for port in (1, 2, 3)] == [Welcome, Welcome, Refused]
    assert peer.stats()["refused_admissions"] == 1
    assert isinstance(enter(4, "127.0.0.2"), Welcome)


def test_messages_for_one_peer_wait_up_to_a_bound_and_then_are_not_accepted(
    embedded: Embedded,
) -> None:
    sender, slow = embedded.peer(), embedded.peer()
    go_on = threading.Event()
    slow.on_direct(lambda *_: go_on.wait())
    piece = bytes(MAX_DIRECT_BYTES // 10)
    try:
        assert all(accepts(slow, sender, piece) for _ in range(10))
        assert slow.stats()["refused_directs"] == 0
        wait_until(lambda: not accepts(slow, sender, piece), what="the bound")
        assert slow.stats()["refused_directs"] == 1
    finally:
        go_on.set()
    wait_until(lambda: accepts(slow, sender, piece), what="room for more")


def accepts(host: Peer, sender: Peer, payload: bytes) -> bool:
    try:
        sender.send(host.address, payload)
    except NetworkError:
        return False
    return True


def test_who_only_asks_a_seed_is_not_kept_for_long(
    embedded: Embedded, strangers: Strangers
) -> None:
    seed = embedded.seed(tunables=Tunables(handshake_timeout_s=0.5))
    asker = Connection(strangers.dial(seed))
    assert asker.ask(ListPeers(), timeout_s=20) == PeerList(())
    wait_until(lambda: is_closed(asker.socket), what="the end of who only asked")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8::1", "2001:db8::ffff:1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_one_network_is_one_source(one: str, other: str) -> None:
    assert source_of(one) == source_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1"), ("::1", "::ffff:0.0.0.1")],
)
def test_two_networks_are_two_sources(one: str, other: str) -> None:
    assert source_of(one) != source_of(other)


# ---- what a seed takes ---------------------------------------------------------------------------


def register(
    seed: Seed, address: str, strangers: Strangers, answer: type[Message] = PeerList
) -> Connection:
    connection = Connection(strangers.dial(seed))
    given = connection.ask(Register(Address.parse(address), boot_ms=1), timeout_s=20)
    assert isinstance(given, answer)
    return connection


def test_a_seed_lists_nobody_who_gives_no_echo(embedded: Embedded, strangers: Strangers) -> None:
    seed = embedded.seed()
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        for port in (1, silent.getsockname()[1]):
            register(seed, f"127.0.0.1:{port}", strangers, Refused)
    assert seed.peers() == []
    assert seed.stats()["refused_registrations"] == 2
    peer = embedded.peer()
    register(seed, peer.address, strangers)
    assert seed.peers() == [peer.address]


def test_a_seed_lists_so_many_of_one_source_and_no_more(
    embedded: Embedded, strangers: Strangers
) -> None:
    seed = embedded.seed(tunables=Tunables(leases_per_source=2))
    peers = [embedded.peer() for _ in range(3)]
    kept = [register(seed, peer.address, strangers) for peer in peers[:2]]
    register(seed, peers[2].address, strangers, Refused)
    assert sorted(seed.peers()) == sorted(peer.address for peer in peers[:2])
    assert seed.stats()["refused_registrations"] == 1
    again = Register(Address.parse(peers[0].address), boot_ms=1)
    assert isinstance(kept[0].ask(again, timeout_s=20), PeerList)
    assert seed.stats()["refused_registrations"] == 1


def test_a_seed_dials_no_more_for_one_source_than_the_bound(
    embedded: Embedded, strangers: Strangers
) -> None:
    seed = embedded.seed(tunables=Tunables(attempts=3, attempts_per_s=1e-9))
    for _ in range(3):
        register(seed, "127.0.0.1:1", strangers, Refused)
    assert seed.stats()["refused_attempts"] == 0
    register(seed, embedded.peer().address, strangers, Refused)
    assert seed.stats()["refused_attempts"] == 1
    assert seed.peers() == []


def test_one_connection_registers_one_peer(embedded: Embedded, strangers: Strangers) -> None:
    seed = embedded.seed()
    peers = [embedded.peer() for _ in range(2)]
    connection = register(seed, peers[0].address, strangers)
    connection.send([Register(Address.parse(peers[1].address), boot_ms=1)])
    wait_until(lambda: is_closed(connection.socket), what="the end of the connection")
    wait_until(lambda: seed.peers() == [peers[0].address], what="a list of one")


@pytest.mark.parametrize("lives", [True, False])
def test_who_has_said_goodbye_is_not_kept(
    embedded: Embedded, strangers: Strangers, lives: bool
) -> None:
    """Nor taken off the list while it lives: anybody may say goodbye for it."""
    seed, peer = embedded.seed(), embedded.peer()
    connection = register(seed, peer.address, strangers)
    if not lives:
        peer.stop()
    connection.send([Bye("leaving", is_leaving=True)])
    wait_until(lambda: is_closed(connection.socket), what="the end of the connection")
    assert seed.peers() == ([peer.address] if lives else [])


@pytest.mark.parametrize("was_refused", [True, False])
def test_who_says_goodbye_unregistered_does_nothing_wrong(
    embedded: Embedded, strangers: Strangers, was_refused: bool
) -> None:
    """As a peer that is told to stop while the seed still tries it."""
    seed = embedded.seed()
    connection = Connection(strangers.dial(seed))
    if was_refused:
        connection = register(seed, "127.0.0.1:1", strangers, Refused)
    connection.send([Bye("leaving", is_leaving=True)])
    wait_until(lambda: is_closed(connection.socket), what="the end of the connection")
    assert seed.stats()["refused_frames"] == 0


class Forgetful:
    """Echoes to those who dial it, as often as it is told to; says nothing to the others."""

    def __init__(self, *echoes: bool) -> None:
        self._echoes = echoes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with ExitStack() as stack:
            for echoes in self._echoes:
                connection = Connection(stack.enter_context(self._listener.accept()[0]))
                probe = connection.receive_one(20)
                assert isinstance(probe, Probe)
                if echoes:
                    connection.send([Echo(probe.number)])

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()


@pytest.mark.parametrize("lives", [True, False])
def test_two_lost_packets_take_no_live_peer_off_the_list(
    embedded: Embedded, strangers: Strangers, lives: bool
) -> None:
    seed = embedded.seed()
    peer = Forgetful(True, False, False, lives)
    register(seed, str(peer.address), strangers)
    reporter = Connection(strangers.dial(seed))
    report = DeadReport(peer.address, Address("127.0.0.1", 1))
    assert reporter.ask(report, timeout_s=20) == Verdict(peer.address, not lives)
    peer.close()


class Slow:
    """Echoes to whoever dials it, but takes its time."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = Connection(self._listener.accept()[0])
                self._threads.append(threading.Thread(target=self._echo, args=(connection,)))
                self._threads[-1].start()

    def _echo(self, connection: Connection) -> None:
        with suppress(OSError):
            probe = connection.receive_one(20)
            assert isinstance(probe, Probe)
            self._closing.wait(self.delay_s)
            connection.send([Echo(probe.number)])
        connection.close()

    def close(self) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(20)
        for thread in self._threads[1:]:
            thread.join(20)
        self._listener.close()


@contextmanager
def slow_peers(count: int = SLOW_ECHOES) -> Iterator[list[Slow]]:
    """So many, slow enough for a seed to learn that echoes take long."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Slow(0.6))) for _ in range(count)]


def report_in_vain(seed: Seed, accused: Address, strangers: Strangers) -> None:
    """Somebody reports it dead, and the seed keeps it on its list."""
    reporter = Connection(strangers.dial(seed))
    report = DeadReport(accused, Address("127.0.0.1", 1))
    assert reporter.ask(report, timeout_s=20) == Verdict(accused, is_removed=False)


def check_the_end_of_a_doubt(
    seed: Seed, accused: Address, renew_interval_s: float, lives: bool
) -> None:
    """Whether it stays on the list, or is taken off it."""
    if lives:
        let_pass(RENEWALS_TO_DOUBT * renew_interval_s + LEASE_LOOK_INTERVAL_S)
        assert str(accused) in seed.peers()
    else:
        wait_until(lambda: str(accused) not in seed.peers(), what="the end of the doubt")


@pytest.mark.parametrize(("delay_s", "lives"), [(1.5, True), (30, False)])
def test_an_echo_that_comes_while_the_seed_tries_again_is_an_echo(
    embedded: Embedded, strangers: Strangers, delay_s: float, lives: bool
) -> None:
    """As of a live peer on a machine that is too small: each try alone would find it silent."""
    seed = embedded.seed()
    peer = Slow(delay_s)
    try:
        register(seed, str(peer.address), strangers, PeerList if lives else Refused)
        assert seed.peers() == ([str(peer.address)] if lives else [])
    finally:
        peer.close()


@pytest.mark.parametrize("lives", [True, False])
def test_a_seed_whose_echoes_take_long_of_late_waits_longer(
    embedded: Embedded, strangers: Strangers, lives: bool
) -> None:
    limits = Tunables(renew_interval_s=6)
    seed = embedded.seed(tunables=limits)
    with slow_peers() as peers:
        accused = peers[0].address
        for peer in peers:
            register(seed, str(peer.address), strangers)
        peers[0].delay_s = 30
        report_in_vain(seed, accused, strangers)
        if lives:
            peers[0].delay_s = 0
        check_the_end_of_a_doubt(seed, accused, limits.renew_interval_s, lives)


@pytest.mark.parametrize("is_own", [True, False])
def test_a_doubt_is_ended_by_a_renewal_over_the_peers_own_connection_alone(
    embedded: Embedded, strangers: Strangers, is_own: bool
) -> None:
    """An insider that renews for a dead peer, and echoes slowly itself, does not keep it listed."""
    limits = Tunables(renew_interval_s=4)
    seed = embedded.seed(tunables=limits)
    with slow_peers() as peers:
        accused = peers[0].address
        own, another, *_ = [register(seed, str(p.address), strangers) for p in [peers[0], *peers]]
        peers[0].delay_s = 30
        report_in_vain(seed, accused, strangers)
        renewing = own if is_own else another
        assert renewing.ask(Register(accused, boot_ms=1), timeout_s=20)
        check_the_end_of_a_doubt(seed, accused, limits.renew_interval_s, lives=is_own)


def test_once_a_connection_has_ended_a_renewal_over_another_needs_an_echo(
    embedded: Embedded, strangers: Strangers
) -> None:
    """It may have been the peer's own, so whoever is left has to prove that it lives."""
    seed = embedded.seed(tunables=Tunables(attempts=3, attempts_per_s=1e-9))
    peer = embedded.peer()
    own, another = [register(seed, peer.address, strangers) for _ in range(2)]
    own.close()
    listed = Address.parse(peer.address)
    wait_until(lambda: len(seed._guests[listed]) == 1, what="the end of the first")
    for _ in range(5):
        assert isinstance(another.ask(Register(listed, boot_ms=1), timeout_s=20), PeerList)
    assert seed.stats()["refused_attempts"] == 0, "one echo is enough"
    register(seed, embedded.peer().address, strangers, Refused)
    assert seed.stats()["refused_attempts"] == 1, "and one was wanted"


def test_many_that_register_at_once_are_no_more_than_one_source_may(
    embedded: Embedded, strangers: Strangers
) -> None:
    """All are tried at the same time, and each would have had room before."""
    seed = embedded.seed(tunables=Tunables(leases_per_source=2))
    with slow_peers(6) as peers:
        words = [Register(peer.address, boot_ms=1) for peer in peers]
        connections = [Connection(strangers.dial(seed)) for _ in peers]
        for connection, word in zip(connections, words, strict=True):
            connection.send([word])
        answers = [type(connection.receive_one(20)) for connection in connections]
        assert (answers.count(PeerList), answers.count(Refused)) == (2, 4)
        assert len(seed.peers()) == 2
        assert seed.stats()["refused_registrations"] == 4


@pytest.mark.parametrize("is_dead", [True, False])
def test_what_is_told_of_a_report_is_what_was_found(
    embedded: Embedded, strangers: Strangers, is_dead: bool
) -> None:
    """A seed that only doubts does not say that it had an echo."""
    events: list[Event] = []
    seed = embedded.seed(on_event=events.append)
    with slow_peers() as peers:
        for peer in peers:
            register(seed, str(peer.address), strangers)
        peers[0].delay_s = 30 if is_dead else 0
        report_in_vain(seed, peers[0].address, strangers)
        [told] = [event for event in events if event["event"] == "dead_report"]
        assert told["verdict"] == "still alive"
        doubt = "it gave no echo, as others are slow to; it is tried again"
        assert told["reason"] == (doubt if is_dead else "it gave an echo")
