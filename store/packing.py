"""Session ids as bytes: the two shapes that AWS uses take 17 bytes, every other string what it needs.

The first byte names the shape. Packing is one to one, and `unpack` gives the very string back.

And the askings of a sweep as bytes: a slot of three a client, holding how many milliseconds after the row's
own moment it was asked, and one more; 0 for a client that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from store.model import Identity, Kind, Session

BLOCK = 256  # clients a row of sweeps
SLOT_BYTES = 3
LONGEST_SWEEP_MS = (1 << 8 * SLOT_BYTES) - 2  # between the first asking of a row and its last

_STRAY_CONNECT, _STRAY_DISCONNECT, _HEX, _DASHED, _TEXT = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"


def _dashed(number: bytes) -> str:
    text = number.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_SHAPES: dict[int, tuple[bytes, Callable[[bytes], str]]] = {32: (_HEX, bytes.hex), 36: (_DASHED, _dashed)}


def pack_id(session_id: str) -> bytes:
    """Pack a session id as AWS gave it."""
    found = _SHAPES.get(len(session_id))
    if found is not None:
        shape, written = found
        try:
            number = bytes.fromhex(session_id.replace("-", ""))
        except ValueError:
            number = b""
        if written(number) == session_id:  # lower case, dashes in their places
            return shape + number
    return _TEXT + session_id.encode()


def unpack_id(packed: bytes) -> str:
    """Give back the session id; "" for evidence that bore none."""
    shape = packed[:1]
    if shape == _DASHED:
        return _dashed(packed[1:])
    if shape == _HEX:
        return packed[1:].hex()
    return packed[1:].decode() if shape == _TEXT else ""


def pack_identity(identity: Identity) -> bytes:
    """Pack what a session is merged by: its id, or what evidence without one says of itself."""
    if isinstance(identity, str):
        return pack_id(identity)
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


def pack_slots(asked: Mapping[int, int]) -> tuple[int, int, bytes]:
    """Pack `{slot: asked_ms}` as `(earliest asked_ms, first slot, bytes)`; they span LONGEST_SWEEP_MS at most."""
    first, last, earliest_ms = min(asked), max(asked), min(asked.values())
    packed = bytearray(SLOT_BYTES * (last - first + 1))
    for slot, asked_ms in asked.items():
        at = SLOT_BYTES * (slot - first)
        packed[at : at + SLOT_BYTES] = (asked_ms - earliest_ms + 1).to_bytes(SLOT_BYTES, "big")
    return earliest_ms, first, bytes(packed)


def unpack_slots(earliest_ms: int, first: int, packed: bytes) -> Iterator[tuple[int, int]]:
    """List `(slot, asked_ms)` of a row, ascending by slot."""
    for at in range(0, len(packed), SLOT_BYTES):
        after = int.from_bytes(packed[at : at + SLOT_BYTES], "big")
        if after:
            yield first + at // SLOT_BYTES, earliest_ms + after - 1


def slot_ms(earliest_ms: int, first: int, packed: bytes, slot: int) -> int | None:
    """Tell when the client of a slot was asked; None where it was not."""
    at = SLOT_BYTES * (slot - first)
    after = int.from_bytes(packed[at : at + SLOT_BYTES], "big") if at >= 0 else 0
    return earliest_ms + after - 1 if after else None
