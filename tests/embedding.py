"""Peers and seeds inside the test's own process, as a program that embeds them would have them."""

from pathlib import Path
from typing import Any

from dashboard import Dashboard
from helpers import PATIENCE_S, wait_until
from peer import Peer
from seed import Seed


class Embedded:
    """The peers and seeds of one test; what each peer heard; all stopped in the end."""

    def __init__(self, folder: Path) -> None:
        self._files = {"config": str(folder / "config.txt"), "log": str(folder / "outputfile.log")}
        self._heard: dict[Peer, list[tuple[str, int, bytes]]] = {}
        self._seeds: list[Seed] = []
        self._dashboards: list[Dashboard] = []

    def new_peer(self, **keywords: Any) -> Peer:
        """A peer that is not started yet, and writes down what it hears."""
        peer = Peer(**{"port": 0, "seeds": [], **self._files, **keywords})
        heard = self._heard[peer] = []
        peer.on_message(
            lambda message: heard.append((str(message.origin), message.seq, bytes(message.payload)))
        )
        return peer

    def peer(self, **keywords: Any) -> Peer:
        """A peer that listens."""
        peer = self.new_peer(**keywords)
        peer.start()
        return peer

    def heard(self, peer: Peer) -> list[tuple[str, int, bytes]]:
        """What it was given, in order: (origin, seq, payload)."""
        return list(self._heard[peer])

    def wait_to_hear(
        self, peer: Peer, count: int, *, timeout_s: float = PATIENCE_S
    ) -> list[tuple[str, int, bytes]]:
        """What it was given, once that is so many messages."""
        heard = self._heard[peer]
        what = f"{count} messages at {peer.address}"
        wait_until(lambda: len(heard) >= count, what=what, timeout_s=timeout_s)
        return list(heard)

    def new_seed(self, **keywords: Any) -> Seed:
        seed = Seed(**{"port": 0, **self._files, **keywords})
        self._seeds.append(seed)
        return seed

    def seed(self, **keywords: Any) -> Seed:
        """A seed that listens."""
        seed = self.new_seed(**keywords)
        seed.start()
        return seed

    def dashboard(self, **keywords: Any) -> str:
        """A peer with a page on any free port; where the page is."""
        urls: list[str] = []

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "serving":
                urls.append(event["url"])

        dashboard = Dashboard(**{"web_port": 0, "seeds": [], "on_event": note, **keywords})
        self._dashboards.append(dashboard)
        dashboard.start()
        return urls[0]

    def close(self) -> None:
        for dashboard in self._dashboards:
            dashboard.stop()
        for peer in self._heard:
            peer.stop()
        for seed in self._seeds:
            seed.stop()
