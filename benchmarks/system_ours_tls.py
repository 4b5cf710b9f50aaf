"""This project with mutual TLS on every connection."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import system_ours

ROOT = Path(__file__).resolve().parent.parent


class Adapter(system_ours.Adapter):
    """The first peer makes the certificates; an address is told together with their folder."""

    def join(self, first: str | None, dial: list[str]) -> str:
        folder = first.partition(" ")[2] if first else certificates()
        self._folder_to_remove = None if first else folder
        self._options = {"tls": f"{folder}/localhost"}
        address = super().join(first, [earlier.partition(" ")[0] for earlier in dial])
        return f"{address} {folder}"

    def stop(self) -> None:
        super().stop()
        if self._folder_to_remove is not None:
            shutil.rmtree(self._folder_to_remove)


def certificates() -> str:
    """A new folder with an authority, and a certificate for this machine."""
    folder = tempfile.mkdtemp()
    for command in (["new", folder], ["issue", folder, "localhost"]):
        script = [sys.executable, str(ROOT / "trust.py")]
        subprocess.run([*script, *command], stdout=subprocess.DEVNULL, check=True)
    return folder
