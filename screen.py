"""What a program shows: events as sentences for people, or as JSON for programs.

On a terminal what is shown goes in above the line that somebody may be typing, which stays as it
is; long texts are broken between words. In a pipe each event is one plain line.
"""

import ipaddress
import json
import logging
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence

import settings
from command_line import complain, end, is_terminal
from journal import Event, printable
from messages import Address

MOST_CHARS = 2000  # of one text on a terminal; the log and the JSON have more
NARROWEST = 20  # columns beside the indent; where fewer would be left, there is no indent

_SENTENCES = {
    "listening": "listening on {address}",
    "registered": "registered with seed {seed}",
    "seed_unreachable": "seed {seed} is no help now: {reason}",
    "peer_unreachable": "{peer} cannot be reached: {reason}",
    "peer_list": "other peers that the seeds know: {peers}",
    "neighbour_up": "linked with {neighbour} ({direction})",
    "neighbour_down": "link with {neighbour} ended: {reason}",
    "suspect": "{neighbour} is suspect: {reason}",
    "dead": "{neighbour} is dead: {reason}",
    "message": "{origin} says: {text}",
    "direct": "{origin} says to you alone: {text}",
    "gap": "messages {first_seq} to {last_seq} of {origin} are lost: nobody has them any more",
    "config_read": "read the list of seeds again: {seeds}",
    "isolated": "no neighbour left and none reachable; trying on",
    "peer_registered": "{peer} registered; peers: {peers}",
    "peer_removed": "{peer} removed: {reason}; peers: {peers}",
    "dead_report": "{reporter} reported {peer} dead; verdict: {verdict} ({reason})",
    "liveness_test": "asked {neighbour} for a sign of life",
    "forwarded": "sent {neighbour} messages {first_seq} to {last_seq} of {origin}",
    "serving": "the live map: {url}",
    "certificates": "{reason}",
    "error": "a fault in this program, please report it: {reason}",
    "refused": "refused ({what}) from {source}: {reason}; said once a minute",
    "stopped": "stopped: {reason}",
}


def sentence(event: Event, names_self: bool = False) -> str:
    """An event in words, safe to show on a terminal."""
    shown = {key: printable(str(value)) for key, value in event.items()}
    if "base64" in event:
        shown["text"] = f"(bytes) {shown['base64']}"
    if "direction" in event:
        shown["direction"] = "we dialled it" if event["direction"] == "out" else "it dialled us"
    if event["event"] == "listening" and event["address"] != event["self"]:
        shown["address"] += f", known to others as {shown['self']}"
    clock = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    who = f"{shown['self']}  " if names_self else ""
    return f"{clock}  {who}{_SENTENCES[event['event']].format_map(shown)}"


class Advice:
    """What somebody new may have to be told about an event, beside the event itself."""

    def __init__(self, config: str, is_told_whom_to_ask: bool) -> None:
        self._config = config
        self._is_told_whom_to_ask = is_told_whom_to_ask  # by --seed or --join
        self._has_told_of_host = False

    def on(self, event: Event) -> str:
        """One line that says what to do; empty when there is nothing to be said."""
        match event:
            case {"event": "isolated"} if not self._is_told_whom_to_ask:
                return self._on_isolated()
            case {"event": "registered" | "seed_unreachable", "self": str(me), "seed": str(seed)}:
                return self._on_seed(me, seed)
        return ""

    def _on_isolated(self) -> str:
        try:
            seeds = settings.read_seeds(self._config).seeds
        except FileNotFoundError:
            seeds = []
        except OSError:
            return ""  # it may list some; that it cannot be read was said
        if seeds:
            return ""
        return (
            f"{self._config} lists no seed: start seedspawner.py or seed.py, and this peer will"
            " see it. Or begin anew with --seed or --join."
        )

    def _on_seed(self, me: str, seed: str) -> str:
        """A seed on another machine lists nobody whom it cannot dial."""
        if self._has_told_of_host or not _is_local(me) or _is_local(seed):
            return ""
        self._has_told_of_host = True
        return f"Only this machine can dial {me}. With --host 0.0.0.0 others can, too."


def _is_local(address: str) -> bool:
    """Whether only this machine can dial it; of a name one cannot know."""
    host = Address.parse(address).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_WORD = re.compile("[^ ]* *")  # with the spaces behind it

_STYLES = {"dead": "31", "error": "31", "suspect": "33", "gap": "33", "isolated": "33"}
_NAME, _NOTICE, _END = "\x1b[36m", "2", "\x1b[0m"

# For each row: one more line below (the screen may scroll, and the column stays), back up, remember
# the place; an empty row here, which moves the typed line down; the text, cut at the edge; and to
# the remembered place, one row further down.
_ABOVE = "\x1bD\x1b[A\x1b7\r\x1b[L\x1b[?7l{}\x1b[?7h\x1b8\x1b[B"


