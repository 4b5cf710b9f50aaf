"""A seed's list of live peers: leases, reports of deaths, and verdicts.

Pure: no sockets, threads or clocks; the time is an argument. A peer is on the list from its
registration until it leaves, or until the seed has tried it in vain: a report, a lost connection
and a lapsed lease are each only a reason to try.
"""

import random
from collections import Counter
from dataclasses import dataclass

from limits import Tally
from messages import Address
from settings import Tunables


@dataclass(slots=True)
class Lease:
    """One registered peer."""

    boot_ms: int  # which life of the peer this is
    ends_s: float
    source: str  # where it was registered from first


class Directory:
    """The peers that one seed takes for live. Every change is made by exactly one method here."""

    def __init__(self, tunables: Tunables, rng: random.Random) -> None:
        self._tunables = tunables
        self._rng = rng
        self._leases: dict[Address, Lease] = {}
        self._per_source = Tally()

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, peer: Address) -> bool:
        return peer in self._leases

    def has_room(self, peer: Address, source: str) -> bool:
        """Whether the peer may be listed for that source: it is, or there is room for it."""
        if peer in self._leases:
            return True
        limits = self._tunables
        is_full = len(self._leases) >= limits.max_leases
        return not is_full and self._per_source[source] < limits.leases_per_source

    def register(self, peer: Address, boot_ms: int, now_s: float, source: str = "") -> bool:
        """Begin or renew the peer's lease. True if this life of it was not on the list."""
        known = self._leases.get(peer)
        if known is None:
            self._per_source.change(source, 1)
        else:
            source = known.source  # whoever renews it, it stays where it is counted
        self._leases[peer] = Lease(boot_ms, now_s + self._tunables.lease_s, source)
        return known is None or known.boot_ms != boot_ms

    def remove(self, peer: Address, boot_ms: int) -> bool:
        """Take that life of the peer off the list. False if it is not on it (any more)."""
        lease = self._leases.get(peer)
        if lease is None or lease.boot_ms != boot_ms:
            return False
        del self._leases[peer]
        self._per_source.change(lease.source, -1)
        return True

    def boot_of(self, peer: Address) -> int | None:
        """Which life of the peer is on the list, if any: what a verdict will be about."""
        lease = self._leases.get(peer)
        return None if lease is None else lease.boot_ms

    def extend(self, peer: Address, boot_ms: int, now_s: float) -> None:
        """The peer was tried and answered: it has a whole lease again."""
        if self.boot_of(peer) == boot_ms:
            self._leases[peer].ends_s = now_s + self._tunables.lease_s

    def lapsed(self, now_s: float) -> list[Address]:
        """The peers whose lease has ended without renewal: to be tried."""
        return [peer for peer, lease in self._leases.items() if lease.ends_s <= now_s]

    def listed(self, but: Address | None = None) -> list[Address]:
        """The live peers, in random order; at most `max_listed_peers` of a longer list.

        Of a longer list each source gives as many as any other, as far as it has them: one that
        registers thousands does not crowd out the rest.
        """
        peers = [peer for peer in self._leases if peer != but]
        most = self._tunables.max_listed_peers
        if len(peers) <= most or len(self._per_source) == 1:
            return self._rng.sample(peers, min(len(peers), most))
        self._rng.shuffle(peers)
        turns: Counter[str] = Counter()
        in_turn = []
        for peer in peers:
            source = self._leases[peer].source
            turns[source] += 1
            in_turn.append((turns[source], peer))
        in_turn.sort(key=lambda entry: entry[0])
        return [peer for _, peer in in_turn[:most]]
