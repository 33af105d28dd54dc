"""Many questions answered from few readings of the store: the same answers and errors as one by one.

What a client said is read once, where many ask about it, and remembered as long as nothing is committed. A question
that what is remembered answers is told at once; the others are gathered by thing and moment of learning. Holds no
rule of its own: what an answer says is for store/answer.py, who speaks for a thing for store/identity.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from queries.times import FIRST_MS, LAST_MS
from store.answer import (
    Answer,
    Asker,
    answer_of,
    check_name,
    check_past,
    nothing_known,
    said_at,
)
from store.asker import Unseen
from store.care import ALWAYS_MS
from store.errors import AnswerError, BadTime, IndexNotReady, InvalidRequest
from store.identity import client_of

Time = int | str | datetime

BATCH = 50_000  # questions answered from one snapshot
MOST_ROWS = 200_000  # transitions remembered from one batch to the next
FEW = 3  # questions: so few are sought, each for itself
WHOLE = 8  # rows a question: so short a timeline is read whole, to be remembered

_ALWAYS = (-(1 << 62), 1 << 62)  # ms


class Question(NamedTuple):
    """What to ask of one thing; `known_at` None: as known now."""

    thing_name: str
    at: Time
    known_at: Time | None = None


class Reply(msgspec.Struct, frozen=True, eq=False):
    """An answer, or the error that is the answer; with the question's times as they were understood."""

    thing_name: str | None
    at_ms: int | None
    known_at: int | None
    held: Answer | None  # what is answered at some instant of the same period; shared by the replies of one
    error: AnswerError | None

    @property
    def answer(self) -> Answer | None:
        """Give the answer; None where it is an error."""
        if self.held is None or self.at_ms is None or self.held.at_ms == self.at_ms:
            return self.held
        return said_at(self.held, self.at_ms)


