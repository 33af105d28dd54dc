"""Writing to a server that goes away for a while: wait, come back, write the batch again.

Owns the waiting: what is waited for, how long, and what is said meanwhile. Nothing is lost by it, for a batch is
one transaction and writing it again is idempotent; nothing is kept in mind of what may never have been committed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from ingest.folding import Items
from ingest.ledger import Stretch
from ingest.positions import Position
from ingest.writer import Counts, Writer
from store.clock import Clock, system_clock
from store.engine import Store, check_revision
from store.errors import StoreAway, StoreError
from store.model import DEFAULT_REALM

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class PatientWriter:
    """A Writer that outlives its server's absence. One thread at a time.

    Each batch waits up to `wait_s` seconds, in pauses that double from 0.1 s to 5 s; 0 does not wait. `say` is
    told once when the waiting begins, and once when it is over. `pause` sleeps so many seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = system_clock,
        realm: str = DEFAULT_REALM,
        wait_s: float,
        say: Callable[[str], None] = lambda text: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._realm = realm
        self._wait_s = wait_s
        self._say = say
        self._pause = pause
        self._writer: Writer | None = self._opened()

    def __enter__(self) -> PatientWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what was not committed is gone."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(StoreError):  # there is nothing to lose in a connection that is gone
                writer.close()

    def write(
        self,
        batch: Items,
        *,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
    ) -> Counts:
        """Write one batch as one transaction, as often as it takes. Idempotent.

        Where the server went away in the midst of a commit, evidence that had been committed counts as
        duplicates. Raises StoreAway after `wait_s`, and any other StoreError at once, with nothing half-written.
        """
        return self._write(batch, source, watched, positions)

    def write_all(self, batches: Iterable[Items], *, source: str) -> Iterator[Counts]:
        """Write batches, a transaction each, in their order; gives the counts of each once it is committed.

        What was read when the server went away is written as `write` does, batch by batch. Raises what `batches` raises
        after all that came before.
        """
        iterator = iter(batches)
        waiting: deque[Items] = deque()  # all that was read and is not known to be committed
        failure: StoreAway | None = None  # of the source: another server than this one

        def read() -> Iterator[Items]:
            nonlocal failure
            try:
                for batch in iterator:
                    if batch:
                        waiting.append(batch)
                    yield batch
            except StoreAway as error:
                failure = error

        while True:
            try:
                if self._writer is None:
                    self._writer = self._back()
                for counts in self._writer.write_all(read(), source=source):
                    waiting.popleft()
                    yield counts
            except StoreAway as error:
                if not waiting:
                    raise
                away: StoreAway | None = error
            else:
                if failure is not None:
                    raise failure
                return
            while waiting:
                counts = self._write(waiting[0], source, away=away)
                away = None
                waiting.popleft()
                yield counts

    def _write(
        self,
        batch: Items,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
        away: StoreAway | None = None,
    ) -> Counts:
        """Write a batch; `away` is what a first try met."""
        until_s: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            if away is not None:
                self.close()
                now_s = time.monotonic()
                if until_s is None:
                    until_s = now_s + self._wait_s
                    if self._wait_s:
                        limit = "" if self._wait_s == float("inf") else f"up to {self._wait_s:g} s "
                        self._say(f"{away} Waiting {limit}for it.")
                if now_s >= until_s:
                    raise away
                self._pause(min(pause_s, until_s - now_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                if self._writer is None:
                    self._writer = self._back()
                counts = self._writer.write(batch, source=source, watched=watched, positions=positions)
            except StoreAway as error:
                away = error
            else:
                if until_s is not None:
                    self._say("It answers again; the batch is written.")
                return counts

    def _opened(self) -> Writer:
        return Writer(self._store, clock=self._clock, realm=self._realm)

    def _back(self) -> Writer:
        """Open the store anew; it may have been upgraded meanwhile. Raises StoreTooNew, StoreMissing."""
        self._store.engine.dispose()
        check_revision(self._store)
        return self._opened()
