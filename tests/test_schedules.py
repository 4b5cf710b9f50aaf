"""Thousands of small networks under faults keep every promise, and settle when the faults stop."""

import pytest

from gossip import Gossip
from messages import Address
from promises import BrokenPromise
from schedules import Schedule
from wire import Run

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


def test_a_peer_that_hands_on_a_message_twice_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hear = Gossip.hear

    def hear_again(gossip: Gossip, neighbour: Address, run: Run, now_s: float) -> int:
        stream = gossip.streams.get(run.stream)
        if stream is not None and stream is not gossip.own and run.last <= stream.upto:
            stream.upto = run.first - 1
        return hear(gossip, neighbour, run, now_s)

    monkeypatch.setattr(Gossip, "hear", hear_again)
    with pytest.raises(BrokenPromise):
        Schedule(0).run()
