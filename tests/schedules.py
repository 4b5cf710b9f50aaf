"""Small networks in virtual time under every kind of fault, each run decided by one number.

A run has two phases: faults of every kind for a while, with the promises checked after every event;
then the faults stop, and within a time all must be one calm network in which all have the same, and
which carries hardly more copies than needed. In some runs there are insiders that withhold or lie,
in some slow links, and in half of them every tunable is up to ten times as much or as little.

    python3 tests/schedules.py 17        run number 17 again, telling what happens
    python3 tests/schedules.py 0-20000   a long search
"""

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from inhabitants import Lying, SimulatedPeer, withholding
from messages import Address
from promises import Promises, differences
from scenario import Measure, figures, hear_all
from settings import Tunables
from world import World

FAULTS_S = 20.0
SETTLED_WITHIN_S = 30.0
PAUSES_S = (0.5, 2.5, 6.0, 12.0)  # under, and over, what makes a peer suspect
MOST_COPIES = 0.05  # beyond the one needed, once all is calm
MOST_PEERS = 9
CALM_ATTEMPTS = MOST_PEERS  # behind a slow link each learns by one copy, and one after the other

# With less of these, no network of this kind can be whole.
LEAST = {"out_links": 2, "max_links": 4, "book_size": MOST_PEERS - 1, "history_bytes": 20_000}
ANSWERED_WITHIN = ["dial_timeout_s", "handshake_timeout_s", "probe_timeout_s", "want_patience_s"]
ANSWERED_WITHIN += ["most_want_delay_s", "beacon_interval_s", "liveness_interval_s"]
QUICK_ANSWER_S = 0.12  # there and back
SLOWEST_ANSWER_S = 2.1  # over a slow link


