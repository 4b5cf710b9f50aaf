"""Thousands of small networks under faults keep every promise, and settle when the faults stop."""

import pytest

from schedules import Schedule
from simulate import BrokenPromise

SCHEDULES = 2000
PER_TEST = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, PER_TEST))
def test_promises_hold_under_faults_and_the_network_settles_afterwards(first: int) -> None:
    for number in range(first, first + PER_TEST):
        try:
            Schedule(number).run()
        except AssertionError as error:
            pytest.fail(f"{error}\nto see it again: python3 tests/schedules.py {number}")


def test_the_same_number_gives_the_same_run() -> None:
    first, second, other = Schedule(7), Schedule(7), Schedule(8)
    for schedule in (first, second, other):
        schedule.run()

    assert first.world.trace == second.world.trace != other.world.trace


def test_a_peer_that_forgets_to_trim_a_run_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.Run.after", lambda run, _: run)

    def run_some() -> None:
        for number in range(PER_TEST):
            Schedule(number).run()

    with pytest.raises(BrokenPromise):
        run_some()
