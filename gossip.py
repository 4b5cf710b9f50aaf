"""What this peer holds of every stream, and what each neighbour is owed.

Pure: no sockets, threads or clocks; the time is an argument.

Messages of a stream are numbered from 1 and taken strictly in order, so what anybody has of a
stream is one number, and any difference between two peers is arithmetic. Each link has a *cursor*
per stream: the number up to which the neighbour has it, or has been sent it. Whatever lies between
the cursor and what we hold is owed. New messages, late joiners, a neighbour that reads slowly and
one that asks again are all the same case: the cursor is behind.

Who lacks what a neighbour has asks for it (`questions.py`), which moves the cursor there back. What
nobody can provide any more becomes a `Gap`.
"""

import random
import zlib

from limits import OF_GOSSIP, Refusals
from messages import (
    Address,
    Have,
    Holding,
    StreamKey,
    StreamName,
    Want,
    Wanted,
    WireError,
    stream_name,
)
from pace import Pace
from questions import UNKNOWN, Questions, Ways
from settings import Tunables
from streams import Gap, Inbox, Ledger, Stream, Threshold, part, parts
from wire import MAX_NUMBER, Run, new_run

STEADY = 4  # times as long announcements wait where there is always something to announce
LEAST_SHARE_BYTES = 8 << 10  # of a batch: runs of a few messages would cost more than they carry


