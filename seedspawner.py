"""Starts a whole network on this machine: many seeds, and peers and a live map too if wanted.

The seeds run in this process, on ports from 5000; each peer is a process of its own. Ctrl-C ends
all.
"""

if __name__ == "__main__":  # a signal waits until the program can end as it should
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import settings
from command_line import (
    BAD_INPUT,
    FAILURE,
    Prompt,
    Running,
    answer,
    argument,
    complain,
    complain_of,
    count_number,
    parser,
    port_number,
    run,
    tell_manager,
    times,
    wait_for_ever,
)
from journal import Event
from link import Listener, advertised, reason_of
from messages import AddressInUse, BadAddress, BadCertificate, has_port
from screen import Screen
from seed import Seed
from threads import Threads
from trust import Trust

FOLDER = Path(__file__).parent
MAP_PORT = 8000
STOP_TIMEOUT_S = 1.7  # for the peers to stop by themselves; two seconds are promised for all
KILL_TIMEOUT_S = 0.1  # for a process that is being started just then
MAX_STARTING = 8  # processes at a time; more would only take each other's time
START_TIMEOUT_S = 10.0  # one that does not get ready holds up the others for so long
HELLO_INTERVAL_S = 5.0  # as peers started by hand
MAX_HELLOS_HEARD_PER_S = 200  # by all peers: everybody hears each, so it is the square that costs
SEEN_MESSAGES = 10_000  # remembered, so that one that many peers hear is shown once


def main() -> int:
    """The program. Returns its exit code."""
    return run(_program)


def _program(running: Running) -> int:
    spawner_parser = parser("Start a new network: many seeds, and peers if wanted.")
    add = spawner_parser.add_argument
    port = argument(port_number)
    add(
        "count",
        nargs="?",
        type=argument(count_number),
        metavar="COUNT",
        help="how many seeds; asked if left out",
    )
    add(
        "--base-port", type=port, default=5000, metavar="P", help="the first seed's (default: 5000)"
    )
    add("--peers", type=argument(times), default=0, metavar="N", help="also start N peers")
    add(
        "--peer-base-port",
        type=port,
        default=6000,
        metavar="P",
        help="the first peer's (default: 6000)",
    )
    add(
        "--map",
        type=port,
        nargs="?",
        const=MAP_PORT,
        metavar="PORT",
        help=f"also serve the live map, at http://localhost:PORT (default: {MAP_PORT})",
    )
    arguments = spawner_parser.parse_args()
    if arguments.count is None:
        arguments.count = answer(Prompt("How many seeds", 3), count_number, arguments.json)
    if fault := _fault_of(arguments):
        spawner_parser.error(fault)
    network = Network(arguments)
    running.begin(network.start, network.stop)
    running.kill_with(network.kill)
    network.fill()
    running.reload_with(network.reload)
    tell_manager("READY=1")
    wait_for_ever()


@dataclass(slots=True, eq=False)
class Child:
    """A peer or a dashboard, in a process of its own."""

    process: subprocess.Popen[bytes]
    program: str
    host: str
    port: int
    is_starting: bool = True  # it has not said a word, so it has begun nothing


