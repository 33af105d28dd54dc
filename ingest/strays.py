"""Windows of clients whose evidence bears no session ids (*strays*), over any distance.

`group` joins evidence without session id in three ways; each bounds how far a window must reach.

  copies    share an instant. No join of copies crosses the *edge*: the earliest instant within the window
            that all halves of a session stand on one side of, whatever session.
  versions  A disconnect joins the latest connect of its version, however old. If none is right of the edge,
            all evidence of that version is shown as well, from wherever it is. Which disconnects join which
            connect does not depend on bare ones, so that it can be compared first: where it differs is where
            the change begins.
  bare      A disconnect without either ends the session that is current: one at, or right of, the last
            connect before it.

So what is shown right of the edge is grouped as in the whole history, and what follows is as local as with
ids: two connects stand between any difference and the first that is doubtful.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ingest.changes import Folded
from ingest.client import Client, latest_end
from ingest.reduce import (
    SKEW_MS,
    Doubt,
    group,
    stamp_of,
)
from ingest.windows import BESIDE, EVER_MS, History, Span, View, Window, shown_in
from store.model import (
    Session,
)

_STRAY_BESIDE = 8  # connects to show before what changed in such a client, at first


def stray_views(client: Client, span: Span, history: History, folded: Folded) -> Iterator[View]:
    """Give wider and wider windows in which strays are grouped as in the whole history."""
    from_ms, beside, no = span.from_ms, BESIDE, client.client_no
    for window, end_ms in _tail_windows(client, span, history, folded):
        part = len(window.rows) < len(client.tail)
        view, from_ms = _viewed(client, window, end_ms, span, history, folded, look=not part)
        if view is not None:
            yield view
    while True:
        history.save(no, folded)
        window = history.window(no, from_ms - 2 * SKEW_MS, EVER_MS, beside)
        end_ms = history.latest_end(no, stamp_of(window.rows[0]) + 1) if window.opens_left else -1
        view, reached_ms = _viewed(client, window, end_ms, span, history, folded)
        if view is not None:
            yield view
        from_ms = min(from_ms, reached_ms)
        beside *= 4


def _tail_windows(
    client: Client, span: Span, history: History, folded: Folded
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
            yield Window(rows[cut:], True, False), latest_end(rows[:cut], far_end_ms)
    yield Window(rows, client.opens_left, False), far_end_ms


def _viewed(
    client: Client,
    window: Window,
    end_ms: int,
    span: Span,
    history: History,
    folded: Folded,
    *,
    look: bool = True,
) -> tuple[View | None, int]:
    """View a span through a window, if it is wide enough; and tell where the change begins.

    `end_ms` is the latest disconnect of the sessions before the window; `look` for partners beyond it.
    """
    if not window.opens_left:
        return View(window, [], -EVER_MS), span.from_ms
    far: list[Session] = []
    looked: set[int] = set()
    while True:
        shown = shown_in(window, span, far)
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
            return View(window, far, standing[-1]), begins_ms
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
        and earliest.get(row.version, EVER_MS) > row.disconnect_ms + SKEW_MS
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
