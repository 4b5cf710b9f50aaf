"""One origin's messages, as far as this peer has them; and as far as a neighbour has.

Pure. A stream is what one origin says in one life, numbered from 1 and taken strictly in order; so
what anybody has of it is one number. What is retained of it for others lies here, as the runs of
frames that came in.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from limits import Budget, Budgets, Refusals
from messages import Address, Holding, StreamKey, WireError, stream_name
from settings import Tunables
from wire import Run

RUN_OVERHEAD_BYTES = 250  # what a run costs in memory beside its bytes
ITEMS_PER_FRAME = 1000  # at most 290 bytes each, so that a frame stays under its limit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages `first` to `last` of the stream cannot be had from anybody any more."""

    stream: StreamKey
    first: int
    last: int


@dataclass(slots=True)
class Stream:
    """What we have of one origin's messages in one of its lives."""

    key: StreamKey
    budget: Budget  # for the messages of it that are heard
    upto: int = 0  # every message up to this one was handed on, or is a gap
    runs: list[Run] = field(default_factory=list)  # retained for others, in order, without holes
    size: int = 0  # bytes, overhead included
    grown_s: float = 0.0  # when the latest message came
    pushed_s: float = float("-inf")  # when the tree brought a new one, last
    announced: int = 0  # the highest that a neighbour announced as news
    brought_by: Address | None = None  # who sent what we had not, last; since we asked

    @classmethod
    def begun(cls, key: StreamKey, upto: int, tunables: Tunables, now_s: float) -> Self:
        """One of which nothing is retained yet.

        All that others retain of it may come at once, and behind it what its origin said at once.
        """
        per_s = tunables.stream_messages_per_s
        most = tunables.stream_messages + per_s
        return cls(key, Budget(most, per_s, most, now_s), upto, grown_s=now_s)

    @property
    def first(self) -> int:
        """The first message that we can still provide."""
        return self.runs[0].first if self.runs else self.upto + 1

    @property
    def holding(self) -> Holding:
        return Holding(self.key, self.first, self.upto)

    def append(self, run: Run) -> int:
        """Retain the run that follows what we have. Returns what it costs in bytes."""
        cost = cost_of(run)
        self.runs.append(run)
        self.upto = run.last
        self.size += cost
        return cost

    def drop_oldest(self, least: int) -> int:
        """Retain less, by at least this many bytes if there are so many. Returns how many."""
        dropped = count = 0
        while dropped < least and count < len(self.runs):
            dropped += cost_of(self.runs[count])
            count += 1
        del self.runs[:count]
        self.size -= dropped
        return dropped

    def after(self, cursor: int, budget: int) -> list[Run]:
        """The retained runs that follow `cursor`, about `budget` bytes of them, at least one."""
        index = bisect_right(self.runs, cursor, key=last_of)
        taken: list[Run] = []
        while index < len(self.runs) and budget > 0:
            run = self.runs[index].after(cursor) if not taken else self.runs[index]
            taken.append(run)
            budget -= len(run.data)
            index += 1
        return taken


