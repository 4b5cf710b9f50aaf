"""What is said in a measurement, by whom and how fast; and whether a payload is as it was said."""

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

PLAIN = struct.Struct("<HI")  # who said it, and its number
TIMED = struct.Struct("<HIQ")  # the same, and when (the machine's monotonic clock, ns)
FILLS = 61  # different texts that follow the header; a prime, so that neighbours differ
WARM_UP = b"warm-up of the peer "  # said before anything is measured; of no workload's size


@dataclass(frozen=True, slots=True)
class Workload:
    """Each speaker says `count` payloads of `size` bytes."""

    name: str
    count: int
    size: int
    speakers: str = "first"  # or "others", all but the first; or "all"
    per_s: float = 0.0  # how many a second each says; 0: as fast as it can
    is_timed: bool = False  # whether each payload carries when it was said

    def says(self, me: int) -> bool:
        return self.speakers == "all" or (self.speakers == "first") == (me == 0)

    def expected(self, me: int, peers: int) -> int:
        """How many payloads must come to this peer."""
        return sum(self.says(other) for other in range(peers) if other != me) * self.count

    def scaled(self, factor: float) -> Self:
        """The same with fewer messages."""
        return replace(self, count=max(1, round(self.count * factor)))


# The four that every system is measured with.
STANDARD = [
    Workload("a", count=200, size=100, per_s=20, is_timed=True),
    Workload("b", count=20_000, size=100),
    Workload("c", count=1_000, size=64 << 10),
    Workload("d", count=2_000, size=100, speakers="all"),
]
# How cost grows with size: as fast as can be, 20,000 messages or 64 MiB of them.
SIZES = [
    Workload(f"{size}B", count=min(20_000, (64 << 20) // size), size=size)
    for size in (10, 100, 1_000, 10_000, 100_000, 1 << 20)
]
# How delay and cost grow with the rate: so many a second, for 5 s.
RATES = [
    Workload(f"{rate}/s", count=5 * rate, size=100, per_s=rate, is_timed=True)
    for rate in (10, 100, 1_000, 3_000, 10_000)
]
WORKLOADS = {workload.name: workload for workload in [*STANDARD, *SIZES, *RATES]}
GROUPS = {
    "standard": [workload.name for workload in STANDARD],
    "sizes": [workload.name for workload in SIZES],
    "rates": [workload.name for workload in RATES],
}


def payloads(workload: Workload, me: int) -> Iterator[bytes]:
    """All that peer `me` says, in order; a timed one is stamped as it is taken."""
    header = TIMED if workload.is_timed else PLAIN
    fills = fillings(workload.size - header.size)
    for number in range(workload.count):
        fill = fills[(me + number) % FILLS]
        if workload.is_timed:
            yield TIMED.pack(me, number, time.monotonic_ns()) + fill
        else:
            yield PLAIN.pack(me, number) + fill


def fillings(size: int) -> list[bytes]:
    """What follows the header: texts of `size` bytes, each different from the next."""
    assert size >= 0, "the payload is smaller than its header"
    pattern = bytes(range(256)) * (size // 256 + 2)
    return [pattern[start : start + size] for start in range(FILLS)]


class Check:
    """Compares each payload that comes with what was said, byte for byte, and counts."""

    def __init__(self, workload: Workload, me: int, peers: int) -> None:
        self.expected = workload.expected(me, peers)
        self.delivered = 0
        self.wrong = 0  # no payload that was ever said
        self.duplicates = 0
        self.last_s = 0.0  # when the last one came
        self.delays_us: dict[tuple[int, int], float] = {}  # by sender and number, if timed
        self._size = workload.size
        self._seen = [bytearray(workload.count) for _ in range(peers)]
        self._header = TIMED if workload.is_timed else PLAIN
        self._fills = fillings(workload.size - self._header.size)

    def take(self, payload: bytes) -> bool:
        """Count one payload. True when it was the last of all that must come."""
        header = self._header
        try:
            sender, number, *said_ns = header.unpack_from(payload)
            seen = self._seen[sender]
            is_repeated = seen[number]
        except (struct.error, IndexError):
            self.wrong += 1
            return False
        fill = self._fills[(sender + number) % FILLS]
        if len(payload) != self._size or not payload.endswith(fill):
            self.wrong += 1
            return False
        if is_repeated:
            self.duplicates += 1
            return False
        seen[number] = 1
        self.delivered += 1
        self.last_s = time.monotonic()
        if said_ns:
            self.delays_us[sender, number] = (time.monotonic_ns() - said_ns[0]) / 1000
        return self.is_complete

    @property
    def is_complete(self) -> bool:
        return self.delivered == self.expected

    def result(self) -> dict[str, Any]:
        """What was counted, as the worker tells it."""
        return {
            "expected": self.expected,
            "delivered": self.delivered,
            "wrong": self.wrong,
            "duplicates": self.duplicates,
            "last_s": self.last_s,
            "delays_us": [[*key, delay_us] for key, delay_us in list(self.delays_us.items())],
        }
