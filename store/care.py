"""What was taken out of a store: the horizon of its purges, and how often a device was forgotten.

One row. Every writer's transaction shares it, so that whoever changes it waits for those that run and is seen by
all that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

ALWAYS_MS = -(1 << 62)

_READ = "SELECT horizon_ms, known_horizon_ms, forgotten FROM care"


class Care(NamedTuple):
    """The first instant, and the first moment of learning, that can be asked about; and how much was forgotten."""

    horizon_ms: int = ALWAYS_MS
    known_horizon_ms: int = ALWAYS_MS
    forgotten: int = 0


NO_CARE = Care()


def care_of(execute: Callable[[str], Any], *, lock: str = "") -> Care:
    """Read what was taken out. `lock` is PostgreSQL's, for those who write."""
    row = execute(_READ + lock).fetchone()
    if row is None:
        return NO_CARE
    return Care(ALWAYS_MS if row[0] is None else row[0], ALWAYS_MS if row[1] is None else row[1], row[2])
