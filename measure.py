"""Follows every message through a simulated network: who has it, after how long, and at what cost.

The figures are those of the literature: *reliability*, the share of the live peers that a message
reaches; *relative message redundancy*, the copies beyond the one that each delivery needs; *last
delivery hop* (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS 2007, section 4.1).
The hops are counted here; on the wire there are none.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from insiders import Item
from messages import Have, Mode, StreamKey, Want
from simulated_peer import Onlooker, SimulatedPeer
from streams import Gap
from wire import Run
from world import World

CAUSED = (Have, Want, Mode)  # frames that a message brings about; others come with time


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
