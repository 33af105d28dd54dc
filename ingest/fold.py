"""Fold new evidence of one client into its timeline without reading its history.

The rules are those of ingest/reduce.py; this module decides only which window of sessions to show them. It
reduces that window twice, as it was and as it is now: what stands in one timeline and not in the other is
what changed. Rows near an edge where the history goes on are wrong in both, and equal, so they cancel; a
difference that reaches such an edge widens the window. Never touches a database itself: what a window needs
beyond the client's tail comes through the `History` that the caller hands in.

Evidence without session ids (a *stray*) joins sessions by version and by time, over any distance. The windows
of a client that bears such evidence end with its history, and open to the left only where nothing beyond has
a say in what is shown: see "Strays" below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from ingest.reduce import (
    NO_CHECKS,
    SKEW_MS,
    Checks,
    Doubt,
    Placed,
    checks_of,
    group,
    identity,
    link,
    merge,
    reduce_sessions,
    session_of,
    stamp_of,
)
from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    SECOND_MS,
    Check,
    Confirmation,
    Event,
    Identity,
    Kind,
    Session,
    State,
    Transition,
)

BESIDE = 3  # sessions to show on either side of what changed, at first
TAIL = 4  # sessions to keep in memory a client, at least; and all within 2 SKEW of its newest
STRAY_TAIL = 32  # ... of a client whose evidence lacks session ids
_STRAY_BESIDE = 8  # connects to show before what changed in such a client, at first
_EVER_MS = 1 << 62  # later than every stamp
_APART_MS = HOUR_MS  # changes further apart than this are folded one by one
_CONNECTED, _DISCONNECTED = Kind.CONNECTED, Kind.DISCONNECTED
_CONNECT_RULES = frozenset({"connect", "takeover"})  # of the one row of each session with a connect event
_NEAR_MS = 2 * SECOND_MS  # a stamp later than all checks by this much is none that they named


class Window(NamedTuple):
    """A run of one client's sessions, and whether its history goes on beyond either edge."""

    rows: list[Session]
    opens_left: bool
    opens_right: bool


class History(Protocol):
    """What a fold may ask of the store about one client."""

    def find(self, client_no: int, key: Identity) -> Session | None:
        """Give the session that bears this identity."""

    def presume_new(self, client_no: int, session_id: str) -> bool:
        """Tell whether a connect later than all else begins a session; what is only presumed is verified later."""

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        """Give all sessions stamped in `[from_ms, to_ms]`, and up to `beside` more on either side."""

    def save(self, client_no: int, folded: Folded) -> None:
        """Make this step's sessions part of what the other questions are answered from; none is presumed then."""

    def latest_end(self, client_no: int, before_ms: int) -> int:
        """Give the latest disconnect of the sessions that have a connect, stamped before `before_ms`; -1: none."""

    def of_version(self, client_no: int, version: int) -> list[Session]:
        """Give all sessions of a version; and those without any whose connect or disconnect one shares."""

    def checks(self, client_no: int, from_ms: int, to_ms: int) -> list[Check]:
        """Give the checks before this step that name an instant in `[from_ms, to_ms]`, or were asked in it.

        Of checks that repeat an answer, the last; of those that repeat one without an instant, all.
        """


class Row(NamedTuple):
    """A transition with its place among those of the same instant."""

    at_ms: int
    seq: int
    transition: Transition


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
    last_known_at: int  # of what repeated it last; one a step, so that a sweep has one slot a client

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
                    and abs(newest.timestamp_ms - self.check.named_ms) < _NEAR_MS
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
    checked_ms: int | None = None  # latest instant that a check named or was asked; None: never checked
    plain: bool = True  # no check has a say in what follows the start of `last`
    newest: Last | None = None  # the last row of the timeline, where it is known
    run: Run | None = None


class Proof(NamedTuple):
    """A confirmation, with the place of the transition that it confirms."""

    at_ms: int
    seq: int
    confirmation: Confirmation


@dataclass(slots=True)
class Folded:
    """What one step changed: rows taken out of the timeline, rows put in, and sessions to save.

    `unproved` and `proved` are the same of confirmations.
    """

    removed: list[Row] = field(default_factory=list)
    added: list[Row] = field(default_factory=list)
    unproved: list[Proof] = field(default_factory=list)
    proved: list[Proof] = field(default_factory=list)
    sessions: dict[Identity, Session] = field(default_factory=dict)
    presumed: set[Identity] = field(default_factory=set)  # of these sessions, those presumed to be new
    checks: list[Check] = field(default_factory=list)
    conflicts: int = 0  # copies that disagreed with what was held


