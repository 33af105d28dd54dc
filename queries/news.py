"""What was learned of transitions, in the order of learning: each as it was recorded, and as it was superseded.

Below the watermark nothing is ever committed again, so whoever goes on from where the last answer ended misses nothing
and is told nothing twice.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from store.answer import Asker, Seen, is_legal
from store.care import Care
from store.errors import IndexNotReady, UsageError
from store.identity import client_of

MOST_NEWS = 5_000  # told at once
RECORDED, SUPERSEDED, ALL = 0, 1, 2


class Position(NamedTuple):
    """A place in the order of learning; ALL: after whatever was learned at that moment."""

    learned_at: int
    what: int = ALL
    client_no: int = 0
    at_ms: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` wrote. Raises UsageError."""
        parts = text.split(".")
        if len(parts) != 5 or not all(
            part.removeprefix("-").isdecimal() and len(part) < 19 for part in parts
        ):
            raise UsageError(f"{ascii(text)[:80]} is no position of this stream.")
        return cls(*map(int, parts))


class Learned(NamedTuple):
    """A transition of which something was learned, and the thing whose client it is of, where that has a name."""

    position: Position
    thing_name: str | None
    client_id: str
    seen: Seen


class News(NamedTuple):
    """What was learned, ascending, and where to go on; `care`: what had been taken out of the store by then."""

    learned: list[Learned]
    until: Position
    care: Care


def news_after(asker: Asker, after: Position | None, known_at: int, most: int) -> News:
    """Tell what was learned after a position, up to a watermark. Raises IndexNotReady."""
    if after is None or after.learned_at > known_at:
        return News([], Position(known_at) if after is None else after, asker.care)
    end = Position(known_at)
    if after >= end:
        return News([], after, asker.care)
    if after.learned_at < asker.known_from_ms and asker.care.known_horizon_ms > after.learned_at:
        raise IndexNotReady("What was learned then was purged; begin anew without a position.")
    rows = asker.rows("learned_after", realm=asker.realm, known_at=known_at, most=most, **after._asdict())
    learned = []
    for learned_at, what, client_no, *row in rows:
        seen = asker.seen(tuple(row))
        client_id = asker.client_id(client_no)
        position = Position(learned_at, what, client_no, seen.at_ms, seen.seq)
        learned.append(
            Learned(position, _thing(asker, client_no, client_id, seen, known_at), client_id, seen)
        )
    return News(learned, learned[-1].position if len(rows) == most else end, asker.care)


def _thing(asker: Asker, client_no: int, client_id: str, seen: Seen, known_at: int) -> str | None:
    """Name the thing that a client spoke for when a transition took effect."""
    row = asker.rows("name_borne", at_ms=seen.at_ms, client_no=client_no, known_at=known_at)
    if row:
        return str(row[0][0])
    is_own = is_legal(client_id) and client_of(asker, client_id, seen.at_ms, known_at) == client_no
    return client_id if is_own else None
