"""Who reads the store for the server: one history in the event loop for what SQLite answers at once, one a thread else.

A seek in SQLite takes less than handing it to a thread; a PostgreSQL is waited for in threads. A history whose
connection broke is thrown away, and the next question opens another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.engine import URL

from queries.history import History
from queries.http.messages import Refusal
from store.engine import translated
from store.errors import AnswerError, UsageError

T = TypeVar("T")
THREADS = 8
MOST_WAITING = 64  # questions that no thread has taken up yet


class Readers:
    """Runs questions on histories of one store, each history in one thread at a time."""

    def __init__(self, open_one: Callable[[], History], url: URL, *, threads: int = THREADS) -> None:
        self._open = open_one
        self._url = url
        self.answers_in_loop = url.get_backend_name() == "sqlite"
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._local = threading.local()
        self._opened: set[History] = set()
        self._lock = threading.Lock()
        self._threads = threads
        self._running = 0

    def here(self, question: Callable[[History], T]) -> T:
        """Answer in this thread. Raises as the question does, and StoreError where the store fails."""
        history: History | None = getattr(self._local, "history", None)
        try:
            if history is None:
                history = self._local.history = self._open()
                with self._lock:
                    self._opened.add(history)
            return question(history)
        except (AnswerError, UsageError, Refusal):
            raise
        except Exception:
            self._drop(history)  # its connection may be broken, or inside a snapshot
            with translated(self._url):
                raise

    def _drop(self, history: History | None) -> None:
        self._local.history = None
        if history is not None:
            with self._lock:
                self._opened.discard(history)
            history.close()

    async def elsewhere(self, question: Callable[[History], T]) -> T:
        """Answer in a thread. Raises Refusal where too many wait for one already."""
        if self._running >= self._threads + MOST_WAITING:
            raise Refusal(400, "ThrottlingException", "Rate exceeded: too many questions at once")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self.here, question)
        finally:
            self._running -= 1

    def close(self) -> None:
        """Wait for what runs, and close every history."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            opened, self._opened = self._opened, set()
        for history in opened:
            history.close()
