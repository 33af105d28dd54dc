"""What was learned of a thing between two moments of learning: the evidence, and what of its timeline it changed.

Reads one snapshot. Looks only where a thing's timeline can have changed in a window: at its transitions, sessions and
checks there, and at what holds at the window's beginning. Costs seeks by client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from queries.explanation import CheckSeen, EvidenceSeen, checks_in, evidence_about
from queries.uptime import Span
from store.annotations import Annotation, Annotations, annotation_from
from store.answer import Asker, Seen
from store.identity import bindings
from store.model import SECOND_MS
from store.seeks import REASON, seen_from


class Fact(NamedTuple):
    """A piece of what was told of a registration: the kind of observation, its instant, and what it said."""

    at_ms: int
    kind: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was learned of one thing, each ascending by when it is of."""

    evidence: Sequence[EvidenceSeen]
    checks: Sequence[CheckSeen]
    registry: Sequence[Fact]
    annotations: Sequence[Annotation]  # made, or withdrawn
    recorded: Sequence[Seen]  # transitions that hold since
    superseded: Sequence[Seen]  # ... and that held until then

    @property
    def is_nothing(self) -> bool:
        """Whether none of it is there."""
        return not any(getattr(self, name) for name in self.__slots__)


def learned_of(
    asker: Asker,
    name: str,
    window: Span,
    since: int,
    until: int,
    *,
    by_client: bool,
    said: Sequence[Annotation] = (),
) -> Learned:
    """Tell what was learned of a thing (or client) in `(since, until]` that is of a window.

    `said` are the annotations of `annotated_between`.
    """
    evidence: list[EvidenceSeen] = []
    checks: list[CheckSeen] = []
    recorded: list[Seen] = []
    superseded: list[Seen] = []
    for client_no in _clients(asker, name, since, until, by_client=by_client):
        span = _span(asker, client_no, window, since, until)
        now, then = [], []
        for seen in _revised(asker, client_no, span, until):
            if since < seen.recorded_at and seen.superseded_at is None:
                now.append(seen)
            elif seen.recorded_at <= since < (seen.superseded_at or since):
                then.append(seen)
        stamps = _stamps(asker, client_no, span, [*now, *then])
        told = evidence_about(asker, client_no, until, stamps)
        evidence += [each for each in told if each.known_at > since]
        recorded += now
        superseded += then
        found = checks_in(asker, client_no, until, span[0] - 2 * SECOND_MS, window[1])
        checks += [each for each in found if each.known_at > since]
    registry = [] if by_client else _registry(asker, name, since, until)
    lifetimes = asker.registry(name, until, whole=True) if said and not by_client else None
    touching = {each.annotation.number: each.annotation for each in Annotations(said).of(name, lifetimes)}
    return Learned(
        evidence=sorted(set(evidence), key=lambda one: (one.at_ms, one.known_at, one.kind, one.session_id)),
        checks=sorted(checks, key=lambda one: (one.asked_ms, one.known_at)),
        registry=registry,
        annotations=list(touching.values()),
        recorded=sorted(recorded, key=_place),
        superseded=sorted(superseded, key=_place),
    )


def annotated_between(asker: Asker, window: Span, since: int, until: int) -> list[Annotation]:
    """List the annotations of a window that were made or withdrawn in `(since, until]`, each as it is since."""
    values = {"realm": asker.realm, "from_ms": window[0], "to_ms": window[1], "known_at": until}
    rows = sorted(map(annotation_from, asker.rows("annotation_versions", **values)))
    newest = {each.number: each for each in rows}
    return [each for each in newest.values() if each.recorded_at > since]


def watched_between(asker: Asker, window: Span, since: int, until: int) -> list[Span]:
    """List the stretches of recording that were stated in `(since, until]` and touch a window."""
    before = {tuple(row[:2]) for row in asker.rows("watches", known_at=since)}
    found = sorted({(row[0], row[1]) for row in asker.rows("watches", known_at=until)} - before)
    return [(from_ms, to_ms) for from_ms, to_ms in found if from_ms < window[1] and to_ms > window[0]]


def _span(asker: Asker, client_no: int, window: Span, since: int, until: int) -> Span:
    """Widen a window by what holds at its beginning; of a client that is first heard of after it, up to there."""
    held = (asker.before(client_no, window[0] + 1, known_at) for known_at in (since, until))
    low_ms = min([window[0], *(seen.at_ms for seen in held if seen is not None)])
    if asker.before(client_no, window[1], until) is None:
        first = asker.after(client_no, window[1] - 1, until)
        return low_ms, window[1] if first is None else first[0] + 1
    return low_ms, window[1]


def _clients(asker: Asker, name: str, since: int, until: int, *, by_client: bool) -> list[int]:
    if by_client:
        own = asker.client_named(name)
        return [] if own is None else [own]
    spoken = (bindings(asker, name, known_at) for known_at in (since, until))
    return list(dict.fromkeys(each.client_no for told in spoken for each in told))


def _revised(asker: Asker, client_no: int, window: Span, until: int) -> Iterator[Seen]:
    """List all versions of the transitions in a window that were known by `until`, as they were known then."""
    rows = asker.rows("versions", client_no=client_no, from_ms=window[0], to_ms=window[1], known_at=until)
    for row in rows:
        seen = seen_from(row, asker.text(row[REASON]))
        hidden = seen.superseded_at is not None and seen.superseded_at > until
        yield seen._replace(superseded_at=None) if hidden else seen


def _stamps(asker: Asker, client_no: int, window: Span, changed: Sequence[Seen]) -> list[int]:
    stamps: set[int | None] = set()
    for seen in changed:
        stamps |= {seen.at_ms, seen.timestamp_ms, seen.not_before_ms, seen.not_after_ms, seen.proved_from_ms}
    for _, _, connect_ms, disconnect_ms, _ in asker.rows("sessions", client_no=client_no):
        told = [stamp for stamp in (connect_ms, disconnect_ms) if stamp is not None]
        stamps |= {stamp for stamp in told if window[0] <= stamp < window[1]}
    return [stamp for stamp in stamps if stamp is not None]


def _registry(asker: Asker, name: str, since: int, until: int) -> list[Fact]:
    def told(known_at: int) -> list[Fact]:
        rows = asker.rows("registry", name=name, realm=asker.realm, known_at=known_at)
        return [Fact(at_ms, kind, body) for kind, at_ms, body in rows]

    before = set(told(since))
    return sorted(each for each in told(until) if each not in before)


def _place(seen: Seen) -> tuple[int, int, int]:
    return seen.at_ms, seen.seq, seen.recorded_at
