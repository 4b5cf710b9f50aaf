"""The tree: whom payload goes to, who is root, and what happens when one of them is lost."""

import dataclasses

from messages import Address, Beacon, Mode, StaleRoot
from pure import address, key
from settings import Tunables
from tree import Saying, Tree

LIMITS = Tunables()
ME = 5  # lower numbers have lived longer here, as their keys are lower
OLDEST, OLD, YOUNG = 1, 2, 9


def tree_with(*neighbours: int) -> Tree:
    """Number ME's place among these neighbours, none of which has said anything."""
    tree = Tree(key(ME), LIMITS, now_s=0.0)
    for neighbour in neighbours:
        tree.link_up(address(neighbour))
    return tree


def beacon(root: int, epoch: int = 1, hops: int = 0, *stale: StaleRoot) -> Beacon:
    return Beacon(key(root), epoch, hops, stale)


def told(said: list[Saying], kind: type) -> set[Address]:
    """The neighbours that were told something of this kind."""
    return {neighbour for neighbour, message in said if isinstance(message, kind)}


def test_a_peer_alone_is_its_own_root() -> None:
    tree = tree_with()

    assert tree.root == key(ME)
    assert not tree.is_loud


def test_a_new_neighbour_is_told_at_once_where_the_root_is() -> None:
    tree = tree_with(2)
    tree.beacon(address(2), beacon(OLDEST, epoch=7, hops=3), now_s=1.0)

    assert tree.link_up(address(3)) == [(address(3), beacon(OLDEST, epoch=7, hops=4))]


def test_who_brings_a_beacon_first_becomes_the_parent_and_the_others_get_it_once() -> None:
    tree = tree_with(2, 3, 4)
    first = tree.beacon(address(2), beacon(OLDEST), now_s=1.0)
    second = tree.beacon(address(3), beacon(OLDEST), now_s=1.1)

    assert tree.parent == address(2)
    assert told(first, Mode) == {address(2)}
    assert told(first, Beacon) == {address(3), address(4)}
    assert second == []


def test_payload_travels_to_the_parent_and_to_children_only() -> None:
    tree = tree_with(2, 3, 4)
    tree.beacon(address(2), beacon(OLDEST), now_s=1.0)
    tree.mode(address(3), wants_payload=True)

    assert [tree.is_payload_link(address(n)) for n in (2, 3, 4)] == [True, True, False]

    tree.mode(address(3), wants_payload=False)

    assert not tree.is_payload_link(address(3))


def test_the_longest_lived_of_two_roots_wins() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLD), now_s=1.0)

    assert tree.beacon(address(3), beacon(YOUNG), now_s=1.1) == []
    assert tree.root == key(OLD)

    tree.beacon(address(3), beacon(OLDEST), now_s=1.2)

    assert tree.root == key(OLDEST)
    assert tree.parent == address(3)


def test_the_present_parent_stays_if_it_is_hardly_slower() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.0)
    tree.beacon(address(2), beacon(OLDEST, epoch=2), now_s=6.0 + LIMITS.parent_grace_s / 2)
    tree.tick(6.0 + 2 * LIMITS.parent_grace_s)

    assert tree.parent == address(2)


def test_once_the_new_parent_brings_news_the_old_one_is_dropped_at_once() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.0)
    tree.tick(6.0 + LIMITS.parent_grace_s)
    tree.parent_brings_news(now_s=6.2)

    assert tree.tick(6.2) == [(address(2), Mode(wants_payload=False))]
    assert tree.is_payload_link(address(3))


def test_who_is_loud_drops_nobody() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    tree.link_down(address(2), now_s=2.0)
    assert tree.is_loud
    tree.parent_brings_news(now_s=2.0)

    assert tree.tick(2.0) == []
    assert tree.is_payload_link(address(3))


def test_a_slow_parent_is_replaced_and_payload_flows_from_both_for_a_moment() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.0)
    said = tree.tick(6.0 + LIMITS.parent_grace_s)

    assert tree.parent == address(3)
    assert said == [(address(3), Mode(wants_payload=True))]
    assert tree.is_payload_link(address(2))

    later_s = 6.0 + LIMITS.parent_grace_s + LIMITS.parent_overlap_s
    assert tree.tick(later_s) == [(address(2), Mode(wants_payload=False))]
    assert not tree.is_payload_link(address(2))


def test_a_parent_must_be_nearer_to_the_root_than_oneself() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1, hops=0), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=1, hops=1), now_s=1.0)
    tree.link_down(address(2), now_s=2.0)

    assert tree.parent is None
    assert tree.is_loud


def test_a_lost_parent_is_replaced_at_once_by_a_neighbour_nearer_to_the_root() -> None:
    tree = tree_with(2, 3, 4)
    tree.beacon(address(2), beacon(OLDEST, hops=2), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, hops=3), now_s=1.0)
    tree.beacon(address(4), beacon(OLDEST, hops=2), now_s=1.0)
    said = tree.link_down(address(2), now_s=2.0)

    assert tree.parent == address(4)
    assert said == [(address(4), Mode(wants_payload=True))]
    assert not tree.is_loud


