"""The latest messages, kept for those who read them as a stream.

One bounded buffer for all readers; each has a place in it and moves at its own pace. Nobody waits
for a slow reader: one that falls behind the buffer is told how many messages it has missed.
"""

import json
import threading
import time
from collections import deque
from typing import Any, NamedTuple

MAX_MESSAGES = 10_000
MAX_BYTES = 32 << 20
BATCH_BYTES = 256 << 10  # given out at a time
RATE_WINDOW_S = 10  # messages per second are counted over so many of the latest


class Batch(NamedTuple):
    """The next messages for a reader."""

    first: int  # the number of the first of them
    messages: list[bytes]  # each one line of JSON
    skipped: int  # so many before them are kept no more

    @property
    def last(self) -> int:
        """Where the reader is then."""
        return self.first + len(self.messages) - 1


class Feed:
    """Any thread may add, and any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._has_more = threading.Condition(self._lock)
        self._kept: dict[int, bytes] = {}
        self._size = 0
        self._last = 0
        self._is_over = False
        self._per_second: deque[tuple[int, int]] = deque(maxlen=RATE_WINDOW_S + 1)

    def add(self, event: dict[str, Any]) -> None:
        """A message was heard or said. Never waits."""
        data = json.dumps(event, ensure_ascii=False).encode()
        second = int(time.monotonic())
        with self._lock:
            self._last += 1
            self._kept[self._last] = data
            self._size += len(data)
            while len(self._kept) > MAX_MESSAGES or self._size > MAX_BYTES:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
            if self._per_second and self._per_second[-1][0] == second:
                self._per_second[-1] = (second, self._per_second[-1][1] + 1)
            else:
                self._per_second.append((second, 1))
            self._has_more.notify_all()

    def place(self, before_end: int) -> int:
        """Where a reader stands who wants the latest so many, and what follows."""
        with self._lock:
            return max(self._last - before_end, self._last - len(self._kept))

    def after(self, place: int, timeout_s: float) -> Batch | None:
        """What follows; an empty batch if nothing came in time, None when the feed is over."""
        with self._lock:
            self._has_more.wait_for(lambda: self._is_over or self._last > place, timeout_s)
            if self._is_over:
                return None
            first = max(place, self._last - len(self._kept)) + 1
            messages: list[bytes] = []
            budget = BATCH_BYTES
            while budget > 0 and first + len(messages) <= self._last:
                messages.append(self._kept[first + len(messages)])
                budget -= len(messages[-1])
            return Batch(first, messages, first - 1 - place)

    def per_second(self) -> float:
        """How many messages came in a second, of late."""
        oldest = int(time.monotonic()) - RATE_WINDOW_S
        with self._lock:
            recent = [count for second, count in self._per_second if second >= oldest]
        return round(sum(recent) / RATE_WINDOW_S, 1)

    def close(self) -> None:
        """Nothing follows; every reader is woken."""
        with self._lock:
            self._is_over = True
            self._has_more.notify_all()
