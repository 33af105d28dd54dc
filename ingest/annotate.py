"""Write what people say of a stretch of time: annotations, and that one is withdrawn. Never touches evidence.

Runs beside whoever writes the store, for whoever annotates an outage does it while it is recorded. A moment of learning
is drawn as the writer does (ingest/moments.py): later than all that was learned, and the watermark follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from store.annotations import COLUMNS, Annotation, Note, Scope, annotation_from
from store.clock import Clock, system_clock
from store.engine import Store, translated
from store.errors import ResourceNotFound, StoreUnfinished, UsageError
from store.model import bytes_of
from store.rows import Mark, Rows, rows_of

MOST_NOTE_BYTES = 4_096
MOST_WORD_BYTES = 512  # of a ticket's id, an author's name

_INSERT = (
    "INSERT INTO annotation_rows (annotation_no, version, withdrawn, realm_no, kind, scope, subject, from_ms, to_ms,"
    " ticket, note, author, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_SUPERSEDE = (
    "UPDATE annotation_rows SET superseded_at = ?"
    " WHERE annotation_no = ? AND version = ? AND realm_no = ? AND superseded_at IS NULL"
)
_HELD = (
    f"SELECT {COLUMNS} FROM annotation_rows"
    " WHERE annotation_no = ? AND realm_no = ? AND superseded_at IS NULL"
)
_NEXT = "SELECT coalesce(max(annotation_no), 0) + 1 FROM annotation_rows"
_REALM = "SELECT realm_no FROM realms WHERE name = ?"
# A name that anything was heard of: by events, by checks, by what the registry tells.
_HEARD_OF = (
    "SELECT 1 FROM things WHERE realm_no = ? AND thing_name = ?",
    "SELECT 1 FROM clients WHERE realm_no = ? AND client_id = ?",
    "SELECT 1 FROM observations WHERE (realm_no IS NULL OR realm_no = ?) AND subject = ? LIMIT 1",
)


class Said(NamedTuple):
    """What is to be said: `subject` is of the scope, None of all; `[from_ms, to_ms)`, which may lie in the future."""

    kind: Note
    scope: Scope
    subject: str | None
    from_ms: int
    to_ms: int
    ticket: str | None = None
    note: str | None = None
    author: str | None = None

    def check(self) -> None:
        """Refuse what no store can hold. Raises UsageError."""
        if self.to_ms <= self.from_ms:
            raise UsageError("The stretch ends before it begins; --from must be earlier than --to.")
        if self.kind is Note.TICKET and not self.ticket:
            raise UsageError("--ticket needs the id of a ticket.")
        for option, text, most in (
            ("--ticket", self.ticket, MOST_WORD_BYTES),
            ("--author", self.author, MOST_WORD_BYTES),
            ("--note", self.note, MOST_NOTE_BYTES),
            ("the name", self.subject, MOST_NOTE_BYTES),
        ):
            size = 0 if text is None else bytes_of(text)
            if size is None or size > most:
                raise UsageError(f"{option} is text of at most {most:,} bytes in UTF-8, without NUL.")


def annotate(
    store: Store, said: Sequence[Said], *, realm: str, clock: Clock = system_clock
) -> list[Annotation]:
    """Add annotations, all in one moment and one transaction; gives them with their numbers.

    Raises UsageError for what cannot be held, ResourceNotFound for a thing that was never heard of, StoreUnfinished
    while a back-filling is under way.
    """
    for each in said:
        each.check()
    with translated(store.url):
        rows = rows_of(store)
        try:
            moment = _begin(rows, clock)
            realm_no = _realm(rows, realm)
            _check_heard_of(rows, realm_no, said)
            done = [_add(rows, realm_no, each, moment) for each in said]
            rows.set_mark(Mark(moment, None))
            rows.commit()
        finally:
            rows.rollback()
            rows.close()
    return done


def withdraw(
    store: Store,
    numbers: Sequence[int],
    *,
    realm: str,
    note: str | None = None,
    author: str | None = None,
    clock: Clock = system_clock,
) -> list[Annotation]:
    """Withdraw annotations, all or none; gives the versions that say so. Raises as `annotate`.

    ResourceNotFound for a number that there is not, UsageError for one that was withdrawn already.
    """
    with translated(store.url):
        rows = rows_of(store)
        try:
            moment = _begin(rows, clock)
            realm_no = _realm(rows, realm)
            done = []
            for number in dict.fromkeys(numbers):
                held = [annotation_from(row) for row in rows.fetch(_HELD, (number, realm_no))]
                if not held:
                    raise ResourceNotFound(
                        f"There is no annotation {number}; `thingline annotate list` lists them."
                    )
                if held[0].withdrawn:
                    raise UsageError(f"Annotation {number} was withdrawn already.")
                done.append(_withdraw(rows, realm_no, held[0], note, author, moment))
            rows.set_mark(Mark(moment, None))
            rows.commit()
        finally:
            rows.rollback()
            rows.close()
    return done


def group_was_heard_of(store: Store, group: str) -> bool:
    """Tell whether anything that was told of the registry mentions a group. Reads all of it where nothing does."""
    from json import dumps

    with translated(store.url):
        rows = rows_of(store)
        try:
            said = {group, dumps(group)[1:-1]}
            return any(
                rows.fetch(
                    f"SELECT 1 FROM {table} WHERE replace({column}, ?, '') <> {column} LIMIT 1", (form,)
                )
                for form in said
                for table, column in (("observations", "body"), ("checks", "answer"))
            )
        finally:
            rows.rollback()
            rows.close()


def _begin(rows: Rows, clock: Clock) -> int:
    """Begin, and draw the moment: later than all that was learned."""
    now = rows.begin_beside(clock)
    rows.care()  # whoever forgets or purges waits for us, and we for them
    if rows.fetch("SELECT 1 FROM backfills"):
        raise StoreUnfinished(
            "A back-filling of this store is not finished; annotate when it is (if it was cut short, run the same"
            " `thingline backfill` again)."
        )
    return max(now, rows.mark().last_known_at + 1)


def _realm(rows: Rows, realm: str) -> int:
    """Find a realm. Raises ResourceNotFound: an annotation makes none."""
    found = rows.fetch(_REALM, (realm,))
    if not found:
        raise ResourceNotFound(f"Nothing was ever heard of the realm {realm}.")
    return int(found[0][0])


def _check_heard_of(rows: Rows, realm_no: int, said: Sequence[Said]) -> None:
    for each in said:
        if each.scope is Scope.THING and not any(
            rows.fetch(query, (realm_no, each.subject)) for query in _HEARD_OF
        ):
            raise ResourceNotFound(f"The resource {each.subject} was never heard of.")


def _add(rows: Rows, realm_no: int, said: Said, moment: int) -> Annotation:
    while True:
        ((number,),) = rows.fetch(_NEXT)
        values = (number, 0, 0, realm_no, *_columns(said), moment)
        if rows.changed(_INSERT, [values]):
            return Annotation(number, 0, False, *said, moment, None)
        # Another writer of PostgreSQL took the number meanwhile.


def _withdraw(
    rows: Rows, realm_no: int, held: Annotation, note: str | None, author: str | None, moment: int
) -> Annotation:
    version = held.version + 1
    said = Said(*held[3:9], note, author)
    said.check()
    values = (held.number, version, 1, realm_no, *_columns(said), moment)
    superseded = rows.changed(_SUPERSEDE, [(moment, held.number, held.version, realm_no)])
    if not superseded or not rows.changed(_INSERT, [values]):
        raise UsageError(f"Annotation {held.number} was withdrawn already.")
    return Annotation(held.number, version, True, *said, moment, None)


def _columns(said: Said) -> tuple[object, ...]:
    return (said.kind.value, said.scope.value, *said[2:])
