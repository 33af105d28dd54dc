"""How often AWS said what we would have: the check of every check, made from the evidence alone.

Our answer is the one just before the check was known, for the instants from LAG before its asking to the asking
(DESIGN rule 12); it can be told again at any time, since nothing that is known is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from store.answer import Asker, Seen, bounds_of
from store.checks import UNNAMED, WHOLE
from store.model import DUPLICATE_CLIENTID, LAG_MS, SECOND_MS, State
from store.packing import unpack_slots
from store.schema import STATES


class Outcome(StrEnum):
    """How far an answer of AWS's agreed with ours; the best that any instant of the window gives."""

    SAME = "same"  # state and instant (to a second), and the reason where both say one
    REASON = "reason"  # all but the reason
    TIMESTAMP = "timestamp"  # the state, and no more
    STATE = "state"  # not even that
    UNKNOWN = "unknown"  # we did not know


class Compared(NamedTuple):
    """One answer of AWS's beside ours; our members are those of the nearest, None where we knew nothing."""

    client_id: str
    asked_ms: int
    known_at: int
    outcome: Outcome
    connected: bool
    timestamp_ms: int | None
    disconnect_reason: str | None
    our_connected: bool | None
    our_timestamp_ms: int | None
    our_disconnect_reason: str | None


_BEST = tuple(Outcome)


def compared(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> Iterator[Compared]:
    """Compare the answers asked in `[from_ms, to_ms)` that had not been given before, by asking."""
    rows = asker.rows("all_checks", realm=asker.realm, from_ms=from_ms, to_ms=to_ms, known_at=known_at)
    for client_no, client_id, asked_ms, about_ms, named, state_no, reason, known in rows:
        state = STATES[state_no]
        if state is State.DISCONNECTED and reason == DUPLICATE_CLIENTID:
            continue  # it speaks of a session that another has replaced
        named_ms = None if named == UNNAMED else about_ms
        latest_ms = about_ms + SECOND_MS - 1 if named == WHOLE else about_ms
        window = _held(asker.around(client_no, asked_ms - LAG_MS, asked_ms, known - 1), asked_ms)
        outcomes = [
            (_BEST.index(_outcome(seen, state, named_ms, latest_ms, reason)), -place)
            for place, seen in enumerate(window)
        ]
        best, place = min(outcomes, default=(_BEST.index(Outcome.UNKNOWN), 0))
        ours = window[-place] if outcomes and _BEST[best] is not Outcome.UNKNOWN else None
        yield Compared(
            client_id,
            asked_ms,
            known,
            _BEST[best],
            state is State.CONNECTED,
            named_ms,
            reason,
            None if ours is None else ours.state.connected,
            None if ours is None else ours.timestamp_ms,
            None if ours is None else ours.reason,
        )


def _held(rows: Sequence[Seen], asked_ms: int) -> list[Seen]:
    """Leave out what begins after the asking, and what was over in the instant that it began."""
    held = [seen for seen in rows if seen.at_ms <= asked_ms]
    return [
        seen
        for place, seen in enumerate(held)
        if place + 1 == len(held) or held[place + 1].at_ms > seen.at_ms
    ]


def _outcome(seen: Seen, state: State, named_ms: int | None, latest_ms: int, reason: str | None) -> Outcome:
    if seen.state is State.UNKNOWN:
        return Outcome.UNKNOWN
    if seen.state is not state:
        return Outcome.STATE
    if named_ms is not None:
        not_before_ms, not_after_ms = bounds_of(seen)
        low = named_ms - SECOND_MS if not_before_ms is None else not_before_ms
        high = low if not_after_ms is None else not_after_ms
        exact = seen.timestamp_ms is not None
        if not exact or latest_ms + SECOND_MS < low or named_ms - SECOND_MS > high:
            return Outcome.TIMESTAMP
    if state is State.DISCONNECTED and None not in (reason, seen.reason) and reason != seen.reason:
        return Outcome.REASON
    return Outcome.SAME


def repeated(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> int:
    """Count the askings in `[from_ms, to_ms)` whose answer had been given before. Of all realms."""
    rows = asker.rows("all_sweeps", from_ms=from_ms, to_ms=to_ms, known_at=known_at)
    return sum(
        from_ms <= asked_ms < to_ms
        for earliest_ms, first_slot, slots in rows
        for _, asked_ms in unpack_slots(earliest_ms, first_slot, slots)
    )
