"""The watch ledger of a running ingester: which path was recording when, one row a stretch (DESIGN rule 14).

A source says with what it delivers that its path recorded; here that becomes rows. While a source goes on, its last
row is made longer with each commit: `thingline run` for a year is one row, not one a minute. How such a row is read
as known at an earlier moment stands in store/certainty.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import sqlalchemy as sa

from store.certainty import WATCH_MS
from store.engine import Store

_ENDED = sa.text("SELECT max(to_ms) FROM watches WHERE source = :source")


class Watched(NamedTuple):
    """What a source says of its path: it recorded throughout `[from_ms, to_ms)`.

    And if it was recording at any instant from `unbroken_ms` on, then ever since: a durable queue that still exists
    kept what came while nobody read it. None: nothing is known of the time before `from_ms`.
    """

    from_ms: int
    to_ms: int
    unbroken_ms: int | None = None


class Stretch(NamedTuple):
    """A row of the ledger to be written: new, or (`was_ms`: where it ended) one that goes on."""

    source: str
    from_ms: int
    to_ms: int
    was_ms: int | None = None


class Ledger:
    """What the ledger holds of the sources of one ingester. One thread at a time.

    `plan` says what to write; `wrote` must follow once that is committed, and only then.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, tuple[int, int]] = {}  # the newest row of each source of this run
        self._earlier: dict[str, int | None] = {}  # until when the source of an earlier run was recording

    def plan(self, said: Iterable[tuple[str, Watched]]) -> list[Stretch]:
        """Turn what sources say, in the order in which they said it, into rows; nothing is changed by it."""
        held = dict(self._held)
        rows: dict[tuple[str, int], Stretch] = {}
        for source, each in said:
            for row in self._rows(source, each, held.get(source)):
                place = row.source, row.from_ms
                rows[place] = row._replace(was_ms=rows.get(place, row).was_ms)
                stretch = row.from_ms, row.to_ms
                held[source] = max(held.get(source, stretch), stretch, key=_end)
        return list(rows.values())

    def gaps(self, stretches: Iterable[Stretch]) -> bool:
        """Tell whether one of the rows that `plan` gave begins after its source had not been recording."""
        return any(
            row.was_ms is None
            and (ended_ms := self._reached_ms(row.source)) is not None
            and row.from_ms > ended_ms
            for row in stretches
        )

    def wrote(self, stretches: Iterable[Stretch]) -> None:
        """Keep in mind what was committed."""
        for source, from_ms, to_ms, _ in stretches:
            row = from_ms, to_ms
            self._held[source] = max(self._held.get(source, row), row, key=_end)

    def _rows(self, source: str, said: Watched, held: tuple[int, int] | None) -> Iterator[Stretch]:
        begun_ms, reached_ms = (None, self._ended_ms(source)) if held is None else held
        if begun_ms is not None and said.from_ms < begun_ms:  # it was recording before it was first read
            yield Stretch(source, said.from_ms, begun_ms)
        if reached_ms is None:
            yield Stretch(source, said.from_ms, said.to_ms)
        elif said.to_ms > reached_ms:
            since_ms = said.from_ms if said.unbroken_ms is None else min(said.from_ms, said.unbroken_ms)
            if since_ms > reached_ms:
                yield Stretch(source, said.from_ms, said.to_ms)
            elif begun_ms is None or said.to_ms - reached_ms > WATCH_MS:
                yield Stretch(source, min(said.from_ms, reached_ms), said.to_ms)
            else:
                yield Stretch(source, begun_ms, said.to_ms, reached_ms)

    def _reached_ms(self, source: str) -> int | None:
        return self._held[source][1] if source in self._held else self._ended_ms(source)

    def _ended_ms(self, source: str) -> int | None:
        if source not in self._earlier:
            with self._store.reading() as connection:
                self._earlier[source] = connection.execute(_ENDED, {"source": source}).scalar()
        return self._earlier[source]


def _end(stretch: tuple[int, int]) -> int:
    return stretch[1]
