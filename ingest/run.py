"""The ingester that runs for ever: sources deliver from threads of their own, one writer commits, then each is settled.

Owns the order of things: nothing is settled (deleted from a queue, acknowledged to a broker) before the commit of what
it said; no transaction is open while a source talks to its network; what cannot be written waits, and its sources
with it (ingest/inbox.py); at the end what was delivered is still written, in seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from ingest.counts import Counts
from ingest.inbox import Delivery, Inbox, Source
from ingest.ledger import Ledger, Stretch
from ingest.positions import Position
from ingest.redact import Redaction
from ingest.tally import Tally
from store.clock import Clock, system_clock
from store.errors import SourceError, StoreAway
from store.model import Event, Learned, Rejected

log = logging.getLogger("thingline.run")

MOST_RECORDS = 5_000  # a transaction: large enough to be cheap, small enough that nobody waits for a second
_IDLE_S = 1.0  # how long the writer waits for a delivery before it looks whether the end has come
_LAST_S = 8  # how long sources may take to end, and again to finish what was settled

Items = Sequence[Learned | Rejected]


class Writing(Protocol):
    """What a runner writes with: a PatientWriter."""

    def write(
        self,
        batch: Items,
        *,
        source: str,
        watched: Sequence[Stretch] = (),
        positions: Sequence[Position] = (),
    ) -> Counts: ...


class Stopped(Exception):
    """The end came while the store was waited for: what is delivered is not settled, and will come again."""


class Runner:
    """Runs sources against one writer until it is told to stop."""

    def __init__(
        self,
        sources: Sequence[Source],
        ledger: Ledger,
        tally: Tally,
        *,
        clock: Clock = system_clock,
        redact: Redaction | None = None,
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        self._sources = sources
        self._ledger = ledger
        self._tally = tally
        self._clock = clock
        self._redact = redact
        self._on_gap = on_gap  # told when a path records again after it had not
        self.inbox = Inbox()
        self.stopping = threading.Event()
        self._failure: SourceError | None = None

    def stop(self) -> None:
        """Begin to end: receive no more, write what was received, settle it. May be called in a signal handler."""
        self.stopping.set()

    def pause(self, seconds: float) -> None:
        """Wait for a store that is away. Raises Stopped once it is time to end."""
        if self.stopping.wait(seconds):
            raise Stopped

    def run(self, writer: Writing) -> None:
        """Run until `stop`. Raises SourceError where a source cannot go on, once all that came is written."""
        threads = [self._start(source) for source in self._sources]
        closing = threading.Thread(target=self._close, args=(threads,), daemon=True)
        closing.start()
        try:
            while closing.is_alive() or self.inbox.held:
                self._write(writer, self.inbox.take(most=MOST_RECORDS, wait_s=_IDLE_S))
        except (Stopped, StoreAway):
            log.warning("the store is away; what was received and is not written will be received again")
            if not self.stopping.is_set():
                raise
        finally:
            self.stopping.set()
            self.inbox.close()
            until_s = time.monotonic() + _LAST_S
            for source in self._sources:
                source.end(within_s=max(0.1, until_s - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def _start(self, source: Source) -> threading.Thread:
        def run() -> None:
            try:
                source.run(self.inbox, self.stopping)
            except SourceError as error:
                self._failure = error
                self.stop()
            except Exception as error:  # a bug of ours; the others must not go on as if all were well
                log.exception("%s failed", source.name)
                self._failure = SourceError(
                    f"{source.name} failed: {error!r}; this is a bug, please report it."
                )
                self.stop()

        thread = threading.Thread(target=run, name=source.name, daemon=True)
        thread.start()
        return thread

    def _close(self, threads: Sequence[threading.Thread]) -> None:
        """Close the inbox once all sources have ended, or have been waited for long enough."""
        self.stopping.wait()
        until_s = time.monotonic() + _LAST_S
        for thread in threads:
            thread.join(max(0.1, until_s - time.monotonic()))
        self.inbox.close()

    def _write(self, writer: Writing, taken: Sequence[Delivery]) -> None:
        """Write what was delivered, a transaction a source, and settle it."""
        for source, group in groupby(sorted(taken, key=_source), key=_source):
            deliveries = list(group)
            items = [item for each in deliveries for item in each.items]
            if self._redact is not None:
                items = list(map(self._redact.record, items))
            said = [(source, each.watched) for each in deliveries if each.watched is not None]
            watched = self._ledger.plan(said)
            reached = dict(each.position for each in deliveries if each.position is not None)
            positions = [Position(source, *each) for each in reached.items()]
            if items or watched or positions:
                counts = writer.write(items, source=source, watched=watched, positions=positions)
                if self._ledger.gaps(watched):
                    self._on_gap()
                self._ledger.wrote(watched)
                self._tally.wrote(source, counts, self._clock(), _newest_ms(items))
            for each in deliveries:
                each.settle()


_source: Callable[[Delivery], str] = attrgetter("source")


def _newest_ms(items: Items) -> int | None:
    return max(
        (
            item.evidence.at_ms
            for item in items
            if isinstance(item, Learned) and isinstance(item.evidence, Event)
        ),
        default=None,
    )
