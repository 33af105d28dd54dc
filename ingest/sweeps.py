"""Checks that repeat an answer: what stays of their JSON, and how they are packed into rows of sweeps.

The *answer* of a check is its JSON with `"*"` in place of the moment of asking: equal answers, one text. (A
check that said "*" there itself would have been quarantined, so that nothing else looks like it.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

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
