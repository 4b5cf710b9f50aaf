"""How fast a peer may speak: who is waited for, and who is not."""

import pytest

from messages import Address, Progress
from pace import KEEPS_UP, PATIENCE_S, STEPS, Pace
from pure import address, key, run
from settings import Tunables

OWN, OTHER = key(0), key(1)
A, B, C = address(1), address(2), address(3)
LIMIT = 100_000
SIZE = 1_000  # of a payload


def pace_of(*neighbours: int, **tunables: int) -> Pace:
    """One with these neighbours, which may be LIMIT bytes behind."""
    usual = {"broadcast_lag_bytes": LIMIT, "stream_messages": 1 << 30}
    pace = Pace(OWN, Tunables(**{**usual, **tunables}))
    for number in neighbours:
        pace.open(address(number))
        pace.start_sending(address(number))
    return pace


class Speaker:
    """A peer that says as much as it may."""

    def __init__(self, pace: Pace, now_s: float = 0.0) -> None:
        self.pace = pace
        self.now_s = now_s
        self.upto = 0

    def say(self, count: int = 1, size: int = SIZE) -> int:
        """Say that many more messages, or as many as may be said."""
        for said in range(count):
            if self.pace.is_far_ahead:
                self.waits(0)  # as a node does that has nothing else to do
            if self.pace.is_far_ahead:
                return said
            self.upto += 1
            self.pace.grew(run(OWN, self.upto, self.upto, bytes(size)))
        return count

    def hears_from(self, number: int, upto: int) -> None:
        """That neighbour, and all behind it, have so much."""
        self.pace.told(address(number), Progress(OWN, upto), self.now_s)

    def waits(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.pace.tick(self.now_s)


def under_way(*neighbours: int, **tunables: int) -> Speaker:
    """One that has said a while already, and has been heard: it starts slowly no more."""
    speaker = Speaker(pace_of(*neighbours, **tunables))
    while speaker.upto < 2 * FULL:
        speaker.say(FULL // STEPS // 2)
        for number in neighbours:
            speaker.hears_from(number, speaker.upto)
    return speaker


MANY = 10_000
SOME = LIMIT // 3 // (SIZE + 250)  # too few for anybody to be left behind
FULL = LIMIT // (SIZE + 250)  # about so many messages may be on their way


# ---- at the origin -------------------------------------------------------------------------------


def test_who_has_no_neighbour_is_never_far_ahead() -> None:
    assert Speaker(pace_of()).say(MANY) == MANY


def test_one_may_say_as_much_as_the_limit_before_anybody_has_shown_to_have_it() -> None:
    assert under_way(1).say(MANY) == pytest.approx(FULL, abs=10)


def test_a_stream_starts_with_a_part_of_the_limit_and_doubles_what_is_heard() -> None:
    speaker = Speaker(pace_of(1))
    said = [speaker.say(MANY)]
    while speaker.upto < FULL:
        speaker.hears_from(1, speaker.upto)
        said.append(speaker.say(MANY))
    assert said[0] == pytest.approx(FULL / STEPS, abs=2)
    assert said[1] == pytest.approx(2 * FULL / STEPS, abs=4)
    assert said[2] == pytest.approx(4 * FULL / STEPS, abs=8)


def test_a_stream_that_starts_in_small_steps_is_told_of_in_small_steps() -> None:
    """Or else who speaks and who hears would wait for each other."""
    speaker, hearer = Speaker(pace_of(1)), pace_of(9, 1, 2)
    for number in range(1, 3 * FULL + 1):
        assert speaker.say() == 1
        hear(hearer, 1, first=number)
        for neighbour in (A, B):
            hearer.told(neighbour, Progress(OTHER, number), 0)
        for _, progress in hearer.news(0):
            speaker.hears_from(1, progress.upto)


def test_many_small_messages_count_as_well() -> None:
    speaker = Speaker(pace_of(1, broadcast_lag_bytes=16 << 20, stream_messages=100))
    assert speaker.say(MANY, size=0) == pytest.approx(50 / STEPS, abs=2)


def test_one_may_go_on_as_far_as_others_have_come() -> None:
    speaker = under_way(1)
    began = speaker.upto
    said = speaker.say(MANY)
    speaker.hears_from(1, began + said // 2)
    assert speaker.say(MANY) == pytest.approx(said // 2, abs=FULL // STEPS)


def test_what_was_said_alone_does_not_count() -> None:
    speaker = Speaker(pace_of())
    speaker.say(MANY)
    speaker.pace.open(A)
    speaker.pace.start_sending(A)
    assert speaker.say(MANY) == pytest.approx(FULL, abs=10)


def test_who_has_links_but_none_that_payload_goes_over_may_still_not_run_away() -> None:
    speaker = Speaker(pace_of())
    speaker.pace.open(A)
    assert speaker.say(MANY) == pytest.approx(FULL / STEPS, abs=2)
    speaker.pace.close(A, 0)
    assert speaker.say(MANY) == MANY


def test_the_slowest_of_those_who_keep_up_is_waited_for() -> None:
    speaker = under_way(1, 2)
    began = speaker.upto
    speaker.say(FULL - 10)
    speaker.hears_from(1, speaker.upto)
    speaker.hears_from(2, began + FULL // 2)
    assert speaker.say(MANY) <= 0.6 * FULL
    speaker.hears_from(1, speaker.upto)
    assert speaker.say(MANY) == 0, "the second is too far back"
    speaker.hears_from(2, speaker.upto)
    assert speaker.say(MANY) > 0.8 * FULL


def test_who_takes_in_hardly_anything_holds_up_nobody() -> None:
    speaker = Speaker(pace_of(1, 2))
    for _ in range(100):
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
        speaker.hears_from(2, speaker.upto // (2 * KEEPS_UP))
    assert speaker.upto == 100 * (FULL // STEPS)


def test_who_takes_in_hardly_anything_is_left_behind_before_anybody_waits() -> None:
    speaker = Speaker(pace_of(1, 2))
    for _ in range(100):
        step = FULL // STEPS // 2
        assert speaker.say(step) == step
        speaker.hears_from(1, max(speaker.upto - FULL // 4, speaker.upto // 2))
        speaker.hears_from(2, speaker.upto // (4 * KEEPS_UP))


def turn_to(speaker: Speaker, neighbour: Address) -> None:
    """What the neighbour had from another it shall have from us."""
    speaker.pace.open(neighbour)
    speaker.pace.start_sending(neighbour)


def test_who_was_slow_elsewhere_holds_up_nobody_when_it_turns_to_us() -> None:
    speaker = under_way(1)
    turn_to(speaker, B)
    for _ in range(30):
        speaker.hears_from(2, speaker.upto // (2 * KEEPS_UP))
        assert speaker.say(FULL // STEPS) == FULL // STEPS
        speaker.hears_from(1, speaker.upto)


def test_who_kept_up_elsewhere_is_waited_for_when_it_turns_to_us() -> None:
    speaker = under_way(1)
    turn_to(speaker, B)
    began = speaker.upto
    for _ in range(30):
        speaker.hears_from(2, began - 1)
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
    assert speaker.upto - began < 1.2 * FULL


def test_who_stands_still_is_waited_for_no_longer_than_the_patience() -> None:
    speaker = Speaker(pace_of(1, 2))
    while speaker.say(5):
        speaker.hears_from(1, speaker.upto)
        speaker.hears_from(2, min(speaker.upto, FULL))
    assert speaker.say() == 0
    speaker.waits(0.9 * PATIENCE_S)
    assert speaker.say() == 0
    speaker.waits(0.2 * PATIENCE_S)
    assert speaker.say() == 1


def test_who_comes_nearer_all_the_time_is_waited_for() -> None:
    speaker = Speaker(pace_of(1, 2))
    heard = 0
    for _ in range(200):
        speaker.say(MANY)
        speaker.hears_from(1, speaker.upto)
        heard += FULL // 4  # in a third of the patience
        speaker.hears_from(2, min(heard, speaker.upto))
        speaker.waits(PATIENCE_S / 3)
        assert speaker.upto - heard <= FULL + 10


def test_who_was_left_behind_counts_again_once_it_has_come_near() -> None:
    speaker = Speaker(pace_of(1, 2))
    speaker.hears_from(2, 0)
    for _ in range(30):
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
    assert speaker.upto > 3 * FULL, "it is not waited for"
    for _ in range(10):
        speaker.hears_from(2, speaker.upto)
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
    speaker.hears_from(1, speaker.upto)
    assert speaker.say(MANY) <= FULL + 10
    speaker.hears_from(1, speaker.upto)
    assert speaker.say(1) == 0, "the second is waited for again"


def test_when_all_are_behind_the_best_is_waited_for_however_long_it_takes() -> None:
    speaker = Speaker(pace_of(1, 2))
    speaker.say(MANY)
    speaker.waits(100 * PATIENCE_S)
    assert speaker.say() == 0
    speaker.hears_from(1, FULL // 2)
    assert 0 < speaker.say(MANY) < FULL


def test_who_is_gone_is_not_waited_for() -> None:
    speaker = under_way(1, 2)
    began = speaker.upto
    speaker.say(MANY)
    speaker.hears_from(1, speaker.upto)
    speaker.hears_from(2, began + FULL // 2)
    said = speaker.say(MANY)
    speaker.hears_from(1, speaker.upto)
    assert said < FULL
    speaker.pace.close(B, speaker.now_s)
    assert speaker.say(MANY) > 0.8 * FULL


def test_who_gets_its_payload_elsewhere_now_is_not_waited_for() -> None:
    speaker = Speaker(pace_of(1, 2))
    for _ in range(3):
        speaker.say(FULL // 2)
        speaker.hears_from(1, speaker.upto)
        speaker.hears_from(2, speaker.upto)
    speaker.pace.stop_sending(B)
    for _ in range(100):
        assert speaker.say(FULL // STEPS) == FULL // STEPS
        speaker.hears_from(1, speaker.upto)


def test_large_streams_share_the_history() -> None:
    alone, one_of_many = (under_way(1, history_bytes=4 * LIMIT) for _ in range(2))
    one_of_many.pace.share_history(10)
    one_of_many.waits(0)
    assert alone.say(MANY) > 5 * one_of_many.say(MANY)


def test_who_shares_the_way_with_many_is_waited_for_longer() -> None:
    speaker = under_way(1, 2)
    speaker.pace.share_history(3)
    speaker.say(MANY)
    speaker.hears_from(1, speaker.upto)
    speaker.waits(2.9 * PATIENCE_S)
    assert speaker.say() == 0
    speaker.waits(0.2 * PATIENCE_S)
    assert speaker.say() == 1


@pytest.mark.parametrize("upto", [0, 10**18])
def test_false_progress_is_bounded_by_what_was_said(upto: int) -> None:
    speaker = Speaker(pace_of(1))
    speaker.say(FULL // 2)
    speaker.hears_from(1, upto)
    assert speaker.say(MANY) <= FULL + 10


# ---- on the way ----------------------------------------------------------------------------------


def hear(pace: Pace, count: int, source: int = 9, first: int = 1) -> None:
    for number in range(first, first + count):
        pace.is_brought(OTHER, address(source), number)
        pace.grew(run(OTHER, number, number, bytes(SIZE)), address(source))


def test_the_source_of_a_stream_is_told_now_and_then_how_far_we_have_it() -> None:
    pace = pace_of(9, 1)
    told = []
    for number in range(1, FULL + 1):
        hear(pace, 1, first=number)
        pace.told(A, Progress(OTHER, number), 0)
        told += pace.news(0)
    assert {who for who, _ in told} == {address(9)}
    numbers = [progress.upto for _, progress in told]
    assert numbers == sorted(set(numbers))
    assert STEPS // 2 <= len(numbers) <= 2 * STEPS
    assert FULL - numbers[-1] <= 2 * FULL // STEPS


def test_little_that_is_said_is_worth_no_progress() -> None:
    pace = pace_of(9, broadcast_lag_bytes=512 * LIMIT)
    hear(pace, LIMIT // SIZE // 2)
    assert pace.news(0) == []


def test_the_first_word_comes_early_and_the_next_after_a_step() -> None:
    """For the first is waited for."""
    pace = pace_of(9)
    told = []
    for number in range(1, 2 * FULL // STEPS):
        hear(pace, 1, first=number)
        told += [progress.upto for _, progress in pace.news(0)]
    assert told[0] == 1
    assert 1 <= len(told[1:]) <= STEPS


def test_the_source_is_told_how_far_the_slowest_behind_us_is() -> None:
    pace = pace_of(9, 1, 2)
    hear(pace, FULL)
    pace.told(A, Progress(OTHER, FULL), 0)
    pace.told(B, Progress(OTHER, FULL // 2), 0)
    [(_, progress)] = pace.news(0)
    assert progress == Progress(OTHER, FULL // 2)


def test_the_source_is_not_held_up_by_one_that_is_left_behind() -> None:
    pace = pace_of(9, 1)
    pace.told(A, Progress(OTHER, 0), 0)
    last = 0
    for start in range(0, 20 * FULL, 10):
        hear(pace, 10, first=start + 1)
        pace.told(A, Progress(OTHER, start // (4 * KEEPS_UP)), 0)
        last = max([last, *(progress.upto for _, progress in pace.news(0))])
    assert last > 19 * FULL


def test_one_that_stands_still_on_the_way_is_left_behind_in_time() -> None:
    pace = pace_of(9, 1)
    for start in range(0, 3 * FULL, 10):
        hear(pace, 10, first=start + 1)
        pace.told(A, Progress(OTHER, start + 10), 0)
    pace.news(0)
    hear(pace, FULL + 20, first=3 * FULL + 1)
    assert pace.news(0) == []
    pace.tick(PATIENCE_S)
    assert [progress.upto for _, progress in pace.news(PATIENCE_S)] == [4 * FULL + 20]


def test_all_who_bring_a_stream_are_told_also_who_brings_it_too_late() -> None:
    pace = pace_of(8, 9)
    hear(pace, FULL, source=9)
    assert pace.news(0) == [], "the other may get it from us"
    pace.is_brought(OTHER, address(8), FULL)
    assert {who for who, _ in pace.news(0)} == {address(8), address(9)}
    hear(pace, FULL // 2, source=9, first=FULL + 1)
    assert {who for who, _ in pace.news(0)} == {address(8)}
    pace.is_brought(OTHER, address(8), FULL + FULL // 2)
    assert {who for who, _ in pace.news(0)} == {address(9)}


def test_who_sends_nothing_any_more_is_told_nothing() -> None:
    pace = pace_of(8, 9)
    hear(pace, FULL, source=9)
    pace.stop_sending(address(9))
    assert pace.news(0) == []


def test_who_brings_a_stream_now_is_not_waited_for_any_more() -> None:
    """The tree has turned: what went to a neighbour now comes from it."""
    pace = pace_of(8, 9)
    hear(pace, FULL, source=9)
    pace.told(address(8), Progress(OTHER, FULL // 2), 0)
    hear(pace, FULL // 2, source=8, first=FULL + 1)
    assert (address(8), Progress(OTHER, FULL + FULL // 2)) in pace.news(0)


def test_what_was_asked_of_another_in_between_is_told_to_the_source_as_well() -> None:
    pace = pace_of(9)
    hear(pace, 1, source=9)
    pace.grew(run(OTHER, 2, FULL, bytes(FULL * SIZE)))
    assert pace.news(0) == [(address(9), Progress(OTHER, FULL))]


def test_a_source_that_is_gone_is_told_nothing() -> None:
    pace = pace_of(9, 1)
    hear(pace, FULL)
    pace.close(address(9), 0)
    assert pace.news(0) == []


def test_what_is_told_of_unknown_or_forgotten_streams_is_nothing() -> None:
    pace = pace_of(9, 1)
    pace.told(A, Progress(OTHER, 5), 0)
    hear(pace, FULL)
    pace.forget(OTHER)
    pace.told(A, Progress(OTHER, 5), 0)
    assert pace.news(0) == []


# ---- where words could be missing, and all would wait --------------------------------------------


def chain(hops: int, **tunables: int) -> list[Pace]:
    """Peers in a row; each gets from the one before it, 0, what the first says."""
    paces = [pace_of(1, **tunables)]
    paces += [Pace(key(100 + hop), paces[0]._tunables) for hop in range(hops)]
    for pace in paces[1:]:
        for neighbour in (A, B):
            pace.open(neighbour)
    for pace in paces[1:-1]:
        pace.start_sending(B)
    return paces


def pass_on(paces: list[Pace], upto: int) -> None:
    """All hear it at once, and the last tells the one before it, and so on."""
    for pace in paces[1:]:
        pace.is_brought(OWN, A, upto)
        pace.grew(run(OWN, upto, upto, bytes(SIZE)), A)
    tell(paces)


def tell(paces: list[Pace]) -> None:
    for before, pace in zip(paces[-2::-1], paces[:0:-1], strict=True):
        for _, progress in pace.news(0.0):
            before.told(A if before is paces[0] else B, progress, 0.0)


def come_to_rest(paces: list[Pace]) -> None:
    """Nothing is said for a moment."""
    for _ in range(2):
        for pace in paces:
            pace.tick(0.0)
        tell(paces)


def goes_on(paces: list[Pace]) -> bool:
    """Whether the origin never waits for longer than a moment, whatever it says."""
    for number in range(1, 10 * FULL):
        if paces[0].is_far_ahead:
            come_to_rest(paces)
        if paces[0].is_far_ahead:
            return False
        paces[0].grew(run(OWN, number, number, bytes(SIZE)))
        pass_on(paces, number)
    return True


def test_on_a_long_way_nobody_waits_for_what_all_have() -> None:
    """What is too little to be told of at each hop adds up."""
    assert goes_on(chain(hops=20))


def test_who_shares_the_history_with_more_streams_than_others_do_does_not_wait_in_vain() -> None:
    paces = chain(hops=3)
    paces[0].share_history(streams=(64 << 20) // LIMIT)
    assert goes_on(paces)


def test_those_who_bring_a_stream_to_each_other_do_not_wait_for_each_other() -> None:
    """The tree is changing: 9 brings it to us; to 8 we bring it, and it brings it to us."""
    pace = pace_of(8, 9)
    known = {address(8): 0, address(9): 0}
    for number in range(1, 5 * FULL):
        hear(pace, 1, source=9, first=number)
        pace.is_brought(OTHER, address(8), number)
        known |= {who: progress.upto for who, progress in pace.news(0)}
        pace.told(address(8), Progress(OTHER, known[address(8)]), 0)  # it waits for us, and says so
    assert known[address(9)] >= 4 * FULL


def test_who_has_not_said_a_word_yet_is_waited_for_too() -> None:
    """When all are busy, first words come late; till then too much would have been said."""
    pace = pace_of(1, 9)
    hear(pace, SOME)
    assert pace.news(0) == []
    pace.told(A, Progress(OTHER, SOME), 0)
    assert pace.news(0) == [(address(9), Progress(OTHER, SOME))]


def test_who_brought_a_stream_once_and_is_sent_it_now_is_waited_for() -> None:
    pace = pace_of(1, 9)
    hear(pace, 1, source=1)
    pace.sends(A, OTHER, 1)
    hear(pace, SOME - 1, source=9, first=2)
    assert pace.news(0) == [(address(9), Progress(OTHER, 1))]
    pace.told(A, Progress(OTHER, SOME), 0)
    assert pace.news(0) == [(address(9), Progress(OTHER, SOME))]


def test_who_has_not_said_a_word_yet_is_not_taken_for_slow() -> None:
    """A lone leaf says its first word at once; what lies behind the other takes longer."""
    speaker = Speaker(pace_of(1, 2))
    while speaker.say():
        speaker.hears_from(1, speaker.upto)
    assert speaker.upto <= FULL // STEPS + 1, "what is said first is little"
    speaker.waits(0.9 * PATIENCE_S)
    assert speaker.say() == 0
    speaker.hears_from(2, speaker.upto)
    assert speaker.say(MANY) > 1


def test_who_never_says_a_word_is_waited_for_no_longer_than_the_patience() -> None:
    speaker = Speaker(pace_of(1, 2))
    while speaker.say():
        speaker.hears_from(1, speaker.upto)
    speaker.waits(PATIENCE_S)
    for _ in range(100):
        assert speaker.say(5) == 5
        speaker.hears_from(1, speaker.upto)


def test_who_never_says_a_word_behind_another_holds_up_nobody_for_ever() -> None:
    """The relay takes the same for less, for it has it in longer runs."""
    origin, relay = Speaker(pace_of(1)), pace_of(1, 9)
    now_s = 0.0
    for _ in range(100):
        began = origin.upto + 1
        if origin.say(MANY):
            relay.is_brought(OTHER, address(9), origin.upto)
            relay.grew(run(OTHER, began, origin.upto, bytes(SIZE)), address(9))
        now_s += PATIENCE_S / 10
        relay.tick(now_s)
        origin.waits(PATIENCE_S / 10)
        for _, progress in relay.news(now_s):
            origin.hears_from(1, progress.upto)
    assert origin.upto > 10 * FULL


def test_who_only_shows_what_it_has_is_judged_as_one_that_tells_of_it() -> None:
    speaker = under_way(1)
    turn_to(speaker, B)
    began = speaker.upto
    for step in range(1, 100):
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
        speaker.pace.has_elsewhere(B, OWN, began + step * FULL // STEPS // (2 * KEEPS_UP))
    assert speaker.upto - began > 50 * (FULL // STEPS)


def test_who_sends_us_what_is_old_is_still_waited_for() -> None:
    """It has the stream from another as well, but later: we are the ones who bring it."""
    pace = pace_of(8, 9)
    hear(pace, 1, source=8)
    pace.sends(address(8), OTHER, 1)
    for number in range(2, SOME):
        hear(pace, 1, source=9, first=number)
        pace.is_brought(OTHER, address(8), 1)
        assert dict(pace.news(0)).get(address(9), Progress(OTHER, 1)) == Progress(OTHER, 1)
    pace.is_brought(OTHER, address(8), SOME - 1)
    assert (address(9), Progress(OTHER, SOME - 1)) in pace.news(0)


def test_the_last_word_of_one_that_gets_its_payload_elsewhere_holds_up_nobody() -> None:
    speaker = under_way(1, 2)
    speaker.pace.stop_sending(B)
    speaker.hears_from(2, speaker.upto // 2)
    for _ in range(10):
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
    assert speaker.say(MANY) > FULL // 2


def test_who_sends_us_what_we_said_has_it() -> None:
    speaker = under_way(1, 2)
    for _ in range(10):
        speaker.say(FULL // STEPS)
        speaker.hears_from(1, speaker.upto)
        speaker.pace.has_elsewhere(B, OWN, speaker.upto)
    assert speaker.say(MANY) > FULL // 2
