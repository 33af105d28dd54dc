"""Take out of a store what no question after a horizon can need, and refuse those before it.

The horizon is set first, so that from then on nothing before it is asked for or comes in; then client after client
loses what ingest/anchor.py does not keep, in transactions that hold up another writer of that client only, and for
milliseconds. A purge that was killed goes on when it is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ingest.anchor import Anchored, anchored
from ingest.clientwise import CheckRow, Held, Values, clients
from ingest.rebuild import AS_THEY_ARE, sessions_of
from store.care import Care
from store.engine import Store, translated
from store.packing import BLOCK, SLOT_BYTES, unpack_slots
from store.rows import Rows, rows_of

Progress = Callable[[int, int], None]

_SET = (
    "UPDATE care SET horizon_ms = ?, known_horizon_ms = ?"
    " WHERE care_no = 0 AND (horizon_ms IS NULL OR horizon_ms <= ?)"
)
# What a running writer remembers of a client is what is there as long as this moment is (ingest/writer.py).
_FIRST = "UPDATE clients SET first_ms = ?, last_known_at = last_known_at + 1 WHERE client_no = ?"
_DELETE = {
    "evidence": "DELETE FROM evidence WHERE at_ms = ? AND client_no = ? AND digest = ?",
    "checks": "DELETE FROM checks WHERE client_no = ? AND about_ms = ? AND asked_ms = ? AND digest = ?",
    "sessions": "DELETE FROM session_rows WHERE client_no = ? AND session = ?",
    "transitions": "DELETE FROM transitions WHERE client_no = ? AND at_ms = ? AND seq = ? AND recorded_at = ?"
    " AND coalesce(superseded_at, -1) = ?",
    "confirmations": "DELETE FROM confirmations WHERE client_no = ? AND at_ms = ? AND seq = ? AND recorded_at = ?"
    " AND coalesce(superseded_at, -1) = ?",
}
_OTHERS = {  # of no client
    "observations": "FROM observations WHERE kind = 'check' AND at_ms < ?",
    "quarantined": "FROM quarantine WHERE known_at < ?",
    "annotations": "FROM annotation_rows WHERE to_ms <= ?",
}
_SWEEPS = "SELECT known_at, asked_ms, first_slot, slots FROM sweeps WHERE block_no = {} AND asked_ms < {}"
_CUT = "UPDATE sweeps SET slots = ? WHERE block_no = ? AND known_at = ? AND asked_ms = ?"
_DROP = "DELETE FROM sweeps WHERE block_no = ? AND known_at = ? AND asked_ms = ?"


@dataclass(slots=True)
class Purged:
    """What a purge took out (or, of a dry run, would)."""

    horizon_ms: int
    known_horizon_ms: int
    clients: int = 0  # that lost something
    evidence: int = 0  # lifecycle events
    checks: int = 0  # rows of their own
    repeated: int = 0  # checks that had none
    transitions: int = 0
    observations: int = 0  # API checks that said nothing of a connection
    quarantined: int = 0  # records
    annotations: int = 0  # versions of those that end by the horizon
    waiting: int = 0  # clients that another writer was at; run it again

    def counts(self) -> dict[str, int]:
        """Give what was counted, by name."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("_ms")}


class _Changed(Exception):
    """Another writer was there between our reading and our deleting."""


