"""Derive the timelines again from the evidence alone, and put right what differs.

The evidence of a client is folded step by step in the order in which it was learned, exactly as it was when
it came, but against memory instead of the store. What results is what the store must hold, superseded rows
included; a client whose rows differ is rewritten and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from ingest.fold import Client, Window, fold
from ingest.reduce import stamp_of
from ingest.writer import Pending, record_step
from store.engine import Store, translated
from store.model import Event, Identity, Session
from store.packing import pack_identity
from store.reading import EVENT_COLUMNS, EVENT_FROM, event_from
from store.rows import Rows, rows_of

_EVIDENCE = (
    f"SELECT e.client_no, e.known_at, {EVENT_COLUMNS} FROM {EVENT_FROM}"
    " ORDER BY e.client_no, e.known_at, e.at_ms, e.digest"
)


@dataclass(slots=True)
class Report:
    """What a rebuild did."""

    clients: int = 0
    transitions: int = 0
    differing: list[str] = field(default_factory=list)  # client ids

    def as_json(self) -> dict[str, Any]:
        """Give the object of `rebuild --json`."""
        return {"clients": self.clients, "transitions": self.transitions, "differing": self.differing}


class Memory:
    """A client's whole history, for folding without a store."""

    def __init__(self) -> None:
        self.sessions: dict[Identity, Session] = {}

    def find(self, client_no: int, key: Identity) -> Session | None:
        return self.sessions.get(key)

    def save(self, client_no: int, sessions: dict[Identity, Session]) -> None:
        self.sessions |= sessions

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        rows = sorted(self.sessions.values(), key=stamp_of)
        left = [row for row in rows if stamp_of(row) < from_ms]
        inside = [row for row in rows if from_ms <= stamp_of(row) <= to_ms]
        right = [row for row in rows if stamp_of(row) > to_ms]
        return Window([*left[-beside:], *inside, *right[:beside]], len(left) > beside, len(right) > beside)


def derive(
    client_no: int, evidence: Iterable[tuple[int, Event]], number_text: Any
) -> tuple[Client, Memory, list[tuple[Any, ...]]]:
    """Fold `(known_at, event)`, ascending by known_at; gives the client, its sessions, and all its rows."""
    client, memory, pending = Client(client_no), Memory(), Pending()
    for known_at, step in groupby(evidence, key=itemgetter(0)):
        folded = fold(client, [event for _, event in step], memory)
        memory.save(client_no, folded.sessions)
        record_step(client_no, known_at, folded, pending, number_text)
        client.last_known_at = known_at
    rows = [tuple(row) for row in (*pending.live.values(), *pending.closed)]
    return client, memory, sorted(rows, key=itemgetter(1, 2, 3))


def rebuild_store(store: Store) -> Report:
    """Rebuild every client, all in one transaction. Memory: the longest history of one client."""
    report = Report()
    with translated(store.url), store.streaming() as run:
        writing = rows_of(store)
        try:
            writing.begin(lambda: 0, 0)
            for client_no, rows in groupby(run(_EVIDENCE), key=itemgetter(0)):
                _rebuild(writing, client_no, rows, report)
            writing.commit()
        finally:
            writing.rollback()
            writing.close()
    return report


def _rebuild(writing: Rows, client_no: int, rows: Iterator[Any], report: Report) -> None:
    client_id = ""

    def evidence() -> Iterator[tuple[int, Event]]:
        nonlocal client_id
        for row in rows:
            event = event_from(row[2:])
            client_id = event.client_id
            yield row[1], event

    texts: dict[str, int] = {}

    def number(text: str) -> int:
        if text not in texts:
            texts.update(writing.texts({text}))
        return texts[text]

    client, memory, derived = derive(client_no, evidence(), number)
    sessions = sorted(
        (
            client_no,
            pack_identity(key),
            session.version,
            session.connect_ms,
            session.disconnect_ms,
            None if session.reason is None else number(session.reason),
        )
        for key, session in memory.sessions.items()
    )
    report.clients += 1
    report.transitions += len(derived)
    held_rows, held_sessions, held_first_ms = writing.derived(client_no)
    if held_rows == derived and held_sessions == sessions and held_first_ms == client.first_ms:
        return
    report.differing.append(client_id)
    writing.drop_derived(client_no)
    writing.put_transitions(derived)
    writing.put_sessions(sessions)
    assert client.last_known_at is not None
    writing.put_clients([(client.first_ms, int(client.has_strays), client.last_known_at, client_no)])
