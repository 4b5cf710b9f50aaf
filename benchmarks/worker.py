"""One peer of one system in its own process, told what to do line by line.

Started as `worker.py SYSTEM NUMBER PEERS`. Each line on standard input is a JSON object with `do`;
each line on standard output is one with `did`, and `done` comes by itself.

    do      with                       did     with
    join    first, dial                join    address, settle_s
    warm                               warm    heard: from how many others
    prepare workloads, of unlike sizes prepare
    start   at_s (monotonic)           start;  later done, once all that was expected has come
    results                            results cpu_s, peak_rss_kib; for each workload: delivered …
    stop                               stop;   then it ends
"""

import importlib
import json
import os
import resource
import sys
import threading
import time
from typing import Any

from adapter import System
from machine import cpu_s, peak_rss_kib
from workloads import WARM_UP, Check, Workload, payloads

_saying = threading.Lock()  # a line is written whole


class Worker:
    """Runs one peer, says what it is to say, and checks what comes."""

    def __init__(self, system: str, me: int, peers: int) -> None:
        module = importlib.import_module(f"system_{system}")
        self._system: System = module.Adapter(self._take)
        self._me = me
        self._peers = peers
        self._workloads: list[Workload] = []
        self._checks: dict[int, Check] = {}  # by the size of the payloads
        self._has_joined = False
        self._warm: set[bytes] = set()
        self._cpu_s = 0.0
        self._failure = ""

    def serve(self) -> None:
        """Do what each line says, until `stop` or the end of the input."""
        for line in sys.stdin:
            order = json.loads(line)
            do = order.pop("do")
            answer = getattr(self, f"do_{do}")(**order)
            say({"did": do, **(answer or {})})
            if do == "stop":
                return

    def do_join(self, first: str | None, dial: list[str]) -> dict[str, Any]:
        address = self._system.join(first, dial)
        self._has_joined = True
        return {"address": address, "settle_s": self._system.settle_s}

    def do_warm(self) -> dict[str, Any]:
        self._system.broadcast(WARM_UP + str(self._me).encode())
        return {"heard": len(self._warm)}

    def do_prepare(self, workloads: list[dict[str, Any]]) -> None:
        self._workloads = [Workload(**workload) for workload in workloads]
        self._checks = {w.size: Check(w, self._me, self._peers) for w in self._workloads}
        assert len(self._checks) == len(workloads), "workloads are told apart by their sizes"

    def do_start(self, at_s: float) -> None:
        self._cpu_s = self._spent_s()
        for workload in self._workloads:
            if workload.says(self._me):
                threading.Thread(target=self._speak, args=[workload, at_s], daemon=True).start()

    def do_results(self) -> dict[str, Any]:
        return {
            "workloads": [self._checks[workload.size].result() for workload in self._workloads],
            "cpu_s": self._spent_s() - self._cpu_s,
            "peak_rss_kib": max(map(peak_rss_kib, [os.getpid(), *self._system.helper_pids()])),
            "failure": self._failure,
        }

    def do_stop(self) -> None:
        if self._has_joined:
            self._system.stop()

    def _take(self, payload: bytes) -> None:
        """A message of another peer."""
        check = self._checks.get(len(payload))
        if check is not None:
            if check.take(payload) and all(c.is_complete for c in self._checks.values()):
                say({"did": "done"})
        elif payload.startswith(WARM_UP):
            self._warm.add(bytes(payload))
        else:
            self._failure = f"a payload of {len(payload)} bytes, which nobody said"

    def _speak(self, workload: Workload, at_s: float) -> None:
        """Say the whole workload, from the agreed instant on."""
        try:
            sleep_until(at_s)
            if not workload.per_s:
                self._system.broadcast_all(payloads(workload, self._me))
                return
            for number, payload in enumerate(payloads(workload, self._me), start=1):
                self._system.broadcast(payload)
                sleep_until(at_s + number / workload.per_s)
        except Exception as error:  # whatever the system raises is part of its result
            self._failure = f"{type(error).__name__}: {error}"

    def _spent_s(self) -> float:
        """Processor time of this process and of those that work for it, user and system."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        helpers = sum(map(cpu_s, self._system.helper_pids()))
        return usage.ru_utime + usage.ru_stime + helpers


def say(line: dict[str, Any]) -> None:
    """One line to the conductor, from any thread."""
    with _saying:
        print(json.dumps(line), flush=True)


def sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


if __name__ == "__main__":
    Worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).serve()
    os._exit(0)  # some systems leave threads behind that never end