def test_who_brought_the_latest_beacon_counts_as_a_parent_before_it_is_one() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.0)
    tree.link_down(address(3), now_s=6.01)

    assert tree.is_loud, "the old parent may have been told of this epoch by us alone"


def test_whoever_else_is_lost_the_parent_stays() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)

    assert tree.link_down(address(3), now_s=2.0) == []
    assert tree.parent == address(2)


def test_a_loud_peer_exchanges_payload_with_all_and_says_so_when_that_is_over() -> None:
    tree = tree_with(2, 3, 4)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    said = tree.link_down(address(2), now_s=2.0)

    assert told(said, Mode) == {address(3), address(4)}
    assert all(tree.is_payload_link(address(n)) for n in (3, 4))

    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.0)
    said = tree.tick(6.0 + LIMITS.parent_overlap_s)

    assert not tree.is_loud
    assert said == [(address(4), Mode(wants_payload=False))]


def test_the_root_says_a_beacon_in_every_interval_and_nobody_else_does() -> None:
    root, other = tree_with(9), tree_with(2)
    other.beacon(address(2), beacon(OLDEST), now_s=0.0)

    assert root.tick(LIMITS.beacon_interval_s) == [(address(9), beacon(ME, epoch=1))]
    assert root.tick(LIMITS.beacon_interval_s + 1) == []
    assert other.tick(LIMITS.beacon_interval_s) == []


def test_a_silent_root_is_void_and_its_late_beacons_are_not_passed_on() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=4), now_s=0.0)
    silence_s = LIMITS.missed_beacons_stale * LIMITS.beacon_interval_s

    assert tree.tick(silence_s - 0.1) == []

    said = tree.tick(silence_s)
    assert tree.root == key(ME)
    assert said[0][1] == dataclasses.replace(
        beacon(ME, epoch=1), stale=(StaleRoot(key(OLDEST), 4),)
    )
    assert tree.beacon(address(3), beacon(OLDEST, epoch=4), silence_s + 1) == []


def test_news_of_a_dead_root_travels_with_the_beacon_of_its_successor() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=4), now_s=0.0)
    successor = beacon(OLD, 1, 0, StaleRoot(key(OLDEST), 4))
    said = tree.beacon(address(3), successor, now_s=1.0)

    assert tree.root == key(OLD)
    passed_on = [message for to, message in said if to == address(2)]
    assert dataclasses.replace(successor, hops=1) in passed_on


def test_a_root_wrongly_taken_for_dead_comes_back_with_its_next_epoch() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=4), now_s=0.0)
    tree.void(key(OLDEST), 4, now_s=1.0)
    tree.beacon(address(2), beacon(OLDEST, epoch=5), now_s=2.0)

    assert tree.root == key(OLDEST)


def test_nobody_can_tell_a_peer_that_it_is_dead_itself() -> None:
    tree = tree_with(2)
    tree.beacon(address(2), beacon(YOUNG, 1, 0, StaleRoot(key(ME), 99)), now_s=1.0)

    assert tree.root == key(ME)


def test_a_parent_that_fails_again_and_again_is_demoted_and_others_are_preferred() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST, epoch=1, hops=0), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=1, hops=0), now_s=1.0)
    for failure in range(LIMITS.failures_to_demote):
        tree.failed(None, 2.0 + failure)

    assert tree.parent == address(3)

    tree.beacon(address(2), beacon(OLDEST, epoch=2), now_s=6.0)
    tree.beacon(address(3), beacon(OLDEST, epoch=2), now_s=6.2)
    tree.tick(6.2 + LIMITS.parent_grace_s)

    assert tree.parent == address(3)


def test_a_parent_that_only_trickles_is_demoted_at_once() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST), now_s=1.0)
    tree.beacon(address(3), beacon(OLDEST), now_s=1.0)
    tree.failed(address(3), now_s=2.0)

    assert tree.parent == address(2), "the trickle is another's"

    tree.failed(address(2), now_s=2.1)

    assert tree.parent == address(3)


def test_now_and_then_a_failure_does_not_cost_a_parent_its_place() -> None:
    tree = tree_with(2, 3)
    tree.beacon(address(2), beacon(OLDEST), now_s=1.0)
    for failure in range(10):
        tree.failed(None, 2.0 + failure * LIMITS.failure_window_s)

    assert tree.parent == address(2)


def test_a_demoted_neighbour_is_parent_again_if_nobody_else_brings_the_beacon() -> None:
    tree = tree_with(2)
    tree.beacon(address(2), beacon(OLDEST, epoch=1), now_s=1.0)
    for failure in range(LIMITS.failures_to_demote):
        tree.failed(None, 2.0 + failure)
    tree.beacon(address(2), beacon(OLDEST, epoch=2), now_s=6.0)

    assert tree.parent is None

    tree.tick(6.0 + LIMITS.demoted_grace_s)

    assert tree.parent == address(2)
