"""The SQL views say what Python says, on both engines, and one client costs seeks."""

from __future__ import annotations

import random
import re
from typing import Any

import sqlalchemy as sa

from queries.history import open_history
from store.engine import open_reader, open_writer, parse_url
from store.model import Learned, Watch
from tests.builders import T0, connect, disconnect, observed, said_connected
from tests.property import test_check_laws as check_laws
from tests.property.test_store_laws import NOW, histories, in_turn, ingest, learned


def rows(url: str, query: str, **values: Any) -> list[tuple[Any, ...]]:
    with open_reader(parse_url(url)) as store, store.reading() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query), values)]


def in_python(url: str) -> list[tuple[Any, ...]]:
    found = []
    with open_history(url, clock=lambda: NOW) as history:
        for one in history.all_periods(by_client=True):
            seen, certainty = one.period.seen, one.period.certainty.value
            known = certainty != "unknown"
            state = {True: "connected", False: "disconnected", None: "unknown"}[seen.state.connected]
            found.append(
                (
                    one.client_id,
                    one.period.from_ms,
                    one.period.to_ms,
                    state if known else "unknown",
                    seen.timestamp_ms if known else None,
                    seen.reason if known else None,
                    certainty,
                    state if not known and state != "unknown" else None,
                    seen.timestamp_ms if not known else None,
                    seen.reason if not known else None,
                )
            )
    return sorted(found, key=repr)


PERIODS = "SELECT client_id, from_ms, to_ms, state, timestamp_ms, disconnect_reason, certainty,"
PERIODS += " last_known_state, last_known_timestamp_ms, last_known_reason FROM periods"


def test_periods_are_those_of_python(store_url: str, rng: random.Random) -> None:
    ingest(store_url, [learned(in_turn(rng, histories(rng, 120)))])
    assert sorted(rows(store_url, PERIODS), key=repr) == in_python(store_url)


def test_periods_show_what_checks_prove(store_url: str, rng: random.Random) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 100))
    counts = check_laws.ingest(store_url, [check_laws.learned(told, range(NOW - len(told), NOW))])
    assert counts.repeated > 50
    found = sorted(rows(store_url, PERIODS), key=repr)
    assert found == in_python(store_url)
    query = "SELECT count(*) FROM stretches WHERE confirmed_ms IS NOT NULL AND confirmed_until_ms < end_ms"
    assert rows(store_url, query) > [(30,)]  # stretches of which checks prove a part


def test_periods_of_a_window_tile_it_where_checks_prove_a_part(store_url: str) -> None:
    """What a check proves before the end of a window is listed once, whatever follows the window."""
    minute = 60_000
    checked = observed(said_connected(T0 + 10 * minute, T0))
    told = [
        Learned(connect(T0), 0),
        Learned(checked, 1),
        Learned(disconnect(T0 + 60 * minute), 2),
    ]
    ingest(store_url, [told])
    with open_history(store_url, clock=lambda: NOW) as history:
        for to_ms in (T0 + 5 * minute, T0 + 30 * minute, T0 + 90 * minute):
            found = [one.period for one in history.periods("pump-17", to=to_ms)]
            edges = [found[0].from_ms, *(period.to_ms for period in found)]
            assert edges == [*(period.from_ms for period in found), to_ms]


def test_periods_know_when_nobody_was_watching(store_url: str, rng: random.Random) -> None:
    watches = [
        Learned(Watch("sqs", T0 + start * 60_000, T0 + (start + length) * 60_000), 0)
        for start, length in ((0, 2), (1, 3), (10, 10), (20, 5), (500, 4_000), (9_000, 20_000))
    ]
    ingest(store_url, [[*learned(in_turn(rng, histories(rng, 120))), *watches]])
    found = sorted(rows(store_url, PERIODS), key=repr)
    assert found == in_python(store_url)
    assert {"observed", "inferred", "unknown"} <= {row[6] for row in found}


def test_the_periods_between_two_instants_are_those_that_overlap_them(
    postgres_store_url: str, rng: random.Random
) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 60))
    watches = [Learned(Watch("sqs", T0 + a * 60_000, T0 + b * 60_000), 0) for a, b in ((0, 90), (500, 4_500))]
    ingest(postgres_store_url, [[*check_laws.learned(told, range(NOW - len(told), NOW)), *watches]])
    told_as = "to_timestamp(0.001 * CAST(:low AS bigint)), to_timestamp(0.001 * CAST(:high AS bigint))"
    between = f"SELECT * FROM periods_between({told_as})"  # noqa: S608
    overlapping = "SELECT * FROM periods WHERE from_ms < :high AND (to_ms IS NULL OR to_ms > :low)"
    edges = [each for row in rows(postgres_store_url, "SELECT from_ms, to_ms FROM periods") for each in row]
    met = 0
    for _ in range(40):
        low = rng.choice([each for each in edges if each is not None]) + rng.randint(-1, 1)
        window = {"low": low, "high": low + rng.choice((0, 1, 60_000, 90_000_000))}
        found = rows(postgres_store_url, between, **window)
        assert sorted(found, key=repr) == sorted(rows(postgres_store_url, overlapping, **window), key=repr)
        met += len(found)
    assert met > 100


