"""The questions in Python: what `thingline.open` gives.

Reads only. Every call sees one snapshot of the store, and "as known at" is cut to its watermark. Times go in
as epoch milliseconds, aware datetimes or text that `queries.times.parse_time` reads; they come out as epoch
milliseconds, UTC.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, tzinfo
from itertools import islice
from typing import NamedTuple

from queries.coverage import Coverage, coverage
from queries.explanation import Explanation, explained
from queries.fidelity import Agreement, By, Compared, compared, grouped, repeated, repetitions
from queries.learned import Learned, annotated_between, learned_of, watched_between
from queries.many import BATCH, Many
from queries.many import Question as Question
from queries.many import Reply as Reply
from queries.many import Time as Time
from queries.news import MOST_NEWS, News, Position, news_after
from queries.parameters import parameters_of
from queries.recent import Recent
from queries.standing import Standing, check_begun, check_heard_of, names_of, standings
from queries.takeovers import Taken, takeovers_in
from queries.timelines import Cut, cut_of, earliest, latest
from queries.times import day_of, milliseconds_of, parse_time, read_zone
from queries.uptime import Policy, Thing, ThingTime, reckon, stretches_of
from store.annotations import Annotation, annotation_from
from store.answer import (
    Answer,
    Asker,
    Period,
    Seen,
    ask,
    check_name,
    is_legal,
    lasting,
)
from store.care import ALWAYS_MS
from store.clock import Clock, system_clock
from store.connections import Connections
from store.engine import Store, open_reader, parse_url
from store.errors import BadTime, InvalidRequest, ResourceNotFound, UsageError
from store.garbage import uncollected
from store.identity import Binding, bindings, client_of
from store.model import DEFAULT_REALM, Session
from store.packing import session_from
from store.registry import Registry


class ThingPeriod(NamedTuple):
    """A period of a thing, and the client that spoke for it."""

    thing_name: str | None
    client_id: str
    period: Period


class ThingTransition(NamedTuple):
    """A transition of a thing, and the client that spoke for it."""

    thing_name: str | None
    client_id: str
    seen: Seen


class Reading(NamedTuple):
    """Who may be asked inside a snapshot, the moment of learning cut to its watermark, and the clock."""

    asker: Asker
    known_at: int
    now_ms: int


class History:
    """The connectivity history in one store. Close it, or use it as a context. Threads may share it."""

    def __init__(
        self, store: Store, *, realm: str = DEFAULT_REALM, clock: Clock = system_clock, tz: str | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._tz = tz
        self._lock = threading.Lock()
        self._held = ExitStack()
        driver = self._held.enter_context(store.detached())
        self._asker = Asker(driver, is_sqlite=store.is_sqlite, realm=realm)
        self._recent = Recent(self._asker)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what is being read ends there."""
        self._asker.close()
        self._held.close()
        self._store.close()

    def begin_turn(self) -> None:
        """Look but once whether anything was committed, for all that is asked until `end_turn`, in this thread.

        For who begins to answer when all of it was asked: an answer is of a moment after its question.
        """
        with self._lock:
            self._asker.begin_turn()

    def end_turn(self) -> None:
        """Look again at every question."""
        with self._lock:
            self._asker.end_turn()

    def milliseconds(self, time: Time, tz: str | None = None) -> int:
        """Read a time as epoch milliseconds; `tz` is the zone of text that names none, in place of this history's.

        Raises BadTime for what it cannot read, naive datetimes too; InvalidRequest for a number outside the
        years 1 to 9999.
        """
        if isinstance(time, str):
            return parse_time(time, now_ms=self._clock(), tz=self._tz if tz is None else tz)
        return milliseconds_of(time)

    def realms(self) -> list[str]:
        """List the realms that the store holds anything of, by name."""
        with self._asking() as (asker, _):
            return [row[0] for row in asker.rows("realms")]

    @property
    def realm(self) -> str:
        """The realm that names belong to."""
        return self._asker.realm

    def zone(self, text: str | None = None) -> tzinfo | None:
        """Read a zone; without one give this history's own, where it has one. Raises BadTime."""
        return read_zone(text) if text is not None else None if self._tz is None else read_zone(self._tz)

    def known_at(self, time: Time | None = None) -> int:
        """Cut a moment of learning to the store's watermark, in epoch milliseconds; None: the watermark itself."""
        with self._asking(time) as (_, known_ms):
            return known_ms

    def check_begun(self, at: Time, *, known_at: Time | None = None) -> None:
        """Refuse an instant before the store's history begins, or before what a purge left. Raises IndexNotReady."""
        with self._asking(known_at) as (asker, known_ms):
            check_begun(asker, self.milliseconds(at), known_ms)

    @contextmanager
    def _asking(self, known_at: Time | None = None) -> Iterator[tuple[Asker, int]]:
        """Hold one snapshot; gives the asker, and the moment of learning cut to the watermark."""
        wanted = None if known_at is None else self.milliseconds(known_at)
        with self._lock, self._asker.snapshot() as mark:
            yield self._asker, mark if wanted is None else min(wanted, mark)

    @contextmanager
    def reading(self, known_at: Time | None = None) -> Iterator[Reading]:
        """Hold one snapshot for a reader of the whole fleet (queries/fleet.py); nobody else asks meanwhile."""
        with self._asking(known_at) as (asker, known_ms):
            yield Reading(asker, known_ms, self._clock())

    # --- One thing ----------------------------------------------------------------------------------------

    def at(
        self, thing_name: str, at: Time, *, known_at: Time | None = None, by_client: bool = False
    ) -> Answer:
        """Answer for a thing at an instant, as known at another (None: now).

        `by_client` takes the name as a client id. Raises what AWS would: InvalidRequest (an unreadable or
        future time, an illegal name), ResourceNotFound (not known then), IndexNotReady (before the store's
        history begins).
        """
        try:
            at_ms = self.milliseconds(at)
        except BadTime as error:
            raise InvalidRequest(str(error)) from error
        wanted = None if known_at is None else self.milliseconds(known_at)
        asker = self._asker
        with self._lock:  # as in _asking, at half its cost: this is asked most
            mark = asker.begin()
            try:
                known_ms = mark if wanted is None else min(wanted, mark)
                now_ms = self._clock()
                return ask(asker, thing_name, at_ms, known_at=known_ms, now_ms=now_ms, by_client=by_client)
            finally:
                asker.end()

    def connection(
        self, thing_name: str, at: Time, *, known_at: Time | None = None
    ) -> tuple[Answer, Mapping[str, object]]:
        """Answer as `at` does; with what API checks told of that connection: its keep-alive and its like.

        Those are members of GetThingConnectivityData as it answers since 2026; none where no check brought them.
        """
        at_ms = self.milliseconds(at)
        wanted = None if known_at is None else self.milliseconds(known_at)
        asker = self._asker
        with self._lock:
            now_ms = self._clock()
            mark = asker.glance()
            # Where nothing was committed, what was answered is what would be.
            found = None if mark is None else self._answered(thing_name, at_ms, wanted, mark, now_ms)
            if found is None:
                with asker.snapshot() as mark:
                    found = self._answered(thing_name, at_ms, wanted, mark, now_ms)
                    if found is None:
                        known_ms = mark if wanted is None else min(wanted, mark)
                        told = lasting(asker, thing_name, at_ms, known_at=known_ms, now_ms=now_ms)
                        found = told.answer, parameters_of(asker, told.answer)
                        self._recent.keep(told, found[1])
            return found

    def _answered(
        self, thing_name: str, at_ms: int, wanted: int | None, mark: int, now_ms: int
    ) -> tuple[Answer, Mapping[str, object]] | None:
        if at_ms > now_ms:
            return None  # to be refused
        return self._recent.find(thing_name, at_ms, mark if wanted is None else min(wanted, mark))

    def transitions(
        self,
        thing_name: str,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        known_at: Time | None = None,
        by_client: bool = False,
    ) -> Iterator[ThingTransition]:
        """List a thing's transitions in `[from_, to)`, ascending, those of length zero included.

        Begins with the one in force at `from_`. Raises ResourceNotFound for a name never heard of.
        """
        with self._asking(known_at) as (asker, known_ms):
            for client_id, timeline in self._timelines(asker, thing_name, from_, to, known_ms, by_client):
                name = thing_name if not by_client or is_legal(thing_name) else None
                yield from (ThingTransition(name, client_id, seen) for seen in timeline.rows)

    def periods(
        self,
        thing_name: str,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        known_at: Time | None = None,
        by_client: bool = False,
    ) -> Iterator[ThingPeriod]:
        """List a thing's periods in `[from_, to)`, ascending and tiling, cut to that window.

        The last one is open (`to_ms` None) where `to` is not given. Raises ResourceNotFound.
        """
        with self._asking(known_at) as (asker, known_ms):
            for client_id, timeline in self._timelines(asker, thing_name, from_, to, known_ms, by_client):
                name = thing_name if not by_client or is_legal(thing_name) else None
                for period in timeline.periods(asker.watched(known_ms)):
                    yield ThingPeriod(name, client_id, period)

    def all_periods(self, *, known_at: Time | None = None, by_client: bool = False) -> Iterator[ThingPeriod]:
        """List the periods of every thing (or, `by_client`, of every client), by name; each one's ascend and tile.

        A client that an event binds to a thing of another name is listed under that thing. Memory: the names.
        """
        with self._asking(known_at) as (asker, known_ms):
            watched = asker.watched(known_ms)
            for name, as_client in names_of(asker, known_ms, by_client=by_client):
                try:
                    for client_id, cut in self._timelines(asker, name, None, None, known_ms, as_client):
                        thing_name = name if is_legal(name) else None
                        for period in cut.periods(watched):
                            yield ThingPeriod(thing_name, client_id, period)
                except ResourceNotFound:
                    continue  # nobody knew of it then

    def _timelines(
        self,
        asker: Asker,
        name: str,
        from_: Time | None,
        to: Time | None,
        known_at: int,
        by_client: bool,
    ) -> Iterator[tuple[str, Cut]]:
        from_ms, to_ms = self._span(asker, from_, to, known_at)
        if by_client:
            client_no = asker.client_named(name)
            spoken = [] if client_no is None else [Binding(None, None, client_no)]
        else:
            check_name(name)
            spoken = bindings(asker, name, known_at)
        if not spoken:
            raise ResourceNotFound(f"The resource {name} was never heard of.")
        for binding in spoken:
            begins_ms = latest(binding.from_ms, from_ms)
            ends_ms = earliest(binding.to_ms, to_ms)
            if begins_ms is not None and ends_ms is not None and ends_ms <= begins_ms:
                continue
            yield (
                asker.client_id(binding.client_no),
                cut_of(asker, binding.client_no, begins_ms, ends_ms, known_at),
            )

    def _span(
        self, asker: Asker, from_: Time | None, to: Time | None, known_at: int
    ) -> tuple[int | None, int | None]:
        """Read a window; without a beginning of its own it begins with what a purge left.

        Raises UsageError for a window without time, IndexNotReady for one that begins before what a purge left.
        """
        from_ms = None if from_ is None else self.milliseconds(from_)
        to_ms = None if to is None else self.milliseconds(to)
        if from_ms is not None and to_ms is not None and to_ms <= from_ms:
            raise UsageError("The window ends before it begins; --from must be earlier than --to.")
        asker.check_horizon(asker.care.horizon_ms if from_ms is None else from_ms, known_at)
        if from_ms is None and asker.care.horizon_ms > ALWAYS_MS:
            from_ms = asker.care.horizon_ms
            if to_ms is not None and to_ms <= from_ms:
                asker.check_horizon(to_ms - 1, known_at)
        return from_ms, to_ms

    def uptime(
        self,
        window: tuple[Time, Time],
        policies: Sequence[Policy],
        *,
        names: Sequence[str] | None = None,
        known_at: Time | None = None,
        described: bool = False,
    ) -> Iterator[Thing]:
        """Count the time of things in `[from, to)` by each of several policies, by name; None: of all of them.

        `described`: with their types, groups and attributes. One snapshot; memory: the names, and one thing's periods.
        Raises UsageError for a window without time, IndexNotReady for one that begins before what a purge left,
        ResourceNotFound for a name of `names` that was never heard of.
        """
        from_ms, to_ms = map(self.milliseconds, window)
        reach_ms = max((policy.reach_ms for policy in policies), default=0)
        told = self.stretches(
            (from_ms, to_ms), names=names, known_at=known_at, described=described, reach_ms=reach_ms
        )
        for each in told:
            reckoned = [reckon(each.stretches, policy, (from_ms, to_ms), each.said) for policy in policies]
            yield Thing(each.thing_name, each.client_id, each.registry, reckoned, each.said)

    def stretches(
        self,
        window: tuple[Time, Time],
        *,
        names: Sequence[str] | None = None,
        known_at: Time | None = None,
        described: bool = False,
        reach_ms: int = 0,
    ) -> Iterator[ThingTime]:
        """Give the time of things in `[from_, to)` as stretches that tile it, by name; None: of all of them.

        They tile `reach_ms` more on either side as well, as far as a purge left it. Else as `uptime`.
        """
        from_ms, to_ms = map(self.milliseconds, window)
        with self._asking(known_at) as (asker, known_ms):
            wide = _wide(asker, from_ms, to_ms, known_ms, reach_ms)
            begun_ms = asker.begins_ms(known_ms)
            watched = asker.watched(known_ms)
            said = asker.annotations(*wide, known_ms)
            described = described or said.of_groups
            for name, as_client, spoken in self._spoken(asker, names, wide, known_ms):
                registry = None if as_client else asker.registry(name, known_ms, whole=described)
                absent = [] if registry is None else registry.unregistered()
                found = [period for _, cut in spoken for period in cut.periods(watched)]
                told = stretches_of(found, absent, begun_ms=begun_ms, window=wide, known_at=known_ms)
                client_id = spoken[-1][0] if spoken else name
                thing_name = name if is_legal(name) else None
                yield ThingTime(thing_name, client_id, registry, list(told), said.of(name, registry))

    def _spoken(
        self, asker: Asker, names: Sequence[str] | None, window: tuple[int, int], known_at: int
    ) -> Iterator[tuple[str, bool, list[tuple[str, Cut]]]]:
        """Go through things, of those that are named or of all: who spoke for each in a window, and what was said.

        Gives `(name, whether it is a client's id, [(client_id, its part)])`. Raises ResourceNotFound for a name of
        `names` that was never heard of.
        """
        asked = [(name, False) for name in names or ()]
        if names is None:
            asked = names_of(asker, known_at)
        for name, as_client in asked:
            try:
                spoken = list(self._timelines(asker, name, *window, known_at, as_client))
                if not any(cut.rows for _, cut in spoken):
                    check_heard_of(asker, name, known_at, by_client=as_client)
            except ResourceNotFound:
                if names is not None:
                    raise
                continue  # nobody knew of it then
            yield name, as_client, spoken

    def takeovers(
        self,
        window: tuple[Time, Time],
        *,
        names: Sequence[str] | None = None,
        known_at: Time | None = None,
    ) -> Iterator[Taken]:
        """List the takeovers in `[from_, to)` of each client that spoke for a thing, by the thing's name.

        None: of all things; clients without a takeover are left out. One snapshot. Raises as `uptime` does.
        """
        from_ms, to_ms = map(self.milliseconds, window)
        with self._asking(known_at) as (asker, known_ms):
            wide = _wide(asker, from_ms, to_ms, known_ms, reach_ms=1)  # what held just before
            watched = asker.watched(known_ms)
            for name, _, spoken in self._spoken(asker, names, wide, known_ms):
                told: dict[str, list[Period]] = {}
                for client_id, cut in spoken:
                    told.setdefault(client_id, []).extend(cut.periods(watched))
                for client_id, found in told.items():
                    stretches = stretches_of(found, [], begun_ms=None, window=wide, known_at=known_ms)
                    taken = takeovers_in(asker, client_id, list(stretches), (from_ms, to_ms), known_ms)
                    if taken:
                        yield Taken(name if is_legal(name) else None, client_id, taken)

    def learned(
        self,
        names: Iterable[tuple[str, bool]],
        window: tuple[Time, Time],
        since: Time,
        until: Time,
    ) -> Iterator[Learned]:
        """Tell what was learned in `(since, until]` of each of `(name, whether it is a client's id)`, in that order.

        Of what can have changed a report about a window. One snapshot.
        """
        span = self.milliseconds(window[0]), self.milliseconds(window[1])
        since_ms = self.milliseconds(since)
        with self._asking(until) as (asker, known_ms):
            asker.check_horizon(span[0], since_ms)
            said = annotated_between(asker, span, since_ms, known_ms)
            for name, by_client in names:
                yield learned_of(asker, name, span, since_ms, known_ms, by_client=by_client, said=said)

    def watched(self, window: tuple[Time, Time], since: Time, until: Time) -> list[tuple[int, int]]:
        """List the stretches of recording of a window that were stated in `(since, until]`."""
        span = self.milliseconds(window[0]), self.milliseconds(window[1])
        with self._asking(until) as (asker, known_ms):
            return watched_between(asker, span, self.milliseconds(since), known_ms)

    def snapshot(self, at: Time, *, known_at: Time | None = None) -> Iterator[Standing]:
        """Answer for every thing at an instant, as `at` would, by name; with what each was registered as.

        One snapshot; memory: the names. Raises InvalidRequest for the future, IndexNotReady before the store's history
        begins, or before what a purge left.
        """
        at_ms = self.milliseconds(at)
        with self._asking(known_at) as (asker, known_ms):
            yield from standings(
                asker,
                names_of(asker, known_ms),
                at_ms,
                known_at=known_ms,
                now_ms=self._clock(),
            )

    def registry(self, thing_name: str, *, known_at: Time | None = None) -> Registry:
        """Give the lifetimes of a thing's name, with type, groups and attributes over time (store/registry.py).

        Raises ResourceNotFound where nothing was told of its registration, InvalidRequest for an illegal name.
        """
        check_name(thing_name)
        with self._asking(known_at) as (asker, known_ms):
            found = asker.registry(thing_name, known_ms, whole=True)
        if found is None:
            raise ResourceNotFound(f"Nothing was told of a registration of {thing_name}.")
        return found

    def annotations(
        self,
        from_: Time | None = None,
        to: Time | None = None,
        *,
        known_at: Time | None = None,
        versions: bool = False,
    ) -> list[Annotation]:
        """List the annotations that speak of any of `[from_, to)`, by number; with `versions`, the withdrawn too."""
        low, high = self._window(from_, to)
        statement = "annotation_versions" if versions else "annotations"
        with self._asking(known_at) as (asker, known_ms):
            window = {"from_ms": low, "to_ms": high, "known_at": known_ms}
            rows = asker.rows(statement, realm=asker.realm, **window)
        return sorted(annotation_from(row).as_known_at(known_ms) for row in rows)

    def news(self, after: Position | None = None, *, most: int = MOST_NEWS) -> News:
        """Tell what was learned of transitions after a position, in the order of learning; None: where the news stand.

        Whoever asks on from where each answer ends misses nothing. Costs a look at every transition where anything was
        learned since. Raises IndexNotReady for a position before what a purge left.
        """
        with self._asking() as (asker, known_ms):
            return news_after(asker, after, known_ms, most)

    def sessions(
        self,
        thing_name: str,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        by_client: bool = False,
    ) -> list[tuple[str, Session]]:
        """List `(clientId, session)` of every client that ever spoke for a thing, by stamp, as known now.

        Those that lasted at any instant of `[from_, to)`, uncut: a session lasts from its connect, else its disconnect,
        up to its disconnect, that instant included; without one it is open. Raises ResourceNotFound, and for the
        window what `transitions` does.
        """
        with self._asking() as (asker, known_ms):
            from_ms, to_ms = self._span(asker, from_, to, known_ms)
            if by_client:
                own = asker.client_named(thing_name)
                numbers = [] if own is None else [own]
            else:
                check_name(thing_name)
                numbers = list(dict.fromkeys(b.client_no for b in bindings(asker, thing_name, known_ms)))
            if not numbers:
                raise ResourceNotFound(f"The resource {thing_name} was never heard of.")
            told = [
                (asker.client_id(number), session_from(*row))
                for number in numbers
                for row in asker.rows("sessions", client_no=number)
            ]
            return [(client_id, session) for client_id, session in told if _lasted(session, from_ms, to_ms)]

    def explain(
        self, thing_name: str, at: Time, *, known_at: Time | None = None, by_client: bool = False
    ) -> Explanation:
        """Show why `at` answers what it answers. Raises as `at` does."""
        answer = self.at(thing_name, at, known_at=known_at, by_client=by_client)
        with self._asking(answer.known_at) as (asker, known_ms):
            if by_client:
                client_no = asker.client_named(thing_name)
            else:
                client_no = client_of(asker, thing_name, answer.at_ms, known_ms)
            assert client_no is not None
            said = asker.annotations(answer.at_ms, answer.at_ms + 1, known_ms)
            registry = (
                asker.registry(thing_name, known_ms, whole=True) if said.of_groups and not by_client else None
            )
            return explained(asker, client_no, answer, said.of(thing_name, registry))

    def fidelity(
        self, from_: Time | None = None, to: Time | None = None, *, known_at: Time | None = None
    ) -> Iterator[Compared]:
        """Compare what AWS answered with what we would have, just before: one for each answer that was new.

        Checks asked in `[from_, to)`, by when they were asked. Of those that only repeated an answer,
        `repeated` tells how many there were: they agreed. Memory: the answers. Raises as `transitions` does of its
        window, as do `repeated` and `agreements`.
        """
        with self._asking(known_at) as (asker, known_ms):
            yield from compared(asker, *self._asked_in(asker, from_, to, known_ms), known_ms)

    def repeated(
        self, from_: Time | None = None, to: Time | None = None, *, known_at: Time | None = None
    ) -> int:
        """Count the checks asked in `[from_, to)` that said what had been said before, and agreed with us."""
        with self._asking(known_at) as (asker, known_ms):
            return repeated(asker, *self._asked_in(asker, from_, to, known_ms), known_ms)

    def agreements(
        self,
        by: By,
        from_: Time | None = None,
        to: Time | None = None,
        *,
        known_at: Time | None = None,
    ) -> list[Agreement]:
        """Tell how far AWS and we agreed by day, reason or thing, over all checks asked in `[from_, to)`.

        Days are those of this history's zone, or of UTC. Memory: the groups, and the ids of all clients.
        """
        zone = UTC if self._tz is None else read_zone(self._tz)
        with self._asking(known_at) as (asker, known_ms):
            window = *self._asked_in(asker, from_, to, known_ms), known_ms
            return grouped(
                by, compared(asker, *window), repetitions(asker, *window), lambda at_ms: day_of(at_ms, zone)
            )

    def coverage(self, from_: Time, to: Time | None = None) -> Coverage:
        """Tell what was recorded when, and what is missing of it, from then on and up to now, as known now.

        Raises BadTime for a window without time, IndexNotReady for one that begins before what a purge left.
        """
        now_ms, from_ms = self._clock(), self.milliseconds(from_)
        to_ms = now_ms + 1 if to is None else self.milliseconds(to)
        if to_ms <= from_ms:
            raise BadTime("The window ends before it begins; give the earlier time first.")
        return coverage(self._store, from_ms, to_ms, now_ms=now_ms)

    def _asked_in(self, asker: Asker, from_: Time | None, to: Time | None, known_at: int) -> tuple[int, int]:
        from_ms, to_ms = self._span(asker, from_, to, known_at)
        return self._window(from_ms, to_ms)

    def _window(self, from_: Time | None, to: Time | None) -> tuple[int, int]:
        low = -(1 << 61) if from_ is None else self.milliseconds(from_)
        return low, (1 << 61) if to is None else self.milliseconds(to)

    # --- Many ---------------------------------------------------------------------------------------------

    def ask(self, questions: Iterable[Question]) -> Iterator[Reply]:
        """Answer many questions, one reply each, in their order; batched, in constant memory.

        Errors that are AWS's answers come as replies, not as exceptions.
        """
        many = Many(self._asker, self.milliseconds)
        rest = iter(questions)
        while batch := list(islice(rest, BATCH)):
            with uncollected(), self._lock, self._asker.snapshot() as mark:
                replies = many.replies(batch, mark=mark, now_ms=self._clock())
            del batch  # neither is kept beside the next
            yield from replies
            del replies


