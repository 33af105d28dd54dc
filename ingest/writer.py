"""The one transaction: evidence, what follows from it, and what it was learned from, commit together.

A batch of evidence goes in; in one transaction it is deduplicated, folded client by client into the timelines
(ingest/fold.py decides what changes), and written. Corrections never overwrite: a transition that the batch
disproves is marked as superseded in the step that disproved it. Nothing else in the project writes evidence,
sessions or transitions.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from ingest.digest import digest
from ingest.fold import (
    STRAY_TAIL,
    TAIL,
    Client,
    Folded,
    Newest,
    Proof,
    Row,
    Run,
    Told,
    Window,
    find_last,
    fold,
)
from ingest.reduce import SKEW_MS, identity, session_of, stamp_of
from ingest.sweeps import (
    Again,
    Ask,
    Asked,
    answer_of,
    asked_in,
    asked_of,
    client_of,
    is_stale,
    said_in,
    sweep_rows,
)
from store.checks import NAMED, UNNAMED, WHOLE, Kept
from store.clock import Clock, system_clock
from store.engine import Store, translated
from store.model import (
    DEFAULT_REALM,
    Check,
    Event,
    Identity,
    Kind,
    Learned,
    Observation,
    Rejected,
    Session,
    Transition,
    Watch,
)
from store.packing import pack_id, pack_identity
from store.rows import ClientRow, Mark, rows_of
from store.schema import RULES, STATES

MOST_CLIENTS = 50_000  # kept in mind at once; the others are read again when they speak
MOST_TEXTS = 200_000  # ... and interned strings


@dataclass(slots=True)
class Counts:
    """What became of a batch, or of all batches of a run. `stored` + `duplicates` = what could be read."""

    read: int = 0  # records, those that could not be read included
    events: int = 0  # lifecycle events
    stored: int = 0  # evidence that was new
    duplicates: int = 0  # evidence that was there already
    ignored: int = 0  # evidence that can change no state: connect_failed, subscriptions, registry, errors
    checks: int = 0  # API checks that spoke of a connection
    repeated: int = 0  # ... and said what the one before had said, so that no row was needed
    stale: int = 0  # ... and named an instant older than the newest transition held, long after that
    transitions: int = 0  # rows written
    corrections: int = 0  # rows superseded by evidence that came late
    conflicts: int = 0  # copies that contradicted what was held of their session
    quarantined: int = 0

    def add(self, other: Counts) -> None:
        """Add another batch's counts to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Step:
    """One event on its way into the store, with the moment that it counts as known from."""

    known_at: int
    claimed_at: int | None
    event: Event


_Other = tuple[int, int | None, Observation | Watch]


@dataclass(slots=True)
class Pending:
    """Rows that the transaction will write."""

    live: dict[tuple[int, int, int], list[Any]] = field(default_factory=dict)  # transitions, by their place
    closed: list[list[Any]] = field(default_factory=list)  # ... written and superseded within the batch
    superseded: list[tuple[int, int, int, int]] = field(default_factory=list)
    sessions: dict[tuple[int, Identity], Session] = field(default_factory=dict)
    proofs: dict[tuple[int, int, int], list[Any]] = field(default_factory=dict)  # confirmations, alike
    closed_proofs: list[list[Any]] = field(default_factory=list)
    superseded_proofs: list[tuple[int, int, int, int]] = field(default_factory=list)
    asked: dict[int, list[Asked]] = field(default_factory=dict)  # by client
    repeated: dict[int, list[Again]] = field(default_factory=dict)  # by client


