"""The command line: arguments, prompts, exit codes, signals, and the service manager.

What all three programs have in common; it knows nothing of peers and seeds.
"""

import argparse
import contextlib
import logging
import math
import os
import select
import signal
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from journal import printable
from messages import (
    Address,
    AddressInUse,
    BadAddress,
    BadCertificate,
    NetworkError,
    PortForbidden,
)
from settings import CONFIG_FILE, LOG_FILE, VERSION
from trust import Trust

T = TypeVar("T")

SUCCESS, FAILURE, BAD_INPUT = 0, 1, 2  # exit codes


# ---- arguments -----------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Arguments, and one line about each fault in them."""

    def error(self, message: str) -> NoReturn:
        """One clear line, and the exit code of bad input."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (--help shows what is possible)\n")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all programs share."""
    common = Parser(description=description, allow_abbrev=False)
    common.add_argument(
        "--host",
        default="localhost",
        help="address to listen on: a name, IPv4 or IPv6 (default: %(default)s)",
    )
    common.add_argument(
        "--advertise", metavar="HOST[:PORT]", help="address others are told to dial"
    )
    common.add_argument(
        "--config",
        default=CONFIG_FILE,
        metavar="FILE",
        help="the list of seeds (default: %(default)s)",
    )
    common.add_argument(
        "--log",
        default=LOG_FILE,
        metavar="FILE",
        help="where events are appended (default: %(default)s)",
    )
    common.add_argument("--json", action="store_true", help="events as JSON, one object a line")
    common.add_argument(
        "--verbose", action="store_true", help="show each liveness test and forwarded message too"
    )
    common.add_argument(
        "--tls",
        type=argument(certificates),
        metavar="DIR",
        help="a folder of certificates: only who has one of the same network is let in",
    )
    common.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return common


def add_ways_in(peer_parser: argparse.ArgumentParser) -> None:
    """The arguments of every program that is a peer: how it gets into the network."""
    add = peer_parser.add_argument
    address = argument(address_text)
    add(
        "--seed",
        action="append",
        type=address,
        metavar="HOST:PORT",
        help="a seed, instead of those in the config file; may be repeated",
    )
    add(
        "--join",
        action="append",
        type=address,
        default=[],
        metavar="HOST:PORT",
        help="a peer to enter by, even while no seed runs; may be repeated",
    )
    add("--no-history", action="store_true", help="hear only what is said from now on")


def port_number(text: str) -> int:
    """A port from a person. Raises ValueError that says what was expected."""
    return _whole_number(text, "a port from 1 to 65535", 1, 65535)


def count_number(text: str) -> int:
    """How many of something, from a person. Raises ValueError."""
    return _whole_number(text, "a whole number from 1 to 1000", 1, 1000)


