"""The network in virtual time: the same nodes as in `peer.py`, without a socket or a thread.

One integer decides everything that happens in a `World`: latencies, faults, and every random choice
of every peer. The same number gives the same run, event for event. Connections carry frames in
order; they break, they are cut so that nothing comes through (not even the news that they ended);
peers crash, vanish, restart, and are stopped for a while as by SIGSTOP.

A `Watch` checks what must hold whatever happens.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from itertools import count

from actions import Action, Close, Dial
from inhabitants import END, End, Item, Onlooker, SimulatedPeer, SimulatedSeed
from liveness import MAX_ATTEMPTS, Tried
from messages import Address, Bye, StreamName, Welcome, WireError
from overlay import Dialled
from settings import Tunables
from tree import REMEMBERED_STALE_ROOTS

RETRY_INTERVAL_S = 1.0  # a peer that lacks a seed looks for another this often
SLOW_FACTOR = 20  # how much longer a slow link takes
MOST_WATCHED_CLOSELY = 50  # peers
CHECK_INTERVAL_S = 5.0  # how often all are looked at


class VirtualTime:
    """A clock that jumps from event to event: what is due happens, in order, and takes no time.

    The order is that of the due times, and of the requests where those are equal. So a run is
    decided by what is asked for; the trace, a hash of when everything happened, tells two runs
    apart.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0  # how many events so far
        self._trace = 0
        self._queue: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._numbers = count()

    def after(self, delay_s: float, happen: Callable[..., object], *args: object) -> None:
        """Let `happen(*args)` be called later."""
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._numbers), happen, args))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due until then."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= end_s:
            self.now_s, number, happen, args = pop(queue)
            self._trace = hash((self._trace, number, self.now_s))
            self.happened += 1
            happen(*args)
        self.now_s = end_s

    @property
    def trace(self) -> str:
        """A hash of the run so far; the same in every process, for hashes of numbers are."""
        return f"{self._trace & (1 << 64) - 1:016x}"


