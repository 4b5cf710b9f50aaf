"""The hosts that chaos happens on: what their cables do to packets, and what a cut does."""

import itertools
import subprocess
import sys

import pytest

from cables import DELAY_S
from hosts import Hosts, why_not

SEED = 20261122
COUNT = 2000

LISTEN = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("", 7000))
    print("ready", flush=True)
    try:
        while True:
            number, sent_s = listener.recv(100).split()
            print(number.decode(), time.monotonic() - float(sent_s), flush=True)
            listener.settimeout(1)
    except TimeoutError:
        pass
"""  # until no more comes; the clock is the same on all hosts

SPEAK = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
    for number in range(int(sys.argv[2])):
        speaker.sendto(b"%d %f" % (number, time.monotonic()), (sys.argv[1], 7000))
        time.sleep(0.0005)
"""


def speak(hosts: Hosts, count: int) -> None:
    """Host 0 sends so many numbered packets to host 1."""
    program = [sys.executable, "-c", SPEAK, hosts.address(1), str(count)]
    subprocess.run(hosts.on(0, *program), check=True)


def test_cables_delay_lose_and_reorder_and_swallow_everything_while_they_are_cut() -> None:
    if reason := why_not():
        pytest.skip(f"NO HOSTS: {reason}")
    with Hosts(2, SEED) as hosts:
        command = hosts.on(1, sys.executable, "-c", LISTEN)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
            for host in (0, 1):
                hosts.cut(host)
                speak(hosts, 50)
                hosts.mend(host)
            speak(hosts, COUNT)
            heard = [line.split() for line in listener.stdout]
    numbers = [int(number) for number, _ in heard]
    delays_s = sorted(float(delay_s) for _, delay_s in heard)
    assert 0.95 * COUNT < len(numbers) < COUNT, "some are lost, and all of what was cut off"
    assert len(set(numbers)) == len(numbers)
    overtakers = sum(late < early for early, late in itertools.pairwise(numbers))
    assert 2 < overtakers < 0.05 * COUNT
    assert delays_s[0] < DELAY_S[0] <= delays_s[len(delays_s) // 2]
