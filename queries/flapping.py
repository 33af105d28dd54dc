"""Which things flap: one outage after another, each soon over. Pure.

The rule: a thing flaps where at least `outages` short outages begin within `within_ms` of one another. An outage is
*short* if it lasts less than `shorter_ms` and both its beginning and its end were seen. One that the client asked for
(CLIENT_INITIATED_DISCONNECT) is none: a device that sleeps and wakes by a plan does not flap, however often. Storms
that overlap are one *episode*.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from queries.uptime import Outage
from store.errors import UsageError
from store.model import HOUR_MS, MINUTE_MS

ASKED_FOR = "CLIENT_INITIATED_DISCONNECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What flapping is. Raises UsageError for a rule that means nothing."""

    outages: int = 5
    shorter_ms: int = 5 * MINUTE_MS
    within_ms: int = HOUR_MS

    def __post_init__(self) -> None:
        if self.outages < 2:
            raise UsageError("One outage is no flapping; give --outages 2 or more.")
        if self.shorter_ms <= 0 or self.within_ms <= 0:
            raise UsageError("Give --shorter and --within as lengths of time above none, as 5m.")


class Flapping(NamedTuple):
    """How a thing flapped. `most` is the largest number of short outages that began within the rule's time."""

    outages: int  # in the episodes
    episodes: Sequence[tuple[int, int]]  # from the first outage's beginning to the last one's end, ms
    most: int
    down_ms: int
    reasons: dict[str, int]  # outages by reason, most first
    asked_for: int  # short outages that the client asked for, which do not count


def flapping(outages: Iterable[Outage], rule: Rule) -> Flapping | None:
    """Tell how a thing flapped, from its outages, ascending; None: it did not."""
    whole = (each for each in outages if each.begins and each.ends)
    short = [each for each in whole if each.to_ms - each.from_ms < rule.shorter_ms]
    counted = [each for each in short if each.reason != ASKED_FOR]
    begins = [each.from_ms for each in counted]
    # Of each outage, how many begin from it on within the time.
    follow = [bisect_left(begins, from_ms + rule.within_ms) - at for at, from_ms in enumerate(begins)]
    spans: list[tuple[int, int]] = []  # of places in `counted`
    for at, many in enumerate(follow):
        if many >= rule.outages:
            first = spans.pop()[0] if spans and at < spans[-1][1] else at
            spans.append((first, at + many))
    if not spans:
        return None
    episodes = [counted[first:beyond] for first, beyond in spans]
    told = [each for episode in episodes for each in episode]
    return Flapping(
        outages=len(told),
        episodes=[(episode[0].from_ms, episode[-1].to_ms) for episode in episodes],
        most=max(follow),
        down_ms=sum(each.down_ms for each in told),
        reasons=dict(Counter(each.reason or "UNKNOWN" for each in told).most_common()),
        asked_for=len(short) - len(counted),
    )
