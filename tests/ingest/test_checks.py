"""What each answer of AWS's API says, in the very text in which AWS CLI and boto3 hand it on.

The texts are what AWS CLI v1 and boto3 print of such responses; those of AWS CLI v2 differ from v1 in
`timestamp` of GetThingConnectivityData only. All instants are 2026-11-01T00:00:00Z or 123 ms after it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

import thingline
from ingest.checks import check_of
from ingest.decode import decode_message, decode_stream, recording_line
from store.model import Check, Learned, Observation, Rejected, State
from tests.ingest.test_decode_laws import JSON

NOW_MS = 1_793_500_000_000
ASKED_MS = 1_793_495_000_000
T_S = 1_793_491_200
T_MS = 1_793_491_200_000

BOTO3_SAYS = '{"ResponseMetadata": {"HTTPStatusCode": 200, "RetryAttempts": 0}, '


def decode(text: str | bytes, asked_ms: int | None = None) -> list[Learned | Rejected]:
    data = text.encode() if isinstance(text, str) else text
    return list(decode_stream([data], now=lambda: NOW_MS, asked_ms=asked_ms))


def observations(text: str | bytes, asked_ms: int | None = None) -> list[Observation]:
    items = decode(text, asked_ms)
    said = [item.evidence for item in items if isinstance(item, Learned)]
    assert len(said) == len(items), items
    assert all(isinstance(one, Observation) for one in said)
    return [one for one in said if isinstance(one, Observation)]


def refusals(text: str | bytes, asked_ms: int | None = None) -> list[str]:
    items = decode(text, asked_ms)
    assert all(isinstance(item, Rejected) for item in items), items
    return [item.reason for item in items if isinstance(item, Rejected)]


# --- What an answer says ------------------------------------------------------------------------------------


class Says(NamedTuple):
    """One row: an answer as printed, and what it says of which client."""

    rule: str
    printed: str
    client: str
    connected: bool
    named_ms: int | None
    whole: bool
    reason: str | None


GET = "GetThingConnectivityData"
CLI_1, CLI_2, BOTO3 = "AWS CLI v1", "AWS CLI v2", "boto3"

TABLE = [
    # GetThingConnectivityData: seconds; a whole number of them hides up to 999 ms.
    Says(
        f"{GET}, {CLI_1}: connected, whole seconds",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200, "disconnectReason": "NONE"}',
        "pump-17", True, T_MS, True, "NONE",
    ),
    Says(
        f"{GET}, {CLI_1}: disconnected, fractional seconds",
        '{"thingName": "pump-17", "connected": false, "timestamp": 1793491200.123,'
        ' "disconnectReason": "CONNECTION_LOST"}',
        "pump-17", False, T_MS + 123, False, "CONNECTION_LOST",
    ),
    Says(
        f"{GET}, {CLI_1}: a fraction of zero is a whole number",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200.0}',
        "pump-17", True, T_MS, True, None,
    ),
    Says(
        f"{GET}, {CLI_1}: parts of a millisecond are cut off",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200.9999}',
        "pump-17", True, T_MS + 999, False, None,
    ),
    Says(
        f"{GET}, {CLI_1}: a fraction below a millisecond is no whole number",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200.0004}',
        "pump-17", True, T_MS, False, None,
    ),
    Says(
        f"{GET}, {CLI_1}: never connected, timestamp 0",
        '{"thingName": "pump-17", "connected": false, "timestamp": 0, "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}, {CLI_1}: never connected, timestamp 0.0",
        '{"thingName": "pump-17", "connected": false, "timestamp": 0.0, "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}: never connected, timestamp 0 as text",
        '{"thingName": "pump-17", "connected": false, "timestamp": "0.000", "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}: never connected, timestamp absent",
        '{"thingName": "pump-17", "connected": false, "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}: never connected, timestamp null",
        '{"thingName": "pump-17", "connected": false, "timestamp": null, "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}: reason absent or null is none",
        '{"thingName": "pump-17", "connected": false, "timestamp": 1793491200.5, "disconnectReason": null}',
        "pump-17", False, T_MS + 500, False, None,
    ),
    Says(
        f"{GET}, {CLI_2}: connected, whole seconds",
        '{"thingName": "pump-17", "connected": true, "timestamp": "2026-11-01T00:00:00+00:00",'
        ' "disconnectReason": "NONE"}',
        "pump-17", True, T_MS, True, "NONE",
    ),
    Says(
        f"{GET}, {CLI_2}: disconnected, fractional seconds, local zone",
        '{"thingName": "pump-17", "connected": false, "timestamp": "2026-11-01T01:00:00.123000+01:00",'
        ' "disconnectReason": "MQTT_KEEP_ALIVE_TIMEOUT"}',
        "pump-17", False, T_MS + 123, False, "MQTT_KEEP_ALIVE_TIMEOUT",
    ),
    Says(
        f"{GET}, {CLI_2}: a fraction of zero is a whole number",
        '{"thingName": "pump-17", "connected": true, "timestamp": "2026-11-01T00:00:00.000000Z"}',
        "pump-17", True, T_MS, True, None,
    ),
    Says(
        f"{GET}, {CLI_2}: never connected, the epoch",
        '{"thingName": "pump-17", "connected": false, "timestamp": "1970-01-01T00:00:00+00:00",'
        ' "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}, {BOTO3}: connected, whole seconds",
        BOTO3_SAYS + '"thingName": "pump-17", "connected": true, "timestamp": "2026-11-01 01:00:00+01:00",'
        ' "disconnectReason": "NONE"}',
        "pump-17", True, T_MS, True, "NONE",
    ),
    Says(
        f"{GET}, {BOTO3}: disconnected, fractional seconds",
        BOTO3_SAYS + '"thingName": "pump-17", "connected": false, "timestamp": "2026-11-01 00:00:00.123000+00:00",'
        ' "disconnectReason": "CONNECTION_LOST"}',
        "pump-17", False, T_MS + 123, False, "CONNECTION_LOST",
    ),
    Says(
        f"{GET}, {BOTO3}: never connected, the epoch in a local zone",
        BOTO3_SAYS + '"thingName": "pump-17", "connected": false, "timestamp": "1970-01-01 01:00:00+01:00",'
        ' "disconnectReason": "UNKNOWN"}',
        "pump-17", False, None, False, "UNKNOWN",
    ),
    Says(
        f"{GET}, 2026: a clientId in the response goes before the thing's name",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200.123, "clientId": "c/17",'
        ' "keepAliveDuration": 30, "cleanSession": true, "sessionExpiry": 0}',
        "c/17", True, T_MS + 123, False, None,
    ),
    Says(
        f"{GET}, 2026: an empty or null clientId is none",
        '{"thingName": "pump-17", "connected": true, "timestamp": 1793491200.123, "clientId": null}',
        "pump-17", True, T_MS + 123, False, None,
    ),
    # SearchIndex: milliseconds, never whole seconds; the same from every client.
    Says(
        "SearchIndex: connected, without a reason",
        '{"things": [{"thingName": "pump-17", "thingId": "i", "connectivity": {"connected": true,'
        ' "timestamp": 1793491200123}}]}',
        "pump-17", True, T_MS + 123, False, None,
    ),
    Says(
        "SearchIndex: disconnected at a full second",
        '{"things": [{"thingName": "pump-17", "connectivity": {"connected": false,'
        ' "timestamp": 1793491200000, "disconnectReason": "CONNECTION_LOST"}}], "nextToken": "n"}',
        "pump-17", False, T_MS, False, "CONNECTION_LOST",
    ),
    Says(
        f"SearchIndex, {BOTO3}: disconnected for an hour, so without details",
        BOTO3_SAYS + '"things": [{"thingName": "pump-17", "connectivity": {"connected": false}}]}',
        "pump-17", False, None, False, None,
    ),
    Says(
        "SearchIndex: timestamp 0",
        '{"things": [{"thingName": "pump-17", "connectivity": {"connected": false, "timestamp": 0}}]}',
        "pump-17", False, None, False, None,
    ),
    Says(
        "SearchIndex: timestamp null",
        '{"things": [{"thingName": "pump-17", "connectivity": {"connected": false, "timestamp": null}}]}',
        "pump-17", False, None, False, None,
    ),
    Says(
        "SearchIndex, 2026: a clientId goes before the thing's name",
        '{"things": [{"thingName": "pump-17", "connectivity": {"connected": true, "timestamp": 1793491200123,'
        ' "clientId": "c/17"}}]}',
        "c/17", True, T_MS + 123, False, None,
    ),
    Says(
        "SearchIndex: one thing of a page by itself (jq '.things[]')",
        '{"thingName": "pump-17", "attributes": {"site": "n"}, "connectivity": {"connected": true,'
        ' "timestamp": 1793491200123}}',
        "pump-17", True, T_MS + 123, False, None,
    ),
    # GetConnection: milliseconds, since when it is as it is; of a client id.
    Says(
        "GetConnection: connected",
        '{"connected": true, "thingName": "pump-17", "cleanSession": true, "keepAliveDuration": 30,'
        ' "connectedSince": 1793491200123, "clientId": "c/17"}',
        "c/17", True, T_MS + 123, False, None,
    ),
    Says(
        f"GetConnection, {BOTO3}: disconnected at a full second",
        BOTO3_SAYS + '"connected": false, "disconnectedSince": 1793491200000, "clientId": "c/17",'
        ' "disconnectReason": "CLIENT_INITIATED_DISCONNECT"}',
        "c/17", False, T_MS, False, "CLIENT_INITIATED_DISCONNECT",
    ),
    Says(
        f"GetConnection, {CLI_2}: if it printed text",
        '{"connected": false, "disconnectedSince": "2026-11-01T00:00:00.123000+00:00", "clientId": "c/17"}',
        "c/17", False, T_MS + 123, False, None,
    ),
    Says(
        "GetConnection: disconnected for more than half an hour",
        '{"connected": false, "clientId": "c/17", "cleanSession": false}',
        "c/17", False, None, False, None,
    ),
    Says(
        "GetConnection: disconnectedSince 0",
        '{"connected": false, "disconnectedSince": 0, "clientId": "c/17"}',
        "c/17", False, None, False, None,
    ),
    Says(
        "GetConnection: the other state's instant is not this one's",
        '{"connected": true, "disconnectedSince": 1793491200123, "connectedSince": null, "clientId": "c/17"}',
        "c/17", True, None, False, None,
    ),
    Says(
        "GetConnection: nor the other way round",
        '{"connected": false, "disconnectedSince": 1793491200123, "connectedSince": 1793491200000,'
        ' "clientId": "c/17"}',
        "c/17", False, T_MS + 123, False, None,
    ),
]  # fmt: skip


def expected(row: Says, asked_ms: int) -> Check:
    state = State.CONNECTED if row.connected else State.DISCONNECTED
    return Check(row.client, asked_ms, state, row.named_ms, row.whole, row.reason)


@pytest.mark.parametrize("row", TABLE, ids=[row.rule for row in TABLE])
def test_an_answer_asked_at_a_known_moment_says(row: Says) -> None:
    (said,) = observations(row.printed, ASKED_MS)
    assert said[:3] == ("check", row.client, ASKED_MS)
    assert check_of(said) == expected(row, ASKED_MS)


@pytest.mark.parametrize("row", TABLE, ids=[row.rule for row in TABLE])
def test_an_answer_of_unknown_asking_stands_at_the_instant_that_it_names_or_is_refused(row: Says) -> None:
    if row.named_ms is None:
        (item,) = decode(row.printed)
        assert isinstance(item, Rejected)
        assert item.reason == "no-timestamp"
        assert "give --asked-at" in item.detail
    else:
        (said,) = observations(row.printed)
        assert check_of(said) == expected(row, row.named_ms)


@pytest.mark.parametrize("row", TABLE, ids=[row.rule for row in TABLE])
def test_an_answer_comes_back_from_a_recording_as_the_equal_observation(row: Says) -> None:
    for asked_ms in (ASKED_MS, row.named_ms):
        if asked_ms is not None:
            (said,) = observations(row.printed, asked_ms)
            for known_at_ms in (asked_ms, asked_ms + 5, NOW_MS):
                line = recording_line(said, known_at_ms)
                assert decode(line, 1_700_000_000_000) == [Learned(said, 0, known_at_ms)]


@pytest.mark.parametrize("row", TABLE, ids=[row.rule for row in TABLE])
def test_an_answer_is_known_in_any_envelope(row: Says) -> None:
    said = decode(row.printed, ASKED_MS)
    pretty = json.dumps(json.loads(row.printed), indent=4)
    for text in (pretty, f"[{row.printed}]", json.dumps({"body": row.printed})):
        again = decode(text, ASKED_MS)
        assert [one.evidence for one in again if isinstance(one, Learned)] == [
            one.evidence for one in said if isinstance(one, Learned)
        ]
    assert decode_message(row.printed.encode(), now=lambda: NOW_MS, asked_ms=ASKED_MS) == said


def test_no_member_of_a_result_is_lost() -> None:
    for row in TABLE:
        (said,) = observations(row.printed, ASKED_MS)
        printed = json.loads(row.printed)
        assert json.loads(said.body)["response"] == printed.get("things", [printed])[0]


@given(st.integers(T_MS - 10**11, T_MS), st.sampled_from(["number", "text", "iso"]))
def test_every_millisecond_in_seconds_is_read_exactly(at_ms: int, form: str) -> None:
    seconds: Any = at_ms / 1000
    if form == "text":
        seconds = str(Decimal(at_ms) / 1000)
    elif form == "iso":
        seconds = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).isoformat()
    (said,) = observations(json.dumps({"thingName": "p", "connected": True, "timestamp": seconds}))
    check = check_of(said)
    assert check is not None
    assert (said.at_ms, check.named_ms, check.whole) == (at_ms, at_ms, at_ms % 1000 == 0)


# --- Pages of SearchIndex -----------------------------------------------------------------------------------

PAGE: dict[str, Any] = {
    "things": [
        {"thingName": "a", "connectivity": {"connected": True, "timestamp": T_MS + 1}},
        {"thingName": "b", "attributes": {"site": "n"}},
        {"thingName": "c", "connectivity": {"connected": False}},
        {"thingName": "d", "connectivity": {"connected": False, "timestamp": T_MS}, "shadow": "{}"},
    ],
    "thingGroups": [],
    "nextToken": "n",
    "ResponseMetadata": {"RequestId": "r"},
}


def test_a_page_is_one_observation_a_thing_with_connectivity() -> None:
    said = observations(json.dumps(PAGE), ASKED_MS)
    assert [(one.subject, one.at_ms) for one in said] == [(name, ASKED_MS) for name in "acd"]
    a, _, c, d = PAGE["things"]
    assert [json.loads(one.body) for one in said] == [
        {"api": "SearchIndex", "thingName": thing["thingName"], "response": thing} for thing in (a, c, d)
    ]


def test_a_thing_of_a_page_that_cannot_be_placed_costs_the_others_nothing() -> None:
    a, c, d = decode(json.dumps(PAGE))
    assert isinstance(a, Learned)
    assert isinstance(d, Learned)
    assert (a.evidence[1:3], d.evidence[1:3]) == (("a", T_MS + 1), ("d", T_MS))
    assert isinstance(c, Rejected)
    assert (c.reason, json.loads(c.head)) == ("no-timestamp", PAGE["things"][2])
    # What is kept of it can be taken in by itself, with the moment of asking.
    assert observations(c.head, ASKED_MS) == [observations(json.dumps(PAGE), ASKED_MS)[1]]


def test_a_page_in_a_line_of_a_recording_is_one_observation_a_thing() -> None:
    check = {"api": "SearchIndex", "query": "q", "askedAt": ASKED_MS, "response": PAGE}
    said = observations(json.dumps({"knownAt": ASKED_MS + 7, "check": check}))
    assert [(one.subject, one.at_ms) for one in said] == [(name, ASKED_MS) for name in "acd"]
    assert json.loads(said[0].body) == {**check, "thingName": "a", "response": PAGE["things"][0]}
    for one in said:
        assert decode(recording_line(one, NOW_MS)) == [Learned(one, 0, NOW_MS)]
    bare = {"api": "SearchIndex", "response": PAGE}
    beside = observations(json.dumps({"knownAt": NOW_MS, "askedAt": ASKED_MS, "check": bare}))
    assert beside == observations(json.dumps(PAGE), ASKED_MS)
    known = observations(json.dumps({"knownAt": ASKED_MS, "check": bare}))
    assert known == beside


def test_a_bad_thing_in_a_recorded_page_is_kept_as_a_line_of_its_own() -> None:
    wrong = {"thingName": "e", "connectivity": {"connected": "yes"}}
    page = {"things": [*PAGE["things"], wrong], "nextToken": "n"}
    line = {"knownAt": NOW_MS, "askedAt": ASKED_MS, "check": {"api": "SearchIndex", "response": page}}
    *good, bad = decode(json.dumps(line))
    assert [item.evidence.subject for item in good if isinstance(item, Learned)] == ["a", "c", "d"]  # type: ignore[union-attr]
    assert isinstance(bad, Rejected)
    assert bad.reason == "unknown-shape"
    assert json.loads(bad.head) == {
        **line,
        "check": {"api": "SearchIndex", "response": {"things": [wrong]}},
    }


def test_an_empty_page_says_nothing_and_a_page_without_connectivity_is_refused() -> None:
    assert decode('{"things": []}') == []
    listed = json.dumps({"things": [{"thingName": "a", "thingArn": "arn", "version": 1}], "nextToken": "n"})
    assert refusals(listed, ASKED_MS) == ["unknown-shape"]
    assert refusals(
        json.dumps({"knownAt": NOW_MS, "check": {"api": "SearchIndex", "response": PAGE["things"]}})
    ) == ["unknown-shape"]


def test_a_page_may_be_larger_than_a_record_and_a_thing_may_not() -> None:
    things = [
        {
            "thingName": f"t{number}",
            "shadow": "x" * 15_000,
            "connectivity": {"connected": True, "timestamp": T_MS},
        }
        for number in range(100)
    ]
    assert len(observations(json.dumps({"things": things}))) == 100
    check = {"api": "SearchIndex", "response": {"things": things}}
    assert len(observations(json.dumps({"knownAt": NOW_MS, "check": check}))) == 100
    things[1]["shadow"] = "x" * (1 << 20)
    reasons = [item.reason for item in decode(json.dumps({"things": things})) if isinstance(item, Rejected)]
    assert reasons == ["too-large"]


def test_the_largest_check_that_is_taken_in_survives_its_recording() -> None:
    taken = []
    for size in range((1 << 20) - 600, (1 << 20) - 60, 16):
        result = {"thingName": "p", "connected": True, "timestamp": T_S, "x": "x" * size}
        items = decode(json.dumps(result))
        taken.append(isinstance(items[0], Learned))
        if isinstance(items[0], Learned) and size > (1 << 20) - 480:
            line = recording_line(items[0].evidence, NOW_MS)
            assert decode(line) == [Learned(items[0].evidence, 0, NOW_MS)]
    assert (taken[0], taken[-1]) == (True, False)


# --- Lines of a recording -----------------------------------------------------------------------------------


def line(check: Any, **beside: Any) -> str:
    return json.dumps({"knownAt": ASKED_MS, **beside, "check": check})


def test_a_line_says_when_it_was_asked_and_no_option_overrides_it() -> None:
    answer = {
        "api": GET,
        "thingName": "pump-17",
        "response": {"connected": True, "timestamp": T_S, "disconnectReason": "NONE"},
    }
    other_ms = T_MS + 77
    moments = [
        observations(text, other_ms)[0].at_ms
        for text in (
            line({**answer, "askedAt": ASKED_MS - 1}, askedAt=ASKED_MS - 2),
            line(answer, askedAt=ASKED_MS - 2),
            line(answer),
            json.dumps({"check": answer}),
        )
    ]
    assert moments == [ASKED_MS - 1, ASKED_MS - 2, ASKED_MS, other_ms]
    assert observations(json.dumps({"check": answer}))[0].at_ms == T_MS


@pytest.mark.parametrize(
    ("check", "subject"),
    [
        ({"api": "SearchIndex", "thingName": "pump-17", "error": "ThrottlingException"}, "pump-17"),
        ({"api": "SearchIndex", "error": "IndexNotReadyException"}, None),
        ({"api": GET, "thingName": "pump-17", "error": "ResourceNotFoundException"}, "pump-17"),
        ({"api": GET, "thingName": "p", "error": {"Code": "X"}, "response": {"connected": True}}, "p"),
        ({"api": "GetConnection", "clientId": "c", "error": "ResourceNotFoundException"}, "c"),
        ({"api": GET, "thingName": "pump-17", "response": {"thingName": "pump-17"}}, "pump-17"),
        ({"api": GET, "thingName": "pump-17", "response": {"connected": None, "timestamp": 1}}, "pump-17"),
        ({"api": "SearchIndex", "thingName": "p", "response": {"connectivity": None}}, "p"),
        ({"api": "GetConnection", "clientId": "c", "response": {}}, "c"),
    ],
)
def test_an_error_and_an_answer_without_connected_are_kept_and_say_nothing(
    check: dict[str, Any], subject: str | None
) -> None:
    (said,) = observations(line(check))
    assert said == Observation("check", subject, ASKED_MS, said.body)
    assert json.loads(said.body) == check
    assert check_of(said) is None
    assert decode(recording_line(said, NOW_MS)) == [Learned(said, 0, NOW_MS)]


def test_the_client_is_the_one_asked_for() -> None:
    response = {"connected": True, "connectedSince": T_MS, "clientId": "other", "thingName": "t"}
    (said,) = observations(line({"api": "GetConnection", "clientId": "c", "response": response}))
    assert check_of(said) == Check("c", ASKED_MS, State.CONNECTED, T_MS, False, None)
    (said,) = observations(
        line({"api": "SearchIndex", "thingName": "t", "response": {"connected": True, "timestamp": T_MS}})
    )
    assert check_of(said) == Check("t", ASKED_MS, State.CONNECTED, T_MS, False, None)


# --- What is refused ----------------------------------------------------------------------------------------


def answer(**members: Any) -> str:
    return json.dumps({"thingName": "pump-17", "connected": True, "timestamp": T_S, **members})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (answer(connected="true"), "unknown-shape"),
        (answer(connected=1), "unknown-shape"),
        (answer(connected=None), "unknown-shape"),
        (answer(thingName=""), "no-client-id"),
        (answer(thingName=17), "no-client-id"),
        (answer(thingName="a\0"), "unstorable-text"),
        (answer(clientId="a\ud800"), "unstorable-text"),
        (answer(disconnectReason="\0"), "unstorable-text"),
        (answer(thingName="a" * 1_025), "too-long"),
        (answer(clientId="é" * 513), "too-long"),
        (answer(disconnectReason="a" * 1_025), "too-long"),
        (answer(timestamp="2026-11-01T00:00:00"), "ambiguous-timestamp"),
        (answer(timestamp="soon"), "ambiguous-timestamp"),
        (answer(timestamp=""), "ambiguous-timestamp"),
        (answer(timestamp=1), "ambiguous-timestamp"),
        (answer(timestamp=-T_S), "ambiguous-timestamp"),
        (answer(timestamp=False), "ambiguous-timestamp"),
        (answer(timestamp={}), "ambiguous-timestamp"),
        (answer(timestamp="1970-01-01T00:00:01Z"), "ambiguous-timestamp"),
        (answer(timestamp="9" * 400), "ambiguous-timestamp"),
        (answer(timestamp=NOW_MS / 1000 + 601), "future-stamp"),
        (answer(x="x" * (1 << 20)), "too-large"),
        ('{"connected": true, "connectedSince": 1793491200123, "thingName": "t"}', "no-client-id"),
        ('{"connected": true}', "unknown-shape"),
        ('{"things": [17]}', "unknown-shape"),
        ('{"things": [{"connectivity": {"connected": true, "timestamp": 1793491200123}}]}', "no-client-id"),
        ('{"things": [{"thingName": "a", "connectivity": [true]}]}', "unknown-shape"),
        (line({"thingName": "a", "response": {"connected": True}}), "unknown-shape"),
        (line({"api": "DescribeThing", "thingName": "a", "response": {}}), "unknown-shape"),
        (line({"api": ["SearchIndex"], "thingName": "a", "response": {}}), "unknown-shape"),
        (line({"api": GET, "thingName": "a"}), "unknown-shape"),
        (line({"api": GET, "thingName": "a", "response": [True]}), "unknown-shape"),
        (line({"api": GET, "response": {"connected": True}}), "no-client-id"),
        (line({"api": GET, "response": {}}), "no-client-id"),
        (line({"api": "GetConnection", "thingName": "a", "response": {"connected": True}}), "no-client-id"),
        (line({"api": GET, "thingName": "a", "askedAt": "x", "response": {}}), "ambiguous-timestamp"),
        (
            line({"api": GET, "thingName": "a", "askedAt": NOW_MS, "response": {"connected": True}}),
            "future-stamp",
        ),
    ],
)
def test_a_wrong_shape_goes_to_quarantine_with_its_reason(text: str, reason: str) -> None:
    assert refusals(text, ASKED_MS) == [reason]


def test_an_instant_may_lie_ten_minutes_after_its_asking_and_no_more() -> None:
    latest_s = (ASKED_MS + 600_000) / 1000
    assert observations(answer(timestamp=latest_s), ASKED_MS)[0].at_ms == ASKED_MS
    (item,) = decode(answer(timestamp=latest_s + 0.001), ASKED_MS)
    assert isinstance(item, Rejected)
    assert item.reason == "future-stamp"
    assert "--asked-at" in item.detail


# --- Whatever is stored -------------------------------------------------------------------------------------

NASTY = st.one_of(
    JSON,
    st.sampled_from(["", "a\0", "\ud800", -1, True, "0", "9999-12-31T23:59:59-23:59", 10**400, 1e308, -0.0]),
    st.just("0001-01-01T00:00:00+23:59"),
)
STAMP = st.sampled_from(
    [T_S, T_S, T_S + 0.123, T_MS, T_MS + 123, 0, None, "0", f"{T_S}.5", "2026-11-01T00:00Z", NOW_MS + 600_001]
)
STATED = {
    "thingName": st.sampled_from(["p", "q"]),
    "clientId": st.sampled_from(["p", "c/1", None]),
    "connected": st.booleans(),
    "timestamp": STAMP,
    "connectedSince": STAMP,
    "disconnectedSince": STAMP,
    "disconnectReason": st.sampled_from(["NONE", "UNKNOWN", "CONNECTION_LOST", None]),
}


@st.composite
def objects(draw: st.DrawFn, /, **members: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Draw an object of such members as AWS gives them; in some, one is missing or nasty."""
    drawn = {name: draw(fair) for name, fair in members.items()}
    odd = draw(st.sampled_from([None, None, *members]))
    if odd is not None and draw(st.booleans()):
        drawn[odd] = draw(NASTY)
    elif odd is not None:
        del drawn[odd]
    return drawn


