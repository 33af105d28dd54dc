"""Calls that are under way, each in a thread of its own; what comes of them is taken in by the one who sent them.

Owns no budget and no order: who sends decides when, and how many at once. A thread a call, and none that outlives the
process: an AWS that does not answer must not hold up the end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from ingest.inbox import Inbox
from ingest.iot import NoAnswer

_T = TypeVar("_T")

Landing = Callable[[Inbox], bool]  # takes in what came of a call; False: the inbox is closed
Spawn = Callable[[Callable[[], None]], None]


def in_a_thread(task: Callable[[], None]) -> None:
    """Run a task beside all else."""
    threading.Thread(target=task, name="checks: a call", daemon=True).start()


class Flights:
    """Sends calls and gives back what came of them, in the order of coming. One thread uses it.

    `spawn` runs a call; one that runs it there and then makes all of this happen in order, which tests want.
    """

    def __init__(self, spawn: Spawn = in_a_thread) -> None:
        self._spawn = spawn
        self._came: queue.SimpleQueue[Landing] = queue.SimpleQueue()
        self.under_way = 0

    def send(self, ask: Callable[[], _T], land: Callable[[Inbox, _T | NoAnswer], bool]) -> None:
        """Send a call; `land` takes in its answer, in the thread that calls `land_next`."""
        self.under_way += 1

        def call() -> None:
            answer: _T | NoAnswer
            try:
                answer = ask()
            except NoAnswer as error:
                answer = error
            self._came.put(lambda inbox: land(inbox, answer))

        self._spawn(call)

    def land_next(self, inbox: Inbox, *, wait_s: float = 0) -> bool | None:
        """Take in what came of one call, waiting for it so long; None: nothing came. False: the inbox is closed."""
        try:
            land = self._came.get(timeout=wait_s) if wait_s > 0 else self._came.get_nowait()
        except queue.Empty:
            return None
        self.under_way -= 1
        return land(inbox)
