"""This project, through nothing but its public API."""

from collections.abc import Callable
from typing import Any

from adapter import System
from peer import Peer


class Adapter(System):
    settle_s = 6.0  # a beacon every 5 s draws the tree, and an old parent is kept for 1 s more
    overlay = "each is told 4 earlier ones, and may choose others later"

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._peer: Peer
        self._options: dict[str, Any] = {}

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        self._peer = Peer(seeds=[], join=dial, log=None, **self._options)
        self._peer.on_message(lambda message: self.on_payload(message.payload))
        self._peer.start()
        return self._peer.address

    def broadcast(self, payload: bytes) -> None:
        self._peer.broadcast(payload)

    def stop(self) -> None:
        self._peer.stop()
