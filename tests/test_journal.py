"""Events as lines of the log: one line each, whatever the text, and it can be read back."""

import base64
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from journal import MAX_SHOWN_CHARS, Event, Journal, log_line, payload_details, printable
from messages import Address
from pure import ADDRESSES, ANY_TEXT, address

ME = address(0)
AT = 1_700_000_000.207

LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.(\d{3}) (\S+) ([a-z_]+)(.*)\n")
DETAIL = re.compile(r' ([a-z_0-9]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"\\=]+))')
ESCAPE = re.compile(r'\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(["\\nrtbf]))')
LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def event(**details: Any) -> Event:
    return {"event": "message", "at": AT, "self": str(ME), **details}


def read_back(line: str) -> dict[str, str]:
    """The details of a line, as a script would take them from it."""
    match = LINE.fullmatch(line)
    assert match, f"not a line of the log: {line!r}"
    rest = match[5]
    assert DETAIL.sub("", rest) == "", f"not details: {rest!r}"
    return {key: plain or unescaped(quoted) for key, quoted, plain in DETAIL.findall(rest)}


def unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[3]:
            return LETTERS.get(match[3], match[3])
        return chr(int(match[1] or match[2], 16))

    return ESCAPE.sub(character, text)


# ---- a line --------------------------------------------------------------------------------------


def test_a_line_is_the_time_who_what_and_the_details() -> None:
    details = {"neighbour": str(address(3)), "reason": "no reply to 3 liveness requests", "seq": 7}
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(AT))
    assert log_line({"event": "dead", "at": AT, "self": str(ME), **details}) == (
        f"{clock}.207 127.0.0.1:10000 dead neighbour=127.0.0.1:10003 "
        'reason="no reply to 3 liveness requests" seq=7\n'
    )


def test_a_line_without_details_ends_with_what_happened() -> None:
    assert log_line({"event": "isolated", "at": AT, "self": "host:1"}).endswith(
        " host:1 isolated\n"
    )


@pytest.mark.parametrize(("at", "shown"), [(1.0, ".000 "), (1.9996, ".999 "), (1.05, ".050 ")])
def test_the_milliseconds_have_three_digits(at: float, shown: str) -> None:
    line = log_line({"event": "isolated", "at": at, "self": "host:1"})
    assert line.startswith(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1)) + shown)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["text", "reason", "origin", "base64"]), ANY_TEXT))
@example({"text": '\\" reason="forged'})
@example({"text": "\u2028\u2029\x85\v\f\x1c\r\n\t\x00\x7f\x1b[2J\u202e\ufeff\U000e0001"})
def test_any_text_stays_on_its_line_and_can_be_read_back(details: dict[str, str]) -> None:
    line = log_line(event(**details))
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.removesuffix("\n").isprintable()
    assert read_back(line) == details


@settings(max_examples=200)
@given(ADDRESSES)
def test_an_address_stands_plain(some: Address) -> None:
    line = log_line(event(neighbour=str(some)))
    assert line.endswith(f" neighbour={some}\n")
    assert read_back(line) == {"neighbour": str(some)}


@pytest.mark.parametrize("value", [0, 7, 2**64, 1.5, True, None])
def test_a_number_stands_plain(value: object) -> None:
    assert log_line(event(seq=value)).endswith(f" seq={value}\n")


@pytest.mark.parametrize("key", ["text", "reason", "traceback"])
def test_what_somebody_wrote_is_quoted_even_if_it_looks_plain(key: str) -> None:
    assert log_line(event(**{key: "127.0.0.1:1"})).endswith(f' {key}="127.0.0.1:1"\n')


@pytest.mark.parametrize("text", ["", " ", "a b", "a=b", 'a"b', "a\\b", "a,b", "ä"])
def test_whatever_else_is_not_plain_is_quoted(text: str) -> None:
    assert ' origin="' in log_line(event(origin=text))
    assert read_back(log_line(event(origin=text))) == {"origin": text}


@pytest.mark.parametrize("key", ["text", "base64"])
def test_a_long_text_is_cut_in_the_log_and_says_how_long_it_was(key: str) -> None:
    longest, longer = "x" * MAX_SHOWN_CHARS, "x" * (MAX_SHOWN_CHARS + 1)
    assert read_back(log_line(event(**{key: longest}))) == {key: longest}
    cut = f"{longest}… ({len(longer)} characters)"
    assert read_back(log_line(event(**{key: longer}))) == {key: cut}


