"""Waiting and ports: what every test needs and no program has to do with."""

import functools
import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 40.0  # far above what anything takes; a busy machine must not fail a test
RUN_LIMIT_S = 110.0  # of a program that ends by itself; pytest's own limit is 120
STOP_LIMIT_S = 2.0 + 2.0  # the contract's 2 s, and as much again for a machine that is busy; what
# they really take is looked at in `test_haste.py`

FIRST_PORT, SYSTEMS_FIRST_PORT = 20_000, 32_768  # Linux gives ports from there on to who wants any
STRIDE = 7919  # a prime: so ports are far from each other, and from those of other processes
_turns = itertools.count(os.getpid() * STRIDE)


def wait_until(
    predicate: Callable[[], object], *, what: str, timeout_s: float = PATIENCE_S
) -> None:
    """Return as soon as `predicate` holds; fail with `what` never came. Only this sleeps."""
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline_s, f"never came within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def let_pass(seconds: float) -> float:
    """Wait while something must *not* happen; give how long it really was."""
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() - began_s >= seconds, what="the end of a pause")
    return time.monotonic() - began_s


def free_port() -> int:
    """A port that the test can give to a program, and again to the next after that has ended.

    It is free on every address of this machine, and no port that the system gives to who asks for
    just any. A connection is made and closed on it: while that is in TIME_WAIT only who says
    SO_REUSEADDR may take it, as every server does, and this function does not. So tests that run
    at the same time cannot take each other's ports.
    """
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    while True:
        first = FIRST_PORT + next(_turns) * STRIDE % (SYSTEMS_FIRST_PORT - FIRST_PORT - count)
        try:
            for port in range(first, first + count):
                _reserve(port)
        except OSError:  # somebody has one of them
            continue
        return first


def _reserve(port: int) -> None:
    """Raises OSError if anybody has the port, or has just had it, on whatever address."""
    family, everywhere = (socket.AF_INET6, "::") if has_ipv6() else (socket.AF_INET, "0.0.0.0")
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((everywhere, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen(1)
        with socket.create_connection(("127.0.0.1", port)) as dialler:
            accepted, _ = listener.accept()
            accepted.close()  # who closes first is the one left in TIME_WAIT
            dialler.recv(1)


@functools.cache
def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
