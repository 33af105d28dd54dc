"""Evidence of one client in, its timeline out. Every rule that decides a state stands in this file.

Theory of operation
===================

AWS tells of connections, not of states: a *session* begins with a connect event and ends with a disconnect
event, both bearing its id and its version. Events are lost, doubled and reordered, and their stamps are
approximations. Seven steps lead from them to the answer that the API would have given at any instant; each
depends on content only, never on the order of arrival.

  merge   All copies of a session's evidence are one row: of each member the smallest value that a copy
          gives, missing counting as largest. A minimum commutes and repeats without effect, which is what
          makes the whole order-free and idempotent.                                       -> `merge`
  group   Evidence without a session id finds its session by version, or by the time it fell in; what is
          doubtful in that is noted, for it proves nothing.                                -> `group`
  order   Versions rise within an epoch, and restart after about an hour offline; stamps of one client are
          wrong by SKEW at most. A session counts as late as the latest session of no higher version within
          SKEW after it. Sorting by that is total, and needs no sight of a reset.          -> `in_order`
  place   Timelines ascend though stamps may not. A connect takes effect no earlier than the connects
          before it in the order; AWS's own stamp stays in `timestamp_ms`.                 -> `place`
  confirm What the API said is laid beside that: an instant that it named is one that is held (and then proves
          the stretch from there up to the asking), or one that was missed.                -> `confirmed`
  link    What happens from the start of one session to the start of the next is decided by those two
          alone, in one function, so that a timeline is the links of its neighbours laid end to end, and an
          event at the end of it costs one link.                                           -> `link`
  lay     An answer that named no instant is laid on the timeline made of all else, if nothing there agrees with
          it and nothing proves it wrong.                                                  -> `laid`

`link` is this table (a, b: neighbours in the order; d: a's disconnect, where it is placed):

  a's disconnect                      | what follows                                | rule of the row
  ------------------------------------+---------------------------------------------+--------------------
  before b, ordinary reason           | disconnected at d                           | disconnect
  ... and a's connect was lost        | the former state up to d, disconnected at d | connect-lost
  before b, DUPLICATE_CLIENTID,       | a runs on to b                              | (none)
    b consecutive or within SKEW      |                                             |
  before b, DUPLICATE_CLIENTID, else  | connected at d, its timestamp not known     | takeover-unseen
  not before b                        | taken over: a runs on to b                  | (b's: takeover)
  lost, b's version did not rise      | disconnected an hour before b, estimated    | disconnect-lost
  lost, else                          | a carried on to b, inferred                 | (none)

What a row proves of the time before it: a disconnect, that a was connected since its start; a takeover, the
same, if b bears the next version (and, of DUPLICATE_CLIENTID, comes within SKEW); a connect after a
disconnect, that nothing was connected between, if b is consecutive. A session whose halves may not belong
together (`Doubt`) proves none of the first two, and a disconnect that named no session not the third either.

Checks. What counts is which instant an answer names. Held in the same state to the millisecond (or, where AWS
gave whole seconds, within the second): confirmed. Held within a second otherwise: the same transition, but no
proof. Else it was missed: a named connect is a session of its own, a named disconnect ends the session that is
current (rule check-named), if the API did not take it back by naming an earlier connect when it was asked later.
A confirmation proves the stretch from its row up to the asking less LAG, and never
past the next row. An answer without an instant makes a row at the asking, bounded by the last proof (check-laid).

Before a client's first evidence nothing is said of it; between its first evidence (of any kind) and its first
transition it is known, and its state is not (rule first-evidence).

This module imports no driver and reads no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import pairwise, zip_longest
from typing import NamedTuple

from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    LAG_MS,
    MINUTE_MS,
    SECOND_MS,
    Check,
    Confirmation,
    Event,
    Identity,
    Kind,
    Session,
    State,
    Stray,
    Transition,
)

SKEW_MS = 4 * MINUTE_MS  # two stamps, each up to two minutes wrong (AWS: "an approximation")
RESET_MS = 45 * MINUTE_MS  # versions restart after about an hour unconnected; less tolerance

CONNECTED_REASON = "NONE"  # what the API says of a connected thing


_CONNECTED, _DISCONNECTED = State.CONNECTED, State.DISCONNECTED
_LARGEST = "\U0010ffff"  # sorts after every reason: a missing one counts as largest


# --- Merge --------------------------------------------------------------------------------------------------


def session_of(event: Event) -> Session:
    """Read a connected or disconnected event as the session that it alone would prove."""
    if event.kind is Kind.CONNECTED:
        return Session(event.session_id or "", event.version, event.at_ms, None, None)
    return Session(event.session_id or "", event.version, None, event.at_ms, event.reason)


def identity(session: Session) -> Identity:
    """Name what the session's evidence is merged by."""
    if session.session_id:
        return session.session_id
    version = -1 if session.version is None else session.version
    if session.connect_ms is not None:
        return Stray(Kind.CONNECTED, session.connect_ms, version)
    return Stray(Kind.DISCONNECTED, session.disconnect_ms or 0, version)


