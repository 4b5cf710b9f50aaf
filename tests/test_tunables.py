"""Tunables that cannot work together are refused, with the relation that they break."""

import pytest

from settings import Tunables


@pytest.mark.parametrize(
    ("values", "relation"),
    [
        ({"out_links": 0}, "out_links: expected more than 0"),
        ({"lease_s": -1.0}, "lease_s: expected more than 0"),
        ({"out_links": 13}, "out_links <= max_links"),
        ({"renew_interval_s": 90.0}, "renew_interval_s < lease_s"),
        ({"first_backoff_s": 61.0}, "first <= longest back-off"),
        ({"parent_overlap_s": 5.5}, "overlap <= beacon interval"),
        ({"missed_beacons_stale": 1}, "missed_beacons_stale >= 2"),
        ({"tick_interval_s": 0.6}, "tick interval <= own lateness"),
    ],
    ids=str,
)
def test_tunables_that_cannot_work_are_refused(values: dict[str, float], relation: str) -> None:
    with pytest.raises(ValueError, match=relation):
        Tunables(**values)  # type: ignore[arg-type]


def test_tunables_that_work_need_not_be_the_usual_ones() -> None:
    assert Tunables(parent_overlap_s=5.0, tick_interval_s=0.5, max_links=4).max_links == 4
