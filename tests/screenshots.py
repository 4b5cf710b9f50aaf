"""Takes the pictures of the live map for the README: `.venv/bin/python tests/screenshots.py`.

A real network is started on the default ports; of its peers one is killed and one is stopped. Needs
chromium and chromium-driver; with pngquant the pictures are a third of the size.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from selenium.webdriver import Chrome  # noqa: E402

from browsers import browser  # noqa: E402
from helpers import ROOT, let_pass, wait_until  # noqa: E402
from programs import Programs  # noqa: E402
from visits import say, served, visit  # noqa: E402

PEERS = 24
PICTURES = {
    "map-light.png": {"scheme": "light"},
    "map-dark.png": {"scheme": "dark"},
    "map-phone.png": {"scheme": "light", "width": 390, "height": 844, "is_phone": True},
}
SAID = ["good morning, everybody", "the build is green", "lunch at noon?", "see you there"]


def main() -> None:
    """Start the network, and take every picture."""
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder))
        try:
            spawner = programs.start("seedspawner.py", 3, "--peers", PEERS, "--map")
            take_pictures(programs, served(spawner))
        finally:
            programs.close()


def take_pictures(programs: Programs, url: str) -> None:
    wait_until(lambda: len(network(url)["peers"]) == PEERS + 1, what="the whole network")
    let_pass(12)  # two beacons: the tree is what it will be
    for text in SAID:
        say(url, text)
    peers = [pid for pid, command in programs.left_behind().items() if "peer.py" in command]
    killed, stopped = peers[PEERS // 4], peers[PEERS // 2]
    programs.kill_child(killed)
    for name, how in PICTURES.items():
        with browser(**how) as page:  # type: ignore[arg-type]
            page.get(url)
            let_pass(5)
            os.kill(stopped, signal.SIGSTOP)
            wait_until(lambda: "silent" in states(url), what="a silent peer")
            take(page, url, ROOT / "extras" / name)
            os.kill(stopped, signal.SIGCONT)
            wait_until(lambda: "silent" not in states(url), what="its return")


def network(url: str) -> dict[str, Any]:
    found = visit(url, "/api/network").json
    assert isinstance(found, dict)
    return found


def states(url: str) -> list[str]:
    return [peer["state"] for peer in network(url)["peers"]]


def take(page: Chrome, url: str, file: Path) -> None:
    """A picture with a message on its way."""
    let_pass(1)
    say(url, "hello from the browser")
    let_pass(0.6)
    file.write_bytes(page.get_screenshot_as_png())
    if shutil.which("pngquant"):
        command = ["pngquant", "--force", "--strip", "--output", str(file), "128", str(file)]
        subprocess.run(command, check=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