def fold(
    client: Client,
    events: Sequence[Event],
    history: History,
    told: Sequence[Told] = (),
    known_at: int = 0,
) -> Folded:
    """Fold one step of evidence (equal known_at) into the client; updates `client`, returns the changes.

    `told` are the checks of the step, but for one that a run takes in. The latest asked begins a run, if none
    was asked later before.
    """
    folded = Folded()
    if len(events) > 1:
        events = sorted(events, key=_stamp)
    if told:
        latest = max(told, key=lambda one: (one.check.asked_ms, one.answer))
        run = client.run
        if run is None or latest.check.asked_ms > run.last_asked_ms:
            run = Run(latest.check, latest.answer, known_at, latest.check.asked_ms, known_at)
        _insert(client, events, history, folded, [one.check for one in told], run)
        return folded
    rest = _append(client, events, history, folded)
    if rest:
        _insert(client, rest, history, folded, (), client.run)
    return folded


def _stamp(event: Event) -> int:
    return event.at_ms


def _insert(
    client: Client,
    events: Sequence[Event],
    history: History,
    folded: Folded,
    checks: Sequence[Check],
    run: Run | None,
) -> None:
    """Fold evidence that may belong anywhere in the history."""
    changes: dict[Identity, tuple[Session | None, Session]] = {}
    first_ms = client.first_ms
    for check in checks:
        if first_ms is None or check.asked_ms < first_ms:
            first_ms = check.asked_ms
        latest_ms = check.asked_ms if check.named_ms is None else max(check.asked_ms, check.named_ms)
        if client.checked_ms is None or latest_ms > client.checked_ms:
            client.checked_ms = latest_ms
    for event in events:
        if first_ms is None or event.at_ms < first_ms:
            first_ms = event.at_ms
        if event.kind > _DISCONNECTED:
            continue
        row = session_of(event)
        key = identity(row)
        held: Session | None
        if key in changes:
            before, held = changes[key]
        else:
            held = _held(client, key, history, folded)
            before = held
        merged = row if held is None else merge(held, row)
        if held is not None:
            folded.conflicts += _disagrees(held, row)
        if merged == held:
            continue
        changes[key] = (before, merged)
        if not row.session_id:
            client.has_strays = True
    if client.run is not None and run is not client.run:  # what it confirmed is open no longer
        about_ms = _about_ms(client.run.check)
        closing = _Span(about_ms, about_ms, {}, [])
        _fold_span(client, closing, history, folded, client.first_ms, (client.run, None))
    for span in _spans(changes, client, first_ms, checks):
        _fold_span(client, span, history, folded, first_ms, (run, run))
        client.first_ms = first_ms  # the earliest span, folded first, is the one that it concerns
    if run is not None:
        client.run = run


def _held(client: Client, key: Identity, history: History, folded: Folded) -> Session | None:
    """Find what is held of a session: in the tail, in this step, or in the store."""
    held = client.tail.get(key)
    if held is None:
        held = folded.sessions.get(key)
    if held is None and client.opens_left:
        held = history.find(client.client_no, key)
    return held


def _disagrees(held: Session, row: Session) -> bool:
    """Tell whether a copy contradicts what is held, rather than completing it."""
    return any(a is not None and b is not None and a != b for a, b in zip(held[1:], row[1:], strict=True))


# --- At the end of the history ------------------------------------------------------------------------------


