"""Several hosts on one machine: network namespaces, cables to a switch, bad weather, cuts.

Needs root and the commands `ip` and `tc`. Everything lies in namespaces of its own, so nothing of
the machine's own network is touched, and all is gone when they are.
"""

import contextlib
import os
import shutil
import subprocess
from types import TracebackType
from typing import Self

NETEM = "delay 15ms 5ms loss 1% reorder 1% 25% rate 50mbit"
SLOW = ["tbf", "rate", "20mbit", "burst", "64kbit", "latency", "40ms"]  # where there is no netem


def why_not() -> str:
    """Why no hosts can be made here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for command in ("ip", "tc"):
        if shutil.which(command) is None:
            return f"there is no command {command} (package iproute2)"
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


class Hosts:
    """So many hosts, each with a cable to one switch."""

    def __init__(self, count: int) -> None:
        self._mark = f"p{os.getpid()}"
        self._switch = f"{self._mark}switch"
        self.count = count
        self.weather = ""

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make(self) -> None:
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "switch", "up")
        for host in range(self.count):
            name, plug = self._name(host), f"plug{host}"
            _run("ip", "netns", "add", name)
            ends = ["type", "veth", "peer", "name", plug, "netns", self._switch]
            _run("ip", "-n", name, "link", "add", "eth0", *ends)
            _run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", self._switch, "link", "set", plug, "up")
            self._set_weather(plug)
            self.mend(host)

    def _set_weather(self, plug: str) -> None:
        """Delay, loss and reordering towards the host; a slow cable where the system has none."""
        shape = ["tc", "-n", self._switch, "qdisc", "replace", "dev", plug, "root"]
        self.weather = f"netem {NETEM}"
        command = [*shape, *self.weather.split()]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            self.weather = "no netem in this kernel, so only slow cables: " + " ".join(SLOW)
            _run(*shape, *SLOW)

    def address(self, host: int) -> str:
        """What others dial."""
        return f"10.77.0.{host + 1}"

    def on(self, host: int, *command: str) -> list[str]:
        """The command, as it is to be started to run there."""
        return ["ip", "netns", "exec", self._name(host), *command]

    def cut(self, host: int) -> None:
        """Unplug the host from the switch: whatever is sent either way is swallowed."""
        _run("ip", "-n", self._switch, "link", "set", f"plug{host}", "nomaster")

    def mend(self, host: int) -> None:
        _run("ip", "-n", self._switch, "link", "set", f"plug{host}", "master", "switch")

    def close(self) -> None:
        for name in [*map(self._name, range(self.count)), self._switch]:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _name(self, host: int) -> str:
        return f"{self._mark}host{host}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