def purge(
    store: Store,
    horizon_ms: int,
    *,
    known_horizon_ms: int | None = None,
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> Purged:
    """Purge up to `horizon_ms`, or to the horizon that there is, if that is later. Idempotent.

    Questions as known before `known_horizon_ms` (None: the horizon itself) are refused as well: what was believed
    then of instants after the horizon goes with the rest. Memory: that of `ingest.clientwise.clients`.
    """
    with translated(store.url):
        writing = rows_of(store)
        try:
            care = _set_horizon(writing, horizon_ms, known_horizon_ms, dry_run=dry_run)
            purged = Purged(care.horizon_ms, care.known_horizon_ms)
            with store.streaming() as run:
                total = next(iter(run("SELECT count(*) FROM clients")))[0]
                cut: dict[int, Anchored] = {}
                block_no = -1
                for done, held in enumerate(clients(run), 1):
                    if held.client_no // BLOCK != block_no:
                        _cut_sweeps(writing, block_no, cut, purged, dry_run=dry_run)
                        block_no, cut = held.client_no // BLOCK, {}
                    anchor = anchored(held, care)
                    if anchor is not None and _apply(writing, held, anchor, purged, dry_run=dry_run):
                        cut[held.client_no % BLOCK] = _light(anchor)
                    progress(done, total)
                _cut_sweeps(writing, block_no, cut, purged, dry_run=dry_run)
            _purge_others(writing, care, purged, dry_run=dry_run)
        finally:
            writing.rollback()
            writing.close()
    return purged


def _light(anchor: Anchored) -> Anchored:
    """Keep of an anchor what sweeps are cut by."""
    held = anchor.held._replace(
        events=[], checks=[], repeated=[], transitions=[], confirmations=[], sessions=[]
    )
    return anchor._replace(held=held)


def _set_horizon(writing: Rows, horizon_ms: int, known_horizon_ms: int | None, *, dry_run: bool) -> Care:
    writing.begin_care(alone=True)
    before = writing.care()
    known_ms = horizon_ms if known_horizon_ms is None else max(known_horizon_ms, horizon_ms)
    care = Care(max(horizon_ms, before.horizon_ms), max(known_ms, before.known_horizon_ms), before.forgotten)
    if not dry_run:
        writing.changed(_SET, [(care.horizon_ms, care.known_horizon_ms, care.horizon_ms)])
    writing.commit()
    return care


# --- One client ---------------------------------------------------------------------------------------------


def _apply(writing: Rows, held: Held, anchor: Anchored, purged: Purged, *, dry_run: bool) -> bool:
    """Delete what an anchor does not keep; False where another writer changed it meanwhile."""
    kept = anchor.held
    events = _gone(held.events, kept.events)
    checks = _gone(held.checks, kept.checks)
    extra, lost = _differences(held.transitions, anchor.derived.transitions)
    extra_proofs, lost_proofs = _differences(held.confirmations, anchor.derived.confirmations)
    if not dry_run:
        writing.begin_care(alone=False)
        try:
            no = held.client_no
            writing.changed(_FIRST, [(anchor.derived.client.first_ms, no)])  # other writers wait here
            _delete(writing, "transitions", [(*row[:4], _or_none(row[4])) for row in extra])
            _delete(writing, "confirmations", [(*row[:4], _or_none(row[4])) for row in extra_proofs])
            _delete(writing, "evidence", [(row.event.at_ms, no, row.digest) for row in events])
            _delete(writing, "checks", [(no, *_place(row), row.digest) for row in checks])
            due = {row[1] for row in sessions_of(anchor.derived, AS_THEY_ARE)}
            _delete(writing, "sessions", [(no, row[1]) for row in held.sessions if row[1] not in due])
            reasons = {row[7] for row in lost if row[7] is not None}
            numbers = writing.texts(reasons) if reasons else {}
            writing.put_transitions([(*row[:7], numbers.get(row[7]), *row[8:]) for row in lost])
            writing.many(writing.checks.sql("put_confirmations"), lost_proofs)
            writing.commit()
        except _Changed:
            writing.rollback()
            purged.waiting += 1
            return False
    purged.clients += 1
    purged.evidence += len(events)
    purged.checks += len(checks)
    purged.transitions += len(extra) - len(lost)
    if dry_run:
        purged.repeated += len(held.repeated) - len(kept.repeated)
    return True


def _gone(rows: Sequence[Any], kept: Iterable[Any]) -> list[Any]:
    left = {id(row) for row in kept}
    return [row for row in rows if id(row) not in left]


def _place(row: CheckRow) -> tuple[int, int]:
    check = row.kept.check
    return check.asked_ms if check.named_ms is None else check.named_ms, check.asked_ms


def _or_none(superseded_at: int | None) -> int:
    return -1 if superseded_at is None else superseded_at


def _differences(held: Sequence[Values], due: Sequence[Values]) -> tuple[list[Values], list[Values]]:
    before, after = set(held), set(due)
    return [row for row in held if row not in after], [row for row in due if row not in before]


def _delete(writing: Rows, what: str, keys: Sequence[Values]) -> None:
    if keys and writing.changed(_DELETE[what], keys) != len(keys):
        raise _Changed


# --- The rest -----------------------------------------------------------------------------------------------


def _cut_sweeps(
    writing: Rows, block_no: int, cut: dict[int, Anchored], purged: Purged, *, dry_run: bool
) -> None:
    """Take out of a block's sweeps the slots of the clients that were purged."""
    if not cut or dry_run:
        return
    until_ms = max(anchor.swept_ms for anchor in cut.values())
    writing.begin_care(alone=False)
    shortened: list[Values] = []
    emptied: list[Values] = []
    for known_at, asked_ms, first_slot, slots in writing.fetch(_SWEEPS.format(int(block_no), int(until_ms))):
        packed = bytearray(slots)
        gone = 0
        for slot, each_ms in unpack_slots(asked_ms, first_slot, bytes(slots)):
            anchor = cut.get(slot)
            if anchor is not None and each_ms < anchor.swept_ms:
                if (known_at, each_ms) in anchor.repeated:
                    continue
                at = SLOT_BYTES * (slot - first_slot)
                packed[at : at + SLOT_BYTES] = bytes(SLOT_BYTES)
                gone += 1
        key = (block_no, known_at, asked_ms)
        if gone and not any(packed):
            emptied.append(key)
        elif gone:
            shortened.append((bytes(packed), *key))
        purged.repeated += gone
    writing.changed(_CUT, shortened)
    writing.changed(_DROP, emptied)
    writing.commit()


def _purge_others(writing: Rows, care: Care, purged: Purged, *, dry_run: bool) -> None:
    writing.begin_care(alone=False)
    for name, rows in _OTHERS.items():
        if dry_run:
            ((count,),) = writing.fetch(f"SELECT count(*) {rows}".replace("?", str(int(care.horizon_ms))))
        else:
            count = writing.changed(f"DELETE {rows}", [(care.horizon_ms,)])
        setattr(purged, name, count)
    writing.commit()
