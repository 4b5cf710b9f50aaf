"""Who lives in virtual time: peers, seeds, and insiders that do not play by the rules.

A peer here does what `peer.py` and `driver.py` do with threads: it carries out what its node
decides, sends what the neighbours are owed, hands on what was heard, and ticks. A seed keeps the
directory of `seed.py`. An insider's node is an honest one; it lies on top of what everybody does.
"""

import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from actions import Action, Close, Dial, Report, Try
from directory import Directory
from liveness import Tried
from messages import Address, Bye, Have, Holding, Message, Opinion, StreamKey, StreamName
from node import IDLE_TICK_INTERVAL_S, Node
from settings import Tunables
from streams import Gap
from wire import Run

Item = Message | Run
Manner = Callable[[list[Item], StreamKey], list[Item]]  # the own stream tells whose they are

NEVER_S = float("inf")
END = None  # in the place of frames: the connection is over
LOOK_INTERVAL_S = 1.0  # how often lapsed leases are looked for
FALSE_HAVE_SHARE = 0.2  # of a liar's sendings
MOST_FALSE_MESSAGES = 50  # that a liar claims to have beyond what there is


@dataclass(eq=False, slots=True)
class End:
    """One peer's end of a connection."""

    peer: "SimulatedPeer"
    latency_s: float  # of what it sends
    arrival_s: float = 0.0  # of what it sent last: nothing overtakes
    is_open: bool = True
    is_welcomed: bool = True  # false while it waits for the answer to its hello
    may_send_s: float = 0.0  # not before, when there is a flush interval
    is_waiting: bool = False  # for that time
    held: list[list[Item] | None] = field(default_factory=list)  # sent, and held back by a cut
    other: "End" = field(init=False)


class Onlooker:
    """Sees what happens in a world; this one does nothing about it."""

    def decided(self, peer: "SimulatedPeer") -> None:
        """An event at this peer is over."""

    def arrived(self, items: list[Item]) -> None:
        """These frames have come to some peer."""

    def heard(self, peer: "SimulatedPeer", item: Run | Gap, upto: int) -> None:
        """The application of this peer, which had all up to `upto`, is given the item."""

    def removed(self, seed: "SimulatedSeed", peer: Address, boot_ms: int) -> None:
        """A seed has taken that life of a peer off its list."""


class Surroundings(Protocol):
    """What a peer needs of the world around it."""

    now_s: float
    seed: int
    rng: random.Random
    tunables: Tunables
    flush_interval_s: float
    onlookers: list[Onlooker]

    def after(self, delay_s: float, happen: Callable[..., object], *args: object) -> None: ...
    def dial(self, dialler: "SimulatedPeer", action: Dial) -> None: ...
    def close(self, end: End, last_words: Bye | None) -> None: ...
    def transmit(self, end: End, items: list[Item] | None) -> None: ...
    def attempt(self, asker: Address, accused: Address) -> tuple[float, Tried]: ...
    def report(self, reporter: "SimulatedPeer", dead: Address) -> None: ...


# ---- peers ---------------------------------------------------------------------------------------


