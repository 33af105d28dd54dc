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
from typing import Any, NamedTuple

from ingest.changes import Folded
from ingest.client import Client, Run, Told
from ingest.fold import fold
from ingest.plan import Plan, Sessions, Texts
from ingest.reduce import stamp_of
from ingest.storing import session_rows
from ingest.sweeps import said_in
from ingest.windows import Window
from store.checks import CheckRows, Kept
from store.engine import Store, translated
from store.model import Check, Event, Identity, Session
from store.packing import pack_identity
from store.reading import EVENT_COLUMNS, EVENT_FROM, event_from
from store.rows import Interned, Mark, Rows, rows_of
from store.schema import RULES
from store.watermark import LEARNED

EVER_MS = 1 << 62
_CLIENTS = "SELECT client_no, client_id, checked_ms FROM clients ORDER BY client_no"
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
        self.kept: list[Kept] = []  # answers; those that are repeated no more say until when they were
        self.repeated: list[int] = []  # when the client was asked, and said what it had said before

    def find(self, client_no: int, key: Identity) -> Session | None:
        return self.sessions.get(key)

    def presume_new(self, client_no: int, session_id: str) -> bool:
        return session_id not in self.sessions

    def save(self, client_no: int, folded: Folded) -> None:
        self.sessions |= folded.sessions
        folded.presumed.clear()

    def keep(self, client: Client, run: Run | None, told: Iterable[Told], known_at: int) -> None:
        """Keep the checks of a step, before which `run` went on."""
        if run is not None and client.run is not run:
            self.kept = [
                each if each.last_asked_ms is not None else each._replace(last_asked_ms=run.last_asked_ms)
                for each in self.kept
            ]
        for check, answer in told:
            opens = client.run is not run and client.run is not None and check == client.run.check
            self.kept.append(Kept(check, answer, known_at, None if opens else check.asked_ms))

    def checks(self, client_no: int, from_ms: int, to_ms: int) -> list[Check]:
        return said_in(
            self.kept, from_ms, to_ms, lambda low, high: [at for at in self.repeated if low <= at <= high]
        )

    def latest_end(self, client_no: int, before_ms: int) -> int:
        return max(
            (
                row.disconnect_ms
                for row in self.sessions.values()
                if row.connect_ms is not None and row.disconnect_ms is not None and row.connect_ms < before_ms
            ),
            default=-1,
        )

    def of_version(self, client_no: int, version: int) -> list[Session]:
        rows = [row for row in self.sessions.values() if row.version == version]
        connects, disconnects = {row.connect_ms for row in rows}, {row.disconnect_ms for row in rows}
        rows += [
            row
            for row in self.sessions.values()
            if row.version is None
            and (
                (row.connect_ms is not None and row.connect_ms in connects)
                or (row.disconnect_ms is not None and row.disconnect_ms in disconnects)
            )
        ]
        return rows

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        rows = sorted(self.sessions.values(), key=stamp_of)
        left = [row for row in rows if stamp_of(row) < from_ms]
        inside = [row for row in rows if from_ms <= stamp_of(row) <= to_ms]
        right = [row for row in rows if stamp_of(row) > to_ms]
        return Window([*left[-beside:], *inside, *right[:beside]], len(left) > beside, len(right) > beside)


class _AsTheyAre(dict[str, Any]):
    """Texts in place of their numbers, for whoever reads them so."""

    def __missing__(self, text: str) -> Any:
        return text


AS_THEY_ARE: Texts = _AsTheyAre()


class Again(NamedTuple):
    """A check that said what the one before had said, asked at `asked_ms`."""

    asked_ms: int


class Derived(NamedTuple):
    """What follows from all evidence of one client."""

    client: Client
    memory: Memory
    transitions: list[tuple[Any, ...]]
    confirmations: list[tuple[Any, ...]]


