"""What was answered of late, each answer for as long as it is one, until anything is committed to the store.

Screens ask about the same things again and again, and an incident is asked about at many of its instants. Holds no
rule of its own: how long an answer lasts is told by store/answer.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from store.answer import Answer, Asker, Lasting, said_at

MOST = 50_000  # answers remembered: some 40 MiB

Parameters = Mapping[str, object]  # queries/parameters.py
_Told = tuple[list[int], list[tuple[int, Answer, Parameters]]]


class Recent:
    """Remembers answers to what one asker was asked, by name and moment of learning. Ask inside its snapshots."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._changes = asker.changes
        # Of each: where its answers begin, ascending, and beside that where each ends, and what it is.
        self._told: dict[tuple[str, int], _Told] = {}
        self._count = 0

    def find(self, thing_name: str, at_ms: int, known_at: int) -> tuple[Answer, Parameters] | None:
        """Give what is answered at an instant; None where that is not remembered."""
        told = self._current().get((thing_name, known_at))
        if told is None:
            return None
        starts, answers = told
        place = bisect_right(starts, at_ms) - 1
        if place < 0:
            return None
        to_ms, answer, parameters = answers[place]
        return (said_at(answer, at_ms), parameters) if at_ms < to_ms else None

    def keep(self, lasting: Lasting, parameters: Parameters) -> None:
        """Remember an answer that was not found."""
        answer, from_ms, to_ms = lasting
        if to_ms - from_ms <= 1 or answer.thing_name is None:
            return
        if self._count >= MOST:
            self._forget()
        self._count += 1
        starts, answers = self._current().setdefault((answer.thing_name, answer.known_at), ([], []))
        place = bisect_right(starts, from_ms)
        starts.insert(place, from_ms)
        answers.insert(place, (to_ms, answer, parameters))

    def _current(self) -> dict[tuple[str, int], _Told]:
        if self._changes != self._asker.changes:
            self._changes = self._asker.changes
            self._forget()
        return self._told

    def _forget(self) -> None:
        self._told.clear()
        self._count = 0
