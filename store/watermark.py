"""The watermark: the newest moment of learning below which nothing can still be committed.

A question "as known at K" beyond it is cut to it, so that the same question gives the same answer for ever.
SQLite has one writer, whose moments rise with every commit. On PostgreSQL every running transaction holds an
advisory lock whose key is a lower bound of its moments, taken before it chooses them; and it chooses them later
than all that was committed by then. So what begins after our look at the locks is later than what we saw before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store.rows import WRITER_LOCK, WRITER_LOCK_MASK

# Where it stands when something was learned; the watermark is never below it. What is in quarantine taught nothing.
LEARNED = ("evidence", "observations", "checks", "sweeps", "watches")

Execute = Callable[..., Any]  # a driver connection's: statement, values -> cursor

NEWEST = "SELECT max(last_known_at) FROM watermarks"

# A bigint lock shows as two halves in pg_locks; the running ones of our kind, as their times. One statement looks
# at both in the order that matters: locks are read as they are while it runs, after its snapshot of the newest.
_NEWEST_AND_RUNNING = """
    SELECT (SELECT max(last_known_at) FROM watermarks),
        min(((classid::bigint << 32) | objid::bigint) & %(mask)s::bigint)
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (((classid::bigint << 32) | objid::bigint) & ~(%(mask)s::bigint)) = %(lock)s::bigint
"""


def watermark(execute: Execute, *, is_sqlite: bool) -> int:
    """Give the watermark; -1 where nothing was ever learned.

    On PostgreSQL it is asked before the snapshot of the reads that it bounds is taken.
    """
    if is_sqlite:
        newest = execute(NEWEST).fetchone()[0]
        return -1 if newest is None else int(newest)
    values = {"lock": WRITER_LOCK, "mask": WRITER_LOCK_MASK}
    newest, running = execute(_NEWEST_AND_RUNNING, values).fetchone()
    if newest is None:
        return -1
    return int(newest) if running is None else min(int(newest), running - 1)