class Many:
    """Answers batches of questions through one asker, inside the snapshots that its caller holds."""

    def __init__(self, asker: Asker, milliseconds: Callable[[Time], int]) -> None:
        self._asker = asker
        self._milliseconds = milliseconds
        self._changes = asker.changes
        self._lines: dict[tuple[str, int, int], _Line] = {}
        self._own: dict[int, dict[str, _Line]] = {}  # of names that no thing bears, by moment of learning
        self._partly: set[tuple[str, int]] = (
            set()
        )  # names that were not registered at all times: not remembered
        self._rows = 0

    def replies(self, batch: Sequence[Question], *, mark: int, now_ms: int) -> list[Reply]:
        """Answer a batch, a reply each in its order, as known at `mark` at most."""
        if self._changes != self._asker.changes:
            self._changes = self._asker.changes
            self._forget()
        read = self._milliseconds
        # Where there is a horizon, each question is held against it.
        own = self._own.get(mark, {}) if self._asker.care.horizon_ms == ALWAYS_MS else {}
        replies: list[Reply | None] = []
        told = replies.append
        instants: dict[int, int] = {}
        groups: dict[int, dict[str, list[int]]] = {mark: {}}
        for name, at, known in batch:
            at_ms = known_ms = None
            try:
                # Most are milliseconds already, as known now.
                at_ms = at if type(at) is int and FIRST_MS <= at <= LAST_MS else read(at)
                known_ms = mark if known is None else min(read(known), mark)
            except (BadTime, InvalidRequest) as error:
                told(Reply(name, at_ms, known_ms, None, InvalidRequest(str(error))))
                continue
            if known_ms == mark:
                line = own.get(name)
                if line is not None and line.starts[0] <= at_ms <= now_ms:
                    told(Reply(name, at_ms, mark, line.held(at_ms), None))
                    continue
            place = len(replies)
            told(None)
            instants[place] = at_ms
            groups.setdefault(known_ms, {}).setdefault(name, []).append(place)
        for known_at, named in groups.items():
            for name, places in named.items():
                self._tell(_Asked(name, known_at, places, instants, replies), now_ms)
        return [reply for reply in replies if reply is not None]

    def _tell(self, asked: _Asked, now_ms: int) -> None:
        """Reply to all that was asked about one thing."""
        if self._remembered(asked, now_ms):
            return
        try:
            check_name(asked.thing_name)
        except InvalidRequest as error:
            asked.refuse(error)
            return
        asked.sort()
        asked, later = asked.cut(now_ms)
        for at_ms in later.listed():
            try:
                check_past(at_ms, now_ms)
            except InvalidRequest as error:
                later.refuse(error)
                break
        asked = self._registered(self._refused(asked))
        for client_no, part in self._speakers(asked):
            if client_no is None:
                self._nothing_known(part)
            else:
                self._tell_of(client_no, part)

    def _refused(self, asked: _Asked) -> _Asked:
        """Refuse what is asked, ascending, of before the horizon; gives back the rest."""
        if self._asker.care.horizon_ms == ALWAYS_MS:
            return asked
        if asked.known_at < self._asker.known_from_ms:
            early, rest = asked, asked._replace(places=[])
        else:
            early, rest = asked.cut(self._asker.care.horizon_ms - 1)
        if early.places:
            try:
                self._asker.check_horizon(asked.instants[early.places[0]], asked.known_at)
            except IndexNotReady as error:
                early.refuse(error)
        return rest

    def _registered(self, asked: _Asked) -> _Asked:
        """Reply to what is asked of times at which there was no such thing; gives back the rest."""
        registry = self._asker.registry(asked.thing_name, asked.known_at) if asked.places else None
        absent = [] if registry is None else registry.unregistered()
        if not absent:
            return asked
        self._partly.add((asked.thing_name, asked.known_at))
        for from_ms, to_ms in absent:
            before, rest = asked.cut(from_ms - 1)
            gone, after = rest.cut(to_ms - 1)
            self._nothing_known(gone, registered=False)
            asked = asked._replace(places=before.places + after.places)
        return asked

    def _remembered(self, asked: _Asked, now_ms: int) -> bool:
        """Reply from what an earlier batch read, in any order; False where that does not reach."""
        asker, name = self._asker, asked.thing_name
        client_no = asker.client_named(name) if self._lines else None
        if client_no is None or asker.thing_named(name) is not None or max(asked.listed()) > now_ms:
            return False
        if asker.care.horizon_ms > ALWAYS_MS:
            return False  # some may have to be refused
        line = self._lines.get((name, client_no, asked.known_at))
        if line is not None:
            self._nothing_known(line.tell(asked))
        return line is not None

    def _speakers(self, asked: _Asked) -> Iterator[tuple[int | None, _Asked]]:
        """Cut questions, ascending, into runs that one client speaks for; None: nobody does."""
        asker, name, known_at = self._asker, asked.thing_name, asked.known_at
        instants = asked.listed()
        if not instants:
            return
        thing_no = asker.thing_named(name)
        if thing_no is None:
            yield asker.client_named(name), asked
            return
        most = asker.rows_a_seek * len(instants)
        borne = asker.bearers_in(thing_no, instants[0], instants[-1], known_at, most=most + 1)
        if len(borne) > most:
            borne = [(at_ms, client_of(asker, name, at_ms, known_at)) for at_ms in instants]
        speaker = client_of(asker, name, instants[0], known_at)
        for at_ms, client_no in borne:  # the last of those at one instant holds
            if client_no != speaker:
                before, asked = asked.cut(at_ms - 1)
                if before.places:
                    yield speaker, before
                speaker = client_no
        yield speaker, asked

    def _tell_of(self, client_no: int, asked: _Asked) -> None:
        """Reply to what a client's timeline answers."""
        asker, name, known_at = self._asker, asked.thing_name, asked.known_at
        line = self._line(client_no, asked)
        if line is not None:
            self._nothing_known(line.tell(asked))
            return
        client_id = asker.client_id(client_no)
        for place in asked.places:
            at_ms = asked.instants[place]
            period = asker.in_force(client_no, at_ms, known_at)
            if period is None:
                self._nothing_known(asked._replace(places=[place]))
                continue
            answer = answer_of(period, thing_name=name, client_id=client_id, at_ms=at_ms, known_at=known_at)
            asked.replies[place] = Reply(name, at_ms, known_at, answer, None)

    def _nothing_known(self, asked: _Asked, *, registered: bool = True) -> None:
        for place in asked.places:
            error = nothing_known(
                self._asker,
                asked.thing_name,
                asked.instants[place],
                asked.known_at,
                registered=registered,
            )
            asked._replace(places=[place]).refuse(error)

    def _line(self, client_no: int, asked: _Asked) -> _Line | None:
        """Read what holds at the instants asked for; None where seeking each of them costs less."""
        asker, name, known_at = self._asker, asked.thing_name, asked.known_at
        line = self._lines.get((name, client_no, known_at))
        if line is not None or len(asked.places) < FEW:
            return line
        count = len(asked.places)
        first_ms, last_ms = asked.instants[asked.places[0]], asked.instants[asked.places[-1]]
        whole = not asker.has_more_than(WHOLE * count, client_no, *_ALWAYS)
        if whole:
            timeline = asker.unseen(client_no, known_at)
        elif not asker.has_more_than(asker.rows_a_seek * count, client_no, first_ms, last_ms):
            low, high = asker.reach(client_no, first_ms, last_ms, known_at)
            timeline = asker.unseen(client_no, known_at, from_ms=low, to_ms=high)
        else:
            return None
        line = _Line(timeline, thing_name=name, client_id=asker.client_id(client_no), known_at=known_at)
        if whole and (name, known_at) not in self._partly:
            if self._rows + len(timeline) > MOST_ROWS:
                self._forget()
            self._rows += len(timeline)
            self._lines[name, client_no, known_at] = line
            if len(timeline) and asker.thing_named(name) is None:
                self._own.setdefault(known_at, {})[name] = line
        return line

    def _forget(self) -> None:
        self._lines.clear()
        self._own.clear()
        self._partly.clear()
        self._rows = 0