def _smallest(a: int | None, b: int | None) -> int | None:
    if a is None:
        return b
    return a if b is None or a <= b else b


def merge(a: Session, b: Session) -> Session:
    """Merge two copies of one session's evidence; commutes, associates, and changes nothing when repeated."""
    if a.disconnect_ms is None:
        disconnect_ms, reason = b.disconnect_ms, b.reason
    elif b.disconnect_ms is None:
        disconnect_ms, reason = a.disconnect_ms, a.reason
    else:
        first = (a.disconnect_ms, a.reason if a.reason is not None else _LARGEST)
        other = (b.disconnect_ms, b.reason if b.reason is not None else _LARGEST)
        source = a if first <= other else b
        disconnect_ms, reason = source.disconnect_ms, source.reason
    return Session(
        a.session_id,
        _smallest(a.version, b.version),
        _smallest(a.connect_ms, b.connect_ms),
        disconnect_ms,
        reason,
    )


def merge_all(events: Iterable[Event]) -> dict[Identity, Session]:
    """Merge one client's events, in any order, into a row an identity; other kinds are passed over."""
    rows: dict[Identity, Session] = {}
    for event in events:
        if event.kind <= Kind.DISCONNECTED:
            row = session_of(event)
            key = identity(row)
            held = rows.get(key)
            rows[key] = row if held is None else merge(held, row)
    return rows


# --- Group --------------------------------------------------------------------------------------------------


class Doubt(Enum):
    """What speaks against a session's disconnect being its own."""

    RESET = "the version alone joins it to the connect, and a reset may lie between"
    BARE = "it names no session, by neither id nor version"


Doubts = dict[Session, Doubt]
Sayings = Mapping[Session, "Said"]


def group(rows: Sequence[Session]) -> tuple[list[Session], Doubts]:
    """Give evidence without a session id to the session that it belongs to. `rows` in any order.

    A copy (same kind, same millisecond, no other version) of a half that bears an id joins it. A connect
    without id takes the id of a disconnect that has one, and a version, and no connect: it is the latest
    connect of that version stamped at most SKEW after it. A disconnect with only a version joins the latest
    such connect. One without either ends the session that is current just before its stamp, unless its reason
    is DUPLICATE_CLIENTID. What finds nothing stands alone.

    The doubts name the sessions given back whose halves may not belong together, or whose end named none.
    """
    doubts: Doubts = {}
    if all(row.session_id for row in rows):
        return list(rows), doubts
    grouped, strays = _join_copies(rows)
    grouped = _name_connects(grouped, doubts)
    grouped = _join_by_version(grouped, [row for row in strays if row.version is not None], doubts)
    unnumbered = [row for row in strays if row.version is None and row.reason != DUPLICATE_CLIENTID]
    for stray in sorted(unnumbered, key=lambda row: row.disconnect_ms or 0):
        grouped = _end_current(grouped, stray, doubts)
    return grouped, doubts


def _join_copies(rows: Sequence[Session]) -> tuple[list[Session], list[Session]]:
    """Return the sessions known so far, and the disconnects without id that no session claims as a copy."""
    held = {row.session_id: row for row in rows if row.session_id}
    halves: dict[tuple[bool, int], list[Session]] = {}
    for row in held.values():
        if row.connect_ms is not None:
            halves.setdefault((True, row.connect_ms), []).append(row)
        if row.disconnect_ms is not None:
            halves.setdefault((False, row.disconnect_ms), []).append(row)
    named = dict(held)
    alone: list[Session] = []
    strays: list[Session] = []
    for row in _join_bare([row for row in rows if not row.session_id]):
        connects = row.connect_ms is not None
        owners = [
            (owner.version != row.version, owner.session_id)
            for owner in halves.get((connects, stamp_of(row)), ())
            if row.version is None or owner.version is None or row.version == owner.version
        ]
        if owners:
            _, session_id = min(owners)
            named[session_id] = merge(named[session_id], row)
        else:
            (alone if connects else strays).append(row)
    return [*named.values(), *alone], strays


