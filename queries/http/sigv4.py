"""AWS Signature Version 4, as the server checks it: over the raw path, prefix included, by botocore's own signer.

Stricter than AWS where leniency would let something unsigned through: `host`, `x-amz-date` and every `x-amz-*` that is
sent must be signed, once each; the hash of the body is computed here; a signature in the query is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPMessage
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from queries.http.messages import Refusal, Request

SERVICE = "iot"
WINDOW_MS = 5 * 60_000  # AWS's own

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^/,\s]{1,128})/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request, *"
    r"SignedHeaders=([!-:<-~]+(?:;[!-:<-~]+)*), *Signature=([0-9a-f]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HASH = re.compile(r"[0-9a-f]{64}")
_NOBODY = "A secret that nobody has, so that an unknown key costs what a known one costs"


class _Signer(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer, over the headers that were signed and a hash of the body that was computed here."""

    def __init__(self, secret: str, key_id: str, region: str, payload_hash: str) -> None:
        super().__init__(Credentials(key_id, secret), SERVICE, region)
        self._payload_hash = payload_hash

    def headers_to_sign(self, request: Any) -> Any:
        return request.headers

    def payload(self, request: Any) -> str:
        return self._payload_hash


def _forbidden(name: str, message: str) -> Refusal:
    return Refusal(403, name, message)


def verified_key(request: Request, secrets: Mapping[str, str], *, region: str, now_ms: int) -> str:
    """Give the key id that signed a request. Raises Refusal, 403 and named as AWS does, for any other."""
    (authorization,) = request.all_of("authorization")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise _forbidden(
            "IncompleteSignatureException", "The Authorization header is not one of Signature Version 4."
        )
    key_id, day, scope_region, service, listed, signature = match.groups()
    names = listed.split(";")
    signed = _signed_headers(request, names)
    date = signed.get("x-amz-date", "")
    if not _DATE.fullmatch(date):
        raise _forbidden("IncompleteSignatureException", "X-Amz-Date must be signed: YYYYMMDDTHHMMSSZ.")
    if service != SERVICE or scope_region != region or day != date[:8]:
        raise _forbidden(
            "InvalidSignatureException",
            f"Credential should be scoped to the day of X-Amz-Date, region {region} and service {SERVICE}.",
        )
    payload_hash = hashlib.sha256(request.body).hexdigest()
    told_hash = signed.get("x-amz-content-sha256")
    if told_hash is not None and not hmac.compare_digest(told_hash.encode(), payload_hash.encode()):
        what = "is not that of the body" if _HASH.fullmatch(told_hash) else "must be the hash of the body"
        raise _forbidden("InvalidSignatureException", f"X-Amz-Content-SHA256 {what}.")
    secret = secrets.get(key_id)
    expected = _signature(request, signed, secret or _NOBODY, key_id, region, payload_hash, date)
    is_right = hmac.compare_digest(expected.encode(), signature.encode())
    if secret is None:
        raise _forbidden(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    if not is_right:
        raise _forbidden(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided."
            " Check your AWS Secret Access Key and signing method.",
        )
    _check_age(date, now_ms)
    return key_id


def _signed_headers(request: Request, names: list[str]) -> dict[str, str]:
    """Give the headers that are signed. Raises Refusal where one is missing, is there twice, or should be signed."""
    if names != sorted(set(names)) or any(name != name.lower() for name in names):
        raise _forbidden(
            "IncompleteSignatureException", "SignedHeaders must be in lower case, sorted, each once."
        )
    amz = {name.decode("latin-1") for name in request.named if name.startswith(b"x-amz-")}
    needed = {"host", "x-amz-date"} | amz
    if needed - set(names):
        raise _forbidden(
            "InvalidSignatureException",
            f"These headers must be signed: {', '.join(sorted(needed - set(names)))}.",
        )
    signed: dict[str, str] = {}
    for name in names:
        values = request.all_of(name)
        if len(values) != 1:
            raise _forbidden("InvalidSignatureException", "A signed header must be there, and once only.")
        signed[name] = values[0]
    return signed


def _signature(
    request: Request,
    signed: Mapping[str, str],
    secret: str,
    key_id: str,
    region: str,
    payload_hash: str,
    date: str,
) -> str:
    query = f"?{request.query}" if request.query else ""
    told = AWSRequest(method=request.method, url=f"http://host{request.raw_path}{query}", data=request.body)
    told.headers = HTTPMessage()
    for name, value in signed.items():
        told.headers[name] = value
    told.context["timestamp"] = date
    signer = _Signer(secret, key_id, region, payload_hash)
    return str(signer.signature(signer.string_to_sign(told, signer.canonical_request(told)), told))


def _check_age(date: str, now_ms: int) -> None:
    try:
        at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _forbidden("IncompleteSignatureException", "X-Amz-Date is no time.") from None
    age_ms = now_ms - int(at.timestamp() * 1000)
    if age_ms > WINDOW_MS:
        raise _forbidden(
            "InvalidSignatureException", f"Signature expired: {date} is more than 5 minutes ago."
        )
    if age_ms < -WINDOW_MS:
        raise _forbidden(
            "InvalidSignatureException", f"Signature not yet current: {date} is 5 minutes ahead."
        )
