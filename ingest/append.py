"""The common case: evidence that continues a client's history in order, at the cost of one link."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.changes import Folded, Row, differences, net
from ingest.client import (
    NEAR_MS,
    TAIL,
    Client,
    alone,
    trim,
)
from ingest.reduce import (
    SKEW_MS,
    Placed,
    link,
)
from ingest.windows import EVER_MS, History
from store.model import (
    DUPLICATE_CLIENTID,
    Event,
    Kind,
    Session,
    Transition,
    new_tuple,
)

_CONNECTED, _DISCONNECTED = Kind.CONNECTED, Kind.DISCONNECTED


def append(client: Client, events: Iterable[Event], history: History, folded: Folded) -> list[Event]:
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
            session = new_tuple(Session, (session_id, version, at_ms, None, None))
            placed = new_tuple(Placed, (session, at_ms, None, None, None))
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
                if session_id in folded.sessions or not history.presume_new(client.client_no, session_id):
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
            ended = new_tuple(Session, (held.session_id, version, held.connect_ms, at_ms, reason))
            placed = new_tuple(Placed, (ended, before.start_ms, at_ms, None, None))
            new = following = link(placed, None)
        kept = len(old)
        if kept and new[:kept] != old:
            removed, added = [Row(row.at_ms, 0, row) for row in old], [Row(row.at_ms, 0, row) for row in new]
            net(folded.removed, folded.added, *differences(removed, added))
        elif folded.removed:
            net(folded.removed, folded.added, [], [Row(row.at_ms, 0, row) for row in new[kept:]])
        else:
            for row in new[kept:]:
                folded.added.append(new_tuple(Row, (row.at_ms, 0, row)))
        before, old = placed, following
        last = client.last = placed.session
        client.newest, client.tip = new[-1], (before, old)
        folded.sessions[last.session_id] = tail[last.session_id] = last
        if len(tail) >= 2 * TAIL:
            trim(client)
            tail = client.tail
    return rest


def _proven_ms(client: Client) -> int:
    """Tell up to which instant more than the newest session has a say in what follows it; -1: nothing has."""
    if client.has_strays or not client.plain:
        return EVER_MS
    if client.checked_ms is None:
        return -1
    run = client.run
    return max(client.checked_ms, -1 if run is None else run.last_asked_ms) + NEAR_MS


def _tip(client: Client) -> tuple[Placed | None, list[Transition]]:
    """Give the newest session in its place, and what follows its start."""
    if client.last is None:
        return None, []
    if client.tip is None:
        placed = alone(client.last)
        client.tip = placed, [] if placed.end_ms is None else link(placed, None)
    return client.tip