def _join_bare(halves: Iterable[Session]) -> list[Session]:
    """Make a half without id or version one with its copy, the smallest version of its kind and instant."""
    joined: dict[tuple[bool, int], list[Session]] = {}
    for half in sorted(halves, key=_by_stamp):
        copies = joined.setdefault((half.connect_ms is not None, stamp_of(half)), [])
        if half.version is None and copies:
            copies[0] = merge(copies[0], half)
        else:
            copies.append(half)
    return [half for copies in joined.values() for half in copies]


class _Connects:
    """The connects of each version among sessions, to find the one that a disconnect belongs to."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._of: dict[int, list[tuple[int, str, int]]] = {}
        for index, session in enumerate(sessions):
            if session.version is not None and session.connect_ms is not None:
                connect = (session.connect_ms, session.session_id, index)
                self._of.setdefault(session.version, []).append(connect)

    def latest(self, end: Session) -> int | None:
        """Give the index of the latest connect of its version stamped at most SKEW after a disconnect."""
        assert end.version is not None
        assert end.disconnect_ms is not None
        latest_ms = end.disconnect_ms + SKEW_MS
        found = max((c for c in self._of.get(end.version, ()) if c[0] <= latest_ms), default=None)
        return None if found is None else found[2]


def _name_connects(sessions: list[Session], doubts: Doubts) -> list[Session]:
    """Join each disconnect with id and version, but no connect, to the connect of its version without id."""
    lacking = [
        (session.disconnect_ms or 0, session.session_id, index)
        for index, session in enumerate(sessions)
        if session.session_id and session.connect_ms is None and session.version is not None
    ]
    if not lacking:
        return sessions
    connects = _Connects(sessions)
    joined: list[Session | None] = [*sessions]
    for _, _, index in sorted(lacking):
        at = connects.latest(sessions[index])
        if at is None or sessions[at].session_id:
            continue
        connect = joined[at]
        if connect is not None and not connect.session_id:
            joined[at] = _joined(connect, sessions[index], doubts)
            joined[index] = None
    return [session for session in joined if session is not None]


def _join_by_version(sessions: list[Session], strays: list[Session], doubts: Doubts) -> list[Session]:
    if not strays:
        return sessions
    connects = _Connects(sessions)
    joined = list(sessions)
    for stray in strays:
        at = connects.latest(stray)
        if at is None:
            joined.append(stray)
        else:
            joined[at] = _joined(joined[at], stray, doubts)
    return joined


def _joined(session: Session, end: Session, doubts: Doubts) -> Session:
    """Join a disconnect to the connect of its version; surely its own only if no reset can lie between."""
    assert session.connect_ms is not None
    assert end.disconnect_ms is not None
    whole = session.disconnect_ms is not None and session not in doubts
    doubts.pop(session, None)
    merged = merge(session, end)
    if session.session_id == "":
        merged = merged._replace(session_id=end.session_id)
    if not whole and end.disconnect_ms - session.connect_ms >= RESET_MS:
        doubts[merged] = Doubt.RESET
    return merged


def _end_current(sessions: list[Session], stray: Session, doubts: Doubts) -> list[Session]:
    assert stray.disconnect_ms is not None
    current: Session | None = None
    for placed in place(in_order(sessions), doubts):
        if placed.start_ms < stray.disconnect_ms:
            current = placed.session
    if (
        current is None
        or current.connect_ms is None
        or (current.disconnect_ms is not None and current.disconnect_ms < stray.disconnect_ms)
    ):
        doubts[stray] = Doubt.BARE
        return [*sessions, stray]
    at = next(i for i, session in enumerate(sessions) if session is current)
    doubts.pop(current, None)
    ended = merge(current, stray)
    doubts[ended] = Doubt.BARE
    return [*sessions[:at], ended, *sessions[at + 1 :]]


# --- Order --------------------------------------------------------------------------------------------------


def stamp_of(session: Session) -> int:
    """Give the session's own time: its connect's stamp, else its disconnect's."""
    stamp = session.connect_ms if session.connect_ms is not None else session.disconnect_ms
    assert stamp is not None
    return stamp


def _by_stamp(session: Session) -> tuple[int, bool, int, str, bool]:
    return (
        stamp_of(session),
        session.version is None,
        session.version or 0,
        session.session_id,
        session.connect_ms is not None,
    )


