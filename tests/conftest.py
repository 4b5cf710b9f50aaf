"""What every test may ask for."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from authorities import Authority
from embedding import Embedded
from helpers import free_port
from programs import Programs
from visits import served

# The same examples on every run: a failure is the same for whoever runs it again.
settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.load_profile("same-every-time")

# Who runs the tests in the background may have had Ctrl-C ignored; programs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that all tests of this process share."""
    return Authority(tmp_path_factory.mktemp("authority") / "trust")


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Path:
    """A certificate for this machine: a folder for `--tls`, not to be changed."""
    return authority.issue("localhost")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """The programs of one test, in its own folder; all are ended after it, and checked."""
    started = Programs(tmp_path)
    try:
        yield started
    finally:
        faults = started.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    """Peers and seeds inside this process; all are stopped after the test."""
    started = Embedded(tmp_path)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def url(programs: Programs) -> str:
    """The page of a dashboard without any other peer or seed."""
    return served(programs.start("dashboard.py", free_port()))
