"""Between the sources and the writer: deliveries, on their way from many threads to one.

Owns the bound: a source waits while the writer is behind, so memory is constant however much waits to be read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ingest.ledger import Watched
from store.model import Learned, Rejected


def _nothing() -> None:
    pass


class Delivery(NamedTuple):
    """What came at once, and what is to be done when it is safe."""

    source: str  # by which name it stands in the store: evidence, quarantine, the watch ledger
    items: Sequence[Learned | Rejected]
    weight: int = 0  # bytes, as they came
    settle: Callable[[], None] = _nothing  # called once, after the commit, in the writer's thread: be quick
    watched: Watched | None = None
    position: tuple[str, str] | None = None  # of a part of the source, up to where it is read with this


class Source(Protocol):
    """Something that delivers, in a thread of its own."""

    name: str

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Deliver until `stop` is set. Outlives every failure that may pass; raises SourceError for others."""

    def end(self, *, within_s: float) -> None:
        """Finish what was settled, for all that was delivered is written or never will be; be brief."""


class Inbox:
    """Deliveries that wait for the writer, first in, first out; bounded by their bytes. Many threads may use it."""

    def __init__(self, *, most_bytes: int = 16 << 20) -> None:
        self._most = most_bytes
        self._held = 0
        self._waiting: deque[Delivery] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, delivery: Delivery) -> bool:
        """Hand over a delivery, waiting while there is no room; False, and not taken, once the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._most)
            if self._closed:
                return False
            self._waiting.append(delivery)
            self._held += delivery.weight
            self._changed.notify_all()
            return True

    def take(self, *, most: int, wait_s: float) -> list[Delivery]:
        """Give what waits, `most` records or one delivery; empty where nothing came within `wait_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting, wait_s)
            taken: list[Delivery] = []
            records = 0
            while self._waiting and (not taken or records + len(self._waiting[0].items) <= most):
                taken.append(self._waiting.popleft())
                records += len(taken[-1].items)
            self._held -= sum(each.weight for each in taken)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Take no more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """How many deliveries wait."""
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """How much waits."""
        return self._held
