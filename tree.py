"""How a message flows: a tree that the beacons of one root draw over the links.

Pure: no sockets, threads or clocks; the time is an argument.

The root says a beacon every few seconds, numbered by *epoch*; everybody passes the first arrival of
each epoch on, one hop further. Who brought it first becomes the *parent*. Payload travels between
parent and child only, both ways; every other link carries announcements. A parent's hops are always
fewer than one's own within an epoch, so there are no circles.

The root has no authority, and anybody can be it: of those that know each other it is the one that
lived longest, so that a newcomer disturbs nothing. A bad tree costs time and copies, never a
delivery. A peer that has lost its parent and finds no other is *loud*: it exchanges payload with
all its neighbours until the next beacon.

Plumtree (Leitão and others, 2007) lets duplicates of payload shape the tree instead; with many
senders at once, each prunes what another needs.
"""

import dataclasses
from dataclasses import dataclass

from messages import Address, Beacon, Mode, StaleRoot, StreamKey
from settings import Tunables

REMEMBERED_STALE_ROOTS = 64
MAX_STALE = 4  # void roots in one beacon; an honest one names a single one
MAX_HOPS = 1 << 32  # far more than there can be peers
FOREVER_S = float("inf")

Saying = tuple[Address, Beacon | Mode]  # a message and the neighbour it is for


@dataclass(frozen=True, slots=True)
class Offer:
    """A beacon that may make a neighbour the parent, once `due_s` has come."""

    neighbour: Address
    beacon: Beacon
    due_s: float


