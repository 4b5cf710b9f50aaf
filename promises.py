"""What must hold in every world, whatever happens in it, and what must hold again afterwards.

Safety is looked at after every event. Progress, that all are one network again in which all have
the same, is demanded only once the faults have stopped.
"""

from collections.abc import Collection

from messages import Address, StreamKey
from node import MAX_ATTEMPTS
from settings import Tunables
from simulated_peer import Onlooker, SimulatedPeer, payload_of
from simulated_seed import LOOK_INTERVAL_S, SimulatedSeed
from streams import Gap
from tree import REMEMBERED_STALE_ROOTS
from wire import Run
from world import World, components

MOST_WATCHED_CLOSELY = 50  # peers
CHECK_INTERVAL_S = 5.0  # how often all are looked at
VERDICT_SLACK_S = 1.0  # for the way to a peer and back


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


class Promises(Watch):
    """Looks at what the applications hear and at the lists of the seeds too."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world.after(LOOK_INTERVAL_S, self._look_at_seeds)

    def heard(self, peer: SimulatedPeer, item: Run | Gap, upto: int) -> None:
        """Each message once, in order, unchanged; what is lost is said to be."""
        _demand(item.first == upto + 1, f"{peer.address} hears {upto + 1}, not {item.first}")
        if isinstance(item, Run):
            for number, payload in enumerate(item.payloads(), start=item.first):
                is_right = payload == payload_of(item.stream, number)
                _demand(is_right, f"{peer.address} hears what was said as number {number}")

    def removed(self, seed: SimulatedSeed, peer: Address, boot_ms: int) -> None:
        """A seed never drops a live peer within its reach."""
        world = self._world
        life = world.peers[peer]
        since_s = max(life.since_s, world.cut_s)
        was_within_reach = since_s < world.now_s - world.tunables.probe_timeout_s
        is_listed_life = life.is_running and life.node.me.boot_ms == boot_ms
        is_within_reach = was_within_reach and not world.are_cut(seed.address, peer)
        _demand(not (is_listed_life and is_within_reach), f"{peer} lives and stays on the list")

    def _look_at_seeds(self) -> None:
        """A dead peer is off every list once a lease, and the attempt after it, is over."""
        world, limits = self._world, self._world.tunables
        world.after(LOOK_INTERVAL_S, self._look_at_seeds)
        patience_s = limits.lease_s + LOOK_INTERVAL_S + limits.probe_timeout_s + VERDICT_SLACK_S
        for seed in world.seeds:
            for address, life in world.peers.items():
                boot_ms = seed.directory.boot_of(address) if seed.is_up else None
                is_dead = not life.is_alive or boot_ms != life.node.me.boot_ms
                if boot_ms is not None and is_dead:
                    is_in_time = world.now_s <= life.since_s + patience_s
                    _demand(is_in_time, f"{address} is dead and off the list of {seed.address}")


def check(peer: SimulatedPeer, limits: Tunables) -> None:
    """What must hold for a peer after every event. Raises BrokenPromise."""
    node = peer.node
    neighbours = node.overlay.neighbours
    _demand(peer.address not in neighbours, "no link to oneself")
    _demand(neighbours.keys() == peer.links.keys(), "the node and the world agree on links")
    _check_tree(peer)
    _check_bounds(peer, limits)


def _check_tree(peer: SimulatedPeer) -> None:
    """Everybody hangs on the tree by a parent nearer to the root, and so there are no circles."""
    tree = peer.node.tree
    if tree.parent is None:
        is_root = tree.root == peer.node.me.key
        _demand(is_root or tree.is_loud, "who has no parent is the root, or loud")
        return
    _demand(tree.parent in peer.links, "the parent is a neighbour")
    above = tree._heard[tree.parent]  # a later word of it may still be under way
    is_same = above is not None and (above.root, above.epoch) == (tree.root, tree.epoch)
    if above is not None and is_same and not tree.is_changing:
        _demand(above.hops < tree.hops, "the parent is nearer to the root")


def _check_bounds(peer: SimulatedPeer, limits: Tunables) -> None:
    node, gossip = peer.node, peer.node.gossip
    _demand(len(peer.links) <= limits.max_links, "at most max_links neighbours")
    _demand(len(node.overlay.book) <= limits.book_size, "the book within its bound")
    _demand(len(gossip.streams) <= limits.max_streams, "streams within their bound")
    _demand(gossip._questions.keys() <= gossip.streams.keys(), "a question for a stream at most")
    _demand(len(gossip._forgotten) <= limits.remembered_streams, "forgotten streams bounded")
    _demand(gossip.history_size <= limits.history_bytes, "the history within its bound")
    _demand(gossip.inbox_size == 0, "whatever was heard is handed on")
    _demand(len(node.tree._stale) <= REMEMBERED_STALE_ROOTS, "stale roots within their bound")
    _demand(len(node._askers) <= MAX_ATTEMPTS, "attempts for others within their bound")
    for neighbour in peer.links:
        waiting = len(node._outboxes[neighbour].messages)
        _demand(waiting <= limits.max_queued_messages, "outboxes within their bound")
        ledger = gossip._ledgers[neighbour]
        most = limits.max_streams + limits.remembered_streams
        _demand(len(ledger.has) <= most, "accounts of a neighbour within their bound")
        _demand(ledger.owed.keys() <= gossip.streams.keys(), "only what we have is owed")


def _demand(holds: bool, promise: str) -> None:
    if not holds:
        raise BrokenPromise(f"promised: {promise}")


def differences(world: World) -> list[str]:
    """What keeps the running peers from being one calm network in which all have the same.

    Insiders need not pass on what they have, so what only they have is not missed.
    """
    running = [peer for peer in world.live_peers() if not peer.is_stopped]
    found = [f"{len(part)} peers apart" for part in components(running)[1:]]
    found += [f"{peer.address} is loud" for peer in running if peer.node.tree.is_loud]
    found += [f"{p.address} holds on to a dead peer" for p in running if _has_dead_end(p)]
    roots = {peer.node.tree.root for peer in running}
    found += [f"{len(roots)} roots"] if len(roots) > 1 else []
    return found + _missing([peer for peer in running if peer.manner is None])


def _missing(peers: Collection[SimulatedPeer]) -> list[str]:
    """What some of these peers have heard and others have not."""
    furthest: dict[StreamKey, int] = {}
    for peer in peers:
        for key, upto in peer.heard.items():
            furthest[key] = max(upto, furthest.get(key, 0))
    return [
        f"{peer.address} has {peer.heard.get(key, 0)} of {upto}"
        for peer in peers
        for key, upto in furthest.items()
        if peer.heard.get(key, 0) != upto
    ]


def _has_dead_end(peer: SimulatedPeer) -> bool:
    return not all(end.other.peer.is_alive for end in peer.links.values())
