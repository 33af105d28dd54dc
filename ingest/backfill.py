"""Years of recordings into a store: the evidence first, batch by batch, and the timelines last, in bulk.

What a step of folding costs is not paid a batch but once a client, by all cores, and every row is written in the
order of its key. The rules are those of ingest/fold.py and the rows the same as if the recordings had been
ingested: what was learned when is decided as ever (ingest/moments.py). Until the timelines are there the watermark
stays where it was, so that no question sees half of it; and how far it has come is kept, so that a run that was cut
short goes on where it stopped.

Answers of the API are told from what is held already (ingest/sweeps.py), which bulk does not know: from the first
check on, the rest is ingested as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from ingest.client import Client
from ingest.counts import Counts
from ingest.deriving import Packet, Wanted, in_parallel
from ingest.folding import Items
from ingest.mind import Mind
from ingest.storing import Ready
from ingest.sweeps import client_of
from ingest.writer import Writer
from store.clock import Clock, system_clock
from store.engine import Store, translated
from store.model import DEFAULT_REALM, Event, Learned
from store.packing import BLOCK
from store.rows import Mark, Rows, rows_of

_COMMIT_ROWS = 200_000  # transitions a transaction, at least


class State(NamedTuple):
    """How far a back-filling has come."""

    known_from: int
    last_known_at: int
    replay_source_no: int | None
    derived_below: int


def state_of(rows: Rows) -> State | None:
    """Read how far a back-filling has come; None where none is under way."""
    found = rows.fetch("SELECT known_from, last_known_at, replay_source_no, derived_below FROM backfills")
    return State(*found[0]) if found else None


class _Mind(Mind):
    """Knows clients by their numbers alone; and how far the back-filling has come is the newest mark."""

    def _known(self, ids: set[str]) -> dict[str, Client]:
        assert self.realm_no is not None
        known = self._clients.known(ids)
        for row in self.begun().clients(self.realm_no, ids - known.keys()):
            known[row.client_id] = Client(row.client_no, last_known_at=row.last_known_at)
        return known

    def read_mark(self, rows: Rows) -> Mark:
        state = state_of(rows)
        if state is None:
            mark = rows.mark()
            rows.changed(
                "INSERT INTO backfills (backfill_no, known_from, last_known_at, replay_source_no, derived_below)"
                " VALUES (1, ?, ?, ?, 0)",
                [(mark.last_known_at, *mark)],
            )
            return mark
        return Mark(state.last_known_at, state.replay_source_no)


class EvidenceWriter(Writer):
    """Writes evidence and nothing that follows from it, and how far it has come instead of the watermark."""

    _MIND = _Mind
    _DERIVES = False

    def _leave(self, rows: Rows, ready: Ready) -> None:
        # What is derived already may not be all of it any more.
        rows.changed(
            "UPDATE backfills SET last_known_at = ?, replay_source_no = ?, derived_below = 0",
            [tuple(ready.mark_after)],
        )
        rows.changed(
            "INSERT INTO backfilled (source_no, position) VALUES (?, ?)"
            " ON CONFLICT (source_no) DO UPDATE SET position = excluded.position",
            [(ready.source_no, ready.position)],
        )

    def position(self, source: str) -> int:
        """Tell up to which record of a source the evidence is in, by an earlier run; -1: nothing is."""
        with self._all_or_nothing():
            found = self._rows.fetch(
                "SELECT b.position FROM backfilled b JOIN texts t ON t.text_no = b.source_no WHERE t.text = ?",
                (source,),
            )
        return found[0][0] if found else -1


class Backfill:
    """Takes batches as a Writer does; `finish` derives what they teach. Close it, or use it as a context.

    `progress` is told how many clients have their timelines, and how many will.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = system_clock,
        realm: str = DEFAULT_REALM,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._realm = realm
        self._progress = progress
        self.derived = 0  # transitions
        self.skipped = 0  # records whose evidence an earlier run took in
        self._evidence: EvidenceWriter | None = EvidenceWriter(store, clock=clock, realm=realm)
        self._live: Writer | None = None

    def __enter__(self) -> Backfill:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; what was not committed is gone."""
        for writer in (self._evidence, self._live):
            if writer is not None:
                writer.close()

    def write_all(self, batches: Iterable[Items], *, source: str) -> Iterator[Counts]:
        """Write batches, a transaction each; gives the counts of each once it is committed."""
        if self._live is not None:
            yield from self._live.write_all(batches, source=source)
            return
        assert self._evidence is not None
        done = self._evidence.position(source)
        iterator = iter(batches)
        checked: list[Items] = []

        def plain() -> Iterator[Items]:
            for batch in iterator:
                items = [item for item in batch if item.position >= done]
                self.skipped += len(batch) - len(items)
                if any(map(_is_check, items)):
                    checked.append(items)
                    return
                if items or not batch:
                    yield items

        yield from self._evidence.write_all(plain(), source=source)
        if checked:
            self.finish()
            self._live = Writer(self._store, clock=self._clock, realm=self._realm)
            yield from self._live.write_all(chain(checked, iterator), source=source)

    def finish(self) -> None:
        """Derive the timelines of all that was learned, and let questions see it. Does nothing a second time."""
        if self._evidence is None:
            return
        self._evidence.close()
        self._evidence = None
        with translated(self._store.url):
            rows = rows_of(self._store)
            try:
                self._derive(rows)
            finally:
                rows.rollback()
                rows.close()

    def _derive(self, rows: Rows) -> None:
        rows.begin_care(alone=False)
        state = state_of(rows)
        if state is None:
            rows.rollback()
            return
        older = rows.fetch("SELECT 1 FROM evidence WHERE known_at < ? LIMIT 1", (state.known_from,))
        replaces = bool(rows.fetch("SELECT 1 FROM transitions LIMIT 1"))
        ((total,),) = rows.fetch("SELECT count(*) FROM clients")
        rows.commit()
        wanted = Wanted(state.derived_below, state.known_from if older else None)
        done = state.derived_below
        with in_parallel(self._store, wanted) as packets:
            rows.begin_care(alone=False)
            written = 0
            for packet in packets:
                self._put(rows, packet, replaces=replaces)
                written += packet.rows
                done += len(packet.clients)
                if packet.ends_block:
                    rows.changed("UPDATE backfills SET derived_below = ?", [((packet.block_no + 1) * BLOCK,)])
                    if written >= _COMMIT_ROWS:
                        rows.commit()
                        self._progress(done, total)
                        rows.begin_care(alone=False)
                        written = 0
        rows.set_mark(Mark(state.last_known_at, state.replay_source_no))
        rows.changed("DELETE FROM backfills WHERE backfill_no = ?", [(1,)])
        rows.changed("DELETE FROM backfilled WHERE source_no <> ?", [(-1,)])
        rows.commit()
        self._progress(total, total)

    def _put(self, rows: Rows, packet: Packet, *, replaces: bool) -> None:
        if replaces:
            for client_no in packet.client_nos:
                rows.drop_derived(client_no)
        for packed in (packet.transitions, packet.sessions):
            if packed is not None:
                rows.put_packed(packed)
        rows.many(rows.checks.sql("put_confirmations"), packet.confirmations)
        rows.put_clients(packet.clients)
        self.derived += packet.rows


def _is_check(item: Any) -> bool:
    return (
        isinstance(item, Learned)
        and type(item.evidence) is not Event
        and client_of(item.evidence) is not None
    )
