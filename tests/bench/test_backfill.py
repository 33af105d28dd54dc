"""Back-filling beside our own live path, in one run on one recording: the same rows, and how much faster."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.backfill import Backfill
from ingest.decode import decode_stream
from ingest.files import Batches
from store.engine import open_writer, parse_url
from tests.bench.test_ingest import LARGE, LONG, lines, ours, timed
from tests.builders import T0
from tests.conftest import new_database
from tests.contents import fingerprint

pytestmark = pytest.mark.bench

EVENTS = int(os.environ.get("THINGLINE_BENCH_EVENTS", "500000"))
DEVICES = 10_000
ROUNDS = 3


def backfilled(url: str, data: bytes) -> None:
    chunks = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
    with open_writer(parse_url(url)) as store, Backfill(store) as backfill:
        for _ in backfill.write_all(Batches(decode_stream(chunks, now=lambda: T0 + 10**12)), source="bench"):
            pass
        backfill.finish()


def beside_live(
    new_url: Callable[[str], str], events: int = EVENTS, devices: int = DEVICES, rounds: int = ROUNDS
) -> None:
    data = lines(random.Random(1), events, devices)
    rates: dict[str, list[float]] = {"live": [], "backfill": []}
    for turn in range(rounds):
        for name, run in (("live", ours), ("backfill", backfilled)):
            url = new_url(f"{name}{turn}")
            rates[name].append(events / timed(lambda: run(url, data)))  # noqa: B023 - run at once
        live, filled = (fingerprint(new_url(f"{name}{turn}")) for name in rates)
        assert filled == live
    middle = {name: statistics.median(found) for name, found in rates.items()}
    print(f"\n{events:,} events, {devices:,} devices, rounds in turn: {rounds}, medians")
    for name, found in rates.items():
        print(
            f"  {name:<8} {middle[name]:>10,.0f} events/s   {middle[name] / middle['live']:5.2f} x live"
            f"   ({min(found):,.0f} .. {max(found):,.0f})"
        )


@pytest.mark.parametrize(("events", "devices", "rounds"), [(EVENTS, DEVICES, ROUNDS), LARGE, LONG])
def test_backfill_into_sqlite(tmp_path: Path, events: int, devices: int, rounds: int) -> None:
    print("\nSQLite")
    beside_live(lambda name: f"sqlite:///{tmp_path}/{name}.db", events, devices, rounds)


def test_backfill_into_postgresql(postgres_url: str) -> None:
    print("\nPostgreSQL (fsync off)")
    made: dict[str, str] = {}
    with ExitStack() as databases:

        def new_url(name: str) -> str:
            if name not in made:
                made[name] = databases.enter_context(new_database(postgres_url))
            return made[name]

        beside_live(new_url)
