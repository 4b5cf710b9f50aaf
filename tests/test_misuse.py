"""What a program that embeds them may get wrong: it is told so, and nothing is broken."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from embedding import Embedded
from helpers import free_port, wait_until
from peer import AddressInUse, NotRunning, Peer
from seed import Seed
from threads import Threads


def dial(address: str) -> None:
    """Raise OSError unless somebody listens there."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def new(embedded: Embedded, kind: type[Peer | Seed], **keywords: Any) -> Peer | Seed:
    """One that is not started yet."""
    return embedded.new_peer(**keywords) if kind is Peer else embedded.new_seed(**keywords)


both_kinds = pytest.mark.parametrize("kind", [Peer, Seed])


@both_kinds
@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_a_second_start_is_an_error_and_changes_nothing(
    embedded: Embedded, kind: type[Peer | Seed], is_stopped: bool
) -> None:
    program = new(embedded, kind)
    program.start()
    if is_stopped:
        program.stop()
    with pytest.raises(NotRunning, match="started before"):
        program.start()
    if is_stopped:
        with pytest.raises(OSError, match="refused"):
            dial(program.address)
    else:
        dial(program.address)


@both_kinds
def test_a_start_that_failed_may_be_tried_again(
    embedded: Embedded, kind: type[Peer | Seed]
) -> None:
    port = free_port()
    program = new(embedded, kind, port=port)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AddressInUse):
        program.start()
    program.start()
    dial(program.address)


@both_kinds
def test_a_log_that_cannot_be_written_is_an_os_error_that_leaves_nothing(
    embedded: Embedded, tmp_path: Path, kind: type[Peer | Seed]
) -> None:
    before = set(threading.enumerate())
    port, log = free_port(), str(tmp_path / "missing" / "log")
    with pytest.raises(FileNotFoundError, match="missing"):
        new(embedded, kind, port=port, log=log).start()
    with pytest.raises(OSError, match="refused"):
        dial(f"127.0.0.1:{port}")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("payload", ["text", None, 5, ["text"]])
def test_what_is_said_has_to_be_bytes(embedded: Embedded, payload: Any) -> None:
    peer = embedded.peer()
    said = f"payload: expected bytes, got {type(payload).__name__}"
    with pytest.raises(TypeError, match=said):
        peer.broadcast(payload)
    with pytest.raises(TypeError, match=said):
        peer.send(peer.address, payload)
    assert peer.broadcast(b"what it should be") == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_will_do(embedded: Embedded, kind: Any) -> None:
    assert embedded.peer().broadcast(kind(b"said")) == 1


@both_kinds
def test_ctrl_c_in_the_middle_of_a_start_leaves_no_thread_behind(
    kind: type[Peer] | type[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, count = Threads.start, 0

    def interrupted(threads: Threads, *about: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        begin(threads, *about)

    monkeypatch.setattr(Threads, "start", interrupted)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        kind(port=0, config=str(tmp_path / "config.txt"), log=None).start()
    wait_until(lambda: set(threading.enumerate()) <= before, what="the end of all threads")
