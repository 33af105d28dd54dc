"""`thingline coverage`: what is told of paths, gaps and losses, against a fleet whose losses are known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ingest.files import ingest_file
from ingest.simulate import WATCH_SOURCE, Choices, simulate
from ingest.writer import Writer
from queries.coverage import Coverage, coverage
from queries.history import open_history
from queries.times import DAY_MS
from store.clock import system_clock
from store.engine import open_reader, open_writer, parse_url
from store.model import HOUR_MS, Certainty, Learned, Watch
from tests.builders import T0, connect, disconnect

GAP_MS = 6 * HOUR_MS


def filled(url: str, folder: Path, choices: Choices) -> Coverage:
    path = folder / "fleet.ndjson"
    path.write_bytes(b"".join(simulate(choices).lines()))
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        ingest_file(str(path), writer, clock=system_clock, progress=lambda read, counts: None)
    return told(url)


def told(url: str, from_ms: int = 0, to_ms: int = 1 << 50, *, now_ms: int = 1 << 50) -> Coverage:
    with open_reader(parse_url(url)) as store:
        return coverage(store, from_ms, to_ms, now_ms=now_ms)


@pytest.mark.parametrize("checks", [15, 0], ids=["checks", "no-checks"])
def test_a_path_that_was_out_for_six_hours_is_told_and_what_nothing_proves_then_is_unknown(
    store_url: str, tmp_path: Path, checks: int
) -> None:
    choices = Choices(things=30, days=2, gaps=1, gap_minutes=360, check_minutes=checks)
    found = filled(store_url, tmp_path, choices)
    gaps = [gap for day in found.days for gap in day.gaps]
    assert sum(ends - begins for begins, ends in gaps) == GAP_MS
    (path,) = found.paths
    assert (path.source, path.is_watching) == (WATCH_SOURCE, False)
    watched = [day.watched_ms for day in found.days if day.source == WATCH_SOURCE]
    assert sum(each or 0 for each in watched) == path.to_ms - path.from_ms - GAP_MS
    begins_ms, ends_ms = min(gaps)[0], max(gaps)[1]
    certainties: Counter[Certainty] = Counter()
    with open_history(store_url) as history:
        for one in history.all_periods(by_client=True):
            low, high = max(one.period.from_ms, begins_ms), min(one.period.to_ms or ends_ms, ends_ms)
            if low < high:
                certainties[one.period.certainty] += high - low
    assert certainties[Certainty.INFERRED] == 0
    assert certainties[Certainty.UNKNOWN] > 0
    assert (certainties[Certainty.OBSERVED] > certainties[Certainty.UNKNOWN]) is bool(checks)
    assert bool(found.revealed) is bool(checks)


def test_losses_are_estimated_and_none_are_where_nothing_was_lost(store_url: str, tmp_path: Path) -> None:
    choices = Choices(things=80, days=2, loss=0.04, check_minutes=0)
    found = filled(store_url, tmp_path, choices)
    lines = [json.loads(line) for line in simulate(choices).lines()]
    came = Counter(line["event"]["timestamp"] // DAY_MS * DAY_MS for line in lines if "event" in line)
    events = {day.day_ms: day.events for day in found.days if day.events}
    assert set(events) == set(came)
    assert all(events[day] <= came[day] for day in came)  # copies are one
    lost = sum(day.lost_connects + day.lost_disconnects for day in found.days)
    assert 0.02 < lost / (lost + sum(events.values())) < 0.05  # both halves lost leave no trace
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([Learned(connect(T0, client_id="new", session="x", version=0), 0)], source="other")
    (day,) = (day for day in told(store_url).days if day.source == "other")
    assert (day.events, day.lost_connects, day.lost_disconnects, day.loss) == (1, 0, 0, 0.0)


def test_nothing_is_missing_of_a_whole_history(store_url: str, tmp_path: Path) -> None:
    found = filled(store_url, tmp_path, Choices(things=40, days=1, loss=0.0, check_minutes=0))
    assert {(day.lost_connects, day.lost_disconnects) for day in found.days} == {(0, 0)}
    assert found.revealed == []


def test_days_are_cut_at_what_is_asked_for(store_url: str) -> None:
    day_ms = T0 // DAY_MS * DAY_MS
    events = [
        Learned(event, 0)
        for at in range(4)
        for event in (
            connect(day_ms + at * DAY_MS, session=f"s{at}", version=at),
            disconnect(day_ms + at * DAY_MS + HOUR_MS, session=f"s{at}", version=at),
        )
    ]
    watch = Learned(Watch("mqtt", day_ms, day_ms + 4 * DAY_MS), 0)
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([*events, watch], source="mqtt")
    found = told(
        store_url, day_ms + HOUR_MS, day_ms + DAY_MS + HOUR_MS + 1, now_ms=day_ms + 4 * DAY_MS + 60_000
    )
    assert [(day.day_ms - day_ms, day.watched_ms, day.events) for day in found.days] == [
        (0, 23 * HOUR_MS, 1),
        (DAY_MS, HOUR_MS + 1, 2),
    ]
    assert found.paths[0].is_watching
