"""Limits: what is refused is counted, said now and then, and paid for out of budgets."""

from limits import (
    CERTIFICATE,
    REMEMBERED_SPENDERS,
    SAID_AGAIN_S,
    SAID_REASONS,
    Budgets,
    Refusals,
    Tally,
)


def test_what_is_refused_is_counted_and_said_once() -> None:
    refusals = Refusals("streams", "links")
    for _ in range(1000):
        refusals.refuse("streams", "host:1", "too many", now_s=5)
    assert refusals.stats() == {"refused_streams": 1000, "refused_links": 0}
    said = [{"what": "streams", "source": "host:1", "reason": "too many"}]
    assert refusals.collect() == said
    assert refusals.collect() == []


def test_what_goes_on_being_refused_is_said_again_after_a_while() -> None:
    refusals = Refusals("streams")
    for now_s in (0, SAID_AGAIN_S - 1, SAID_AGAIN_S, SAID_AGAIN_S + 1):
        refusals.refuse("streams", "host:1", str(now_s), now_s)
    assert [said["reason"] for said in refusals.collect()] == ["0", str(SAID_AGAIN_S)]


def test_each_limit_is_said_for_itself() -> None:
    refusals = Refusals("streams", "links")
    refusals.refuse("streams", "host:1", "one", now_s=0)
    refusals.refuse("links", "host:1", "two", now_s=0)
    assert [said["what"] for said in refusals.collect()] == ["streams", "links"]


def test_each_reason_not_to_trust_is_said_for_itself_up_to_a_bound() -> None:
    refusals = Refusals(CERTIFICATE)
    for now_s in (0, SAID_AGAIN_S - 1):
        refusals.refuse(CERTIFICATE, "host:1", "expired", now_s)
        refusals.refuse(CERTIFICATE, "host:2", "revoked", now_s)
    assert [said["reason"] for said in refusals.collect()] == ["expired", "revoked"]
    for number in range(10_000):
        refusals.refuse(CERTIFICATE, "host:1", f"made up {number}", now_s=SAID_AGAIN_S)
    assert len(refusals.collect()) <= SAID_REASONS + 1
    assert len(refusals._said_s) <= SAID_REASONS + 1
    refusals.refuse(CERTIFICATE, "host:1", "foreign", now_s=2 * SAID_AGAIN_S)
    assert [said["reason"] for said in refusals.collect()] == ["foreign"]


def test_a_budget_pays_for_so_many_at_once_and_then_so_many_a_second() -> None:
    budgets = Budgets(most=3, per_s=2)
    assert [budgets.spend("a", now_s=0) for _ in range(4)] == [True, True, True, False]
    assert [budgets.spend("a", now_s=1) for _ in range(3)] == [True, True, False]
    assert [budgets.spend("a", now_s=100) for _ in range(4)] == [True, True, True, False]


def test_each_source_has_a_budget_of_its_own() -> None:
    budgets = Budgets(most=1, per_s=0)
    assert budgets.spend("a", now_s=0)
    assert budgets.spend("b", now_s=0)
    assert not budgets.spend("a", now_s=0)


def test_who_spends_is_remembered_however_many_others_there_are() -> None:
    budgets = Budgets(most=REMEMBERED_SPENDERS, per_s=0)
    for number in range(3 * REMEMBERED_SPENDERS):
        assert budgets.spend(str(number), now_s=0)
        is_left = budgets.spend("greedy", now_s=0)
        assert is_left == (number < REMEMBERED_SPENDERS)
    assert len(budgets._of) <= REMEMBERED_SPENDERS


def test_a_tally_remembers_only_sources_of_which_there_are_some() -> None:
    tally = Tally()
    tally.change("a", 2)
    tally.change("b", 1)
    tally.change("b", -1)
    tally.change("a", -1)
    assert tally == {"a": 1}
    assert tally["b"] == 0
    assert list(tally) == ["a"]
