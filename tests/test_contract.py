"""What a network does for those who use it, over real sockets and in the simulator alike."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import pytest

from helpers import free_port, wait_until
from inhabitants import Onlooker, SimulatedPeer
from messages import Address, stream_name
from programs import Program, Programs
from relays import Relay
from settings import Tunables
from streams import Gap
from wire import Run
from world import World

Heard = tuple[int, int, bytes]  # the peer that said it, its number, the payload

PATIENCE_S = 120.0  # in virtual time


class Network(ABC):
    """One seed, and peers numbered from 0 in the order in which they join."""

    @abstractmethod
    def join(self) -> int:
        """Start another peer."""

    @abstractmethod
    def say(self, peer: int, *payloads: bytes) -> None:
        """Broadcast these messages."""

    @abstractmethod
    def heard(self, peer: int) -> list[Heard]:
        """What the application of a peer was given, in order."""

    @abstractmethod
    def neighbours(self, peer: int) -> set[int]:
        """Whom it holds a link to now."""

    @abstractmethod
    def listed(self) -> set[int]:
        """Whom the seed takes for live."""

    @abstractmethod
    def crash(self, peer: int) -> None:
        """Kill it as a power cut would."""

    @abstractmethod
    def cut(self) -> None:
        """From now on nothing passes between any two peers, though no link is closed."""

    @abstractmethod
    def heal(self) -> None:
        """All can reach each other again."""

    @abstractmethod
    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Let time pass until the condition holds."""


class RealNetwork(Network):
    """Processes; every connection to a peer goes through a relay."""

    def __init__(self, programs: Programs, relays: contextlib.ExitStack) -> None:
        self._programs = programs
        self._stack = relays
        self._seed = programs.seed()
        self._peers: list[Program] = []
        self._relays: list[Relay] = []

    def join(self) -> int:
        port = free_port()
        relay = self._stack.enter_context(Relay(port))
        self._relays.append(relay)
        self._peers.append(self._programs.peer("--advertise", relay.address, port=port))
        return len(self._peers) - 1

    def say(self, peer: int, *payloads: bytes) -> None:
        self._peers[peer].say(*payloads)

    def heard(self, peer: int) -> list[Heard]:
        return [(self._number(o), seq, said) for o, seq, said in self._peers[peer].heard()]

    def neighbours(self, peer: int) -> set[int]:
        return set(map(self._number, self._peers[peer].neighbours()))

    def listed(self) -> set[int]:
        registered: set[int] = set()
        for event in list(self._seed.events):
            if event["event"] == "peer_registered":
                registered.add(self._number(event["peer"]))
            elif event["event"] == "peer_removed":
                registered.discard(self._number(event["peer"]))
        return registered

    def crash(self, peer: int) -> None:
        self._peers[peer].kill()

    def cut(self) -> None:
        for relay in self._relays:
            relay.hold()

    def heal(self) -> None:
        for relay in self._relays:
            relay.release()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what=what)

    def _number(self, address: str) -> int:
        return [relay.address for relay in self._relays].index(address)


class Listener(Onlooker):
    """Notes what every application is given."""

    def __init__(self) -> None:
        self.given: dict[Address, list[tuple[Address, int, bytes]]] = {}

    def heard(self, peer: SimulatedPeer, item: Run | Gap, _: int) -> None:
        assert isinstance(item, Run), f"{peer.address} lacks {item}"
        given = self.given.setdefault(peer.address, [])
        for number, payload in enumerate(item.payloads(), start=item.first):
            given.append((stream_name(item.stream).origin, number, bytes(payload)))


class SimulatedNetwork(Network):
    """The same nodes in virtual time."""

    def __init__(self) -> None:
        self._world = World(1, Tunables())
        self._listener = Listener()
        self._world.onlookers.append(self._listener)
        self._peers: list[SimulatedPeer] = []

    def join(self) -> int:
        address = Address(f"10.0.0.{len(self._peers) + 1}", 6000)
        self._peers.append(self._world.start_peer(address))
        return len(self._peers) - 1

    def say(self, peer: int, *payloads: bytes) -> None:
        for payload in payloads:
            self._peers[peer].say(payload)

    def heard(self, peer: int) -> list[Heard]:
        given = self._listener.given.get(self._peers[peer].address, [])
        return [(self._number(origin), seq, payload) for origin, seq, payload in given]

    def neighbours(self, peer: int) -> set[int]:
        return set(map(self._number, self._peers[peer].links))

    def listed(self) -> set[int]:
        [seed] = self._world.seeds
        return {n for n, peer in enumerate(self._peers) if peer.address in seed.directory}

    def crash(self, peer: int) -> None:
        self._world.crash(self._peers[peer])

    def cut(self) -> None:
        self._world.cut({peer.address: side for side, peer in enumerate(self._peers, start=1)})

    def heal(self) -> None:
        self._world.heal()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline_s = self._world.now_s + PATIENCE_S
        while not condition():
            assert self._world.now_s < deadline_s, f"never came: {what}"
            self._world.run_until(self._world.now_s + 0.1)

    def _number(self, address: Address) -> int:
        return [peer.address for peer in self._peers].index(address)


