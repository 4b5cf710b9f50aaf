"""Who is alive: questions to silent neighbours, suspicion, second opinions, verdicts.

Pure: no sockets, threads or clocks; the time is an argument.

Any frame proves life. A neighbour that is silent for an interval is asked; one that leaves three
requests unanswered is *suspect*. (One that talks is asked now and then too, but only to learn how
long the way is.) The accused is then tried over fresh connections, by us and by up to three others,
because a stopped process's kernel still accepts connections: only an echo counts. One echo clears
it. A peer that is itself late accuses nobody, for it may be the one that was stopped.
"""

import random
from dataclasses import dataclass, field
from enum import Enum, auto

from limits import Refusals
from messages import Address
from settings import Tunables

REMEMBERED_DEATHS = 64
DEATHS_REMEMBERED_S = 30.0  # several times as long as a map takes to look at everybody

ROUND_TRIP_INTERVAL_S = 10.0  # one that is never silent is asked this often how long the way is
OVERDUE = 4  # times as long as usual
FOREVER_S = float("inf")

MAX_ATTEMPTS = 16  # under way for others to reach peers that they accuse


class Finding(Enum):
    """What a test of a neighbour, or an opinion on an accused, comes to."""

    NOTHING = auto()  # nothing to do for now
    ASK = auto()  # send a liveness request
    SUSPECT = auto()  # too many requests unanswered
    CLEARED = auto()  # it is alive, whatever happened to our link
    DEAD = auto()
    UNREACHABLE = auto()  # silent, but the trouble may be this peer's own: accuse nobody


class Tried(Enum):
    """What came of trying an address over a fresh connection."""

    ECHOED = auto()
    REFUSED = auto()  # its host says that nobody listens there
    SILENT = auto()
    UNTRUSTED = auto()  # it lives, but one of us two does not trust the other
    UNTRIED = auto()  # no thread, descriptor, port or address to try from: it proves nothing

    @property
    def is_alive(self) -> bool:
        return self in (Tried.ECHOED, Tried.UNTRUSTED)


@dataclass(slots=True)
class Health:
    """What we know of one neighbour's life."""

    heard_s: float
    looked_s: float  # when it was tested last
    asked_s: float  # when the latest request was made; at first, so that one is due soon
    unanswered: int = 0
    is_overdue: bool = False  # the latest answer, and others would have come by now
    requests: int = 0  # numbers the requests
    round_trip_s: float | None = None  # of the latest request answered
    cleared: int = 0  # suspicions that others refuted since the last frame from it

    @property
    def is_silent(self) -> bool:
        return self.is_overdue or self.unanswered >= 2

    def forgive(self) -> None:
        """Its silence so far does not count."""
        self.unanswered, self.is_overdue = 0, False


@dataclass(slots=True)
class Suspicion:
    """An accused peer whose case is open."""

    reason: str
    deadline_s: float
    attempts: int = 1  # of our own, under way
    has_tried: bool = False  # our own attempt came to nothing
    has_called: bool = False  # the witnesses, if there are any
    awaited: set[Address] = field(default_factory=set)  # witnesses whose opinion is still out
    against: int = 0  # witnesses that could not reach it either


