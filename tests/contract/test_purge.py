"""A purge as its users see it: what is refused, what comes in no more, and what goes on beside it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from ingest.check import faults
from ingest.purge import purge
from ingest.rebuild import rebuild_store
from ingest.writer import Writer
from store.backup import back_up
from store.engine import open_reader, open_writer, parse_url
from store.model import Event, Kind, Learned
from tests.builders import (
    CLIENT,
    T0,
    connect,
    disconnect,
    said_connected,
    said_disconnected,
    said_never_connected,
    taken_over,
)
from tests.contract.test_commands import SAMPLE, Run, event_json, ndjson, on_any, run
from tests.contract.test_views import PERIODS, in_python, rows
from tests.property.test_check_laws import Evidence, ingest, learned
from tests.property.test_purge_laws import (
    LATEST,
    as_it_came,
    evidence_of,
    long_history,
    seen_from,
    stamp,
    write,
)
from tests.property.test_store_laws import all_rows, client_id
from tests.strategies import DAY_MS, History
from tests.test_readme import HOME

__all__ = ["on_any", "run"]  # fixtures

EVER = 1 << 50
CLIENTS = 8  # of a store that is purged while others write


def fill(url: str, rng: random.Random) -> int:
    """Write histories as they came, until a purge has work at three clients; gives an instant amid them."""
    stamps: list[int] = []
    count = 0
    while True:
        drawn: list[History] = []
        while not any(len(evidence_of(one)) > 100 for one in drawn) or count < 3:
            drawn.append(long_history(rng, client_id(count), strays=False))
            count += 1
        told = as_it_came(rng, drawn)
        write(url, told, rng)
        stamps = sorted([*stamps, *(stamp(each) for _, each in told)])
        horizon_ms = stamps[len(stamps) * 3 // 4]
        with open_writer(parse_url(url)) as store:
            would = purge(store, horizon_ms, dry_run=True)
        if would.clients >= 3 and would.evidence:
            return horizon_ms


def test_the_views_begin_at_the_horizon(store_url: str, rng: random.Random) -> None:
    horizon_ms = fill(store_url, rng)
    with open_writer(parse_url(store_url)) as store:
        assert purge(store, horizon_ms, known_horizon_ms=EVER).evidence > 0
    assert rows(store_url, "SELECT from_ms FROM horizon") == [(horizon_ms,)]
    found = sorted(rows(store_url, PERIODS), key=repr)
    assert found == in_python(store_url)
    assert min(row[1] for row in found) == horizon_ms
    runs: list[list[object]] = []
    for name, from_ms, to_ms, state, *_ in sorted(found, key=lambda row: (row[0], row[1])):
        if state == "disconnected" and runs and runs[-1][0] == name and runs[-1][2] == from_ms:
            runs[-1][2] = to_ms
        elif state == "disconnected":
            runs.append([name, from_ms, to_ms])
    outages = rows(store_url, "SELECT client_id, from_ms, to_ms FROM outages")
    assert sorted(outages, key=repr) == sorted(map(tuple, runs), key=repr)
    timeline = rows(store_url, "SELECT client_id, at_ms FROM timeline ORDER BY client_id, at_ms, seq")
    early = [
        row for row, after in pairwise([*timeline, ("", 0)]) if row[1] < horizon_ms and after[0] == row[0]
    ]
    after_early = {
        row[0]: after[1] for row, after in pairwise(timeline) if row in early and row[0] == after[0]
    }
    assert all(at_ms > horizon_ms or at_ms == dict(early)[name] for name, at_ms in after_early.items())
    ended = rows(store_url, "SELECT min(disconnect_ms) FROM sessions")
    assert ended[0][0] is None or ended[0][0] >= horizon_ms


def test_what_is_stamped_before_the_horizon_goes_to_quarantine(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    assert run("ingest", SAMPLE).code == 0
    done = run("db", "purge", "--before", "2026-11-01T03:00:00Z", "--json")
    assert done.code == 0, done.err
    assert run("at", "pump-17", "2026-11-01T02:59:59Z").code == 5
    assert run("at", "pump-17", "2026-11-01T03:12:00Z", "--json").objects[0]["connected"] is False
    listed = run("history", "pump-17", "--periods", "--json").objects
    assert listed[0]["from"] == "2026-11-01T03:00:00.000Z"
    assert run("history", "pump-17", "--from", "2026-11-01T02:00:00Z").code == 5
    before = all_rows(store_url)
    again = run("ingest", SAMPLE, "--json").objects[0]
    assert (again["stored"], again["quarantined"], again["duplicates"]) == (0, 6, 4)
    kept = run("quarantine", "list", "--json").objects
    assert {one["reason"] for one in kept} == {"before-horizon"}
    assert json.loads(run("quarantine", "show", str(kept[0]["id"])).out)["clientId"] == "pump-17"
    assert run("ingest", SAMPLE, "--json").objects[0]["quarantined"] == 6
    assert len(run("quarantine", "list", "--json").objects) == len(kept) == 6
    assert run("quarantine", "replay").code == 0
    assert all_rows(store_url) == before
    assert run("db", "purge", "--before", "2126-11-01T03:00:00Z").code == 2
    assert run("db", "purge", "--before", "soon").code == 2
    earlier = run("db", "purge", "--before", "2026-10-31T03:00:00Z", "--json").objects[0]
    assert earlier["horizon"] == json.loads(done.out)["horizon"]


def test_a_thing_stays_with_the_client_that_bore_its_name(run: Run, store_url: str, tmp_path: Path) -> None:
    hour = 3_600_000
    first = T0 - 90 * DAY_MS
    events = [
        event_json(connect(first, session="a", version=0, client_id="modem-1"), thingName="truck"),
        event_json(connect(first + hour, session="b", version=0, client_id="modem-2"), thingName="truck"),
    ]
    for number in range(60):  # of which none bears the name
        for client in ("modem-1", "modem-2"):
            at_ms, session = first + (number + 2) * DAY_MS, f"{client}-{number}"
            events += [
                event_json(connect(at_ms, session=session, version=number + 1, client_id=client)),
                event_json(disconnect(at_ms + hour, session=session, version=number + 1, client_id=client)),
            ]
    assert run("ingest", ndjson(tmp_path / "events.ndjson", events)).code == 0
    horizon = first + 55 * DAY_MS
    asked = ["at", "truck", str(horizon + hour), "--json"]
    everything = ["history", "--all", "--json"]
    before = run(*asked).objects, [one["clientId"] for one in run(*everything).objects]
    done = run("db", "purge", "--before", str(horizon), "--known-before", "now", "--json").objects[0]
    assert done["evidence"] > 100
    after = run(*asked).objects, [one["clientId"] for one in run(*everything).objects]
    assert after[0] == before[0]
    assert set(after[1]) == {"modem-2"}
    assert run("db", "check").code == 0


def test_of_a_device_that_never_moved_the_checks_go(store_url: str) -> None:
    quarter, days = 15 * 60_000, 40
    told: list[tuple[int, Evidence]] = [(T0, connect(T0, session="s", version=0))]
    told += [
        (at_ms + 1_000, said_connected(at_ms, T0))
        for at_ms in range(T0 + quarter, T0 + days * DAY_MS, quarter)
    ]
    items = learned([each for _, each in told], [known_at for known_at, _ in told])
    assert ingest(store_url, [[item] for item in items[:20]] + [items[20:]], LATEST).repeated > days * 90
    horizon_ms = T0 + 35 * DAY_MS
    asked = [horizon_ms, horizon_ms + 3_600_000, horizon_ms + 2 * DAY_MS, T0 + days * DAY_MS]
    before = seen_from(store_url, [CLIENT], horizon_ms, asked)
    with open_writer(parse_url(store_url)) as store:
        purged = purge(store, horizon_ms)
        assert rebuild_store(store).differing == []
    assert (purged.evidence, purged.repeated > 30 * 96) == (0, True)
    assert seen_from(store_url, [CLIENT], horizon_ms, asked) == before
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_what_decides_which_answer_goes_on_is_kept(store_url: str) -> None:
    """An answer learned late is no run of answers, where one asked later was repeated before it came."""
    second, hour = 1_000, 3_600_000
    end_ms = T0 + 120 * second
    told: list[tuple[int, Evidence]] = [
        (T0, taken_over(T0, session="s")),
        (end_ms + second, said_disconnected(end_ms + second, end_ms)),
        (end_ms + 9 * second, said_disconnected(end_ms + 9 * second, end_ms)),  # repeats
        (end_ms + hour, said_connected(end_ms + 5 * second, T0)),
        (end_ms + 2 * hour, said_disconnected(end_ms + 2 * hour, end_ms)),  # repeats
        (end_ms + 4 * hour, said_never_connected(end_ms + 4 * hour)),
        (end_ms + 5 * hour, said_disconnected(end_ms + 5 * hour, end_ms)),
        (end_ms + 6 * hour, said_disconnected(end_ms + 6 * hour, end_ms)),  # repeats
        (end_ms + 7 * hour, said_disconnected(end_ms + 7 * hour, end_ms)),  # repeats
        (end_ms + 8 * hour, connect(end_ms + 8 * hour, session="t", version=1)),
        (end_ms + 9 * hour, disconnect(end_ms + 9 * hour, session="t", version=1)),
    ]
    items = learned([each for _, each in told], [known_at for known_at, _ in told])
    assert ingest(store_url, [items], LATEST).repeated == 4
    with open_writer(parse_url(store_url)) as store:
        purge(store, T0 + 9 * DAY_MS)
        assert rebuild_store(store).differing == []
        assert list(faults(store)) == []


KILLED = """
import os, sys
import ingest.purge as purging
from store.engine import open_writer, parse_url
real, left = getattr(purging, sys.argv[3]), [int(sys.argv[4])]
def dying(*args, **named):
    if not left[0]: os.kill(os.getpid(), 9)
    left[0] -= 1
    return real(*args, **named)
