"""Tell me when a machine dies. Run this on every machine, and each of them tells you.

python3 examples/death_watch.py [COMMAND]

Every machine watches the few that it is linked with, and tells all others what it finds. COMMAND,
if given, is run with the dead machine's address as its argument: to send a mail, for example.
"""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where peer.py lies

from peer import Event, Message, Peer

SAME_DEATH_S = 60.0  # several machines find a death, within seconds


class Watch:
    """Alerts once for each death, however many have found it."""

    def __init__(self, command: str | None) -> None:
        self._command = command
        self._alerted_s: dict[str, float] = {}
        self.peer = Peer(on_event=self.notice, no_history=True)  # past deaths are no news
        self.peer.on_message(self.hear)

    def notice(self, event: Event) -> None:
        """Something happened here. Called, like `hear`, from one thread of the peer."""
        if event["event"] == "dead":
            self.alert(event["neighbour"])
            self.peer.broadcast(f"dead {event['neighbour']}".encode())

    def hear(self, message: Message) -> None:
        """Another machine said something."""
        verdict, _, machine = message.payload.decode(errors="replace").partition(" ")
        if verdict == "dead":
            self.alert(machine)

    def alert(self, machine: str) -> None:
        if time.monotonic() < self._alerted_s.get(machine, float("-inf")) + SAME_DEATH_S:
            return
        self._alerted_s[machine] = time.monotonic()
        print(f"{machine!a} is dead", flush=True)
        if self._command is not None:
            subprocess.run([self._command, machine], check=False)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), Watch(sys.argv[1] if sys.argv[1:] else None).peer:
        threading.Event().wait()  # until Ctrl-C
