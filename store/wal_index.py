"""Tells whether anything was committed to a SQLite file, without asking SQLite: no lock, and no call to the system.

The index beside a write-ahead log begins with a header, written twice, that every commit changes: a counter, how much
of the log is valid, a checksum of it and two random salts (sqlite.org/walformat.html, 2.1). While a connection is open
the index stays where it is, mapped into every process that reads the file; it is mapped here once more. Where both
copies are what they were, nothing was committed; where they are not, or are being written, SQLite is to be asked.
"""

from __future__ import annotations

import mmap
from typing import Any

_HEADERS = 2 * 48  # bytes


class WalIndex:
    """The header of the index beside a file that some connection of this process holds open."""

    def __init__(self, database: str) -> None:
        """Map the index. Raises OSError or ValueError where there is none."""
        with open(f"{database}-shm", "rb") as file:
            self._map = mmap.mmap(file.fileno(), _HEADERS, access=mmap.ACCESS_READ)

    def header(self) -> bytes:
        """Give what the next commit will change."""
        return self._map[:_HEADERS]

    def close(self) -> None:
        """Let go of the index."""
        self._map.close()


def index_beside(driver: Any) -> WalIndex | None:
    """Find the index beside the file that a connection has read; None where it writes no log ahead."""
    path = next((row[2] for row in driver.execute("PRAGMA database_list") if row[1] == "main"), "")
    try:
        return WalIndex(path)
    except (OSError, ValueError):
        return None
