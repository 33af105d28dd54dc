"""Uptime: every trap that others fell into, as an operator would check it by hand; and that time adds up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from ingest.writer import Writer
from queries.calendars import month, outside_hours
from queries.history import open_history
from queries.times import iso, parse_time
from queries.uptime import (
    Account,
    Counted,
    Policy,
    Reckoned,
    Span,
    Stretch,
    UnknownAs,
    Verdict,
    account,
    reckon,
    split,
    stretches_of,
    verdict,
)
from queries.uptime_report import Lengths
from store.engine import open_writer, parse_url
from store.errors import BadTime, IndexNotReady, ResourceNotFound, UsageError
from store.model import HOUR_MS, MINUTE_MS, Certainty, Learned
from tests.builders import T0, connect, disconnect
from tests.strategies import history

UP, DOWN, UNKNOWN, ABSENT = "up", "down", "unknown", "absent"
_COUNTED = {
    UP: Counted.CONNECTED,
    DOWN: Counted.DISCONNECTED,
    UNKNOWN: Counted.UNKNOWN,
    ABSENT: Counted.NOT_REGISTERED,
}


def told(*parts: tuple[str, int], begins: int = 0, observed: bool = True) -> list[Stretch]:
    """Lay states one after another, each so many minutes long."""
    found, at_ms = [], begins * MINUTE_MS
    for state, minutes in parts:
        counted = _COUNTED[state]
        proven = observed and counted in (Counted.CONNECTED, Counted.DISCONNECTED)
        reason = "CONNECTION_LOST" if state == DOWN else None
        found.append(Stretch(at_ms, at_ms + minutes * MINUTE_MS, counted, proven, reason, turn=True))
        at_ms += minutes * MINUTE_MS
    return found


def minutes(from_: int, to: int) -> Span:
    return from_ * MINUTE_MS, to * MINUTE_MS


class Case(NamedTuple):
    """What happened, in minutes; and the minutes that the report says: up, down, unknown, excluded, absent, outages."""

    name: str
    stretches: list[Stretch]
    window: Span
    policy: Policy
    sums: tuple[int, int, int, int, int, int]


PLAIN = Policy()
CASES = [
    Case(
        "connected all through, without one event in the window",
        told((UP, 1_000)),
        minutes(400, 500),
        PLAIN,
        (100, 0, 0, 0, 0, 0),
    ),
    Case(
        "an outage that goes on counts",
        told((UP, 60), (DOWN, 40)),
        minutes(0, 100),
        PLAIN,
        (60, 40, 0, 0, 0, 1),
    ),
    Case(
        "one that began before the window",
        told((UP, 60), (DOWN, 40), (UP, 100)),
        minutes(90, 200),
        PLAIN,
        (100, 10, 0, 0, 0, 1),
    ),
    Case("nothing is known", told((UNKNOWN, 100)), minutes(0, 100), PLAIN, (0, 0, 100, 0, 0, 0)),
    Case(
        "our own absence is not the device's",
        told((UP, 50), (UNKNOWN, 30), (UP, 20)),
        minutes(0, 100),
        PLAIN,
        (70, 0, 30, 0, 0, 0),
    ),
    Case("not registered yet", told((ABSENT, 50), (UP, 50)), minutes(0, 100), PLAIN, (50, 0, 0, 0, 50, 0)),
    Case(
        "two changes at one instant",
        told((UP, 10), (DOWN, 0), (UP, 10)),
        minutes(0, 20),
        PLAIN,
        (20, 0, 0, 0, 0, 0),
    ),
    Case(
        "grace",
        told((UP, 10), (DOWN, 4), (UP, 10), (DOWN, 5), (UP, 1)),
        minutes(0, 30),
        Policy(grace_ms=5 * MINUTE_MS),
        (25, 5, 0, 0, 0, 1),
    ),
    Case(
        "grace looks at the whole outage, whatever the window shows of it",
        told((UP, 10), (DOWN, 9), (UP, 10)),
        minutes(18, 29),
        Policy(grace_ms=5 * MINUTE_MS),
        (10, 1, 0, 0, 0, 1),
    ),
    Case(
        "flapping is one outage",
        told((UP, 10), (DOWN, 2), (UP, 1), (DOWN, 2), (UP, 10)),
        minutes(0, 25),
        Policy(coalesce_ms=2 * MINUTE_MS),
        (20, 5, 0, 0, 0, 1),
    ),
    Case(
        "flapping is no short outage",
        told((UP, 10), (DOWN, 2), (UP, 1), (DOWN, 2), (UP, 10)),
        minutes(0, 25),
        Policy(coalesce_ms=2 * MINUTE_MS, grace_ms=5 * MINUTE_MS),
        (20, 5, 0, 0, 0, 1),
    ),
    Case(
        "maintenance",
        told((UP, 10), (DOWN, 20), (UP, 10)),
        minutes(0, 40),
        Policy(excluded=[minutes(15, 35)]),
        (15, 5, 0, 20, 0, 1),
    ),
    Case(
        "an outage within maintenance is none",
        told((UP, 10), (DOWN, 20), (UP, 10)),
        minutes(0, 40),
        Policy(excluded=[minutes(5, 35)]),
        (10, 0, 0, 30, 0, 0),
    ),
    Case(
        "what is not registered is not excluded",
        told((ABSENT, 20), (UP, 20)),
        minutes(0, 40),
        Policy(excluded=[minutes(10, 30)]),
        (10, 0, 0, 10, 20, 0),
    ),
    Case(
        "unknown counts as disconnected",
        told((UP, 10), (UNKNOWN, 5), (UP, 5)),
        minutes(0, 20),
        Policy(unknown=UnknownAs.DISCONNECTED),
        (15, 5, 0, 0, 0, 1),
    ),
    Case(
        "unknown counts as connected",
        told((UP, 10), (UNKNOWN, 5), (UP, 5)),
        minutes(0, 20),
        Policy(unknown=UnknownAs.CONNECTED),
        (20, 0, 0, 0, 0, 0),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_reported(case: Case) -> None:
    stretches = [each for each in case.stretches if each.from_ms < each.to_ms]
    sums = account(reckon(stretches, case.policy, case.window))
    found = (
        sums.connected_ms,
        sums.disconnected_ms,
        sums.unknown_ms,
        sums.excluded_ms,
        sums.not_registered_ms,
    )
    assert (*(each / MINUTE_MS for each in found), sums.outages) == case.sums
    assert sums.window_ms == case.window[1] - case.window[0]


def test_no_data_is_no_share() -> None:
    sums = account(reckon(told((ABSENT, 50)), PLAIN, minutes(0, 50)))
    assert (sums.availability, sums.availability_low, sums.availability_high) == (None, None, None)
    sums = account(reckon(told((UNKNOWN, 50)), PLAIN, minutes(0, 50)))
    assert (sums.availability, sums.availability_low, sums.availability_high) == (None, 0, 1)
    assert verdict(sums, 0.99) is Verdict.CANNOT_BE_TOLD


def test_bounds_count_what_is_not_proven_either_way() -> None:
    stretches = [
        *told((UP, 60), (DOWN, 20)),
        *told((UP, 10), (DOWN, 5), begins=80, observed=False),
        *told((UNKNOWN, 5), begins=95),
    ]
    sums = account(reckon(stretches, PLAIN, minutes(0, 100)))
    assert sums.availability == 70 / 95
    assert (sums.availability_low, sums.availability_high) == (60 / 100, 80 / 100)
    assert [verdict(sums, target) for target in (0.6, 0.7, 0.8, 0.81)] == [
        Verdict.MET,
        Verdict.CANNOT_BE_TOLD,
        Verdict.CANNOT_BE_TOLD,
        Verdict.MISSED,
    ]


def test_mean_times_count_cut_outages_as_cut() -> None:
    """Three outages: one is over when the window ends, of one the end is seen, of the last neither."""
    stretches = told((DOWN, 10), (UP, 30), (DOWN, 20), (UP, 30), (DOWN, 60))
    sums = account(reckon(stretches, PLAIN, minutes(5, 100)))
    assert (sums.outages, sums.begun, sums.ended) == (3, 2, 2)
    assert sums.mttr_ms == (5 + 20 + 10) * MINUTE_MS / 2
    assert sums.mtbf_ms == (30 + 30) * MINUTE_MS / 2
    assert sums.longest_outage_ms == 20 * MINUTE_MS
    whole = account(reckon(told((UP, 10)), PLAIN, minutes(0, 10)))
    assert (whole.mttr_ms, whole.mtbf_ms) == (None, None)


def test_reconnects_and_takeovers() -> None:
    stretches = told((UP, 10), (UP, 10), (DOWN, 5), (UP, 5), (UP, 5))
    stretches[-1] = stretches[-1]._replace(turn=False)  # it only became less sure
    sums = account(reckon(stretches, PLAIN, minutes(0, 35)))
    assert (sums.takeovers, sums.reconnects) == (1, 1)


def drawn(rng: random.Random, until: int) -> list[Stretch]:
    parts: list[tuple[str, int]] = []
    while sum(length for _, length in parts) < until:
        state = rng.choice(
            [each for each in (UP, DOWN, UNKNOWN, ABSENT) if not parts or each != parts[-1][0]]
        )
        parts.append((state, rng.choice((1, 2, 5, 30, 200))))
    return told(*parts, observed=rng.random() < 0.5)


def test_time_adds_up_however_it_is_cut(rng: random.Random) -> None:
    """Law 9: whatever the policy, a window is the sum of its parts, and of the parts that it is cut into."""
    for _ in range(400):
        stretches = drawn(rng, 2_000)
        policy = Policy(
            grace_ms=rng.choice((0, 1, 3, 40)) * MINUTE_MS,
            coalesce_ms=rng.choice((0, 1, 3, 40)) * MINUTE_MS,
            unknown=rng.choice(list(UnknownAs)),
            excluded=[
                minutes(at, at + rng.randrange(1, 60)) for at in range(0, 2_000, rng.randrange(61, 500))
            ],
        )
        margin = policy.reach_ms
        low, high = margin + rng.randrange(1_000 * MINUTE_MS - margin), 1_900 * MINUTE_MS - margin
        whole = reckon(stretches, policy, (low, high))
        assert [each.from_ms for each in whole.stretches[1:]] == [each.to_ms for each in whole.stretches[:-1]]
        assert (whole.stretches[0].from_ms, whole.stretches[-1].to_ms) == (low, high)
        sums = account(whole)
        assert sums.window_ms == high - low
        cuts = sorted({low, high, *(rng.randrange(low, high) for _ in range(rng.randrange(6)))})
        for parts in (
            [within(stretches, policy, window) for window in pairwise(cuts)],
            list(split(whole, cuts[1:-1])),
        ):
            added = Account()
            for part in parts:
                added.add(account(part))
            assert sums_of(added) == sums_of(sums)


def within(stretches: list[Stretch], policy: Policy, window: Span) -> Reckoned:
    """Count a window of what reaches no further beyond it than a policy looks."""
    low, high = window[0] - policy.reach_ms, window[1] + policy.reach_ms
    near = [
        each._replace(from_ms=max(each.from_ms, low), to_ms=min(each.to_ms, high))
        for each in stretches
        if each.from_ms < high and each.to_ms > low
    ]
    return reckon(near, policy, window)


def sums_of(sums: Account) -> tuple[object, ...]:
    return (
        sums.connected_ms,
        sums.disconnected_ms,
        sums.unknown_ms,
        sums.excluded_ms,
        sums.not_registered_ms,
        sums.observed_connected_ms,
        sums.observed_disconnected_ms,
        sums.reasons,
    )


# --- Calendars ----------------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_month_is_one_of_a_zone() -> None:
    assert tuple(map(iso, month("2026-10", BERLIN))) == (
        "2026-09-30T22:00:00.000Z",
        "2026-10-31T23:00:00.000Z",
    )
    low, high = month("2026-12", BERLIN)
    assert (iso(high), high - low) == ("2026-12-31T23:00:00.000Z", 31 * 24 * HOUR_MS)
    for text in ("2026-13", "2026-1", "october", "0000-01"):
        with pytest.raises(BadTime):
            month(text, BERLIN)


def test_a_year_is_the_sum_of_its_months() -> None:
    spans = [month(f"2026-{number:02}", BERLIN) for number in range(1, 13)]
    assert all(earlier[1] == later[0] for earlier, later in pairwise(spans))
    assert sum(to_ms - from_ms for from_ms, to_ms in spans) == 365 * 24 * HOUR_MS


def instants(text: str) -> Iterator[int]:
    return (parse_time(each, now_ms=0, tz="Europe/Berlin") for each in text.split(","))


@pytest.mark.parametrize(
    ("hours", "from_", "inside"),
    [
        ("Mon-Fri 08:00-18:00", "2026-11-02T00:00,2026-11-09T00:00", 50),  # Monday to Sunday
        ("08:00-18:00", "2026-11-02T00:00,2026-11-09T00:00", 70),
        ("Sat-Sun 00:00-24:00", "2026-11-02T00:00,2026-11-09T00:00", 48),
        ("22:00-06:00", "2026-11-02T00:00,2026-11-03T00:00", 8),
        ("Fri-Mon 10:00-11:00, Tue 10:30-12:00", "2026-11-02T00:00,2026-11-09T00:00", 5.5),
        ("00:00-24:00", "2026-10-25T00:00,2026-10-26T00:00", 25),  # clocks go back
        ("00:00-06:00", "2026-10-25T00:00,2026-10-26T00:00", 7),
        ("00:00-06:00", "2026-03-29T00:00,2026-03-30T00:00", 5),  # ... and forward
    ],
)
def test_service_hours(hours: str, from_: str, inside: float) -> None:
    low, high = instants(from_)
    outside = outside_hours(hours, BERLIN, (low, high))
    assert all(low <= from_ms < to_ms <= high for from_ms, to_ms in outside)
    assert all(earlier[1] < later[0] for earlier, later in pairwise(outside))
    assert (high - low - sum(to_ms - from_ms for from_ms, to_ms in outside)) / HOUR_MS == inside


@pytest.mark.parametrize(
    "text", ["", "Mon", "8-18", "Xyz 08:00-09:00", "08:00-08:00", "24:00-25:00", "08:61-09:00"]
)
def test_service_hours_that_are_none(text: str) -> None:
    with pytest.raises(BadTime):
        outside_hours(text, BERLIN, minutes(0, 10))


# --- Of a store ---------------------------------------------------------------------------------------------


def test_a_report_says_what_the_point_answers_say(store_url: str, rng: random.Random) -> None:
    """Of random histories: at random instants each thing is what the report counts it as."""
    back_ms = 550 * 24 * HOUR_MS
    events = [
        event._replace(at_ms=event.at_ms - back_ms)
        for number in range(25)
        for event in history(rng, f"pump-{number}").events
    ]
    moments = sorted(rng.randrange(T0 - HOUR_MS, T0) for _ in events)
    rng.shuffle(events)
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write(
            [Learned(event, 0, known) for event, known in zip(events, moments, strict=True)], source="test"
        )
    stamps = [event.at_ms for event in events]
    window = min(stamps) - HOUR_MS, max(stamps) + HOUR_MS
    seen = set()
    with open_history(store_url, clock=lambda: T0) as opened:
        for known_at in (T0, moments[len(moments) // 2]):
            for thing in list(opened.uptime(window, [PLAIN], known_at=known_at)):
                (reckoned,) = thing.reckoned
                assert thing.thing_name is not None
                begins = [one.from_ms for one in reckoned.stretches[:3]]  # some are of before it was heard of
                for at_ms in rng.choices(range(*window), k=15) + rng.choices(stamps, k=5) + begins:
                    each = next(one for one in reckoned.stretches if one.from_ms <= at_ms < one.to_ms)
                    seen.add(each.counted)
                    try:
                        answer = opened.at(thing.thing_name, at_ms, known_at=known_at)
                    except ResourceNotFound:
                        assert each.counted is Counted.NOT_REGISTERED
                        continue
                    except IndexNotReady:
                        assert each.counted is Counted.UNKNOWN
                        continue
                    state = {True: Counted.CONNECTED, False: Counted.DISCONNECTED, None: Counted.UNKNOWN}
                    assert each.counted is state[answer.connected]
                    assert each.observed is (answer.certainty is Certainty.OBSERVED)
                    if each.counted is Counted.DISCONNECTED:
                        assert each.reason == answer.disconnect_reason
    assert seen == {Counted.CONNECTED, Counted.DISCONNECTED, Counted.UNKNOWN, Counted.NOT_REGISTERED}


def test_what_is_told_later_changes_no_report_of_then(store_url: str) -> None:
    at_ms = T0 - 100 * HOUR_MS
    first = [connect(at_ms, session="a", version=0), disconnect(at_ms + HOUR_MS, session="a", version=0)]
    late = connect(at_ms + 2 * HOUR_MS, session="b", version=1)
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write([Learned(each, 0, T0 - 50 * HOUR_MS) for each in first], source="test")
        writer.write([Learned(late, 0, T0 - 10 * HOUR_MS)], source="test")
    window = at_ms, at_ms + 4 * HOUR_MS

    def down(known_at: int) -> float:
        (thing,) = opened.uptime(window, [PLAIN], known_at=known_at)
        return account(thing.reckoned[0]).disconnected_ms / HOUR_MS

    with open_history(store_url, clock=lambda: T0) as opened:
        assert [down(T0 - 20 * HOUR_MS), down(T0), down(T0 - 20 * HOUR_MS)] == [3, 1, 3]
        with pytest.raises(UsageError):
            list(opened.uptime((at_ms, at_ms), [PLAIN]))
        with pytest.raises(ResourceNotFound):
            list(opened.uptime(window, [PLAIN], names=["nobody"]))


def test_before_the_store_s_history_nothing_is_known() -> None:
    found = list(stretches_of([], [], begun_ms=60, window=(0, 100), known_at=1_000))
    assert [(each.from_ms, each.to_ms, each.counted) for each in found] == [
        (0, 60, Counted.UNKNOWN),
        (60, 100, Counted.NOT_REGISTERED),
    ]


def test_the_fewest_of_many_lengths_are_the_longest(rng: random.Random) -> None:
    for _ in range(300):
        drawn = [rng.randrange(1 << rng.randint(1, 40)) for _ in range(rng.randint(0, 60))]
        lengths = Lengths()
        for each in drawn:
            lengths.add(each)
        share = rng.choice((0.8, 0.5, 1.0))
        longest = sorted(drawn, reverse=True)
        wanted = next(count for count in range(len(drawn) + 1) if sum(longest[:count]) >= share * sum(drawn))
        assert lengths.fewest(share) == wanted
        assert len(lengths) == len(drawn)
