"""Live ingest, whole semantics on, beside the naive path and the raw insert; and bytes an event."""

from __future__ import annotations

import itertools
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from ingest.decode import decode_stream
from ingest.files import Batches
from ingest.writer import Writer
from store.engine import open_writer, parse_url
from tests.builders import T0

pytestmark = pytest.mark.bench

EVENTS = 200_000
DEVICES = 10_000
ROUNDS = 3
LARGE = (1_000_000, 100_000, 1)  # of a fleet whose devices are each heard of once a batch
LONG = (3_000_000, 10_000, 1)  # a history whose devices each have pages of their own
NAIVE_BATCH = 5_000


def lines(rng: random.Random, count: int, devices: int, *, begins_ms: int = T0) -> bytes:
    """Write `count` events of a fleet as AWS publishes them, in order of time, sessions of minutes to hours."""
    import heapq

    due = [(begins_ms + rng.randrange(3_600_000), number, False) for number in range(devices)]
    heapq.heapify(due)
    version = [0] * devices
    session = [""] * devices
    principals = [f"{rng.getrandbits(256):064x}" for _ in range(devices)]
    out = []
    for _ in range(count):
        at_ms, number, up = heapq.heappop(due)
        if not up:
            session[number] = f"{rng.getrandbits(128):032x}"
            tail = {"ipAddress": f"198.51.100.{number % 250}", "versionNumber": version[number]}
            kind = "connected"
        else:
            tail = {
                "clientInitiatedDisconnect": False,
                "disconnectReason": "CONNECTION_LOST",
                "versionNumber": version[number],
            }
            kind = "disconnected"
            version[number] += 1
        out.append(
            msgspec.json.encode(
                {
                    "clientId": f"device-{number:06}",
                    "timestamp": at_ms,
                    "eventType": kind,
                    "sessionIdentifier": session[number],
                    "principalIdentifier": principals[number],
                    **tail,
                }
            )
        )
        pause_ms = rng.randrange(1_000, 600_000) if up else rng.randrange(60_000, 7_200_000)
        heapq.heappush(due, (at_ms + pause_ms, number, not up))
    return b"\n".join(out)


def ours(url: str, data: bytes) -> None:
    chunks = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        records = decode_stream(chunks, now=lambda: T0 + 10**12)
        for _ in writer.write_all(Batches(records), source="bench"):
            pass


NAIVE_TABLES = (
    "CREATE TABLE evidence (client TEXT, at BIGINT, kind TEXT, session TEXT, version BIGINT, reason TEXT,"
    " principal TEXT, ip TEXT, UNIQUE (client, session, kind, at))",
    "CREATE INDEX evidence_at ON evidence (at)",
    "CREATE TABLE transitions (client TEXT, at BIGINT, state INT, stamp BIGINT, reason TEXT, PRIMARY KEY (client, at))",
)