@pytest.fixture(params=["sockets", "simulator"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network without peers, in either form."""
    if request.param == "simulator":
        yield SimulatedNetwork()
        return
    programs = request.getfixturevalue("programs")
    with contextlib.ExitStack() as relays:
        yield RealNetwork(programs, relays)
        programs.close()


def joined(network: Network, count: int) -> list[int]:
    """So many peers, once they are one network."""
    peers = [network.join() for _ in range(count)]
    network.wait(lambda: is_one(network, peers), f"{count} peers in one network")
    return peers


def is_one(network: Network, peers: list[int]) -> bool:
    """Whether everybody is reached from the first, over links that both ends hold."""
    links = {peer: network.neighbours(peer) for peer in peers}
    seen, ahead = set(), [peers[0]]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += [there for there in links[here] if here in links.get(there, ())]
    return seen == set(peers)


def wait_for(network: Network, peer: int, said: dict[int, list[bytes]]) -> None:
    """Wait until a peer was given all of this by others, each in order, and nothing else."""
    wanted = [(o, n, text) for o in sorted(said) for n, text in enumerate(said[o], 1) if o != peer]
    network.wait(
        lambda: len(network.heard(peer)) >= len(wanted), f"all that peer {peer} is to hear"
    )
    by_origin = sorted(network.heard(peer), key=lambda heard: heard[0])  # keeps each one's order
    assert by_origin == wanted


def test_peers_that_join_become_one_network_and_are_listed(network: Network) -> None:
    peers = joined(network, 4)
    network.wait(lambda: network.listed() == set(peers), "all peers on the seed's list")


def test_what_one_says_is_heard_by_all_others_once(network: Network) -> None:
    peers = joined(network, 4)
    network.say(1, b"hello", b"\xc3\xa4 is two bytes")
    for peer in peers:
        wait_for(network, peer, {1: [b"hello", b"\xc3\xa4 is two bytes"]})


def test_what_each_says_is_heard_in_its_order(network: Network) -> None:
    peers = joined(network, 3)
    said = {peer: [b"%d of %d" % (number, peer) for number in range(200)] for peer in peers}
    for peer in peers:
        network.say(peer, *said[peer])
    for peer in peers:
        wait_for(network, peer, said)


def test_a_late_joiner_is_given_what_was_said_before(network: Network) -> None:
    joined(network, 2)
    said = {0: [b"first", b"second"], 1: [b"third"]}
    for peer, payloads in said.items():
        network.say(peer, *payloads)
    for peer in said:
        wait_for(network, peer, said)
    wait_for(network, network.join(), said)


def test_what_is_said_into_a_cut_is_heard_once_it_is_healed(network: Network) -> None:
    peers = joined(network, 3)
    network.cut()
    network.wait(lambda: not any(map(network.neighbours, peers)), "nobody with a neighbour")
    said = {peer: [b"%d alone" % peer] for peer in peers}
    for peer in peers:
        network.say(peer, *said[peer])
    assert not any(map(network.heard, peers))
    network.heal()
    for peer in peers:
        wait_for(network, peer, said)
    network.wait(lambda: is_one(network, peers), "one network again")


def test_who_crashes_is_dropped_by_all_and_the_others_go_on(network: Network) -> None:
    *others, lost = joined(network, 4)
    network.say(lost, b"farewell")
    for peer in others:
        wait_for(network, peer, {lost: [b"farewell"]})
    network.crash(lost)
    network.wait(lambda: is_one(network, others), "one network without it")
    network.wait(
        lambda: not any(lost in network.neighbours(peer) for peer in others), "no link to it"
    )
    network.wait(lambda: network.listed() == set(others), "a list without it")
    network.say(others[0], b"we go on")
    for peer in others:
        wait_for(network, peer, {lost: [b"farewell"], others[0]: [b"we go on"]})
