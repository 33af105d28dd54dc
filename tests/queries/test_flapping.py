"""Who flaps: the rule as a table of days that an operator can check."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from queries.flapping import Flapping, Rule, flapping
from queries.uptime import Outage
from store.errors import ThinglineError
from store.model import MINUTE_MS

LOST, ASLEEP = "CONNECTION_LOST", "CLIENT_INITIATED_DISCONNECT"
RULE = Rule(outages=3, shorter_ms=5 * MINUTE_MS, within_ms=60 * MINUTE_MS)


def down(at: int, minutes: int = 1, reason: str = LOST, *, begins: bool = True, ends: bool = True) -> Outage:
    """Build an outage by the minute at which it begins, and its length."""
    from_ms, to_ms = at * MINUTE_MS, (at + minutes) * MINUTE_MS
    return Outage(from_ms, to_ms, reason, to_ms - from_ms, begins, ends, observed=True)


class Case(NamedTuple):
    """The outages of a day; how many of them are flapping; and the episodes, in minutes."""

    name: str
    outages: list[Outage]
    flaps: int
    episodes: list[tuple[int, int]]


CASES = [
    Case("none", [], 0, []),
    Case("two are too few", [down(0), down(10)], 0, []),
    Case("three within the hour", [down(0), down(10), down(59)], 3, [(0, 60)]),
    Case("the third an hour later", [down(0), down(10), down(60)], 0, []),
    Case("what lasts five minutes is not short", [down(0), down(10, 5), down(20)], 0, []),
    Case(
        "a long outage between does not interrupt",
        [down(0), down(10, 20), down(40), down(50)],
        3,
        [(0, 51)],
    ),
    Case("a sleepy device, every ten minutes", [down(at, 4, ASLEEP) for at in range(0, 1_000, 10)], 0, []),
    Case(
        "a sleepy device that is lost as well",
        sorted([*(down(at, 4, ASLEEP) for at in range(5, 100, 10)), down(0), down(10), down(20)]),
        3,
        [(0, 21)],
    ),
    Case(
        "one that goes on may become long; one whose beginning is not seen may have been",
        [down(0, begins=False), down(10), down(20), down(30, ends=False)],
        0,
        [],
    ),
    Case("windows that overlap are one episode", [down(at) for at in range(0, 200, 25)], 8, [(0, 176)]),
    Case(
        "two storms a day",
        [*(down(at) for at in (0, 5, 10)), *(down(at) for at in (600, 605, 610, 615))],
        7,
        [(0, 11), (600, 616)],
    ),
    Case(
        "one storm after another, that share no outage",
        [*(down(at) for at in (0, 25, 50)), *(down(at) for at in (90, 110, 120))],
        6,
        [(0, 51), (90, 121)],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_flaps(case: Case) -> None:
    found = flapping(case.outages, RULE)
    if found is None:
        assert (case.flaps, case.episodes) == (0, [])
        return
    assert found.outages == case.flaps
    assert found.episodes == [(from_ * MINUTE_MS, to * MINUTE_MS) for from_, to in case.episodes]


def test_what_is_said_of_it() -> None:
    outages = [
        down(0, 2),
        down(1_000),
        down(1_010, 1, "CLIENT_ERROR"),
        down(1_020, 3),
        down(1_025, 1, ASLEEP),
    ]
    assert flapping(outages, RULE) == Flapping(
        outages=3,
        episodes=[(1_000 * MINUTE_MS, 1_023 * MINUTE_MS)],
        most=3,
        down_ms=5 * MINUTE_MS,
        reasons={LOST: 2, "CLIENT_ERROR": 1},
        asked_for=1,
    )


@pytest.mark.parametrize("wrong", [{"outages": 1}, {"shorter_ms": 0}, {"within_ms": 0}])
def test_a_rule_that_means_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ThinglineError):
        Rule(**wrong)