def _append(client: Client, events: Iterable[Event], history: History, folded: Folded) -> list[Event]:
    """Take what continues a history in order, at the cost of one link: a new newest session, or its disconnect.

    And what only repeats the newest sessions. `events` ascend by stamp; gives those that may belong elsewhere.
    One loop without calls but to the rules, for nearly all events take this way.
    """
    rest: list[Event] = []
    tail, last, checked = client.tail, client.last, client.checked_ms is not None
    proven_ms = _proven_ms(client)
    newest_ms = max(client.newest_ms, proven_ms)
    before, old = _tip(client)
    begins = before is None and not tail and not client.opens_left and not checked
    for event in events:
        _, kind, at_ms, session_id, version, reason, _, _, _, _, _ = event
        if kind > _DISCONNECTED:
            if client.first_ms is None or at_ms < client.first_ms:
                rest.append(event)
            continue
        held = tail.get(session_id) if session_id else None
        if kind is _CONNECTED:
            if held is not None:
                if held.connect_ms != at_ms or held.version != version:
                    rest.append(event)
                continue
            if not session_id or at_ms <= newest_ms:
                rest.append(event)
                continue
            placed = Placed(Session(session_id, version, at_ms, None, None), at_ms, None)
            if last is None or before is None:
                if not begins or (client.first_ms is not None and at_ms <= client.first_ms):
                    rest.append(event)
                    continue
                begins = False
                client.first_ms = at_ms if client.first_ms is None else client.first_ms
                new = link(None, placed)
            else:
                near = at_ms - before.start_ms <= SKEW_MS
                if near and (version is None or last.version is None or version < last.version):
                    rest.append(event)
                    continue
                if checked and (last.disconnect_ms is None or last.reason == DUPLICATE_CLIENTID):
                    rest.append(
                        event
                    )  # its last proof may be a check, or a check be laid anew where a row goes
                    continue
                new = link(before, placed)
                if new[0].at_ms <= before.start_ms or (old and old[0].at_ms <= before.start_ms):
                    rest.append(event)  # at the instant of the row before: its seq is for the window to count
                    continue
            if client.opens_left:
                if not history.presume_new(client.client_no, session_id):
                    rest.append(event)
                    continue
                folded.presumed.add(session_id)
            newest_ms = client.newest_ms = at_ms
            following: list[Transition] = []
        else:
            if (
                held is None
                or held is not last
                or before is None
                or held.disconnect_ms is not None
                or held.version != version
                or at_ms <= before.start_ms
                or at_ms <= proven_ms
            ):
                if held is None or (held.disconnect_ms, held.reason, held.version) != (
                    at_ms,
                    reason,
                    version,
                ):
                    rest.append(event)
                continue
            ended = Session(held.session_id, version, held.connect_ms, at_ms, reason)
            placed = Placed(ended, before.start_ms, at_ms)
            new = following = link(placed, None)
        kept = len(old)
        if kept and new[:kept] != old:
            removed, added = [Row(row.at_ms, 0, row) for row in old], [Row(row.at_ms, 0, row) for row in new]
            _net(folded.removed, folded.added, *_differences(removed, added))
        elif folded.removed:
            _net(folded.removed, folded.added, [], [Row(row.at_ms, 0, row) for row in new[kept:]])
        else:
            for row in new[kept:]:
                folded.added.append(Row(row.at_ms, 0, row))
        before, old = placed, following
        last = client.last = placed.session
        client.newest, client.tip = new[-1], (before, old)
        folded.sessions[last.session_id] = tail[last.session_id] = last
        if len(tail) >= 2 * TAIL:
            _trim(client)
            tail = client.tail
    return rest


def _proven_ms(client: Client) -> int:
    """Tell up to which instant more than the newest session has a say in what follows it; -1: nothing has."""
    if client.has_strays or not client.plain:
        return _EVER_MS
    if client.checked_ms is None:
        return -1
    run = client.run
    return max(client.checked_ms, -1 if run is None else run.last_asked_ms) + _NEAR_MS


def _tip(client: Client) -> tuple[Placed | None, list[Transition]]:
    """Give the newest session in its place, and what follows its start."""
    if client.last is None:
        return None, []
    if client.tip is None:
        placed = _alone(client.last)
        client.tip = placed, [] if placed.end_ms is None else link(placed, None)
    return client.tip


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


def _alone(session: Session) -> Placed:
    """Place a session that no neighbour moves."""
    start_ms = stamp_of(session)
    end_ms = None if session.disconnect_ms is None else max(session.disconnect_ms, start_ms)
    return Placed(session, start_ms, end_ms)


def _trim(client: Client) -> None:
    keep = STRAY_TAIL if client.has_strays else TAIL
    if len(client.tail) < 2 * keep:
        return
    ranked = sorted(client.tail.items(), key=lambda item: stamp_of(item[1]))
    floor_ms = client.newest_ms - 3 * SKEW_MS
    cut = 0
    while len(ranked) - cut > keep and stamp_of(ranked[cut][1]) < floor_ms:
        cut += 1
    # Sessions of one stamp stay together, so that "older than the tail" is a question of the stamp alone.
    while cut and stamp_of(ranked[cut - 1][1]) == stamp_of(ranked[cut][1]):
        cut -= 1
    if cut:
        if client.has_strays and not (client.opens_left and client.far_end_ms is None):
            client.far_end_ms = _latest_end((row for _, row in ranked[:cut]), client.far_end_ms)
        client.tail = dict(ranked[cut:])
        client.opens_left = True


