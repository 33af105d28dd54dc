"""Who reads the store for the server: one history in the event loop for what SQLite answers at once, one a thread else.

A seek in SQLite takes less than handing it to a thread; a PostgreSQL is waited for in one. Questions that came together
share one look at the store. What costs a few seeks, what reads much, and what waits for a listener to take it have
threads of their own: none is waited for by another. A history whose connection broke is thrown away, and the next
question opens another.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.engine import URL

from queries.history import History
from queries.http.messages import Refusal
from queries.http.outlook import Outlook
from store.connections import Connections
from store.engine import masked, open_reader, translated
from store.errors import AnswerError, StoreAway, StoreUnreachable, UsageError

T = TypeVar("T")
# For what reads much, and as many for what is sent. Each has a connection, and on SQLite a cache of 8 MiB; Python runs
# in one of them at a time.
THREADS = 4
MOST_WAITING = 1_000  # questions that are not answered yet
BATCH = 64  # questions answered in one turn
LOOK_S = 0.02  # between two looks at which file is there: each lets another thread take its turn


def _file_of(database: str) -> tuple[int, int] | None:
    """Tell which file a path leads to; None: to none."""
    try:
        found = os.stat(database)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Readers:
    """Runs questions on histories of one store, each history in one thread at a time."""

    def __init__(
        self,
        open_one: Callable[[], History],
        url: URL,
        connections: Connections | None = None,
        *,
        threads: int = THREADS,
    ) -> None:
        self._open = open_one
        self._url = url
        self.answers_in_loop = url.get_backend_name() == "sqlite"
        self._seeking = ThreadPoolExecutor(1, thread_name_prefix="seeker")
        self._reading = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._sending = ThreadPoolExecutor(threads, thread_name_prefix="sender")
        self._local = threading.local()
        self._opened: set[History] = set()
        self._lock = threading.Lock()
        self._running = 0
        self._database = url.database or "" if self.answers_in_loop else None
        self._file: tuple[int, int] | None = None
        self._looked_s = float("-inf")  # when it was the same
        self._outlook = None
        if connections is not None and not self.answers_in_loop:
            self._outlook = Outlook(lambda: open_reader(url, connections).close(), connections.sever)
        self._waiting: list[tuple[Callable[[History], Any], asyncio.Future[Any]]] = []
        self._is_seeking = False
        self._is_turn = False

    def here(self, question: Callable[[History], T]) -> T:
        """Answer in this thread. Raises as the question does, and StoreError where the store fails."""
        if self._outlook is None:
            return self._answered(question)
        if getattr(self._local, "severed", 0) != self._outlook.severed:
            self._local.severed = self._outlook.severed
            self._drop()
        if self._outlook.is_away:
            raise StoreAway(f"{masked(self._url)} takes what it is sent, and does not answer.")
        with self._outlook.asking():
            return self._answered(question)

    def _answered(self, question: Callable[[History], T]) -> T:
        try:
            return question(self._history())
        except (AnswerError, UsageError, Refusal):
            raise
        except Exception:
            self._drop()  # its connection may be broken, or inside a snapshot
            with translated(self._url):
                raise

    def _history(self) -> History:
        """Give this thread's history of the file that there was at the first question."""
        self._check_file()
        history: History | None = getattr(self._local, "history", None)
        if history is None:
            history = self._local.history = self._open()
            with self._lock:
                self._opened.add(history)
        return history

    def _check_file(self) -> None:
        """Refuse another file than that of the first question: half of a server would go on with the old one."""
        now_s = time.monotonic()
        if self._database is None or now_s < self._looked_s + LOOK_S:
            return
        file = _file_of(self._database)
        if self._file is None:
            self._file = file
        elif file != self._file:
            raise StoreUnreachable(
                f"The file of {masked(self._url)} is not the one that this server began with; restart the server."
            )
        self._looked_s = now_s

    def _drop(self) -> None:
        history: History | None = getattr(self._local, "history", None)
        self._local.history = None
        if history is not None:
            with self._lock:
                self._opened.discard(history)
            history.close()

    async def soon(self, question: Callable[[History], T]) -> T:
        """Answer what costs a few seeks: at once on SQLite; else in a thread, all that wait by then in one turn.

        One turn at a time: with two, each answer that goes out brings a question that is taken alone.
        """
        if self.answers_in_loop:
            return self.here(question if self._is_turn else self._beginning_turn(question))
        if len(self._waiting) >= MOST_WAITING:
            raise Refusal(400, "ThrottlingException", "Rate exceeded: too many questions at once")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if not self._is_seeking:
            self._is_seeking = True
            asyncio.get_running_loop().call_soon(self._next_batch)
        return await answer

    def _beginning_turn(self, question: Callable[[History], T]) -> Callable[[History], T]:
        """Have the store looked at once for all that the loop answers from this question on, until its next turn.

        Those were handed to the loop before this one is answered, or will come after the end that it is given here.
        """

        def begin(history: History) -> T:
            history.begin_turn()
            self._is_turn = True
            asyncio.get_running_loop().call_soon(self._end_turn, history)
            return question(history)

        return begin

    def _end_turn(self, history: History) -> None:
        self._is_turn = False
        history.end_turn()

    def _next_batch(self) -> None:
        batch = self._waiting[:BATCH]
        del self._waiting[:BATCH]
        asyncio.get_running_loop().run_in_executor(
            self._seeking, self._answer_all, [question for question, _ in batch]
        ).add_done_callback(lambda done: self._deliver(batch, done))

    def _answer_all(self, questions: Sequence[Callable[[History], Any]]) -> list[Any]:
        """Answer questions in one turn; an answer may be the exception that it raises."""
        self.here(History.begin_turn)
        try:
            return [self._answer_or_error(question) for question in questions]
        finally:
            self.here(History.end_turn)

    def _answer_or_error(self, question: Callable[[History], Any]) -> Any:
        try:
            return self.here(question)
        except Exception as error:
            return error

    def _deliver(
        self, batch: Sequence[tuple[Any, asyncio.Future[Any]]], done: asyncio.Future[list[Any]]
    ) -> None:
        failed = asyncio.CancelledError() if done.cancelled() else done.exception()
        answers = [failed] * len(batch) if failed is not None else done.result()
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue  # whoever asked went away
            if isinstance(answer, BaseException):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
        if self._waiting:
            self._next_batch()
        else:
            self._is_seeking = False

    async def elsewhere(self, question: Callable[[History], T]) -> T:
        """Answer in a thread. Raises Refusal where too many wait for one already."""
        return await self._in_thread_of(self._reading, question)

    async def while_sent(self, question: Callable[[History], T]) -> T:
        """Answer in a thread that may wait for a listener. Raises Refusal where too many wait for one already."""
        return await self._in_thread_of(self._sending, question)

    async def _in_thread_of(self, pool: ThreadPoolExecutor, question: Callable[[History], T]) -> T:
        if self._running >= MOST_WAITING:
            raise Refusal(400, "ThrottlingException", "Rate exceeded: too many questions at once")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self.here, question)
        finally:
            self._running -= 1

    def close(self, *, patience_s: float = 5) -> bool:
        """Wait for what runs, and close every history; gives False where it runs on, and nothing is closed."""
        if self._outlook is not None:
            self._outlook.close()
        waiting = threading.Thread(target=self._shut_down, daemon=True)
        waiting.start()
        waiting.join(patience_s)
        if waiting.is_alive():
            return False
        with self._lock:
            opened, self._opened = self._opened, set()
        for history in opened:
            history.close()
        return True

    def _shut_down(self) -> None:
        for pool in (self._seeking, self._reading, self._sending):
            pool.shutdown(cancel_futures=True)