class Gossip:
    """All streams of one peer, its history of them, and its ledger of each neighbour."""

    def __init__(
        self,
        me: StreamName,
        tunables: Tunables,
        rng: random.Random,
        ready: set[Address],
        wants_history: bool = True,
        refusals: Refusals | None = None,
        ways: Ways = UNKNOWN,
    ) -> None:
        self._me = me
        self._tunables = tunables
        self._ready = ready  # neighbours to whom something can be sent now; shared with the node
        self._wants_history = wants_history
        self.own = Stream.begun(me.key, 0, tunables, 0.0)
        self.streams: dict[StreamKey, Stream] = {self.own.key: self.own}
        self._threshold = Threshold(tunables, refusals or Refusals(*OF_GOSSIP))
        self._ledgers: dict[Address, Ledger] = {}
        self._has_news = False  # something may wait to be announced
        self._announced_s = float("-inf")  # when announcements were last made
        self._announce_wait_s = tunables.announce_interval_s  # until the next are due
        self._digest: int | None = None  # None: to be computed anew
        self.inbox = Inbox(tunables.inbox_bytes)
        shared = self.streams, self._ledgers, self.inbox
        self.questions = Questions(tunables, rng, *shared, ways, self._give_up)
        self.history_size = 0
        self.pace = Pace(me.key, tunables)
        self.delivered = 0  # messages handed to the application
        self.surplus = 0  # messages that came although we had them

    # ---- links ----

    def open(self, neighbour: Address, source: str = "") -> list[Have]:
        """A link begins. Returns what we have, to be told; the neighbour asks for what it lacks."""
        ledger = self._ledgers[neighbour] = Ledger(source or neighbour.host)
        self.pace.open(neighbour)
        for stream in self.streams.values():
            ledger.cursor[stream.key] = stream.upto
        return self.all_holdings()

    def all_holdings(self, is_news: bool = False) -> list[Have]:
        """What we have of every stream, in frames of bounded size."""
        holdings = [stream.holding for stream in self.streams.values() if stream.upto]
        return [Have(some, is_news) for some in parts(holdings)]

    def set_eager(self, neighbour: Address, is_eager: bool) -> None:
        """The tree wants payload on this link, or only announcements."""
        ledger = self._ledgers[neighbour]
        if is_eager == ledger.is_eager:
            return
        (self.pace.start_sending if is_eager else self.pace.stop_sending)(neighbour)
        ledger.choose(is_eager)
        self._has_news |= bool(ledger.unannounced)
        if ledger.owed:
            self._ready.add(neighbour)

    def announcements(self, now_s: float) -> list[tuple[Address, Have]]:
        """What is new for neighbours that get no payload, and to whom it is to be told; batched.

        While there is something each time, less and less often: each wakes a thread over there.
        """
        if now_s < self._announced_s + self._announce_wait_s:
            return []
        self._announced_s = now_s
        least_s = self._tunables.announce_interval_s
        if not self._has_news:
            self._announce_wait_s = least_s
            return []
        self._announce_wait_s = min(2 * self._announce_wait_s, STEADY * least_s)
        self._has_news = False
        told = []
        for neighbour, ledger in self._ledgers.items():
            holdings = ledger.announce(self.streams)
            told += [(neighbour, Have(some, is_news=True)) for some in parts(holdings)]
        return told

    @property
    def is_busy(self) -> bool:
        """Whether there is something to announce, or a question open."""
        is_at_work = self._has_news or bool(self.questions)
        return is_at_work or self.pace.is_far_ahead or self.pace.has_untold

    def close(self, neighbour: Address, now_s: float) -> None:
        """The link is over; what was asked of this neighbour is asked of another at once."""
        del self._ledgers[neighbour]
        self.pace.close(neighbour, now_s)
        self.questions.close(neighbour, now_s)

    # ---- messages ----

    def broadcast(self, payload: bytes, now_s: float) -> int:
        """Say something to everyone. Returns its number in our stream."""
        run = new_run(self.own.key, self.own.upto + 1, payload)
        self._retain(self.own, run, now_s)
        self.pace.spoke(run, now_s)
        self._owe_to_all_but(None, self.own.key)
        return run.last

    def hear(self, neighbour: Address, run: Run, now_s: float) -> int:
        """A neighbour sent this; take what is new. Returns how many messages were."""
        ledger = self._ledgers[neighbour]
        key, last = run.stream, run.last
        stream = self.streams.get(key) or self._begin(ledger, key, run.first - 1, last, now_s)
        if stream is None:
            return 0
        ledger.has[key] = max(last, ledger.has.get(key, 0))
        ledger.cursor[key] = max(last, ledger.cursor.get(key, 0))
        if key == self.own.key:  # nobody tells us what we said
            self.pace.has_elsewhere(neighbour, key, last)
            return 0
        is_answer = self.questions.is_answer(stream, neighbour, run, now_s, ledger.is_eager)
        if ledger.is_eager:  # who only answered a question does not wait
            self.pace.is_brought(key, neighbour, last)
        if last <= stream.upto:
            self.surplus += last - run.first + 1
            return 0
        if run.first > stream.upto + 1:
            self.questions.lack(stream, now_s)
            return 0
        count = last - stream.upto
        is_too_much = not (self.inbox.is_full or stream.budget.spend(now_s, count))
        if is_too_much:
            self._threshold.refuse(stream, ledger.source, now_s)
        if is_too_much or self.inbox.is_full:
            self.questions.refused(stream, neighbour, now_s)
            return 0
        if run.first <= stream.upto:
            self.surplus += stream.upto + 1 - run.first
            run = run.after(stream.upto)
        self._retain(stream, run, now_s)
        stream.brought_by = neighbour
        if ledger.is_eager and not is_answer:
            self.questions.pushed(stream, count, now_s)
        self.inbox.put(run)
        self._owe_to_all_but(neighbour, key, push=not is_answer)
        self.pace.grew(run, neighbour if ledger.is_eager else None)
        self.delivered += count
        return count

    def take(self, neighbour: Address, budget: int) -> list[Run | Have]:
        """What this neighbour is owed, about `budget` bytes of it; the cursors move past it.

        Every stream has its part, so that none has to wait until others have all of theirs.
        """
        ledger = self._ledgers[neighbour]
        taken: list[Run | Have] = []
        share = max(LEAST_SHARE_BYTES, budget // max(1, len(ledger.owed)))
        while ledger.owed and budget > 0:
            key = next(iter(ledger.owed))
            is_answer = ledger.owed.pop(key)
            stream = self.streams[key]
            cursor = ledger.cursor.get(key, 0)
            if cursor >= stream.upto:
                continue
            if cursor + 1 < stream.first:  # dropped from the history before it could be sent
                taken.append(Have((stream.holding,), is_news=False))
                ledger.cursor[key] = stream.upto
                continue
            if ledger.is_eager:
                self.pace.sends(neighbour, key, cursor)
            runs = stream.after(cursor, min(share, budget))
            taken += runs
            budget -= sum(len(run.data) for run in runs)
            ledger.cursor[key] = runs[-1].last
            if runs[-1].last < stream.upto:
                ledger.owed[key] = is_answer
        return taken

    def is_owed(self, neighbour: Address) -> bool:
        """Whether something waits to be sent to this neighbour."""
        return bool(self._ledgers[neighbour].owed)

    # ---- what each side has ----

    def neighbour_has(self, neighbour: Address, have: Have, now_s: float) -> None:
        """A neighbour announced what it has; ask for what we lack of it."""
        ledger = self._ledgers[neighbour]
        for key, first, upto in ((h.stream, h.first, h.upto) for h in part(have.holdings, "have")):
            if not 1 <= first <= upto + 1 <= MAX_NUMBER:
                raise WireError(f"have.first: expected 1 to {upto + 1}, got {first}")
            stream = self.streams.get(key) or self._begin(ledger, key, upto, upto, now_s)
            if stream is None:
                continue
            had = ledger.has.get(key, 0)
            if have.is_news and had < upto and stream_name(key).origin != neighbour:
                ledger.announced += upto - had
            ledger.has[key] = max(upto, had)
            ledger.cursor[key] = max(upto, ledger.cursor.get(key, 0))
            ledger.provides_from[key] = first
            self.pace.has_elsewhere(neighbour, key, upto)
            if stream is not self.own:
                self.questions.announced(stream, neighbour, upto, have.is_news, now_s)

    def neighbour_wants(self, neighbour: Address, want: Want) -> list[Have]:
        """Move the cursors to where the neighbour is. Returns what we cannot provide from there."""
        ledger = self._ledgers[neighbour]
        cannot = []
        for key, after in ((w.stream, w.after) for w in part(want.wanted, "want")):
            stream = self.streams.get(key)
            if stream is None:
                upto = self._threshold.heard(key)
                cannot.append(Holding(key, upto + 1, upto))
            elif after + 1 < stream.first:
                cannot.append(stream.holding)
            elif after < stream.upto:
                ledger.cursor[key] = after
                ledger.owed[key] = True
                self._ready.add(neighbour)
        return [Have(some, is_news=False) for some in parts(cannot)]

    def neighbour_heard_us(self, neighbour: Address, number: int) -> None:
        """The neighbour tells how far it has our own stream."""
        ledger = self._ledgers[neighbour]
        number = min(number, self.own.upto)
        ledger.has[self.own.key] = max(number, ledger.has.get(self.own.key, 0))

    def has_all_of_ours(self, neighbour: Address) -> bool:
        """Whether the neighbour has shown that it has everything we said."""
        return self._ledgers[neighbour].has.get(self.own.key, 0) >= self.own.upto

    def heard_from(self, peer: StreamName) -> int:
        """How far we have the stream of this peer."""
        stream = self.streams.get(peer.key)
        return stream.upto if stream else 0

    def lag(self, neighbour: Address) -> int:
        """How many messages the neighbour is owed."""
        cursor = self._ledgers[neighbour].cursor
        return sum(max(0, s.upto - cursor.get(key, 0)) for key, s in self.streams.items())

    def stats(self) -> dict[str, int]:
        """Counters of what was said and heard, and of what is held of it."""
        return {
            "streams": len(self.streams),
            "broadcast": self.own.upto,
            "delivered": self.delivered,
            "surplus": self.surplus,
            "history_bytes": self.history_size,
            "waiting_bytes": self.inbox.size,
        }

    @property
    def digest(self) -> int:
        """Of all we have: equal for two peers that have the same. Not proof against malice."""
        if self._digest is None:
            have = sorted((key, stream.upto) for key, stream in self.streams.items() if stream.upto)
            self._digest = zlib.crc32(repr(have).encode())
        return self._digest

    # ---- as time passes ----

    def tick(self, now_s: float) -> list[Address | None]:
        """Whatever is due by now. Returns what it tells of the tree: see `Questions.tick`."""
        self.pace.share_history(self._large_streams())
        self.pace.tick(now_s)
        return self.questions.tick(now_s)

    def _large_streams(self) -> int:
        """How many share the history, when that is no longer as good as empty."""
        most = self._tunables.history_bytes
        if self.history_size < most // 8:
            return 1
        return sum(stream.size > most // 256 for stream in self.streams.values())

    def wanted_from(self, now_s: float) -> list[Want]:
        """For a new parent: from where on it is to send the streams that are on their way now.

        It has told us of some that another was to bring.
        """
        since_s = now_s - self._tunables.beacon_interval_s
        flowing = [s for s in self.streams.values() if s.pushed_s > since_s]
        return [Want(some) for some in parts([Wanted(s.key, s.upto) for s in flowing])]

    def _give_up(self, stream: Stream, last: int) -> None:
        """Nobody can provide the stream up to there any more."""
        self.inbox.put(Gap(stream.key, stream.upto + 1, last))
        self._drop(stream, stream.size)
        stream.upto = last
        self._digest = None

    # ---- the history ----

    def _begin(
        self, ledger: Ledger, key: StreamKey, past: int, upto: int, now_s: float
    ) -> Stream | None:
        """Begin to follow a stream; None if nothing of it is new, or it is refused.

        A peer that wants no history begins after `past`.
        """
        heard = self._threshold.enter(key, upto, ledger.source, now_s)
        if heard is None:
            return None
        if len(self.streams) >= self._tunables.max_streams:
            self._forget_quietest()
        is_older_than_we = stream_name(key).boot_ms < self._me.boot_ms
        start = past if not heard and is_older_than_we and not self._wants_history else heard
        stream = self.streams[key] = Stream.begun(key, start, self._tunables, now_s)
        self._digest = None
        return stream

    def _retain(self, stream: Stream, run: Run, now_s: float) -> None:
        self.history_size += stream.append(run)
        stream.grown_s = now_s
        self._digest = None
        most = self._tunables.stream_messages
        while stream.upto - stream.first >= most and len(stream.runs) > 1:
            self._drop(stream, 1)
        if self.history_size > self._tunables.history_bytes:
            self._drop_from_largest()

    def _drop(self, stream: Stream, size: int) -> None:
        self.history_size -= stream.drop_oldest(size)

    def _drop_from_largest(self) -> None:
        """Make room at the cost of who said most: a loud stream cannot push out the quiet ones."""
        limit = self._tunables.history_bytes
        while self.history_size > limit - limit // 16:
            self._drop(max(self.streams.values(), key=lambda stream: stream.size), limit // 64 + 1)

    def _forget_quietest(self) -> None:
        """Hold no more of the streams that were quiet longest, but remember how far they went.

        Those of which only announcements came go first: they cost whoever makes them up nothing.
        """
        others = (stream for stream in self.streams.values() if stream is not self.own)
        quietest = sorted(others, key=lambda stream: (stream.upto > 0, stream.grown_s))
        for stream in quietest[: max(1, self._tunables.max_streams // 16)]:
            self._drop(stream, stream.size)
            if stream.upto > 0:
                self._threshold.leave(stream.key, stream.upto)
            del self.streams[stream.key]
            self.pace.forget(stream.key)
            self.questions.forget(stream.key)
            for ledger in self._ledgers.values():
                for account in (ledger.has, ledger.provides_from, ledger.cursor):
                    account.pop(stream.key, None)
                ledger.owed.pop(stream.key, None)
                ledger.unannounced.pop(stream.key, None)

    # ---- cursors ----

    def _owe_to_all_but(self, source: Address | None, key: StreamKey, push: bool = True) -> None:
        """On the tree it is pushed, unless the tree may be about to bring it there as well."""
        for neighbour, ledger in self._ledgers.items():
            if neighbour == source:
                continue
            if ledger.is_eager and push:
                ledger.owed.setdefault(key, False)
                self._ready.add(neighbour)
            else:
                ledger.unannounced[key] = False
                self._has_news = True
