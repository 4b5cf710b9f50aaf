"""Thousands of small networks under faults keep every promise, and settle when the faults stop."""

import os
import subprocess
import sys

import pytest

from gossip import Gossip
from helpers import ROOT
from messages import Address
from schedules import Schedule
from wire import Run
from world import BrokenPromise

SCHEDULES = 2000
PER_TEST = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, PER_TEST))
def test_promises_hold_under_faults_and_the_network_settles_afterwards(first: int) -> None:
    for number in range(first, first + PER_TEST):
        try:
            Schedule(number).run()
        except AssertionError as error:
            pytest.fail(f"{error}\nto see it again: python3 tests/schedules.py {number}")


def test_a_run_is_the_same_alone_in_a_series_and_in_any_process() -> None:
    series = told("0-30", hash_seed=1)

    assert len(set(series)) == 31
    assert told("0-30", hash_seed=2) == series
    for number in (7, 23, 30):
        assert told(str(number), hash_seed=3)[-1] == series[number]


def told(numbers: str, hash_seed: int) -> list[str]:
    """What is told of these schedules, with their traces, by a process that orders sets its way."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "schedules.py", numbers],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_a_peer_that_hands_on_a_message_twice_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hear = Gossip.hear

    def hear_again(gossip: Gossip, neighbour: Address, run: Run, now_s: float) -> int:
        stream = gossip.streams.get(run.stream)
        if stream is not None and stream is not gossip.own and run.last <= stream.upto:
            stream.upto = run.first - 1
        return hear(gossip, neighbour, run, now_s)

    monkeypatch.setattr(Gossip, "hear", hear_again)
    schedules = [Schedule(number) for number in range(10)]
    with pytest.raises(BrokenPromise):
        sum(map(Schedule.run, schedules))