class Inbox:
    """What was heard and is not yet taken by the application; in order."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._items: deque[Run | Gap] = deque()
        self.size = 0  # bytes

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def is_full(self) -> bool:
        """The application is far behind: nothing is taken until it has caught up."""
        return self.size >= self._most

    def put(self, item: Run | Gap) -> None:
        """Hand on what follows."""
        self._items.append(item)
        self.size += _size_of(item)

    def collect(self, budget: int) -> list[Run | Gap]:
        """What the application has not had yet, oldest first, about `budget` bytes of it."""
        taken: list[Run | Gap] = []
        while self._items and budget > 0:
            taken.append(item := self._items.popleft())
            self.size -= _size_of(item)
            budget -= _size_of(item)
        return taken


class Threshold:
    """Where streams that are not held have to pass: how far they were heard, and who brings them.

    What is remembered is bounded. Past the bound the lives that began first go first; of lives as
    old as those nothing is taken any more, because nobody can tell what was heard of them.
    """

    def __init__(self, tunables: Tunables, refusals: Refusals) -> None:
        self._most = tunables.remembered_streams
        self._most_per_s = tunables.stream_messages_per_s
        self._upto: dict[StreamKey, int] = {}
        self._horizon = StreamKey(b"")  # a key begins with the boot time, so keys lie in its order
        self._budgets = Budgets(tunables.max_streams, tunables.new_streams_per_s)
        self._refusals = refusals

    def __len__(self) -> int:
        return len(self._upto)

    def leave(self, key: StreamKey, upto: int) -> None:
        """The stream is held no more."""
        self._upto[key] = upto
        if len(self._upto) > self._most:
            oldest = sorted(self._upto)[: self._most // 16 + 1]
            for old in oldest:
                del self._upto[old]
            self._horizon = max(self._horizon, oldest[-1])

    def heard(self, key: StreamKey) -> int:
        """How far the stream was heard that is not held, as far as is remembered."""
        return self._upto.get(key, 0)

    def enter(self, key: StreamKey, upto: int, source: str, now_s: float) -> int | None:
        """Somebody has the stream up to there: how far we heard it; None if it is not let in."""
        heard = self._upto.get(key)
        if heard is not None:
            return None if upto <= heard else self._upto.pop(key)
        if key <= self._horizon:
            origin = stream_name(key).origin
            reason = f"a life of {origin} too long ago to tell what was heard of it"
        elif not self._budgets.spend(source, now_s):
            reason = "too many streams that nobody knew"
        else:
            return 0
        self._refusals.refuse("streams", source, reason, now_s)
        return None

    def refuse(self, stream: Stream, source: str, now_s: float) -> None:
        """More has come of a stream that is held than it may bring."""
        origin = stream_name(stream.key).origin
        reason = f"more than {self._most_per_s:,.10g} messages a second of {origin}"
        self._refusals.refuse("messages", source, reason, now_s)


@dataclass(slots=True)
class Ledger:
    """Our account of one neighbour, stream by stream."""

    source: str  # whom the streams are counted to that are new to us
    has: dict[StreamKey, int] = field(default_factory=dict)  # it showed that it has so many
    provides_from: dict[StreamKey, int] = field(default_factory=dict)  # 1 until it says otherwise
    announced: int = 0  # messages that it told of as news, over all streams but its own
    cursor: dict[StreamKey, int] = field(default_factory=dict)  # it has, or was sent, so many
    is_eager: bool = False  # payload is sent as it comes; else it is announced
    owed: dict[StreamKey, bool] = field(default_factory=dict)  # streams to look at, oldest first;
    # and whether it asked, for then it gets all of it, even if it is no longer eager
    unannounced: dict[StreamKey, bool] = field(default_factory=dict)  # new, and only to be told

    def choose(self, is_eager: bool) -> None:
        """What is new is sent from now on, or else only told; an answer goes on."""
        self.is_eager = is_eager
        if is_eager:
            self.owed = {**self.unannounced, **self.owed}
            self.unannounced.clear()
        else:
            self.unannounced |= {key: False for key, asked in self.owed.items() if not asked}
            self.owed = {key: True for key, asked in self.owed.items() if asked}

    def announce(self, streams: dict[StreamKey, Stream]) -> list[Holding]:
        """What it has not shown, was not told, and is not being sent; it counts as told then."""
        news = []
        for stream in (streams[key] for key in self.unannounced if key not in self.owed):
            known = max(self.has.get(stream.key, 0), self.cursor.get(stream.key, 0))
            if known < stream.upto:
                self.cursor[stream.key] = stream.upto
                news.append(stream.holding)
        self.unannounced.clear()
        return news


def last_of(run: Run) -> int:
    """To look a message up in runs that lie in order."""
    return run.last


def _size_of(item: Run | Gap) -> int:
    return len(item.data) if isinstance(item, Run) else 0


def cost_of(run: Run) -> int:
    """What it takes to retain the run, in bytes of memory."""
    return len(run.data) + RUN_OVERHEAD_BYTES


def parts(items: Sequence[T]) -> list[tuple[T, ...]]:
    """The items in parts small enough for a frame each."""
    starts = range(0, len(items), ITEMS_PER_FRAME)
    return [tuple(items[at : at + ITEMS_PER_FRAME]) for at in starts]


def part(items: tuple[T, ...], what: str) -> tuple[T, ...]:
    """One such part that came in a frame; checked. Raises WireError."""
    if len(items) > ITEMS_PER_FRAME:
        raise WireError(f"{what}: expected at most {ITEMS_PER_FRAME}, got {len(items)}")
    return items
