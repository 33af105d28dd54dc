"""Questions about the whole fleet, asked of the mirror and of what would be used instead, on the same stretches.

A heavy-tailed fleet: half of its transitions are those of a few things, and many things are silent for months. The
mirror is filled directly, so that its size is a parameter: THINGLINE_BENCH_TRANSITIONS (10,000,000; of the rivals,
polars and chdb read Parquet, which is left out above 20 million). Needs the extra `bench`. Asserts answers, no times.
"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from queries.times import iso
from store import columnar
from store.mirror_schema import EVER_MS, NAMES, listing
from store.mirror_sums import put_in, stale, taken_out
from store.model import HOUR_MS
from tests.bench.test_ingest import libpq, timed
from tests.builders import T0

pytestmark = pytest.mark.bench

TRANSITIONS = int(os.environ.get("THINGLINE_BENCH_TRANSITIONS", "10000000"))
THINGS = 10_000
DAY_MS = 24 * HOUR_MS
ROUNDS = 5
MEMORY = "1GB"  # of those who ask, as `thingline sql` gives; of those who build, 8 GB

# Of the things, one in a hundred makes half of the transitions, and one in five a handful.
FLEET = f"""
    CREATE TABLE fleet AS SELECT i AS client_no, 'thing-' || i AS name,
        greatest(2, CAST({{transitions}} / 2 / CASE WHEN i % 100 = 0 THEN {THINGS // 100}
            WHEN i % 5 = 0 THEN {THINGS * 1000} ELSE {THINGS} * 0.79 END AS BIGINT)) AS many
    FROM range(1, {THINGS} + 1) r(i)
"""
STRETCHES = """
    CREATE TABLE plain AS
    WITH steps AS (SELECT client_no, many, {span} // many AS step_ms FROM fleet),
    turns AS (
        SELECT client_no, many, k, {begins} + k * step_ms + hash(client_no * 1000003 + k) % step_ms AS from_ms,
            {begins} + (k + 1) * step_ms + hash(client_no * 1000003 + k + 1) % step_ms AS next_ms
        FROM steps, unnest(range(0, many)) u(k)
    )
    SELECT CAST(client_no AS INTEGER) AS client_no, CAST(from_ms AS BIGINT) AS from_ms,
        CASE WHEN k = many - 1 THEN {ever} ELSE CAST(next_ms AS BIGINT) END AS to_ms,
        CAST((k + client_no) % 2 AS TINYINT) AS state
    FROM turns ORDER BY {order}
"""
FILL = """
    INSERT INTO kept.stretches BY NAME
    SELECT client_no, from_ms AS at_ms, from_ms, to_ms, state,
        CAST(1 + (client_no + from_ms) % 2 AS TINYINT) AS certainty, from_ms AS timestamp_ms,
        CASE WHEN state = 0 THEN 1 END AS reason_no, from_ms AS not_before_ms, from_ms AS not_after_ms, {listing}
    FROM made.plain ORDER BY cut, from_ms, client_no
"""


def mirror_of(made: Path, path: Path, begins_ms: int, known_at: int) -> None:
    """Build a mirror of the stretches in another file."""
    folder = path.with_suffix(".rows")
    folder.mkdir()
    columnar.load(path, folder, known_at=known_at, held_at=None)
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"SET memory_limit = '8GB'; ATTACH '{made}' AS made (READ_ONLY)")
        connection.execute("INSERT INTO kept.clients SELECT client_no, 'default', name FROM made.fleet")
        connection.execute(
            "INSERT INTO kept.speakers SELECT 'default', name, name, client_no,"
            f" {-EVER_MS}, {EVER_MS}, client_no FROM made.fleet"
        )
        connection.execute(f"INSERT INTO kept.watching VALUES ({-EVER_MS}, {EVER_MS}, 1)")
        connection.execute(stale({"speakers": "kept.speakers"}, None, known_at))
        connection.execute(taken_out(-EVER_MS))
        connection.execute(FILL.format(listing=listing(known_at)))
        connection.execute("INSERT INTO kept.reasons VALUES (1, 'CONNECTION_LOST')")
        mark = dict.fromkeys(NAMES["mark"]) | {
            "format": 0,
            "known_at": known_at,
            "horizon_ms": -EVER_MS,
            "begins_ms": begins_ms,
        }
        marks = ", ".join("?" * len(mark))
        connection.execute(f"INSERT INTO kept.mark VALUES ({marks})", list(mark.values()))
        for statement in put_in(-EVER_MS, known_at):
            connection.execute(statement)
        connection.execute("CHECKPOINT")


def build(
    folder: Path, transitions: int, days: int, *, order: str = "client_no, from_ms"
) -> tuple[Path, Path]:
    """Make up a fleet's stretches over so many days, and their mirror; gives the files of both."""
    made, path = folder / f"plain{days}.duckdb", folder / f"mirror{days}.duckdb"
    with duckdb.connect(str(made)) as connection:
        connection.execute("SET memory_limit = '8GB'")
        connection.execute(FLEET.format(transitions=transitions))
        span = days * DAY_MS
        connection.execute(STRETCHES.format(span=span, begins=T0, ever=EVER_MS, order=order))
        connection.execute("CHECKPOINT")
    mirror_of(made, path, T0, T0 + days * DAY_MS)
    return made, path


Rows = list[tuple[Any, ...]]


def median_s(ask: Callable[[], Rows], rounds: int = ROUNDS) -> tuple[float, Rows]:
    found: Rows = []

    def run() -> None:
        found[:] = ask()

    took = [timed(run) for _ in range(rounds)]
    return statistics.median(took), sorted(
        tuple(int(v) if v is not None else v for v in row) for row in found
    )


# A question in words of ours, and as it would be put to bare stretches, in SQL that all of the rivals understand.
def uptime(low: int, high: int) -> tuple[str, str]:
    return (
        "SELECT CAST(substr(client_id, 7) AS BIGINT), connected_ms FROM"
        f" uptime('{iso(low)}', '{iso(high)}') WHERE connected_ms > 0",
        f"SELECT client_no, sum(least(to_ms, {high}) - greatest(from_ms, {low})) FROM plain"
        f" WHERE state = 1 AND from_ms < {high} AND to_ms > {low} GROUP BY client_no",
    )


def snapshot(at: int) -> tuple[str, str]:
    return (
        f"SELECT CASE state WHEN 'connected' THEN 1 ELSE 0 END, count(*) FROM connectivity_at('{iso(at)}') GROUP BY 1",
        f"SELECT state, count(*) FROM plain WHERE from_ms <= {at} AND to_ms > {at} GROUP BY state",
    )


def changes(first: int, second: int) -> tuple[str, str]:
    return (
        "SELECT CASE state_after WHEN 'connected' THEN 1 ELSE 0 END, count(*) FROM"
        f" changes('{iso(first)}', '{iso(second)}') WHERE state_before <> state_after GROUP BY 1",
        f"SELECT b.state, count(*) FROM plain a JOIN plain b ON a.client_no = b.client_no"
        f" WHERE a.from_ms <= {first} AND a.to_ms > {first} AND b.from_ms <= {second} AND b.to_ms > {second}"
        " AND a.state <> b.state GROUP BY b.state",
    )


def series(low: int, high: int, bucket: int) -> tuple[str, str]:
    return (
        f"SELECT from_ms, connected FROM series('{iso(low)}', '{iso(high)}', {bucket})",
        "SELECT g.at, count(p.client_no) FROM buckets g"
        " LEFT JOIN plain p ON p.from_ms <= g.at AND p.to_ms > g.at AND p.state = 1 GROUP BY g.at",
    )


def questions(end: int) -> dict[str, tuple[str, str]]:
    low, high = end - 40 * DAY_MS, end - 10 * DAY_MS
    return {
        "uptime, 30 days": uptime(low, high),
        "uptime, 30 days that begin at 05:45": uptime(low + 23 * HOUR_MS // 4, high + 23 * HOUR_MS // 4),
        "snapshot": snapshot(high),
        "changes": changes(high - DAY_MS, high),
        "series, 30 days by 5 min": series(low, high, 300_000),
    }


def beside(
    path: Path, made: Path, end: int, rivals: Callable[[Any], dict[str, Callable[[str], Rows]]]
) -> None:
    """Ask a mirror, and its rivals on the same stretches; print what each took."""
    buckets = (
        f"CREATE OR REPLACE TEMP TABLE buckets AS SELECT {end - 40 * DAY_MS} + 300000 * i AS at"
        " FROM range(0, 30 * 288) r(i)"
    )
    with (
        duckdb.connect(str(path), read_only=True) as mirror,
        duckdb.connect(str(made), read_only=True) as plain,
    ):
        for connection in (mirror, plain):
            connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{MEMORY}'")
        plain.execute(buckets)
        asks: dict[str, Callable[[str], Rows]] = {"DuckDB, bare": lambda sql: plain.execute(sql).fetchall()}
        asks |= rivals(plain)
        for name, (ours, bare) in questions(end).items():
            mine, wanted = median_s(lambda: mirror.execute(ours).fetchall())  # noqa: B023
            told = [f"{name}: {mine * 1e3:.1f} ms"]
            for rival, ask in asks.items():
                joins = "buckets" in bare
                if joins and rival != "DuckDB, bare":
                    continue  # the range join takes minutes elsewhere
                took, found = median_s(lambda: ask(bare), 1 if joins or rival == "PostgreSQL" else 3)  # noqa: B023
                assert found == wanted, (name, rival)
                told.append(f"{rival} {took / mine:.2f} x")
            print("  " + ", ".join(told))


def test_a_fleet_is_asked(tmp_path: Path, postgres_url: str) -> None:
    days = 90
    print(
        f"\n{TRANSITIONS:,} transitions, {THINGS:,} things, {days} days; medians of {ROUNDS}, each x the mirror's"
    )
    made, path = build(tmp_path, TRANSITIONS, days)

    with psycopg.connect(libpq(postgres_url), autocommit=True) as postgres:

        def rivals(plain: duckdb.DuckDBPyConnection) -> dict[str, Callable[[str], Rows]]:
            if TRANSITIONS > 20_000_000:
                return {}
            parquet = tmp_path / "plain.parquet"
            plain.execute(f"COPY plain TO '{parquet}' (FORMAT parquet)")
            return others(parquet) | {"PostgreSQL": in_postgres(postgres, plain)}

        beside(path, made, (T0 + days * DAY_MS) // DAY_MS * DAY_MS, rivals)


def test_a_hundred_million_transitions_are_asked(tmp_path: Path) -> None:
    """Ten times as many behind the same window; the mirror alone, beside DuckDB's scans. 20 GB of disk."""
    days, transitions = 900, 100_000_000
    made, path = build(tmp_path, transitions, days)
    print(
        f"\n{transitions:,} transitions, {THINGS:,} things, {days} days, {path.stat().st_size / 1e9:.2f} GB;"
        f" asked with {MEMORY} of memory; medians of {ROUNDS}, each x the mirror's"
    )
    beside(path, made, (T0 + days * DAY_MS) // DAY_MS * DAY_MS, lambda _: {})


def others(parquet: Path) -> dict[str, Callable[[str], Rows]]:
    chdb, polars = map(
        importlib.import_module, ("chdb", "polars")
    )  # of the extra `bench`, which may not be there
    frame = polars.read_parquet(parquet)
    context = polars.SQLContext(plain=frame)

    def by_polars(sql: str) -> Rows:
        found: Rows = context.execute(sql, eager=True).rows()
        return found

    def by_chdb(sql: str) -> Rows:
        told = chdb.query(sql.replace("plain", f"file('{parquet}', Parquet)"), "CSV").bytes().decode()
        return [tuple(int(each) for each in line.split(",")) for line in told.splitlines()]

    return {"polars, in memory": by_polars, "chdb, Parquet": by_chdb}


def in_postgres(postgres: psycopg.Connection[Any], plain: duckdb.DuckDBPyConnection) -> Callable[[str], Rows]:
    postgres.execute(
        "CREATE UNLOGGED TABLE plain (client_no int, from_ms bigint, to_ms bigint, state smallint)"
    )
    with postgres.cursor() as cursor, cursor.copy("COPY plain FROM STDIN") as copy:
        result = plain.execute("FROM plain")
        while rows := result.fetchmany(100_000):
            for row in rows:
                copy.write_row(row)
    postgres.execute("CREATE INDEX ON plain (client_no, from_ms) INCLUDE (to_ms, state)")
    postgres.execute("VACUUM ANALYZE plain")
    return lambda sql: postgres.execute(sql).fetchall()


@pytest.mark.parametrize("months", [1, 12, 60])
def test_yesterdays_uptime_costs_the_same_in_year_five(tmp_path: Path, months: int) -> None:
    """A month of so many transitions, again and again."""
    a_month = TRANSITIONS // 60
    _, path = build(tmp_path, a_month * months, 30 * months)
    high = (T0 + 30 * months * DAY_MS) // DAY_MS * DAY_MS
    ours, _ = uptime(high - DAY_MS, high)
    with duckdb.connect(str(path), read_only=True) as mirror:
        mirror.execute("SET TimeZone = 'UTC'")
        day_s, found = median_s(lambda: mirror.execute(ours).fetchall(), 9)
        snap_s, _ = median_s(lambda: mirror.execute(snapshot(high - DAY_MS)[0]).fetchall(), 9)
    assert found
    print(
        f"\n{months} months behind it, {a_month * months:,} transitions: yesterday's uptime {day_s * 1e3:.1f} ms,"
        f" snapshot {snap_s * 1e3:.1f} ms"
    )
