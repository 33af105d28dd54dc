"""Session ids as bytes: the two shapes that AWS uses take 17 bytes, every other string what it needs.

The first byte names the shape. Packing is one to one, and `unpack` gives the very string back.
"""

from __future__ import annotations

import re
from uuid import UUID

from store.model import Identity, Kind, Session

_STRAY_CONNECT, _STRAY_DISCONNECT, _HEX, _DASHED, _TEXT = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"

_DASHED_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_HEX_SHAPE = re.compile(r"[0-9a-f]{32}\Z")


def pack_id(session_id: str) -> bytes:
    """Pack a session id as AWS gave it."""
    if len(session_id) == 36 and _DASHED_SHAPE.match(session_id):
        return _DASHED + bytes.fromhex(session_id.replace("-", ""))
    if len(session_id) == 32 and _HEX_SHAPE.match(session_id):
        return _HEX + bytes.fromhex(session_id)
    return _TEXT + session_id.encode()


def unpack_id(packed: bytes) -> str:
    """Give back the session id; "" for evidence that bore none."""
    shape = packed[:1]
    if shape == _DASHED:
        return str(UUID(bytes=packed[1:]))
    if shape == _HEX:
        return packed[1:].hex()
    return packed[1:].decode() if shape == _TEXT else ""


def pack_identity(identity: Identity) -> bytes:
    """Pack what a session is merged by: its id, or what evidence without one says of itself."""
    if identity.session_id:
        return pack_id(identity.session_id)
    shape = _STRAY_CONNECT if identity.kind == Kind.CONNECTED else _STRAY_DISCONNECT
    stamp = identity.stamp_ms.to_bytes(8, "big", signed=True)
    return shape + stamp + identity.version.to_bytes(8, "big", signed=True)


def session_from(
    packed: bytes,
    version: int | None,
    connect_ms: int | None,
    disconnect_ms: int | None,
    reason: str | None,
) -> Session:
    """Build a session from a row of the store."""
    return Session(unpack_id(bytes(packed)), version, connect_ms, disconnect_ms, reason)
