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
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass
from enum import Enum

from messages import Address
from settings import Tunables

MOST_OWN_NAMES = 64  # remembered; more would be somebody's lies
FIRST_HASTE, HASTE = 600, 2  # so many strangers in the time of one are tried by the starved, at
# first and in the end: who claims to have what nobody said can make anybody starve for long
STRANGERS_FIRST = 2  # are tried by the starved before who said what is lacking; that one is tried
# once, for all the starved of a network may want to, and anybody can say that it spoke
REACHED = "(reached)"  # no word of others, which are hosts


class Direction(Enum):
    """Who dialled."""

    IN = "in"
    OUT = "out"


class Dialled(Enum):
    """How a dial failed."""

    REFUSED = "connection refused"
    SILENT = "no answer"
    TURNED_AWAY = "turned away"  # it lives, and does not want us now
    UNTRIED = "no thread left"  # to dial it with: that says nothing about it

    @property
    def is_loss(self) -> bool:
        return self in (Dialled.REFUSED, Dialled.SILENT)


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

    def __init__(
        self,
        me: Address,
        tunables: Tunables,
        rng: random.Random,
        now_s: float,
        silent: Callable[[], Collection[Address]] = tuple,
    ) -> None:
        self._me = me
        self._silent = silent  # tells the neighbours that are not to be counted on
        self._tunables = tunables
        self._rng = rng
        self.neighbours: dict[Address, Neighbour] = {}
        self.book: dict[Address, str] = {}  # and by whose word; REACHED by our own
        self._told: Counter[str] = Counter()  # how much of the book is whose word
        self._troubles: dict[Address, Trouble] = {}  # of contacts that did not answer last
        self._dialled_s: dict[Address, float] = {}  # who is being dialled, and since when
        self._in_vain = 0  # dials in a row that nobody answered
        self._not_others = {me}  # our own address, and other spellings of it
        self._feeler_s = now_s + tunables.feeler_interval_s * rng.random()
        self._felt_s = now_s  # when the latest feeler was due
        self._haste_s = tunables.feeler_interval_s / FIRST_HASTE  # how soon after it another may be
        self._exchange_s = now_s + tunables.exchange_interval_s * rng.random()

    @property
    def dialling(self) -> Set[Address]:
        """Who is being dialled."""
        return self._dialled_s.keys()

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
        self._dialled_s.pop(address, None)

    def renamed(self, dialled: Address, name: Address) -> None:
        """Who was dialled calls itself by another name, and that is the one to keep."""
        self.forget(dialled)
        self._dialled_s.pop(dialled, None)
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
        is_full = self.links >= self._tunables.max_links  # a silent one makes room
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
        choice = self._silent() or inbound or self.neighbours
        return max(choice, key=lambda a: self.neighbours[a].links)

    def linked(self, neighbour: Address, details: Neighbour) -> None:
        """A link is up."""
        self.learn([neighbour], details.source)
        self.neighbours[neighbour] = details
        if details.direction is Direction.OUT:
            self.reached(neighbour)
        self._dialled_s.pop(neighbour, None)
        self._troubles.pop(neighbour, None)

    def unlinked(self, neighbour: Address) -> None:
        del self.neighbours[neighbour]

    # ---- dialling ----

    def reached(self, address: Address) -> None:
        """We dialled the address, and it answered."""
        self._dialled_s.pop(address, None)
        self._in_vain = 0
        self._troubles.pop(address, None)
        if address in self.book:
            self._note(address, REACHED)

    def failed(self, address: Address, how: Dialled, now_s: float) -> None:
        """A dial came to nothing; try again later, or drop the address if it keeps refusing."""
        was_dialled = self._dialled_s.pop(address, None) is not None
        if how is Dialled.TURNED_AWAY:
            self._in_vain = 0
        elif how is not Dialled.UNTRIED:  # more at once would only be more that cannot be dialled
            self._in_vain += was_dialled
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

    @property
    def links(self) -> int:
        """How many neighbours can be counted on."""
        return len(self.neighbours) - len(self._silent())

    @property
    def is_urgent(self) -> bool:
        """Whether others are dialled for neighbours that are silent."""
        return bool(self._dialled_s) and bool(self._silent())

    def dials(self, now_s: float) -> list[Address]:
        """Whom to dial now to have enough links; they count as being dialled from here on.

        The more dials were in vain since one was answered, the more are tried at once.
        """
        limits = self._tunables
        needed = self._needed_dials()
        if needed <= 0:
            return []
        early_s = now_s - limits.probe_timeout_s  # who was dialled before that will hardly answer
        fresh = sum(since_s > early_s for since_s in self._dialled_s.values())
        in_vain = self._in_vain + len(self._dialled_s) - fresh
        room = min(needed + in_vain, limits.most_parallel_dials) - fresh
        if room <= 0:
            return []
        chosen = self._chosen(self._due(now_s, self.book), room)
        self._dialled_s.update(dict.fromkeys(chosen, now_s))
        return chosen

    def _needed_dials(self) -> int:
        """How many would do, if as many contacts as neighbours were silent."""
        limits, silent, out = self._tunables, self._silent(), Direction.OUT
        held = len(self.neighbours) - len(silent)
        dialled = sum(n.direction is out for a, n in self.neighbours.items() if a not in silent)
        missing = min(limits.out_links - dialled, limits.max_links - held, limits.parallel_dials)
        if missing <= 0 or not silent:
            return missing
        return missing * len(self.neighbours) // held if held else limits.most_parallel_dials

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

    def feeler(
        self, now_s: float, in_vain: Collection[Address] = (), origins: Collection[Address] = ()
    ) -> Address | None:
        """Now and then, a stranger to try: it keeps the book fresh and finds a split network.

        Who has asked its neighbours in vain tries one at once, and others soon: after a few, an
        origin of what it lacks, for maybe all of its neighbours pass on nothing.
        """
        is_starved = bool(in_vain)
        interval_s = self._tunables.feeler_interval_s
        if not is_starved and now_s >= self._felt_s + interval_s / HASTE:
            self._haste_s = interval_s / FIRST_HASTE
        if now_s < self._feeler_s and not (is_starved and now_s >= self._felt_s + self._haste_s):
            return None
        if is_starved:
            self._haste_s = min(2 * self._haste_s, interval_s / HASTE)
        self._felt_s = now_s
        self._feeler_s = now_s + interval_s * self._rng.uniform(0.75, 1.25)
        is_third = self._haste_s == interval_s / FIRST_HASTE * 2 ** (STRANGERS_FIRST + 1)
        if not self.neighbours:
            return None
        strange_origins = set(origins) - self._not_others - set(in_vain)
        if is_third and (due := self._due(now_s, strange_origins)):
            chosen = self._rng.choice(sorted(due))
        else:
            due = [address for address in self._due(now_s, self.book) if address not in in_vain]
            if not due:
                return None
            [chosen] = self._chosen(due, 1)
        self._dialled_s[chosen] = now_s
        return chosen

    def spare(self, in_vain: Collection[Address] = ()) -> Address | None:
        """A link to give up, when a feeler's link made them more than we are to dial.

        It is one to a neighbour that was asked in vain, if there is any.
        """
        dialled = [a for a, n in self.neighbours.items() if n.direction is Direction.OUT]
        if len(dialled) <= self._tunables.out_links or self._silent():
            return None
        rich = [address for address in dialled[:-1] if self.neighbours[address].links > 2]
        useless = [address for address in rich if address in in_vain]
        return self._rng.choice(useless or rich) if rich else None

    def exchange(self, now_s: float) -> Address | None:
        """Now and then, a neighbour to swap contacts with."""
        if now_s < self._exchange_s:
            return None
        wait_s = self._tunables.exchange_interval_s * self._rng.uniform(0.75, 1.25)
        self._exchange_s = now_s + wait_s
        return self._rng.choice(list(self.neighbours)) if self.neighbours else None

    def is_exhausted(self, now_s: float) -> bool:
        """No link, no dial under way, and nobody left to dial right now."""
        return not self.neighbours and not self.dialling and not self._due(now_s, self.book)

    def _due(self, now_s: float, among: Iterable[Address]) -> list[Address]:
        troubles = self._troubles
        return [
            address
            for address in among
            if ((trouble := troubles.get(address)) is None or trouble.backoff.until_s <= now_s)
            and address not in self.neighbours
            and address not in self.dialling
        ]