class Screen:
    """Standard output. Any thread may write."""

    def __init__(self, as_json: bool, names_self: bool = False) -> None:
        self._as_json = as_json
        self._names_self = names_self  # there are several peers and seeds on this screen
        is_dumb = os.environ.get("TERM", "dumb") == "dumb"
        self._is_terminal = sys.stdout.isatty() and not is_dumb and not as_json
        self._has_colours = self._is_terminal and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()  # one line at a time
        self.is_gone = False  # nobody reads it any more
        self._is_typed_on = False

    def show(self, event: Event) -> None:
        """An event."""
        if self._as_json:
            self.write(json.dumps(event, ensure_ascii=False))
            return
        text = sentence(event, self._names_self)
        rows = self._rows(text, text.index("  ") + 2)
        self._write_rows(_coloured(rows, event) if self._has_colours else rows)

    def say(self, text: str) -> None:
        """Something that is no event: it stays out of the JSON."""
        if self._as_json:
            print(text, file=sys.stderr, flush=True)
        else:
            self._write_rows([row for line in text.split("\n") for row in self._rows(line, 2)])

    def complain(self, text: str) -> None:
        """Something that went wrong: to standard error, unless somebody types here."""
        if self._is_typed_on:
            self.say(printable(text))
        else:
            complain(text)

    def say_table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of cells, the headers (shown if there are any) first.

        Where the terminal is too narrow, the cells of a row stand below each other.
        """
        widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
        headers, *others = rows
        if sum(widths) + 2 * len(widths) - 2 <= self._columns():
            for row in rows if any(headers) else others:
                cells = zip(row, widths, strict=True)
                text = "  ".join(cell + " " * (width - width_of(cell)) for cell, width in cells)
                self.say(text.rstrip())
            return
        for first, *rest in others:
            self.say(first)
            for header, cell in zip(headers[1:], rest, strict=True):
                self.say(f"  {header}: {cell}" if header else f"  {cell}")

    def begin_typing(self) -> bool:
        """A person types lines here from now on, and they stay whole; false where nobody can."""
        self._is_typed_on = self._is_terminal and is_terminal()
        if self._is_typed_on:
            logging.basicConfig(force=True, handlers=[Complaints(self)])
        return self._is_typed_on

    def end_typing(self) -> None:
        """Nobody types any more; an unfinished line goes."""
        if self._is_typed_on:
            self._is_typed_on = False
            self._write_text("\r\x1b[K")

    def write(self, line: str) -> None:
        """The line as it is."""
        self._write_text(line + "\n")

    def _columns(self) -> float:
        """How many there are; as many as wanted unless it is a terminal."""
        if not self._is_terminal:
            return float("inf")
        try:
            return os.get_terminal_size(1).columns or 80
        except OSError:  # it was closed
            return 80

    def _rows(self, text: str, indent: int) -> list[str]:
        columns = self._columns()
        if columns == float("inf"):
            return [text]
        if len(text) > MOST_CHARS:
            text = f"{text[:MOST_CHARS]} … and {len(text) - MOST_CHARS:,} characters more"
        return wrapped(text, int(columns), indent)

    def _write_rows(self, rows: list[str]) -> None:
        form = _ABOVE if self._is_typed_on else "{}\n"
        self._write_text("".join(form.format(row) for row in rows))

    def _write_text(self, text: str) -> None:
        with self._lock:
            if self.is_gone:
                return
            try:
                _write_whole(text.encode("utf-8", "backslashreplace"))
            except OSError:  # as in `peer.py --json | head -1`: time to stop
                self.is_gone = True
                end()


class Complaints(logging.Handler):
    """Shows warnings on a screen that somebody types on."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(self.format(record))


def wrapped(text: str, columns: int, indent: int) -> list[str]:
    """The text in rows of so many columns, broken between words; all but the first indented."""
    indent = indent if columns >= indent + NARROWEST else 0
    rows: list[str] = []
    row, width = "", 0
    for word in _WORD.findall(text):
        if row.strip(" ") and width + width_of(word.rstrip(" ")) > columns:
            rows.append(row.rstrip(" "))
            row, width = " " * indent, indent
        for character in word:
            step = _width(character)
            if width + step > columns:
                if character == " ":
                    continue
                rows.append(row)  # in the middle of a word that is longer than a row
                row, width = " " * indent, indent
            row += character
            width += step
    return [*rows, row.rstrip(" ")]


def width_of(text: str) -> int:
    """How many columns a terminal gives it."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _coloured(rows: list[str], event: Event) -> list[str]:
    """What somebody says stands out by the name; notices stand back, unless they are bad news."""
    if event["event"] in ("message", "direct"):
        origin = str(event["origin"])
        return [rows[0].replace(origin, f"{_NAME}{origin}{_END}", 1), *rows[1:]]
    style = _STYLES.get(event["event"], _NOTICE)
    return [f"\x1b[{style}m{row}{_END}" for row in rows]


def _write_whole(data: bytes) -> None:
    """Past the buffer of `sys.stdout`: a thread that waits for a reader would keep it locked."""
    while data:
        data = data[os.write(1, data) :]
