"""The point answer: what GetThingConnectivityData would have said of a thing at T, as known at K.

One module for both sides: commands ask it about the past, the poller asks it what we would have said. Holds
the rule of how sure an answer is, and the statements of the seeks; opens no connection of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import msgspec

from store.errors import IndexNotReady, InvalidRequest, ResourceNotFound
from store.identity import client_of
from store.model import DEFAULT_REALM, LAG_MS, Certainty, State
from store.packing import BLOCK, SLOT_BYTES, slot_ms
from store.schema import RULE_NAMES, STATES
from store.watermark import watermark

MOST_NAMES = 100_000  # remembered at once
MOST_MOMENTS = 1_000  # of learning, likewise
_NEVER_MS = 1 << 62

# Of PostgreSQL: whether anything was committed since shows in which transactions a snapshot sees.
_BEGIN_AND_TELL = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_current_snapshot()::text"
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}\Z")  # GetThingConnectivityData, thingName


class Seen(NamedTuple):
    """A transition as a question finds it."""

    at_ms: int
    seq: int
    recorded_at: int
    superseded_at: int | None
    state: State
    timestamp_ms: int | None
    reason: str | None
    not_before_ms: int | None
    not_after_ms: int | None
    rule: str
    proved_from_ms: int | None
    confirmed_from_ms: int | None = None  # what checks prove of the stretch after it, where they prove any
    confirmed_until_ms: int | None = None


# Structs, because one is built for each of millions of questions, at an eighth of a frozen dataclass's cost.
class LastKnown(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last answer that was known, where the present one is not."""

    connected: bool
    timestamp_ms: int | None
    disconnect_reason: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the API would have said at `at_ms`, as known at `known_at`, and how sure that is.

    `connected` is None where the state is unknown. `[not_before_ms, not_after_ms]` bounds the true timestamp;
    None where there is none. `rule` names the rule that made the transition in force.
    """

    thing_name: str | None
    client_id: str
    at_ms: int
    known_at: int
    connected: bool | None
    timestamp_ms: int | None
    disconnect_reason: str | None
    certainty: Certainty
    not_before_ms: int | None
    not_after_ms: int | None
    rule: str
    last_known: LastKnown | None = None


class Period(NamedTuple):
    """A stretch with one answer of one certainty; `to_ms` None: still open."""

    from_ms: int
    to_ms: int | None
    seen: Seen
    certainty: Certainty


# --- How sure -----------------------------------------------------------------------------------------------


def periods(timeline: Sequence[Seen], watched: Sequence[tuple[int, int]] | None) -> Iterator[Period]:
    """Cut one client's timeline into stretches, ascending, tiling from its first transition on.

    `timeline` ascends. `watched` are the instants when some path was recording, disjoint and ascending; None
    where the store holds no such statement and counts as watched throughout.
    """
    for index, seen in enumerate(timeline):
        following = timeline[index + 1] if index + 1 < len(timeline) else None
        to_ms = None if following is None else following.at_ms
        if to_ms == seen.at_ms:
            continue
        if seen.state is State.UNKNOWN:
            yield Period(seen.at_ms, to_ms, seen, Certainty.UNKNOWN)
            continue
        proved_ms = to_ms
        if following is not None and following.proved_from_ms is not None:
            proved_ms = max(seen.at_ms, following.proved_from_ms)
        cursor_ms = seen.at_ms
        for from_ms, until_ms in _confirmed(seen, proved_ms):
            if from_ms > cursor_ms:
                yield from _unproved(seen, cursor_ms, from_ms, watched)
            yield Period(from_ms, until_ms, seen, Certainty.OBSERVED)
            cursor_ms = until_ms
        if proved_ms != cursor_ms:
            yield from _unproved(seen, cursor_ms, proved_ms, watched)
        if proved_ms != to_ms:
            assert proved_ms is not None
            yield Period(proved_ms, to_ms, seen, Certainty.OBSERVED)


def _confirmed(seen: Seen, to_ms: int | None) -> list[tuple[int, int]]:
    """Give the stretch that checks prove, cut at `to_ms`: one, or none."""
    if seen.confirmed_from_ms is None or seen.confirmed_until_ms is None:
        return []
    until_ms = seen.confirmed_until_ms if to_ms is None else min(seen.confirmed_until_ms, to_ms)
    return [(seen.confirmed_from_ms, until_ms)] if seen.confirmed_from_ms < until_ms else []


def period_at(
    at_ms: int,
    seen: Seen,
    after: tuple[int, int | None] | None,
    watched: Sequence[tuple[int, int]] | None,
) -> Period:
    """Cut out the period that holds at an instant; `after` is when the next transition is, and its proved_from."""
    timeline = [seen]
    if after is not None:
        timeline.append(seen._replace(at_ms=after[0], proved_from_ms=after[1]))
    return period_in(timeline, at_ms, watched)


def period_in(timeline: Sequence[Seen], at_ms: int, watched: Sequence[tuple[int, int]] | None) -> Period:
    """Find the period of a timeline that holds at an instant not before its first transition."""
    for period in periods(timeline, watched):
        if period.to_ms is None or at_ms < period.to_ms:
            return period
    raise AssertionError("periods tile the time")


def _unproved(
    seen: Seen, from_ms: int, to_ms: int | None, watched: Sequence[tuple[int, int]] | None
) -> Iterator[Period]:
    """Cut a stretch without proof: inferred while a path was recording, unknown while none was."""
    if watched is None:
        yield Period(from_ms, to_ms, seen, Certainty.INFERRED)
        return
    cursor = from_ms
    for begins_ms, ends_ms in watched:
        if ends_ms <= cursor:
            continue
        if to_ms is not None and begins_ms >= to_ms:
            break
        if begins_ms > cursor:
            yield Period(cursor, begins_ms, seen, Certainty.UNKNOWN)
            cursor = begins_ms
        end_ms = ends_ms if to_ms is None else min(ends_ms, to_ms)
        yield Period(cursor, end_ms, seen, Certainty.INFERRED)
        cursor = end_ms
    if to_ms is None or cursor < to_ms:
        yield Period(cursor, to_ms, seen, Certainty.UNKNOWN)


def merged(intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join overlapping and touching half-open intervals; ascending."""
    joined: list[tuple[int, int]] = []
    for begins_ms, ends_ms in sorted(intervals):
        if joined and begins_ms <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ends_ms))
        elif begins_ms < ends_ms:
            joined.append((begins_ms, ends_ms))
    return joined


