"""What a system must offer to be measured: each `system_*.py` has one as its `Adapter`."""

import socket
from collections.abc import Callable, Iterable
from typing import ClassVar


class System:
    """One peer of some system. `on_payload` gets every message of others, one call at a time."""

    settle_s: ClassVar[float] = 1.0  # it is left alone for so long before anything is measured
    overlay: ClassVar[str] = "each dials 4 earlier ones"  # who is linked with whom

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        self.on_payload = on_payload

    def join(self, first: str | None, dial: list[str]) -> str:
        """Listen, and link with the earlier peers `dial`; `first` is the first of all.

        Gives the address that later peers are told.
        """
        raise NotImplementedError

    def broadcast(self, payload: bytes) -> None:
        """Say it to everyone; may wait."""
        raise NotImplementedError

    def broadcast_all(self, payloads: Iterable[bytes]) -> None:
        """Say all of these at once, one after the other."""
        for payload in payloads:
            self.broadcast(payload)

    def helper_pids(self) -> list[int]:
        """Other processes that work for the system, such as a broker; they count as well."""
        return []

    def stop(self) -> None:
        """Leave."""


def listener() -> tuple[socket.socket, str]:
    """A listening socket on a free port, and its address."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def dialled(address: str) -> socket.socket:
    """A connection to such an address, for frames that shall not wait."""
    host, port = address.split(":")
    link = socket.create_connection((host, int(port)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link
