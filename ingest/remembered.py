"""The clients that a writer keeps in mind: those that spoke lately at hand, and the others packed.

To unpack the end of a history costs half of what reading it from a small store does, and it takes a quarter of the
memory that it takes at hand. Nothing here is more than the store holds: to forget costs time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ingest.client import Client, resumed, trim
from store.model import Session

AT_HAND = 8_000  # clients
PACKED = 80_000  # ... some 600 bytes each


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """What does not follow from the rest, of a client that no check and no stray speaks of."""

    client_no: int
    tail: list[Session]
    opens_left: bool
    first_ms: int | None
    last_known_at: int | None
    written_in: int | None


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Packed).decode


class Remembered:
    """Clients by their ids."""

    def __init__(self) -> None:
        self._at_hand: dict[str, Client] = {}
        self._packed: dict[str, bytes] = {}

    def get(self, client_id: str) -> Client | None:
        """Give a client that is in mind, which is at hand then."""
        client = self._at_hand.get(client_id)
        if client is None:
            packed = self._packed.pop(client_id, None)
            if packed is not None:
                client = self._at_hand[client_id] = _unpacked(packed)
        return client

    def known(self, ids: Iterable[str]) -> dict[str, Client]:
        """Give those of the clients that are in mind."""
        found = ((client_id, self.get(client_id)) for client_id in ids)
        return {client_id: client for client_id, client in found if client is not None}

    def keep(self, clients: Mapping[str, Client]) -> None:
        """Keep clients at hand."""
        self._at_hand |= clients

    def shrink(self, needed: Iterable[str]) -> None:
        """Pack what was at hand longest, but for those that are needed, and forget what was packed longest."""
        if len(self._at_hand) <= AT_HAND:
            return
        needed = set(needed)
        going = [each for each in list(self._at_hand)[: -AT_HAND // 2] if each not in needed]
        for client_id in going:
            client = self._at_hand.pop(client_id)
            if client.checked_ms is None and not client.has_strays:
                trim(client, times=1)
                self._packed[client_id] = _pack(
                    _Packed(
                        client.client_no,
                        list(client.tail.values()),
                        client.opens_left,
                        client.first_ms,
                        client.last_known_at,
                        client.written_in,
                    )
                )
        for client_id in list(self._packed)[: max(0, len(self._packed) - PACKED)]:
            del self._packed[client_id]


def _unpacked(packed: bytes) -> Client:
    told = _unpack(packed)
    client = resumed(
        told.client_no,
        told.tail,
        opens_left=told.opens_left,
        first_ms=told.first_ms,
        last_known_at=told.last_known_at,
    )
    client.written_in = told.written_in
    return client
