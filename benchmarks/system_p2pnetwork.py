"""p2pnetwork: threads and sockets; whoever uses it writes the relay to peers further away."""

import base64
import contextlib
import io
import threading
from collections.abc import Callable
from typing import Any

from p2pnetwork.node import Node

from adapter import System, listener


class Relay(Node):  # type: ignore[misc]
    """A node that hands each message over once, and passes it on to everybody else.

    Messages are texts "ORIGIN.NUMBER BASE64", as the byte 4 ends a message of p2pnetwork.
    """

    def __init__(self, port: int, on_payload: Callable[[bytes], None]) -> None:
        super().__init__("127.0.0.1", port, id=port)
        self._on_payload = on_payload
        self._seen: set[str] = set()
        self._number = 0
        self._seen_lock = threading.Lock()
        self._sending: dict[Any, threading.Lock] = {}  # or two threads would mix their bytes

    def say(self, payload: bytes) -> None:
        self._number += 1
        name = f"{self.id}.{self._number}"
        with self._seen_lock:
            self._seen.add(name)
        self._pass_on(f"{name} {base64.b64encode(payload).decode()}", None)

    def node_message(self, connected_node: Any, data: Any) -> None:
        name, _, body = data.partition(" ")
        with self._seen_lock:
            if name in self._seen:
                return
            self._seen.add(name)
            self._on_payload(base64.b64decode(body))
        self._pass_on(data, connected_node)

    def _pass_on(self, text: str, source: Any) -> None:
        for link in self.all_nodes:
            if link is not source:
                with self._sending.setdefault(link, threading.Lock()):
                    self.send_to_node(link, text)


class Adapter(System):
    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._node: Relay

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        reserved, address = listener()  # p2pnetwork needs a number; it cannot ask for a free one
        reserved.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self._node = Relay(int(address.split(":")[1]), self.on_payload)
            self._node.start()
            for other in dial:
                host, port = other.split(":")
                self._node.connect_with_node(host, int(port))
        return address

    def broadcast(self, payload: bytes) -> None:
        self._node.say(payload)
