"""What is known of a thing at an instant, read no further than it is needed: its connection, whether there was such a
thing at all, what it was registered as.

Each costs more than the one before it, and most things are of no interest once their connection is known. Decides
nothing of an answer: that is for store/answer.py and store/registry.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from queries.documents import Document
from queries.history import Reading
from store.ahead import registry_ahead, standing_ahead
from store.answer import answer_held


class Depth(IntEnum):
    """How much of a document was read."""

    STANDING = 1  # its name and its connection; whether there was such a thing, nobody has looked
    THERE = 2  # ... and that there was such a thing
    WHOLE = 3


class Sketch(NamedTuple):
    """A document as far as it was read; `is_answered`: its timeline says something of that instant."""

    document: Document
    depth: Depth
    is_answered: bool


Told = dict[str, Sketch | None]  # by name; None: there was no such thing


def sketched(reading: Reading, names: Sequence[str], at_ms: int) -> dict[str, Sketch]:
    """Read how things stand, from their timelines alone; of an instant that may be asked about."""
    asker, known_at = reading.asker, reading.known_at
    standing_ahead(asker, names, at_ms, known_at)
    told: dict[str, Sketch] = {}
    for name in names:
        answer = answer_held(asker, name, at_ms, known_at=known_at)
        document = Document(name)
        if answer is not None and answer.connected is not None:
            reason = None if answer.connected else answer.disconnect_reason
            document = Document(
                name, connected=answer.connected, timestamp_ms=answer.timestamp_ms, reason=reason
            )
        told[name] = Sketch(document, Depth.STANDING, answer is not None)
    return told


def deepened(reading: Reading, sketches: Sequence[Sketch], at_ms: int, depth: Depth) -> Told:
    """Read on of things that were sketched at the same instant.

    Of one that was registered, while nothing is known of its connection, the index says nothing of that.
    """
    asker, known_at = reading.asker, reading.known_at
    names = [each.document.thing_name for each in sketches]
    registry_ahead(asker, names, known_at, whole=depth is Depth.WHOLE)
    told: Told = {}
    for name, sketch in zip(names, sketches, strict=True):
        if sketch.depth is Depth.STANDING:
            is_registered = asker.is_registered(name, at_ms, known_at)
            if is_registered is False or not (is_registered or sketch.is_answered):
                told[name] = None
                continue
        told[name] = (
            _described(reading, sketch, at_ms) if depth is Depth.WHOLE else sketch._replace(depth=depth)
        )
    return told


def _described(reading: Reading, sketch: Sketch, at_ms: int) -> Sketch:
    document = sketch.document
    registry = reading.asker.registry(document.thing_name, reading.known_at, whole=True)
    lifetime = None if registry is None else registry.lifetime(at_ms)
    if lifetime is not None:
        said = lifetime.described(at_ms)
        document = document._replace(
            thing_id=lifetime.thing_id,
            type_name=said.type_name,
            groups=said.groups,
            attributes=said.attributes,
        )
    return Sketch(document, Depth.WHOLE, sketch.is_answered)
