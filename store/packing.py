"""Session ids as bytes: the two shapes that AWS uses take 17 bytes, every other string what it needs.

The first byte names the shape. Packing is one to one, and `unpack` gives the very string back.
"""

from __future__ import annotations

from store.model import Identity, Kind, Session

_STRAY_CONNECT, _STRAY_DISCONNECT, _HEX, _DASHED, _TEXT = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"

_SHAPES = {32: _HEX, 36: _DASHED}


def pack_id(session_id: str) -> bytes:
    """Pack a session id as AWS gave it."""
    shape = _SHAPES.get(len(session_id))
    if shape is not None:
        try:
            packed = shape + bytes.fromhex(session_id.replace("-", ""))
        except ValueError:
            packed = b""
        if len(packed) == 17 and unpack_id(packed) == session_id:  # lower case, dashes in their places
            return packed
    return _TEXT + session_id.encode()


def unpack_id(packed: bytes) -> str:
    """Give back the session id; "" for evidence that bore none."""
    shape = packed[:1]
    if shape == _DASHED:
        text = packed[1:].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
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
