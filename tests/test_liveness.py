"""Who is alive: questions, suspicion, second opinions, and who had better accuse nobody."""

import random
from collections.abc import Iterable

import pytest

from liveness import OVERDUE, ROUND_TRIP_INTERVAL_S, Finding, Liveness, Tried
from messages import Address
from pure import address
from settings import Tunables

LIMITS = Tunables()
A, B, C, D, E, F = (address(number) for number in range(1, 7))
STEP_S = 0.05


def watching(*neighbours: Address, now_s: float = 0.0) -> Liveness:
    liveness = Liveness(LIMITS, random.Random(1))
    for neighbour in neighbours:
        liveness.watch(neighbour, now_s)
    return liveness


def look(
    liveness: Liveness, silent: Iterable[Address], from_s: float, to_s: float
) -> list[tuple[Address, float, Finding]]:
    """Test the neighbours, who say nothing, for a while. Gives what was found when.

    A suspect is accused, and neither tried nor put to witnesses.
    """
    found: list[tuple[Address, float, Finding]] = []
    for step in range(round((to_s - from_s) / STEP_S)):
        now_s = from_s + step * STEP_S
        for neighbour in silent:
            finding = liveness.test(neighbour, now_s)
            if finding is Finding.SUSPECT:
                liveness.accuse(neighbour, "silent", now_s)
            if finding is not Finding.NOTHING:
                found.append((neighbour, now_s, finding))
    return found


def findings(found: list[tuple[Address, float, Finding]]) -> list[Finding]:
    return [finding for _, _, finding in found]


def accused(liveness: Liveness, neighbour: Address, now_s: float = 0.0) -> Liveness:
    """The neighbour is accused and the witnesses are called, as for one that is silent."""
    liveness.accuse(neighbour, "silent", now_s)
    liveness.call_witnesses(neighbour, now_s)
    return liveness


# ---- questions -----------------------------------------------------------------------------------


def test_a_neighbour_is_asked_after_each_interval_of_silence() -> None:
    liveness = watching(A)
    [first, second] = look(liveness, [A], 0.0, 2.5)
    assert (first[2], second[2]) == (Finding.ASK, Finding.ASK)
    assert first[1] == pytest.approx(1.0, abs=2 * STEP_S)
    assert second[1] == pytest.approx(2.0, abs=2 * STEP_S)


def talk(liveness: Liveness, neighbour: Address, from_s: float, to_s: float) -> list[float]:
    """The neighbour says something at each step, but answers nothing. When it was asked."""
    asked_s = []
    for step in range(round((to_s - from_s) / STEP_S)):
        now_s = from_s + step * STEP_S
        finding = liveness.test(neighbour, now_s)
        assert finding in (Finding.NOTHING, Finding.ASK)
        if finding is Finding.ASK:
            asked_s.append(now_s)
        liveness.heard(neighbour, now_s)
    return asked_s


def test_a_neighbour_that_talks_is_asked_now_and_then_for_the_round_trip_alone() -> None:
    every_s = ROUND_TRIP_INTERVAL_S
    asked_s = talk(watching(A), A, 0.0, 2.5 * every_s)
    assert asked_s == pytest.approx([1.0, 1.0 + every_s, 1.0 + 2 * every_s], abs=4 * STEP_S)


@pytest.mark.parametrize("talked_s", [1.5, 5.0, 11.1])
def test_to_ask_one_that_talks_makes_nobody_suspect_sooner_or_later(talked_s: float) -> None:
    liveness = watching(A)
    asked_s = talk(liveness, A, 0.0, talked_s)
    assert asked_s
    found = look(liveness, [A], talked_s, talked_s + 5.0)
    suspected_s = next(at_s for _, at_s, finding in found if finding is Finding.SUSPECT)
    assert suspected_s == pytest.approx(talked_s + 4.0, abs=5 * STEP_S)


