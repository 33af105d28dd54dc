"""The one transaction: evidence, what follows from it, and what it was learned from, commit together.

A batch of evidence goes in. What it needs of the store is looked up (ingest/mind.py), it is folded into rows
(ingest/folding.py), and one transaction writes them (ingest/storing.py). Corrections never overwrite: a transition that
the batch disproves is marked as superseded in the step that disproved it. Nothing else in the project writes evidence,
sessions or transitions.

Of many batches (`write_all`), one is written while the next is read. Where nobody else writes it is folded meanwhile
as well: what folding took for granted of the store is verified when it is written; if it was wrong, the batch is
folded again. On PostgreSQL, where others may write what it would be folded on, what is ready of a batch is written
while the rest of it is folded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from operator import attrgetter
from typing import NamedTuple

from ingest.beside import Beside
from ingest.counts import Counts
from ingest.folding import Batch, Folding, Items
from ingest.horizon import sifted
from ingest.ledger import Stretch
from ingest.mind import Mind
from ingest.positions import Position
from ingest.storing import Ready, put
from ingest.sweeps import client_of
from store.clock import Clock, system_clock
from store.engine import Store, is_deadlock, translated
from store.garbage import uncollected
from store.model import DEFAULT_REALM, Event, Learned
from store.rows import Rows, SessionHeld, rows_of

__all__ = ["Counts", "Writer"]


class _Stale(Exception):
    """A batch was folded on the strength of a mark that turned out to be another.

    The batch before it held nothing new; or somebody annotated meanwhile (ingest/annotate.py).
    """


class _Writing(NamedTuple):
    """A batch that another thread writes; it tells whether anything was new."""

    ready: Ready
    wrote: Future[bool]


class Writer:
    """Writes batches to one store; keeps the ends of recent timelines in mind. One thread at a time."""

    _MIND = Mind
    _DERIVES = True  # what follows from the evidence

    def __init__(self, store: Store, *, clock: Clock = system_clock, realm: str = DEFAULT_REALM) -> None:
        self._store = store
        self._clock = clock
        with translated(store.url):
            self._rows = rows_of(store)
        self._now: int | None = None  # when the running transaction began
        self._writing: _Writing | None = None
        self._beside = Beside(self._rows.rollback, self._rows.interrupt)
        self._mind = self._MIND(self.begun, realm, alone=store.is_sqlite)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what was not committed is gone."""
        with translated(self._store.url):
            self._beside.stop()
            with self._beside.connection:
                self._rows.rollback()
                self._rows.close()

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

        A batch is written while the next is read, and folded where nobody else can write. What another writer undid is
        found out, and written again, once `batches` gives the next one or ends; an empty one, of which no counts are
        given, says that there is no more for now. Raises StoreError, or what `batches` raises, after the counts of all
        that was committed by then.
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
            self._beside.stop()
            with self._beside.connection:
                self._rows.rollback()
        finally:
            self._writing = self._now = None
            self._mind.forget()

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
                ready = self._fold(self._learn(items, source, watched, positions), presume=presume)
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
                self._mind.mark = ready.mark
            return ready.counts

    def _write_all(self, batches: Iterable[Items], source: str) -> Iterator[Counts]:
        """Keep one batch in writing and, where nobody else writes, one folded, while the next is read."""
        alone = self._mind.alone
        iterator = iter(batches)
        failure: Exception | None = None
        waiting: deque[Items] = deque()  # all that was read and is not known to be committed
        folded: Ready | None = None
        while True:
            items: Items | None = None
            if failure is None:
                try:
                    items = next(iterator, None)
                except Exception as error:
                    failure = error  # what was read before is written first
            if items:
                waiting.append(items)
            try:
                if self._writing is not None:
                    yield self._settled(folded)
                    waiting.popleft()
                with uncollected():
                    batch = self._learn(items, source) if items else None
                    if folded is not None:
                        self._start(folded)
                    folded = (
                        None if batch is None else self._fold(batch, ahead=None if alone else self._beside)
                    )
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

    def _start(self, ready: Ready) -> None:
        """Write a batch in another thread, to which the connection belongs until it is done.

        In this one where it takes a statement a row: two threads that take turns at each are slower than one.
        """
        if self._now is None:
            self.begun()
        rows, self._now = self._rows, None

        def write() -> bool:
            wrote = self._put(rows, ready)
            rows.commit()
            return wrote

        self._writing = _Writing(ready, self._beside.begin(write))
        if not ready.is_bulk:
            self._writing.wrote.exception()  # waits

    def _settled(self, following: Ready | None) -> Counts:
        """Wait for the batch that is being written. Raises SessionHeld, or _Stale for the one that follows it."""
        assert self._writing is not None
        self._beside.wait()
        ready, wrote = self._writing.ready, self._writing.wrote.result()
        if not wrote and ready.mark != ready.mark_after:
            if following is None:
                self._mind.mark = ready.mark
            elif following.claims:
                raise _Stale
            else:
                following.mark = ready.mark
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
        if self._mind.alone and self._mind.read_mark(rows).last_known_at > ready.mark.last_known_at:
            raise _Stale
        wrote = put(rows, ready)
        if wrote:
            self._leave(rows, ready)
        return wrote

    def _leave(self, rows: Rows, ready: Ready) -> None:
        rows.set_mark(ready.mark_after)

    def begun(self, floor_ms: int | None = None) -> Rows:
        """Give the rows, in a transaction; waits for whoever has the connection."""
        self._beside.wait()
        if self._now is None:
            self._now = self._rows.begin(self._clock, floor_ms)
        return self._rows

    def _learn(
        self,
        items: Items,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
    ) -> Batch:
        """Look up what folding a batch will need: interned strings, its clients with the ends of their histories.

        In the transaction that is running, which may be that of the batch before, not written yet.
        """
        self._mind.shrink()
        claims = {
            item.known_at_ms for item in items if type(item) is Learned and item.known_at_ms is not None
        }
        running = self._now is not None
        rows = self.begun(min(claims, default=None))
        now = self._clock() if running or self._now is None else self._now
        care = rows.care()
        items = sifted(items, care)
        self._mind.recall(rows, care.forgotten)
        learned = [item for item in items if type(item) is Learned]
        if claims:
            learned.sort(key=lambda item: (item.known_at_ms is None, item.known_at_ms or 0))
        evidence = [item.evidence for item in learned]
        events = [each for each in evidence if type(each) is Event]
        self._mind.intern(events, source)
        ids: set[str | None] = set(map(attrgetter("client_id"), events))
        if len(events) < len(evidence):
            ids.update(client_of(each) for each in evidence if type(each) is not Event)
        clients = self._mind.clients({each for each in ids if each is not None})  # may read a later mark
        assert self._mind.mark is not None
        return Batch(
            items=items,
            source_no=self._mind.texts[source],
            learned=learned,
            clients=clients,
            claims=bool(claims),
            watched=watched,
            positions=positions,
            now=now,
            mark=self._mind.mark,
        )

    def _fold(self, batch: Batch, *, presume: bool = True, ahead: Beside | None = None) -> Ready:
        """Make the rows that the transaction of a batch will write; what is ready is written `ahead`, if wanted."""
        folding = Folding(batch, self._mind, self._rows, presume=presume, derive=self._DERIVES, ahead=ahead)
        ready = folding.ready()
        self._mind.mark = ready.mark_after
        return ready


def _is_undone(error: Exception) -> bool:
    """Tell whether a batch is to be written again: it was folded on what is not so, or met another writer's.

    Two writers that meet texts and clients in opposite turns wait for each other; the other one goes first then.
    """
    return isinstance(error, (SessionHeld, _Stale)) or is_deadlock(error)