def answer_of(period: Period, *, thing_name: str | None, client_id: str, at_ms: int, known_at: int) -> Answer:
    """Say what a period says at one of its instants; later than `known_at`, never better than inferred."""
    seen, certainty = period.seen, period.certainty
    if at_ms > known_at and certainty is Certainty.OBSERVED:
        certainty = Certainty.INFERRED
    known = certainty is not Certainty.UNKNOWN
    not_before_ms, not_after_ms = bounds_of(seen)
    return Answer(
        thing_name=thing_name,
        client_id=client_id,
        at_ms=at_ms,
        known_at=known_at,
        connected=seen.state.connected if known else None,
        timestamp_ms=seen.timestamp_ms if known else None,
        disconnect_reason=seen.reason if known else None,
        certainty=certainty,
        not_before_ms=not_before_ms if known else None,
        not_after_ms=(at_ms if certainty is Certainty.INFERRED else not_after_ms) if known else None,
        rule=seen.rule,
        last_known=None if known or seen.state is State.UNKNOWN else last_known(seen),
    )


def said_at(answer: Answer, at_ms: int) -> Answer:
    """Say an answer of `answer_of` at another instant of its period, on the same side of its `known_at`."""
    if answer.certainty is Certainty.INFERRED:
        return _replaced(answer, at_ms=at_ms, not_after_ms=at_ms)
    return _replaced(answer, at_ms=at_ms)


_replaced = msgspec.structs.replace


def last_known(seen: Seen) -> LastKnown:
    """Give the answer of a transition as the last one known."""
    return LastKnown(
        connected=bool(seen.state.connected),
        timestamp_ms=seen.timestamp_ms,
        disconnect_reason=seen.reason,
    )


def bounds_of(seen: Seen) -> tuple[int | None, int | None]:
    """Bound the true instant of a transition: its own stamp, where nothing says otherwise."""
    if seen.not_before_ms is None and seen.not_after_ms is None:
        return seen.timestamp_ms, seen.timestamp_ms
    return seen.not_before_ms, seen.not_after_ms