class SimulatedPeer:
    """One peer in one life, and what it has heard."""

    def __init__(self, world: Surroundings, name: StreamName, number: int) -> None:
        self.world = world
        self.address = name.origin
        self.number = number  # of its address, in order of appearance
        rng = random.Random(zlib.crc32(name.key) ^ world.seed)
        self.node = Node(name, world.tunables, rng, world.now_s)
        self.links: dict[Address, End] = {}
        self.heard: dict[StreamKey, int] = {}  # up to which number, gaps counted
        self.gaps = 0
        self.seeds: list[SimulatedSeed] = []  # where it is registered
        self.manner: Manner | None = None  # of an insider
        self.is_alive = True
        self.is_stopped = False
        self.is_vanished = False  # its kernel is gone too: nobody refuses connections
        self.since_s = world.now_s  # it runs without a pause, or is dead
        self.tick_s = NEVER_S  # when the next tick is due
        self.is_testing = False  # whether the neighbours' liveness is about to be looked at
        self.source: SimulatedPeer | None = None  # whose frames it is taking in
        self._postponed: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    @property
    def is_running(self) -> bool:
        return self.is_alive and not self.is_stopped

    def to(self, happen: Callable[..., object], *args: object) -> None:
        """Let it happen to this peer now, or when it goes on; not at all if it has died."""
        if self.is_stopped:
            self._postponed.append((happen, args))
        elif self.is_alive:
            happen(*args)

    def go_on(self) -> None:
        """As by SIGCONT: everything that came in the meantime is there at once."""
        self.is_stopped = False
        self.since_s = self.world.now_s
        postponed, self._postponed = self._postponed, []
        for happen, args in postponed:
            self.to(happen, *args)

    def die(self) -> None:
        self.is_alive = self.is_stopped = False
        self._postponed.clear()
        self.since_s = self.world.now_s

    def decide(self, actions: Iterable[Action]) -> None:
        """Carry out what the node decided, and send what it has to send."""
        for action in actions:
            self._carry_out(action)
        if self.node.ready:
            self._pump()
        if self.node.gossip.inbox:
            for item in self.node.gossip.inbox.collect(1 << 30):
                self._hear(item)
        self._schedule_tick()
        if self.links and not self.is_testing:
            self._schedule_test()
        for onlooker in self.world.onlookers:
            onlooker.decided(self)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Close(neighbour, last_words):
                self.world.close(self.links.pop(neighbour), last_words)
            case Dial():
                self.world.dial(self, action)
            case Try(accused):
                delay_s, outcome = self.world.attempt(self.address, accused)
                self.later(delay_s, self.node.tried, accused, outcome)
            case Report(dead):
                self.world.report(self, dead)

    def later(self, delay_s: float, decide: Callable[..., list[Action]], *args: object) -> None:
        """Let the node decide on this after a while."""
        self.world.after(delay_s, self.to, self._decide_on, decide, args)

    def _decide_on(self, decide: Callable[..., list[Action]], args: tuple[object, ...]) -> None:
        self.decide(decide(*args, self.world.now_s))

    def _pump(self) -> None:
        """Put on the wire what the neighbours are owed; with a flush interval, not too often."""
        ready = sorted(self.node.ready)
        self.node.ready.clear()
        for neighbour in ready:
            end = self.links.get(neighbour)
            if end is None or end.is_waiting:
                continue
            wait_s = end.may_send_s - self.world.now_s
            if wait_s > 0:
                end.is_waiting = True
                self.world.after(wait_s, self.to, self._send, neighbour, end)
            else:
                self._send(neighbour, end)

    def _send(self, neighbour: Address, end: End) -> None:
        end.is_waiting = False
        if self.links.get(neighbour) is not end:
            return
        end.may_send_s = self.world.now_s + self.world.flush_interval_s
        while self.node.has_something_for(neighbour):
            items = self.node.take(neighbour)
            if self.manner is not None:
                items = self.manner(items, self.node.me.key)
            if len(items) > 1:
                items = rechunked(items, self.world.rng)
            if items:
                self.world.transmit(end, items)

    def _hear(self, item: Run | Gap) -> None:
        """The application is given what came."""
        upto = self.heard.get(item.stream, 0)
        self.heard[item.stream] = item.last
        self.gaps += isinstance(item, Gap)
        for onlooker in self.world.onlookers:
            onlooker.heard(self, item, upto)

    def tick(self, due_s: float) -> None:
        """Let the node do what is due, unless an earlier tick has taken the place of this one."""
        if self.tick_s == due_s:
            self.tick_s = NEVER_S
            self.decide(self.node.tick(self.world.now_s))

    def _schedule_tick(self) -> None:
        """The next tick is soon if the node is busy; else it can wait."""
        world = self.world
        soon_s = world.now_s + world.tunables.tick_interval_s
        if soon_s >= self.tick_s:
            return
        if self.node.is_busy:
            due_s = soon_s
        elif self.tick_s == NEVER_S:
            due_s = max(soon_s, world.now_s + IDLE_TICK_INTERVAL_S)
        else:
            return
        self.tick_s = due_s
        world.after(due_s - world.now_s, self.to, self.tick, due_s)

    def _test_liveness(self) -> None:
        """Look after the neighbours that are due, a little late: several at a time cost less."""
        now_s, liveness = self.world.now_s, self.node.liveness
        actions: list[Action] = []
        for neighbour in [n for n in self.links if liveness.due_s(n) <= now_s]:
            actions += self.node.test_liveness(neighbour, now_s)
        self.is_testing = False
        self.decide(actions)

    def _schedule_test(self) -> None:
        limits = self.world.tunables
        late_s = min(limits.own_lateness_s / 2, limits.liveness_interval_s / 20)
        due_s = min(map(self.node.liveness.due_s, self.links))
        wait_s = max(0.0, due_s - self.world.now_s) + late_s
        self.world.after(wait_s, self.to, self._test_liveness)
        self.is_testing = True

    def say(self, payload: bytes | None = None) -> int:
        """Broadcast the next message. Returns its number."""
        number = self.node.gossip.own.upto + 1
        if payload is None:
            payload = payload_of(self.node.me.key, number)
        self.node.broadcast(payload, self.world.now_s)
        self.heard[self.node.me.key] = number
        self.decide([])
        return number


