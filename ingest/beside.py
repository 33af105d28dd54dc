"""A thread beside the writer's own, to which the connection belongs while it works there.

Both drivers let go of the interpreter while the database works, so that Python goes on meanwhile. Jobs are done one
after another, and none after one that failed; whoever wants the connection waits for all of them. Taking the
connection back never leaves a job that begins later.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# How long the other thread waits for the interpreter each time that the server has taken a part of what it is sent:
# with Python's own 5 ms, sending evidence takes twice as long.
_TURN_S = 0.000_5
_STOP_S = 0.05  # how long what has begun may go on before it is stopped, and again

_turns = Lock()
_short, _usual_s = 0, 0.0  # how many want short turns, and what they were before


@contextmanager
def _short_turns() -> Iterator[None]:
    """Have threads wait less for the interpreter; it is the setting of the whole process."""
    global _short, _usual_s
    with _turns:
        if not _short:
            _usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_TURN_S)
        _short += 1
    try:
        yield
    finally:
        with _turns:
            _short -= 1
            if not _short:
                sys.setswitchinterval(_usual_s)


class Beside:
    """The thread, where there is one.

    `undo` takes the transaction back. `interrupt` makes the database give up the statement that it is at, if it can; it
    is called meanwhile.
    """

    def __init__(self, undo: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self._undo = undo
        self._interrupt = interrupt
        self._pool: ThreadPoolExecutor | None = None
        # Held while the other thread works, and by whoever takes the transaction back.
        self.connection = Lock()
        self._turn = object()  # of the jobs that may begin
        self._jobs: list[Future[Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have a thread meanwhile."""
        with _short_turns(), ThreadPoolExecutor(1, "thingline-store") as pool:
            pool.submit(int).result()  # Ctrl-C while a thread starts would leave one that nobody waits for
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def begin(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Do this in the thread, after what was begun before; the transaction is taken back where it fails."""
        assert self._pool is not None
        turn, before = self._turn, self._jobs[-1] if self._jobs else None

        def run() -> _Result:
            with self.connection:
                if self._turn is not turn or (before is not None and before.exception() is not None):
                    raise RuntimeError("It was taken back, or what it builds on has failed.")
                try:
                    return work()
                except BaseException:
                    with suppress(Exception):  # what is wrong is told by what failed
                        self._undo()
                    raise

        job = self._pool.submit(run)
        self._jobs.append(job)
        return job

    def wait(self) -> None:
        """Wait for all that was begun. Raises what the first that failed has raised."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()

    def stop(self) -> None:
        """Let no other job begin, and stop the one that has, or wait for it: nobody holds `connection` then."""
        self._turn = object()
        while self.connection.locked():
            time.sleep(_STOP_S)
            if self.connection.locked():
                self._interrupt()  # again and again: between two statements there is nothing to stop
        self._jobs.clear()
