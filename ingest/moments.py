"""Which moment each piece of a batch counts as known from (DESIGN: known_at)."""

from __future__ import annotations

from store.rows import Mark


class Moments:
    """The moments of one batch: the clock's for what is learned now, a recording's own where it is honoured.

    `mark` is what the batches before left behind, `live_ms` what is learned now counts as known from.
    """

    def __init__(self, mark: Mark, source_no: int, live_ms: int, now: int) -> None:
        self._last = mark.last_known_at
        self._replaying = mark.replay_source_no == source_no
        self._source_no = source_no
        self._live_ms = live_ms
        self._now = now

    def of(self, own_ms: int | None) -> tuple[int, int | None]:
        """Give known_at, and the recording's own where that could not be honoured. Ascending calls only."""
        if own_ms is None:
            return self._live(), None
        if self._last < own_ms <= self._now or (self._replaying and own_ms == self._last):
            self._last = own_ms
            self._replaying = True
            return own_ms, None
        if self._replaying:  # a recording out of order: as early as what it taught already allows
            return self._last, own_ms
        return self._live(), own_ms

    def _live(self) -> int:
        self._last = max(self._last, self._live_ms)
        self._replaying = False
        return self._last

    def mark(self) -> Mark:
        """Give the mark that the batch leaves behind."""
        return Mark(self._last, self._source_no if self._replaying else None)
