"""A copy of a store while others write to it: one snapshot, checked before it gets its name.

SQLite is copied page by page; PostgreSQL row by row, into a SQLite store of the same schema, so that the copy
answers by itself. The copy is written beside its place under another name, compared, made durable and renamed:
under the final name there is never a part of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from store.engine import Store, locked_store, parse_url
from store.errors import StoreError, StoreUnreachable, UsageError
from store.migrate import upgrade
from store.schema import metadata, watermarks
from store.watermark import watermark

Execute = Callable[[str], Iterable[Any]]
Progress = Callable[[int, int], None]

_BATCH = 10_000  # rows a transaction of the copy
_PAGES = 4_096  # pages between two words of progress
# What SQLite says while it copies that is said of what it reads; all else is said of what it writes.
_OF_THE_STORE = (
    "SQLITE_BUSY",
    "SQLITE_CORRUPT",
    "SQLITE_IOERR_READ",
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_LOCKED",
    "SQLITE_NOTADB",
)
_OURS = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"


class Backup(NamedTuple):
    """A finished copy. What is asked of it as known at `known_at` or before, the original answers alike for ever."""

    path: Path
    rows: int
    known_at: int


def back_up(store: Store, path: Path, progress: Progress = lambda done, total: None) -> Backup:
    """Copy a store opened for reading to a new file; `progress` is told how much is done, and of how much.

    Raises UsageError where the file exists, StoreError where the copy is not equal or the store is damaged,
    StoreUnreachable where the copy cannot be written.
    """
    with placed(path) as part:
        if store.is_sqlite:
            with store.detached() as driver:
                known_at = watermark(driver.execute, is_sqlite=True)
                rows = copy_pages(driver, part, progress)
        else:
            known_at, rows = _copy_rows(store, part, progress)
    return Backup(path, rows, known_at)


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Give the name to write a new file under; in the end it is made durable and renamed into place."""
    if path.exists():
        raise UsageError(f"{path} exists; a backup goes to a new file.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.absolute().parent}; make it first.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _writing(part):
        part.write_bytes(b"")  # before anything is read: a folder that may not be written is told of at once
    try:
        yield part
        with _writing(part):
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.rename(path)
    finally:
        for beside in ("", "-wal", "-shm", "-journal", ".lock"):
            part.with_name(part.name + beside).unlink(missing_ok=True)
    with _writing(part):
        folder = os.open(path.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Say of the copy, by its final name, and not of the store that it cannot be written."""
    try:
        yield
    except (OSError, sqlite3.Error, StoreUnreachable) as error:
        cause = error.__cause__ if isinstance(error, StoreUnreachable) else error
        cause = getattr(cause, "orig", None) or cause or error  # SQLAlchemy's error has the driver's
        if str(getattr(cause, "sqlite_errorname", "")).startswith(_OF_THE_STORE):
            raise
        path = part.with_name(part.name[1:].rsplit(".", 2)[0])
        raise StoreUnreachable(
            f"The copy {path} cannot be written: {getattr(cause, 'strerror', None) or cause}."
            " Nothing of it was kept, and the store is as it was."
        ) from error


def copy_pages(driver: sqlite3.Connection, part: Path, progress: Progress = lambda done, total: None) -> int:
    """Copy a SQLite store of any schema, as it stands now, to a new file; gives how many rows it holds.

    The transaction holds one state of the store throughout, and no writer is kept waiting by it.
    """
    driver.execute("BEGIN")
    try:
        wanted = _tally(driver.execute, [name for (name,) in driver.execute(_OURS)])
        copy = sqlite3.connect(part, isolation_level=None)
        try:
            with _writing(part):
                driver.backup(
                    copy, pages=_PAGES, progress=lambda _, left, total: progress(total - left, total)
                )
            _check_sound(copy.execute)
            _compare(wanted, _tally(copy.execute, [name for (name,) in copy.execute(_OURS)]))
        finally:
            copy.close()
    finally:
        driver.execute("COMMIT")
    return sum(count for name, count in wanted.items() if name != _MARK)


def _copy_rows(store: Store, part: Path, progress: Progress) -> tuple[int, int]:
    url = parse_url(str(part))
    with _writing(part):
        copy = locked_store(url)
    with copy:
        with _writing(part):
            upgrade(copy)
        with store.detached() as driver:
            known_at = watermark(driver.execute, is_sqlite=False)  # before the snapshot that it bounds
        # The store's is the inner one: what PostgreSQL says while it is read is said of it.
        with copy.detached() as target, store.streaming() as run:
            target.execute("PRAGMA synchronous=OFF")  # it is made durable as a whole, at the end
            names = [table.name for table in metadata.sorted_tables]
            wanted = _tally(run, names)
            total, done = sum(wanted.values()), 0
            for table in metadata.sorted_tables:
                target.execute(f"DELETE FROM {table.name}")
                if table is watermarks:  # one writer, one slot
                    target.execute("INSERT INTO watermarks VALUES (0, ?, NULL)", (max(wanted[_MARK], -1),))
                    continue
                for batch in _batches(run(_select(table))):
                    with _writing(part):
                        target.execute("BEGIN")
                        target.executemany(_insert(table), batch)
                        target.execute("COMMIT")
                    done += len(batch)
                    progress(done, total)
            _compare(wanted, _tally(target.execute, names))
            with _writing(part):
                target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return known_at, sum(count for name, count in wanted.items() if name != _MARK)


def _select(table: sa.Table) -> str:
    key = ", ".join(column.name for column in table.primary_key.columns)
    return f"SELECT {', '.join(table.columns.keys())} FROM {table.name} ORDER BY {key}"


def _insert(table: sa.Table) -> str:
    marks = ", ".join("?" for _ in table.columns)
    return f"INSERT INTO {table.name} ({', '.join(table.columns.keys())}) VALUES ({marks})"


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


# --- Comparing ----------------------------------------------------------------------------------------------

_MARK = "the watermark"


def _tally(execute: Execute, tables: Iterable[str]) -> dict[str, int]:
    """Count the rows of each table; of watermarks, which engines keep differently, take the newest."""
    counts = {
        name: next(iter(execute(f"SELECT count(*) FROM {name}")))[0]
        for name in tables
        if name != watermarks.name
    }
    newest = next(iter(execute("SELECT max(last_known_at) FROM watermarks")))[0]
    return counts | {_MARK: -1 if newest is None else newest}


def _check_sound(execute: Execute) -> None:
    """Look for damage that was copied page by page: it must not take the place of a good copy. Raises StoreError."""
    try:
        said = [line for (text,) in execute("PRAGMA quick_check(1)") for line in text.splitlines()]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    if said != ["ok"]:
        first = next((line for line in said if not line.startswith("***")), said[0])
        raise StoreError(
            f"The store is damaged ({first}), and no copy of it was kept. `thingline db check` says where; restore an"
            " older backup, and delete none."
        )


def _compare(wanted: dict[str, int], found: dict[str, int]) -> None:
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise StoreError(f"The copy is not equal in {', '.join(differing)}; nothing was kept. Try again.")