def test_the_thread_of_a_suspect_rests_between_tests() -> None:
    liveness = accused(watching(A, B), A)
    tests = 0
    while (due_s := liveness.due_s(A)) < 60:
        liveness.test(A, due_s)
        tests += 1
        assert tests < 100
    assert liveness.is_suspect(A)


def test_one_that_is_silent_is_asked_no_more_than_before() -> None:
    liveness, asked = watching(A), 0
    for step in range(600):
        now_s = step / 10
        if liveness.test(A, now_s) is Finding.ASK:
            asked += 1
            liveness.heard(A, now_s)
            liveness.answered(A, liveness.number(A), now_s)
    assert asked == pytest.approx(60, abs=6)


def test_requests_are_numbered() -> None:
    liveness = watching(A)
    numbers = []
    for second in (1, 2, 3):
        assert liveness.test(A, second) is Finding.ASK
        numbers.append(liveness.number(A))
    assert numbers == [1, 2, 3]


def test_a_test_is_due_an_interval_after_the_last_sign_or_question() -> None:
    liveness = watching(A)
    assert liveness.due_s(A) == 1.0
    liveness.test(A, 1.0)
    assert liveness.due_s(A) == 1.5, "to see whether the answer is overdue"
    assert liveness.test(A, 1.5) is Finding.NOTHING
    assert liveness.due_s(A) == 2.0
    liveness.heard(A, 1.7)
    assert liveness.due_s(A) == 2.7
    liveness.test(A, 2.7)
    assert liveness.due_s(A) == 3.2


def test_a_reply_tells_how_long_the_way_is() -> None:
    liveness = watching(A)
    assert liveness.round_trip_s(A) is None
    liveness.test(A, 1.0)
    liveness.answered(A, liveness.number(A), 1.25)
    assert liveness.round_trip_s(A) == 0.25


def test_a_late_reply_to_an_earlier_request_tells_nothing() -> None:
    liveness = watching(A)
    liveness.test(A, 1.0)
    liveness.test(A, 2.0)
    liveness.answered(A, 1, 2.1)
    assert liveness.round_trip_s(A) is None


def test_a_reply_to_no_request_tells_nothing() -> None:
    """Number 0 is what a peer that leaves asks with, to learn how far it was heard."""
    liveness = watching(A, now_s=5.0)
    liveness.answered(A, 0, 7.5)
    assert liveness.round_trip_s(A) is None


def test_a_reply_that_clears_a_suspicion_tells_how_long_it_really_took() -> None:
    liveness = watching(A, B)
    look(liveness, [A], 0.0, 4.5)
    assert liveness.is_suspect(A)
    liveness.heard(A, 4.5)
    liveness.answered(A, liveness.number(A), 4.5)
    round_trip_s = liveness.round_trip_s(A)
    assert round_trip_s == pytest.approx(1.5, abs=4 * STEP_S)


# ---- suspicion -----------------------------------------------------------------------------------


def test_three_unanswered_requests_make_a_neighbour_suspect() -> None:
    found = look(watching(A), [A], 0.0, 4.3)
    assert findings(found) == [Finding.ASK] * 3 + [Finding.SUSPECT]
    assert found[-1][1] == pytest.approx(4.0, abs=4 * STEP_S)


@pytest.mark.parametrize("pause_s", [0.9, 1.5, 2.5, 3.5])
def test_a_pause_that_ends_in_time_makes_nobody_suspect(pause_s: float) -> None:
    liveness = watching(A)
    found = []
    for turn in range(5):
        began_s = turn * pause_s
        found += look(liveness, [A], began_s, began_s + pause_s)
        liveness.heard(A, began_s + pause_s)
    assert Finding.SUSPECT not in findings(found)


def test_a_reply_in_between_starts_the_count_anew() -> None:
    liveness = watching(A)
    look(liveness, [A], 0.0, 3.5)
    liveness.heard(A, 3.5)
    found = look(liveness, [A], 3.5, 8.0)
    assert findings(found) == [Finding.ASK] * 3 + [Finding.SUSPECT]
    assert found[-1][1] >= 7.4


