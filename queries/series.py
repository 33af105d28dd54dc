"""How many things were connected over time: a bucket a row, exact. Pure.

One pass over the changes of each thing, then one over the buckets: a thing counts at an instant as its answer of that
instant says. What changes at the very beginning of a bucket counts in it, and is in its first count.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from queries.uptime import Counted, Span, Stretch

MOST_BUCKETS = 1_000_000

_STATES = (Counted.CONNECTED, Counted.DISCONNECTED, Counted.UNKNOWN)

# What happens where the answer changes: into which state, and whether from the same one.
_HAPPENED = {
    (Counted.CONNECTED, False): "connects",
    (Counted.DISCONNECTED, False): "disconnects",
    (Counted.CONNECTED, True): "takeovers",
}


class Bucket(NamedTuple):
    """One bucket, `[from_ms, to_ms)`: counts at its beginning, the least and the most connected at any instant of it.

    `connects` and `disconnects` are changes of the answer into that state from another; takeovers change no state.
    """

    from_ms: int
    to_ms: int
    connected: int
    disconnected: int
    unknown: int
    least: int
    most: int
    connects: int
    disconnects: int
    takeovers: int


class Series:
    """Adds up things, one after another. Memory: 8 bytes a change, beside the buckets.

    `starts` ascend; the last bucket ends with `to_ms`, later than they.
    """

    def __init__(self, starts: Sequence[int], to_ms: int) -> None:
        self._starts = starts
        self._to_ms = to_ms
        # Of each bucket: the instants at which the count rises and falls, the instant doubled, odd where it rises.
        self._changes = [array("q") for _ in starts]
        # ... and by how much each state has changed at its beginning since the one before; and what happened in it.
        self._at = {state: [0] * (len(starts) + 1) for state in _STATES}
        self._happened = {name: [0] * len(starts) for name in _HAPPENED.values()}

    @property
    def window(self) -> Span:
        """From the first bucket's beginning to the last one's end."""
        return self._starts[0], self._to_ms

    def add(self, stretches: Sequence[Stretch]) -> None:
        """Add one thing; its stretches tile the window at least, and where there is so much a millisecond before."""
        low_ms, high_ms = self.window
        for each in stretches:
            if each.counted in _STATES and each.from_ms < high_ms and each.to_ms > low_ms:
                self._count(each)
        for before, after in pairwise(stretches):
            if not low_ms <= after.from_ms < high_ms:
                continue
            happened = _HAPPENED.get((after.counted, after.counted is before.counted))
            if after.turn and happened is not None:
                self._happened[happened][bisect_right(self._starts, after.from_ms) - 1] += 1

    def _count(self, each: Stretch) -> None:
        begins, ends = (self._place(ms) for ms in (each.from_ms, each.to_ms))
        self._at[each.counted][begins] += 1
        self._at[each.counted][ends] -= 1
        if each.counted is Counted.CONNECTED:
            for at_ms, rises in ((each.from_ms, 1), (each.to_ms, 0)):
                if self._starts[0] < at_ms < self._to_ms:
                    self._changes[bisect_right(self._starts, at_ms) - 1].append(2 * at_ms + rises)

    def _place(self, at_ms: int) -> int:
        """Find the first bucket that begins at an instant or later."""
        return bisect_right(self._starts, at_ms - 1)

    def buckets(self) -> Iterator[Bucket]:
        """Give the buckets, ascending."""
        counts = dict.fromkeys(_STATES, 0)
        for at, from_ms in enumerate(self._starts):
            for state in _STATES:
                counts[state] += self._at[state][at]
            least, most = self._extremes(at, counts[Counted.CONNECTED])
            yield Bucket(
                from_ms=from_ms,
                to_ms=self._starts[at + 1] if at + 1 < len(self._starts) else self._to_ms,
                connected=counts[Counted.CONNECTED],
                disconnected=counts[Counted.DISCONNECTED],
                unknown=counts[Counted.UNKNOWN],
                least=least,
                most=most,
                **{name: happened[at] for name, happened in self._happened.items()},
            )

    def _extremes(self, at: int, connected: int) -> Span:
        """Tell the least and the most connected within a bucket; what changes at one instant changes at once."""
        least = most = connected
        changes = (each for each in sorted(self._changes[at]) if each // 2 > self._starts[at])
        for _, together in groupby(changes, key=lambda each: each // 2):
            connected += sum(1 if each % 2 else -1 for each in together)
            least, most = min(least, connected), max(most, connected)
        return least, most