def in_order(sessions: Iterable[Session]) -> list[Session]:
    """Sort sessions as they followed one another: a total order, the same for every order of arrival."""
    ranked = sorted(sessions, key=_by_stamp)
    if _rises(ranked):
        return ranked
    keyed = []
    for index, session in enumerate(ranked):
        stamp = effective = stamp_of(session)
        if session.version is not None:
            for later in ranked[index + 1 :]:
                later_stamp = stamp_of(later)
                if later_stamp > stamp + SKEW_MS:
                    break
                if later.version is not None and later.version <= session.version:
                    effective = later_stamp
        _, missing, version, session_id, connects = _by_stamp(session)
        keyed.append(((effective, missing, version, stamp, session_id, connects), session))
    keyed.sort(key=lambda pair: pair[0])
    return [session for _, session in keyed]


def _rises(ranked: list[Session]) -> bool:
    """Tell whether stamp order is session order already: versions rise wherever stamps are within SKEW."""
    for a, b in pairwise(ranked):
        if stamp_of(b) - stamp_of(a) <= SKEW_MS and (
            a.version is None or b.version is None or b.version < a.version
        ):
            return False
    return True


# --- Place --------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """A session in its place: when it takes effect, and when its disconnect would (None: not known)."""

    session: Session
    start_ms: int
    end_ms: int | None
    doubt: Doubt | None = None  # of the disconnect
    said: Said | None = None


def place(
    ordered: Sequence[Session], doubts: Mapping[Session, Doubt], sayings: Sayings | None = None
) -> list[Placed]:
    """Place sessions in time, ascending by start; `ordered` as `in_order` gives it, `doubts` as `group` does.

    A session whose connect is lost starts at its disconnect, and is left out where its successor starts no
    later: it ended before anything was seen of it.
    """
    placed: list[Placed] = []
    connects_ms = 0  # start of the latest session with a connect
    for session in ordered:
        if session.connect_ms is not None:
            start_ms = connects_ms = max(connects_ms, session.connect_ms)
            end_ms = None if session.disconnect_ms is None else max(session.disconnect_ms, start_ms)
            while placed and placed[-1].session.connect_ms is None and placed[-1].start_ms >= start_ms:
                placed.pop()
        else:
            assert session.disconnect_ms is not None
            start_ms = end_ms = max(session.disconnect_ms, connects_ms)
            if placed and placed[-1].session.connect_ms is None:
                start_ms = end_ms = max(start_ms, placed[-1].start_ms)
                if placed[-1].start_ms == start_ms:
                    placed.pop()
        placed.append(
            Placed(
                session,
                start_ms,
                end_ms,
                doubts.get(session) if doubts else None,
                sayings.get(session) if sayings else None,
            )
        )
    return placed


# --- Confirm ------------------------------------------------------------------------------------------------


class Fact(NamedTuple):
    """All checks that named one instant in one state: the smallest reason, and when it was last asked."""

    state: State
    named_ms: int
    whole: bool  # in whole seconds: the instant lies in [named_ms, named_ms + 999]
    reason: str | None
    last_asked_ms: int
    open_at: int | None = None  # known_at of the run of checks that still goes on naming it


class Checks(NamedTuple):
    """What the API said of one client, as the reducer takes it: facts, and answers that name no instant."""

    facts: Sequence[Fact] = ()
    unnamed: Sequence[Check] = ()


class Said(NamedTuple):
    """What checks said of one session: the facts that name each half, and the one that alone tells of it."""

    connect_facts: tuple[Fact, ...] = ()
    end_facts: tuple[Fact, ...] = ()
    connect_by: Fact | None = None
    end_by: Fact | None = None


NO_CHECKS = Checks()
_UNSAID = Said()
_NEAR_MS = SECOND_MS  # a stamp this close is the same transition
_WHOLE_MS = SECOND_MS - 1


def checks_of(checks: Iterable[Check], run: Check | None = None, run_at: int | None = None) -> Checks:
    """Sort checks, in any order and with copies, into facts and unnamed ones.

    `run` is the check whose answer the client's newest checks repeat, known since `run_at`.
    An answer of DUPLICATE_CLIENTID speaks of a session that another has replaced, and is passed over.
    """
    facts: dict[tuple[State, int, bool], Fact] = {}
    unnamed: list[Check] = []
    for check in checks:
        if check.state is _DISCONNECTED and check.reason == DUPLICATE_CLIENTID:
            continue
        if check.named_ms is None:
            unnamed.append(check)
            continue
        key = (check.state, check.named_ms, check.whole)
        fact = Fact(*key, check.reason, check.asked_ms, run_at if check == run else None)
        held = facts.get(key)
        facts[key] = fact if held is None else _merged_fact(held, fact)
    return Checks(list(facts.values()), unnamed)


