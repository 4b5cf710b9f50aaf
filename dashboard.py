"""A peer with a web page: the network as a live map, and its messages over HTTP.

The peer is one like all others. What it hears goes to a feed; the network is looked at while
somebody has the page open; `gateway.py` serves both.
"""

if __name__ == "__main__":  # a signal waits until the program can end as it should
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import argparse
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line import (
    Prompt,
    Running,
    add_ways_in,
    argument,
    parser,
    port_number,
    run,
    started,
    wait_for_ever,
)
from feed import Feed
from gateway import Gateway, Page, Service
from journal import Event, Journal, payload_details
from messages import Address, AddressInUse, BadAddress, BroadcastTimeout, PortForbidden
from metrics import exposition
from peer import Peer
from screen import Advice, Screen
from survey import Survey
from threads import Threads

FOLDER = Path(__file__).with_name("page")
SCRIPT = "text/javascript; charset=utf-8"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/map.js": ("map.js", SCRIPT),
    "/layout.js": ("layout.js", SCRIPT),
    "/waves.js": ("waves.js", SCRIPT),
}
DEFAULT_PORT = 8000
BROADCAST_TIMEOUT_S = 5.0  # then who says something is told what it waits for
LEAST_TOKEN = 16  # characters; a shorter one can be guessed
STOP_TIMEOUT_S = 0.5  # for visits to end; the peer stops after that


class Dashboard:
    """A peer, what it heard, and the pages that show it.

    The keywords are those of `Peer`. Listens at once, and serves from `start` on. Raises
    AddressInUse and BadAddress about the page's port, OSError when a file of the page is missing.
    """

    def __init__(
        self,
        web_port: int = DEFAULT_PORT,
        web_host: str = "localhost",
        *,
        token: str | None = None,
        log: str | None = None,
        on_event: Callable[[Event], None] | None = None,
        **peer: Any,
    ) -> None:
        self._log = log
        self._on_event = on_event
        self._feed = Feed()
        self._saying = threading.Lock()  # what is said gets into the feed in the order of numbers
        self._counting = threading.Lock()  # guards the counter
        self._events: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._threads = Threads("dashboard", self._failed)
        self._peer = Peer(log=log, on_event=self._heard, **peer)
        pages = {
            path: Page(kind, (FOLDER / name).read_bytes()) for path, (name, kind) in FILES.items()
        }
        life = f"{time.time_ns() // 1_000_000:x}"
        service = Service(pages, self.network, self.metrics, self.say, self._feed, life)
        self._gateway = Gateway(web_host, web_port, token, service, self._threads)

    def start(self) -> None:
        """Start the peer, and serve. Raises what `Peer.start` raises."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._gateway.server_close)
            self._peer.start()
            undo.callback(self._peer.stop)
            me = Address.parse(self._peer.address)
            self._journal = Journal(me, self._log, self._on_event)
            undo.callback(self._journal.close)
            self._survey = Survey(me, self._seeds, self._peer.trust, self._threads)
            undo.callback(self._survey.stop)
            self._threads.start("survey", self._survey.keep)
            self._threads.start("serve", self._gateway.serve)
            undo.pop_all()
        self._journal.record("serving", url=self._gateway.url)

    def stop(self, reason: str = "asked to") -> None:
        """End the pages, then the peer. May be called twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._survey.stop()
        self._gateway.close()
        self._threads.join(time.monotonic() + STOP_TIMEOUT_S)
        self._peer.stop(reason)
        self._journal.close()

    def reload(self) -> None:
        """Read the list of seeds, and open the log, again. Raises OSError."""
        self._peer.reload()
        self._journal.reopen()

    # ---- what is served ----

    def network(self) -> dict[str, Any]:
        """The network as it is seen now."""
        seen = self._survey.see()
        rate = self._feed.per_second()
        return {"self": self._peer.address, **seen, "messages_per_s": rate}

    def metrics(self) -> str:
        """This peer's counters, for Prometheus."""
        with self._counting:
            events = dict(self._events)
        streams = self._gateway.streams
        return exposition(self._peer.stats(), self._peer.links(), events, streams)

    def say(self, payload: bytes) -> int:
        """Say it to everyone; returns its number. Raises BroadcastTimeout, NotRunning."""
        if not self._saying.acquire(timeout=BROADCAST_TIMEOUT_S):
            raise BroadcastTimeout("others are waiting to say something already")
        try:
            number = self._peer.broadcast(payload, BROADCAST_TIMEOUT_S)
            me, boot_ms = self._peer.address, self._peer.stats()["boot_ms"]
            event = {"event": "message", "at": time.time(), "self": me}
            stream = {"origin": me, "boot_ms": boot_ms, "seq": number}
            self._feed.add({**event, **stream, **payload_details(payload)})
        finally:
            self._saying.release()
        return number

    def _heard(self, event: Event) -> None:
        with self._counting:
            self._events[event["event"]] += 1
        if event["event"] == "message":
            self._feed.add(event)
        if self._on_event is not None:
            self._on_event(event)

    def _failed(self, what: str) -> None:
        self._journal.failure(what)

    def _seeds(self) -> list[Address]:
        return [Address.parse(seed) for seed in self._peer.seeds()]


# ---- the program ---------------------------------------------------------------------------------


def main() -> int:
    """The program. Returns its exit code."""
    return run(_program)


def _program(running: Running) -> int:
    arguments = _parser().parse_args()
    screen = Screen(arguments.json)
    advice = Advice(arguments.config, bool(arguments.seed or arguments.join))

    def show(event: Event) -> None:
        screen.show(event)
        if line := advice.on(event):
            screen.say(line)

    def start(port: int) -> Dashboard:
        dashboard = Dashboard(
            port,
            arguments.web_host,
            token=arguments.token,
            log=arguments.log,
            on_event=show,
            port=arguments.peer_port,
            ip=arguments.host,
            seeds=arguments.seed,
            join=arguments.join,
            advertise=arguments.advertise,
            tls=arguments.tls,
            config=arguments.config,
            no_history=arguments.no_history,
            verbose=arguments.verbose,
        )
        try:
            running.begin(dashboard.start, dashboard.stop)
        except (
            AddressInUse,
            PortForbidden,
        ) as error:  # the peer's: no other port of the page would help
            raise BadAddress(str(error)) from error
        running.reload_with(dashboard.reload)
        return dashboard

    started(arguments.port, Prompt("Port of the page", DEFAULT_PORT), start, arguments.json)
    wait_for_ever()


def _parser() -> argparse.ArgumentParser:
    dashboard_parser = parser("A peer with a web page: the network as a live map, and over HTTP.")
    add = dashboard_parser.add_argument
    add(
        "port",
        nargs="?",
        type=argument(port_number),
        metavar="PORT",
        help="of the page; asked if left out",
    )
    add(
        "--peer-port",
        type=argument(port_number),
        default=0,
        metavar="P",
        help="of the peer (default: a free one)",
    )
    add(
        "--web-host",
        default="localhost",
        metavar="HOST",
        help="address to serve the page on; others than this machine need --token "
        "(default: %(default)s)",
    )
    add(
        "--token",
        type=argument(_token_in),
        metavar="FILE",
        help="let in only those who know what stands in this file",
    )
    add_ways_in(dashboard_parser)
    return dashboard_parser


def _token_in(path: str) -> str:
    """The token that stands in a file. Raises ValueError."""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"{path}: {reason}") from error
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{path}: expected one word of {LEAST_TOKEN} characters or more, such as "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe())'` prints"
        )
    return token


if __name__ == "__main__":
    sys.exit(main())
