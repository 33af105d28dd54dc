"""Bytes and time an agreeing check: a fleet swept every 15 minutes, whose answers stay what they were."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.writer import Writer
from store.engine import open_writer, parse_url
from store.model import Learned, Observation
from tests.builders import T0

THINGS = 10_000
SWEEP_MS = 15 * 60_000
PAGE = 100
DAYS = float(os.environ.get("THINGLINE_BENCH_DAYS", "1"))


def sweep(asked_ms: int) -> Iterator[Learned]:
    """Ask for every thing, a page of a hundred after another, and learn what each page said."""
    for number in range(THINGS):
        page_ms = asked_ms + number // PAGE * 70
        name = f"device-{number:05}"
        body = (
            f'{{"api":"SearchIndex","askedAt":{page_ms},"response":{{"connectivity":{{"connected":true,'
            f'"timestamp":{T0 - number}}},"thingName":"{name}"}},"thingName":"{name}"}}'
        )
        yield Learned(Observation("check", name, page_ms, body), number, asked_ms + 10_000)


@pytest.mark.bench
def test_agreeing_checks(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with open_writer(parse_url(f"sqlite:///{path}")) as store, Writer(store) as writer:
        first = writer.write(list(sweep(T0)), source="poller")
        assert (first.checks, first.repeated) == (THINGS, 0)
    before, checks = size(path), 0
    begun = time.process_time()
    spent = 0.0
    with open_writer(parse_url(f"sqlite:///{path}")) as store, Writer(store) as writer:
        for number in range(1, int(DAYS * 96)):
            batch = list(sweep(T0 + number * SWEEP_MS))
            begun = time.process_time()
            counts = writer.write(batch, source="poller")
            spent += time.process_time() - begun
            assert counts.repeated == THINGS, counts
            checks += counts.repeated
    grown = size(path) - before
    print(
        f"\n{checks:,} agreeing checks: {grown:,} bytes, {grown / checks:.2f} bytes and"
        f" {spent / checks * 1e6:.1f} us of CPU a check ({THINGS:,} things every 15 minutes, {DAYS:g} days)"
    )
    assert grown <= 4 * checks


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.iterdir())
