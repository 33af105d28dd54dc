"""A store read client by client, in one pass and one snapshot: the evidence, and what was derived from it.

Memory: the longest history of one client, and the sweeps of one block of clients. Reads only; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ingest.client import Told
from ingest.rebuild import Again
from store.checks import KEPT_COLUMNS, KEPT_FROM, Kept, kept_from
from store.model import Event
from store.packing import BLOCK, slot_ms
from store.reading import EVENT_COLUMNS, EVENT_FROM, event_from

Run = Callable[[str], Iterator[Any]]
Values = tuple[Any, ...]

_CLIENTS = (
    "SELECT c.client_no, c.client_id, r.name, c.first_ms, c.has_strays, c.checked_ms, c.last_known_at"
    " FROM clients c LEFT JOIN realms r ON r.realm_no = c.realm_no ORDER BY c.client_no"
)
# Reasons as texts, so that nothing has to be looked up.
_STREAMS = {
    "events": f"SELECT e.client_no, e.known_at, e.digest, e.thing_no, {EVENT_COLUMNS} FROM {EVENT_FROM}"
    " ORDER BY e.client_no, e.known_at, e.at_ms, e.digest",
    "checks": f"SELECT k.client_no, k.digest, {KEPT_COLUMNS} FROM {KEPT_FROM}"
    " ORDER BY k.client_no, k.about_ms, k.asked_ms, k.digest",
    "transitions": "SELECT t.client_no, t.at_ms, t.seq, t.recorded_at, t.superseded_at, t.state, t.timestamp_ms,"
    " w.text, t.not_before_ms, t.not_after_ms, t.rule_no, t.proved_from_ms"
    " FROM transitions t LEFT JOIN texts w ON w.text_no = t.reason_no"
    " ORDER BY t.client_no, t.at_ms, t.seq, t.recorded_at",
    "confirmations": "SELECT client_no, at_ms, seq, recorded_at, superseded_at, until_ms, from_ms, open_at"
    " FROM confirmations ORDER BY client_no, at_ms, seq, recorded_at",
    "sessions": "SELECT s.client_no, s.session, s.version, s.connect_ms, s.disconnect_ms, w.text"
    " FROM session_rows s LEFT JOIN texts w ON w.text_no = s.reason_no ORDER BY s.client_no, s.session",
}
_SWEEPS = (
    "SELECT block_no, known_at, asked_ms, first_slot, slots FROM sweeps ORDER BY block_no, known_at, asked_ms"
)


class EventRow(NamedTuple):
    """An event as the store keeps it."""

    known_at: int
    digest: int
    thing_no: int | None
    event: Event


class CheckRow(NamedTuple):
    """An answer of the API as the store keeps it."""

    digest: int
    kept: Kept


class Held(NamedTuple):
    """All that a store holds of one client. Rows are in the order of their keys, reasons as texts."""

    client_no: int
    client_id: str
    realm: str | None
    first_ms: int | None
    has_strays: bool
    checked_ms: int | None
    last_known_at: int | None
    events: list[EventRow]
    checks: list[CheckRow]
    repeated: list[tuple[int, int]]  # (known_at, asked_ms) of sweeps, ascending
    transitions: list[Values]
    confirmations: list[Values]
    sessions: list[Values]

    def evidence(self) -> list[tuple[int, Event | Told | Again]]:
        """Give the evidence as `ingest.rebuild.derive` takes it."""
        told: list[tuple[int, Event | Told | Again]] = [(row.known_at, row.event) for row in self.events]
        told += [(row.kept.known_at, Told(row.kept.check, row.kept.answer)) for row in self.checks]
        told += [(known_at, Again(asked_ms)) for known_at, asked_ms in self.repeated]
        return sorted(told, key=itemgetter(0))


class _ByClient:
    """Rows of a stream that ascends by its first column, handed out a client at a time."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._groups = groupby(rows, key=itemgetter(0))
        self._next: tuple[int, Iterator[Any]] | None = next(self._groups, None)

    def of(self, number: int) -> list[Any]:
        """Give the rows of a number, which ascends from call to call; others before it are passed over."""
        while self._next is not None and self._next[0] < number:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != number:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows


def clients(run: Run) -> Iterator[Held]:
    """Read every client, ascending by number. `run` is that of `Store.streaming`."""
    streams = {name: _ByClient(run(statement)) for name, statement in _STREAMS.items()}
    sweeps = _ByClient(run(_SWEEPS))
    block_no, swept = -1, list[Any]()
    for client_no, client_id, realm, first_ms, has_strays, checked_ms, last_known_at in run(_CLIENTS):
        if client_no // BLOCK != block_no:
            block_no = client_no // BLOCK
            swept = sweeps.of(block_no)
        slot = client_no % BLOCK
        asked = ((row[1], slot_ms(row[2], row[3], bytes(row[4]), slot)) for row in swept)
        yield Held(
            client_no,
            client_id,
            realm,
            first_ms,
            bool(has_strays),
            checked_ms,
            last_known_at,
            [
                EventRow(row[1], row[2], row[3], event_from(row[4:]))
                for row in streams["events"].of(client_no)
            ],
            [CheckRow(row[1], kept_from(row[2:])) for row in streams["checks"].of(client_no)],
            [(known_at, asked_ms) for known_at, asked_ms in asked if asked_ms is not None],
            [tuple(row) for row in streams["transitions"].of(client_no)],
            [tuple(row) for row in streams["confirmations"].of(client_no)],
            # Bytes sort alike on both engines, and as `sorted` has them.
            [(row[0], bytes(row[1]), *row[2:]) for row in streams["sessions"].of(client_no)],
        )