class Tree:
    """One peer's place in the tree. Every call returns what is to be said to whom."""

    def __init__(self, me: StreamKey, tunables: Tunables, now_s: float) -> None:
        self._me = me
        self._tunables = tunables
        self.root = me
        self.epoch = 0  # of the latest beacon
        self._own_epoch = 0  # of our latest, as root
        self.hops = 0
        self.parent: Address | None = None
        self.is_loud = False
        self._heard: dict[Address, Beacon | None] = {}  # the latest beacon of each neighbour
        self._children: set[Address] = set()  # neighbours that want payload from us
        self._chosen: dict[Address, float] = {}  # neighbours told we want theirs, and until when
        self._offer: Offer | None = None  # a first arrival that waits for the present parent's
        self._demoted: dict[Address, float] = {}  # bad parents, and until when
        self._failures: list[float] = []  # when the parent failed to bring a message in time
        self._stale: dict[StreamKey, int] = {}  # void roots, and up to which epoch
        self._beacon_s = now_s  # when the latest beacon was said or came

    def is_payload_link(self, neighbour: Address) -> bool:
        """Whether payload travels on this link; if not, announcements do."""
        return neighbour in self._chosen or neighbour in self._children

    # ---- links ----

    def link_up(self, neighbour: Address) -> list[Saying]:
        """A new neighbour is told where we stand, so that it can be our child at once."""
        self._heard[neighbour] = None
        said: list[Saying] = [(neighbour, self._beacon())]
        return said + (self._choose(neighbour) if self.is_loud else [])

    def link_down(self, neighbour: Address, now_s: float) -> list[Saying]:
        """A neighbour is gone; if it was the parent, another takes its place."""
        del self._heard[neighbour]
        self._children.discard(neighbour)
        self._chosen.pop(neighbour, None)
        is_way_to_root = neighbour == self.parent
        if self._offer is not None and self._offer.neighbour == neighbour:
            is_way_to_root |= not self._is_better(self._offer.beacon)  # it brought this epoch
            self._offer = None
        if not is_way_to_root:
            return []
        self.parent = None
        return self._replace_parent(now_s)

    def mode(self, neighbour: Address, wants_payload: bool) -> None:
        """A neighbour made us its parent, or another."""
        if wants_payload:
            self._children.add(neighbour)
        else:
            self._children.discard(neighbour)

    def parent_brings_news(self, now_s: float) -> None:
        """The parent brings what nobody else has brought: the others are not needed any more."""
        if len(self._chosen) > 1 and not self.is_loud:
            for neighbour in self._chosen:
                if neighbour != self.parent:
                    self._chosen[neighbour] = now_s

    # ---- beacons ----

    def beacon(self, neighbour: Address, beacon: Beacon, now_s: float) -> list[Saying]:
        """A neighbour said or passed on a beacon."""
        said: list[Saying] = []
        beacon = dataclasses.replace(beacon, stale=beacon.stale[:MAX_STALE])
        for stale in beacon.stale:
            said += self.void(stale.root, stale.epoch, now_s)
        if beacon.hops >= MAX_HOPS:
            return said  # a lie; to part over it would set us against those who pass it on
        if beacon.root == self._me or beacon.epoch <= self._stale.get(beacon.root, -1):
            return said
        self._heard[neighbour] = beacon
        if self._is_better(beacon):
            if neighbour in self._demoted:  # wait for another neighbour to bring it
                self._offer = self._offer or Offer(
                    neighbour, beacon, now_s + self._tunables.demoted_grace_s
                )
                return said
            return said + self._pass_on(neighbour, beacon, now_s)
        if neighbour == self.parent:
            if (beacon.root, beacon.epoch) == (self.root, self.epoch) and beacon.hops < self.hops:
                self._offer = None  # the present parent is hardly slower, and stays
            said += self._review_parent(now_s)
        return said

    def void(self, root: StreamKey, epoch: int, now_s: float) -> list[Saying]:
        """The root is dead or silent; its later epochs, if it lives, count again."""
        if root == self._me or epoch <= self._stale.get(root, -1):
            return []
        self._stale[root] = epoch
        while len(self._stale) > REMEMBERED_STALE_ROOTS:
            del self._stale[next(iter(self._stale))]
        if root != self.root or epoch < self.epoch:
            return []
        return self._become_root(now_s, (StaleRoot(root, epoch),))

    def tick(self, now_s: float) -> list[Saying]:
        """Whatever is due: the root's beacon, a change of parents, a root that fell silent."""
        limits = self._tunables
        said: list[Saying] = []
        if self._offer is not None and now_s >= self._offer.due_s:
            said += self._accept_offer(now_s)
        for neighbour in [n for n, until_s in self._chosen.items() if until_s <= now_s]:
            del self._chosen[neighbour]
            said.append((neighbour, Mode(wants_payload=False)))
        for neighbour in [n for n, until_s in self._demoted.items() if until_s <= now_s]:
            del self._demoted[neighbour]
        silence_s = now_s - self._beacon_s
        if self.root == self._me:
            if silence_s >= limits.beacon_interval_s:
                said += self._say_beacon(now_s)
        elif silence_s >= limits.missed_beacons_stale * limits.beacon_interval_s:
            said += self.void(self.root, self.epoch, now_s)
        return said

    @property
    def is_changing(self) -> bool:
        """Whether `tick` has something to do soon."""
        is_overlapping = not self.is_loud and len(self._chosen) > (self.parent is not None)
        return is_overlapping or self._offer is not None

    def _is_better(self, beacon: Beacon) -> bool:
        """A beacon counts if its root has lived longer than ours, or is ours in a new epoch."""
        if beacon.root == self.root:
            return beacon.epoch > self.epoch
        return beacon.root < self.root

    def _pass_on(self, neighbour: Address, beacon: Beacon, now_s: float) -> list[Saying]:
        """The first arrival of an epoch."""
        has_present = self.parent is not None and beacon.root == self.root
        self.root, self.epoch, self.hops = beacon.root, beacon.epoch, beacon.hops + 1
        self._beacon_s = now_s
        self._offer = None
        said: list[Saying] = []
        if has_present and neighbour != self.parent:
            due_s = now_s + self._tunables.parent_grace_s
            self._offer = Offer(neighbour, beacon, due_s)
        else:
            said += self._adopt(neighbour, now_s)
        passed_on = self._beacon(beacon.stale)
        return said + [(n, passed_on) for n in self._heard if n != neighbour]

    def _accept_offer(self, now_s: float) -> list[Saying]:
        assert self._offer is not None, "called with an offer"
        offer, self._offer = self._offer, None
        if self._is_better(offer.beacon):  # from a demoted neighbour, and no other brought it
            return self._pass_on(offer.neighbour, offer.beacon, now_s)
        if (offer.beacon.root, offer.beacon.epoch) == (self.root, self.epoch):
            return self._adopt(offer.neighbour, now_s)
        return []

    def _become_root(self, now_s: float, stale: tuple[StaleRoot, ...]) -> list[Saying]:
        self.root, self.hops, self.parent, self._offer = self._me, 0, None, None
        self._be_quiet(now_s)
        return self._say_beacon(now_s, stale)

    def _say_beacon(self, now_s: float, stale: tuple[StaleRoot, ...] = ()) -> list[Saying]:
        self._own_epoch += 1
        self.epoch = self._own_epoch
        self._beacon_s = now_s
        beacon = self._beacon(stale)
        return [(neighbour, beacon) for neighbour in self._heard]

    def _beacon(self, stale: tuple[StaleRoot, ...] = ()) -> Beacon:
        return Beacon(self.root, self.epoch, self.hops, stale)

    # ---- parents ----

    def failed(self, slow: Address | None, now_s: float) -> list[Saying]:
        """A message that others announced did not come in time.

        Again and again, that is the parent's fault; and at once where a trickle of messages shows
        it to be slow.
        """
        if self.parent is None:
            return []
        window_s = self._tunables.failure_window_s
        self._failures = [at_s for at_s in self._failures if at_s > now_s - window_s] + [now_s]
        is_often = len(self._failures) >= self._tunables.failures_to_demote
        if slow != self.parent and not is_often:
            return []
        self._failures.clear()
        self._demoted[self.parent] = now_s + self._tunables.demotion_s
        self._chosen[self.parent] = now_s + self._tunables.parent_overlap_s
        self.parent = None
        return self._replace_parent(now_s)

    def _replace_parent(self, now_s: float) -> list[Saying]:
        """Another neighbour nearer to the same root; if there is none, be loud."""
        nearer = [n for n, heard in self._heard.items() if heard and self._is_nearer(n, heard)]
        if nearer:
            return self._adopt(min(nearer, key=self._hops_of), now_s)
        self.is_loud = True
        return [saying for neighbour in self._heard for saying in self._choose(neighbour)]

    def _review_parent(self, now_s: float) -> list[Saying]:
        """A parent that left our tree, or is no nearer to its root than we are, is none."""
        heard = self._heard[self.parent] if self.parent is not None else None
        if heard is None or self._offer is not None:
            return []
        is_older = heard.root == self.root and heard.epoch < self.epoch
        is_nearer = (heard.root, heard.epoch) == (self.root, self.epoch) and heard.hops < self.hops
        if is_older or is_nearer:
            return []
        self.parent = None
        return self._replace_parent(now_s)

    def _is_nearer(self, neighbour: Address, heard: Beacon) -> bool:
        is_current = (heard.root, heard.epoch) == (self.root, self.epoch)
        return is_current and heard.hops < self.hops and neighbour not in self._demoted

    def _hops_of(self, neighbour: Address) -> int:
        heard = self._heard[neighbour]
        return heard.hops if heard else 0

    def _adopt(self, neighbour: Address, now_s: float) -> list[Saying]:
        """Make the neighbour the parent. The new is chosen before the old is dropped."""
        self.parent = neighbour
        self._be_quiet(now_s)
        return self._choose(neighbour)

    def _be_quiet(self, now_s: float) -> None:
        """Want payload from nobody but the parent, after a moment of both."""
        self.is_loud = False
        until_s = now_s + self._tunables.parent_overlap_s
        for neighbour, dropped_s in self._chosen.items():
            if neighbour != self.parent:
                self._chosen[neighbour] = min(dropped_s, until_s)

    def _choose(self, neighbour: Address) -> list[Saying]:
        is_news = neighbour not in self._chosen
        self._chosen[neighbour] = FOREVER_S
        return [(neighbour, Mode(wants_payload=True))] if is_news else []