class Writer:
    """Writes batches to one store; keeps the ends of recent timelines in mind. One thread at a time."""

    def __init__(self, store: Store, *, clock: Clock = system_clock, realm: str = DEFAULT_REALM) -> None:
        self._store = store
        self._clock = clock
        self._realm_name = realm
        with translated(store.url):
            self._rows = rows_of(store)
        self._forget()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what was not committed is gone."""
        with translated(self._store.url):
            self._rows.rollback()
            self._rows.close()

    def _forget(self) -> None:
        """Drop what is kept in mind, as after a failure: it may speak of rows that were never committed."""
        self._clients: dict[str, Client] = {}
        self._texts: dict[str, int] = {}
        self._things: dict[str, int] = {}
        self._realm_no: int | None = None

    def write(self, batch: Sequence[Learned | Rejected], *, source: str) -> Counts:
        """Write one batch as one transaction. Idempotent. Raises StoreError with nothing half-written."""
        with translated(self._store.url), _uncollected():
            try:
                return self._write(batch, source)
            except BaseException:
                self._rows.rollback()
                self._forget()
                raise

    def _write(self, batch: Sequence[Learned | Rejected], source: str) -> Counts:
        claims = [
            item.known_at_ms for item in batch if isinstance(item, Learned) and item.known_at_ms is not None
        ]
        now = self._rows.begin(self._clock, min(claims, default=None))
        if self._realm_no is None:
            self._realm_no = self._rows.realm(self._realm_name)
        mark = self._rows.mark()
        learned = [item for item in batch if isinstance(item, Learned)]
        source_no = self._number_texts(learned, source)
        clients = self._load_clients(
            {client_id for item in learned if (client_id := client_of(item.evidence)) is not None}
        )
        newest = max((client.last_known_at or 0 for client in clients.values()), default=0)
        live_ms = max(now, mark.last_known_at + 1, newest + 1)
        moments = _Moments(mark, source_no, live_ms, now)
        if claims:
            learned.sort(key=lambda item: (item.known_at_ms is None, item.known_at_ms or 0))
        counts = Counts(read=len(batch))
        pending = Pending()
        steps: dict[str, list[_Step]] = {}
        asks: dict[str, list[Ask]] = {}
        others: list[_Other] = []
        for item in learned:
            known_at, claimed_at = moments.of(item.known_at_ms)
            evidence = item.evidence
            if type(evidence) is Event:
                steps.setdefault(evidence.client_id, []).append(_Step(known_at, claimed_at, evidence))
                continue
            assert not isinstance(evidence, Event)
            client_id = client_of(evidence)
            if client_id is None:
                others.append((known_at, claimed_at, evidence))
            else:
                assert isinstance(evidence, Observation)
                asks.setdefault(client_id, []).append(Ask(known_at, claimed_at, evidence))
        self._fold_all(steps, asks, clients, pending, counts, others)
        self._put_evidence(steps, clients, source_no, counts)
        self._put_others(others, source_no, counts)
        self._put_checks(pending, mark, source_no, counts)
        kept = self._put_rejected(
            [item for item in batch if isinstance(item, Rejected)], source_no, live_ms, counts
        )
        self._put_pending(pending, mark, counts)
        if counts.stored or kept:
            self._rows.set_mark(moments.mark())
        self._rows.commit()
        self._shrink()
        return counts

    # --- What the batch needs to know -------------------------------------------------------------------

    def _number_texts(self, learned: Sequence[Learned], source: str) -> int:
        """Intern the strings of the batch; give the number of the source."""
        texts = {source}
        things: set[str] = set()
        for item in learned:
            event = item.evidence
            if type(event) is Event:
                if event.reason is not None:
                    texts.add(event.reason)
                if event.principal is not None:
                    texts.add(event.principal)
                if event.ip is not None:
                    texts.add(event.ip)
                if event.thing_name is not None:
                    things.add(event.thing_name)
        new = texts - self._texts.keys()
        if new:
            self._texts |= self._rows.texts(new)
        new = things - self._things.keys()
        if new:
            assert self._realm_no is not None
            self._things |= self._rows.things(self._realm_no, new)
        return self._texts[source]

    def _load_clients(self, ids: set[str]) -> dict[str, Client]:
        """Give the batch's clients, locked, each with the end of its history in mind."""
        assert self._realm_no is not None
        if self._store.is_sqlite:  # no other writer: what is kept in mind is what is there
            known = {client_id: self._clients[client_id] for client_id in ids if client_id in self._clients}
            ids = ids - known.keys()
        else:
            known = {}
        missing: dict[int, ClientRow] = {}
        for row in self._rows.clients(self._realm_no, ids):
            client = self._clients.get(row.client_id)
            if client is not None and client.last_known_at == row.last_known_at is not None:
                known[row.client_id] = client
            else:
                missing[row.client_no] = row
        if missing:
            known |= self._read_clients(missing)
        self._clients |= known
        return known

    def _read_clients(self, missing: dict[int, ClientRow]) -> dict[str, Client]:
        tails: dict[int, list[Session]] = {}
        for strays, depth in ((False, 2 * TAIL), (True, 2 * STRAY_TAIL)):
            wanted = [
                no for no, row in missing.items() if row.has_strays is strays and row.first_ms is not None
            ]
            while wanted:
                tails |= self._rows.tails(wanted, depth)
                wanted = [no for no in wanted if len(tails[no]) == depth and _crowded(tails[no])]
                depth *= 4
        clients: dict[str, Client] = {}
        for no, row in missing.items():
            tail = tails.get(no, [])
            enough = 2 * (STRAY_TAIL if row.has_strays else TAIL)
            held = {identity(session): session for session in reversed(tail)}
            clients[row.client_id] = Client(
                client_no=no,
                tail=held,
                last=find_last(held),
                opens_left=len(tail) >= enough,
                newest_ms=max((stamp_of(session) for session in tail), default=-1),
                first_ms=row.first_ms,
                has_strays=row.has_strays,
                last_known_at=row.last_known_at,
            )
            if row.checked_ms is not None:
                self._read_checks(clients[row.client_id], row.checked_ms)
        return clients

    def _read_checks(self, client: Client, checked_ms: int) -> None:
        """Bring to mind what the API said of a client last, and what its timeline ends with."""
        client.checked_ms, client.plain = checked_ms, False
        kept, newest = self._rows.checks.open_run(client.client_no), self._rows.newest(client.client_no)
        if kept is not None:
            asked_ms, known_at = kept.check.asked_ms, kept.known_at
            last = self._rows.checks.last_asked(client.client_no, known_at)
            client.run = Run(kept.check, kept.answer, known_at, *(last or (asked_ms, known_at)))
        if newest is not None:
            client.newest = Newest(newest[0], STATES[newest[1]], newest[2])

    # --- Folding ----------------------------------------------------------------------------------------

    def _fold_all(
        self,
        steps: dict[str, list[_Step]],
        asks: dict[str, list[Ask]],
        clients: dict[str, Client],
        pending: Pending,
        counts: Counts,
        others: list[_Other],
    ) -> None:
        history = _StoredHistory(self, pending)
        history.prefetch(steps, clients)
        touched: list[Client] = []
        for client_id, client in clients.items():
            client_steps, client_asks = steps.get(client_id, ()), asks.get(client_id, ())
            was = client.first_ms, client.has_strays, client.checked_ms
            if client_asks:
                last_known_at = self._fold_asked(
                    client, client_steps, client_asks, history, pending, counts, others
                )
            else:
                for known_at, group in groupby(client_steps, key=lambda step: step.known_at):
                    folded = fold(client, [step.event for step in group], history)
                    counts.conflicts += folded.conflicts
                    record_step(client.client_no, known_at, folded, pending, self._text)
                    last_known_at = known_at
            if not self._store.is_sqlite:
                client.last_known_at = last_known_at
            elif was == (client.first_ms, client.has_strays, client.checked_ms):
                continue
            touched.append(client)
        self._rows.put_clients(
            [(c.first_ms, int(c.has_strays), c.last_known_at, c.checked_ms, c.client_no) for c in touched]
        )

    def _fold_asked(
        self,
        client: Client,
        steps: Sequence[_Step],
        asks: Sequence[Ask],
        history: _StoredHistory,
        pending: Pending,
        counts: Counts,
        others: list[_Other],
    ) -> int:
        """Fold the steps of a client that was checked; gives the last known_at.

        What looked like a check and says nothing of the connection goes to `others`.
        """
        both: list[_Step | Ask] = sorted([*steps, *asks], key=lambda step: step.known_at)
        known_at = -1
        for known_at, group in groupby(both, key=lambda step: step.known_at):
            step = list(group)
            events = [each.event for each in step if isinstance(each, _Step)]
            checks = [each for each in step if isinstance(each, Ask)]
            if not events and len(checks) == 1 and self._repeats(client, checks[0], pending):
                counts.checks += 1
                counts.stored += 1
                counts.repeated += 1
                continue
            read = {each.digest: each for ask in checks if (each := asked_of(ask)) is not None}
            if len(read) < len(checks):
                others += [
                    (ask.known_at, ask.claimed_at, ask.said) for ask in checks if asked_of(ask) is None
                ]
            asked = [one for one in read.values() if not self._holds(client, one, pending)]
            counts.checks += len(read)
            counts.stored += len(asked)
            counts.duplicates += len(read) - len(asked)
            run = client.run
            told = [Told(one.check, one.answer) for one in asked]
            folded = fold(client, events, history, told, known_at)
            counts.conflicts += folded.conflicts
            if client.run is not run:
                self._close_run(client.client_no, run, pending)
            for one in asked:
                if client.run is run or client.run is None or one.check != client.run.check:
                    one.last_asked_ms = one.check.asked_ms
            counts.stale += sum(is_stale(one.check, client.newest) for one in asked)
            pending.asked.setdefault(client.client_no, []).extend(asked)
            record_step(client.client_no, known_at, folded, pending, self._text)
        return known_at

    def _repeats(self, client: Client, ask: Ask, pending: Pending) -> bool:
        """Take a check into the client's run, if all it says was said before."""
        run, asked_ms = client.run, ask.said.at_ms
        if run is None or ask.claimed_at is not None:
            return False
        if not run.repeats(answer_of(ask.said.body, asked_ms), asked_ms, ask.known_at, client.newest):
            return False
        run.last_asked_ms, run.last_known_at = asked_ms, ask.known_at
        pending.repeated.setdefault(client.client_no, []).append(Again(ask.known_at, asked_ms, run.answer))
        return True

    def _holds(self, client: Client, one: Asked, pending: Pending) -> bool:
        """Tell whether the store, or this batch, holds a check already."""
        client_no, asked_ms = client.client_no, one.check.asked_ms
        if client.checked_ms is None:
            return False
        if any(one.digest == other.digest for other in pending.asked.get(client_no, ())):
            return True
        if any((asked_ms, one.answer) == again[1:] for again in pending.repeated.get(client_no, ())):
            return True
        return self._rows.checks.holds(client_no, *one.place, one.digest, one.answer)

    def _close_run(self, client_no: int, run: Run | None, pending: Pending) -> None:
        """Write beside an answer until when it was repeated, for another has come."""
        if run is None:
            return
        for one in pending.asked.get(client_no, ()):
            if one.check == run.check and one.last_asked_ms is None:
                one.last_asked_ms = run.last_asked_ms
                return
        check = run.check
        about_ms = check.asked_ms if check.named_ms is None else check.named_ms
        checks = self._rows.checks
        self._rows.many(checks.sql("close"), [(run.last_asked_ms, client_no, about_ms, check.asked_ms)])

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            self._texts |= self._rows.texts({text})
            number = self._texts[text]
        return number

    # --- Putting it into the store ----------------------------------------------------------------------

    def _put_evidence(
        self, steps: dict[str, list[_Step]], clients: dict[str, Client], source_no: int, counts: Counts
    ) -> None:
        rows: list[tuple[Any, ...]] = []
        texts, things = self._texts, self._things
        stateless = 0
        for client_id, client_steps in steps.items():
            client_no = clients[client_id].client_no
            for step in client_steps:
                event = step.event
                stateless += event.kind > Kind.DISCONNECTED
                rows.append(
                    (
                        event.at_ms,
                        client_no,
                        digest(event),
                        int(event.kind),
                        step.known_at,
                        step.claimed_at,
                        source_no,
                        None if event.session_id is None else pack_id(event.session_id),
                        event.version,
                        None if event.reason is None else texts[event.reason],
                        None if event.client_initiated is None else int(event.client_initiated),
                        None if event.principal is None else texts[event.principal],
                        None if event.ip is None else texts[event.ip],
                        None if event.thing_name is None else things[event.thing_name],
                        event.extra,
                    )
                )
        rows.sort(key=itemgetter(0, 1))  # the order of the key, so that a page is written once
        stored = self._rows.put_evidence(rows)
        counts.events += len(rows)
        counts.stored += stored
        counts.duplicates += len(rows) - stored
        counts.ignored += stateless

    def _put_others(self, others: Sequence[_Other], source_no: int, counts: Counts) -> None:
        watches: list[tuple[Any, ...]] = []
        observations: list[tuple[Any, ...]] = []
        for known_at, claimed_at, said in others:
            if isinstance(said, Watch):
                watches.append((said.source, said.from_ms, said.to_ms, known_at, claimed_at))
            else:
                observations.append(
                    (
                        said.at_ms,
                        digest(said),
                        said.kind,
                        said.subject,
                        known_at,
                        claimed_at,
                        source_no,
                        said.body,
                    )
                )
        if not others:
            return
        stored = self._rows.put_once("watches", watches) + self._rows.put_once("observations", observations)
        counts.stored += stored
        counts.duplicates += len(others) - stored
        counts.ignored += len(observations)

    def _put_checks(self, pending: Pending, mark: Mark, source_no: int, counts: Counts) -> None:
        checks = self._rows.checks
        rows = [
            (
                client_no,
                one.place[0],
                one.check.asked_ms,
                one.digest,
                one.known_at,
                one.claimed_at,
                source_no,
                int(one.check.state),
                UNNAMED if one.check.named_ms is None else WHOLE if one.check.whole else NAMED,
                None if one.check.reason is None else self._text(one.check.reason),
                one.answer,
                one.last_asked_ms,
            )
            for client_no, asked in pending.asked.items()
            for one in asked
        ]
        self._rows.many(checks.sql("put_checks"), sorted(rows, key=itemgetter(0, 1, 2)))
        repeated = [
            (no, one.known_at, one.asked_ms) for no, asked in pending.repeated.items() for one in asked
        ]
        sweeps = sweep_rows(repeated, source_no)
        if any(row[1] == mark.last_known_at for row in sweeps):  # a step that an earlier batch began
            begun = checks.taken_sweeps([row[:3] for row in sweeps if row[1] == mark.last_known_at])
            sweeps = sweep_rows([*repeated, *(one for row in begun for one in asked_in(row))], source_no)
        self._rows.many(checks.sql("put_sweeps"), sweeps)
        proofs = [*pending.proofs.values(), *pending.closed_proofs]
        if mark.last_known_at in {row[3] for row in proofs} | {row[0] for row in pending.superseded_proofs}:
            begun_proofs = [row for row in pending.superseded_proofs if row[0] == mark.last_known_at]
            self._rows.many(checks.sql("unsay_confirmations"), begun_proofs)
        self._rows.many(checks.sql("supersede_confirmations"), pending.superseded_proofs)
        self._rows.many(
            checks.sql("put_confirmations"),
            [tuple(row) for row in sorted(proofs, key=itemgetter(0, 1, 2, 3))],
        )

    def _put_rejected(
        self, rejected: Sequence[Rejected], source_no: int, known_at: int, counts: Counts
    ) -> int:
        """Quarantine; gives how many were not there yet."""
        rows = [
            (source_no, r.position, known_at, r.reason, r.detail, r.length, r.sha256, r.head)
            for r in rejected
        ]
        counts.quarantined += len(rows)
        return self._rows.put_once("quarantine", rows) if rows else 0

    def _put_pending(self, pending: Pending, mark: Mark, counts: Counts) -> None:
        rows = [*pending.live.values(), *pending.closed]
        rows.sort(key=itemgetter(0, 1, 2, 3))
        # A step that an earlier batch began: what that batch said in it is unsaid, not superseded, so that
        # how a recording was cut into batches never shows.
        begun = {row[3] for row in rows} | {row[0] for row in pending.superseded}
        if mark.last_known_at in begun:
            self._rows.unsay([row for row in pending.superseded if row[0] == mark.last_known_at])
            self._rows.supersede(pending.superseded)
            rows = [
                row
                for row in rows
                if row[3] != mark.last_known_at
                or row[4] is not None
                or not self._rows.revive(tuple(row), mark.last_known_at)
            ]
        else:
            self._rows.supersede(pending.superseded)
        self._rows.put_transitions([tuple(row) for row in rows])
        self._save_sessions(pending)
        counts.transitions += len(rows)
        counts.corrections += len(pending.superseded) + len(pending.closed)

    def _save_sessions(self, pending: Pending) -> None:
        rows = [
            (
                client_no,
                pack_identity(key),
                session.version,
                session.connect_ms,
                session.disconnect_ms,
                None if session.reason is None else self._text(session.reason),
            )
            for (client_no, key), session in pending.sessions.items()
        ]
        pending.sessions.clear()
        rows.sort(key=itemgetter(0, 1))
        self._rows.put_sessions(rows)

    def _shrink(self) -> None:
        if len(self._clients) > MOST_CLIENTS:
            newest = list(self._clients.items())[-MOST_CLIENTS // 2 :]
            self._clients = dict(newest)
        if len(self._texts) > MOST_TEXTS:
            self._texts = {}
        if len(self._things) > MOST_TEXTS:
            self._things = {}


class _Moments:
    """Which moment each piece of a batch counts as known from (DESIGN: known_at)."""

    def __init__(self, mark: Mark, source_no: int, live_ms: int, now: int) -> None:
        self._last = mark.last_known_at
        self._replaying = mark.replay_source_no == source_no
        self._source_no = source_no
        self._live_ms = live_ms
        self._now = now

    def of(self, own_ms: int | None) -> tuple[int, int | None]:
        """Give known_at, and the recording's own where that could not be honoured. Ascending calls only."""
        if own_ms is None:
            return self._live(), None
        if self._last < own_ms <= self._now or (self._replaying and own_ms == self._last):
            self._last = own_ms
            self._replaying = True
            return own_ms, None
        if self._replaying:  # a recording out of order: as early as what it taught already allows
            return self._last, own_ms
        return self._live(), own_ms

    def _live(self) -> int:
        self._last = max(self._last, self._live_ms)
        self._replaying = False
        return self._last

    def mark(self) -> Mark:
        """Give the mark that the batch leaves behind."""
        return Mark(self._last, self._source_no if self._replaying else None)


class _StoredHistory:
    """What folding asks of the store: sessions beyond a client's tail, this batch's own included."""

    def __init__(self, writer: Writer, pending: Pending) -> None:
        self._writer = writer
        self._pending = pending
        self._found: dict[tuple[int, Identity], Session] = {}
        self._asked: set[tuple[int, Identity]] = set()

    def prefetch(self, steps: dict[str, list[_Step]], clients: dict[str, Client]) -> None:
        """Ask at once for every session that the batch names and no tail holds."""
        for client_id, client_steps in steps.items():
            client = clients[client_id]
            if not client.opens_left and len(client.tail) + len(client_steps) < 2 * TAIL:
                continue  # its whole history is, and stays, in the tail
            known = {key.session_id for key in client.tail}
            for step in client_steps:
                event = step.event
                if event.kind > Kind.DISCONNECTED or event.session_id in known:
                    continue
                known.add(event.session_id or "")
                self._asked.add((client.client_no, identity(session_of(event))))
        if self._asked:
            self._found = self._writer._rows.find(sorted(self._asked))

    def find(self, client_no: int, key: Identity) -> Session | None:
        pending = self._pending.sessions.get((client_no, key))
        if pending is not None:
            return pending
        if (client_no, key) in self._asked:
            return self._found.get((client_no, key))
        return self._writer._rows.find([(client_no, key)]).get((client_no, key))

    def save(self, client_no: int, sessions: dict[Identity, Session]) -> None:
        """Write this batch's sessions so far, so that windows are read from one place."""
        for key, session in sessions.items():
            self._pending.sessions[client_no, key] = session
        for place, session in self._pending.sessions.items():
            self._found[place] = session
            self._asked.add(place)
        self._writer._save_sessions(self._pending)

    def latest_end(self, client_no: int, before_ms: int) -> int:
        return self._writer._rows.latest_end(client_no, before_ms)

    def of_version(self, client_no: int, version: int) -> list[Session]:
        return self._writer._rows.sessions_of_version(client_no, version)

    def checks(self, client_no: int, from_ms: int, to_ms: int) -> list[Check]:
        held = self._writer._rows.checks
        asked_ms = [again.asked_ms for again in self._pending.repeated.get(client_no, ())]
        kept = held.about(client_no, from_ms, to_ms)
        kept += [
            Kept(one.check, one.answer, one.known_at, one.last_asked_ms)
            for one in self._pending.asked.get(client_no, ())
        ]
        return said_in(
            kept,
            from_ms,
            to_ms,
            lambda low, high: [
                *held.asked_between(client_no, low, high),
                *(each for each in asked_ms if low <= each <= high),
            ],
        )

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        rows = self._writer._rows
        inside = rows.sessions_between(client_no, from_ms, to_ms)
        left = rows.sessions_beside(client_no, from_ms, beside + 1, before=True)
        right = rows.sessions_beside(client_no, to_ms, beside + 1, before=False)
        return Window(
            [*left[:beside], *inside, *right[:beside]],
            opens_left=len(left) > beside,
            opens_right=len(right) > beside,
        )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the cycle collector out of a batch: it makes no cycles, and scans of it cost a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def record_step(
    client_no: int, known_at: int, folded: Folded, pending: Pending, number_text: Callable[[str], int]
) -> None:
    """Note the changes of one step: what it disproves is superseded by it, what it shows is recorded."""
    for key, session in folded.sessions.items():
        pending.sessions[client_no, key] = session
    for removed in folded.removed:
        place = (client_no, removed.at_ms, removed.seq)
        row = pending.live.pop(place, None)
        if row is None:
            pending.superseded.append((known_at, *place))
        elif row[3] != known_at:
            row[4] = known_at
            pending.closed.append(row)
    for gone in folded.unproved:
        place = (client_no, gone.at_ms, gone.seq)
        row = pending.proofs.pop(place, None)
        if row is None:
            pending.superseded_proofs.append((known_at, *place))
        elif row[3] != known_at:
            row[4] = known_at
            pending.closed_proofs.append(row)
    for proof in folded.proved:
        pending.proofs[client_no, proof.at_ms, proof.seq] = _confirmation(client_no, known_at, proof)
    for added in folded.added:
        pending.live[client_no, added.at_ms, added.seq] = _transition(client_no, known_at, added, number_text)


def _transition(client_no: int, known_at: int, row: Row, number_text: Callable[[str], int]) -> list[Any]:
    t: Transition = row.transition
    bounded = t.not_before_ms != t.timestamp_ms or t.not_after_ms != t.timestamp_ms
    return [
        client_no,
        row.at_ms,
        row.seq,
        known_at,
        None,
        int(t.state),
        t.timestamp_ms,
        None if t.reason is None else number_text(t.reason),
        t.not_before_ms if bounded else None,
        t.not_after_ms if bounded else None,
        RULES[t.rule],
        t.proved_from_ms,
    ]


def _confirmation(client_no: int, known_at: int, proof: Proof) -> list[Any]:
    until_ms, from_ms, open_at = proof.confirmation
    return [client_no, proof.at_ms, proof.seq, known_at, None, until_ms, from_ms, open_at]


def _crowded(tail: list[Session]) -> bool:
    """Tell whether a tail (newest first) that was cut by its depth may lack sessions near its newest."""
    return stamp_of(tail[0]) - stamp_of(tail[-1]) <= 3 * SKEW_MS
