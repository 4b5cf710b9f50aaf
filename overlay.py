"""Whom to hold: links to neighbours, the address book, and whom to dial next.

Pure: no sockets, threads or clocks; the time is an argument.

Every peer dials up to `out_links` random others and accepts up to `max_links` in all, which makes a
random graph that stays connected. The book of contacts is filled by the seeds and by the
neighbours, so that a peer can find others with every seed gone. An address is dropped for refusing
a few times in a row, never for silence: dropping silent ones would split a network that was cut for
a while for good.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from messages import Address
from settings import Tunables

MOST_OWN_NAMES = 64  # remembered; more would be somebody's lies
REACHED = "reached"  # no word of others, which are addresses


class Direction(Enum):
    """Who dialled."""

    IN = "in"
    OUT = "out"


class Dialled(Enum):
    """How a dial failed."""

    REFUSED = "connection refused"
    SILENT = "no answer"
    TURNED_AWAY = "turned away"  # it lives, and does not want us now


class Backoff:
    """How long to wait after a failure: 1, 2, 4 … seconds with jitter, up to a limit."""

    def __init__(self, tunables: Tunables, rng: random.Random) -> None:
        self._tunables = tunables
        self._rng = rng
        self.failures = 0
        self.until_s = float("-inf")

    def failed(self, now_s: float) -> None:
        """Wait twice as long as last time."""
        wait_s = self._tunables.first_backoff_s * 2.0 ** min(self.failures, 30)
        wait_s = min(wait_s, self._tunables.longest_backoff_s)
        self.failures += 1
        self.until_s = now_s + wait_s * self._rng.uniform(0.75, 1.25)

    def succeeded(self) -> None:
        self.failures = 0
        self.until_s = float("-inf")


@dataclass(slots=True)
class Trouble:
    """What came of dialling a contact since it answered last."""

    backoff: Backoff
    refusals: int = 0  # in a row


@dataclass(slots=True)
class Neighbour:
    """A peer we hold a link to."""

    direction: Direction
    boot_ms: int
    links: int  # how many neighbours it says it has
    since_s: float
    source: str = ""  # where it dialled from


class Overlay:
    """One peer's neighbours and contacts, and the decisions about both."""

    def __init__(self, me: Address, tunables: Tunables, rng: random.Random, now_s: float) -> None:
        self._me = me
        self._tunables = tunables
        self._rng = rng
        self.neighbours: dict[Address, Neighbour] = {}
        self.book: dict[Address, str] = {}  # and by whose word; REACHED by our own
        self._told: Counter[str] = Counter()  # how much of the book is whose word
        self._troubles: dict[Address, Trouble] = {}  # of contacts that did not answer last
        self.dialling: set[Address] = set()
        self._not_others = {me}  # our own address, and other spellings of it
        self._feeler_s = now_s + tunables.feeler_interval_s * rng.random()
        self._felt_s = now_s  # when the latest feeler was due
        self._exchange_s = now_s + tunables.exchange_interval_s * rng.random()

    # ---- the book ----

    def learn(self, addresses: Iterable[Address], told_by: str = "") -> None:
        """Note contacts. In a full book, who told of most gives one up: nobody fills it alone."""
        for address in addresses:
            if address not in self._not_others and address not in self.book:
                if len(self.book) >= self._tunables.book_size:
                    self.forget(self._least_needed_contact())
                self._note(address, told_by)

    def _least_needed_contact(self) -> Address:
        """A random one of whoever told of most; those that we have reached ourselves come last."""
        most = max(self._told, key=lambda teller: (teller != REACHED, self._told[teller]))
        return self._rng.choice([a for a, teller in self.book.items() if teller == most])

    def _note(self, address: Address, told_by: str) -> None:
        self._uncount(address)
        self.book[address] = told_by
        self._told[told_by] += 1

    def _uncount(self, address: Address) -> None:
        if (teller := self.book.get(address)) is not None:
            self._told[teller] -= 1
            if not self._told[teller]:
                del self._told[teller]

    def forget(self, address: Address) -> None:
        """The contact has left, or was known by another address."""
        self._uncount(address)
        self.book.pop(address, None)
        self._troubles.pop(address, None)

    def is_me(self, address: Address) -> None:
        """This address is another name of ours."""
        if len(self._not_others) < MOST_OWN_NAMES:
            self._not_others.add(address)
        self.forget(address)
        self.dialling.discard(address)

    def renamed(self, dialled: Address, name: Address) -> None:
        """Who was dialled calls itself by another name, and that is the one to keep."""
        self.forget(dialled)
        self.dialling.discard(dialled)
        self.learn([name], REACHED)

    def sample(self, asker: Address | None) -> tuple[Address, ...]:
        """A few random contacts to hand out, neighbours among them; never the asker itself."""
        known = [a for a in self.book.keys() | self.neighbours.keys() if a != asker]
        known.sort()  # a set's order is not the same in every process; the simulator's must be
        return tuple(self._rng.sample(known, min(len(known), self._tunables.contacts_per_exchange)))

    # ---- links ----

    def refusal(self, dialler: Address, boot_ms: int, needs_link: bool) -> str:
        """Why a peer that dials us cannot become a neighbour; empty if it can."""
        conflict = self.conflict(dialler, boot_ms, Direction.IN)
        if conflict:
            return conflict
        is_full = len(self.neighbours) >= self._tunables.max_links
        if is_full and dialler not in self.neighbours and not needs_link:
            return f"all {self._tunables.max_links} links are taken"
        return ""

    def conflict(self, peer: Address, boot_ms: int, direction: Direction) -> str:
        """Whether a link we have or are making beats this new one; empty if not.

        When two peers dial each other at once, both keep the link that the lower address dialled. A
        second link dialled by the same side, or by a later life, means that the first is lost.
        """
        if peer in self._not_others:
            return "that is this peer itself"
        known = self.neighbours.get(peer)
        if known is not None and known.boot_ms > boot_ms:
            return "there is a link to a later life of this peer"
        rival = known.direction if known is not None else None
        if known is None and direction is Direction.IN and peer in self.dialling:
            rival = Direction.OUT
        if rival in (None, direction) or (known is not None and known.boot_ms < boot_ms):
            return ""
        wins = (self._me < peer) if direction is Direction.OUT else (peer < self._me)
        return "" if wins else "both dialled at once, and the other link stays"

    def least_needed(self) -> Address:
        """The link to give up for one that is needed more: to the neighbour that has most links."""
        inbound = [a for a, n in self.neighbours.items() if n.direction is Direction.IN]
        return max(inbound or self.neighbours, key=lambda a: self.neighbours[a].links)

    def linked(self, neighbour: Address, details: Neighbour) -> None:
        """A link is up."""
        self.learn([neighbour], details.source)
        self.neighbours[neighbour] = details
        if details.direction is Direction.OUT:
            self.reached(neighbour)
        self.dialling.discard(neighbour)
        self._troubles.pop(neighbour, None)

    def unlinked(self, neighbour: Address) -> None:
        del self.neighbours[neighbour]

    # ---- dialling ----

    def reached(self, address: Address) -> None:
        """We dialled the address, and it answered."""
        self.dialling.discard(address)
        self._troubles.pop(address, None)
        if address in self.book:
            self._note(address, REACHED)

    def failed(self, address: Address, how: Dialled, now_s: float) -> None:
        """A dial came to nothing; try again later, or drop the address if it keeps refusing."""
        self.dialling.discard(address)
        if address not in self.book:
            return
        trouble = self._troubles.get(address) or Trouble(Backoff(self._tunables, self._rng))
        trouble.backoff.failed(now_s)
        trouble.refusals = trouble.refusals + 1 if how is Dialled.REFUSED else 0
        self._troubles[address] = trouble
        if trouble.refusals >= self._tunables.refusals_to_forget:
            self.forget(address)

    def is_first_failure(self, address: Address) -> bool:
        """Whether the address answered the last time it was dialled, or never was."""
        return address in self.book and address not in self._troubles

    def dials(self, now_s: float) -> list[Address]:
        """Whom to dial now to have enough links; they count as being dialled from here on."""
        limits = self._tunables
        dialled = sum(n.direction is Direction.OUT for n in self.neighbours.values())
        parallel = limits.parallel_dials if self.neighbours else limits.parallel_dials_alone
        missing = min(limits.out_links - dialled, limits.max_links - len(self.neighbours))
        if self.neighbours or len(self._troubles) < len(self.book):
            room = min(missing, parallel) - len(self.dialling)
        else:
            room = parallel - len(self.dialling)  # alone, and all failed so far: try many
        if room <= 0:
            return []
        due = self._due(now_s)
        chosen = self._chosen(due, room)
        self.dialling.update(chosen)
        return chosen

    def _chosen(self, due: list[Address], count: int) -> list[Address]:
        """Some of them at random; every teller in turn, so that no long list drowns a short one."""
        of_teller: dict[str, list[Address]] = {}
        for address in self._rng.sample(due, len(due)):
            of_teller.setdefault(self.book[address], []).append(address)
        chosen: list[Address] = []
        while of_teller and len(chosen) < count:
            teller = self._rng.choice(list(of_teller))
            chosen.append(of_teller[teller].pop())
            if not of_teller[teller]:
                del of_teller[teller]
        return chosen

    def feeler(self, now_s: float, is_starved: bool = False) -> Address | None:
        """Now and then, a stranger to try: it keeps the book fresh and finds a split network.

        Who is given nothing by its neighbours tries ten times as often.
        """
        soon_s = self._felt_s + self._tunables.feeler_interval_s / 10
        if now_s < self._feeler_s and not (is_starved and now_s >= soon_s):
            return None
        self._felt_s = now_s
        self._feeler_s = now_s + self._tunables.feeler_interval_s * self._rng.uniform(0.75, 1.25)
        due = self._due(now_s)
        if not due or not self.neighbours:
            return None
        [chosen] = self._chosen(due, 1)
        self.dialling.add(chosen)
        return chosen

    def spare(self) -> Address | None:
        """A link to give up, when a feeler's link made them more than we are to dial."""
        dialled = [a for a, n in self.neighbours.items() if n.direction is Direction.OUT]
        if len(dialled) <= self._tunables.out_links:
            return None
        rich = [address for address in dialled[:-1] if self.neighbours[address].links > 2]
        return self._rng.choice(rich) if rich else None

    def exchange(self, now_s: float) -> Address | None:
        """Now and then, a neighbour to swap contacts with."""
        if now_s < self._exchange_s:
            return None
        wait_s = self._tunables.exchange_interval_s * self._rng.uniform(0.75, 1.25)
        self._exchange_s = now_s + wait_s
        return self._rng.choice(list(self.neighbours)) if self.neighbours else None

    def is_exhausted(self, now_s: float) -> bool:
        """No link, no dial under way, and nobody left to dial right now."""
        return not self.neighbours and not self.dialling and not self._due(now_s)

    def _due(self, now_s: float) -> list[Address]:
        troubles = self._troubles
        return [
            address
            for address in self.book
            if ((trouble := troubles.get(address)) is None or trouble.backoff.until_s <= now_s)
            and address not in self.neighbours
            and address not in self.dialling
        ]