# --- Anywhere -----------------------------------------------------------------------------------------------


class _Span(NamedTuple):
    """Changes that are folded together, and the stamps that they touch."""

    from_ms: int
    to_ms: int
    changes: dict[Identity, tuple[Session | None, Session]]
    checks: list[Check]


def _spans(
    changes: dict[Identity, tuple[Session | None, Session]],
    client: Client,
    first_ms: int | None,
    checks: Sequence[Check],
) -> list[_Span]:
    spans: list[_Span] = []
    if first_ms is not None and first_ms != client.first_ms:
        spans.append(_Span(first_ms, first_ms if client.first_ms is None else client.first_ms, {}, []))
    for check in checks:
        about_ms = _about_ms(check)
        spans.append(_Span(about_ms, about_ms, {}, [check]))
    for key, (before, after) in changes.items():
        stamps = [stamp_of(after)]
        if before is not None:
            stamps.append(stamp_of(before))
        if client.has_strays:
            stamps += [s for s in (after.connect_ms, after.disconnect_ms) if s is not None]
            if before is not None and before.disconnect_ms is not None:
                stamps.append(before.disconnect_ms)
        spans.append(_Span(min(stamps), max(stamps), {key: (before, after)}, []))
    spans.sort(key=lambda span: span[:2])
    joined: list[_Span] = []
    for span in spans:
        if joined and span.from_ms - joined[-1].to_ms <= _APART_MS:
            last = joined.pop()
            to_ms = max(last.to_ms, span.to_ms)
            joined.append(
                _Span(last.from_ms, to_ms, {**last.changes, **span.changes}, [*last.checks, *span.checks])
            )
        else:
            joined.append(span)
    return joined


def _about_ms(check: Check) -> int:
    """Give the instant that a check speaks of: the one it names, else that of asking."""
    return check.asked_ms if check.named_ms is None else check.named_ms


def _fold_span(
    client: Client,
    span: _Span,
    history: History,
    folded: Folded,
    first_ms: int | None,
    runs: tuple[Run | None, Run | None],
) -> None:
    """Fold a span; `runs` are the open ones before and after it."""
    views = (_stray_views if client.has_strays else _views)(client, span, history, folded)
    while True:
        window, far, trusted_ms = next(views)
        said = _said(client, window, folded, history)
        before, after = _shown(window, span, far)
        old = reduce_sessions(before, None if window.opens_left else client.first_ms, _checks(said, runs[0]))
        new = reduce_sessions(
            after, None if window.opens_left else first_ms, _checks([*said, *span.checks], runs[1])
        )
        old_timeline, new_timeline = keyed(old), keyed(new)
        removed, added = _differences(old_timeline, new_timeline)
        changed = [*removed, *added]
        if client.has_strays:
            if all(row.at_ms > trusted_ms for row in changed):
                break
        elif _settled(window, span, old_timeline, new_timeline, changed):
            break
    _net(folded.removed, folded.added, removed, added)
    if client.checked_ms is not None:
        unproved, proved = _differences(proofs(old), proofs(new))
        _net(folded.unproved, folded.proved, unproved, proved)
        folded.checks += span.checks
    _keep(client, span, folded)
    if not window.opens_right and new:
        client.newest = new[-1]
        client.plain = client.checked_ms is None or _is_plain(client.last, new_timeline)


class _View(NamedTuple):
    """What to show the rules for a span: a window, strays' partners beyond it, and from when on rows are right."""

    window: Window
    far: list[Session]
    trusted_ms: int


def _views(client: Client, span: _Span, history: History, folded: Folded) -> Iterator[_View]:
    """Give wider and wider windows of a client without strays: of its tail if that reaches, then of the store."""
    from_ms, to_ms, beside = span.from_ms - 2 * SKEW_MS, span.to_ms + 2 * SKEW_MS, BESIDE
    window = Window(sorted(client.tail.values(), key=stamp_of), client.opens_left, False)
    if not window.opens_left or (window.rows and from_ms > stamp_of(window.rows[0])):
        yield _View(window, [], -_EVER_MS)
        beside *= 4
    while True:
        history.save(client.client_no, folded)
        yield _View(history.window(client.client_no, from_ms, to_ms, beside), [], -_EVER_MS)
        beside *= 4