# ---- text for a terminal -------------------------------------------------------------------------


@settings(max_examples=300)
@given(ANY_TEXT)
def test_printable_text_moves_no_cursor_and_loses_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert unescaped(shown) == text


@pytest.mark.parametrize("text", ["", "plain", "two words", 'say "yes"', "Grüße, 世界 🙂"])
def test_text_that_does_no_harm_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


# ---- payloads ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.text())
def test_a_payload_of_text_is_an_events_text(text: str) -> None:
    assert payload_details(text.encode()) == {"text": text}


@pytest.mark.parametrize("payload", [b"\xff", "é".encode("latin-1"), b"\xed\xa0\x80"])
def test_any_other_payload_is_base64(payload: bytes) -> None:
    [[key, value]] = payload_details(payload).items()
    assert key == "base64"
    assert base64.b64decode(value, validate=True) == payload


# ---- the file and the listener -------------------------------------------------------------------


def test_what_is_recorded_is_written_and_heard(tmp_path: Path) -> None:
    heard: list[Event] = []
    before = time.time()
    journal = Journal(ME, str(tmp_path / "log"), heard.append)
    journal.record("dead", neighbour="host:1", reason="no reply")
    [event] = heard
    assert before <= event.pop("at") <= time.time()
    assert event == {"event": "dead", "self": str(ME), "neighbour": "host:1", "reason": "no reply"}
    assert (tmp_path / "log").read_text().endswith(' dead neighbour=host:1 reason="no reply"\n')
    journal.close()


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    first, second = Journal(ME, str(path)), Journal(address(1), str(path))
    for journal in (first, second, first):
        journal.record("isolated")
    shown = [line.split(" ")[2:] for line in path.read_text().splitlines()[1:]]
    assert path.read_text().startswith("before\n")
    assert shown == [[str(who), "isolated"] for who in (ME, address(1), ME)]
    first.close()
    second.close()


def test_a_closed_journal_writes_nothing_and_the_listener_still_hears(tmp_path: Path) -> None:
    heard: list[Event] = []
    journal = Journal(ME, str(tmp_path / "log"), heard.append)
    journal.close()
    journal.close()
    journal.record("stopped", reason="asked to")
    assert len(heard) == 1
    assert (tmp_path / "log").read_text() == ""


def test_a_journal_knows_whether_anybody_would_see_an_event(tmp_path: Path) -> None:
    closed = Journal(ME, str(tmp_path / "log"))
    opened = Journal(ME, str(tmp_path / "log"))
    closed.close()
    assert opened.is_heard
    assert not closed.is_heard
    assert Journal(ME, None, print).is_heard
    assert not Journal(ME, None).is_heard
    opened.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to offer")
def test_a_full_disk_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(ME, "/dev/full")
    with caplog.at_level(logging.ERROR):
        journal.record("isolated")
        journal.record("isolated")
    journal.close()
    assert len(caplog.records) == 1
    assert "/dev/full" in caplog.text


def test_a_log_that_cannot_be_opened_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        Journal(ME, str(tmp_path))


def test_a_listener_that_raises_costs_nobody_an_event(tmp_path: Path) -> None:
    """It is somebody else's code, called by the one thread that hands everything over."""

    def listen(_: Event) -> None:
        raise RuntimeError("a fault of the program that embeds the peer")

    journal = Journal(ME, str(tmp_path / "log"), listen)
    journal.record("isolated")
    journal.record("isolated")
    journal.close()
    assert (tmp_path / "log").read_text().count(" isolated\n") == 2


def test_a_fault_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    journal = Journal(ME, str(tmp_path / "log"))
    try:
        raise ZeroDivisionError("on purpose")
    except ZeroDivisionError:
        journal.failure("the test")
    journal.close()
    details = read_back((tmp_path / "log").read_text())
    assert details["reason"] == "the test"
    assert details["traceback"].startswith("Traceback")
    assert "ZeroDivisionError: on purpose" in details["traceback"]
