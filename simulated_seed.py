"""A seed in virtual time: the directory of `seed.py`, and its attempts to reach who is accused."""

import random
from collections.abc import Callable

from directory import Directory
from liveness import Tried
from messages import Address
from settings import Tunables
from virtual_time import VirtualTime

LOOK_INTERVAL_S = 1.0  # how often lapsed leases are looked for

Attempt = Callable[[Address, Address], tuple[float, Tried]]  # who tries whom -> how long, outcome


class SimulatedSeed:
    """One seed; it forgets everything when it goes down.

    `attempt` says how long it takes to try an address, and what comes of it; `removed` is told of
    each life of a peer that is taken off the list.
    """

    def __init__(
        self,
        address: Address,
        tunables: Tunables,
        time: VirtualTime,
        rng: random.Random,
        attempt: Attempt,
        removed: Callable[["SimulatedSeed", Address, int], None],
    ) -> None:
        self.address = address
        self._tunables = tunables
        self._time = time
        self._rng = rng
        self._attempt = attempt
        self._removed = removed
        self.up_since_s: float | None = None
        self.directory = Directory(tunables, rng)

    @property
    def is_up(self) -> bool:
        return self.up_since_s is not None

    def start(self) -> None:
        """Begin, with an empty list."""
        self.up_since_s = self._time.now_s
        self.directory = Directory(self._tunables, self._rng)
        self._time.after(LOOK_INTERVAL_S, self._look, self.directory)

    def stop(self) -> None:
        """Whatever it knew is lost."""
        self.up_since_s = None

    def register(self, peer: Address, boot_ms: int) -> list[Address]:
        """A peer renews its lease, and is given the list."""
        self.directory.register(peer, boot_ms, self._time.now_s)
        return self.directory.listed(but=peer)

    def accuse(self, peer: Address) -> None:
        """A report, a lost connection or a lapsed lease: try the peer before believing it."""
        boot_ms = self.directory.boot_of(peer)
        if self.is_up and boot_ms is not None:
            delay_s, outcome = self._attempt(self.address, peer)
            self._time.after(delay_s, self._judge, self.directory, peer, boot_ms, outcome)

    def _judge(self, asked: Directory, peer: Address, boot_ms: int, outcome: Tried) -> None:
        if asked is not self.directory or not self.is_up:
            return  # the seed was restarted in the meantime
        if outcome is Tried.ECHOED:
            asked.extend(peer, boot_ms, self._time.now_s)
        elif asked.remove(peer, boot_ms):
            self._removed(self, peer, boot_ms)

    def _look(self, directory: Directory) -> None:
        if directory is self.directory and self.is_up:
            for peer in directory.lapsed(self._time.now_s):
                self.accuse(peer)
            self._time.after(LOOK_INTERVAL_S, self._look, directory)
