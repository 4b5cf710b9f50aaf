"""A peer: joins the network through seeds or other peers, says things, and hears everything.

Run it (`python3 peer.py`) or embed it (`from peer import Peer`). Here are its threads: they wait
for sockets, hand what arrives to the node, and do what it decides. What it decides is in `node.py`.
"""

if __name__ == "__main__":  # a signal waits until the program can end as it should
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import contextlib
import logging
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from actions import Action, Dial, Notify, Report, Try
from delivery import Delivery, Message
from driver import Driver, Link, now_s
from journal import Event, Journal
from limits import CERTIFICATE
from link import Connection, Listener, advertised, ask, dial, reason_of, try_address
from messages import (
    MAX_PAYLOAD_BYTES,
    Address,
    AddressInUse,
    BadAddress,
    BadCertificate,
    BroadcastTimeout,
    Bye,
    Direct,
    Hello,
    MessageTooLarge,
    NetworkError,
    NotRunning,
    Received,
    Refused,
    StreamName,
    Welcome,
    WireError,
)
from node import Node
from overlay import Dialled
from registration import Registration, SeedSource, ask_members
from settings import CONFIG_FILE, LOG_FILE, Tunables
from threads import NoThread, Reception, Startable, Threads
from tls import NotTrusted
from trust import Trust

__all__ = ["AddressInUse", "BadAddress", "BadCertificate", "BroadcastTimeout", "Event", "Message"]
__all__ += ["MessageTooLarge", "NetworkError", "NotRunning", "Peer"]

FAREWELL_TIMEOUT_S = 0.5  # for a neighbour to read our last words and close
STOP_TIMEOUT_S = 1.6  # for the threads to end; two seconds are promised for all
CUT_SHORT_TIMEOUT_S = 0.2  # for the program to take in the event or message that it is being given

BeginLink = Callable[[Link], None]  # hands a link to the threads that wait for it

_log = logging.getLogger("peer-to-peer")


