"""On what a measurement was made, the report of it, and what a process costs. Needs Linux."""

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent


def described() -> dict[str, Any]:
    """The machine and the project as they are now."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": _after_colon("/proc/cpuinfo", "model name"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "commit": _commit(),
    }


@contextlib.contextmanager
def reporting(
    file: str | None, script: str, arguments: list[str], rows: list[Row], **further: object
) -> Iterator[None]:
    """Write `rows` to the file, with all there is to know about the run, when the block ends."""
    whereto = ("--json", file, f"--json={file}")  # which is nobody's business
    said = [argument for argument in arguments if argument not in whereto]
    about = {"machine": described(), "script": Path(script).stem, "arguments": said}
    report = {**about, **further, "rows": rows}
    try:
        yield
    finally:
        if file is not None:
            Path(file).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def let_pass(seconds: float) -> float:
    """Wait; give how long it really was."""
    began_s = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began_s


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def rss_kib(pid: int) -> int:
    """The memory that a process holds now."""
    return _status(pid, "VmRSS:")


def peak_rss_kib(pid: int) -> int:
    """The most memory that a process ever held. (The kernel's `ru_maxrss` counts its parent in.)"""
    return _status(pid, "VmHWM:")


def _status(pid: int, name: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition(name)[2].split()[0])


def _after_colon(file: str, name: str) -> str:
    """The value of the first line `name : value`."""
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def _commit() -> str:
    """The commit checked out; marked when the code differs from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=-modified"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
