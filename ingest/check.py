"""Find what is wrong with a store: each fault with its kind, its client, and how to mend it.

Every client is derived again from its evidence by ingest/rebuild.py and compared; beside that, what needs no
rule to be seen: evidence that is not what its digest was made of, rows that contradict each other, numbers that
name nothing, a watermark that hides evidence.
Reads one snapshot and writes nothing, so that it runs beside a writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from ingest.checks import check_of
from ingest.clientwise import Held, Run, Values, clients
from ingest.digest import digest
from ingest.forget import is_rewritten
from ingest.rebuild import AS_THEY_ARE, Derived, derive, sessions_of
from ingest.sweeps import body_of
from store.checks import CONFIRMATION_COLUMNS
from store.engine import Store
from store.model import Event, Kind, Observation
from store.rows import SESSION, TRANSITION
from store.shape import differences
from store.watermark import LEARNED

REBUILD = "run `thingline rebuild`"
DERIVE = f"{REBUILD}; it takes the evidence for true: if that was changed by anyone, restore a backup"
GO_ON = "run the same `thingline backfill` again, and it goes on"
RESTORE = "restore a backup; if there is none, `thingline export evidence` saves what can be read"
PURGE = "where a purge was killed, run it again; else restore a backup"
ANEW = "install the version that made the store, or restore a backup"


class Fault(NamedTuple):
    """One thing that is wrong; `times` with this client, of which `detail` tells the first."""

    kind: str
    realm: str | None
    client_id: str | None
    times: int
    detail: str
    mend: str

    def as_json(self) -> dict[str, Any]:
        """Give the object of `db check --json`."""
        return {
            "kind": self.kind,
            "realm": self.realm,
            "clientId": self.client_id,
            "times": self.times,
            "detail": self.detail,
            "mend": self.mend,
        }


class _References(NamedTuple):
    """Columns that hold numbers of another table's rows."""

    table: str
    columns: tuple[str, ...]
    to_table: str
    to_column: str


_REFERENCES = (
    _References("clients", ("realm_no",), "realms", "realm_no"),
    _References("things", ("realm_no",), "realms", "realm_no"),
    *(
        _References(table, ("client_no",), "clients", "client_no")
        for table in ("evidence", "checks", "transitions", "confirmations", "session_rows")
    ),
    _References("evidence", ("thing_no",), "things", "thing_no"),
    _References("evidence", ("source_no", "reason_no", "principal_no", "ip_no"), "texts", "text_no"),
    _References("checks", ("source_no", "reason_no"), "texts", "text_no"),
    *(
        _References(table, ("source_no",), "texts", "text_no")
        for table in ("observations", "sweeps", "quarantine")
    ),
    _References("annotation_rows", ("realm_no",), "realms", "realm_no"),
    _References("transitions", ("rule_no",), "rules", "rule_no"),
    *(_References(table, ("reason_no",), "texts", "text_no") for table in ("transitions", "session_rows")),
)
_DERIVED = frozenset({"transitions", "confirmations", "session_rows"})  # what a rebuild writes anew

_RECORDED = (
    *((table, "known_at") for table in LEARNED),
    ("transitions", "recorded_at"),
    ("transitions", "superseded_at"),
    ("annotation_rows", "recorded_at"),
)


def faults(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Fault]:
    """Find the faults of a store opened for reading. `progress` is told clients done, and how many there are.

    What the file itself is too broken to tell ends the search with a fault of its own.
    """
    with store.reading() as connection:
        shape = list(differences(connection))
    yield from (_of_store("schema", said, ANEW) for said in shape)
    with store.streaming() as run:
        broken = False
        try:
            if store.is_sqlite:
                for (said,) in run("PRAGMA integrity_check"):
                    if said != "ok":
                        broken = True
                        yield _of_store("engine", said, RESTORE)
            if not any(said.startswith(("the table", "the column")) for said in shape):
                unfinished = _one(run, "SELECT count(*) FROM backfills")
                if unfinished:
                    yield _of_store("backfill", "a back-filling was cut short: timelines are missing", GO_ON)
                else:
                    yield from _watermark(run)
                yield from _references(run)
                yield from _annotations(run)
                for fault in _unreadable(run):
                    broken = True
                    yield fault
                yield from _observations(run)
                if not unfinished:
                    yield from _clients(run, progress)
        except (sqlite3.DatabaseError, ValueError, KeyError) as error:
            if not broken and type(error) is not sqlite3.DatabaseError:  # a locked file is another thing
                raise
            yield _of_store("engine", f"reading ended there: {error}", RESTORE)


