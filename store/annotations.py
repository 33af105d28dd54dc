"""What people say of a stretch of time: maintenance, a false alarm, a ticket; and of which thing it is said when. Pure.

An annotation is said of one thing, of the things of a group (those that belong to it at the time), or of all things of
its realm. It never touches evidence. It is of two clocks: of the stretch `[from_ms, to_ms)`, and known from
`recorded_at` until `superseded_at`. Withdrawn, it gets a new version that says by whom and why; nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from store.registry import Registry

COLUMNS = (
    "annotation_no, version, withdrawn, kind, scope, subject, from_ms, to_ms, ticket, note, author, recorded_at,"
    " superseded_at"
)


class Note(StrEnum):
    """What is said."""

    MAINTENANCE = "maintenance"
    FALSE_ALARM = "false-alarm"
    TICKET = "ticket"


class Scope(StrEnum):
    """Of whom it is said."""

    THING = "thing"
    GROUP = "group"
    ALL = "all"


class Annotation(NamedTuple):
    """One version of an annotation. `subject`: the thing (or the client that is none) or the group; None: all."""

    number: int
    version: int
    withdrawn: bool
    kind: Note
    scope: Scope
    subject: str | None
    from_ms: int
    to_ms: int
    ticket: str | None
    note: str | None
    author: str | None
    recorded_at: int
    superseded_at: int | None

    def as_known_at(self, known_at: int) -> Annotation:
        """Give it as it was known at a moment by which it was recorded: nobody knew that it would be superseded."""
        hidden = self.superseded_at is not None and self.superseded_at > known_at
        return self._replace(superseded_at=None) if hidden else self


class Applied(NamedTuple):
    """A stretch of a thing's time `[from_ms, to_ms)` of which an annotation speaks."""

    from_ms: int
    to_ms: int
    annotation: Annotation


def annotation_from(row: Sequence[object]) -> Annotation:
    """Build an annotation from a row of COLUMNS."""
    number, version, withdrawn, kind, scope, *rest = row
    return Annotation(number, version, bool(withdrawn), Note(kind), Scope(scope), *rest)  # type: ignore[arg-type]


class Annotations:
    """Those that were known at one moment, by whom they speak of."""

    def __init__(self, known: Iterable[Annotation]) -> None:
        self._things: dict[str | None, list[Annotation]] = {}
        self._groups: list[Annotation] = []
        self._all: list[Annotation] = []
        self.count = 0
        for each in known:
            self.count += 1
            if each.scope is Scope.THING:
                self._things.setdefault(each.subject, []).append(each)
            else:
                (self._groups if each.scope is Scope.GROUP else self._all).append(each)

    @property
    def of_groups(self) -> bool:
        """Whether a thing's groups are needed to tell which speak of it."""
        return bool(self._groups)

    def of(self, name: str, registry: Registry | None) -> list[Applied]:
        """List what is said of a thing's time, ascending; of groups, while it was in them."""
        if not self.count:
            return []
        found = [
            Applied(each.from_ms, each.to_ms, each) for each in (*self._things.get(name, ()), *self._all)
        ]
        if registry is not None:
            for each in self._groups:
                found += (Applied(*span, each) for span in _member(registry, each))
        return sorted(found, key=lambda one: (one.from_ms, one.annotation.number, one.to_ms))


def _member(registry: Registry, said: Annotation) -> Iterator[tuple[int, int]]:
    """Give the parts of an annotation's stretch in which a thing was in its group."""
    for lifetime in registry.lifetimes:
        begins = [from_ms for from_ms, _ in lifetime.descriptions]
        begins[0] = min(begins[0], lifetime.from_ms)
        ends = [*begins[1:], lifetime.to_ms]
        for from_ms, to_ms, (_, described) in zip(begins, ends, lifetime.descriptions, strict=True):
            low_ms = max(from_ms, said.from_ms)
            high_ms = said.to_ms if to_ms is None else min(to_ms, said.to_ms)
            if said.subject in described.groups and low_ms < high_ms:
                yield low_ms, high_ms


def touching(applied: Iterable[Applied], from_ms: int, to_ms: int) -> list[Annotation]:
    """List the annotations that speak of any of `[from_ms, to_ms)`, each once, ascending."""
    found = {
        one.annotation.number: one.annotation
        for one in applied
        if one.from_ms < to_ms and one.to_ms > from_ms
    }
    return list(found.values())


def annotation_json(each: Annotation, iso: Callable[[int], str]) -> dict[str, Any]:
    """Give an annotation as an object; `iso` writes times."""
    return {
        "annotation": each.number,
        "kind": each.kind.value,
        "scope": each.scope.value,
        "subject": each.subject,
        "from": iso(each.from_ms),
        "to": iso(each.to_ms),
        "ticket": each.ticket,
        "note": each.note,
        "author": each.author,
        "recordedAt": iso(each.recorded_at),
        "supersededAt": None if each.superseded_at is None else iso(each.superseded_at),
        "withdrawn": each.withdrawn,
    }