def test_a_suspicion_is_cleared_by_any_later_frame() -> None:
    liveness = accused(watching(A, B), A, now_s=4.0)
    assert liveness.is_suspect(A)
    liveness.heard(A, 4.1)
    assert not liveness.is_suspect(A)
    assert liveness.lapsed(100.0) == []


def test_a_frame_from_another_clears_nobody() -> None:
    liveness = accused(watching(A, B), A, now_s=4.0)
    liveness.heard(B, 4.1)
    assert liveness.is_suspect(A)


def test_a_new_link_closes_the_case() -> None:
    liveness = accused(watching(A, B), A)
    liveness.unwatch(A)
    assert liveness.is_suspect(A)
    liveness.watch(A, 0.5)
    assert not liveness.has_cases


def test_a_suspect_is_not_asked_while_its_case_is_open() -> None:
    liveness = watching(A, B)
    look(liveness, [A], 0.0, 4.3)
    assert liveness.is_suspect(A)
    assert look(liveness, [A], 4.3, 6.0) == []
    assert liveness.is_suspect(A)


# ---- the verdict ---------------------------------------------------------------------------------


def test_who_refuses_a_connection_is_dead_at_once() -> None:
    liveness = watching(A, B)
    liveness.accuse(A, "closed", 0.0)
    assert liveness.tried(A, Tried.REFUSED) is Finding.DEAD
    assert not liveness.has_cases


def test_who_echoes_is_cleared_at_once() -> None:
    liveness = accused(watching(A, B), A)
    assert liveness.tried(A, Tried.ECHOED) is Finding.CLEARED
    assert not liveness.has_cases


def test_who_gives_no_echo_is_put_to_the_witnesses() -> None:
    liveness = watching(A, B, C)
    liveness.accuse(A, "closed", 0.0)
    assert liveness.tried(A, Tried.SILENT) is Finding.SUSPECT
    assert sorted(liveness.call_witnesses(A, 1.0)) == [B, C]
    assert liveness.opinion(B, A, is_alive=False) is Finding.NOTHING
    assert liveness.opinion(C, A, is_alive=False) is Finding.DEAD


def test_one_witness_that_reaches_it_clears_the_accused() -> None:
    liveness = accused(watching(A, B, C, D), A)
    liveness.tried(A, Tried.SILENT)
    assert liveness.opinion(B, A, is_alive=False) is Finding.NOTHING
    assert liveness.opinion(C, A, is_alive=True) is Finding.CLEARED
    assert liveness.opinion(D, A, is_alive=False) is Finding.NOTHING, "the case is closed"


def test_no_verdict_before_our_own_attempt_has_ended() -> None:
    liveness = accused(watching(A, B), A)
    assert liveness.opinion(B, A, is_alive=False) is Finding.NOTHING
    assert liveness.tried(A, Tried.SILENT) is Finding.DEAD


def test_witnesses_that_say_nothing_are_not_waited_for_long() -> None:
    liveness = accused(watching(A, B, C), A, now_s=4.0)
    liveness.tried(A, Tried.SILENT)
    assert liveness.lapsed(5.2) == []
    assert liveness.lapsed(5.3) == [(A, "silent", Finding.DEAD)]
    assert liveness.lapsed(5.3) == [], "once"


def test_with_no_witness_there_is_nothing_to_wait_for() -> None:
    liveness = watching(A)
    liveness.accuse(A, "closed", 0.0)
    assert liveness.tried(A, Tried.SILENT) is Finding.SUSPECT
    assert liveness.call_witnesses(A, 1.0) == []
    assert liveness.lapsed(1.0) == [(A, "closed", Finding.DEAD)]


def test_with_no_witness_our_own_attempt_is_still_waited_for() -> None:
    liveness = watching(A)
    assert accused(liveness, A).lapsed(1.0) == []
    assert liveness.lapsed(1.3) == [(A, "silent", Finding.DEAD)]


