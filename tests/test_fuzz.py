"""A short run of each target of `fuzz.py`; hours of it are one command."""

import contextlib
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

TARGETS = ["frames", "node", "config"]
SECONDS = 60
GENTLY = ["nice", "-n", "10"]  # all at once, beside other tests, which shall not be held up


def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    fuzz = str(ROOT / "tests" / "fuzz.py")
    with contextlib.ExitStack() as stack:
        running = {}
        for target in TARGETS:
            command = [*GENTLY, sys.executable, fuzz, target, "--seconds", str(SECONDS)]
            folder = tmp_path / target  # what is found stays there
            folder.mkdir()
            process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
            running[target] = stack.enter_context(process)
            stack.callback(process.kill)
        told = {target: process.communicate()[1] for target, process in running.items()}
    for target, process in running.items():
        assert process.returncode == 0, f"{target}, in {tmp_path}:\n{told[target][-3000:]}"
