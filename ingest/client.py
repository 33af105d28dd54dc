"""What a writer keeps in mind of one client: the end of its history, and what the API said last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.reduce import (
    SKEW_MS,
    Placed,
    identity,
    stamp_of,
)
from store.model import (
    SECOND_MS,
    Check,
    Identity,
    Session,
    State,
    Transition,
)

# Sessions to keep in memory a client, at least; and all within 2 SKEW of its newest. With fewer, a batch of many
# sessions loses sight of neighbours that move one another.
TAIL = 5
STRAY_TAIL = 32  # ... of a client whose evidence lacks session ids
_NEAR_NEWEST_MS = 3 * SKEW_MS
NEAR_MS = 2 * SECOND_MS  # a stamp later than all checks by this much is none that they named


class Newest(NamedTuple):
    """The last transition of a timeline, as far as a check can tell it."""

    at_ms: int
    state: State
    timestamp_ms: int | None


Last = Newest | Transition


class Told(NamedTuple):
    """A check on its way into the timeline, with its answer (ingest/sweeps.py)."""

    check: Check
    answer: str


@dataclass(slots=True)
class Run:
    """The newest answer of the API that was told of a client, and until when it was repeated.

    A check that repeats it, and agrees with the newest transition, changes nothing but `last_asked_ms`.
    """

    check: Check
    answer: str  # ingest/sweeps.py
    known_at: int
    last_asked_ms: int
    last_known_at: int  # of the last step that proved something, or repeated it (and then alone)

    def repeats(self, answer: str, asked_ms: int, known_at: int, newest: Last | None) -> bool:
        """Tell whether a check, the only evidence of its step, says again what the newest transition says."""
        return (
            answer == self.answer
            and asked_ms > self.last_asked_ms
            and known_at > self.last_known_at
            and newest is not None
            and newest.state is self.check.state
            and newest.at_ms <= asked_ms
            and (
                self.check.named_ms is None
                or (
                    newest.timestamp_ms is not None
                    and abs(newest.timestamp_ms - self.check.named_ms) < NEAR_MS
                )
            )
        )


@dataclass(slots=True)
class Client:
    """What a writer keeps in mind of one client: the end of its history."""

    client_no: int
    tail: dict[Identity, Session] = field(default_factory=dict)
    opens_left: bool = False  # the tail is not the whole history
    far_end_ms: int | None = (
        None  # latest disconnect of a session beyond the tail that has a connect, if known
    )
    newest_ms: int = -1  # largest stamp of a session in the tail
    last: Session | None = None  # the newest session, where it has a connect and no neighbour moves it
    tip: tuple[Placed, list[Transition]] | None = (
        None  # `last` in its place, and what follows its start; if known
    )
    first_ms: int | None = None
    has_strays: bool = False
    last_known_at: int | None = None
    written_in: int | None = None  # PostgreSQL: the transaction that wrote the client's row last
    checked_ms: int | None = None  # latest instant that a check named or was asked; None: never checked
    plain: bool = True  # no check has a say in what follows the start of `last`
    newest: Last | None = None  # the last row of the timeline, where it is known
    run: Run | None = None


def resumed(
    client_no: int,
    sessions: Iterable[Session],
    *,
    opens_left: bool,
    first_ms: int | None,
    last_known_at: int | None,
    has_strays: bool = False,
) -> Client:
    """Bring a client to mind by the newest sessions of its history; no check speaks of it."""
    tail = {identity(session): session for session in sessions}
    return Client(
        client_no=client_no,
        tail=tail,
        last=find_last(tail),
        opens_left=opens_left,
        newest_ms=max(map(stamp_of, tail.values()), default=-1),
        first_ms=first_ms,
        has_strays=has_strays,
        last_known_at=last_known_at,
    )


def instant_of(check: Check) -> int:
    """Give the instant that a check speaks of: the one it names, else that of asking."""
    return check.asked_ms if check.named_ms is None else check.named_ms


def find_last(tail: dict[Identity, Session]) -> Session | None:
    """Give the newest session of a tail, if it has a connect and comes last at its own stamp."""
    last = max(tail.values(), key=stamp_of, default=None)
    return last if last is not None and last.connect_ms is not None and _follows(last, tail) else None


def _follows(session: Session, tail: dict[Identity, Session]) -> bool:
    """Tell whether a session no older than the tail comes last in session order, at its own stamp."""
    stamp_ms = stamp_of(session)
    for other in tail.values():
        if stamp_ms - stamp_of(other) <= SKEW_MS and other.session_id != session.session_id:
            if session.version is None or other.version is None or other.version > session.version:
                return False
            if stamp_of(other) == stamp_ms:
                return False
    return True


def alone(session: Session) -> Placed:
    """Place a session that no neighbour moves."""
    start_ms = stamp_of(session)
    end_ms = None if session.disconnect_ms is None else max(session.disconnect_ms, start_ms)
    return Placed(session, start_ms, end_ms)


def trim(client: Client, *, times: int = 2) -> None:
    """Cut a tail that is so many times as long as it must be."""
    keep = STRAY_TAIL if client.has_strays else TAIL
    if len(client.tail) < times * keep:
        return
    ranked = sorted(client.tail.items(), key=lambda item: stamp_of(item[1]))
    floor_ms = client.newest_ms - _NEAR_NEWEST_MS
    cut = 0
    while len(ranked) - cut > keep and stamp_of(ranked[cut][1]) < floor_ms:
        cut += 1
    # Sessions of one stamp stay together, so that "older than the tail" is a question of the stamp alone.
    while cut and stamp_of(ranked[cut - 1][1]) == stamp_of(ranked[cut][1]):
        cut -= 1
    if cut:
        if client.has_strays and not (client.opens_left and client.far_end_ms is None):
            client.far_end_ms = latest_end((row for _, row in ranked[:cut]), client.far_end_ms)
        client.tail = dict(ranked[cut:])
        client.opens_left = True


def is_crowded(rows: Iterable[Session]) -> bool:
    """Tell whether these newest sessions of a history may lack some that are near the newest."""
    stamps = [stamp_of(row) for row in rows]
    return not stamps or max(stamps) - min(stamps) <= _NEAR_NEWEST_MS


def latest_end(rows: Iterable[Session], floor_ms: int | None = None) -> int:
    """Give the latest disconnect of rows that have a connect as well; -1: none."""
    latest_ms = -1 if floor_ms is None else floor_ms
    for row in rows:
        if row.connect_ms is not None and row.disconnect_ms is not None and row.disconnect_ms > latest_ms:
            latest_ms = row.disconnect_ms
    return latest_ms
