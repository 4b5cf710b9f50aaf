"""A network of real processes on several hosts, while peers are killed, stopped and cut off.

    python3 tests/chaos.py --minutes 60            the soak: an hour of it
    python3 tests/chaos.py --minutes 1 --seed 17   the same faults again, at the same times

All the time every peer says numbered messages, one each `--say-every` seconds. In the end every
live peer must have every message of every stream, each once and in order; no live peer within reach
may ever have been taken off a seed's list; and memory must be flat. Where no processor time is
left that cannot be asked, so the figures tell how many processors were used, by what, and on the
whole machine. Needs root; see hosts.py.
"""

import argparse
import contextlib
import json
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from cables import WEATHER
from helpers import let_pass, wait_until
from hosts import Hosts, why_not
from load import Load, cpu_s

ROOT = Path(__file__).resolve().parent.parent
SAY_INTERVAL_S = 1.0  # each message costs each peer about half a millisecond of a processor
VERDICT_S = 6.0  # a fault may be behind a verdict for so long: the tests of liveness, and a probe
SETTLED_WITHIN_S = 120.0
SAMPLE_INTERVAL_S = 5.0
MOST_GROWTH_BYTES = 64 << 20  # what the history may take

Stream = tuple[str, int]  # origin and boot time


@dataclass
class Program:
    """One place in the network: a seed or a peer on a host, in one life after another."""

    script: str
    host: int
    address: str
    process: subprocess.Popen[bytes] | None = None
    said: int = 0  # by this life
    boot_ms: int = 0
    is_stopped: bool = False
    heard: dict[Stream, int] = field(default_factory=dict)
    ill: list[tuple[float, float]] = field(
        default_factory=list
    )  # killed or stopped, from when to when
    ill_since_s: float | None = 0.0
    sizes: list[int] = field(default_factory=list)  # of this life, in bytes


