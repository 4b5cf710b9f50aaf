"""What a node asks its driver to do. Sending is not among it: that waits in the links' outboxes."""

from dataclasses import dataclass
from typing import Any

from messages import Address, Bye, Hello


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


Action = Dial | Try | Close | Report | Notify
