"""The oracle: a slow and obvious reducer, one function per numbered rule of the design page (section 3).

It owns the second opinion that the laws are tested against. It is written from the page, and must never
import, or be written from, ingest/reduce.py. It sees the whole of one client's evidence at once, sorts and
searches again wherever that is clearest, and keeps nothing between calls.

Where the page leaves a choice open, the choice is stated in the function that makes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from store.model import DUPLICATE_CLIENTID, HOUR_MS, MINUTE_MS, Event, Kind, State, Transition

SKEW_MS = 4 * MINUTE_MS  # two stamps, each up to two minutes wrong
RESET_MS = 45 * MINUTE_MS  # the version counter restarts after about an hour unconnected, less tolerance

End = tuple[int, str | None]
"""The stamp and the reason of a disconnect, which only ever move together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All that the evidence tells of one session.

    `whole`: its connect and its disconnect surely belong together. `end_named`: its disconnect said whose it
    is, by session id or version.
    """

    session_id: str = ""
    version: int | None = None
    connect_ms: int | None = None
    end: End | None = None
    whole: bool = False
    end_named: bool = False

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


def timeline(events: Sequence[Event]) -> list[Transition]:
    """Reduce all evidence of one client, in any order and with duplicates, to its transitions.

    They ascend by `at_ms`; of several at one instant the last holds, the others have length zero.
    """
    return begin(events, transitions(settle(place(in_order(group(events))))))


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
    """Say whether nothing can lie between two sessions: version + 1, and less than RESET between them."""
    last_ms = one.end_ms if one.end_ms is not None and ends_before(one, following) else one.start_ms
    soon = following.has_connect and following.start_ms - last_ms < RESET_MS
    return soon and is_next_version(one, following)


# --- Rules 4 to 8: from sessions to transitions -------------------------------------------------------------


def transitions(placed: Sequence[Placed]) -> list[Transition]:
    """Walk the sessions in order: each gives its connect, then what becomes of it up to the next."""
    rows = []
    for before, one, following in zip([None, *placed[:-1]], placed, [*placed[1:], None], strict=False):
        if one.has_connect:
            rows.append(connect_row(one, before))
        if ends_before(one, following):
            if not one.is_duplicate:
                rows.append(disconnect_row(one))
            elif not runs_on(one, following):
                rows.append(unseen_takeover_row(one, following))
        elif one.end_ms is None and following is not None:
            rows += lost_disconnect_rows(one, following)
    return rows


def connect_row(one: Placed, before: Placed | None) -> Transition:
    stamp_ms = one.session.connect_ms
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
        not_after_ms=max(stamp_ms, one.start_ms),
        rule="takeover" if taken_over else "connect",
        proved_from_ms=None if before is None else proved_up_to_connect(one, before),
    )


def disconnect_row(one: Placed) -> Transition:
    assert one.session.end is not None
    assert one.end_ms is not None
    stamp_ms, reason = one.session.end
    return Transition(
        at_ms=one.end_ms,
        state=State.DISCONNECTED,
        timestamp_ms=stamp_ms,
        reason=reason,
        not_before_ms=min(stamp_ms, one.end_ms),
        not_after_ms=max(stamp_ms, one.end_ms),
        rule="disconnect" if one.has_connect else "connect-lost",
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

    It began within SKEW of the stamp, not before this session's connect, not after the next one's. Nothing is
    proven up to the stamp: before it the newer session may have begun, and even ended.
    """
    assert one.end_ms is not None
    not_before_ms, not_after_ms = one.end_ms - SKEW_MS, one.end_ms + SKEW_MS
    if one.has_connect:
        not_before_ms = max(not_before_ms, one.start_ms)
    if following is not None and following.has_connect:
        not_after_ms = min(not_after_ms, following.start_ms)
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
    lo_ms, hi_ms = one.start_ms, following.start_ms - RESET_MS
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


def begin(events: Sequence[Event], rows: list[Transition]) -> list[Transition]:
    """Before a client's first evidence: unknown. From there to the first transition: unknown, and said so."""
    first_ms = min((event.at_ms for event in events), default=None)
    if first_ms is None or (rows and rows[0].at_ms <= first_ms):
        return rows
    return [Transition(first_ms, State.UNKNOWN, None, None, None, None, "first-evidence", None), *rows]


# --- Rule 13: what is proven --------------------------------------------------------------------------------


def proved_up_to_connect(one: Placed, before: Placed) -> int | None:
    """Return whence the stretch before a connect is proven, or None."""
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
