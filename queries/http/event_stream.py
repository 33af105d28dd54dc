"""Server-sent events of what is learned: new transitions, and those that later evidence disproved.

One look at the store serves all who listen. Each keeps its own place in the order of learning, so that who is slow, or
comes back with a Last-Event-ID, is told all of it and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from queries.history import History, ThingTransition
from queries.http.messages import Refusal
from queries.http.readers import Readers
from queries.news import MOST_NEWS, SUPERSEDED, Learned, News, Position
from queries.output import json_line, transition_json
from store.care import NO_CARE
from store.errors import ThinglineError

MOST_LISTENERS = 2_000
EVERY_S = 1.0  # how often the store is looked at
SHARE = 20  # ... at most a twentieth of the time, where a look takes long
BEAT_S = 15.0  # how often who listens hears that the stream lives
HELD, MOST_BATCHES = (
    10_000,
    1_000,
)  # events kept for those who are a little behind; and looks, for many bring none
CHUNK = 64 << 10  # bytes sent at once: what a listener who does not read can hold up
MEDIA_TYPE = "text/event-stream"


class _Batch(NamedTuple):
    """News as they are sent, written once for all who listen: by thing, and put together for who hears of all."""

    events: list[tuple[str | None, bytes]]
    chunks: list[bytes]
    until: Position

    def wanted(self, things: frozenset[str]) -> list[bytes]:
        """Give what is to be sent to one who listens to these things; none: to all."""
        return _chunks(event for name, event in self.events if name in things) if things else self.chunks


class EventStream:
    """Tells all who listen what is learned in one store."""

    def __init__(self, readers: Readers, *, every_s: float = EVERY_S, beat_s: float = BEAT_S) -> None:
        self._readers = readers
        self._every_s = every_s
        self._beat_s = beat_s
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._until: Position | None = None  # what was looked at, up to here
        self._batches: dict[Position, _Batch] = {}  # the newest, each by where it goes on from
        self._held = 0
        self._care = NO_CARE
        self._changed = asyncio.Event()
        self._is_closed = False

    def close(self) -> None:
        """End every stream."""
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._changed.set()

    async def open(self, after: Position | None, things: Collection[str]) -> AsyncIterator[bytes]:
        """Begin a stream after a position; None: now. `things`: only of these; empty: of all. Raises Refusal."""
        if self._listeners >= MOST_LISTENERS:
            raise Refusal(400, "ThrottlingException", f"More than {MOST_LISTENERS:,} listen already.")
        begun = await self._news(after, most=1)  # refuses a position that was purged
        return self._events(begun.until if after is None else after, frozenset(things))

    async def _events(self, position: Position, things: frozenset[str]) -> AsyncIterator[bytes]:
        self._listeners += 1
        self._look_again()
        try:
            yield f"retry: 2000\nid: {position}\n\n".encode()  # where to resume, though nothing happens
            beat_s = time.monotonic() + self._beat_s
            while not self._is_closed:
                batch = await self._next(position, beat_s - time.monotonic())
                position = position if batch is None else batch.until
                for chunk in () if batch is None else batch.wanted(things):
                    yield chunk
                    beat_s = time.monotonic() + self._beat_s
                if time.monotonic() >= beat_s:
                    self._look_again()
                    yield f": alive\nid: {position}\n\n".encode()
                    beat_s = time.monotonic() + self._beat_s
        finally:
            self._listeners -= 1
            if not self._listeners and self._looking is not None:
                self._looking.cancel()
                self._looking = None  # it ends later, and whoever comes in between must be looked for
                self._forget()

    def _look_again(self) -> None:
        """See that somebody looks at the store, whatever became of who did."""
        if self._looking is None or self._looking.done():
            self._forget()
            self._looking = asyncio.create_task(self._look())

    def _forget(self) -> None:
        self._until, self._held = None, 0
        self._batches.clear()

    async def _next(self, position: Position, patience_s: float) -> _Batch | None:
        """Wait for what comes after a position; None where nothing did."""
        if self._until is None or position >= self._until:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._changed.wait()
        if self._is_closed or self._until is None or position >= self._until:
            return None
        if position in self._batches:
            return self._batches[position]
        try:
            return _batch(await self._news(position))
        except (ThinglineError, Refusal):
            await asyncio.sleep(self._every_s)  # the store is away; what was learned does not go away
            return None

    async def _look(self) -> None:
        """Look at the store again and again, and wake who listens."""
        while True:
            began_s = time.monotonic()
            has_more = False
            with suppress(ThinglineError, Refusal):
                news = await self._news(self._until)
                has_more = len(news.learned) == MOST_NEWS
                if self._until is None or news.until > self._until:
                    self._keep(self._until, news)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(took_s if has_more else max(self._every_s, SHARE * took_s))

    def _keep(self, after: Position | None, news: News) -> None:
        if after is not None and news.care == self._care:
            self._batches[after] = batch = _batch(news)
            self._held += len(batch.events)
        while (self._held > HELD or len(self._batches) > MOST_BATCHES) and len(self._batches) > 1:
            self._held -= len(self._batches.pop(next(iter(self._batches))).events)
        self._until = news.until
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _news(self, after: Position | None, most: int = MOST_NEWS) -> News:
        def question(history: History) -> News:
            return history.news(after, most=most)

        news = await self._readers.elsewhere(question)
        if news.care > self._care:  # each of its members only grows; what is held may name what was forgotten
            self._care = news.care
            self._held = 0
            self._batches.clear()
        return news


def _batch(news: News) -> _Batch:
    events = [(one.thing_name, _event(one)) for one in news.learned]
    return _Batch(events, _chunks(event for _, event in events), news.until)


def _chunks(events: Iterable[bytes]) -> list[bytes]:
    """Put events together, as far as they are sent at once."""
    chunks: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for event in events:
        held.append(event)
        size += len(event)
        if size >= CHUNK:
            chunks.append(b"".join(held))
            held, size = [], 0
    return [*chunks, b"".join(held)] if held else chunks


def _event(one: Learned) -> bytes:
    """Write an event; JSON has no newline in it."""
    kind = "superseded" if one.position.what == SUPERSEDED else "transition"
    told = transition_json(ThingTransition(one.thing_name, one.client_id, one.seen))
    return f"event: {kind}\nid: {one.position}\ndata: {json_line(told)}\n\n".encode()
