"""Where a listing goes on: a token that holds its page's place, and the two instants of its first page. Pure.

It is opaque to clients, and signed: one that was made up, or made for another question, is refused. The instants are
pinned, so that a listing is of one state of the fleet while the store grows. A question about another instant is
another question; one about "now" or "two hours ago" is the same as long as it asks for the same distance from now.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import NamedTuple

from store.errors import InvalidRequest
from store.model import SECOND_MS

MOST_CHARACTERS = 2_000
_SIGNATURE_BYTES = 32


class Asked(NamedTuple):
    """What a page is asked of: the operation and its members, the instants as they were understood, and the clock."""

    operation: str
    members: Mapping[str, object]
    at_ms: int
    known_at: int | None  # None: as known now
    now_ms: int


class Place(NamedTuple):
    """Where the next page begins: behind a name; and of which instants it is."""

    after: str
    at_ms: int
    known_at: int


class _Held(NamedTuple):
    after: str
    at_ms: int
    known_at: int
    asked_at: int | None  # the moment of learning as it was asked for
    now_ms: int
    digest: str


def token_of(place: Place, asked: Asked, key: bytes) -> str:
    """Write a token. `asked` is what the first page was asked of."""
    held = _Held(*place, asked.known_at, asked.now_ms, _digest(asked))
    body = json.dumps(held, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_signature(body, key) + body).decode()


def place_of(token: str, asked: Asked, key: bytes) -> tuple[Place, Asked]:
    """Read a token: the place, and what the first page was asked of. Raises InvalidRequest for one of anything else."""
    refused = InvalidRequest("The nextToken is not one of this question; ask again without it.")
    if len(token) > MOST_CHARACTERS or not token.isascii():
        raise refused
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refused from None
    signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(body, key)):
        raise refused
    held = _Held(*json.loads(body))
    if held.digest != _digest(asked):
        raise refused
    for one_ms, other_ms in ((held.at_ms, asked.at_ms), (held.asked_at, asked.known_at)):
        if not _same(one_ms, held.now_ms, other_ms, asked.now_ms):
            raise refused
    first = asked._replace(at_ms=held.at_ms, known_at=held.asked_at, now_ms=held.now_ms)
    return Place(held.after, held.at_ms, held.known_at), first


def _same(one_ms: int | None, its_now_ms: int, other_ms: int | None, other_now_ms: int) -> bool:
    """Tell whether two instants are one, or as far from when they were asked for."""
    if one_ms is None or other_ms is None:
        return one_ms is other_ms
    return one_ms == other_ms or abs((its_now_ms - one_ms) - (other_now_ms - other_ms)) <= SECOND_MS


def _digest(asked: Asked) -> str:
    told = json.dumps([asked.operation, dict(asked.members)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _signature(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()
