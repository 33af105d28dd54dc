"""What a purge keeps of one client, so that no answer after the horizon changes.

The anchor is evidence: the client's last sessions and checks before the horizon, and what else may be spoken of
again. How much is enough is not told by rules of its own, which would be those of ingest/reduce.py a second time:
it is tried. The kept evidence is derived again, and where what is visible from the horizon on, as known at any
moment from there on, is not what was visible before, more is kept; in the end, everything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby, zip_longest
from typing import NamedTuple

from ingest.clientwise import CheckRow, EventRow, Held, Values
from ingest.rebuild import AS_THEY_ARE, Derived, derive, sessions_of
from ingest.reduce import SKEW_MS, group
from store.care import Care
from store.checks import Kept
from store.model import HOUR_MS, Kind, Session, State
from store.packing import pack_id, session_from

# Late events reach back to neighbours: kept are all within a day, this many sessions before that, and three
# connects among them. A writer keeps 64 sessions of a client in mind at most (ingest/fold.py: twice STRAY_TAIL).
DAY_MS = 24 * HOUR_MS
FEW, FEW_STRAYS = 16, 64
CONNECTS = 3
_EVER_MS = 1 << 62


class Anchored(NamedTuple):
    """What is kept of a client, and what follows from it."""

    held: Held  # its evidence only is what is kept
    derived: Derived
    swept_ms: int  # what repeated an answer from then on is kept
    repeated: frozenset[tuple[int, int]]  # ... and these (known_at, asked_ms) before


def anchored(held: Held, care: Care) -> Anchored | None:
    """Find what of a client to keep; None where all of it is needed.

    What is kept for the sake of something that goes is looked at again without that, so that of what is kept all
    is needed: to purge twice is to purge once.
    """
    wanted = visible(held.transitions, held.confirmations, care)
    found: Anchored | None = None
    while (less := _less(held, care, wanted)) is not None:
        found = less
        held = less.held._replace(sessions=sessions_of(less.derived, AS_THEY_ARE))
    return found


def _less(held: Held, care: Care, wanted: Visible) -> Anchored | None:
    """Find less than all that is held from which `wanted` follows."""
    few = FEW_STRAYS if held.has_strays else FEW
    while True:
        settled_ms = care.horizon_ms - DAY_MS
        since_ms = _since_ms(held, settled_ms, few)
        kept, repeated = _kept(held, care, -_EVER_MS if since_ms is None else since_ms, settled_ms)
        if _count(kept) < _count(held):
            derived = derive(held.client_no, kept.evidence(), AS_THEY_ARE)
            if visible(derived.transitions, derived.confirmations, care) == wanted:
                return Anchored(kept, derived, settled_ms, repeated)
        if since_ms is None:
            return None
        few *= 4


def _count(held: Held) -> int:
    return len(held.events) + len(held.checks) + len(held.repeated)


# --- What to try --------------------------------------------------------------------------------------------


def _since_ms(held: Held, before_ms: int, few: int) -> int | None:
    """Give the instant from which on all events are kept; None: all of them."""
    sessions: list[tuple[int | None, int | None]] = [(row[3], row[4]) for row in held.sessions]
    stamps = [connect if connect is not None else end or 0 for connect, end in sessions]
    stamps += [_about_ms(row) for row in held.checks]
    stamps = sorted(
        at_ms for at_ms in stamps or [row.event.at_ms for row in held.events] if at_ms < before_ms
    )
    connects = sorted(connect for connect, _ in sessions if connect is not None and connect < before_ms)
    if len(stamps) <= few or (sessions and len(connects) < CONNECTS):
        return None
    return min([stamps[-few], *(at_ms - 2 * SKEW_MS for at_ms in connects[-CONNECTS:])])


def _about_ms(row: CheckRow) -> int:
    check = row.kept.check
    return check.asked_ms if check.named_ms is None else check.named_ms


def _kept(held: Held, care: Care, since_ms: int, swept_ms: int) -> tuple[Held, frozenset[tuple[int, int]]]:
    """Keep events and answers from `since_ms` on, and what repeats an answer from `swept_ms` on.

    Before that, of what repeats an answer that names an instant, the last, and the last before each other answer
    was told: whether that was asked later decides which of the two goes on (ingest/fold.py).
    """
    runs = [row for row in held.checks if _was_repeated(row.kept)]
    runs.sort(key=lambda row: row.kept.known_at)
    slots = _by_run(held.repeated, runs)
    first = next(
        (
            index
            for index, row in enumerate(runs)
            if _until_ms(row) >= since_ms or any(slot[0] > care.known_horizon_ms for slot in slots[index])
        ),
        len(runs),
    )
    going_on = {id(row) for row in runs[first:]}
    checks = [
        row
        for row in held.checks
        if id(row) in going_on or (not _was_repeated(row.kept) and _until_ms(row) >= since_ms)
    ]
    told = sorted(row.kept.known_at for row in checks)
    early: set[tuple[int, int]] = set()
    for index in range(first, len(runs)):
        if runs[index].kept.check.named_ms is None:  # each of them may be laid
            early.update(slots[index])
        else:
            early.update(_deciding(slots[index], told, care.known_horizon_ms))
    repeated = [slot for slot in held.repeated if slot[1] >= swept_ms or slot in early]
    kept = held._replace(events=_events(held, care, since_ms), checks=checks, repeated=repeated)
    return kept, frozenset(slot for slot in early if slot[1] < swept_ms)


def _was_repeated(kept: Kept) -> bool:
    return kept.last_asked_ms is None or kept.last_asked_ms > kept.check.asked_ms


def _until_ms(row: CheckRow) -> int:
    """Give the latest instant that an answer, or what repeats it, speaks of."""
    if row.kept.last_asked_ms is None:
        return _EVER_MS
    return max(_about_ms(row), row.kept.check.asked_ms, row.kept.last_asked_ms)


def _by_run(slots: Iterable[tuple[int, int]], runs: Sequence[CheckRow]) -> list[list[tuple[int, int]]]:
    """Give each answer the askings that repeat it; both ascend by known_at."""
    found: list[list[tuple[int, int]]] = [[] for _ in runs]
    at = -1
    for slot in slots:
        while at + 1 < len(runs) and runs[at + 1].kept.known_at < slot[0]:
            at += 1
        if at >= 0:
            found[at].append(slot)
    return found


def _deciding(
    slots: Sequence[tuple[int, int]], told: Sequence[int], known_horizon_ms: int
) -> Iterator[tuple[int, int]]:
    """Of what repeats one answer, give all but those after which another is known before any answer is `told`."""
    for slot, following in zip_longest(slots, slots[1:]):
        if (
            following is None
            or following[0] > known_horizon_ms
            or bisect_right(told, slot[0]) < bisect_right(told, following[0])
        ):
            yield slot


def _events(held: Held, care: Care, since_ms: int) -> list[EventRow]:
    """Keep whole sessions: those that reach to `since_ms`, and those whose end may still be told."""
    sessions = {
        row[1] for row in held.sessions if row[4] is None or max(row[3] or row[4], row[4]) >= since_ms
    }
    binding = _binding(held.events, care)
    latest = _latest_of_versions(held, since_ms) if held.has_strays else {}
    sessions.update(pack_id(session.session_id) for session in latest.values() if session.session_id)
    halves = {at_ms for session in latest.values() for at_ms in (session.connect_ms, session.disconnect_ms)}
    kept = {
        index
        for index, row in enumerate(held.events)
        if row.event.at_ms >= since_ms
        or (row.event.at_ms, row.digest) in binding
        or _session(row) in sessions
        or (row.event.session_id is None and row.event.at_ms in halves)
        or (row.event.version in latest and row.event.at_ms >= _connect_ms(latest, row) - SKEW_MS)
    }
    spoken_of = {_session(held.events[index]) for index in kept} - {None}
    return [row for index, row in enumerate(held.events) if index in kept or _session(row) in spoken_of]


def _latest_of_versions(held: Held, since_ms: int) -> dict[int | None, Session]:
    """Give the session that connected last with each version, of those before `since_ms`.

    What bears no session id joins it, however long ago it was (rule 2). A session may have its version of a copy
    without id alone, so they are grouped first.
    """
    latest: dict[int | None, Session] = {}
    for session in group([session_from(*row[1:]) for row in held.sessions])[0]:
        if session.version is not None and session.connect_ms is not None and session.connect_ms < since_ms:
            place = session.connect_ms, session.session_id
            before = latest.get(session.version)
            if before is None or place > (before.connect_ms, before.session_id):
                latest[session.version] = session
    return latest


def _connect_ms(latest: dict[int | None, Session], row: EventRow) -> int:
    return latest[row.event.version].connect_ms or 0


def _session(row: EventRow) -> bytes | None:
    event = row.event
    if event.session_id is None or event.kind > Kind.DISCONNECTED:
        return None
    return pack_id(event.session_id)


def _binding(events: Iterable[EventRow], care: Care) -> set[tuple[int, int]]:
    """Name `(at_ms, digest)` of the events that bind a thing to this client from the horizon on."""
    kept: set[tuple[int, int]] = set()
    bearing = [row for row in events if row.thing_no is not None and row.event.at_ms <= care.horizon_ms]
    bearing.sort(key=lambda row: (row.thing_no or 0, row.known_at))
    for _, of_thing in groupby(bearing, key=_thing):
        newest: tuple[int, int] | None = None
        for row in of_thing:
            place = row.event.at_ms, row.digest
            if newest is None or place > newest:
                if row.known_at > care.known_horizon_ms and newest is not None:
                    kept.add(newest)
                newest = place
        if newest is not None:
            kept.add(newest)
    return kept


def _thing(row: EventRow) -> int | None:
    return row.thing_no


# --- What is visible ----------------------------------------------------------------------------------------


class Visible(NamedTuple):
    """All that questions from the horizon on can see of a client, on both clocks."""

    later: frozenset[Values]  # transitions from the horizon on
    proofs: frozenset[Values]  # ... and confirmations
    in_force: tuple[tuple[int, Values | None], ...]  # what holds at the horizon, and since which known_at


def visible(transitions: Sequence[Values], confirmations: Sequence[Values], care: Care) -> Visible:
    """Cut rows to what can be asked about. Both ascend by their keys."""
    rows, proofs = (list(_known(side, care)) for side in (transitions, confirmations))
    horizon_ms = care.horizon_ms
    early: dict[tuple[int, int], list[Values]] = {}
    for proof in proofs:
        if proof[1] < horizon_ms:
            early.setdefault(proof[1:3], []).append(proof)
    return Visible(
        frozenset(row for row in rows if row[1] >= horizon_ms),
        frozenset(row for row in proofs if row[1] >= horizon_ms),
        tuple(_in_force([row for row in rows if row[1] < horizon_ms], early, care)),
    )


def _known(rows: Iterable[Values], care: Care) -> Iterator[Values]:
    """Leave out what was superseded by the horizon; what was recorded by then counts as recorded then."""
    for row in rows:
        if row[4] is None or row[4] > care.known_horizon_ms:
            yield (*row[:3], max(row[3], care.known_horizon_ms), *row[4:])


def _in_force(
    rows: Sequence[Values], proofs: dict[tuple[int, int], list[Values]], care: Care
) -> Iterator[tuple[int, Values | None]]:
    moments = {row[3] for row in rows} | {row[4] for row in rows}
    moments |= {each for same in proofs.values() for proof in same for each in proof[3:5]}
    ordered = sorted(rows, key=lambda row: row[3])
    heap: list[tuple[int, int, int, Values]] = []
    taken, told = 0, False
    last: Values | None = None
    for known_at in sorted(each for each in moments if each is not None):
        while taken < len(ordered) and ordered[taken][3] <= known_at:
            row = ordered[taken]
            heappush(heap, (-row[1], -row[2], taken, row))
            taken += 1
        while heap and heap[0][3][4] is not None and heap[0][3][4] <= known_at:
            heappop(heap)
        holds = _said(heap[0][3], proofs, known_at, care.horizon_ms) if heap else None
        if not told or holds != last:
            yield known_at, holds
        told, last = True, holds


def _said(row: Values, proofs: dict[tuple[int, int], list[Values]], known_at: int, horizon_ms: int) -> Values:
    """Tell what a row says from the horizon on: where the state is not known, not even since when."""
    if row[5] == State.UNKNOWN:
        return ("unknown",)
    for proof in proofs.get(row[1:3], ()):
        until_ms, from_ms, open_at = proof[5:8]
        if proof[3] <= known_at and (proof[4] is None or proof[4] > known_at):
            if open_at is not None or until_ms > horizon_ms:
                return (row[1], *row[5:], until_ms, from_ms, open_at)
            break
    return (row[1], *row[5:], None)
