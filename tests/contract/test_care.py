"""Care of a store as it is typed, on both engines: check, backup, purge, forget, upgrade."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import thingline
from ingest.check import faults
from ingest.rebuild import rebuild_store
from ingest.writer import Writer
from queries.history import Question
from queries.output import reply_json
from store.backup import _check_sound, _compare, back_up
from store.engine import open_reader, open_writer, parse_url
from store.errors import StoreError
from store.model import Event, Learned
from store.schema import VIEWS
from tests.builders import T0
from tests.contract.test_commands import SAMPLE, Run, execute, fill, on_any, questions, run, sampled
from tests.property.test_check_laws import histories, in_turn, ingest, learned
from tests.property.test_store_laws import NOW, all_rows, cut
from tests.test_readme import HOME

__all__ = ["on_any", "run", "sampled"]  # fixtures


def fill_checked(url: str, rng: random.Random, count: int = 25) -> None:
    """Write nasty histories with checks, one by one, so that sweeps and confirmations come to be."""
    told = in_turn(rng, histories(rng, count))
    ingest(url, cut(rng, learned(told, range(NOW - len(told), NOW)), 2))


# --- check --------------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_fault(run: Run, store_url: str, rng: random.Random) -> None:
    fill(store_url, rng, 15)
    fill_checked(store_url, rng, 12)
    done = run("db", "check")
    assert (done.code, done.out.rpartition(": ")[2]) == (0, "no fault\n"), done.out
    assert run("db", "check", "--json").out == ""


CLIENT = "(SELECT client_no FROM clients WHERE client_id = 'pump-17')"
CURRENT = f"client_no = {CLIENT} AND superseded_at IS NULL"
LAST = f"(SELECT max(at_ms) FROM transitions WHERE {CURRENT})"
COPIED = "superseded_at, state, timestamp_ms, reason_no, not_before_ms, not_after_ms, rule_no, proved_from_ms"


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (
            f"UPDATE transitions SET state = 1 - state WHERE {CURRENT} AND at_ms = {LAST}",
            {"transition-changed"},
        ),
        (f"DELETE FROM transitions WHERE {CURRENT} AND at_ms = {LAST}", {"transition-missing"}),
        (
            f"INSERT INTO transitions SELECT client_no, at_ms + 7, seq, recorded_at, {COPIED} FROM transitions"
            f" WHERE {CURRENT} AND at_ms = {LAST}",
            {"transition-extra"},
        ),
        (
            f"INSERT INTO transitions SELECT client_no, at_ms, seq, recorded_at + 7, {COPIED} FROM transitions"
            f" WHERE {CURRENT} AND at_ms = {LAST}",
            {"transition-extra", "tile"},
        ),
        (
            f"UPDATE transitions SET superseded_at = recorded_at - 5 WHERE {CURRENT} AND at_ms = {LAST}",
            {"transition-changed", "tile"},
        ),
        (
            f"UPDATE transitions SET seq = 3 WHERE {CURRENT} AND at_ms = {LAST}",
            {"transition-missing", "transition-extra", "tile"},
        ),
        (f"UPDATE session_rows SET version = 77 WHERE client_no = {CLIENT}", {"session-changed"}),
        (f"DELETE FROM session_rows WHERE client_no = {CLIENT}", {"session-missing"}),
        (
            f"INSERT INTO session_rows SELECT client_no, {{ghost}}, 9, connect_ms, disconnect_ms, reason_no"
            f" FROM session_rows WHERE client_no = {CLIENT} AND connect_ms = (SELECT min(connect_ms)"
            f" FROM session_rows WHERE client_no = {CLIENT})",
            {"session-extra"},
        ),
        ("UPDATE clients SET first_ms = 5 WHERE client_id = 'pump-17'", {"client-changed"}),
        ("DELETE FROM confirmations", {"confirmation-missing"}),
        ("UPDATE confirmations SET until_ms = until_ms + 1", {"confirmation-changed"}),
        ("UPDATE watermarks SET last_known_at = 5", {"watermark"}),
    ],
)
def test_a_fault_is_named_and_what_is_said_to_mend_it_does(
    sampled: Run, store_url: str, fault: str, kinds: set[str], tmp_path: Path
) -> None:
    checked = tmp_path / "checks.ndjson"
    checked.write_text('{"thingName":"pump-17","connectivity":{"connected":true,"timestamp":1793503245007}}')
    assert sampled("ingest", "--asked-at", "1793510000000", str(checked)).code == 0
    assert sampled("db", "check").code == 0
    ghost = "x'0464'" if store_url.startswith("sqlite") else "'\\x0464'::bytea"
    execute(store_url, fault.format(ghost=ghost))
    done = sampled("db", "check", "--json")
    assert done.code == 1
    assert {one["kind"] for one in done.objects} == kinds, done.objects
    assert all(one["mend"].startswith("run `thingline rebuild`") for one in done.objects)
    rows = [
        one["detail"] for one in done.objects if one["kind"].startswith(("transition", "session", "conf"))
    ]
    assert all("_ms 1" in row for row in rows), rows  # each number with its name
    about_store = {one["kind"] for one in done.objects if one["clientId"] is None}
    assert about_store <= {"watermark"}
    assert sampled("rebuild").code == 0
    assert sampled("db", "check").code == 0


@pytest.mark.parametrize(
    ("fault", "kinds", "mend"),
    [
        ("DELETE FROM texts WHERE text = 'MQTT_KEEP_ALIVE_TIMEOUT'", {"reference"}, "restore"),
        ("UPDATE evidence SET thing_no = 99 WHERE kind = 1", {"reference"}, "restore"),
        ("UPDATE evidence SET client_no = 99 WHERE kind = 1", {"reference"}, "restore"),
        ("UPDATE session_rows SET reason_no = 99", {"reference"}, "rebuild"),
        ("DROP VIEW outages", {"schema"}, "install"),
        ("DROP INDEX session_rows_by_time", {"schema"}, "install"),
        ("ALTER TABLE quarantine RENAME COLUMN detail TO was", {"schema"}, "install"),
    ],
)
def test_a_fault_of_the_whole_store_is_named(
    sampled: Run, store_url: str, fault: str, kinds: set[str], mend: str
) -> None:
    execute(store_url, fault)
    done = sampled("db", "check", "--json")
    assert done.code == 1
    found = [one for one in done.objects if one["clientId"] is None]
    assert {one["kind"] for one in found} == kinds, found
    assert any(mend in one["mend"] for one in found), found


def test_damage_to_the_file_is_found(on_any: Run, sqlite_store_url: str, rng: random.Random) -> None:
    fill_checked(sqlite_store_url, rng, 15)
    path = Path(sqlite_store_url.removeprefix("sqlite:///"))
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(size // 4096 - 3, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)
    done = on_any("db", "check", "--store", sqlite_store_url, "--json")
    assert done.code == 1
    assert "engine" in {one["kind"] for one in done.objects}
    path.write_bytes(b"no database at all" * 1000)
    assert on_any("db", "check", "--store", sqlite_store_url).code == 3


def test_the_check_writes_nothing_and_runs_beside_a_writer(on_any: Run, sqlite_store_url: str) -> None:
    with open_writer(parse_url(sqlite_store_url)):
        assert on_any("db", "check", "--store", sqlite_store_url).code == 0


# Waits for the row that writers share before it touches theirs: rows locked in any order are a deadlock with them.
MISLEAD = (
    "WITH alone AS MATERIALIZED (SELECT FROM care FOR UPDATE)"
    " UPDATE transitions SET state = 1 - state FROM alone WHERE state < 2"
)


def test_a_rebuild_beside_writers_loses_nothing_and_finds_nothing(
    postgres_store_url: str, rng: random.Random
) -> None:
    """Writers wait while it runs, and what they remember stays true, whether it mended anything or not."""
    url = parse_url(postgres_store_url)
    told = in_turn(rng, histories(rng, 15))
    items = [each._replace(known_at_ms=None) for each in learned(told, range(len(told)))]
    rng.shuffle(items)
    batches = [items[at : at + 40] for at in range(0, len(items), 40)]
    written: list[int] = []
    rebuilt: list[list[str]] = []
    done = threading.Event()

    def rebuild() -> None:
        while not done.wait(0.05):
            with open_writer(url) as store:
                rebuilt.append(rebuild_store(store).differing)

    def write(part: list[list[Learned]]) -> None:
        with open_writer(url) as store, Writer(store) as writer:
            written.extend(writer.write(batch, source="test").read for batch in part)

    with open_writer(url):
        pass
    rebuilding = threading.Thread(target=rebuild)
    writers = [threading.Thread(target=write, args=(batches[number::2],)) for number in range(2)]
    for thread in (rebuilding, *writers):
        thread.start()
    time.sleep(0.2)
    execute(postgres_store_url, MISLEAD)  # for it to mend
    for thread in writers:
        thread.join()
    done.set()
    rebuilding.join()
    assert sum(written) == len(items)
    assert rebuilt
    with open_writer(url) as store:
        rebuild_store(store)
        assert rebuild_store(store).differing == []
        assert list(faults(store)) == []
    with open_reader(url) as store, store.reading() as connection:
        held = connection.exec_driver_sql("SELECT count(DISTINCT (client_no, at_ms, digest)) FROM evidence")
        events = {each for each in told if isinstance(each, Event)}
        assert held.scalar_one() == len(events)


def test_the_views_that_a_store_has_are_those_that_the_check_asks_for(store_url: str) -> None:
    open_writer(parse_url(store_url)).close()
    with open_reader(parse_url(store_url)) as store, store.reading() as connection:
        assert set(sa.inspect(connection).get_view_names()) == set(VIEWS)


# --- backup -------------------------------------------------------------------------------------------------


def answers(url: str, questions: list[Question]) -> list[dict[str, Any]]:
    with thingline.open(url) as history:
        return [reply_json(reply) for reply in history.ask(questions)]


def test_a_backup_answers_as_the_original_did(
    on_any: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    names, instants = fill(store_url, rng, 30)
    fill_checked(store_url, rng, 15)
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    asked = questions(rng, [*names, "client-1", "nope"], instants, 3_000)
    done = on_any("db", "backup", str(tmp_path / "copy.db"), "--store", store_url, "--json")
    assert done.code == 0, done.err
    assert sorted(path.name for path in tmp_path.glob("*copy*")) == ["copy.db"]
    assert answers(copy, asked) == answers(store_url, asked)
    assert all_rows(copy) == all_rows(store_url)
    exported = [on_any("export", "evidence", "--store", url).out for url in (store_url, copy)]
    assert exported[0] == exported[1]
    assert on_any("db", "check", "--store", copy).code == 0
    again = on_any("db", "backup", str(tmp_path / "copy.db"), "--store", store_url)
    assert (again.code, "exists" in again.err) == (2, True)


def test_a_backup_beside_a_writer_is_one_state_of_the_store(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    told = in_turn(rng, histories(rng, 60))
    batches = [learned(told[at : at + 25]) for at in range(0, len(told), 25)]
    written: list[int] = []
    stop = threading.Event()

    def write() -> None:
        with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: NOW) as writer:
            for batch in batches:
                writer.write(batch, source="test")
                written.append(len(batch))
                if stop.is_set():
                    return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(written) < 5:
            time.sleep(0.01)
        copies = []
        for number in range(4):
            before = len(written)
            with open_reader(parse_url(store_url)) as store:
                copies.append(back_up(store, tmp_path / f"copy-{number}.db"))
            assert len(written) >= before
    finally:
        stop.set()
        thread.join()
    names = [each if isinstance(each, str) else each.client_id for each in told]
    for done in copies:
        copy = f"sqlite:///{done.path}"
        asked = [
            Question(rng.choice(names), rng.choice(range(T0, NOW, 1_000_000)), done.known_at)
            for _ in range(500)
        ]
        assert answers(copy, asked) == answers(store_url, asked)
        with open_reader(parse_url(copy)) as store:
            assert list(faults(store)) == []


KILLED = """
import os, pathlib, sys
import store.backup as backup
from store.engine import open_reader, parse_url
def die(*_): os.kill(os.getpid(), 9)
backup._compare = die
with open_reader(parse_url(sys.argv[1])) as store:
    backup.back_up(store, pathlib.Path(sys.argv[2]))