def naive_rows(data: bytes) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Decode, and take every event for a transition: latest wins, no sessions, one clock."""
    for line in data.split(b"\n"):
        e = msgspec.json.decode(line)
        evidence = (
            e["clientId"],
            e["timestamp"],
            e["eventType"],
            e["sessionIdentifier"],
            e["versionNumber"],
            e.get("disconnectReason"),
            e["principalIdentifier"],
            e.get("ipAddress"),
        )
        up = e["eventType"] == "connected"
        yield evidence, (e["clientId"], e["timestamp"], int(up), e["timestamp"], e.get("disconnectReason"))


def naive_sqlite(path: Path, data: bytes) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    for statement in NAIVE_TABLES:
        db.execute(statement)
    rows = naive_rows(data)
    while batch := list(itertools.islice(rows, NAIVE_BATCH)):
        db.execute("BEGIN")
        db.executemany(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [b[0] for b in batch]
        )
        db.executemany("INSERT OR IGNORE INTO transitions VALUES (?, ?, ?, ?, ?)", [b[1] for b in batch])
        db.execute("COMMIT")
    db.close()


def naive_postgres(url: str, data: bytes) -> None:
    with psycopg.connect(libpq(url)) as db:
        for statement in NAIVE_TABLES:
            db.execute(statement)
        for table in ("evidence", "transitions"):
            db.execute(f"CREATE TEMP TABLE {table}_in (LIKE {table})")
        db.commit()
        rows = naive_rows(data)
        while batch := list(itertools.islice(rows, NAIVE_BATCH)):
            for index, table in enumerate(("evidence", "transitions")):
                with db.cursor() as cursor:
                    with cursor.copy(f"COPY {table}_in FROM STDIN") as copy:
                        for row in batch:
                            copy.write_row(row[index])
                    cursor.execute(f"INSERT INTO {table} SELECT * FROM {table}_in ON CONFLICT DO NOTHING")  # noqa: S608
                    cursor.execute(f"TRUNCATE {table}_in")
            db.commit()


def raw_sqlite(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert decoded evidence only: unique key and second index, batches of 5,000."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    for statement in NAIVE_TABLES[:2]:
        db.execute(statement)
    for start in range(0, len(rows), NAIVE_BATCH):
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows[start : start + NAIVE_BATCH]
        )
        db.execute("COMMIT")
    db.close()


def raw_postgres(url: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """COPY decoded evidence only: unique key and second index, batches of 5,000."""
    with psycopg.connect(libpq(url)) as db:
        for statement in NAIVE_TABLES[:2]:
            db.execute(statement)
        db.commit()
        for start in range(0, len(rows), NAIVE_BATCH):
            with db.cursor() as cursor, cursor.copy("COPY evidence FROM STDIN") as copy:
                for row in rows[start : start + NAIVE_BATCH]:
                    copy.write_row(row)
            db.commit()


def libpq(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:")


def timed(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def report(
    name: str,
    rates: dict[str, list[float]],
    events: int = EVENTS,
    devices: int = DEVICES,
    rounds: int = ROUNDS,
) -> None:
    print(f"\n{name}: {events:,} events, {devices:,} devices, rounds in turn: {rounds}, medians")
    naive = statistics.median(rates["naive"])
    for path, found in rates.items():
        middle = statistics.median(found)
        print(
            f"  {path:<8} {middle:>10,.0f} events/s   {middle / naive:5.2f} x naive"
            f"   ({min(found):,.0f} .. {max(found):,.0f})"
        )


@pytest.mark.parametrize(("events", "devices", "rounds"), [(EVENTS, DEVICES, ROUNDS), LARGE, LONG])
def test_live_ingest_into_sqlite(tmp_path: Path, events: int, devices: int, rounds: int) -> None:
    data = lines(random.Random(1), events, devices)
    decoded = [row[0] for row in naive_rows(data)]
    rates: dict[str, list[float]] = {"raw": [], "naive": [], "ours": []}
    for turn in range(rounds):
        runs: dict[str, Callable[[], None]] = {
            "raw": lambda: raw_sqlite(tmp_path / f"raw{turn}.db", decoded),  # noqa: B023 - run at once
            "naive": lambda: naive_sqlite(tmp_path / f"naive{turn}.db", data),  # noqa: B023
            "ours": lambda: ours(f"sqlite:///{tmp_path}/ours{turn}.db", data),  # noqa: B023
        }
        for name, run in runs.items():
            rates[name].append(events / timed(run))
    report("SQLite", rates, events, devices, rounds)
    with sqlite3.connect(tmp_path / "ours0.db") as db, sqlite3.connect(tmp_path / "naive0.db") as naive:
        (stored,) = db.execute("SELECT count(*) FROM evidence").fetchone()
        (transitions,) = db.execute("SELECT count(*) FROM transitions").fetchone()
        assert (stored, transitions) == (events, events)
        assert naive.execute("SELECT count(*) FROM transitions").fetchone() == (events,)
    size = (tmp_path / "ours0.db").stat().st_size
    print(
        f"  bytes an event, everything counted: {size / events:.0f}"
        f" (naive {(tmp_path / 'naive0.db').stat().st_size / events:.0f})"
    )
    with sqlite3.connect(tmp_path / "ours0.db") as db:
        for name, used in db.execute(
            "SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 8"
        ):
            print(f"    {name:<32} {used / events:6.1f}")


@pytest.mark.parametrize(("events", "devices", "rounds"), [(EVENTS, DEVICES, ROUNDS), LARGE, LONG])
def test_live_ingest_into_postgresql(postgres_url: str, events: int, devices: int, rounds: int) -> None:
    data = lines(random.Random(1), events, devices)
    decoded = [row[0] for row in naive_rows(data)]
    rates: dict[str, list[float]] = {"raw": [], "naive": [], "ours": []}
    runs: dict[str, Callable[[str], None]] = {
        "raw": lambda url: raw_postgres(url, decoded),
        "naive": lambda url: naive_postgres(url, data),
        "ours": lambda url: ours(url, data),
    }
    admin = libpq(postgres_url)
    for turn in range(rounds):
        for name, run in runs.items():
            database = f"bench_{name}_{events}_{devices}_{turn}"
            with psycopg.connect(admin, autocommit=True) as db:
                db.execute(f"CREATE DATABASE {database}")
            url = str(parse_url(postgres_url).set(database=database).render_as_string(hide_password=False))
            rates[name].append(events / timed(lambda: run(url)))  # noqa: B023 - run at once
            with psycopg.connect(libpq(url)) as db:
                table = "evidence" if name == "raw" else "transitions"
                row = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
                assert row == (events,)
            with psycopg.connect(admin, autocommit=True) as db:
                db.execute(f"DROP DATABASE {database}")
    report("PostgreSQL (fsync off)", rates, events, devices, rounds)
