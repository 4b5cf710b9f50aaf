"""A seed's list: who is on it, for how long, and whose word takes a peer off."""

import random
from collections import Counter

import pytest

from directory import (
    MOST_SHARED,
    RENEWALS_TO_DOUBT,
    SHARED_S,
    SLOW_ECHOES,
    SLOW_FOR_S,
    Directory,
)
from messages import Address
from pure import address
from settings import Tunables

LIMITS = Tunables(lease_s=90.0, renew_interval_s=30.0, max_listed_peers=1000)
DOUBT_S = RENEWALS_TO_DOUBT * LIMITS.renew_interval_s
PEER, OTHER = address(1), address(2)


@pytest.fixture
def directory() -> Directory:
    return Directory(LIMITS, random.Random(1))


def listed(directory: Directory, now_s: float = 0) -> list[Address]:
    return list(directory.listed(now_s).peers)


def test_a_registered_peer_is_listed_and_nobody_else(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    assert listed(directory) == [PEER]
    assert len(directory) == 1
    assert PEER in directory
    assert OTHER not in directory


def test_a_peer_is_news_once_in_each_of_its_lives(directory: Directory) -> None:
    assert directory.register(PEER, 1, now_s=0)
    assert not directory.register(PEER, 1, now_s=30)
    assert directory.register(PEER, 2, now_s=40)
    assert not directory.register(PEER, 2, now_s=70)
    assert len(directory) == 1


def test_a_lease_lapses_when_it_is_not_renewed(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    directory.register(OTHER, 1, now_s=0)
    directory.register(OTHER, 1, now_s=30)
    assert directory.lapsed(now_s=89.9) == []
    assert directory.lapsed(now_s=90) == [PEER]
    assert directory.lapsed(now_s=119.9) == [PEER]
    assert sorted(directory.lapsed(now_s=120)) == [PEER, OTHER]


def test_a_lapsed_lease_alone_removes_nobody(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    directory.lapsed(now_s=1000)
    assert listed(directory) == [PEER]


def test_a_peer_that_answered_has_a_whole_lease_again(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    directory.extend(PEER, 1, now_s=95)
    assert directory.lapsed(now_s=184.9) == []
    assert directory.lapsed(now_s=185) == [PEER]


def test_an_answer_does_not_list_who_was_not_listed(directory: Directory) -> None:
    directory.extend(PEER, 1, now_s=0)
    assert listed(directory) == []


def test_an_answer_of_one_life_is_no_lease_for_another(directory: Directory) -> None:
    directory.register(PEER, 2, now_s=0)
    directory.extend(PEER, 1, now_s=50)
    assert directory.lapsed(now_s=90) == [PEER]


def test_a_removed_peer_is_off_the_list_until_it_registers_again(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    assert directory.remove(PEER, 1)
    assert not directory.remove(PEER, 1)
    assert listed(directory) == []
    assert directory.lapsed(now_s=1000) == []
    assert directory.register(PEER, 1, now_s=10)
    assert listed(directory) == [PEER]


def test_a_verdict_about_one_life_does_not_remove_another(directory: Directory) -> None:
    """The peer was tried, found dead, and has registered again before it is removed."""
    directory.register(PEER, 1, now_s=0)
    accused = directory.boot_of(PEER)
    assert accused == 1
    directory.register(PEER, 2, now_s=1)
    assert not directory.remove(PEER, accused)
    assert listed(directory) == [PEER]
    assert directory.boot_of(PEER) == 2


def test_a_life_is_known_only_of_who_is_listed(directory: Directory) -> None:
    assert directory.boot_of(PEER) is None
    directory.register(PEER, 7, now_s=0)
    assert directory.boot_of(PEER) == 7
    directory.remove(PEER, 7)
    assert directory.boot_of(PEER) is None


def test_all_are_listed_up_to_a_thousand(directory: Directory) -> None:
    peers = [address(number) for number in range(1000)]
    for peer in peers:
        directory.register(peer, 1, now_s=0)
    assert sorted(listed(directory)) == peers
    assert listed(directory) != peers, "in random order"


def test_of_more_than_a_thousand_a_random_thousand_is_listed(directory: Directory) -> None:
    for number in range(3000):
        directory.register(address(number), 1, now_s=0)
    first, second = listed(directory, now_s=1), listed(directory, now_s=2)
    assert len(first) == len(set(first)) == 1000
    assert set(first) != set(second)
    assert len(directory) == 3000
    everybody = set().union(*(listed(directory, now_s) for now_s in range(30)))
    assert len(everybody) > 2990, "nobody is left out for good"


def test_who_asks_at_nearly_the_same_time_is_told_the_same(directory: Directory) -> None:
    for number in range(3000):
        directory.register(address(number), 1, now_s=0)
    first = directory.listed(now_s=1)
    directory.register(address(3000), 1, now_s=1)
    assert directory.listed(now_s=1 + SHARED_S / 2) is first
    assert directory.listed(now_s=1 + SHARED_S) != first


def test_of_very_many_who_ask_at_once_few_are_told_the_same(directory: Directory) -> None:
    for number in range(3000):
        directory.register(address(number), 1, now_s=0)
    told = [directory.listed(now_s=1) for _ in range(2 * MOST_SHARED)]
    assert len(set(told)) == 2


def test_who_has_come_or_gone_since_is_known_at_once(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    assert listed(directory) == [PEER]
    directory.register(OTHER, 1, now_s=0)
    assert sorted(listed(directory)) == [PEER, OTHER]
    directory.remove(PEER, 1)
    assert listed(directory) == [OTHER]


def test_who_has_gone_is_at_once_on_no_list_however_long(directory: Directory) -> None:
    for number in range(3000):
        directory.register(address(number), 1, now_s=0)
    gone = listed(directory)[:10]
    for peer in gone:
        directory.remove(peer, 1)
    assert len(listed(directory)) == 990
    assert not set(gone) & set(listed(directory))
    assert len(listed(directory, now_s=SHARED_S)) == 1000


# ---- sources -------------------------------------------------------------------------------------


def test_one_source_may_register_so_many_and_no_more() -> None:
    directory = Directory(Tunables(leases_per_source=2), random.Random(1))
    for number in (1, 2):
        assert directory.has_room(address(number), "a")
        directory.register(address(number), 1, now_s=0, source="a")
    assert not directory.has_room(address(3), "a")
    assert directory.has_room(address(3), "b")
    assert directory.has_room(address(1), "a")  # to renew it


def test_the_list_is_bounded() -> None:
    directory = Directory(Tunables(max_leases=2), random.Random(1))
    for number in (1, 2):
        directory.register(address(number), 1, now_s=0, source=str(number))
    assert not directory.has_room(address(3), "3")
    assert directory.has_room(address(2), "3")


def test_who_has_gone_makes_room() -> None:
    directory = Directory(Tunables(leases_per_source=1), random.Random(1))
    directory.register(PEER, 1, now_s=0, source="a")
    assert not directory.has_room(OTHER, "a")
    directory.remove(PEER, 1)
    assert directory.has_room(OTHER, "a")


def test_a_lease_that_another_source_renews_is_still_counted_once() -> None:
    directory = Directory(Tunables(leases_per_source=1), random.Random(1))
    directory.register(PEER, 1, now_s=0, source="a")
    directory.register(PEER, 1, now_s=1, source="b")
    assert not directory.has_room(OTHER, "a")
    assert directory.has_room(OTHER, "b")
    directory.remove(PEER, 1)
    assert directory.has_room(OTHER, "a")


def test_a_source_that_registers_many_does_not_crowd_out_the_rest() -> None:
    directory = Directory(Tunables(max_listed_peers=10), random.Random(1))
    for number in range(100):
        directory.register(address(number), 1, now_s=0, source="greedy")
    few = [address(number) for number in range(100, 105)]
    for peer in few:
        directory.register(peer, 1, now_s=0, source="honest")
    told = listed(directory)
    assert len(set(told)) == len(told) == 10
    assert set(few) < set(told)


@pytest.mark.parametrize("sizes", [[300, 300, 300], [1, 2, 300], [1] * 300, [5] * 30])
def test_each_source_gives_as_many_as_any_other_as_far_as_it_has_them(sizes: list[int]) -> None:
    directory = Directory(Tunables(max_listed_peers=100), random.Random(1))
    source_of: dict[Address, int] = {}
    for source, size in enumerate(sizes):
        for _ in range(size):
            peer = address(len(source_of))
            source_of[peer] = source
            directory.register(peer, 1, now_s=0, source=str(source))
    given = Counter(source_of[peer] for peer in listed(directory))
    assert given.total() == 100
    most = max(given.values())
    for source, size in enumerate(sizes):
        assert given[source] >= min(size, most - 1)


# ---- doubts --------------------------------------------------------------------------------------


def slow(directory: Directory, now_s: float, echoes: int = SLOW_ECHOES) -> None:
    for _ in range(echoes):
        directory.echo_took(0.6 * LIMITS.probe_timeout_s, now_s)


def test_a_silent_peer_is_not_tried_again_while_echoes_are_quick(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    for _ in range(100):
        directory.echo_took(0.4 * LIMITS.probe_timeout_s, now_s=1)
    slow(directory, now_s=1, echoes=SLOW_ECHOES - 2)  # a packet is lost now and then
    for _ in range(SLOW_ECHOES):  # many report the same death
        assert not directory.doubt(PEER, 1, now_s=1)


def test_where_several_fall_silent_together_the_last_are_tried_again(directory: Directory) -> None:
    """They may be dead, or unplugged; or their echoes too slow for any to be seen."""
    peers = [address(number) for number in range(SLOW_ECHOES + 1)]
    for peer in peers:
        directory.register(peer, 1, now_s=0)
    *first, last, later = peers
    assert not any(directory.doubt(peer, 1, now_s=1) for peer in first)
    assert directory.doubt(last, 1, now_s=1)
    assert not directory.doubt(later, 1, now_s=1 + SLOW_FOR_S)


def test_while_echoes_are_slow_a_silent_peer_is_tried_again_for_a_while(
    directory: Directory,
) -> None:
    directory.register(PEER, 1, now_s=0)
    for now_s in (5.0, 5.0, 9.0, 5.0 + DOUBT_S - 0.1):  # some at once: many report a death
        slow(directory, now_s)
        assert directory.doubt(PEER, 1, now_s)
        assert directory.lapsed(now_s) == [PEER]
    slow(directory, 5.0 + DOUBT_S)
    assert not directory.doubt(PEER, 1, 5.0 + DOUBT_S)


def test_echoes_are_slow_only_if_they_were_of_late(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    slow(directory, now_s=1)
    assert not directory.doubt(PEER, 1, now_s=1 + SLOW_FOR_S)


def test_who_shows_that_it_lives_may_be_doubted_anew(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    for now_s in (0.0, 100.0, 200.0):
        slow(directory, now_s)
        assert directory.doubt(PEER, 1, now_s)
        directory.extend(PEER, 1, now_s)
        assert directory.lapsed(now_s) == []


def test_who_renews_its_lease_is_doubted_no_more(directory: Directory) -> None:
    directory.register(PEER, 1, now_s=0)
    for now_s in (1.0, 1.0 + DOUBT_S):
        slow(directory, now_s)
        assert directory.doubt(PEER, 1, now_s)
        directory.register(PEER, 1, now_s)
        assert directory.lapsed(now_s) == []


def test_no_other_life_is_doubted_than_the_one_that_was_tried(directory: Directory) -> None:
    directory.register(PEER, 2, now_s=0)
    slow(directory, now_s=0)
    assert not directory.doubt(PEER, 1, now_s=0)
    assert not directory.doubt(OTHER, 1, now_s=0)
    assert directory.lapsed(now_s=0) == []
