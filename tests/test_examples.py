"""The programs in examples/, run as real processes; and the API that they stand on."""

import inspect
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import peer
import seed
from helpers import PATIENCE_S, ROOT, wait_until
from programs import MARK, Programs

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
every_example = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


class Example:
    """A running example: what it printed, and its input."""

    def __init__(self, name: str, *arguments: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *arguments],
            cwd=folder,
            env={**os.environ, MARK: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        """Collect lines until there are no more."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for(self, line: str) -> None:
        wait_until(lambda: line in self.lines, what=f"{line!r} among {self.lines}")

    def wait(self) -> int:
        """Its exit code; it complained of nothing."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        return code

    def kill(self) -> None:
        """As a power cut."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.kill()
        self._reader.join(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue


class Examples:
    """The examples of one test, in its folder, with a seed that they find there."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.folder = programs.folder
        self._started: list[Example] = []
        programs.seed()

    def start(self, name: str, *arguments: object) -> Example:
        example = Example(name, *map(str, arguments), folder=self.folder)
        self._started.append(example)
        return example

    def close(self) -> None:
        for example in self._started:
            example.close()


@pytest.fixture
def examples(programs: Programs) -> Iterator[Examples]:
    started = Examples(programs)
    try:
        yield started
    finally:
        started.close()


# ---- what they do


def test_chat(examples: Examples) -> None:
    """Everyone sees what the others type; other messages are passed over; Ctrl-D leaves."""
    anna, ben = examples.start("chat", "anna"), examples.start("chat", "ben")
    stranger = examples.programs.peer()
    stranger.say("no chat", '["two", 3]', '{"a": 1}')
    anna.type("good morning", "tab\there")
    ben.wait_for("anna: good morning")
    ben.wait_for("anna: 'tab\\there'")
    ben.type("good evening")
    ben.end_input()
    anna.wait_for("ben: good evening")
    assert ben.wait() == 0
    assert anna.lines == ["ben: good evening"]
    anna.process.send_signal(signal.SIGINT)
    assert anna.wait() == 0


def test_death_watch(examples: Examples) -> None:
    """Each machine tells of a death once, and runs the command; who leaves is not dead."""
    tell = examples.folder / "tell.sh"
    tell.write_text(f'#!/bin/sh\necho "$1" >> {examples.folder}/told.txt\n')
    tell.chmod(0o755)
    watchers = [examples.start("death_watch", tell) for _ in range(3)]
    victim, leaver = examples.programs.peers(2)
    for program in (victim, leaver):
        wait_until(lambda p=program: len(p.neighbours()) == 4, what="all linked")  # type: ignore[misc]
    leaver.terminate()
    leaver.wait()
    address = victim.address
    victim.kill()
    told = examples.folder / "told.txt"
    for watcher in watchers:
        watcher.wait_for(f"'{address}' is dead")
    wait_until(lambda: told.exists() and told.read_text().count("\n") == 3, what="three mails")
    assert [watcher.lines for watcher in watchers] == [[f"'{address}' is dead"]] * 3
    assert told.read_text() == f"{address}\n" * 3


def values(path: Path) -> dict[str, str]:
    known = json.loads(path.read_text()) if path.exists() else {}
    return {name: setting[-1] for name, setting in known.items()}


def test_shared_settings(examples: Examples) -> None:
    """Set anywhere, known everywhere: also to who comes late, and after all were stopped."""
    files = [examples.folder / f"{number}.json" for number in range(3)]
    first, second = (examples.start("shared_settings", file) for file in files[:2])
    first.type("colour = red", "size=4")
    expected = {"colour": "red", "size": "4"}
    wait_until(lambda: values(files[1]) == expected, what="both settings at the second")
    second.type("colour = blue")
    expected["colour"] = "blue"
    wait_until(lambda: values(files[0]) == expected, what="the later colour at the first")
    examples.start("shared_settings", files[2])
    wait_until(lambda: values(files[2]) == expected, what="all of it at a newcomer")
    for example in (first, second):
        example.kill()
    files[0].unlink()
    examples.start("shared_settings", files[0])
    wait_until(lambda: values(files[0]) == expected, what="all of it at one with an empty disk")


def readings(database: Path) -> list[str]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as db:
        try:
            return [row[0] for row in db.execute("select reading from readings order by at")]
        except sqlite3.OperationalError:  # there is no table yet
            return []


def test_sensor_feed(examples: Examples) -> None:
    """Collector and sensor are killed in the middle of it; every reading is stored once."""
    sensor_db, collector_db = examples.folder / "sensor.db", examples.folder / "collector.db"
    sensor = examples.start("sensor_feed", "sense", sensor_db)
    collector = examples.start("sensor_feed", "collect", collector_db)
    examples.programs.peer().say("no reading", "[1, 2, 3]")
    sensor.type(*(str(number) for number in range(100)))
    wait_until(lambda: len(readings(collector_db)) > 20, what="a few readings")
    collector.kill()
    sensor.type(*(str(number) for number in range(100, 200)))
    wait_until(lambda: "199" in readings(sensor_db), what="the last reading at the sensor")
    sensor.kill()
    collector = examples.start("sensor_feed", "collect", collector_db)
    sensor = examples.start("sensor_feed", "sense", sensor_db)
    sensor.type(*(str(number) for number in range(200, 300)))
    sensor.end_input()
    assert sensor.wait() == 0
    assert readings(sensor_db) == []
    assert readings(collector_db) == [str(number) for number in range(300)]
    collector.process.send_signal(signal.SIGINT)
    assert collector.wait() == 0


# ---- what they are


@every_example
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


@every_example
def test_an_example_has_a_test_and_says_how_to_run_it(path: Path) -> None:
    assert f"test_{path.stem}" in globals()
    assert f"python3 examples/{path.name}" in path.read_text()


@every_example
def test_no_arguments_are_no_traceback(examples: Examples, path: Path) -> None:
    example = examples.start(path.stem)
    example.end_input()
    wait_until(
        lambda: (
            example.process.poll() is not None or len(examples.programs.logged("listening")) == 2
        ),
        what="its start, or its end",
    )
    example.process.send_signal(signal.SIGINT)
    example.process.wait(PATIENCE_S)
    assert example.process.stderr is not None
    assert "Traceback" not in example.process.stderr.read()


def test_user_code_passes_the_strictest_type_check(tmp_path: Path) -> None:
    """The examples, checked elsewhere and without the settings of this project."""
    for path in EXAMPLES:
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the API


def public_members(owner: type) -> dict[str, object]:
    return {name: item for name, item in vars(owner).items() if not name.startswith("_")}


API = {
    f"{owner.__name__}.{name}": item
    for owner in (peer.Peer, seed.Seed)
    for name, item in public_members(owner).items()
}


def text_of(item: object) -> str:
    return inspect.getdoc(item) or ""


def source_of(item: object) -> str:
    function = item.fget if isinstance(item, property) else item
    assert inspect.isfunction(function)
    return inspect.getsource(function)


@pytest.mark.parametrize("module", [peer, seed])
def test_every_public_name_says_what_it_is(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    for name in names:
        assert name == "Event" or text_of(getattr(module, name)), name


@pytest.mark.parametrize("name", API)
def test_a_method_says_what_it_promises(name: str) -> None:
    first, *_ = text_of(API[name]).split("\n")
    assert re.match(r"[A-Z].*[.:;…]", first), f"{name}: expected a sentence, got {first!r}"


@pytest.mark.parametrize("name", API)
def test_a_method_names_the_errors_it_raises(name: str) -> None:
    source, text = source_of(API[name]), text_of(API[name])
    raised = set(re.findall(r"raise (\w+)\(", source)) & set(peer.__all__)
    raised |= {"NotRunning"} if "_check_running()" in source else set()
    raised |= {"MessageTooLarge"} if "_check_size(" in source else set()
    raised |= {"BadAddress"} if "Address.parse(" in source else set()
    assert {error for error in raised if error not in text} == set()


@pytest.mark.parametrize("owner", [peer.Peer, seed.Seed])
def test_every_argument_of_a_constructor_is_explained(owner: type) -> None:
    names = list(inspect.signature(owner).parameters)
    assert [name for name in names if f"`{name}`" not in text_of(owner)] == []


@pytest.mark.parametrize("name", API)
def test_a_number_with_a_unit_says_which(name: str) -> None:
    """Times are in seconds unless the name tells another unit."""
    if "timeout" in source_of(API[name]).partition("\n")[0]:
        assert "seconds" in text_of(API[name])
