"""A short run of `chaos.py`: real processes on five hosts under faults."""

from pathlib import Path

import pytest

import chaos
from hosts import why_not

SEED = 20261122
FAULTS_S = 15.0


@pytest.mark.timeout(300)
def test_peers_on_several_hosts_lose_nothing_while_they_are_killed_stopped_and_cut_off(
    tmp_path: Path,
) -> None:
    if reason := why_not():
        pytest.skip(f"NO CHAOS TEST: {reason}")
    figures, broken = chaos.run(FAULTS_S, peers=12, seed=SEED, folder=tmp_path)
    assert not broken, f"{figures}\n" + "\n".join(broken[:20])
    faults = sum(figures[kind] for kind in ("kills", "stops", "cuts", "leaves", "seed restarts"))
    assert faults >= 3, "a busy machine does less in the time"
    assert figures["messages"] > 50
    assert figures["load"]["used"] > 0
