"""Several hosts on one machine: network namespaces, cables with bad weather, cuts.

Needs root, the command `ip`, and /dev/net/tun. Everything lies in namespaces of its own, so nothing
of the machine's own network is touched, and all is gone when they are.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from cables import NETWORK, TUN
from load import cpu_s

CABLES = Path(__file__).resolve().parent / "cables.py"


def why_not() -> str:
    """Why no hosts can be made here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no command ip (package iproute2)"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"there is no {TUN} to make cables of"
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


class Hosts:
    """So many hosts, each with a cable to one switch; the number decides what the cables lose."""

    def __init__(self, count: int, seed: int) -> None:
        self._mark = f"p{os.getpid()}"
        self._switch = f"{self._mark}switch"
        self._seed = seed
        self._cables: subprocess.Popen[bytes] | None = None
        self.count = count

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        _run("ip", "netns", "add", self._switch)
        program = [sys.executable, str(CABLES), str(self.count), str(self._seed)]
        self._cables = subprocess.Popen(
            ["ip", "netns", "exec", self._switch, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._expect(b"ready\n")
        for host in range(self.count):
            name, cable = self._name(host), f"cable{host}"
            _run("ip", "netns", "add", name)
            _run("ip", "-n", self._switch, "link", "set", cable, "netns", name)
            _run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", cable)
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "link", "set", cable, "up")

    def address(self, host: int) -> str:
        """What others dial."""
        return f"{NETWORK}{host + 1}"

    def on(self, host: int, *command: str) -> list[str]:
        """The command, as it is to be started to run there."""
        return ["ip", "netns", "exec", self._name(host), *command]

    def cut(self, host: int) -> None:
        """Cut the host's cable: whatever is sent either way is swallowed."""
        self._tell(f"cut {host}\n")

    def mend(self, host: int) -> None:
        self._tell(f"mend {host}\n")

    def _tell(self, line: str) -> None:
        assert self._cables is not None
        assert self._cables.stdin is not None
        self._cables.stdin.write(line.encode())
        self._cables.stdin.flush()
        self._expect(line.encode())

    def _expect(self, line: bytes) -> None:
        assert self._cables is not None
        assert self._cables.stdout is not None
        answer = self._cables.stdout.readline()
        if answer != line:
            raise OSError(f"cables.py: expected {line!r}, got {answer!r}")

    def close(self) -> float:
        """Take it all down; processor time that the cables took. May be called twice."""
        used_s = 0.0
        if self._cables is not None:
            used_s = cpu_s(self._cables.pid)
            self._cables.kill()
            self._cables.communicate()
            self._cables = None
        for name in [*map(self._name, range(self.count)), self._switch]:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        return used_s

    def _name(self, host: int) -> str:
        return f"{self._mark}host{host}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
