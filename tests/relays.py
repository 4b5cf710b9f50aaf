"""A relay between two programs that a test can put in the way of a link, and hold."""

import contextlib
import socket
import threading
from types import TracebackType


class Relay:
    """Passes bytes on, both ways, from its own port to another; nothing while it is held."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._passing = threading.Event()
        self._passing.set()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._run(self._listen)

    def hold(self) -> None:
        """From now on every byte waits here; connections are still taken, as by a silent host."""
        self._passing.clear()

    def release(self) -> None:
        """Pass on what has waited, and all that comes."""
        self._passing.set()

    @property
    def connections(self) -> int:
        """How many were ever taken."""
        return len(self._open) // 2

    def _listen(self) -> None:
        """Take connections until the relay is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket()
                self._open += [near, far]
                self._run(self._join, near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Make the far half of a connection, and pass bytes both ways."""
        self._passing.wait()
        try:
            far.connect(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        self._run(self._pass_on, near, far)
        self._pass_on(far, near)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass bytes one way until either side ends."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._passing.wait()
                sink.sendall(data)
        self._passing.wait()
        for end in (source, sink):
            shut(end)

    def _run(self, target: object, *arguments: socket.socket) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, name="relay")
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shut(self._listener)
        self._passing.set()
        for end in self._open:
            shut(end)
        for thread in self._threads:
            thread.join(10)
        for end in [self._listener, *self._open]:
            end.close()


def shut(end: socket.socket) -> None:
    """End both directions, so that whoever waits in `recv` or `accept` wakes up."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
