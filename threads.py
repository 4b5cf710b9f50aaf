"""The threads of one peer or seed: each has a name, is accounted for, and is joined at the end.

And those that serve whoever connects: with bounds, because anybody may.
"""

import contextlib
import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, Self, TypeVar

from limits import Tally
from link import Connection, Listener, reason_of
from messages import NotRunning
from settings import Tunables

ACCEPT_AGAIN_S = 0.1  # after a failure to accept, or to serve who was accepted

T = TypeVar("T")


class Startable:
    """What is started once and stopped once; `with` does both."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self, reason: str = "asked to") -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_is_new(self, is_started: bool) -> None:
        """Raises NotRunning."""
        if is_started:
            kind = type(self).__name__
            raise NotRunning(f"this {kind} was started before: it starts once, make a new one")

    @contextlib.contextmanager
    def _wholly(self, listener: Listener) -> Iterator[None]:
        """Begin all that is begun in here, or nothing: a thread may be wanting half-way."""
        try:
            yield
        except BaseException as error:  # Ctrl-C too: threads that have begun would outlive it
            self.stop(reason_of(error) if isinstance(error, OSError) else "interrupted")
            listener.close()
            raise


class NoThread(OSError):
    """The system gives no further thread, as under the limit of a service or a container."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "the system gives no further thread")


class Threads:
    """Starts threads, and joins all of them by a deadline."""

    def __init__(self, owner: str, failed: Callable[[str], None]) -> None:
        self._owner = owner
        self._failed = failed  # called with a thread's name while its exception is handled
        self._lock = threading.Lock()  # guards the set
        self._threads: set[threading.Thread] = set()

    def start(self, name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
        """Run `target(*args)` in a thread. What it raises is recorded, and then raised.

        Raises NoThread.
        """

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
            try:
                thread.start()
            except RuntimeError as error:
                raise NoThread from error
            self._threads.add(thread)
        return thread

    @contextlib.contextmanager
    def ready(self, *tasks: Callable[[T], object]) -> Iterator[Callable[[T], None]]:
        """Threads for the tasks, before it is known whether there will be something to work on.

        They begin when it is given to what this yields; at the end they are joined. Raises
        NoThread, and then none was needed.
        """
        is_known = threading.Event()
        given: list[T] = []

        def run(task: Callable[[T], object]) -> None:
            is_known.wait()
            for subject in given:
                task(subject)

        def give(subject: T) -> None:
            given.append(subject)
            is_known.set()

        started: list[threading.Thread] = []
        try:
            for task in tasks:
                started.append(self.start(task.__name__, run, task))  # noqa: PERF401  # may raise half-way
            yield give
        finally:
            is_known.set()
            for thread in started:
                thread.join()

    def each(
        self, name: str, work: Callable[[T], object], items: Collection[T], at_once: int
    ) -> None:
        """Do the work for each item, so many at a time; returns when all is done.

        This thread does its part: all of it, when the system gives no other.
        """
        waiting = deque(items)

        def take_turns() -> None:
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                work(item)

        helpers: list[threading.Thread] = []
        with contextlib.suppress(NoThread):
            while len(helpers) < min(at_once, len(items)) - 1:
                helpers.append(self.start(name, take_turns))
        take_turns()
        for helper in helpers:
            helper.join()

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


class Reception:
    """Accepts connections, a thread for each; few may stay that have not said who they are.

    Past a bound the newcomer is let in, and whoever has kept its counsel longest is closed: honest
    ones say who they are within milliseconds, so a crowd of silent ones keeps nobody out.
    """

    def __init__(
        self,
        listener: Listener,
        threads: Threads,
        serve: Callable[[Connection], None],
        tunables: Tunables,
        refuse: Callable[[str, str, str], None],
    ) -> None:
        self._listener = listener
        self._threads = threads
        self._serve = serve  # runs in the connection's own thread, and closes it
        self._tunables = tunables
        self._refuse = refuse  # told of a limit, of whom it met, and why
        self._lock = threading.Lock()  # guards what follows
        self._strangers: dict[Connection, None] = {}  # oldest first
        self._per_source = Tally()
        self._is_over = False

    def accept(self, stopping: threading.Event) -> None:
        """Accept until `stopping`."""
        while not stopping.is_set():
            try:
                connection = self._listener.accept()
            except OSError:
                stopping.wait(ACCEPT_AGAIN_S)  # closed by `abort`, or no descriptor left for now
                continue
            silent = self._enter(connection)
            if silent is not None:
                silent.abort()
                self._refuse("half_open", silent.source, "too many connections that say nothing")
            self._begin(connection, stopping)
        self._listener.close()

    def is_known(self, connection: Connection) -> None:
        """It has said who it is. May be called twice."""
        with self._lock:
            if connection in self._strangers:
                del self._strangers[connection]
                self._per_source.change(connection.source, -1)

    def abort(self) -> None:
        """Accept no more, and end whatever connection has not said who it is."""
        self._listener.abort()
        with self._lock:
            self._is_over = True
            strangers = list(self._strangers)
        for stranger in strangers:
            stranger.abort()

    def _begin(self, connection: Connection, stopping: threading.Event) -> None:
        """Give it a thread; while the system gives none it waits, and whoever comes behind it."""
        has_waited = False
        while not stopping.is_set():
            try:
                self._threads.start("handle_peer", self._receive, connection)
                return
            except NoThread as error:
                if not has_waited:
                    self._refuse("threads", connection.source, f"it has to wait: {error.strerror}")
                has_waited = True
                stopping.wait(ACCEPT_AGAIN_S)
        self.is_known(connection)
        connection.close()

    def _receive(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        finally:
            self.is_known(connection)

    def _enter(self, connection: Connection) -> Connection | None:
        """One more that has not said who it is; which of them has to go, if any."""
        with self._lock:
            if self._is_over:
                connection.abort()
            silent = self._too_many(connection.source)
            self._strangers[connection] = None
            self._per_source.change(connection.source, 1)
        if silent is not None:
            self.is_known(silent)
        return silent

    def _too_many(self, source: str) -> Connection | None:
        """Who has to go for a newcomer from there: the oldest of that source, or of the busiest."""
        limits = self._tunables
        if self._per_source[source] < limits.half_open_per_source:
            if len(self._strangers) < limits.half_open:
                return None
            source = max(self._per_source, key=lambda other: self._per_source[other])
        return next(stranger for stranger in self._strangers if stranger.source == source)
