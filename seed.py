"""A seed: holds the list of live peers in memory, and hands it to whoever asks.

Run it (`python3 seed.py`) or embed it (`from seed import Seed`). A seed introduces peers to each
other and is not needed for anything else. It believes no report of a death: it tries the accused
itself.
"""

if __name__ == "__main__":  # a signal waits until the program can end as it should
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import settings
from directory import Directory
from journal import Event, Journal
from limits import CERTIFICATE, OF_A_SEED, Budgets, Refusals, Tally
from link import Connection, Listener, advertised, reason_of, try_address
from liveness import Tried
from messages import (
    Address,
    AddressInUse,
    BadAddress,
    BadCertificate,
    Bye,
    DeadReport,
    Echo,
    ListPeers,
    Message,
    NetworkError,
    NotRunning,
    PeerList,
    Probe,
    Refused,
    Register,
    Verdict,
    WireError,
)
from settings import CONFIG_FILE, LOG_FILE, Tunables
from threads import Reception, Startable, Threads
from tls import NotTrusted
from trust import Trust
from wire import Run, encode

__all__ = [
    "AddressInUse",
    "BadAddress",
    "BadCertificate",
    "NetworkError",
    "NotRunning",
    "Seed",
]

LEASE_LOOK_INTERVAL_S = 1.0  # how often lapsed leases are looked for
TRIES = 3  # TCP sends a lost first packet again after a second, when the try is over. Where one in
# a hundred is lost each way, one try in 50 finds a live peer silent; three in a row, 8 in a million
PARALLEL_ATTEMPTS = 32  # lapsed peers tried at a time: 1,000 silent ones take a minute and a half
NO_ROOM = "there are too many from there"
STOP_TIMEOUT_S = 1.7  # a stop is over by then; two seconds are promised

_log = logging.getLogger("peer-to-peer")


@dataclass(eq=False, slots=True)
class Guest:
    """Who has connected, and as which peer it is registered over this connection."""

    connection: Connection
    peer: Address | None = None


