"""What must hold in a simulated world beyond what it always checks, and what must hold in the end.

Safety is looked at after every event. Progress, that all are one network again in which all have
the same, is demanded only once the faults have stopped.
"""

from collections.abc import Collection

from inhabitants import LOOK_INTERVAL_S, SimulatedPeer, SimulatedSeed, payload_of
from messages import Address, StreamKey
from streams import Gap
from wire import Run
from world import Watch, World, components, demand

VERDICT_SLACK_S = 1.0  # for the way to a peer and back


class Promises(Watch):
    """Looks at what the applications hear and at the lists of the seeds too."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world.after(LOOK_INTERVAL_S, self._look_at_seeds)

    def heard(self, peer: SimulatedPeer, item: Run | Gap, upto: int) -> None:
        """Each message once, in order, unchanged; what is lost is said to be."""
        demand(item.first == upto + 1, f"{peer.address} hears {upto + 1}, not {item.first}")
        if isinstance(item, Run):
            for number, payload in enumerate(item.payloads(), start=item.first):
                is_right = payload == payload_of(item.stream, number)
                demand(is_right, f"{peer.address} hears what was said as number {number}")

    def removed(self, seed: SimulatedSeed, peer: Address, boot_ms: int) -> None:
        """A seed never drops a live peer within its reach."""
        world = self._world
        life = world.peers[peer]
        since_s = max(life.since_s, world.cut_s)
        was_within_reach = since_s < world.now_s - world.tunables.probe_timeout_s
        is_listed_life = life.is_running and life.node.me.boot_ms == boot_ms
        is_within_reach = was_within_reach and not world.are_cut(seed.address, peer)
        demand(not (is_listed_life and is_within_reach), f"{peer} lives and stays on the list")

    def _look_at_seeds(self) -> None:
        """A dead peer is off every list once a lease, and the attempt after it, is over.

        If it lives again, it is right that its address is listed, whichever life registered it.
        """
        world, limits = self._world, self._world.tunables
        world.after(LOOK_INTERVAL_S, self._look_at_seeds)
        patience_s = limits.lease_s + LOOK_INTERVAL_S + limits.probe_timeout_s + VERDICT_SLACK_S
        for seed in world.seeds:
            for address, life in world.peers.items():
                if seed.is_up and address in seed.directory and not life.is_alive:
                    is_in_time = world.now_s <= life.since_s + patience_s
                    demand(is_in_time, f"{address} is dead and off the list of {seed.address}")


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