def test_a_case_of_which_nothing_more_is_heard_is_closed_in_the_end() -> None:
    liveness = watching(A, B)
    liveness.accuse(A, "closed", 0.0)
    assert liveness.lapsed(1.5) == [], "a dial takes its time"
    assert liveness.lapsed(2.5) == [(A, "closed", Finding.DEAD)]


def test_at_most_three_are_called_and_never_the_accused_or_the_silent() -> None:
    neighbours = [address(number) for number in range(1, 12)]
    liveness = watching(*neighbours)
    look(liveness, [A, B], 0.0, 2.5)
    called = set()
    for _ in range(50):
        liveness.accuse(A, "silent", 2.5)
        chosen = liveness.call_witnesses(A, 2.5)
        assert len(chosen) == LIMITS.opinions
        called.update(chosen)
    assert called == set(neighbours) - {A, B}


def test_only_who_was_asked_has_an_opinion_and_only_one() -> None:
    liveness = watching(A, B)
    liveness.accuse(A, "silent", 0.0)
    liveness.call_witnesses(A, 0.0)
    liveness.watch(C, 0.0)
    assert liveness.opinion(C, A, is_alive=True) is Finding.NOTHING
    assert liveness.opinion(A, A, is_alive=True) is Finding.NOTHING
    assert liveness.opinion(B, A, is_alive=False) is Finding.NOTHING
    assert liveness.opinion(B, A, is_alive=True) is Finding.NOTHING
    assert liveness.is_suspect(A)


def test_an_opinion_on_who_is_not_accused_is_nothing() -> None:
    liveness = watching(A, B)
    assert liveness.opinion(B, A, is_alive=False) is Finding.NOTHING
    assert liveness.tried(A, Tried.REFUSED) is Finding.NOTHING


def test_a_peer_without_a_link_can_be_accused() -> None:
    """Its link has just broken."""
    liveness = watching(B)
    liveness.accuse(A, "closed", 0.0)
    assert liveness.reason(A) == "closed"
    assert liveness.tried(A, Tried.REFUSED) is Finding.DEAD


# ---- a link that is broken although its peer lives -----------------------------------------------


def clear(liveness: Liveness, neighbour: Address) -> None:
    accused(liveness, neighbour)
    assert liveness.tried(neighbour, Tried.ECHOED) is Finding.CLEARED


def test_a_link_that_stays_silent_though_others_reach_its_peer_is_broken() -> None:
    liveness = watching(A, B)
    clear(liveness, A)
    assert not liveness.is_link_broken(A)
    clear(liveness, A)
    assert liveness.is_link_broken(A)
    assert not liveness.is_link_broken(B)


def test_a_link_that_was_heard_in_between_is_not_broken() -> None:
    liveness = watching(A, B)
    clear(liveness, A)
    liveness.heard(A, 1.0)
    clear(liveness, A)
    assert not liveness.is_link_broken(A)


def test_who_was_cleared_is_asked_three_times_again() -> None:
    liveness = watching(A, B)
    look(liveness, [A], 0.0, 4.3)
    clear(liveness, A)
    assert findings(look(liveness, [A], 4.3, 8.5)) == [Finding.ASK] * 3 + [Finding.SUSPECT]


# ---- who had better accuse nobody ----------------------------------------------------------------


def test_who_was_late_itself_accuses_nobody() -> None:
    liveness = accused(watching(A, B), B)
    look(liveness, [A], 0.0, 3.5)
    asleep_s = 3.0 + LIMITS.liveness_interval_s + LIMITS.own_lateness_s
    assert liveness.test(A, asleep_s + 0.1) is Finding.ASK
    assert not liveness.has_cases
    assert findings(look(liveness, [A], asleep_s + 0.2, asleep_s + 2.9)) == [Finding.ASK] * 2


