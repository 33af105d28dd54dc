"""Paths as they come over the wire: split first and decoded then, so that an encoded slash separates nothing.

Pure. Before the path of an operation may stand `/at/{time}` and `/known-at/{time}`: AWS clients keep the path of an
endpoint's URL as it is, while some drop its query (FACTS 7).
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote


class Target(NamedTuple):
    """What a path asks for: the segments of the operation, decoded; and the times before it, as they were written."""

    segments: tuple[str, ...]
    at: str | None
    known_at: str | None


def target_of(raw_path: str) -> Target:
    """Read a raw path. `+` stays a plus sign, and bytes that are no UTF-8 become U+FFFD, which no name holds.

    An endpoint's URL that ends with a slash makes two of them: what is empty before the operation is left out.
    """
    parts = raw_path.split("/")
    at = known_at = None
    begin, last = 1, len(parts) - 1  # before the first slash stands nothing
    while begin < last:
        part = parts[begin]
        if not part:
            begin += 1
        elif part == "at" and at is None:
            at = unquote(parts[begin + 1])
            begin += 2
        elif part == "known-at" and known_at is None:
            known_at = unquote(parts[begin + 1])
            begin += 2
        else:
            break
    segments = parts[begin:]
    if "%" in raw_path:
        segments = [unquote(part) for part in segments]
    return Target(tuple(segments), at, known_at)
