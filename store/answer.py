"""The point answer: what GetThingConnectivityData would have said of a thing at T, as known at K.

One module for both sides: commands ask it about the past, the poller asks it what we would have said. Opens no
connection of its own. What it rests on is had from here too: how sure a state is (store/certainty.py), and who
asks the store (store/asker.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from store.asker import Asker as Asker
from store.certainty import Period as Period
from store.certainty import Seen as Seen
from store.certainty import bounds_of as bounds_of
from store.certainty import period_at as period_at
from store.certainty import periods as periods
from store.errors import IndexNotReady, InvalidRequest, ResourceNotFound
from store.identity import client_of
from store.model import Certainty, State
from store.seeks import prepared as prepared

_EVER_MS = 1 << 62
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}\Z")  # GetThingConnectivityData, thingName


# Structs, because one is built for each of millions of questions, at an eighth of a frozen dataclass's cost.
class LastKnown(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last answer that was known, where the present one is not."""

    connected: bool
    timestamp_ms: int | None
    disconnect_reason: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the API would have said at `at_ms`, as known at `known_at`, and how sure that is.

    `connected` is None where the state is unknown. `[not_before_ms, not_after_ms]` bounds the true timestamp;
    None where there is none. `rule` names the rule that made the transition in force.
    """

    thing_name: str | None
    client_id: str
    at_ms: int
    known_at: int
    connected: bool | None
    timestamp_ms: int | None
    disconnect_reason: str | None
    certainty: Certainty
    not_before_ms: int | None
    not_after_ms: int | None
    rule: str
    last_known: LastKnown | None = None


def answer_of(period: Period, *, thing_name: str | None, client_id: str, at_ms: int, known_at: int) -> Answer:
    """Say what a period says at one of its instants; later than `known_at`, never better than inferred."""
    seen, certainty = period.seen, period.certainty
    if at_ms > known_at and certainty is Certainty.OBSERVED:
        certainty = Certainty.INFERRED
    known = certainty is not Certainty.UNKNOWN
    not_before_ms, not_after_ms = bounds_of(seen)
    return Answer(
        thing_name=thing_name,
        client_id=client_id,
        at_ms=at_ms,
        known_at=known_at,
        connected=seen.state.connected if known else None,
        timestamp_ms=seen.timestamp_ms if known else None,
        disconnect_reason=seen.reason if known else None,
        certainty=certainty,
        not_before_ms=not_before_ms if known else None,
        not_after_ms=(at_ms if certainty is Certainty.INFERRED else not_after_ms) if known else None,
        rule=seen.rule,
        last_known=None if known or seen.state is State.UNKNOWN else last_known(seen),
    )


def said_at(answer: Answer, at_ms: int) -> Answer:
    """Say an answer of `answer_of` at another instant of its period, on the same side of its `known_at`."""
    if answer.certainty is Certainty.INFERRED:
        return _replaced(answer, at_ms=at_ms, not_after_ms=at_ms)
    return _replaced(answer, at_ms=at_ms)


_replaced = msgspec.structs.replace


def last_known(seen: Seen) -> LastKnown:
    """Give the answer of a transition as the last one known."""
    return LastKnown(
        connected=bool(seen.state.connected),
        timestamp_ms=seen.timestamp_ms,
        disconnect_reason=seen.reason,
    )


def is_legal(thing_name: str) -> bool:
    """Tell whether AWS would take this as a thing's name."""
    return _LEGAL_NAME.match(thing_name) is not None


def check_name(thing_name: str) -> None:
    """Refuse what AWS would refuse as a thing's name. Raises InvalidRequest."""
    if not is_legal(thing_name):
        raise InvalidRequest(
            "1 validation error detected: Value at 'thingName' failed to satisfy constraint:"
            " Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+ and have 1 to 128 characters"
        )


