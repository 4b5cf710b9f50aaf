"""Start the programs as a user does, see what they say, and leave no process behind.

Nothing here knows the inside of a program: only its arguments, what it prints, its files and its
exit code. Needs Linux, because what a program left behind is found through /proc.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE_S, ROOT, RUN_LIMIT_S, free_port, wait_until

if TYPE_CHECKING:
    from terminals import Terminal

MARK = "STARTED_BY_TEST"  # environment variable by which a program's descendants are found

Event = dict[str, Any]

EVENT_KEYS = {
    "listening": {"address"},
    "registered": {"seed"},
    "seed_unreachable": {"seed", "reason"},
    "peer_list": {"peers"},
    "neighbour_up": {"neighbour", "direction"},
    "neighbour_down": {"neighbour", "reason"},
    "suspect": {"neighbour", "reason"},
    "dead": {"neighbour", "reason"},
    "message": {"origin", "seq"},
    "direct": {"origin"},
    "gap": {"origin", "first_seq", "last_seq"},
    "isolated": set(),
    "peer_registered": {"peer", "peers"},
    "peer_removed": {"peer", "reason", "peers"},
    "dead_report": {"peer", "reporter", "verdict"},
    "serving": {"url"},
    "stopped": {"reason"},
}


class Program:
    """One running program with `--json`: what it said so far, and how to speak to it."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = " ".join([Path(arguments[0]).name, *arguments[1:]])
        self.events: list[Event] = []  # only ever grows, and only one thread adds to it
        self.stray_lines: list[str] = []  # on standard output, and no event
        self.unfinished_line = ""  # what was written of the last one
        self.stderr = ""
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own group, as from a terminal of its own
        )
        self._helpers = [
            threading.Thread(target=self._read_events, name=f"stdout of {self.name}"),
            threading.Thread(target=self._read_stderr, name=f"stderr of {self.name}"),
        ]
        for helper in self._helpers:
            helper.start()

    def _read_events(self) -> None:
        """Collect events until the program's standard output ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = parse_event(line)
            if event is None and not line.endswith(b"\n"):
                self.unfinished_line = line.decode(errors="replace")
            elif event is None:
                self.stray_lines.append(line.decode(errors="replace"))
            else:
                self.events.append(event)

    def _read_stderr(self) -> None:
        """Collect complaints until the program's standard error ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line.decode(errors="replace")

    # ---- what it said

    @property
    def address(self) -> str:
        """What others are told to dial."""
        return str(self.wait_for("listening")["self"])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def mark(self) -> int:
        """How many events there are now: an `after` for what comes next."""
        return len(self.events)

    def all(self, event: str, *, after: int = 0, **keys: object) -> list[Event]:
        """Every event of that name and with those values, from the `after`th event on."""
        said = self.events[after:]
        return [e for e in said if e["event"] == event and keys.items() <= e.items()]

    def wait_for(
        self,
        event: str,
        *,
        count: int = 1,
        after: int = 0,
        timeout_s: float = PATIENCE_S,
        **keys: object,
    ) -> Event:
        """The `count`th such event, as soon as there is one; fails if it never comes."""

        def came() -> list[Event]:
            return self.all(event, after=after, **keys)

        with self.telling_its_story():
            wait_until(
                lambda: len(came()) >= count or not self._helpers[0].is_alive(),
                what=f"{event} {keys or ''} number {count}",
                timeout_s=timeout_s,
            )
            found = came()
            assert len(found) >= count, f"ended before {event} {keys or ''} number {count}"
        return found[count - 1]

    @contextlib.contextmanager
    def telling_its_story(self) -> Iterator[None]:
        """Add to a failure what a person needs to see: what this program said last."""
        try:
            yield
        except AssertionError as error:
            last = [f"{event!r:.300}" for event in self.events[-25:]]
            story = "\n".join([f"{self.name} said last:", *last, "on stderr:", self.stderr[-3000:]])
            raise AssertionError(f"{error}\n{story}") from None

    def heard(self, origin: str | None = None) -> list[tuple[str, int, bytes]]:
        """The messages it was given, in order: (origin, seq, payload)."""
        messages = self.all("message") if origin is None else self.all("message", origin=origin)
        return [(str(e["origin"]), int(e["seq"]), body(e)) for e in messages]

    def neighbours(self) -> list[str]:
        """Whom it holds a link to now, by its own events; who is there twice is listed twice."""
        now: list[str] = []
        for event in list(self.events):
            if event["event"] == "neighbour_up":
                now.append(event["neighbour"])
            elif event["event"] == "neighbour_down" and event["neighbour"] in now:
                now.remove(event["neighbour"])
        return now

    # ---- what it is told

    def say(self, *lines: str | bytes) -> None:
        """Type lines on its standard input."""
        assert self.process.stdin is not None
        for line in lines:
            self.process.stdin.write((line if isinstance(line, bytes) else line.encode()) + b"\n")
        self.process.stdin.flush()

    def say_in_background(self, *lines: str) -> None:
        """The same, for more than it may be willing to take; what it does not take is dropped."""

        def say() -> None:
            with contextlib.suppress(BrokenPipeError):
                self.say(*lines)

        self._helpers.append(threading.Thread(target=say, name=f"stdin of {self.name}"))
        self._helpers[-1].start()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def pause(self) -> None:
        """Stop it as a debugger or a sleeping laptop would: its sockets stay, it does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """What a power cut does, as far as others on the same machine can tell."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def press_ctrl_c(self) -> None:
        """What a terminal does: the whole group in the foreground gets it, children as well."""
        os.killpg(self.process.pid, signal.SIGINT)

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended and all it said has been read."""
        with self.telling_its_story():
            wait_until(lambda: self.process.poll() is not None, what="its end", timeout_s=timeout_s)
            for helper in self._helpers:
                helper.join(PATIENCE_S)
                assert not helper.is_alive(), f"it ended, but its {helper.name} is still open"
        return self.process.returncode

    def close(self) -> None:
        """Kill it if need be, and let go of everything it had."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for helper in self._helpers:
            helper.join(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def faults(self) -> Iterator[str]:
        """What no program may do in any test, whatever the test is about."""
        if "Traceback" in self.stderr:
            yield f"{self.name}: traceback on stderr:\n{self.stderr}"
        for line in self.stray_lines:
            yield f"{self.name}: no event on standard output: {line!r}"
        was_killed = self.process.returncode == -signal.SIGKILL  # in the middle of a line, maybe
        if self.unfinished_line and not was_killed:
            yield f"{self.name}: half a line on standard output: {self.unfinished_line!r:.300}"
        for event in self.events:
            wanted = {"event", "at", "self"} | EVENT_KEYS.get(event["event"], set())
            if not wanted <= event.keys():
                yield f"{self.name}: {wanted - event.keys()} missing in {event!r:.300}"


class Programs:
    """The programs of one test: they share a folder, a list of seeds and a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.txt"
        self.log = folder / "outputfile.log"
        self.root = ROOT  # where the scripts lie
        self.are_files_named = True  # or left to the programs' defaults
        self.environment = {**os.environ, "TERM": "xterm", MARK: str(folder)}  # a folder each
        self.environment.pop("NO_COLOR", None)
        self._started: list[Program | Terminal] = []

    # ---- any program

    def arguments(self, script: str, *arguments: object) -> list[str]:
        """A command line that keeps to the test's own files."""
        files = ["--config", self.config, "--log", self.log] if self.are_files_named else []
        return [str(a) for a in [self.root / script, *arguments, *files]]

    def start(self, script: str, *arguments: object) -> Program:
        """Start a program with `--json`, and wait for nothing."""
        command = self.arguments(script, *arguments, "--json")
        program = Program(command, self.folder, self.environment)
        self._started.append(program)
        return program

    def terminal(self, script: str, *arguments: object) -> "Terminal":
        """Start a program as a person does, on a terminal, and wait for nothing."""
        from terminals import Terminal  # noqa: PLC0415  # needs a package, which benchmarks do without

        program = Terminal(self.arguments(script, *arguments), self.folder, self.environment)
        self._started.append(program)
        return program

    def run(
        self, script: str, *arguments: object, typed: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that ends by itself, with `typed` as its whole standard input."""
        done = subprocess.run(
            [sys.executable, *self.arguments(script, *arguments)],
            cwd=self.folder,
            env=self.environment,
            input=typed,
            capture_output=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in out + err, f"{script} {arguments}: {out}{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    # ---- seeds, peers and networks

    def seed(self, *arguments: object, port: int | None = None) -> Program:
        """A seed that listens and is on the list."""
        seed = self.start("seed.py", port or free_port(), *arguments)
        listed = f":{seed.port}"
        wait_until(lambda: any(e.endswith(listed) for e in self.listed()), what="the seed, listed")
        return seed

    def peer(self, *arguments: object, port: int | None = None) -> Program:
        """A peer that listens, and says nothing by itself."""
        [peer] = self.peers(1, *arguments, ports=[port or free_port()])
        return peer

    def peers(
        self, count: int, *arguments: object, ports: Iterable[int] | None = None
    ) -> list[Program]:
        """As many peers, started at once, once all of them listen."""
        chosen = [free_port() for _ in range(count)] if ports is None else ports
        quiet = () if "--gossip-every" in arguments else ("--gossip-every", 0)
        peers = [self.start("peer.py", port, *quiet, *arguments) for port in chosen]
        for peer in peers:
            peer.wait_for("listening")
        return peers

    def network(self, count: int, *arguments: object) -> tuple[Program, list[Program]]:
        """One seed and as many peers, once they are one network."""
        seed = self.seed()
        peers = self.peers(count, *arguments)
        wait_until(lambda: is_connected(peers), what=f"{count} peers in one network")
        return seed, peers

    # ---- their files

    def listed(self) -> list[str]:
        """The seeds in the config file, comments and blank lines left out."""
        lines = self.config.read_text().splitlines() if self.config.exists() else []
        entries = [line.strip() for line in lines]
        return [entry for entry in entries if entry and not entry.startswith("#")]

    def logged(self, event: str) -> list[str]:
        """The lines of the log that tell of such an event."""
        lines = self.log.read_text().split("\n") if self.log.exists() else []
        return [line for line in lines if line.split(" ")[3:4] == [event]]

    # ---- the end

    def left_behind(self) -> dict[int, str]:
        """Every process of this test that still runs, children of programs too: pid, command."""
        found = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                if folder.name.isdigit() and self._is_ours(folder):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode(errors="replace")
        return found

    def _is_ours(self, process: Path) -> bool:
        mark = f"{MARK}={self.environment[MARK]}".encode()
        return mark in (process / "environ").read_bytes().split(b"\0")

    def kill_child(self, pid: int) -> None:
        """Kill a process that a program of this test started."""
        assert pid in self.left_behind()
        os.kill(pid, signal.SIGKILL)

    def close(self) -> list[str]:
        """End whatever still runs; give what was wrong with any of it."""
        for pid in self.left_behind():  # children as well, or their pipes stay open
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in self._started:
            program.close()
        wait_until(lambda: not self.left_behind(), what="the end of all programs")
        return [fault for program in self._started for fault in program.faults()]


def parse_event(line: bytes) -> Event | None:
    """One line of standard output as an event; None if it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def body(event: Event) -> bytes:
    """The payload of a `message` or `direct` event, whichever way it is written."""
    assert ("text" in event) != ("base64" in event), f"expected text or base64: {event}"
    if "text" in event:
        return str(event["text"]).encode()
    return base64.b64decode(event["base64"], validate=True)


def is_connected(peers: list[Program]) -> bool:
    """Whether everybody is reached from the first, over the links both ends know of."""
    links = {peer.address: set(peer.neighbours()) for peer in peers}
    seen: set[str] = set()
    ahead = [peers[0].address]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += [there for there in links[here] if here in links.get(there, ())]
    return len(seen) == len(peers)