def _of_store(kind: str, detail: str, mend: str, times: int = 1) -> Fault:
    return Fault(kind, None, None, times, detail, mend)


def _one(run: Run, statement: str) -> Any:
    return next(iter(run(statement)))[0]


def _watermark(run: Run) -> Iterator[Fault]:
    mark = _one(run, "SELECT max(last_known_at) FROM watermarks")
    for table, column in _RECORDED:
        newest = _one(run, f"SELECT max({column}) FROM {table}")
        if newest is not None and (mark is None or newest > mark):
            detail = f"{table}.{column} is {newest}, the watermark {'missing' if mark is None else mark}"
            yield _of_store("watermark", f"{detail}: no question sees what was learned after it", REBUILD)


def _references(run: Run) -> Iterator[Fault]:
    for table, columns, to_table, to_column in _REFERENCES:
        for column in columns:
            missing = _one(
                run,
                f"SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND NOT EXISTS"
                f" (SELECT 1 FROM {to_table} o WHERE o.{to_column} = {table}.{column})",
            )
            if missing:
                detail = f"{table}.{column} names {to_table} that are not there"
                mend = REBUILD if table in _DERIVED and column != "client_no" else RESTORE
                yield _of_store("reference", detail, mend, missing)


def _unreadable(run: Run) -> Iterator[Fault]:
    """Find evidence that says nothing any more."""
    kinds = ", ".join(str(int(kind)) for kind in Kind)
    strange = _one(run, f"SELECT count(*) FROM evidence WHERE kind NOT IN ({kinds})")
    if strange:
        yield _of_store("evidence", "evidence.kind is none that there is", RESTORE, strange)
    for table, column in (("evidence", "extra"), ("checks", "answer"), ("observations", "body")):
        texts = run(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        strange = sum(not _is_json(text) for (text,) in texts)
        if strange:
            yield _of_store("evidence", f"{table}.{column} is no JSON", RESTORE, strange)


def _observations(run: Run) -> Iterator[Fault]:
    """Find what the registry said, or an error of the API, that is no longer what was told."""
    rows = run("SELECT digest, kind, subject, at_ms, body FROM observations")
    changed = [said for number, *members in rows if _is_changed(said := Observation(*members), number)]
    if changed:
        kind, subject, at_ms, _ = changed[0]
        detail = f"what was told in the {kind} of {subject} at {at_ms} is no longer what came"
        yield _of_store("evidence-changed", detail, RESTORE, len(changed))


def _is_changed(evidence: Event | Observation, number: int) -> bool:
    """Tell whether evidence is not what was numbered when it came. What was forgotten is not, and says so."""
    return digest(evidence) != number and not is_rewritten(evidence, number)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except ValueError:
        return False
    return True


def _annotations(run: Run) -> Iterator[Fault]:
    """Find versions of an annotation that do not follow one another."""
    versions = "SELECT annotation_no, version, recorded_at, superseded_at FROM annotation_rows ORDER BY 1, 2"
    for number, rows in groupby(run(versions), key=itemgetter(0)):
        told = list(rows)
        ends = [*(recorded_at for _, _, recorded_at, _ in told[1:]), None]
        numbered = [version for _, version, _, _ in told] == list(range(len(told)))
        if not numbered or [row[3] for row in told] != ends:
            yield _of_store(
                "annotation", f"the versions of annotation {number} do not follow one another", RESTORE
            )


# --- Client by client ---------------------------------------------------------------------------------------


def _clients(run: Run, progress: Callable[[int, int], None]) -> Iterator[Fault]:
    total = _one(run, "SELECT count(*) FROM clients")
    for done, held in enumerate(clients(run), 1):
        for kind, details, mend in _of_client(held):
            yield Fault(kind, held.realm, held.client_id, len(details), details[0], mend)
        progress(done, total)


def _of_client(held: Held) -> Iterator[tuple[str, list[str], str]]:
    if changed := list(_changed(held)):
        yield "evidence-changed", changed, RESTORE
    broken = [*_tiles(held.transitions, "transition"), *_tiles(held.confirmations, "confirmation")]
    if broken:
        yield "tile", broken, REBUILD
    first_told = min((row.kept.known_at for row in held.checks), default=None)
    if any(first_told is None or known_at < first_told for known_at, _ in held.repeated):
        yield "sweep", ["a sweep repeats an answer that is not there"], PURGE
    derived = derive(held.client_no, held.evidence(), AS_THEY_ARE)
    compared: tuple[tuple[str, str, Sequence[Values], Sequence[Values], int], ...] = (
        ("transition", TRANSITION, held.transitions, derived.transitions, 4),
        ("confirmation", CONFIRMATION_COLUMNS, held.confirmations, derived.confirmations, 4),
        ("session", SESSION, held.sessions, sessions_of(derived, AS_THEY_ARE), 2),
    )
    for what, columns, rows, wanted, key in compared:
        for how, details in _compared(columns.replace("_no", "").split(", "), rows, wanted, key):
            yield f"{what}-{how}", details, DERIVE
    if told := _of_row(held, derived):
        yield "client-changed", told, DERIVE


def _changed(held: Held) -> Iterator[str]:
    """Find evidence of a client that is not what it was when it came."""
    for number, event in ((row.digest, row.event) for row in held.events):
        if _is_changed(event, number):
            yield f"the {event.kind.name.lower()} at {event.at_ms} is no longer what came"
    for number, kept in ((row.digest, row.kept) for row in held.checks):
        asked_ms = kept.check.asked_ms
        said = Observation("check", held.client_id, asked_ms, body_of(kept.answer, asked_ms))
        if _is_changed(said, number) or (check_of(said) != kept.check and not is_rewritten(said, number)):
            yield f"the check asked at {asked_ms} is no longer what came"


def _compared(
    columns: Sequence[str], rows: Sequence[Values], wanted: Sequence[Values], key: int
) -> Iterator[tuple[str, list[str]]]:
    """Compare rows by their key, which is their first `key` columns."""
    held, due = ({row[:key]: row for row in side} for side in (rows, wanted))
    lost = [_shown(columns, row) for place, row in due.items() if place not in held]
    extra = [_shown(columns, row) for place, row in held.items() if place not in due]
    changed = [
        f"{_shown(columns, held[place])}, where the evidence gives {_shown(columns, row)}"
        for place, row in due.items()
        if place in held and held[place] != row
    ]
    for how, details in (("missing", lost), ("extra", extra), ("changed", changed)):
        if details:
            yield how, details


def _shown(columns: Sequence[str], row: Values) -> str:
    """Tell a row, column by column; of its client the fault tells."""
    told = list(zip(columns, row, strict=True))[1:]
    return (
        "("
        + ", ".join(
            f"{name} {each.hex() if isinstance(each, bytes) else each}"
            for name, each in told
            if each is not None
        )
        + ")"
    )


def _of_row(held: Held, derived: Derived) -> list[str]:
    """Compare what is kept beside a client. It may say more than the evidence does: that costs time only."""
    client = derived.client
    said = []
    if held.first_ms != client.first_ms:
        said.append(f"its first evidence is of {client.first_ms}, not {held.first_ms}")
    if client.has_strays and not held.has_strays:
        said.append("it bears events without session id")
    if client.checked_ms is not None and (held.checked_ms is None or held.checked_ms < client.checked_ms):
        said.append(f"it was checked at {client.checked_ms}")
    return said


def _tiles(rows: Sequence[Values], what: str) -> Iterator[str]:
    """Find rows of one place that hold at the same time, and places that are skipped."""
    current: dict[int, list[int]] = {}
    for (at_ms, seq), group in groupby(rows, key=itemgetter(1, 2)):
        until: int | None = -1
        for recorded_at, superseded_at in (row[3:5] for row in group):
            if superseded_at is not None and superseded_at <= recorded_at:
                yield f"the {what} at {at_ms} was superseded at {superseded_at}, recorded at {recorded_at}"
            if until is None or recorded_at < until:
                yield f"two {what}s at {at_ms} hold at once from {recorded_at} on"
            until = superseded_at
        if until is None:
            current.setdefault(at_ms, []).append(seq)
    if what == "transition":
        for at_ms, seqs in current.items():
            if seqs != list(range(len(seqs))):
                yield f"of the transitions at {at_ms} one is missing before {seqs[-1]}"
