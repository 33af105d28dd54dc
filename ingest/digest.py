"""Evidence numbered by its whole content: equal content, equal number, whatever path it came by."""

from __future__ import annotations

import hashlib

import msgspec

from store.model import Event, Observation

_encode = msgspec.json.Encoder().encode


def digest(evidence: Event | Observation) -> int:
    """Number evidence by its whole content: equal content, equal number, whatever path it came by."""
    return int.from_bytes(
        hashlib.blake2b(_encode(tuple(evidence)), digest_size=8).digest(), "big", signed=True
    )