def _merged_fact(a: Fact, b: Fact) -> Fact:
    reasons = [reason for reason in (a.reason, b.reason) if reason is not None]
    return a._replace(
        reason=min(reasons, default=None),
        last_asked_ms=max(a.last_asked_ms, b.last_asked_ms),
        open_at=a.open_at if b.open_at is None else b.open_at,
    )


def _confirmation(facts: tuple[Fact, ...]) -> Confirmation | None:
    """Tell what facts that name one transition prove together.

    Where one of them names a whole second, nothing is proven within it: another transition may lie there.
    """
    if not facts:
        return None
    return Confirmation(
        max(fact.last_asked_ms for fact in facts) - LAG_MS,
        max((_latest_ms(fact) for fact in facts if fact.whole), default=None),
        max((fact.open_at for fact in facts if fact.open_at is not None), default=None),
    )


_Half = tuple[int, str, bool, int, int]  # stamp, session id, version missing, version, index of its session


class _Confirming:
    """Sessions while facts are laid beside them, by index; `said` runs beside `sessions`."""

    def __init__(self, sessions: Sequence[Session], doubts: Doubts, facts: Iterable[Fact]) -> None:
        self.sessions = list(sessions)
        self._said_on = sorted((f.named_ms, f.last_asked_ms) for f in facts if f.state is _CONNECTED)
        self.said = [_UNSAID] * len(self.sessions)
        self._doubts = doubts
        self._connects = [
            _half(session.connect_ms, session, index)
            for index, session in enumerate(self.sessions)
            if session.connect_ms is not None
        ]
        self._connects.sort()
        # Of those disconnects that have a row, or whose stamp alone the next connect overtook; None: not known.
        self._ends: list[_Half] | None = None
        self._placed: list[Placed] = []

    def lay(self, fact: Fact) -> None:
        """Confirm the transition that a fact names; or pass it over as known; or add it as missed."""
        spread_ms = _WHOLE_MS if fact.whole else 0
        halves = self._connects if fact.state is _CONNECTED else self._rows_of_ends()
        index = _latest(halves, fact.named_ms, fact.named_ms + spread_ms)
        if index is not None:
            self._prove(index, fact)
        elif _latest(
            halves, fact.named_ms - _NEAR_MS, fact.named_ms + spread_ms + _NEAR_MS
        ) is None and not self._withdrawn(fact):
            self._add(fact)

    def _withdrawn(self, fact: Fact) -> bool:
        """Tell whether the API, asked later, said that what holds is a connect up to SKEW before this end.

        Stamps contradict the order then: the end was of the session before.
        """
        if fact.state is _CONNECTED:
            return False
        first = bisect_left(self._said_on, (fact.named_ms - SKEW_MS,))
        last = bisect_left(self._said_on, (fact.named_ms + 1,))
        return any(asked_ms > fact.last_asked_ms + LAG_MS for _, asked_ms in self._said_on[first:last])

    def _rows_of_ends(self) -> list[_Half]:
        if self._ends is None:
            self._placed = place(in_order(self.sessions), {})
            index_of = {id(session): index for index, session in enumerate(self.sessions)}
            self._ends = sorted(
                _half(a.session.disconnect_ms, a.session, index_of[id(a.session)])
                for a, b in zip_longest(self._placed, self._placed[1:])
                if a.session.disconnect_ms is not None
                and a.session.reason != DUPLICATE_CLIENTID
                and (b is None or a.end_ms is None or a.end_ms <= b.start_ms + SKEW_MS)
            )
        return self._ends

    def _prove(self, index: int, fact: Fact) -> None:
        said = self.said[index]
        if fact.state is _CONNECTED:
            self.said[index] = said._replace(connect_facts=(*said.connect_facts, fact))
        else:
            self.said[index] = said._replace(end_facts=(*said.end_facts, fact))

    def _add(self, fact: Fact) -> None:
        if fact.state is _CONNECTED:
            self._append(Session("", None, fact.named_ms, None, None), Said((fact,), (), fact, None))
            insort(self._connects, _half(fact.named_ms, self.sessions[-1], len(self.sessions) - 1))
            return
        self._ends = None
        stray = Session("", None, None, fact.named_ms, fact.reason)
        current = self._current(fact.named_ms + (SECOND_MS if fact.whole else 0))
        ended_ms = None if current is None else self.sessions[current].disconnect_ms
        if current is None or (ended_ms is not None and ended_ms < fact.named_ms):
            self._append(stray, Said((), (fact,), None, fact))
            self._doubts[stray] = Doubt.BARE
        else:
            self._end(current, stray, fact)

    def _append(self, session: Session, said: Said) -> None:
        self.sessions.append(session)
        self.said.append(said)

    def _current(self, before_ms: int) -> int | None:
        """Give the index of the session current just before an instant, if it has a connect."""
        current: Session | None = None
        for placed in self._placed:
            if placed.start_ms < before_ms:
                current = placed.session
        if current is None or current.connect_ms is None:
            return None
        return next(index for index, session in enumerate(self.sessions) if session is current)

    def _end(self, index: int, stray: Session, fact: Fact) -> None:
        """End a session where a fact says, if nothing else ended it at that very instant."""
        session = self.sessions[index]
        self._doubts.pop(session, None)
        ended = self.sessions[index] = merge(session, stray)
        self._doubts[ended] = Doubt.BARE
        if ended != session:
            self.said[index] = self.said[index]._replace(end_by=fact, end_facts=(fact,))


