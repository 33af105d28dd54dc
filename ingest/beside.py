"""A thread beside the writer's own, to which the connection belongs while it works there.

Both drivers let go of the interpreter while the database works, so that Python goes on meanwhile. Jobs are done one
after another, and none after one that failed; whoever wants the connection waits for all of them. Taking the
connection back never leaves a job that begins later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# How long the other thread waits for the interpreter each time that the server has taken a part of what it is sent:
# with Python's own 5 ms, sending evidence takes twice as long.
_TURN_S = 0.000_5


class Beside:
    """The thread, where there is one. `stop` makes the database give up what it is at, if it can."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._pool: ThreadPoolExecutor | None = None
        self._taken = Lock()  # held while the other thread works, and by whoever takes the connection back
        self._turn = object()  # of the jobs that may begin
        self._jobs: list[Future[Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have a thread meanwhile."""
        with ThreadPoolExecutor(1, "thingline-store") as pool:
            pool.submit(int).result()  # Ctrl-C while a thread starts would leave one that nobody waits for
            turn_s = sys.getswitchinterval()
            try:
                self._pool = pool
                sys.setswitchinterval(_TURN_S)
                yield
            finally:
                sys.setswitchinterval(turn_s)
                self._pool = None

    def begin(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Do this in the thread, after what was begun before."""
        assert self._pool is not None
        turn, before = self._turn, self._jobs[-1] if self._jobs else None

        def run() -> _Result:
            with self._taken:
                if self._turn is not turn or (before is not None and before.exception() is not None):
                    raise RuntimeError("It was taken back, or what it builds on has failed.")
                return work()

        job = self._pool.submit(run)
        self._jobs.append(job)
        return job

    def wait(self) -> None:
        """Wait for all that was begun. Raises what the first that failed has raised."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Have the connection: a job that has begun is stopped or waited for, and no other begins."""
        self._turn = object()
        if not all(job.done() for job in self._jobs):
            self._stop()
        with self._taken:
            self._jobs.clear()
            yield