class Chaos:
    """One run."""

    def __init__(
        self, hosts: Hosts, peers: int, seed: int, folder: Path, say_interval_s: float
    ) -> None:
        self._hosts = hosts
        self._say_interval_s = say_interval_s
        self._rng = random.Random(seed)
        self._folder = folder
        self._faults: list[str] = []
        self._removals: list[tuple[float, Program, dict[str, Any]]] = []  # when, by whom, the event
        self._lock = threading.Lock()  # guards what the readers add to
        self._cuts: list[list[tuple[float, float]]] = [[] for _ in range(hosts.count)]
        self._cut_since_s: list[float | None] = [None] * hosts.count
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._readers: list[threading.Thread] = []
        self._order = 0  # of what is due at the same time
        self._next_s = self._sampled_s = 0.0
        self._turn = 0  # whose it is to say something
        self.starts_s = 0.0  # processor time of all starts, until they listen
        self.counts = {"kills": 0, "stops": 0, "cuts": 0, "leaves": 0, "seed restarts": 0}
        self.messages = 0
        self._seeds = [self._place("seed.py", n % hosts.count, 5000) for n in range(3)]
        self._peers = [self._place("peer.py", n % hosts.count, 6000 + n) for n in range(peers)]
        self.growth: list[int] = []

    def _place(self, script: str, host: int, port: int) -> Program:
        return Program(script, host, f"{self._hosts.address(host)}:{port}")

    # ---- lives

    def _start(self, program: Program) -> None:
        host, port = program.address.split(":")
        command = [sys.executable, str(ROOT / program.script), port, "--host", host, "--json"]
        command += ["--config", str(self._folder / "config.txt")]
        command += ["--log", str(self._folder / "outputfile.log")]
        command += ["--gossip-every", "0"] if program.script == "peer.py" else []
        program.process = subprocess.Popen(
            self._hosts.on(program.host, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        program.said, program.boot_ms, program.heard, program.sizes = 0, 0, {}, []
        life = (program, program.process, program.heard)
        readers = [
            threading.Thread(target=self._read, args=life),
            threading.Thread(target=self._complain, args=life[:2]),
        ]
        for reader in readers:
            reader.start()
        self._readers += readers

    def _read(
        self, program: Program, process: subprocess.Popen[bytes], heard: dict[Stream, int]
    ) -> None:
        """Follow what one life tells, until it ends."""
        assert process.stdout is not None
        assert process.stdin is not None
        with process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # it was killed in the middle of a line
                    self._follow(program, heard, json.loads(line))
        with contextlib.suppress(OSError):  # what it was told last has nowhere to go
            process.stdin.close()

    def _follow(self, program: Program, heard: dict[Stream, int], event: dict[str, Any]) -> None:
        """One event of a life."""
        match event["event"]:
            case "listening":
                self._well(program)
                if program.process is not None:
                    with self._lock:
                        self.starts_s += cpu_s(program.process.pid)
            case "message":
                stream = (event["origin"], event["boot_ms"])
                expected = heard.get(stream, 0) + 1
                if event["seq"] != expected:
                    self._fault(f"{program.address} heard {event}, not number {expected}")
                heard[stream] = event["seq"]
            case "gap" | "error":
                self._fault(f"{program.address}: {event}")
            case "peer_removed":
                with self._lock:
                    self._removals.append((time.monotonic(), program, event))

    def _complain(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                if b"Traceback" in line:
                    self._fault(f"{program.address}: {line!r} {lines.read(2000)!r}")

    def _fault(self, what: str) -> None:
        with self._lock:
            self._faults.append(what)

    def _ill(self, program: Program) -> None:
        if program.ill_since_s is None:
            program.ill_since_s = time.monotonic()

    def _well(self, program: Program) -> None:
        if program.ill_since_s is not None:
            program.ill.append((program.ill_since_s, time.monotonic()))
        program.ill_since_s = None

    # ---- faults

    def _after(self, delay_s: float, do: Callable[[], None]) -> None:
        self._order += 1
        self._due.append((time.monotonic() + delay_s, self._order, do))

    def _kill(self, program: Program) -> None:
        assert program.process is not None
        self._ill(program)
        program.is_stopped = False
        program.process.kill()
        program.process.wait()
        self._after(self._rng.uniform(0.2, 6), lambda: self._start(program))

    def _stop(self, program: Program) -> None:
        assert program.process is not None
        process = program.process
        self._ill(program)
        program.is_stopped = True
        process.send_signal(signal.SIGSTOP)

        def go_on() -> None:
            if process.poll() is None and program.process is process:
                process.send_signal(signal.SIGCONT)
                program.is_stopped = False
                self._well(program)

        self._after(self._rng.uniform(0.3, 8), go_on)

    def _leave(self, program: Program) -> None:
        assert program.process is not None
        self._ill(program)
        program.process.terminate()
        try:
            code = program.process.wait(20)
        except subprocess.TimeoutExpired:
            program.process.kill()
            code = program.process.wait()
        if code:
            self._fault(f"{program.address} left with exit code {code}")
        self._after(self._rng.uniform(0.2, 4), lambda: self._start(program))

    def _cut(self, host: int) -> None:
        self._hosts.cut(host)
        self._cut_since_s[host] = time.monotonic()
        self._after(self._rng.uniform(1, 15), lambda: self._mend(host))

    def _mend(self, host: int) -> None:
        since_s = self._cut_since_s[host]
        if since_s is not None:
            self._hosts.mend(host)
            self._cuts[host].append((since_s, time.monotonic()))
            self._cut_since_s[host] = None

    def _next_fault(self) -> None:
        """One fault, at whoever is well."""
        well = [p for p in self._peers if p.ill_since_s is None]
        peer = self._rng.choice(well) if well else None
        whole = [h for h in range(self._hosts.count) if self._cut_since_s[h] is None]
        [kind] = self._rng.choices(list(self.counts), [6, 4, 2, 3, 1])
        if kind == "cuts":
            if len(whole) <= 2:
                return
            self._cut(self._rng.choice(whole))
        elif kind == "seed restarts":
            seed = self._rng.choice(self._seeds)
            if seed.ill_since_s is not None:
                return
            self._kill(seed)
        elif peer is None or len(well) <= len(self._peers) // 3:
            return
        else:
            {"kills": self._kill, "stops": self._stop, "leaves": self._leave}[kind](peer)
        self.counts[kind] += 1

    # ---- the run

    def run(self, faults_s: float) -> None:
        """Start all; faults for so long; then all are well again."""
        for program in [*self._seeds, *self._peers]:
            self._start(program)
            self._pause(0.2)
        end_s = time.monotonic() + faults_s
        fault_s = time.monotonic() + 5
        while time.monotonic() < end_s:
            if time.monotonic() >= fault_s:
                fault_s = time.monotonic() + self._rng.expovariate(1.0)
                self._next_fault()
            self._pause(0.05)
        everybody = [*self._seeds, *self._peers]
        while self._due or any(program.ill_since_s is not None for program in everybody):
            self._pause(0.05)
        while not all(peer.said for peer in self._peers):  # by this its life is known to others
            self._pause(0.05)

    def _pause(self, pause_s: float) -> None:
        """Let time pass: what is due is done, and peers say their messages."""
        end_s = time.monotonic() + pause_s
        while time.monotonic() < end_s:
            now_s = time.monotonic()
            for entry in sorted(self._due)[:1]:
                if entry[0] <= now_s:
                    self._due.remove(entry)
                    entry[2]()
            self._say(now_s)
            self._sample(now_s)
            let_pass(0.01)

    def _say(self, now_s: float) -> None:
        """Whose turn it is says a message. One after the other: all at once would be a jam."""
        turn_s = self._say_interval_s / len(self._peers)
        self._next_s = max(self._next_s, now_s - self._say_interval_s)  # one each, at the most
        while now_s >= self._next_s:
            self._next_s += turn_s
            peer = self._peers[self._turn]
            self._turn = (self._turn + 1) % len(self._peers)
            if peer.process is not None and peer.ill_since_s is None:
                peer.said += 1
                self.messages += 1
                with contextlib.suppress(OSError, ValueError):  # it is just ending
                    assert peer.process.stdin is not None
                    peer.process.stdin.write(b"number %d\n" % peer.said)
                    peer.process.stdin.flush()

    def _sample(self, now_s: float) -> None:
        """Note how large everybody is."""
        if now_s >= self._sampled_s + SAMPLE_INTERVAL_S:
            self._sampled_s = now_s
            for program in [*self._seeds, *self._peers]:
                if program.process is not None and program.ill_since_s is None:
                    program.sizes.append(_memory_bytes(program.process.pid))

    def settle(self) -> float:
        """Wait until all have all; how long that took. What is missing then is a fault."""
        began_s = time.monotonic()
        try:
            wait_until(lambda: not self._missing(), what="all for all", timeout_s=SETTLED_WITHIN_S)
        except AssertionError:
            self._faults += [f"never settled: {line}" for line in self._missing()[:10]]
        return time.monotonic() - began_s

    def _missing(self) -> list[str]:
        """Who lacks what: of streams of live peers all that was said, of others what any has."""
        furthest: dict[Stream, int] = {}
        for peer in self._peers:
            for stream, upto in list(peer.heard.items()):
                furthest[stream] = max(upto, furthest.get(stream, 0))
        lives = dict(sorted(furthest))  # the latest of each
        missing = []
        for peer in self._peers:
            own = (peer.address, lives.get(peer.address, 0))
            for stream, upto in furthest.items():
                if stream != own and peer.heard.get(stream, 0) < upto:
                    has = peer.heard.get(stream, 0)
                    missing.append(f"{peer.address} has {has} of {upto} of {stream}")
            if furthest.get(own, 0) != peer.said:
                told = furthest.get(own, 0)
                missing.append(f"{peer.address} said {peer.said}, others heard {told}")
        return missing

    def verdict(self) -> list[str]:
        """Every promise that was broken."""
        by_address = {peer.address: peer for peer in self._peers}
        for at_s, seed, event in self._removals:
            peer = by_address[event["peer"]]
            troubles = [*peer.ill, *self._cuts[seed.host], *self._cuts[peer.host]]
            well_s = min(at_s - end for begin, end in troubles if begin < at_s)
            if well_s >= VERDICT_S:
                self._faults.append(f"well for {well_s:.1f} s, and taken off a list: {event}")
        for program in [*self._seeds, *self._peers]:
            if len(program.sizes) > 6:  # those that lived for half a minute and more
                early = statistics.median(program.sizes[2:5])
                self.growth.append(int(statistics.median(program.sizes[-3:]) - early))
        if max(self.growth, default=0) > MOST_GROWTH_BYTES:
            self._faults.append(f"memory grew by {max(self.growth)} bytes")
        return self._faults

    @property
    def removals(self) -> int:
        """How many peers were taken off a seed's list, in all."""
        return len(self._removals)

    def close(self) -> None:
        for program in [*self._seeds, *self._peers]:
            if program.process is not None:
                program.process.kill()
                program.process.wait()
        for reader in self._readers:
            reader.join()


def _memory_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def run(
    faults_s: float,
    *,
    peers: int = 30,
    hosts: int = 5,
    say_interval_s: float = SAY_INTERVAL_S,
    seed: int,
    folder: Path,
) -> tuple[dict[str, Any], list[str]]:
    """One run: its figures, and every promise that was broken."""
    began_s = time.monotonic()
    load = Load()
    with Hosts(hosts, seed) as network:
        chaos = Chaos(network, peers, seed, folder, say_interval_s)
        try:
            chaos.run(faults_s)
            settled_s = chaos.settle()
            broken = chaos.verdict()
        finally:
            chaos.close()
            cables_s = network.close()
        parts = {"cables": cables_s, "starts": chaos.starts_s}
        figures = {
            "seed": seed,
            "peers": peers,
            "hosts": hosts,
            "weather": WEATHER,
            "say_interval_s": say_interval_s,
            "faults_s": faults_s,
            **chaos.counts,
            "messages": chaos.messages,
            "removals": chaos.removals,
            "settled_s": round(settled_s, 1),
            "most_growth_mib": round(max(chaos.growth, default=0) / (1 << 20), 1),
            "load": load.figures(parts),
            "wall_s": round(time.monotonic() - began_s, 1),
        }
    return figures, broken


def main() -> int:
    parser = argparse.ArgumentParser(description="Real processes on several hosts, under faults.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--peers", type=int, default=30)
    parser.add_argument("--hosts", type=int, default=5)
    parser.add_argument("--say-every", type=float, default=SAY_INTERVAL_S, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    if reason := why_not():
        print(f"chaos.py: {reason}", file=sys.stderr)
        return 2
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures, broken = run(
            60 * arguments.minutes,
            peers=arguments.peers,
            hosts=arguments.hosts,
            say_interval_s=arguments.say_every,
            seed=arguments.seed,
            folder=Path(folder),
        )
    print(json.dumps(figures, indent=2))
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
