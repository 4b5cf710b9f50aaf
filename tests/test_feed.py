"""The feed: every reader at its own pace, nothing twice, and nothing passed over in silence."""

import json
import threading

import pytest

import feed
from feed import Batch, Feed


def filled(count: int) -> Feed:
    kept = Feed()
    for number in range(1, count + 1):
        kept.add({"seq": number})
    return kept


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [json.loads(message)["seq"] for message in batch.messages]


def test_a_reader_gets_what_follows_its_place() -> None:
    batch = filled(5).after(2, 0)
    assert numbers(batch) == [3, 4, 5]
    assert batch is not None
    assert (batch.first, batch.last, batch.skipped) == (3, 5, 0)


def test_a_reader_that_has_all_gets_nothing_twice() -> None:
    batch = filled(3).after(3, 0)
    assert numbers(batch) == []
    assert batch is not None
    assert batch.last == 3


def test_a_reader_can_begin_with_the_latest() -> None:
    kept = filled(5)
    assert numbers(kept.after(kept.place(2), 0)) == [4, 5]
    assert numbers(kept.after(kept.place(100), 0)) == [1, 2, 3, 4, 5]


def test_a_reader_that_fell_behind_is_told_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_MESSAGES", 3)
    batch = filled(10).after(2, 0)
    assert numbers(batch) == [8, 9, 10]
    assert batch is not None
    assert batch.skipped == 5


def test_it_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_BYTES", 1000)
    kept = Feed()
    for number in range(20):
        kept.add({"seq": number, "text": "x" * 280})
    assert numbers(kept.after(0, 0)) == [17, 18, 19]


def test_much_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BATCH_BYTES", 30)
    kept, place, seen = filled(20), 0, []
    while batch := kept.after(place, 0):
        if not batch.messages:
            break
        assert len(batch.messages) < 10
        seen += numbers(batch)
        place = batch.last
    assert seen == list(range(1, 21))


def test_whoever_waits_is_woken_by_a_message_and_by_the_end() -> None:
    kept = Feed()
    got: list[Batch | None] = []

    def read() -> None:
        got.append(kept.after(0, 30))
        got.append(kept.after(1, 30))

    reader = threading.Thread(target=read)
    reader.start()
    kept.add({"seq": 1})
    kept.close()
    reader.join(20)
    assert got[-1] is None


def test_the_rate_counts_the_latest_seconds() -> None:
    assert Feed().per_second() == 0
    assert filled(50).per_second() == 5.0
