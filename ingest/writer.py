"""The one transaction: evidence, what follows from it, and what it was learned from, commit together.

A batch of evidence goes in. It is folded client by client into a plan of what changes (ingest/fold.py decides that,
ingest/plan.py holds it), in memory as far as the ends of the timelines that are kept in mind reach; then one
transaction writes it (ingest/storing.py). Corrections never overwrite: a transition that the batch disproves is
marked as superseded in the step that disproved it. Nothing else in the project writes evidence, sessions or
transitions.

Of many batches (`write_all`), one is written while the next is read. Where nobody else writes it is folded meanwhile
as well: what folding took for granted of the store is verified when it is written; if it was wrong, the batch is
folded again. On PostgreSQL, where others may write what it would be folded on, what is ready of a batch is written
while the rest of it is folded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import NamedTuple

from ingest.asking import Asking, Other, newest_of
from ingest.beside import Beside
from ingest.client import STRAY_TAIL, TAIL, Client, Run, is_crowded, resumed
from ingest.counts import Counts
from ingest.digest import digest
from ingest.fold import fold
from ingest.horizon import sifted
from ingest.ledger import Stretch
from ingest.moments import Moments
from ingest.plan import Plan
from ingest.positions import Position
from ingest.reduce import CONNECTED_REASON
from ingest.remembered import Remembered
from ingest.stored import Step, StoredHistory
from ingest.storing import Ready, Values, by_place, put, session_rows
from ingest.sweeps import Ask, client_of
from store.bulk import Codes
from store.checks import NAMED, UNNAMED, WHOLE
from store.clock import Clock, system_clock
from store.engine import Store, is_deadlock, translated
from store.errors import StoreUnfinished
from store.garbage import uncollected
from store.model import DEFAULT_REALM, Event, Kind, Learned, Observation, Rejected, Session, Watch
from store.rows import ClientRow, Interned, Mark, Rows, SessionHeld, rows_of

__all__ = ["Counts", "Writer"]

MOST_TEXTS = 50_000  # interned strings that are kept in mind at once
AHEAD = 2_000  # clients whose rows are written while others of their batch are folded

Items = Sequence[Learned | Rejected]


class _Stale(Exception):
    """A batch was folded on the strength of a mark that turned out to be another.

    The batch before it held nothing new; or somebody annotated meanwhile (ingest/annotate.py).
    """


@dataclass(slots=True, kw_only=True)
class _Batch:
    """A batch, and what it needs of the store."""

    items: Items
    source_no: int
    learned: list[Learned]
    clients: dict[str, Client]
    claims: bool  # it says itself when some of it was learned
    watched: Sequence[Stretch]  # what goes into the watch ledger with it
    positions: Sequence[Position]  # up to where its source is read then
    now: int
    mark: Mark  # that the batch before leaves behind


@dataclass(slots=True)
class _Folded:
    """A batch that was folded, and the rows that came of it."""

    batch: _Batch
    ready: Ready


class _Writing(NamedTuple):
    """A batch that another thread writes; it tells whether anything was new."""

    folded: _Folded
    wrote: Future[bool]


class Writer:
    """Writes batches to one store; keeps the ends of recent timelines in mind. One thread at a time."""

    def __init__(self, store: Store, *, clock: Clock = system_clock, realm: str = DEFAULT_REALM) -> None:
        self._store = store
        self._clock = clock
        self._realm_name = realm
        with translated(store.url):
            self._rows = rows_of(store)
        self._now: int | None = None  # when the running transaction began
        self._writing: _Writing | None = None
        self._beside = Beside(self._rows.stop)
        self._forgotten = 0
        self._forget()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what was not committed is gone."""
        with translated(self._store.url), self._beside.taken_back():
            self._rows.rollback()
            self._rows.close()

    def _forget(self) -> None:
        """Drop what is kept in mind, as after a failure: it may speak of rows that were never committed."""
        self._clients = Remembered()
        self._texts = Interned(self.begun)
        self._things: dict[str, int] = {}
        self._realm_no: int | None = None
        self._mark: Mark | None = None  # kept in mind where nobody else writes
        self._batch: _Batch | None = None  # the newest; its clients are not forgotten

    def write(
        self,
        batch: Items,
        *,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
    ) -> Counts:
        """Write one batch as one transaction. Idempotent. Raises StoreError with nothing half-written.

        With it goes who was watching (ingest/ledger.py), and up to where the source is read then.
        """
        with self._all_or_nothing(), uncollected():
            return self._write(batch, source, watched, positions)

    def write_all(self, batches: Iterable[Items], *, source: str) -> Iterator[Counts]:
        """Write batches, a transaction each, in their order; gives the counts of each once it is committed.

        A batch is written while the next is read, and folded where nobody else can write. Raises StoreError, or what
        `batches` raises, after the counts of all that was committed by then.
        """
        with self._beside.running(), self._all_or_nothing():
            yield from self._write_all(batches, source)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        with translated(self._store.url):
            try:
                yield
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        try:
            with self._beside.taken_back():
                self._rows.rollback()
        finally:
            self._writing = self._now = None
            self._forget()

    def _write(
        self,
        items: Items,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
        *,
        presume: bool = True,
    ) -> Counts:
        while True:
            try:
                ready = self._fold(self._learn(items, source, watched, positions), presume=presume).ready
                wrote = self._put(self.begun(), ready)
                self._rows.commit()
            except Exception as error:
                if not _is_undone(error):
                    raise
                self._roll_back()
                presume = presume and is_deadlock(error)
                continue
            self._now = None
            if not wrote:
                self._mark = ready.mark
            return ready.counts

    def _write_all(self, batches: Iterable[Items], source: str) -> Iterator[Counts]:
        """Keep one batch in writing and, where nobody else writes, one folded, while the next is read."""
        alone = self._store.is_sqlite
        iterator = iter(batches)
        failure: Exception | None = None
        waiting: deque[Items] = deque()  # all that was read and is not known to be committed
        folded: _Folded | None = None
        while True:
            items: Items | None = None
            if failure is None:
                try:
                    items = next(iterator, None)
                except Exception as error:
                    failure = error  # what was read before is written first
            if items is not None:
                waiting.append(items)
            try:
                if self._writing is not None:
                    yield self._settled(folded)
                    waiting.popleft()
                with uncollected():
                    batch = None if items is None else self._learn(items, source)
                    if folded is not None:
                        self._start(folded)
                    folded = None if batch is None else self._fold(batch, ahead=not alone)
                    if folded is not None and not alone:
                        self._start(folded)
                        folded = None
            except Exception as error:
                yield from self._committed(waiting)
                if not _is_undone(error):
                    raise
                self._roll_back()
                folded = None
                while waiting:
                    yield self._write(waiting.popleft(), source, presume=is_deadlock(error))
            if items is None and not waiting:
                break
        if failure is not None:
            raise failure

    def _start(self, folded: _Folded) -> None:
        """Write a batch in another thread, to which the connection belongs until it is done.

        In this one where it takes a statement a row: two threads that take turns at each are slower than one.
        """
        if self._now is None:
            self.begun()
        rows, self._now = self._rows, None

        def write() -> bool:
            try:
                wrote = self._put(rows, folded.ready)
                rows.commit()
            except BaseException:
                rows.rollback()
                raise
            return wrote

        self._writing = _Writing(folded, self._beside.begin(write))
        if not folded.ready.is_bulk:
            self._writing.wrote.exception()  # waits

    def _settled(self, following: _Folded | None) -> Counts:
        """Wait for the batch that is being written. Raises SessionHeld, or _Stale for the one that follows it."""
        assert self._writing is not None
        self._beside.wait()
        ready, wrote = self._writing.folded.ready, self._writing.wrote.result()
        if not wrote and ready.mark != ready.mark_after:
            if following is None:
                self._mark = ready.mark
            elif following.batch.claims:
                raise _Stale
            else:
                following.ready.mark = ready.mark
        self._writing = None
        return ready.counts

    def _committed(self, waiting: deque[Items]) -> Iterator[Counts]:
        """Give the counts of the batch that was in writing when another failed, if it was written."""
        if self._writing is None:
            return
        try:
            counts = self._settled(None)
        except Exception:
            return
        waiting.popleft()
        yield counts

    def _put(self, rows: Rows, ready: Ready) -> bool:
        """Write a batch and the mark that it leaves; tell whether anything was new. Raises _Stale."""
        if self._store.is_sqlite and self._read_mark(rows).last_known_at > ready.mark.last_known_at:
            raise _Stale
        wrote = put(rows, ready)
        if wrote:
            self._leave(rows, ready)
        return wrote

    def _leave(self, rows: Rows, ready: Ready) -> None:
        rows.set_mark(ready.mark_after)

    def _read_mark(self, rows: Rows) -> Mark:
        """Give the mark that the batches before left. Raises StoreUnfinished where timelines are missing."""
        if rows.fetch("SELECT 1 FROM backfills"):
            raise StoreUnfinished
        return rows.mark()

    def begun(self, floor_ms: int | None = None) -> Rows:
        """Give the rows, in a transaction; waits for whoever has the connection."""
        self._beside.wait()
        if self._now is None:
            self._now = self._rows.begin(self._clock, floor_ms)
        return self._rows

    # --- What the batch needs to know -----------------------------------------------------------------------

    def _learn(
        self,
        items: Items,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
    ) -> _Batch:
        """Look up what folding a batch will need: interned strings, its clients with the ends of their histories.

        In the transaction that is running, which may be that of the batch before, not written yet.
        """
        self._shrink()
        claims = {
            item.known_at_ms for item in items if type(item) is Learned and item.known_at_ms is not None
        }
        running = self._now is not None
        rows = self.begun(min(claims, default=None))
        now = self._clock() if running or self._now is None else self._now
        care = rows.care()
        if care.forgotten != self._forgotten:
            self._forget()
            self._forgotten = care.forgotten
        items = sifted(items, care)
        if self._realm_no is None:
            self._realm_no = rows.realm(self._realm_name)
        if self._mark is None or not self._store.is_sqlite:
            self._mark = self._read_mark(rows)
        learned = [item for item in items if type(item) is Learned]
        if claims:
            learned.sort(key=lambda item: (item.known_at_ms is None, item.known_at_ms or 0))
        evidence = [item.evidence for item in learned]
        events = [each for each in evidence if type(each) is Event]
        self._intern(events, source)
        ids: set[str | None] = set(map(attrgetter("client_id"), events))
        if len(events) < len(evidence):
            ids.update(client_of(each) for each in evidence if type(each) is not Event)
        clients = self._load_clients({each for each in ids if each is not None})  # may read a later mark
        self._batch = _Batch(
            items=items,
            source_no=self._texts[source],
            learned=learned,
            clients=clients,
            claims=bool(claims),
            watched=watched,
            positions=positions,
            now=now,
            mark=self._mark,
        )
        return self._batch

    def _intern(self, events: Sequence[Event], source: str) -> None:
        texts: set[str | None] = {source}
        if events:
            texts.add(CONNECTED_REASON)
        for member in ("reason", "principal", "ip"):
            texts.update(map(attrgetter(member), events))
        new = {text for text in texts if text is not None and text not in self._texts}
        if new:
            self._texts |= self.begun().texts(new)
        things = {name for name in map(attrgetter("thing_name"), events) if name not in self._things}
        things.discard(None)
        if things:
            assert self._realm_no is not None
            self._things |= self.begun().things(self._realm_no, things)

    def _load_clients(self, ids: set[str]) -> dict[str, Client]:
        """Give the batch's clients, locked, each with the end of its history in mind."""
        assert self._realm_no is not None
        if self._store.is_sqlite:  # no other writer: what is kept in mind is what is there
            known = self._clients.known(ids)
            ids = ids - known.keys()
        else:
            known = {}
        missing: dict[int, ClientRow] = {}
        rows = self.begun().clients(self._realm_no, ids)
        if not self._store.is_sqlite:  # whoever had the clients until now may have left a later one
            self._mark = self._read_mark(self._rows)
        for row in rows:
            client = self._clients.get(row.client_id)
            if client is not None and client.written_in == row.written_in is not None:
                known[row.client_id] = client
            else:
                missing[row.client_no] = row
        if missing:
            known |= self._read_clients(missing)
        self._clients.keep(known)
        return known

    def _read_clients(self, missing: dict[int, ClientRow]) -> dict[str, Client]:
        tails: dict[int, list[Session]] = {}
        for strays, depth in ((False, TAIL), (True, 2 * STRAY_TAIL)):
            wanted = [
                no for no, row in missing.items() if row.has_strays is strays and row.first_ms is not None
            ]
            while wanted:
                tails |= self.begun().tails(wanted, depth)
                wanted = [no for no in wanted if len(tails[no]) == depth and is_crowded(tails[no])]
                depth *= 4
        clients: dict[str, Client] = {}
        for no, row in missing.items():
            tail = tails.get(no, [])
            clients[row.client_id] = resumed(
                no,
                reversed(tail),
                opens_left=len(tail) >= (2 * STRAY_TAIL if row.has_strays else TAIL),
                first_ms=row.first_ms,
                last_known_at=row.last_known_at,
                has_strays=row.has_strays,
            )
            if row.checked_ms is not None:
                self._read_checks(clients[row.client_id], row.checked_ms)
        return clients

    def _read_checks(self, client: Client, checked_ms: int) -> None:
        """Bring to mind what the API said of a client last, and what its timeline ends with."""
        client.checked_ms, client.plain = checked_ms, False
        rows = self.begun()
        kept = rows.checks.open_run(client.client_no)
        if kept is not None:
            asked_ms, known_at = kept.check.asked_ms, kept.known_at
            last = rows.checks.last_asked(client.client_no, known_at)
            client.run = Run(kept.check, kept.answer, known_at, *(last or (asked_ms, known_at)))
            assert self._mark is not None
            # Where a recording goes on with a step, that step may have said more already.
            begun_at = self._mark.last_known_at
            if self._mark.replay_source_no is not None and rows.checks.proves_in(client.client_no, begun_at):
                client.run.last_known_at = begun_at
        client.newest = newest_of(rows, client.client_no)

    # --- Folding --------------------------------------------------------------------------------------------

    def _fold(self, batch: _Batch, *, presume: bool = True, ahead: bool = False) -> _Folded:
        """Fold a batch into the rows that its transaction will write; `ahead` begins to write them meanwhile."""
        newest = max((client.last_known_at or 0 for client in batch.clients.values()), default=0)
        live_ms = max(batch.now, batch.mark.last_known_at + 1, newest + 1)
        moments = Moments(batch.mark, batch.source_no, live_ms, batch.now)
        counts, plan = Counts(read=len(batch.items)), Plan()
        codes = self._rows.codes()
        row_of, rows = self._evidence_row(batch, codes), list[Values]()
        steps: dict[str, list[Step]] = {}
        asks: dict[str, list[Ask]] = {}
        others: list[Other] = []
        was_ms: int | None = -1  # no moment
        for evidence, _, own_ms in batch.learned:
            if own_ms != was_ms:
                was_ms = own_ms
                known_at, claimed_at = moments.of(own_ms)
            if type(evidence) is Event:
                rows.append(row_of(evidence, known_at, claimed_at))
                of_client = steps.get(evidence.client_id)
                if of_client is None:
                    steps[evidence.client_id] = [(known_at, [evidence])]
                elif of_client[-1][0] == known_at:
                    of_client[-1][1].append(evidence)
                else:
                    of_client.append((known_at, [evidence]))
                continue
            assert not isinstance(evidence, Event)
            client_id = client_of(evidence)
            if client_id is None:
                others.append((known_at, claimed_at, evidence))
            else:
                assert isinstance(evidence, Observation)
                asks.setdefault(client_id, []).append(Ask(known_at, claimed_at, evidence))
        if batch.watched:
            watched_at, _ = moments.of(None)
        rows.sort(key=_by_time)  # the order of the key, so that a page is written once
        history = StoredHistory(self.begun, plan, self._save_sessions, steps, batch.clients, presume=presume)
        folding = self._fold_clients(batch.clients, steps, asks, history, plan, counts, others)
        stored: Future[int] | None = None
        touched: list[Client] = []
        if ahead:
            store = self.begun()
            stored = self._beside.begin(lambda: store.put_evidence(rows, codes))
        for client in folding:
            touched.append(client)
            if ahead and len(touched) == AHEAD:
                self._put_ahead(store, touched, plan, codes)
                touched = []
        counts.events = len(rows)
        counts.ignored = sum(row[3] > Kind.DISCONNECTED for row in rows)
        ready = Ready(
            counts=counts,
            codes=codes,
            mark=batch.mark,
            mark_after=moments.mark(),
            source_no=batch.source_no,
            position=batch.items[-1].position if batch.items else 0,
            evidence=rows,
            stored=stored,
            clients=_client_rows(touched),
            closed_runs=plan.closed_runs,
            superseded=plan.superseded,
            superseded_proofs=plan.superseded_proofs,
            transitions=plan.transition_rows(),
            proofs=plan.proof_rows(),
        )
        ready.new_sessions, ready.sessions = session_rows(plan.take_sessions(), codes, self._texts)
        self._add_others(ready, others)
        self._add_checks(ready, plan)
        if batch.watched:
            ready.watched = [(each, watched_at) for each in batch.watched]
        ready.positions = batch.positions
        rejected = [item for item in batch.items if isinstance(item, Rejected)]
        counts.quarantined += len(rejected)
        ready.rejected = [
            (batch.source_no, r.position, live_ms, r.reason, r.detail, r.length, r.sha256, r.head)
            for r in rejected
        ]
        self._mark = ready.mark_after
        return _Folded(batch, ready)

    def _fold_clients(
        self,
        clients: dict[str, Client],
        steps: dict[str, list[Step]],
        asks: dict[str, list[Ask]],
        history: StoredHistory,
        plan: Plan,
        counts: Counts,
        others: list[Other],
    ) -> Iterator[Client]:
        """Fold client by client; gives those whose row changes."""
        asking = Asking(self.begun, plan, history, self._texts, counts, others)
        for client_id, client in clients.items():
            client_steps, client_asks = steps.get(client_id, ()), asks.get(client_id, ())
            was = client.first_ms, client.has_strays, client.checked_ms
            if client_asks:
                last_known_at = asking.fold(client, client_steps, client_asks)
            else:
                for known_at, events in client_steps:
                    folded = fold(client, events, history, (), known_at)
                    counts.conflicts += folded.conflicts
                    plan.record(client.client_no, known_at, folded, self._texts)
                    last_known_at = known_at
            if not self._store.is_sqlite:
                client.last_known_at, client.written_in = last_known_at, self._rows.transaction_no
            elif was == (client.first_ms, client.has_strays, client.checked_ms):
                continue
            yield client

    def _put_ahead(self, store: Rows, touched: Sequence[Client], plan: Plan, codes: Codes) -> None:
        """Write clients and their sessions beside the folding of others."""
        new, changed = session_rows(plan.take_sessions(), codes, self._texts)
        clients = _client_rows(touched)

        def put_ahead() -> None:
            store.add_sessions(new, codes)
            store.put_sessions(changed, codes)
            store.put_clients(clients)

        self._beside.begin(put_ahead)

    def _save_sessions(self, plan: Plan) -> None:
        """Write what a plan holds of sessions ahead of the rest of its transaction. Raises SessionHeld."""
        rows, codes = self.begun(), self._rows.codes()
        new, changed = session_rows(plan.take_sessions(), codes, self._texts)
        rows.add_sessions(new, codes)
        rows.put_sessions(changed, codes)

    # --- Rows -----------------------------------------------------------------------------------------------

    def _evidence_row(self, batch: _Batch, codes: Codes) -> Callable[[Event, int, int | None], Values]:
        """Make what makes rows of evidence: a closure, for it is called once an event."""
        texts, things, clients, source_no = self._texts, self._things, batch.clients, batch.source_no

        def row(evidence: Event, known_at: int, claimed_at: int | None) -> Values:
            client_id, kind, at_ms, session_id, version, reason, initiated, principal, ip, thing, extra = (
                evidence
            )
            return (
                at_ms,
                clients[client_id].client_no,
                digest(evidence),
                int(kind),
                known_at,
                claimed_at,
                source_no,
                None if session_id is None else codes[session_id],
                version,
                None if reason is None else texts[reason],
                None if initiated is None else int(initiated),
                None if principal is None else texts[principal],
                None if ip is None else texts[ip],
                None if thing is None else things[thing],
                extra,
            )

        return row

    def _add_others(self, ready: Ready, others: Sequence[Other]) -> None:
        for known_at, claimed_at, said in others:
            if isinstance(said, Watch):
                ready.watches.append((said.source, said.from_ms, said.to_ms, known_at, claimed_at))
            else:
                row = (said.at_ms, digest(said), said.kind, said.subject, known_at, claimed_at)
                ready.observations.append((*row, ready.source_no, said.body, self._realm_no))
        ready.counts.ignored += len(ready.observations)

    def _add_checks(self, ready: Ready, plan: Plan) -> None:
        texts = self._texts
        rows = [
            (
                client_no,
                one.place[0],
                one.check.asked_ms,
                one.digest,
                one.known_at,
                one.claimed_at,
                ready.source_no,
                int(one.check.state),
                UNNAMED if one.check.named_ms is None else WHOLE if one.check.whole else NAMED,
                None if one.check.reason is None else texts[one.check.reason],
                one.answer,
                one.last_asked_ms,
            )
            for client_no, asked in plan.asked.items()
            for one in asked
        ]
        ready.checks = sorted(rows, key=by_place)
        ready.repeated = [
            (no, one.known_at, one.asked_ms) for no, asked in plan.repeated.items() for one in asked
        ]

    def _shrink(self) -> None:
        # What was folded last may not be written yet.
        self._clients.shrink(needed=() if self._batch is None else self._batch.clients)
        if len(self._texts) > MOST_TEXTS:
            self._texts = Interned(self.begun)
        if len(self._things) > MOST_TEXTS:
            self._things = {}


def _client_rows(clients: Iterable[Client]) -> list[Values]:
    return [(c.first_ms, int(c.has_strays), c.last_known_at, c.checked_ms, c.client_no) for c in clients]


def _is_undone(error: Exception) -> bool:
    """Tell whether a batch is to be written again: it was folded on what is not so, or met another writer's.

    Two writers that meet texts and clients in opposite turns wait for each other; the other one goes first then.
    """
    return isinstance(error, (SessionHeld, _Stale)) or is_deadlock(error)


_by_time = itemgetter(0, 1)
