"""The least that can be done: bytes forwarded as they came, in batches, on a tree that is given.

No history, no order across a lost link, no membership, nothing repaired. It shows how far away the
limit of Python and of the machine is; nobody could use it.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from adapter import System, dialled, listener

SIZE = struct.Struct("!I")
CHUNK_BYTES = 256 << 10
MAX_OUTBOX_BYTES = 8 << 20  # then who adds to it waits


class Adapter(System):
    overlay = "a fixed tree: each dials one earlier one"

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._outboxes: list[Outbox] = []
        self._delivering = threading.Lock()

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        server, address = listener()
        threading.Thread(target=self._accept, args=[server], daemon=True).start()
        for other in dial[:1]:
            self._link(dialled(other))
        return address

    def broadcast(self, payload: bytes) -> None:
        for outbox in self._outboxes:
            outbox.add(SIZE.pack(len(payload)) + payload)

    def _accept(self, server: socket.socket) -> None:
        while True:
            self._link(server.accept()[0])

    def _link(self, link: socket.socket) -> None:
        outbox = Outbox(link)
        self._outboxes = [*self._outboxes, outbox]
        threading.Thread(target=serve, args=[outbox.send], daemon=True).start()
        threading.Thread(target=serve, args=[self._read, link, outbox], daemon=True).start()

    def _read(self, link: socket.socket, back: "Outbox") -> None:
        """Take whole frames, forward them as one piece, then deliver them."""
        rest = b""
        while chunk := link.recv(CHUNK_BYTES):
            data = rest + chunk
            frames, at = [], 0
            while len(data) - at >= SIZE.size:
                end = at + SIZE.size + SIZE.unpack_from(data, at)[0]
                if end > len(data):
                    break
                frames.append(data[at + SIZE.size : end])
                at = end
            whole, rest = data[:at], data[at:]
            for outbox in self._outboxes:
                if outbox is not back and whole:
                    outbox.add(whole)
            with self._delivering:
                for frame in frames:
                    self.on_payload(frame)


def serve(task: Callable[..., None], *arguments: object) -> None:
    """Run it until a neighbour ends; what is missing then is counted."""
    with contextlib.suppress(OSError):
        task(*arguments)


class Outbox:
    """What is still to be sent to one neighbour."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._parts: list[bytes] = []
        self._size = 0
        self._changed = threading.Condition()

    def add(self, data: bytes) -> None:
        with self._changed:
            while self._size > MAX_OUTBOX_BYTES:
                self._changed.wait()
            self._parts.append(data)
            self._size += len(data)
            self._changed.notify_all()

    def send(self) -> None:
        """Send all there is in one piece, for as long as the process runs."""
        while True:
            with self._changed:
                while not self._parts:
                    self._changed.wait()
                parts, self._parts, self._size = self._parts, [], 0
                self._changed.notify_all()
            self._link.sendall(b"".join(parts))
