"""What happens at a limit: it is counted, said now and then, and paid for out of a budget.

Pure: no sockets, threads or clocks; the time is an argument. Which limits there are, and why they
are as they are, is in `settings.py`.
"""

from collections import Counter
from dataclasses import dataclass

SAID_AGAIN_S = 60.0  # a limit that is met all the time is one line a minute, not one per frame
CERTIFICATE = "certificate"  # no trust: whatever the reasons are, they are different stories,
SAID_REASONS = 64  # and so many of them are said, each for itself
REMEMBERED_SPENDERS = 4096  # then who spent least lately is forgotten, and has a full budget again

OF_BOTH = ("half_open", "handshakes", "frames", "threads", CERTIFICATE)
OF_GOSSIP = ("streams", "messages")
OF_A_PEER = (*OF_BOTH, *OF_GOSSIP, "admissions", "links", "opinions", "outboxes", "directs")
OF_A_SEED = (*OF_BOTH, "registrations", "attempts")


class Refusals:
    """What was refused because it was too much, by the name of the limit."""

    def __init__(self, *limits: str) -> None:
        self.counts = Counter(dict.fromkeys(limits, 0))
        self._said_s: dict[tuple[str, str], float] = {}
        self._news: list[dict[str, str]] = []  # to be said

    def refuse(self, limit: str, source: str, reason: str, now_s: float) -> None:
        """Count one more, and say so now and then: what, from where, and why."""
        self.counts[limit] += 1
        story = (limit, reason if limit == CERTIFICATE else "")
        if len(self._said_s) >= SAID_REASONS and story not in self._said_s:
            recent = {
                s: said_s for s, said_s in self._said_s.items() if now_s < said_s + SAID_AGAIN_S
            }
            self._said_s = recent
            story = story if len(recent) < SAID_REASONS else (limit, "")
        if now_s >= self._said_s.get(story, float("-inf")) + SAID_AGAIN_S:
            self._said_s[story] = now_s
            self._news.append({"what": limit, "source": source, "reason": reason})

    def collect(self) -> list[dict[str, str]]:
        """The details of the events that are to be said."""
        news, self._news = self._news, []
        return news

    def stats(self) -> dict[str, int]:
        """The counts, as they stand beside a program's other counters."""
        return {f"refused_{limit}": count for limit, count in self.counts.items()}


class Tally(Counter[str]):
    """How many there are from each source; those that have none left are not remembered."""

    def change(self, source: str, by: int) -> None:
        """So many more, or fewer."""
        self[source] += by
        if not self[source]:
            del self[source]


@dataclass(slots=True)
class Budget:
    """So much at once, and then so much a second."""

    most: float
    per_s: float
    left: float
    filled_s: float

    def spend(self, now_s: float, count: int = 1) -> bool:
        """Pay for so many at once, be it on credit. False if there is nothing left to pay with."""
        left = self.left + (now_s - self.filled_s) * self.per_s
        if left > self.most:  # `min` takes twice as long, and streams pay for each run they bring
            left = self.most
        can_pay = left >= 1
        self.left = left - count if can_pay else left
        self.filled_s = now_s
        return can_pay


class Budgets:
    """A budget for each source; bounded, however many sources there are."""

    def __init__(self, most: float, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._of: dict[str, Budget] = {}  # who spent last comes last

    def spend(self, source: str, now_s: float) -> bool:
        """Let the source pay for one more. False if it cannot."""
        budget = self._of.pop(source, None) or Budget(self._most, self._per_s, self._most, now_s)
        self._of[source] = budget
        if len(self._of) > REMEMBERED_SPENDERS:
            del self._of[next(iter(self._of))]
        return budget.spend(now_s)
