"""`thingline sql` as it is typed: what it prints, refuses, and how it ends; and the two walls around other's SQL."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

import thingline
from queries.sql import Session
from store.engine import open_reader, parse_url
from store.errors import BadQuery
from store.mirror import mirror_path, refresh
from store.sandbox import locked_down, question
from tests.contract.test_commands import Done, Run, on_any, run, sampled
from tests.contract.test_views import rows
from tests.processes import LISTENING

__all__ = ["on_any", "run", "sampled"]  # fixtures

DOCS = Path(__file__).parent.parent.parent / "docs"
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def mirror(sampled: Run, store_url: str) -> Path:
    with open_reader(parse_url(store_url)) as store:
        return refresh(store, mirror_path(store.url)).path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the sample in a SQLite store, for what the engine makes no difference to."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "secret.csv").write_text("a\n1\n")
    (folder / "spilled").mkdir()
    place = folder / "store.db"
    assert thingline.main(["ingest", "--store", str(place), str(DOCS / "sample.ndjson")]) == 0
    with open_reader(parse_url(str(place))) as store:
        return refresh(store, mirror_path(store.url)).path


@pytest.fixture
def ask(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Ask that mirror."""
    monkeypatch.setenv("THINGLINE_STORE", str(path).removesuffix(".duckdb"))

    def asked(*words: str) -> Done:
        capsys.readouterr()
        return Done(thingline.main(["sql", *words]), *capsys.readouterr())

    return asked


@pytest.fixture(scope="module")
def walled(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    spilled = str(path.parent / "spilled")
    with locked_down(str(path), memory="500MB", folder=spilled, zone="UTC") as connection:
        yield connection


# --- What it prints -----------------------------------------------------------------------------------------


def test_a_query_is_answered_in_every_form(sampled: Run, tmp_path: Path) -> None:
    query = "SELECT client_id, since_time, since_ms, state FROM current_status ORDER BY ALL"
    done = sampled("sql", query)
    assert done.err.splitlines()[-1] == "known at 2026-11-01T05:30:00.000Z"
    assert done.out.splitlines()[:2] == [
        "client_id  since_time                since_ms       state",
        "pump-17    2026-11-01T03:20:45.007Z  1793503245007  connected",
    ]
    objects = sampled("sql", query, "--json").objects
    assert objects[0] == {
        "client_id": "pump-17",
        "since_time": "2026-11-01T03:20:45.007Z",
        "since_ms": 1_793_503_245_007,
        "state": "connected",
    }
    listed = list(csv.DictReader(io.StringIO(sampled("sql", query, "--csv").out)))
    assert [line["client_id"] for line in listed] == [one["client_id"] for one in objects]
    file = tmp_path / "out.parquet"
    assert sampled("sql", query, "--parquet", str(file)).code == 0
    with duckdb.connect() as connection:
        found = connection.execute("SELECT client_id, epoch_ms(since_time) FROM read_parquet(?)", [str(file)])
        assert found.fetchall() == [(one["client_id"], one["since_ms"]) for one in objects]


def test_values_of_every_kind_are_told(ask: Run) -> None:
    query = (
        "SELECT 1 AS a, 2 AS a, NULL AS n, 1.5 AS d, 'nan'::DOUBLE AS f, [1, 2] AS l, {'b': DATE '2026-11-01'} AS s,"
        " sum(i) AS h, INTERVAL 1 DAY AS i, 'x'::BLOB AS x, TIMESTAMP '2026-11-01 00:00:00.000001' AS t"
        " FROM range(3) r(i)"
    )
    (told,) = ask(query, "--json").objects
    assert told == {
        "a": 1,
        "a_1": 2,
        "n": None,
        "d": 1.5,
        "f": None,
        "l": [1, 2],
        "s": {"b": "2026-11-01"},
        "h": 3,
        "i": "1 day, 0:00:00",
        "x": "78",
        "t": "2026-11-01T00:00:00.000001",
    }


def test_a_plan_is_drawn(ask: Run) -> None:
    assert "Projection" in ask("EXPLAIN SELECT 1").out.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("selec 1",), 'syntax error at or near "selec"; LINE 1: selec 1'),
        (("SELECT nope FROM periods",), "nope"),
        (("SELECT 1; SELECT 2",), "one question at a time"),
        (("/* nothing */",), "Nothing was asked"),
        (("DROP VIEW periods",), "does not ask"),
        (("FROM uptime('2026-11-02', '2026-11-01')",), "ends before it begins"),
        (("FROM uptime('yesterday', '2026-11-01')",), "yesterday"),
        ((ENDLESS, "--timeout", "1s"), "longer than 1 s; --timeout"),
        (("FROM range(100000000) ORDER BY random()", "--memory", "1MB"), "emory"),
        (("SELECT 1", "--memory", "much"), "give 500MB"),
        (("SELECT 1", "--json", "--csv"), "one of"),
        (("SELECT 1", "--tz", "Nowhere"), "Nowhere"),
        (("SELECT 1", "--mirror", "none.duckdb", "--as-it-is"), "no mirror"),
        (("SELECT 1", "--parquet", "/nowhere/x.parquet"), "cannot be written"),
    ],
)
def test_what_cannot_be_answered_says_why(ask: Run, words: tuple[str, ...], said: str) -> None:
    done = ask(*words)
    assert done.code == 2
    assert said in done.err, done.err
    assert "Traceback" not in done.err


