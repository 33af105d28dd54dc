"""Whom to ask AWS about next, one by one, beside the sweeps that ask about everything.

Pure: what is known of each thing goes in, names come out. The rule, in its order:

1. *Unknown*: the store holds nothing of its connection.
2. *Contradicted*: within the last day a check, and no event, taught its newest transition, though events do come of
   it: some get lost.
3. *Overdue*: AWS was not asked about it for the whole period, so that nothing proves its last state. Longest silent
   first: a round robin. While the sweeps come through, no thing ever is; where they do not (too large a fleet,
   throttling, no permission), this alone keeps the period as far as its budget reaches.

The first two take half of the places at most, or the third would starve. And none of them is asked again before its
patience is over: an eighth of the period, twice as long each time that AWS said what it had said before, up to a day.
That is what keeps it cheap: an answer of GetThingConnectivityData is another text than that of SearchIndex, so each
costs a row of its own, and so does the sweep's answer after it.

After a gap of the event sources everything is uncertain, and a sweep is cheaper than any choice.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from store.model import HOUR_MS, State

DAY_MS = 24 * HOUR_MS
TAUGHT_BY_CHECKS = frozenset({"check-named", "check-laid"})


class Doubt(IntEnum):
    """Why a thing is asked about, the most doubtful first."""

    UNKNOWN = 0
    CONTRADICTED = 1
    OVERDUE = 2


class Asked(NamedTuple):
    """What AWS said of a thing last."""

    at_ms: int
    answer: object  # equal to the one before where it said the same
    agreed: int = 0  # how often in a row it said so

    def again(self, at_ms: int, answer: object) -> Asked:
        """Give what is known after another answer."""
        return Asked(at_ms, answer, self.agreed + 1 if answer == self.answer else 0)


class Doubtful(NamedTuple):
    """A thing of which the store is not sure, and since when nothing was heard of it."""

    name: str
    why: Doubt
    since_ms: int


def doubt_of(
    *, name: str, at_ms: int | None, state: State | None, rule: str | None, heard: bool, now_ms: int
) -> Doubtful | None:
    """Tell whether the store is unsure of a client, by its newest transition; `heard`: events tell of it too."""
    if at_ms is None or state is None or state is State.UNKNOWN:
        return Doubtful(name, Doubt.UNKNOWN, at_ms or 0)
    if heard and rule in TAUGHT_BY_CHECKS and at_ms > now_ms - DAY_MS:
        return Doubtful(name, Doubt.CONTRADICTED, at_ms)
    return None


def patience_ms(asked: Asked, every_ms: int) -> int:
    """Tell how long a thing in doubt is left alone after it was asked about."""
    return min(DAY_MS, every_ms // 8 << min(asked.agreed, 32))


def chosen(
    doubtful: Iterable[Doubtful],
    asked: Mapping[str, Asked],
    absent: Mapping[str, Asked],
    *,
    now_ms: int,
    every_ms: int,
    due_ms: int,
    most: int,
) -> list[str]:
    """Choose `most` things at most to ask about now, in the order of asking.

    `asked` is what AWS said last, in the order of asking, the longest ago first; `due_ms` after its last asking a
    thing is overdue. `absent` is when AWS said last that there is no such thing: these can be doubtful, never overdue.
    Doubtful ones that neither holds were never asked about.
    """
    ripe = (
        each
        for each in doubtful
        if (last := asked.get(each.name) or absent.get(each.name)) is None
        or now_ms - last.at_ms >= patience_ms(last, every_ms)
    )
    overdue_from = [*islice(_overdue(asked, now_ms - due_ms), most)]
    places = most - min(len(overdue_from), most // 2)
    unsure = [each.name for each in heapq.nsmallest(places, ripe, key=_rank)]
    taken = set(unsure)
    return [*unsure, *islice((name for name in overdue_from if name not in taken), most - len(unsure))]


def _rank(each: Doubtful) -> tuple[Doubt, int, str]:
    return each.why, each.since_ms, each.name


def _overdue(asked: Mapping[str, Asked], before_ms: int) -> Iterable[str]:
    for name, last in asked.items():
        if last.at_ms > before_ms:
            return
        yield name


def next_sweep_ms(begun_ms: int, ended_ms: int, every_ms: int) -> int:
    """Tell when the next sweep begins, so that no thing waits longer than `every_ms` from one to the next.

    A sweep takes its time: what was asked first in one and last in the next waited for all of it besides. And a
    sixteenth of the period is kept for what may hold it up. A sweep that takes more than half of the period is
    followed at once.
    """
    return max(ended_ms, begun_ms + every_ms - every_ms // 16 - (ended_ms - begun_ms))