def _said(client: Client, window: Window, folded: Folded, history: History) -> list[Check]:
    """List the checks that speak of the window, those of this step's earlier spans included."""
    if client.checked_ms is None:
        return []
    from_ms = min(map(stamp_of, window.rows)) if window.opens_left else -_EVER_MS
    to_ms = max(map(stamp_of, window.rows)) if window.opens_right else _EVER_MS
    said = history.checks(client.client_no, from_ms, to_ms)
    said += [check for check in folded.checks if from_ms <= _about_ms(check) <= to_ms]
    run = client.run
    if run is not None and run.check.named_ms is not None and from_ms <= run.check.named_ms <= to_ms:
        said.append(run.check._replace(asked_ms=run.last_asked_ms))
    return said


def _checks(said: Sequence[Check], run: Run | None) -> Checks:
    if not said:
        return NO_CHECKS
    return checks_of(said) if run is None else checks_of(said, run.check, run.known_at)


def _is_plain(last: Session | None, timeline: list[Row]) -> bool:
    """Tell whether a timeline ends with what `last` alone says, so that no check has a say in what follows."""
    if last is None:
        return False
    at = max((i for i, row in enumerate(timeline) if row.transition.rule in _CONNECT_RULES), default=None)
    return (
        at is not None
        and timeline[at].transition.timestamp_ms == last.connect_ms
        and [row.transition for row in timeline[at + 1 :]] == link(_alone(last), None)
    )


def _shown(window: Window, span: _Span, far: Iterable[Session] = ()) -> tuple[list[Session], list[Session]]:
    """List the sessions of the window, and those far from it, as they were and as they are now."""
    before = {identity(row): row for row in (*far, *window.rows)}
    after = dict(before)
    for key, (held, merged) in span.changes.items():
        if held is not None:
            before[key] = held
        after[key] = merged
    return list(before.values()), list(after.values())


def keyed(timeline: list[Transition]) -> list[Row]:
    """Give each transition its place among those of the same instant."""
    rows: list[Row] = []
    at_ms, seq = None, 0
    for transition in timeline:
        seq = seq + 1 if transition.at_ms == at_ms else 0
        at_ms = transition.at_ms
        if transition.confirmed is not None:
            transition = transition._replace(confirmed=None)
        rows.append(Row(at_ms, seq, transition))
    return rows


def proofs(timeline: list[Transition]) -> list[Proof]:
    """List the confirmations of a timeline, each with the place of its transition."""
    found: list[Proof] = []
    at_ms, seq = None, 0
    for transition in timeline:
        seq = seq + 1 if transition.at_ms == at_ms else 0
        at_ms = transition.at_ms
        if transition.confirmed is not None:
            found.append(Proof(at_ms, seq, transition.confirmed))
    return found


_Placed = TypeVar("_Placed", Row, Proof)


def _differences(old: list[_Placed], new: list[_Placed]) -> tuple[list[_Placed], list[_Placed]]:
    old_set, new_set = set(old), set(new)
    return [row for row in old if row not in new_set], [row for row in new if row not in old_set]


def _settled(window: Window, span: _Span, old: list[Row], new: list[Row], changed: list[Row]) -> bool:
    """Tell whether the window is wide enough: two connects stand between any difference and an open edge.

    They stand beyond the nearest neighbour by SKEW, for among sessions closer than that any may be the next
    in session order.
    """
    stamps = [row.connect_ms for row in window.rows if row.connect_ms is not None]
    if window.opens_left:
        near_ms = max((s for s in map(stamp_of, window.rows) if s < span.from_ms), default=span.from_ms)
        if sum(stamp < near_ms - SKEW_MS for stamp in stamps) < 2:
            return False
        low = max(_starts(old)[1], _starts(new)[1])
        if any(row.at_ms <= low for row in changed):
            return False
    if window.opens_right:
        near_ms = min((s for s in map(stamp_of, window.rows) if s > span.to_ms), default=span.to_ms)
        if sum(stamp > near_ms + SKEW_MS for stamp in stamps) < 2:
            return False
        high = min(_starts(old)[-2], _starts(new)[-2])
        if any(row.at_ms >= high for row in changed):
            return False
    return True


def _starts(timeline: list[Row]) -> list[int]:
    """List where the sessions of a timeline start: each with a connect has one such row."""
    return [row.at_ms for row in timeline if row.transition.rule in _CONNECT_RULES]