STATEMENT = objects(**STATED)
THING = objects(thingName=STATED["thingName"], connectivity=STATEMENT)
PAGES = objects(things=st.lists(THING, max_size=3), nextToken=st.none())
GOT = objects(**{name: STATED[name] for name in ("thingName", "connected", "timestamp", "disconnectReason")})
RESULT = st.sampled_from([STATEMENT, THING, PAGES, GOT]).flatmap(lambda kind: kind)
BODY = st.tuples(
    st.fixed_dictionaries(
        {"api": st.sampled_from([GET, "SearchIndex", "GetConnection"]), "response": RESULT}
    ),
    objects(thingName=STATED["thingName"], clientId=STATED["clientId"], askedAt=STAMP),
    st.sampled_from([{}, {}, {}, {"error": "ThrottlingException"}, {"error": None}]),
).map(lambda parts: parts[0] | parts[1] | parts[2])


@settings(max_examples=600)
@given(st.one_of(JSON, BODY).map(json.dumps) | st.text())
@example("[" * 100_000)
@example('{"api":"SearchIndex","response":{"connected":true,"timestamp":NaN},"thingName":"p"}')
@example('{"api":"SearchIndex","response":{"connected":true,"timestamp":Infinity},"thingName":"p"}')
@example('{"api":"SearchIndex","n":' + "9" * 5000 + "}")
def test_no_body_that_is_stored_raises(body: str) -> None:
    check = check_of(Observation("check", "p", T_MS, body))
    event("says nothing" if check is None else "says a state")
    assert check is None or (check.asked_ms == T_MS and check.client_id != "")
    assert check_of(Observation("registry", "p", T_MS, body)) is None


