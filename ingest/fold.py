"""Fold new evidence of one client into its timeline without reading its history.

The rules are those of ingest/reduce.py; this module decides only which window of sessions to show them. It
reduces that window twice, as it was and as it is now: what stands in one timeline and not in the other is
what changed. Rows near an edge where the history goes on are wrong in both, and equal, so they cancel; a
difference that reaches such an edge widens the window. Never touches a database itself: what a window needs
beyond the client's tail comes through the `History` that the caller hands in.

What continues a history in order needs no window (ingest/append.py); evidence without session ids needs windows of
its own (ingest/strays.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from ingest.append import append
from ingest.changes import Folded, Row, differences, keyed, net, proofs
from ingest.client import (
    STRAY_TAIL,
    TAIL,
    Client,
    Run,
    Told,
    alone,
    find_last,
    instant_of,
    is_crowded,
    latest_end,
    trim,
)
from ingest.reduce import (
    NO_CHECKS,
    SKEW_MS,
    Checks,
    checks_of,
    identity,
    link,
    merge,
    reduce_sessions,
    session_of,
    stamp_of,
)
from ingest.strays import stray_views
from ingest.windows import EVER_MS, History, Span, Window, held_of, shown_in, views_of
from store.model import (
    HOUR_MS,
    Check,
    Event,
    Identity,
    Kind,
    Session,
)

_APART_MS = HOUR_MS  # changes further apart than this are folded one by one
_DISCONNECTED = Kind.DISCONNECTED
_CONNECT_RULES = frozenset({"connect", "takeover"})  # of the one row of each session with a connect event


def fold(
    client: Client,
    events: Sequence[Event],
    history: History,
    told: Sequence[Told] = (),
    known_at: int = 0,
) -> Folded:
    """Fold one step of evidence (equal known_at) into the client; updates `client`, returns the changes.

    `told` are the checks of the step, but for one that a run takes in. The latest asked begins a run, if none
    was asked later before; of several asked at once, within a step, the last by its text, however it was cut.
    """
    folded = Folded()
    if len(events) > 1:
        events = sorted(events, key=attrgetter("at_ms"))
    if told:
        latest = max(told, key=lambda one: (one.check.asked_ms, one.answer))
        run = client.run
        if run is None or _is_later(latest, run, known_at):
            run = Run(latest.check, latest.answer, known_at, latest.check.asked_ms, known_at)
        _insert(client, events, history, folded, [one.check for one in told], run)
    elif rest := append(client, events, history, folded):
        _insert(client, rest, history, folded, (), client.run)
    if client.run is not None and folded.proved:  # as the store will tell; copies alone leave nothing there
        client.run.last_known_at = max(client.run.last_known_at, known_at)
    return folded


def _is_later(told: Told, run: Run, known_at: int) -> bool:
    if run.known_at == known_at:  # the step goes on
        return (told.check.asked_ms, told.answer) > (run.last_asked_ms, run.answer)
    return told.check.asked_ms > run.last_asked_ms


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
            held = held_of(client, key, history, folded)
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
        about_ms = instant_of(client.run.check)
        closing = Span(about_ms, about_ms, {}, [])
        _fold_span(client, closing, history, folded, client.first_ms, (client.run, None))
    for span in _spans(changes, client, first_ms, checks):
        _fold_span(client, span, history, folded, first_ms, (run, run))
        client.first_ms = first_ms  # the earliest span, folded first, is the one that it concerns
    if run is not None:
        client.run = run


def _disagrees(held: Session, row: Session) -> bool:
    """Tell whether a copy contradicts what is held, rather than completing it."""
    return any(a is not None and b is not None and a != b for a, b in zip(held[1:], row[1:], strict=True))


def _spans(
    changes: dict[Identity, tuple[Session | None, Session]],
    client: Client,
    first_ms: int | None,
    checks: Sequence[Check],
) -> list[Span]:
    spans: list[Span] = []
    if first_ms is not None and first_ms != client.first_ms:
        spans.append(Span(first_ms, first_ms if client.first_ms is None else client.first_ms, {}, []))
    for check in checks:
        about_ms = instant_of(check)
        spans.append(Span(about_ms, about_ms, {}, [check]))
    for key, (before, after) in changes.items():
        stamps = [stamp_of(after)]
        if before is not None:
            stamps.append(stamp_of(before))
        if client.has_strays:
            stamps += [s for s in (after.connect_ms, after.disconnect_ms) if s is not None]
            if before is not None and before.disconnect_ms is not None:
                stamps.append(before.disconnect_ms)
        spans.append(Span(min(stamps), max(stamps), {key: (before, after)}, []))
    spans.sort(key=lambda span: span[:2])
    joined: list[Span] = []
    for span in spans:
        if joined and span.from_ms - joined[-1].to_ms <= _APART_MS:
            last = joined.pop()
            to_ms = max(last.to_ms, span.to_ms)
            joined.append(
                Span(last.from_ms, to_ms, {**last.changes, **span.changes}, [*last.checks, *span.checks])
            )
        else:
            joined.append(span)
    return joined


def _fold_span(
    client: Client,
    span: Span,
    history: History,
    folded: Folded,
    first_ms: int | None,
    runs: tuple[Run | None, Run | None],
) -> None:
    """Fold a span; `runs` are the open ones before and after it."""
    views = (stray_views if client.has_strays else views_of)(client, span, history, folded)
    while True:
        window, far, trusted_ms = next(views)
        said = _said(client, window, folded, history)
        before, after = shown_in(window, span, far)
        old = reduce_sessions(before, None if window.opens_left else client.first_ms, _checks(said, runs[0]))
        new = reduce_sessions(
            after, None if window.opens_left else first_ms, _checks([*said, *span.checks], runs[1])
        )
        old_timeline, new_timeline = keyed(old), keyed(new)
        removed, added = differences(old_timeline, new_timeline)
        changed = [*removed, *added]
        if client.has_strays:
            if all(row.at_ms > trusted_ms for row in changed):
                break
        elif _settled(window, span, old_timeline, new_timeline, changed):
            break
    net(folded.removed, folded.added, removed, added)
    if client.checked_ms is not None:
        unproved, proved = differences(proofs(old), proofs(new))
        net(folded.unproved, folded.proved, unproved, proved)
        folded.checks += span.checks
    _keep(client, span, history, folded)
    if not window.opens_right and new:
        client.newest = new[-1]
        client.plain = client.checked_ms is None or _is_plain(client.last, new_timeline)


def _said(client: Client, window: Window, folded: Folded, history: History) -> list[Check]:
    """List the checks that speak of the window, those of this step's earlier spans included."""
    if client.checked_ms is None:
        return []
    from_ms = min(map(stamp_of, window.rows)) if window.opens_left else -EVER_MS
    to_ms = max(map(stamp_of, window.rows)) if window.opens_right else EVER_MS
    said = history.checks(client.client_no, from_ms, to_ms)
    said += [check for check in folded.checks if from_ms <= instant_of(check) <= to_ms]
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
        and [row.transition for row in timeline[at + 1 :]] == link(alone(last), None)
    )


