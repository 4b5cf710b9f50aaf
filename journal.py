"""What happened, as events: one JSON object, or one line of the log, for each.

Knows how an event looks and writes it; knows nothing of what the events mean. A line is written by
a single `write` on a file opened for appending, so many processes share one log and every line
stays whole. Whatever text came from the network is quoted and escaped: nobody else can forge a
line. A long text is cut in the log, and whole in the JSON.
"""

import base64
import contextlib
import json
import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from messages import Address

Event = dict[str, Any]  # has at least "event", "at" (seconds since the epoch) and "self"

MAX_SHOWN_CHARS = 4096  # of one value in the log: a person reads less, and a message may have 1 MiB
LOOK_INTERVAL_S = 1.0  # how often a log is looked for under its name

_PLAIN = re.compile(r"[A-Za-z0-9_.:%\[\]/-]+")
_log = logging.getLogger("peer-to-peer")


class Journal:
    """Where one peer or seed records its events. Any thread may record."""

    def __init__(
        self, me: Address, path: str | None, on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.me = me
        self._path = path
        self._on_event = on_event
        self._lock = threading.Lock()  # guards the handle, so that no line goes to a reused one
        self._handle = -1
        self._looked_s = 0.0  # when it was last seen whether the file is still that of its name
        self._complaint = ""  # the latest
        if path is not None:
            self._handle = _open(path)

    @property
    def is_heard(self) -> bool:
        """Whether anybody would see an event that is recorded."""
        return self._handle >= 0 or self._on_event is not None

    def record(self, event: str, **details: Any) -> None:
        """Write the event to the log and hand it to the listener. Never raises."""
        record = {"event": event, "at": time.time(), "self": str(self.me), **details}
        with self._lock:
            if self._handle >= 0:
                self._append(log_line(record))
        if self._on_event is not None:
            try:
                self._on_event(record)
            except Exception:  # the program's own code: its fault shall cost nobody an event
                _log.exception("%s: a listener to events raised", self.me)

    def failure(self, what: str) -> None:
        """Our own fault, or a callback's: the exception being handled, with its traceback."""
        self.record("error", reason=what, traceback=traceback.format_exc())

    def reopen(self) -> None:
        """If the file was moved away, begin a new one of its name now, and not a second later."""
        with self._lock:
            self._looked_s = 0.0

    def close(self) -> None:
        """Record no further lines in the file; the listener still hears. May be called twice."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle = -1

    def _append(self, line: str) -> None:
        try:
            if time.monotonic() >= self._looked_s + LOOK_INTERVAL_S:
                self._follow_name()
        except OSError as error:
            self._complain(error)  # and go on with the file that we have
        try:
            os.write(self._handle, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._complain(error)

    def _follow_name(self) -> None:
        """Whoever rotates logs moves the file away; what follows belongs to a new one."""
        self._looked_s = time.monotonic()
        assert self._path is not None, "called with an open file"
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._handle)):
                return
        moved, self._handle = self._handle, _open(self._path)
        os.close(moved)

    def _complain(self, error: OSError) -> None:
        if str(error) != self._complaint:  # once, not once per line
            self._complaint = str(error)
            _log.error("%s: cannot write to %s: %s", self.me, self._path, error)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def log_line(event: Event) -> str:
    """`2026-11-22 12:04:31.207 127.0.0.1:6002 dead neighbour=127.0.0.1:6003 reason="…"`."""
    details = [f"{key}={_shown(key, event[key])}" for key in event if key not in _LEADING]
    at = event["at"]
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    lead = f"{stamp}.{int(at * 1000) % 1000:03d} {event['self']} {event['event']}"
    return " ".join([lead, *details]) + "\n"


_LEADING = ("event", "at", "self")


def _shown(key: str, value: object) -> str:
    """A value as it stands in a log line: numbers and addresses plain, all other text quoted."""
    text = str(value)
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]}… ({len(text)} characters)"
    if key not in _FREE_TEXT and _PLAIN.fullmatch(text):
        return text
    return '"' + printable(text).replace('"', '\\"') + '"'


_FREE_TEXT = ("text", "reason", "traceback")


def printable(text: str) -> str:
    """The text with everything escaped that could move a cursor, hide, or end a line."""
    if text.isprintable() and "\\" not in text:
        return text
    return text.translate(_escapes)


class _Escapes(dict[int, str]):
    """How each character is shown, found out when it is first met; a text may be long."""

    MOST = 4096  # characters remembered: there are a million

    def __missing__(self, code: int) -> str:
        shown = chr(code)
        if not shown.isprintable() or shown == "\\":
            shown = json.dumps(shown)[1:-1] if code < 0x10000 else f"\\U{code:08x}"
        if len(self) < self.MOST:
            self[code] = shown
        return shown


_escapes = _Escapes()


def payload_details(payload: bytes) -> dict[str, str]:
    """A message's payload as an event holds it: `text`, or `base64` when it is not UTF-8."""
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}