def test_outages_are_the_runs_of_disconnected_periods(store_url: str, rng: random.Random) -> None:
    ingest(store_url, [learned(in_turn(rng, histories(rng, 120)))])
    runs: list[list[Any]] = []
    for client_id, from_ms, to_ms, state, *_ in sorted(
        in_python(store_url), key=lambda row: (row[0], row[1])
    ):
        if state != "disconnected":
            continue
        if runs and runs[-1][0] == client_id and runs[-1][2] == from_ms:
            runs[-1][2] = to_ms
        else:
            runs.append([client_id, from_ms, to_ms])
    found = rows(store_url, "SELECT client_id, from_ms, to_ms FROM outages ORDER BY client_id, from_ms")
    assert sorted(found) == sorted(tuple(run) for run in runs)


def test_the_current_status_is_the_last_period(store_url: str, rng: random.Random) -> None:
    ingest(store_url, [learned(in_turn(rng, histories(rng, 120)))])
    last = {row[0]: row[3] for row in in_python(store_url) if row[2] is None}
    assert dict(rows(store_url, "SELECT client_id, state FROM current_status")) == last


def test_sessions_and_times_are_readable(sqlite_store_url: str, postgres_store_url: str) -> None:
    for url in (sqlite_store_url, postgres_store_url):
        with open("docs/sample.ndjson", "rb") as sample:
            from ingest.decode import decode_stream

            batch = [one for one in decode_stream(sample, now=lambda: NOW) if isinstance(one, Learned)]
        ingest(url, [batch])
        query = "SELECT session_identifier, connect_ms FROM sessions WHERE client_id = 'pump-17' ORDER BY 2"
        assert rows(url, query)[0][0] == "00000001-0000-4000-8000-000000000000"
    times = "SELECT at_time FROM timeline WHERE client_id = 'pump-17' ORDER BY at_ms"
    assert rows(sqlite_store_url, times)[0] == ("2026-10-31T22:10:04.120Z",)
    assert rows(postgres_store_url, times)[0][0].isoformat() == "2026-10-31T22:10:04.120000+00:00"


def many_checks(url: str) -> None:
    """Fill the tables as in a large store, or PostgreSQL would rather read them whole."""
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) SELECT"
    with open_writer(parse_url(url)) as store, store.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO confirmations (client_no, at_ms, seq, recorded_at, until_ms)"
                f" {numbers} 100000 + i, 1, 0, 1, 2 FROM n"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO sweeps (block_no, known_at, asked_ms, source_no, first_slot, slots)"  # noqa: S608
                f" {numbers} 1000 + i, 1, 0, 1, 0, (SELECT min(session) FROM session_rows) FROM n"
            )
        )


def test_one_client_costs_seeks(store_url: str, rng: random.Random) -> None:
    ingest(store_url, [learned(in_turn(rng, histories(rng, 2_000)))])
    many_checks(store_url)
    for view in ("timeline", "periods", "outages", "current_status", "sessions"):
        query = f"SELECT * FROM {view} WHERE client_id = 'client-7'"  # noqa: S608
        if store_url.startswith("sqlite"):
            plan = [row[3] for row in rows(store_url, f"EXPLAIN QUERY PLAN {query}")]
            scans = [step for step in plan if step.startswith("SCAN") and _is_big(step.split()[1])]
            assert scans == [], (view, plan)
        else:
            with open_reader(parse_url(store_url)) as store, store.engine.connect() as connection:
                connection.execute(sa.text("ANALYZE"))
                plan = [row[0] for row in connection.execute(sa.text(f"EXPLAIN {query}"))]
            assert not [step for step in plan if "Seq Scan on transitions" in step], (view, plan)
            assert not [step for step in plan if "Seq Scan on session_rows" in step], (view, plan)
            assert not [step for step in plan if "Seq Scan on confirmations" in step], (view, plan)
            assert not [step for step in plan if "Seq Scan on sweeps" in step], (view, plan)


def test_an_instant_costs_seeks_whatever_is_behind_it(store_url: str, rng: random.Random) -> None:
    """Of SQLite where the realm is named, or its planner knows of no single client; of PostgreSQL by its functions."""
    is_sqlite = store_url.startswith("sqlite")
    ingest(store_url, [learned(in_turn(rng, histories(rng, 5 if is_sqlite else 2_000)))])
    if is_sqlite:
        query = "SELECT * FROM timeline WHERE realm = 'default' AND client_id = 'client-7' AND at_ms <= 1790000000000"
        ordered = f"EXPLAIN QUERY PLAN {query} ORDER BY at_ms DESC, seq DESC LIMIT 1"
        plan = [row[3] for row in rows(store_url, ordered)]
        assert any(step.endswith("PRIMARY KEY (client_no=? AND at_ms<?)") for step in plan), plan
        assert not [step for step in plan if "ORDER BY" in step], plan
        return
    with open_reader(parse_url(store_url)) as store, store.engine.connect() as connection:
        connection.execute(sa.text("ANALYZE"))
        bound = r"Index Cond: \(\(client_no = \w+.client_no\) AND \(at_ms >= .*\) AND \(at_ms < \w+.to_ms\)\)"
        for function in ("connectivity_at(now())", "uptime(now(), now())", "periods_between(now(), now())"):
            for asked in (f"{function} WHERE client_id = 'client-7'", function):  # of the whole fleet as well
                query = f"EXPLAIN SELECT * FROM {asked}"  # noqa: S608
                plan = [row[0] for row in connection.execute(sa.text(query))]
                told = [step for step in plan if "Scan on transitions" in step or "Function Scan" in step]
                assert told == [], plan
                assert any(re.search(bound, step) for step in plan), plan


def _is_big(name: str) -> bool:
    return name in {
        "t",
        "n",
        "f",
        "o",
        "l",
        "s",
        "b",
        "c",
        "transitions",
        "session_rows",
        "clients",
        "evidence",
        "confirmations",
        "sweeps",
        "w",
    }
