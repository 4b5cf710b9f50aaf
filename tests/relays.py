"""A relay between two programs that a test can put in the way of a link, and hold."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class Relay:
    """Passes bytes on, both ways, from its own port to another; nothing while it is held."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._passing = threading.Event()
        self._passing.set()
        self._free_pid = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._run(self._listen)

    def hold(self, *, but_for_pid: int = 0) -> None:
        """From now on every byte waits here; connections are still taken, as by a silent host.

        Those that a process of that number makes from now on are passed on all the same.
        """
        self._free_pid = but_for_pid
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
        passing = self._passing
        if self._free_pid and has_port(self._free_pid, near.getpeername()[1]):
            passing = threading.Event()
            passing.set()
        passing.wait()
        try:
            far.connect(("127.0.0.1", self._to))
        except OSError:
            shut(near)
            return
        self._run(self._pass_on, near, far, passing)
        self._pass_on(far, near, passing)

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, passing: threading.Event
    ) -> None:
        """Pass bytes one way until either side ends."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passing.wait()
                sink.sendall(data)
        passing.wait()
        for end in (source, sink):
            shut(end)

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="relay")
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        shut(self._listener)
        self._passing.set()
        for end in self._open:
            shut(end)
        for thread in self._threads:
            thread.join(10)
        for end in [self._listener, *self._open]:
            end.close()


def has_port(pid: int, port: int) -> bool:
    """Whether that process has an IPv4 socket of that local port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {line[9] for line in lines if int(line[1].partition(":")[2], 16) == port}
    links = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            links.add(str(handle.readlink()))
    return any(f"socket:[{inode}]" in links for inode in inodes)


def shut(end: socket.socket) -> None:
    """End both directions, so that whoever waits in `recv` or `accept` wakes up."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
