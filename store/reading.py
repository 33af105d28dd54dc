"""Evidence read back from the store as the values that went in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from store.model import Event
from store.packing import unpack_id
from store.schema import KINDS

EVENT_COLUMNS = (
    "c.client_id, e.kind, e.at_ms, e.session, e.version, r.text, e.client_initiated, p.text, i.text,"
    " h.thing_name, e.extra"
)
EVENT_FROM = (
    "evidence e JOIN clients c ON c.client_no = e.client_no"
    " LEFT JOIN texts r ON r.text_no = e.reason_no LEFT JOIN texts p ON p.text_no = e.principal_no"
    " LEFT JOIN texts i ON i.text_no = e.ip_no LEFT JOIN things h ON h.thing_no = e.thing_no"
)


def event_from(row: Sequence[Any]) -> Event:
    """Build an event from a row of EVENT_COLUMNS."""
    client_id, kind, at_ms, packed, version, reason, initiated, principal, ip, thing_name, extra = row
    return Event(
        client_id,
        KINDS[kind],
        at_ms,
        None if packed is None else unpack_id(bytes(packed)),
        version,
        reason,
        None if initiated is None else bool(initiated),
        principal,
        ip,
        thing_name,
        extra,
    )
