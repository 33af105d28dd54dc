"""How often each of AWS's APIs may be called: so many calls a second, and so many a day.

Pure: the time is a parameter, epoch ms. The defaults leave half of a default quota or more to others (FACTS:
15 SearchIndex, 350 GetThingConnectivityData and 10 ListThings a second), for an account's quotas are shared by all
that runs in it, and a fleet that cannot register a device because of its history is not served.

Calls are spaced out, never bunched: within any t seconds no more than `t x a_second + 1` are sent. When AWS throttles
a call all the same, the rate halves, once a second at most (calls that were under way fail together), down to a
thirty-second; a tenth of the full rate comes back for every half minute without throttling. The calls of a day are
counted by UTC day, from the beginning of the process on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from store.model import HOUR_MS, SECOND_MS

DAY_MS = 24 * HOUR_MS

SLOWEST = 1 / 32  # of the full rate
RECOVERY_MS = 30 * SECOND_MS
RECOVERY = 0.1  # of the full rate, for each RECOVERY_MS without throttling
HALVED_FOR_MS = SECOND_MS  # what is throttled within it is one throttling


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one API may be asked: calls a second, and calls a UTC day."""

    a_second: float
    a_day: int

    def __post_init__(self) -> None:
        if not self.a_second > 0 or self.a_day < 0:
            raise ValueError("a limit has calls a second above 0, and calls a day from 0")


# A day of sweeps of a million things every 15 minutes is 960,000 calls of SearchIndex, which 7 a second do not give;
# the ceilings are what the rates could reach in a day (SearchIndex 604,800), cut where no fleet needs that much.
LIMITS: dict[str, Limit] = {
    "SearchIndex": Limit(a_second=7, a_day=500_000),
    "GetThingConnectivityData": Limit(a_second=100, a_day=1_000_000),
    "ListThings": Limit(a_second=5, a_day=50_000),
    "GetConnection": Limit(a_second=5, a_day=100_000),
}


@dataclass(slots=True)
class _Use:
    """What became of one API's budget."""

    limit: Limit
    next_ms: float = 0  # no call before
    share: float = 1  # of the full rate, while it is cut
    shared_ms: int = 0  # since when that share holds
    day: int = -1
    today: int = 0

    def interval_ms(self, now_ms: int) -> float:
        return SECOND_MS / (self.limit.a_second * self.share_at(now_ms))

    def share_at(self, now_ms: int) -> float:
        regained = max(0, now_ms - self.shared_ms) // RECOVERY_MS * RECOVERY
        return min(1.0, self.share + regained)


class Budget:
    """The budgets of several APIs. One thread at a time; the same calls at the same times give the same waits."""

    def __init__(self, limits: Mapping[str, Limit] | None = None) -> None:
        self._uses = {api: _Use(limit) for api, limit in {**LIMITS, **(limits or {})}.items()}

    def wait_ms(self, api: str, now_ms: int) -> int:
        """Tell how long to wait before the next call; 0: it may be sent now.

        Where the day is used up that is until the next begins. A clock that was set back makes nobody wait for
        longer than the time between two calls.
        """
        use = self._uses[api]
        if self.left_today(api, now_ms) == 0:
            return (now_ms // DAY_MS + 1) * DAY_MS - now_ms
        use.shared_ms = min(use.shared_ms, now_ms)
        use.next_ms = min(use.next_ms, now_ms + use.interval_ms(now_ms))
        return max(0, _whole(use.next_ms - now_ms))

    def spend(self, api: str, now_ms: int) -> None:
        """Note that a call is sent."""
        use = self._uses[api]
        interval_ms = use.interval_ms(now_ms)
        use.next_ms = max(now_ms, min(use.next_ms, now_ms + interval_ms)) + interval_ms
        if now_ms // DAY_MS > use.day:
            use.day, use.today = now_ms // DAY_MS, 0
        use.today += 1

    def throttled(self, api: str, now_ms: int) -> None:
        """Note that AWS throttled a call: go slower."""
        use = self._uses[api]
        if use.share < 1 and 0 <= now_ms - use.shared_ms < HALVED_FOR_MS:
            return
        use.share = max(SLOWEST, use.share_at(now_ms) / 2)
        use.shared_ms = now_ms
        use.next_ms = max(use.next_ms, now_ms + use.interval_ms(now_ms))

    def rate(self, api: str, now_ms: int) -> float:
        """Give the calls a second that are allowed just now."""
        return self._uses[api].limit.a_second * self._uses[api].share_at(now_ms)

    def left_today(self, api: str, now_ms: int) -> int:
        """Give the calls that are left of the UTC day."""
        use = self._uses[api]
        spent = use.today if now_ms // DAY_MS <= use.day else 0
        return max(0, use.limit.a_day - spent)

    def spent_today(self, api: str, now_ms: int) -> int:
        """Give the calls that were sent in this UTC day."""
        return self._uses[api].limit.a_day - self.left_today(api, now_ms)

    def as_text(self, now_ms: int) -> str:
        """Write down what was spent of the UTC day, for `resume`."""
        spent = {api: count for api in self._uses if (count := self.spent_today(api, now_ms))}
        return json.dumps({"day": now_ms // DAY_MS, "spent": spent})

    def resume(self, text: str, now_ms: int) -> None:
        """Take over what was spent of this day by a process before; of another day it says nothing."""
        said = json.loads(text)
        if said["day"] == now_ms // DAY_MS:
            for api, spent in said["spent"].items():
                if (use := self._uses.get(api)) is not None:
                    use.day, use.today = said["day"], max(spent, self.spent_today(api, now_ms))


def _whole(ms: float) -> int:
    """Round up: who waits for a part of a millisecond must not come early."""
    return -int(-ms // 1)
