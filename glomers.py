"""The broadcast workload of the Gossip Glomers (fly.io/dist-sys, 3d and 3e), on our nodes.

25 nodes, 100 ms on every link, 100 operations a second for 20 s, each a broadcast or a read at a
random node. A read is answered by that node alone. What counts is how many messages the nodes
exchange per operation, signs of life and all, and how long a broadcast takes to be everywhere. As
there, a message may carry several things: what is put on a link in one go counts as one.
"""

import random
from dataclasses import dataclass
from statistics import median

from measure import Measure, Said
from promises import Watch
from scenario import Progress, Result, Setting, build, cut_in_two, hear_all, run_for
from settings import Tunables
from world import World

OPERATIONS = 2000
OPERATIONS_PER_S = 100
READS = 0.5  # share of the operations
DEFAULTS = Setting(peers=25, latency_s=(0.1, 0.1), heal_after_s=10.0)
OPTIONS = {"peers", "partition", "heal_after_s", "latency_s", "seed"}  # the fields that count
CUT_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to trade messages for time."""

    name: str
    tunables: Tunables
    flush_interval_s: float  # on each link, sendings are at least so far apart


MODES = (
    Mode(
        "quick",  # so many links that hardly any node is two hops from the root
        Tunables(
            out_links=8,
            max_links=24,
            announce_interval_s=0.75,
            least_want_delay_s=1.5,  # an announcement does not overtake the tree by more
        ),
        flush_interval_s=0.0,
    ),
    Mode(
        "frugal",
        Tunables(out_links=5, max_links=24, announce_interval_s=1.0, least_want_delay_s=1.5),
        flush_interval_s=0.15,
    ),
)


class Workload:
    """The operations of one mode, and what came of them."""

    def __init__(self, mode: Mode, setting: Setting) -> None:
        self._mode, self._setting = mode, setting
        self.world = World(
            setting.seed,
            mode.tunables,
            latency_s=setting.latency_s,
            flush_interval_s=mode.flush_interval_s,
        )
        self._measure = Measure(self.world)
        self._rng = random.Random(setting.seed)
        self._said: list[Said] = []

    def run(self, progress: Progress) -> Result:
        """The figures. Raises NotBuilt, and BrokenPromise."""
        world = self.world
        Watch(world)
        build(world, self._setting.peers, progress)
        sent = -world.sendings
        for number in range(OPERATIONS):
            world.after(number / OPERATIONS_PER_S, self._operate)
        if self._setting.partition:
            world.after(CUT_AFTER_S, cut_in_two, world, self._setting.partition, self._rng)
            world.after(CUT_AFTER_S + self._setting.heal_after_s, world.heal)
        run_for(world, OPERATIONS / OPERATIONS_PER_S, progress)
        sent += world.sendings
        if world.side:
            run_for(world, CUT_AFTER_S + self._setting.heal_after_s, progress)
        hear_all(world, self._said, self._setting.peers, progress)
        return self._result(sent)

    def _operate(self) -> None:
        """A read, which costs no message, or a broadcast."""
        if self._rng.random() >= READS:
            peer = self._rng.choice(list(self.world.peers.values()))
            self._said += self._measure.speak([peer])

    def _result(self, sent: int) -> Result:
        delays_s = [said.last_s - said.at_s for said in self._said]
        return {
            "mode": self._mode.name,
            "operations": OPERATIONS,
            "broadcasts": len(self._said),
            "messages_per_operation": round(sent / OPERATIONS, 3),
            "median_latency_s": round(median(delays_s), 6),
            "max_latency_s": round(max(delays_s), 6),
            "lost": sum(said.deliveries < self._setting.peers - 1 for said in self._said),
            "trace": self.world.trace,
            "simulated_s": round(self.world.now_s, 6),
        }
