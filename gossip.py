"""What this peer holds of every stream, and what each neighbour is owed.

Pure: no sockets, threads or clocks; the time is an argument.

Messages of a stream are numbered from 1 and taken strictly in order, so what anybody has of a
stream is one number, and any difference between two peers is arithmetic. Each link has a *cursor*
per stream: the number up to which the neighbour has it, or has been sent it. Whatever lies between
the cursor and what we hold is owed. New messages, late joiners, a neighbour that reads slowly and
one that asks again are all the same case: the cursor is behind.

Who finds that a neighbour has more, asks *one* that can provide it (`Want`), which moves the cursor
there back; without progress, another is asked. What nobody can provide any more becomes a `Gap`.
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
from settings import Tunables
from streams import (
    TRICKLE,
    UNKNOWN,
    Gap,
    Inbox,
    Late,
    Ledger,
    Patience,
    Question,
    Stream,
    Threshold,
    Ways,
    part,
    parts,
)
from wire import MAX_NUMBER, Run, new_run


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
        self._rng = rng
        self._ready = ready  # neighbours to whom something can be sent now; shared with the node
        self._wants_history = wants_history
        self.own = Stream.begun(me.key, 0, tunables, 0.0)
        self.streams: dict[StreamKey, Stream] = {self.own.key: self.own}
        self._threshold = Threshold(tunables, refusals or Refusals(*OF_GOSSIP))
        self._ledgers: dict[Address, Ledger] = {}
        self._questions: dict[StreamKey, Question] = {}
        self._wants: dict[Address, list[Wanted]] = {}  # decided, not yet collected by the node
        self._patience = Patience(tunables, ways)
        self._has_news = False  # something may wait to be announced
        self._announced_s = float("-inf")  # when announcements were last made
        self._digest: int | None = None  # None: to be computed anew
        self.inbox = Inbox(tunables.inbox_bytes)
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

    def all_holdings(self) -> list[Have]:
        """What we have of every stream, in frames of bounded size."""
        holdings = [stream.holding for stream in self.streams.values() if stream.upto]
        return [Have(some, is_news=False) for some in parts(holdings)]

    def set_eager(self, neighbour: Address, is_eager: bool) -> None:
        """The tree wants payload on this link, or only announcements."""
        ledger = self._ledgers[neighbour]
        if is_eager != ledger.is_eager:
            (self.pace.start_sending if is_eager else self.pace.stop_sending)(neighbour)
        ledger.choose(is_eager)
        self._has_news |= bool(ledger.unannounced)
        if ledger.owed:
            self._ready.add(neighbour)

    def announcements(self, now_s: float) -> list[tuple[Address, Have]]:
        """What is new for neighbours that get no payload, and to whom it is to be told; batched."""
        if now_s < self._announced_s + self._tunables.announce_interval_s:
            return []
        self._announced_s = now_s
        if not self._has_news:
            return []
        self._has_news = False
        told = []
        for neighbour, ledger in self._ledgers.items():
            holdings = ledger.announce(self.streams)
            told += [(neighbour, Have(some, is_news=True)) for some in parts(holdings)]
        return told

    @property
    def is_busy(self) -> bool:
        """Whether there is something to announce, or a question open."""
        return self._has_news or bool(self._questions) or self.pace.is_far_ahead

    def close(self, neighbour: Address, now_s: float) -> None:
        """The link is over; what was asked of this neighbour is asked of another at once."""
        del self._ledgers[neighbour]
        self.pace.close(neighbour, now_s)
        self._wants.pop(neighbour, None)
        for key, question in list(self._questions.items()):
            stream = self.streams[key]
            if stream.brought_by == neighbour:
                stream.brought_by = None
            if question.asked == neighbour:
                self._ask(stream, question, now_s)

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
        if key == self.own.key:
            return 0  # nobody tells us what we said
        is_answer = self._patience.is_answer(stream, neighbour, run, now_s, ledger.is_eager)
        if ledger.is_eager:  # who only answered a question does not wait
            self.pace.is_brought(key, neighbour)
        if last <= stream.upto:
            self.surplus += last - run.first + 1
            return 0
        if run.first > stream.upto + 1 or self.inbox.is_full:
            self._question(stream, now_s)
            return 0
        count = last - stream.upto
        if not stream.budget.spend(now_s, count):
            self._threshold.refuse(stream, ledger.source, now_s)
            self._question(stream, now_s)
            return 0
        if run.first <= stream.upto:
            self.surplus += stream.upto + 1 - run.first
            run = run.after(stream.upto)
        self._retain(stream, run, now_s)
        stream.brought_by = neighbour
        self.inbox.put(run)
        self._owe_to_all_but(neighbour, key, push=not is_answer)
        self.pace.grew(run)
        self.delivered += count
        return count

    def take(self, neighbour: Address, budget: int) -> list[Run | Have]:
        """What this neighbour is owed, about `budget` bytes of it; the cursors move past it."""
        ledger = self._ledgers[neighbour]
        taken: list[Run | Have] = []
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
            runs = stream.after(cursor, budget)
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
            if stream is self.own:
                self.neighbour_heard_us(neighbour, upto)
            ledger.has[key] = max(upto, ledger.has.get(key, 0))
            ledger.cursor[key] = max(upto, ledger.cursor.get(key, 0))
            ledger.provides_from[key] = first
            if upto > stream.upto and stream is not self.own:
                self._question(stream, now_s, have.is_news)
                if have.is_news:
                    missing, question = upto - stream.upto, self._questions[key]
                    self._patience.shorten(question, missing, ledger.is_eager, now_s)
                if have.is_news and stream.brought_by == neighbour:
                    self._answer_is_over(stream, neighbour, now_s)
            elif have.is_news and upto > stream.announced:
                self._patience.tree.took(0.0)  # it was quicker than the first announcement
            stream.announced = max(stream.announced, upto)

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

    @property
    def digest(self) -> int:
        """Of all we have: equal for two peers that have the same. Not proof against malice."""
        if self._digest is None:
            have = sorted((key, stream.upto) for key, stream in self.streams.items() if stream.upto)
            self._digest = zlib.crc32(repr(have).encode())
        return self._digest

    # ---- what we lack ----

    def tick(self, now_s: float) -> list[Address | None]:
        """Look after the open questions: note progress, ask others, give up where nobody has it.

        Returns for each time that the tree did not bring in time what others announced: who brings
        it, but in a trickle; None where nothing came.
        """
        self.pace.share_history(self._large_streams())
        self.pace.tick(now_s)
        failures: list[Address | None] = []
        for key, question in list(self._questions.items()):
            stream = self.streams[key]
            if question.has_progress(stream):
                patience_s = self._tunables.want_patience_s
                if question.is_waiting:
                    self._patience.tree.took(now_s - question.opened_s)
                    patience_s = self._patience.tree.wait_s
                question.progressed(stream, now_s, patience_s)
            if not self._is_behind(stream):
                del self._questions[key]
            elif now_s >= question.deadline_s:
                if question.is_waiting and not self.inbox.is_full:
                    failures.append(self._who_trickles(stream, stream.upto - question.upto))
                    stream.late = Late(stream.upto + 1, question.opened_s)
                self._ask(stream, question, now_s)
        return failures

    def _who_trickles(self, stream: Stream, came: int) -> Address | None:
        """Who brought so little of the stream, by the word of two others: one may be lying."""
        much = stream.upto + came * TRICKLE
        others = sum(ledger.has.get(stream.key, 0) > much for ledger in self._ledgers.values())
        return stream.brought_by if came and others > 1 else None

    def _large_streams(self) -> int:
        """How many share the history, when that is no longer as good as empty."""
        most = self._tunables.history_bytes
        if self.history_size < most // 8:
            return 1
        return sum(stream.size > most // 256 for stream in self.streams.values())

    def collect_wants(self) -> list[tuple[Address, Want]]:
        """The questions decided on since the last call, and whom to put them to."""
        wants = [(n, Want(some)) for n, wanted in self._wants.items() for some in parts(wanted)]
        self._wants.clear()
        return wants

    @property
    def in_vain(self) -> set[Address]:
        """Who gave nothing when asked; nobody until strangers are to be looked for instead."""
        starved = [question for question in self._questions.values() if question.is_starved]
        return {neighbour for question in starved for neighbour in question.in_vain}

    def _is_behind(self, stream: Stream) -> bool:
        return any(ledger.has.get(stream.key, 0) > stream.upto for ledger in self._ledgers.values())

    def _question(self, stream: Stream, now_s: float, is_news: bool = False) -> None:
        """We are behind: ask, unless somebody was. What is new, the tree may bring in time."""
        question = self._questions.get(stream.key)
        if question is None:
            deadline_s = now_s + self._patience.tree.wait_s
            known = stream.upto, stream.announced
            question = Question(None, *known, now_s, deadline_s, is_little=is_news)
            self._questions[stream.key] = question
        elif question.asked is not None and self._can_provide(question.asked, stream):
            is_news |= not question.takes_newcomer_at_once
        if not is_news:
            self._ask(stream, question, now_s)

    def _answer_is_over(self, stream: Stream, neighbour: Address, now_s: float) -> None:
        """Who has sent us what it had tells of more; the tree may have brought nothing between."""
        question = self._questions[stream.key]
        if question.asked == neighbour:
            question.asked = None  # which was not in vain
            self._ask(stream, question, now_s)

    def _ask(self, stream: Stream, question: Question, now_s: float) -> None:
        """Put the question to one neighbour that can answer it; close it if there is none."""
        question.was_in_vain()
        question.deadline_s = now_s + self._tunables.want_patience_s
        ahead = {
            n: led for n, led in self._ledgers.items() if led.has.get(stream.key, 0) > stream.upto
        }
        if not ahead:
            del self._questions[stream.key]
            return
        able = [n for n in ahead if self._can_provide(n, stream)]
        if not able:
            self._wait_or_give_up(stream, question, ahead, now_s)
            return
        question.nobody_since_s = None
        question.is_put_off = self.inbox.is_full or not stream.budget.spend(now_s, 0)
        if question.is_put_off:
            return  # until the patience is over, or more of it comes
        untried = question.untried(able)
        eager = [n for n in untried if self._ledgers[n].is_eager]  # there it will go on flowing
        question.asked = self._rng.choice(eager or untried)
        question.upto, stream.brought_by = stream.upto, None
        if question.is_little:
            question.deadline_s = now_s + self._patience.answer_s(question.asked)
        if stream.late is not None:
            stream.late.asked[question.asked] = now_s
        self._wants.setdefault(question.asked, []).append(Wanted(stream.key, stream.upto))

    def _can_provide(self, neighbour: Address, stream: Stream) -> bool:
        return self._ledgers[neighbour].provides_from.get(stream.key, 1) <= stream.upto + 1

    def _wait_or_give_up(
        self, stream: Stream, question: Question, ahead: dict[Address, Ledger], now_s: float
    ) -> None:
        """No neighbour still holds the next message; another might come that does, for a while."""
        if question.nobody_since_s is None:
            question.nobody_since_s = now_s
        if now_s < question.nobody_since_s + self._tunables.gap_patience_s:
            question.deadline_s = question.nobody_since_s + self._tunables.gap_patience_s
            return
        last = min(ledger.provides_from[stream.key] for ledger in ahead.values()) - 1
        self.inbox.put(Gap(stream.key, stream.upto + 1, last))
        self._drop(stream, stream.size)
        stream.upto = last
        self._digest = None
        question.nobody_since_s = None
        self._ask(stream, question, now_s)

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
            self._questions.pop(stream.key, None)
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