def _latest(halves: list[_Half], from_ms: int, to_ms: int) -> int | None:
    at = bisect_left(halves, (to_ms + 1,)) - 1
    return halves[at][-1] if at >= 0 and halves[at][0] >= from_ms else None


def _half(stamp_ms: int, session: Session, index: int) -> _Half:
    return stamp_ms, session.session_id, session.version is None, session.version or 0, index


def confirmed(
    sessions: Sequence[Session], doubts: Doubts, facts: Iterable[Fact]
) -> tuple[Sequence[Session], dict[Session, Said]]:
    """Lay named instants beside grouped sessions; gives the sessions then, and what was said of them.

    Connects before disconnects, those to the millisecond before whole seconds, ascending: so the same
    whenever each arrived. Adds to `doubts` the ends that only checks tell.
    """
    ordered = sorted(facts, key=_in_turn)
    laying = _Confirming(sessions, doubts, ordered)
    for fact in ordered:
        laying.lay(fact)
    return laying.sessions, {
        session: said
        for session, said in zip(laying.sessions, laying.said, strict=True)
        if said is not _UNSAID
    }


def _in_turn(fact: Fact) -> tuple[bool, bool, int]:
    return fact.state is not _CONNECTED, fact.whole, fact.named_ms


# --- Link ---------------------------------------------------------------------------------------------------


def consecutive(a: Placed, b: Placed) -> bool:
    """Tell whether nothing can have lain between two neighbours: next version, and no time for a reset."""
    if b.session.connect_ms is None or not _next_version(a, b):
        return False
    last_ms = a.end_ms if a.end_ms is not None and a.end_ms < b.start_ms else _last_proof_ms(a, b.start_ms)
    return b.start_ms - last_ms < RESET_MS


def _last_proof_ms(a: Placed, next_ms: int) -> int:
    """Tell until when a session without an end before the next one's start is proven: by checks, or not at all."""
    if a.said is None or not a.said.connect_facts:
        return a.start_ms
    until_ms = max(fact.last_asked_ms for fact in a.said.connect_facts) - LAG_MS
    return max(a.start_ms, min(until_ms, next_ms))


def _next_version(a: Placed, b: Placed) -> bool:
    return a.session.version is not None and b.session.version == a.session.version + 1