# --- Seeks --------------------------------------------------------------------------------------------------

_SEEN = (
    "x.at_ms, x.seq, x.recorded_at, x.superseded_at, x.state, x.timestamp_ms, w.text, x.not_before_ms,"
    " x.not_after_ms, x.rule_no, x.proved_from_ms"
)
_VISIBLE = "x.recorded_at <= :known_at AND (x.superseded_at IS NULL OR x.superseded_at > :known_at)"

_STATEMENTS: dict[str, str] = {
    "thing": """
        SELECT t.thing_no FROM things t JOIN realms r ON r.realm_no = t.realm_no
        WHERE r.name = :realm AND t.thing_name = :name
    """,
    "client": """
        SELECT c.client_no FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm AND c.client_id = :name
    """,
    "client_id": "SELECT client_id FROM clients WHERE client_no = :client_no",
    # Served by evidence_by_thing.
    "bound": """
        SELECT e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.at_ms <= :at_ms AND e.known_at <= :known_at
        ORDER BY e.at_ms DESC, e.digest DESC LIMIT 1
    """,
    "bearers": """
        SELECT e.at_ms, e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.known_at <= :known_at ORDER BY e.at_ms, e.digest
    """,
    "bearers_in": """
        SELECT e.at_ms, e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.known_at <= :known_at AND e.at_ms > :from_ms AND e.at_ms <= :to_ms
        ORDER BY e.at_ms, e.digest LIMIT :most
    """,
    # Served by the primary key of transitions, like those that follow.
    # The one in force and, beside it, when the next one is and from when the stretch between them is proven.
    "point": f"""
        SELECT f.*, n.at_ms, n.proved_from_ms FROM (
            SELECT {_SEEN} FROM transitions x LEFT JOIN texts w ON w.text_no = x.reason_no
            WHERE x.client_no = :client_no AND x.at_ms <= :at_ms AND {_VISIBLE}
            ORDER BY x.at_ms DESC, x.seq DESC LIMIT 1
        ) f LEFT JOIN (
            SELECT x.at_ms, x.proved_from_ms FROM transitions x
            WHERE x.client_no = :client_no AND x.at_ms > :at_ms AND {_VISIBLE}
            ORDER BY x.at_ms, x.seq LIMIT 1
        ) n ON true
    """,
    "next": f"""
        SELECT x.at_ms, x.proved_from_ms FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms > :at_ms AND {_VISIBLE}
        ORDER BY x.at_ms, x.seq LIMIT 1
    """,
    "timeline": f"""
        SELECT {_SEEN} FROM transitions x LEFT JOIN texts w ON w.text_no = x.reason_no
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms >= :from_ms AND x.at_ms < :to_ms
        ORDER BY x.at_ms, x.seq
    """,
    "before": f"""
        SELECT {_SEEN} FROM transitions x LEFT JOIN texts w ON w.text_no = x.reason_no
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms < :at_ms
        ORDER BY x.at_ms DESC, x.seq DESC LIMIT 1
    """,
    # Served by the primary key of confirmations.
    "confirmations": f"""
        SELECT x.at_ms, x.seq, x.until_ms, x.from_ms, x.open_at FROM confirmations x
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms >= :from_ms AND x.at_ms < :to_ms
        ORDER BY x.at_ms, x.seq
    """,
    # Served by the primary key of sweeps; see store/checks.py.
    "last_slot": """
        SELECT w.asked_ms, w.first_slot, w.slots FROM sweeps w
        WHERE w.block_no = :block_no AND w.known_at > :open_at AND w.known_at <= :known_at
          AND w.first_slot <= :slot AND substr(w.slots, 1 + 3 * (:slot - w.first_slot), 3) > :none
        ORDER BY w.known_at DESC, w.asked_ms DESC LIMIT 1
    """,
    "things": """
        SELECT t.thing_name FROM things t JOIN realms r ON r.realm_no = t.realm_no WHERE r.name = :realm
    """,
    "all_clients": """
        SELECT c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no WHERE r.name = :realm
    """,
    # Clients that no event binds to a thing: these speak for the thing of their own name.
    "own_names": """
        SELECT c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm AND c.client_no NOT IN (
            SELECT e.client_no FROM evidence e WHERE e.thing_no IS NOT NULL
        )
    """,
    "sessions": """
        SELECT s.session, s.version, s.connect_ms, s.disconnect_ms, w.text
        FROM session_rows s LEFT JOIN texts w ON w.text_no = s.reason_no
        WHERE s.client_no = :client_no ORDER BY coalesce(s.connect_ms, s.disconnect_ms), s.session
    """,
    "evidence_at": """
        SELECT e.at_ms, e.kind, e.known_at, e.claimed_at, o.text, e.session, e.version, w.text
        FROM evidence e JOIN texts o ON o.text_no = e.source_no LEFT JOIN texts w ON w.text_no = e.reason_no
        WHERE e.at_ms = :at_ms AND e.client_no = :client_no AND e.known_at <= :known_at ORDER BY e.known_at
    """,
    # Served by the primary key of checks.
    "checks_about": """
        SELECT k.asked_ms, k.about_ms, k.named, k.state, w.text, k.known_at, k.claimed_at, o.text
        FROM checks k JOIN texts o ON o.text_no = k.source_no LEFT JOIN texts w ON w.text_no = k.reason_no
        WHERE k.client_no = :client_no AND k.about_ms >= :from_ms AND k.about_ms <= :to_ms
          AND k.known_at <= :known_at
        ORDER BY k.about_ms, k.asked_ms
    """,
    "all_checks": """
        SELECT k.client_no, c.client_id, k.asked_ms, k.about_ms, k.named, k.state, w.text, k.known_at
        FROM checks k JOIN clients c ON c.client_no = k.client_no JOIN realms r ON r.realm_no = c.realm_no
        LEFT JOIN texts w ON w.text_no = k.reason_no
        WHERE r.name = :realm AND k.asked_ms >= :from_ms AND k.asked_ms < :to_ms AND k.known_at <= :known_at
        ORDER BY k.asked_ms, c.client_id, k.digest
    """,
    "all_sweeps": """
        SELECT w.asked_ms, w.first_slot, w.slots FROM sweeps w
        WHERE w.asked_ms >= :from_ms - 16777216 AND w.asked_ms < :to_ms AND w.known_at <= :known_at
    """,
    "beyond": """
        SELECT x.at_ms FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms >= :from_ms AND x.at_ms <= :to_ms LIMIT 1 OFFSET :most
    """,
    "fell": """
        SELECT max(x.superseded_at) FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms >= :from_ms AND x.at_ms <= :at_ms
          AND x.superseded_at <= :known_at
    """,
    # Served by the primary key of evidence, which leads with the time.
    "earliest_evidence": """
        SELECT at_ms, known_at FROM evidence WHERE known_at <= :known_at ORDER BY at_ms LIMIT 1
    """,
    "watches": "SELECT from_ms, to_ms FROM watches WHERE known_at <= :known_at",
}


