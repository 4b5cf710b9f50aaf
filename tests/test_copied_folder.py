"""Copy the folder, and it runs: nothing to install, and its files are those beside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT, free_port, free_ports, wait_until
from programs import Programs
from visits import served, visit


@pytest.fixture
def copied(programs: Programs) -> Programs:
    """The scripts in a folder of their own, run from there and without naming any file."""
    for module in ROOT.glob("*.py"):
        shutil.copy(module, programs.folder)
    shutil.copytree(ROOT / "page", programs.folder / "page")
    programs.root = programs.folder
    programs.are_files_named = False
    return programs


def test_a_copied_folder_is_a_network(copied: Programs) -> None:
    spawner = copied.start("seedspawner.py", 2, "--base-port", free_ports(8))
    wait_until(lambda: len(copied.listed()) == 2, what="two seeds in its own config.txt")
    first, second = copied.peers(2)
    first.say("hello")
    second.wait_for("message", text="hello")
    assert copied.logged("message"), "in its own outputfile.log"
    spawner.terminate()
    assert spawner.wait() == 0
    assert copied.listed() == []


@pytest.mark.parametrize("script", ["seedspawner.py", "seed.py", "peer.py", "dashboard.py"])
def test_only_the_standard_library_is_needed(copied: Programs, script: str) -> None:
    """With -I and -S nothing that is installed can be imported, and nothing of the environment."""
    run = f"import runpy, sys; sys.path.insert(0, {str(copied.folder)!r}); sys.argv = [{script!r}, "
    run += f"'--help']; runpy.run_path({str(copied.folder / script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", run], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_no_packages() -> None:
    ours = [ROOT, *(p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("."))]
    assert [folder for folder in ours if Path(folder, "__init__.py").exists()] == []


def test_the_page_is_copied_with_it(copied: Programs) -> None:
    url = served(copied.start("dashboard.py", free_port()))
    assert visit(url).body == (ROOT / "page" / "index.html").read_bytes()
