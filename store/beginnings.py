"""When the store's evidence begins, remembered for the moments of learning that were asked about. Pure."""

from __future__ import annotations

from bisect import bisect_left

MOST_MOMENTS = 1_000  # of learning, remembered at once


class Beginnings:
    """When the store's evidence begins, as known at moments already asked about.

    The earliest evidence known at K, itself known since J, is the earliest known at every moment from J to K;
    and what was known below the watermark never changes.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int]] = []  # (J, K, begins_ms), disjoint, ascending

    def begun(self, at_ms: int, known_at: int) -> bool | None:
        """Tell whether there is evidence up to an instant, as known at a moment; None where that is not remembered."""
        place = bisect_left(self._spans, known_at, key=_until)
        if place < len(self._spans):
            since, _, begins_ms = self._spans[place]
            if since <= known_at:
                return begins_ms <= at_ms
            if at_ms < begins_ms:
                return False  # and what is learned later only makes it earlier
        if place and self._spans[place - 1][2] <= at_ms:
            return True
        return None

    def learn(self, begins_ms: int, since: int, known_at: int, *, below: int) -> None:
        """Remember the earliest evidence known at a moment; at the watermark `below` itself more may come."""
        until = min(known_at, below - 1)
        if since <= until:
            others = [span for span in self._spans if span[0] > until or span[1] < since]
            self._spans = sorted([*others, (since, until, begins_ms)])[-MOST_MOMENTS:]


def _until(span: tuple[int, int, int]) -> int:
    return span[1]
