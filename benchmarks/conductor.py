"""Starts the workers of one system, makes a network of them, and measures one workload on it."""

import dataclasses
import json
import os
import queue
import random
import subprocess
import threading
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import delays_ms
from workloads import Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DIALS = 4  # earlier peers that each peer dials
ANSWER_TIMEOUT_S = 120.0  # for one answer of every worker; a busy machine starts them slowly
WARM_UP_TIMEOUT_S = 120.0  # until everybody has heard everybody
WARM_UP_INTERVAL_S = 0.5
STOP_TIMEOUT_S = 5.0
LEAD_S = 0.2  # between the order to start and the common start


class Failed(Exception):
    """A system that could not be measured, and why."""


class Conductor:
    """The workers of one network. Close it to end all of them."""

    def __init__(self, systems: list[str], python: str) -> None:
        self._peers = peers = len(systems)
        self.addresses: list[str] = []  # by number, once connected
        self._said: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._pending: list[tuple[int, dict[str, Any]]] = []  # read, and not yet asked for
        self._workers = [self._start(python, *each) for each in enumerate(systems)]
        self._readers = [
            threading.Thread(target=self._read, args=[number], name=f"worker {number}")
            for number in range(peers)
        ]
        for reader in self._readers:
            reader.start()

    def _start(self, python: str, number: int, system: str) -> subprocess.Popen[str]:
        command = [python, str(HERE / "worker.py"), system, str(number), str(self._peers)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def _read(self, number: int) -> None:
        """Take in what one worker says, until its output ends."""
        output = self._workers[number].stdout
        assert output is not None
        for line in output:
            if line.startswith("{"):  # some systems print lines of their own
                self._said.put((number, json.loads(line)))
        self._said.put((number, {"did": "end"}))

    @property
    def pids(self) -> list[int]:
        """The processes of the workers, by number."""
        return [worker.pid for worker in self._workers]

    # ---- talking to workers ----

    def tell(self, number: int, do: str, **details: Any) -> None:
        """One order to one worker."""
        stdin = self._workers[number].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"do": do, **details}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise Failed(f"worker {number} has ended") from None

    def hear(
        self, did: str, timeout_s: float, numbers: Iterable[int] | None = None
    ) -> dict[int, dict[str, Any]]:
        """What each of these workers (None: all) answers; those in time, by number.

        Raises Failed when one of them ends instead.
        """
        awaited = set(range(self._peers) if numbers is None else numbers)
        answers: dict[int, dict[str, Any]] = {}
        deadline_s = time.monotonic() + timeout_s
        while awaited:
            number, line = self._next(did, deadline_s)
            if line["did"] == "end":
                raise Failed(f"worker {number} ended by itself")
            if line["did"] == "none":
                return answers
            if number not in awaited:
                continue
            answers[number] = line
            awaited.discard(number)
        return answers

    def _next(self, did: str, deadline_s: float) -> tuple[int, dict[str, Any]]:
        """The next line of that kind, an end, or none in time; others are kept for later."""
        for index, (number, line) in enumerate(self._pending):
            if line["did"] == did:
                del self._pending[index]
                return number, line
        while True:
            try:
                number, line = self._said.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return -1, {"did": "none"}
            if line["did"] in (did, "end"):
                return number, line
            self._pending.append((number, line))

    def ask_all(self, do: str, **details: Any) -> list[dict[str, Any]]:
        """The same order to all; their answers by number. Raises Failed if one gives none."""
        for number in range(self._peers):
            self.tell(number, do, **details)
        answers = self.hear(do, ANSWER_TIMEOUT_S)
        if len(answers) < self._peers:
            raise Failed(f"{self._peers - len(answers)} workers did not answer {do!r}")
        return [answers[number] for number in range(self._peers)]

    # ---- one measurement ----

    def connect(self) -> None:
        """Let the peers join one after the other, until everybody hears everybody."""
        addresses = self.addresses
        settle_s = 0.0
        for number, earlier in enumerate(graph(self._peers)):
            first = addresses[0] if addresses else None
            self.tell(number, "join", first=first, dial=[addresses[i] for i in earlier])
            answer = self.hear("join", ANSWER_TIMEOUT_S, [number])
            if not answer:
                raise Failed(f"worker {number} did not join")
            addresses.append(answer[number]["address"])
            settle_s = answer[number]["settle_s"]
        deadline_s = time.monotonic() + WARM_UP_TIMEOUT_S
        while min(answer["heard"] for answer in self.ask_all("warm")) < self._peers - 1:
            if time.monotonic() >= deadline_s:
                raise Failed(f"not everybody heard everybody within {WARM_UP_TIMEOUT_S:g} s")
            time.sleep(WARM_UP_INTERVAL_S)
        let_settle(settle_s)

    def measure(
        self, workload: Workload, limit_s: float, but: Container[int] = ()
    ) -> dict[str, Any]:
        """Let them say the workload; the figures once all has come, or `limit_s` has passed.

        What comes to the workers `but` is neither waited for nor counted.
        """
        [figures] = self.measure_together([workload], limit_s, but)
        return figures

    def measure_together(
        self, workloads: list[Workload], limit_s: float, but: Container[int] = ()
    ) -> list[dict[str, Any]]:
        """The same with several workloads of unlike sizes at once; the figures of each."""
        self.ask_all("prepare", workloads=[dataclasses.asdict(w) for w in workloads])
        at_s = time.monotonic() + LEAD_S
        self.ask_all("start", at_s=at_s)
        counted = [n for n in range(self._peers) if n not in but]
        expected = {n: sum(w.expected(n, self._peers) for w in workloads) for n in counted}
        self.hear("done", LEAD_S + limit_s, [n for n in counted if expected[n]])
        answers = self.ask_all("results")
        results = [answers[n] for n in counted]
        return [summary(results, index, at_s) for index in range(len(workloads))]

    def close(self) -> None:
        """Ask every worker to stop; end those that do not."""
        for number, worker in enumerate(self._workers):
            if worker.poll() is None:
                try:
                    self.tell(number, "stop")
                except Failed:
                    continue
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for worker in self._workers:
            try:
                worker.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        for worker, reader in zip(self._workers, self._readers, strict=True):
            reader.join()
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.close()
            worker.stdout.close()