def derive(client_no: int, evidence: Iterable[tuple[int, Event | Told | Again]], texts: Texts) -> Derived:
    """Fold `(known_at, evidence)`, ascending by known_at, as it was folded when it came."""
    client, memory, plan = Client(client_no), Memory(), Plan()
    for known_at, group in groupby(evidence, key=itemgetter(0)):
        step = [each for _, each in group]
        events = [each for each in step if isinstance(each, Event)]
        told = [each for each in step if isinstance(each, Told)]
        for each in step:
            if isinstance(each, Again) and client.run is not None:
                memory.repeated.append(each.asked_ms)
                client.run.last_asked_ms = max(client.run.last_asked_ms, each.asked_ms)
        if not events and not told:
            continue
        run = client.run
        folded = fold(client, events, memory, told, known_at)
        memory.keep(client, run, told, known_at)
        memory.save(client_no, folded)
        plan.record(client_no, known_at, folded, texts)
        client.last_known_at = known_at
    return Derived(
        client,
        memory,
        [tuple(row) for row in plan.transition_rows()],
        [tuple(row) for row in plan.proof_rows()],
    )


def sessions_of(derived: Derived, texts: Texts) -> list[tuple[Any, ...]]:
    """List the rows of `session_rows` that follow, by their key."""
    return sorted(
        (
            derived.client.client_no,
            pack_identity(key),
            session.version,
            session.connect_ms,
            session.disconnect_ms,
            None if session.reason is None else texts[session.reason],
        )
        for key, session in derived.memory.sessions.items()
    )


def rebuild_store(store: Store) -> Report:
    """Rebuild every client, all in one transaction. Memory: the longest history of one client."""
    report = Report()
    with translated(store.url), store.streaming() as run:
        writing = rows_of(store)
        try:
            writing.begin_care(alone=True)  # what is learned while it runs would be lost
            writing.changed(
                "INSERT INTO rules (rule_no, name) VALUES (?, ?) ON CONFLICT (rule_no) DO NOTHING",
                [(number, name) for name, number in RULES.items()],
            )
            events = groupby(run(_EVIDENCE), key=itemgetter(0))
            spoken: tuple[int, Iterator[Any]] | None = next(events, None)
            for client_no, client_id, checked_ms in run(_CLIENTS):
                evidence: list[tuple[int, Event | Told | Again]] = []
                if spoken is not None and spoken[0] == client_no:
                    evidence += [(row[1], event_from(row[2:])) for row in spoken[1]]
                    spoken = next(events, None)
                if checked_ms is not None:
                    evidence += told_of(writing.checks, client_no)
                    evidence.sort(key=itemgetter(0))
                _rebuild(writing, client_no, client_id, evidence, report)
            newest = [next(iter(run(f"SELECT max(known_at) FROM {table}")))[0] for table in LEARNED]
            newest += next(iter(run("SELECT max(recorded_at) FROM annotation_rows")))
            last_known_at = max((each for each in newest if each is not None), default=-1)
            if last_known_at > writing.mark().last_known_at:
                writing.set_mark(Mark(last_known_at, None))
            if report.differing:  # writers drop what they remember of it
                writing.changed("UPDATE care SET forgotten = forgotten + ?", [(1,)])
            writing.commit()
        finally:
            writing.rollback()
            writing.close()
    return report


def told_of(held: CheckRows, client_no: int) -> list[tuple[int, Event | Told | Again]]:
    """List `(known_at, check)` of all that a client was asked."""
    told: list[tuple[int, Event | Told | Again]] = [
        (kept.known_at, Told(kept.check, kept.answer)) for kept in held.about(client_no, -EVER_MS, EVER_MS)
    ]
    return told + [(known_at, Again(asked_ms)) for known_at, asked_ms in held.sweeps_of(client_no)]


def _rebuild(
    writing: Rows,
    client_no: int,
    client_id: str,
    evidence: list[tuple[int, Event | Told | Again]],
    report: Report,
) -> None:
    texts = Interned(lambda: writing)
    derived = derive(client_no, evidence, texts)
    client = derived.client
    report.clients += bool(evidence)
    report.transitions += len(derived.transitions)
    held = derived.transitions, derived.confirmations, sessions_of(derived, texts), client.first_ms
    if writing.derived(client_no) == held:
        return
    report.differing.append(client_id)
    writing.drop_derived(client_no)
    writing.put_transitions(derived.transitions)
    writing.many(writing.checks.sql("put_confirmations"), derived.confirmations)
    codes = writing.codes()
    writing.put_sessions(
        session_rows([(client_no, Sessions(derived.memory.sessions))], codes, texts)[1], codes
    )
    writing.put_clients(
        [(client.first_ms, int(client.has_strays), client.last_known_at, client.checked_ms, client_no)]
    )
