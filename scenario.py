"""Experiments: build a network, let peers speak while others fail, measure who hears it when.

The figures are those of the literature: *reliability*, the share of the live peers that a message
reaches; *relative message redundancy*, the copies beyond the one that each delivery needs; *last
delivery hop* (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS 2007, section 4.1).
The hops are counted here; on the wire there are none.
"""

import random
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from inhabitants import Item, Onlooker, SimulatedPeer, withholding
from messages import Address, Have, Mode, StreamKey, Want
from settings import Tunables
from streams import Gap
from wire import Run
from world import Watch, World, components

CAUSED = (Have, Want, Mode)  # frames that a message brings about; others come with time
START_SPREAD_S = 2.0  # the peers begin to dial within this time
BUILT_WITHIN_S = 60.0
ROUND_LIMIT_S = 60.0  # what has not arrived by then counts as lost
CALM_S = 1.0  # after a round, for copies still under way
STEP_S = 0.1  # how often it is looked whether something is over

Progress = Callable[[str], None]  # is told now and then how far it is
Result = dict[str, object]  # the figures by name


class NotBuilt(Exception):
    """The peers did not become one network in time."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried. Shares are of the peers, from 0 to under 1."""

    peers: int = 1000
    senders: int = 1  # how many say something in the same instant
    messages: int = 1  # how often
    fail: float = 0.0  # share killed in the instant of the first messages
    silent: float = 0.0  # share that vanishes in that instant, closing nothing
    withhold: float = 0.0  # share that passes on no payload, the root among them
    partition: float = 0.0  # share cut off from that instant on
    heal_after_s: float = 60.0  # how long the cut lasts
    loss: float = 0.0  # share of the connections that breaks per minute
    latency_s: tuple[float, float] = (0.010, 0.050)
    seed: int = 1

    def count(self, share: float) -> int:
        """How many peers that share is."""
        return round(share * self.peers)

    @property
    def possible_senders(self) -> int:
        """How many peers certainly live on and pass on payload."""
        lost = self.count(self.fail) + self.count(self.silent) + self.count(self.withhold)
        return max(0, self.peers - lost)


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Said:
    """One message, and how far it has come."""

    at_s: float
    hops: "array[int]"  # by the peer's number: on its way to it; 0 at the origin, or not there yet
    deliveries: int = 0
    copies: int = 0  # arrivals at some peer, duplicates too
    last_s: float = 0.0  # when the latest delivery was
    last_hops: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of some messages."""

    reached: float  # the lowest share of the live peers, over the messages
    last_delivery_s: float  # the longest time to it, over the messages
    rmr: float  # copies beyond the one needed, per delivery
    ldh: int  # hops of the last delivery, the most over the messages


class Measure(Onlooker):
    """Follows every message that is said by `speak`."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.onlookers.append(self)
        self.said: dict[tuple[StreamKey, int], Said] = {}
        self.duplicates = 0  # given to some application again
        self.disorder = 0  # given to some application too early
        self._control = 0

    def speak(self, peers: Iterable[SimulatedPeer]) -> list[Said]:
        """These peers say something in the same instant."""
        if not self.said:
            self._control = 0  # what came before was brought about by no message
        return [self._speak(peer) for peer in peers]

    @property
    def control_per_delivery(self) -> float:
        """Announcements, questions and changes of the tree since the first message, for each."""
        deliveries = sum(each.deliveries for each in self.said.values())
        return round(self._control / deliveries, 6) if deliveries else 0.0

    def _speak(self, peer: SimulatedPeer) -> Said:
        said = Said(self._world.now_s, array("H", bytes(2 * len(self._world.peers))))
        self.said[peer.node.me.key, peer.node.gossip.own.upto + 1] = said
        peer.say()
        return said

    def arrived(self, items: list[Item]) -> None:
        for item in items:
            if isinstance(item, Run):
                for said in self._followed(item):
                    said.copies += 1
            elif isinstance(item, CAUSED):
                self._control += 1

    def heard(self, peer: SimulatedPeer, item: Run | Gap, upto: int) -> None:
        self.duplicates += max(0, min(upto, item.last) + 1 - item.first)
        self.disorder += item.first > upto + 1
        if isinstance(item, Gap):
            return
        assert peer.source is not None, "what is heard has come from somebody"
        for said in self._followed(item):
            said.deliveries += 1
            said.last_s = self._world.now_s
            said.last_hops = said.hops[peer.source.number] + 1
            said.hops[peer.number] = said.last_hops

    def _followed(self, run: Run) -> Iterator[Said]:
        for number in range(run.first, run.last + 1):
            if said := self.said.get((run.stream, number)):
                yield said


