"""Programs whose standard input, output or error is closed, or cannot be written to."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import PATIENCE_S, free_port
from programs import Programs


def run_with(
    programs: Programs, files: str, *arguments: object, typed: bytes = b"hello\n"
) -> subprocess.CompletedProcess[bytes]:
    """A program whose standard files a shell has changed like that."""
    command = [sys.executable, *programs.arguments(*map(str, arguments))]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {files}', "sh", *command],
        cwd=programs.folder,
        env=programs.environment,
        input=typed,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("files", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("mode", ["--verbose", "--json"])
def test_a_peer_joins_and_leaves_as_ever_although_files_are_closed(
    programs: Programs, files: str, mode: str
) -> None:
    _, [listener] = programs.network(1)
    port = free_port()
    done = run_with(programs, files, "peer.py", port, "--gossip-every", 0, "--drain", mode)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    listener.wait_for("neighbour_down")
    if "<" not in files:
        listener.wait_for("message", text="hello")
    assert [line for line in programs.logged("stopped") if f":{port} " in line]


def test_a_closed_input_is_the_end_of_the_input(programs: Programs) -> None:
    """And no socket of the peer, which would have the number of the closed file, is read for it."""
    _, [listener] = programs.network(1)
    done = run_with(programs, "<&-", "peer.py", free_port(), "--gossip-every", 0, "--drain")
    assert done.returncode == 0
    assert listener.all("message") == []
    assert listener.all("neighbour_up") != []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("script", ["peer.py", "seed.py", "seedspawner.py"])
def test_an_output_that_cannot_be_written_ends_a_program_without_a_traceback(
    programs: Programs, script: str
) -> None:
    """Whether it is given its number, or asks for it."""
    for arguments in ([free_port()] if script != "seedspawner.py" else [1], []):
        typed = f"{free_port() if script != 'seedspawner.py' else 1}\n".encode()
        done = run_with(programs, "> /dev/full", script, *arguments, typed=typed)
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 1)
