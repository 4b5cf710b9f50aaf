"""How fast to speak: as fast as all take it in who keep up, and no faster.

Pure: no sockets, threads or clocks; the time is an argument.

Histories are bounded. Who says more than others can take in would see its oldest messages leave
every history before the last peer has them. So each peer tells whoever brings it a stream how far
it *and all behind it* have it (`Progress`): the least of its own number and of those it was told in
turn. At the origin this is how far the slowest of all has come, and `broadcast` waits while that
lies too far back.

Nobody waits for a peer that is left behind: one that took in less than an eighth of what others
did since it began to keep up, or has hardly moved for a second (longer when many streams share the
way). It lags, and may find gaps; the others do not feel it. But one that kept up for long, and then
turns slow, is waited for as long as it moves. Only when all neighbours are behind does the origin
wait for the best of them, however slow.

And nobody says more than so much a second: others would refuse it (`streams.Threshold.refuse`).

A stream starts slowly, as TCP does: at first an eighth of the limit may be under way, until each
neighbour has said its first word, or the patience is over; then as much more as the best of the
neighbours has taken in. So when all peers begin to speak in the same instant, each hears of the
streams that share the histories with its own before too much is said.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from limits import Budget
from messages import Address, Progress, StreamKey
from settings import Tunables
from streams import cost_of
from wire import Run

STEPS = 8  # parts of the room: after each, progress is told; the first room is such a part itself
KEEPS_UP = 8  # who takes in less than this part of what is said is left behind; that shows after
# half of the limit, so that nobody has to wait for it
PATIENCE_S = 1.0  # in it who is too far back must be near again, or nearer by a quarter room;
MOST_PATIENCE_S = 5.0  # as many times as long, up to this, where streams share the history
MOST_POINTS = 512  # so finely it is known how far others are: to this part of the limit
UNLIMITED = 1 << 62


@dataclass(slots=True)
class Taker:
    """A neighbour that gets a stream from us. Positions are bytes since the stream began."""

    number: int  # it, and all behind it, have the stream up to here
    at: int  # the position of that
    began: tuple[int, int]  # where who leads was, and this one, when it began to keep up
    has_shown: bool = False  # how far it is, by a word of its own or otherwise
    slow_since_s: float | None = None  # since then it is too far back
    slow_at: int = 0  # where it was then
    is_left_behind: bool = False


@dataclass(slots=True)
class Flow:
    """One stream on its way through this peer."""

    upto: int = 0  # the number that we have
    at: int = 0  # and its position
    points: list[tuple[int, int]] = field(default_factory=list)  # some numbers and positions
    takers: dict[Address, Taker] = field(default_factory=dict)
    told_at: dict[Address, int] = field(default_factory=dict)  # those who bring it; what they know
    source: Address | None = None  # who of them brought what was new, last

    @property
    def lead(self) -> int:
        """How far who is ahead has come: on the way we ourselves, at the origin another."""
        if not self.told_at and self.takers:
            return max(taker.at for taker in self.takers.values())
        return self.at

    def position(self, number: int) -> int:
        """Where the message lies, rather too early than too late."""
        if number >= self.upto:
            return self.at
        index = bisect_right(self.points, (number, UNLIMITED)) - 1
        return self.points[index][1] if index >= 0 else 0

    def place(self, taker: Taker, number: int) -> None:
        """The taker has shown that it has the stream up to there."""
        taker.number, taker.at, taker.has_shown = number, self.position(number), True


class Pace:
    """What this peer knows of how far others have come, stream by stream."""

    def __init__(self, own: StreamKey, tunables: Tunables) -> None:
        self._own = own
        self._tunables = tunables
        self._most = tunables.broadcast_lag_bytes
        self._flows: dict[StreamKey, Flow] = {own: Flow()}
        self._links: set[Address] = set()
        self._takers: set[Address] = set()  # neighbours that payload is sent to as it comes
        self._due: set[StreamKey] = set()  # streams whose progress is to be looked at
        self._grown: set[StreamKey] = set()  # since the latest tick
        self._growing: set[StreamKey] = set()  # before that
        self._resting: set[StreamKey] = set()  # they grew, and do not now: each word counts
        self._slow: set[StreamKey] = set()  # some taker of these is waited for
        self._message_cost = 2 * self._most // tunables.stream_messages
        self._point = self._most // MOST_POINTS
        self._limit = 0
        self._patience_s = 0.0
        self.share_history(1)
        self._free_until = UNLIMITED  # the position up to which we may speak without waiting
        per_s = tunables.stream_messages_per_s
        self._budget = Budget(max(1.0, per_s), per_s, max(1.0, per_s), 0.0)  # what we say at once

    @property
    def is_far_ahead(self) -> bool:
        """Whether we have to wait: others are behind, or more than is allowed was said."""
        return self._flows[self._own].at > self._free_until or self._budget.left < 1

    @property
    def has_untold(self) -> bool:
        """Whether a tick may have something to tell."""
        return bool(self._grown or self._growing)

    @property
    def obstacle(self) -> str:
        """Why nothing may be said now."""
        return "more was said than is allowed" if self._budget.left < 1 else "others are far behind"

    def share_history(self, streams: int) -> None:
        """So many streams are large now: none may lag by more than its part of a history."""
        share = self._tunables.history_bytes // (4 * max(1, streams))
        self._limit = max(1, min(self._most, share))
        self._patience_s = min(MOST_PATIENCE_S, PATIENCE_S * max(1, streams))

    # ---- links ----

    def open(self, neighbour: Address) -> None:
        """A link begins."""
        self._links.add(neighbour)
        at = self._flows[self._own].at
        self._free_until = min(self._free_until, at + self._room(at))

    def close(self, neighbour: Address, now_s: float) -> None:
        """The link is over."""
        self._links.discard(neighbour)
        self._takers.discard(neighbour)
        for key, flow in self._flows.items():
            if flow.takers.pop(neighbour, None) is not None:
                self._due.add(key)
            flow.told_at.pop(neighbour, None)
        self._review(now_s)

    def start_sending(self, neighbour: Address) -> None:
        """The neighbour gets payload as it comes; what was said before does not count as lag."""
        self._takers.add(neighbour)
        flow = self._flows[self._own]
        flow.takers[neighbour] = _taker(flow, flow.upto)

    def stop_sending(self, neighbour: Address) -> None:
        """The neighbour gets its payload from another now, and tells that one."""
        self._takers.discard(neighbour)
        for key, flow in self._flows.items():
            flow.told_at.pop(neighbour, None)
            if flow.takers.pop(neighbour, None) is not None:
                self._due.add(key)

    # ---- streams ----

    def is_brought(self, key: StreamKey, neighbour: Address, upto: int) -> None:
        """A neighbour sends a stream, be it that we have it already: it may wait for us."""
        flow = self._flow(key)
        if neighbour not in flow.told_at:
            flow.told_at[neighbour] = 0
            self._due.add(key)
        self.has_elsewhere(neighbour, key, upto)

    def has_elsewhere(self, neighbour: Address, key: StreamKey, number: int) -> None:
        """The neighbour shows that it has so much of a stream from another, whom it tells of it."""
        flow = self._flows.get(key)
        if flow is None or neighbour not in flow.takers:
            return
        taker = flow.takers[neighbour]
        if taker.number < number:
            flow.place(taker, min(number, flow.upto))
            self._due.add(key)

    def sends(self, neighbour: Address, key: StreamKey, number: int) -> None:
        """We send the neighbour what follows that number: it does not bring us the stream now."""
        flow = self._flows.get(key)
        if flow is not None and flow.told_at.pop(neighbour, None) is not None:
            flow.takers[neighbour] = _taker(flow, number)

    def spoke(self, run: Run, now_s: float) -> None:
        """We have said one thing more."""
        self._budget.spend(now_s)
        self.grew(run)

    def grew(self, run: Run, source: Address | None = None) -> None:
        """We have one run more of a stream; from whom, if it was sent as it came."""
        flow = self._flow(run.stream)
        if source is not None:
            flow.source = source
            flow.takers.pop(source, None)  # it gets the stream from another
        for neighbour in self._takers:  # all count from the start: their first word comes late
            if neighbour not in flow.takers and neighbour not in flow.told_at:
                flow.takers[neighbour] = _taker(flow, flow.upto)
        flow.upto = run.last
        flow.at += cost_of(run) + (run.last - run.first + 1) * self._message_cost
        self._grown.add(run.stream)
        self._resting.discard(run.stream)
        if not flow.points or flow.at - flow.points[-1][1] >= self._point:
            flow.points.append((flow.upto, flow.at))
            if len(flow.points) > 2 * MOST_POINTS:
                del flow.points[:MOST_POINTS]
            self._due.add(run.stream)

    def _flow(self, key: StreamKey) -> Flow:
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow()
        return flow

    def forget(self, key: StreamKey) -> None:
        """The stream is no longer held."""
        self._flows.pop(key, None)
        for some in (self._due, self._slow, self._grown, self._growing, self._resting):
            some.discard(key)

    def told(self, neighbour: Address, progress: Progress, now_s: float) -> None:
        """All behind the neighbour have the stream so far.

        What one says that gets its payload from another now comes too late, and is the last word
        of it: whoever waited for more would wait in vain.
        """
        flow = self._flows.get(progress.stream)
        if flow is None or neighbour not in self._takers:
            return
        number = min(progress.upto, flow.upto)
        taker = flow.takers.get(neighbour)
        if taker is None or (not taker.has_shown and number < taker.number):
            # It turns to us, and is judged by all of the stream: others may have found it slow.
            taker = flow.takers[neighbour] = Taker(number, flow.position(number), (0, 0))
        flow.place(taker, number)
        self._due.add(progress.stream)
        if progress.stream == self._own:
            self._review(now_s)

    def news(self, now_s: float) -> list[tuple[Address, Progress]]:
        """What those who bring us streams are to be told.

        While the tree changes a stream may come from several, in a circle even. So only who brought
        the latest of it is told of those behind us: nobody brings first what it gets from us, and
        so these words go round in no circle, in which all would wait for each other.
        """
        told = []
        due, self._due = self._due, set()
        for key in due:
            flow = self._flows[key]
            waited = [taker for taker in flow.takers.values() if self._keeps_up(flow, taker, now_s)]
            if any(taker.slow_since_s is not None for taker in waited):
                self._slow.add(key)
            least = min([flow.upto, *(taker.number for taker in waited)])
            for neighbour, told_at in flow.told_at.items():
                number = least if neighbour == flow.source else flow.upto
                at = flow.position(number)
                step = self._room(told_at) // STEPS
                if not told_at or key in self._resting:
                    step = min(step, self._point)
                if at - told_at >= max(step, 1):
                    flow.told_at[neighbour] = at
                    told.append((neighbour, Progress(key, number)))
        return told

    def tick(self, now_s: float) -> None:
        """Time has passed: some may have lost their claim to be waited for.

        And where a stream has come to rest, what was too little to tell of before is told now. On
        a long way it adds up: the origin may be waiting, for what others have long had.
        """
        stopped = self._growing - self._grown
        self._growing, self._grown = self._grown, set()
        self._resting |= stopped
        self._due |= self._slow | stopped
        self._slow.clear()
        self._budget.spend(now_s, 0)  # there is more of it now
        self._review(now_s)

    # ---- who is waited for ----

    def _review(self, now_s: float) -> None:
        """How far we may go on now."""
        flow = self._flows[self._own]
        takers = flow.takers.values()
        if not self._links:
            self._free_until = UNLIMITED
        if not takers:  # alone; or the tree is changing, and the bound stays until there are some
            return
        best = max(taker.at for taker in takers)
        waited = [taker for taker in takers if self._keeps_up(flow, taker, now_s)]
        bounds = [t.at + (self._limit if t.has_shown else self._room(t.at)) for t in waited]
        bounds.append(best + self._room(best))
        self._free_until = min(bounds)

    def _room(self, at: int) -> int:
        """How much more may be under way to one that has come so far."""
        return min(self._limit, self._most // STEPS + at)

    def _keeps_up(self, flow: Flow, taker: Taker, now_s: float) -> bool:
        """Whether the taker is waited for when it is too far back."""
        room = self._room(taker.at)  # a first word comes long before that is used up
        is_near = flow.at - taker.at <= (room if taker.has_shown else room // STEPS)
        if is_near and taker.is_left_behind:
            taker.is_left_behind, taker.began = False, (flow.lead, taker.at)
        if is_near or taker.is_left_behind:
            taker.slow_since_s = None
        else:
            taker.is_left_behind = not self._is_moving(flow, taker, now_s)
        return not taker.is_left_behind

    def _is_moving(self, flow: Flow, taker: Taker, now_s: float) -> bool:
        """Whether one that is too far back takes in enough of what is said."""
        lead_at, own_at = taker.began
        led = flow.lead - lead_at
        is_known = taker.has_shown and led >= self._most // 2
        if is_known and (taker.at - own_at) * KEEPS_UP < led:
            return False
        if taker.slow_since_s is None or taker.at - taker.slow_at >= self._room(taker.at) // 4:
            taker.slow_since_s, taker.slow_at = now_s, taker.at
        return now_s < taker.slow_since_s + self._patience_s


def _taker(flow: Flow, number: int) -> Taker:
    at = flow.position(number)
    return Taker(number, at, (flow.lead, at))
