"""Networks of any size to look at: grown in the simulator, served to a browser as a real one is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dashboard import FILES, FOLDER
from feed import Feed
from gateway import Gateway, Page, Service
from inhabitants import SimulatedPeer
from scenario import build, new_world, run_for
from threads import Threads

LATENCY_S = (0.010, 0.050)
Network = dict[str, Any]


def grown(count: int, seed: int = 5) -> Network:
    """So many peers as `/api/network` tells of them, once they have become one network."""
    world = new_world(seed, LATENCY_S)
    build(world, count, _nothing)
    run_for(world, 15, _nothing)
    peers = [_told(peer) for peer in world.live_peers()]
    seeds = [{"address": f"10.9.0.{number}:5000", "reachable": True} for number in (1, 2, 3)]
    picture = {"peers": peers, "gone": [], "seeds": seeds, "messages_per_s": 0.0}
    return {"self": peers[0]["address"], **picture}


def _told(peer: SimulatedPeer) -> Network:
    node = peer.node
    links = list(node.overlay.neighbours)
    return {
        "address": str(node.me.origin),
        "neighbours": [str(other) for other in links],
        "tree": [str(other) for other in links if node.tree.is_payload_link(other)],
        "hops": node.tree.hops,
        "said": node.gossip.own.upto,
        "delivered": node.gossip.delivered,
        "surplus": node.gossip.surplus,
        "since": time.time(),
        "state": "alive",
    }


@contextmanager
def shown(network: Network, feed: Feed | None = None) -> Iterator[str]:
    """The page of that network; its address."""
    pages = {path: Page(kind, (FOLDER / name).read_bytes()) for path, (name, kind) in FILES.items()}
    threads = Threads("scenery", _nothing)
    service = Service(pages, lambda: network, str, len, feed or Feed(), "1")
    gateway = Gateway("localhost", 0, None, service, threads)
    threads.start("serve", gateway.serve)
    try:
        yield gateway.url
    finally:
        gateway.close()
        threads.join(time.monotonic() + 5)


def _nothing(_: str) -> None:
    """Progress is not told."""
