"""Starts a whole network on this machine: many seeds, and peers too if wanted.

The seeds run in this process, on ports from 5000; each peer is a process of its own. Ctrl-C ends
all.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import settings
from command_line import (
    BAD_INPUT,
    FAILURE,
    Prompt,
    Screen,
    answer,
    argument,
    complain,
    count_number,
    parser,
    port_number,
    run,
    times,
    wait_for_ever,
)
from journal import Event
from link import Listener
from messages import AddressInUse, BadAddress
from seed import Seed

PEER_PROGRAM = Path(__file__).with_name("peer.py")
STOP_TIMEOUT_S = 1.7  # for the peers to stop by themselves; two seconds are promised for all
SEEN_MESSAGES = 10_000  # remembered, so that one that many peers hear is shown once


def main() -> int:
    """The program. Returns its exit code."""
    return run(_program)


def _program(closing: contextlib.ExitStack) -> int:
    spawner_parser = parser("Start a new network: many seeds, and peers if wanted.")
    add = spawner_parser.add_argument
    count = argument(count_number)
    port = argument(port_number)
    add("count", nargs="?", type=count, metavar="COUNT", help="how many seeds; asked if left out")
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
    closing.callback(network.stop)
    network.start()
    wait_for_ever()


class Network:
    """All that one run of the spawner has started."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._screen = Screen(arguments.json, names_self=True)
        self._seeds: list[Seed] = []
        self._peers: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards what was seen
        self._seen: deque[tuple[str, int]] = deque(maxlen=SEEN_MESSAGES)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin a new network: empty its files, start its seeds, then its peers."""
        try:
            settings.remove_all_seeds(self._arguments.config)
            Path(self._arguments.log).write_bytes(b"")
            self._start_seeds()
        except OSError as error:
            complain(f"{error.filename}: {error.strerror}")
            raise SystemExit(BAD_INPUT) from error
        except BadAddress as error:
            complain(str(error))
            raise SystemExit(BAD_INPUT) from error
        for port in self._free_ports(self._arguments.peer_base_port, self._arguments.peers):
            self._start_peer(port)

    def stop(self) -> None:
        """End every peer and every seed; within two seconds no process is left."""
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
        for port in self._free_ports(arguments.base_port, arguments.count):
            seed = Seed(
                port,
                arguments.host,
                advertise=arguments.advertise,
                config=arguments.config,
                log=arguments.log,
                on_event=self._screen.show,
            )
            seed.start()
            self._seeds.append(seed)

    def _free_ports(self, first: int, count: int) -> Iterator[int]:
        """So many ports that can be listened on, from the first upwards; busy ones are named."""
        port = first
        while count > 0:
            if port > 65535:
                complain(f"expected {count} more free ports from {first} to 65535, found none")
                raise SystemExit(FAILURE)
            try:
                Listener(self._arguments.host, port).close()
                yield port
                count -= 1
            except AddressInUse:
                self._screen.say(f"port {port} is in use: skipped")
            port += 1

    def _start_peer(self, port: int) -> None:
        arguments = self._arguments
        command = [sys.executable, str(PEER_PROGRAM), str(port), "--json"]
        command += ["--host", arguments.host, "--config", arguments.config, "--log", arguments.log]
        if arguments.verbose:
            command.append("--verbose")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=-1
        )
        self._peers.append(process)
        reader = threading.Thread(target=self._read_peer, args=(process, port), name=f"peer {port}")
        reader.start()
        self._readers.append(reader)

    def _read_peer(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Show what a peer reports until it ends; say so if that was not our doing."""
        assert process.stdout is not None, "its output is a pipe"
        with process.stdout as lines:
            for line in lines:
                if self._arguments.json:
                    self._screen.write(line.decode().rstrip("\n"))
                else:
                    self._show(json.loads(line))
        code = process.wait()
        if not self._stopping.is_set():
            self._screen.say(f"the peer on port {port} ended with exit code {code}")

    def _show(self, event: Event) -> None:
        """A message is shown when the first peer hears it; the others would only repeat it."""
        if event["event"] == "message":
            message = (event["origin"], event["seq"])
            with self._lock:
                if message in self._seen:
                    return
                self._seen.append(message)
        self._screen.show(event)


if __name__ == "__main__":
    sys.exit(main())
