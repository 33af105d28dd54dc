"""Why an answer is what it is: the evidence about it, the rule that decided, and what had been believed before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from store.annotations import Annotation, Applied, touching
from store.answer import Answer, Asker, Seen
from store.checks import UNNAMED
from store.model import SECOND_MS, State
from store.packing import unpack_id
from store.schema import STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the answer is what it is: the evidence around it, the rule, and what was believed before."""

    answer: Answer
    in_force: Seen
    following: Seen | None
    evidence: Sequence[EvidenceSeen]
    checks: Sequence[CheckSeen]
    believed: Sequence[Seen]  # what was ever believed to hold at the instant, oldest first
    annotations: Sequence[Annotation]  # what people say of the instant, by number


class EvidenceSeen(NamedTuple):
    """A piece of evidence as a question finds it."""

    at_ms: int
    kind: int
    known_at: int
    claimed_at: int | None
    source: str
    session_id: str
    version: int | None
    reason: str | None


class CheckSeen(NamedTuple):
    """An answer of the API as a question finds it; those that repeat it are not listed."""

    asked_ms: int
    named_ms: int | None  # the instant that it names
    state: State
    reason: str | None
    known_at: int
    claimed_at: int | None
    source: str


def explained(asker: Asker, client_no: int, answer: Answer, said: Sequence[Applied] = ()) -> Explanation:
    """Gather what is behind an answer that a client's timeline gave, in the snapshot that is held.

    `said`: what annotations say of the thing.
    """
    known_ms = answer.known_at
    seen = asker.before(client_no, answer.at_ms + 1, known_ms)
    assert seen is not None
    after = asker.after(client_no, answer.at_ms, known_ms)
    following = None
    if after is not None:
        following = asker.timeline(client_no, known_ms, from_ms=after[0], to_ms=after[0] + 1)[0]
    stamps = {seen.at_ms, seen.timestamp_ms, seen.not_before_ms, seen.not_after_ms}
    if following is not None:
        stamps |= {following.at_ms, following.timestamp_ms}
    known_stamps = [stamp for stamp in stamps if stamp is not None]
    return Explanation(
        answer=answer,
        in_force=seen,
        following=following,
        evidence=evidence_about(asker, client_no, known_ms, known_stamps),
        checks=_checks_about(asker, client_no, known_ms, known_stamps),
        believed=asker.believed(client_no, answer.at_ms, known_ms),
        annotations=touching(said, answer.at_ms, answer.at_ms + 1),
    )


def evidence_about(asker: Asker, client_no: int, known_at: int, stamps: Sequence[int]) -> list[EvidenceSeen]:
    """List a client's events that bear any of these stamps, by when they were known."""
    found: list[EvidenceSeen] = []
    for stamp in sorted(stamps):
        for row in asker.rows("evidence_at", client_no=client_no, at_ms=stamp, known_at=known_at):
            at_ms, kind, known, claimed_at, source, packed, version, reason = row
            session_id = "" if packed is None else unpack_id(bytes(packed))
            found.append(EvidenceSeen(at_ms, kind, known, claimed_at, source, session_id, version, reason))
    return sorted(found, key=lambda one: (one.known_at, one.at_ms, one.kind))


def _checks_about(asker: Asker, client_no: int, known_at: int, stamps: Sequence[int]) -> list[CheckSeen]:
    """List the answers that name these instants, to about a second, or were asked then and named none."""
    found: dict[tuple[int, ...], CheckSeen] = {}
    for stamp in stamps:
        for each in checks_in(asker, client_no, known_at, stamp - 2 * SECOND_MS, stamp + SECOND_MS):
            about_ms = each.asked_ms if each.named_ms is None else each.named_ms
            found[each.asked_ms, about_ms, each.known_at] = each
    return [found[place] for place in sorted(found)]


def checks_in(asker: Asker, client_no: int, known_at: int, from_ms: int, to_ms: int) -> list[CheckSeen]:
    """List the answers that name an instant of `[from_ms, to_ms]`, or were asked then and named none."""
    values = {"client_no": client_no, "from_ms": from_ms, "to_ms": to_ms, "known_at": known_at}
    return [
        CheckSeen(
            asked_ms,
            None if named == UNNAMED else about_ms,
            STATES[state],
            reason,
            known,
            claimed_at,
            source,
        )
        for asked_ms, about_ms, named, state, reason, known, claimed_at, source in asker.rows(
            "checks_about", **values
        )
    ]