def test_a_little_lateness_is_no_excuse() -> None:
    liveness = watching(A)
    look(liveness, [A], 0.0, 3.5)
    almost_s = 3.0 + LIMITS.liveness_interval_s + LIMITS.own_lateness_s
    assert liveness.test(A, almost_s - 0.1) is Finding.SUSPECT


def test_to_forgive_is_to_close_every_case_of_a_neighbour_and_count_anew() -> None:
    liveness = accused(accused(watching(A, B, C), A), B)
    liveness.forgive_all(50.0)
    assert not liveness.has_cases
    assert liveness.collect_retries() == []
    assert liveness.lapsed(100.0) == []
    assert liveness.tried(A, Tried.SILENT) is Finding.NOTHING


def test_the_case_of_who_has_no_link_any_more_is_tried_anew() -> None:
    liveness = accused(watching(B, C), A)
    liveness.forgive_all(50.0)
    assert liveness.lapsed(50.1) == []
    assert liveness.collect_retries() == [A]
    assert liveness.collect_retries() == []
    assert liveness.tried(A, Tried.SILENT) is Finding.NOTHING  # it began before we slept
    assert liveness.tried(A, Tried.SILENT) is Finding.SUSPECT
    assert liveness.call_witnesses(A, 51.0)
    [(who, reason, finding)] = liveness.lapsed(60.0)
    assert (who, reason, finding) == (A, "silent", Finding.DEAD)


@pytest.mark.parametrize(
    ("outcome", "finding"), [(Tried.REFUSED, Finding.DEAD), (Tried.ECHOED, Finding.CLEARED)]
)
def test_an_attempt_from_before_we_slept_counts_if_it_had_an_answer(
    outcome: Tried, finding: Finding
) -> None:
    liveness = accused(watching(B), A)
    liveness.forgive_all(50.0)
    assert liveness.tried(A, outcome) is finding


def silent_together(silent: list[Address], talking: list[Address]) -> Liveness:
    """Some are silent for as long as makes them suspect, and the first is accused and tried."""
    liveness = watching(*silent, *talking)
    look(liveness, silent, 0.0, 3.9)
    for neighbour in talking:
        liveness.heard(neighbour, 3.9)
    accused(liveness, silent[0], now_s=4.0)
    return liveness


def verdict(liveness: Liveness, accused: Address) -> Finding:
    """What the case comes to when nobody can reach the accused and no witness answers."""
    finding = liveness.tried(accused, Tried.SILENT)
    if finding is Finding.NOTHING:
        [(who, _, finding)] = liveness.lapsed(6.0)
        assert who == accused
    return finding


def test_half_the_neighbours_silent_together_accuse_nobody() -> None:
    for silent, talking in (
        ([A, B], [C, D]),
        ([A, B], [C]),
        ([A, B, C], []),
        ([A, B, C], [D, E, F]),
    ):
        assert verdict(silent_together(silent, talking), A) is Finding.UNREACHABLE


def test_one_silent_of_many_or_of_two_is_accused() -> None:
    for silent, talking in (([A], [B, C, D]), ([A], [B]), ([A], []), ([A, B], [C, D, E])):
        assert verdict(silent_together(silent, talking), A) is Finding.DEAD


@pytest.mark.parametrize(("unanswered", "finding"), [(1, Finding.DEAD), (2, Finding.UNREACHABLE)])
def test_who_left_two_requests_unanswered_counts_as_silent(
    unanswered: int, finding: Finding
) -> None:
    liveness = silent_together([A], [B])
    look(liveness, [B], 3.9, 4.0 + unanswered)
    assert verdict(liveness, A) is finding


def test_half_silent_together_is_no_excuse_once_a_witness_confirms_it() -> None:
    liveness = silent_together([A, B], [C, D])
    liveness.tried(A, Tried.SILENT)
    assert liveness.opinion(C, A, is_alive=False) is Finding.NOTHING
    assert liveness.opinion(D, A, is_alive=False) is Finding.DEAD


