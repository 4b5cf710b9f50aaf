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
    assert figures["kills"] + figures["stops"] + figures["cuts"] + figures["leaves"] > 5
    assert figures["messages"] > 100
