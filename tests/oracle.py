"""The oracle: a slow and obvious reducer, one function per numbered rule of the design page (section 3).

Events alone give sessions (rules 1 and 2). What checks name is then laid on the sessions, connects before
disconnects; the sessions become transitions; what checks say without naming an instant is laid on those.

It owns the second opinion that the laws are tested against. It is written from the page, and must never
import, or be written from, ingest/reduce.py. It sees the whole of one client's evidence at once, sorts and
searches again wherever that is clearest, and keeps nothing between calls.

Where the page leaves a choice open, the choice is stated in the function that makes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    Check,
    Confirmation,
    Event,
    Kind,
    State,
    Transition,
)

SKEW_MS = 4 * MINUTE_MS  # two stamps, each up to two minutes wrong
RESET_MS = 45 * MINUTE_MS  # the version counter restarts after about an hour unconnected, less tolerance
LAG_MS = 10 * SECOND_MS  # an index behind its broker

Reported = tuple[Transition, Confirmation | None]
"""A transition, and how far checks confirm it; None where none does."""

Stretch = tuple[int, int, State]
"""A half-open stretch that is proven, and the state throughout it."""

End = tuple[int, str | None]
"""The stamp and the reason of a disconnect, which only ever move together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What checks say in one voice of one named instant, in `[named_ms, latest_ms]`; `asked_ms`: when last."""

    state: State
    named_ms: int
    whole: bool
    reason: str | None
    asked_ms: int

    @property
    def latest_ms(self) -> int:
        return self.named_ms + SECOND_MS - 1 if self.whole else self.named_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All that the evidence tells of one session.

    `whole`: its connect and its disconnect surely belong together. `end_named`: its disconnect said whose it
    is, by session id or version. `connect_fact`, `end_fact`: the fact of checks that alone tells of that half.
    `connect_facts`, `end_facts`: all facts that name that half, this one among them.
    """

    session_id: str = ""
    version: int | None = None
    connect_ms: int | None = None
    end: End | None = None
    whole: bool = False
    end_named: bool = False
    connect_fact: Fact | None = None
    end_fact: Fact | None = None
    connect_facts: tuple[Fact, ...] = ()
    end_facts: tuple[Fact, ...] = ()

    @property
    def stamp_ms(self) -> int:
        """The t of rule 3: the connect's stamp, else the disconnect's."""
        if self.connect_ms is not None:
            return self.connect_ms
        assert self.end is not None
        return self.end[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A session, and the instants at which its halves take effect."""

    session: Session
    start_ms: int  # of its connect; of its disconnect where the connect is unknown
    end_ms: int | None  # of its disconnect

    @property
    def has_connect(self) -> bool:
        return self.session.connect_ms is not None

    @property
    def is_duplicate(self) -> bool:
        return self.session.end is not None and self.session.end[1] == DUPLICATE_CLIENTID


def timeline(events: Sequence[Event], checks: Sequence[Check] = ()) -> list[Transition]:
    """Reduce all evidence of one client, in any order and with duplicates, to its transitions.

    They ascend by `at_ms`; of several at one instant the last holds, the others have length zero.
    """
    return [row for row, _ in reduced(events, checks)]


def reduced(events: Sequence[Event], checks: Sequence[Check]) -> list[Reported]:
    """Reduce all evidence of one client to its transitions, each with its confirmation by checks.

    Where a confirmation ends before its transition begins to be proven, it proves nothing, and stands there.
    """
    telling = [check for check in checks if not is_takeover(check)]
    sessions = group(events)
    for fact in facts(telling, State.CONNECTED):
        sessions = name_connect(sessions, fact)
    for fact in facts(telling, State.DISCONNECTED):
        sessions = name_disconnect(sessions, fact, facts(telling, State.CONNECTED))
    rows = begin(events, checks, transitions(settle(place(in_order(sessions)))))
    for check in unnamed(telling):
        rows = lay(rows, check)
    return rows


# --- Rule 1: merging ----------------------------------------------------------------------------------------


def smallest(values: Iterable[int | None]) -> int | None:
    """Return the smallest value that any copy gives, missing counting as largest."""
    return min((value for value in values if value is not None), default=None)


def smallest_end(ends: Iterable[End | None]) -> End | None:
    """Return the smallest disconnect, stamp and reason as a pair, a missing reason counting as largest."""
    return min(
        (end for end in ends if end is not None),
        key=lambda end: (end[0], end[1] is None, end[1] or ""),
        default=None,
    )


def merge(copies: Sequence[Session]) -> Session:
    """Merge copies of one session field by field, by content only."""
    return Session(
        session_id=max(copy.session_id for copy in copies),  # one id, or none and then ""
        version=smallest(copy.version for copy in copies),
        connect_ms=smallest(copy.connect_ms for copy in copies),
        end=smallest_end(copy.end for copy in copies),
        whole=any(copy.whole for copy in copies),
        end_named=any(copy.end_named for copy in copies),
    )


def half(event: Event) -> Session:
    """Return what one event alone tells of its session."""
    connected = event.kind is Kind.CONNECTED
    return Session(
        session_id=event.session_id or "",
        version=event.version,
        connect_ms=event.at_ms if connected else None,
        end=None if connected else (event.at_ms, event.reason),
        end_named=not connected and (bool(event.session_id) or event.version is not None),
    )


# --- Rule 2: grouping ---------------------------------------------------------------------------------------


def group(events: Sequence[Event]) -> list[Session]:
    """Group evidence into sessions: by id, then copies, then by version, then by time."""
    halves = [half(event) for event in events if event.kind in (Kind.CONNECTED, Kind.DISCONNECTED)]
    sessions = by_session_id([one for one in halves if one.session_id])
    sessions, loose = without_copies(sessions, loose_halves([one for one in halves if not one.session_id]))
    sessions += [one for one in loose if one.connect_ms is not None]
    sessions = name_loose_connects(sessions)
    disconnects = [one for one in loose if one.connect_ms is None]
    sessions = end_by_version(sessions, [one for one in disconnects if one.version is not None])
    return end_by_time(sessions, [one for one in disconnects if one.version is None])


def by_session_id(halves: Sequence[Session]) -> list[Session]:
    """Same session id: one session."""
    sessions = []
    for session_id in sorted({one.session_id for one in halves}):
        session = merge([one for one in halves if one.session_id == session_id])
        both = session.connect_ms is not None and session.end is not None
        sessions.append(replace(session, whole=both))
    return sessions


def same_instant(one: Session, other: Session) -> bool:
    """Say whether the single half `one` and a half of `other` are of the same kind and millisecond."""
    if one.connect_ms is not None:
        return one.connect_ms == other.connect_ms
    return one.end is not None and other.end is not None and one.end[0] == other.end[0]


def loose_halves(halves: Sequence[Session]) -> list[Session]:
    """Make one half of the copies among halves without id: same kind, same millisecond, same version.

    Two versions are two sessions, even in one millisecond. A half without version is a copy of any other; of
    several, of the one with the smallest version.
    """
    merged: list[Session] = []
    for one in sorted(halves, key=lambda one: (one.version is None, one.version or 0)):
        copies = [
            other
            for other in merged
            if same_instant(one, other) and (one.version is None or one.version == other.version)
        ]
        if copies:
            merged[merged.index(copies[0])] = merge([copies[0], one])
        else:
            merged.append(one)
    return merged


def without_copies(sessions: list[Session], loose: list[Session]) -> tuple[list[Session], list[Session]]:
    """Merge each half without id into the session with id that it is a copy of; return the others apart.

    A copy has the same kind and millisecond, and no other version. Of several sessions the one of equal
    version is meant, then the one of the smallest id. What is a copy of what does not depend on other copies.
    """
    copies: dict[str, list[Session]] = {session.session_id: [session] for session in sessions}
    others = []
    for one in loose:
        matches = [
            session
            for session in sessions
            if same_instant(one, session)
            and (one.version is None or session.version is None or one.version == session.version)
        ]
        if matches:
            match = min(matches, key=lambda session: (session.version != one.version, session.session_id))
            copies[match.session_id].append(one)
        else:
            others.append(one)
    return [merge(same) for same in copies.values()], others


def latest_connect(sessions: Sequence[Session], version: int | None, end_ms: int) -> Session | None:
    """Return the session with the latest connect of `version` stamped at most SKEW after `end_ms`."""
    return max(
        (
            session
            for session in sessions
            if session.version == version
            and session.connect_ms is not None
            and session.connect_ms <= end_ms + SKEW_MS
        ),
        key=lambda session: (session.connect_ms, session.session_id),
        default=None,
    )


def joined(session: Session, end: Session) -> Session:
    """Join a disconnect to the connect that bears the same version.

    That they belong together is sure only where the counter cannot have restarted between them.
    """
    assert session.connect_ms is not None
    assert end.end is not None
    sure = end.end[0] - session.connect_ms < RESET_MS
    return replace(merge([session, end]), whole=session.whole or sure)


def name_loose_connects(sessions: list[Session]) -> list[Session]:
    """Join a connect without id to the disconnect of its version that has one, and lacks its connect.

    A connect is joined to one id only; the earliest disconnect comes first.
    """
    lacking = [one for one in sessions if one.session_id and one.connect_ms is None]
    named = [one for one in lacking if one.version is not None]
    for ending in sorted(named, key=lambda one: (one.stamp_ms, one.session_id)):
        connect = latest_connect(sessions, ending.version, ending.stamp_ms)
        if connect is not None and not connect.session_id:
            sessions = [one for one in sessions if one not in (connect, ending)] + [joined(connect, ending)]
    return sessions


def end_by_version(sessions: list[Session], disconnects: Sequence[Session]) -> list[Session]:
    """No id but a version: a disconnect joins the latest connect of that version, else it stands alone."""
    alone = []
    for one in disconnects:
        connect = latest_connect(sessions, one.version, one.stamp_ms)
        if connect is None:
            alone.append(one)
        else:
            sessions = [*(other for other in sessions if other != connect), joined(connect, one)]
    return sessions + alone


def end_by_time(sessions: list[Session], disconnects: Sequence[Session]) -> list[Session]:
    """Neither id nor version: a disconnect ends the session that is current just before its stamp.

    The earliest is laid first, after all else. Where no session is current, or it ended before, the
    disconnect stands alone. With DUPLICATE_CLIENTID it changes no state, and goes.
    """
    for one in sorted(disconnects, key=lambda one: one.stamp_ms):
        assert one.end is not None
        if one.end[1] == DUPLICATE_CLIENTID:
            continue
        started = [other for other in settle(place(in_order(sessions))) if other.start_ms < one.stamp_ms]
        current = started[-1].session if started else None
        if current is None or current.connect_ms is None or (current.end and current.end[0] < one.stamp_ms):
            sessions = [*sessions, one]
        else:
            ended = replace(current, end=smallest_end([current.end, one.end]), whole=False, end_named=False)
            sessions = [*(other for other in sessions if other != current), ended]
    return sessions


# --- Rule 3: order ------------------------------------------------------------------------------------------


def in_order(sessions: Sequence[Session]) -> list[Session]:
    """Sort by (e, version missing, version, t, id); at a tie a lone disconnect comes before a connect."""
    return sorted(
        sessions,
        key=lambda session: (
            epoch_stamp(session, sessions),
            session.version is None,
            session.version or 0,
            session.stamp_ms,
            session.session_id,
            session.connect_ms is not None,
        ),
    )


def epoch_stamp(session: Session, sessions: Sequence[Session]) -> int:
    """Return e: the largest t among sessions of no higher version whose t lies in [own t, own t + SKEW]."""
    version = session.version
    if version is None:
        return session.stamp_ms
    return max(
        other.stamp_ms
        for other in sessions
        if other.version is not None
        and other.version <= version
        and session.stamp_ms <= other.stamp_ms <= session.stamp_ms + SKEW_MS
    )


# --- Rule 4: placing ----------------------------------------------------------------------------------------


def place(ordered: Sequence[Session]) -> list[Placed]:
    """Place a connect not before the connects before it, and a disconnect not before its own connect.

    A lone disconnect, its connect unknown, comes not before the connects before it, nor before the lone ones
    since the last connect.
    """
    placed: list[Placed] = []
    for session in ordered:
        before = [one.start_ms for one in placed if one.has_connect]
        if session.connect_ms is None:
            before += [one.start_ms for one in itertools.takewhile(is_lone, reversed(placed))]
        start_ms = max([session.stamp_ms, *before])
        end_ms = None if session.end is None else max(session.end[0], start_ms)
        placed.append(Placed(session=session, start_ms=start_ms, end_ms=end_ms))
    return placed


def is_lone(one: Placed) -> bool:
    return not one.has_connect


# --- Rule 5: ending -----------------------------------------------------------------------------------------


def settle(placed: Sequence[Placed]) -> list[Placed]:
    """Leave out the lone disconnects that change no state.

    One that is placed at or after the next connect in order is not of the current session; of several at one
    instant, with no connect between, the last holds.
    """
    settled = []
    for position, one in enumerate(placed):
        later = placed[position + 1 :]
        next_connect = next((other for other in later if other.has_connect), None)
        if is_lone(one) and (
            (next_connect is not None and next_connect.start_ms <= one.start_ms)
            or (later and is_lone(later[0]) and later[0].start_ms <= one.start_ms)
        ):
            continue
        settled.append(one)
    return settled


def ends_before(one: Placed, following: Placed | None) -> bool:
    """Say whether a session ends at its own disconnect, not by the start of the next one."""
    return one.end_ms is not None and (following is None or one.end_ms < following.start_ms)


# --- Rule 8: consecutive ------------------------------------------------------------------------------------


def is_next_version(one: Placed, following: Placed) -> bool:
    a, b = one.session.version, following.session.version
    return a is not None and b is not None and b == a + 1


def consecutive(one: Placed, following: Placed) -> bool:
    """Say whether nothing can lie between two sessions: version + 1, and less than RESET between them.

    Between is from the end of the one, or from its last proof where it did not end before the other began.
    """
    ended = one.end_ms is not None and ends_before(one, following)
    last_ms = one.end_ms if ended and one.end_ms is not None else last_proof(one, following)
    soon = following.has_connect and following.start_ms - last_ms < RESET_MS
    return soon and is_next_version(one, following)


# --- Rules 4 to 8: from sessions to transitions -------------------------------------------------------------


def transitions(placed: Sequence[Placed]) -> list[Reported]:
    """Walk the sessions in order: each gives its connect, then what becomes of it up to the next.

    A fact confirms the row of the half that it names; where that has none, nothing.
    """
    rows: list[Reported] = []
    for before, one, following in zip([None, *placed[:-1]], placed, [*placed[1:], None], strict=False):
        if one.has_connect:
            rows.append((connect_row(one, before), confirmation(one.session.connect_facts)))
        if ends_before(one, following):
            if not one.is_duplicate:
                rows.append((disconnect_row(one), confirmation(one.session.end_facts)))
            elif not runs_on(one, following):
                rows.append((unseen_takeover_row(one, following), None))
        elif one.end_ms is None and following is not None:
            rows += [(row, None) for row in lost_disconnect_rows(one, following)]
    return rows


def connect_row(one: Placed, before: Placed | None) -> Transition:
    stamp_ms, fact = one.session.connect_ms, one.session.connect_fact
    assert stamp_ms is not None
    taken_over = (
        before is not None
        and before.has_connect
        and before.end_ms is not None
        and (not ends_before(before, one) or (before.is_duplicate and runs_on(before, one)))
    )
    return Transition(
        at_ms=one.start_ms,
        state=State.CONNECTED,
        timestamp_ms=stamp_ms,
        reason="NONE",
        not_before_ms=min(stamp_ms, one.start_ms),
        not_after_ms=max(stamp_ms if fact is None else fact.latest_ms, one.start_ms),
        rule="check-named" if fact is not None else "takeover" if taken_over else "connect",
        proved_from_ms=None if before is None else proved_up_to_connect(one, before),
    )


def disconnect_row(one: Placed) -> Transition:
    assert one.session.end is not None
    assert one.end_ms is not None
    stamp_ms, reason = one.session.end
    fact = one.session.end_fact
    return Transition(
        at_ms=one.end_ms,
        state=State.DISCONNECTED,
        timestamp_ms=stamp_ms,
        reason=reason,
        not_before_ms=min(stamp_ms, one.end_ms),
        not_after_ms=max(stamp_ms if fact is None else fact.latest_ms, one.end_ms),
        rule="check-named" if fact is not None else "disconnect" if one.has_connect else "connect-lost",
        proved_from_ms=one.start_ms if one.session.whole else None,
    )


# Rule 6: DUPLICATE_CLIENTID is never an outage


def runs_on(one: Placed, following: Placed | None) -> bool:
    """Say whether the next connect is the newer session that a DUPLICATE_CLIENTID speaks of.

    It is where it is consecutive, or comes within SKEW: the two stamps of one takeover may be that far apart.
    """
    if following is None or not one.has_connect or not following.has_connect:
        return False
    assert one.end_ms is not None
    return consecutive(one, following) or following.start_ms - one.end_ms <= SKEW_MS


def unseen_takeover_row(one: Placed, following: Placed | None) -> Transition:
    """Stay connected, by a newer session that nothing else tells of.

    It began within SKEW of the stamp, not before this session's connect, not after the next one's (the end of
    the second, where a check named that one in whole seconds). Nothing is proven up to the stamp: before it
    the newer session may have begun, and even ended.
    """
    assert one.end_ms is not None
    not_before_ms, not_after_ms = one.end_ms - SKEW_MS, one.end_ms + SKEW_MS
    if one.has_connect:
        not_before_ms = max(not_before_ms, one.start_ms)
    if following is not None and following.has_connect:
        fact = following.session.connect_fact
        not_after_ms = min(not_after_ms, max(following.start_ms, 0 if fact is None else fact.latest_ms))
    return Transition(
        at_ms=one.end_ms,
        state=State.CONNECTED,
        timestamp_ms=None,
        reason="NONE",
        not_before_ms=not_before_ms,
        not_after_ms=not_after_ms,
        rule="takeover-unseen",
        proved_from_ms=None,
    )


# Rule 7: what is missing


def lost_disconnect_rows(one: Placed, following: Placed) -> list[Transition]:
    """Infer the hour off before a version that did not rise; otherwise carry the connection on."""
    a, b = one.session.version, following.session.version
    lo_ms, hi_ms = last_proof(one, following), following.start_ms - RESET_MS
    if not following.has_connect or a is None or b is None or b > a or hi_ms < lo_ms:
        return []
    lost = Transition(
        at_ms=max(lo_ms, following.start_ms - HOUR_MS),
        state=State.DISCONNECTED,
        timestamp_ms=None,
        reason=None,
        not_before_ms=lo_ms,
        not_after_ms=hi_ms,
        rule="disconnect-lost",
        proved_from_ms=None,
    )
    return [lost]


def begin(events: Sequence[Event], checks: Sequence[Check], rows: list[Reported]) -> list[Reported]:
    """Before a client's first evidence: unknown. From there to the first transition: unknown, and said so.

    Any check is evidence from its asking on, even one that tells of a takeover; what it names is not.
    """
    stamps = [event.at_ms for event in events] + [check.asked_ms for check in checks]
    first_ms = min(stamps, default=None)
    if first_ms is None or (rows and rows[0][0].at_ms <= first_ms):
        return rows
    return [
        (Transition(first_ms, State.UNKNOWN, None, None, None, None, "first-evidence", None), None),
        *rows,
    ]


# --- Rule 13: what is proven --------------------------------------------------------------------------------


def proved_up_to_connect(one: Placed, before: Placed) -> int | None:
    """Return whence the stretch before a connect is proven, or None.

    A connect that checks alone tell of has no version, so that nothing is proven before or after it here.
    """
    if before.end_ms is None:
        return None
    if not ends_before(before, one):  # taken over while it lasted, and by the very next session
        return before.start_ms if before.session.whole and is_next_version(before, one) else None
    if not consecutive(before, one):
        return None
    if before.is_duplicate:
        one_takeover = before.has_connect and one.start_ms - before.end_ms <= SKEW_MS
        return before.start_ms if one_takeover and before.session.whole else None
    return before.end_ms if before.session.end_named else None


def proven(rows: Sequence[Reported]) -> list[Stretch]:
    """Return every proven stretch that has a length, ascending; stretches may overlap.

    A row's `proved_from_ms` proves the state before it, from there (not before the row before it) to its
    `at_ms`. A confirmation proves the row's own state from where its instant is surely past (its bounds, and
    the whole second that was named), and never past the next row.
    """
    stretches: list[Stretch] = []
    for (before, _), (row, _) in itertools.pairwise(rows):
        if row.proved_from_ms is not None:
            stretches.append((max(row.proved_from_ms, before.at_ms), row.at_ms, before.state))
    for position, (row, confirmed) in enumerate(rows):
        if confirmed is None:
            continue
        past_ms = [at_ms for at_ms in (row.not_after_ms, confirmed.from_ms) if at_ms is not None]
        from_ms = max([row.at_ms, *past_ms])
        to_ms = min([confirmed.until_ms, *(after.at_ms for after, _ in rows[position + 1 :])])
        stretches.append((from_ms, to_ms, row.state))
    return sorted((from_ms, to_ms, state) for from_ms, to_ms, state in stretches if from_ms < to_ms)


# --- Rule 9: checks that name an instant --------------------------------------------------------------------


def is_takeover(check: Check) -> bool:
    """Say whether a check tells of the older session in a takeover: never an outage, it is left out (rule 6)."""
    return check.state is State.DISCONNECTED and check.reason == DUPLICATE_CLIENTID


def facts(checks: Sequence[Check], state: State) -> list[Fact]:
    """Make one fact of the checks that name the same instant in the same form: precise ones first, then whole.

    Of each form the earliest instant is first. A fact's reason is the smallest that any check gives, missing
    counting as largest; it was asked when the last of them was.
    """
    named = [check for check in checks if check.state is state and check.named_ms is not None]
    result = []
    for whole, named_ms in sorted({(check.whole, check.named_ms or 0) for check in named}):
        same = [check for check in named if (check.whole, check.named_ms) == (whole, named_ms)]
        reasons = [check.reason for check in same if check.reason is not None]
        result.append(
            Fact(
                state=state,
                named_ms=named_ms,
                whole=whole,
                reason=min(reasons, default=None),
                asked_ms=max(check.asked_ms for check in same),
            )
        )
    return result


def named_half(sessions: Sequence[Session], stamps: Sequence[int | None], fact: Fact) -> int | None:
    """Return the position of the session whose half the fact names, `stamps` being those of the halves.

    The stamp is the very millisecond, or in the whole second named. The largest is meant; of several
    sessions with that stamp the one of the largest id, then of the largest version, missing counting as such.
    """

    def rank(position: int) -> tuple[int, str, bool, int]:
        session, stamp_ms = sessions[position], stamps[position]
        return (stamp_ms or 0, session.session_id, session.version is None, session.version or 0)

    within = [
        position
        for position, stamp_ms in enumerate(stamps)
        if stamp_ms is not None and fact.named_ms <= stamp_ms <= fact.latest_ms
    ]
    return max(within, key=rank, default=None)


def is_held_nearly(stamps: Sequence[int | None], fact: Fact) -> bool:
    """Say whether a half within a second of the instant named is held: the same transition, nothing proven."""
    return any(
        stamp_ms is not None and fact.named_ms - SECOND_MS <= stamp_ms <= fact.latest_ms + SECOND_MS
        for stamp_ms in stamps
    )


def name_connect(sessions: list[Session], fact: Fact) -> list[Session]:
    """Let a named connect confirm the session that has it, or be a session of its own that we missed.

    Facts before it are held like events. It does not complete a session that lacks its connect: the states
    are the same, and joining would prove what nothing proves.
    """
    stamps = [session.connect_ms for session in sessions]
    position = named_half(sessions, stamps, fact)
    if position is not None:
        session = sessions[position]
        confirmed = replace(session, connect_facts=(*session.connect_facts, fact))
        return [*sessions[:position], confirmed, *sessions[position + 1 :]]
    if is_held_nearly(stamps, fact):
        return sessions
    return [*sessions, Session(connect_ms=fact.named_ms, connect_fact=fact, connect_facts=(fact,))]


def name_disconnect(sessions: list[Session], fact: Fact, connects: Sequence[Fact]) -> list[Session]:
    """Let a named disconnect confirm the session that has it, or end the one current then, or stand alone.

    Held are the disconnects that have a transition, or that the next connect overtook by SKEW at most, and that
    are not of takeovers. Not held, and a named connect within SKEW before it was what the API told when it was
    asked more than LAG later: the stamps contradict the order, and nothing follows. Else it is handled like a
    disconnect without id and version: it ends the session that is current just before its stamp (of whole
    seconds: before the end of the second), and where that has no connect, or ended before, it stands alone.
    The smaller of two disconnects wins. Which session it ends is a guess, so that nothing follows from it.
    """
    settled = settle(place(in_order(sessions)))
    in_force = [
        one.session
        for one, following in itertools.zip_longest(settled, settled[1:])
        if one.end_ms is not None
        and not one.is_duplicate
        and (following is None or one.end_ms <= following.start_ms + SKEW_MS)
    ]
    stamps = [
        session.end[0] if session.end and any(one is session for one in in_force) else None
        for session in sessions
    ]
    position = named_half(sessions, stamps, fact)
    if position is not None:
        session = sessions[position]
        confirmed = replace(session, end_facts=(*session.end_facts, fact))
        return [*sessions[:position], confirmed, *sessions[position + 1 :]]
    if is_held_nearly(stamps, fact):
        return sessions
    if any(
        0 <= fact.named_ms - other.named_ms <= SKEW_MS and other.asked_ms > fact.asked_ms + LAG_MS
        for other in connects
    ):
        return sessions
    end = (fact.named_ms, fact.reason)
    before_ms = fact.latest_ms + 1 if fact.whole else fact.named_ms
    started = [one for one in settle(place(in_order(sessions))) if one.start_ms < before_ms]
    current = started[-1].session if started else None
    if current is None or current.connect_ms is None or (current.end and current.end[0] < fact.named_ms):
        return [*sessions, Session(end=end, end_fact=fact, end_facts=(fact,))]
    ended = replace(current, end=smallest_end([current.end, end]), whole=False, end_named=False)
    if ended.end != current.end:
        ended = replace(ended, end_fact=fact, end_facts=(fact,))
    return [*(session for session in sessions if session is not current), ended]


# --- Rule 10: what checks prove -----------------------------------------------------------------------------


def confirmation(named_by: Sequence[Fact]) -> Confirmation | None:
    """Return what the facts that name a transition prove together: up to the last asking less LAG.

    An answer tells of an instant at most LAG before the asking. Where one of them names a whole second,
    nothing is proven within it: what it names may be another transition there, that we missed.
    """
    if not named_by:
        return None
    until_ms = max(fact.asked_ms for fact in named_by) - LAG_MS
    return Confirmation(until_ms, max((fact.latest_ms for fact in named_by if fact.whole), default=None))


def last_proof(one: Placed, following: Placed) -> int:
    """Return the last instant at which a session was surely on: its start, or the end of its confirmation."""
    confirmed = confirmation(one.session.connect_facts)
    return (
        one.start_ms if confirmed is None else max(one.start_ms, min(confirmed.until_ms, following.start_ms))
    )


# --- Rule 11: checks that name no instant -------------------------------------------------------------------


def unnamed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks without instant, in order of asking, equal ones once; a missing reason comes last."""
    said = {check._replace(client_id="", whole=False) for check in checks if check.named_ms is None}
    return sorted(
        said, key=lambda check: (check.asked_ms, check.state, check.reason is None, check.reason or "")
    )


