"""A budget is never exceeded, gives way when AWS throttles, and comes back slowly."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.budget import DAY_MS, LIMITS, RECOVERY_MS, SLOWEST, Budget, Limit
from tests.builders import T0

API = "SearchIndex"
MIDNIGHT = (T0 // DAY_MS + 1) * DAY_MS
NOON = MIDNIGHT - DAY_MS // 2


def sent(budget: Budget, from_ms: int, to_ms: int, *, busy_ms: int = 0, api: str = API) -> list[int]:
    """Call as often as the budget lets, each call taking `busy_ms`; gives when."""
    calls, now_ms = [], from_ms
    while (now_ms := now_ms + budget.wait_ms(api, now_ms)) < to_ms:
        budget.spend(api, now_ms)
        calls.append(now_ms)
        now_ms += busy_ms
    return calls


@given(
    rate=st.floats(0.01, 500),
    busy_ms=st.sampled_from([0, 1, 7, 500]),
    pauses=st.lists(st.integers(0, 5_000), max_size=5),
)
def test_no_stretch_holds_more_calls_than_the_rate_allows(
    rate: float, busy_ms: int, pauses: list[int]
) -> None:
    budget = Budget({API: Limit(a_second=rate, a_day=10**9)})
    calls: list[int] = []
    now_ms = NOON
    for pause_ms in [*pauses, 0]:
        calls += sent(budget, now_ms, now_ms + 2_000, busy_ms=busy_ms)
        now_ms += 2_000 + pause_ms
    for first in range(0, len(calls), max(1, len(calls) // 20)):
        for last in range(first, len(calls), max(1, len(calls) // 20)):
            allowed = 1 + rate * (calls[last] - calls[first]) / 1_000
            assert last - first + 1 <= allowed + 1e-6


def test_the_rate_is_used_to_the_full() -> None:
    assert len(sent(Budget(), NOON, NOON + 10_000)) == 7 * 10


def test_what_was_not_used_is_not_made_up_for() -> None:
    budget = Budget()
    budget.spend(API, NOON)
    assert len(sent(budget, NOON + 60_000, NOON + 61_000)) == 7


def test_throttling_halves_the_rate_and_it_comes_back_slowly() -> None:
    budget = Budget({API: Limit(a_second=8, a_day=10**6)})
    budget.throttled(API, NOON)
    budget.throttled(API, NOON + 10)  # was under way at the same time
    rates = [budget.rate(API, NOON + at * RECOVERY_MS) for at in (0, 1, 2, 5, 50)]
    assert rates == pytest.approx([4, 4.8, 5.6, 8, 8])
    budget.throttled(API, NOON + 2 * RECOVERY_MS)
    assert budget.rate(API, NOON + 2 * RECOVERY_MS) == pytest.approx(2.8)
    assert budget.wait_ms(API, NOON + 2 * RECOVERY_MS) == pytest.approx(1000 / 2.8, abs=1)


def test_throttling_without_end_leaves_a_little() -> None:
    budget = Budget({API: Limit(a_second=32, a_day=10**6)})
    for second in range(100):
        budget.throttled(API, NOON + 1_000 * second)
    assert budget.rate(API, NOON + 99_000) == pytest.approx(32 * SLOWEST)


def test_a_day_that_is_used_up_ends_at_midnight_utc() -> None:
    budget = Budget({API: Limit(a_second=1_000, a_day=30)})
    assert len(sent(budget, NOON, MIDNIGHT)) == 30
    assert budget.left_today(API, MIDNIGHT - 1) == 0
    assert budget.wait_ms(API, MIDNIGHT - 5_000) == 5_000
    assert (budget.left_today(API, MIDNIGHT), budget.spent_today(API, MIDNIGHT)) == (30, 0)
    assert len(sent(budget, MIDNIGHT, MIDNIGHT + DAY_MS)) == 30


def test_apis_have_budgets_of_their_own() -> None:
    budget = Budget()
    budget.throttled(API, NOON)
    budget.spend(API, NOON)
    assert [budget.wait_ms(api, NOON) > 0 for api in LIMITS] == [True, False, False, False]


def test_a_clock_that_is_set_back_holds_nobody_up(rng: random.Random) -> None:
    budget = Budget({API: Limit(a_second=1, a_day=10**6)})
    budget.spend(API, NOON)
    back_ms = rng.randrange(10_000, DAY_MS // 3)
    waits = [budget.wait_ms(API, NOON - back_ms + passed) for passed in (0, 400, 999, 1_000)]
    assert waits == [1_000, 600, 1, 0]
    assert len(sent(budget, NOON - back_ms, NOON - back_ms + 10_000)) == 10 - 1


def test_a_clock_that_is_set_back_over_midnight_gives_no_second_day() -> None:
    budget = Budget({API: Limit(a_second=1_000, a_day=30)})
    assert len(sent(budget, MIDNIGHT, MIDNIGHT + 1_000)) == 30
    assert budget.left_today(API, MIDNIGHT - 1) == 0


def test_another_process_takes_over_what_was_spent_of_the_day() -> None:
    first = Budget({API: Limit(a_second=1_000, a_day=30)})
    sent(first, MIDNIGHT - 20, MIDNIGHT)
    spent = first.spent_today(API, MIDNIGHT - 1)
    second, later = (Budget({API: Limit(a_second=1_000, a_day=30)}) for _ in range(2))
    second.resume(first.as_text(MIDNIGHT - 1), MIDNIGHT - 1)
    assert (spent, second.left_today(API, MIDNIGHT - 1)) == (20, 10)
    assert len(sent(second, MIDNIGHT - 500, MIDNIGHT)) == 10
    later.resume(first.as_text(MIDNIGHT - 1), MIDNIGHT)
    assert later.left_today(API, MIDNIGHT) == 30


@pytest.mark.parametrize(("a_second", "a_day"), [(0, 1), (-1, 1), (1, -1), (float("nan"), 1)])
def test_a_limit_that_is_none_is_refused(a_second: float, a_day: int) -> None:
    with pytest.raises(ValueError, match="a limit has"):
        Limit(a_second=a_second, a_day=a_day)
