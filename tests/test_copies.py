"""Copies on the wire: a settled network carries each message to each peer hardly more than once."""

from collections.abc import Sequence

import pytest

from embedding import Embedded
from helpers import wait_until
from peer import Peer

PEERS = 10
MESSAGES = 200
ATTEMPTS = 3
MOST_SURPLUS = 0.05  # copies beyond the one needed


def settled_network(embedded: Embedded) -> list[Peer]:
    """Peers that have their links, and whose tree is drawn: each but one has a way to the root."""
    seed = embedded.seed()
    peers = [embedded.peer(seeds=[seed.address]) for _ in range(PEERS)]
    wait_until(lambda: all(len(peer.neighbours()) >= 4 for peer in peers), what="four links each")
    wait_until(lambda: is_drawn(peers), what="the tree")
    return peers


def is_drawn(peers: Sequence[Peer]) -> bool:
    """Whether every peer knows one root, and payload travels on as many links as a tree has."""
    ways = [link for peer in peers for link in peer.links() if link["is_tree"]]
    roots = sum(peer.stats()["hops_to_root"] == 0 for peer in peers)
    return roots == 1 and len(ways) == 2 * (len(peers) - 1)


@pytest.mark.parametrize("senders", [1, PEERS])
def test_a_settled_network_carries_few_copies(embedded: Embedded, senders: int) -> None:
    """The tree may be drawn anew just then, which costs some; but not time and again."""
    peers = settled_network(embedded)
    surplus = []
    for attempt in range(1, ATTEMPTS + 1):
        before = sum(peer.stats()["surplus"] for peer in peers)
        for _ in range(MESSAGES):
            for sender in peers[:senders]:
                sender.broadcast(b"once")
        for number, peer in enumerate(peers):
            embedded.wait_to_hear(peer, attempt * MESSAGES * (senders - (number < senders)))
        surplus.append(sum(peer.stats()["surplus"] for peer in peers) - before)
    deliveries = MESSAGES * senders * (PEERS - 1)
    assert min(surplus) <= MOST_SURPLUS * deliveries
