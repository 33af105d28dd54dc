"""Reports about the fleet against the point answers, on random histories, on both engines."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from ingest.writer import Writer
from queries.difference import difference
from queries.history import History, open_history
from queries.series import Series
from queries.standing import STATES
from queries.uptime import Counted
from store.engine import open_writer, parse_url
from store.errors import IndexNotReady, InvalidRequest, ResourceNotFound
from store.model import HOUR_MS, Learned, Watch
from tests.builders import T0
from tests.strategies import history

THINGS = [f"pump-{number}" for number in range(20)]
BACK_MS = 550 * 24 * HOUR_MS


@pytest.fixture
def told(store_url: str, rng: random.Random) -> Iterator[tuple[History, list[int], list[int]]]:
    """Give a history of random things, the stamps of its events, and two moments of learning.

    It was watched half of the time; some things are bound to another client, some were first heard of late.
    """
    events = [
        event._replace(
            at_ms=event.at_ms - BACK_MS,
            thing_name=f"boiler-{number}" if number % 5 == 0 and rng.random() < 0.5 else None,
        )
        for number, name in enumerate(THINGS)
        for event in history(rng, name).events
    ]
    stamps = sorted(event.at_ms for event in events)
    middle_ms = stamps[len(stamps) // 2]
    watch = Watch("queue", stamps[0] - HOUR_MS, middle_ms)
    moments = sorted(rng.randrange(T0 - HOUR_MS, T0) for _ in events)
    rng.shuffle(events)
    evidence = [Learned(watch, 0, moments[0])]
    evidence += [Learned(event, 0, known) for event, known in zip(events, moments, strict=True)]
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write(evidence, source="test")
    with open_history(store_url, clock=lambda: T0) as opened:
        yield opened, stamps, [T0, moments[len(moments) // 2]]


def states(opened: History, names: list[str], at_ms: int, known_at: int) -> Counter[str]:
    """Count the point answers."""
    found: Counter[str] = Counter()
    for name in names:
        try:
            found[STATES[opened.at(name, at_ms, known_at=known_at).connected]] += 1
        except ResourceNotFound:
            found["notRegistered"] += 1
    return found


def test_a_snapshot_says_what_the_point_answers_say(
    told: tuple[History, list[int], list[int]], rng: random.Random
) -> None:
    opened, stamps, moments = told
    seen: Counter[str] = Counter()
    for known_at in moments:
        edges = [stamps[0], stamps[-1] + HOUR_MS]  # most were not heard of yet; nobody was watching any more
        for at_ms in rng.choices(stamps, k=10) + rng.choices(range(*edges), k=3) + edges:
            for standing in list(opened.snapshot(at_ms, known_at=known_at)):
                assert standing.thing_name is not None
                try:
                    answer = opened.at(standing.thing_name, at_ms, known_at=known_at)
                except ResourceNotFound:
                    assert standing.answer is None
                    seen["notRegistered"] += 1
                else:
                    assert standing.answer == answer
                    seen[STATES[answer.connected]] += 1
    assert {"connected", "disconnected", "unknown", "notRegistered"} == set(seen)
    with pytest.raises(InvalidRequest):
        list(opened.snapshot(T0 + 1))
    with pytest.raises(IndexNotReady):
        list(opened.snapshot(stamps[0] - 2 * HOUR_MS))


def test_a_series_counts_the_point_answers_at_the_beginning_of_each_bucket(
    told: tuple[History, list[int], list[int]], rng: random.Random
) -> None:
    opened, stamps, moments = told
    for known_at in moments:
        names = [standing.thing_name or "" for standing in opened.snapshot(stamps[-1], known_at=known_at)]
        starts = sorted(
            {stamps[0], *rng.choices(stamps, k=6), *rng.choices(range(stamps[0], stamps[-1]), k=6)}
        )
        found = Series(starts, stamps[-1] + HOUR_MS)
        for thing in opened.stretches(found.window, known_at=known_at, reach_ms=1):
            assert thing.thing_name in names
            found.add(thing.stretches)
        assert [
            {"connected": each.connected, "disconnected": each.disconnected, "unknown": each.unknown}
            for each in found.buckets()
        ] == [
            {state: counted[state] for state in STATES.values()}
            for counted in (states(opened, names, at_ms, known_at) for at_ms in starts)
        ]


def test_what_differs_is_what_two_snapshots_show(
    told: tuple[History, list[int], list[int]], rng: random.Random
) -> None:
    opened, stamps, moments = told
    for known_at in moments:
        first_ms, second_ms = sorted(rng.sample(range(stamps[0], stamps[-1]), 2))
        shown = [
            {
                each.thing_name: "notRegistered" if each.answer is None else STATES[each.answer.connected]
                for each in opened.snapshot(at_ms, known_at=known_at)
            }
            for at_ms in (first_ms, second_ms)
        ]
        for thing in list(opened.stretches((first_ms, second_ms + 1), known_at=known_at)):
            before, after = (each[thing.thing_name] for each in shown)
            assert [Counted(before), Counted(after)] == [
                thing.stretches[0].counted,
                thing.stretches[-1].counted,
            ]
            if before != after:
                found = difference(thing.stretches)
                assert found is not None
                assert (found.before, found.after) == (before, after)
                assert first_ms < found.at_ms <= second_ms
