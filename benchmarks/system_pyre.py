"""zeromq-pyre: everybody is linked with everybody, found by beacons; a message is a shout."""

import ipaddress
import threading
from collections.abc import Callable

import pyre.zbeacon
import zmq
from pyre import Pyre

from adapter import System, listener

GROUP = "benchmark"


class Adapter(System):
    overlay = "a full mesh"
    settle_s = 2.0  # beacons come once a second

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._node: Pyre

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        """The address is the beacons' UDP port, which all peers of a network share."""
        if first is None:
            reserved, address = listener()
            reserved.close()
            first = address.split(":")[1]
        pyre.zbeacon.ZBeacon._prepare_socket = keep_to_loopback
        self._node = Pyre()
        self._node.set_port(first.encode())
        self._node.join(GROUP)
        self._node.start()
        threading.Thread(target=self._listen, daemon=True).start()
        return first

    def broadcast(self, payload: bytes) -> None:
        while True:
            try:
                self._node.shout(GROUP, payload)
                return
            except zmq.Again:  # nothing was taken for 5 s
                continue

    def _listen(self) -> None:
        while True:
            try:
                kind, _, _, *rest = self._node.recv()
            except zmq.Again:  # nothing came for 5 s
                continue
            if kind == b"SHOUT":
                self.on_payload(rest[-1])


def keep_to_loopback(beacon: "pyre.zbeacon.ZBeacon") -> None:
    """Beacons go to this machine alone; pyre itself would choose a network card."""
    beacon.address = ipaddress.IPv4Address("127.0.0.1")
    beacon.broadcast_address = ipaddress.IPv4Address("127.255.255.255")