def figures(said: Collection[Said], peers: int, since_s: float) -> Figures:
    """The figures of these messages among so many live peers. Times count from `since_s` on."""
    deliveries = sum(each.deliveries for each in said)
    copies = sum(each.copies for each in said)
    delays_s = [each.last_s - max(each.at_s, since_s) for each in said]
    return Figures(
        reached=round((min(each.deliveries for each in said) + 1) / peers, 6),
        last_delivery_s=round(max(0.0, *delays_s), 6),
        rmr=round(copies / deliveries - 1, 6) if deliveries else 0.0,
        ldh=max(each.last_hops for each in said),
    )


# ---- one experiment ------------------------------------------------------------------------------


class Experiment:
    """One run of a setting."""

    def __init__(self, setting: Setting, progress: Progress) -> None:
        self.setting = setting
        self.world = new_world(setting.seed, setting.latency_s)
        self._watch = Watch(self.world)
        self.measure = Measure(self.world)
        self.rounds: list[list[Said]] = []
        self.survivors: list[SimulatedPeer] = []
        self._progress = progress
        self._rng = random.Random(setting.seed)

    def run(self) -> Result:
        """Build the network, play all rounds, give the figures. Raises NotBuilt, BrokenPromise."""
        self.build()
        return self.play()

    def build(self) -> None:
        """Build the network; only how many peers, their links and the seed matter so far."""
        build(self.world, self.setting.peers, self._progress)

    def play(self) -> Result:
        """Play all rounds in it. Each begins when the one before is over; a cut has all in it."""
        setting = self.setting
        killed, vanished, senders = self._cast()
        self._lose_connections()
        if setting.partition:
            cut_in_two(self.world, setting.partition, self._rng)
        for number in range(setting.messages):
            self.rounds.append(self.measure.speak(senders))
            if number == 0:
                self._strike(killed, vanished)
            if setting.partition:
                run_for(self.world, setting.heal_after_s / setting.messages, self._tell)
            else:
                self._hear_all(self.rounds[-1:])
        if setting.partition:
            self.world.heal()
            self._hear_all(self.rounds)
        self._watch.look_at_all()
        return self._result()

    def _cast(self) -> tuple[list[SimulatedPeer], list[SimulatedPeer], list[SimulatedPeer]]:
        """Who dies, who vanishes and who speaks; and some become insiders, the root first."""
        setting, peers = self.setting, list(self.world.peers.values())
        self._rng.shuffle(peers)
        insiders = sorted(peers, key=lambda peer: peer.node.tree.hops > 0)
        insiders = insiders[: setting.count(setting.withhold)]
        for peer in insiders:
            peer.manner = withholding
        dead = setting.count(setting.fail)
        lost = dead + setting.count(setting.silent)
        self._rng.shuffle(peers)
        self.survivors = peers[lost:]
        senders = [peer for peer in self.survivors if peer.manner is None]
        return peers[:dead], peers[dead:lost], senders[: setting.senders]

    def _strike(self, killed: Iterable[SimulatedPeer], vanished: Iterable[SimulatedPeer]) -> None:
        """What was just said is on its way from the senders, and nowhere else."""
        for peer in killed:
            self.world.crash(peer)
        for peer in vanished:
            self.world.vanish(peer)

    def _lose_connections(self) -> None:
        """From now on connections break, at random and at the rate of the setting."""
        links = sum(len(peer.links) for peer in self.survivors) / 2
        if self.setting.loss and links:
            self._lose_next(self.setting.loss * links / 60)

    def _lose_next(self, per_second: float) -> None:
        self.world.after(self._rng.expovariate(per_second), self._lose_one, per_second)

    def _lose_one(self, per_second: float) -> None:
        peer = self._rng.choice(self.survivors)
        if peer.links:
            self.world.break_link(self._rng.choice(list(peer.links.values())))
        self._lose_next(per_second)

    def _hear_all(self, rounds: Iterable[list[Said]]) -> None:
        said = [each for one in rounds for each in one]
        hear_all(self.world, said, len(self.survivors), self._tell)

    def _tell(self, time: str) -> None:
        self._progress(f"round {len(self.rounds)} of {self.setting.messages}, {time}")

    # ---- figures ----

    def figures(self) -> Figures:
        """What came of all rounds."""
        return figures(self.measure.said.values(), len(self.survivors), self._heard_from_s)

    def figures_by_round(self) -> list[Figures]:
        """What came of each round."""
        return [figures(said, len(self.survivors), self._heard_from_s) for said in self.rounds]

    @property
    def _heard_from_s(self) -> float:
        """What was said into a cut could be heard by all only once that was over."""
        return self.world.cut_s

    def _result(self) -> Result:
        whole = self.figures()
        return {
            "peers": self.setting.peers,
            "survivors": len(self.survivors),
            "reached": whole.reached,
            "last_delivery_s": whole.last_delivery_s,
            "rmr": whole.rmr,
            "ldh": whole.ldh,
            "control_per_message": self.measure.control_per_delivery,
            "components": len(components(self.world.live_peers())),
            "duplicates_to_application": self.measure.duplicates,
            "order_violations": self.measure.disorder,
            "trace": self.world.trace,
            "simulated_s": round(self.world.now_s, 6),
        }


