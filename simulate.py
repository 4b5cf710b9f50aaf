"""The network in virtual time: the same nodes as in `peer.py`, without a socket or a thread.

One integer decides everything that happens in a `World`: latencies, faults, and every random choice
of every peer. The same number gives the same run, event for event. Connections carry frames in
order; they break, they are cut so that nothing comes through (not even the news that they ended),
peers crash, restart, and are stopped for a while as by SIGSTOP. After every event the promises are
checked.
"""

import heapq
import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from actions import Action, Close, Dial, Notify, Report, Try
from directory import Directory
from liveness import Tried
from messages import Address, Bye, Message, StreamKey, StreamName, Welcome
from node import IDLE_TICK_INTERVAL_S, Node
from overlay import Dialled
from settings import Tunables
from streams import Gap
from wire import Run

Item = Message | Run
END = None  # in the place of frames: the connection is over


class BrokenPromise(AssertionError):
    """The network did what it must never do."""


@dataclass(eq=False, slots=True)
class Pipe:
    """One direction of a connection: what was sent arrives later, in order."""

    latency_s: float
    free_s: float = 0.0  # the latest arrival so far: nothing overtakes


@dataclass(eq=False, slots=True)
class Connection:
    """A connection between two peers; `ends` are those that still hold it open."""

    dialler: "SimulatedPeer"
    accepter: "SimulatedPeer"
    dialled: Address
    pipes: dict["SimulatedPeer", Pipe]  # by the receiving peer
    ends: set["SimulatedPeer"] = field(default_factory=set)
    is_welcomed: bool = False  # the dialler's node knows of it
    held: list[tuple["SimulatedPeer", list[Item] | None]] = field(default_factory=list)

    def other(self, peer: "SimulatedPeer") -> "SimulatedPeer":
        return self.accepter if peer is self.dialler else self.dialler


class SimulatedPeer:
    """One peer in one life, and what it has heard."""

    def __init__(self, world: "World", address: Address, boot_ms: int) -> None:
        self.world = world
        self.address = address
        name = StreamName(address, boot_ms)
        rng = random.Random(zlib.crc32(name.key) ^ world.seed)
        self.node = Node(name, world.tunables, rng, world.now_s)
        self.links: dict[Address, Connection] = {}
        self.heard: dict[StreamKey, int] = {}  # up to which number, gaps counted
        self.gaps = 0
        self.verdicts: list[Address] = []  # whom it found dead
        self.is_alive = True
        self.is_stopped = False
        self.tick_s = world.now_s  # when the next tick is due
        self.postponed: list[Callable[[], None]] = []  # what happens to it while it is stopped

    def decide(self, actions: list[Action]) -> None:
        """Carry out what the node decided, and send what it has to send."""
        for action in actions:
            self._carry_out(action)
        self.pump()
        self.world.check(self)
        self.world.schedule_tick(self)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Close(neighbour, last_words):
                connection = self.links.pop(neighbour)
                self.world.close(self, connection, last_words)
            case Dial():
                self.world.dial(self, action)
            case Try(accused):
                self.world.try_peer(self, accused)
            case Report(dead):
                self.world.report(dead)
            case Notify("dead", details):
                self.verdicts.append(Address.parse(details["neighbour"]))

    def pump(self) -> None:
        """Put on the wire what the neighbours are owed, and take what was delivered."""
        ready = sorted(self.node.ready)
        self.node.ready.clear()
        for neighbour in ready:
            if neighbour in self.links:
                while items := self.node.take(neighbour):
                    items = rechunked(items, self.world.rng)
                    self.world.transmit(self.links[neighbour], self, items)
        for item in self.node.gossip.collect(1 << 30):
            self._hear(item)

    def _hear(self, item: Run | Gap) -> None:
        expected = self.heard.get(item.stream, 0) + 1
        if item.first != expected:
            raise BrokenPromise(f"{self.address} heard {item.first}, not {expected}")
        if isinstance(item, Gap):
            self.gaps += 1
        else:
            for number, payload in enumerate(item.payloads(), start=item.first):
                if payload != payload_of(item.stream, number):
                    raise BrokenPromise(f"{self.address} heard a wrong payload for {number}")
        self.heard[item.stream] = item.last

    def tick(self) -> None:
        """Let the node do what is due."""
        now_s = self.world.now_s
        actions = self.node.tick(now_s)
        for neighbour in list(self.node.overlay.neighbours):
            actions += self.node.test_liveness(neighbour, now_s)
        self.tick_s = float("inf")
        self.decide(actions)

    def say(self) -> None:
        """Broadcast the next message."""
        number = self.node.gossip.own.upto + 1
        self.node.broadcast(payload_of(self.node.me.key, number), self.world.now_s)
        self.heard[self.node.me.key] = number
        self.decide([])


