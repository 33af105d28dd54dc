"""Paths as they come over the wire: split first and decoded then, so that an encoded slash separates nothing.

Pure. Before the path of an operation may stand `/at/{time}` and `/known-at/{time}`: AWS clients keep the path of an
endpoint's URL as it is, while some drop its query (FACTS 7).
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

PREFIXES = ("at", "known-at")


class Target(NamedTuple):
    """What a path asks for: the segments of the operation, decoded; and the times before it, as they were written."""

    segments: tuple[str, ...]
    at: str | None
    known_at: str | None


def target_of(raw_path: str) -> Target:
    """Read a raw path. `+` stays a plus sign, and bytes that are no UTF-8 become U+FFFD, which no name holds.

    An endpoint's URL that ends with a slash makes two of them: what is empty before the operation is left out.
    """
    times: dict[str, str] = {}
    parts = raw_path.split("/")
    at = 0
    while at < len(parts):
        part = parts[at]
        if part in PREFIXES and part not in times and at + 1 < len(parts):
            times[part] = unquote(parts[at + 1])
            at += 2
        elif not part and at + 1 < len(parts):
            at += 1
        else:
            break
    segments = tuple(unquote(part) if "%" in part else part for part in parts[at:])
    return Target(segments, times.get("at"), times.get("known-at"))
