"""What could not be read, as a value that can be found again and recognised.

Owns the making of a refusal, from bytes at hand or from a stretch of any length. It must never keep more of
it than its head.
"""

from __future__ import annotations

import hashlib
import re

from store.model import Rejected

HEAD_BYTES = 64 << 10

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


class Unreadable(ValueError):
    """What was found cannot be evidence; the slug says why, the detail what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def rejected(reason: str, detail: str, raw: bytes, position: int) -> Rejected:
    """Make the record of something unreadable from its whole bytes."""
    return Rejected(
        reason=reason,
        detail=detail,
        head=raw[:HEAD_BYTES],
        length=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        position=position,
    )


def is_binary(sample: bytes, *, whole: bool) -> bool:
    """Say whether a stretch that begins so is no text; `whole` when the sample was not cut."""
    if _CONTROL.search(sample):
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return whole or error.reason != "unexpected end of data"
    return False


class Run:
    """A stretch that cannot be read, hashed while it is skipped, so that its size does not matter."""

    __slots__ = (
        "_hash", "binary", "detail", "gap", "head", "length", "new_line", "open", "position", "reason",
    )  # fmt: skip

    def __init__(self, position: int, reason: str, detail: str, *, binary: bool, cut: bool) -> None:
        self.position = position
        self.reason = reason
        self.detail = detail
        self.binary = binary
        self.open = cut  # an object that does not end: the lines below may be the rest of it
        self.head = b""
        self.length = 0
        self.gap = b""  # separators since the last piece, which belong to the run only if it goes on
        self.new_line = False
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        if self.gap:
            piece, self.gap = self.gap + piece, b""
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]
        self.length += len(piece)
        self._hash.update(piece)

    def rejected(self) -> Rejected:
        return Rejected(
            reason=self.reason,
            detail=self.detail,
            head=self.head,
            length=self.length,
            sha256=self._hash.hexdigest(),
            position=self.position,
        )
