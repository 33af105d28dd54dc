"""Parts of a client's timeline, read from the store for a window, and cut into the periods of that window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from store.answer import Asker, Period, Seen, periods


class Cut(NamedTuple):
    """A part of one client's timeline: what holds at its beginning, what follows, and one row beyond."""

    rows: list[Seen]  # those in the window, led by the one in force at its beginning
    beyond: Seen | None  # the next one, which says from when the last stretch is proven
    from_ms: int | None
    to_ms: int | None

    def periods(self, watched: Sequence[tuple[int, int]] | None) -> Iterator[Period]:
        timeline = self.rows if self.beyond is None else [*self.rows, self.beyond]
        low_ms = -(1 << 62) if self.from_ms is None else self.from_ms
        high_ms = (1 << 62) if self.to_ms is None else self.to_ms
        for period in periods(timeline, watched):
            if period.to_ms is not None and low_ms <= period.from_ms and period.to_ms <= high_ms:
                yield period
                continue
            from_ms = period.from_ms if self.from_ms is None else max(period.from_ms, self.from_ms)
            to_ms = earliest(period.to_ms, self.to_ms)
            if to_ms is None or from_ms < to_ms:
                yield period._replace(from_ms=from_ms, to_ms=to_ms)


def cut_of(asker: Asker, client_no: int, from_ms: int | None, to_ms: int | None, known_at: int) -> Cut:
    low = -(1 << 62) if from_ms is None else from_ms
    high = (1 << 62) if to_ms is None else to_ms
    rows = asker.timeline(client_no, known_at, from_ms=low, to_ms=high)
    if from_ms is not None and (not rows or rows[0].at_ms > from_ms):
        carried = asker.before(client_no, from_ms, known_at)
        if carried is not None:
            rows.insert(0, carried)
    beyond = None
    if to_ms is not None and rows:
        after = asker.after(client_no, to_ms - 1, known_at)
        if after is not None:
            # Only as where the last stretch ends: what checks prove of that one is not of what follows.
            beyond = rows[-1]._replace(
                at_ms=after[0], proved_from_ms=after[1], confirmed_from_ms=None, confirmed_until_ms=None
            )
    return Cut(rows, beyond, from_ms, to_ms)


def latest(a: int | None, b: int | None) -> int | None:
    """Give the later of two beginnings; None: there is none."""
    return b if a is None else a if b is None else max(a, b)


def earliest(a: int | None, b: int | None) -> int | None:
    """Give the earlier of two ends; None: there is none."""
    return b if a is None else a if b is None else min(a, b)
