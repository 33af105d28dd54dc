"""The limits of DESIGN section 8, in every envelope: what is beyond them is refused, and its neighbours are read."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable

import pytest

from ingest.decode import decode_message, decode_stream
from store.model import MOST_TEXT_BYTES, Event, Learned, Rejected
from tests.fuzz.invariant import hold_on

NOW_MS = 1_793_500_000_000
GOOD = '{"clientId":"good","eventType":"connected","timestamp":1790000000000}'
Wrap = Callable[[str], str]


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def sns(text: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn", "Message": text})


def sqs(text: str) -> str:
    return json.dumps({"messageId": "m", "body": text})


ENVELOPES: dict[str, Wrap] = {
    "bare": lambda text: text,
    "a line": lambda text: text + "\n",
    "an array": lambda text: f"[{text}]",
    "SQS": sqs,
    "SQS, base64": lambda text: sqs(base64_of(text)),
    "SNS to SQS": lambda text: sqs(sns(text)),
    "Lambda": lambda text: f'{{"Records":[{sqs(text)}]}}',
    "Kinesis": lambda text: json.dumps({"kinesis": {"partitionKey": "p", "data": base64_of(text)}}),
    "an error action": lambda text: json.dumps({"base64OriginalPayload": base64_of(text), "failures": []}),
    "gzip in base64 in SQS in SNS": lambda text: sns(
        sqs(base64.b64encode(gzip.compress(text.encode("utf-8", "surrogatepass"))).decode())
    ),
}

LETTERS = "".join(random.Random(1).choices("abcdefghijklmnop", k=1 << 20))  # gzip leaves half of it
HOSTILE: dict[str, tuple[str, str]] = {
    "too deep": (GOOD[:-1] + ',"x":' + "[" * 64 + "]" * 64 + "}", "too-deep"),
    "far too deep": (
        GOOD[:-1] + f',"y":"{LETTERS[:50_000]}","x":' + "[" * 50_000 + "]" * 50_000 + "}",
        "too-deep",
    ),
    "a giant": (GOOD[:-1] + f',"x":"{LETTERS}"' + "}", "too-large"),
    "a giant number": (GOOD[:-1] + ',"x":' + "9" * 5_000 + "}", "not-json"),
    "a number beyond a double": (GOOD[:-1] + ',"x":1e999}', "not-json"),
    "half a surrogate pair": (GOOD.replace("good", "\\ud800"), "unstorable-text"),
    "a NUL": (GOOD.replace("good", "a\\u0000"), "unstorable-text"),
    "a name too long": (GOOD.replace("good", "x" * (MOST_TEXT_BYTES + 1)), "too-long"),
    "a raw NUL": (GOOD.replace("good", "a\0"), "not-json"),
    "NaN": (GOOD[:-1] + ',"x":NaN}', "not-json"),
    "no end": (GOOD[:-1], "not-json"),
}


def decoded(text: str) -> list[Learned | Rejected]:
    """Decode as a file and as a message; both say the same."""
    data = text.encode("utf-8", "surrogatepass")
    items = list(decode_stream([data], now=lambda: NOW_MS))
    told = decode_message(data, now=lambda: NOW_MS)
    assert [type(item) for item in told] == [type(item) for item in items]
    return items


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_what_is_beyond_a_limit_is_refused_in_every_envelope(envelope: str, hostile: str) -> None:
    text, reason = HOSTILE[hostile]
    found = {
        item.reason if isinstance(item, Rejected) else "read" for item in decoded(ENVELOPES[envelope](text))
    }
    assert found == {reason}


@pytest.mark.parametrize("hostile", [name for name in HOSTILE if name != "no end"])
def test_a_neighbour_of_it_is_read(hostile: str) -> None:
    items = decoded(f"{GOOD}\n{HOSTILE[hostile][0]}\n{GOOD}\n")
    assert [isinstance(item, Learned) for item in items] == [True, False, True]


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_what_is_just_within_a_limit_is_read_in_every_envelope(envelope: str) -> None:
    wide = GOOD[:-1] + f',"x":"{LETTERS[: (1 << 20) - 200]}"' + "}"
    deep = GOOD[:-1] + ',"x":' + "[" * 63 + "]" * 63 + "}"
    long = GOOD.replace("good", "x" * MOST_TEXT_BYTES)
    for text in (wide, deep, long):
        (item,) = decoded(ENVELOPES[envelope](text))
        assert isinstance(item, Learned), item


@pytest.mark.parametrize("depth", [62, 63, 64])
@pytest.mark.parametrize(
    "text", [GOOD, '{"ResponseMetadata":{},"thingName":"p","connected":true,"timestamp":1790000000.5}']
)
def test_what_is_as_deep_as_may_be_is_restored_from_a_recording(text: str, depth: int) -> None:
    """Found where the recording's own line around it counted: what had been taken was refused on its way back."""
    hold_on((text[:-1] + ',"x":' + "[" * (depth - 1) + "]" * (depth - 1) + "}").encode())


def test_of_two_members_of_one_name_the_last_is_read_as_every_reader_of_json_does() -> None:
    (item,) = decoded(GOOD[:-1] + ',"clientId":"other"}')
    assert isinstance(item, Learned)
    assert isinstance(item.evidence, Event)
    assert item.evidence.client_id == "other"


def test_a_byte_order_mark_is_passed_over_and_utf_16_is_refused_whole() -> None:
    assert [type(item) for item in decoded("\ufeff" + GOOD)] == [Learned]
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        data = (GOOD + "\n" + GOOD).encode(encoding)
        items = list(decode_stream([data], now=lambda: NOW_MS))
        assert {item.reason for item in items if isinstance(item, Rejected)} == {"not-json"}
        assert not any(isinstance(item, Learned) for item in items)
        assert (
            sum(item.length for item in items if isinstance(item, Rejected)) > len(data) - 2 * len(items) - 4
        )


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_gzip_in_gzip_is_undone_four_deep(layers: int) -> None:
    data = GOOD.encode()
    for _ in range(layers):
        data = gzip.compress(data)
    (item,) = decode_message(data, now=lambda: NOW_MS)
    assert ("read" if isinstance(item, Learned) else item.reason) == ("read" if layers < 5 else "too-deep")


def nested_bomb(envelopes: int) -> bytes:
    """Make gzip that unpacks to less than a hundred times its size, at each of its envelopes again."""
    noise = random.Random(1).randbytes(60).hex()
    body = gzip.compress(b"{}\n" * 3_000 + f'"{noise}"\n'.encode())
    for _ in range(envelopes):
        body = gzip.compress(sqs(base64.b64encode(body).decode()).encode() * 40)
    return body


@pytest.mark.parametrize("envelopes", [1, 2, 3])
def test_a_bomb_within_bombs_unpacks_to_a_hundred_times_the_message_in_all(envelopes: int) -> None:
    """Found when the limit was held at each envelope only: 240 bytes made 120,040 records."""
    message = nested_bomb(envelopes)
    for items in (
        decode_message(message, now=lambda: NOW_MS),
        list(decode_stream([sqs(base64.b64encode(message).decode()).encode()], now=lambda: NOW_MS)),
    ):
        reasons = Counter(item.reason for item in items if isinstance(item, Rejected))
        assert reasons["too-large"] >= 30
        assert sum(item.length for item in items if isinstance(item, Rejected)) < 200 * len(message)
