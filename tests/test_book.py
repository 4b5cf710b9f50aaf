"""The book of contacts: who is in it, when an address is left alone, and when it is forgotten."""

import random

import pytest

from messages import Address
from nodes import LIMITS, ME, link, overlay_of
from overlay import REACHED, Backoff, Dialled, Direction, Overlay
from pure import address, addresses


@pytest.fixture
def overlay() -> Overlay:
    return overlay_of()


# ---- the book ------------------------------------------------------------------------------------


def test_contacts_are_learned_once_and_never_oneself(overlay: Overlay) -> None:
    overlay.learn([address(1), address(ME), address(2), address(1)])
    assert list(overlay.book) == addresses(1, 2)


def test_learning_again_forgives_no_failure(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    overlay.failed(address(1), Dialled.SILENT, now_s=0)
    overlay.learn(addresses(1))
    assert overlay.dials(now_s=0.5) == []


def test_the_book_is_bounded_and_what_comes_last_is_in_it(overlay: Overlay) -> None:
    numbers = [number for number in range(5000) if address(number) != address(ME)]
    overlay.learn(addresses(*numbers))
    assert len(overlay.book) == LIMITS.book_size
    assert address(numbers[-1]) in overlay.book
    early = sum(address(number) in overlay.book for number in numbers[:4000])
    assert early > 0, "random ones make room, not the oldest"


def test_no_teller_fills_a_full_book(overlay: Overlay) -> None:
    overlay.learn(addresses(*range(100, 120)), "honest")
    overlay.learn(addresses(*range(1000, 5000)), "greedy")
    assert len(overlay.book) == LIMITS.book_size
    assert set(addresses(*range(100, 120))) < overlay.book.keys()


def test_a_single_teller_may_fill_the_book_and_makes_room_for_others(overlay: Overlay) -> None:
    overlay.learn(addresses(*range(1000, 5000)), "first")
    overlay.learn(addresses(*range(100, 120)), "second")
    assert len(overlay.book) == LIMITS.book_size
    assert set(addresses(*range(100, 120))) < overlay.book.keys()


def test_whom_we_reached_ourselves_no_word_of_others_pushes_out(overlay: Overlay) -> None:
    overlay.learn(addresses(1), "a")
    overlay.reached(address(1))
    for teller in range(1000):
        overlay.learn(addresses(*range(10 * teller + 100, 10 * teller + 110)), str(teller))
    assert address(1) in overlay.book
    assert len(overlay.book) == LIMITS.book_size


@pytest.mark.parametrize("direction", Direction)
def test_reached_is_whom_we_dialled_and_not_who_dialled_us(
    overlay: Overlay, direction: Direction
) -> None:
    link(overlay, 1, direction)
    is_reached = overlay.book[address(1)] == REACHED
    assert is_reached == (direction is Direction.OUT)


def test_a_long_list_does_not_drown_a_short_one() -> None:
    """Black holes by the hundred from one, two peers from another: they are dialled soon."""
    for seed in range(20):
        overlay = overlay_of(seed)
        overlay.learn(addresses(*range(1000, 1500)), "attacker")
        overlay.learn(addresses(1, 2), "honest")
        dialled: set[Address] = set()
        for attempt in range(4):
            dialled.update(chosen := overlay.dials(now_s=3.0 * attempt))
            for contact in chosen:
                overlay.failed(contact, Dialled.SILENT, now_s=3.0 * attempt + 2.9)
        assert dialled >= set(addresses(1, 2))


def test_another_name_of_oneself_is_no_contact(overlay: Overlay) -> None:
    overlay.learn(addresses(1, 2))
    overlay.dials(now_s=0)
    overlay.is_me(address(1))
    overlay.learn(addresses(1))
    assert list(overlay.book) == addresses(2)
    assert overlay.dialling == {address(2)}


def test_a_contact_is_kept_under_the_name_it_calls_itself(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    overlay.dials(now_s=0)
    overlay.renamed(address(1), address(2))
    assert list(overlay.book) == addresses(2)
    assert overlay.dialling == set()


def test_a_sample_is_of_contacts_and_neighbours_and_never_the_asker(overlay: Overlay) -> None:
    overlay.learn(addresses(1, 2))
    link(overlay, 3)
    assert sorted(overlay.sample(address(2))) == addresses(1, 3)
    assert sorted(overlay.sample(None)) == addresses(1, 2, 3)


def test_a_sample_is_small_and_random(overlay: Overlay) -> None:
    overlay.learn(addresses(*range(100, 300)))
    first, second = overlay.sample(None), overlay.sample(None)
    assert len(set(first)) == len(set(second)) == LIMITS.contacts_per_exchange
    assert set(first) != set(second)


def test_the_same_randomness_gives_the_same_sample() -> None:
    samples = []
    for _ in range(2):
        overlay = overlay_of(seed=7)
        overlay.learn(addresses(*range(1, 400)))
        samples.append(overlay.sample(None))
    assert samples[0] == samples[1]


# ---- back-off ------------------------------------------------------------------------------------


def waits_s(failures: int) -> list[float]:
    backoff = Backoff(LIMITS, random.Random(1))
    waits = []
    for _ in range(failures):
        backoff.failed(now_s=1000.0)
        waits.append(backoff.until_s - 1000.0)
    return waits


def test_the_wait_doubles_with_each_failure_up_to_a_limit() -> None:
    expected_s = [1, 2, 4, 8, 16, 32, *[60] * 10]
    for wait_s, middle_s in zip(waits_s(len(expected_s)), expected_s, strict=True):
        assert 0.75 * middle_s <= wait_s <= 1.25 * middle_s


def test_the_wait_has_jitter() -> None:
    assert len(set(waits_s(20)[6:])) > 10


def test_the_wait_stays_within_its_limit_for_ever() -> None:
    assert max(waits_s(5000)) <= 1.25 * LIMITS.longest_backoff_s


def test_a_success_starts_the_wait_anew() -> None:
    backoff = Backoff(LIMITS, random.Random(1))
    for _ in range(5):
        backoff.failed(now_s=0)
    backoff.succeeded()
    assert backoff.until_s < 0
    backoff.failed(now_s=0)
    assert backoff.until_s <= 1.25


@pytest.mark.parametrize("how", Dialled)
def test_an_address_that_failed_is_left_alone_for_its_wait(overlay: Overlay, how: Dialled) -> None:
    overlay.learn(addresses(1))
    overlay.failed(address(1), how, now_s=10)
    assert overlay.dials(now_s=10.74) == []
    assert overlay.dials(now_s=11.26) == addresses(1)


def test_an_address_that_answered_may_be_dialled_at_once(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    overlay.failed(address(1), Dialled.SILENT, now_s=0)
    overlay.reached(address(1))
    assert overlay.dials(now_s=0) == addresses(1)


def test_an_address_that_was_a_neighbour_may_be_dialled_at_once(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    overlay.failed(address(1), Dialled.SILENT, now_s=0)
    link(overlay, 1)
    overlay.unlinked(address(1))
    assert overlay.dials(now_s=0) == addresses(1)


# ---- forgetting ----------------------------------------------------------------------------------


def fail(overlay: Overlay, *hows: Dialled) -> None:
    for how in hows:
        overlay.failed(address(1), how, now_s=0)


def test_an_address_that_refuses_three_times_in_a_row_is_forgotten(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    fail(overlay, Dialled.REFUSED, Dialled.REFUSED)
    assert address(1) in overlay.book
    fail(overlay, Dialled.REFUSED)
    assert address(1) not in overlay.book


@pytest.mark.parametrize("how", [Dialled.SILENT, Dialled.TURNED_AWAY])
def test_an_address_is_never_forgotten_for_anything_else(overlay: Overlay, how: Dialled) -> None:
    overlay.learn(addresses(1))
    fail(overlay, *[how] * 1000)
    assert address(1) in overlay.book


@pytest.mark.parametrize("how", [Dialled.SILENT, Dialled.TURNED_AWAY])
def test_refusals_that_are_not_in_a_row_do_not_add_up(overlay: Overlay, how: Dialled) -> None:
    overlay.learn(addresses(1))
    fail(overlay, *[Dialled.REFUSED, Dialled.REFUSED, how] * 5)
    assert address(1) in overlay.book


def test_an_address_that_answered_has_its_refusals_forgiven(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    fail(overlay, Dialled.REFUSED, Dialled.REFUSED)
    overlay.reached(address(1))
    fail(overlay, Dialled.REFUSED, Dialled.REFUSED)
    assert address(1) in overlay.book


def test_a_failure_of_a_stranger_is_no_reason_to_note_it(overlay: Overlay) -> None:
    fail(overlay, Dialled.SILENT)
    assert overlay.book == {}
