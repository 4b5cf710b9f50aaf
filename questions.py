"""What this peer lacks of the streams, and whom it asks for it, and when.

Pure: no sockets, threads or clocks; the time is an argument.

Others announce what they have. What is new, the tree is probably about to bring, so it has a while:
as long as it usually takes, and longer while it brings other things, for a link keeps its order and
what is missing lies behind them. Then *one* neighbour that can provide it is asked (`Want`);
without progress, another. What nobody can provide any more is given up.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from messages import Address, StreamKey, Want, Wanted, stream_name
from settings import Tunables
from streams import Inbox, Ledger, Stream, parts
from wire import Run

ASKED_TO_STARVE = 2  # neighbours in vain: among the others strangers may well be better
ROUNDS_TO_STARVE = 4  # of questions in vain, where a single neighbour claims to have the message
MOST_IN_VAIN = 64  # that are remembered: more than there can be links, for some come and go
LITTLE = 8  # messages: an answer with so few does not take long
LATE_FOR_S = 1.0  # whoever was late itself blames nobody for so long
TRICKLE = 8  # who brings less than this part of what others announce meanwhile, holds us up


class Tide(NamedTuple):
    """What we, and what others had by some instant: of one stream, or of all."""

    ours: int
    others: dict[Address, int]

    def shows_trickle(self, now: "Tide") -> bool:
        """Whether two others have got far more than we since then; a single one may be lying."""
        much = (now.ours - self.ours) * TRICKLE
        got = (count - self.others[n] for n, count in now.others.items() if n in self.others)
        return sum(more > much for more in got) > 1


@dataclass(slots=True)
class Question:
    """We lack messages of a stream that some neighbour has."""

    asked: Address | None
    upto: int  # what we had when we asked, or last saw progress
    announced: int  # what others had announced then
    tide: Tide  # when it was looked at last whether the tree is at work
    opened_s: float
    deadline_s: float  # then somebody, or somebody else, is asked
    forgiven_s: float = 0.0  # of that, so much because we were late ourselves
    tried: set[Address] = field(default_factory=set)  # they were asked, and it did not help
    is_little: bool = False  # what the tree should have brought; else it may be all there is
    is_told: bool = False  # of along the tree: who told us will not send it by itself
    in_vain: set[Address] = field(default_factory=set)  # tried, in earlier rounds too
    rounds: int = 0  # how often in a row all were asked in vain
    is_starved: bool = False  # so many were asked in vain that strangers are looked for
    known: set[Address] = field(default_factory=set)  # who could provide it when that began
    nobody_since_s: float | None = None  # since then none of our neighbours can provide it
    is_put_off: bool = False  # what came now would be refused, so nobody is asked yet
    watch: "Watch | None" = None  # on whoever is asked

    @property
    def is_waiting(self) -> bool:
        """Whether nobody was asked, because the tree may bring it."""
        return self.asked is None and self.nobody_since_s is None and not self.is_put_off

    def progressed(self, stream: Stream, now_s: float, patience_s: float) -> None:
        """More has come: what was in vain before need not be so now."""
        if stream.brought_by in self.in_vain:
            self.asked, self.is_put_off = stream.brought_by, False  # late, but it does answer
        self.upto, self.announced = stream.upto, stream.announced
        self.tried.clear()
        self.in_vain.clear()
        self.known.clear()
        self.rounds, self.is_starved = 0, False
        self.nobody_since_s = None
        self.opened_s, self.deadline_s = now_s, now_s + patience_s

    def has_progress(self, stream: Stream) -> bool:
        """Whether more has come, from who was asked; or else as much as can be expected."""
        came = stream.upto - self.upto
        if came <= 0 or stream.brought_by == self.asked or stream.brought_by in self.in_vain:
            return came > 0
        most = stream.announced - (self.announced if self.is_waiting else self.upto)
        return came * TRICKLE >= most

    def was_in_vain(self) -> None:
        """Whoever was asked last gave nothing."""
        if self.asked is not None:
            if len(self.in_vain) >= MOST_IN_VAIN:
                self.tried.clear()
                self.in_vain.clear()
            self.tried.add(self.asked)
            self.in_vain.add(self.asked)
        self.asked = None

    @property
    def takes_newcomer_at_once(self) -> bool:
        """Whether whoever says now that it has it is asked before the time of another is over."""
        return self.is_starved and not self.is_little and self.asked in self.known

    def untried(self, able: list[Address]) -> list[Address]:
        """Of those who say they can provide it, the ones to ask now; newcomers come first.

        When all were asked in vain they are asked again, for they may have it now. Strangers are
        looked for once several gave nothing; a single one may be lying.
        """
        if self.tried.issuperset(able):
            self.rounds += 1
            self.tried.clear()
        is_enough = len(self.in_vain) >= ASKED_TO_STARVE or (self.rounds > 0 and len(able) > 1)
        if not self.is_starved and (is_enough or self.rounds >= ROUNDS_TO_STARVE):
            self.is_starved, self.known = True, set(able)
        untried = [neighbour for neighbour in able if neighbour not in self.tried]
        return [neighbour for neighbour in untried if neighbour not in self.known] or untried


@dataclass(frozen=True, slots=True)
class Watch:
    """On whoever is asked: it may answer in a trickle, and so keep us from asking another."""

    over: Address
    since_s: float
    tide: Tide  # of the stream, then


@dataclass(slots=True)
class Habit:
    """How long something took of late, and so how long to wait for it before one acts."""

    least_s: float
    most_s: float
    usual_s: float  # at first a guess

    def took(self, duration_s: float) -> None:
        """Follow upwards at once, and downwards slowly, for ways differ: too early costs a copy."""
        slowly_s = self.usual_s + (duration_s - self.usual_s) / 64
        self.usual_s = min(max(duration_s, slowly_s), self.most_s)

    @property
    def wait_s(self) -> float:
        """Twice what it took."""
        return min(max(2 * self.usual_s, self.least_s), self.most_s)


@dataclass(slots=True)
class Late:
    """A message that the tree did not bring in time, so that it was asked for."""

    number: int
    announced_s: float
    asked: dict[Address, float] = field(default_factory=dict)  # whom, and when


def _unknown(_: Address) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Ways:
    """What others know of the ways on which messages come."""

    round_trip_s: Callable[[Address], float | None] = _unknown  # to a neighbour
    is_tree_silent: Callable[[], bool] = bool  # whether the parent is not to be counted on


UNKNOWN = Ways()


class Questions:
    """The open questions of one peer: at most one for each stream."""

    def __init__(
        self,
        tunables: Tunables,
        rng: random.Random,
        streams: dict[StreamKey, Stream],
        ledgers: dict[Address, Ledger],
        inbox: Inbox,
        ways: Ways,
        give_up: Callable[[Stream, int], None],
    ) -> None:
        self._tunables = tunables
        self._rng = rng
        self._streams = streams  # this, and the next two, belong to the gossip
        self._ledgers = ledgers
        self._inbox = inbox
        self._ways = ways
        self._give_up = give_up  # what the stream lacks up to that number
        self._open: dict[StreamKey, Question] = {}
        self._late: dict[StreamKey, Late] = {}  # the latest such message of each stream
        self._wants: dict[Address, list[Wanted]] = {}  # decided, not yet collected by the node
        self._late_s = float("-inf")  # when we were late ourselves, last
        self._pushed = 0  # messages that the tree brought
        least_s, most_s = tunables.least_want_delay_s, tunables.most_want_delay_s
        self._guess_s = most_s / 16
        self.tree = Habit(least_s, most_s, self._guess_s)  # how far it is behind announcements
        self._answers = Habit(least_s, tunables.want_patience_s, 0.0)

    def __bool__(self) -> bool:
        return bool(self._open)

    def keys(self) -> set[StreamKey]:
        """The streams that something is lacking of, or was not in time."""
        return self._open.keys() | self._late.keys()

    # ---- what comes ----

    def announced(
        self, stream: Stream, neighbour: Address, upto: int, is_news: bool, now_s: float
    ) -> None:
        """A neighbour has the stream up to there; `is_news`: it got that only now."""
        if upto > stream.upto:
            self.lack(stream, now_s, is_news)
            if is_news:
                self._told_of_news(stream, neighbour, upto - stream.upto, now_s)
        elif is_news and upto > stream.announced:
            self.tree.took(0.0)  # it was quicker than the first announcement
        stream.announced = max(stream.announced, upto)

    def _told_of_news(self, stream: Stream, neighbour: Address, missing: int, now_s: float) -> None:
        """What is new need not be waited for as long as what may be much."""
        question = self._open[stream.key]
        if question.is_waiting:
            self._shorten(question, self._ledgers[neighbour].is_eager, now_s)
        elif question.asked is not None and not question.is_little and missing <= LITTLE:
            question.is_little = True
            latest_s = now_s + self._answer_s(question.asked)
            question.deadline_s = min(question.deadline_s, latest_s)
        if neighbour == stream.brought_by == question.asked:
            # Its answer is over; the tree may have brought nothing meanwhile.
            question.progressed(stream, now_s, 0.0)
            question.asked = None
            self._ask(stream, question, now_s)

    def _shorten(self, question: Question, is_on_tree: bool, now_s: float) -> None:
        """A tree that fell silent is not waited for.

        Nor is one along which it is announced, for who had to ask for it does not push it: that is
        no fault of anybody. But a tree that is known to be slow is waited for.
        """
        if self._ways.is_tree_silent():
            question.deadline_s = now_s
        elif is_on_tree and self.tree.usual_s <= self._guess_s:
            question.deadline_s, question.is_told = now_s, True

    def is_answer(
        self, stream: Stream, neighbour: Address, run: Run, now_s: float, is_on_tree: bool
    ) -> bool:
        """Whether what the tree was late with comes as an answer now, and not by the tree.

        How long either took, even if it has come before, tells how long to wait next time.
        """
        late = self._late.get(stream.key)
        if late is None or not run.first <= late.number <= run.last:
            return False
        if (asked_s := late.asked.pop(neighbour, None)) is not None:
            self._answers.took(now_s - asked_s)
            return True
        if is_on_tree:
            self.tree.took(now_s - late.announced_s)
            del self._late[stream.key]
        return False

    def pushed(self, stream: Stream, count: int, now_s: float) -> None:
        """The tree has brought so many new messages."""
        self._pushed += count
        stream.pushed_s = now_s

    def refused(self, stream: Stream, neighbour: Address, now_s: float) -> None:
        """A neighbour sent what follows, and we could not take it in: it was not asked in vain."""
        question = self._open.get(stream.key) or self._opened(stream, now_s)
        if question.asked in (None, neighbour):
            question.asked = None
            self._ask(stream, question, now_s)

    def lack(self, stream: Stream, now_s: float, is_news: bool = False) -> None:
        """We are behind: ask, unless somebody was. What is new, the tree may bring in time.

        So may it what is not, where it has brought the stream until just now.
        """
        question = self._open.get(stream.key) or self._opened(stream, now_s, is_news)
        if question.asked is not None and self._can_provide(question.asked, stream):
            is_news |= not question.takes_newcomer_at_once
        is_under_way = now_s < stream.pushed_s + self.tree.wait_s
        if not (is_news or is_under_way):
            self._ask(stream, question, now_s)

    def _opened(self, stream: Stream, now_s: float, is_news: bool = False) -> Question:
        known = stream.upto, stream.announced, self._tide()
        question = Question(None, *known, now_s, now_s + self.tree.wait_s, is_little=is_news)
        self._open[stream.key] = question
        return question

    # ---- as time passes ----

    def was_late(self, late_s: float, now_s: float) -> None:
        """We ourselves did nothing for so long: what came meanwhile has not been looked at.

        Where we are busy others may be too, so for a while nobody is blamed for being slow.
        """
        self._late_s = now_s
        for question in self._open.values():
            question.in_vain.clear()
            question.rounds, question.is_starved = 0, False
            more_s = min(late_s, self._tunables.most_want_delay_s - question.forgiven_s)
            question.forgiven_s += more_s
            question.deadline_s += more_s

    def tick(self, now_s: float) -> list[Address | None]:
        """Look after the open questions: note progress, ask others, give up where nobody has it.

        Returns, where the tree did not bring in time what others announced: who brings it, but in a
        trickle; None where nothing came. Once, however many streams wait for the same tree.
        """
        failures: list[Address | None] = []
        for key, question in list(self._open.items()):
            stream = self._streams[key]
            if question.has_progress(stream):
                patience_s = self._tunables.want_patience_s
                if question.is_waiting:
                    self.tree.took(now_s - question.opened_s)
                    patience_s = self.tree.wait_s
                question.progressed(stream, now_s, patience_s)
                question.tide = self._tide()
            if not self._is_behind(stream):
                del self._open[key]
            elif now_s >= question.deadline_s:
                failures += self._overdue(stream, question, now_s)
            elif question.asked is not None:
                failures += self._look(stream, question, question.asked, now_s)
        return [] if self._is_late(now_s) else list(dict.fromkeys(failures))

    def _is_late(self, now_s: float) -> bool:
        return now_s < self._late_s + LATE_FOR_S

    def _overdue(self, stream: Stream, question: Question, now_s: float) -> list[Address | None]:
        """Its time is up. Ask, or ask another; returns whom that tells something of the tree."""
        failures: list[Address | None] = []
        if question.is_waiting and not self._inbox.is_full:
            before, question.tide = question.tide, self._tide()
            is_at_work = before.ours < self._pushed and not before.shows_trickle(question.tide)
            if is_at_work and self._may_wait(question, now_s):
                question.deadline_s = now_s + self.tree.wait_s
                return []
            if not question.is_told:
                who = None if is_at_work else self._who_trickles(stream, question)
                failures = [who]
            self._late[stream.key] = Late(stream.upto + 1, question.opened_s)
        self._ask(stream, question, now_s)
        return failures

    def _may_wait(self, question: Question, now_s: float) -> bool:
        """Whether what is missing may lie behind what the tree brings, while that is at work.

        Who asks others for it then gets it twice, and makes everything later still. But whoever
        withholds one stream alone is not to be waited for for ever.
        """
        is_short = now_s < question.opened_s + self._tunables.most_want_delay_s
        return is_short and not question.is_told and not self._ways.is_tree_silent()

    def _look(
        self, stream: Stream, question: Question, asked: Address, now_s: float
    ) -> list[Address | None]:
        """Whoever is asked and answers in a trickle is left for another."""
        watch = self._watch(stream, question, asked, now_s)
        if now_s < watch.since_s + self._tunables.want_patience_s:
            return []
        question.watch = None
        if self._is_late(now_s) or not watch.tide.shows_trickle(self._tide_of(stream)):
            return []
        self._ask(stream, question, now_s)
        return [asked] if self._ledgers[asked].is_eager else []

    def _who_trickles(self, stream: Stream, question: Question) -> Address | None:
        """Who brought so little of the stream, by the word of two others: one may be lying."""
        came = stream.upto - question.upto
        much = stream.upto + came * TRICKLE
        others = sum(ledger.has.get(stream.key, 0) > much for ledger in self._ledgers.values())
        return stream.brought_by if came and others > 1 else None

    def _tide(self) -> Tide:
        """Of what the tree brings, over all streams."""
        return Tide(self._pushed, {n: ledger.announced for n, ledger in self._ledgers.items()})

    def _tide_of(self, stream: Stream) -> Tide:
        others = {n: ledger.has.get(stream.key, 0) for n, ledger in self._ledgers.items()}
        return Tide(stream.upto, others)

    # ---- asking ----

    def collect(self) -> list[tuple[Address, Want]]:
        """The questions decided on since the last call, and whom to put them to."""
        wants = [(n, Want(some)) for n, wanted in self._wants.items() for some in parts(wanted)]
        self._wants.clear()
        return wants

    @property
    def in_vain(self) -> set[Address]:
        """Who gave nothing when asked; nobody until strangers are to be looked for instead."""
        starved = [question for question in self._open.values() if question.is_starved]
        return {neighbour for question in starved for neighbour in question.in_vain}

    @property
    def origins_in_vain(self) -> list[Address]:
        """Who said what was asked for in vain."""
        return [stream_name(key).origin for key, q in self._open.items() if q.is_starved]

    def close(self, neighbour: Address, now_s: float) -> None:
        """The link is over; what was asked of this neighbour is asked of another at once."""
        self._wants.pop(neighbour, None)
        for late in self._late.values():
            late.asked.pop(neighbour, None)
        for key, question in list(self._open.items()):
            stream = self._streams[key]
            if stream.brought_by == neighbour:
                stream.brought_by = None
            if question.asked == neighbour:
                self._ask(stream, question, now_s)

    def forget(self, key: StreamKey) -> None:
        """The stream is no longer held."""
        self._open.pop(key, None)
        self._late.pop(key, None)

    def _is_behind(self, stream: Stream) -> bool:
        return any(ledger.has.get(stream.key, 0) > stream.upto for ledger in self._ledgers.values())

    def _answer_s(self, neighbour: Address) -> float:
        """Half as long again as the way is, and twice as long as answers took of late."""
        way_s = 1.5 * (self._ways.round_trip_s(neighbour) or 0.0)
        return min(max(self._answers.wait_s, way_s), self._answers.most_s)

    def _ask(self, stream: Stream, question: Question, now_s: float) -> None:
        """Put the question to one neighbour that can answer it; close it if there is none."""
        question.was_in_vain()
        question.forgiven_s = 0.0
        question.deadline_s = now_s + self._tunables.want_patience_s
        ahead = {
            n: led for n, led in self._ledgers.items() if led.has.get(stream.key, 0) > stream.upto
        }
        if not ahead:
            del self._open[stream.key]
            return
        able = [n for n in ahead if self._can_provide(n, stream)]
        if not able:
            self._wait_or_give_up(stream, question, ahead, now_s)
            return
        question.nobody_since_s = None
        question.is_put_off = self._inbox.is_full or not stream.budget.spend(now_s, 0)
        if question.is_put_off:
            return  # until the patience is over, or more of it comes
        untried = question.untried(able)
        eager = [n for n in untried if self._ledgers[n].is_eager]  # there it will go on flowing
        question.asked = asked = self._rng.choice(eager or untried)
        question.upto, stream.brought_by = stream.upto, None
        self._watch(stream, question, asked, now_s)
        if question.is_little:
            question.deadline_s = now_s + self._answer_s(asked)
        if stream.key in self._late:
            self._late[stream.key].asked[asked] = now_s
        self._wants.setdefault(asked, []).append(Wanted(stream.key, stream.upto))

    def _watch(self, stream: Stream, question: Question, asked: Address, now_s: float) -> Watch:
        """The watch on who is asked; to be asked again is no reason to begin anew."""
        if question.watch is None or question.watch.over != asked:
            question.watch = Watch(asked, now_s, self._tide_of(stream))
        return question.watch

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
        self._give_up(stream, min(led.provides_from[stream.key] for led in ahead.values()) - 1)
        question.nobody_since_s = None
        self._ask(stream, question, now_s)
