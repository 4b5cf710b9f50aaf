"""Whom to hold: who may become a neighbour, and whom to dial next."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import Address
from nodes import LIMITS, ME, link, overlay_of
from overlay import Dialled, Direction, Neighbour, Overlay
from pure import address, addresses
from settings import Tunables


@pytest.fixture
def overlay() -> Overlay:
    return overlay_of()


# ---- whom to dial --------------------------------------------------------------------------------


def test_as_many_are_dialled_as_links_are_wanted(overlay: Overlay) -> None:
    overlay.learn(addresses(*range(1, 40)))
    chosen = overlay.dials(now_s=0)
    assert len(set(chosen)) == LIMITS.out_links
    assert overlay.dials(now_s=0) == [], "those count until they fail or succeed"


def test_who_is_chosen_is_random() -> None:
    chosen = set()
    for seed in range(20):
        overlay = overlay_of(seed=seed)
        overlay.learn(addresses(*range(1, 40)))
        chosen.add(tuple(overlay.dials(now_s=0)))
    assert len(chosen) > 15


def test_links_that_others_dialled_do_not_count_as_ours(overlay: Overlay) -> None:
    for number in range(1, 5):
        link(overlay, number, Direction.IN)
    overlay.learn(addresses(*range(10, 40)))
    assert len(overlay.dials(now_s=0)) == LIMITS.out_links


def test_only_what_is_missing_is_dialled(overlay: Overlay) -> None:
    for number in range(1, 4):
        link(overlay, number, Direction.OUT)
    overlay.learn(addresses(*range(10, 40)))
    assert len(overlay.dials(now_s=0)) == 1


def test_nobody_is_dialled_when_all_links_are_taken(overlay: Overlay) -> None:
    for number in range(1, 1 + LIMITS.max_links):
        link(overlay, number, Direction.IN)
    overlay.learn(addresses(*range(20, 40)))
    assert overlay.dials(now_s=0) == []
    overlay.unlinked(address(1))
    assert len(overlay.dials(now_s=0)) == 1


def test_neither_neighbours_nor_those_being_dialled_are_dialled(overlay: Overlay) -> None:
    overlay.learn(addresses(1, 2, 3))
    link(overlay, 1)
    assert sorted(overlay.dials(now_s=0)) == addresses(2, 3)
    assert overlay.dials(now_s=0) == []
    overlay.failed(address(2), Dialled.SILENT, now_s=0)
    assert overlay.dials(now_s=100) == addresses(2)


def fail_all(overlay: Overlay, now_s: float) -> int:
    """Every dial under way fails. Gives how many are made next."""
    for peer in sorted(overlay.dialling):
        overlay.failed(peer, Dialled.SILENT, now_s)
    return len(overlay.dials(now_s))


def test_the_more_dials_are_in_vain_the_more_are_tried_at_once(overlay: Overlay) -> None:
    overlay.learn(addresses(*range(1, 40)))
    assert len(overlay.dials(now_s=0)) == LIMITS.parallel_dials
    assert fail_all(overlay, now_s=0.5) == 2 * LIMITS.parallel_dials
    assert fail_all(overlay, now_s=0.7) == LIMITS.most_parallel_dials


def test_also_with_a_neighbour_many_are_tried_while_none_succeeds(overlay: Overlay) -> None:
    """The two may be all that is left of a network, or all that is left of one part of it."""
    link(overlay, 40, Direction.IN)
    overlay.learn(addresses(*range(1, 40)))
    overlay.dials(now_s=0)
    assert fail_all(overlay, now_s=0.5) > LIMITS.parallel_dials


@pytest.mark.parametrize("is_turned_away", [False, True])
def test_once_somebody_answers_few_are_dialled_again(
    overlay: Overlay, is_turned_away: bool
) -> None:
    overlay.learn(addresses(*range(1, 40)))
    overlay.dials(now_s=0)
    fail_all(overlay, now_s=0.5)
    answering, *others = sorted(overlay.dialling)
    for peer in others:
        overlay.failed(peer, Dialled.SILENT, now_s=0.6)
    if is_turned_away:
        overlay.failed(answering, Dialled.TURNED_AWAY, now_s=0.6)
    else:
        overlay.linked(answering, Neighbour(Direction.OUT, 1, 3, since_s=0.6))
    assert len(overlay.dials(now_s=0.6)) == LIMITS.parallel_dials - (not is_turned_away)


def test_who_has_not_answered_for_a_second_is_taken_for_silent(overlay: Overlay) -> None:
    """A dial may take three seconds until it fails; others are tried in the meantime."""
    overlay.learn(addresses(*range(60, 400)))
    made = [len(overlay.dials(now_s)) for now_s in (0, 0.9, 1.0, 1.9, 2.0, 2.9)]
    few, many = LIMITS.parallel_dials, LIMITS.most_parallel_dials
    assert made == [few, 0, 2 * few, 0, many, 0]


def test_as_many_are_tried_as_are_needed_if_contacts_are_as_silent_as_neighbours() -> None:
    for silent, expected in [((), 2), ((1,), 4), ((1, 3), 6), ((1, 2), 8), ((1, 2, 3), 16)]:
        overlay = overlay_of(silent=silent)
        for number in (1, 2, 3, 4):
            link(overlay, number, Direction.OUT if number in (1, 2) else Direction.IN)
        overlay.learn(addresses(*range(60, 100)))
        assert len(overlay.dials(now_s=0)) == expected, silent


def test_dials_are_urgent_while_a_neighbour_is_silent() -> None:
    for silent in ((), (1,)):
        overlay = overlay_of(silent=silent)
        link(overlay, 1)
        assert not overlay.is_urgent, "nobody is dialled"
        overlay.learn(addresses(2))
        assert overlay.dials(now_s=0) == addresses(2)
        assert overlay.is_urgent is bool(silent)


def test_a_silent_neighbour_is_given_up_first_and_no_other_for_its_sake() -> None:
    overlay = overlay_of(silent=[3])
    for number in range(1, LIMITS.max_links):
        link(overlay, number, links=number)
    assert overlay.least_needed() == address(3)
    assert overlay.spare() is None, "the others may be all there is"
    assert overlay.links == LIMITS.max_links - 2


# ---- who may become a neighbour ------------------------------------------------------------------


def fill(overlay: Overlay) -> None:
    """Eight inbound links, of which number 7 has most links itself, and four of our own."""
    for number in range(LIMITS.max_links):
        direction = Direction.IN if number < 8 else Direction.OUT
        link(overlay, number, direction, links=5 + number)


def test_anybody_may_come_while_there_is_room(overlay: Overlay) -> None:
    assert overlay.refusal(address(99), boot_ms=1, needs_link=False) == ""


def test_a_full_peer_refuses_who_has_links_and_lets_in_who_has_none(overlay: Overlay) -> None:
    fill(overlay)
    assert "links are taken" in overlay.refusal(address(99), boot_ms=1, needs_link=False)
    assert overlay.refusal(address(99), boot_ms=1, needs_link=True) == ""


def test_a_full_peer_with_a_silent_neighbour_lets_anybody_in() -> None:
    overlay = overlay_of(silent=[3])
    fill(overlay)
    assert overlay.refusal(address(99), boot_ms=1, needs_link=False) == ""


def test_a_full_peer_lets_a_neighbour_make_its_link_anew(overlay: Overlay) -> None:
    fill(overlay)
    assert overlay.refusal(address(0), boot_ms=1, needs_link=False) == ""


def test_the_link_to_give_up_is_to_the_inbound_neighbour_with_most_links(overlay: Overlay) -> None:
    fill(overlay)
    assert overlay.least_needed() == address(7)


def test_a_link_of_our_own_is_given_up_only_when_there_is_no_other(overlay: Overlay) -> None:
    for number in range(LIMITS.max_links):
        link(overlay, number, Direction.OUT, links=number)
    assert overlay.least_needed() == address(LIMITS.max_links - 1)


def test_nobody_is_its_own_neighbour(overlay: Overlay) -> None:
    overlay.is_me(address(1))
    for name in (address(ME), address(1)):
        assert "itself" in overlay.refusal(name, boot_ms=1, needs_link=True)
        assert "itself" in overlay.conflict(name, 1, Direction.OUT)


def test_an_earlier_life_cannot_replace_a_later_one(overlay: Overlay) -> None:
    for direction in Direction:
        link(overlay, 1, boot_ms=5)
        assert "later life" in overlay.conflict(address(1), 4, direction)


def test_a_later_life_replaces_an_earlier_one(overlay: Overlay) -> None:
    for held in Direction:
        for new in Direction:
            link(overlay, 1, held, boot_ms=5)
            assert overlay.conflict(address(1), 6, new) == ""


def test_a_second_link_by_the_same_side_replaces_the_first(overlay: Overlay) -> None:
    for direction in Direction:
        link(overlay, 1, direction)
        assert overlay.conflict(address(1), 1, direction) == ""


@pytest.mark.parametrize(("other", "winner"), [(1, Direction.IN), (99, Direction.OUT)])
def test_of_two_links_the_one_that_the_lower_address_dialled_stays(
    overlay: Overlay, other: int, winner: Direction
) -> None:
    loser = next(direction for direction in Direction if direction is not winner)
    link(overlay, other, winner)
    assert "both dialled" in overlay.conflict(address(other), 1, loser)
    link(overlay, other, loser)
    assert overlay.conflict(address(other), 1, winner) == ""


@pytest.mark.parametrize(("other", "is_refused"), [(1, False), (99, True)])
def test_a_dial_under_way_counts_as_a_link(overlay: Overlay, other: int, is_refused: bool) -> None:
    overlay.learn(addresses(other))
    overlay.dials(now_s=0)
    assert bool(overlay.refusal(address(other), 1, needs_link=True)) is is_refused
    assert overlay.conflict(address(other), 1, Direction.OUT) == "", "the dial itself succeeds"


# ---- feelers, spare links, exchanges -------------------------------------------------------------


def check_rhythm(times_s: list[float], interval_s: float) -> None:
    """About once an interval, but not exactly, so that peers do not fall into step."""
    waits_s = [next_s - one_s for one_s, next_s in pairwise(times_s)]
    assert times_s[0] <= interval_s
    assert 0.74 * interval_s <= min(waits_s) <= 0.9 * interval_s
    assert 1.1 * interval_s <= max(waits_s) <= 1.26 * interval_s


def test_about_every_thirty_seconds_a_stranger_is_tried(overlay: Overlay) -> None:
    link(overlay, 1)
    overlay.learn(addresses(2, 3))
    tried_s = []
    for tenth in range(10_000):
        if (stranger := overlay.feeler(tenth / 10)) is not None:
            tried_s.append(tenth / 10)
            assert stranger in addresses(2, 3)
            assert stranger in overlay.dialling
            overlay.reached(stranger)
    check_rhythm(tried_s, LIMITS.feeler_interval_s)


def test_the_starved_try_strangers_soon_and_then_less_and_less_often(overlay: Overlay) -> None:
    """Whoever claims to have what nobody said can make a peer starve for as long as it likes."""
    link(overlay, 1)
    overlay.learn(addresses(*range(2, 100)))
    overlay.feeler(now_s=1000)
    tried_s = [
        tenth / 10
        for tenth in range(10_001, 14_000)
        if overlay.feeler(tenth / 10, in_vain=addresses(1)) is not None
    ]
    assert len([at_s for at_s in tried_s if at_s < 1004]) in (5, 6)
    waits_s = [later_s - sooner_s for sooner_s, later_s in pairwise(tried_s)]
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] == pytest.approx(LIMITS.feeler_interval_s / 2, abs=0.2)
    calm_s = tried_s[-1] + 0.6 * LIMITS.feeler_interval_s
    assert overlay.feeler(calm_s) is None
    assert overlay.feeler(calm_s, in_vain=addresses(1)) is not None, "and soon again the next time"


def starved_tries(overlay: Overlay, origins: list[Address], for_s: int = 3) -> list[Address]:
    """Whom one tries that is starved for so long; nobody answers."""
    tried = []
    for tenth in range(10_000, 10_000 + 10 * for_s):
        now_s = tenth / 10
        who = overlay.feeler(now_s, addresses(1), origins)
        if who is not None:
            tried.append(who)
            overlay.failed(who, Dialled.REFUSED, now_s)
    return tried


def test_the_starved_try_who_said_what_they_lack_after_a_few_strangers(overlay: Overlay) -> None:
    """Maybe all the neighbours of the origin pass on nothing."""
    link(overlay, 1)
    overlay.learn(addresses(*range(2, 100)))
    tried = starved_tries(overlay, addresses(500))
    assert len(tried) == 5
    assert tried.index(address(500)) == 2


@pytest.mark.parametrize("count", [1, 3, 4000])
def test_origins_keep_nobody_from_trying_strangers(overlay: Overlay, count: int) -> None:
    """Anybody can say that they spoke, and all the starved of a network may want to try them."""
    link(overlay, 1)
    overlay.learn(addresses(*range(2, 100)))
    origins = addresses(*range(500, 500 + count))
    tried = starved_tries(overlay, origins, for_s=200)
    assert len(tried) > 9
    assert sum(who in origins for who in tried) == 1
    assert not set(origins) & overlay.book.keys()


def test_the_starved_try_no_other_name_of_their_own(overlay: Overlay) -> None:
    link(overlay, 1)
    overlay.learn(addresses(*range(2, 100)))
    overlay.is_me(address(500))
    assert address(500) not in starved_tries(overlay, addresses(500))


def test_who_is_not_starved_tries_no_origin(overlay: Overlay) -> None:
    link(overlay, 1)
    assert overlay.feeler(1000, (), addresses(500)) is None
    assert address(500) not in overlay.book


def test_an_origin_that_is_a_neighbour_or_was_asked_in_vain_is_not_dialled(
    overlay: Overlay,
) -> None:
    link(overlay, 1)
    overlay.learn(addresses(*range(2, 100)))
    assert address(1) not in starved_tries(overlay, addresses(1))


def test_a_peer_without_neighbours_sends_no_feeler(overlay: Overlay) -> None:
    overlay.learn(addresses(2))
    assert overlay.feeler(now_s=100) is None
    assert overlay.dialling == set()


def test_a_feeler_goes_neither_to_a_neighbour_nor_to_who_failed_just_now(overlay: Overlay) -> None:
    link(overlay, 1)
    overlay.learn(addresses(2))
    overlay.failed(address(2), Dialled.SILENT, now_s=100)
    assert overlay.feeler(now_s=100) is None


def test_one_link_of_ours_too_many_is_given_up(overlay: Overlay) -> None:
    for number in range(1, 1 + LIMITS.out_links):
        link(overlay, number)
    link(overlay, 20, Direction.IN)
    assert overlay.spare() is None
    link(overlay, 30)
    assert overlay.spare() in addresses(1, 2, 3, 4)


def test_the_newest_link_is_not_the_spare_one(overlay: Overlay) -> None:
    """A feeler made it, perhaps to the other part of a split network."""
    for number in range(1, 6):
        link(overlay, number)
    assert {overlay.spare() for _ in range(100)} == set(addresses(1, 2, 3, 4))


def test_a_neighbour_with_hardly_a_link_is_not_given_up(overlay: Overlay) -> None:
    for number in range(1, 6):
        link(overlay, number, links=2)
    assert overlay.spare() is None
    overlay.neighbours[address(3)].links = 3
    assert overlay.spare() == address(3)


def test_about_every_ten_seconds_a_neighbour_is_asked_for_contacts(overlay: Overlay) -> None:
    for number in (1, 2):
        link(overlay, number)
    asked = [(tenth / 10, overlay.exchange(tenth / 10)) for tenth in range(10_000)]
    asked_s = [at_s for at_s, whom in asked if whom is not None]
    assert {whom for _, whom in asked if whom is not None} == set(addresses(1, 2))
    check_rhythm(asked_s, LIMITS.exchange_interval_s)


def test_who_is_asked_in_vain_is_given_up_first_and_not_tried_again(overlay: Overlay) -> None:
    for number in range(1, 7):
        link(overlay, number)
    in_vain = addresses(2, 5, 8)
    assert {overlay.spare(in_vain) for _ in range(100)} == set(addresses(2, 5))
    overlay.learn(addresses(8, 9))
    assert overlay.feeler(100, in_vain) == address(9)
    assert overlay.feeler(200, in_vain) is None


def test_who_has_no_neighbour_asks_nobody_for_contacts(overlay: Overlay) -> None:
    overlay.learn(addresses(1))
    assert overlay.exchange(now_s=100) is None


# ---- exhausted -----------------------------------------------------------------------------------


def test_a_peer_is_exhausted_when_nobody_is_left_to_dial(overlay: Overlay) -> None:
    assert overlay.is_exhausted(now_s=0)
    overlay.learn(addresses(1))
    assert not overlay.is_exhausted(now_s=0), "there is one to dial"
    overlay.dials(now_s=0)
    assert not overlay.is_exhausted(now_s=0), "it is being dialled"
    overlay.failed(address(1), Dialled.SILENT, now_s=0)
    assert overlay.is_exhausted(now_s=0)
    assert not overlay.is_exhausted(now_s=2), "its wait is over"
    link(overlay, 2)
    overlay.failed(address(1), Dialled.SILENT, now_s=2)
    assert not overlay.is_exhausted(now_s=2), "there is a neighbour"


# ---- whatever happens ----------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["learn", "dial", "up", "refused", "silent", "down", "come", "feeler"]),
        st.integers(0, 20),
    ),
    max_size=120,
)


@settings(max_examples=150)
@given(OPERATIONS)
def test_whatever_happens_the_accounts_agree(operations: list[tuple[str, int]]) -> None:
    limits = Tunables(book_size=8, max_links=6, out_links=3)
    overlay = Overlay(address(ME), limits, random.Random(1), now_s=0)
    for step, (operation, number) in enumerate(operations):
        now_s, peer = step * 0.7, address(number)
        match operation:
            case "learn":
                overlay.learn(addresses(*range(number, number + 5)))
            case "dial":
                overlay.dials(now_s)
            case "feeler":
                overlay.feeler(now_s)
            case "up" if overlay.dialling and len(overlay.neighbours) < limits.max_links:
                dialled = min(overlay.dialling)
                if not overlay.conflict(dialled, 1, Direction.OUT):
                    overlay.linked(dialled, Neighbour(Direction.OUT, 1, 3, now_s))
            case "refused" | "silent" if overlay.dialling:
                how = Dialled.REFUSED if operation == "refused" else Dialled.SILENT
                overlay.failed(min(overlay.dialling), how, now_s)
            case "come" if not overlay.refusal(peer, 1, needs_link=False):
                overlay.linked(peer, Neighbour(Direction.IN, 1, 3, now_s))
            case "down" if peer in overlay.neighbours:
                overlay.unlinked(peer)
        assert len(overlay.book) <= limits.book_size
        assert len(overlay.neighbours) <= limits.max_links
        assert not overlay.dialling & overlay.neighbours.keys()
        assert address(ME) not in overlay.book.keys() | overlay.neighbours.keys() | overlay.dialling
        dialled_links = sum(n.direction is Direction.OUT for n in overlay.neighbours.values())
        fresh = [since_s for since_s in overlay._dialled_s.values() if since_s > now_s - 1]
        assert len(fresh) <= limits.most_parallel_dials + 1
        assert dialled_links <= limits.max_links