class World(VirtualTime):
    """Peers, seeds, connections and faults, and one clock for all."""

    def __init__(
        self,
        seed: int,
        tunables: Tunables,
        seeds: int = 1,
        latency_s: tuple[float, float] = (0.010, 0.050),
        *,
        slow_share: float = 0.0,
        flush_interval_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.tunables = tunables
        self.flush_interval_s = flush_interval_s  # what a link is owed waits so long for more
        self.rng = random.Random(seed)
        self.peers: dict[Address, SimulatedPeer] = {}  # the present life at each address
        self.side: dict[Address, int] = {}  # of a cut; those on different sides cannot talk
        self.cut_s = 0.0  # since then the sides are as they are
        self.onlookers: list[Onlooker] = []
        self.sendings = 0  # how often frames were put on some wire together
        self._latency_s = latency_s
        self._slow_share = slow_share  # of the directions of connections
        self._held: dict[End, None] = {}  # ends with something held back by a cut
        self.seeds = [self._new_seed(number) for number in range(seeds)]

    def _new_seed(self, number: int) -> SimulatedSeed:
        address = Address(f"seed-{number}", 5000)
        seed = SimulatedSeed(self, address, random.Random(self.seed + number))
        seed.start()
        return seed

    def latency_s(self) -> float:
        """How long a frame takes on some way that was not used before."""
        return self.rng.uniform(*self._latency_s)

    def _link_latency_s(self) -> float:
        """The same for a link, which may be slow for as long as it lasts."""
        is_slow = self._slow_share and self.rng.random() < self._slow_share
        return self.latency_s() * (SLOW_FACTOR if is_slow else 1)

    # ---- peers ----

    def start_peer(self, address: Address) -> SimulatedPeer:
        """A peer begins its life; it learns of others from the seeds, if they are up."""
        peer = self.add_peer(address)
        self.renew(peer)
        return peer

    def add_peer(self, address: Address) -> SimulatedPeer:
        """A peer that can be dialled, and knows nobody yet."""
        known = self.peers.get(address)
        name = StreamName(address, int(self.now_s * 1000) + 1)
        peer = SimulatedPeer(self, name, known.number if known else len(self.peers))
        self.peers[address] = peer
        peer.decide([])
        return peer

    def live_peers(self) -> list[SimulatedPeer]:
        return [peer for peer in self.peers.values() if peer.is_alive]

    def crash(self, peer: SimulatedPeer) -> None:
        """Kill it. Its kernel closes its connections, and refuses new ones."""
        for end in list(peer.links.values()):
            self.close(end, None)
        peer.links.clear()
        peer.die()
        for seed in peer.seeds:
            self.after(self.latency_s(), seed.accuse, peer.address)

    def vanish(self, peer: SimulatedPeer) -> None:
        """As by a power cut: nobody is told, and nothing answers there any more."""
        peer.is_vanished = True
        peer.die()

    def renew(self, peer: SimulatedPeer) -> None:
        """Register with a majority of the seeds and learn of the others, again and again."""
        within_reach = [
            s for s in self.seeds if s.is_up and not self.are_cut(peer.address, s.address)
        ]
        majority = len(self.seeds) // 2 + 1
        kept = [seed for seed in peer.seeds if seed in within_reach]
        others = [seed for seed in within_reach if seed not in kept]
        missing = min(majority - len(kept), len(others))
        peer.seeds = kept + self.rng.sample(others, missing)
        found: set[Address] = set()
        for seed in peer.seeds:
            found.update(seed.register(peer.address, peer.node.me.boot_ms))
        has_majority = len(peer.seeds) == majority
        interval_s = self.tunables.renew_interval_s
        wait_s = interval_s if has_majority else min(RETRY_INTERVAL_S, interval_s)
        self.after(wait_s, peer.to, self.renew, peer)
        peer.decide(peer.node.learn(sorted(found), self.now_s))

    def report(self, reporter: SimulatedPeer, dead: Address) -> None:
        """Its seeds are told; they try the accused themselves before they believe it."""
        for seed in reporter.seeds:
            if not self.are_cut(reporter.address, seed.address):
                self.after(self.latency_s(), seed.accuse, dead)

    def attempt(self, asker: Address, accused: Address) -> tuple[float, Tried]:
        """A fresh connection that asks for an echo: how long it takes, and what comes of it."""
        target = self.peers.get(accused)
        if target is None or target.is_vanished or self.are_cut(asker, accused):
            return self.tunables.probe_timeout_s, Tried.SILENT
        if target.is_stopped:
            return self.tunables.probe_timeout_s, Tried.SILENT
        delay_s = 2 * self.latency_s()
        if not target.is_alive:
            return delay_s, Tried.REFUSED
        if delay_s > self.tunables.probe_timeout_s:
            return self.tunables.probe_timeout_s, Tried.SILENT
        return delay_s, Tried.ECHOED

    # ---- connections ----

    def are_cut(self, one: Address, other: Address) -> bool:
        """Whether nothing passes between these two now."""
        return self.side.get(one, 0) != self.side.get(other, 0)

    def dial(self, dialler: SimulatedPeer, action: Dial) -> None:
        """A connection attempt, with the hello."""
        accepter = self.peers.get(action.address)
        address, failed = action.address, dialler.node.dial_failed
        if accepter is None or accepter.is_vanished or self.are_cut(dialler.address, address):
            dialler.later(self.tunables.dial_timeout_s, failed, address, Dialled.SILENT)
        elif not accepter.is_alive:
            dialler.later(2 * self.latency_s(), failed, address, Dialled.REFUSED)
        else:
            near = End(dialler, self._link_latency_s(), is_welcomed=False)
            far = End(accepter, self._link_latency_s())
            near.other, far.other = far, near
            self.after(near.latency_s, accepter.to, self._greet, far, action)
            self.after(self.tunables.handshake_timeout_s, dialler.to, self._give_up, near)

    def _greet(self, end: End, action: Dial) -> None:
        """The hello is there: the accepter answers it."""
        dialler, accepter = end.other.peer, end.peer
        refused, actions = accepter.node.admit(action.hello, self.now_s)
        if refused is None:
            self._link(end, actions)
        else:
            end.is_open = end.other.is_open = False
            accepter.decide(actions)
            turned_away = dialler.node.turned_away
            dialler.later(end.latency_s, turned_away, accepter.address, refused)

    def _link(self, end: End, actions: list[Action]) -> None:
        """The node counts on this link now; it may have let go of others for it."""
        peer, neighbour = end.peer, end.other.peer.address
        for action in actions:
            if isinstance(action, Close):
                self.close(peer.links.pop(action.neighbour), action.last_words)
        peer.links[neighbour] = end
        peer.decide(action for action in actions if not isinstance(action, Close))

    def _give_up(self, end: End) -> None:
        """No answer to the hello in time."""
        if end.is_open and not end.is_welcomed:
            self.close(end, None)
            failed = end.peer.node.dial_failed
            end.peer.decide(failed(end.other.peer.address, Dialled.SILENT, self.now_s))

    def transmit(self, end: End, items: list[Item] | None) -> None:
        """Frames, or END, begin their way to the other side; a cut holds them back."""
        if self.side and self.are_cut(end.peer.address, end.other.peer.address):
            end.held.append(items)
            self._held[end] = None
            return
        self.sendings += 1
        arrival_s = self.now_s + end.latency_s
        end.arrival_s = arrival_s = max(arrival_s, end.arrival_s)
        self.after(arrival_s - self.now_s, end.other.peer.to, self._arrive, end.other, items)

    def _arrive(self, end: End, items: list[Item] | None) -> None:
        if not end.is_open:
            return  # it has closed; its kernel throws this away
        peer, sender = end.peer, end.other.peer
        if items is END:
            self._ended(end)
            return
        if not end.is_welcomed:
            items = self._answered(end, items)
        if items and peer.links.get(sender.address) is end:
            for onlooker in self.onlookers:
                onlooker.arrived(items)
            peer.source = sender
            peer.decide(self._received(peer, sender.address, items))
            peer.source = None

    def _received(self, peer: SimulatedPeer, sender: Address, items: list[Item]) -> list[Action]:
        try:
            return peer.node.receive(sender, items, self.now_s)
        except WireError as error:
            return peer.node.misbehaved(sender, str(error), self.now_s)

    def _answered(self, end: End, items: list[Item]) -> list[Item]:
        """The first frames to the dialler. Returns those behind the welcome, if it is one."""
        dialler, accepter = end.peer, end.other.peer
        welcome, *others = items
        if not isinstance(welcome, Welcome):  # a Bye: the link was given up again at once
            end.is_open = False
            failed = dialler.node.dial_failed
            dialler.decide(failed(accepter.address, Dialled.TURNED_AWAY, self.now_s))
            return []
        end.is_welcomed = True
        conflict, actions = dialler.node.link_up(accepter.address, welcome, self.now_s)
        if conflict:
            self.close(end, Bye(conflict, is_leaving=False))
            dialler.decide(actions)
            return []
        self._link(end, actions)
        return others

    def _ended(self, end: End) -> None:
        """The other side has closed, or the connection was reset."""
        end.is_open = False
        peer, other = end.peer, end.other.peer.address
        if peer.links.get(other) is end:
            reason = "closed by the neighbour"
            peer.decide(peer.node.link_down(other, reason, self.now_s))
        elif not end.is_welcomed:
            peer.decide(peer.node.dial_failed(other, Dialled.SILENT, self.now_s))

    def close(self, end: End, last_words: Bye | None) -> None:
        """The peer closes its end."""
        if end.is_open:
            end.is_open = False
            if last_words is not None:
                self.transmit(end, [last_words])
            self.transmit(end, END)

    # ---- faults of the network ----

    def break_link(self, end: End) -> None:
        """Both ends find the connection reset; what was under way is lost."""
        open_ends = [each for each in (end, end.other) if each.is_open]
        for each in open_ends:
            each.is_open = False
        for each in open_ends:
            each.peer.to(self._ended, each)

    def cut(self, side: dict[Address, int]) -> None:
        """From now on nothing passes between those on different sides, not even an end.

        Where it passes again, the kernels send what was held back.
        """
        self.side, self.cut_s = side, self.now_s
        ends, self._held = self._held, {}
        for end in ends:
            held, end.held = end.held, []
            for items in held:
                self.transmit(end, items)

    def heal(self) -> None:
        """Everybody can talk again."""
        self.cut({})


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


# ---- promises ------------------------------------------------------------------------------------


class BrokenPromise(AssertionError):
    """The network did what it must never do."""


class Watch(Onlooker):
    """Looks at a peer after every event at it; at all now and then, if they are many.

    Raises BrokenPromise.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        world.onlookers.append(self)
        world.after(CHECK_INTERVAL_S, self._look_again)

    def decided(self, peer: SimulatedPeer) -> None:
        if len(self._world.peers) <= MOST_WATCHED_CLOSELY:
            check(peer, self._world.tunables)

    def look_at_all(self) -> None:
        """Look at every live peer now."""
        for peer in self._world.live_peers():
            check(peer, self._world.tunables)

    def _look_again(self) -> None:
        self.look_at_all()
        self._world.after(CHECK_INTERVAL_S, self._look_again)


def check(peer: SimulatedPeer, limits: Tunables) -> None:
    """What must hold for a peer after every event. Raises BrokenPromise."""
    node = peer.node
    neighbours = node.overlay.neighbours
    demand(peer.address not in neighbours, "no link to oneself")
    demand(neighbours.keys() == peer.links.keys(), "the node and the world agree on links")
    _check_tree(peer)
    _check_bounds(peer, limits)


def _check_tree(peer: SimulatedPeer) -> None:
    """Everybody hangs on the tree by a parent nearer to the root, and so there are no circles."""
    tree = peer.node.tree
    if tree.parent is None:
        is_root = tree.root == peer.node.me.key
        demand(is_root or tree.is_loud, "who has no parent is the root, or loud")
        return
    demand(tree.parent in peer.links, "the parent is a neighbour")
    above = tree._heard[tree.parent]  # a later word of it may still be under way
    is_same = above is not None and (above.root, above.epoch) == (tree.root, tree.epoch)
    if above is not None and is_same and not tree.is_changing:
        demand(above.hops < tree.hops, "the parent is nearer to the root")


def _check_bounds(peer: SimulatedPeer, limits: Tunables) -> None:
    node, gossip = peer.node, peer.node.gossip
    demand(len(peer.links) <= limits.max_links, "at most max_links neighbours")
    demand(len(node.overlay.book) <= limits.book_size, "the book within its bound")
    demand(len(gossip.streams) <= limits.max_streams, "streams within their bound")
    demand(gossip.questions.keys() <= gossip.streams.keys(), "a question for a stream at most")
    demand(len(gossip._threshold) <= limits.remembered_streams, "forgotten streams bounded")
    demand(gossip.history_size <= limits.history_bytes, "the history within its bound")
    demand(not gossip.inbox, "whatever was heard is handed on")
    demand(len(node.tree._stale) <= REMEMBERED_STALE_ROOTS, "stale roots within their bound")
    demand(len(node.liveness._askers) <= MAX_ATTEMPTS, "attempts for others within their bound")
    for neighbour in peer.links:
        waiting = len(node._outboxes[neighbour].messages)
        demand(waiting <= limits.max_queued_messages, "outboxes within their bound")
        ledger = gossip._ledgers[neighbour]
        demand(ledger.has.keys() <= gossip.streams.keys(), "accounts only of what we hold")
        demand(ledger.owed.keys() <= gossip.streams.keys(), "only what we have is owed")


def demand(holds: bool, promise: str) -> None:
    if not holds:
        raise BrokenPromise(f"promised: {promise}")
