"""What a node asks its driver to do; what is to be sent waits in the links' outboxes instead."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from messages import Address, Bye, Hello, Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect and say the hello; the outcome comes back as `link_up` or `dial_failed`."""

    address: Address
    hello: Hello


@dataclass(frozen=True, slots=True)
class Try:
    """Ask the accused for an echo over a fresh connection; comes back as `tried`."""

    accused: Address


@dataclass(frozen=True, slots=True)
class Close:
    """The node has let go of the link: send the last words, if any, and close the connection."""

    neighbour: Address
    last_words: Bye | None


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the seeds that this peer is dead."""

    dead: Address


@dataclass(frozen=True, slots=True)
class Notify:
    """Something a person or a program may want to know: an event of the journal."""

    event: str
    details: dict[str, Any]


@dataclass(slots=True)
class Outbox:
    """What waits to be said to one neighbour, beside the messages that it is owed."""

    messages: deque[Message] = field(default_factory=deque)
    differences: int = 0  # liveness replies in a row whose digest was not ours


Action = Dial | Try | Close | Report | Notify
