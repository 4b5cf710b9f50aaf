"""Run a program without the right to listen on ports below 1024, whoever runs the tests."""

import ctypes
import os
import sys
from pathlib import Path

import pytest

FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE = 24, 10

needs_reserved_ports = pytest.mark.skipif(
    not FIRST_FREE.exists() or int(FIRST_FREE.read_text()) <= 1,
    reason="NOT TESTED: ON THIS MACHINE EVERYBODY MAY LISTEN ON PORT 1",
)


def main() -> None:
    """Become the program that the arguments name; fails in vain where there is no right to drop."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
