"""One node in a test, its neighbours, and what it decides."""

import random
from collections.abc import Iterable
from typing import Any, TypeVar

from actions import Action, Dial, Notify
from messages import (
    PROTOCOL_VERSION,
    Address,
    Hello,
    Message,
    Refused,
    StreamKey,
    Welcome,
)
from node import Node
from overlay import Direction, Neighbour, Overlay
from pure import BOOT_MS, address, key, name
from settings import Tunables
from wire import Run

T = TypeVar("T")

ME = 50  # lower and higher numbers are peers too
LIMITS = Tunables()
STREAM = key(1000)  # of a peer that is nobody's neighbour here
OLDEST = key(1000, 0)  # a root that nobody has lived longer than


def node_of(*neighbours: int) -> Node:
    """A node that these peers have dialled; each has one link more than its number."""
    node = Node(name(ME), LIMITS, random.Random(ME), now_s=0.0)
    for neighbour in neighbours:
        come(node, neighbour, links=neighbour)
    return node


def hello(
    number: int, *, links: int = 1, boot_ms: int = BOOT_MS, root: StreamKey | None = None
) -> Hello:
    """A peer's first words; with a root they are a feeler's."""
    is_feeler = root is not None
    return Hello(PROTOCOL_VERSION, address(number), boot_ms, links, is_feeler, root or key(number))


def come(node: Node, number: int, *, links: int = 1, boot_ms: int = BOOT_MS) -> list[Action]:
    """A peer dials us and is let in; what it is told at first is taken."""
    refused, actions = node.admit(hello(number, links=links, boot_ms=boot_ms), now_s=0.0)
    assert refused is None
    node.take(address(number))
    return actions


def refusal(node: Node, words: Hello) -> Refused:
    """How the peer that says these words is refused."""
    refused, actions = node.admit(words, now_s=0.0)
    assert refused is not None
    assert actions == []
    assert words.address not in node.overlay.neighbours or words.boot_ms != BOOT_MS
    return refused


def welcomed(node: Node, number: int, links: int = 1, now_s: float = 0.0) -> list[Action]:
    """A peer that we dialled lets us in."""
    welcome = Welcome(address(number), BOOT_MS, links)
    conflict, actions = node.link_up(address(number), welcome, now_s)
    assert conflict == ""
    return actions


def receive(node: Node, number: int, *items: Message | Run, now_s: float = 0.0) -> list[Action]:
    return node.receive(address(number), items, now_s)


def said(node: Node, number: int, kind: type[T]) -> list[T]:
    """What the neighbour is told now, of that kind."""
    return [item for item in node.take(address(number)) if isinstance(item, kind)]


def of(kind: type[T], actions: Iterable[Action]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


def dialled(actions: Iterable[Action]) -> list[Address]:
    return [dial.address for dial in of(Dial, actions)]


def events(actions: Iterable[Action]) -> list[str]:
    return [notify.event for notify in of(Notify, actions)]


def details(actions: Iterable[Action], event: str) -> dict[str, Any]:
    """What there is to know of the one event of that name."""
    [found] = [notify.details for notify in of(Notify, actions) if notify.event == event]
    return found


def neighbours(node: Node) -> list[Address]:
    return sorted(node.overlay.neighbours)


def silent(node: Node, number: int, from_s: float = 0.0) -> list[Action]:
    """One neighbour says nothing until it is suspect, while all others talk."""
    actions: list[Action] = []
    for step in range(100):
        now_s = from_s + step / 20
        for other in neighbours(node):
            if other != address(number):
                node.receive(other, [], now_s)
        actions += node.tick(now_s)
        actions += node.test_liveness(address(number), now_s)
        if "suspect" in events(actions):
            break
    return actions


# ---- an overlay alone ----------------------------------------------------------------------------


def overlay_of(seed: int = 1, silent: Iterable[int] = ()) -> Overlay:
    """The overlay of a peer that knows nobody; those neighbours will be silent."""
    silent_ones = [address(number) for number in silent]
    return Overlay(address(ME), LIMITS, random.Random(seed), 0.0, lambda: silent_ones)


def link(
    overlay: Overlay,
    number: int,
    direction: Direction = Direction.OUT,
    boot_ms: int = 1,
    links: int = 4,
) -> None:
    """A link to that peer is up."""
    overlay.linked(address(number), Neighbour(direction, boot_ms, links, since_s=0.0))
