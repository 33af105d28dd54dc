"""What folding changes: rows taken out of a timeline and put into it, netted over a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from store.model import (
    Check,
    Confirmation,
    Identity,
    Session,
    Transition,
)


class Row(NamedTuple):
    """A transition with its place among those of the same instant."""

    at_ms: int
    seq: int
    transition: Transition


class Proof(NamedTuple):
    """A confirmation, with the place of the transition that it confirms."""

    at_ms: int
    seq: int
    confirmation: Confirmation


@dataclass(slots=True)
class Folded:
    """What one step changed: rows taken out of the timeline, rows put in, and sessions to save.

    `unproved` and `proved` are the same of confirmations.
    """

    removed: list[Row] = field(default_factory=list)
    added: list[Row] = field(default_factory=list)
    unproved: list[Proof] = field(default_factory=list)
    proved: list[Proof] = field(default_factory=list)
    sessions: dict[Identity, Session] = field(default_factory=dict)
    presumed: set[Identity] = field(default_factory=set)  # of these sessions, those presumed to be new
    checks: list[Check] = field(default_factory=list)
    conflicts: int = 0  # copies that disagreed with what was held


def keyed(timeline: list[Transition]) -> list[Row]:
    """Give each transition its place among those of the same instant."""
    rows: list[Row] = []
    at_ms, seq = None, 0
    for transition in timeline:
        seq = seq + 1 if transition.at_ms == at_ms else 0
        at_ms = transition.at_ms
        if transition.confirmed is not None:
            transition = transition._replace(confirmed=None)
        rows.append(Row(at_ms, seq, transition))
    return rows


def proofs(timeline: list[Transition]) -> list[Proof]:
    """List the confirmations of a timeline, each with the place of its transition."""
    found: list[Proof] = []
    at_ms, seq = None, 0
    for transition in timeline:
        seq = seq + 1 if transition.at_ms == at_ms else 0
        at_ms = transition.at_ms
        if transition.confirmed is not None:
            found.append(Proof(at_ms, seq, transition.confirmed))
    return found


_Placed = TypeVar("_Placed", Row, Proof)


def differences(old: list[_Placed], new: list[_Placed]) -> tuple[list[_Placed], list[_Placed]]:
    old_set, new_set = set(old), set(new)
    return [row for row in old if row not in new_set], [row for row in new if row not in old_set]


def net(
    gone: list[_Placed], come: list[_Placed], removed: Sequence[_Placed], added: Sequence[_Placed]
) -> None:
    """Add differences to those of the same step; a row put in and taken out again never was."""
    for row in removed:
        if row in come:
            come.remove(row)
        else:
            gone.append(row)
    for row in added:
        if row in gone:
            gone.remove(row)
        else:
            come.append(row)
