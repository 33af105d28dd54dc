"""What a query over a whole fleet costs: the first of an instant, and those after it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from ingest.writer import Writer
from queries.fleet import Fleet
from queries.history import History, open_history
from queries.search_query import parse
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, Event, Learned, Observation
from tests.builders import T0, connect, disconnect

pytestmark = pytest.mark.bench

THINGS = 100_000
DAY_MS = 24 * HOUR_MS


def written(members: dict[str, Any]) -> str:
    """Write an observation as the decoder does: what the index said is found by how it begins."""
    return json.dumps(members, separators=(",", ":"))


def told_of(number: int, rng: random.Random) -> Iterator[Event | Observation]:
    """Tell of one thing: created, connected twice, and described by the index once."""
    name, at_ms = f"pump-{number:06}", T0 - 29 * DAY_MS
    described = {
        "thingName": name,
        "thingId": f"id-{number}",
        "thingTypeName": f"type-{number % 5}",
        "attributes": {"site": f"s{number % 50}", "model": str(number % 7)},
    }
    created = {"eventType": "THING_EVENT", "operation": "CREATED", "timestamp": at_ms - DAY_MS, **described}
    yield Observation("registry", name, at_ms - DAY_MS, written(created))
    for version in range(2):
        at_ms += rng.randrange(HOUR_MS)
        yield connect(at_ms, client_id=name, session=f"{number:08x}-{version}", version=version)
        if version == 0 or number % 10 == 0:
            at_ms += rng.randrange(HOUR_MS)
            yield disconnect(at_ms, client_id=name, session=f"{number:08x}-{version}", version=version)
    thing = {**described, "thingGroupNames": [f"g{number % 20}"]}
    thing["connectivity"] = {"connected": number % 10 != 0, "timestamp": at_ms}
    asked = {"api": "SearchIndex", "askedAt": T0 - DAY_MS, "thingName": name, "response": thing}
    yield Observation("check", name, T0 - DAY_MS, written(asked))


def test_queries_over_a_fleet(store_url: str) -> None:
    rng = random.Random(1)
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        for first in range(0, THINGS, 2_000):
            told = (one for number in range(first, first + 2_000) for one in told_of(number, rng))
            writer.write([Learned(one, 0) for one in told], source="bench")
    with open_history(store_url, clock=lambda: T0 + 1) as history:
        fleet = Fleet()
        down = "connectivity.connected:false"
        costs: list[tuple[str, Callable[[], int]]] = [
            ("one name", lambda: found(history, Fleet(), "thingName:pump-000017")),
            (
                "100 names of a prefix, the names read first",
                lambda: found(history, fleet, "thingName:pump-0000*"),
            ),
            ("a first page", lambda: found(history, fleet, "*", most=100)),
            ("10 names of a prefix, nothing read", lambda: found(history, Fleet(), "thingName:pump-00001*")),
            ("a group, the first of its instant", lambda: found(history, Fleet(), "thingGroupNames:g1")),
            ("what is down, the first of its instant", lambda: found(history, fleet, down)),
            (
                "what is down at a site, after it",
                lambda: found(history, fleet, f"{down} AND attributes.site:s1*"),
            ),
            ("all, after it", lambda: found(history, fleet, "*")),
        ]
        print(f"  {THINGS:,} things on {store_url.partition(':')[0]}")
        for what, run in costs:
            began_s = time.perf_counter()
            count = run()
            print(f"  {what:45} {time.perf_counter() - began_s:8.3f} s  {count:,} things")


def found(history: History, fleet: Fleet, query: str, most: int | None = None) -> int:
    """Count what a query finds."""
    with history.reading() as reading:
        return sum(1 for _ in islice(fleet.matching(reading, parse(query), T0), most))
