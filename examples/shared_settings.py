"""Settings spread to all machines: set one anywhere, and it is in a file everywhere.

python3 examples/shared_settings.py [FILE]     (settings.json, if left out)

Type `name = value` to set something. The latest setting wins, whichever machine made it.
"""

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where peer.py lies

from peer import Message, Peer


class Settings:
    """What the file holds: by name, when it was set, by whom, and the value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the dict and the file
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def hear(self, message: Message) -> None:
        with suppress(ValueError):  # what is no setting is passed over
            match json.loads(message.payload):
                case [str(name), str(at), str(who), str(value)]:
                    self.take(name, [at, who, value])

    def take(self, name: str, setting: list[str]) -> None:
        """Keep the later of two; of two at the same instant, that of the greater address."""
        with self._lock:
            if setting > self.known.get(name, []):
                self.known[name] = setting
                new = self._path.with_suffix(".new")  # so that nobody reads half of the file
                new.write_text(json.dumps(self.known, indent=2))
                new.replace(self._path)


def main(path: Path) -> None:
    settings = Settings(path)
    with Peer() as peer:
        peer.on_message(settings.hear)
        for name, setting in list(settings.known.items()):  # all others may have been stopped
            peer.broadcast(json.dumps([name, *setting]).encode())
        for line in sys.stdin:
            name, _, value = (part.strip() for part in line.partition("="))
            settings.take(name, setting := [f"{time.time():020.6f}", peer.address, value])
            peer.broadcast(json.dumps([name, *setting]).encode())
        threading.Event().wait()  # the input has ended; go on until Ctrl-C


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(Path(sys.argv[1] if sys.argv[1:] else "settings.json"))