def test_queries_come_from_standard_input_and_an_error_does_not_end_them(
    ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT\n 'a;b' AS x;\nSELECT nope;\n.help\nSELECT 3 AS y"))
    done = ask("--json")
    assert [json.loads(line) for line in done.out.splitlines() if line.startswith("{")] == [
        {"x": "a;b"},
        {"y": 3},
    ]
    assert done.code == 2
    assert "nope" in done.err


def test_the_prompt_outlives_errors_and_an_interrupt(path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "TERM": "dumb",
    }
    process = subprocess.Popen(
        [*LISTENING, "sql", "--store", str(path).removesuffix(".duckdb")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 1_000))
            except OSError:
                return

    def after(mark: str) -> None:
        ends = time.monotonic() + 60
        while mark not in seen.decode(errors="replace"):
            assert time.monotonic() < ends, seen.decode()
            time.sleep(0.02)
        seen.clear()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        after("thingline> ")
        os.write(ours, b"SELECT nope;\n")
        after('"nope" was not found')
        os.write(ours, f"{ENDLESS};\n".encode())
        after("= 7;")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        after("cancelled")
        os.write(ours, b"SELECT 40 +\n 2 AS told;\n")
        after("42")
        os.write(ours, b".exit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


def test_what_is_forgotten_is_in_no_mirror(sampled: Run, store_url: str) -> None:
    place = mirror_path(parse_url(store_url))
    assert sampled("sql", "FROM things").code == 0
    assert b"pump-17" in place.read_bytes()
    assert sampled("forget", "pump-17", "--yes").code == 0
    assert not place.exists()
    assert "pump-17" not in sampled("sql", "FROM things").out


# --- The walls ----------------------------------------------------------------------------------------------

ESCAPES = (
    "COPY (SELECT 1) TO 'TMP/out.csv'",
    "COPY periods TO 'TMP/out.parquet'",
    "EXPORT DATABASE 'TMP/out'",
    "IMPORT DATABASE 'TMP'",
    "SELECT * FROM read_csv('TMP/secret.csv')",
    "SELECT * FROM 'TMP/secret.csv'",
    "SELECT * FROM read_text('TMP/secret.csv')",
    "SELECT * FROM read_blob('TMP/secret.csv')",
    "SELECT * FROM read_json('TMP/secret.csv')",
    "SELECT * FROM read_parquet('TMP/secret.csv')",
    "SELECT * FROM parquet_metadata('TMP/secret.csv')",
    "SELECT * FROM sniff_csv('TMP/secret.csv')",
    "SELECT * FROM glob('TMP/*')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    "SELECT * FROM query_table('TMP/secret.csv')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''TMP/out.csv''')",
    "SELECT * FROM sqlite_scan('TMP/store.db', 'clients')",
    "ATTACH 'TMP/store.db' AS other",
    "ATTACH 'TMP/new.duckdb' AS other",
    "ATTACH ':memory:' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD 'TMP/evil.duckdb_extension'",
    "SET threads = 1",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET python_enable_replacements = true",
    "SET GLOBAL temp_directory = 'TMP'",
    "RESET memory_limit",
    "PRAGMA memory_limit = '100GB'",
    "PRAGMA enable_profiling",
    "PRAGMA profiling_output = 'TMP/out'",
    "CALL enable_logging()",
    "SELECT * FROM enable_logging()",
    "CREATE SECRET s (TYPE s3)",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM pandas_like",  # a variable of the process
    "SELECT * FROM sys",
    "CREATE TABLE x AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "INSERT INTO kept.reasons VALUES (1, 'x')",
    "UPDATE kept.mark SET known_at = 0",
    "DELETE FROM kept.timeline",
    "DROP VIEW periods",
    "WITH gone AS (DELETE FROM kept.timeline RETURNING *) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM kept.timeline",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'TMP/out.csv'",
)


@pytest.mark.parametrize("escape", ESCAPES)
def test_locked_down_a_query_cannot_but_read_the_mirror(
    walled: duckdb.DuckDBPyConnection, path: Path, escape: str
) -> None:
    """The wall that DuckDB makes, without the other: nothing is looked at before it is run."""
    pandas_like = [1]
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(duckdb.Error):
        walled.execute(escape.replace("TMP", str(path.parent))).fetchall()
    assert pandas_like == [1]
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        *(each for each in ESCAPES if not re.match("SELECT|WITH", each)),
        "COPY (SELECT 1) TO 'TMP/spilled/out.csv'",  # its own folder, which DuckDB lets it write
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'TMP/spilled/out.csv'",
        "EXPLAIN /* */ ANALYZE /* */ COPY (SELECT 1) TO 'TMP/spilled/out.csv'",
        "EXPLAIN (FORMAT json) COPY (SELECT 1) TO 'TMP/spilled/out.csv'",
        "CREATE TEMP TABLE x AS SELECT 1",
        "PREPARE x AS SELECT 1",
        "CALL pragma_version()",
        "CHECKPOINT",
        "USE memory",
        "BEGIN",
        "SET VARIABLE a = 1",
        "SELECT 1; DROP VIEW periods",
        ";",
        "",
    ],
)
def test_what_does_not_ask_is_not_run(walled: duckdb.DuckDBPyConnection, path: Path, text: str) -> None:
    """The other wall: statements of other kinds are not run at all."""
    with pytest.raises((ValueError, duckdb.Error)):
        question(walled, text.replace("TMP", str(path.parent)))


def test_what_asks_is_run(walled: duckdb.DuckDBPyConnection) -> None:
    for text in ("FROM periods", "WITH x AS (SELECT 1) FROM x", "VALUES (1)", "DESCRIBE periods", "SHOW TABLES",
                 "SUMMARIZE periods", "EXPLAIN SELECT 1", "explain analyze FROM periods", "SELECT 1;"):  # fmt: skip
        assert walled.execute(question(walled, text)).fetchall()


def test_a_query_sees_no_secret_and_no_other_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with Session(path) as session:
        names = [
            row[0]
            for row in session.ask("SELECT database_name FROM duckdb_databases() WHERE NOT internal").rows
        ]
        assert names == ["store"]
        process = session._process
        assert process is not None
        assert b"hunter2" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_a_process_that_was_killed_is_followed_by_another(path: Path) -> None:
    with Session(path) as session:
        assert list(session.ask("SELECT 1").rows) == [[1]]
        process = session._process
        assert process is not None
        process.kill()
        process.wait()
        assert list(session.ask("SELECT 2").rows) == [[2]]
        started = threading.Timer(0.3, lambda: session._process.kill())  # type: ignore[union-attr]
        started.start()
        with pytest.raises(BadQuery, match="ended"):
            session.ask(ENDLESS)
        rest = session.ask("FROM range(100000)").rows
        assert next(rest) == [0]  # and the others are not read
        assert list(session.ask("SELECT 3").rows) == [[3]]


# --- The cookbook -------------------------------------------------------------------------------------------

RECIPES = [
    (section.splitlines()[0], section.split("```sql\n")[1].split("\n```")[0])
    for section in (DOCS / "sql.md").read_text().split("\n# Questions\n")[1].split("\n## ")[1:]
]
PORTABLE = [(title, query) for title, query in RECIPES if title.endswith("*")]


def test_every_question_of_the_cookbook_is_answered(path: Path) -> None:
    assert len(RECIPES) >= 20
    with Session(path) as session:
        for title, query in RECIPES:
            assert list(session.ask(query).rows), title


def test_the_views_of_the_store_answer_the_same(mirror: Path, store_url: str) -> None:
    assert len(PORTABLE) >= 13
    with duckdb.connect(str(mirror), read_only=True) as connection:
        for title, query in PORTABLE:
            found = connection.execute(query).fetchall()
            assert found == [tuple(row) for row in rows(store_url, query)], title


def test_the_columns_are_those_of_the_views_of_the_store(mirror: Path, store_url: str) -> None:
    with open_reader(parse_url(store_url)) as store, store.reading() as connection:
        inspector = sa.inspect(connection)
        views = {
            name: [column["name"] for column in inspector.get_columns(name)]
            for name in inspector.get_view_names()
            if name != "stretches"
        }
    with duckdb.connect(str(mirror), read_only=True) as connection:
        for name, columns in views.items():
            found = [row[0] for row in connection.execute(f"DESCRIBE {name}").fetchall()]
            assert found == (["thing_name", *columns] if name == "periods" else columns)
