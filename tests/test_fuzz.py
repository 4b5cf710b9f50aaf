"""A short run of each target of `fuzz.py`; hours of it are one command."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT

SECONDS = 20


@pytest.mark.parametrize("target", ["frames", "node", "config"])
def test_fuzzing_finds_nothing(tmp_path: Path, target: str) -> None:
    fuzz = str(ROOT / "tests" / "fuzz.py")
    command = [sys.executable, fuzz, target, "--seconds", str(SECONDS)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
