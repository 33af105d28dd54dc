"""Server-sent events of what is learned: new transitions, and those that later evidence disproved.

One look at the store serves all who listen. Each keeps its own place in the order of learning, so that who is slow, or
comes back with a Last-Event-ID, is told all of it and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress

from queries.history import History, ThingTransition
from queries.http.messages import Refusal
from queries.http.readers import Readers
from queries.news import MOST_NEWS, SUPERSEDED, Learned, News, Position
from queries.output import json_line, transition_json
from store.errors import ThinglineError

MOST_LISTENERS = 2_000
EVERY_S = 1.0  # how often the store is looked at
SHARE = 20  # ... at most a twentieth of the time, where a look takes long
BEAT_S = 15.0  # how often who listens hears that the stream lives
MEDIA_TYPE = "text/event-stream"


class EventStream:
    """Tells all who listen what is learned in one store."""

    def __init__(self, readers: Readers, *, every_s: float = EVERY_S, beat_s: float = BEAT_S) -> None:
        self._readers = readers
        self._every_s = every_s
        self._beat_s = beat_s
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._after: Position | None = None  # before the newest news, and after them
        self._until: Position | None = None
        self._newest: list[Learned] = []
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
        if self._looking is None or self._looking.done():
            self._after = self._until = None
            self._looking = asyncio.create_task(self._look())
        try:
            yield f"retry: 2000\nid: {position}\n\n".encode()  # where to resume, though nothing happens
            while not self._is_closed:
                told, position = await self._next(position)
                wanted = [one for one in told if not things or one.thing_name in things]
                yield ("".join(map(_event, wanted)) or f": alive\nid: {position}\n\n").encode()
        finally:
            self._listeners -= 1
            if not self._listeners and self._looking is not None:
                self._looking.cancel()

    async def _next(self, position: Position) -> tuple[list[Learned], Position]:
        """Wait for what comes after a position, at most a beat."""
        if self._until is None or position >= self._until:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await self._changed.wait()
        if self._is_closed or self._until is None or position >= self._until:
            return [], position
        if position == self._after:
            return self._newest, self._until
        try:
            news = await self._news(position)
        except (ThinglineError, Refusal):
            await asyncio.sleep(self._every_s)  # the store is away; what was learned does not go away
            return [], position
        return news.learned, news.until

    async def _look(self) -> None:
        """Look at the store again and again, and wake who listens."""
        while True:
            began_s = time.monotonic()
            has_more = False
            with suppress(ThinglineError, Refusal):
                news = await self._news(self._until)
                has_more = len(news.learned) == MOST_NEWS
                if self._until is None or news.until > self._until:
                    self._after, self._newest, self._until = self._until, news.learned, news.until
                    changed, self._changed = self._changed, asyncio.Event()
                    changed.set()
            took_s = time.monotonic() - began_s
            await asyncio.sleep(took_s if has_more else max(self._every_s, SHARE * took_s))

    async def _news(self, after: Position | None, most: int = MOST_NEWS) -> News:
        def question(history: History) -> News:
            return history.news(after, most=most)

        return await self._readers.elsewhere(question)


def _event(one: Learned) -> str:
    """Write an event; JSON has no newline in it."""
    kind = "superseded" if one.position.what == SUPERSEDED else "transition"
    told = transition_json(ThingTransition(one.thing_name, one.client_id, one.seen))
    return f"event: {kind}\nid: {one.position}\ndata: {json_line(told)}\n\n"