def rechunked(items: list[Item], rng: random.Random) -> list[Item]:
    """The same frames, with runs joined as they are when many bytes arrive at once, or not."""
    joined: list[Item] = []
    for item in items:
        last = joined[-1] if joined else None
        if (
            isinstance(item, Run)
            and isinstance(last, Run)
            and (item.stream, item.first) == (last.stream, last.last + 1)
            and rng.random() < 0.8
        ):
            joined[-1] = Run(item.stream, last.first, item.last, last.data + item.data)
        else:
            joined.append(item)
    return joined


def payload_of(stream: StreamKey, number: int) -> bytes:
    """What the message must read, so that a mix-up shows."""
    return b"%d of " % number + stream


# ---- seeds ---------------------------------------------------------------------------------------


class SimulatedSeed:
    """One seed: the directory of `seed.py`, and its attempts to reach who is accused.

    It forgets everything when it goes down.
    """

    def __init__(self, world: Surroundings, address: Address, rng: random.Random) -> None:
        self.address = address
        self._world = world
        self._rng = rng
        self.up_since_s: float | None = None
        self.directory = Directory(world.tunables, rng)

    @property
    def is_up(self) -> bool:
        return self.up_since_s is not None

    def start(self) -> None:
        """Begin, with an empty list."""
        self.up_since_s = self._world.now_s
        self.directory = Directory(self._world.tunables, self._rng)
        self._world.after(LOOK_INTERVAL_S, self._look, self.directory)

    def stop(self) -> None:
        """Whatever it knew is lost."""
        self.up_since_s = None

    def register(self, peer: Address, boot_ms: int) -> list[Address]:
        """A peer renews its lease, and is given the list."""
        now_s = self._world.now_s
        self.directory.register(peer, boot_ms, now_s)
        return [other for other in self.directory.listed(now_s).peers if other != peer]

    def accuse(self, peer: Address) -> None:
        """A report, a lost connection or a lapsed lease: try the peer before believing it."""
        boot_ms = self.directory.boot_of(peer)
        if self.is_up and boot_ms is not None:
            delay_s, outcome = self._world.attempt(self.address, peer)
            self._world.after(delay_s, self._judge, self.directory, peer, boot_ms, outcome)

    def _judge(self, asked: Directory, peer: Address, boot_ms: int, outcome: Tried) -> None:
        if asked is not self.directory or not self.is_up:
            return  # the seed was restarted in the meantime
        if outcome is Tried.ECHOED:
            asked.extend(peer, boot_ms, self._world.now_s)
        elif asked.remove(peer, boot_ms):
            for onlooker in self._world.onlookers:
                onlooker.removed(self, peer, boot_ms)

    def _look(self, directory: Directory) -> None:
        if directory is self.directory and self.is_up:
            for peer in directory.lapsed(self._world.now_s):
                self.accuse(peer)
            self._world.after(LOOK_INTERVAL_S, self._look, directory)


# ---- insiders ------------------------------------------------------------------------------------


def withholding(items: list[Item], own: StreamKey) -> list[Item]:
    """Passes on no payload of others, and answers no question for it; says its own."""
    return [item for item in items if not isinstance(item, Run) or item.stream == own]


class Lying:
    """Says the opposite of its opinions, and claims to have what it has not, or nobody said."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, items: list[Item], _: StreamKey) -> list[Item]:
        return [self._told(item) for item in items]

    def _told(self, item: Item) -> Item:
        match item:
            case Opinion(accused, is_alive):
                return Opinion(accused, not is_alive)
            case Have(holdings, is_news) if self._rng.random() < FALSE_HAVE_SHARE:
                return Have(tuple(self._exaggerated(h) for h in holdings), is_news)
        return item

    def _exaggerated(self, holding: Holding) -> Holding:
        upto = holding.upto + self._rng.randint(0, MOST_FALSE_MESSAGES)
        return Holding(holding.stream, self._rng.choice([1, holding.first]), upto)
