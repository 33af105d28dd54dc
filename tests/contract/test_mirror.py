"""The columnar mirror says what Python and the store's views say, on both engines, however it was refreshed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from ingest.annotate import Said, annotate, withdraw
from ingest.forget import forget
from ingest.purge import purge
from ingest.writer import Writer
from queries.history import open_history
from queries.output import period_json
from queries.series import Series
from queries.times import iso
from queries.uptime import Policy, account, reckon, stretches_of
from store.annotations import Note, Scope
from store.engine import open_beside, open_reader, open_writer, parse_url
from store.errors import IndexNotReady, StoreUnreachable
from store.mirror import Mirrored, drop_mirror, mirror_path, refresh
from store.mirror_schema import CUT_MS
from store.model import HOUR_MS, MINUTE_MS, Event, Learned, Watch
from tests.builders import T0, connect, disconnect
from tests.contract.test_views import rows
from tests.property import test_check_laws as check_laws
from tests.property.test_store_laws import NOW, cut

DAY_MS = 24 * HOUR_MS

VIEWS = ("timeline", "sessions", "outages", "current_status", "watching")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refreshed(url: str) -> Mirrored:
    with open_reader(parse_url(url)) as store:
        return refresh(store, mirror_path(store.url))


def asked(mirror: Mirrored, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(mirror.path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query, list(values)).fetchall()


def write(url: str, items: Sequence[Learned], *, now: int = NOW) -> None:
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: now) as writer:
        writer.write(items, source="test")


def periods_of_python(url: str) -> list[tuple[Any, ...]]:
    found = []
    with open_history(url, clock=lambda: NOW) as history:
        for one in history.all_periods():
            said = period_json(one)
            last = said.get("lastKnown", {})
            found.append(
                (
                    said["thingName"],
                    said["clientId"],
                    said["from"],
                    said["to"],
                    said["connected"],
                    said["timestamp"],
                    said["disconnectReason"],
                    said["certainty"],
                    said["notBefore"],
                    said["notAfter"],
                    last.get("connected"),
                    last.get("timestamp"),
                    last.get("disconnectReason"),
                )
            )
    return sorted(found, key=repr)


def periods_of(mirror: Mirrored) -> list[tuple[Any, ...]]:
    states = {"connected": True, "disconnected": False, "unknown": None, None: None}
    found = asked(
        mirror,
        "SELECT thing_name, client_id, from_ms, to_ms, state, timestamp_ms, disconnect_reason, certainty,"
        " not_before_ms, not_after_ms, last_known_state, last_known_timestamp_ms, last_known_reason FROM periods",
    )

    def time(ms: int | None) -> str | None:
        return None if ms is None else iso(ms)

    return sorted(
        (
            (
                *row[:2],
                *map(time, row[2:4]),
                states[row[4]],
                time(row[5]),
                *row[6:8],
                *map(time, row[8:10]),
                states[row[10]],
                time(row[11]),
                row[12],
            )
            for row in found
        ),
        key=repr,
    )


def assert_as_the_store(url: str, mirror: Mirrored) -> None:
    """Compare with Python, with the views of the store, and with a mirror that is built anew."""
    assert periods_of(mirror) == periods_of_python(url)
    for view in VIEWS:
        # On PostgreSQL real timestamps too; SQLite's are text.
        names = [
            row[0]
            for row in asked(mirror, f"DESCRIBE {view}")
            if not row[0].endswith(("_time", "_timestamp"))
        ]
        query = f"SELECT {', '.join(names)} FROM {view}"
        assert sorted(asked(mirror, query), key=repr) == sorted(rows(url, query), key=repr), view
    path = mirror.path.with_name("anew.duckdb")
    with open_reader(parse_url(url)) as store:
        anew = refresh(store, path)
    assert anew.built
    for table in ("timeline", "stretches", "sessions", "speakers", "unsettled", "days"):
        query = f"SELECT * FROM kept.{table} ORDER BY ALL"
        assert asked(mirror, query) == asked(anew, query), table
    turns = f"SELECT minute, {TURNS} FROM kept.turns GROUP BY 1 HAVING (sum(up), sum(down), sum(unclear)) <> (0, 0, 0)"
    assert asked(mirror, f"{turns} ORDER BY 1") == asked(anew, f"{turns} ORDER BY 1")
    path.unlink()


def watches(*spans: tuple[int, int]) -> list[Learned]:
    return [Learned(Watch("sqs", T0 + at * 60_000, T0 + (at + length) * 60_000), 0) for at, length in spans]


def test_it_says_what_the_store_says_after_every_refresh(store_url: str, rng: random.Random) -> None:
    """Late events, corrections, checks, sweeps, things that change their clients, and hours when nobody listened."""
    told = check_laws.in_turn(rng, check_laws.histories(rng, 25))
    items = check_laws.learned(told, range(NOW - len(told), NOW))
    most = len(items) * 9 // 10
    batches = [items[:most], *cut(rng, items[most:], len(items) // 20)][:3]
    batches.append([*watches((0, 2), (1, 3), (10, 10), (20, 5), (500, 4_000))])
    built = []
    for batch in batches:
        check_laws.ingest(store_url, [batch])
        mirror = refreshed(store_url)
        built.append(mirror.built)
        assert periods_of(mirror) == periods_of_python(store_url)
    assert_as_the_store(store_url, mirror)
    assert built == [True] + [False] * (len(batches) - 1)
    assert refreshed(store_url) == Mirrored(mirror.path, mirror.known_at, built=False, clients=0)
    assert {row[7] for row in periods_of(mirror)} == {"observed", "inferred", "unknown"}


def test_a_refresh_reads_the_clients_that_changed(store_url: str) -> None:
    events = [connect(T0 + no, session=f"s{no}", version=0, client_id=f"c{no}") for no in range(50)]
    write(store_url, [Learned(event, 0) for event in events], now=NOW - 9)
    assert refreshed(store_url).clients == 50
    write(
        store_url, [Learned(disconnect(T0 + 9_000, session="s7", version=0, client_id="c7"), 0)], now=NOW - 8
    )
    refreshed(store_url)  # what was learned at the very watermark is read once more
    write(
        store_url, [Learned(disconnect(T0 + 9_000, session="s9", version=0, client_id="c9"), 0)], now=NOW - 7
    )
    mirror = refreshed(store_url)
    assert (mirror.built, mirror.clients) == (False, 2)
    found = asked(mirror, "SELECT client_id FROM outages ORDER BY 1")
    assert found == [("c7",), ("c9",)]


def test_what_holds_is_carried_into_every_new_cut_of_time(store_url: str) -> None:
    """Months go by between refreshes; one connection holds throughout, another ends in a cut that is past by then."""
    now = T0 + HOUR_MS
    write(store_url, [Learned(connect(T0, session="a", version=0, client_id="a"), 0)], now=now)
    write(store_url, [Learned(connect(T0, session="b", version=0, client_id="b"), 0)], now=now + 1)
    refreshed(store_url)
    later = now + 4 * CUT_MS
    write(store_url, [Learned(connect(later, session="c", version=0, client_id="c"), 0)], now=later)
    mirror = refreshed(store_url)
    assert not mirror.built
    assert_as_the_store(store_url, mirror)
    listed = "SELECT count(*), count(DISTINCT cut) FROM kept.stretches WHERE client_no = ?"
    (of_a,) = asked(mirror, listed, 1)
    assert of_a == (later // CUT_MS - T0 // CUT_MS + 1,) * 2
    ended = T0 + 2 * CUT_MS
    write(store_url, [Learned(disconnect(ended, session="b", version=0, client_id="b"), 0)], now=later + 1)
    mirror = refreshed(store_url)
    assert not mirror.built
    assert_as_the_store(store_url, mirror)
    for from_ms, length_ms in (
        (ended - DAY_MS, 2 * DAY_MS),
        (later - DAY_MS, 3 * DAY_MS),
        (later + CUT_MS, DAY_MS),
    ):
        window = iso(from_ms), iso(from_ms + length_ms)
        found = asked(mirror, "SELECT thing_name, connected_ms FROM uptime(?, ?) ORDER BY 1", *window)
        of_b = max(0, min(length_ms, ended - from_ms))
        of_c = max(0, min(length_ms, from_ms + length_ms - later))
        assert found == [("a", length_ms), ("b", of_b), ("c", of_c)]
        states = asked(mirror, "SELECT thing_name, state FROM connectivity_at(?) ORDER BY 1", window[0])
        assert dict(states).get("b") == ("connected" if from_ms < ended else "disconnected")


def test_uptime_is_that_of_the_accounting(store_url: str, rng: random.Random) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 25))
    check_laws.ingest(store_url, [check_laws.learned(told, range(NOW - len(told), NOW))])
    write(store_url, watches((0, 2), (10, 10), (500, 4_000), (9_000, 20_000)))
    mirror = refreshed(store_url)
    instants = [T0 + rng.randint(-DAY_MS, 40 * DAY_MS) for _ in range(2)] + [T0 - DAY_MS, NOW + 1, NOW + 9]
    midnight = T0 // DAY_MS * DAY_MS
    instants += [
        midnight - 2 * DAY_MS,
        midnight + DAY_MS,
        midnight + 2 * DAY_MS,
        midnight + 3 * DAY_MS + HOUR_MS,
    ]
    for from_ms, to_ms in pairwise(sorted(set(instants))):
        with open_history(store_url, clock=lambda: NOW) as history:
            wanted = []
            for thing in history.uptime((from_ms, to_ms), [Policy()]):
                sums = account(thing.reckoned[0])
                wanted.append(
                    (
                        thing.thing_name,
                        thing.client_id,
                        sums.connected_ms,
                        sums.disconnected_ms,
                        sums.unknown_ms,
                        sums.not_registered_ms,
                        sums.availability,
                        sums.availability_low,
                        sums.availability_high,
                    )
                )
        query = "SELECT * EXCLUDE realm FROM uptime(?, ?)"
        assert sorted(asked(mirror, query, iso(from_ms), iso(to_ms)), key=repr) == sorted(wanted, key=repr)
        bucket_ms = (to_ms - from_ms) // 7 + 1
        if from_ms % MINUTE_MS == 0:
            bucket_ms = (bucket_ms // MINUTE_MS + 1) * MINUTE_MS
        starts = list(range(from_ms, to_ms, bucket_ms))
        series = Series(starts, to_ms)
        with open_history(store_url, clock=lambda: NOW) as history:
            for thing in history.uptime((from_ms, to_ms), [Policy()]):
                series.add(thing.reckoned[0].stretches)
        query = "SELECT from_ms, connected, disconnected, unknown FROM series(?, ?, ?)"
        found = asked(mirror, query, iso(from_ms), iso(to_ms), bucket_ms)
        buckets = [(each.from_ms, each.connected, each.disconnected) for each in series.buckets()]
        assert [row[:3] for row in found] == buckets


TURNS = "coalesce(sum(up), 0), coalesce(sum(down), 0), coalesce(sum(unclear), 0)"
SUMS = "sum(up), sum(down), sum(up_observed), sum(down_observed), min(first_ms)"


def assert_kept_is_what_stretches_add_up_to(mirror: Mirrored, rng: random.Random) -> None:
    """Ask the stretches themselves, over and over: of whole days, and of what stood at the beginnings of minutes."""
    over = (mirror.known_at + 1) // DAY_MS
    days = [
        (T0 // DAY_MS - 9, over),
        *(sorted(rng.sample(range(T0 // DAY_MS - 1, over + 1), 2)) for _ in range(2)),
    ]
    for first, last in days:
        kept = f"SELECT name_no, {SUMS} FROM kept.days WHERE day >= ? AND day < ? GROUP BY 1 ORDER BY 1"
        bare = f"SELECT name_no, {SUMS} FROM kept.sums(?, ?) GROUP BY 1 ORDER BY 1"
        assert asked(mirror, kept, first, last) == asked(mirror, bare, first * DAY_MS, last * DAY_MS)
    assert asked(mirror, "SELECT count(*) FROM kept.days WHERE day >= ?", over) == [(0,)]
    for at_ms in (
        T0 - DAY_MS,
        *(T0 + rng.randint(0, 9 * DAY_MS) for _ in range(2)),
        mirror.known_at,
        NOW + 2 * CUT_MS,
    ):
        minute = at_ms // MINUTE_MS
        (kept_now,) = asked(
            mirror,
            f"SELECT {TURNS} FROM kept.turns WHERE minute <= ?",
            minute,
        )
        stood = asked(
            mirror,
            "SELECT count(*) FILTER (state = 1), count(*) FILTER (state = 0), count(*) FILTER (state = 2)"
            " FROM kept.spoken($1, $1 + 1) WHERE from_ms <= $1 AND to_ms > $1",
            minute * MINUTE_MS,
        )
        assert [kept_now] == stood


def test_what_is_kept_of_days_and_minutes_is_what_stretches_add_up_to(
    store_url: str, rng: random.Random
) -> None:
    """Midnights go by between refreshes, with late events, checks, other clients of a thing, hours unheard."""
    told = check_laws.in_turn(rng, check_laws.histories(rng, 20))
    batches = cut(rng, check_laws.learned(told), len(told) // 2)[:4]
    now = NOW
    for number, batch in enumerate(batches):
        now += rng.choice((1, HOUR_MS, DAY_MS, 3 * DAY_MS))
        bearer = f"bearer-{rng.randint(0, 2)}"
        told_now = [
            connect(now - HOUR_MS * rng.randint(1, 90), session=f"s{number}", client_id=bearer)._replace(
                thing_name="borne"
            ),
            connect(now - HOUR_MS, session=f"t{number}", client_id=f"new-{number}"),
        ]
        heard = watches((0, 2), (10, 10)) if number == 1 else []
        heard += [Learned(Watch("sqs", NOW, now - rng.choice((0, 2 * HOUR_MS))), 0)] if number > 1 else []
        check_laws.ingest(store_url, [batch, [Learned(each, 0) for each in told_now], heard], now=now)
        mirror = refreshed(store_url)
        assert mirror.built == (number == 0)
        assert_kept_is_what_stretches_add_up_to(mirror, rng)
    assert_as_the_store(store_url, mirror)


def test_connectivity_at_an_instant_is_what_at_answers(store_url: str, rng: random.Random) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 25))
    check_laws.ingest(store_url, [check_laws.learned(told, range(NOW - len(told), NOW))])
    write(store_url, watches((0, 2), (10, 10), (500, 4_000)))
    mirror = refreshed(store_url)
    before: dict[str, tuple[str, str | None]] = {}
    before_ms = T0 - DAY_MS
    for _ in range(4):
        at_ms = T0 + rng.randint(0, 3 * DAY_MS)
        stood = {
            name: (state, reason)
            for name, state, reason in asked(
                mirror,
                "SELECT coalesce(thing_name, client_id), state, disconnect_reason FROM connectivity_at(?)",
                iso(at_ms),
            )
        }
        changed = asked(
            mirror,
            "SELECT coalesce(thing_name, client_id), state_before, reason_before, state_after, reason_after"
            " FROM changes(?, ?) ORDER BY 1",
            iso(before_ms),
            iso(at_ms),
        )
        nothing = (None, None)
        assert changed == [
            (name, *before.get(name, nothing), *stood.get(name, nothing))
            for name in sorted(stood.keys() | before.keys())
            if stood.get(name, nothing) != before.get(name, nothing)
        ]
        before, before_ms = stood, at_ms
        found = asked(
            mirror,
            "SELECT thing_name, client_id, state, timestamp_ms, disconnect_reason, certainty,"
            " not_before_ms, not_after_ms FROM connectivity_at(?) WHERE thing_name IS NOT NULL ORDER BY 1",
            iso(at_ms),
        )
        assert found
        with open_history(store_url, clock=lambda: NOW) as history:
            for thing_name, *row in found:
                answer = history.at(thing_name, at_ms)
                state = {True: "connected", False: "disconnected", None: "unknown"}[answer.connected]
                said = [answer.client_id, state, answer.timestamp_ms, answer.disconnect_reason]
                assert row == [*said, answer.certainty.value, answer.not_before_ms, answer.not_after_ms]


def test_what_is_purged_or_forgotten_leaves_the_mirror(store_url: str, rng: random.Random) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 20))
    items = check_laws.learned(told, range(NOW - len(told), NOW))
    write(store_url, [*items, Learned(connect(T0, session="x", version=0, client_id="secret"), 0)])
    refreshed(store_url)
    horizon_ms = T0 + 40 * 60_000
    with open_writer(parse_url(store_url)) as store:
        purge(store, horizon_ms)
        forget(store, "secret", realm="default", by_client=True)
    mirror = refreshed(store_url)
    assert mirror.built
    assert_as_the_store(store_url, mirror)
    assert b"secret" not in mirror.path.read_bytes()
    with open_history(store_url) as history, pytest.raises(IndexNotReady):
        history.at("client-0", horizon_ms - 1)
    for query in ("FROM uptime(?, '2027-01-01')", "FROM connectivity_at(?)"):
        with pytest.raises(duckdb.Error, match="purged"):
            asked(mirror, query, iso(horizon_ms - 1))
        asked(mirror, query, iso(horizon_ms))
    if not store_url.startswith("sqlite"):
        with pytest.raises(StoreUnreachable, match="purged"):
            rows(store_url, "SELECT * FROM connectivity_at(CAST(:at AS timestamptz))", at=iso(horizon_ms - 1))
    drop_mirror(parse_url(store_url))
    assert not mirror.path.exists()


@pytest.fixture
def small(sqlite_store_url: str) -> str:
    write(sqlite_store_url, [Learned(connect(T0, session="p", version=0, client_id="p"), 0)], now=NOW - 10)
    write(sqlite_store_url, [Learned(connect(T0, session="s", version=0), 0)], now=NOW - 9)
    return sqlite_store_url


def test_a_mirror_that_is_damaged_or_of_another_store_is_built_anew(small: str) -> None:
    mirror = refreshed(small)
    mirror.path.write_bytes(b"no database")
    assert refreshed(small).built
    with duckdb.connect(str(mirror.path)) as connection:
        connection.execute("UPDATE kept.mark SET signature = ''; DELETE FROM kept.timeline")
    assert refreshed(small).built
    assert not refreshed(small).built


def test_readers_go_on_while_it_is_refreshed_by_several(small: str) -> None:
    mirror = refreshed(small)
    other = mirror.path.with_name("held")
    other.hardlink_to(mirror.path)  # within one process, DuckDB opens a file of one name once
    with duckdb.connect(str(other), read_only=True) as reader:
        write(small, [Learned(disconnect(T0 + 9_000, session="s", version=0), 0)])
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: refreshed(small), range(4)))
        assert sum(one.clients > 0 for one in done) == 1  # the others found it fresh
        assert reader.execute("SELECT count(*) FROM outages").fetchall() == [(0,)]
    other.unlink()
    assert asked(mirror, "SELECT count(*) FROM outages") == [(1,)]
    left = [each.name for each in mirror.path.parent.iterdir() if ".duckdb" in each.name]
    assert sorted(left) == ["store.db.duckdb", "store.db.duckdb.lock"]


def test_what_a_killed_refresh_left_is_cleared(small: str) -> None:
    mirror = refreshed(small)
    mirror.path.with_name("store.db.duckdb.new").write_bytes(b"half")
    folder = mirror.path.with_name("store.db.duckdb.rows")
    folder.mkdir()
    (folder / "timeline.csv").write_text("half")
    assert asked(mirror, "SELECT count(*) FROM current_status") == [(2,)]  # others read on
    write(small, [Learned(disconnect(T0 + 9_000, session="s", version=0), 0)])
    assert asked(refreshed(small), "SELECT count(*) FROM outages") == [(1,)]
    assert sorted(mirror.path.parent.glob("*.duckdb.*")) == [mirror.path.with_name("store.db.duckdb.lock")]


def test_only_those_may_read_it_who_may_read_the_store(small: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").chmod(0o600)
    assert refreshed(small).path.stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_is_named(small: str) -> None:
    with open_reader(parse_url(small)) as store, pytest.raises(StoreUnreachable, match="--mirror"):
        refresh(store, Path("/proc/mirror.duckdb"))


def test_names_that_are_hostile_are_kept_as_they_are(sqlite_store_url: str) -> None:
    ids = ['"', "a,b\n\rc", "'; DROP TABLE x; --", "\\N", "null", "\u202e", "\U0001f50c", "{'a': 1}"]
    events: list[Event] = [
        disconnect(T0 + at, session=name, version=0, client_id=name, reason=name)
        for at, name in enumerate(ids)
    ]
    write(sqlite_store_url, [Learned(event, 0) for event in events])
    found = asked(
        refreshed(sqlite_store_url), "SELECT client_id, session_identifier, disconnect_reason FROM sessions"
    )
    assert sorted(found) == sorted((name, name, name) for name in ids)


def test_the_functions_of_postgresql_say_the_same_of_clients(
    postgres_store_url: str, rng: random.Random
) -> None:
    told = check_laws.in_turn(rng, check_laws.histories(rng, 25))
    check_laws.ingest(postgres_store_url, [check_laws.learned(told, range(NOW - len(told), NOW))])
    write(postgres_store_url, watches((0, 2), (10, 10), (500, 4_000)))
    with open_history(postgres_store_url, clock=lambda: NOW) as history:
        known_at = history.known_at()
        periods = defaultdict(list)
        for told_of in history.all_periods(by_client=True):
            periods[told_of.client_id].append(told_of.period)
        begun_ms = min(event.at_ms for event in told if isinstance(event, Event))
        begun_ms = min(begun_ms, T0)  # which is watched
        at_ms = T0 + rng.randint(0, 3 * DAY_MS)
        for window in ((T0 - 2 * DAY_MS, at_ms), (at_ms, NOW + 9)):
            wanted = []
            for client_id, own in periods.items():
                cut_up = stretches_of(own, [], begun_ms=begun_ms, window=window, known_at=known_at)
                sums = account(reckon(cut_up, Policy(), window))
                wanted.append(
                    (
                        client_id,
                        sums.connected_ms,
                        sums.disconnected_ms,
                        sums.unknown_ms,
                        sums.not_registered_ms,
                        sums.availability,
                        sums.availability_low,
                        sums.availability_high,
                    )
                )
            query = (
                "SELECT client_id, connected_ms, disconnected_ms, unknown_ms, not_registered_ms, availability,"
                " availability_low, availability_high"
                " FROM uptime(CAST(:low AS timestamptz), CAST(:high AS timestamptz))"
                " WHERE client_id = ANY(:own)"
            )
            found = rows(
                postgres_store_url, query, low=iso(window[0]), high=iso(window[1]), own=list(periods)
            )
            assert sorted(found) == sorted(wanted)
        query = (
            "SELECT client_id, state, timestamp_ms, disconnect_reason, certainty, not_before_ms, not_after_ms"
            " FROM connectivity_at(CAST(:at AS timestamptz)) ORDER BY 1"
        )
        for client_id, *row in rows(postgres_store_url, query, at=iso(at_ms)):
            answer = history.at(client_id, at_ms, by_client=True)
            state = {True: "connected", False: "disconnected", None: "unknown"}[answer.connected]
            said = [state, answer.timestamp_ms, answer.disconnect_reason, answer.certainty.value]
            assert row == [*said, answer.not_before_ms, answer.not_after_ms]
    one = "SELECT * FROM connectivity_at(now()) WHERE client_id = 'client-7'"
    with open_reader(parse_url(postgres_store_url)) as store, store.engine.connect() as connection:
        connection.execute(sa.text("SET enable_seqscan = off"))
        plan = [row[0] for row in connection.execute(sa.text(f"EXPLAIN {one}"))]
    assert not [step for step in plan if "Function Scan" in step], plan  # it is put into the query


def test_annotations_are_those_of_the_store(store_url: str) -> None:
    """Made and withdrawn, they are in the mirror at its next refresh, though no timeline changed."""
    write(store_url, [Learned(connect(T0, session="s", version=0), 0)])
    refreshed(store_url)
    said = Said(Note.TICKET, Scope.THING, "pump-17", T0, T0 + 5, "INC-1", 'quote " and \n', "Ada")
    with open_beside(parse_url(store_url)) as store:
        annotate(store, [said, said._replace(scope=Scope.ALL, subject=None)], realm="default")
    query = (
        "SELECT realm, annotation_no, kind, scope, subject, from_ms, to_ms, ticket, note, author, recorded_ms"
        " FROM annotations ORDER BY annotation_no"
    )
    assert asked(refreshed(store_url), query) == rows(store_url, query)
    assert len(rows(store_url, query)) == 2
    with open_beside(parse_url(store_url)) as store:
        withdraw(store, [1], realm="default")
    found = refreshed(store_url)
    assert not found.built
    assert [row[1] for row in asked(found, query)] == [2]
    assert asked(found, query) == rows(store_url, query)
