"""What a running ingester counts, for its log, its metrics and its health. Any thread may count."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from ingest.counts import Counts

QUIET_MS = 60_000  # what has not answered for so long is not ready


@dataclass(slots=True)
class Seen:
    """What is known of one source."""

    messages: int = 0
    bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by ingest.aws.Trouble
    answered_ms: int | None = None  # when it last answered, with or without messages
    quiet_ms: int | None = None  # it is asked over and over, so that silence for so long is a fault
    newest_ms: int | None = None  # the newest stamp of what came of it


class Tally:
    """The counts of one run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sources: dict[str, Seen] = {}
        self.written = Counts()
        self.batches = 0
        self.committed_ms: int | None = None  # when something was last committed

    def begins(self, source: str, *, quiet_ms: int = QUIET_MS) -> None:
        """Expect a source to answer at least once in that time from now on."""
        with self.lock:
            self.sources.setdefault(source, Seen()).quiet_ms = quiet_ms

    def received(self, source: str, messages: int, weight: int, now_ms: int) -> None:
        """Count an answer of a source."""
        with self.lock:
            seen = self.sources.setdefault(source, Seen())
            seen.answered_ms = now_ms
            seen.messages += messages
            seen.bytes += weight

    def failed(self, source: str, trouble: str) -> None:
        """Count a call that failed."""
        with self.lock:
            self.sources.setdefault(source, Seen()).failures[trouble] += 1

    def wrote(self, source: str, counts: Counts, now_ms: int, newest_ms: int | None) -> None:
        """Count a commit."""
        with self.lock:
            self.batches += 1
            self.committed_ms = now_ms
            self.written.add(counts)
            seen = self.sources.setdefault(source, Seen())
            if newest_ms is not None:
                seen.newest_ms = max(newest_ms, seen.newest_ms or newest_ms)
