"""The obvious way: a thread for each connection, a `sendall` for each frame, everything to all."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from adapter import System, dialled, listener

HEADER = struct.Struct("!III")  # bytes that follow, who said it, its number


class Adapter(System):
    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._links: dict[socket.socket, threading.Lock] = {}  # one frame at a time on each
        self._seen: set[tuple[int, int]] = set()
        self._seen_lock = threading.Lock()
        self._me = 0
        self._number = 0

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        server, address = listener()
        self._me = server.getsockname()[1]
        threading.Thread(target=self._accept, args=[server], daemon=True).start()
        for other in dial:
            self._link(dialled(other))
        return address

    def broadcast(self, payload: bytes) -> None:
        self._number += 1
        with self._seen_lock:
            self._seen.add((self._me, self._number))
        self._flood(HEADER.pack(len(payload), self._me, self._number) + payload, None)

    def _accept(self, server: socket.socket) -> None:
        while True:
            self._link(server.accept()[0])

    def _link(self, link: socket.socket) -> None:
        self._links = {**self._links, link: threading.Lock()}
        threading.Thread(target=self._serve, args=[link], daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a neighbour has ended; what is missing is counted
            self._read(link)

    def _read(self, link: socket.socket) -> None:
        """Take frames from one neighbour; pass each new one on to all others."""
        stream = link.makefile("rb")
        while header := stream.read(HEADER.size):
            size, origin, number = HEADER.unpack(header)
            payload = stream.read(size)
            with self._seen_lock:
                if (origin, number) in self._seen:
                    continue
                self._seen.add((origin, number))
                self.on_payload(payload)
            self._flood(header + payload, link)

    def _flood(self, frame: bytes, source: socket.socket | None) -> None:
        for link, lock in self._links.items():
            if link is not source:
                with lock:
                    link.sendall(frame)
