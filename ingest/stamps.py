"""What a timestamp in somebody's JSON means, or that it cannot be known.

Owns the reading of stamps by magnitude and as text. It must never guess: what has two readings has none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from store.model import MINUTE_MS

FIRST_MS = 1_262_304_000_000  # 2010-01-01; AWS IoT is younger
END_MS = 4_102_444_800_000  # 2100-01-01
FAR_FUTURE_MS = 10 * MINUTE_MS  # a stamp this much after its receipt is no stamp (AWS admits two minutes)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)
# The four ranges of a unit's plausible numbers do not meet: ms per unit, and units per ms.
_UNITS = ((1_000, 1), (1, 1), (1, 1_000), (1, 1_000_000))


def stamp_ms(value: object) -> int | None:
    """Read a stamp as epoch ms: seconds, ms, us or ns by magnitude, as number or text, or ISO 8601 with zone.

    Parts of a millisecond are cut off. None for all that is not one instant in [2010, 2100): other numbers,
    text without a zone, other types.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _scaled(value)
    if isinstance(value, float):
        return _scaled(Decimal(repr(value))) if -1e19 < value < 1e19 else None
    if isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return _scaled(Decimal(text))
        return _iso(text)
    return None


def _scaled(number: int | Decimal) -> int | None:
    for times, parts in _UNITS:
        if FIRST_MS * parts <= number * times < END_MS * parts:
            return int(number * times // parts)
    return None


def _iso(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            return None
        at_ms = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return at_ms if FIRST_MS <= at_ms < END_MS else None


def iso(ms: int) -> str:
    """Write epoch ms as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
