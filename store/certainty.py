"""How sure a state is: one client's transitions cut into periods of one answer and one certainty.

Pure: no I/O, no clock. Holds the rule of what is observed, what is inferred and what is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from store.model import MINUTE_MS, Certainty, State

# A path that recorded up to a minute ago is taken to record still; an ingester says so four times in that time.
WATCH_MS = MINUTE_MS


class Seen(NamedTuple):
    """A transition as a question finds it."""

    at_ms: int
    seq: int
    recorded_at: int
    superseded_at: int | None
    state: State
    timestamp_ms: int | None
    reason: str | None
    not_before_ms: int | None
    not_after_ms: int | None
    rule: str
    proved_from_ms: int | None
    confirmed_from_ms: int | None = None  # what checks prove of the stretch after it, where they prove any
    confirmed_until_ms: int | None = None


class Period(NamedTuple):
    """A stretch with one answer of one certainty; `to_ms` None: still open."""

    from_ms: int
    to_ms: int | None
    seen: Seen
    certainty: Certainty


def periods(timeline: Sequence[Seen], watched: Sequence[tuple[int, int]] | None) -> Iterator[Period]:
    """Cut one client's timeline into stretches, ascending, tiling from its first transition on.

    `timeline` ascends. `watched` are the instants when some path was recording, disjoint and ascending; None
    where the store holds no such statement and counts as watched throughout.
    """
    for seen, following in pairwise(timeline):
        if following.at_ms != seen.at_ms:
            yield from periods_of(seen, (following.at_ms, following.proved_from_ms), watched)
    if timeline:
        yield from periods_of(timeline[-1], None, watched)


def periods_of(
    seen: Seen, after: tuple[int, int | None] | None, watched: Sequence[tuple[int, int]] | None
) -> Iterator[Period]:
    """Cut the time of one transition; `after` is when the next transition is, later, and its proved_from."""
    to_ms, proved_ms = (None, None) if after is None else after
    if seen.state is State.UNKNOWN:
        yield Period(seen.at_ms, to_ms, seen, Certainty.UNKNOWN)
        return
    proved_ms = to_ms if proved_ms is None else max(seen.at_ms, proved_ms)
    cursor_ms = seen.at_ms
    confirmed = _confirmed(seen, proved_ms)
    if confirmed is not None:
        from_ms, until_ms = confirmed
        if from_ms > cursor_ms:
            yield from _unproved(seen, cursor_ms, from_ms, watched)
        yield Period(from_ms, until_ms, seen, Certainty.OBSERVED)
        cursor_ms = until_ms
    if proved_ms != cursor_ms:
        yield from _unproved(seen, cursor_ms, proved_ms, watched)
    if proved_ms is not None and proved_ms != to_ms:
        yield Period(proved_ms, to_ms, seen, Certainty.OBSERVED)


def _confirmed(seen: Seen, to_ms: int | None) -> tuple[int, int] | None:
    """Give the stretch that checks prove, cut at `to_ms`, where there is one."""
    from_ms, until_ms = seen.confirmed_from_ms, seen.confirmed_until_ms
    if from_ms is None or until_ms is None:
        return None
    if to_ms is not None and to_ms < until_ms:
        until_ms = to_ms
    return (from_ms, until_ms) if from_ms < until_ms else None


def period_at(
    at_ms: int,
    seen: Seen,
    after: tuple[int, int | None] | None,
    watched: Sequence[tuple[int, int]] | None,
) -> Period:
    """Cut out the period that holds at an instant of a transition's time; `after` as in `periods_of`."""
    for period in periods_of(seen, after, watched):
        if period.to_ms is None or at_ms < period.to_ms:
            return period
    raise AssertionError("periods tile the time")


def _unproved(
    seen: Seen, from_ms: int, to_ms: int | None, watched: Sequence[tuple[int, int]] | None
) -> Iterator[Period]:
    """Cut a stretch without proof: inferred while a path was recording, unknown while none was."""
    if watched is None:
        yield Period(from_ms, to_ms, seen, Certainty.INFERRED)
        return
    cursor = from_ms
    for begins_ms, ends_ms in watched:
        if ends_ms <= cursor:
            continue
        if to_ms is not None and begins_ms >= to_ms:
            break
        if begins_ms > cursor:
            yield Period(cursor, begins_ms, seen, Certainty.UNKNOWN)
            cursor = begins_ms
        end_ms = ends_ms if to_ms is None else min(ends_ms, to_ms)
        yield Period(cursor, end_ms, seen, Certainty.INFERRED)
        cursor = end_ms
    if to_ms is None or cursor < to_ms:
        yield Period(cursor, to_ms, seen, Certainty.UNKNOWN)


def watched_at(statements: Iterable[tuple[int, int]], known_at: int) -> list[tuple[int, int]]:
    """Give the instants when some path was recording, as known at a moment; disjoint and ascending.

    `statements` `[from, to)` are those known by then. A running ingester makes the last of its own longer, less than
    WATCH_MS at a time (ingest/ledger.py): one that reaches to within WATCH_MS of the moment was going on then, and is
    taken to go on for as long again, whatever became of it later.
    """
    return merged(
        [
            (from_ms, to_ms if known_at > to_ms + WATCH_MS else known_at + WATCH_MS)
            for from_ms, to_ms in statements
            if from_ms < to_ms
        ]
    )


def merged(intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join overlapping and touching half-open intervals; ascending."""
    joined: list[tuple[int, int]] = []
    for begins_ms, ends_ms in sorted(intervals):
        if joined and begins_ms <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ends_ms))
        elif begins_ms < ends_ms:
            joined.append((begins_ms, ends_ms))
    return joined


def bounds_of(seen: Seen) -> tuple[int | None, int | None]:
    """Bound the true instant of a transition: its own stamp, where nothing says otherwise."""
    if seen.not_before_ms is None and seen.not_after_ms is None:
        return seen.timestamp_ms, seen.timestamp_ms
    return seen.not_before_ms, seen.not_after_ms
