"""Messages as bytes, and the frames that carry them.

Knows how each message looks on the wire, and refuses bytes that are no message. It knows nothing of
sockets (`link.py` has those) and nothing of what a message means to whoever gets it.

A frame is a 4-byte length, a 1-byte kind and a body. `FrameBuffer` takes bytes as they arrive and
gives out `Message` values; consecutive broadcasts of one stream come out as one `Run`, which keeps
the very bytes that came in, so that passing them on costs nothing per message.
"""

import dataclasses
import struct
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from messages import (
    MAX_PAYLOAD_BYTES,
    Address,
    BadAddress,
    Beacon,
    Bye,
    Contacts,
    DeadReport,
    Direct,
    Echo,
    Have,
    Hello,
    Inspect,
    Inspected,
    ListPeers,
    LivenessReply,
    LivenessRequest,
    Message,
    Mode,
    Opinion,
    OpinionRequest,
    PeerList,
    Probe,
    Progress,
    Received,
    Refused,
    Register,
    StreamKey,
    Untrusted,
    Verdict,
    Want,
    Welcome,
    WireError,
    stream_name,
)

MAX_FRAME_BYTES = MAX_PAYLOAD_BYTES + 1024  # a payload and the longest header there can be
MAX_NUMBER = (1 << 64) - 1  # every number on the wire is unsigned, 8 bytes

type_of_kind: dict[int, type] = {
    1: Hello,
    2: Welcome,
    3: Refused,
    4: Contacts,
    5: Have,
    6: Want,
    7: LivenessRequest,
    8: LivenessReply,
    9: OpinionRequest,
    10: Opinion,
    11: Bye,
    12: Probe,
    13: Echo,
    14: Direct,
    15: Received,
    16: Register,
    17: ListPeers,
    18: PeerList,
    19: DeadReport,
    20: Verdict,
    21: Beacon,
    22: Mode,
    23: Inspect,
    24: Inspected,
    25: Untrusted,
    26: Progress,
}
BROADCAST = 32  # the kind of a frame that carries a message of the application; see `Run`
MANY = 16  # so many frames of one size are worth a look at all of them at once

# ---- messages as bytes ---------------------------------------------------------------------------

_HEAD = struct.Struct(">IB")  # length of what follows the length, kind
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class _Body:
    """A frame's body, read from front to back; every lack and excess is a WireError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.field = ""  # what is being read, for the error's text

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise self.wrong(f"{count} bytes", f"only {len(taken)}")
        self.at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def wrong(self, expected: str, got: object) -> WireError:
        return WireError(f"{self.field}: expected {expected}, got {got!s:.60}")


def _read_bool(body: _Body) -> bool:
    number = body.number(1)
    if number > 1:
        raise body.wrong("0 or 1", number)
    return bool(number)


def _read_str(body: _Body) -> str:
    data = body.take(body.number(2))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise body.wrong("UTF-8", repr(data)) from error


def _read_payload(body: _Body) -> bytes:
    size = body.number(4)
    if size > MAX_PAYLOAD_BYTES:
        raise body.wrong(f"at most {MAX_PAYLOAD_BYTES} bytes", size)
    return body.take(size)


def _read_address(body: _Body) -> Address:
    text = _read_str(body)
    try:
        return Address.parse(text)
    except BadAddress as error:
        raise WireError(f"{body.field}: {error}") from error


def _read_stream(body: _Body) -> StreamKey:
    key = StreamKey(body.take(body.number(2)))
    stream_name(key)  # raises WireError when it is none
    return key


def _sized(size: struct.Struct, data: bytes) -> bytes:
    return size.pack(len(data)) + data


# A field's type decides how it looks: (to bytes, from a body).
_Codec = tuple[Callable[[Any], bytes], Callable[[_Body], Any]]
_CODECS: dict[Any, _Codec] = {
    int: (_U64.pack, lambda body: body.number(8)),
    bool: (lambda value: bytes([value]), _read_bool),
    str: (lambda value: _sized(_U16, value.encode()), _read_str),
    bytes: (lambda value: _sized(_U32, value), _read_payload),
    Address: (lambda value: _sized(_U16, str(value).encode()), _read_address),
    StreamKey: (lambda value: _sized(_U16, value), _read_stream),
}


def _codec(of: Any) -> _Codec:
    """The codec of a field's type: a plain one, a tuple of one, or a record of several."""
    if of in _CODECS:
        return _CODECS[of]
    if typing.get_origin(of) is tuple:
        write, read = _codec(typing.get_args(of)[0])
        return (
            lambda items: _U32.pack(len(items)) + b"".join(map(write, items)),
            lambda body: tuple(read(body) for _ in range(body.number(4))),
        )
    return _record_codec(of)


