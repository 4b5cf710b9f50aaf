"""Frames as they arrive, in any pieces: items, or a WireError."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import (
    MAX_PAYLOAD_BYTES,
    Address,
    Direct,
    LivenessRequest,
    Message,
    Probe,
    StreamKey,
    StreamName,
    WireError,
)
from pure import (
    FRAME_HEAD,
    KINDS,
    MESSAGES,
    PAYLOADS,
    STREAMS,
    framed,
    key,
    payload_of,
    run,
    sized,
)
from wire import (
    BROADCAST,
    MANY,
    MAX_FRAME_BYTES,
    MAX_NUMBER,
    FrameBuffer,
    Run,
    encode,
    new_run,
)

Item = Message | Run


def feed(buffer: FrameBuffer, data: bytes) -> list[Item]:
    """Let the bytes arrive, as many at a time as there is space for."""
    items: list[Item] = []
    while data:
        space = buffer.space()
        assert 0 < len(space) <= 2 * MAX_FRAME_BYTES
        count = min(len(space), len(data))
        space[:count] = data[:count]
        items += buffer.received(count)
        data = data[count:]
    return items


def heard(data: bytes, sizes: Sequence[int] = ()) -> list[Item]:
    """What the bytes say when they arrive in pieces of these sizes, and then all the rest."""
    buffer = FrameBuffer()
    items: list[Item] = []
    for size in sizes:
        items += feed(buffer, data[:size])
        data = data[size:]
    return items + feed(buffer, data)


def refused(data: bytes, sizes: Sequence[int] = ()) -> bool:
    """Whether the bytes end in a WireError. Any other exception fails the test."""
    try:
        heard(data, sizes)
    except WireError:
        return True
    return False


def one_by_one(items: Sequence[Item]) -> list[Item]:
    """The items with every run taken apart: where a run ends may depend on what arrived when."""
    apart: list[Item] = []
    for item in items:
        if isinstance(item, Run):
            numbers = range(item.first, item.last + 1)
            payloads = zip(numbers, item.payloads(), strict=True)
            apart += [new_run(item.stream, number, payload) for number, payload in payloads]
        else:
            apart.append(item)
    return apart


def frame_of(item: Item) -> bytes:
    return item.data if isinstance(item, Run) else encode(item)


NUMBERED = st.integers(1, 5) | st.just(MAX_NUMBER - 1)
BROADCASTS = st.builds(new_run, st.sampled_from([key(1), key(2)]) | STREAMS, NUMBERED, PAYLOADS)
COUNTS = st.integers(1, 4) | st.integers(MANY, 3 * MANY)
RUNS = st.builds(run, st.sampled_from([key(1), key(2)]), st.just(1), COUNTS)
ITEMS = st.lists(MESSAGES | BROADCASTS | RUNS, max_size=8)
SIZES = st.lists(st.integers(1, 40), max_size=30)


# ---- frames in any pieces ------------------------------------------------------------------------


@settings(max_examples=200)
@given(ITEMS, SIZES)
def test_the_pieces_in_which_frames_arrive_make_no_difference(
    items: list[Item], sizes: list[int]
) -> None:
    data = b"".join(map(frame_of, items))
    assert one_by_one(heard(data, sizes)) == one_by_one(items)


@settings(max_examples=50)
@given(ITEMS)
def test_frames_may_come_byte_by_byte(items: list[Item]) -> None:
    data = b"".join(map(frame_of, items))
    assert one_by_one(heard(data, [1] * len(data))) == one_by_one(items)


@settings(max_examples=200)
@given(ITEMS, SIZES)
def test_no_byte_of_a_run_is_changed(items: list[Item], sizes: list[int]) -> None:
    data = b"".join(map(frame_of, items))
    assert b"".join(map(frame_of, heard(data, sizes))) == data


@settings(max_examples=300)
@given(st.data())
def test_frames_that_look_alike_are_told_from_those_that_do_not(data: st.DataObject) -> None:
    """Many of one size are taken at once, up to the first that differs in anything but payload."""
    parts = st.tuples(
        st.sampled_from([key(1), key(2)]), st.integers(1, 4), st.sampled_from([0, 1, 300]), COUNTS
    )
    items: list[Item] = []
    for stream, first, size, count in data.draw(st.lists(parts, min_size=1, max_size=4)):
        numbers = range(first, first + count)
        items += [new_run(stream, n, bytes([n % 256]) * size) for n in numbers]
    assert one_by_one(heard(b"".join(map(frame_of, items)))) == items


def test_a_frame_among_many_alike_that_is_of_another_stream_is_no_part_of_their_run() -> None:
    items: list[Item] = [new_run(key(1), number, b"xyz") for number in range(1, 2 * MANY)]
    items[MANY] = new_run(key(2), MANY + 1, b"xyz")
    assert one_by_one(heard(b"".join(map(frame_of, items)))) == items


def test_a_frame_among_many_alike_that_is_of_another_kind_is_seen() -> None:
    frames = [new_run(key(1), number, b"xyz").data for number in range(1, 2 * MANY)]
    frames[MANY] = frames[MANY].replace(bytes([BROADCAST]), bytes([BROADCAST + 1]), 1)
    assert refused(b"".join(frames))
    assert not refused(b"".join(frames[:MANY]))


def test_what_only_begins_like_a_run_of_one_size_is_taken_apart_frame_by_frame() -> None:
    """Frames whose lengths add up to the same as if all were alike."""
    sizes = [5] * MANY + [4, 6] + [5] * MANY
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    frames = [new_run(key(1), number, said).data for number, said in enumerate(payloads, start=1)]
    [item] = heard(b"".join(frames))
    assert isinstance(item, Run)
    assert list(item.payloads()) == payloads


def test_nothing_is_said_before_a_frame_is_complete() -> None:
    for frame in (encode(Probe(7)), run(key(1), 1, 1).data):
        assert heard(frame[:-1]) == []
        assert len(heard(frame)) == 1


def test_frames_past_the_end_of_the_buffer_are_whole() -> None:
    """The buffer is used again and again, and grows for a large frame in the middle."""
    items: list[Item] = []
    for number in range(1, 40):
        items += [LivenessRequest(number), run(key(1), number, number, payload=b"x" * 9000)]
    items[20:20] = [run(key(2), 1, 1, payload=b"y" * MAX_PAYLOAD_BYTES)]
    data = b"".join(map(frame_of, items))
    for size in (1000, 65_536, 200_003):
        assert one_by_one(heard(data, [size] * (len(data) // size))) == one_by_one(items)


# ---- frames that are none ------------------------------------------------------------------------

# What a frame may look like when it is none, or almost one.
ALMOST = st.one_of(
    st.builds(frame_of, MESSAGES | BROADCASTS | RUNS),
    st.builds(framed, KINDS, st.binary(max_size=30)),
    st.builds(
        lambda length, rest: bytes([0, 0, 0, length]) + rest, st.integers(0, 30), st.binary()
    ),
    st.binary(max_size=30),
)
# Where, how many bytes to take away there, and what to put in their place.
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3
)


def mutated(data: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for place, count, instead in mutations:
        at = place % (len(data) + 1)
        data = data[:at] + instead + data[at + count :]
    return data


@settings(max_examples=400)
@given(st.lists(ALMOST, max_size=6).map(b"".join), SIZES)
def test_any_bytes_in_any_pieces_are_items_or_a_wire_error(data: bytes, sizes: list[int]) -> None:
    assert refused(data, sizes) == refused(data)


@settings(max_examples=400)
@given(ITEMS, MUTATIONS, SIZES)
def test_damaged_frames_are_items_or_a_wire_error(
    items: list[Item], mutations: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    data = mutated(b"".join(map(frame_of, items)), mutations)
    assert refused(data, sizes) == refused(data)


@pytest.mark.parametrize("number", [0, MAX_NUMBER])
def test_a_broadcast_numbered_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(WireError, match="number"):
        heard(new_run(key(1), number, b"text").data)


def test_a_number_out_of_range_is_refused_within_a_run_too() -> None:
    last = new_run(key(1), MAX_NUMBER - 1, b"text").data
    assert heard(last)
    with pytest.raises(WireError, match="number"):
        heard(last + new_run(key(1), MAX_NUMBER, b"text").data)


def test_a_broadcast_without_room_for_its_head_or_its_stream_is_refused() -> None:
    number = (1).to_bytes(8, "big")
    assert heard(framed(BROADCAST, number + sized(key(1))))
    assert refused(framed(BROADCAST, b""))
    assert refused(framed(BROADCAST, number))
    assert refused(framed(BROADCAST, number + sized(key(1))[:-1]))
    assert refused(framed(BROADCAST, number + sized(b"")))


def test_a_fault_behind_a_good_frame_is_seen_as_well() -> None:
    good = encode(Probe(1)) + run(key(1), 1, 2).data
    assert heard(good)
    assert refused(good + framed(99, b""))
    assert refused(good + run(key(1), 3, 3).data + bytes(5))


def test_a_broadcast_under_a_second_spelling_of_its_stream_is_refused() -> None:
    assert heard(new_run(StreamKey(bytes(8) + b"[::1]:5000"), 1, b"").data)
    assert refused(new_run(StreamKey(bytes(8) + b"[0::1]:5000"), 1, b"").data)


# ---- runs ----------------------------------------------------------------------------------------


def test_consecutive_broadcasts_of_a_stream_are_one_run() -> None:
    data = b"".join(run(key(1), number, number).data for number in range(5, 10))
    assert heard(data) == [Run(key(1), 5, 9, data)]


def broken_runs() -> dict[str, list[Item]]:
    begin, go_on = run(key(1), 1, 2), run(key(1), 3, 4)
    return {
        "a hole": [begin, run(key(1), 4, 5)],
        "a number again": [begin, run(key(1), 2, 3)],
        "a step back": [begin, run(key(1), 1, 2)],
        "another stream": [begin, run(key(2), 3, 4)],
        "another life": [begin, run(key(1, boot_ms=9), 3, 4)],
        "a longer name": [begin, run(StreamName(Address("127.0.0.1", 10_001), 0).key, 3, 4)],
        "another kind between": [begin, Probe(3), go_on],
    }


@pytest.mark.parametrize("items", broken_runs().values(), ids=broken_runs().keys())
def test_a_run_is_broken_by(items: list[Item]) -> None:
    assert heard(b"".join(map(frame_of, items))) == items


@settings(max_examples=100)
@given(st.lists(PAYLOADS, min_size=1, max_size=6), st.integers(1, 2**40))
def test_a_run_gives_the_payloads_that_were_said(payloads: list[bytes], first: int) -> None:
    data = b"".join(new_run(key(1), first + n, said).data for n, said in enumerate(payloads))
    [whole] = heard(data)
    assert isinstance(whole, Run)
    assert list(whole.payloads()) == payloads


@pytest.mark.parametrize("number", range(4, 9))
def test_the_part_of_a_run_after_a_number(number: int) -> None:
    part = run(key(1), 5, 9).after(number)
    assert part == run(key(1), number + 1, 9)
    assert list(part.payloads()) == [payload_of(n) for n in range(number + 1, 10)]


def test_a_run_is_whole_after_any_number_before_it() -> None:
    whole = run(key(1), 5, 9)
    assert [whole.after(number) for number in (0, 1, 4)] == [whole] * 3


# ---- how large -----------------------------------------------------------------------------------


def test_the_largest_payload_passes() -> None:
    payload = bytes(MAX_PAYLOAD_BYTES)
    longest = StreamName(Address("a" * 63 + ".b" * 95, 65535), MAX_NUMBER)  # 253 characters
    said = new_run(longest.key, MAX_NUMBER - 1, payload)
    assert heard(said.data) == [said]
    direct = Direct(longest.origin, payload)
    assert heard(encode(direct)) == [direct]


def test_a_payload_a_byte_too_large_is_refused() -> None:
    larger = new_run(key(1), 2, bytes(MAX_PAYLOAD_BYTES + 1))
    assert refused(larger.data)
    assert refused(new_run(key(1), 1, b"").data + larger.data)
    address = Address("host", 1)
    head = sized(str(address).encode()) + (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big")
    assert refused(framed(14, head + bytes(MAX_PAYLOAD_BYTES + 1)))


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [12, BROADCAST])
def test_a_length_out_of_range_is_refused_by_the_head_alone(length: int, kind: int) -> None:
    buffer = FrameBuffer()
    before = len(buffer.space())
    with pytest.raises(WireError, match="bytes"):
        feed(buffer, FRAME_HEAD.pack(length, kind))
    assert len(buffer.space()) <= before


def test_a_length_out_of_range_is_refused_behind_a_run_too() -> None:
    begin = run(key(1), 1, 1).data
    follow = bytearray(run(key(1), 2, 2).data)
    follow[:4] = (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    assert refused(begin + bytes(follow) + bytes(MAX_FRAME_BYTES))


def test_space_is_taken_for_a_large_frame_only_as_its_bytes_arrive() -> None:
    buffer = FrameBuffer()
    head = new_run(key(1), 1, bytes(MAX_PAYLOAD_BYTES)).data[:100]
    feed(buffer, head)
    assert len(buffer.space()) <= FrameBuffer.RECEIVE_BYTES


def test_a_link_at_rest_needs_little_space_and_a_busy_one_gets_more() -> None:
    buffer = FrameBuffer()
    at_rest = len(buffer.space())
    for _ in range(10):
        feed(buffer, encode(Probe(1)))
    assert len(buffer.space()) <= at_rest <= FrameBuffer.RECEIVE_BYTES // 16
    feed(buffer, encode(Probe(1)) * (1 << 16))
    assert len(buffer.space()) >= FrameBuffer.RECEIVE_BYTES // 2


def test_a_peer_never_sends_a_frame_that_others_would_refuse() -> None:
    with pytest.raises(AssertionError, match="Direct"):
        encode(Direct(Address("host", 1), bytes(MAX_FRAME_BYTES)))