class Network:
    """All that one run of the spawner has started."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._screen = Screen(arguments.json, names_self=True)
        self._threads = Threads("spawner", lambda name: complain(f"a fault in the thread {name}"))
        self._stopping = threading.Event()
        self._seeding = threading.Lock()  # held while a seed starts; guards the seeds
        self._seeds: list[Seed] = []
        self._lock = threading.Lock()  # guards what follows; nothing is shown while it is held
        self._has_room = threading.Condition(self._lock)  # one more may start
        self._children: list[Child] = []
        self._starting = 0
        self._seen: deque[tuple[str, int]] = deque(maxlen=SEEN_MESSAGES)

    def start(self) -> None:
        """Begin a new network: empty its files, once everything else has proven good."""
        arguments = self._arguments
        with _explaining_faults():
            _check_addresses(arguments)
            with open(arguments.log, "ab") as log:
                for complaint in settings.remove_all_seeds(arguments.config):
                    complain(complaint)
                log.truncate(0)

    def fill(self) -> None:
        """Start its seeds, then its map and its peers; none once it is told to stop."""
        arguments = self._arguments
        with _explaining_faults():
            self._start_seeds()
        if arguments.map is not None:  # before the peers, so that they are seen to come
            self._start_process("dashboard", "localhost", count(arguments.map))
        peer_ports = count(arguments.peer_base_port)
        hello = ["--gossip-every", f"{hello_interval_s(arguments.peers):g}"]
        for _ in range(arguments.peers):
            self._start_process("peer", arguments.host, peer_ports, hello)

    def reload(self) -> None:
        """Let every seed and peer read its files again."""
        for seed in list(self._seeds):
            seed.reload()
        for child in list(self._children):
            child.process.send_signal(signal.SIGHUP)

    def stop(self, reason: str) -> None:
        """End every peer and every seed; within two seconds no process is left.

        Whoever hangs by then is killed. Nothing here waits for somebody to read what is shown.
        """
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        with self._lock:
            self._stopping.set()
            self._has_room.notify_all()
        for child in self._children:
            child.process.kill() if child.is_starting else child.process.terminate()
        try:
            self._threads.start("stop seeds", self._stop_seeds, reason)
        except OSError:  # the system gives no further thread
            self._stop_seeds(reason)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline_s - time.monotonic()))
        for child in self._children:
            child.process.kill()
        for child in self._children:
            child.process.wait()
        self._threads.join(deadline_s)

    def kill(self) -> None:
        """End every process at once: there was no time to do it well."""
        self._stopping.set()
        is_mine = self._lock.acquire(timeout=KILL_TIMEOUT_S)  # so that none is being started
        for child in list(self._children):
            child.process.kill()
        if is_mine:
            self._lock.release()

    def _stop_seeds(self, reason: str) -> None:
        """All at once, for each may have to wait for peers that hang."""
        with self._seeding:
            seeds = list(self._seeds)
        self._threads.each("stop a seed", lambda seed: seed.stop(reason), seeds, len(seeds))

    def _start_seeds(self) -> None:
        arguments = self._arguments
        ports = count(arguments.base_port)
        while len(self._seeds) < arguments.count:
            seed = Seed(
                port := _next_port(ports),
                arguments.host,
                advertise=arguments.advertise,
                config=arguments.config,
                log=arguments.log,
                on_event=self._screen.show,
                tls=arguments.tls,
            )
            with self._seeding:
                if self._stopping.is_set():
                    return
                try:
                    seed.start()
                    self._seeds.append(seed)
                except AddressInUse:
                    self._say_skipped(port)

    def _say_skipped(self, port: int) -> None:
        self._screen.say(f"port {port} is in use: skipped")

    def _start_process(
        self, program: str, host: str, ports: Iterator[int], further: Sequence[str] = ()
    ) -> None:
        """A peer or a dashboard, on the next of the ports that is free at the host."""
        port = self._next_free_port(host, ports)
        arguments = self._arguments
        command = [sys.executable, str(FOLDER / f"{program}.py"), str(port), "--json", *further]
        command += ["--host", arguments.host]
        command += ["--config", arguments.config, "--log", arguments.log]
        command += ["--advertise", arguments.advertise] if arguments.advertise else []
        command += ["--verbose"] if arguments.verbose else []
        command += ["--tls", arguments.tls] if arguments.tls else []
        try:
            child = self._started(command, program, host, port)
        except OSError as error:  # the system gives no further process
            self._screen.say(f"the {program} on port {port} cannot be started: {reason_of(error)}")
            return
        if child is None:
            return
        try:
            self._threads.start(f"{program} {port}", self._look_after, child, ports, further)
        except OSError as error:
            self._screen.say(f"nobody can look after port {port}: {reason_of(error)}")
            child.process.kill()
            self._look_after(child, ports, further)

    def _started(self, command: list[str], program: str, host: str, port: int) -> Child | None:
        """The process, once not too many others are starting; None once told to stop."""
        with self._lock:
            self._has_room.wait_for(self._may_start, START_TIMEOUT_S)
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            child = Child(process, program, host, port)
            self._children.append(child)
            self._starting += 1
            return child

    def _may_start(self) -> bool:
        return self._starting < MAX_STARTING or self._stopping.is_set()

    def _has_started(self, child: Child) -> None:
        """Or has ended before."""
        with self._lock:
            if child.is_starting:
                child.is_starting = False
                self._starting -= 1
                self._has_room.notify()

    def _next_free_port(self, host: str, ports: Iterator[int]) -> int:
        while not _is_free(host, port := _next_port(ports)):
            self._say_skipped(port)
        return port

    def _look_after(self, child: Child, ports: Iterator[int], further: Sequence[str]) -> None:
        """Show what a process reports until it ends; see to it if that was not our doing."""
        assert child.process.stdout is not None, "its output is a pipe"
        has_spoken = False
        with child.process.stdout as lines:
            for line in lines:
                if not has_spoken:
                    self._has_started(child)
                has_spoken = True
                if self._arguments.json:
                    self._screen.write(line.decode().rstrip("\n"))
                else:
                    self._show(json.loads(line))
        code = child.process.wait()
        self._has_started(child)
        if self._stopping.is_set():
            return
        if code == BAD_INPUT and not has_spoken and not _is_free(child.host, child.port):
            self._say_skipped(child.port)  # somebody was faster
            self._start_process(child.program, child.host, ports, further)
        else:
            what = f"the {child.program} on port {child.port}"
            self._screen.say(f"{what} ended with exit code {code}")

    def _show(self, event: Event) -> None:
        """What several peers tell is shown once: a link by who dialled, a message by the first."""
        if event["event"] == "neighbour_up" and event["direction"] == "in":
            return
        if event["event"] == "message":
            message = (event["origin"], event["seq"])
            with self._lock:
                if message in self._seen:
                    return
                self._seen.append(message)
        self._screen.show(event)


def hello_interval_s(peers: int) -> float:
    """How often each of so many peers on one machine says hello."""
    return max(HELLO_INTERVAL_S, peers**2 / MAX_HELLOS_HEARD_PER_S)


@contextlib.contextmanager
def _explaining_faults() -> Iterator[None]:
    """What stands in the way of a seed or its files: one line, and the exit code of bad input."""
    try:
        yield
    except OSError as error:
        complain_of(error)
        raise SystemExit(BAD_INPUT) from error
    except (BadAddress, BadCertificate) as error:
        complain(str(error))
        raise SystemExit(BAD_INPUT) from error


def _fault_of(arguments: argparse.Namespace) -> str:
    """What does not fit together; empty if all does."""
    programs = arguments.count + arguments.peers + (arguments.map is not None)
    if programs > 1 and arguments.advertise is not None and has_port(arguments.advertise):
        return (
            f"argument --advertise: expected a host alone, since {programs} programs cannot all be"
            f" at {arguments.advertise!r:.80}"
        )
    return ""


def _check_addresses(arguments: argparse.Namespace) -> None:
    """See that all can listen where they are to, and say so to others. Raises as a seed does."""
    host = arguments.host
    wanted = [(host, 0), (host, arguments.base_port)]
    wanted += [(host, arguments.peer_base_port)] if arguments.peers else []
    wanted += [("localhost", arguments.map)] if arguments.map is not None else []
    bound = []
    for where, port in wanted:
        with contextlib.suppress(AddressInUse):  # the next one will do
            listener = Listener(where, port)
            listener.close()
            bound.append(listener.address)
    trust = None if arguments.tls is None else Trust(arguments.tls)
    advertised(bound[0], arguments.advertise, trust)


def _is_free(host: str, port: int) -> bool:
    try:
        Listener(host, port).close()
    except AddressInUse:
        return False
    return True


def _next_port(ports: Iterator[int]) -> int:
    """The next one. Ends the program when there is none."""
    port = next(ports)
    if port > 65535:
        complain("expected a free port up to 65535, found none")
        raise SystemExit(FAILURE)
    return port


if __name__ == "__main__":
    sys.exit(main())