class Schedule:
    """One network and the faults that befall it."""

    def __init__(self, seed: int, is_telling: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.is_telling = is_telling
        self.most = self.rng.choice([1, 1, 2, 10])  # factor, by which tunables differ from usual
        manners = [None, None, None, withholding, Lying(self.rng)]
        self.manner = self.rng.choice(manners)
        slow_share = self.rng.choice([0, 0, 0, 0.2])
        self.within_s = SETTLED_WITHIN_S
        tunables = self._tunables(slow_share > 0)
        self.world = World(seed, tunables, seeds=self.rng.randint(1, 3), slow_share=slow_share)
        Promises(self.world)
        size = self.rng.randint(2, MOST_PEERS)
        self.addresses = [Address(f"10.0.0.{n}", 6000) for n in range(1, size + 1)]
        self.insiders = self.rng.sample(self.addresses, size // 3 if self.manner else 0)
        self.faults = [self._crash, self._vanish, self._restart, self._pause, self._cut]
        self.faults += [self._heal, self._seeds, self._slander, self._say, self._break]
        self.weights = [1, 1, 2, 1, 1, 1, 1, 1, 5, self.rng.choice([2, 2, 10])]

    def _tunables(self, are_some_slow: bool) -> Tunables:
        """The usual ones of these runs, or others: each up to so many times as much or as little.

        Usual are limits small enough to be met, and intervals short enough for a short run.
        """
        usual = Tunables(
            tick_interval_s=0.25,
            feeler_interval_s=5.0,
            renew_interval_s=15.0,
            longest_backoff_s=8.0,
            out_links=self.rng.choice([2, 4]),
            max_links=self.rng.choice([4, 5, 12]),
            book_size=self.rng.choice([MOST_PEERS - 1, 512]),
            # Who claims to hold what all others have dropped is waited for: not among insiders.
            history_bytes=self.rng.choice([64 << 20 if self.manner else 20_000, 64 << 20]),
            batch_bytes=self.rng.choice([1, 1_000, 100_000]),
            # Who asks another before an answer can have come is sent copies.
            want_patience_s=SLOWEST_ANSWER_S if are_some_slow else 1.0,
        )
        least: dict[str, float] = {**LEAST}
        for name in ANSWERED_WITHIN:  # or no answer ever comes in time
            least[name] = SLOWEST_ANSWER_S if are_some_slow else QUICK_ANSWER_S
        # Each is drawn for itself: one tunable more, or less, changes none of the others.
        rngs = {f.name: random.Random(f"{self.seed} {f.name}") for f in dataclasses.fields(usual)}
        while True:
            try:
                tunables = Tunables(**self._varied(usual, least, rngs))
            except ValueError:
                continue  # they do not go together
            slower = zip(slowness(tunables), slowness(usual), strict=True)
            self.within_s *= max(1.0, *(mine / theirs for mine, theirs in slower))
            return tunables

    def _varied(
        self, usual: Tunables, least: dict[str, float], rngs: dict[str, random.Random]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {name: getattr(usual, name) for name in rngs}
        if self.most > 1:
            for name, value in values.items():
                varied = value * self.most ** rngs[name].uniform(-1, 1)
                varied = max(varied, min(value, least.get(name, 0)))
                values[name] = max(1, round(varied)) if isinstance(value, int) else varied
        return values

    def run(self) -> float:
        """Both phases. Returns how long the network took to settle. Raises AssertionError."""
        for address in self.addresses:
            self.world.after(self.rng.uniform(0, 3), self._start, address)
        self.world.after(1.0, self._next_fault)
        self.world.run_until(FAULTS_S)
        self._stop_faults()
        return self._settle()

    def _settle(self) -> float:
        for second in range(1, int(self.within_s) + 1):
            self.world.run_until(FAULTS_S + second)
            if second > 1 and not differences(self.world):
                break
        else:
            raise AssertionError(f"not settled: {differences(self.world)}")
        if not self.insiders and self.world.live_peers():
            self._count_copies()
        return float(second)

    def _count_copies(self) -> None:
        """Once the tree stands still, a message comes to each peer once.

        It may be drawn anew just then, for a link that came or went; but not time and again. And a
        peer learns how long to wait for a slow link when what it asked for comes by the tree too.
        """
        copies = 1.0
        for _ in range(CALM_ATTEMPTS):
            self._wait_for_calm()
            peers = self.world.live_peers()
            measure = Measure(self.world)
            hear_all(self.world, measure.speak(peers), len(peers), lambda _: None)
            self.world.onlookers.remove(measure)
            heard = figures(measure.said.values(), len(peers), 0.0)
            assert heard.reached == 1, f"only {heard.reached:.0%} of the peers hear it"
            copies = min(copies, heard.rmr)
            if copies < MOST_COPIES:
                return
        raise AssertionError(f"{copies:.3f} copies beyond the one needed, though all is calm")

    def _wait_for_calm(self) -> None:
        """Until no peer is loud, or about to change its parent."""
        deadline_s = self.world.now_s + self.within_s
        trees = [peer.node.tree for peer in self.world.live_peers()]
        while any(tree.is_changing or tree.is_loud for tree in trees):
            assert self.world.now_s < deadline_s, "some peer is loud or changes its parent for ever"
            self.world.run_until(self.world.now_s + 0.25)

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

    # ---- faults ----

    def _start(self, address: Address) -> None:
        peer = self.world.start_peer(address)
        peer.manner = self.manner if address in self.insiders else None

    def _crash(self, peer: SimulatedPeer) -> None:
        self.world.crash(peer)

    def _vanish(self, peer: SimulatedPeer) -> None:
        self.world.vanish(peer)

    def _slander(self, peer: SimulatedPeer) -> None:
        """An insider tells its seeds that this one is dead."""
        for address in self.insiders:
            if liar := self.world.peers.get(address):
                self.world.report(liar, peer.address)

    def _restart(self, _: SimulatedPeer) -> None:
        dead = [peer for peer in self.world.peers.values() if not peer.is_alive]
        if dead:
            self._start(self.rng.choice(dead).address)

    def _pause(self, peer: SimulatedPeer) -> None:
        if not peer.is_stopped:
            peer.is_stopped = True
            self.world.after(self.rng.choice(PAUSES_S), self._resume, peer)

    def _resume(self, peer: SimulatedPeer) -> None:
        if peer.is_stopped:
            peer.go_on()

    def _break(self, peer: SimulatedPeer) -> None:
        if peer.links:
            self.world.break_link(self.rng.choice(list(peer.links.values())))

    def _cut(self, _: SimulatedPeer) -> None:
        hosts = self.addresses + [seed.address for seed in self.world.seeds]
        self.world.cut({address: self.rng.randint(0, 1) for address in hosts})

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


def slowness(tunables: Tunables) -> list[float]:
    """What takes long in a network with these tunables, in seconds each."""
    return [
        (tunables.missed_beacons_stale + 1) * tunables.beacon_interval_s,  # a root is gone
        (tunables.missed_replies_suspect + 2) * tunables.liveness_interval_s,  # a peer is
        tunables.longest_backoff_s + tunables.feeler_interval_s,  # others are found
        tunables.dial_timeout_s + tunables.handshake_timeout_s,
        tunables.probe_timeout_s,
        tunables.renew_interval_s,  # a seed that was down, or cut off, knows all again
    ]


def main() -> None:
    """Run the schedules named on the command line."""
    first, _, last = sys.argv[1].partition("-")
    numbers = range(int(first), int(last or first) + 1)
    for number in numbers:
        schedule = Schedule(number, is_telling=len(numbers) == 1)
        settled_s = schedule.run()
        print(f"schedule {number}: settled after {settled_s:.0f} s, trace {schedule.world.trace}")


if __name__ == "__main__":
    main()