def _settled(window: Window, span: Span, old: list[Row], new: list[Row], changed: list[Row]) -> bool:
    """Tell whether the window is wide enough: two sure connects stand between any difference and an open edge.

    They stand beyond the nearest neighbour by SKEW, for among sessions closer than that any may be the next
    in session order; and as far from the edge, for so far what lies beyond it may come in between.
    """
    stamps = [stamp_of(row) for row in window.rows]
    connects = [row.connect_ms for row in window.rows if row.connect_ms is not None]
    if window.opens_left:
        sure_ms = min(stamps, default=EVER_MS) + SKEW_MS
        near_ms = max((s for s in stamps if s < span.from_ms), default=span.from_ms)
        if sum(sure_ms < stamp < near_ms - SKEW_MS for stamp in connects) < 2:
            return False
        low = max(_starts(timeline, sure_ms, EVER_MS)[1] for timeline in (old, new))
        if any(row.at_ms <= low for row in changed):
            return False
    if window.opens_right:
        sure_ms = max(stamps, default=-EVER_MS) - SKEW_MS
        near_ms = min((s for s in stamps if s > span.to_ms), default=span.to_ms)
        if sum(near_ms + SKEW_MS < stamp < sure_ms for stamp in connects) < 2:
            return False
        for timeline in (old, new):
            # One may start later than its connect: beyond what is sure.
            starts = _starts(timeline, -EVER_MS, sure_ms)
            if len(starts) < 2 or any(row.at_ms >= starts[-2] for row in changed):
                return False
    return True


def _starts(timeline: list[Row], after_ms: int, before_ms: int) -> list[int]:
    """List where sessions start between two instants: each with a connect has one such row."""
    return [
        row.at_ms
        for row in timeline
        if after_ms < row.at_ms < before_ms and row.transition.rule in _CONNECT_RULES
    ]


def _keep(client: Client, span: Span, history: History, folded: Folded) -> None:
    oldest_ms = min((stamp_of(row) for row in client.tail.values()), default=-1)
    for key, (_, after) in span.changes.items():
        folded.sessions[key] = after
        if not client.opens_left or stamp_of(after) >= oldest_ms:
            client.tail[key] = after
        else:
            client.tail.pop(key, None)
            if client.far_end_ms is not None:
                client.far_end_ms = latest_end([after], client.far_end_ms)
    newest_ms = max(map(stamp_of, client.tail.values()), default=-1)
    if newest_ms < client.newest_ms and client.opens_left and is_crowded(client.tail.values()):
        _read_tail(client, history, folded)  # by the stamp that is gone too many may have been cut off
        newest_ms = max(map(stamp_of, client.tail.values()))
    client.newest_ms = newest_ms
    trim(client)
    client.last, client.tip = find_last(client.tail), None


def _read_tail(client: Client, history: History, folded: Folded) -> None:
    """Bring the end of a history to mind again, as long as it must be."""
    history.save(client.client_no, folded)
    beside = STRAY_TAIL if client.has_strays else TAIL
    while True:
        window = history.window(client.client_no, EVER_MS, EVER_MS, beside)
        if not window.opens_left or not is_crowded(window.rows):
            break
        beside *= 4
    client.tail = {identity(row): row for row in window.rows}
    client.opens_left, client.far_end_ms = window.opens_left, None
