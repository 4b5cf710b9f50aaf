"""A seed's list of live peers: leases, reports of deaths, and verdicts.

Pure: no sockets, threads or clocks; the time is an argument. A peer is on the list from its
registration until it leaves, or until the seed has tried it in vain: a report, a lost connection
and a lapsed lease are each only a reason to try.
"""

import random
from collections import deque
from dataclasses import dataclass

from messages import Address, PeerList
from settings import Tunables

SHARED_S = 0.1  # so long the same list is given to all who ask: it takes a millisecond to make one,
MOST_SHARED = 100  # but not to more, or of a thousand who start at once all would dial the same few

# Where processors or lines are too busy, live peers fall silent. So a seed counts the echoes that
# took more than half the time there is, and the peers that gave none: after SLOW_ECHOES of them
# within SLOW_FOR_S it removes nobody for silence at once, but tries again.
SLOW_ECHOES = 3  # a single one is a lost packet or a death
SLOW_FOR_S = 10.0
RENEWALS_TO_DOUBT = 1.5  # times the interval between renewals: then who lives has renewed


@dataclass(slots=True)
class Lease:
    """One registered peer."""

    boot_ms: int  # which life of the peer this is
    ends_s: float
    source: str  # where it was registered from first
    holder: object = None  # the connection whose word renews it; None: whose comes with an echo
    silent_since_s: float | None = None  # it was tried, and gave no echo


class Directory:
    """The peers that one seed takes for live. Every change is made by exactly one method here."""

    def __init__(self, tunables: Tunables, rng: random.Random) -> None:
        self._tunables = tunables
        self._rng = rng
        self._leases: dict[Address, Lease] = {}
        self._sources: dict[str, dict[Address, None]] = {}  # who was registered from each
        self._chosen: dict[Address, None] = {}  # to be handed out
        self._chosen_until_s = float("-inf")
        self._times_left = 0
        self._answer: PeerList | None = None  # and as it is handed out, until that changes
        self._slow_s: deque[float] = deque(maxlen=SLOW_ECHOES)  # when echoes were slow

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
        return not is_full and len(self._sources.get(source, ())) < limits.leases_per_source

    def is_held_by(self, peer: Address, boot_ms: int, holder: object) -> bool:
        """Whether that life of the peer is listed, and this connection's word renews its lease."""
        lease = self._leases.get(peer)
        return lease is not None and (lease.boot_ms, lease.holder) == (boot_ms, holder)

    def release(self, peer: Address) -> None:
        """A connection has ended over which the peer was registered: it may have been its own."""
        if peer in self._leases:
            self._leases[peer].holder = None

    def register(
        self, peer: Address, boot_ms: int, now_s: float, source: str = "", holder: object = None
    ) -> bool:
        """Begin or renew the peer's lease. True if this life of it was not on the list.

        Whoever is not the holder has to have shown that the peer lives.
        """
        known = self._leases.get(peer)
        if known is None:
            self._sources.setdefault(source, {})[peer] = None
            if len(self._leases) < self._tunables.max_listed_peers:  # all are listed
                self._chosen[peer] = None
                self._answer = None
        else:
            source = known.source  # whoever renews it, it stays where it is counted
            if known.boot_ms == boot_ms and known.holder is not None:
                holder = known.holder
        self._leases[peer] = Lease(boot_ms, now_s + self._tunables.lease_s, source, holder)
        return known is None or known.boot_ms != boot_ms

    def remove(self, peer: Address, boot_ms: int) -> bool:
        """Take that life of the peer off the list. False if it is not on it (any more)."""
        lease = self._leases.get(peer)
        if lease is None or lease.boot_ms != boot_ms:
            return False
        del self._leases[peer]
        of_source = self._sources[lease.source]
        del of_source[peer]
        if not of_source:
            del self._sources[lease.source]
        if peer in self._chosen:
            del self._chosen[peer]
            self._answer = None
        return True

    def boot_of(self, peer: Address) -> int | None:
        """Which life of the peer is on the list, if any: what a verdict will be about."""
        lease = self._leases.get(peer)
        return None if lease is None else lease.boot_ms

    def extend(self, peer: Address, boot_ms: int, now_s: float) -> None:
        """The peer was tried and answered: it has a whole lease again."""
        if self.boot_of(peer) == boot_ms:
            self._leases[peer].ends_s = now_s + self._tunables.lease_s
            self._leases[peer].silent_since_s = None

    def echo_took(self, echo_s: float, now_s: float) -> None:
        """Some peer was tried and answered, after so long."""
        if echo_s > self._tunables.probe_timeout_s / 2:
            self._slow_s.append(now_s)

    def doubt(self, peer: Address, boot_ms: int, now_s: float) -> bool:
        """The peer was tried and gave no echo. True if it is to be tried again: it has lapsed."""
        if self.boot_of(peer) != boot_ms:
            return False
        lease = self._leases[peer]
        if lease.silent_since_s is None:
            lease.silent_since_s = now_s
            self._slow_s.append(now_s)
        is_slow = len(self._slow_s) == SLOW_ECHOES and now_s < self._slow_s[0] + SLOW_FOR_S
        doubt_s = RENEWALS_TO_DOUBT * self._tunables.renew_interval_s
        if not is_slow or now_s >= lease.silent_since_s + doubt_s:
            return False
        lease.ends_s = now_s
        return True

    def lapsed(self, now_s: float) -> list[Address]:
        """The peers whose lease has ended without renewal: to be tried."""
        return [peer for peer, lease in self._leases.items() if lease.ends_s <= now_s]

    def listed(self, now_s: float) -> PeerList:
        """The live peers, in random order; at most `max_listed_peers` of a longer list.

        Some who ask at nearly the same time get the very same answer.
        """
        if now_s >= self._chosen_until_s or not self._times_left:
            self._chosen = dict.fromkeys(self._choose())
            self._chosen_until_s = now_s + SHARED_S
            self._times_left = MOST_SHARED
            self._answer = None
        self._times_left -= 1
        if self._answer is None:
            self._answer = PeerList(tuple(self._chosen))
        return self._answer

    def _choose(self) -> list[Address]:
        """Each source gives as many as any other, as far as it has them.

        So one that registers thousands does not crowd out the rest.
        """
        most = self._tunables.max_listed_peers
        sources = list(self._sources.values())
        chosen: list[Address] = []
        waiting = [list(peers) for peers in self._rng.sample(sources, min(len(sources), most))]
        for peers in waiting:
            self._rng.shuffle(peers)
        while waiting and len(chosen) < most:
            chosen += [peers.pop() for peers in waiting]
            waiting = [peers for peers in waiting if peers]
        return chosen[:most]
