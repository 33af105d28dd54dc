"""Back-filling gives the very rows that ingesting gives, whatever was there before, and goes on where it was killed."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.backfill import Backfill
from ingest.simulate import Choices, simulate
from ingest.writer import Writer
from queries.history import open_history
from store.engine import open_writer, parse_url
from store.errors import IndexNotReady, StoreUnfinished
from store.model import Event, Learned, Observation
from tests.builders import T0, connect, observed
from tests.contents import contents
from tests.contract.test_batches import every_row
from tests.contract.test_crash import NewUrl, new_url
from tests.processes import finish, here, run, start
from tests.strategies import checked_history, history

__all__ = ["new_url"]  # a fixture

NOW = T0 + 400 * 86_400_000
HISTORIES = 50
Batches = Sequence[Sequence[Learned]]


def ingested(url: str, batches: Batches) -> None:
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: NOW) as writer:
        for _ in writer.write_all(batches, source="test"):
            pass


def backfilled(url: str, batches: Batches) -> Backfill:
    with open_writer(parse_url(url)) as store, Backfill(store, clock=lambda: NOW) as backfill:
        for _ in backfill.write_all(batches, source="test"):
            pass
        backfill.finish()
    return backfill


def drawn(rng: random.Random, prefix: str, *, checks: bool, recorded: bool) -> Batches:
    """Draw many clients' histories, mixed, in batches; their own moments of learning ascend."""
    evidence: list[Event | Observation] = []
    for number in range(HISTORIES):
        one = (checked_history if checks else history)(rng, f"{prefix}{number}")
        evidence += [*one.events, *map(observed, one.checks)]
    rng.shuffle(evidence)
    moments = itertools.count(NOW - 10**9, 7)
    items = [Learned(each, place, next(moments) if recorded else None) for place, each in enumerate(evidence)]
    return [items[at : at + 1_500] for at in range(0, len(items), 1_500)]


@pytest.mark.parametrize("recorded", [False, True], ids=["live", "recorded"])
def test_the_rows_are_those_of_ingest_superseded_ones_included(
    store_url: str, other_store_url: str, rng: random.Random, recorded: bool
) -> None:
    batches = drawn(rng, "client-", checks=False, recorded=recorded)
    ingested(store_url, batches)
    backfill = backfilled(other_store_url, batches)
    look = every_row if store_url.startswith("sqlite") else contents  # PostgreSQL numbers names in no order
    wanted, found = look(store_url), look(other_store_url)
    for table in wanted:
        assert found[table] == wanted[table], table
    assert backfill.derived == len(wanted["transitions"]) > HISTORIES


def test_into_a_store_that_holds_a_history_already(
    store_url: str, other_store_url: str, rng: random.Random
) -> None:
    """Clients with a past, checked ones among them, and clients without; and what is told between."""
    before = drawn(rng, "client-", checks=True, recorded=True)
    after = [
        [item._replace(known_at_ms=None) for item in batch]
        for batch in drawn(rng, "client-", checks=False, recorded=True)
    ]
    after += [[Learned(connect(T0, session="s", version=0, client_id=f"new-{n}"), n) for n in range(300)]]
    for url in (store_url, other_store_url):
        ingested(url, before)
    ingested(store_url, after)
    backfilled(other_store_url, after)
    assert contents(other_store_url) == contents(store_url)


def test_from_the_first_check_on_the_rest_is_ingested(
    store_url: str, other_store_url: str, rng: random.Random
) -> None:
    batches = [
        *drawn(rng, "plain-", checks=False, recorded=False),
        *drawn(rng, "client-", checks=True, recorded=False),
        *drawn(rng, "more-", checks=False, recorded=False),
    ]
    ingested(store_url, batches)
    backfilled(other_store_url, batches)
    assert contents(other_store_url) == contents(store_url)


def test_until_it_is_complete_no_question_sees_it_and_nothing_else_is_written(store_url: str) -> None:
    def cut_short() -> Iterator[list[Learned]]:
        for number in range(4):
            yield [Learned(connect(T0 + number, session=f"s{number}", version=number), number)]
        raise KeyboardInterrupt

    with open_writer(parse_url(store_url)) as store, Backfill(store, clock=lambda: NOW) as backfill:
        writing = backfill.write_all(cut_short(), source="test")
        with pytest.raises(KeyboardInterrupt):
            list(writing)
    ingested_or_not: list[Learned] = [Learned(connect(T0 + 9, session="t", version=1), 0)]
    with open_history(store_url) as past, pytest.raises(IndexNotReady):
        past.at("pump-17", T0 + 5)
    with pytest.raises(StoreUnfinished, match="run the same `thingline backfill` again"):
        ingested(store_url, [ingested_or_not])
    assert here("rebuild", "--store", store_url) == 3
    backfilled(store_url, [[Learned(connect(T0, session="s0", version=0), 0)]])
    with open_history(store_url) as past:
        assert past.at("pump-17", T0 + 5).connected
    ingested(store_url, [ingested_or_not])


def recording(folder: Path, seed: int) -> Path:
    """Write a fleet's events, late and doubled ones among them, into one file."""
    folder.mkdir()
    choices = Choices(things=80, days=1, seed=seed, late=0.2, duplicates=0.2, check_minutes=0)
    (folder / "fleet.ndjson").write_bytes(b"".join(simulate(choices).lines()))
    return folder


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_again_and_again_it_goes_on_and_ends_as_if_never_stopped(
    new_url: NewUrl, rng: random.Random, tmp_path: Path, kills: int, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recording(tmp_path / "fleet", rng.randrange(1_000))
    undisturbed, url = new_url(), new_url()
    begun = time.monotonic()
    code, _, err = run("backfill", str(folder), "--store", undisturbed)
    lasted = time.monotonic() - begun
    assert code == 0, err
    killed = 0
    while killed < kills:
        process = start("backfill", str(folder), "--store", url)
        time.sleep(lasted * rng.uniform(0.1, 0.9))
        process.send_signal(signal.SIGKILL)
        code, _, err = finish(process)
        assert code in (0, -signal.SIGKILL), err
        if code:
            killed += 1
        else:  # the machine is faster than it was: begin anew, and strike sooner
            url, lasted = new_url(), 0.8 * lasted
    assert here("backfill", str(folder), "--store", url) == 0
    wanted = contents(undisturbed)
    assert contents(url) == wanted
    capfd.readouterr()
    assert here("rebuild", "--store", url) == 0
    assert capfd.readouterr().out.endswith(" 0 clients differed\n")
    assert here("backfill", str(folder), "--store", url) == 0  # and again changes nothing
    assert contents(url) == wanted


def test_what_it_prints_teaches_and_counts(tmp_path: Path, sqlite_store_url: str) -> None:
    code, out, _ = run("backfill", "docs/sample.ndjson", "--store", sqlite_store_url)
    assert (code, out.split(",")[0]) == (0, "10 records: 10 events")
    shown: Any = run("at", "pump-17", "2026-11-01T03:12:00Z", "--store", sqlite_store_url)[1]
    assert "DISCONNECTED (observed)" in shown