class Seed(Startable):
    """One seed. Start it; `with` stops it again.

    `port` 0 takes a free one; `ip` is the host to listen on. `config` is the file that it lists
    itself in while it runs. `advertise` is the address that is listed ("host" or "host:port").
    `log` is the file events are appended to, None for none; `on_event` is called with each event.
    `tls` is a folder of certificates. `tunables` are those of settings.py. Raises BadCertificate
    for a folder that does not hold what it should; BadAddress, when it starts, for hosts that are
    none.
    """

    def __init__(
        self,
        port: int = 12345,
        ip: str = "localhost",
        *,
        advertise: str | None = None,
        config: str = CONFIG_FILE,
        log: str | None = LOG_FILE,
        on_event: Callable[[Event], None] | None = None,
        tls: str | None = None,
        tunables: Tunables | None = None,
    ) -> None:
        self._bind_to = (ip, port)
        self._advertise = advertise
        self._config = config
        self._log_file = log
        self._on_event = on_event
        self._trust = None if tls is None else Trust(tls)
        self._tunables = tunables or Tunables()
        self._lock = threading.Lock()  # guards what follows
        self._directory = Directory(self._tunables, random.Random())
        self._listed = PeerList(())  # the latest answer to who asks, and how it looks on the wire
        self._encoded = encode(self._listed)
        self._guests: dict[Address, set[Guest]] = {}  # who is registered as which peer
        self._held = Tally()  # how many of them come from each source
        self._attempts = Budgets(self._tunables.attempts, self._tunables.attempts_per_s)
        self._refusals = Refusals(*OF_A_SEED)
        self._is_started = False
        self._stopping = threading.Event()

    # ---- for the program ----

    def start(self) -> None:
        """Listen; returns once it does.

        Raises AddressInUse, BadAddress, OSError; NotRunning when it was started before.
        """
        with self._lock:
            self._check_is_new(self._is_started)
            self._listener = Listener(*self._bind_to)
            try:
                self._me = advertised(self._listener.address, self._advertise, self._trust)
                self._journal = Journal(self._me, self._log_file, self._on_event)
                self.config_entry()
            except BaseException:
                self._listener.close()
                raise
            self._threads = Threads(str(self._me), self._journal.failure)
            self._reception = Reception(
                self._listener, self._threads, self.handle_peer, self._tunables, self._refuse
            )
            self._is_started = True
        self._journal.record("listening", address=str(self._listener.address))
        with self._wholly(self._listener):
            self._threads.start("accept", self._reception.accept, self._stopping)
            self._threads.start("expire", self._expire)

    def listen(self) -> None:
        """Start, and return once the seed has been stopped."""
        self.start()
        self._stopping.wait()

    def config_entry(self) -> None:
        """List this seed in the config file. Raises OSError."""
        settings.add_seed(self._config, self._me)

    def reload(self) -> None:
        """Read the config file again, and be listed there; open the log anew. Raises OSError."""
        self.config_entry()
        self._journal.reopen()
        self._journal.record("config_read", seeds=len(settings.read_seeds(self._config).seeds))

    def stop(self, reason: str = "asked to") -> None:
        """Leave the list, close every connection, join the threads. May be called twice."""
        with self._lock:
            if not self._is_started or self._stopping.is_set():
                return
            self._stopping.set()
            registered = [guest for guests in self._guests.values() for guest in guests]
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        try:
            settings.remove_seed(self._config, self._me)
        except OSError as error:
            _log.warning("%s stays listed in %s: %s", self._me, self._config, error)
        self._reception.abort()
        for guest in registered:
            guest.connection.abort()
        self._threads.join(deadline_s)
        self._journal.record("stopped", reason=reason)
        self._journal.close()

    @property
    def address(self) -> str:
        """The address that peers are told, `host:port`. Raises NotRunning before the start."""
        if not self._is_started:
            raise NotRunning("the seed was not started")
        return str(self._me)

    def peers(self) -> list[str]:
        """The addresses of the live peers; at most 1,000, at random, of a longer list."""
        return [str(peer) for peer in self._peer_list().peers]

    def stats(self) -> dict[str, int]:
        """Counters since the start; their names say of what."""
        with self._lock:
            return {"peers": len(self._directory), **self._refusals.stats()}

    # ---- threads ----

    def handle_peer(self, connection: Connection) -> None:
        """Serve one connected peer until it parts; if it just vanishes, see whether it lives."""
        guest = Guest(connection)
        limits = self._tunables
        try:
            try:
                first = connection.receive_first(self._trust, limits.handshake_timeout_s)
            except TimeoutError:
                self._refuse("handshakes", connection.source, "it is too slow to speak")
                raise
            self._answer(guest, first)
            while guest.peer is None:
                message = connection.receive_one(limits.handshake_timeout_s)
                connection.socket.settimeout(limits.handshake_timeout_s)  # to read the answer
                self._answer(guest, message)
            connection.socket.settimeout(2 * limits.lease_s)  # it renews far more often
            for items in connection.frames():
                for item in items:
                    self._answer(guest, item)
        except NotTrusted as error:
            self._refuse(CERTIFICATE, connection.source, reason_of(error))
        except WireError as error:
            self._refuse("frames", connection.source, str(error))
        except OSError as error:
            _log.debug("%s: a connection ended: %s", self._me, error)
        finally:
            peer = self._part(guest)
            connection.close()
        if peer is not None:
            self._remove_if_dead(peer, "its connection was lost")

    def _expire(self) -> None:
        """Try the peers whose lease has lapsed, and look after certificates, until the end."""
        while not self._stopping.wait(LEASE_LOOK_INTERVAL_S):
            if self._trust is not None and (news := self._trust.look()):
                self._journal.record("certificates", reason=news)
            with self._lock:
                lapsed = self._directory.lapsed(time.monotonic())
            try_each = partial(self._remove_if_dead, why="its lease has ended")
            self._threads.each("try", try_each, lapsed, PARALLEL_ATTEMPTS)

    # ---- answers ----

    def _answer(self, guest: Guest, item: Message | Run) -> None:
        """Answer one message."""
        connection = guest.connection
        match item:
            case Register(address, _) if guest.peer in (None, address):
                connection.require(address)
                if fault := self._register(guest, item):
                    connection.send(
                        [Refused(self._me, f"{address}: {fault}", self._peer_list().peers)]
                    )
                else:
                    connection.send_frames(self._list())
            case ListPeers():
                connection.send_frames(self._list())
            case DeadReport(accused, reporter):
                connection.require(reporter)
                is_removed = self._judge(accused, reporter, connection.source)
                connection.send([Verdict(accused, is_removed)])
            case Probe(number):
                connection.send([Echo(number)])
            case Bye():
                peer = self._part(guest)
                if peer is not None and self._may_try(connection.source):  # anybody may say so
                    self._remove_if_dead(peer, "it has left")
                connection.abort()
            case _:
                raise WireError(f"{type(item).__name__}: not expected by a seed")

    def _register(self, guest: Guest, register: Register) -> str:
        """List the peer or renew its lease; only if it gives an echo, unless the guest holds it.

        Why it is not listed; empty if it is.
        """
        peer, boot_ms, source = register.address, register.boot_ms, guest.connection.source
        with self._lock:
            is_known = self._directory.is_held_by(peer, boot_ms, guest)
            has_room = self._has_room(peer, guest)
        if has_room and not is_known and (fault := self._fault_of(peer, source)):
            self._refuse("registrations", source, f"{peer}: {fault}")
            return fault
        with self._lock:
            has_room = has_room and self._has_room(peer, guest)  # others came during the attempt
            now_s = time.monotonic()
            is_new = has_room and self._directory.register(peer, boot_ms, now_s, source, guest)
            count = len(self._directory)
            if has_room and guest.peer is None:
                guest.peer = peer
                self._guests.setdefault(peer, set()).add(guest)
                self._held.change(source, 1)
            is_over = self._stopping.is_set()
        if not has_room:
            self._refuse("registrations", source, f"{peer}: {NO_ROOM}")
            return NO_ROOM
        self._reception.is_known(guest.connection)
        if is_over:
            guest.connection.abort()
        if is_new:
            self._journal.record("peer_registered", peer=str(peer), peers=count)
        return ""

    def _has_room(self, peer: Address, guest: Guest) -> bool:
        """Whether the peer and the guest are registered, or one more may be from that source."""
        source = guest.connection.source
        may_hold = guest.peer is not None or self._held[source] < self._tunables.leases_per_source
        return may_hold and self._directory.has_room(peer, source)

    def _part(self, guest: Guest) -> Address | None:
        """It is registered no more over this connection. Returns as which peer it was, if any."""
        with self._lock:
            peer, guest.peer = guest.peer, None
            if peer is not None:
                self._held.change(guest.connection.source, -1)
                self._guests[peer].discard(guest)
                self._directory.release(peer)
                if not self._guests[peer]:
                    del self._guests[peer]
        return peer

    def _fault_of(self, peer: Address, source: str) -> str:
        """Why the peer cannot be listed; empty if it can."""
        if not self._may_try(source):
            return "it asks us to dial too much"
        outcome = self._try(peer)
        return "" if outcome is Tried.ECHOED else _FOUND[outcome]

    def _try(self, peer: Address) -> Tried:
        """Whether the peer lives. Silence has further chances."""
        began_s = time.monotonic()
        outcome = try_address(peer, self._tunables.probe_timeout_s, self._trust, TRIES)
        if outcome is Tried.ECHOED:
            now_s = time.monotonic()
            with self._lock:
                self._directory.echo_took(now_s - began_s, now_s)
        return outcome

    def _may_try(self, source: str) -> bool:
        """Whether that source may have us dial once more."""
        with self._lock:
            may_try = self._attempts.spend(source, time.monotonic())
        if not may_try:
            self._refuse("attempts", source, "it asks us to dial too much")
        return may_try

    def _peer_list(self) -> PeerList:
        """The list as it is now."""
        with self._lock:
            return self._directory.listed(time.monotonic())

    def _list(self) -> bytes:
        """The list as it is sent; encoded once for all who get the same."""
        with self._lock:
            listed = self._directory.listed(time.monotonic())
            if listed is not self._listed:
                self._listed, self._encoded = listed, encode(listed)
            return self._encoded

    def _judge(self, accused: Address, reporter: Address, source: str) -> bool:
        """A report of a death is only a hint. True if the accused is off the list."""
        if not self._may_try(source):
            return False
        is_removed, reason = self._remove_if_dead(accused, f"{reporter} reported it dead")
        verdict = "removed" if is_removed else "still alive"
        details = {"peer": str(accused), "reporter": str(reporter), "verdict": verdict}
        self._journal.record("dead_report", **details, reason=reason)
        return is_removed

    def _remove_if_dead(self, peer: Address, why: str) -> tuple[bool, str]:
        """Try a listed peer, and remove it if it gives no echo.

        Whether it is off the list, and what was found.
        """
        with self._lock:
            boot_ms = self._directory.boot_of(peer)
        if boot_ms is None:
            return True, "it is not on the list"
        outcome = self._try(peer)
        found = _FOUND[outcome]
        if outcome is Tried.UNTRIED:
            return False, found
        with self._lock:
            if outcome is Tried.ECHOED:
                self._directory.extend(peer, boot_ms, time.monotonic())
                return False, found
            if outcome is Tried.SILENT and self._directory.doubt(peer, boot_ms, time.monotonic()):
                return False, f"{found}, as others are slow to; it is tried again"
        self._remove(peer, boot_ms, f"{why}, and {found}")
        return True, found

    def _remove(self, peer: Address, boot_ms: int, reason: str) -> None:
        """Take it off the list, and end its connections: if it lives, it registers anew."""
        with self._lock:
            is_removed = self._directory.remove(peer, boot_ms)
            count = len(self._directory)
            guests = list(self._guests.get(peer, ())) if is_removed else []
        for guest in guests:
            guest.connection.abort()
        if is_removed and not self._stopping.is_set():
            self._journal.record("peer_removed", peer=str(peer), reason=reason, peers=count)

    # ---- limits ----

    def _refuse(self, limit: str, source: str, reason: str) -> None:
        """Count what was refused, and say so now and then."""
        with self._lock:
            self._refusals.refuse(limit, source, reason, time.monotonic())
            news = self._refusals.collect()
        for details in news:
            self._journal.record("refused", **details)


_FOUND = {
    Tried.ECHOED: "it gave an echo",
    Tried.REFUSED: "it refused a connection",
    Tried.SILENT: "it gave no echo",
    Tried.UNTRUSTED: "there is no trust between us",
    Tried.UNTRIED: "this seed has no descriptor, port or address to try it from",
}


if __name__ == "__main__":
    sys.modules["seed"] = sys.modules["__main__"]  # the console imports it: no second copy
    import console

    sys.exit(console.run_seed())
