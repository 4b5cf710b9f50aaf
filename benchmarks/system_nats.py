"""NATS: everybody talks to one broker, `nats-server`, which the first peer starts; nats-py here."""

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import nats
from nats.aio.msg import Msg

from adapter import System, dialled, listener

SUBJECT = "benchmark"
# The default ends a connection that lags by 64 MiB.
CONFIG = "listen: 127.0.0.1:{port}\nmax_payload: 2MB\nmax_pending: 1GB\n"
UNLIMITED = 1 << 31  # messages and bytes that may wait for the program; above it nats-py drops


class Adapter(System):
    overlay = "a star around the broker"

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(on_payload)
        self._loop = asyncio.new_event_loop()
        self._client: nats.NATS
        self._broker: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def join(self, first: str | None, dial: list[str]) -> str:  # noqa: ARG002
        """The address is the broker's."""
        address = first or self._start_broker()
        self._do(self._connect(address))
        return address

    def broadcast(self, payload: bytes) -> None:
        self._do(self._client.publish(SUBJECT, payload))

    def broadcast_all(self, payloads: Iterable[bytes]) -> None:
        async def publish() -> None:
            for payload in payloads:
                await self._client.publish(SUBJECT, payload)

        self._do(publish())

    def helper_pids(self) -> list[int]:
        return [self._broker.pid] if self._broker else []

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.terminate()
            self._broker.wait()

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connect(self, address: str) -> None:
        async def take(message: Msg) -> None:
            self.on_payload(message.data)

        self._client = await nats.connect(
            f"nats://{address}", no_echo=True, allow_reconnect=False, error_cb=ignore
        )
        limits = {"pending_msgs_limit": UNLIMITED, "pending_bytes_limit": UNLIMITED}
        await self._client.subscribe(SUBJECT, cb=take, **limits)
        await self._client.flush()

    def _start_broker(self) -> str:
        reserved, address = listener()
        reserved.close()
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
            config.write(CONFIG.format(port=address.split(":")[1]))
            config.flush()
            command = [str(Path(sys.executable).parent / "nats-server"), "--config", config.name]
            self._broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            self._wait_for(address)
        return address

    def _wait_for(self, address: str) -> None:
        assert self._broker is not None
        while self._broker.poll() is None:
            try:
                dialled(address).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise RuntimeError("nats-server ended at once")


async def ignore(error: Exception) -> None:
    """What was lost is counted anyway; nats-py would print that the broker ended."""
