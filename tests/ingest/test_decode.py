"""What decoding makes of each envelope, each odd member, and each kind of rubbish."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from ingest.decode import FAR_FUTURE_MS, decode_message, decode_stream, recording_line, to_json
from ingest.scan import Found, Scanner
from store.model import MOST_TEXT_BYTES, Event, Kind, Learned, Observation, Rejected, Watch
from tests.wire import wire

NOW_MS = 1_793_500_000_000  # 2026-11-01

CONNECTED = wire("connected.json").strip()
DISCONNECTED = wire("disconnected.json").strip()
PAIR = [json.loads(CONNECTED), json.loads(DISCONNECTED)]


def now() -> int:
    return NOW_MS


def decode(data: bytes, chunk_bytes: int = 1 << 16) -> list[Learned | Rejected]:
    chunks = (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes))
    return list(decode_stream(chunks, now=now))


def one(members: dict[str, Any]) -> Event:
    (item,) = decode(json.dumps(members).encode())
    assert isinstance(item, Learned), item
    assert isinstance(item.evidence, Event)
    return item.evidence


def refusal(members: dict[str, Any]) -> str:
    (item,) = decode(json.dumps(members).encode())
    assert isinstance(item, Rejected), item
    return item.reason


def read_back(items: list[Learned | Rejected]) -> list[Any]:
    return [to_json(item.evidence) if isinstance(item, Learned) else item.reason for item in items]


def event(**members: Any) -> dict[str, Any]:
    return {"clientId": "pump-17", "eventType": "connected", "timestamp": 1_793_491_200_123, **members}


# --- Envelopes ----------------------------------------------------------------------------------------------

SHAPES = {
    "lines": CONNECTED + b"\n" + DISCONNECTED + b"\n",
    "lines without a last newline": CONNECTED + b"\n" + DISCONNECTED,
    "CRLF, blank lines and a byte order mark": b"\xef\xbb\xbf" + CONNECTED + b"\r\n\r\n \n" + DISCONNECTED,
    "concatenated": wire("firehose_concatenated.json"),
    "joined by commas": wire("firehose_comma.json"),
    "array": b"[" + CONNECTED + b"," + DISCONNECTED + b"]",
    "array over lines": b"[\n" + CONNECTED + b",\n" + DISCONNECTED + b"\n]\n",
    "pretty array": json.dumps(PAIR, indent=4).encode(),
    "pretty objects": b"\n".join(json.dumps(members, indent=2).encode() for members in PAIR),
    "gzip of two members": gzip.compress(CONNECTED + b"\n") + gzip.compress(DISCONNECTED) + b"\0" * 512,
    "gzip of gzip": gzip.compress(gzip.compress(CONNECTED + DISCONNECTED)),
    "base64 lines": base64.b64encode(CONNECTED) + b"\n" + base64.urlsafe_b64encode(DISCONNECTED).rstrip(b"="),
    "base64 of gzip": base64.b64encode(gzip.compress(CONNECTED + DISCONNECTED)),
    "JSON text in JSON text": json.dumps(CONNECTED.decode() + DISCONNECTED.decode()).encode(),
    "SQS ReceiveMessage": wire("sqs_receive.json"),
    "Lambda from SQS": wire("lambda_sqs.json"),
    "Lambda from Kinesis": wire("lambda_kinesis.json"),
    "EventBridge pipe from SQS": wire("pipes_sqs.json"),
    "EventBridge pipe from Kinesis": wire("pipes_kinesis.json"),
}
SINGLE = {
    "SNS": wire("sns_notification.json"),
    "Lambda from SQS from SNS": wire("lambda_sqs_sns.json"),
    "Lambda from SNS": wire("lambda_sns.json"),
    "rule error action": wire("rule_error_action.json"),
}


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_envelope_gives_the_same_two_events(shape: str, chunk_bytes: int) -> None:
    assert read_back(decode(SHAPES[shape], chunk_bytes)) == PAIR


@pytest.mark.parametrize("shape", SHAPES)
def test_every_envelope_may_be_a_message(shape: str) -> None:
    items = decode_message(SHAPES[shape], now=now, position=7)
    assert read_back(items) == PAIR
    assert {item.position for item in items} == {7}


@pytest.mark.parametrize("shape", SINGLE)
def test_every_envelope_of_one_gives_its_event(shape: str) -> None:
    assert read_back(decode(SINGLE[shape])) == PAIR[:1]


def test_the_position_is_where_the_record_begins() -> None:
    assert [item.position for item in decode(b"[ " + CONNECTED + b",\n" + DISCONNECTED + b"]")] == [
        2,
        4 + len(CONNECTED),
    ]


def test_nothing_comes_of_an_empty_file() -> None:
    assert [decode(data) for data in (b"", b"\n \r\n", b"\xef\xbb\xbf", b"[]", gzip.compress(b""))] == [
        []
    ] * 5


def test_a_pause_follows_what_stood_before_it_in_gzip_as_well() -> None:
    def kinds(pieces: list[bytes]) -> list[str]:
        return [type(each).__name__ for each in decode_stream(pieces, now=now, pauses=True)]

    whole = zlib.compressobj(wbits=31)
    told = [json.dumps(event(timestamp=NOW_MS + n)).encode() + b"\n" for n in range(3)]
    chunks = [part for line in told for part in (whole.compress(line) + whole.flush(zlib.Z_SYNC_FLUSH), b"")]
    assert kinds(chunks) == ["Learned", "NoneType"] * 3 + ["Rejected"]  # its end is missing
    assert kinds([part for line in told for part in (line[:9], b"", line[9:], b"")]) == (
        ["NoneType", "Learned", "NoneType"] * 3
    )


def test_what_a_pause_finds_walked_is_not_walked_again() -> None:
    scanner = Scanner([b'{"a":[' + b"[1]," * 100_000, b"", b"1]}", b""])
    assert scanner.fill()
    assert list(scanner.walk()) == []
    assert scanner.fill()
    assert (scanner.paused, scanner.starved) == (True, True)
    assert scanner.fill()
    assert (scanner.paused, scanner.starved) == (True, False)
    assert [found.position for found in scanner.walk() if isinstance(found, Found)] == [0]


def test_envelopes_go_four_deep_and_no_deeper() -> None:
    data = CONNECTED
    for _ in range(5):
        data = base64.b64encode(data) if data.startswith(b"{") else json.dumps(data.decode()).encode()
    assert read_back(decode(data)) == PAIR[:1]
    assert read_back(decode(json.dumps({"body": data.decode()}).encode())) == ["too-deep"]


def test_a_file_larger_than_any_limit_streams_whether_it_has_lines_or_not() -> None:
    for joint in (b"", b",", b"\n"):
        unit = (CONNECTED + joint) * 4000

        def chunks(piece: bytes = unit) -> Iterator[bytes]:
            yield b"["
            for _ in range(10):
                yield piece
            yield b"]"

        assert sum(type(item) is Learned for item in decode_stream(chunks(), now=now)) == 40_000


# --- Members ------------------------------------------------------------------------------------------------


def test_the_current_shape_fills_the_typed_members() -> None:
    (item,) = decode(DISCONNECTED)
    assert item == Learned(
        Event(
            client_id="186b5",
            kind=Kind.DISCONNECTED,
            at_ms=1573002340451,
            session_id="00000000-0000-0000-0000-000000000000",
            version=0,
            reason="CLIENT_INITIATED_DISCONNECT",
            client_initiated=True,
            principal="12345678901234567890123456789012",
            thing_name="exampleThing",
        ),
        0,
    )


def test_a_connect_failure_and_a_subscription_are_evidence() -> None:
    failed, subscribed = decode(wire("connect_failed.json") + wire("subscribed.json"))
    assert isinstance(failed, Learned)
    assert isinstance(subscribed, Learned)
    assert isinstance(failed.evidence, Event)
    assert isinstance(subscribed.evidence, Event)
    assert (failed.evidence.kind, failed.evidence.reason) == (Kind.CONNECT_FAILED, "AUTHORIZATION_FAILED")
    assert subscribed.evidence.extra == '{"topics":["foo/bar","device/data","dog/cat"]}'


ODD = {
    "old: no version, reason, ip": event(),
    "decorated": event(
        topic="$aws/events/presence/connected/other", rule_ts=1793491200200, n={"b": 1, "a": [1.5]}
    ),
    "id renamed": {"deviceId": "pump-17", "eventType": "connected", "timestamp": 1793491200123},
    "id renamed twice": event(client_id="other"),
    "explicit nulls": event(thingName=None, versionNumber=None, sessionIdentifier=None),
    "version as text": event(versionNumber="7"),
    "version as float": event(versionNumber=7.0),
    "version below 0": event(versionNumber=-1),
    "version beyond 63 bit": event(versionNumber=2**63),
    "version a boolean": event(versionNumber=True),
    "reason on a connect": event(disconnectReason="NONE", connectFailureReason="X"),
    "wrong types": event(thingName=5, sessionIdentifier=["x"], clientInitiatedDisconnect="true"),
    "empty names": event(thingName="", sessionIdentifier="", principalIdentifier=""),
    "integers beyond 64 bit": event(serial=2**80, small=-(2**70)),
    "surrogate and NUL among the others": event(note="\ud800 \x00 é 😀"),
    "unicode id": event(clientId="Pumpe/ä:😀" + "x" * 128),
    "seconds": event(timestamp=1793491200),
    "seconds with a fraction": event(timestamp=1793491200.123),
    "a whole float": event(timestamp=1793491200123.0),
}


@pytest.mark.parametrize("name", ODD)
def test_every_odd_event_is_read_and_given_back_exactly(name: str) -> None:
    read = one(ODD[name])
    assert json.dumps(to_json(read), sort_keys=True) == json.dumps(ODD[name], sort_keys=True)
    assert read.at_ms in (1_793_491_200_123, 1_793_491_200_000)
    assert read.client_id in ("pump-17", "Pumpe/ä:😀" + "x" * 128)
    assert read.extra is None or (read.extra.isascii() and read.extra.isprintable())


def test_a_version_is_read_where_it_is_one() -> None:
    said = [
        "version as text",
        "version as float",
        "version below 0",
        "version beyond 63 bit",
        "version a boolean",
    ]
    assert [one(ODD[name]).version for name in said] == [7, 7, None, None, None]


def test_the_order_of_members_makes_no_difference() -> None:
    forward = event(topic="t", z=1, a={"y": 1, "x": 2})
    assert one(forward) == one(dict(reversed(forward.items())))


def test_the_type_and_the_id_come_from_the_topic_where_the_payload_lacks_them() -> None:
    topic = "$aws/events/presence/disconnected/a/b"
    bare = {"timestamp": 1793491200123, "eventTopic": topic}
    assert (one(bare).client_id, one(bare).kind) == ("a/b", Kind.DISCONNECTED)
    assert one({**bare, "clientId": "said"}).client_id == "said"
    assert to_json(one(bare)) == bare


@pytest.mark.parametrize(
    ("stamp", "at_ms"),
    [
        (1793491200, 1793491200000),
        (1793491200.5, 1793491200500),
        (1793491200123456, 1793491200123),
        (1793491200123456789, 1793491200123),
        ("1793491200123", 1793491200123),
        ("1793491200.123", 1793491200123),
        ("2026-11-01T00:00:00Z", 1793491200000),
        ("2026-11-01T01:00:00.123456+01:00", 1793491200123),
        ("20261101T000000z", 1793491200000),
        (1262304000, 1262304000000),
    ],
)
def test_a_stamp_is_read_by_its_magnitude(stamp: object, at_ms: int) -> None:
    assert one(event(timestamp=stamp)).at_ms == at_ms


@pytest.mark.parametrize(
    "stamp",
    [
        0,
        -1793491200123,
        1262303999,
        4102444800000,
        20261101,
        "2026-11-01T00:00:00",
        "2026-11-01",
        "soon",
        "",
        True,
        {},
        1e300,
        10**400,
    ],
)
def test_a_stamp_with_no_reading_or_two_is_refused(stamp: object) -> None:
    assert refusal(event(timestamp=stamp)) == "ambiguous-timestamp"


def test_a_stamp_more_than_ten_minutes_after_its_receipt_is_refused() -> None:
    latest = NOW_MS + FAR_FUTURE_MS
    assert one(event(timestamp=latest)).at_ms == latest
    assert refusal(event(timestamp=latest + 1)) == "future-stamp"
    line = {"knownAt": 1793491200000, "event": event(timestamp=1793491200000 + FAR_FUTURE_MS + 1)}
    assert refusal(line) == "future-stamp"
    assert refusal({**line, "extra": 1}) == "future-stamp"


def test_the_clock_is_asked_again_when_time_has_passed() -> None:
    clock = iter([NOW_MS, NOW_MS + 2 * FAR_FUTURE_MS, NOW_MS + 2 * FAR_FUTURE_MS])
    late = json.dumps(event(timestamp=NOW_MS + 2 * FAR_FUTURE_MS)).encode() + b"\n"
    assert [type(item) for item in decode_stream([late], now=lambda: next(clock))] == [Learned]


TEXTS = ("clientId", "sessionIdentifier", "principalIdentifier", "ipAddress", "thingName", "disconnectReason")


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀", "\\"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_no_index_takes_is_refused_by_its_bytes(name: str, letter: str) -> None:
    size = len(letter.encode())
    most = letter * (MOST_TEXT_BYTES // size) + "x" * (MOST_TEXT_BYTES % size)
    for ascii_only in (False, True):
        for is_recorded in (False, True):

            def decoded(text: str, *, ascii_only: bool = ascii_only, is_recorded: bool = is_recorded) -> Any:
                members: Any = event(**{"eventType": "disconnected", name: text})
                line = {"knownAt": NOW_MS, "event": members} if is_recorded else members
                (item,) = decode(json.dumps(line, ensure_ascii=ascii_only).encode())
                return item

            read, refused = decoded(most), decoded(most + "x")
            assert to_json(read.evidence)[name] == most
            assert (refused.reason, refused.detail.partition(" ")[0]) == ("too-long", name)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (event(clientId=""), "no-client-id"),
        (event(clientId=17), "no-client-id"),
        (event(eventType="exploded"), "unknown-event"),
        (event(eventType=None), "unknown-event"),
        (event(timestamp=None), "no-timestamp"),
        (event(clientId="a\x00"), "unstorable-text"),
        (event(clientId="a\ud800"), "unstorable-text"),
        (event(thingName="a\x00"), "unstorable-text"),
        (event(clientId=None, topic="$aws/events/presence/connected/" + "x" * 1_025), "too-long"),
        ({"eventType": "THING_EVENT", "timestamp": NOW_MS, "thingName": "x" * 1_025}, "too-long"),
        (
            {"eventType": "A_EVENT", "timestamp": NOW_MS, "thingArn": "arn:aws:iot:r:1:thing/" + "x" * 1_025},
            "too-long",
        ),
        ({"knownAt": NOW_MS, "watch": {"source": "x" * 1_025, "from": NOW_MS, "to": NOW_MS}}, "too-long"),
        (event(blob="x" * (1 << 20)), "too-large"),
        ({"temperature": 21}, "unknown-shape"),
        ({"thingName": "pump-17", "state": {"reported": {"connected": True}}}, "unknown-shape"),
        ({"Records": [{"s3": {"bucket": {"name": "b"}}}]}, "unknown-shape"),
        (
            {"Type": "SubscriptionConfirmation", "TopicArn": "a", "Message": "m", "SubscribeURL": "u"},
            "unknown-shape",
        ),
        ({"body": ""}, "not-json"),
        ({"body": "hello"}, "not-json"),
        ({"knownAt": "never", "event": event()}, "ambiguous-timestamp"),
        ({"knownAt": NOW_MS, "event": "text"}, "unknown-shape"),
        ({"knownAt": NOW_MS, "watch": {"source": "sqs", "from": NOW_MS, "to": NOW_MS - 1}}, "unknown-shape"),
        ({"check": {"api": "SearchIndex", "error": "ThrottlingException"}}, "no-timestamp"),
    ],
)
def test_what_cannot_be_evidence_is_refused_with_its_reason(members: dict[str, Any], reason: str) -> None:
    assert refusal(members) == reason


# --- Recordings ---------------------------------------------------------------------------------------------


def test_a_recording_gives_all_kinds_of_evidence_and_its_claims() -> None:
    items = decode(wire("recording.ndjson"))
    assert all(isinstance(item, Learned) for item in items)
    learned = [item for item in items if isinstance(item, Learned)]
    assert [item.known_at_ms for item in learned] == [
        1793491201000,
        1793492200400,
        1793492200400,
        1793495000000,
    ]
    happened, check, failed, watch = (item.evidence for item in learned)
    assert happened == Event("pump-17", Kind.CONNECTED, 1793491200123, "s1", 0)
    assert isinstance(check, Observation)
    assert isinstance(failed, Observation)
    assert (check.kind, check.subject, check.at_ms) == ("check", "pump-17", 1793492200400)
    assert failed.at_ms == 1793492200000
    assert watch == Watch("sqs", 1793491200000, 1793494800000)


def test_a_recording_of_a_later_version_is_told_once_and_read_on() -> None:
    items = decode(b'{"thingline":"recording","version":2}\n' + CONNECTED)
    assert read_back(items) == ["unknown-version", PAIR[0]]


def test_known_at_may_be_text_and_a_claim_from_the_future_is_none() -> None:
    text = json.dumps({"knownAt": "2026-11-01T00:00:01Z", "event": event()}).encode()
    future = json.dumps({"knownAt": NOW_MS + FAR_FUTURE_MS + 1, "event": event()}).encode()
    claims = [item.known_at_ms for item in decode(text + future) if isinstance(item, Learned)]
    assert claims == [1793491201000, None]


def test_a_check_keeps_its_moment_when_it_is_written_with_another_known_at() -> None:
    check = Observation(
        "check", "pump-17", 1793492200400, '{"api":"SearchIndex","error":"X","thingName":"pump-17"}'
    )
    (item,) = decode(recording_line(check, 1793492299999))
    assert item == Learned(check, 0, 1793492299999)


def test_registry_events_are_observations() -> None:
    created = decode(wire("thing_created.json"))[0]
    assert isinstance(created, Learned)
    assert isinstance(created.evidence, Observation)
    assert created.evidence[:3] == ("registry", "MyThing", 1234567890123)
    assert to_json(created.evidence) == json.loads(wire("thing_created.json"))
    arn = "arn:aws:iot:ap-northeast-2:123456789012:thing/my:Thing"
    member = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "timestamp": 1793491200123, "thingArn": arn}
    (joined,) = decode(json.dumps(member).encode())
    assert isinstance(joined, Learned)
    assert isinstance(joined.evidence, Observation)
    assert joined.evidence.subject == "my:Thing"
    assert read_back(decode(recording_line(joined.evidence, NOW_MS))) == [member]


# --- What cannot be read ------------------------------------------------------------------------------------


def test_a_bad_line_is_kept_whole_and_its_neighbours_are_read() -> None:
    bad = b'{"clientId":"x","timest'
    items = decode(CONNECTED + b"\n" + bad + b"\nnoise\n" + DISCONNECTED)
    assert read_back(items) == [PAIR[0], "not-json", "not-json", PAIR[1]]
    cut, noise = (item for item in items if isinstance(item, Rejected))
    assert (cut.head, cut.length, cut.position) == (bad, len(bad), len(CONNECTED) + 1)
    assert cut.sha256 == hashlib.sha256(bad).hexdigest()
    assert noise.head == b"noise"


@pytest.mark.parametrize(
    "cut", [b'{"a":', b'{"a":[1,', b'{"a":1,', b"{", b"[", b'{"a":[{"b":1},', b'"', b"[[1,"]
)
def test_a_record_cut_at_any_place_does_not_swallow_the_lines_below(cut: bytes) -> None:
    for below in (1, 2, 3):
        learned = [
            item for item in decode(cut + b"\n" + (CONNECTED + b"\n") * below) if isinstance(item, Learned)
        ]
        assert len(learned) == below


@pytest.mark.parametrize(
    "data",
    [
        CONNECTED + b"{bad}" + DISCONNECTED,
        b"[" + CONNECTED + b',{"a":NaN},' + DISCONNECTED + b"]",
        b"[" + CONNECTED + b',17,"text",' + DISCONNECTED + b"]",
        json.dumps([PAIR[0], 0, PAIR[1]], indent=1).encode().replace(b" 0,", b' {"x": Infinity},'),
        CONNECTED + b"\n" + b'{"a":' * 70 + b"1" + b"}" * 70 + b"\n" + DISCONNECTED,
        CONNECTED + b"\n" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n" + DISCONNECTED,
        CONNECTED + b"\n" + b"[" * 100_000 + b"\n" + DISCONNECTED,
        CONNECTED + b'\n{"n":' + b"9" * 5000 + b"}\n" + DISCONNECTED,
        CONNECTED + b'\n{"clientId":"\xff\xfe"}\n' + DISCONNECTED,
        CONNECTED
        + b"\n"
        + json.dumps(PAIR[0], indent=2).encode().replace(b"1573", b"1,573")
        + b"\n"
        + DISCONNECTED,
        json.dumps(
            {"Records": [{"body": CONNECTED.decode()}, {"body": "?"}, {"body": DISCONNECTED.decode()}]}
        ).encode(),
    ],
)
def test_one_bad_record_costs_nothing_but_itself(data: bytes) -> None:
    items = decode(data)
    assert [type(item) for item in items] == [Learned, Rejected, Learned]


def test_a_line_of_a_hundred_megabytes_is_one_refusal() -> None:
    piece = b'{"a": "' + b"x" * (1 << 20)
    for start in (piece, b"x" * (1 << 20), random.Random(1).randbytes(1 << 20).replace(b"\n", b"")):

        def chunks(piece: bytes = start) -> Iterator[bytes]:
            for _ in range(100):
                yield piece
            yield b"\n" + CONNECTED

        bad, good = decode_stream(chunks(), now=now)
        assert isinstance(bad, Rejected)
        assert (bad.length, len(bad.head), bad.position) == (100 * len(start), 64 << 10, 0)
        assert good == Learned(decode(CONNECTED)[0].evidence, 100 * len(start) + 1)  # type: ignore[union-attr]


def test_a_binary_file_is_few_refusals_and_they_account_for_it() -> None:
    data = random.Random(2).randbytes(1 << 20)
    items = decode(data)
    assert 1 <= len(items) < 50
    assert sum(item.length for item in items if isinstance(item, Rejected)) >= len(data) - 200


def test_a_text_of_another_kind_ends_in_one_refusal() -> None:
    items = decode(b"2026-11-01,pump-17,up\n" * 5000)
    assert 1 < len(items) <= 101


@pytest.mark.parametrize("cut", [1, 8, 100, 300])
def test_a_truncated_gzip_gives_what_came_before_and_one_refusal(cut: int) -> None:
    noise = random.Random(3)
    lines = [event(n=noise.random(), clientId=f"c{index}") for index in range(100)]
    packed = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    *before, last = decode(packed[:-cut])
    assert read_back(before) == lines[: len(before)]
    assert isinstance(last, Rejected)
    assert last.reason == "truncated-gzip"
    assert len(before) > 70


def test_a_damaged_gzip_is_told() -> None:
    packed = bytearray(gzip.compress(CONNECTED + b"\n"))
    packed[-6] ^= 1
    assert read_back(decode(bytes(packed))) == [PAIR[0], "corrupt-gzip"]


def test_an_array_that_never_ends_is_told() -> None:
    assert read_back(decode(b"[" + CONNECTED + b",")) == [PAIR[0], "truncated-array"]


def test_gzip_in_a_message_is_limited_and_kept_whole() -> None:
    bomb = gzip.compress(b" " * (10 << 20))
    (item,) = decode_message(bomb, now=now)
    assert isinstance(item, Rejected)
    assert (item.reason, item.length) == ("too-large", len(bomb))
    assert decode(bomb) == []
    enclosed = json.dumps({"body": base64.b64encode(bomb).decode()}).encode()
    assert read_back(decode(enclosed)) == ["too-large"]


def test_an_envelope_may_be_larger_than_a_record() -> None:
    records = [{"body": CONNECTED.decode()}] * 10_000
    assert len(decode(json.dumps({"Records": records}).encode())) == 10_000
    assert "too-large" in read_back(decode(json.dumps({"Records": records * 4}).encode() + b"\n"))