class Beginnings:
    """When the store's evidence begins, as known at moments already asked about.

    The earliest evidence known at K, itself known since J, is the earliest known at every moment from J to K;
    and what was known below the watermark never changes.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int]] = []  # (J, K, begins_ms), disjoint, ascending

    def begun(self, at_ms: int, known_at: int) -> bool | None:
        """Tell whether there is evidence up to an instant, as known at a moment; None where that is not remembered."""
        place = bisect_left(self._spans, known_at, key=_until)
        if place < len(self._spans):
            since, _, begins_ms = self._spans[place]
            if since <= known_at:
                return begins_ms <= at_ms
            if at_ms < begins_ms:
                return False  # and what is learned later only makes it earlier
        if place and self._spans[place - 1][2] <= at_ms:
            return True
        return None

    def learn(self, begins_ms: int, since: int, known_at: int, *, below: int) -> None:
        """Remember the earliest evidence known at a moment; at the watermark `below` itself more may come."""
        until = min(known_at, below - 1)
        if since <= until:
            others = [span for span in self._spans if span[0] > until or span[1] < since]
            self._spans = sorted([*others, (since, until, begins_ms)])[-MOST_MOMENTS:]


def _until(span: tuple[int, int, int]) -> int:
    return span[1]


class Asker:
    """Asks one driver connection; `snapshot` holds what it asks to one state of the store.

    Statements are prepared once. The numbers of names are remembered, for they never change; the watches and
    the names that nobody bears, until anything is committed.
    """

    def __init__(self, driver: Any, *, is_sqlite: bool, realm: str = DEFAULT_REALM) -> None:
        self._driver = driver
        self._execute = driver.execute
        self._is_sqlite = is_sqlite
        self._sql = prepared("sqlite" if is_sqlite else "postgresql")
        self.realm = realm
        self._closed = False
        self._clients: dict[str, int] = {}
        self._client_ids: dict[int, str] = {}
        self._things: dict[str, int] = {}
        self._absent: set[tuple[str, str]] = set()  # (statement, name)
        self._watched: dict[int, list[tuple[int, int]] | None] = {}
        self._beginnings = Beginnings()
        self._mark = -1
        self._state: object = None  # of the store, when what may change was last read
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
        mark = None if self._is_sqlite else watermark(self._execute, is_sqlite=False)
        try:
            self._begun(mark)
        except BaseException:
            self.end()
            raise
        return self._mark

    def _begun(self, mark: int | None) -> None:
        """Begin, and forget what may have changed where anything was committed since."""
        state: object
        if mark is None:
            self._execute("BEGIN")
            (version,) = self._execute("PRAGMA data_version").fetchone()
            state = version, self._driver.total_changes  # of other connections, and of this one
            if state == self._state:
                return
            mark = watermark(self._execute, is_sqlite=True)
        else:
            begun = self._execute(_BEGIN_AND_TELL, prepare=False)  # two statements cannot be prepared
            begun.nextset()
            (state,) = begun.fetchone()
            if state == self._state and mark == self._mark:
                return
        self._state, self._mark = state, mark
        self.changes += 1
        self._absent.clear()
        self._watched.clear()

    def end(self) -> None:
        """End the snapshot; the connection may have been closed under it, by whoever had heard enough."""
        if not self._closed:
            self._execute("COMMIT")

    def close(self) -> None:
        """Ask no more: the connection is about to be closed."""
        self._closed = True

    def _row(self, statement: str, **values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._execute(self._sql[statement], values).fetchone()
        return row

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run one of the prepared statements."""
        found: list[tuple[Any, ...]] = self._execute(self._sql[statement], values).fetchall()
        return found

    # --- thing to client: see store/identity.py for the rule -------------------------------------------

    def client_named(self, client_id: str) -> int | None:
        """Find a client by its id."""
        return self._number("client", self._clients, client_id)

    def thing_named(self, name: str) -> int | None:
        """Find a thing by a name that events bore."""
        return self._number("thing", self._things, name)

    def _number(self, statement: str, known: dict[str, int], name: str) -> int | None:
        number = known.get(name)
        if number is None:
            if (statement, name) in self._absent:
                return None
            row = self._row(statement, realm=self.realm, name=name)
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
            if len(self._client_ids) >= MOST_NAMES:
                self._client_ids.clear()
            name = self._client_ids[client_no] = row[0]
        return name

    # --- what holds ---------------------------------------------------------------------------------------

    def watched(self, known_at: int) -> list[tuple[int, int]] | None:
        """Give the instants when some path was recording; None where no statement says so."""
        if known_at not in self._watched:
            found = self.rows("watches", known_at=known_at)
            if len(self._watched) >= MOST_MOMENTS:
                self._watched.clear()
            self._watched[known_at] = merged([(r[0], r[1]) for r in found]) if found else None
        return self._watched[known_at]

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

    def in_force(self, client_no: int, at_ms: int, known_at: int) -> Period | None:
        """Find the period of a client that holds at an instant; None before its first evidence."""
        row = self._row("point", client_no=client_no, at_ms=at_ms, known_at=known_at)
        if row is None:
            return None
        after = None if row[11] is None else (row[11], row[12])
        seen = seen_from(row)
        if after is None or after[1] is None or after[1] > at_ms:  # not proven by what followed
            seen = self.confirmed([seen], client_no, known_at)[0]
        return period_at(at_ms, seen, after, self.watched(known_at))

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
            self._confirmed(seen, proofs[seen.at_ms, seen.seq], client_no, known_at)
            if (seen.at_ms, seen.seq) in proofs
            else seen
            for seen in timeline
        ]

    def _confirmed(
        self, seen: Seen, proof: tuple[int, int | None, int | None], client_no: int, known_at: int
    ) -> Seen:
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
        return self.confirmed([seen_from(row) for row in found], client_no, known_at)

    def around(self, client_no: int, from_ms: int, to_ms: int, known_at: int) -> list[Seen]:
        """List the transition in force at `from_ms`, those up to and including `to_ms`, and one beyond."""
        first = self.before(client_no, from_ms + 1, known_at)
        after = self.after(client_no, to_ms, known_at)
        low = from_ms + 1 if first is None else first.at_ms
        return self.timeline(
            client_no, known_at, from_ms=low, to_ms=(to_ms if after is None else after[0]) + 1
        )

    def has_more_than(self, most: int, client_no: int, from_ms: int, to_ms: int) -> bool:
        """Tell whether a client has more than `most` rows of transitions from `from_ms` up to `to_ms`.

        Rows of every moment of learning count, for all of them are read. Costs what reading `most` keys costs.
        """
        values = {"client_no": client_no, "from_ms": from_ms, "to_ms": to_ms, "most": most}
        return self._row("beyond", **values) is not None

    def before(self, client_no: int, at_ms: int, known_at: int) -> Seen | None:
        """Find the transition in force just before an instant."""
        row = self._row("before", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else self.confirmed([seen_from(row)], client_no, known_at)[0]

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


def seen_from(row: Sequence[Any]) -> Seen:
    """Build a transition from a row of the statements above."""
    at_ms, seq, recorded_at, superseded_at, state, stamp_ms, reason, low_ms, high_ms, rule_no, proved, *_ = (
        row
    )
    return Seen(
        at_ms,
        seq,
        recorded_at,
        superseded_at,
        STATES[state],
        stamp_ms,
        reason,
        low_ms,
        high_ms,
        RULE_NAMES[rule_no],
        proved,
    )


@cache
def prepared(dialect_name: str) -> dict[str, str]:
    """Give the statements in the words of a dialect's driver: sqlite3 takes `:name`, psycopg `%(name)s`."""
    if dialect_name == "sqlite":
        return _STATEMENTS
    return {name: _PARAMETER.sub(r"%(\1)s", statement) for name, statement in _STATEMENTS.items()}


_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


def is_legal(thing_name: str) -> bool:
    """Tell whether AWS would take this as a thing's name."""
    return _LEGAL_NAME.match(thing_name) is not None


def check_name(thing_name: str) -> None:
    """Refuse what AWS would refuse as a thing's name. Raises InvalidRequest."""
    if not is_legal(thing_name):
        raise InvalidRequest(
            "1 validation error detected: Value at 'thingName' failed to satisfy constraint:"
            " Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+ and have 1 to 128 characters"
        )


def ask(
    asker: Asker, thing_name: str, at_ms: int, *, known_at: int, now_ms: int, by_client: bool = False
) -> Answer:
    """Answer for a thing (or, `by_client`, for the client of that id) at `at_ms`, as known at `known_at`.

    Raises InvalidRequest, IndexNotReady or ResourceNotFound, as AWS would.
    """
    if not by_client:
        check_name(thing_name)
    check_past(at_ms, now_ms)
    client_no = asker.client_named(thing_name) if by_client else client_of(asker, thing_name, at_ms, known_at)
    period = None if client_no is None else asker.in_force(client_no, at_ms, known_at)
    if client_no is None or period is None:
        raise nothing_known(asker, thing_name, at_ms, known_at)
    return answer_of(
        period,
        thing_name=None if by_client and not is_legal(thing_name) else thing_name,
        client_id=thing_name if by_client else asker.client_id(client_no),
        at_ms=at_ms,
        known_at=known_at,
    )


def check_past(at_ms: int, now_ms: int) -> None:
    """Refuse the future. Raises InvalidRequest."""
    if at_ms > now_ms:
        raise InvalidRequest("The time asked for lies in the future.")


def nothing_known(
    asker: Asker, thing_name: str, at_ms: int, known_at: int
) -> IndexNotReady | ResourceNotFound:
    """Give AWS's error for a thing of which nothing is known at an instant: the store's, or the thing's.

    Looked up only then: where something is known, the store's history has begun.
    """
    if not asker.begun(at_ms, known_at):
        return IndexNotReady("The history of this store begins later than the time asked for.")
    return ResourceNotFound(f"The resource {thing_name} was not known at that time.")