def _net(
    gone: list[_Placed], come: list[_Placed], removed: Sequence[_Placed], added: Sequence[_Placed]
) -> None:
    """Add differences to those of the same step; a row put in and taken out again never was."""
    for row in removed:
        if row in come:
            come.remove(row)
        else:
            gone.append(row)
    for row in added:
        if row in gone:
            gone.remove(row)
        else:
            come.append(row)


def _keep(client: Client, span: _Span, folded: Folded) -> None:
    oldest_ms = min((stamp_of(row) for row in client.tail.values()), default=-1)
    for key, (_, after) in span.changes.items():
        folded.sessions[key] = after
        if not client.opens_left or stamp_of(after) >= oldest_ms:
            client.tail[key] = after
            client.newest_ms = max(client.newest_ms, stamp_of(after))
        else:
            client.tail.pop(key, None)
            if client.far_end_ms is not None:
                client.far_end_ms = _latest_end([after], client.far_end_ms)
    _trim(client)
    client.last, client.tip = find_last(client.tail), None


# --- Strays -------------------------------------------------------------------------------------------------
#
# `group` joins evidence without session id in three ways; each bounds how far a window must reach.
#
#   copies    share an instant. No join of copies crosses the *edge*: the earliest instant within the window
#             that all halves of a session stand on one side of, whatever session.
#   versions  A disconnect joins the latest connect of its version, however old. If none is right of the edge,
#             all evidence of that version is shown as well, from wherever it is. Which disconnects join which
#             connect does not depend on bare ones, so that it can be compared first: where it differs is where
#             the change begins.
#   bare      A disconnect without either ends the session that is current: one at, or right of, the last
#             connect before it.
#
# So what is shown right of the edge is grouped as in the whole history, and what follows is as local as with
# ids: two connects stand between any difference and the first that is doubtful.


def _latest_end(rows: Iterable[Session], floor_ms: int | None = None) -> int:
    """Give the latest disconnect of rows that have a connect as well; -1: none."""
    latest_ms = -1 if floor_ms is None else floor_ms
    for row in rows:
        if row.connect_ms is not None and row.disconnect_ms is not None and row.disconnect_ms > latest_ms:
            latest_ms = row.disconnect_ms
    return latest_ms


def _stray_views(client: Client, span: _Span, history: History, folded: Folded) -> Iterator[_View]:
    """Give wider and wider windows in which strays are grouped as in the whole history."""
    from_ms, beside, no = span.from_ms, BESIDE, client.client_no
    for window, end_ms in _tail_windows(client, span, history, folded):
        part = len(window.rows) < len(client.tail)
        view, from_ms = _viewed(client, window, end_ms, span, history, folded, look=not part)
        if view is not None:
            yield view
    while True:
        history.save(no, folded)
        window = history.window(no, from_ms - 2 * SKEW_MS, _EVER_MS, beside)
        end_ms = history.latest_end(no, stamp_of(window.rows[0]) + 1) if window.opens_left else -1
        view, reached_ms = _viewed(client, window, end_ms, span, history, folded)
        if view is not None:
            yield view
        from_ms = min(from_ms, reached_ms)
        beside *= 4


def _tail_windows(
    client: Client, span: _Span, history: History, folded: Folded
) -> Iterator[tuple[Window, int]]:
    """Give the end of a tail, then all of it; each with the latest disconnect of the sessions before it."""
    rows = sorted(client.tail.values(), key=stamp_of)
    far_end_ms = -1
    if client.opens_left:
        if not rows:
            return
        if client.far_end_ms is None:
            history.save(client.client_no, folded)
            client.far_end_ms = history.latest_end(client.client_no, stamp_of(rows[0]) + 1)
        far_end_ms = client.far_end_ms
    connects = [
        row.connect_ms
        for row in rows
        if row.connect_ms is not None and row.connect_ms < span.from_ms - 2 * SKEW_MS
    ]
    if len(connects) > _STRAY_BESIDE:
        cut = next(i for i, row in enumerate(rows) if stamp_of(row) == connects[-_STRAY_BESIDE])
        if cut:
            yield Window(rows[cut:], True, False), _latest_end(rows[:cut], far_end_ms)
    yield Window(rows, client.opens_left, False), far_end_ms


