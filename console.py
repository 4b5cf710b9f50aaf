"""The programs `seed.py` and `peer.py` as a person meets them, and a peer's console."""

import argparse
import difflib
import importlib
import re
import threading
import time
from collections import deque
from collections.abc import Sequence

from command_line import (
    FAILURE,
    SUCCESS,
    Prompt,
    Running,
    add_ways_in,
    argument,
    complain,
    is_terminal,
    parser,
    port_number,
    read_line,
    run,
    seconds,
    started,
    times,
    wait_for_ever,
)
from journal import Event, printable
from messages import NetworkError
from peer import Peer
from screen import Advice, Screen, sentence
from seed import Seed

DRAIN_LOOK_INTERVAL_S = 0.05
LONELY_DRAIN_S = 10.0  # without any neighbour for so long, what was typed has reached nobody
REMEMBERED_MESSAGES = 1000  # for /history
PROMPT = "> "

HELP = """\
TEXT                  say it to everyone (//x says /x)
/to HOST:PORT TEXT    say it to one peer alone
/neighbours           the peers this one is linked with
/members              all live peers, asked of the seeds
/seeds                the seeds, and where this peer is registered
/stats                counters
/history [N]          the last N messages said and heard (10)
/quit                 leave the network"""


def run_seed() -> int:
    """The program `seed.py`. Returns its exit code."""
    return run(_seed_program)


def run_peer() -> int:
    """The program `peer.py`. Returns its exit code."""
    return run(_peer_program)


def _seed_program(running: Running) -> int:
    arguments_parser = parser("Start one seed: it introduces peers to each other.")
    arguments_parser.add_argument(
        "port", nargs="?", type=argument(port_number), metavar="PORT", help="asked if left out"
    )
    arguments = arguments_parser.parse_args()
    screen = Screen(arguments.json)

    def start(port: int) -> Seed:
        seed = Seed(
            port,
            arguments.host,
            advertise=arguments.advertise,
            config=arguments.config,
            log=arguments.log,
            on_event=screen.show,
            tls=arguments.tls,
        )
        running.begin(seed.start, seed.stop)
        running.reload_with(seed.reload)
        return seed

    started(arguments.port, Prompt("Port of this seed", 12345), start, arguments.json)
    wait_for_ever()


def _peer_program(running: Running) -> int:
    arguments = _peer_parser().parse_args()
    screen = Screen(arguments.json)
    advice = Advice(arguments.config, bool(arguments.seed or arguments.join))
    past: deque[str] = deque(maxlen=REMEMBERED_MESSAGES)
    listed = -1  # how many peers the seeds knew; told every half minute, and shown when it changes

    def show(event: Event) -> None:
        nonlocal listed
        if event["event"] == "peer_list" and not arguments.json:
            if event["peers"] == listed:
                return
            listed = event["peers"]
        if event["event"] in ("message", "direct"):
            past.append(sentence(event))
        screen.show(event)
        if line := advice.on(event):
            screen.say(line)

    def start(port: int) -> Peer:
        peer = Peer(
            port,
            arguments.host,
            arguments.seed,
            join=arguments.join,
            advertise=arguments.advertise,
            config=arguments.config,
            log=arguments.log,
            gossip_every_s=arguments.gossip_every,
            gossip_count=arguments.gossip_count,
            no_history=arguments.no_history,
            verbose=arguments.verbose,
            on_event=show,
            tls=arguments.tls,
        )
        running.begin(peer.start, peer.stop)
        running.reload_with(peer.reload)
        return peer

    prompt = Prompt("Port of this peer", 0, shown="a free one")
    peer = started(arguments.port, prompt, start, arguments.json)
    return Console(peer, screen, past).run(arguments.drain)


def _peer_parser() -> argparse.ArgumentParser:
    peer_parser = parser("Join the network. Type a line, and everyone gets it; /help shows more.")
    add = peer_parser.add_argument
    add("port", nargs="?", type=argument(port_number), metavar="PORT", help="asked if left out")
    add(
        "--gossip-every",
        type=argument(seconds),
        default=5.0,
        metavar="SECONDS",
        help="say hello to everyone so often; 0 never (default: 5)",
    )
    add(
        "--gossip-count",
        type=argument(times),
        default=0,
        metavar="N",
        help="stop saying hello after N times (default: never)",
    )
    add("--drain", action="store_true", help="leave once the input has ended and all have it")
    add_ways_in(peer_parser)
    return peer_parser


