"""Peers that are let in and do not play by the rules: what they make of what they should send.

Each manner takes the peer's honest messages to one neighbour and gives what it really sends. The
node behind it is an honest one, so an insider lies on top of what everybody does.
"""

import random
from collections.abc import Callable

from messages import Have, Holding, Message, Opinion, StreamKey
from wire import Run

Item = Message | Run
Manner = Callable[[list[Item], StreamKey], list[Item]]  # the own stream tells whose they are

FALSE_HAVE_SHARE = 0.2  # of a liar's sendings
MOST_FALSE_MESSAGES = 50  # that a liar claims to have beyond what there is


def withholding(items: list[Item], own: StreamKey) -> list[Item]:
    """Passes on no payload of others, and answers no question for it; says its own."""
    return [item for item in items if not isinstance(item, Run) or item.stream == own]


class Lying:
    """Says the opposite of its opinions, and claims to have what it has not, or nobody said."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, items: list[Item], _: StreamKey) -> list[Item]:
        return [self._told(item) for item in items]

    def _told(self, item: Item) -> Item:
        match item:
            case Opinion(accused, is_alive):
                return Opinion(accused, not is_alive)
            case Have(holdings, is_news) if self._rng.random() < FALSE_HAVE_SHARE:
                return Have(tuple(self._exaggerated(h) for h in holdings), is_news)
        return item

    def _exaggerated(self, holding: Holding) -> Holding:
        upto = holding.upto + self._rng.randint(0, MOST_FALSE_MESSAGES)
        return Holding(holding.stream, self._rng.choice([1, holding.first]), upto)
