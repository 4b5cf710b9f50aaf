"""Waiting and ports: what every test needs and no program has to do with."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 40.0  # far above what anything takes; a busy machine must not fail a test
STOP_LIMIT_S = 2.0 + 2.0  # the contract's 2 s, and as much again for a machine that is busy


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


def free_port(host: str = "127.0.0.1") -> int:
    """A port that the test can give to a program, and again to the next after that has ended.

    A connection is made and closed on it. While that is in TIME_WAIT the system gives the port to
    nobody who asks for just any port, and still to a listener that names it (with SO_REUSEADDR, as
    every server does), so tests that run at the same time cannot take each other's ports.
    """
    return _reserve(host, 0)


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    while True:
        first = free_port()
        try:
            for port in range(first + 1, first + count):
                with socket.socket() as probe:  # without SO_REUSEADDR: not if anybody has it
                    probe.bind(("127.0.0.1", port))
                _reserve("127.0.0.1", port)
        except (OSError, OverflowError):  # somebody has one of them, or there are no more
            continue
        return first


def _reserve(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
        given = int(listener.getsockname()[1])
        with socket.create_connection((host, given)) as dialler:
            accepted, _ = listener.accept()
            accepted.close()  # who closes first is the one left in TIME_WAIT
            dialler.recv(1)
    return given


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
