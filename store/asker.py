"""Asks the store, on one driver connection, inside snapshots, and remembers what cannot change.

Decides nothing: how sure a stretch is stands in store/certainty.py, who speaks for a thing in store/identity.py,
and the statements in store/seeks.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from store.ahead import FIRST_MS, Ahead, Key, Rows, by_key, for_many
from store.annotations import Annotations, annotation_from
from store.beginnings import MOST_MOMENTS, Beginnings
from store.care import NO_CARE, Care, care_of
from store.certainty import Period, Seen, bounds_of, period_at, periods_of, watched_at
from store.errors import IndexNotReady
from store.model import DEFAULT_REALM, LAG_MS, bytes_of
from store.packing import BLOCK, LONGEST_SWEEP_MS, SLOT_BYTES, slot_ms
from store.registry import Fact, Registry, absences, fact_of, registry_of, was
from store.seeks import PROVED_FROM, REASON, prepared, seen_from
from store.watermark import NEWEST, watermark

MOST_NAMES = 100_000  # remembered at once
_NEVER_MS = 1 << 62

# Of PostgreSQL: whether anything was committed since shows in which transactions a snapshot sees.
_TELL = f"SELECT pg_current_snapshot()::text, ({NEWEST})"
_BEGIN_AND_TELL = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_TELL}"


class Asker:
    """Asks one driver connection; `snapshot` holds what it asks to one state of the store.

    Statements are prepared once. The numbers of names and of reasons are remembered, for they never change; the
    watches and the names that nobody bears, until anything is committed.
    """

    def __init__(self, driver: Any, *, is_sqlite: bool, realm: str = DEFAULT_REALM) -> None:
        self._driver = driver
        self._execute = driver.execute
        self.is_sqlite = is_sqlite
        self._sql = prepared("sqlite" if is_sqlite else "postgresql")
        self.realm = realm
        # Reading on over so many rows costs about what another seek does: on PostgreSQL a round trip.
        self.rows_a_seek = 8 if is_sqlite else 40
        self._closed = False
        self._is_held = False
        self._is_turn = False
        self._has_looked = False  # in this turn
        self._clients: dict[str, int] = {}
        self._client_ids: dict[int, str] = {}
        self._things: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._absent: set[tuple[str, str]] = set()  # (statement, name)
        self._watched: dict[int, list[tuple[int, int]] | None] = {}
        self._beginnings = Beginnings()
        self._registry_begins: dict[int, int | None] = {}
        self._has_checks: bool | None = None
        self._ahead: dict[str, Ahead] = {}  # by statement, as it was last run for many keys
        self._told: tuple[str, int, tuple[Registry | None, list[Fact]]] | None = None
        self._mark = -1
        self._state: object = None  # of the store, when what may change was last read
        self.care: Care = NO_CARE
        self.known_from_ms = NO_CARE.known_horizon_ms  # the first moment of learning that can be asked about
        self.changes = 0  # counts the states of the store that snapshots have shown

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Read one state of the store throughout; gives its watermark."""
        mark = self.begin()
        try:
            yield mark
        finally:
            self.end()

    def begin(self) -> int:
        """Begin a snapshot, and give its watermark; `end` follows, whatever happens between."""
        if self._is_held:
            return self._mark
        try:
            if self.is_sqlite:
                self._begin_on_sqlite()
            else:
                self._begin_on_postgresql()
        except BaseException:
            self.end()
            raise
        self._is_held = self._is_turn
        return self._mark

    def glance(self) -> int | None:
        """Give the watermark where nothing was committed since the last snapshot; None: only another one tells.

        The index beside SQLite's log would tell for less, but whoever opens that file and closes it again takes
        SQLite's locks on it from this whole process.
        """
        if self._has_looked or self._is_held:
            return self._mark
        if self.is_sqlite:
            is_same = self._state_on_sqlite() == self._state
        else:
            is_same = self._execute(_TELL).fetchone() == (self._state, self._mark)
        if not is_same:
            return None
        self._has_looked = self._is_turn
        return self._mark

    def begin_turn(self) -> None:
        """Let one glance, or one snapshot, do for all until `end_turn`; for who was asked all of that before."""
        self._is_turn = True

    def end_turn(self) -> None:
        """Let each look again."""
        is_held, self._is_held = self._is_held, False
        self._is_turn = self._has_looked = False
        if is_held:
            self.end()

    def _state_on_sqlite(self) -> tuple[int, int]:
        """Tell what changes with every commit, of other connections and of this one."""
        (version,) = self._execute("PRAGMA data_version").fetchone()
        return version, self._driver.total_changes

    def _begin_on_sqlite(self) -> None:
        self._execute("BEGIN")
        state = self._state_on_sqlite()
        if state != self._state:
            self._changed(state, watermark(self._execute, is_sqlite=True))

    def _begin_on_postgresql(self) -> None:
        """Begin; where the newest that is seen is the watermark still, the locks of writers need no new look.

        For below a watermark nothing is ever committed again, and what would raise it would be seen.
        """
        mark = self._mark
        state, newest = self._begin_and_tell()
        if newest != mark:
            self._execute("COMMIT")
            mark = watermark(self._execute, is_sqlite=False)
            state, _ = self._begin_and_tell()
        if state != self._state or mark != self._mark:
            self._changed(state, mark)

    def _begin_and_tell(self) -> tuple[str, int]:
        begun = self._execute(_BEGIN_AND_TELL, prepare=False)  # two statements cannot be prepared
        begun.nextset()
        state, newest = begun.fetchone()
        return state, -1 if newest is None else newest

    def _changed(self, state: object, mark: int) -> None:
        """Forget what may have changed, for something was committed since."""
        self._state, self._mark = state, mark
        self._look_after()
        self.changes += 1
        self._absent.clear()
        self._watched.clear()
        self._registry_begins.clear()
        self._has_checks = None
        self._told = None

    def _look_after(self) -> None:
        """See what was taken out of the store; numbers change where a device was forgotten."""
        before, self.care = self.care, care_of(self._execute)
        if self.care.forgotten != before.forgotten:
            for numbers in (self._clients, self._things):
                numbers.clear()
            for names in (self._client_ids, self._texts):
                names.clear()
        # Where nothing was learned since that horizon, what was known last is what was known then.
        self.known_from_ms = min(self.care.known_horizon_ms, self._mark)
        if self.care != before:
            self._beginnings = Beginnings()

    def check_horizon(self, at_ms: int, known_at: int) -> None:
        """Refuse a question that begins before what a purge left. Raises IndexNotReady."""
        if at_ms < self.care.horizon_ms:
            raise IndexNotReady(
                "The history of this store was purged up to a later time than the one asked for."
            )
        if known_at < self.known_from_ms:
            raise IndexNotReady("What was known then was purged; ask as it was known later.")

    def end(self) -> None:
        """End the snapshot; the connection may have been closed under it, by whoever had heard enough."""
        self._ahead.clear()
        if not self._closed and not self._is_held:
            self._execute("COMMIT")

    def close(self) -> None:
        """Ask no more: the connection is about to be closed."""
        self._closed = True

    def read_many(self, statement: str, keys: Sequence[Key], **values: Any) -> list[Rows]:
        """Run one of the prepared statements for many keys, on PostgreSQL; gives the rows of each, in order.

        They are found again, in this snapshot, by whoever asks for one of the keys with the same values, until the
        statement is run for others.
        """
        if not keys:
            return []
        many, told = for_many(self._sql[statement], keys)
        rows = by_key(self._execute(many, {**values, **told}).fetchall(), keys)
        self._ahead[statement] = Ahead(tuple(keys[0]), values, rows)
        return [rows[tuple(key.values())] for key in keys]

    def forget_ahead(self) -> None:
        """Forget what was read by `read_many`."""
        self._ahead.clear()

    def _row(self, statement: str, **values: Any) -> tuple[Any, ...] | None:
        ahead = self._ahead.get(statement)
        if ahead is not None and (found := ahead.find(values)) is not None:
            return found[0] if found else None
        row: tuple[Any, ...] | None = self._execute(self._sql[statement], values).fetchone()
        return row

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run one of the prepared statements."""
        ahead = self._ahead.get(statement)
        if ahead is not None and (rows := ahead.find(values)) is not None:
            return rows
        found: list[tuple[Any, ...]] = self._execute(self._sql[statement], values).fetchall()
        return found

    # --- thing to client: see store/identity.py for the rule -------------------------------------------

    def client_named(self, client_id: str) -> int | None:
        """Find a client by its id."""
        number = self._clients.get(client_id)
        if number is None:
            number = self._number("client", self._clients, client_id)
            if number is not None:
                self._name(number, client_id)
        return number

    def thing_named(self, name: str) -> int | None:
        """Find a thing by a name that events bore."""
        return self._number("thing", self._things, name)

    def _number(self, statement: str, known: dict[str, int], name: str) -> int | None:
        number = known.get(name)
        if number is None:
            if (statement, name) in self._absent:
                return None
            # What no text can hold, nobody is called; PostgreSQL takes the very question for an error.
            row = None if bytes_of(name) is None else self._row(statement, realm=self.realm, name=name)
            if row is None:
                if len(self._absent) >= MOST_NAMES:
                    self._absent.clear()
                self._absent.add((statement, name))
                return None
            if len(known) >= MOST_NAMES:
                known.clear()
            number = known[name] = row[0]
        return number

    def bound(self, thing_no: int, at_ms: int, known_at: int) -> int | None:
        """Find the client bound to a thing by the latest event up to `at_ms` that bears its name."""
        row = self._row("bound", thing_no=thing_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else row[0]

    def bearers(self, thing_no: int, known_at: int) -> Iterator[tuple[int, int]]:
        """List `(at_ms, client_no)` of every event that bears a thing's name, ascending."""
        return (
            (r[0], r[1])
            for r in self._execute(self._sql["bearers"], {"thing_no": thing_no, "known_at": known_at})
        )

    def bearers_in(
        self, thing_no: int, from_ms: int, to_ms: int, known_at: int, *, most: int
    ) -> list[tuple[Any, ...]]:
        """List `(at_ms, client_no)` of the first `most` events later than `from_ms`, up to `to_ms`, ascending."""
        return self.rows(
            "bearers_in", thing_no=thing_no, from_ms=from_ms, to_ms=to_ms, known_at=known_at, most=most
        )

    def client_id(self, client_no: int) -> str:
        """Name a client."""
        name = self._client_ids.get(client_no)
        if name is None:
            row = self._row("client_id", client_no=client_no)
            assert row is not None
            name = row[0]
            self._name(client_no, name)
        return name

    def _name(self, client_no: int, client_id: str) -> None:
        """Remember the id of a client."""
        if len(self._client_ids) >= MOST_NAMES:
            self._client_ids.clear()
        self._client_ids[client_no] = client_id

    # --- the registry: see store/registry.py for the rule -------------------------------------------------

    def registry(self, name: str, known_at: int, *, whole: bool = False) -> Registry | None:
        """Give the lifetimes of a thing's name as known at a moment; None where nothing was told of them.

        `whole`: with what the index said of its type, groups and attributes, which nothing else is needed for.
        """
        told, facts = self._told_of(name, known_at)
        client_no = self.client_named(name) if whole else None
        if client_no is None:
            return told
        answers = self.rows("index_answers", client_no=client_no, known_at=known_at)
        more = [fact for row in answers if (fact := fact_of("check", *row)) is not None]
        return registry_of([*facts, *more], observed_from_ms=self._registry_from(known_at)) if more else told

    def _told_of(self, name: str, known_at: int) -> tuple[Registry | None, list[Fact]]:
        """Give the lifetimes of a name, and the facts that they are made of.

        Remembers the last one: whoever describes a thing asks whether it was registered as well.
        """
        if self._told is not None and self._told[:2] == (name, known_at):
            return self._told[2]
        observed_from_ms = self._registry_from(known_at)
        facts: list[Fact] = []
        if observed_from_ms is not None and bytes_of(name) is not None:
            rows = self.rows("registry", name=name, realm=self.realm, known_at=known_at)
            facts = [fact for row in rows if (fact := fact_of(*row)) is not None]
        client_no = self.client_named(name) if facts else None
        if client_no is not None:
            facts += self._seen_by_checks(client_no, absences(facts), known_at)
        told = registry_of(facts, observed_from_ms=observed_from_ms) if facts else None
        self._told = name, known_at, (told, facts)
        return told, facts

    def is_registered(self, name: str, at_ms: int, known_at: int) -> bool | None:
        """Tell whether a thing of a name was registered at an instant; None: nobody knows."""
        registry = self.registry(name, known_at)
        return None if registry is None else registry.is_registered(at_ms)

    def _registry_from(self, known_at: int) -> int | None:
        """Tell when anything was first told of the registry; None: never. What is not told by now was not before."""
        if known_at < self._mark and self._registry_from(self._mark) is None:
            return None
        if known_at not in self._registry_begins:
            if len(self._registry_begins) >= MOST_MOMENTS:
                self._registry_begins.clear()
            row = self._row("registry_begins", realm=self.realm, known_at=known_at)
            self._registry_begins[known_at] = None if row is None else row[0]
        return self._registry_begins[known_at]

    def _seen_by_checks(self, client_no: int, absent_ms: list[int], known_at: int) -> list[Fact]:
        """List the first answer of the API about a client's connection in each stretch between absences."""
        found: list[Fact] = []
        after_ms: int | None = FIRST_MS
        while after_ms is not None:
            asked_ms = self._asked_after(client_no, after_ms, known_at)
            if asked_ms is None:
                break
            found.append(was(asked_ms))
            later = (each for each in absent_ms if each >= asked_ms)
            after_ms = next((each + LAG_MS for each in later), None)
        return found

    def _asked_after(self, client_no: int, at_ms: int, known_at: int) -> int | None:
        """Tell when the API first answered about a client's connection after an instant."""
        row = self._row("asked_after", client_no=client_no, at_ms=at_ms, known_at=known_at)
        first_ms: int | None = None if row is None else row[0]
        slot, from_ms = client_no % BLOCK, at_ms - LONGEST_SWEEP_MS
        while True:
            rows = self.rows(
                "slots_after",
                block_no=client_no // BLOCK,
                from_ms=from_ms,
                known_at=known_at,
                slot=slot,
                none=bytes(SLOT_BYTES),
            )
            for begins_ms, first_slot, slots in rows:
                if first_ms is not None and begins_ms >= first_ms:
                    return first_ms
                asked_ms = slot_ms(begins_ms, first_slot, slots, slot)
                if asked_ms is not None and asked_ms > at_ms:
                    first_ms = asked_ms if first_ms is None else min(first_ms, asked_ms)
                from_ms = begins_ms
            if len(rows) < 20:
                return first_ms

    # --- what people say: see store/annotations.py ----------------------------------------------------------

    def annotations(self, from_ms: int, to_ms: int, known_at: int) -> Annotations:
        """Give what is said of any of `[from_ms, to_ms)`, as known at a moment."""
        rows = self.rows("annotations", realm=self.realm, from_ms=from_ms, to_ms=to_ms, known_at=known_at)
        return Annotations(sorted(map(annotation_from, rows)))

    # --- what holds ---------------------------------------------------------------------------------------

    def watched(self, known_at: int) -> list[tuple[int, int]] | None:
        """Give the instants when some path was recording; None where no statement says so."""
        if known_at not in self._watched:
            found = self.rows("watches", known_at=known_at)
            if len(self._watched) >= MOST_MOMENTS:
                self._watched.clear()
            self._watched[known_at] = watched_at(((r[0], r[1]) for r in found), known_at) if found else None
        return self._watched[known_at]

    def has_checks(self) -> bool:
        """Tell whether the store holds an answer of the API at all."""
        if self._has_checks is None:
            self._has_checks = self._row("any_check") is not None
        return self._has_checks

    def begun(self, at_ms: int, known_at: int) -> bool:
        """Tell whether the store's history has begun by an instant: with an event, or an instant watched.

        Costs one seek where most of what is oldest was known by then; else it reads past what was learned
        later, once: what it finds is remembered.
        """
        watched = self.watched(known_at)
        if watched and watched[0][0] <= at_ms:
            return True
        begun = self._beginnings.begun(at_ms, known_at)
        if begun is None:
            row = self._row("earliest_evidence", known_at=known_at)
            begins_ms, since = (_NEVER_MS, -_NEVER_MS) if row is None else row
            self._beginnings.learn(begins_ms, since, known_at, below=self._mark)
            begun = begins_ms <= at_ms
        return begun

    def begins_ms(self, known_at: int) -> int | None:
        """Tell when the store's history begins, as known at a moment; None where it has none."""
        watched = self.watched(known_at)
        row = self._row("earliest_evidence", known_at=known_at)
        begins = [] if row is None else [row[0]]
        return min([*begins, *(from_ms for from_ms, _ in (watched or [])[:1])], default=None)

    def in_force(self, client_no: int, at_ms: int, known_at: int) -> Period | None:
        """Find the period of a client that holds at an instant; None before its first evidence."""
        row = self._row("point", client_no=client_no, at_ms=at_ms, known_at=known_at)
        if row is None:
            return None
        seen = self.seen(row)
        *_, next_ms, proved_ms, until_ms, from_ms, open_at = row
        if until_ms is not None:
            seen = self.proven(seen, (until_ms, from_ms, open_at), client_no, known_at)
        after = None if next_ms is None else (next_ms, proved_ms)
        return period_at(at_ms, seen, after, self.watched(known_at))

    def seen(self, row: tuple[Any, ...]) -> Seen:
        return seen_from(row, self.text(row[REASON]))

    def text(self, text_no: int | None) -> str | None:
        """Give the text that a number of a reason stands for."""
        if text_no is None:
            return None
        text = self._texts.get(text_no)
        if text is None:
            row = self._row("text", text_no=text_no)
            assert row is not None
            if len(self._texts) >= MOST_NAMES:
                self._texts.clear()
            text = self._texts[text_no] = row[0]
        return text

    def confirmed(self, timeline: list[Seen], client_no: int, known_at: int) -> list[Seen]:
        """Add to transitions, ascending, what checks prove of the stretches after them."""
        if not timeline:
            return timeline
        found = self.rows(
            "confirmations",
            client_no=client_no,
            known_at=known_at,
            from_ms=timeline[0].at_ms,
            to_ms=timeline[-1].at_ms + 1,
        )
        if not found:
            return timeline
        proofs = {(row[0], row[1]): row[2:] for row in found}
        return [
            self.proven(seen, proofs[seen.at_ms, seen.seq], client_no, known_at)
            if (seen.at_ms, seen.seq) in proofs
            else seen
            for seen in timeline
        ]

    def proven(
        self, seen: Seen, proof: tuple[int, int | None, int | None], client_no: int, known_at: int
    ) -> Seen:
        """Add to a transition what a row of confirmations proves: `(until_ms, from_ms, open_at)`."""
        until_ms, from_ms, open_at = proof
        if open_at is not None:
            slot = client_no % BLOCK
            row = self._row(
                "last_slot",
                block_no=client_no // BLOCK,
                slot=slot,
                open_at=open_at,
                known_at=known_at,
                none=bytes(SLOT_BYTES),
            )
            if row is not None:
                asked_ms = slot_ms(row[0], row[1], row[2], slot)
                assert asked_ms is not None
                until_ms = max(until_ms, asked_ms - LAG_MS)
        begins = (seen.at_ms, bounds_of(seen)[1], from_ms)
        return seen._replace(
            confirmed_from_ms=max(at_ms for at_ms in begins if at_ms is not None), confirmed_until_ms=until_ms
        )

    def timeline(
        self, client_no: int, known_at: int, *, from_ms: int = -(1 << 62), to_ms: int = 1 << 62
    ) -> list[Seen]:
        """List a client's transitions with `at_ms` in `[from_ms, to_ms)`, ascending."""
        found = self.rows("timeline", client_no=client_no, known_at=known_at, from_ms=from_ms, to_ms=to_ms)
        return self.confirmed([self.seen(row) for row in found], client_no, known_at)

    def unseen(
        self, client_no: int, known_at: int, *, from_ms: int = -(1 << 62), to_ms: int = 1 << 62
    ) -> Unseen:
        """Read a client's transitions with `at_ms` in `[from_ms, to_ms)`, to be looked at one by one."""
        values = {"client_no": client_no, "known_at": known_at, "from_ms": from_ms, "to_ms": to_ms}
        found = self.rows("timeline", **values)
        proofs = self.rows("confirmations", **values) if found else []
        return Unseen(self, client_no, known_at, found, {(row[0], row[1]): row[2:] for row in proofs})

    def around(self, client_no: int, from_ms: int, to_ms: int, known_at: int) -> list[Seen]:
        """List the transition in force at `from_ms`, those up to and including `to_ms`, and one beyond."""
        low, high = self.reach(client_no, from_ms, to_ms, known_at)
        return self.timeline(client_no, known_at, from_ms=low, to_ms=high)

    def reach(self, client_no: int, from_ms: int, to_ms: int, known_at: int) -> tuple[int, int]:
        """Widen a window to `[low, high)`: from what holds at its beginning to one transition beyond its end."""
        first = self.before(client_no, from_ms + 1, known_at)
        after = self.after(client_no, to_ms, known_at)
        low = from_ms + 1 if first is None else first.at_ms
        return low, (to_ms if after is None else after[0]) + 1

    def has_more_than(self, most: int, client_no: int, from_ms: int, to_ms: int) -> bool:
        """Tell whether a client has more than `most` rows of transitions from `from_ms` up to `to_ms`.

        Rows of every moment of learning count, for all of them are read. Costs what reading `most` keys costs.
        """
        values = {"client_no": client_no, "from_ms": from_ms, "to_ms": to_ms, "most": most}
        return self._row("beyond", **values) is not None

    def before(self, client_no: int, at_ms: int, known_at: int) -> Seen | None:
        """Find the transition in force just before an instant."""
        row = self._row("before", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else self.confirmed([self.seen(row)], client_no, known_at)[0]

    def believed(self, client_no: int, at_ms: int, known_at: int, most: int = 50) -> list[Seen]:
        """List what was believed to hold at an instant, from when it came up to `known_at`; oldest first.

        The newest `most`. Before the instant came, whatever held was carried on to it; that is not listed.
        """
        beliefs: list[Seen] = []
        while len(beliefs) < most:
            seen = self.before(client_no, at_ms + 1, known_at)
            if seen is None:
                break
            beliefs.insert(0, seen)
            # It was believed since it was recorded, or since what stood between it and the instant fell.
            ((fell_at,),) = self.rows(
                "fell", client_no=client_no, from_ms=seen.at_ms, at_ms=at_ms, known_at=known_at
            )
            believed_from = max(seen.recorded_at, -1 if fell_at is None else fell_at)
            if believed_from <= at_ms:
                break
            known_at = believed_from - 1
        return beliefs

    def after(self, client_no: int, at_ms: int, known_at: int) -> tuple[int, int | None] | None:
        """Find the first transition later than an instant, and from when the stretch before it is proven."""
        row = self._row("next", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else (row[0], row[1])


class Unseen:
    """A client's transitions as known at one moment, ascending; each is built when it is looked at.

    Most of what is read for many questions is never asked about. Outlives the snapshot that it was read in, for
    what was known at a moment never changes.
    """

    __slots__ = ("_asker", "_client_no", "_known_at", "_proofs", "_rows", "starts")

    def __init__(
        self,
        asker: Asker,
        client_no: int,
        known_at: int,
        rows: list[tuple[Any, ...]],
        proofs: dict[tuple[int, int], tuple[Any, ...]],
    ) -> None:
        self._asker = asker
        self._client_no = client_no
        self._known_at = known_at
        self._rows = rows
        self._proofs = proofs
        # The instants, side by side: looking through them is most of the work.
        self.starts = array("q", [row[0] for row in rows])

    def __len__(self) -> int:
        return len(self._rows)

    def periods_of(self, place: int) -> list[Period]:
        """Cut the time of one transition, the last of those at its instant, into its periods; ascending."""
        row = self._rows[place]
        seen = seen_from(row, self._asker.text(row[REASON]))
        proof = self._proofs.get((row[0], row[1])) if self._proofs else None
        if proof is not None:
            until_ms, from_ms, open_at = proof
            seen = self._asker.proven(seen, (until_ms, from_ms, open_at), self._client_no, self._known_at)
        after = None
        if place + 1 < len(self._rows):
            following = self._rows[place + 1]
            after = following[0], following[PROVED_FROM]
        return list(periods_of(seen, after, self._asker.watched(self._known_at)))
