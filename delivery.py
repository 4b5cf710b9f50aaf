"""Hands messages to the program that embeds a peer: callbacks, iterators, and the journal.

One thread calls `hand_over`; any thread may register a callback or iterate. Messages that come
before anybody listens are kept, as many as fit, so that a program may register after the peer has
started.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, repeat
from typing import NamedTuple, TypeVar

from driver import News
from journal import payload_details
from messages import Direct, stream_name
from streams import Gap
from wire import Run

T = TypeVar("T")

MAILBOX_BATCHES = (
    16  # for an iterator that is slow; then `hand_over` waits, and the peer's inbox fills
)
POLL_INTERVAL_S = 0.2  # how often a wait for a slow iterator looks whether the peer stops

_log = logging.getLogger("peer-to-peer")


class Message(NamedTuple):
    """What one peer said to everyone."""

    origin: str  # its address, `host:port`
    seq: int  # 1, 2, 3 … for as long as the origin runs
    payload: bytes
    boot_ms: int  # when that run of the origin began, milliseconds since the epoch


class Delivery:
    """The program's end of one peer."""

    def __init__(self, record: Callable[..., None] | None, keep_bytes: int) -> None:
        self._record = record  # of events; None when nobody would see them
        self._keep_bytes = keep_bytes  # of messages that nobody listened to yet
        self._lock = threading.Lock()  # guards the lists; they are replaced, never changed
        self._callbacks: list[Callable[[Message], object]] = []
        self._direct_callbacks: list[Callable[[str, bytes], object]] = []
        self._mailboxes: list[queue.Queue[list[Message]]] = []
        self._unclaimed: deque[Run] = deque()  # came before anybody listened
        self._unclaimed_size = 0
        self._is_over = threading.Event()
        self._is_cut_short = False

    # ---- for any thread ----

    def on_message(self, callback: Callable[[Message], object]) -> None:
        """Call this with every message, from one thread, in order. It may raise; it is logged."""
        with self._lock:
            self._callbacks = [*self._callbacks, callback]

    def on_direct(self, callback: Callable[[str, bytes], object]) -> None:
        """Call this with the origin and payload of every message to this peer alone."""
        with self._lock:
            self._direct_callbacks = [*self._direct_callbacks, callback]

    def messages(self) -> Iterator[Message]:
        """Every message from now on, those nobody listened to yet first; ends with the peer."""
        mailbox: queue.Queue[list[Message]] = queue.Queue(MAILBOX_BATCHES)
        with self._lock:
            self._mailboxes = [*self._mailboxes, mailbox]
        return self._read(mailbox)

    def close(self) -> None:
        """No message follows: iterators end once they have given out theirs."""
        self._is_over.set()

    def cut_short(self) -> None:
        """The time is up: what the program has not been given by now is dropped."""
        self._is_cut_short = True

    # ---- for the thread that delivers ----

    def deliver(self, wait_for_news: Callable[[Callable[[], bool]], News]) -> None:
        """Hand events and messages to the program, until the peer has stopped and all is said."""
        is_last = False
        while not is_last:
            news = wait_for_news(self.has_unclaimed)
            for event in news.events:
                if self._record is not None:
                    self._record(event.event, **event.details)
            for direct in news.directs:
                self.hand_over_direct(direct)
            self.hand_over(news.items)
            is_last = news.is_last

    def hand_over(self, items: Iterable[Run | Gap]) -> None:
        """Give these to everyone who listens; waits for a slow one."""
        runs = []
        for item in items:
            if isinstance(item, Run):
                runs.append(item)
            if self._record is not None:
                self._record_item(self._record, item)
        if self._callbacks or self._mailboxes:
            runs = [*self._unclaimed, *runs]
            self._unclaimed.clear()
            self._unclaimed_size = 0
            self._give(runs)
        else:
            self._keep(runs)

    def hand_over_direct(self, direct: Direct) -> None:
        """Give a message to this peer alone to whoever asked for such."""
        origin = str(direct.origin)
        if self._record is not None:
            self._record("direct", origin=origin, **payload_details(direct.payload))
        for callback in self._direct_callbacks:
            self._call(partial(callback, origin), [direct.payload])

    def has_unclaimed(self) -> bool:
        """Whether `hand_over`, even of nothing, would give something to somebody."""
        return bool(self._unclaimed) and bool(self._callbacks or self._mailboxes)

    def _give(self, runs: list[Run]) -> None:
        for run in runs:
            for callback in self._callbacks:
                self._call(callback, _messages_of(run))
            if mailboxes := self._mailboxes:
                messages = list(_messages_of(run))
                for mailbox in mailboxes:
                    self._put(mailbox, messages)

    def _call(self, callback: Callable[[T], object], arguments: Iterable[T]) -> None:
        """Call it with one after the other, until the time is up."""
        remaining = iter(arguments)
        while True:
            try:
                for argument in remaining:
                    if self._is_cut_short:
                        return
                    callback(argument)
                return
            except Exception:  # the program's own code: its fault shall cost nobody a message
                _log.exception("a callback of the program raised")

    def _put(self, mailbox: queue.Queue[list[Message]], messages: list[Message]) -> None:
        while mailbox in self._mailboxes and not self._is_over.is_set():
            try:
                mailbox.put(messages, timeout=POLL_INTERVAL_S)
                return
            except queue.Full:
                continue

    def _read(self, mailbox: queue.Queue[list[Message]]) -> Iterator[Message]:
        try:
            while not (self._is_over.is_set() and mailbox.empty()):
                try:
                    yield from mailbox.get(timeout=POLL_INTERVAL_S)
                except queue.Empty:
                    continue
        finally:
            with self._lock:
                self._mailboxes = [other for other in self._mailboxes if other is not mailbox]

    def _keep(self, runs: list[Run]) -> None:
        for run in runs:
            self._unclaimed.append(run)
            self._unclaimed_size += len(run.data)
        while self._unclaimed_size > self._keep_bytes:
            self._unclaimed_size -= len(self._unclaimed.popleft().data)

    def _record_item(self, record: Callable[..., None], item: Run | Gap) -> None:
        """The events of a run's messages, or of a gap."""
        name = stream_name(item.stream)
        whose = {"origin": str(name.origin), "boot_ms": name.boot_ms}
        if isinstance(item, Gap):
            record("gap", **whose, first_seq=item.first, last_seq=item.last)
            return
        for seq, payload in enumerate(item.payloads(), start=item.first):
            if self._is_cut_short:
                return
            record("message", **whose, seq=seq, **payload_details(payload))


def _messages_of(run: Run) -> Iterator[Message]:
    """The run's messages for the program. (Calling the class would take twice as long.)

    One after the other: a list of thousands would set Python off looking for garbage.
    """
    name = stream_name(run.stream)
    fields = zip(repeat(str(name.origin)), count(run.first), run.payloads(), repeat(name.boot_ms))
    return map(tuple.__new__, repeat(Message), fields)
