"""The mirror beside the store's own view, and beside DuckDB's sum over the bare columns; a refresh beside a build."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from store.engine import open_reader, parse_url
from store.mirror import mirror_path, refresh
from store.mirror_schema import CUT_MS
from store.model import HOUR_MS
from tests.bench.test_backfill import backfilled
from tests.bench.test_ingest import lines, ours, timed
from tests.builders import T0
from tests.conftest import new_database

pytestmark = pytest.mark.bench

EVENTS = int(os.environ.get("THINGLINE_BENCH_EVENTS", "500000"))
DEVICES = 10_000
NEW, CORRECTED = 100_000, 1_000
ROUNDS = 3

FROM_MS, TO_MS = T0, T0 + 30 * 24 * HOUR_MS
SUM = (
    "SELECT client_id, sum({least}(coalesce(to_ms, {to}), {to}) - {greatest}(from_ms, {since})) FROM periods"
    " WHERE state = 'connected' AND from_ms < {to} AND (to_ms IS NULL OR to_ms > {since}) GROUP BY client_id"
)
BARE = (
    "SELECT client_no, sum(least(to_ms, {to}) - greatest(from_ms, {since})) FROM kept.stretches"
    " WHERE cut = from_ms // {length} AND state = 1 AND from_ms < {to} AND to_ms > {since} GROUP BY client_no"
)


def taken(do: Callable[[], object]) -> float:
    def run() -> None:
        do()

    return timed(run)


def measured(ask: Callable[[], list[Any]]) -> tuple[float, list[tuple[Any, ...]]]:
    found: list[Any] = []
    times = []
    for _ in range(ROUNDS):
        found.clear()
        times.append(taken(lambda: found.extend(ask())))
    return statistics.median(times), sorted((row[0], int(row[1])) for row in found)


def beside_the_view(url: str) -> None:
    data = lines(random.Random(1), EVENTS, DEVICES)
    backfilled(url, data)
    told: dict[str, Any] = {"since": FROM_MS, "to": TO_MS}
    named = {**told, "least": "least", "greatest": "greatest"}
    with open_reader(parse_url(url)) as store:
        path = mirror_path(store.url)
        build_s = taken(lambda: refresh(store, path))
        # A back-filling is learned at one moment, and what is learned last is read once more.
        ours(url, lines(random.Random(2), 10, DEVICES))
        refresh(store, path)
        with store.reading() as connection:
            ((last_ms,),) = connection.execute(sa.text("SELECT max(at_ms) FROM transitions"))
        idle_s = taken(lambda: refresh(store, path))
        ours(url, lines(random.Random(3), NEW, DEVICES, begins_ms=last_ms + 1))
        ours(url, lines(random.Random(4), CORRECTED, DEVICES))
        refresh_s = taken(lambda: refresh(store, path))
        ours(url, lines(random.Random(5), 10, DEVICES))
        few_s = taken(lambda: refresh(store, path))
    with open_reader(parse_url(url)) as store:
        words = {**told, "least": "min", "greatest": "max"} if store.is_sqlite else named
        with store.reading() as connection:
            view_s, wanted = measured(lambda: list(connection.execute(sa.text(SUM.format(**words)))))
    with duckdb.connect(str(path), read_only=True) as mirror:
        mirror_s, found = measured(lambda: mirror.execute(SUM.format(**named)).fetchall())
        bare_s, bare = measured(lambda: mirror.execute(BARE.format(**told, length=CUT_MS)).fetchall())
        macro = f"SELECT * FROM uptime(make_timestamptz({FROM_MS}000), make_timestamptz({TO_MS}000))"  # noqa: S608
        uptime_s = statistics.median(taken(lambda: mirror.execute(macro).fetchall()) for _ in range(ROUNDS))
        ((rows,),) = mirror.execute("SELECT count(*) FROM timeline").fetchall()
    assert found == wanted
    assert sum(row[1] for row in bare) == sum(row[1] for row in found)
    print(f"\n{rows:,} transitions, {DEVICES:,} devices; medians of {ROUNDS}")
    print(
        f"  build {build_s:.2f} s ({rows / build_s:,.0f} rows/s); refresh after {NEW:,} new and {CORRECTED:,} late"
        f" events {refresh_s:.2f} s ({refresh_s / build_s:.2f} x), after 10 {few_s:.2f} s, after none {idle_s:.2f} s"
    )
    print(f"  connected time of each in a month: view of the store {view_s / mirror_s:,.0f} x the mirror's")
    print(
        f"  ... the mirror's {mirror_s / bare_s:.1f} x, uptime() {uptime_s / bare_s:.1f} x the bare columns"
    )
    assert refresh_s < build_s
    assert mirror_s < view_s / 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_mirror_of_sqlite(tmp_path: Path) -> None:
    beside_the_view(f"sqlite:///{tmp_path / 'store.db'}")


def test_the_mirror_of_postgresql(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        beside_the_view(url)