def lasting(rows: Sequence[Reported]) -> list[Transition]:
    """Leave out the rows of length zero: those that another follows at the same instant."""
    instants = [row.at_ms for row, _ in rows]
    return [row for position, (row, _) in enumerate(rows) if row.at_ms not in instants[position + 1 :]]


def lay(rows: list[Reported], check: Check) -> list[Reported]:
    """Lay a check that names no instant on the rows so far, those laid before it included.

    It changes nothing where it may agree with a state in [asked - LAG, asked], or contradicts what is proven.
    Else the state changed between the last proof of the other and the asking.
    """
    asked_ms = check.asked_ms
    if may_agree(lasting(rows), check):
        return rows
    if any(from_ms <= asked_ms < to_ms for from_ms, to_ms, _ in proven(rows)):
        return rows
    laid = Transition(
        at_ms=asked_ms,
        state=check.state,
        timestamp_ms=None,
        reason="NONE" if check.state is State.CONNECTED else check.reason,
        not_before_ms=last_proof_before(rows, asked_ms, check.state),
        not_after_ms=asked_ms,
        rule="check-laid",
        proved_from_ms=None,
    )
    position = sum(row.at_ms <= asked_ms for row, _ in rows)
    return [*rows[:position], (laid, None), *rows[position:]]


