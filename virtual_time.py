"""A clock that jumps from event to event: what is due happens, in order, and takes no time.

The order is that of the due times, and of the requests where those are equal; so a run is decided
by what is asked for, and the trace, a hash of when everything happened, tells two runs apart.
"""

import heapq
from collections.abc import Callable
from itertools import count


class VirtualTime:
    """Everything that is still to happen, and the present time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0  # how many events so far
        self._trace = 0
        self._queue: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._numbers = count()

    def after(self, delay_s: float, happen: Callable[..., object], *args: object) -> None:
        """Let `happen(*args)` be called later."""
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._numbers), happen, args))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due until then."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= end_s:
            self.now_s, number, happen, args = pop(queue)
            self._trace = hash((self._trace, number, self.now_s))
            self.happened += 1
            happen(*args)
        self.now_s = end_s

    @property
    def trace(self) -> str:
        """A hash of the run so far; the same in every process, for hashes of numbers are."""
        return f"{self._trace & (1 << 64) - 1:016x}"
