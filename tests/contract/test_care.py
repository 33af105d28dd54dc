"""Care of a store as it is typed, on both engines: check, backup, purge, forget, upgrade."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.engine import open_reader, open_writer, parse_url
from store.schema import VIEWS
from tests.contract.test_commands import Run, execute, fill, on_any, run, sampled
from tests.property.test_check_laws import histories, in_turn, ingest, learned
from tests.property.test_store_laws import NOW, cut

__all__ = ["on_any", "run", "sampled"]  # fixtures


def fill_checked(url: str, rng: random.Random, count: int = 60) -> None:
    """Write nasty histories with checks, one by one, so that sweeps and confirmations come to be."""
    told = in_turn(rng, histories(rng, count))
    ingest(url, cut(rng, learned(told, range(NOW - len(told), NOW)), 2))


# --- check --------------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_fault(run: Run, store_url: str, rng: random.Random) -> None:
    fill(store_url, rng, 60)
    fill_checked(store_url, rng)
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
    assert {one["mend"] for one in done.objects} == {"run `thingline rebuild`"}
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
    fill_checked(sqlite_store_url, rng, 30)
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


def test_the_views_that_a_store_has_are_those_that_the_check_asks_for(store_url: str) -> None:
    open_writer(parse_url(store_url)).close()
    with open_reader(parse_url(store_url)) as store, store.reading() as connection:
        assert set(sa.inspect(connection).get_view_names()) == set(VIEWS)