class Lasting(NamedTuple):
    """An answer, and the instants `[from_ms, to_ms)` about its own at which `said_at` tells what is answered."""

    answer: Answer
    from_ms: int
    to_ms: int


def ask(
    asker: Asker, thing_name: str, at_ms: int, *, known_at: int, now_ms: int, by_client: bool = False
) -> Answer:
    """Answer for a thing (or, `by_client`, for the client of that id) at `at_ms`, as known at `known_at`.

    Raises InvalidRequest, IndexNotReady or ResourceNotFound, as AWS would.
    """
    return lasting(asker, thing_name, at_ms, known_at=known_at, now_ms=now_ms, by_client=by_client).answer


def lasting(
    asker: Asker, thing_name: str, at_ms: int, *, known_at: int, now_ms: int, by_client: bool = False
) -> Lasting:
    """Answer as `ask` does, and tell for how long.

    For that instant alone, where more than one client's transitions have a say: the registry, or events that bear the
    thing's name.
    """
    if not by_client:
        check_name(thing_name)
    check_past(at_ms, now_ms)
    asker.check_horizon(at_ms, known_at)
    registry = None if by_client else asker.registry(thing_name, known_at)
    if registry is not None and registry.is_registered(at_ms) is False:
        raise nothing_known(asker, thing_name, at_ms, known_at, registered=False)
    held = _held(asker, thing_name, at_ms, known_at=known_at, by_client=by_client)
    if held is None:
        raise nothing_known(asker, thing_name, at_ms, known_at)
    answer, period = held
    if registry is not None or (not by_client and asker.thing_named(thing_name) is not None):
        return Lasting(answer, at_ms, at_ms + 1)
    from_ms, to_ms = (
        max(period.from_ms, asker.care.horizon_ms),
        _EVER_MS if period.to_ms is None else period.to_ms,
    )
    if at_ms <= known_at:
        return Lasting(answer, from_ms, min(to_ms, known_at + 1))
    return Lasting(answer, max(from_ms, known_at + 1), to_ms)


def answer_held(asker: Asker, thing_name: str, at_ms: int, *, known_at: int) -> Answer | None:
    """Answer from the timeline alone, for an instant that may be asked about; None where it says nothing.

    Whether there was such a thing is for `Asker.is_registered`; `ask` puts the two together.
    """
    held = _held(asker, thing_name, at_ms, known_at=known_at)
    return None if held is None else held[0]


def _held(
    asker: Asker, thing_name: str, at_ms: int, *, known_at: int, by_client: bool = False
) -> tuple[Answer, Period] | None:
    client_no = asker.client_named(thing_name) if by_client else client_of(asker, thing_name, at_ms, known_at)
    period = None if client_no is None else asker.in_force(client_no, at_ms, known_at)
    if client_no is None or period is None:
        return None
    answer = answer_of(
        period,
        thing_name=None if by_client and not is_legal(thing_name) else thing_name,
        client_id=thing_name if by_client else asker.client_id(client_no),
        at_ms=at_ms,
        known_at=known_at,
    )
    return answer, period


def check_past(at_ms: int, now_ms: int) -> None:
    """Refuse the future. Raises InvalidRequest."""
    if at_ms > now_ms:
        raise InvalidRequest("The time asked for lies in the future.")


def nothing_known(
    asker: Asker, thing_name: str, at_ms: int, known_at: int, *, registered: bool = True
) -> IndexNotReady | ResourceNotFound:
    """Give AWS's error for a thing of which nothing is known at an instant: the store's, or the thing's.

    Looked up only then: where something is known, the store's history has begun.
    """
    if not asker.begun(at_ms, known_at):
        return IndexNotReady("The history of this store begins later than the time asked for.")
    if not registered:
        return ResourceNotFound(
            f"There was no thing {thing_name} at that time (`thingline registry {thing_name}`); what its client did"
            " then --client tells."
        )
    return ResourceNotFound(f"The resource {thing_name} was not known at that time.")
