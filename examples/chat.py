"""A chat: everyone who runs this sees what everyone else types. Ctrl-D leaves.

python3 examples/chat.py NAME
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where peer.py lies

from peer import Message, Peer


def show(message: Message) -> None:
    """Somebody said something; what is no line of a chat is passed over."""
    with suppress(ValueError):
        match json.loads(message.payload):
            case [str(name), str(text)]:
                print(f"{name}: {text}" if text.isprintable() else f"{name}: {text!r}", flush=True)


def main(name: str) -> None:
    with Peer() as peer:  # it finds the others by the seeds in config.txt
        peer.on_message(show)
        for line in sys.stdin:
            peer.broadcast(json.dumps([name, line.rstrip("\n")]).encode())
        while peer.neighbours() and not peer.is_heard():  # stay until all have the last words
            time.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected one argument: your name")
    with suppress(KeyboardInterrupt):
        main(sys.argv[1])
