"""Laws of decoding: it never raises, loses no byte, gives back what it read, and does not care for chunks."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decode import decode_message, decode_stream, recording_line, to_json
from store.model import Event, Learned, Rejected
from tests.wire import wire

NOW_MS = 1_793_500_000_000

VALID = [
    wire(name).strip()
    for name in (
        "connected.json",
        "disconnected.json",
        "sns_notification.json",
        "lambda_kinesis.json",
        "rule_error_action.json",
        "recording.ndjson",
    )
] + [
    b'{"ResponseMetadata":{"RetryAttempts":0},"thingName":"p","connected":true,"timestamp":1500000000.5}',
    b'{"things":[{"thingName":"p","connectivity":{"connected":false,"timestamp":1500000000500}},'
    b'{"thingName":"q","connectivity":{"connected":false}}],"nextToken":null}',
    b'{"knownAt":1793492200400,"check":{"api":"SearchIndex","response":{"things":['
    b'{"thingName":"p","connectivity":{"connected":true}},{"thingName":"q","connectivity":[]}]}}}',
]
FRAGMENTS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\r\n", b" ", b"1", b"null", b"NaN", b"-",
    b"1e999",
    b'{"', b'"}', b"}{", b"},{", b'{"clientId":', b'"\\ud800"', b"\\u0000", b"\xef\xbb\xbf", b"\xff", b"\0",
    b"\x1f\x8b\x08", b"eyJj", b"=", b"abc", *VALID[:2], VALID[3],
]  # fmt: skip


def now() -> int:
    return NOW_MS


def decode(data: bytes, cuts: list[int]) -> list[Learned | Rejected]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    chunks = [data[at:to] for at, to in pairwise(places)]
    return list(decode_stream(chunks, now=now))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(b"\n".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 20))] = draw(st.sampled_from([*FRAGMENTS, b""]))
    return bytes(data)


RUBBISH = st.one_of(
    st.binary(max_size=200), mutated(), st.lists(st.sampled_from(FRAGMENTS), max_size=20).map(b"".join)
)
CUTS = st.lists(st.integers(0, 2000), max_size=8)


@settings(max_examples=400)
@given(RUBBISH, CUTS)
def test_no_bytes_raise_and_no_cut_into_chunks_changes_the_outcome(data: bytes, cuts: list[int]) -> None:
    whole = decode(data, [])
    assert decode(data, cuts) == whole
    decode_message(data, now=now)
    for item in whole:
        assert 0 <= item.position <= len(data)
        if isinstance(item, Rejected):
            assert item.detail
            assert len(item.head) == min(item.length, 64 << 10)


LINES = st.lists(
    st.one_of(
        st.sampled_from(VALID[:2]),
        st.sampled_from(VALID[:2]).flatmap(
            lambda line: st.integers(1, len(line) - 1).map(lambda end: line[:end])
        ),
        st.binary(min_size=1, max_size=40).map(lambda line: line.replace(b"\n", b"?")),
        st.text(min_size=1, max_size=40).map(lambda line: line.replace("\n", "?").encode("utf-8", "replace")),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=400)
@given(LINES, CUTS)
def test_every_line_is_either_read_or_refused(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    if data.startswith(b"\x1f\x8b"):
        return
    items = decode(data, cuts)
    starts = [item.position for item in items]
    assert starts == sorted(starts)
    at = 0
    for line in lines:
        end = at + len(line)
        if line.replace(b"\xef\xbb\xbf", b"").strip(b" \t\r,[]"):
            assert any(
                at <= item.position < end
                if isinstance(item, Learned)
                else item.position < end and item.position + max(item.length, 1) > at
                for item in items
            ), line
        if line in VALID[:2]:
            assert any(
                item.position == at
                if isinstance(item, Learned)
                else item.position < at and item.position + item.length >= end
                for item in items
            ), line
        at = end + 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["connected", "disconnected", "connect_failed", "subscribed", "unsubscribed"])
    )
    at_ms = draw(st.integers(1_500_000_000_000, NOW_MS))
    members: dict[str, Any] = {
        draw(st.sampled_from(["clientId", "clientId", "deviceId", "client_id"])): draw(NAME),
        "eventType": kind,
        "timestamp": draw(st.sampled_from([at_ms, at_ms, at_ms / 1000, str(at_ms), at_ms * 1000])),
    }
    names = ["sessionIdentifier", "principalIdentifier", "ipAddress", "thingName", "disconnectReason"]
    for name in draw(st.sets(st.sampled_from([*names, "connectFailureReason"]))):
        members[name] = draw(NAME | st.none() | st.integers() | st.just(""))
    if draw(st.booleans()):
        members["versionNumber"] = draw(
            st.integers(-1, 2**64) | st.just("3") | st.just(3.0) | st.none() | st.booleans()
        )
    if draw(st.booleans()):
        members["clientInitiatedDisconnect"] = draw(st.booleans() | st.none() | st.just("true"))
    for name, value in draw(st.dictionaries(st.text(max_size=6), JSON, max_size=3)).items():
        members.setdefault(name, value)
    return members


@settings(max_examples=400)
@given(events(), st.integers(0, 10**9), st.randoms())
def test_an_event_is_given_back_exactly_and_survives_a_recording(
    members: dict[str, Any], lag_ms: int, shuffler: Any
) -> None:
    text = json.dumps(members)
    (item,) = decode(text.encode(), [])
    assert isinstance(item, Learned), item
    assert isinstance(item.evidence, Event)
    assert json.dumps(to_json(item.evidence), sort_keys=True) == json.dumps(members, sort_keys=True)
    known_at_ms = min(item.evidence.at_ms + lag_ms, NOW_MS)
    line = recording_line(item.evidence, known_at_ms)
    assert decode(line, []) == [Learned(item.evidence, 0, known_at_ms)]
    # The same content by any path and in any order is the equal event.
    shuffled = list(members.items())
    shuffler.shuffle(shuffled)
    for other in (json.dumps([dict(shuffled)], indent=1), json.dumps({"body": json.dumps(dict(shuffled))})):
        (again,) = decode(other.encode(), [])
        assert isinstance(again, Learned)
        assert again.evidence == item.evidence