def _viewed(
    client: Client,
    window: Window,
    end_ms: int,
    span: _Span,
    history: History,
    folded: Folded,
    *,
    look: bool = True,
) -> tuple[_View | None, int]:
    """View a span through a window, if it is wide enough; and tell where the change begins.

    `end_ms` is the latest disconnect of the sessions before the window; `look` for partners beyond it.
    """
    if not window.opens_left:
        return _View(window, [], -_EVER_MS), span.from_ms
    far: list[Session] = []
    looked: set[int] = set()
    while True:
        shown = _shown(window, span, far)
        edge_ms = _edge_ms(window, end_ms, shown)
        old, new = (_joined_by_version(rows) for rows in shown)
        begins_ms = min([span.from_ms, *(stamp_of(session) for session, _ in old ^ new)])
        connects = sorted(
            {
                session.connect_ms
                for session, _ in old & new
                if session.connect_ms is not None and edge_ms <= session.connect_ms < begins_ms - 2 * SKEW_MS
            }
        )
        standing = [at_ms for at_ms in connects if at_ms < connects[-1] - 2 * SKEW_MS]
        if len(standing) < 2 or standing[-2] - 2 * SKEW_MS < edge_ms:
            return None, begins_ms
        versions = set[int]()
        for rows, sessions in zip(shown, (old, new), strict=True):
            versions |= _lacking(rows, sessions, edge_ms, standing[-2] - 2 * SKEW_MS)
        if not versions - looked:
            return _View(window, far, standing[-1]), begins_ms
        if not look:
            return None, begins_ms
        history.save(client.client_no, folded)
        for version in versions - looked:
            partners = _partners(history.of_version(client.client_no, version), version, window, edge_ms)
            if partners is None:
                return None, -1
            far += partners
        looked |= versions


def _edge_ms(window: Window, end_ms: int, shown: Iterable[Sequence[Session]]) -> int:
    """Give the earliest instant from which on the window holds all, and which no session straddles."""
    edge_ms = max(stamp_of(window.rows[0]), end_ms) + 1
    spread = [
        (min(row.connect_ms, row.disconnect_ms), max(row.connect_ms, row.disconnect_ms))
        for rows in shown
        for row in rows
        if row.connect_ms is not None and row.disconnect_ms is not None
    ]
    for first_ms, last_ms in sorted(spread):
        if first_ms < edge_ms <= last_ms:
            edge_ms = last_ms + 1
    return edge_ms


def _joined_by_version(rows: Iterable[Session]) -> set[tuple[Session, Doubt | None]]:
    """Group all but bare disconnects."""
    numbered = [
        row for row in rows if row.session_id or row.version is not None or row.connect_ms is not None
    ]
    grouped, doubts = group(numbered)
    return {(session, doubts.get(session)) for session in grouped}


def _lacking(
    rows: Iterable[Session],
    sessions: Iterable[tuple[Session, Doubt | None]],
    edge_ms: int,
    from_ms: int,
) -> set[int]:
    """List the versions of disconnects from `from_ms` on whose connect is not surely right of the edge.

    Surely: so far right of it that all disconnects that may join it are so, too.
    """
    earliest: dict[int, int] = {}
    for session, _ in sessions:
        at_ms, version = session.connect_ms, session.version
        if version is not None and at_ms is not None and at_ms >= edge_ms + SKEW_MS:
            earliest[version] = min(at_ms, earliest.get(version, at_ms))
    return {
        row.version
        for row in rows
        if row.connect_ms is None
        and row.version is not None
        and row.disconnect_ms is not None
        and row.disconnect_ms >= from_ms
        and earliest.get(row.version, _EVER_MS) > row.disconnect_ms + SKEW_MS
    }


def _partners(rows: list[Session], version: int, window: Window, edge_ms: int) -> list[Session] | None:
    """Pick from all evidence of a version what may be joined by, or rival, disconnects right of the edge.

    None where that cannot be told: a session left of the edge may have its version from a copy alone.
    """
    if any(row.session_id and row.version is None and stamp_of(row) < edge_ms for row in rows):
        return None
    first_ms = stamp_of(window.rows[0])
    sessions, _ = group([row for row in rows if stamp_of(row) <= first_ms])
    latest_ms = max(
        (s.connect_ms for s in sessions if s.connect_ms is not None and s.version == version),
        default=first_ms,
    )
    return [row for row in rows if max(row.connect_ms or 0, row.disconnect_ms or 0) >= latest_ms - SKEW_MS]
