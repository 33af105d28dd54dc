"""How many were connected over time: drawn lines, counted by hand; and random ones, counted instant by instant."""

from __future__ import annotations

import random
from itertools import pairwise
from zoneinfo import ZoneInfo

from queries.calendars import midnights
from queries.series import Bucket, Series
from queries.times import iso, parse_time
from queries.uptime import Counted, Stretch
from tests.queries.test_difference import LETTERS, line


def series(lines: list[str], starts: list[int], to: int) -> list[Bucket]:
    found = Series([60_000 * minute for minute in starts], 60_000 * to)
    for drawn in lines:
        found.add(line(drawn))
    return list(found.buckets())


def test_a_fleet_of_three_as_it_is_drawn() -> None:
    lines = [
        # A letter a minute; buckets begin at 1, 4 and 8, and the last ends at 10.
        "UUUUDDUUUUU",
        "DDUDDDDDUUU",
        "---U?UUU??U",
    ]
    counted = [
        (
            each.connected,
            each.disconnected,
            each.unknown,
            each.least,
            each.most,
            each.connects,
            each.disconnects,
        )
        for each in series(lines, [1, 4, 8], 10)
    ]
    assert counted == [
        (
            1,
            1,
            0,
            1,
            2,
            2,
            1,
        ),  # the second connects and disconnects, the third is heard of for the first time
        (0, 2, 1, 0, 2, 2, 1),  # the first goes down at the very beginning, and comes back
        (2, 0, 1, 2, 2, 1, 0),  # the second comes back; nobody was watching the third
    ]


def test_what_changes_at_one_instant_changes_at_once() -> None:
    """One goes down in the millisecond in which another comes up: at no instant are both connected, or neither."""
    (bucket,) = series(["UUUDDDD", "DDDUUUU"], [0], 6)
    assert (bucket.least, bucket.most, bucket.connects, bucket.disconnects) == (1, 1, 1, 1)


def test_what_becomes_known_again_did_not_connect() -> None:
    stretches = line("UU??UU")
    again = [*stretches[:2], *(each._replace(turn=False) for each in stretches[2:])]
    found = Series([0], 300_000)
    found.add(again)
    (bucket,) = found.buckets()
    assert (bucket.connected, bucket.least, bucket.connects) == (1, 0, 0)


def test_takeovers_change_no_count() -> None:
    half = line("UUUU")[0]
    found = Series([0], 180_000)
    found.add([half._replace(to_ms=60_000), half._replace(from_ms=60_000)])
    (bucket,) = found.buckets()
    assert (bucket.takeovers, bucket.connects, bucket.least, bucket.most) == (1, 0, 1, 1)


def test_random_fleets_are_counted_as_instant_by_instant(rng: random.Random) -> None:
    for _ in range(60):
        length = rng.randrange(4, 40)
        fleet = [line("".join(rng.choices(list(LETTERS), k=length))) for _ in range(rng.randrange(1, 8))]
        starts = sorted(rng.sample(range(length - 1), rng.randrange(1, min(length - 1, 6))))
        found = Series([60_000 * minute for minute in starts], 60_000 * (length - 1))
        for stretches in fleet:
            found.add(stretches)
        buckets = list(found.buckets())
        assert [each.to_ms for each in buckets[:-1]] == [each.from_ms for each in buckets[1:]]
        for bucket in buckets:
            inside = [count(fleet, minute, Counted.CONNECTED) for minute in minutes(bucket)]
            assert (bucket.connected, bucket.least, bucket.most) == (inside[0], min(inside), max(inside))
            assert bucket.disconnected == count(fleet, minutes(bucket)[0], Counted.DISCONNECTED)
            assert bucket.unknown == count(fleet, minutes(bucket)[0], Counted.UNKNOWN)
        turns = [
            after.counted
            for stretches in fleet
            for before, after in pairwise(stretches)
            if buckets[0].from_ms <= after.from_ms < buckets[-1].to_ms and before.counted is not after.counted
        ]
        assert sum(each.connects for each in buckets) == turns.count(Counted.CONNECTED)
        assert sum(each.disconnects for each in buckets) == turns.count(Counted.DISCONNECTED)


def minutes(bucket: Bucket) -> range:
    return range(bucket.from_ms // 60_000, bucket.to_ms // 60_000)


def count(fleet: list[list[Stretch]], minute: int, counted: Counted) -> int:
    return sum(
        each.counted is counted and each.from_ms <= minute * 60_000 < each.to_ms
        for stretches in fleet
        for each in stretches
    )


def test_days_are_those_of_a_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    low, high = (parse_time(text, now_ms=0, tz="Europe/Berlin") for text in ("2026-10-24", "2026-10-27"))
    assert [iso(at_ms) for at_ms in midnights(berlin, (low, high))] == [
        "2026-10-24T22:00:00.000Z",
        "2026-10-25T23:00:00.000Z",  # clocks went back: a day of 25 hours
    ]
    assert midnights(berlin, (low - 1, high))[0] == low
