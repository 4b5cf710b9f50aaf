"""A node among threads: its lock, its links, and its decisions carried out.

Any thread may call any method. One lock guards the node and everything here; no system call is made
while it is held. The threads themselves are in `peer.py`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from actions import Action, Close, Dial, Notify, Try
from limits import Budgets
from link import Connection, reason_of
from liveness import Tried
from messages import (
    Address,
    BroadcastTimeout,
    Bye,
    Direct,
    Echo,
    Hello,
    Inspect,
    Inspected,
    Linked,
    Message,
    NotRunning,
    Probe,
    Received,
    Refused,
    StreamKey,
    Welcome,
    WireError,
    stream_name,
)
from node import IDLE_TICK_INTERVAL_S, Node
from overlay import Dialled
from settings import Tunables
from streams import Gap
from wire import Run

COLLECT_BYTES = 1 << 20  # taken from the inbox at a time
MAX_EVENTS = 10_000  # waiting to be published; past that the oldest go first
MAX_DIRECT_BYTES = 8 << 20  # of messages to this peer alone, waiting for the program


@dataclass(slots=True, eq=False)
class Link:
    """A connection to a neighbour, and what its three threads share."""

    neighbour: Address
    connection: Connection
    wake: threading.Condition  # there is something to send, or the link ends
    is_waiting: bool = False  # the writer has nothing to send
    last_words: Bye | None = None  # to be sent at the end
    closing: threading.Event = field(default_factory=threading.Event)  # the node has let go of it
    unread: threading.Event = field(default_factory=threading.Event)  # the reader has ended


@dataclass(slots=True)
class News:
    """What the program has not been told yet."""

    events: list[Notify]
    directs: list[Direct]
    items: list[Run | Gap]
    is_last: bool


class Driver:
    """One node and its links."""

    def __init__(
        self,
        node: Node,
        tunables: Tunables,
        is_verbose: bool,
        carry_out: Callable[[Action], None],
    ) -> None:
        self.node = node
        self._is_verbose = is_verbose
        self._carry_out = carry_out  # does what needs a system call, without the lock; or OSError
        self.lock = threading.Lock()  # guards the node, the links and the events
        self._has_news = threading.Condition(self.lock)  # something to publish
        self._has_room = threading.Condition(self.lock)  # a writer has made progress
        self._has_work = threading.Condition(self.lock)  # the node is busy, or leaves
        self._is_idle = False  # somebody waits for work
        self.links: dict[Address, Link] = {}
        self._events: deque[Notify] = deque(maxlen=MAX_EVENTS)
        self._directs: deque[Direct] = deque()
        self._directs_size = 0
        self._admissions = Budgets(tunables.admissions, tunables.admissions_per_s)
        self._ended_sent = self._ended_received = 0  # bytes, over links that have ended
        self._is_leaving = False
        self._is_over = False

    # ---- deciding ----

    def decide(
        self, decide: Callable[..., list[Action]], *args: Any, of: Link | None = None
    ) -> None:
        """Let the node decide, and do what it says; if about a link, unless that has ended."""
        with self.lock:
            if of is not None and of.closing.is_set():
                return
            outside = self._apply(decide(*args, now_s()))
        self._carry_out_all(outside)

    def _apply(self, actions: list[Action]) -> list[Action]:
        """Do what needs the lock and no system call; returns the rest."""
        outside: list[Action] = []
        for action in actions:
            match action:
                case Close(neighbour, last_words):
                    link = self.links.pop(neighbour)
                    self._ended_sent += link.connection.sent_bytes
                    self._ended_received += link.connection.received_bytes
                    link.last_words = last_words
                    link.closing.set()
                    link.wake.notify()
                case Notify(event, _):
                    if event != "liveness_test" or self._is_verbose:
                        self._publish(action)
                case _:
                    outside.append(action)
        self._ring()
        return outside

    def _ring(self) -> None:
        """Wake whoever has something to do now."""
        for neighbour in self.node.ready:
            link = self.links.get(neighbour)
            if link is not None and link.is_waiting:
                link.is_waiting = False
                link.wake.notify()
        self.node.ready.clear()
        self._has_room.notify_all()
        if self.node.gossip.inbox:
            self._has_news.notify()
        if self._is_idle and self._is_needed():
            self._is_idle = False
            self._has_work.notify()

    def _is_needed(self) -> bool:
        return self._is_leaving or self.node.is_busy

    def wait_for_work(self) -> None:
        """Wait until the node is busy, but no longer than it may be left alone."""
        with self.lock:
            if not self._is_needed():
                self._is_idle = True
                self._has_work.wait(IDLE_TICK_INTERVAL_S)
                self._is_idle = False

    def _carry_out_all(self, actions: list[Action]) -> None:
        for action in actions:
            try:
                self._carry_out(action)
            except OSError as error:
                self.go_without(action, reason_of(error))

    def go_without(self, action: Action, reason: str) -> None:
        """There are no threads for it: what was to be reached has not been tried."""
        match action:
            case Dial(address):
                self.refuse("threads", str(address), f"it cannot be dialled: {reason}")
                self.decide(self.node.dial_failed, address, Dialled.UNTRIED)
            case Try(accused):
                self.refuse("threads", str(accused), f"it cannot be tried: {reason}")
                self.decide(self.node.tried, accused, Tried.UNTRIED)

    # ---- telling ----

    def stats(self) -> dict[str, int]:
        """Counters since the start."""
        with self.lock:
            sent = self._ended_sent + sum(li.connection.sent_bytes for li in self.links.values())
            received = self._ended_received
            received += sum(li.connection.received_bytes for li in self.links.values())
            traffic = {"sent_bytes": sent, "received_bytes": received}
            return {"boot_ms": self.node.me.boot_ms, **self.node.stats(), **traffic}

    # ---- visitors: whoever asks one thing, and goes ----

    def answer(self, visitor: Message, source: str) -> list[Message]:
        """What to answer to somebody who wants no link. Raises WireError."""
        with self.lock:
            match visitor:
                case Probe(number):
                    return [Echo(number)]
                case Inspect():
                    return [self._inspected()]
                case Direct():
                    return [Received()] if self._take_direct(visitor, source) else []
                case _:
                    raise WireError(f"{type(visitor).__name__}: not expected by a peer")

    def _inspected(self) -> Inspected:
        node, gossip, tree = self.node, self.node.gossip, self.node.tree
        linked = tuple(Linked(n, tree.is_payload_link(n)) for n in node.overlay.neighbours)
        dead = tuple(node.liveness.deaths(now_s()))
        counters = (tree.hops, gossip.own.upto, gossip.delivered, gossip.surplus)
        return Inspected(*node.me, *counters, linked, dead)

    def _take_direct(self, direct: Direct, source: str) -> bool:
        """A message to this peer alone; False if the program is too far behind to be given it."""
        if self._directs_size > MAX_DIRECT_BYTES:
            self._refuse("directs", source, "the program is too far behind")
            return False
        self._directs.append(direct)
        self._directs_size += len(direct.payload)
        self._has_news.notify()
        return True

    # ---- links ----

    def admit(self, connection: Connection, hello: Hello) -> Link | Refused | None:
        """A peer wants to be our neighbour: the link, or why not; None while we are leaving."""
        link = Link(hello.address, connection, threading.Condition(self.lock))
        with self.lock:
            if self._is_leaving:
                return None
            if not self._admissions.spend(connection.source, now_s()):
                self._refuse("admissions", connection.source, "too many newcomers from there")
                return Refused(self.node.me.origin, "too many newcomers", ())
            refused, actions = self.node.admit(hello, now_s(), connection.source)
            outside = self._apply(actions)
            if refused is None:
                self.links[link.neighbour] = link
        self._carry_out_all(outside)
        return refused or link

    def adopt(self, connection: Connection, dialled: Address, welcome: Welcome) -> Link | Bye:
        """A peer that we dialled let us in: the link, or the words to part with."""
        link = Link(welcome.address, connection, threading.Condition(self.lock))
        with self.lock:
            if self._is_leaving:
                return Bye("leaving", is_leaving=True)
            conflict, actions = self.node.link_up(dialled, welcome, now_s())
            outside = self._apply(actions)
            if not conflict:
                self.links[link.neighbour] = link
        self._carry_out_all(outside)
        return Bye(conflict, is_leaving=False) if conflict else link

    def receive(self, link: Link, items: list[Message | Run]) -> None:
        """Frames have come."""
        self.decide(self.node.receive, link.neighbour, items, of=link)

    def next_batch(self, link: Link) -> list[Message | Run]:
        """Wait for something to send to this neighbour; nothing once the link ends."""
        batch: list[Message | Run] = []
        with self.lock:
            while not (batch or link.closing.is_set()):
                if not self.node.has_something_for(link.neighbour):
                    link.is_waiting = True
                    self._has_room.notify_all()
                    link.wake.wait()
                    link.is_waiting = False
                else:
                    batch = self.node.take(link.neighbour)  # empty if others were faster
            self._has_room.notify_all()
            if self._is_verbose:
                for forwarded in _forwarded(link.neighbour, batch, self.node.me.key):
                    self._publish(forwarded)
        return batch

    def next_test_s(self, link: Link) -> float:
        """How long until the neighbour's liveness is to be tested."""
        with self.lock:
            if link.closing.is_set():
                return 0.0
            return self.node.liveness.due_s(link.neighbour) - now_s()

    # ---- saying and hearing ----

    def broadcast(self, payload: bytes, timeout_s: float | None) -> int:
        """Say it, once it may be said (see `pace.py`). Raises NotRunning, BroadcastTimeout."""
        with self.lock:
            if not self._may_go_on() and not self._has_room.wait_for(self._may_go_on, timeout_s):
                raise BroadcastTimeout(f"{self.node.gossip.pace.obstacle}, for {timeout_s} s")
            if self._is_leaving:
                raise NotRunning("the peer is not running")
            number = self.node.broadcast(payload, now_s())
            self._ring()
        return number

    def is_heard(self) -> bool:
        """Whether some neighbour is there, and all have shown that they have what we said."""
        with self.lock:
            is_heard = self.node.is_heard()
            self._ring()
            return is_heard

    def publish(self, event: Notify) -> None:
        """Something for the program to know."""
        with self.lock:
            self._publish(event)

    def refuse(self, limit: str, source: str, reason: str) -> None:
        """Something from there was too much: count it, and have the node say so."""
        with self.lock:
            self._refuse(limit, source, reason)

    def look_again(self) -> None:
        """The program has begun to listen."""
        with self.lock:
            self._has_news.notify()

    def wait_for_news(self, is_awaited: Callable[[], bool]) -> News:
        """Whatever there is to tell; at once if it `is_awaited`, or if nothing will follow."""
        with self.lock:
            while not (self._has_any_news() or is_awaited()):
                self._has_news.wait()
            events, directs = list(self._events), list(self._directs)
            self._events.clear()
            self._directs.clear()
            self._directs_size = 0
            items = self.node.gossip.inbox.collect(COLLECT_BYTES)
            return News(events, directs, items, self._is_over and not self.node.gossip.inbox)

    def _refuse(self, limit: str, source: str, reason: str) -> None:
        self.node.refusals.refuse(limit, source, reason, now_s())

    def _has_any_news(self) -> bool:
        return bool(self._events or self._directs or self.node.gossip.inbox or self._is_over)

    def _publish(self, event: Notify) -> None:
        self._events.append(event)
        self._has_news.notify()

    # ---- the end ----

    def leave(self, reason: str, flush_timeout_s: float) -> None:
        """Send what is owed, as far as the time allows, and part from every neighbour."""
        with self.lock:
            self._is_leaving = self.node.is_leaving = True
            self._has_room.notify_all()
            self._has_room.wait_for(self._is_flushed, flush_timeout_s)
        self.decide(self.node.leave, reason)

    def end(self) -> None:
        """Nothing will happen any more: `wait_for_news` gives out the rest."""
        with self.lock:
            self._is_over = True
            self._has_news.notify()

    def _is_flushed(self) -> bool:
        return all(link.is_waiting for link in self.links.values())

    def _may_go_on(self) -> bool:
        return self._is_leaving or not self.node.gossip.pace.is_far_ahead


def now_s() -> float:
    """The clock of every decision: it never jumps."""
    return time.monotonic()


def _forwarded(neighbour: Address, batch: list[Message | Run], own: StreamKey) -> Iterator[Notify]:
    """An event for every run of others' messages in the batch."""
    for item in batch:
        if isinstance(item, Run) and item.stream != own:
            origin = str(stream_name(item.stream).origin)
            span = {"origin": origin, "first_seq": item.first, "last_seq": item.last}
            yield Notify("forwarded", {"neighbour": str(neighbour), **span})
