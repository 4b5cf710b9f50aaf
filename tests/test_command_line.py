"""What a person types for a number, a time or an address: a value, or a line that says why not."""

import argparse
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import (
    Running,
    address_text,
    argument,
    count_number,
    parser,
    port_number,
    seconds,
    times,
)
from helpers import let_pass
from pure import ADDRESSES, ANY_TEXT

NUMBERS = st.integers(-10, 100_000).map(str) | st.floats().map(str) | st.integers().map(str)
TYPED = ANY_TEXT | NUMBERS | NUMBERS.map("  {}\n".format) | ADDRESSES.map(str)

CONVERTERS: dict[str, tuple[Callable[[str], object], Callable[[object], bool]]] = {
    "port": (port_number, lambda value: value in range(1, 65536)),
    "count": (count_number, lambda value: value in range(1, 1001)),
    "times": (times, lambda value: isinstance(value, int) and value >= 0),
    "seconds": (seconds, lambda value: isinstance(value, float) and value >= 0),
    "address": (address_text, lambda value: isinstance(value, str) and ":" in value),
}
every_converter = pytest.mark.parametrize(
    ("convert", "is_right"), CONVERTERS.values(), ids=CONVERTERS.keys()
)


def converted(convert: Callable[[str], object], text: str) -> object:
    """The value, or the error. Any exception but ValueError fails the test."""
    try:
        return convert(text)
    except ValueError as error:
        return error


@every_converter
@settings(max_examples=200)
@given(text=TYPED)
def test_any_text_is_a_value_or_an_error_of_one_line(
    convert: Callable[[str], object], is_right: Callable[[object], bool], text: str
) -> None:
    result = converted(convert, text)
    if isinstance(result, ValueError):
        assert str(result).startswith("expected ")
        assert str(result).isprintable()
        assert len(str(result)) < 200
    else:
        assert is_right(result)


@every_converter
@pytest.mark.parametrize("text", ["", " ", "-1", "x", "NaN", "1,5", "0x10", "9" * 5000])
def test_no_converter_takes(
    convert: Callable[[str], object], is_right: Callable[[object], bool], text: str
) -> None:
    assert not is_right(text)
    with pytest.raises(ValueError, match="expected "):
        convert(text)


@pytest.mark.parametrize(
    ("text", "port"), [("1", 1), ("65535", 65535), (" 80\n", 80), ("0080", 80)]
)
def test_a_port(text: str, port: int) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize("text", ["0", "65536", "80.0", "+80", "8 0", "http"])
def test_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="expected a port from 1 to 65535"):
        port_number(text)


def test_a_count_is_from_1_to_1000() -> None:
    assert [count_number(text) for text in ("1", "1000")] == [1, 1000]
    for text in ("0", "1001"):
        with pytest.raises(ValueError, match="from 1 to 1000"):
            count_number(text)


def test_times_may_be_none_at_all() -> None:
    assert [times(text) for text in ("0", "5")] == [0, 5]
    with pytest.raises(ValueError, match="0 or more"):
        times("0.5")


def test_seconds_may_be_a_fraction_or_none() -> None:
    assert [seconds(text) for text in ("0", "0.5", "3600", "1e3")] == [0, 0.5, 3600, 1000]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "-0.1", "1e999"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="expected seconds"):
        seconds(text)


@pytest.mark.parametrize("text", ["1e10", "1e300", "9" * 30])
def test_seconds_that_no_thread_can_wait_are_refused(text: str) -> None:
    assert float(text) > threading.TIMEOUT_MAX
    with pytest.raises(ValueError, match="expected seconds"):
        seconds(text)


def test_an_address_is_given_in_its_one_spelling() -> None:
    assert address_text("[0:0::1]:080") == "[::1]:80"
    with pytest.raises(ValueError, match="expected host:port"):
        address_text("localhost")


def test_a_bad_argument_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parser("A program.")
    arguments.add_argument("port", type=argument(port_number))
    assert arguments.parse_args(["80"]).port == 80
    with pytest.raises(SystemExit) as ended:
        arguments.parse_args(["65536"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected a port from 1 to 65535, got '65536'" in said


def test_an_argument_keeps_the_reason() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected seconds.* got 'soon'"):
        argument(seconds)("soon")


def test_a_hang_up_before_the_program_is_ready_is_obeyed_once_it_is() -> None:
    running = Running()
    obeyed: list[str] = []
    running.hang_up()
    running.reload_with(lambda: obeyed.append("at once"))
    assert obeyed == ["at once"]
    running.reload_with(lambda: obeyed.append("not again"))
    assert obeyed == ["at once"]
    running.hang_up()
    assert obeyed == ["at once", "not again"]


class Told:
    """Tells what was done with it."""

    def __init__(self) -> None:
        self.story: list[str] = []

    def start(self) -> None:
        self.story.append("start")

    def stop(self, reason: str) -> None:
        self.story.append(reason)


def test_what_a_program_begins_is_stopped_at_the_end() -> None:
    running, told = Running(), Told()
    running.begin(told.start, told.stop)
    assert told.story == ["start"]
    running.close()
    running.close()
    assert told.story == ["start", "told to stop"]


def test_after_the_end_a_program_begins_nothing_more() -> None:
    running, told = Running(), Told()
    running.close()
    with pytest.raises(SystemExit) as ended:
        running.begin(told.start, told.stop)
    assert ended.value.code == 0
    assert told.story == []


def test_the_end_waits_for_what_is_just_beginning_and_stops_it() -> None:
    running = Running()
    is_beginning, go_on = threading.Event(), threading.Event()

    class Slow(Told):
        def start(self) -> None:
            is_beginning.set()
            go_on.wait()
            super().start()

    slow = Slow()
    beginning = threading.Thread(target=running.begin, args=(slow.start, slow.stop))
    ending = threading.Thread(target=running.close)
    beginning.start()
    is_beginning.wait()
    ending.start()
    let_pass(0.1)
    assert slow.story == []
    go_on.set()
    for thread in (beginning, ending):
        thread.join()
    assert slow.story == ["start", "told to stop"]


def test_what_could_not_begin_is_not_stopped() -> None:
    class Failing(Told):
        def start(self) -> None:
            raise OSError("no room")

    running, failing = Running(), Failing()
    with pytest.raises(OSError, match="no room"):
        running.begin(failing.start, failing.stop)
    running.close()
    assert failing.story == []
