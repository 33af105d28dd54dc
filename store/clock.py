"""The only module that reads a clock. Everywhere else the clock is a parameter."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> int:
    """Return now as epoch milliseconds."""
    return time.time_ns() // 1_000_000