def link(a: Placed | None, b: Placed | None) -> list[Transition]:
    """List the transitions after a's start up to and including b's start, ascending.

    `a` None: b is the first session. `b` None: a is the last one. A session whose connect is lost has its
    own row in the link that follows it.
    """
    rows: list[Transition] = []
    proved_from_ms: int | None = None  # of b's row
    rule = "connect"
    if a is not None:
        session, d = a.session, a.end_ms
        if d is not None and (b is None or d < b.start_ms):
            lost_connect = session.connect_ms is None
            if session.reason != DUPLICATE_CLIENTID:
                rows.append(_disconnect(a, d))
                if b is not None and a.doubt is not Doubt.BARE and consecutive(a, b):
                    proved_from_ms = d
            elif (
                not lost_connect
                and b is not None
                and b.session.connect_ms is not None
                and (consecutive(a, b) or b.start_ms - d <= SKEW_MS)
            ):
                rule = "takeover"
                if a.doubt is None and consecutive(a, b) and b.start_ms - d <= SKEW_MS:
                    proved_from_ms = a.start_ms
            else:
                rows.append(_takeover_unseen(a, d, b))
        elif session.connect_ms is not None and b is not None:
            if d is not None:
                rule = "takeover"
                if a.doubt is None and _next_version(a, b):
                    proved_from_ms = a.start_ms
            elif _version_fell(a, b) and (last_ms := _last_proof_ms(a, b.start_ms)) <= b.start_ms - RESET_MS:
                rows.append(
                    Transition(
                        max(last_ms, b.start_ms - HOUR_MS),
                        _DISCONNECTED,
                        None,
                        None,
                        last_ms,
                        b.start_ms - RESET_MS,
                        "disconnect-lost",
                        None,
                    )
                )
    if b is not None and b.session.connect_ms is not None:
        stamp = b.session.connect_ms
        if b.said is None:
            row = Transition(
                b.start_ms, _CONNECTED, stamp, CONNECTED_REASON, stamp, b.start_ms, rule, proved_from_ms
            )
        else:
            row = _confirmed_connect(b, b.said, rule, proved_from_ms)
        rows.append(row)
    return rows


def _confirmed_connect(b: Placed, said: Said, rule: str, proved_from_ms: int | None) -> Transition:
    stamp_ms = b.session.connect_ms
    return Transition(
        b.start_ms,
        _CONNECTED,
        stamp_ms,
        CONNECTED_REASON,
        stamp_ms,
        b.start_ms if said.connect_by is None else max(b.start_ms, _latest_ms(said.connect_by)),
        rule if said.connect_by is None else "check-named",
        proved_from_ms,
        _confirmation(said.connect_facts),
    )


def _disconnect(a: Placed, d: int) -> Transition:
    session, lost_connect = a.session, a.session.connect_ms is None
    rule = "connect-lost" if lost_connect else "disconnect"
    latest_ms, proof = d, None
    if a.said is not None:
        proof = _confirmation(a.said.end_facts)
        if a.said.end_by is not None:
            latest_ms = max(d, _latest_ms(a.said.end_by))
            rule = "check-named"
    return Transition(
        d,
        _DISCONNECTED,
        session.disconnect_ms,
        session.reason,
        session.disconnect_ms,
        latest_ms,
        rule,
        None if lost_connect or a.doubt is not None else a.start_ms,
        proof,
    )


def _latest_ms(fact: Fact) -> int:
    return fact.named_ms + _WHOLE_MS if fact.whole else fact.named_ms


def _version_fell(a: Placed, b: Placed) -> bool:
    return (
        b.session.connect_ms is not None
        and a.session.version is not None
        and b.session.version is not None
        and b.session.version <= a.session.version
    )


def _takeover_unseen(a: Placed, d: int, b: Placed | None) -> Transition:
    """Say that a newer session exists at d of which no connect was seen; it may even have ended by then."""
    earliest = d - SKEW_MS
    if a.session.connect_ms is not None:
        earliest = max(a.start_ms, earliest)
    latest = d + SKEW_MS
    if b is not None and b.session.connect_ms is not None:
        named = b.said.connect_by if b.said is not None else None
        latest = min(latest, b.start_ms if named is None else max(b.start_ms, _latest_ms(named)))
    return Transition(d, _CONNECTED, None, CONNECTED_REASON, earliest, latest, "takeover-unseen", None)


# --- Lay ----------------------------------------------------------------------------------------------------


def laid(timeline: list[Transition], checks: Iterable[Check]) -> list[Transition]:
    """Lay answers that named no instant on a timeline, in order of asking. Gives the timeline then."""
    rows = list(timeline)
    instants = [row.at_ms for row in rows]
    for check in sorted(checks, key=lambda c: (c.asked_ms, c.state, c.reason is None, c.reason or "")):
        row = _laid_row(rows, instants, check)
        if row is not None:
            index = bisect_right(instants, row.at_ms)
            instants.insert(index, row.at_ms)
            rows.insert(index, row)
    return rows


