"""The watch ledger of a running ingester: one row a stretch, and what it tells as known at any moment."""

from __future__ import annotations

import random
from functools import partial

import sqlalchemy as sa

from ingest.ledger import Ledger, Stretch, Watched
from ingest.writer import Writer
from store.certainty import WATCH_MS, watched_at
from store.engine import open_reader, open_writer, parse_url
from tests.builders import T0

S = 1_000


def rows(url: str) -> list[tuple[int, int]]:
    with open_reader(parse_url(url)) as store, store.reading() as connection:
        found = connection.execute(sa.text("SELECT from_ms, to_ms FROM watches ORDER BY from_ms"))
        return [(row[0] - T0, row[1] - T0) for row in found]


def write(url: str, *said: Watched) -> list[Stretch]:
    """Write what a source says as an ingester of its own does, one commit each."""
    wrote: list[Stretch] = []
    with open_writer(parse_url(url)) as store:
        ledger = Ledger(store)
        for each in said:
            with Writer(store, clock=partial(int, each.to_ms)) as writer:
                planned = ledger.plan([("queue", each)])
                writer.write([], source="queue", watched=planned)
                ledger.wrote(planned)
                wrote += planned
    return wrote


def beat(at_s: int, *, unbroken_s: int | None = None) -> Watched:
    """Say that the path records now."""
    unbroken_ms = None if unbroken_s is None else T0 + unbroken_s * S
    return Watched(T0 + at_s * S, T0 + at_s * S, unbroken_ms)


def test_what_goes_on_is_one_row(store_url: str) -> None:
    write(store_url, *(Watched(T0 + at * S, T0 + (at + 15) * S) for at in range(0, 3_000, 15)))
    assert rows(store_url) == [(0, 3_000 * S)]


def test_a_durable_queue_that_nobody_read_was_watching(store_url: str) -> None:
    """It leaves no gap, but two rows: what nobody knew then must not seem to have been known."""
    write(store_url, Watched(T0, T0 + 10 * S))
    write(store_url, beat(7_200, unbroken_s=-50), beat(7_230, unbroken_s=-50))
    assert rows(store_url) == [(0, 10 * S), (10 * S, 7_230 * S)]


def test_what_was_not_kept_meanwhile_is_a_gap(store_url: str) -> None:
    write(store_url, Watched(T0, T0 + 10 * S))
    last = Watched(T0 + 7_200 * S, T0 + 7_201 * S, T0 + 20 * S)  # it was made anew, 20 s later
    with open_writer(parse_url(store_url)) as store:
        ledger = Ledger(store)
        assert ledger.gaps(ledger.plan([("queue", last)]))
        assert not ledger.gaps(ledger.plan([("other", last)]))
    write(store_url, last)
    assert rows(store_url) == [(0, 10 * S), (7_200 * S, 7_201 * S)]


def test_what_was_sent_before_it_was_first_read_was_recorded(store_url: str) -> None:
    write(store_url, Watched(T0 + 90 * S, T0 + 100 * S), Watched(T0 + 40 * S, T0 + 110 * S))
    assert rows(store_url) == [(40 * S, 90 * S), (90 * S, 110 * S)]


def test_many_sayings_of_one_commit_are_one_row() -> None:
    class Empty:
        def reading(self) -> None:
            raise AssertionError

    ledger = Ledger(Empty())  # type: ignore[arg-type]
    ledger._earlier["queue"] = None
    said = [("queue", Watched(T0 + at * S, T0 + (at + 1) * S)) for at in range(20)]
    assert ledger.plan(said) == [Stretch("queue", T0, T0 + 20 * S)]
    ledger.wrote(ledger.plan(said))
    said = [("queue", Watched(T0 + at * S, T0 + (at + 1) * S)) for at in range(20, 40)]
    assert ledger.plan(said) == [Stretch("queue", T0, T0 + 40 * S, T0 + 20 * S)]


def test_what_was_watched_as_known_at_a_moment_is_the_same_for_ever(rng: random.Random) -> None:
    """Law 4, though a row grows in place: no later writing changes what was said as known at an earlier moment."""
    for _ in range(500):
        rows: list[tuple[int, int, int]] = []  # from, to, known_at
        said: dict[int, list[tuple[int, int]]] = {}

        def as_known(known_at: int, rows: list[tuple[int, int, int]] = rows) -> list[tuple[int, int]]:
            return watched_at([row[:2] for row in rows if row[2] <= known_at], known_at)

        now_ms = 0
        for _ in range(12):
            step_ms = rng.choice((1, 15_000, WATCH_MS, WATCH_MS + 1, 300_000))
            for known_at in (now_ms, now_ms + step_ms // 2, now_ms + step_ms - 1):
                said.setdefault(known_at, as_known(known_at))
            now_ms += step_ms
            if rows and now_ms - rows[-1][1] <= WATCH_MS and rng.random() < 0.8:
                rows[-1] = rows[-1][0], now_ms, rows[-1][2]
            else:
                begins_ms = rows[-1][1] if rows and rng.random() < 0.5 else now_ms - 1
                rows.append((begins_ms, now_ms, now_ms))
        for known_at, then in said.items():
            assert as_known(known_at) == then, (rows, known_at)