setattr(purging, sys.argv[3], dying)
with open_writer(parse_url(sys.argv[1])) as store:
    purging.purge(store, int(sys.argv[2]))
"""


@pytest.mark.parametrize(("where", "after"), [("_apply", 1), ("_delete", 2), ("_cut_sweeps", 1)])
def test_a_purge_that_was_killed_is_finished_by_the_next(
    store_url: str, tmp_path: Path, rng: random.Random, where: str, after: int
) -> None:
    horizon_ms = fill(store_url, rng)
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    with open_reader(parse_url(store_url)) as store:
        back_up(store, tmp_path / "whole.db")
    command = [sys.executable, "-c", KILLED, store_url, str(horizon_ms), where, str(after)]
    assert subprocess.run(command, cwd=HOME, check=False).returncode == -9
    for url in (store_url, whole):
        with open_writer(parse_url(url)) as store:
            purge(store, horizon_ms)
            assert rebuild_store(store).differing == [], url
    assert all_rows(store_url) == all_rows(whole)
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_others_write_while_a_store_is_purged(
    postgres_store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    horizon_ms = fill(postgres_store_url, rng)
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    with open_reader(parse_url(postgres_store_url)) as store:
        back_up(store, tmp_path / "whole.db")
    # Events later than all others, of every client, one batch after the other while the purge runs.
    late = [
        Learned(
            Event(client_id(number), Kind.CONNECTED, LATEST - DAY_MS + turn * 60_000, f"late-{turn}", turn),
            turn,
        )
        for turn in range(40)
        for number in range(CLIENTS)
    ]
    batches = [late[at : at + CLIENTS] for at in range(0, len(late), CLIENTS)]
    going, over = threading.Event(), threading.Event()
    counted: list[int] = []

    def write_on() -> None:
        with (
            open_writer(parse_url(postgres_store_url)) as store,
            Writer(store, clock=lambda: LATEST) as writer,
        ):
            for batch in batches:
                writer.write(batch, source="test")
                going.set()
                counted.append(not over.is_set())

    thread = threading.Thread(target=write_on)
    thread.start()
    going.wait()
    with open_writer(parse_url(postgres_store_url)) as store:
        purged = purge(store, horizon_ms)
    over.set()
    thread.join()
    assert purged.evidence + purged.checks + purged.repeated > 0
    assert sum(counted) > 1
    with open_writer(parse_url(postgres_store_url)) as store:
        purge(store, horizon_ms)
        assert rebuild_store(store).differing == []
    with open_writer(parse_url(whole)) as store, Writer(store, clock=lambda: LATEST) as writer:
        for batch in batches:
            writer.write(batch, source="test")
    names = [client_id(number) for number in range(CLIENTS)]
    asked = [horizon_ms, horizon_ms + DAY_MS // 2, LATEST + 100_000]
    assert seen_from(postgres_store_url, names, horizon_ms, asked) == seen_from(
        whole, names, horizon_ms, asked
    )
