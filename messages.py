"""The words of the protocol: addresses, streams, and every message that travels.

Plain values with their meaning, and the errors of the whole project. How they look as bytes is the
business of `wire.py`.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, NewType, Self

PROTOCOL_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 20  # one message of the application


class NetworkError(Exception):
    """Every error that this project raises to a program that uses it."""


class MessageTooLarge(NetworkError):
    """The payload is longer than `MAX_PAYLOAD_BYTES`; nothing was sent."""


class NotRunning(NetworkError):
    """The peer or seed was not started, or is stopped; or it is started a second time."""


class AddressInUse(NetworkError):
    """Another process listens on that port already."""


class BadAddress(NetworkError, ValueError):
    """The text is no `host:port`, or the host has no such address."""


class PortForbidden(BadAddress):
    """The system lets this program not listen on that port; another one may do."""


class BadCertificate(NetworkError, ValueError):
    """The folder of certificates lacks something, or what it holds is not good."""


class BroadcastTimeout(NetworkError):
    """Others stayed far behind, or too much was said, for the whole time-out; nothing was sent."""


class WireError(NetworkError):
    """The other side's bytes are no message. Its link is closed with this text as the reason."""


# ---- addresses and streams -----------------------------------------------------------------------

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # RFC 1123; with _, as containers have
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")
_V6_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # the name or number of an interface


