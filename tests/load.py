"""How much processor time a run takes, and how much the whole machine is asked for meanwhile.

A promise about time means little where nobody gets any: whoever reads a result has to know.
"""

import os
import resource
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE, WAITING = 3, 4  # columns of /proc/stat


class Load:
    """Processor time from now on, of this program, of whom it started, and of all."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._own_s = time.process_time()
        self._children_s = _children_s()
        self._machine_s = _machine_s()

    def figures(self, parts: dict[str, float]) -> dict[str, object]:
        """Processors used on average, once all whom it started have been waited for.

        `parts` are processor seconds of some of them by name; what is not named there and is not
        this program is the rest.
        """
        passed_s = time.monotonic() - self._began_s
        own_s = time.process_time() - self._own_s
        all_s = own_s + _children_s() - self._children_s
        parts = {**parts, "this program": own_s, "the rest": all_s - own_s - sum(parts.values())}
        return {
            "processors": os.cpu_count(),
            "used": round(all_s / passed_s, 2),
            "used by": {name: round(part_s / passed_s, 2) for name, part_s in parts.items()},
            "used on the whole machine": round((_machine_s() - self._machine_s) / passed_s, 2),
        }


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system; 0 if there is none (any more)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_S


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine_s() -> float:
    """Of everybody on this machine, since it started."""
    with open("/proc/stat") as lines:
        ticks = [int(column) for column in next(lines).split()[1:9]]  # then come guests, again
    return (sum(ticks) - ticks[IDLE] - ticks[WAITING]) / TICKS_PER_S
