"""Whatever arrived in, evidence out: every envelope that AWS and its neighbours wrap around an event or a check.

Owns the finding out of envelopes and the quarantine of what cannot be read. Pure: it must never open a file,
read a clock, or follow an address found in a payload; and it never raises for any bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Annotated, Any, Literal, NamedTuple, overload

import msgspec

from ingest.checks import Result, is_page, read_check, recorded, results
from ingest.encode import RECORDING_HEADER, RECORDING_VERSION, recording_line, to_json
from ingest.envelope import contents
from ingest.inflate import CORRUPT, MAGIC, TOO_LARGE, TRUNCATED, Broken, inflate
from ingest.members import (
    CLIENT_NAMES,
    canonical,
    event_kind,
    read_event,
    read_registry,
    read_watch,
    required_stamp_ms,
)
from ingest.refusal import Unreadable, rejected
from ingest.scan import Found, Scanner
from ingest.stamps import END_MS, FAR_FUTURE_MS, FIRST_MS
from ingest.syntax import RECORD_BYTES, parse, unbase64
from store.model import (
    EVENT_TYPES,
    MOST_TEXT_BYTES,
    Event,
    Kind,
    Learned,
    Observation,
    Rejected,
    Watch,
    new_tuple,
)

__all__ = [
    "FAR_FUTURE_MS",
    "RECORDING_HEADER",
    "decode_message",
    "decode_stream",
    "recording_line",
    "to_json",
]

ENVELOPES = 4
INFLATED_BYTES = 256 << 20
INFLATED_TIMES = 100

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_ABSENT: Any = None  # a default that an explicit null does not match, so that null takes the slow way


class _Plain(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A lifecycle event in today's shape, and nothing else in it."""

    client_id: _Name
    event_type: Literal["connected", "disconnected", "connect_failed", "subscribed", "unsubscribed"]
    timestamp: int | float  # so that 1.0 is told from 1
    session_identifier: _Name = _ABSENT
    version_number: int | float = _ABSENT
    disconnect_reason: _Name = _ABSENT
    connect_failure_reason: _Name = _ABSENT
    client_initiated_disconnect: bool = _ABSENT
    principal_identifier: _Name = _ABSENT
    ip_address: _Name = _ABSENT
    thing_name: _Name = _ABSENT


