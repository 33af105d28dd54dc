"""How often AWS said what we would have: the check of every check, made from the evidence alone.

Our answer is the one just before the check was known (store/agreement.py holds the rule); it can be told again at
any time, since nothing that is known is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from store.agreement import Outcome as Outcome
from store.agreement import agreement, is_comparable
from store.answer import Asker
from store.checks import UNNAMED, WHOLE
from store.model import Check, State
from store.packing import BLOCK, unpack_slots
from store.schema import STATES


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


def compared(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> Iterator[Compared]:
    """Compare the answers asked in `[from_ms, to_ms)` that had not been given before, by asking."""
    rows = asker.rows("all_checks", realm=asker.realm, from_ms=from_ms, to_ms=to_ms, known_at=known_at)
    for client_no, client_id, asked_ms, about_ms, named, state_no, reason, known in rows:
        named_ms = None if named == UNNAMED else about_ms
        check = Check(client_id, asked_ms, STATES[state_no], named_ms, named == WHOLE, reason)
        if not is_comparable(check):
            continue
        outcome, ours = agreement(asker, client_no, check, known - 1)
        yield Compared(
            client_id,
            asked_ms,
            known,
            outcome,
            check.state is State.CONNECTED,
            named_ms,
            reason,
            None if ours is None else ours.state.connected,
            None if ours is None else ours.timestamp_ms,
            None if ours is None else ours.reason,
        )


def repeated(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> int:
    """Count the askings in `[from_ms, to_ms)` whose answer had been given before. Of all realms."""
    return sum(1 for _ in repetitions(asker, from_ms, to_ms, known_at))


def repetitions(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> Iterator[tuple[int, int]]:
    """List `(client_no, asked_ms)` of the askings that `repeated` counts; in no order."""
    rows = asker.rows("all_sweeps", from_ms=from_ms, to_ms=to_ms, known_at=known_at)
    for earliest_ms, first_slot, slots, block_no in rows:
        for slot, asked_ms in unpack_slots(earliest_ms, first_slot, slots):
            if from_ms <= asked_ms < to_ms:
                yield block_no * BLOCK + slot, asked_ms
