"""What must be true of decoding any bytes whatever; the fuzzer and the default suite hold the same.

No exception. Every byte is in a value that said something, in a refusal, or a separator. What was learned can be
numbered, stored, written to a recording and read back equal. How the bytes were cut into chunks does not show.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from typing import Any

from ingest.decode import decode_message, decode_stream, recording_line
from ingest.digest import digest
from ingest.inflate import Broken, inflate
from ingest.refusal import HEAD_BYTES
from ingest.scan import Found, Scanner
from ingest.syntax import unbase64
from store.model import Evidence, Learned, Rejected, Watch

NOW_MS = 1_793_500_000_000
_SEPARATORS = re.compile(rb"(?:[ \t\r\n,\[\]]|\xef\xbb\xbf)*")
_NUMBER = 1 << 63  # what a column of 64 bits cannot hold any more


def _now() -> int:
    return NOW_MS


def _sqs(body: str) -> bytes:
    return json.dumps({"Records": [{"messageId": "m", "body": body}]}).encode()


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# How the bytes of an input are wrapped, chosen by its first byte: mutations of what is inside stay inside.
WRAPPINGS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data,
    _packed,
    lambda data: _packed(data)[: 18 + len(data) // 2],
    lambda data: _packed(_packed(data)),
    lambda data: _packed(data[: len(data) // 2]) + _packed(data[len(data) // 2 :]) + data[:3],
    lambda data: _sqs(_as_text(data)),
    lambda data: _sqs(base64.b64encode(data).decode()),
    lambda data: _sqs(base64.b64encode(_packed(data)).decode()),
    lambda data: _sqs(json.dumps({"Type": "Notification", "TopicArn": "t", "Message": _as_text(data)})),
    lambda data: json.dumps(_as_text(data)).encode(),
)


def hold(data: bytes) -> None:
    """Hold the invariant on one input of the fuzzer: its first byte wraps the others. Raises AssertionError."""
    if data:
        hold_on(WRAPPINGS[data[0] % len(WRAPPINGS)](data[1:]))


def hold_on(data: bytes) -> None:
    """Hold the invariant on bytes as they are."""
    items = list(decode_stream([data], now=_now))
    for size in (1, 1 + len(data) // 3) if len(data) < 300 else (1 + len(data) // 3,):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert list(decode_stream(chunks, now=_now)) == items, "how it was cut into chunks shows"
        paused = [part for chunk in chunks for part in (chunk, b"")]
        told = [item for item in decode_stream(paused, now=_now, pauses=True) if item is not None]
        assert told == items, "where it paused shows"
    for item in (*items, *decode_message(data, now=_now)):
        if isinstance(item, Learned):
            _hold_learned(item.evidence, item.known_at_ms)
        else:
            _hold_rejected(item)
    _hold_coverage(data)


def _hold_learned(evidence: Evidence, known_at_ms: int | None) -> None:
    if not isinstance(evidence, Watch):
        assert -_NUMBER <= digest(evidence) < _NUMBER
    for value in evidence:
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
        elif isinstance(value, int):
            assert -_NUMBER <= value < _NUMBER
    moment_ms = NOW_MS if known_at_ms is None else known_at_ms
    line = recording_line(evidence, moment_ms)
    assert list(decode_stream([line], now=_now)) == [Learned(evidence, 0, moment_ms)], line


def _hold_rejected(item: Rejected) -> None:
    assert item.reason
    assert item.detail
    assert len(item.head) == min(item.length, HEAD_BYTES)
    for text in (item.reason, item.detail):
        assert "\0" not in text
        text.encode()


def _hold_coverage(data: bytes) -> None:
    """Every byte is in a value, in a refusal or a separator; and a value that says nothing is empty."""
    pieces = list(inflate([data]))
    flat = b"".join(piece for piece in pieces if not isinstance(piece, Broken))
    breaks = [piece.reason for piece in pieces if isinstance(piece, Broken)]
    at = 0
    reasons: list[str] = []
    for item in _values(data):
        assert item.position >= at
        gap = _SEPARATORS.match(flat, at)
        assert gap is not None
        assert gap.end() >= item.position, (at, gap.end(), item)
        at = item.position + (len(item.raw) if isinstance(item, Found) else item.length)
        assert at <= len(flat)
        if isinstance(item, Found):
            assert flat[item.position : at] == item.raw
            assert decode_message(item.raw, now=_now) or _is_empty(item.value), item.raw
        else:
            reasons.append(item.reason)
    rest = _SEPARATORS.match(flat, at)
    assert rest is not None
    assert rest.end() == len(flat), flat[at:]
    assert reasons[len(reasons) - len(breaks) :] == breaks, reasons


def _is_empty(value: Any) -> bool:
    """Tell whether a value may go without trace: a recording's header, or an envelope with nothing in it."""
    if isinstance(value, dict):
        return "thingline" in value or any(_is_empty(inner) for inner in value.values())
    if isinstance(value, list):
        return all(_is_empty(inner) for inner in value)
    if isinstance(value, str):
        packed = unbase64(value)
        found = _values(value.encode("utf-8", "surrogatepass") if packed is None else packed)
        return all(isinstance(item, Found) and _is_empty(item.value) for item in found)
    return False


def _values(data: bytes) -> list[Found | Rejected]:
    scanner = Scanner([data])
    found: list[Found | Rejected] = []
    while scanner.fill():
        while not scanner.starved:
            found += scanner.walk()
    return found
