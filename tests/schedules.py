"""Small networks in virtual time under every kind of fault, each run decided by one number.

A run has two phases: faults of every kind for a while, with the promises checked after every event;
then the faults stop, and within `SETTLED_WITHIN_S` all must be one network in which all have the
same.

    python3 tests/schedules.py 17        run number 17 again, telling what happens
    python3 tests/schedules.py 0-20000   a long search
"""

import random
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from messages import Address
from settings import Tunables
from promises import Promises, differences
from simulated_peer import SimulatedPeer
from world import World

FAULTS_S = 20.0
SETTLED_WITHIN_S = 30.0
PAUSES_S = (0.5, 2.5, 6.0, 12.0)  # under, and over, what makes a peer suspect


class Schedule:
    """One network and the faults that befall it."""

    def __init__(self, seed: int, is_telling: bool = False) -> None:
        self.rng = random.Random(seed)
        self.is_telling = is_telling
        self.world = World(seed, self._tunables(), seeds=self.rng.randint(1, 3))
        Promises(self.world)
        size = self.rng.randint(2, 9)
        self.addresses = [Address(f"10.0.0.{n}", 6000) for n in range(1, size + 1)]
        self.faults = [self._crash, self._restart, self._pause, self._cut, self._heal]
        self.faults += [self._seeds, self._break, self._say]
        self.weights = [1, 1, 1, 1, 1, 1, 2, 5]

    def _tunables(self) -> Tunables:
        """Limits small enough to be met, and intervals short enough for a short run."""
        return Tunables(
            tick_interval_s=0.25,
            feeler_interval_s=5.0,
            renew_interval_s=15.0,
            longest_backoff_s=8.0,
            out_links=self.rng.choice([2, 4]),
            max_links=self.rng.choice([4, 5, 12]),
            book_size=self.rng.choice([8, 512]),
            history_bytes=self.rng.choice([20_000, 64 << 20, 64 << 20]),
            batch_bytes=self.rng.choice([1, 1_000, 100_000]),
        )

    def run(self) -> float:
        """Both phases. Returns how long the network took to settle. Raises AssertionError."""
        for address in self.addresses:
            self.world.after(self.rng.uniform(0, 3), partial(self.world.start_peer, address))
        self.world.after(1.0, self._next_fault)
        self.world.run_until(FAULTS_S)
        self._stop_faults()
        for second in range(1, int(SETTLED_WITHIN_S) + 1):
            self.world.run_until(FAULTS_S + second)
            if second > 1 and not differences(self.world):
                return float(second)
        raise AssertionError(f"not settled: {differences(self.world)}")

    def _next_fault(self) -> None:
        if self.world.now_s >= FAULTS_S:
            return
        self.world.after(self.rng.expovariate(2.0), self._next_fault)
        if live := self.world.live_peers():
            peer = self.rng.choice(live)
            (happen,) = self.rng.choices(self.faults, self.weights)
            if self.is_telling:
                print(f"{self.world.now_s:6.2f} s  {happen.__name__[1:]} {peer.address}")
            happen(peer)

    def _stop_faults(self) -> None:
        self.world.heal()
        for seed in self.world.seeds:
            if not seed.is_up:
                seed.start()
        for peer in list(self.world.peers.values()):
            if peer.is_stopped:
                peer.go_on()
        for peer in self.world.live_peers():
            peer.say()

    def _crash(self, peer: SimulatedPeer) -> None:
        self.world.crash(peer)

    def _restart(self, _: SimulatedPeer) -> None:
        dead = [peer for peer in self.world.peers.values() if not peer.is_alive]
        if dead:
            self.world.start_peer(self.rng.choice(dead).address)

    def _pause(self, peer: SimulatedPeer) -> None:
        if not peer.is_stopped:
            peer.is_stopped = True
            self.world.after(self.rng.choice(PAUSES_S), lambda: self._resume(peer))

    def _resume(self, peer: SimulatedPeer) -> None:
        if peer.is_stopped:
            peer.go_on()

    def _break(self, peer: SimulatedPeer) -> None:
        if peer.links:
            self.world.break_link(self.rng.choice(list(peer.links.values())))

    def _cut(self, _: SimulatedPeer) -> None:
        self.world.cut({address: self.rng.randint(0, 1) for address in self.addresses})

    def _heal(self, _: SimulatedPeer) -> None:
        self.world.heal()

    def _seeds(self, _: SimulatedPeer) -> None:
        seed = self.rng.choice(self.world.seeds)
        if seed.is_up:
            seed.stop()
        else:
            seed.start()

    def _say(self, peer: SimulatedPeer) -> None:
        if not peer.is_stopped:
            for _ in range(self.rng.choice([1, 1, 1, 50])):
                peer.say()


def main() -> None:
    """Run the schedules named on the command line."""
    first, _, last = sys.argv[1].partition("-")
    numbers = range(int(first), int(last or first) + 1)
    for number in numbers:
        settled_s = Schedule(number, is_telling=len(numbers) == 1).run()
        print(f"schedule {number}: settled after {settled_s:.0f} s")


if __name__ == "__main__":
    main()