class _PlainLine(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A line of a recording with such an event."""

    known_at: int | float
    event: _Plain


_SHAPES: tuple[Callable[[bytes], object], ...] = (
    msgspec.json.Decoder(_Plain).decode,
    msgspec.json.Decoder(_PlainLine).decode,
)
_MOST_VERSION = 2**63
_BACKSLASH = 0x5C
_DISCONNECTED, _CONNECT_FAILED = Kind.DISCONNECTED, Kind.CONNECT_FAILED
_members_of = msgspec.structs.astuple


@overload
def decode_stream(
    chunks: Iterable[bytes],
    *,
    now: Callable[[], int],
    asked_ms: int | None = None,
    most_inflated: int | None = None,
) -> Iterator[Learned | Rejected]: ...


@overload
def decode_stream(
    chunks: Iterable[bytes], *, now: Callable[[], int], asked_ms: int | None = None, pauses: Literal[True]
) -> Iterator[Learned | Rejected | None]: ...


def decode_stream(
    chunks: Iterable[bytes],
    *,
    now: Callable[[], int],
    asked_ms: int | None = None,
    most_inflated: int | None = None,
    pauses: bool = False,
) -> Iterator[Learned | Rejected | None]:
    """Yield all that a file or another long source says, in its order, in constant memory.

    `now` gives the moment of receipt in epoch ms; `asked_ms` is when the API was asked for results that do not
    say it. Gzip is recognised; where it is cut, what came before is yielded and one truncated-gzip last, and where
    it unpacks to more than `most_inflated` bytes a too-large. With `pauses`, an empty chunk says that there is no more
    for now; a None follows what stood before it.
    Never raises for any bytes.
    """
    reader = _Reader(now, asked_ms)
    scanner = Scanner(chunks, _SHAPES, most_inflated=most_inflated)
    while scanner.fill():
        lines = BytesIO(scanner.buffer)  # the quickest way through lines; shares the bytes
        while not scanner.starved:
            if scanner.fresh:
                at, base, shape, latest_ms = scanner.at, scanner.base, scanner.shapes[0], reader.latest_ms
                lines.seek(at)
                for line in lines:
                    try:
                        learned = _quick(shape(line), line, base + at, latest_ms)
                    except (ValueError, RecursionError):
                        break
                    if learned is None:
                        break
                    at += len(line)
                    scanner.at = at
                    yield learned
            for item in scanner.walk():
                if isinstance(item, Rejected):
                    yield item
                else:
                    reader.received(len(item.raw))
                    yield from reader.found(item, _Place(item.position))
        if pauses and scanner.paused:
            yield None


def decode_message(
    body: bytes, *, now: Callable[[], int], position: int = 0, asked_ms: int | None = None
) -> list[Learned | Rejected]:
    """Return all that one message of a queue says, in its order; each item bears the message's `position`.

    `asked_ms` as for `decode_stream`. Gzip in it, and in all that is in it, may unpack to a hundred times the
    message and 256 MiB at most. Never raises for any bytes.
    """
    reader = _Reader(now, asked_ms)
    reader.received(len(body))
    return list(reader.enclosed(body, _Place(position)))


def _quick(value: object, raw: bytes, position: int, latest_ms: int) -> Learned | None:
    """Make evidence of a plain record; None where anything about it needs a closer look."""
    known_at_ms = None
    if type(value) is _PlainLine:
        known_at_ms = value.known_at
        if type(known_at_ms) is not int or not FIRST_MS <= known_at_ms <= latest_ms:
            return None
        latest_ms = known_at_ms + FAR_FUTURE_MS
        value = value.event
    members: Any = _members_of(value)  # type: ignore[arg-type]
    client, name, at_ms, session, version, reason, failure, initiated, principal, ip, thing = members
    kind = EVENT_TYPES[name]
    if failure is not None:
        if kind is not _CONNECT_FAILED or reason is not None:
            return None
        reason = failure
    elif reason is not None and kind is not _DISCONNECTED:
        return None
    if (
        type(at_ms) is not int
        or not FIRST_MS <= at_ms <= latest_ms
        or not (version is None or (type(version) is int and 0 <= version < _MOST_VERSION))
        or len(raw) > MOST_TEXT_BYTES  # one of its texts may be too long; JSON is never shorter than they are
        or _BACKSLASH in raw  # an escaped NUL may be there
    ):
        return None
    return new_tuple(
        Learned,
        (
            new_tuple(
                Event, (client, kind, at_ms, session, version, reason, initiated, principal, ip, thing, None)
            ),
            position,
            known_at_ms,
        ),
    )


class _Place(NamedTuple):
    """Where something stands: its position in the source, and how many envelopes are around it."""

    position: int
    envelopes: int = 0

    def inside(self) -> _Place:
        return _Place(self.position, self.envelopes + 1)


class _Reader:
    """Reads JSON values of any kind. Holds the clock, and the latest stamp that it need not ask about."""

    def __init__(self, now: Callable[[], int], asked_ms: int | None) -> None:
        self._now = now
        self._asked_ms = asked_ms
        self.latest_ms = 0
        self._unpackable = 0
        self._clock_ms()

    def _clock_ms(self) -> int:
        now_ms = self._now()
        self.latest_ms = min(now_ms + FAR_FUTURE_MS, END_MS - 1)
        return now_ms

    def received(self, size: int) -> None:
        """Begin a message, or a record of a file, of so many bytes: what may be unpacked of it in all."""
        self._unpackable = min(INFLATED_TIMES * size, INFLATED_BYTES)

    def found(self, found: Found, place: _Place) -> Iterator[Learned | Rejected]:
        """Yield what a value found by the scanner says."""
        value, raw = found.value, found.raw
        if isinstance(value, (_Plain, _PlainLine)):
            learned = _quick(value, raw, place.position, self.latest_ms)
            if learned is not None:
                yield learned
                return
            try:
                value = parse(raw)
            except Unreadable as error:
                yield rejected(error.reason, error.detail, raw, place.position)
                return
        yield from self._value(value, raw, place)

    def enclosed(self, body: bytes, place: _Place) -> Iterator[Learned | Rejected]:
        """Yield what stands in the bytes of a message or an envelope; gzip is undone within limits."""
        if place.envelopes > ENVELOPES:
            yield _too_deep(body, place.position)
            return
        is_packed = body.startswith(MAGIC)
        most = min(INFLATED_TIMES * len(body), max(0, self._unpackable))
        scanner = Scanner([body], _SHAPES, most_inflated=most)
        unpacked = 0
        while scanner.fill():
            if is_packed:  # an envelope in it unpacks from what is left
                self._unpackable -= scanner.base + len(scanner.buffer) - unpacked
                unpacked = scanner.base + len(scanner.buffer)
            while not scanner.starved:
                for item in scanner.walk():
                    if isinstance(item, Rejected) and item.reason in _GZIP_BREAKS:
                        yield rejected(item.reason, item.detail, body, place.position)
                    elif isinstance(item, Rejected):
                        yield replace(item, position=place.position)
                    else:
                        yield from self.found(item, place)

    def _text(self, text: str, raw: bytes | None, place: _Place) -> Iterator[Learned | Rejected]:
        """Yield what text holds: JSON, or base64 of it. What no record is in is refused as a whole."""
        whole = text.encode("utf-8", "surrogatepass") if raw is None else raw
        if place.envelopes > ENVELOPES:
            yield _too_deep(whole, place.position)
            return
        body = unbase64(text)
        if body is None:
            body = text.encode("utf-8", "surrogatepass")
        refused: list[Rejected] = []
        inner = self.enclosed(body, place)
        for item in inner:
            if isinstance(item, Learned) or item.reason not in _FORMLESS or len(refused) >= _FEW:
                yield from refused
                yield item
                yield from inner
                return
            refused.append(item)
        if refused:
            yield rejected(refused[0].reason, refused[0].detail, whole, place.position)
        elif _is_blank(body):
            yield rejected(
                "not-json", "the envelope is empty; nothing can be learned from it", whole, place.position
            )

    def _value(self, value: Any, raw: bytes | None, place: _Place) -> Iterator[Learned | Rejected]:
        """Yield what a JSON value says. `raw` is its own bytes, None for a part of something larger."""
        if isinstance(value, str):
            yield from self._text(value, raw, place.inside())
        elif isinstance(value, list):
            for item in value:
                yield from self._value(item, None, place)
        elif isinstance(value, dict):
            try:
                yield from self._object(value, raw, place)
            except Unreadable as error:
                yield rejected(error.reason, error.detail, _bytes_of(value, raw), place.position)
        else:
            yield rejected("unknown-shape", _NO_EVENT, _bytes_of(value, raw), place.position)

    def _object(
        self, members: dict[str, Any], raw: bytes | None, place: _Place
    ) -> Iterator[Learned | Rejected]:
        inner = contents(members)
        if inner is not None:
            for item in inner:
                if isinstance(item, str):
                    yield from self._text(item, None, place.inside())
                else:
                    yield from self._value(item, None, place)
            return
        if raw is not None and len(raw) > RECORD_BYTES and not is_page(members):
            raise Unreadable("too-large", "more than 1 MiB; split it")
        if "thingline" in members:
            _check_header(members)
            return
        kind = event_kind(members)
        if kind is None and _is_recording(members):
            yield from self._recording(members, raw, place)
        elif kind is None and (found := results(members)) is not None:
            yield from self._checks(found, raw, place, self._clock_ms(), self._asked_ms, None)
        else:
            yield Learned(_published(members, kind, self._clock_ms(), None), place.position)

    def _checks(
        self,
        found: list[Result],
        raw: bytes | None,
        place: _Place,
        receipt_ms: int,
        asked_ms: int | None,
        known_at_ms: int | None,
    ) -> Iterator[Learned | Rejected]:
        """Yield checks; what is wrong with one thing of a page costs the others nothing."""
        for body, alone in found:
            try:
                check = read_check(body, receipt_ms, asked_ms)
            except Unreadable as error:
                whole = _bytes_of(alone, raw if len(found) == 1 else None)
                yield rejected(error.reason, error.detail, whole, place.position)
            else:
                yield Learned(check, place.position, known_at_ms)

    def _recording(
        self, line: dict[str, Any], raw: bytes | None, place: _Place
    ) -> Iterator[Learned | Rejected]:
        receipt_ms = now_ms = self._clock_ms()
        known_at_ms = asked_ms = None
        if line.get("knownAt") is not None:
            known_at_ms = required_stamp_ms(line["knownAt"], "knownAt", END_MS)
            if known_at_ms > receipt_ms + FAR_FUTURE_MS:
                known_at_ms = None  # nobody has learned anything yet then
            else:
                receipt_ms = asked_ms = known_at_ms
        if line.get("askedAt") is not None:
            asked_ms = required_stamp_ms(line["askedAt"], "askedAt", receipt_ms)
        for name in _RECORDED:
            if name not in line:
                continue
            content = line[name]
            if not isinstance(content, dict):
                raise Unreadable("unknown-shape", f"{name} is no JSON object; see the recording format")
            evidence: Event | Observation | Watch
            if name == "check":
                moment_ms = self._asked_ms if asked_ms is None else asked_ms
                found = recorded(content, line)
                yield from self._checks(found, raw, place, receipt_ms, moment_ms, known_at_ms)
                continue
            if name == "watch":
                evidence = read_watch(content, receipt_ms, now_ms)
            elif name == "registry":
                evidence = read_registry(content, receipt_ms, asked_ms)
            else:
                evidence = _published(content, event_kind(content), receipt_ms, asked_ms)
            yield Learned(evidence, place.position, known_at_ms)


_NO_EVENT = "this JSON is no event, no result of an API call, no envelope and no line of a recording that is known here"
_RECORDED = ("event", "check", "registry", "watch")
_FORMLESS = frozenset({"not-json", "unknown-shape"})
_GZIP_BREAKS = frozenset(cause.reason for cause in (TRUNCATED, CORRUPT, TOO_LARGE))
_FEW = 16
_BLANK = b" \t\r\n,\xef\xbb\xbf"


def _is_blank(body: bytes) -> bool:
    """Tell whether nothing is in a body, or in the gzip that it is."""
    pieces = inflate([body], most=min(INFLATED_TIMES * len(body), INFLATED_BYTES))
    return all(not isinstance(piece, Broken) and not piece.strip(_BLANK) for piece in pieces)


def _published(
    members: dict[str, Any], kind: Kind | str | None, receipt_ms: int, asked_ms: int | None
) -> Event | Observation:
    if isinstance(kind, Kind):
        return read_event(members, kind, receipt_ms)
    if kind is None and not any(name in members for name in CLIENT_NAMES):
        raise Unreadable("unknown-shape", _NO_EVENT)
    if kind is not None and kind.endswith("_EVENT"):
        return read_registry(members, receipt_ms, asked_ms)
    raise Unreadable(
        "unknown-event", "its eventType is missing or not known; let the rule select it as it is"
    )


def _is_recording(members: dict[str, Any]) -> bool:
    return any(isinstance(members.get(name), dict) for name in _RECORDED) or (
        "knownAt" in members and any(name in members for name in _RECORDED)
    )


def _check_header(members: dict[str, Any]) -> None:
    version = members.get("version")
    if members["thingline"] != "recording" or type(version) is not int:
        raise Unreadable("unknown-shape", "a recording begins with its header as this version writes it")
    if version > RECORDING_VERSION:
        raise Unreadable(
            "unknown-version", f"a recording of version {version}; upgrade thingline to be sure of all in it"
        )


def _bytes_of(value: Any, raw: bytes | None) -> bytes:
    if raw is not None:
        return raw
    try:
        return canonical(value).encode("ascii")
    except Unreadable:
        return repr(value).encode("utf-8", "backslashreplace")


def _too_deep(whole: bytes, position: int) -> Rejected:
    detail = f"more than {ENVELOPES} envelopes around one another; unwrap it first"
    return rejected("too-deep", detail, whole, position)
