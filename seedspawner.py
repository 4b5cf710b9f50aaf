"""Starts a whole network on this machine: many seeds, and peers too if wanted.

The seeds run in this process, on ports from 5000; each peer is a process of its own. Ctrl-C ends
all.
"""

if __name__ == "__main__":  # a signal waits until the program can end as it should
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
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
    count_number,
    parser,
    port_number,
    run,
    tell_manager,
    times,
    wait_for_ever,
)
from journal import Event
from link import Listener
from messages import AddressInUse, BadAddress, BadCertificate
from screen import Screen
from seed import Seed

PEER_PROGRAM = Path(__file__).with_name("peer.py")
STOP_TIMEOUT_S = 1.7  # for the peers to stop by themselves; two seconds are promised for all
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
    arguments = spawner_parser.parse_args()
    if arguments.count is None:
        arguments.count = answer(Prompt("How many seeds", 3), count_number, arguments.json)
    network = Network(arguments)
    running.callback(network.stop)
    network.start()
    running.reload_with(network.reload)
    tell_manager("READY=1")
    wait_for_ever()


class Network:
    """All that one run of the spawner has started."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._screen = Screen(arguments.json, names_self=True)
        self._seeds: list[Seed] = []
        self._lock = threading.Lock()  # guards what follows
        self._stopping = threading.Event()
        self._peer_ports = count(arguments.peer_base_port)
        self._peers: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._seen: deque[tuple[str, int]] = deque(maxlen=SEEN_MESSAGES)

    def start(self) -> None:
        """Begin a new network: empty its files, start its seeds, then its peers."""
        try:
            settings.remove_all_seeds(self._arguments.config)
            Path(self._arguments.log).write_bytes(b"")
            self._start_seeds()
        except OSError as error:
            complain(f"{error.filename}: {error.strerror}")
            raise SystemExit(BAD_INPUT) from error
        except (BadAddress, BadCertificate) as error:
            complain(str(error))
            raise SystemExit(BAD_INPUT) from error
        for _ in range(self._arguments.peers):
            self._start_peer()

    def reload(self) -> None:
        """Let every seed and peer read its files again."""
        for seed in self._seeds:
            seed.reload()
        for process in list(self._peers):
            process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End every peer and every seed; within two seconds no process is left."""
        with self._lock:
            self._stopping.set()
        for process in self._peers:
            process.terminate()
        for seed in self._seeds:
            seed.stop("told to stop")
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for process in self._peers:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join()

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
            try:
                seed.start()
                self._seeds.append(seed)
            except AddressInUse:
                self._say_skipped(port)

    def _say_skipped(self, port: int) -> None:
        self._screen.say(f"port {port} is in use: skipped")

    def _start_peer(self) -> None:
        """A peer on the next port that is free."""
        with self._lock:
            if self._stopping.is_set():
                return
            port = self._next_free_port()
            arguments = self._arguments
            command = [sys.executable, str(PEER_PROGRAM), str(port), "--json"]
            command += ["--host", arguments.host]
            command += ["--config", arguments.config, "--log", arguments.log]
            command += ["--verbose"] if arguments.verbose else []
            command += ["--tls", arguments.tls] if arguments.tls else []
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            reader = threading.Thread(target=self._read_peer, args=(process, port))
            self._peers.append(process)
            self._readers.append(reader)
            reader.start()

    def _next_free_port(self) -> int:
        while True:
            port = _next_port(self._peer_ports)
            try:
                Listener(self._arguments.host, port).close()
                return port
            except AddressInUse:
                self._say_skipped(port)

    def _read_peer(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Show what a peer reports until it ends; see to it if that was not our doing."""
        assert process.stdout is not None, "its output is a pipe"
        has_listened = False
        with process.stdout as lines:
            for line in lines:
                has_listened = True
                if self._arguments.json:
                    self._screen.write(line.decode().rstrip("\n"))
                else:
                    self._show(json.loads(line))
        code = process.wait()
        if self._stopping.is_set():
            return
        if code == BAD_INPUT and not has_listened:  # somebody was faster at that port
            self._say_skipped(port)
            self._start_peer()
        else:
            self._screen.say(f"the peer on port {port} ended with exit code {code}")

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


def _next_port(ports: Iterator[int]) -> int:
    """The next one. Ends the program when there is none."""
    port = next(ports)
    if port > 65535:
        complain("expected a free port up to 65535, found none")
        raise SystemExit(FAILURE)
    return port


if __name__ == "__main__":
    sys.exit(main())
