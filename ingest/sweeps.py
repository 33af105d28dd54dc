"""Checks on their way into the store: which have a row of their own, and which repeat what was said before.

The *answer* of a check is its JSON with `"*"` in place of the moment of asking: equal answers, one text. (A
check that said "*" there itself would have been quarantined, so that nothing else looks like it.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest.checks import check_of
from ingest.client import Last
from ingest.digest import digest
from store.checks import Kept
from store.model import LAG_MS, SECOND_MS, Check, Event, Observation, Watch
from store.packing import BLOCK, LONGEST_SWEEP_MS, pack_slots, unpack_slots

_ASKED = re.compile(r'\{"api":"\w+","askedAt":([0-9]{1,15})[,}]', re.ASCII)
_STARRED = re.compile(r'\{"api":"\w+","askedAt":("\*")[,}]', re.ASCII)


def answer_of(body: str, asked_ms: int) -> str:
    """Take the moment of asking out of a check's canonical JSON, where that says it in milliseconds."""
    found = _ASKED.match(body)
    if found is None or int(found[1]) != asked_ms:
        return body
    return f'{body[: found.start(1)]}"*"{body[found.end(1) :]}'


def body_of(answer: str, asked_ms: int) -> str:
    """Put a moment of asking into an answer: the inverse of `answer_of`."""
    found = _STARRED.match(answer)
    return answer if found is None else f"{answer[: found.start(1)]}{asked_ms}{answer[found.end(1) :]}"


def sweep_rows(asked: Iterable[tuple[int, int, int]], source_no: int) -> list[tuple[Any, ...]]:
    """Pack `(client_no, known_at, asked_ms)`, one a client and known_at, into rows of sweeps."""
    blocks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for client_no, known_at, asked_ms in asked:
        blocks.setdefault((client_no // BLOCK, known_at), []).append((asked_ms, client_no % BLOCK))
    rows: list[tuple[Any, ...]] = []
    for (block_no, known_at), found in sorted(blocks.items()):
        row: dict[int, int] = {}
        first_ms = 0
        for asked_ms, slot in sorted(found):
            if row and asked_ms - first_ms > LONGEST_SWEEP_MS:
                rows.append(_sweep_row(block_no, known_at, source_no, row))
                row = {}
            first_ms = first_ms if row else asked_ms
            row[slot] = asked_ms
        rows.append(_sweep_row(block_no, known_at, source_no, row))
    return rows


def _sweep_row(block_no: int, known_at: int, source_no: int, asked: Mapping[int, int]) -> tuple[Any, ...]:
    asked_ms, first_slot, slots = pack_slots(asked)
    return block_no, known_at, asked_ms, source_no, first_slot, slots


def asked_in(row: tuple[Any, ...]) -> list[tuple[int, int, int]]:
    """Unpack a row of sweeps into `(client_no, known_at, asked_ms)`."""
    block_no, known_at, asked_ms, _, first_slot, slots = row
    return [
        (block_no * BLOCK + slot, known_at, each_ms)
        for slot, each_ms in unpack_slots(asked_ms, first_slot, slots)
    ]


# --- On the way ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ask:
    """One check on its way into the store."""

    known_at: int
    claimed_at: int | None
    said: Observation


@dataclass(slots=True)
class Asked:
    """An answer that is to have a row of its own."""

    check: Check
    answer: str
    digest: int
    known_at: int
    claimed_at: int | None
    last_asked_ms: int | None

    @property
    def place(self) -> tuple[int, int]:
        check = self.check
        return check.asked_ms if check.named_ms is None else check.named_ms, check.asked_ms


def asked_of(ask: Ask) -> Asked | None:
    """Read a check that is to have a row of its own; None where it says nothing of a connection."""
    check = check_of(ask.said)
    if check is None:
        return None
    answer = answer_of(ask.said.body, check.asked_ms)
    return Asked(check, answer, digest(ask.said), ask.known_at, ask.claimed_at, None)


class Again(NamedTuple):
    """A check that repeats an answer."""

    known_at: int
    asked_ms: int
    answer: str


def said_in(
    kept: Iterable[Kept], from_ms: int, to_ms: int, asked_between: Callable[[int, int], Iterable[int]]
) -> list[Check]:
    """List the checks that a fold asks for: see ingest/windows.py, History.checks."""
    found: list[Check] = []
    for check, _, _, last_asked_ms in kept:
        about_ms = check.asked_ms if check.named_ms is None else check.named_ms
        if from_ms <= about_ms <= to_ms:
            found.append(check)
        if check.named_ms is None:
            if last_asked_ms is None or last_asked_ms > check.asked_ms:
                low, high = max(from_ms, check.asked_ms + 1), to_ms
                high = to_ms if last_asked_ms is None else min(to_ms, last_asked_ms)
                found += [check._replace(asked_ms=asked_ms) for asked_ms in asked_between(low, high)]
        elif from_ms <= about_ms <= to_ms and last_asked_ms is not None:
            found.append(check._replace(asked_ms=last_asked_ms))
    return found


def is_stale(check: Check, newest: Last | None) -> bool:
    """Tell whether the API was behind: it named an older instant than it should have known by then."""
    if newest is None or check.named_ms is None or newest.timestamp_ms is None:
        return False
    return check.named_ms + 2 * SECOND_MS < newest.timestamp_ms and newest.at_ms < check.asked_ms - LAG_MS


def client_of(evidence: Event | Observation | Watch) -> str | None:
    """Name the client whose timeline a piece of evidence speaks of, if it does."""
    if isinstance(evidence, Event):
        return evidence.client_id
    # An answer that speaks of a connection says so in this word; whether it does is read when it is folded.
    if isinstance(evidence, Observation) and evidence.kind == "check" and '"connected"' in evidence.body:
        return evidence.subject
    return None
