"""Hands chunks from a thread that reads the store to the event loop that sends them, and holds the thread back.

A reader's thread is freed when whoever listens goes away, or takes nothing for a while: its snapshot holds up the
store's housekeeping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import suppress

MOST_HELD = 4  # chunks
PATIENCE_S = 60


class Gone(Exception):
    """Nobody listens any more."""


class Channel:
    """Chunks from one thread to one loop; None is the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_HELD)
        self._is_closed = False

    def put(self, chunk: bytes | None) -> None:
        """Hand over a chunk, from the thread; waits while enough are held. Raises Gone."""
        if self._is_closed:
            raise Gone
        try:
            asyncio.run_coroutine_threadsafe(self._chunks.put(chunk), self._loop).result(PATIENCE_S)
        except (TimeoutError, CancelledError, RuntimeError) as error:
            raise Gone from error

    async def get(self) -> bytes | None:
        """Give the next chunk, in the loop."""
        return await self._chunks.get()

    def close(self) -> None:
        """Take no more, from the loop; whoever waits to hand something over is told at its next."""
        self._is_closed = True
        with suppress(asyncio.QueueEmpty):
            while True:
                self._chunks.get_nowait()

    async def rest(self, first: bytes) -> AsyncIterator[bytes]:
        """Give a chunk that was taken already, and those after it; closes at the end."""
        try:
            chunk: bytes | None = first
            while chunk is not None:
                yield chunk
                chunk = await self.get()
        finally:
            self.close()
