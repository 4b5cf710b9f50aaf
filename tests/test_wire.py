"""Messages as bytes: what is written is read again, and any other bytes are a WireError."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import (
    Address,
    Contacts,
    Message,
    StreamKey,
    StreamName,
    WireError,
    stream_name,
)
from pure import FRAME_HEAD, KINDS, MESSAGE_TYPES, MESSAGES, STREAMS, key, sized, values
from wire import (
    BROADCAST,
    decode,
    encode,
    type_of_kind,
)

# ---- one message ---------------------------------------------------------------------------------


@pytest.mark.parametrize("of", MESSAGE_TYPES, ids=lambda of: of.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_written_is_read_again(of: type, data: st.DataObject) -> None:
    message = data.draw(values(of))
    frame = encode(message)
    length, kind = FRAME_HEAD.unpack_from(frame)
    assert length == len(frame) - 4
    assert decode(kind, frame[FRAME_HEAD.size :]) == message


def test_every_message_has_one_kind() -> None:
    assert sorted(type_of_kind.values(), key=str) == sorted(MESSAGE_TYPES, key=str)
    assert BROADCAST not in type_of_kind


@settings(max_examples=400)
@given(KINDS, st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_wire_error(kind: int, body: bytes) -> None:
    result = decoded(kind, body)
    if isinstance(result, WireError):
        assert str(result).isprintable()
        assert len(str(result)) < 400
    else:
        assert type(result) is type_of_kind[kind]
        assert decode(kind, encode(result)[FRAME_HEAD.size :]) == result  # it can be passed on


def decoded(kind: int, body: bytes) -> Message | WireError:
    try:
        return decode(kind, body)
    except WireError as error:
        return error


@pytest.mark.parametrize("zeros", [0, 1, 5])
def test_a_port_too_long_for_python_to_read_is_a_wire_error(zeros: int) -> None:
    text = b"host:" + b"0" * zeros + b"1" * 5000  # int() refuses more than 4,300 digits
    with pytest.raises(WireError, match=r"accused.*port"):
        decode(9, sized(text))
    with pytest.raises(WireError, match="stream"):
        stream_name(StreamKey(bytes(8) + text))


@settings(max_examples=150)
@given(MESSAGES, st.data())
def test_a_message_cut_short_or_too_long_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    kind, body = frame[4], frame[FRAME_HEAD.size :]
    with pytest.raises(WireError):
        decode(kind, body + b"\0")
    if body:
        with pytest.raises(WireError):
            decode(kind, body[: data.draw(st.integers(0, len(body) - 1))])


def test_an_unknown_kind_is_refused() -> None:
    for kind in set(range(256)) - type_of_kind.keys():
        with pytest.raises(WireError, match="kind"):
            decode(kind, b"")


def test_a_flag_is_0_or_1() -> None:
    body = encode(Contacts((), is_reply=True))[FRAME_HEAD.size : -1]
    assert decode(4, body + b"\0") == Contacts((), is_reply=False)
    with pytest.raises(WireError, match=r"is_reply.*expected 0 or 1, got 2"):
        decode(4, body + b"\2")


def test_text_is_utf_8() -> None:
    bye = 11
    assert decode(bye, sized("stört".encode()) + b"\0")
    for wrong in (b"\xff", "stört".encode("latin-1"), b"\xed\xa0\x80"):
        with pytest.raises(WireError, match=r"reason.*UTF-8"):
            decode(bye, sized(wrong) + b"\0")


def test_a_list_that_claims_to_be_longer_than_its_frame_is_refused() -> None:
    with pytest.raises(WireError, match="addresses"):
        decode(4, (2**32 - 1).to_bytes(4, "big") + sized(b"host:1"))


# ---- streams' names ------------------------------------------------------------------------------


@settings(max_examples=100)
@given(STREAMS)
def test_a_stream_key_names_its_stream(stream: StreamKey) -> None:
    assert stream_name(stream).key == stream


@settings(max_examples=200)
@given(st.builds(bytes.__add__, st.binary(min_size=8, max_size=8), st.binary(max_size=20)))
def test_any_bytes_are_a_stream_key_or_a_wire_error(data: bytes) -> None:
    try:
        name = stream_name(StreamKey(data))
    except WireError:
        return
    assert name.key == data


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1:05000",
        "[127.0.0.1]:5000",
        "[0:0:0:0:0:0:0:1]:5000",
        "[::0001]:5000",
        "[::A]:5000",
        "::1:5000",
        "127.0.0.1:5000 ",
        " 127.0.0.1:5000",
        "127.0.0.1:5000\n",
        "127.0.0.1",
        "",
    ],
)
def test_a_stream_has_no_second_spelling(spelling: str) -> None:
    with pytest.raises(WireError, match="stream"):
        stream_name(StreamKey(bytes(8) + spelling.encode()))


@pytest.mark.parametrize("spelling", ["127.0.0.1:5000", "[::1]:5000", "[::a]:5000", "host_1.b:1"])
def test_a_stream_has_its_one_spelling(spelling: str) -> None:
    name = stream_name(StreamKey(bytes(7) + b"\7" + spelling.encode()))
    assert name == StreamName(Address.parse(spelling), 7)


def test_streams_of_two_lives_or_two_origins_differ() -> None:
    assert len({key(1, 1), key(1, 2), key(2, 1), key(2, 2)}) == 4