def test_half_silent_together_does_not_excuse_who_refuses() -> None:
    liveness = silent_together([A, B], [C, D])
    assert liveness.tried(A, Tried.REFUSED) is Finding.DEAD


def test_who_is_not_watched_any_more_is_not_counted() -> None:
    liveness = silent_together([A, B], [C, D])
    liveness.unwatch(B)
    assert verdict(liveness, A) is Finding.DEAD


# ---- the latest deaths ---------------------------------------------------------------------------


def test_a_death_is_remembered_for_a_while_and_until_the_dead_return() -> None:
    liveness = watching()
    liveness.died(A, 0.0)
    liveness.died(B, 20.0)
    assert liveness.deaths(25.0) == [A, B]
    assert liveness.deaths(35.0) == [B]
    liveness.watch(B, 36.0)
    assert liveness.deaths(36.0) == []


def test_only_so_many_deaths_are_remembered() -> None:
    liveness = watching()
    for number in range(200):
        liveness.died(address(number), 0.0)
    assert liveness.deaths(1.0) == [address(number) for number in range(200 - 64, 200)]


# ---- who is not to be counted on -----------------------------------------------------------------


def test_a_suspect_is_not_counted_on_until_it_is_cleared() -> None:
    liveness = watching(A, B, C)
    assert liveness.silent() == []
    accused(liveness, A)
    assert liveness.silent() == [A]
    liveness.heard(A, 5.0)
    assert liveness.silent() == []


def test_one_that_left_two_requests_unanswered_is_still_counted_on() -> None:
    liveness = watching(A, B, C)
    look(liveness, [A], 0.0, 2.5)
    assert liveness.silent() == []


def test_half_of_all_that_left_two_requests_unanswered_are_not_counted_on() -> None:
    liveness = watching(A, B, C, D)
    look(liveness, [A, B], 0.0, 1.5)
    assert liveness.silent() == []
    look(liveness, [A, B], 1.5, 2.5)
    assert liveness.silent() == [A, B]
    liveness.heard(A, 2.5)
    assert liveness.silent() == []


def test_half_of_all_whose_answers_are_overdue_are_not_counted_on() -> None:
    liveness = watching(A, B, C, D)
    for neighbour in (A, B):
        assert liveness.test(neighbour, 1.0) is Finding.ASK
    assert liveness.silent() == []
    for neighbour in (A, B):
        assert liveness.due_s(neighbour) == 1.5
        assert liveness.test(neighbour, 1.5) is Finding.NOTHING
    assert liveness.silent() == [A, B]
    liveness.heard(A, 1.6)
    assert liveness.silent() == []


def test_one_answer_that_is_overdue_is_none_of_half() -> None:
    liveness = watching(A, B)
    liveness.test(A, 1.0)
    liveness.test(A, 1.5)
    assert liveness.silent() == []


def test_on_a_long_way_an_answer_is_overdue_later() -> None:
    liveness = watching(A, B)
    for neighbour in (A, B):
        liveness.test(neighbour, 1.0)
        liveness.heard(neighbour, 1.2)
        liveness.answered(neighbour, liveness.number(neighbour), 1.2)
        assert liveness.test(neighbour, 2.2) is Finding.ASK
        assert liveness.due_s(neighbour) == pytest.approx(2.2 + OVERDUE * 0.2)


def test_what_is_overdue_counts_no_more_after_our_own_sleep() -> None:
    liveness = watching(A, B)
    for now_s in (1.0, 1.5):
        for neighbour in (A, B):
            liveness.test(neighbour, now_s)
    assert liveness.silent() == [A, B]
    liveness.forgive_all(2.0)
    assert liveness.silent() == []


def test_who_is_accused_and_no_neighbour_is_none_that_was_counted_on() -> None:
    liveness = watching(A)
    liveness.accuse(B, "lost", 0.0)
    assert liveness.silent() == []
