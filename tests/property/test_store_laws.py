"""The laws of DESIGN section 2, on a real SQLite file and a real PostgreSQL, thousands of histories a store.

A history is one client. What one ingest writes is compared, row for row, with the oracle of tests/oracle.py.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.reduce import reduce_events
from ingest.writer import Writer
from store.answer import Asker, Seen
from store.engine import open_reader, open_writer, parse_url
from store.model import Event, Learned, Transition
from tests import oracle
from tests.builders import T0
from tests.strategies import History, at_each_boundary, complete_history, history

HISTORIES = 300
NOW = T0 + 400 * 86_400_000  # later than every stamp of the histories


NASTY_IDS = (
    "a/b/{}",
    "a:b:{}",
    "x" * 124 + "{:04}",  # 128 characters
    "d\u00fcse-{}",
    "\U0001f50c {}",
    " {} ",
    "'; --{}",
    "%s{}",
    "\u202e{}",
)


def client_id(number: int) -> str:
    """Name a client; every tenth in a way that breaks what is not written for it."""
    return NASTY_IDS[number // 10 % len(NASTY_IDS)].format(number) if number % 10 == 9 else f"client-{number}"


def histories(rng: random.Random, count: int = HISTORIES) -> list[History]:
    return [history(rng, client_id(number)) for number in range(count)]


def in_turn(rng: random.Random, drawn: Sequence[History]) -> list[Event]:
    """Interleave the arrivals of many clients; each client's own order stays."""
    queues = [list(reversed(one.events)) for one in drawn]
    turns = [number for number, queue in enumerate(queues) for _ in queue]
    rng.shuffle(turns)
    return [queues[number].pop() for number in turns]


def learned(events: Iterable[Event], known_at: int | None = None) -> list[Learned]:
    return [Learned(event, position, known_at) for position, event in enumerate(events)]


def ingest(url: str, batches: Iterable[Sequence[Learned]], *, clock: Any = lambda: NOW) -> None:
    with open_writer(parse_url(url)) as store, Writer(store, clock=clock) as writer:
        for _ in writer.write_all(batches, source="test"):
            pass


def cut(rng: random.Random, items: Sequence[Learned], most: int) -> list[Sequence[Learned]]:
    """Cut into batches of random sizes."""
    batches = []
    start = 0
    while start < len(items):
        size = rng.randint(1, most)
        batches.append(items[start : start + size])
        start += size
    return batches


def timelines(url: str, known_at: int = 1 << 60) -> dict[str, list[Transition]]:
    """Read every client's timeline, as known at an instant."""
    found: dict[str, list[Transition]] = {}
    with open_reader(parse_url(url)) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        for client_no, client_id in driver.execute("SELECT client_no, client_id FROM clients").fetchall():
            found[client_id] = [transition(seen) for seen in asker.timeline(client_no, known_at)]
    return {client_id: rows for client_id, rows in found.items() if rows}


def transition(seen: Seen) -> Transition:
    not_before_ms, not_after_ms = seen.not_before_ms, seen.not_after_ms
    if not_before_ms is None and not_after_ms is None:
        not_before_ms = not_after_ms = seen.timestamp_ms
    return Transition(
        seen.at_ms,
        seen.state,
        seen.timestamp_ms,
        seen.reason,
        not_before_ms,
        not_after_ms,
        seen.rule,
        seen.proved_from_ms,
    )