def new_world(seed: int, latency_s: tuple[float, float]) -> World:
    """An empty world with one seed, which lists no more peers than a book of contacts holds."""
    return World(seed, Tunables(max_listed_peers=Tunables().book_size), latency_s=latency_s)


def build(world: World, count: int, progress: Progress) -> None:
    """Start so many peers, and wait until they are one network with a tree. Raises NotBuilt.

    All are registered before the first of them dials, as if they had all renewed once.
    """
    hosts = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(1, count + 1))
    peers = [world.add_peer(Address(host, 6000)) for host in hosts]
    for peer in peers:
        world.seeds[0].directory.register(peer.address, peer.node.me.boot_ms, world.now_s)
        world.after(world.rng.uniform(0, START_SPREAD_S), peer.to, world.renew, peer)
    while not is_built(world):
        if world.now_s >= BUILT_WITHIN_S:
            raise NotBuilt(f"the peers are not one network after {BUILT_WITHIN_S:g} s")
        run_for(world, 5 * STEP_S, progress)


def is_built(world: World) -> bool:
    """Whether all have one root, which has said a beacon, and nobody is changing its parent."""
    trees = [peer.node.tree for peer in world.live_peers()]
    roots = {tree.root for tree in trees}
    return len(roots) == 1 and all(
        tree.epoch and (tree.parent or not tree.hops) and not (tree.is_loud or tree.is_changing)
        for tree in trees
    )


def cut_in_two(world: World, share: float, rng: random.Random) -> None:
    """Part that share of the live peers from the others."""
    live = world.live_peers()
    cut_off = rng.sample(live, round(share * len(live)))
    world.cut({peer.address: 1 for peer in cut_off})


def hear_all(world: World, said: Iterable[Said], peers: int, progress: Progress) -> None:
    """Wait until so many peers have every one of these messages, but not for ever."""
    limit_s = world.now_s + ROUND_LIMIT_S
    awaited = list(said)
    while awaited and world.now_s < limit_s:
        run_for(world, STEP_S, progress)
        awaited = [each for each in awaited if each.deliveries < peers - 1]
    run_for(world, CALM_S, progress)


def run_for(world: World, duration_s: float, progress: Progress) -> None:
    """Let the time pass, and tell how far it is now and then."""
    end_s = world.now_s + duration_s
    while world.now_s < end_s:
        world.run_until(min(end_s, world.now_s + STEP_S))
        progress(f"{world.now_s:.1f} s simulated, {world.happened:,} events")


# ---- the Gossip Glomers --------------------------------------------------------------------------

# Their broadcast workload (fly.io/dist-sys, 3d and 3e): 25 nodes, 100 ms on every link, 100
# operations a second for 20 s, each a broadcast or a read at a random node. A read is answered by
# that node alone. What counts is how many messages the nodes exchange per operation, signs of life
# and all, and how long a broadcast takes to be everywhere. As there, a message may carry several
# things: what is put on a link in one go counts as one.

OPERATIONS = 2000
OPERATIONS_PER_S = 100
READS = 0.5  # share of the operations
GLOMERS = Setting(peers=25, latency_s=(0.1, 0.1), heal_after_s=10.0)
GLOMERS_OPTIONS = {
    "peers",
    "partition",
    "heal_after_s",
    "latency_s",
    "seed",
}  # the fields that count
CUT_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class GlomersMode:
    """A way to trade messages for time."""

    name: str
    tunables: Tunables
    flush_interval_s: float  # on each link, sendings are at least so far apart


GLOMERS_MODES = (
    GlomersMode(
        "quick",  # so many links that hardly any node is two hops from the root
        Tunables(
            out_links=9,
            max_links=24,
            announce_interval_s=0.75,
            least_want_delay_s=1.5,  # an announcement does not overtake the tree by more
        ),
        flush_interval_s=0.0,
    ),
    GlomersMode(
        "frugal",
        Tunables(out_links=5, max_links=24, announce_interval_s=1.0, least_want_delay_s=1.5),
        flush_interval_s=0.15,
    ),
)


class GlomersWorkload:
    """The operations of one mode, and what came of them."""

    def __init__(self, mode: GlomersMode, setting: Setting) -> None:
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