def _lasted(session: Session, from_ms: int | None, to_ms: int | None) -> bool:
    begins_ms = session.disconnect_ms if session.connect_ms is None else session.connect_ms
    ends_ms = session.disconnect_ms
    is_over = from_ms is not None and ends_ms is not None and ends_ms < from_ms
    is_to_come = to_ms is not None and begins_ms is not None and begins_ms >= to_ms
    return not is_over and not is_to_come


def _wide(asker: Asker, from_ms: int, to_ms: int, known_at: int, reach_ms: int) -> tuple[int, int]:
    """Widen a window by what is looked at beyond it. Raises UsageError, IndexNotReady."""
    if to_ms <= from_ms:
        raise UsageError("The window ends before it begins; --from must be earlier than --to.")
    asker.check_horizon(from_ms, known_at)
    return max(from_ms - reach_ms, asker.care.horizon_ms), to_ms + reach_ms


def open_history(
    url: str | None = None,
    *,
    realm: str = DEFAULT_REALM,
    clock: Clock = system_clock,
    tz: str | None = None,
    connections: Connections | None = None,
) -> History:
    """Open a store for questions: a path, `sqlite:///PATH`, `postgresql://...`; None: this user's own store.

    `tz` is the zone of times that name none; what is connected to is counted among `connections`. Raises StoreMissing,
    StoreTooNew, StoreTooOld, StoreUnreachable.
    """
    return History(open_reader(parse_url(url), connections), realm=realm, clock=clock, tz=tz)
