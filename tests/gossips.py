"""One gossip in a test, and what its neighbours tell it and are told."""

import random
from collections.abc import Iterable
from typing import Any

from gossip import Gossip
from limits import Refusals
from messages import (
    Address,
    Have,
    Holding,
    StreamKey,
    StreamName,
)
from pure import address, key, name, payload_of
from questions import UNKNOWN, Ways
from settings import Tunables
from streams import Gap
from wire import Run

ME = name(0)
A, B, C = address(1), address(2), address(3)  # neighbours
S, T = key(21), key(22)  # streams of peers that are not neighbours
PATIENCE_S = Tunables().want_patience_s
GAP_PATIENCE_S = Tunables().gap_patience_s
MANY_BYTES = 1 << 30


def gossip_of(
    me: StreamName = ME,
    neighbours: Iterable[Address] = (A, B, C),
    wants_history: bool = True,
    refusals: Refusals | None = None,
    ways: Ways = UNKNOWN,
    **tunables: Any,
) -> Gossip:
    """A peer's gossip and neighbours that want payload, of whom none has anything yet."""
    limits = Tunables(**tunables)
    gossip = Gossip(me, limits, random.Random(1), set(), wants_history, refusals, ways)
    for neighbour in neighbours:
        meet(gossip, neighbour)
    return gossip


def meet(gossip: Gossip, neighbour: Address) -> list[Have]:
    """A link begins, of the kind on which payload travels. Gives what the neighbour is told."""
    told = gossip.open(neighbour)
    gossip.set_eager(neighbour, True)
    return told


def announce(
    gossip: Gossip,
    who: Address,
    stream: StreamKey,
    first: int,
    upto: int,
    now_s: float = 0.0,
    is_news: bool = False,
) -> None:
    """A neighbour tells that it has the stream up to there, and still holds it from `first`."""
    gossip.neighbour_has(who, Have((Holding(stream, first, upto),), is_news), now_s)


def told(*holdings: Holding) -> list[Have]:
    """What a neighbour is told that asked for something else."""
    return [Have(holdings, is_news=False)]


def asked(gossip: Gossip) -> list[tuple[Address, StreamKey, int]]:
    """Who is to be asked now, for what follows which number of which stream."""
    wants = gossip.questions.collect()
    return [(who, item.stream, item.after) for who, want in wants for item in want.wanted]


def delivered(gossip: Gossip) -> list[tuple[StreamKey, int]]:
    """What the application is given now, each payload checked; a gap counts as nothing."""
    messages = []
    for item in gossip.inbox.collect(MANY_BYTES):
        if isinstance(item, Run):
            for number, payload in enumerate(item.payloads(), start=item.first):
                assert payload == payload_of(number)
                messages.append((item.stream, number))
    return messages


def numbers(gossip: Gossip) -> list[int]:
    return [number for _, number in delivered(gossip)]


def gaps(gossip: Gossip) -> list[Gap]:
    return [item for item in gossip.inbox.collect(MANY_BYTES) if isinstance(item, Gap)]


def sent(gossip: Gossip, neighbour: Address) -> list[tuple[StreamKey, int]]:
    """The messages that the neighbour is sent now."""
    runs = [item for item in gossip.take(neighbour, MANY_BYTES) if isinstance(item, Run)]
    return [(run.stream, number) for run in runs for number in range(run.first, run.last + 1)]
