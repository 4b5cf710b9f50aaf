"""The cables of hosts.py: packets pass through this program, which is what the weather is.

    python3 tests/cables.py COUNT SEED

It makes a network device for each of so many hosts (`cable0`, `cable1`, ...; whoever started it
puts them where they belong), says "ready", and then passes each packet on to the host that it is
for: late, seldom out of order, or not at all. No kernel has to know a thing about that. A line
`cut N` or `mend N` on its standard input is answered by the same line, once it is so. It ends with
its standard input.
"""

import fcntl
import heapq
import os
import random
import selectors
import struct
import sys
import time

NETWORK = "10.77.0."  # host N has the address N + 1 in it
DELAY_S = (0.010, 0.020)  # one way; within a cable the later packet comes later,
OVERTAKING = 0.01  # but for this fraction, which is not delayed at all
LOST = 0.01
BYTES_PER_S = 50_000_000 / 8
LONGEST_QUEUE_S = 0.1  # who waits longer for the slow cable is dropped, as a switch does it
BURST = 64  # packets taken from one host before others have their turn

WEATHER = (
    f"{1000 * DELAY_S[0]:g} to {1000 * DELAY_S[1]:g} ms, {100 * LOST:g} % lost, "
    f"{100 * OVERTAKING:g} % overtaking, {8 * BYTES_PER_S / 1e6:g} Mbit/s"
)

IPV4 = 4
LARGEST_PACKET = 1 << 16
TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h: make the device, or take it
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000  # packets, not frames; with nothing in front of them


class Cables:
    """A cable from each host to a switch; and all that is under way."""

    def __init__(self, count: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._ends = [_new_device(f"cable{host}") for host in range(count)]
        self._is_cut = [False] * count
        self._free_s = [0.0] * count  # when the cable has sent what it was given so far
        self._last_s = [0.0] * count  # when the last of that arrives
        self._under_way: list[tuple[float, int, int, bytes]] = []  # when, order, for whom, what
        self._count = 0

    def run(self) -> None:
        """Pass packets on until standard input ends."""
        with selectors.DefaultSelector() as selector:
            for host, end in enumerate(self._ends):
                selector.register(end, selectors.EVENT_READ, host)
            selector.register(sys.stdin, selectors.EVENT_READ, None)
            while True:
                due_s = self._under_way[0][0] - time.monotonic() if self._under_way else None
                for key, _ in selector.select(None if due_s is None else max(0.0, due_s)):
                    if key.data is not None:
                        self._take(key.data)
                    elif not self._obey():
                        return
                self._deliver()

    def _obey(self) -> bool:
        """Cut or mend. False if there is nothing to come."""
        line = sys.stdin.readline()  # never two at once: whoever says one waits for the answer
        if line:
            command, host = line.split()
            self._is_cut[int(host)] = command == "cut"
            print(line, end="", flush=True)
        return bool(line)

    def _take(self, host: int) -> None:
        """What a host sends goes on its way."""
        for _ in range(BURST):
            try:
                packet = os.read(self._ends[host], LARGEST_PACKET)
            except BlockingIOError:
                return
            to = packet[19] - 1  # the last byte of an IPv4 packet's destination
            is_for_a_host = packet[0] >> 4 == IPV4 and to < len(self._ends)
            if is_for_a_host and not (self._is_cut[host] or self._is_cut[to]):
                self._send(to, packet)

    def _send(self, to: int, packet: bytes) -> None:
        """Decide when it comes, if it does."""
        now_s = time.monotonic()
        start_s = max(now_s, self._free_s[to])
        if start_s > now_s + LONGEST_QUEUE_S or self._rng.random() < LOST:
            return
        self._free_s[to] = due_s = start_s + len(packet) / BYTES_PER_S
        if self._rng.random() >= OVERTAKING:
            due_s = max(due_s + self._rng.uniform(*DELAY_S), self._last_s[to])
            self._last_s[to] = due_s
        self._count += 1
        heapq.heappush(self._under_way, (due_s, self._count, to, packet))

    def _deliver(self) -> None:
        """Give hosts what is due. What a cut meets under way is swallowed."""
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(self._under_way)
            if not self._is_cut[to]:
                os.write(self._ends[to], packet)


def _new_device(name: str) -> int:
    """A network device whose other end is the descriptor; gone when that is closed."""
    end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, -10)  # a busy machine makes no weather
    cables = Cables(int(sys.argv[1]), int(sys.argv[2]))
    print("ready", flush=True)
    cables.run()
