"""How often AWS said what we would have: the check of every check, made from the evidence alone.

Our answer is the one just before the check was known (store/agreement.py holds the rule); it can be told again at
any time, since nothing that is known is ever overwritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
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
    """Count the askings in `[from_ms, to_ms)` whose answer had been given before."""
    return sum(1 for _ in repetitions(asker, from_ms, to_ms, known_at))


def repetitions(asker: Asker, from_ms: int, to_ms: int, known_at: int) -> Iterator[tuple[str, int]]:
    """List `(client id, asked_ms)` of the askings that `repeated` counts; in no order. Memory: the clients' ids."""
    names = dict(asker.rows("numbered_clients", realm=asker.realm))
    rows = asker.rows("all_sweeps", from_ms=from_ms, to_ms=to_ms, known_at=known_at)
    for earliest_ms, first_slot, slots, block_no in rows:
        for slot, asked_ms in unpack_slots(earliest_ms, first_slot, slots):
            name = names.get(block_no * BLOCK + slot)
            if name is not None and from_ms <= asked_ms < to_ms:
                yield name, asked_ms


# --- In groups ----------------------------------------------------------------------------------------------


class By(StrEnum):
    """What agreement is told by."""

    DAY = "day"  # of asking, as calendars of a zone have it
    REASON = "reason"  # AWS's disconnectReason; NONE where connected
    THING = "thing"  # the client id, which for AWS is the thing's name


@dataclass(slots=True)
class Agreement:
    """How far AWS and we agreed about one day, reason or thing."""

    key: str
    outcomes: Counter[Outcome] = field(default_factory=Counter)  # of the answers that were new
    repeated: int | None = 0  # answers as AWS had given before; of them no reason is kept, so None by reason

    @property
    def answers(self) -> int:
        """Count the answers, where it is known how many there were."""
        return self.outcomes.total() + (self.repeated or 0)

    @property
    def share(self) -> float | None:
        """Give the share of the answers that were the same as ours; None where we knew of nothing."""
        known = self.answers - self.outcomes[Outcome.UNKNOWN]
        return (self.outcomes[Outcome.SAME] + (self.repeated or 0)) / known if known else None


def grouped(
    by: By, answers: Iterable[Compared], again: Iterable[tuple[str, int]], day_of: Callable[[int], str]
) -> list[Agreement]:
    """Add answers up by what each key of theirs is. `again` as of `repetitions`; `day_of` names an instant's day.

    Days ascend; reasons go by their number of answers; of things the one that differs most often comes first.
    """
    groups: dict[str, Agreement] = {}

    def group(key: str) -> Agreement:
        if key not in groups:
            groups[key] = Agreement(key, repeated=None if by is By.REASON else 0)
        return groups[key]

    for one in answers:
        if by is By.REASON:
            key = "NONE" if one.connected else one.disconnect_reason or "-"
        else:
            key = day_of(one.asked_ms) if by is By.DAY else one.client_id
        group(key).outcomes[one.outcome] += 1
    if by is not By.REASON:
        for client_id, asked_ms in again:
            found = group(day_of(asked_ms) if by is By.DAY else client_id)
            found.repeated = (found.repeated or 0) + 1
    order: dict[By, Callable[[Agreement], tuple[int, str]]] = {
        By.DAY: lambda one: (0, one.key),
        By.REASON: lambda one: (-one.answers, one.key),
        By.THING: lambda one: (-_differing(one), one.key),
    }
    return sorted(groups.values(), key=order[by])


def _differing(one: Agreement) -> int:
    return sum(one.outcomes[outcome] for outcome in (Outcome.REASON, Outcome.TIMESTAMP, Outcome.STATE))