@settings(max_examples=600)
@given(BODY | RESULT, st.none() | st.integers(T_MS, NOW_MS), st.integers(0, 10**9))
def test_what_is_taken_in_names_its_client_and_survives_a_recording(
    members: dict[str, Any], asked_ms: int | None, lag_ms: int
) -> None:
    for item in decode(json.dumps({"check": members} if "api" in members else members), asked_ms):
        if not isinstance(item, Learned):
            continue
        said = item.evidence
        assert isinstance(said, Observation)
        check = check_of(said)
        if check is not None:
            assert (check.client_id, check.asked_ms) == (said.subject, said.at_ms)
            assert check.named_ms is None or check.named_ms <= min(said.at_ms, NOW_MS) + 600_000
            event("says a state")
        event("taken in")
        for known_at_ms in (NOW_MS, max(NOW_MS - lag_ms, said.at_ms, (check and check.named_ms) or 0)):
            (again,) = decode(recording_line(said, known_at_ms), 1)
            assert isinstance(again, Learned)
            assert again.evidence == said


def test_the_examples_of_the_recording_format_are_read() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "recording.md").read_text()
    lines, bare = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    assert [type(item) for item in decode(lines)] == [Learned] * 4
    assert [check_of(said) for said in observations(bare)] == [
        Check("pump-17", T_MS + 123, state, T_MS + 123, False, reason)
        for state, reason in (
            (State.CONNECTED, "NONE"),
            (State.CONNECTED, None),
            (State.DISCONNECTED, "CONNECTION_LOST"),
        )
    ]


