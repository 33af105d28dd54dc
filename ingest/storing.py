"""The writing of one transaction: rows that are ready go to the store, and nothing is decided but what was there.

Runs beside the folding of the next batch, so it asks nothing of what the writer keeps in mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from operator import countOf, itemgetter
from typing import Any

from ingest.counts import Counts
from ingest.ledger import Stretch
from ingest.plan import Place, Sessions
from ingest.positions import Position
from ingest.sweeps import asked_in, sweep_rows
from store.bulk import Codes
from store.model import Identity
from store.rows import Mark, Rows

Values = tuple[Any, ...]

_PUT_POSITION = (
    "INSERT INTO positions (source, part, position) VALUES (?, ?, ?)"
    " ON CONFLICT (source, part) DO UPDATE SET position = excluded.position"
)
Superseded = list[tuple[int, int, int, int]]  # known_at, client_no, at_ms, seq


@dataclass(slots=True, kw_only=True)
class Ready:
    """The rows of one transaction, in the order of their tables' keys, and the marks before and after it."""

    counts: Counts
    codes: Codes
    mark: Mark  # that the transaction before left behind
    mark_after: Mark
    claims: bool  # the batch says itself when some of it was learned
    goes_on: bool  # with the step that the transaction before ended in
    source_no: int
    position: int  # of the last record, in its source
    clients: list[Values] = field(default_factory=list)
    evidence: list[Values] = field(default_factory=list)
    stored: Future[int] | None = None  # of the evidence, how much was new, where it is being written already
    observations: list[Values] = field(default_factory=list)
    watches: list[Values] = field(default_factory=list)
    watched: list[tuple[Stretch, int]] = field(default_factory=list)  # with its known_at
    positions: Sequence[Position] = ()
    rejected: list[Values] = field(default_factory=list)
    closed_runs: dict[Place, int] = field(default_factory=dict)
    checks: list[Values] = field(default_factory=list)
    repeated: list[tuple[int, int, int]] = field(default_factory=list)  # client_no, known_at, asked_ms
    superseded_proofs: Superseded = field(default_factory=list)
    proofs: list[list[Any]] = field(default_factory=list)
    superseded: Superseded = field(default_factory=list)
    transitions: list[list[Any]] = field(default_factory=list)
    new_sessions: list[Values] = field(default_factory=list)
    sessions: list[Values] = field(default_factory=list)

    @property
    def is_bulk(self) -> bool:
        """Tell whether a statement a table writes it all, so that the interpreter is free meanwhile."""
        return not (
            self.observations
            or self.watches
            or self.watched
            or self.positions
            or self.rejected
            or self.closed_runs
            or self.checks
            or self.repeated
            or self.superseded_proofs
            or self.proofs
            or self.goes_on
        )


def put(rows: Rows, ready: Ready) -> bool:
    """Write all but the mark, and do not commit; tell whether anything was new. Raises SessionHeld."""
    counts = ready.counts
    rows.add_sessions(ready.new_sessions, ready.codes)
    rows.put_sessions(ready.sessions, ready.codes)
    rows.put_clients(ready.clients)
    stored = rows.put_evidence(ready.evidence, ready.codes) if ready.stored is None else ready.stored.result()
    counts.duplicates += len(ready.evidence) - stored
    for table, found in (("watches", ready.watches), ("observations", ready.observations)):
        if found:
            new = rows.put_once(table, found)
            stored += new
            counts.duplicates += len(found) - new
    counts.stored += stored
    quarantined = rows.put_once("quarantine", ready.rejected) if ready.rejected else 0
    _put_checks(rows, ready)
    _put_transitions(rows, ready)
    _put_watched(rows, ready)
    rows.changed(_PUT_POSITION, [tuple(each) for each in ready.positions])
    return bool(counts.stored or quarantined or ready.watched)


def _put_watched(rows: Rows, ready: Ready) -> None:
    """Write who was watching; a stretch that goes on is one row, made longer (store/certainty.py says why it may)."""
    added = [
        (each.source, each.from_ms, each.to_ms, known_at, None)
        for each, known_at in ready.watched
        if each.was_ms is None
    ]
    if added:
        rows.put_once("watches", added)
    rows.changed(
        "UPDATE watches SET to_ms = ? WHERE source = ? AND from_ms = ? AND to_ms = ?",
        [
            (each.to_ms, each.source, each.from_ms, each.was_ms)
            for each, _ in ready.watched
            if each.was_ms is not None
        ],
    )


def _put_checks(rows: Rows, ready: Ready) -> None:
    checks, begun_at = rows.checks, ready.mark.last_known_at
    closing = [(last_asked_ms, *place) for place, last_asked_ms in ready.closed_runs.items()]
    rows.many(checks.sql("close"), closing)
    rows.many(checks.sql("put_checks"), ready.checks)
    sweeps = sweep_rows(ready.repeated, ready.source_no)
    if any(row[1] == begun_at for row in sweeps):  # a step that an earlier batch began
        begun = checks.taken_sweeps([row[:3] for row in sweeps if row[1] == begun_at])
        sweeps = sweep_rows(
            [*ready.repeated, *(one for row in begun for one in asked_in(row))], ready.source_no
        )
    rows.many(checks.sql("put_sweeps"), sweeps)
    superseded = ready.superseded_proofs
    if begun_at in {row[3] for row in ready.proofs} | {row[0] for row in superseded}:
        rows.many(checks.sql("unsay_confirmations"), [row for row in superseded if row[0] == begun_at])
    rows.many(checks.sql("supersede_confirmations"), superseded)
    rows.many(checks.sql("put_confirmations"), [tuple(row) for row in ready.proofs])


def _put_transitions(rows: Rows, ready: Ready) -> None:
    """Write transitions, and mark those that they supersede.

    What an earlier batch said in a step that this one goes on with is unsaid, not superseded, so that how a
    recording was cut into batches never shows.
    """
    begun_at, added = ready.mark.last_known_at, ready.transitions
    if ready.goes_on:
        rows.unsay([row for row in ready.superseded if row[0] == begun_at])
        rows.supersede(ready.superseded)
        added = [row for row in added if row[3] != begun_at or not rows.revive(tuple(row), begun_at)]
    else:
        rows.supersede(ready.superseded)
    rows.put_transitions(added)
    ready.counts.transitions += len(added)
    current = countOf(map(_superseded_at, added), None)
    ready.counts.corrections += len(ready.superseded) + len(added) - current


def session_rows(
    sessions: Sequence[tuple[int, Sessions]], codes: Codes, texts: Any
) -> tuple[list[Values], list[Values]]:
    """Make the rows of sessions that are presumed to be new, and of the others; ascending by client."""
    new: list[Values] = []
    changed: list[Values] = []
    for client_no, of_client in sessions:
        presumed: set[Identity] = of_client.presumed
        for key, (_, version, connect_ms, disconnect_ms, reason) in of_client.rows.items():
            row = (
                client_no,
                codes[key],
                version,
                connect_ms,
                disconnect_ms,
                None if reason is None else texts[reason],
            )
            (new if key in presumed else changed).append(row)
    return new, changed


by_place = itemgetter(0, 1, 2)
_superseded_at = itemgetter(4)