def _whole_number(text: str, expected: str, least: int, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ValueError(f"expected {expected}, got {text!r:.60}")
    return int(text)


def argument(convert: Callable[[str], T]) -> Callable[[str], T]:
    """A converter for argparse whose ValueError becomes the user's one line."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def seconds(text: str) -> float:
    """A time from a person. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= threading.TIMEOUT_MAX:
        raise ValueError(f"expected seconds, from 0 to some years, got {text!r:.60}")
    return number


def times(text: str) -> int:
    """How often, from a person; 0 may mean something. Raises ValueError."""
    return _whole_number(text, "a whole number, 0 or more", 0, 10**18)


def address_text(text: str) -> str:
    """An address from a person, as `host:port`. Raises ValueError."""
    return str(Address.parse(text))


def certificates(text: str) -> str:
    """A folder of certificates, which is good. Raises ValueError."""
    Trust(text)
    return text


# ---- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to the person, and what an empty line means."""

    question: str
    default: int
    shown: str = ""  # the default in words, if the number says little


def started(given: int | None, prompt: Prompt, start: Callable[[int], T], as_json: bool) -> T:
    """What `start` makes at the port given, or else asked for; asked again if that cannot be had.

    Tells the service manager, if there is one. Ends the program with exit code 2 and one line when
    it cannot be started.
    """
    while True:
        port = answer(prompt, port_number, as_json) if given is None else given
        try:
            program = start(port)
            tell_manager("READY=1")
            return program
        except (AddressInUse, PortForbidden) as error:
            complain(str(error))
            if given is not None or not is_terminal():
                raise SystemExit(BAD_INPUT) from error
        except (BadAddress, BadCertificate) as error:
            complain(str(error))
            raise SystemExit(BAD_INPUT) from error
        except OSError as error:  # the log, the config file, or want of threads
            complain_of(error)
            raise SystemExit(BAD_INPUT) from error


def answer(prompt: Prompt, convert: Callable[[str], int], as_json: bool) -> int:
    """What a person answers; an empty line takes the default.

    A bad answer is explained and asked again on a terminal; else the program ends with exit code 2.
    """
    while True:
        text = _read_answer(f"{prompt.question} [{prompt.shown or prompt.default}]: ", as_json)
        try:
            return convert(text) if text.strip() else prompt.default
        except ValueError as error:
            complain(str(error))
            if not is_terminal():
                raise SystemExit(BAD_INPUT) from error


def _read_answer(prompt: str, as_json: bool) -> str:
    if as_json:  # standard output is for events alone
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    return (read_line(prompt) or b"").decode(errors="replace")


def is_terminal() -> bool:
    """Whether a person can answer."""
    return os.isatty(0)


def read_line(prompt: str = "") -> bytes | None:
    """The next line typed or piped in, without its end; None when there is no more."""
    if is_terminal():
        try:
            return input(prompt).encode("utf-8", "surrogateescape")
        except EOFError:
            return None
    if prompt:
        with contextlib.suppress(OSError):  # nobody reads it: the first event will find that out
            print(prompt, end="", flush=True)
    return next(_piped_lines, None)


def _lines_of(descriptor: int) -> Iterator[bytes]:
    """The lines of a pipe or file as they come. (A buffered reader would be locked at the end.)"""
    rest = b""
    with contextlib.suppress(OSError):  # closed: there is no more
        while chunk := os.read(descriptor, 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.removesuffix(b"\r") for line in lines)
    if rest:
        yield rest


_piped_lines = _lines_of(0)


def complain(text: str) -> None:
    """One line for the person, where it does not mix with events."""
    print(f"{Path(sys.argv[0]).name}: {printable(text)}", file=sys.stderr, flush=True)


def complain_of(error: OSError) -> None:
    """What the system refuses, and about which file if it is about one."""
    complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


# ---- running -------------------------------------------------------------------------------------

CLOSING_TIMEOUT_S = 1.9  # what is not done by then waits for somebody; two seconds are promised
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Running(contextlib.ExitStack):
    """A program that runs: what is to be done at its end (as with any stack), and on SIGHUP."""

    def __init__(self) -> None:
        super().__init__()
        self._beginning = threading.Lock()  # held while something begins; guards the next line
        self._is_over = False
        self._lock = threading.Lock()  # guards what follows
        self._reload: Callable[[], object] | None = None
        self._was_hung_up = False
        self._kill: Callable[[], object] | None = None

    def begin(self, start: Callable[[], object], stop: Callable[[str], object]) -> None:
        """Start it, to be stopped at the end, which waits for that. If that has come: SystemExit.

        So nothing can begin behind the back of an end that has just come, and be left behind.
        """
        with self._beginning:
            if self._is_over:
                raise SystemExit(SUCCESS)
            start()
            self.callback(stop, "told to stop")

    def kill_with(self, kill: Callable[[], object]) -> None:
        """Do this, which must not wait for anybody, when all that was begun does not stop."""
        self._kill = kill

    def kill(self) -> None:
        """The time for the end is over."""
        if self._kill is not None:
            self._kill()

    def close(self) -> None:
        """The end: stop what was begun, the last first; nothing more begins."""
        with self._beginning:
            self._is_over = True
        super().close()

    def reload_with(self, reload: Callable[[], object]) -> None:
        """Do this on SIGHUP, and at once if one has come already. OSError, NetworkError: told."""
        with self._lock:
            self._reload = reload
        if self._was_hung_up:
            self.hang_up()

    def hang_up(self) -> None:
        """SIGHUP has come: read the files again, now or as soon as the program can."""
        with self._lock:
            self._was_hung_up = self._reload is None
            reload = self._reload or (lambda: None)
        try:
            reload()
        except (OSError, NetworkError) as error:
            complain(f"not all was read again: {error}")


def run(program: Callable[[Running], int]) -> int:
    """Run a program until it ends by itself, or by Ctrl-C or SIGTERM. Returns the exit code.

    SIGHUP makes it read its files again; from a terminal that is closed, it ends the program. The
    program runs in a thread of its own, and this thread waits for a signal. (A handler would run
    only when the main thread gets to it, and a signal that comes just before a blocking call would
    be slept over.)
    """
    _open_standard_files()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # inherited by every thread
    if signal.sigpending() & {signal.SIGINT, signal.SIGTERM}:  # while Python still imported
        return SUCCESS
    running = Running()
    codes: list[int] = []
    body = threading.Thread(target=_run_body, args=(program, running, codes), daemon=True)
    has_terminal = any(map(os.isatty, (0, 1, 2)))
    with _terminal_as_it_was():
        try:
            body.start()
        except RuntimeError as error:  # the system gives no further thread
            complain(str(error))
            return FAILURE
        while signal.sigwait(_SIGNALS) == signal.SIGHUP and not has_terminal:
            running.hang_up()
        tell_manager("STOPPING=1")
        if not codes and is_terminal():
            _begin_a_row()  # what follows shall not stand behind the ^C
        closer = threading.Thread(target=running.close, daemon=True)
        try:
            closer.start()
            closer.join(CLOSING_TIMEOUT_S)
        except RuntimeError:  # the system gives no further thread
            running.close()
    code = codes[0] if codes else SUCCESS
    if closer.is_alive():
        running.kill()
        os._exit(code)  # Python's own end would wait for the same as the closer does
    return code


def _open_standard_files() -> None:
    """Those that are closed, as by `>&-`: or the next socket would be taken for one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def end() -> None:
    """Let `run` come to its end, as by a signal; from any thread."""
    os.kill(os.getpid(), signal.SIGTERM)


def tell_manager(state: str) -> None:
    """`READY=1` and the like to the service manager, if one started this program (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
            manager.send(state.encode())
    except OSError as error:
        complain(f"the service manager cannot be told {state}: {error.strerror}")


def _run_body(program: Callable[[Running], int], running: Running, codes: list[int]) -> None:
    code = FAILURE
    try:
        code = program(running)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else SUCCESS
    finally:
        codes.append(code)
        end()


def _begin_a_row() -> None:
    """On the terminal; unless it is held, or was closed just now."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, b"\n")


@contextlib.contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """`input` changes the terminal while it waits, and may still be waiting at the end."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:  # it is none
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it was closed
            termios.tcsetattr(0, termios.TCSANOW, before)


def wait_for_ever() -> NoReturn:
    """Until the program is ended by a signal."""
    while True:
        threading.Event().wait()
