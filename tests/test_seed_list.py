"""The list of seeds in a file that people edit and many programs write at once."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from messages import Address
from pure import SOME_ADDRESSES, address
from settings import add_seed, read_seeds, remove_all_seeds, remove_seed

SEED, OTHER, THIRD = address(1), address(2), address(3)
NEW = Address("not.among.the.generated.ones", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.txt"


# Lines as people write them.
WORDS = st.text(st.characters(exclude_characters="\r\n"), max_size=20)
COMMENTS = st.builds("{}#{}".format, st.sampled_from(["", "  ", "\t"]), WORDS)
ENTRIES = st.builds(
    "{}{}{}".format, st.sampled_from(["", "  "]), SOME_ADDRESSES, st.just("") | COMMENTS
)
SLIPS = st.sampled_from(["localhost", "localhost:", "localhost:99999", "::1:1", "two words:80"])
LINES = st.lists(COMMENTS | st.just("") | ENTRIES | SLIPS, max_size=8)


# ---- reading -------------------------------------------------------------------------------------


def test_seeds_are_read_in_order_each_once(path: Path) -> None:
    path.write_text(f"{OTHER}\n# {THIRD}\n\n  {SEED}  # the cellar\n{OTHER}\n[0::1]:5000")
    assert read_seeds(path).seeds == [OTHER, SEED, Address("::1", 5000)]
    assert read_seeds(path).complaints == []


def test_a_bad_line_is_skipped_with_its_place_and_its_reason(path: Path) -> None:
    path.write_text(f"# first\nlocalhost\n{SEED}\nlocalhost:http # why not\n")
    listed = read_seeds(path)
    assert listed.seeds == [SEED]
    assert len(listed.complaints) == 2
    for complaint, line, reason in zip(
        listed.complaints, (2, 4), ("host:port", "port from 1 to 65535"), strict=True
    ):
        assert f"{path}, line {line}: " in complaint
        assert reason in complaint


@examples(max_examples=100)
@given(
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=20) | SLIPS.map(str.encode)).map(b"\n".join)
)
def test_any_bytes_can_be_read(folder: Path, data: bytes) -> None:
    path = folder / "any"
    path.write_bytes(data)
    listed = read_seeds(path)
    assert len(listed.seeds) == len(set(listed.seeds))
    assert all(complaint.startswith(f"{path}, line ") for complaint in listed.complaints)


def test_a_port_too_long_for_python_to_read_is_a_bad_line(path: Path) -> None:
    path.write_text(f"localhost:01{'0' * 5000}\n{SEED}\n")  # int() refuses more than 4,300 digits
    listed = read_seeds(path)
    assert listed.seeds == [SEED]
    assert len(listed.complaints) == 1


@examples(max_examples=40)
@given(st.lists(SOME_ADDRESSES, max_size=8, unique=True))
def test_what_was_added_is_read(folder: Path, seeds: list[Address]) -> None:
    path = folder / "added"
    path.write_text("")
    for seed in seeds:
        add_seed(path, seed)
    assert read_seeds(path) == (seeds, [])


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_seeds(tmp_path / "missing")
    with pytest.raises(OSError, match="directory"):
        read_seeds(tmp_path)


# ---- changing ------------------------------------------------------------------------------------


@examples(max_examples=60)
@given(LINES)
def test_adding_and_removing_a_seed_leaves_every_other_line(folder: Path, lines: list[str]) -> None:
    path = folder / "edited"
    before = "".join(line + "\n" for line in lines)
    path.write_bytes(before.encode())
    add_seed(path, NEW)
    assert path.read_bytes().decode() == f"{before}{NEW}\n"
    remove_seed(path, NEW)
    assert path.read_bytes().decode() == before


def test_a_last_line_without_its_end_stays_a_line_of_its_own(path: Path) -> None:
    path.write_text(f"# our seeds\n{OTHER}")
    add_seed(path, SEED)
    assert path.read_text() == f"# our seeds\n{OTHER}\n{SEED}\n"


def test_a_seed_added_twice_is_listed_once(path: Path) -> None:
    path.write_text(f"  {SEED} # by hand")
    add_seed(path, SEED)
    assert path.read_text() == f"  {SEED} # by hand"
    add_seed(path, OTHER)
    add_seed(path, OTHER)
    assert read_seeds(path).seeds == [SEED, OTHER]


def test_a_seed_listed_under_another_spelling_is_listed(path: Path) -> None:
    path.write_text("[0:0::1]:5000\n")
    add_seed(path, Address("::1", 5000))
    assert path.read_text() == "[0:0::1]:5000\n"
    remove_seed(path, Address("::1", 5000))
    assert path.read_text() == ""


def test_removing_takes_every_entry_of_that_seed_and_no_other(path: Path) -> None:
    path.write_text(f"{SEED}\n{OTHER}\n{SEED} # again\n# {SEED}\n")
    remove_seed(path, SEED)
    after = f"{OTHER}\n# {SEED}\n"
    assert path.read_text() == after
    remove_seed(path, SEED)
    assert path.read_text() == after


@examples(max_examples=60)
@given(LINES)
def test_removing_all_leaves_comments_and_blank_lines(folder: Path, lines: list[str]) -> None:
    path = folder / "emptied"
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    remove_all_seeds(path)
    kept = [line for line in lines if not line.strip() or line.strip().startswith("#")]
    assert path.read_bytes().decode() == "".join(line + "\n" for line in kept)
    remove_all_seeds(path)
    assert path.read_bytes().decode() == "".join(line + "\n" for line in kept)
    assert read_seeds(path) == ([], [])


def test_a_comment_stays_one_comment_whatever_white_space_it_has(path: Path) -> None:
    """`str.splitlines` takes these for the end of a line; an editor shows a comment of one line."""
    for space in "\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        before = f"# moved away:{space}{SEED}\n"
        path.write_text(before, encoding="utf-8")
        assert read_seeds(path) == ([], [])
        add_seed(path, OTHER)
        remove_seed(path, OTHER)
        remove_all_seeds(path)
        assert path.read_text(encoding="utf-8") == before


def test_a_comment_in_another_encoding_is_kept_byte_for_byte(path: Path) -> None:
    before = "# der Rechner in Köln\n".encode("latin-1")
    path.write_bytes(before)
    add_seed(path, SEED)
    remove_seed(path, SEED)
    assert path.read_bytes() == before


def test_a_missing_file_is_made_for_a_seed_and_for_nothing_else(path: Path) -> None:
    remove_seed(path, SEED)
    remove_all_seeds(path)
    assert not path.exists()
    add_seed(path, SEED)
    assert path.read_text() == f"{SEED}\n"


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        add_seed(tmp_path / "missing" / "config.txt", SEED)


def test_a_file_that_need_not_change_is_not_touched(path: Path) -> None:
    add_seed(path, SEED)
    before = path.stat()
    add_seed(path, SEED)
    remove_seed(path, OTHER)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_who_may_read_the_file_stays_as_it_was(path: Path) -> None:
    path.touch()
    path.chmod(0o664)
    add_seed(path, SEED)
    assert path.stat().st_mode & 0o777 == 0o664


def test_a_link_to_the_file_stays_a_link(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "seeds.txt"
    target.touch()
    path.symlink_to(target)
    add_seed(path, SEED)
    assert path.is_symlink()
    assert read_seeds(target).seeds == [SEED]


def test_a_change_that_fails_leaves_the_file_and_nothing_beside_it(path: Path) -> None:
    """The one way to fail half-way that a test can bring about: a line that cannot be written."""
    path.write_text(f"{OTHER}\n")
    with pytest.raises(UnicodeError):
        add_seed(path, Address("\ud800", 1))
    assert path.read_text() == f"{OTHER}\n"
    assert os.listdir(path.parent) == [path.name]


# ---- many at once --------------------------------------------------------------------------------

STAYING = [address(number) for number in range(100, 140)]
LEAVING = [address(number) for number in range(200, 240)]


def come_and_go(path: Path, number: int) -> None:
    """One program: a seed that stays joins the list, and one that was there leaves it."""
    add_seed(path, STAYING[number])
    remove_seed(path, LEAVING[number])


def check_the_outcome(path: Path) -> None:
    listed = read_seeds(path)
    assert sorted(listed.seeds) == STAYING
    assert listed.complaints == []
    assert path.read_text().startswith("# kept\n")
    assert os.listdir(path.parent) == [path.name]


@pytest.fixture
def crowded(path: Path) -> Path:
    """A list that everybody is about to change."""
    path.write_text("# kept\n" + "".join(f"{seed}\n" for seed in LEAVING))
    return path


def test_threads_that_change_the_list_at_once_lose_nothing(crowded: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(come_and_go, crowded), range(len(STAYING))))
    check_the_outcome(crowded)


def test_processes_that_change_the_list_at_once_lose_nothing(crowded: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(come_and_go, crowded), range(len(STAYING)), chunksize=1))
    check_the_outcome(crowded)


def test_who_reads_meanwhile_never_sees_half_of_it(crowded: Path) -> None:
    everybody = {*STAYING, *LEAVING}
    with ThreadPoolExecutor(5) as pool:
        changes = [pool.submit(come_and_go, crowded, number) for number in range(len(STAYING))]
        while not all(change.done() for change in changes):
            listed = read_seeds(crowded)
            assert listed.complaints == []
            assert everybody.issuperset(listed.seeds)
            assert len(listed.seeds) >= len(STAYING)
    assert [change.result() for change in changes] == [None] * len(STAYING)
