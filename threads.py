"""The threads of one peer or seed: each has a name, is accounted for, and is joined at the end."""

import threading
import time
from collections.abc import Callable
from typing import Any


class Threads:
    """Starts threads, and joins all of them by a deadline."""

    def __init__(self, owner: str, failed: Callable[[str], None]) -> None:
        self._owner = owner
        self._failed = failed  # called with a thread's name while its exception is handled
        self._lock = threading.Lock()  # guards the set
        self._threads: set[threading.Thread] = set()

    def start(self, name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
        """Run `target(*args)` in a thread. What it raises is recorded, and then raised."""

        def run() -> None:
            try:
                target(*args)
            except Exception:  # the outermost edge of every thread: our own fault
                self._failed(name)
                raise
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"{self._owner} {name}", daemon=True)
        with self._lock:  # so that nobody joins a thread before it has started
            thread.start()
            self._threads.add(thread)
        return thread

    def join(self, deadline_s: float) -> None:
        """Wait for all that run now, but not past the deadline (`time.monotonic`).

        What is still in a call that cannot be interrupted (a dial) ends by itself within its
        time-out.
        """
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))