class Liveness:
    """The health of every neighbour, every open case, and the latest deaths."""

    def __init__(
        self, tunables: Tunables, rng: random.Random, refusals: Refusals | None = None
    ) -> None:
        self._tunables = tunables
        self._refusals = refusals or Refusals("opinions")
        self._rng = rng
        self._health: dict[Address, Health] = {}
        self._suspicions: dict[Address, Suspicion] = {}
        self._retries: list[Address] = []  # to be tried again, not yet collected by the node
        self._askers: dict[Address, set[Address]] = {}  # accused -> who wants our opinion
        self._deaths: dict[Address, float] = {}  # who was found dead, and when

    # ---- neighbours ----

    def watch(self, neighbour: Address, now_s: float) -> None:
        """A link begins, which proves life and closes any case."""
        asked_s = now_s + self._tunables.liveness_interval_s - ROUND_TRIP_INTERVAL_S
        self._health[neighbour] = Health(now_s, now_s, asked_s)
        self._suspicions.pop(neighbour, None)
        self._deaths.pop(neighbour, None)

    def unwatch(self, neighbour: Address) -> None:
        self._health.pop(neighbour, None)

    def heard(self, neighbour: Address, now_s: float) -> None:
        """A frame came: alive."""
        health = self._health[neighbour]
        health.heard_s = now_s
        health.cleared = 0
        health.forgive()
        if self._suspicions and self.is_suspect(neighbour):
            del self._suspicions[neighbour]

    def answered(self, neighbour: Address, number: int, now_s: float) -> None:
        """A reply came; the one to our latest request tells how long the way is."""
        health = self._health[neighbour]
        if 0 < number == health.requests:
            health.round_trip_s = now_s - health.asked_s

    def round_trip_s(self, neighbour: Address) -> float | None:
        """How long the latest reply took, if there was one."""
        return self._health[neighbour].round_trip_s

    def due_s(self, neighbour: Address) -> float:
        """When `test` is to be called next for this neighbour."""
        health = self._health[neighbour]
        return min(self._silent_s(health), self._unmeasured_s(health), self._overdue_s(health))

    def test(self, neighbour: Address, now_s: float) -> Finding:
        """Look at a neighbour: NOTHING, ASK with `number`, or SUSPECT."""
        health = self._health[neighbour]
        late_s = now_s - self._silent_s(health)
        if late_s < 0:
            health.is_overdue |= now_s >= self._overdue_s(health)
            return self._measure(health, now_s)
        if late_s > self._tunables.own_lateness_s:
            self.forgive_all(now_s)
        health.looked_s = now_s
        if self.is_suspect(neighbour):
            return Finding.NOTHING
        if health.unanswered >= self._tunables.missed_replies_suspect:
            return Finding.SUSPECT
        health.unanswered += 1
        return self._ask(health, now_s)

    def _measure(self, health: Health, now_s: float) -> Finding:
        """Of one that is not silent only the round trip is wanted; no answer is no offence."""
        is_due = now_s >= self._unmeasured_s(health)
        return self._ask(health, now_s) if is_due else Finding.NOTHING

    def _ask(self, health: Health, now_s: float) -> Finding:
        health.asked_s = now_s
        health.requests += 1
        return Finding.ASK

    def _silent_s(self, health: Health) -> float:
        """From when on the neighbour counts as silent, unless it says something."""
        return max(health.heard_s, health.looked_s) + self._tunables.liveness_interval_s

    def _overdue_s(self, health: Health) -> float:
        """From when on an answer is overdue, unless it comes; after that it just is."""
        if not health.unanswered or health.is_overdue:
            return FOREVER_S
        usual_s = health.round_trip_s or 0.0
        return health.looked_s + max(self._tunables.liveness_interval_s / 2, OVERDUE * usual_s)

    def _unmeasured_s(self, health: Health) -> float:
        """From when on the round trip counts as unknown, unless the neighbour is asked."""
        return health.asked_s + ROUND_TRIP_INTERVAL_S

    def number(self, neighbour: Address) -> int:
        """The number of the latest request to this neighbour."""
        return self._health[neighbour].requests

    def forgive_all(self, now_s: float) -> None:
        """We were late ourselves: what looked like silence was our own sleep.

        Whose link broke has no other chance to be tested: such a case is tried anew.
        """
        for accused, suspicion in list(self._suspicions.items()):
            if accused in self._health:
                del self._suspicions[accused]
            else:
                attempts = suspicion.attempts + 1
                deadline_s = now_s + 2 * self._tunables.probe_timeout_s
                self._suspicions[accused] = Suspicion(suspicion.reason, deadline_s, attempts)
                self._retries.append(accused)
        for health in self._health.values():
            health.forgive()

    def collect_retries(self) -> list[Address]:
        """Whom the caller is to try again."""
        retries, self._retries = self._retries, []
        return retries

    # ---- cases ----

    def is_suspect(self, peer: Address) -> bool:
        return peer in self._suspicions

    def accuse(self, accused: Address, reason: str, now_s: float) -> None:
        """Open a case. The caller tries the accused itself, and tells `tried`."""
        deadline_s = now_s + 2 * self._tunables.probe_timeout_s
        self._suspicions[accused] = Suspicion(reason, deadline_s)

    def call_witnesses(self, accused: Address, now_s: float) -> list[Address]:
        """Neighbours to be asked about the accused; the case stays open until they answered."""
        suspicion = self._suspicions[accused]
        able = [n for n, h in self._health.items() if n != accused and h.unanswered < 2]
        chosen = self._rng.sample(able, min(len(able), self._tunables.opinions))
        suspicion.has_called = True
        suspicion.awaited = set(chosen)
        if chosen or not suspicion.has_tried:
            suspicion.deadline_s = now_s + 1.25 * self._tunables.probe_timeout_s
        else:
            suspicion.deadline_s = now_s
        return chosen

    def reason(self, accused: Address) -> str:
        return self._suspicions[accused].reason

    def tried(self, accused: Address, outcome: Tried) -> Finding:
        """Our own attempt has ended. SUSPECT means that now the witnesses are to be called."""
        suspicion = self._suspicions.get(accused)
        if suspicion is None:
            return Finding.NOTHING
        if outcome is Tried.REFUSED:
            return self._close(accused, Finding.DEAD)
        if outcome.is_alive:
            return self._close(accused, Finding.CLEARED)
        if outcome is Tried.UNTRIED:
            return self._close(accused, Finding.UNREACHABLE)
        suspicion.attempts -= 1
        if suspicion.attempts > 0:
            return Finding.NOTHING  # it began before we slept, and proves nothing
        suspicion.has_tried = True
        return self._weigh(accused) if suspicion.has_called else Finding.SUSPECT

    def opinion(self, witness: Address, accused: Address, is_alive: bool) -> Finding:
        """A witness has answered."""
        suspicion = self._suspicions.get(accused)
        if suspicion is None or witness not in suspicion.awaited:
            return Finding.NOTHING
        suspicion.awaited.discard(witness)
        if is_alive:
            return self._close(accused, Finding.CLEARED)
        suspicion.against += 1
        return self._weigh(accused)

    def is_asked_about(self, accused: Address, asker: Address, now_s: float) -> bool:
        """Somebody wants our opinion. True if the accused is to be tried for it."""
        is_under_way = accused in self._askers
        if not is_under_way and len(self._askers) >= MAX_ATTEMPTS:
            reason = f"asks about {accused} while {MAX_ATTEMPTS} others are tried"
            self._refusals.refuse("opinions", str(asker), reason, now_s)
            return False  # no opinion is better than a slow one
        self._askers.setdefault(accused, set()).add(asker)
        return not is_under_way

    def askers(self, accused: Address) -> set[Address]:
        """Who wanted our opinion, now that the attempt has ended."""
        return self._askers.pop(accused, set())

    def lapsed(self, now_s: float) -> list[tuple[Address, str, Finding]]:
        """Close the cases whose deadline has passed: the accused, the reason, what it came to."""
        over = [(a, s.reason) for a, s in self._suspicions.items() if now_s >= s.deadline_s]
        return [(a, reason, self._close(a, self._verdict(a))) for a, reason in over]

    def silent(self) -> list[Address]:
        """Neighbours not to be counted on: suspects, and those that fell silent with half of all.

        When so many fall silent together, nobody waits for the last request to be sure.
        """
        is_half = self._are_half(sum(health.is_silent for health in self._health.values()))
        return [
            n
            for n, health in self._health.items()
            if n in self._suspicions or (is_half and health.is_silent)
        ]

    @property
    def has_cases(self) -> bool:
        return bool(self._suspicions)

    @property
    def suspects(self) -> int:
        """How many peers are accused, and their cases open."""
        return len(self._suspicions)

    def died(self, peer: Address, now_s: float) -> None:
        """Remember for a while that the peer was found dead: whoever draws a map asks for it."""
        self._deaths.pop(peer, None)
        self._deaths[peer] = now_s
        while len(self._deaths) > REMEMBERED_DEATHS:
            del self._deaths[next(iter(self._deaths))]

    def deaths(self, now_s: float) -> list[Address]:
        """Who was found dead of late."""
        return [p for p, at_s in self._deaths.items() if now_s - at_s < DEATHS_REMEMBERED_S]

    def is_link_broken(self, neighbour: Address) -> bool:
        """Others reached the neighbour twice while our link to it stayed silent."""
        return self._health[neighbour].cleared >= 2

    def _weigh(self, accused: Address) -> Finding:
        suspicion = self._suspicions[accused]
        if not suspicion.has_tried or suspicion.awaited:
            return Finding.NOTHING
        return self._close(accused, self._verdict(accused))

    def _verdict(self, accused: Address) -> Finding:
        """Dead; unless half our neighbours fell silent together and nobody confirms it."""
        if self._is_half_silent() and not self._suspicions[accused].against:
            return Finding.UNREACHABLE
        return Finding.DEAD

    def _is_half_silent(self) -> bool:
        return self._are_half(sum(health.unanswered >= 2 for health in self._health.values()))

    def _are_half(self, count: int) -> bool:
        return count >= 2 and 2 * count >= len(self._health)

    def _close(self, accused: Address, finding: Finding) -> Finding:
        del self._suspicions[accused]
        health = self._health.get(accused)
        if finding is Finding.CLEARED and health is not None:
            health.forgive()
            health.cleared += 1
        return finding
