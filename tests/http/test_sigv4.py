"""Signatures: those of botocore's signer are taken, and nothing else: forged, stripped, old, moved or doubled ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys

from queries.http.auth import Gate
from queries.http.credentials import Credentials
from queries.http.messages import Refusal, Request
from queries.http.sigv4 import WINDOW_MS
from store.clock import system_clock
from tests.http.answers import SECRET_KEYS

HOST = "history.example:8080"
PATH = "/at/2026-11-01T03:12:00Z/things/pump-17/connectivity-data"
Headers = list[tuple[str, str]]


def gate(clock: Callable[[], int] = system_clock) -> Gate:
    return Gate(Credentials(secrets=dict([SECRET_KEYS])), region="eu-west-1", clock=clock)


def signed(
    path: str = PATH,
    *,
    query: str = "",
    body: bytes = b"",
    method: str = "POST",
    keys: tuple[str, str] = SECRET_KEYS,
    region: str = "eu-west-1",
    service: str = "iot",
    more: dict[str, str] | None = None,
) -> Headers:
    """Give the headers of a request as botocore signs it."""
    url = f"http://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers={"host": HOST, **(more or {})}, data=body)
    SigV4Auth(Keys(*keys), service, region).add_auth(request)
    return [(name.lower(), value) for name, value in request.headers.items()]


def request(
    headers: Headers, path: str = PATH, *, query: str = "", body: bytes = b"", method: str = "POST"
) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Request(method, path, query, raw, dict(raw), body, "192.0.2.1")


def without(headers: Headers, name: str) -> Headers:
    return [one for one in headers if one[0] != name]


def replaced(headers: Headers, name: str, change: Callable[[str], str]) -> Headers:
    return [(key, change(value) if key == name else value) for key, value in headers]


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "/at/2026-11-01T03%3A12%3A00%2B00%3A00/things/pump-17/connectivity-data",
        "/at/2026-11-01T03:12:00+00:00//things/pump-17/connectivity-data",
        "/things/a%2Fb/connectivity-data",
        "/things/../connectivity-data",
    ],
)
def test_a_signature_over_the_raw_path_is_taken(path: str) -> None:
    told = request(signed(path, body=b"{}"), path, body=b"{}")
    assert gate().admit(told) == SECRET_KEYS[0]


def test_a_signature_over_a_query_and_more_headers_is_taken() -> None:
    body = b'{"queryString":"*"}'
    more = {
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        "x-amz-user-agent": "aws-sdk-js/3",
        "content-type": "application/json",
    }
    headers = signed("/things", query="b=2&a=%201", body=body, more=more)
    assert gate().admit(request(headers, "/things", query="b=2&a=%201", body=body)) == SECRET_KEYS[0]


FORGED: dict[str, Callable[[], tuple[Headers, dict[str, Any]]]] = {
    "no signature": lambda: ([("host", HOST)], {}),
    "another secret": lambda: (signed(keys=(SECRET_KEYS[0], "x" * 40)), {}),
    "an unknown key": lambda: (signed(keys=("AKIAUNKNOWN", SECRET_KEYS[1])), {}),
    "another Region": lambda: (signed(region="us-east-1"), {}),
    "another service": lambda: (signed(service="iotdata"), {}),
    "another path": lambda: (signed(), {"path": PATH.replace("pump-17", "pump-18")}),
    "another instant": lambda: (signed(), {"path": PATH.replace("03:12", "03:13")}),
    "a path without its prefix": lambda: (signed("/things/pump-17/connectivity-data"), {}),
    "another encoding of the path": lambda: (signed(), {"path": PATH.replace(":", "%3A")}),
    "another method": lambda: (signed(method="GET"), {}),
    "another query": lambda: (signed(), {"query": "a=1"}),
    "another body": lambda: (signed(body=b"{}"), {"body": b"[]"}),
    "a body where none was signed": lambda: (signed(), {"body": b"{}"}),
    "another host": lambda: (replaced(signed(), "host", lambda _: "evil.example"), {}),
    "another date": lambda: (
        replaced(signed(), "x-amz-date", lambda one: f"{one[:-2]}{(int(one[-2]) + 1) % 10}Z"),
        {},
    ),
    "a signature of zeros": lambda: (
        replaced(signed(), "authorization", lambda one: one[:-64] + "0" * 64),
        {},
    ),
    "a signature cut short": lambda: (replaced(signed(), "authorization", lambda one: one[:-1]), {}),
    "no date": lambda: (without(signed(), "x-amz-date"), {}),
    "no host": lambda: (without(signed(), "host"), {}),
    "the date not signed": lambda: (_unlisted("x-amz-date"), {}),
    "the host not signed": lambda: (_unlisted("host"), {}),
    "an x-amz header not signed": lambda: ([*signed(), ("x-amz-target", "other")], {}),
    "a signed header twice": lambda: ([*signed(more={"x-a": "1"}), ("x-a", "1")], {}),
    "a host twice": lambda: ([*signed(), ("host", HOST)], {}),
    "a signed header that is not there": lambda: (without(signed(more={"x-a": "1"}), "x-a"), {}),
    "two Authorization headers": lambda: ([*signed(), ("authorization", "Bearer x")], {}),
    "an unsigned payload": lambda: (signed(more={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}), {}),
    "the hash of another body": lambda: (
        signed(more={"x-amz-content-sha256": hashlib.sha256(b"[]").hexdigest()}),
        {},
    ),
    "a signature in the query": lambda: _presigned(),
    "another algorithm": lambda: (
        replaced(signed(), "authorization", lambda one: one.replace("HMAC-SHA256", "HMAC-SHA1")),
        {},
    ),
    "an empty Authorization": lambda: (replaced(signed(), "authorization", lambda _: ""), {}),
    "a bearer token": lambda: ([("host", HOST), ("authorization", f"Bearer {SECRET_KEYS[1]}")], {}),
    "credentials of Basic": lambda: ([("host", HOST), ("authorization", "Basic QUtJQTp4")], {}),
}


def _unlisted(name: str) -> Headers:
    """Sign without a header, as a signer that leaves it out does."""

    class Lax(SigV4Auth):  # type: ignore[misc]
        def headers_to_sign(self, told: Any) -> Any:
            kept = super().headers_to_sign(told)
            del kept[name]
            return kept

    told = AWSRequest("POST", f"http://{HOST}{PATH}", headers={"host": HOST})
    Lax(Keys(*SECRET_KEYS), "iot", "eu-west-1").add_auth(told)
    return [(key.lower(), value) for key, value in told.headers.items()]


def _presigned() -> tuple[Headers, dict[str, Any]]:
    told = AWSRequest("POST", f"http://{HOST}{PATH}", headers={"host": HOST})
    SigV4QueryAuth(Keys(*SECRET_KEYS), "iot", "eu-west-1").add_auth(told)
    return [("host", HOST)], {"query": told.url.partition("?")[2]}


@pytest.mark.parametrize("name", FORGED)
def test_anything_else_is_refused(name: str) -> None:
    headers, changed = FORGED[name]()
    with pytest.raises(Refusal) as refused:
        gate().admit(request(headers, **changed))
    assert refused.value.status in (400, 401, 403)
    assert SECRET_KEYS[1] not in str(refused.value)


def test_what_the_refusals_start_from_is_taken() -> None:
    assert gate().admit(request(signed(more={"x-a": "1"}))) == SECRET_KEYS[0]


@pytest.mark.parametrize("skew_ms", [-WINDOW_MS - 2_000, WINDOW_MS + 2_000])
def test_a_signature_of_more_than_five_minutes_is_refused(skew_ms: int) -> None:
    headers = signed()
    with pytest.raises(Refusal, match=r"Signature (expired|not yet current)"):
        gate(lambda: system_clock() + skew_ms).admit(request(headers))


@pytest.mark.parametrize("skew_ms", [-WINDOW_MS + 5_000, WINDOW_MS - 5_000])
def test_a_signature_of_less_is_taken(skew_ms: int) -> None:
    headers = signed()
    assert gate(lambda: system_clock() + skew_ms).admit(request(headers)) == SECRET_KEYS[0]
