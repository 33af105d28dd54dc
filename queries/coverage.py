"""Which path was recording when, and how much of what it should have brought is missing: per source and day.

Two traces tell of lost events: a session of which only one half came though it is over, and a transition that an API
check revealed. Both are counted from what is held, on the day of the half or the transition; no answer depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import sqlalchemy as sa

from queries.times import DAY_MS, iso
from store import schema
from store.certainty import WATCH_MS, merged
from store.engine import Store
from store.errors import IndexNotReady

# What came of each source on each day of its stamps. Served by the primary key of evidence.
_EVENTS = sa.text("""
    SELECT w.text, e.at_ms / 86400000, count(*), avg(e.known_at - e.at_ms), max(e.known_at - e.at_ms)
    FROM evidence e JOIN texts w ON w.text_no = e.source_no
    WHERE e.at_ms >= :from_ms AND e.at_ms < :to_ms
    GROUP BY w.text, e.at_ms / 86400000
""")
# Sessions with a connect and no end, of clients that connected again later; and ends without a connect. The source is
# that of the half that came. Only where all evidence bears session ids: else halves belong together unseen.
_HALVES = sa.text("""
    SELECT w.text, x.at_ms / 86400000, sum(x.lost_connect), sum(1 - x.lost_connect) FROM (
        SELECT s.client_no, coalesce(s.connect_ms, s.disconnect_ms) AS at_ms,
            CASE WHEN s.connect_ms IS NULL THEN 1 ELSE 0 END AS lost_connect
        FROM session_rows s JOIN clients c ON c.client_no = s.client_no
        WHERE c.has_strays = 0 AND (s.connect_ms IS NULL OR (s.disconnect_ms IS NULL AND EXISTS (
            SELECT 1 FROM session_rows n
            WHERE n.client_no = s.client_no AND coalesce(n.connect_ms, n.disconnect_ms) > s.connect_ms
        )))
    ) x JOIN evidence e ON e.at_ms = x.at_ms AND e.client_no = x.client_no AND e.digest = (
        SELECT min(f.digest) FROM evidence f WHERE f.at_ms = x.at_ms AND f.client_no = x.client_no
    ) JOIN texts w ON w.text_no = e.source_no
    WHERE x.at_ms >= :from_ms AND x.at_ms < :to_ms
    GROUP BY w.text, x.at_ms / 86400000
""")
_REVEALED = sa.text("""
    SELECT t.at_ms / 86400000, count(*)
    FROM transitions t JOIN rules k ON k.rule_no = t.rule_no
    WHERE t.superseded_at IS NULL AND k.name IN ('check-named', 'check-laid')
        AND t.at_ms >= :from_ms AND t.at_ms < :to_ms
    GROUP BY t.at_ms / 86400000