def _record_codec(of: type) -> _Codec:
    hints = typing.get_type_hints(of)
    fields = [(field.name, *_codec(hints[field.name])) for field in dataclasses.fields(of)]

    def write(record: object) -> bytes:
        return b"".join(write(getattr(record, name)) for name, write, _ in fields)

    def read(body: _Body) -> object:
        values = []
        for name, _, read in fields:
            body.field = f"{of.__name__}.{name}"
            values.append(read(body))
        return of(*values)

    return write, read


_KINDS = {kind: _record_codec(of) for kind, of in type_of_kind.items()}
_KIND_OF_TYPE = {of: kind for kind, of in type_of_kind.items()}


def encode(message: Message) -> bytes:
    """The frame that carries the message."""
    kind = _KIND_OF_TYPE[type(message)]
    body = _KINDS[kind][0](message)
    assert len(body) < MAX_FRAME_BYTES, f"{type(message).__name__} of {len(body)} bytes"
    return _HEAD.pack(1 + len(body), kind) + body


def decode(kind: int, data: bytes) -> Message:
    """The message in a frame's body. Raises WireError, and nothing else, for any bytes at all."""
    if kind not in _KINDS:
        raise WireError(f"frame: expected a known kind, got {kind}")
    body = _Body(data)
    message: Message = _KINDS[kind][1](body)
    if body.at != len(data):
        body.field = type(message).__name__
        raise body.wrong("the end", f"{len(data) - body.at} bytes more")
    return message


# ---- broadcasts: runs of them, as the bytes that came in -----------------------------------------

_BROADCAST_HEAD = struct.Struct(">IBQH")  # length, kind, number in the stream, bytes of the key