def _laid_row(rows: Sequence[Transition], instants: Sequence[int], check: Check) -> Transition | None:
    """Make the row that an answer without an instant calls for; None where none is.

    None is where the state may have been the answer's at some instant in [asking - LAG, asking]: where a row
    begins in it, or may by its bounds, that is so, for what held just before is only carried on. And none is
    where a proof covers the asking.
    """
    asked_ms, begin_ms = check.asked_ms, check.asked_ms - LAG_MS
    first, last = bisect_right(instants, begin_ms) - 1, bisect_right(instants, asked_ms) - 1
    for index in range(max(first, 0), last + 1):
        row = rows[index]
        lasts = index == last or instants[index + 1] != instants[index]
        if lasts and row.state is not State.UNKNOWN:
            latest_ms = row.at_ms if row.not_after_ms is None else max(row.at_ms, row.not_after_ms)
            if row.state is check.state or latest_ms > begin_ms:
                return None
    if last >= 0 and any(begins <= asked_ms < ends for begins, ends in _proven(rows, last)):
        return None
    reason = CONNECTED_REASON if check.state is _CONNECTED else check.reason
    not_before_ms = _last_known_ms(rows, last, check)
    return Transition(asked_ms, check.state, None, reason, not_before_ms, asked_ms, "check-laid", None)


def _last_known_ms(rows: Sequence[Transition], last: int, check: Check) -> int | None:
    """Tell when another state than the answer's was known last, by its asking; `last` is the row in force then.

    That is where the row's bounds begin (of one that was laid: LAG before it); or where a proof ends.
    """
    known_ms: int | None = None
    if last >= 0:
        known_ms = rows[last].not_before_ms
        if rows[last].rule == "check-laid":
            known_ms = max(rows[last].at_ms - LAG_MS, -1 if known_ms is None else known_ms)
    for index in range(last, -1, -1):
        if index < last and known_ms is not None and rows[index + 1].at_ms <= known_ms:
            break
        if rows[index].state is not check.state:
            for _, ends in _proven(rows, index):
                if ends <= check.asked_ms and (known_ms is None or ends > known_ms):
                    known_ms = ends
    return known_ms


def _proven(rows: Sequence[Transition], index: int) -> list[tuple[int, int]]:
    """List the proven stretches between a row and the next: `[from, to)`, each of some length."""
    row = rows[index]
    following = rows[index + 1] if index + 1 < len(rows) else None
    found: list[tuple[int, int]] = []
    if row.confirmed is not None:
        until_ms = row.confirmed.until_ms
        ends = until_ms if following is None else min(until_ms, following.at_ms)
        found.append((proven_from(row), ends))
    if following is not None and following.proved_from_ms is not None:
        found.append((max(following.proved_from_ms, row.at_ms), following.at_ms))
    return [(begins, ends) for begins, ends in found if begins < ends]


def proven_from(row: Transition) -> int:
    """Tell from when on a confirmation proves a row: its instant, or the end of what bounds it."""
    assert row.confirmed is not None
    bounds = (row.at_ms, row.not_after_ms, row.confirmed.from_ms)
    return max(bound for bound in bounds if bound is not None)


# --- The whole ----------------------------------------------------------------------------------------------


def reduce_sessions(
    rows: Sequence[Session], first_ms: int | None, checks: Checks = NO_CHECKS
) -> list[Transition]:
    """Reduce one client's merged sessions and checks, in any order, to its timeline, ascending by `at_ms`.

    `first_ms` is the stamp of the client's first evidence of any kind; None where the rows are a part of a
    history whose beginning lies elsewhere.
    """
    timeline: list[Transition] = []
    previous: Placed | None = None
    sayings: dict[Session, Said] = {}
    grouped, doubts = group(rows)
    sessions: Sequence[Session] = grouped
    if checks.facts:
        sessions, sayings = confirmed(sessions, doubts, checks.facts)
    for placed in place(in_order(sessions), doubts, sayings):
        timeline += link(previous, placed)
        previous = placed
    if previous is not None:
        timeline += link(previous, None)
    if first_ms is not None and (not timeline or first_ms < timeline[0].at_ms):
        timeline.insert(0, first_evidence(first_ms))
    return laid(timeline, checks.unnamed) if checks.unnamed else timeline


def first_evidence(at_ms: int) -> Transition:
    """Begin a timeline whose first evidence says nothing of the state."""
    return Transition(at_ms, State.UNKNOWN, None, None, None, None, "first-evidence", None)


def reduce_events(events: Iterable[Event], checks: Iterable[Check] = ()) -> list[Transition]:
    """Reduce all lifecycle events and checks of one client, in any order and with copies, to its timeline."""
    evidence, said = list(events), list(checks)
    stamps = [event.at_ms for event in evidence] + [check.asked_ms for check in said]
    if not stamps:
        return []
    return reduce_sessions(list(merge_all(evidence).values()), min(stamps), checks_of(said))
