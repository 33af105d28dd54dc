"""Whether the server behind the questions still answers, looked after while one of them waits for long.

A network that swallows what is sent, or a server that was stopped in the midst of it, takes a question and never
answers; a report may take as long and be in order. So a new connection is tried beside it: where that gets no answer
either, those who wait are freed, and who asks meanwhile is refused at once, until the server answers again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SLOW_S = 5.0  # so long a question may wait before anybody looks
PATIENCE_S = 10.0  # ... and so long a server that is busy may take to let a new connection in
REFUSED_S = 1.5  # what fails sooner was refused, and not swallowed: no timeout of libpq's is so short
EVERY_S = 0.5


class Outlook:
    """Watches, in a thread of its own, whoever is `asking`. `try_anew` asks the server for a sign of life."""

    def __init__(
        self,
        try_anew: Callable[[], object],
        sever: Callable[[], None],
        *,
        slow_s: float = SLOW_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._try_anew = try_anew
        self._sever = sever
        self._slow_s = slow_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._asking: dict[object, float] = {}  # since when, monotonic
        self._looked_s = 0.0
        self._closing = threading.Event()
        self._trial: _Trial | None = None
        self.is_away = False
        self.severed = 0  # counts how often connections were cut off: those that are older are of no use
        threading.Thread(target=self._watch, name="outlook", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Be watched while waiting for the server."""
        token = object()
        with self._lock:
            self._asking[token] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._asking[token]

    def _watch(self) -> None:
        while not self._closing.wait(EVERY_S):
            now_s = time.monotonic()
            with self._lock:
                since_s = min(self._asking.values(), default=now_s)
            if self.is_away or now_s - max(since_s, self._looked_s) > self._slow_s:
                self._look()
                self._looked_s = time.monotonic()

    def _look(self) -> None:
        """Try the server, for as long as patience lasts; a trial that goes on is looked at again."""
        if self._trial is None:
            self._trial = _Trial(self._try_anew)
        answered = self._trial.answered(EVERY_S if self.is_away else self._patience_s)
        if answered is not None:
            self._trial = None
        if answered:
            self.is_away = False
        elif not self.is_away:
            self.is_away = True
            self.severed += 1
            self._sever()


class _Trial:
    """One try for a sign of life, in a thread that may hang."""

    def __init__(self, try_anew: Callable[[], object]) -> None:
        self._began_s = time.monotonic()
        self._try_anew = try_anew
        self._answered = False
        self._thread = threading.Thread(target=self._run, name="outlook-trial", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(Exception):
            self._try_anew()
            self._answered = True
            return
        self._answered = time.monotonic() - self._began_s < REFUSED_S

    def answered(self, within_s: float) -> bool | None:
        """Tell whether the server said anything, be it no; None: it has not, and may yet."""
        self._thread.join(within_s)
        return None if self._thread.is_alive() else self._answered