def all_rows(url: str, *, without: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """Read every row of the timelines, superseded ones too, in names rather than numbers."""
    columns = ["c.client_id", "t.at_ms", "t.seq", "t.recorded_at", "t.superseded_at", "t.state"]
    columns += [
        "t.timestamp_ms",
        "w.text",
        "t.not_before_ms",
        "t.not_after_ms",
        "t.rule_no",
        "t.proved_from_ms",
    ]
    chosen: list[sa.ColumnElement[Any]] = [
        sa.literal_column(column) for column in columns if column not in without
    ]
    with open_reader(parse_url(url)) as store, store.reading() as connection:
        rows = connection.execute(
            sa.select(*chosen).select_from(
                sa.text(
                    "transitions t JOIN clients c ON c.client_no = t.client_no"
                    " LEFT JOIN texts w ON w.text_no = t.reason_no"
                )
            )
        )
        return sorted((tuple(row) for row in rows), key=repr)


def by_client(events: Iterable[Event]) -> dict[str, list[Event]]:
    grouped: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        grouped[event.client_id].append(event)
    return grouped


def expected(events: Iterable[Event]) -> dict[str, list[Transition]]:
    return {client_id: oracle.timeline(own) for client_id, own in by_client(events).items()}


def assert_same(found: dict[str, list[Transition]], wanted: dict[str, list[Transition]]) -> None:
    assert found.keys() == wanted.keys()
    for client_id, rows in wanted.items():
        assert found[client_id] == rows, client_id


def test_any_order_in_any_batches_gives_the_timeline_of_the_oracle(
    store_url: str, rng: random.Random
) -> None:
    """Laws 1 and 3: what arrives one by one, late and in batches ends as what is reduced from scratch."""
    events = in_turn(rng, histories(rng))
    ingest(store_url, cut(rng, learned(events), 1_500))
    assert_same(timelines(store_url), expected(events))


def test_complete_evidence_answers_with_the_truth(store_url: str, rng: random.Random) -> None:
    """Law 5: with every event delivered, in any order, each boundary answers as AWS would have."""
    drawn = [complete_history(rng, client_id(number)) for number in range(HISTORIES)]
    ingest(store_url, cut(rng, learned(in_turn(rng, drawn)), 2_000))
    with open_reader(parse_url(store_url)) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        for one in drawn:
            number = asker.client_named(one.client_id)
            assert number is not None
            for truth in at_each_boundary(one.truth):
                period = asker.in_force(number, truth.at_ms, 1 << 60)
                assert period is not None
                seen = period.seen
                assert (seen.state, seen.timestamp_ms, seen.reason) == truth[1:4], one.client_id


def test_evidence_delivered_again_changes_no_row(store_url: str, rng: random.Random) -> None:
    """Law 2: redelivery, in another order and in other batches, leaves every row as it was."""
    events = in_turn(rng, histories(rng, 70))
    ingest(store_url, cut(rng, learned(events), 200))
    before = all_rows(store_url)
    again = [*events, *events]
    rng.shuffle(again)
    ingest(store_url, cut(rng, learned(again), 300), clock=lambda: NOW + 1_000)
    assert all_rows(store_url) == before


def test_how_equal_moments_are_cut_into_batches_never_shows(
    sqlite_store_url: str, postgres_store_url: str, rng: random.Random
) -> None:
    """Law 3, superseded rows included: one batch on one engine, crumbs on the other."""
    events = in_turn(rng, histories(rng, 70))
    moments = sorted(rng.choices(range(NOW - 200, NOW), k=len(events)))
    items = [Learned(event, at, known) for at, (event, known) in enumerate(zip(events, moments, strict=True))]
    ingest(sqlite_store_url, [items])
    ingest(postgres_store_url, cut(rng, items, 40))
    assert all_rows(sqlite_store_url) == all_rows(postgres_store_url)


@pytest.mark.parametrize(("most", "count", "asked"), [(1, 12, 16), (60, 80, 8), (3_000, 300, 3)])
def test_an_answer_as_known_then_is_that_of_the_evidence_known_then(
    store_url: str, rng: random.Random, most: int, count: int, asked: int
) -> None:
    """Law 4: nothing learned later leaks into an earlier view, nothing known then is lost."""
    events = in_turn(rng, histories(rng, count))
    moments = sorted(rng.choices(range(NOW - 30, NOW), k=len(events)))
    items = [Learned(event, at, known) for at, (event, known) in enumerate(zip(events, moments, strict=True))]
    ingest(store_url, cut(rng, items, most))
    for known_at in sorted(rng.sample(range(NOW - 31, NOW + 1), asked)):
        then = [event for event, known in zip(events, moments, strict=True) if known <= known_at]
        assert_same(timelines(store_url, known_at), expected(then))


def test_the_reducer_equals_the_oracle(rng: random.Random) -> None:
    for one in histories(rng, 4_000):
        assert reduce_events(one.events) == oracle.timeline(one.events), one