class Peer(Startable):
    """One peer of the network. Start it, say things, hear everything; `with` stops it again.

    `port` 0 takes a free one; `ip` is the host to listen on. `seeds` are "host:port" texts; None
    reads the file `config`. `join` are peers to dial although no seed names them. `advertise` is
    the address that others are told ("host" or "host:port"). `log` is the file events are appended
    to, None for none; `on_event` is called with each event, of which `verbose` makes more.
    `gossip_every_s` above 0 broadcasts a short text that often, `gossip_count` times at most (0:
    for ever). With `no_history` the peer hears only what is said after it joined. `tls` is a folder
    of certificates. `tunables` are explained in settings.py. Raises BadAddress for a text that is
    no address, BadCertificate for a folder that does not hold what it should.
    """

    def __init__(
        self,
        port: int = 0,
        ip: str = "localhost",
        seeds: Iterable[str] | None = None,
        *,
        join: Iterable[str] = (),
        advertise: str | None = None,
        config: str = CONFIG_FILE,
        log: str | None = LOG_FILE,
        gossip_every_s: float = 0,
        gossip_count: int = 0,
        no_history: bool = False,
        verbose: bool = False,
        on_event: Callable[[Event], None] | None = None,
        tls: str | None = None,
        tunables: Tunables | None = None,
    ) -> None:
        self._bind_to = (ip, port)
        self._seeds = SeedSource(None if seeds is None else map(Address.parse, seeds), config)
        self._join = [Address.parse(contact) for contact in join]
        self._advertise = advertise
        self._log_file = log
        self._gossip_every_s = gossip_every_s
        self._gossip_count = gossip_count
        self._no_history = no_history
        self._is_verbose = verbose
        self._on_event = on_event
        self.trust = None if tls is None else Trust(tls)
        self._tunables = tunables or Tunables()
        is_recording = log is not None or on_event is not None
        record = self._record if is_recording else None
        keep_bytes = self._tunables.inbox_bytes if on_event is None else 0
        self._delivery = Delivery(record, keep_bytes)
        self._state_lock = threading.Lock()  # guards what follows
        self._is_started = False
        self._stopping = threading.Event()

    # ---- for the program ----

    def start(self) -> None:
        """Listen, and begin to join; returns at once.

        Raises AddressInUse, BadAddress, OSError; NotRunning when it was started before.
        """
        with self._state_lock:
            self._check_is_new(self._is_started)
            self._listener = Listener(*self._bind_to)
            try:
                address = advertised(self._listener.address, self._advertise, self.trust)
                self._journal = Journal(address, self._log_file, self._on_event)
            except BaseException:
                self._listener.close()
                raise
            self._me = StreamName(address, time.time_ns() // 1_000_000)
            self._assemble()
            self._is_started = True
        self._notify("listening", address=str(self._listener.address))
        with self._wholly(self._listener):
            self._delivering.start("deliver", self._delivery.deliver, self._driver.wait_for_news)
            self._driver.decide(self._driver.node.learn, self._join)
            for loop in (self.listen, self.handle_seeds, self.connect_to_peers):
                self._threads.start(loop.__name__, loop)
            if self._gossip_every_s > 0:
                self._threads.start("say_something", self.say_something)

    def _assemble(self) -> None:
        rng = random.Random()
        node = Node(self._me, self._tunables, rng, now_s(), wants_history=not self._no_history)
        self._driver = Driver(node, self._tunables, self._is_verbose, self._carry_out)
        self._threads = Threads(str(self._me.origin), self._journal.failure)
        self._registration = Registration(
            *(self._me, self._seeds, self._tunables, rng, self.trust),
            start=self._threads.start,
            notify=self._notify,
            has_changed=self._introduced,
        )
        self._delivering = Threads(str(self._me.origin), self._journal.failure)
        self._reception = Reception(
            self._listener, self._threads, self.handle_peer, self._tunables, self._driver.refuse
        )

    def stop(self, reason: str = "asked to") -> None:
        """Send what is owed, tell neighbours and seeds, join the threads. May be called twice."""
        with self._state_lock:
            if not self._is_started or self._stopping.is_set():
                return
            self._stopping.set()
        self._reception.abort()
        self._registration.stop()
        deadline_s = now_s() + STOP_TIMEOUT_S
        self._driver.leave(reason, self._tunables.flush_timeout_s)
        self._threads.join(deadline_s)
        self._driver.end()
        self._delivery.close()
        self._delivering.join(deadline_s)
        self._delivery.cut_short()
        self._delivering.join(deadline_s + CUT_SHORT_TIMEOUT_S)
        self._record("stopped", reason=reason)
        self._journal.close()

    @property
    def address(self) -> str:
        """The address that others are told, `host:port`. Raises NotRunning before the start."""
        if not self._is_started:
            raise NotRunning("the peer was not started")
        return str(self._me.origin)

    @property
    def sockets_to_peers(self) -> dict[str, socket.socket]:
        """The socket of each link, by the neighbour's address; none unless the peer runs."""
        if not self._is_started:
            return {}
        with self._driver.lock:
            links = self._driver.links.items()
            return {str(neighbour): link.connection.socket for neighbour, link in links}

    def broadcast(self, payload: bytes, timeout: float | None = None) -> int:
        """Say something to everyone. Returns its number: 1, 2, 3 …

        Waits while others are far behind, unless they do not keep up anyway; and while more was
        said than `stream_messages_per_s` allows. Raises MessageTooLarge, NotRunning, and
        BroadcastTimeout after `timeout` seconds of waiting.
        """
        self._check_may_say(payload)
        return self._driver.broadcast(bytes(payload), timeout)

    def send(self, address: str, payload: bytes) -> None:
        """Say something to one peer alone; returns once it has it.

        Raises BadAddress, MessageTooLarge, NotRunning, and NetworkError when it cannot be reached.
        """
        self._check_may_say(payload)
        message = Direct(self._me.origin, bytes(payload))
        try:
            answer = ask(Address.parse(address), message, self._tunables.dial_timeout_s, self.trust)
        except OSError as error:
            raise NetworkError(f"{address} cannot be reached: {reason_of(error)}") from error
        if not isinstance(answer, Received):
            raise NetworkError(f"{address} is no peer: it answered {type(answer).__name__}")

    def on_message(self, callback: Callable[[Message], object]) -> None:
        """Call this with every message from others, in order, from one thread of the peer."""
        self._delivery.on_message(callback)
        if self._is_started:
            self._driver.look_again()

    def on_direct(self, callback: Callable[[str, bytes], object]) -> None:
        """Call this with the origin and payload of every message to this peer alone."""
        self._delivery.on_direct(callback)

    def messages(self) -> Iterator[Message]:
        """Every message from others, in order; ends when the peer stops. Raises NotRunning."""
        self._check_running()
        iterator = self._delivery.messages()
        self._driver.look_again()
        return iterator

    def neighbours(self) -> list[str]:
        """The addresses of the peers that this one holds a link to. Raises NotRunning."""
        self._check_running()
        return list(self.sockets_to_peers)

    def members(self) -> list[str]:
        """All live peers, asked of the seeds; a part of a very long list. Raises NotRunning."""
        self._check_running()
        timeout_s = self._tunables.dial_timeout_s
        members = ask_members(self._registration.seeds(), timeout_s, self.trust)
        return [str(member) for member in sorted(members)]

    def seeds(self) -> dict[str, bool]:
        """Each seed listed, and whether this peer is registered there. Raises NotRunning."""
        self._check_running()
        return {str(seed): is_ours for seed, is_ours in self._registration.seeds().items()}

    def stats(self) -> dict[str, int]:
        """Counters since the start; their names say of what. Raises NotRunning."""
        self._check_running()
        return self._driver.stats()

    def links(self) -> list[dict[str, Any]]:
        """Each neighbour: who dialled, seconds there and back, messages owed. Raises NotRunning."""
        self._check_running()
        with self._driver.lock:
            return self._driver.node.links()

    def is_heard(self) -> bool:
        """Whether some neighbour is there, and every neighbour has shown that it has all we said.

        It asks them, so that a later call knows more. Raises NotRunning.
        """
        self._check_running()
        return self._driver.is_heard()

    def reload(self) -> None:
        """Read the list of seeds again, and open the log file anew. Raises NotRunning."""
        self._check_running()
        self._journal.reopen()
        self._registration.reload()

    # ---- threads of the peer ----

    def listen(self) -> None:
        """Accept connections, a thread for each, until the peer stops."""
        self._reception.accept(self._stopping)

    def handle_peer(self, connection: Connection) -> None:
        """Serve whoever connected: a new neighbour until its link ends, anybody else once."""
        try:
            try:
                first = connection.receive_first(self.trust, self._tunables.handshake_timeout_s)
            except TimeoutError:
                self._driver.refuse("handshakes", connection.source, "it is too slow to speak")
                raise
            self._reception.is_known(connection)
            match first:
                case Hello(_, address):
                    connection.require(address)
                    self._admit(connection, first)
                case _:
                    if isinstance(first, Direct):
                        connection.require(first.origin)
                    connection.send(self._driver.answer(first, connection.source))
        except NotTrusted as error:
            self._driver.refuse(CERTIFICATE, connection.source, reason_of(error))
        except WireError as error:
            self._driver.refuse("frames", connection.source, str(error))
        except OSError as error:
            _log.debug("%s: a visitor vanished: %s", self._me.origin, error)
        finally:
            connection.close()

    def handle_seeds(self) -> None:
        """Stay registered with a majority of the seeds until the peer stops; then tell them."""
        self.connect_to_seeds()
        self._registration.keep()

    def connect_to_seeds(self) -> None:
        """Begin to register with a random majority of the seeds; each list is used at once."""
        self._registration.connect()
        if self._registration.is_in_vain():  # none is listed
            self._introduced()

    def connect_to_peers(self) -> None:
        """Let the node do whatever is due, dials above all, until the peer stops."""
        join_s = now_s()
        while not self._stopping.is_set():
            if self._join and not self._driver.links and now_s() >= join_s:
                join_s = now_s() + self._tunables.exchange_interval_s
                self._driver.decide(self._driver.node.learn, self._join)
            self._driver.decide(self._driver.node.tick)
            if self.trust is not None and (news := self.trust.look()):
                self._notify("certificates", reason=news)
            self._stopping.wait(self._tunables.tick_interval_s)
            self._driver.wait_for_work()

    def say_something(self) -> None:
        """The periodic message of the mission, until the peer stops or all were said."""
        number = 0
        while not self._stopping.wait(self._gossip_every_s):
            number += 1
            text = f"{time.strftime('%H:%M:%S')} hello number {number} from {self.address}"
            try:
                self.broadcast(text.encode(), timeout=self._gossip_every_s)
            except (BroadcastTimeout, NotRunning):
                continue  # nobody takes it just now; the next one will do
            if number == self._gossip_count:
                return

    # ---- threads of a link ----

    def handle_messages(self, link: Link) -> None:
        """Turn bytes into messages until the link ends; then report why, exactly once."""
        node, reason = self._driver.node, "closed by the neighbour"
        try:
            for items in link.connection.frames():
                self._driver.receive(link, items)
        except (NotTrusted, WireError) as error:
            is_broken = isinstance(error, WireError)
            reason = f"broke the protocol: {error}" if is_broken else reason_of(error)
            self._driver.decide(node.misbehaved, link.neighbour, reason, of=link)
        except OSError as error:
            reason = f"lost: {reason_of(error)}"
        finally:
            self._driver.decide(node.link_down, link.neighbour, reason, of=link)
            link.unread.set()

    def generate_messages(self, link: Link) -> None:
        """Send the neighbour whatever it is owed, until the link ends; then the last words."""
        with contextlib.suppress(OSError):  # the reader finds the end too, behind a last Bye
            while batch := self._driver.next_batch(link):
                link.connection.send(batch)
            if link.last_words is not None:
                link.connection.send([link.last_words])
                link.connection.finish_sending()

    def liveness_test(self, link: Link) -> None:
        """Ask the neighbour for a sign of life when it is silent; at the end, see the link out."""
        test = self._driver.node.test_liveness
        while not link.closing.wait(max(0.0, self._driver.next_test_s(link))):
            self._driver.decide(test, link.neighbour, of=link)
        if link.last_words is not None:
            link.unread.wait(FAREWELL_TIMEOUT_S)
        link.connection.abort()

    # ---- links ----

    def _connect(self, action: Dial) -> None:
        """Dial a peer, and be its neighbour if it lets us; ends with the link."""
        dialled, node = action.address, self._driver.node
        try:
            connection = dial(dialled, self._tunables.dial_timeout_s, self.trust)
            with contextlib.closing(connection), self._threads_of_a_link() as begin:
                answer = connection.ask(action.hello, self._tunables.handshake_timeout_s)
                match answer:
                    case Welcome(address):
                        connection.require(address)
                        self._adopt(connection, dialled, answer, begin)
                    case Refused():
                        self._driver.decide(node.turned_away, dialled, answer)
                    case Bye():  # it gave the link up again at once
                        self._driver.decide(node.dial_failed, dialled, Dialled.TURNED_AWAY)
                    case _:
                        raise WireError(f"{type(answer).__name__}: not expected from a peer")
        except ConnectionRefusedError:
            self._driver.decide(node.dial_failed, dialled, Dialled.REFUSED)
        except NoThread as error:
            self._driver.go_without(action, reason_of(error))
        except NotTrusted as error:
            failed = partial(node.dial_failed, reason=reason_of(error))
            self._driver.decide(failed, dialled, Dialled.TURNED_AWAY)
        except (OSError, WireError):
            self._driver.decide(node.dial_failed, dialled, Dialled.SILENT)

    def _adopt(
        self, connection: Connection, dialled: Address, welcome: Welcome, begin: BeginLink
    ) -> None:
        adopted = self._driver.adopt(connection, dialled, welcome)
        if isinstance(adopted, Bye):
            connection.send([adopted])
        else:
            begin(adopted)
            self.handle_messages(adopted)

    def _admit(self, connection: Connection, hello: Hello) -> None:
        try:
            with self._threads_of_a_link() as begin:
                admitted = self._driver.admit(connection, hello)
                if isinstance(admitted, Refused):
                    connection.send([admitted])
                elif admitted is not None:
                    begin(admitted)
                    self.handle_messages(admitted)
        except NoThread as error:
            reason = f"no link can be held: {reason_of(error)}"
            self._driver.refuse("threads", connection.source, reason)
            connection.send([Refused(self._me.origin, reason, ())])

    def _threads_of_a_link(self) -> contextlib.AbstractContextManager[BeginLink]:
        """Two threads beside the one that reads, had before there is a link that needs them."""
        return self._threads.ready(self.generate_messages, self.liveness_test)

    def _carry_out(self, action: Action) -> None:
        """What the node decided, as far as it needs the world."""
        match action:
            case Dial():
                self._threads.start("connect", self._connect, action)
            case Try(accused):
                self._threads.start("try", self._try, accused)
            case Report(dead):
                self._registration.report(dead)

    def _try(self, accused: Address) -> None:
        outcome = try_address(accused, self._tunables.probe_timeout_s, self.trust)
        self._driver.decide(self._driver.node.tried, accused, outcome)

    def _introduced(self) -> None:
        """A seed has answered, or has not."""
        if found := self._registration.found():
            self._notify("peer_list", peers=len(set().union(*found.values())))
            for seed, peers in found.items():
                self._driver.decide(partial(self._driver.node.learn, told_by=str(seed)), peers)
        elif self._registration.is_in_vain():
            self._driver.decide(self._driver.node.nobody_introduces)

    # ---- helpers ----

    def _notify(self, event: str, **details: Any) -> None:
        """Have the event recorded in its turn."""
        self._driver.publish(Notify(event, details))

    def _record(self, event: str, **details: Any) -> None:
        self._journal.record(event, **details)

    def _check_may_say(self, payload: object) -> None:
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise TypeError(f"payload: expected bytes, got {type(payload).__name__}")
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MessageTooLarge(f"expected at most {MAX_PAYLOAD_BYTES} bytes, got {len(payload)}")
        self._check_running()

    def _check_running(self) -> None:
        if not self._is_started or self._stopping.is_set():
            raise NotRunning("the peer is not running")


if __name__ == "__main__":
    sys.modules["peer"] = sys.modules["__main__"]  # the console imports it: no second copy
    import console

    sys.exit(console.run_peer())
