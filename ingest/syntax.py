"""JSON and base64 as text: strict reading, and where an object ends in bytes that go on.

Owns the limits on one record and the grammar. It must never raise anything but Unreadable.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NoReturn

from ingest.inflate import MAGIC
from ingest.refusal import Unreadable

RECORD_BYTES = 1 << 20
ENVELOPE_BYTES = 8 << 20
NESTING = 64  # of what is kept as evidence
AROUND = 3  # ... and what a recording may put around it, so that all that was kept can be read again

NOT_JSON = "no JSON object can be read here; repair it, or leave it out"

MORE = -1  # ends that are none: it may come
BAD = -2  # it cannot come
_OUTSIDE = re.compile(rb"[^ \t\r\n,:0-9+\-.eENaInfitytruls]")  # anything with a meaning outside of strings
_INSIDE = re.compile(rb'[^"\\\x00-\x1f]*')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def parse(raw: bytes) -> Any:
    """Read one JSON text strictly. Raises Unreadable: not-json, too-deep, too-large."""
    try:
        value = JSON.decode(raw.decode())
    except RecursionError:
        raise Unreadable("too-deep", f"nested deeper than {NESTING}; flatten it") from None
    except MemoryError:
        raise Unreadable("too-large", "too large to be read; split it") from None
    except ValueError as error:
        raise Unreadable("not-json", f"{NOT_JSON} ({_short(error)})") from None
    check_nesting(raw, value)
    return value


def _short(error: ValueError) -> str:
    return "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:100]


def check_nesting(raw: bytes, value: Any, most: int = NESTING + AROUND) -> None:
    """Raise Unreadable, too-deep, where objects and arrays stand in one another more than `most` deep."""
    if not isinstance(value, (dict, list)) or raw.count(b"{") + raw.count(b"[") <= most:
        return
    level: list[Any] = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise Unreadable("too-deep", f"nested deeper than {NESTING}; flatten it")


def unbase64(text: str) -> bytes | None:
    """Undo base64 (either alphabet, padding optional); None where no record or gzip can be in it."""
    packed = "".join(text.split()).rstrip("=").translate({45: 43, 95: 47})
    try:
        start = base64.b64decode(packed[:4].ljust(4, "="), validate=True)
        if start[:1] not in (b"{", b"[") and not start.startswith((MAGIC, b"\xef\xbb\xbf")):
            return None
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def encloses(text: str) -> bool:
    """Say whether text may hold a record: JSON as text, or base64."""
    return text.lstrip()[:1] in ("{", "[", '"') or unbase64(text) is not None


def extent(buffer: bytes, start: int, stop: int) -> tuple[int, list[int]]:
    """Find the end of the object at `start` by its brackets: MORE when cut at `stop`, BAD when it has none.

    Looks closely enough at what may stand beside a bracket that a record cut short does not swallow its
    neighbours. With the end come the places of the brackets still open there: for each of them the outcome
    is the same.
    """
    kinds = bytearray()
    places: list[int] = []
    at = last = start
    opened = False
    while (token := _OUTSIDE.search(buffer, at, stop)) is not None:
        place = token.start()
        byte = buffer[place]
        if byte == 0x22:
            end = string_end(buffer, place + 1, stop)
            if end < 0:
                return end, places
            at = last = end
            opened = False
            continue
        if byte in b"{[":
            if kinds:
                between = buffer[last:place].strip()
                if kinds[-1] == 0x7B:
                    if between != b":":
                        return BAD, places
                elif not (between.endswith(b",") or (opened and not between)):
                    return BAD, places
            kinds.append(byte)
            places.append(place)
            opened = True
        elif byte in b"}]" and kinds[-1] == byte - 2:
            kinds.pop()
            places.pop()
            if not kinds:
                return place + 1, places
            opened = False
        else:
            return BAD, places
        at = last = place + 1
    return MORE, places


def string_end(buffer: bytes, at: int, stop: int) -> int:
    """Find the end of the string whose first character is at `at`: MORE or BAD when there is none."""
    while True:
        inside = _INSIDE.match(buffer, at, stop)
        at = stop if inside is None else inside.end()
        if at >= stop:
            return MORE
        byte = buffer[at]
        if byte == 0x22:
            return at + 1
        if byte != 0x5C:
            return BAD
        at += 2