# --- The command --------------------------------------------------------------------------------------------


def typed(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = thingline.main(list(args))
    return code, *capfd.readouterr()


def test_asked_at_places_results_and_nonsense_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, source = str(tmp_path / "store.db"), tmp_path / "answers.json"
    never = '{"thingName": "pump-18", "connected": false, "disconnectReason": "UNKNOWN"}\n'
    source.write_text('{"thingName": "pump-17", "connected": true, "timestamp": 1750000000}\n' + never)
    for wrong, complaint in (
        ("2025-06-15", "is not a time"),
        ("2025-06-15T15:06:40", "is not a time"),
        ("-2h", "is not a time"),
        ("2099-01-01T00:00:00Z", "lies in the future"),
    ):
        code, out, err = typed(capfd, "ingest", str(source), "--store", store, f"--asked-at={wrong}")
        assert (code, out) == (2, "")
        assert complaint in err
        assert not Path(store).exists()
    asked_at = "2025-06-15T17:06:40.5+02:00"
    code, out, _ = typed(capfd, "ingest", str(source), "--store", store, "--asked-at", asked_at, "--json")
    assert (code, json.loads(out)["quarantined"]) == (0, 0)
    _, out, _ = typed(capfd, "export", "evidence", "--store", store)
    said = decode(out)
    assert all(isinstance(item, Learned) for item in said)
    assert sorted(item.evidence[1:3] for item in said if isinstance(item, Learned)) == [
        ("pump-17", 1_750_000_000_500),
        ("pump-18", 1_750_000_000_500),
    ]
    code, out, _ = typed(capfd, "ingest", str(source), "--store", f"{store}.2", "--json")
    assert (code, json.loads(out)["read"], json.loads(out)["quarantined"]) == (0, 2, 1)
