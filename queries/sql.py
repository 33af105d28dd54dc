"""Questions in SQL, asked in a process of their own (store/sandbox.py): started, timed, cancelled and ended here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any, NamedTuple

from store.errors import BadQuery

_GRACE_S = 5.0  # from the interrupt of a query to the end of its process
_KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SYSTEMROOT",
    "LANG",
)  # of the environment; no secrets


class Result(NamedTuple):
    """A query's columns, no two of one name, their types in DuckDB's words, and its rows, which stream."""

    columns: Sequence[str]
    types: Sequence[str]
    rows: Iterator[list[Any]]


class Session:
    """Asks one mirror. Close it, or use it as a context. A process that was ended is followed by another."""

    def __init__(self, mirror: Path, *, memory: str = "1GB", zone: str = "UTC") -> None:
        self._mirror, self._memory, self._zone = mirror, memory, zone
        self._process: subprocess.Popen[str] | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._is_running = False  # a query, whose answer was not read to its end

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._is_running = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def ask(self, query: str, *, timeout_s: float | None = None) -> Result:
        """Run a query; it and its output may take `timeout_s` seconds. Raises BadQuery, also while rows are read."""
        if self._is_running:
            self.close()
        answers = self._answers(query, timeout_s)
        columns = next(answers)["columns"]
        rows = (row for answer in answers for row in answer["rows"])
        return Result(_distinct([name for name, _ in columns]), [kind for _, kind in columns], rows)

    def cancel(self) -> None:
        """Interrupt what runs, and end the process where that does not help."""
        if self._process is None or not self._is_running:
            return
        killer = Timer(_GRACE_S, self._process.kill)
        killer.start()
        try:
            self._tell({"interrupt": True})
            while "rows" in (answer := self._hear()) or "columns" in answer:
                pass
            self._is_running = False
        except (BadQuery, ValueError):  # ... or what was being read of a line is lost
            self.close()
        finally:
            killer.cancel()

    def _answers(self, query: str, timeout_s: float | None) -> Iterator[dict[str, Any]]:
        process = self._started()
        expired: list[bool] = []

        def interrupt() -> None:
            expired.append(True)
            if self._process is process:
                self._tell({"interrupt": True})

        timers = []
        if timeout_s is not None:
            timers = [Timer(timeout_s, interrupt), Timer(timeout_s + _GRACE_S, process.kill)]
        try:
            self._is_running = True
            self._tell({"query": query})
            for timer in timers:
                timer.daemon = True
                timer.start()
            while "end" not in (answer := self._hear()):
                if "error" in answer:
                    self._is_running = False
                    raise BadQuery(answer["error"])
                yield answer
            self._is_running = False
        except BadQuery as error:
            if expired:
                raise BadQuery(
                    f"The query took longer than {timeout_s:g} s; --timeout gives it more."
                ) from error
            raise
        finally:
            for timer in timers:
                timer.cancel()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._folder = TemporaryDirectory(prefix="thingline-sql-")
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "HOME": self._folder.name,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path),
            "PYTHONUTF8": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "store.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=environment,
            encoding="utf-8",
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
        )
        settings = {"path": str(self._mirror.absolute()), "memory": self._memory}
        self._tell({**settings, "folder": self._folder.name, "zone": self._zone})
        return self._process

    def _tell(self, said: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(said) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has ended, which shows when it is listened to

    def _hear(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise BadQuery(
                "The process that ran the query ended: it was stopped, or took more memory than there is."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _distinct(names: Sequence[str]) -> list[str]:
    """Give every column a name of its own."""
    found: list[str] = []
    for name in names:
        number, own = 1, name
        while own in found:
            own, number = f"{name}_{number}", number + 1
        found.append(own)
    return found