"""


def test_a_killed_backup_leaves_nothing_under_its_name(
    on_any: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    fill_checked(store_url, rng, 10)
    copy = tmp_path / "copy.db"
    done = subprocess.run([sys.executable, "-c", KILLED, store_url, str(copy)], cwd=HOME, check=False)
    assert done.returncode == -9
    assert not copy.exists()
    assert list(tmp_path.glob(".copy.db*.part"))
    assert on_any("db", "backup", str(copy), "--store", store_url).code == 0
    assert on_any("db", "check", "--store", str(copy)).code == 0


def test_a_copy_that_is_not_equal_is_not_kept(on_any: Run, sqlite_store_url: str, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "copy.db"
    assert on_any("ingest", SAMPLE, "--store", sqlite_store_url).code == 0
    assert on_any("db", "backup", str(missing), "--store", sqlite_store_url).code == 2
    with pytest.raises(StoreError, match="transitions"):
        _compare({"transitions": 3, "texts": 2}, {"transitions": 2, "texts": 2})


@pytest.mark.parametrize("offset", [8192, 300_000])
def test_a_damaged_store_takes_no_good_copys_place(
    on_any: Run, sqlite_store_url: str, tmp_path: Path, rng: random.Random, offset: int
) -> None:
    fill_checked(sqlite_store_url, rng, 60)
    older, newer = tmp_path / "older.db", tmp_path / "newer.db"
    assert on_any("db", "backup", str(older), "--store", sqlite_store_url).code == 0
    kept = older.read_bytes()
    with Path(sqlite_store_url.removeprefix("sqlite:///")).open("r+b") as file:
        file.seek(0, os.SEEK_END)
        assert file.tell() > offset + 4096
        file.seek(offset)
        file.write(b"\xff" * 600)
    done = on_any("db", "backup", str(newer), "--store", sqlite_store_url)
    assert (done.code, done.out) == (3, "")
    assert re.search(r"damaged.*`thingline db check` says where.*restore an? ", done.err), done.err
    assert on_any("db", "backup", str(older), "--store", sqlite_store_url).code == 2
    assert older.read_bytes() == kept
    assert list(tmp_path.glob("*newer*")) == []
    assert on_any("db", "check", "--store", str(older)).code == 0


def test_what_quick_check_finds_first_is_said() -> None:
    found = [("*** in database main ***\nTree 5 page 2: btreeInitPage() returns error code 11",)]
    with pytest.raises(
        StoreError, match=r"damaged \(Tree 5 page 2: btreeInitPage\(\) returns error code 11\)"
    ):
        _check_sound(lambda _: found)
    _check_sound(lambda _: [("ok",)])


def test_a_backup_of_a_store_that_learned_nothing_says_so(
    on_any: Run, store_url: str, tmp_path: Path
) -> None:
    open_writer(parse_url(store_url)).close()
    done = on_any("db", "backup", str(tmp_path / "copy.db"), "--store", store_url)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(" rows, nothing was learned yet\n")
    done = on_any("db", "backup", str(tmp_path / "second.db"), "--store", store_url, "--json")
    assert done.objects[0]["knownAt"] is None