class Console:
    """What a person types at a peer, line by line."""

    def __init__(self, peer: Peer, screen: Screen, past: deque[str]) -> None:
        self._peer = peer
        self._screen = screen
        self._past = past
        self._commands = {
            "neighbours": self._neighbours,
            "members": self._members,
            "seeds": self._seeds,
            "stats": self._stats,
            "history": self._history,
            "to": self._to,
            "help": self._help,
        }
        self._names = sorted(f"/{name}" for name in [*self._commands, "quit"])

    def run(self, drains: bool) -> int:
        """Obey until /quit, or until all is heard once the input has ended. The exit code."""
        prompt = self._begin() if is_terminal() else ""
        while (line := read_line(prompt)) is not None:
            if line.rstrip() == b"/quit":
                return SUCCESS
            if line:
                self._obey(line)
        self._screen.end_typing()
        if drains:
            return self._drain()
        if is_terminal():
            self._screen.say("The input has ended; the peer goes on. Ctrl-C stops it.")
        return wait_for_ever()

    def _begin(self) -> str:
        """Greet the person at the terminal, and make typing pleasant. Returns the prompt."""
        readline = importlib.import_module("readline")  # from now on `input` edits, and remembers
        prompt = ""
        if self._screen.begin_typing():
            prompt = PROMPT
            readline.parse_and_bind("set horizontal-scroll-mode on")  # the line stays one row
            readline.parse_and_bind("set enable-bracketed-paste off")  # each line pasted is one
            readline.parse_and_bind("tab: complete")
            readline.set_completer_delims(" ")
            readline.set_completer(self._completion)
        self._screen.say("Type a line and press Enter: everyone gets it. /help shows more.")
        return prompt

    def _completion(self, begun: str, number: int) -> str | None:
        """The `number`th way to go on: a command, or a neighbour's address behind /to."""
        known = self._names if begun.startswith("/") else self._peer.neighbours()
        fitting = [word for word in known if word.startswith(begun)] if begun else []
        return f"{fitting[number]} " if number < len(fitting) else None

    def _obey(self, line: bytes) -> None:
        try:
            if line.startswith(b"/") and not line.startswith(b"//"):
                self._command(line[1:])
            else:
                self._broadcast(line[1:] if line.startswith(b"//") else line)
        except (NetworkError, ValueError) as error:
            self._screen.complain(str(error))

    def _broadcast(self, payload: bytes) -> None:
        self._peer.broadcast(payload)
        text = printable(payload.decode(errors="backslashreplace"))
        self._past.append(f"{time.strftime('%H:%M:%S')}  this peer says: {text}")
        if is_terminal() and not self._peer.neighbours():
            self._screen.say("Nobody is here yet. Whoever joins later gets it.")

    def _command(self, line: bytes) -> None:
        begun, _, rest = line.lstrip().partition(b" ")
        name = begun.rstrip().decode(errors="replace")
        if name == "quit":
            raise ValueError("/quit takes no argument")
        if name not in self._commands:
            raise ValueError(f"there is no command /{name:.40}; {self._suggestion(name)}")
        self._commands[name](rest)

    def _suggestion(self, name: str) -> str:
        typed = f"/{name.lower()}"
        longer = [known for known in self._names if name and known.startswith(typed)]
        alike = longer or difflib.get_close_matches(typed, self._names)
        return f"did you mean {' or '.join(alike)}?" if alike else "/help lists them"

    def _drain(self) -> int:
        """Wait until every neighbour has what was typed."""
        pause = threading.Event()
        alone_since_s = time.monotonic()
        while not self._peer.is_heard():
            if self._peer.neighbours():
                alone_since_s = time.monotonic()
            elif time.monotonic() - alone_since_s > LONELY_DRAIN_S:
                complain(f"no neighbour for {LONELY_DRAIN_S:.0f} s: not everything was heard")
                return FAILURE
            pause.wait(DRAIN_LOOK_INTERVAL_S)
        return SUCCESS

    # ---- commands ----

    def _help(self, _: bytes) -> None:
        rows = [re.split("  +", line) for line in HELP.splitlines()]
        self._screen.say_table([("", ""), *rows])

    def _neighbours(self, _: bytes) -> None:
        rows = [("neighbour", "dialled by", "round trip", "behind by", "on the tree")]
        for link in self._peer.links():
            trip_s = link["round_trip_s"]
            trip = "not yet known" if trip_s is None else f"{1000 * trip_s:.1f} ms"
            by = "this peer" if link["direction"] == "out" else "it"
            behind = f"{link['lag']:,} messages" if link["lag"] else "nothing"
            rows.append((link["neighbour"], by, trip, behind, "yes" if link["is_tree"] else "no"))
        self._say_rows(rows, "no neighbours")

    def _members(self, _: bytes) -> None:
        whose = dict.fromkeys(self._peer.neighbours(), "neighbour")
        whose[self._peer.address] = "this peer"
        rows = [(member, whose.get(member, "")) for member in self._peer.members()]
        self._say_rows([("live peer", ""), *rows], "no seed answered, or no peer is registered")

    def _seeds(self, _: bytes) -> None:
        rows = [("seed", "registered there")]
        rows += [(seed, "yes" if ours else "no") for seed, ours in self._peer.seeds().items()]
        self._say_rows(rows, "no seeds are listed")

    def _stats(self, _: bytes) -> None:
        counters = self._peer.stats()
        began = time.localtime(counters.pop("boot_ms") / 1000)
        rows = [("running since", time.strftime("%Y-%m-%d %H:%M:%S", began))]
        rows += [(name.replace("_", " "), f"{count:,}") for name, count in counters.items()]
        self._say_rows([("counter", "now"), *rows], "")

    def _history(self, rest: bytes) -> None:
        count = rest.decode(errors="replace").strip()
        wanted = times(count) if count else 10
        for line in list(self._past)[-wanted:] if wanted else []:
            self._screen.say(line)

    def _to(self, rest: bytes) -> None:
        address, _, payload = rest.lstrip().partition(b" ")
        if not payload:
            raise ValueError("expected /to HOST:PORT TEXT")
        self._peer.send(address.decode(errors="replace"), payload)

    def _say_rows(self, rows: Sequence[Sequence[str]], if_empty: str) -> None:
        """A table; in one line what it means that there is nothing below its headers."""
        if len(rows) == 1:
            self._screen.say(if_empty)
        else:
            self._screen.say_table(rows)
