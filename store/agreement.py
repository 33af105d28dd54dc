"""How far an answer of AWS's agrees with what we would have said: of one check, known just before it.

Ours is the answer for any instant from LAG before the asking to the asking (DESIGN rule 12), for an index may be so
far behind its broker; the best that any of them gives counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from store.answer import Asker, Seen, bounds_of
from store.model import DUPLICATE_CLIENTID, LAG_MS, SECOND_MS, Check, State


class Outcome(StrEnum):
    """How far an answer of AWS's agreed with ours; the best that any instant of the window gives."""

    SAME = "same"  # state and instant (to a second), and the reason where both say one
    REASON = "reason"  # all but the reason
    TIMESTAMP = "timestamp"  # the state, and no more
    STATE = "state"  # not even that
    UNKNOWN = "unknown"  # we did not know


_BEST = tuple(Outcome)


def is_comparable(check: Check) -> bool:
    """Tell whether an answer speaks of the connection that counts, and not of a session that another replaced."""
    return not (check.state is State.DISCONNECTED and check.reason == DUPLICATE_CLIENTID)


def agreement(
    asker: Asker, client_no: int | None, check: Check, known_at: int
) -> tuple[Outcome, Seen | None]:
    """Compare a check with what was known at `known_at`; gives our nearest answer too, None where we had none.

    `client_no` None: the store had never heard of the client. Costs a few seeks, inside a snapshot of the asker's.
    """
    if client_no is None:
        return Outcome.UNKNOWN, None
    asked_ms = check.asked_ms
    window = _held(asker.around(client_no, asked_ms - LAG_MS, asked_ms, known_at), asked_ms)
    outcomes = [(_BEST.index(_outcome(seen, check)), -place) for place, seen in enumerate(window)]
    best, place = min(outcomes, default=(_BEST.index(Outcome.UNKNOWN), 0))
    outcome = _BEST[best]
    return outcome, window[-place] if outcomes and outcome is not Outcome.UNKNOWN else None


def _held(rows: Sequence[Seen], asked_ms: int) -> list[Seen]:
    """Leave out what begins after the asking, and what was over in the instant that it began."""
    held = [seen for seen in rows if seen.at_ms <= asked_ms]
    return [
        seen
        for place, seen in enumerate(held)
        if place + 1 == len(held) or held[place + 1].at_ms > seen.at_ms
    ]


def _outcome(seen: Seen, check: Check) -> Outcome:
    if seen.state is State.UNKNOWN:
        return Outcome.UNKNOWN
    if seen.state is not check.state:
        return Outcome.STATE
    if check.named_ms is not None:
        latest_ms = check.named_ms + SECOND_MS - 1 if check.whole else check.named_ms
        not_before_ms, not_after_ms = bounds_of(seen)
        low = check.named_ms - SECOND_MS if not_before_ms is None else not_before_ms
        high = low if not_after_ms is None else not_after_ms
        exact = seen.timestamp_ms is not None
        if not exact or latest_ms + SECOND_MS < low or check.named_ms - SECOND_MS > high:
            return Outcome.TIMESTAMP
    if (
        check.state is State.DISCONNECTED
        and None not in (check.reason, seen.reason)
        and check.reason != seen.reason
    ):
        return Outcome.REASON
    return Outcome.SAME