def may_agree(kept: Sequence[Transition], check: Check) -> bool:
    """Say whether the client may have been in the check's state in [asked - LAG, asked].

    The row in force at its beginning says so. Or that row, by its bounds, or another one may begin in it: the
    state just before a row is carried on, so that a connect or a disconnect that we missed may lie there.
    """
    begin_ms = check.asked_ms - LAG_MS
    in_force = [row for row in kept if row.at_ms <= begin_ms][-1:]
    begun = [row for row in kept if begin_ms < row.at_ms <= check.asked_ms]
    known = [row for row in in_force + begun if row.state is not State.UNKNOWN]
    return any(row.state is check.state or max(row.at_ms, row.not_after_ms or 0) > begin_ms for row in known)


def last_proof_before(rows: Sequence[Reported], asked_ms: int, state: State) -> int | None:
    """Return the last instant by `asked_ms` at which another state than `state` is known, or None.

    That of the row in force is where its bounds begin; of one that was laid, LAG before it was asked. Or it
    is where a proof of the other state ends.
    """
    in_force = [row for row, _ in rows if row.at_ms <= asked_ms][-1:]
    known = [row.not_before_ms for row in in_force]
    known += [row.at_ms - LAG_MS for row in in_force if row.rule == "check-laid"]
    known += [to_ms for _, to_ms, other in proven(rows) if to_ms <= asked_ms and other is not state]
    return max((at_ms for at_ms in known if at_ms is not None), default=None)
