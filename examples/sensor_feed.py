"""A sensor feed into SQLite: no reading is lost or stored twice, whoever is killed and restarted.

python3 examples/sensor_feed.py sense|collect FILE.db     (sense: a reading per line of its input)

A reading stays in the sensor's database, and is said now and then, until a collector has stored it.
"""

import json
import sqlite3
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where peer.py lies

from peer import NetworkError, Peer

TABLE = "create table if not exists readings (id text primary key, at real, reading text)"
STORE = "insert or ignore into readings values (?, ?, ?)"
SAY_AGAIN_S = 5.0


def sense(peer: Peer, db: sqlite3.Connection) -> None:
    said_s: dict[str, float] = {}  # by id, when it was said last

    def say_what_is_owed() -> bool:
        for row in (rows := db.execute("select * from readings order by at").fetchall()):
            if time.monotonic() > said_s.get(row[0], float("-inf")) + SAY_AGAIN_S:
                said_s[row[0]] = time.monotonic()
                peer.broadcast(json.dumps(row).encode())
        return bool(rows)

    peer.on_direct(lambda _, key: db.execute("delete from readings where id = ?", [key.decode()]))
    for line in sys.stdin:
        db.execute(STORE, (uuid.uuid4().hex, time.time(), line.rstrip("\n")))
        say_what_is_owed()
    while say_what_is_owed():
        time.sleep(0.1)


def collect(peer: Peer, db: sqlite3.Connection) -> None:
    for message in peer.messages():
        with suppress(ValueError, NetworkError):  # no reading; or the sensor is away just now
            match json.loads(message.payload):
                case [str(key), float(at), str(reading)]:
                    db.execute(STORE, (key, at, reading))
                    peer.send(message.origin, key.encode())


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("sense", "collect"):
        sys.exit(__doc__)
    # No transactions: a statement that has returned is on the disk.
    database = sqlite3.connect(sys.argv[2], isolation_level=None, check_same_thread=False)
    database.execute(TABLE)
    with suppress(KeyboardInterrupt), Peer() as running:
        {"sense": sense, "collect": collect}[sys.argv[1]](running, database)