class _Asked(NamedTuple):
    """What a batch asks about one thing, as known at one moment."""

    thing_name: str
    known_at: int
    places: list[int]  # in the batch
    instants: dict[int, int]  # of the batch, by place
    replies: list[Reply | None]  # to the whole batch

    def sort(self) -> None:
        self.places.sort(key=self.instants.__getitem__)

    def listed(self) -> list[int]:
        """List the instants."""
        return [self.instants[place] for place in self.places]

    def cut(self, at_ms: int) -> tuple[_Asked, _Asked]:
        """Part what is asked of instants up to `at_ms` from the rest, once sorted."""
        if not self.places or self.instants[self.places[-1]] <= at_ms:
            return self, self._replace(places=[])
        end = bisect_right(self.places, at_ms, key=self.instants.__getitem__)
        return self._replace(places=self.places[:end]), self._replace(places=self.places[end:])

    def refuse(self, error: AnswerError) -> None:
        """Reply with one error to all; where it was raised would keep the batch in memory with it."""
        error = error.with_traceback(None)
        for place in self.places:
            self.replies[place] = Reply(self.thing_name, self.instants[place], self.known_at, None, error)


class _Line:
    """What a client's timeline says as known at one moment. Each of its answers is made once, when asked for."""

    __slots__ = ("_client_id", "_held", "_known_at", "_thing_name", "_timeline", "starts")

    def __init__(self, timeline: Unseen, *, thing_name: str, client_id: str, known_at: int) -> None:
        self._timeline = timeline
        self._thing_name = thing_name
        self._client_id = client_id
        self._known_at = known_at
        self.starts = timeline.starts  # ms
        # From each of `starts` up to the next: one answer, or those of several periods, each with its end.
        self._held: list[Answer | list[tuple[int, Answer]] | None] = [None] * len(timeline)

    def held(self, at_ms: int) -> Answer:
        """Give what is answered in the period of an instant not before the first of `starts`."""
        place = bisect_right(self.starts, at_ms) - 1
        held = self._held[place]
        if held is None:
            made = self._made(place)
            held = self._held[place] = made[0][1] if len(made) == 1 else made
        if type(held) is Answer:
            return held
        return next(answer for to_ms, answer in held if at_ms < to_ms)  # type: ignore[union-attr]

    def _made(self, place: int) -> list[tuple[int, Answer]]:
        """Answer in every period of a transition; what is asked of later than known_at is answered otherwise."""
        made = []
        turn_ms = self._known_at + 1
        for period in self._timeline.periods_of(place):
            from_ms, to_ms = period.from_ms, _ALWAYS[1] if period.to_ms is None else period.to_ms
            parts = (
                [(from_ms, turn_ms), (turn_ms, to_ms)] if from_ms < turn_ms < to_ms else [(from_ms, to_ms)]
            )
            for begins_ms, ends_ms in parts:
                answer = answer_of(
                    period,
                    thing_name=self._thing_name,
                    client_id=self._client_id,
                    at_ms=begins_ms,
                    known_at=self._known_at,
                )
                made.append((ends_ms, answer))
        return made

    def tell(self, asked: _Asked) -> _Asked:
        """Reply to what is asked; gives back what is asked of instants before the first transition."""
        name, known_at, places, instants, replies = asked
        begins_ms = self.starts[0] if self.starts else _ALWAYS[1]
        unknown: list[int] = []
        for place in places:
            at_ms = instants[place]
            if at_ms < begins_ms:
                unknown.append(place)
            else:
                replies[place] = Reply(name, at_ms, known_at, self.held(at_ms), None)
        return asked._replace(places=unknown)
