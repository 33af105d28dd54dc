"""Gzip, found by its first bytes and undone piece by piece in constant memory.

Owns the recognising of gzip (several members, padding, gzip in gzip) and the naming of its breaks. It must
never hold more than one step of output, and never raise for bytes: a break is the last item, as a value.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

MAGIC = b"\x1f\x8b\x08"
STEP_BYTES = 1 << 20  # output of one step
_FEED_BYTES = 64 << 10  # input of one step
LAYERS = 4  # gzip in gzip, as deep as envelopes may be


class Broken(NamedTuple):
    """Why a source ended before its end. Only ever the last item of a stream."""

    reason: str
    detail: str


TRUNCATED = Broken(
    "truncated-gzip", "the gzip stream stops before its end; fetch the file again, what came before is kept"
)
CORRUPT = Broken(
    "corrupt-gzip", "the gzip stream is damaged here; fetch the file again, what came before is kept"
)
TOO_DEEP = Broken("too-deep", f"gzip within gzip more than {LAYERS} deep; unpack it first")
TOO_LARGE = Broken(
    "too-large", "the message unpacks to more than 100 times its size or 256 MiB; give it as a file instead"
)


def inflate(
    chunks: Iterable[bytes | Broken], *, most: int | None = None, layers: int = LAYERS
) -> Iterator[bytes | Broken]:
    """Yield the bytes of `chunks`, unpacked where they begin like gzip, unchanged where not.

    `most` bounds the bytes unpacked by each layer; None does not. A break comes last, as a Broken. Bytes
    behind the last member that are neither a member nor padding are passed on as they are.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        if isinstance(chunk, Broken):
            if head:
                yield head
            yield chunk
            return
        head += chunk
        if len(head) >= len(MAGIC):
            break
    if not (len(head) > 1 and head.startswith(MAGIC[: len(head)])):
        if head:
            yield head
        yield from source
    elif layers == 0:
        yield TOO_DEEP
    else:
        yield from inflate(_members(chain([head], source), most), most=most, layers=layers - 1)


def _members(chunks: Iterable[bytes | Broken], most: int | None) -> Iterator[bytes | Broken]:
    source = iter(chunks)
    engine = zlib.decompressobj(31)
    between = False
    held = b""
    made = 0
    for chunk in source:
        if isinstance(chunk, Broken):
            yield chunk
            return
        if not chunk:  # the source pauses
            yield chunk
            continue
        data = held + chunk
        held = b""
        while True:
            if between:
                data = data.lstrip(b"\0")
                if len(data) < len(MAGIC) and MAGIC.startswith(data):
                    held = data
                    break
                if not data.startswith(MAGIC):
                    yield data
                    yield from source
                    return
                engine = zlib.decompressobj(31)
                between = False
            data, later = data[:_FEED_BYTES], data[_FEED_BYTES:]
            before = engine.copy()
            try:
                out = engine.decompress(data, STEP_BYTES)
            except zlib.error:
                yield from _salvage(before, data)
                yield CORRUPT
                return
            made += len(out)
            if most is not None and made > most:
                yield TOO_LARGE
                return
            if out:
                yield out
            if engine.eof:
                between = True
                data = engine.unused_data + later
            else:
                data = engine.unconsumed_tail + later
                if not data and len(out) < STEP_BYTES:
                    break
    if held:
        yield held
    elif not between:
        yield TRUNCATED


def _salvage(engine: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """Yield what comes out before the damage; zlib drops it when fed the damage in one piece."""
    for at in range(len(data)):
        try:
            out = engine.decompress(data[at : at + 1])
        except zlib.error:
            return
        if out:
            yield out
