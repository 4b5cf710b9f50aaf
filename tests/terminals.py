"""A program on a terminal of its own, as a person runs it."""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pyte

from helpers import PATIENCE_S, wait_until

# The new process takes the terminal as its own, so that Ctrl-C reaches it, and becomes the program.
TAKE_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, sys.argv[1:])"

WINDOW_ROWS = 24
PASTE_MODE = re.compile(r"\x1b\[\?2004[hl]\r?")  # what line editing switches on and off


class Terminal:
    """What is on the screen, and a keyboard."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = " ".join([Path(arguments[0]).name, *arguments[1:]])
        self._shown = bytearray()  # only ever grows, and only the reader thread adds to it
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.resize(80)
        self._is_unwatched = threading.Event()
        self._is_open = True
        self._reader = threading.Thread(target=self._read, name=f"screen of {self.name}")
        self._reader.start()

    def _read(self) -> None:
        """Collect what is shown until nobody holds the terminal any more."""
        with contextlib.suppress(OSError):  # that is how a terminal ends
            while not self._is_unwatched.is_set():
                if select.select([self._master], [], [], 0.1)[0]:
                    self._shown += os.read(self._master, 1 << 16)

    @property
    def screen(self) -> str:
        """Everything shown so far, what was typed included."""
        text = bytes(self._shown).decode(errors="replace")
        return PASTE_MODE.sub("", text).replace("\r\n", "\n")

    @property
    def rows(self) -> list[str]:
        """What a person sees: the rows of the window, from the top down to the last with text."""
        picture = pyte.Screen(self._columns, WINDOW_ROWS)
        pyte.ByteStream(picture).feed(bytes(self._shown))
        rows = [row.rstrip() for row in picture.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def resize(self, columns: int) -> None:
        """Make the window so wide."""
        self._columns = columns
        termios.tcsetwinsize(self._master, (WINDOW_ROWS, columns))

    def press(self, keys: str) -> None:
        """Type, without Enter; or what a special key sends."""
        os.write(self._master, keys.encode())

    def type(self, text: str) -> int:
        """Type one line; give how much was on the screen before, for `wait_to_see(since=)`."""
        before = len(self.screen)
        os.write(self._master, text.encode() + b"\n")
        return before

    def ask(self, command: str) -> None:
        """Type a command, and wait for any word in answer to it."""
        since = self.type(command)

        def has_answered() -> bool:
            shown = self.screen[since:].replace(command, "", 1)  # the terminal's own echo
            return re.search(r"\w{3}", shown) is not None

        wait_until(has_answered, what=f"an answer to {command!r}")

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def press_ctrl_d(self) -> None:
        os.write(self._master, b"\x04")

    def look_away(self) -> None:
        """Read nothing any more: whoever writes much will wait."""
        self._is_unwatched.set()
        self._reader.join(PATIENCE_S)

    def hang_up(self) -> None:
        """Close the window."""
        self.look_away()
        self._is_open = False
        os.close(self._master)

    def wait_to_see(self, pattern: str, *, since: int = 0, count: int = 1) -> str:
        """The screen from `since` on, once `pattern` (any case) is there `count` times."""
        regex = re.compile(pattern, re.IGNORECASE)

        def is_there() -> bool:
            return len(regex.findall(self.screen[since:])) >= count

        try:
            wait_until(
                lambda: is_there() or not self._reader.is_alive(),
                what=f"{pattern!r} on the screen",
            )
            assert is_there(), f"ended before it showed {pattern!r}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.name} showed:\n{self.screen}") from None
        return self.screen[since:]

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended and all it showed has been read."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end; it showed:\n{self.screen}") from None
        self._reader.join(PATIENCE_S)
        return self.process.returncode

    def close(self) -> None:
        """Kill it if need be, and let go of the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        if self._is_open:
            self.hang_up()

    def faults(self) -> Iterator[str]:
        """What no program may do in any test."""
        if "Traceback" in self.screen:
            yield f"{self.name}: traceback on the screen:\n{self.screen}"
