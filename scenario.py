"""An experiment: build a network, let peers speak while others fail, measure who hears it when."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from insiders import withholding
from measure import Figures, Measure, Said, figures
from messages import Address
from promises import Watch
from settings import Tunables
from simulated_peer import SimulatedPeer
from world import World, components

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


class Experiment:
    """One run of a setting."""

    def __init__(self, setting: Setting, progress: Progress) -> None:
        self.setting = setting
        self.world = new_world(setting.seed, setting.latency_s)
        self.measure = Measure(self.world)
        self.rounds: list[list[Said]] = []
        self.survivors: list[SimulatedPeer] = []
        self._progress = progress
        self._rng = random.Random(setting.seed)

    def run(self) -> Result:
        """Build the network, play all rounds, give the figures. Raises NotBuilt, BrokenPromise."""
        watch = Watch(self.world)
        build(self.world, self.setting.peers, self._progress)
        self._play()
        watch.look_at_all()
        return self._result()

    def _play(self) -> None:
        """Each round begins when the one before is over; but a cut has them all in it."""
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