class World:
    """Peers, seeds, connections and faults, and one clock for all."""

    def __init__(
        self,
        seed: int,
        tunables: Tunables,
        seeds: int = 1,
        latency_s: tuple[float, float] = (0.010, 0.050),
    ) -> None:
        self.seed = seed
        self.tunables = tunables
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.peers: dict[Address, SimulatedPeer] = {}  # the present life at each address
        self.directories = [Directory(tunables, random.Random(seed + n)) for n in range(seeds)]
        self.are_seeds_up = True
        self.side: dict[Address, int] = {}  # of a cut; peers on different sides cannot talk
        self.trace = 0  # hash of the whole run
        self._latency_s = latency_s
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._connections: set[Connection] = set()  # those with something held back by a cut

    # ---- time ----

    def after(self, delay_s: float, happen: Callable[[], object]) -> None:
        """Let something happen later."""
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._numbers), happen))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due until then."""
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, number, happen = heapq.heappop(self._queue)
            self.trace = zlib.crc32(b"%d %r" % (number, self.now_s), self.trace)
            happen()
        self.now_s = end_s

    def to(self, peer: SimulatedPeer, happen: Callable[[], None]) -> None:
        """Let it happen to the peer now, or when it goes on; not at all if it has died."""
        if peer.is_stopped:
            peer.postponed.append(happen)
        elif peer.is_alive:
            happen()

    def _latency(self) -> float:
        return self.rng.uniform(*self._latency_s)

    # ---- peers ----

    def start_peer(self, address: Address) -> SimulatedPeer:
        """A peer begins its life; it learns of others from the seeds, if they are up."""
        peer = self.peers[address] = SimulatedPeer(self, address, int(self.now_s * 1000) + 1)
        peer.tick_s = float("inf")
        self._renew(peer)
        self.schedule_tick(peer)
        return peer

    def live_peers(self) -> list[SimulatedPeer]:
        return [peer for peer in self.peers.values() if peer.is_alive]

    def crash(self, peer: SimulatedPeer) -> None:
        """Kill it. Its kernel closes its connections."""
        peer.is_alive = peer.is_stopped = False
        for connection in list(peer.links.values()):
            self.close(peer, connection, None)
        peer.links.clear()

    def stop(self, peer: SimulatedPeer) -> None:
        """As by SIGSTOP: its connections stay, and it does nothing at all."""
        peer.is_stopped = True

    def go_on(self, peer: SimulatedPeer) -> None:
        """As by SIGCONT: everything that came in the meantime is there at once."""
        peer.is_stopped = False
        postponed, peer.postponed = peer.postponed, []
        for happen in postponed:
            self.to(peer, happen)

    def schedule_tick(self, peer: SimulatedPeer) -> None:
        """The next tick: soon if the node is busy, else when a neighbour may have to be asked.

        One timer for each peer; the threads tick more often, which changes nothing but their load.
        """
        limits = self.tunables
        wait_s = limits.tick_interval_s if peer.node.is_busy else IDLE_TICK_INTERVAL_S
        due_s = self.now_s + wait_s
        if peer.is_alive and due_s < peer.tick_s - 1e-9:
            peer.tick_s = due_s

            def tick() -> None:
                if peer.tick_s == due_s:
                    peer.tick()

            self.after(wait_s, lambda: self.to(peer, tick))

    def _renew(self, peer: SimulatedPeer) -> None:
        """Register with a majority of the seeds and learn of the others, again and again."""
        if not peer.is_alive:
            return
        self.after(self.tunables.renew_interval_s, lambda: self._renew(peer))
        if self.are_seeds_up and not peer.is_stopped:
            majority = len(self.directories) // 2 + 1
            found: set[Address] = set()
            for directory in self.rng.sample(self.directories, majority):
                directory.register(peer.address, peer.node.me.boot_ms, self.now_s)
                found.update(directory.listed(but=peer.address))
            peer.decide(peer.node.learn(sorted(found), self.now_s))

    def report(self, dead: Address) -> None:
        """The seeds try the accused themselves before they believe it."""
        accused = self.peers[dead]
        if self.are_seeds_up and (not accused.is_alive or accused.is_stopped):
            for directory in self.directories:
                directory.remove(dead, accused.node.me.boot_ms)

    # ---- connections ----

    def are_cut(self, one: SimulatedPeer, other: SimulatedPeer) -> bool:
        return self.side.get(one.address, 0) != self.side.get(other.address, 0)

    def dial(self, dialler: SimulatedPeer, action: Dial) -> None:
        """A connection attempt, with the hello."""
        accepter = self.peers.get(action.address)
        address, limits = action.address, self.tunables
        failed = dialler.node.dial_failed
        if accepter is None or self.are_cut(dialler, accepter):
            self._later(limits.dial_timeout_s, dialler, failed, address, Dialled.SILENT)
            return
        if not accepter.is_alive:
            self._later(2 * self._latency(), dialler, failed, address, Dialled.REFUSED)
            return
        pipes = {dialler: Pipe(self._latency()), accepter: Pipe(self._latency())}
        connection = Connection(dialler, accepter, address, pipes, {dialler, accepter})

        def greet() -> None:
            refused, actions = accepter.node.admit(action.hello, self.now_s)
            if refused is None:
                for closing in [a for a in actions if isinstance(a, Close)]:
                    accepter._carry_out(closing)
                accepter.links[dialler.address] = connection
                accepter.decide([a for a in actions if not isinstance(a, Close)])
            else:
                turned_away = dialler.node.turned_away
                self._later(self._latency(), dialler, turned_away, address, refused)
                connection.ends.clear()
                accepter.decide(actions)

        def give_up() -> None:
            if not connection.is_welcomed and connection.ends and dialler.is_alive:
                self.close(dialler, connection, None)
                dialler.decide(failed(address, Dialled.SILENT, self.now_s))

        self.after(self._latency(), lambda: self.to(accepter, greet))
        self.after(limits.handshake_timeout_s, lambda: self.to(dialler, give_up))

    def _later(
        self,
        delay_s: float,
        peer: SimulatedPeer,
        decide: Callable[..., list[Action]],
        *args: object,
    ) -> None:
        def happen() -> None:
            peer.decide(decide(*args, self.now_s))

        self.after(delay_s, lambda: self.to(peer, happen))

    def transmit(
        self, connection: Connection, sender: SimulatedPeer, items: list[Item] | None
    ) -> None:
        """Frames, or END, begin their way to the other side; a cut holds them back."""
        receiver = connection.other(sender)
        if self.are_cut(sender, receiver):
            connection.held.append((sender, items))
            self._connections.add(connection)
            return
        pipe = connection.pipes[receiver]
        pipe.free_s = max(pipe.free_s, self.now_s + pipe.latency_s)
        arrive = lambda: self._arrive(connection, receiver, items)  # noqa: E731
        self.after(pipe.free_s - self.now_s, lambda: self.to(receiver, arrive))

    def _arrive(
        self, connection: Connection, receiver: SimulatedPeer, items: list[Item] | None
    ) -> None:
        if receiver not in connection.ends:
            return  # it has closed; its kernel throws this away
        if items is END:
            self._ended(connection, receiver)
            return
        sender = connection.other(receiver).address
        if receiver is connection.dialler and not connection.is_welcomed:
            welcome, *items = items
            if not isinstance(welcome, Welcome):  # a Bye: the link was given up again at once
                failed = receiver.node.dial_failed
                connection.ends.discard(receiver)
                turned_away = failed(connection.dialled, Dialled.TURNED_AWAY, self.now_s)
                receiver.decide(turned_away)
                return
            connection.is_welcomed = True
            if not self._welcomed(connection, welcome):
                return
        if items and receiver.links.get(sender) is connection:
            receiver.decide(receiver.node.receive(sender, items, self.now_s))

    def _welcomed(self, connection: Connection, welcome: Welcome) -> bool:
        dialler = connection.dialler
        conflict, actions = dialler.node.link_up(connection.dialled, welcome, self.now_s)
        for closing in [a for a in actions if isinstance(a, Close)]:
            dialler._carry_out(closing)
        if conflict:
            self.close(dialler, connection, Bye(conflict, is_leaving=False))
        else:
            dialler.links[welcome.address] = connection
        dialler.decide([a for a in actions if not isinstance(a, Close)])
        return not conflict

    def _ended(self, connection: Connection, receiver: SimulatedPeer) -> None:
        other = connection.other(receiver).address
        connection.ends.discard(receiver)
        if receiver.links.get(other) is connection:
            reason = "closed by the neighbour"
            receiver.decide(receiver.node.link_down(other, reason, self.now_s))
        elif receiver is connection.dialler and not connection.is_welcomed:
            failed = receiver.node.dial_failed
            receiver.decide(failed(connection.dialled, Dialled.SILENT, self.now_s))

    def close(self, peer: SimulatedPeer, connection: Connection, last_words: Bye | None) -> None:
        """The peer closes its end."""
        if peer in connection.ends:
            connection.ends.discard(peer)
            if last_words is not None:
                self.transmit(connection, peer, [last_words])
            self.transmit(connection, peer, END)

    def try_peer(self, peer: SimulatedPeer, accused: Address) -> None:
        """A fresh connection that asks for an echo."""
        target = self.peers.get(accused)
        tried = peer.node.tried
        if target is None or target.is_stopped or self.are_cut(peer, target):
            self._later(self.tunables.probe_timeout_s, peer, tried, accused, Tried.SILENT)
        else:
            outcome = Tried.ECHOED if target.is_alive else Tried.REFUSED
            self._later(2 * self._latency(), peer, tried, accused, outcome)

    # ---- faults of the network ----

    def break_link(self, connection: Connection) -> None:
        """Both ends find the connection reset; what was under way is lost."""
        ends, connection.ends = list(connection.ends), set()
        for peer in sorted(ends, key=lambda peer: peer.address):
            connection.ends.add(peer)
            self.to(peer, lambda peer=peer: self._ended(connection, peer))  # type: ignore[misc]

    def cut(self, side: dict[Address, int]) -> None:
        """From now on nothing passes between peers on different sides, not even an end."""
        self.side = side

    def heal(self) -> None:
        """Everybody can talk again; the kernels send again what was held back."""
        self.side = {}
        connections, self._connections = self._connections, set()
        for connection in sorted(connections, key=lambda c: (c.dialler.address, c.dialled)):
            held, connection.held = connection.held, []
            for sender, items in held:
                self.transmit(connection, sender, items)

    # ---- promises ----

    def check(self, peer: SimulatedPeer) -> None:
        """What must hold for a peer after every event."""
        node, limits = peer.node, self.tunables
        neighbours = node.overlay.neighbours
        _demand(len(neighbours) <= limits.max_links, "at most max_links neighbours")
        _demand(peer.address not in neighbours, "no link to oneself")
        _demand(neighbours.keys() == peer.links.keys(), "the node and the world agree on links")
        _demand(len(node.overlay.book) <= limits.book_size, "the book within its bound")
        _demand(len(node.gossip.streams) <= limits.max_streams, "streams within their bound")
        _demand(node.gossip.inbox_size == 0, "whatever was heard is handed on")
        _demand(node.gossip.history_size <= limits.history_bytes, "the history within its bound")

    def differences(self) -> list[str]:
        """What keeps the live peers from being one network in which all have the same."""
        live = [peer for peer in self.live_peers() if not peer.is_stopped]
        found = [f"{len(part)} peers apart" for part in components(live)[1:]]
        furthest: dict[StreamKey, int] = {}
        for peer in live:
            for key, upto in peer.heard.items():
                furthest[key] = max(upto, furthest.get(key, 0))
        for peer in live:
            for key, upto in furthest.items():
                if peer.heard.get(key, 0) != upto:
                    found.append(f"{peer.address} has {peer.heard.get(key, 0)} of {upto}")
        return found


def components(peers: Iterable[SimulatedPeer]) -> list[set[Address]]:
    """The parts of the network between which there is no link, largest first."""
    left = {peer.address: peer for peer in peers}
    parts = []
    while left:
        _, peer = left.popitem()
        part, edge = {peer.address}, [peer]
        while edge:
            for neighbour in edge.pop().links:
                if neighbour in left:
                    edge.append(left.pop(neighbour))
                    part.add(neighbour)
        parts.append(part)
    return sorted(parts, key=len, reverse=True)


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


def _demand(holds: bool, promise: str) -> None:
    if not holds:
        raise BrokenPromise(f"broken: {promise}")