@dataclass(frozen=True, slots=True)
class Run:
    """Broadcast frames `first` to `last` of one stream, without a hole, as they lay on the wire."""

    stream: StreamKey
    first: int
    last: int
    data: bytes

    def after(self, number: int) -> "Run":
        """The part of the run that follows `number`, which lies within it."""
        if number < self.first:
            return self
        at = 0
        for _ in range(self.first, number + 1):
            at += 4 + _U32.unpack_from(self.data, at)[0]
        return Run(self.stream, number + 1, self.last, self.data[at:])

    def payloads(self) -> Iterator[bytes]:
        """What the application gets, message by message."""
        head, count = _BROADCAST_HEAD.size + len(self.stream), self.last - self.first + 1
        if count >= MANY and self._has_frames_of(size := len(self.data) // count, count):
            frames = struct.iter_unpack(f"{head}x{size - head}s", self.data)
            return chain.from_iterable(frames)  # each is a tuple of the payload alone
        return self._payloads_of_any_size(head)

    def _has_frames_of(self, size: int, count: int) -> bool:
        """Whether each frame takes so many bytes: all begin with the same length, then."""
        length = _U32.pack(size - 4)
        return all(self.data[i::size] == length[i : i + 1] * count for i in range(4))

    def _payloads_of_any_size(self, head: int) -> Iterator[bytes]:
        data, at, unpack = self.data, 0, _U32.unpack_from
        while at < len(data):
            end = at + 4 + unpack(data, at)[0]
            yield data[at + head : end]
            at = end


def new_run(stream: StreamKey, number: int, payload: bytes) -> Run:
    """A single message of the application, framed."""
    length = _BROADCAST_HEAD.size - 4 + len(stream) + len(payload)
    head = _BROADCAST_HEAD.pack(length, BROADCAST, number, len(stream))
    return Run(stream, number, number, head + stream + payload)


class FrameBuffer:
    """Bytes in as they arrive, messages and runs out. One per connection; not thread-safe."""

    LEAST_BYTES = 8 << 10  # enough for a link at rest, of which a peer may have a dozen
    RECEIVE_BYTES = 256 << 10  # one recv takes this much: many small frames, or one large in a few

    def __init__(self) -> None:
        self._size = self.LEAST_BYTES  # grows while each recv fills all of it
        self._data = bytearray(self._size)
        self._start = 0  # of the first frame not yet given out
        self._end = 0  # of what has arrived

    def space(self) -> memoryview:
        """Where the next bytes go; never empty. Tell `received` how many came."""
        if self._start == self._end:
            self._start = self._end = 0
        if len(self._data) < self._size or len(self._data) - self._end < self._size // 4:
            self._make_room()
        return memoryview(self._data)[self._end :]

    def received(self, count: int) -> list[Message | Run]:
        """`count` bytes more have arrived: every frame that is complete now. Raises WireError."""
        self._end += count
        if self._end == len(self._data):
            self._size = min(4 * self._size, self.RECEIVE_BYTES)
        items: list[Message | Run] = []
        data, at, end = self._data, self._start, self._end
        while end - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(data, at)
            if not 1 <= length <= MAX_FRAME_BYTES:
                raise WireError(f"frame: expected 1 to {MAX_FRAME_BYTES} bytes, got {length}")
            stop = at + 4 + length
            if stop > end:
                break
            if kind == BROADCAST:
                run, at = _take_run(data, at, end)
                items.append(run)
            else:
                items.append(decode(kind, bytes(memoryview(data)[at + _HEAD.size : stop])))
                at = stop
        self._start = at
        return items

    def begins_with(self, byte: int) -> bool:
        """Whether that is the first byte of what was received and not given out."""
        return self._start < self._end and self._data[self._start] == byte

    def _make_room(self) -> None:
        """Move the unfinished frame to the front, and see that all of it fits behind that."""
        rest = memoryview(self._data)[self._start : self._end]
        needed = 4 + min(int.from_bytes(rest[:4], "big"), MAX_FRAME_BYTES)
        size = max(self._size, needed + self._size // 4)
        if size != len(self._data):
            self._data = bytearray(size)
        memoryview(self._data)[: len(rest)] = rest
        self._start, self._end = 0, len(rest)


def _take_run(data: bytearray, start: int, end: int) -> tuple[Run, int]:
    """The longest run that begins with the complete broadcast frame at `start`, and where it ends.

    This is the hot path of a peer: a few steps per message, nothing else; fewer where messages have
    one size.
    """
    unpack, head = _BROADCAST_HEAD.unpack_from, _BROADCAST_HEAD.size
    length, _, first, key_size = _broadcast_head(data, start)
    stream = StreamKey(bytes(data[start + head : start + head + key_size]))
    stream_name(stream)  # raises WireError when it is none
    at, last, least = start + 4 + length, first, head - 4 + key_size
    most = least + MAX_PAYLOAD_BYTES
    if end - start >= MANY * (4 + length) and data.startswith(stream, at + head):
        last, at = _pass_alike(data, start, end, key_size)
    while end - at >= head:
        length, kind, number, size = unpack(data, at)
        stop = at + 4 + length
        if kind != BROADCAST or number != last + 1 or size != key_size:
            break
        if stop > end or not least <= length <= most or not data.startswith(stream, at + head):
            break  # the next call tells whether it is a fault
        last, at = number, stop
    if last == MAX_NUMBER:
        raise WireError(f"broadcast.number: expected less than {MAX_NUMBER}, got {last}")
    return Run(stream, first, last, bytes(memoryview(data)[start:at])), at


def _pass_alike(data: bytearray, start: int, end: int, key_size: int) -> tuple[int, int]:
    """How far frames are like the first, but for number and payload: the last one, and its end."""
    length, _, first, _ = _BROADCAST_HEAD.unpack_from(data, start)
    size, head = 4 + length, _BROADCAST_HEAD.size + key_size
    alike = struct.Struct(f">5sQ{2 + key_size}s{size - head}x")  # a head's parts, and no payload
    with memoryview(data) as view, view[start : start + (end - start) // size * size] as frames:
        begin, _, name = alike.unpack_from(frames)
        upto = first - 1
        for begins, number, named in alike.iter_unpack(frames):
            if number != upto + 1 or begins != begin or named != name:
                break
            upto = number
    return upto, start + (upto - first + 1) * size


def _broadcast_head(data: bytearray, at: int) -> tuple[int, int, int, int]:
    """The head of a broadcast frame that is complete; checked."""
    length = _U32.unpack_from(data, at)[0]
    if length < _BROADCAST_HEAD.size - 4:
        raise WireError(f"broadcast: expected a head of 11 bytes, got {length}")
    head: tuple[int, int, int, int] = _BROADCAST_HEAD.unpack_from(data, at)
    if head[3] > length - (_BROADCAST_HEAD.size - 4):
        raise WireError(f"broadcast.stream: expected {head[3]} bytes, got {length - 11}")
    if length - (_BROADCAST_HEAD.size - 4) - head[3] > MAX_PAYLOAD_BYTES:
        raise WireError(f"broadcast: expected at most {MAX_PAYLOAD_BYTES} bytes of payload")
    if not 1 <= head[2] < MAX_NUMBER:
        raise WireError(f"broadcast.number: expected 1 or more, got {head[2]}")
    return head
