"""What the tests of the pure rooms share: names, runs, and values of every kind that travels."""

import struct
import typing
from typing import Any

from hypothesis import strategies as st

from messages import Address, Message, StreamKey, StreamName
from wire import BROADCAST, MAX_NUMBER, Run, new_run, type_of_kind

# ---- names and runs ------------------------------------------------------------------------------

BOOT_MS = 1_000_000  # when the lives of these tests begin


def address(number: int) -> Address:
    """Where the peer of that number can be dialled; a lower number is a lower address."""
    return Address("127.0.0.1", 10_000 + number)


def addresses(*numbers: int) -> list[Address]:
    return [address(number) for number in numbers]


def name(number: int, boot_ms: int = BOOT_MS) -> StreamName:
    """That peer in one life."""
    return StreamName(address(number), boot_ms)


def key(number: int, boot_ms: int = BOOT_MS) -> StreamKey:
    """The stream of that peer in one life."""
    return name(number, boot_ms).key


def payload_of(number: int) -> bytes:
    """What message `number` of any stream says here, so that a mix-up shows."""
    return b"message %d" % number


def run(stream: StreamKey, first: int, last: int, payload: bytes | None = None) -> Run:
    """Messages `first` to `last` as one neighbour sends them."""
    said = ((number, payload or payload_of(number)) for number in range(first, last + 1))
    data = b"".join(new_run(stream, number, payload).data for number, payload in said)
    return Run(stream, first, last, data)


# ---- generated values ----------------------------------------------------------------------------

_LABEL = st.sampled_from("a0_Z") | st.text("abYZ09_-", max_size=20).map("a{}_".format)
HOSTS = st.one_of(
    st.lists(_LABEL, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.builds("fe80::{:x}%{}".format, st.integers(1, 0xFFFF), st.sampled_from(["eth0", "1"])),
)
ADDRESSES = st.builds(Address, HOSTS, st.integers(1, 65535))
NUMBERS = st.sampled_from([0, 1, MAX_NUMBER - 1, MAX_NUMBER]) | st.integers(0, MAX_NUMBER)
PAYLOADS = st.binary(max_size=40)

# Within messages a few hosts do, of every kind and length; to make up others takes long.
_FEW = [
    *("localhost", "a", "my-host_1.example.", ".".join(["x" * 63] * 3 + ["y" * 61])),
    *("127.0.0.1", "::1", "2001:db8:1:2:3:4:5:6"),
]
SOME_ADDRESSES = st.builds(Address, st.sampled_from(_FEW), st.sampled_from([1, 80, 6000, 65535]))
STREAMS = st.builds(StreamName, SOME_ADDRESSES, NUMBERS).map(lambda stream: stream.key)

_FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    bool: st.booleans(),
    str: st.text(max_size=40),
    bytes: PAYLOADS,
    Address: SOME_ADDRESSES,
    StreamKey: STREAMS,
}


def values(of: Any) -> st.SearchStrategy[Any]:
    """Every value that a field, a record, a message or a tuple of them can have."""
    if of in _FIELDS:
        return _FIELDS[of]
    if typing.get_origin(of) is tuple:
        return st.lists(values(typing.get_args(of)[0]), max_size=4).map(tuple)
    hints = typing.get_type_hints(of)
    return st.builds(of, **{field: values(hint) for field, hint in hints.items()})


MESSAGE_TYPES: tuple[type, ...] = typing.get_args(Message)
MESSAGES: st.SearchStrategy[Message] = st.one_of([values(of) for of in MESSAGE_TYPES])
ANY_TEXT = st.text(alphabet=st.characters(), max_size=60)  # lone surrogates too
KINDS = st.sampled_from([*type_of_kind, BROADCAST]) | st.integers(0, 255)

# ---- bytes ---------------------------------------------------------------------------------------

FRAME_HEAD = struct.Struct(">IB")  # the length of what follows the length, and the kind


def framed(kind: int, body: bytes) -> bytes:
    return FRAME_HEAD.pack(1 + len(body), kind) + body


def sized(text: bytes) -> bytes:
    """Text as it stands in a message."""
    return len(text).to_bytes(2, "big") + text
