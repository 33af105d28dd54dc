"""Which objects of a prefix were read: eight bytes each, so that every object is read, and hardly any twice.

The rule. Where the newest key stands says nothing: keys of an S3 rule action are in no order, Firehose writes behind
its own last key, an upload in parts bears the time of its beginning, a replica that of its original. So each object
that was read is marked, by a hash of its key and ETag, under the hour of its LastModified; the mark is saved in the
transaction that wrote the last of what the object said (table `positions`, a row for at most MARKS of them), and an
object without a mark is read wherever and whenever it appears. One that is overwritten has another hour or ETag, and
is read again; one that was read and not marked, for the ingester died, is read again and changes nothing.

What is kept is bounded by what is in the bucket: once nothing of an hour is listed any more, its marks are dropped.
Rows are named by the run that writes them, so that two ingesters that read one prefix at once (a lease failed:
ingest/positions.py) overwrite no mark of each other's. No key is kept: it may hold a device's name.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from array import array
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence

MARKS = 512  # a row, at most: 5.5 KiB, written anew with each object that it takes
_BYTES = 8
_HOUR_MS = 3_600_000


def mark_of(key: str, etag: str) -> int:
    """Give the mark of an object; quotes around an ETag do not matter, for notices have none."""
    whole = f"{key}\0{etag.strip(chr(34))}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(whole).digest()[:_BYTES], "big")


def hour_of(at_ms: int) -> int:
    """Give the hour under which an object of that LastModified is marked."""
    return at_ms // _HOUR_MS


class Marks:
    """The marks of one prefix, from what was saved of them. Any thread may use it."""

    def __init__(self, saved: Mapping[str, str]) -> None:
        """Take up `saved`: rows as `add` and `drop` gave them; others in it are left alone."""
        self._run = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()
        self._hours: dict[int, array[int]] = {}  # sorted
        self._rows: dict[int, list[str]] = {}  # that stand in the store and hold anything
        self._open: dict[int, tuple[str, bytearray]] = {}  # the row of this run that still has room
        for part, position in saved.items():
            hour, slash, _ = part.partition("/")
            if slash and position:
                self._rows.setdefault(int(hour), []).append(part)
                held = self._hours.setdefault(int(hour), array("Q"))
                packed = base64.b64decode(position)
                held.extend(
                    int.from_bytes(packed[at : at + _BYTES], "big") for at in range(0, len(packed), _BYTES)
                )
        for hour_no, held in self._hours.items():
            self._hours[hour_no] = array("Q", sorted(held))

    def has(self, mark: int, at_ms: int | None = None) -> bool:
        """Tell whether an object of that mark and LastModified was read; None: of whichever, which takes longer."""
        with self._lock:
            if at_ms is None:
                return any(_holds(each, mark) for each in self._hours.values())
            return _holds(self._hours.get(hour_of(at_ms), ()), mark)

    def add(self, mark: int, at_ms: int) -> tuple[str, str]:
        """Mark an object; gives the part and the position to be saved with what it said, in the order of calls."""
        hour = hour_of(at_ms)
        with self._lock:
            insort(self._hours.setdefault(hour, array("Q")), mark)
            part, packed = self._open.get(hour, ("", bytearray()))
            if not part:
                rows = self._rows.setdefault(hour, [])
                part = f"{hour}/{self._run}.{len(rows)}"
                rows.append(part)
            packed += mark.to_bytes(_BYTES, "big")
            if len(packed) < MARKS * _BYTES:
                self._open[hour] = part, packed
            else:
                self._open.pop(hour, None)
            return part, base64.b64encode(packed).decode()

    def drop(self, *, listed: Collection[int], before_ms: int) -> list[tuple[str, str]]:
        """Forget the hours that ended before and of which nothing is listed; gives the positions to be saved."""
        with self._lock:
            gone = [hour for hour in self._rows if hour < hour_of(before_ms) and hour not in listed]
            empty = [(part, "") for hour in gone for part in self._rows.pop(hour)]
            for hour in gone:
                self._hours.pop(hour, None)
                self._open.pop(hour, None)
            return empty

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._hours.values()))


def _holds(marks: Sequence[int], mark: int) -> bool:
    at = bisect_left(marks, mark)
    return at < len(marks) and marks[at] == mark