""")
_WATCHES = sa.text("SELECT source, from_ms, to_ms FROM watches")


class Day(NamedTuple):
    """A source on a UTC day. Instants in epoch ms; the day cut at what was asked for."""

    source: str
    day_ms: int
    watched_ms: int | None  # None: the ledger knows nothing of this source
    gaps: list[tuple[int, int]]  # between its first and its last recording
    events: int
    mean_lag_ms: int | None  # from an event's stamp to its commit
    longest_lag_ms: int | None
    lost_connects: int  # ends that came without their beginning
    lost_disconnects: int  # beginnings without end, of clients that connected again

    @property
    def loss(self) -> float | None:
        """Estimate the share of events that never came; None where none came at all."""
        lost = self.lost_connects + self.lost_disconnects
        return lost / (self.events + lost) if self.events else None


class Path(NamedTuple):
    """A source as a whole."""

    source: str
    from_ms: int
    to_ms: int
    is_watching: bool  # or was, less than a minute ago


class Coverage(NamedTuple):
    """All of it; days ascend, within a day the sources."""

    paths: list[Path]
    days: list[Day]
    revealed: list[tuple[int, int]]  # a day, and how many transitions API checks revealed on it


def coverage(store: Store, from_ms: int, to_ms: int, *, now_ms: int) -> Coverage:
    """Tell of `[from_ms, to_ms)`. Costs a scan of the sessions, and of the events in that time.

    Raises IndexNotReady where it begins before what a purge left: what is kept of earlier events says nothing of loss.
    """
    asked = {"from_ms": from_ms, "to_ms": to_ms}
    with store.reading() as connection:
        horizon_ms = connection.scalar(sa.select(sa.func.max(schema.care.c.horizon_ms)))
        if horizon_ms is not None and from_ms < horizon_ms:
            raise IndexNotReady(
                "The history of this store was purged up to a later time than the one asked for."
            )
        watched: dict[str, list[tuple[int, int]]] = {}
        for source, begins_ms, ends_ms in connection.execute(_WATCHES):
            watched.setdefault(source, []).append((begins_ms, ends_ms))
        came = {tuple(row[:2]): row[2:] for row in connection.execute(_EVENTS, asked)}
        halves = {tuple(row[:2]): row[2:] for row in connection.execute(_HALVES, asked)}
        revealed = [(row[0] * DAY_MS, row[1]) for row in connection.execute(_REVEALED, asked)]
    ledger = {source: merged(each) for source, each in watched.items()}
    keys = {*came, *halves, *_days(ledger, from_ms, to_ms)}
    days = []
    for source, day in sorted(keys, key=lambda key: (key[1], key[0])):
        low, high = max(from_ms, day * DAY_MS), min(to_ms, (day + 1) * DAY_MS)
        events, mean_ms, longest_ms = came.get((source, day), (0, None, None))
        lost_connects, lost_disconnects = halves.get((source, day), (0, 0))
        held = ledger.get(source)
        days.append(
            Day(
                source,
                day * DAY_MS,
                None if held is None else sum(b - a for a, b in _cut(held, low, high)),
                [] if held is None else list(_gaps(held, low, high)),
                events,
                None if mean_ms is None else int(mean_ms),
                longest_ms,
                int(lost_connects),
                int(lost_disconnects),
            )
        )
    paths = [
        Path(source, held[0][0], held[-1][1], now_ms <= held[-1][1] + WATCH_MS)
        for source, held in sorted(ledger.items())
    ]
    return Coverage(paths, days, sorted(revealed))


def _cut(held: Sequence[tuple[int, int]], low: int, high: int) -> Iterator[tuple[int, int]]:
    for begins_ms, ends_ms in held:
        if begins_ms < high and ends_ms > low:
            yield max(begins_ms, low), min(ends_ms, high)


def _gaps(held: Sequence[tuple[int, int]], low: int, high: int) -> Iterator[tuple[int, int]]:
    yield from _cut([(a[1], b[0]) for a, b in pairwise(held)], low, high)


def _days(ledger: dict[str, list[tuple[int, int]]], from_ms: int, to_ms: int) -> Iterator[tuple[str, int]]:
    """Name the days on which the ledger knows a source, its gaps included."""
    for source, held in ledger.items():
        low, high = max(from_ms, held[0][0]), min(to_ms, held[-1][1])
        for day in range(low // DAY_MS, -(-high // DAY_MS)):
            yield source, day


def as_json(found: Coverage) -> Iterator[dict[str, Any]]:
    """Give the lines of `coverage --json`."""
    for path in found.paths:
        yield {
            "kind": "path",
            "source": path.source,
            "from": iso(path.from_ms),
            "to": iso(path.to_ms),
            "watching": path.is_watching,
        }
    for day in found.days:
        yield {
            "kind": "day",
            "source": day.source,
            "day": iso(day.day_ms)[:10],
            "watchedMs": day.watched_ms,
            "gaps": [{"from": iso(a), "to": iso(b)} for a, b in day.gaps],
            "events": day.events,
            "meanLagMs": day.mean_lag_ms,
            "longestLagMs": day.longest_lag_ms,
            "lostConnects": day.lost_connects,
            "lostDisconnects": day.lost_disconnects,
            "estimatedLoss": None if day.loss is None else round(day.loss, 6),
        }
    for day_ms, count in found.revealed:
        yield {"kind": "revealed", "day": iso(day_ms)[:10], "transitions": count}
