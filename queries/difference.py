"""What differs between two instants, and what happened between them. Pure.

The rule, for each thing, from its stretches between the two instants, both included:

1. *New*: there was no such thing at the first, there is at the second; *deleted*: the other way round; *recreated*: at
   both, and at some instant between there was none.
2. *Went down*, *came up*: connected at the one, disconnected at the other. `at` is when the state of the second instant
   began; a stretch that is unknown interrupts no state.
3. *Became unknown*, *became known*: the state is unknown at the one, known at the other.
4. *Flapped*: the same state at both, and another between. *Reason changed*: disconnected throughout, for
   another reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import pairwise, takewhile
from typing import NamedTuple

from queries.uptime import Counted, Stretch


class Change(StrEnum):
    """How a thing differs, in the order in which a report counts them."""

    WENT_DOWN = "wentDown"
    CAME_UP = "cameUp"
    FLAPPED = "flapped"
    REASON_CHANGED = "reasonChanged"
    NEW = "new"
    DELETED = "deleted"
    RECREATED = "recreated"
    BECAME_UNKNOWN = "becameUnknown"
    BECAME_KNOWN = "becameKnown"


class Difference(NamedTuple):
    """How one thing differs.

    `at_ms` is when what holds at the second instant began to (of what flapped: the last time), `first_ms` when the
    state first changed after the first instant. `changes` counts changes between connected and disconnected; `down_ms`
    is the time disconnected between the instants; `reasons` those of its disconnects, in order.
    """

    change: Change
    before: Counted
    after: Counted
    first_ms: int
    at_ms: int
    changes: int
    down_ms: int
    reason_before: str | None
    reason_after: str | None
    reasons: tuple[str, ...]


_KNOWN = (Counted.CONNECTED, Counted.DISCONNECTED)


def difference(stretches: Sequence[Stretch]) -> Difference | None:
    """Tell how the end of a thing's stretches differs from their beginning; None: not at all.

    They tile `[first instant, second instant + 1 ms)`, ascending.
    """
    first, last = stretches[0], stretches[-1]
    known = [each for each in stretches if each.counted in _KNOWN]
    turns = [later.from_ms for earlier, later in pairwise(known) if earlier.counted is not later.counted]
    change = _change(stretches, len(turns))
    if change is None:
        return None
    down = [each for each in known if each.counted is Counted.DISCONNECTED]
    began_ms = _began(stretches, known, change)
    until_ms = last.to_ms - 1  # the last millisecond only shows how it stands
    return Difference(
        change=change,
        before=first.counted,
        after=last.counted,
        first_ms=turns[0] if turns else began_ms,
        at_ms=began_ms,
        changes=len(turns),
        down_ms=sum(min(each.to_ms, until_ms) - each.from_ms for each in down),
        reason_before=first.reason,
        reason_after=last.reason,
        reasons=tuple(dict.fromkeys(each.reason or "UNKNOWN" for each in down)),
    )


def _change(stretches: Sequence[Stretch], changes: int) -> Change | None:
    before, after = stretches[0], stretches[-1]
    absent = Counted.NOT_REGISTERED
    if absent in (before.counted, after.counted):
        if before.counted is after.counted:
            return None
        return Change.NEW if before.counted is absent else Change.DELETED
    if any(each.counted is absent for each in stretches):
        return Change.RECREATED
    match before.counted, after.counted:
        case Counted.CONNECTED, Counted.DISCONNECTED:
            return Change.WENT_DOWN
        case Counted.DISCONNECTED, Counted.CONNECTED:
            return Change.CAME_UP
        case earlier, later if earlier is not later:
            return Change.BECAME_UNKNOWN if later is Counted.UNKNOWN else Change.BECAME_KNOWN
    if changes:
        return Change.FLAPPED
    return Change.REASON_CHANGED if before.reason != after.reason else None


def _began(stretches: Sequence[Stretch], known: Sequence[Stretch], change: Change) -> int:
    """Tell when what holds at the end began to."""
    last = stretches[-1]
    match change:
        case Change.WENT_DOWN | Change.CAME_UP:
            return _back_to(known, lambda each: each.counted is last.counted)
        case Change.FLAPPED:
            return _back_to(known, lambda each: each.counted is known[-1].counted)
        case Change.REASON_CHANGED:
            return _back_to(known, lambda each: each.reason == last.reason)
        case Change.NEW | Change.RECREATED:
            return _back_to(stretches, lambda each: each.counted is not Counted.NOT_REGISTERED)
    return _back_to(stretches, lambda each: each.counted is last.counted)


def _back_to(stretches: Sequence[Stretch], holds: Callable[[Stretch], bool]) -> int:
    """Go back from the end as long as something holds; give where the last such stretch begins."""
    return list(takewhile(holds, reversed(stretches)))[-1].from_ms