class Address(NamedTuple):
    """Where a process can be dialled: a host name or IP address, and a port from 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`host:port` or `[v6]:port`. Raises BadAddress that says what was expected."""
        host, colon, port = text.rpartition(":")
        if not colon:
            raise BadAddress(f"expected host:port, got {text!r:.80}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise BadAddress(f"expected an IPv6 address in the brackets, got {host!r:.80}")
        elif ":" in host:
            raise BadAddress(f"expected [IPv6]:port, got {text!r:.80}")
        is_number = port.isascii() and port.isdigit() and len(port) <= 5
        if not (is_number and 1 <= int(port) <= 65535):
            raise BadAddress(f"expected a port from 1 to 65535, got {port!r:.80}")
        return cls(checked_host(host), int(port))


def has_port(text: str) -> bool:
    """Whether that is `host:port` or `[v6]:port`, and not a host alone."""
    is_bare_v6 = text.startswith("[") and text.endswith("]")
    return ":" in text and not is_bare_v6


def checked_host(host: str) -> str:
    """The host as given, if it can be one; an IPv6 address in its shortest spelling."""
    if ":" in host:
        try:
            found = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise BadAddress(f"expected an IPv6 address, got {host!r:.80}") from error
        if found.scope_id is not None and not _V6_SCOPE.fullmatch(found.scope_id):
            raise BadAddress(f"expected an interface behind %, got {found.scope_id!r:.80}")
        return str(found)
    if not _HOST_NAME.fullmatch(host):
        raise BadAddress(f"expected a host name or an IP address, got {host!r:.80}")
    return host


StreamKey = NewType("StreamKey", bytes)  # a stream's name on the wire: boot time, then address


class StreamName(NamedTuple):
    """One origin in one life; everything it says is numbered 1, 2, 3 …"""

    origin: Address
    boot_ms: int  # when that life began, milliseconds since the epoch

    @property
    def key(self) -> StreamKey:
        return StreamKey(self.boot_ms.to_bytes(8, "big") + str(self.origin).encode())


@lru_cache(maxsize=8192)
def stream_name(key: StreamKey) -> StreamName:
    """The name behind a key. Raises WireError; a name has exactly one key."""
    try:
        text = key[8:].decode("ascii")
        name = StreamName(Address.parse(text), int.from_bytes(key[:8], "big"))
    except (UnicodeDecodeError, BadAddress) as error:
        raise WireError(f"stream: expected boot time and address, got {key!r:.60}") from error
    if name.key != key:
        raise WireError(f"stream: expected {str(name.origin)!r}, got the spelling {text!r:.60}")
    return name


# ---- messages ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of who dials a peer to become its neighbour; answered Welcome or Refused."""

    version: int
    address: Address  # where the sender can be dialled
    boot_ms: int
    links: int  # how many neighbours it has: one with none is let in even when there is no room
    is_feeler: bool  # it only wants to know whether both are of one network
    root: StreamKey  # which network it is in: that of this root (see `tree.py`)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The dialler is a neighbour from now on."""

    address: Address
    boot_ms: int
    links: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The dialler is not let in, or by a seed not listed; here are others to try."""

    address: Address  # who refuses, in its own words: the dialled name may be another of its names
    reason: str
    contacts: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Contacts:
    """Some addresses from the sender's book, so that the network lives without seeds."""

    addresses: tuple[Address, ...]
    is_reply: bool  # a reply is not answered


@dataclass(frozen=True, slots=True)
class Holding:
    """Of this stream the sender has all up to `upto`, and can still provide from `first` on."""

    stream: StreamKey
    first: int
    upto: int


@dataclass(frozen=True, slots=True)
class Have:
    """What the sender has of the named streams. Sent on every new link, and to announce."""

    holdings: tuple[Holding, ...]
    is_news: bool  # said just now, so the tree may be bringing it already: no hurry to ask


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of this stream the sender has all up to `after`, and asks for what follows."""

    stream: StreamKey
    after: int


@dataclass(frozen=True, slots=True)
class Want:
    """Move the cursors of these streams back: the sender lacks what the neighbour announced."""

    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class StaleRoot:
    """This root has been silent since this epoch, or is dead: its beacons up to that are void."""

    root: StreamKey
    epoch: int


@dataclass(frozen=True, slots=True)
class Beacon:
    """Draws the tree: said by the root every few seconds, passed on by everybody once."""

    root: StreamKey
    epoch: int  # the root's counter
    hops: int  # from the root to the sender
    stale: tuple[StaleRoot, ...]  # the root that this one replaces, if any


@dataclass(frozen=True, slots=True)
class Mode:
    """Whether the sender wants payload on this link; without it there are announcements only."""

    wants_payload: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """The sender and all that it passes the stream on to have it up to `upto`."""

    stream: StreamKey
    upto: int


@dataclass(frozen=True, slots=True)
class LivenessRequest:
    """Ask a neighbour to show it is alive. Answered by `LivenessReply` with the same number."""

    number: int  # the sender's counter, so a late reply cannot answer a newer request


@dataclass(frozen=True, slots=True)
class LivenessReply:
    """I am alive; and what I have, so that a difference between us cannot last unseen."""

    number: int
    digest: int
    links: int
    heard: int  # how many of the asker's own messages the sender has, without a hole


@dataclass(frozen=True, slots=True)
class OpinionRequest:
    """The accused is silent here; can you reach it over a fresh connection?"""

    accused: Address


@dataclass(frozen=True, slots=True)
class Opinion:
    """The answer to an OpinionRequest."""

    accused: Address
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Bye:
    """The link ends on purpose. A peer that leaves the network is not a dead one."""

    reason: str
    is_leaving: bool  # false: only this link ends


@dataclass(frozen=True, slots=True)
class Probe:
    """Anybody may ask anybody for an echo; a stopped process cannot give one."""

    number: int


@dataclass(frozen=True, slots=True)
class Echo:
    """The answer to a Probe."""

    number: int


@dataclass(frozen=True, slots=True)
class Inspect:
    """Anybody may ask a peer what it does; answered by Inspected. Maps are drawn from it."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A neighbour of the sender, and whether messages travel on that link."""

    neighbour: Address
    is_tree: bool


@dataclass(frozen=True, slots=True)
class Inspected:
    """The answer to Inspect: whom the sender holds, and its counters."""

    address: Address
    boot_ms: int
    hops: int  # from the root of the tree
    said: int
    delivered: int
    surplus: int  # messages that came although it had them
    links: tuple[Linked, ...]
    dead: tuple[Address, ...]  # those that it found dead of late


@dataclass(frozen=True, slots=True)
class Direct:
    """A message to one peer alone; answered by Received."""

    origin: Address
    payload: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A Direct message has been taken, and will be handed on."""


@dataclass(frozen=True, slots=True)
class Register:
    """A peer takes out a lease at a seed, or renews it; answered by PeerList or Refused."""

    address: Address
    boot_ms: int


@dataclass(frozen=True, slots=True)
class ListPeers:
    """Anybody may ask a seed who is there; answered by PeerList."""


@dataclass(frozen=True, slots=True)
class PeerList:
    """The live peers a seed knows of, or a random part of them when there are very many."""

    peers: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class DeadReport:
    """A peer tells a seed that another is dead; answered by Verdict."""

    accused: Address
    reporter: Address


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the seed found when it tried the accused itself."""

    accused: Address
    is_removed: bool


@dataclass(frozen=True, slots=True)
class Untrusted:
    """The sender does not trust the other side, tells it why, and closes. Said at any time."""

    reason: str  # for a person on the other side: "your certificate was revoked"


Message = (
    Hello | Welcome | Refused | Contacts | Have | Want | LivenessRequest | LivenessReply
    | OpinionRequest | Opinion | Bye | Probe | Echo | Direct | Received | Register | ListPeers
    | PeerList | DeadReport | Verdict | Beacon | Mode | Progress | Inspect | Inspected | Untrusted
)  # fmt: skip