@contextmanager
def network(systems: list[str], python: str) -> Iterator[Conductor]:
    """The workers of one network, one of each of these systems, ended in any case."""
    conductor = Conductor(systems, python)
    try:
        yield conductor
    finally:
        conductor.close()


def let_settle(settle_s: float) -> None:
    """Leave a new network alone for so long."""
    time.sleep(settle_s)


def graph(peers: int) -> list[list[int]]:
    """Whom each peer dials: 4 earlier ones at random, the same on every run."""
    rng = random.Random(peers)
    return [rng.sample(range(peer), min(DIALS, peer)) for peer in range(peers)]


def summary(results: list[dict[str, Any]], index: int, at_s: float) -> dict[str, Any]:
    """The figures of one workload, from what each worker counted; processor time is that of all."""
    counts = [result["workloads"][index] for result in results]
    expected = sum(count["expected"] for count in counts)
    delivered = sum(count["delivered"] for count in counts)
    elapsed_s = max(count["last_s"] for count in counts) - at_s
    cpu_s = sum(result["cpu_s"] for result in results)
    failures = [result["failure"] for result in results if result["failure"]]
    return {
        "expected": expected,
        "delivered": delivered,
        "missing": expected - delivered,
        "wrong": sum(count["wrong"] for count in counts),
        "duplicates": sum(count["duplicates"] for count in counts),
        "elapsed_s": elapsed_s if delivered else None,
        "deliveries_per_s": delivered / elapsed_s if delivered else 0.0,
        "cpu_us_per_delivery": cpu_s * 1e6 / delivered if delivered else None,
        "peak_rss_mib": max(result["peak_rss_kib"] for result in results) / 1024,
        **delays_ms([count["delays_us"] for count in counts]),
        "failure": failures[0] if failures else "",
    }
