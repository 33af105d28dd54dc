"""The point answer: what GetThingConnectivityData would have said of a thing at T, as known at K.

One module for both sides: commands ask it about the past, the poller asks it what we would have said. Holds
the rule of how sure an answer is, and the statements of the seeks; opens no connection of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from store.errors import IndexNotReady, InvalidRequest, ResourceNotFound
from store.identity import client_of
from store.model import DEFAULT_REALM, Certainty, State
from store.schema import RULE_NAMES, STATES
from store.watermark import watermark

MOST_NAMES = 100_000  # remembered at once
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LastKnown:
    """The last answer that was known, where the present one is not."""

    connected: bool
    timestamp_ms: int | None
    disconnect_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
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
        if proved_ms != seen.at_ms:
            yield from _unproved(seen, seen.at_ms, proved_ms, watched)
        if proved_ms != to_ms:
            assert proved_ms is not None
            yield Period(proved_ms, to_ms, seen, Certainty.OBSERVED)


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
    # Served by the primary key of transitions, like the three that follow.
    "in_force": f"""
        SELECT {_SEEN} FROM transitions x LEFT JOIN texts w ON w.text_no = x.reason_no
        WHERE x.client_no = :client_no AND x.at_ms <= :at_ms AND {_VISIBLE}
        ORDER BY x.at_ms DESC, x.seq DESC LIMIT 1
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
    "fell": """
        SELECT max(x.superseded_at) FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms >= :from_ms AND x.at_ms <= :at_ms
          AND x.superseded_at <= :known_at
    """,
    # Served by the primary key of evidence, which leads with the time.
    "earliest_evidence": "SELECT at_ms FROM evidence WHERE known_at <= :known_at ORDER BY at_ms LIMIT 1",
    "watches": "SELECT from_ms, to_ms FROM watches WHERE known_at <= :known_at",
}


class Asker:
    """Asks one driver connection; `snapshot` holds what it asks to one state of the store.

    Statements are prepared once, and the numbers of names are remembered, for they never change.
    """

    def __init__(self, driver: Any, *, is_sqlite: bool, realm: str = DEFAULT_REALM) -> None:
        self._execute = driver.execute
        self._is_sqlite = is_sqlite
        self._sql = prepared("sqlite" if is_sqlite else "postgresql")
        self.realm = realm
        self._clients: dict[str, int] = {}
        self._client_ids: dict[int, str] = {}
        self._things: dict[str, int] = {}
        self._watched: dict[int, list[tuple[int, int]] | None] = {}
        self._begins: dict[int, int | None] = {}

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Read one state of the store throughout; gives its watermark."""
        self._watched.clear()
        self._begins.clear()
        if self._is_sqlite:
            self._execute("BEGIN")
        else:
            known_at = watermark(self._execute, is_sqlite=False)
            self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield watermark(self._execute, is_sqlite=True) if self._is_sqlite else known_at
        finally:
            self._execute("COMMIT")

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
            row = self._row(statement, realm=self.realm, name=name)
            if row is None:
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
            self._watched[known_at] = merged([(r[0], r[1]) for r in found]) if found else None
        return self._watched[known_at]

    def begins_ms(self, known_at: int) -> int | None:
        """Tell when the store's history begins: its earliest event or watched instant."""
        if known_at not in self._begins:
            row = self._row("earliest_evidence", known_at=known_at)
            starts = [] if row is None else [row[0]]
            starts += [begins_ms for begins_ms, _ in self.watched(known_at) or ()]
            self._begins[known_at] = min(starts, default=None)
        return self._begins[known_at]

    def in_force(self, client_no: int, at_ms: int, known_at: int) -> Period | None:
        """Find the period of a client that holds at an instant; None before its first evidence."""
        row = self._row("in_force", client_no=client_no, at_ms=at_ms, known_at=known_at)
        if row is None:
            return None
        after = self._row("next", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return period_at(at_ms, seen_from(row), after, self.watched(known_at))

    def timeline(
        self, client_no: int, known_at: int, *, from_ms: int = -(1 << 62), to_ms: int = 1 << 62
    ) -> list[Seen]:
        """List a client's transitions with `at_ms` in `[from_ms, to_ms)`, ascending."""
        found = self.rows("timeline", client_no=client_no, known_at=known_at, from_ms=from_ms, to_ms=to_ms)
        return [seen_from(row) for row in found]

    def around(self, client_no: int, from_ms: int, to_ms: int, known_at: int) -> list[tuple[Any, ...]]:
        """List what `seen_from` reads: the row in force at `from_ms`, all up to `to_ms`, and one beyond."""
        first = self._row("in_force", client_no=client_no, at_ms=from_ms, known_at=known_at)
        low = from_ms + 1
        after = self._row("next", client_no=client_no, at_ms=to_ms, known_at=known_at)
        high = to_ms + 1 if after is None else after[0] + 1
        rows = self.rows("timeline", client_no=client_no, known_at=known_at, from_ms=low, to_ms=high)
        return rows if first is None else [first, *rows]

    def before(self, client_no: int, at_ms: int, known_at: int) -> Seen | None:
        """Find the transition in force just before an instant."""
        row = self._row("before", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else seen_from(row)

    def believed(self, client_no: int, at_ms: int, known_at: int, most: int = 50) -> list[Seen]:
        """List what was believed to hold at an instant, up to `known_at`; oldest first, the newest `most`."""
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
            known_at = max(seen.recorded_at, -1 if fell_at is None else fell_at) - 1
        return beliefs

    def after(self, client_no: int, at_ms: int, known_at: int) -> tuple[int, int | None] | None:
        """Find the first transition later than an instant, and from when the stretch before it is proven."""
        row = self._row("next", client_no=client_no, at_ms=at_ms, known_at=known_at)
        return None if row is None else (row[0], row[1])


def seen_from(row: Sequence[Any]) -> Seen:
    """Build a transition from a row of the statements above."""
    return Seen(
        row[0],
        row[1],
        row[2],
        row[3],
        STATES[row[4]],
        row[5],
        row[6],
        row[7],
        row[8],
        RULE_NAMES[row[9]],
        row[10],
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
    if at_ms > now_ms:
        raise InvalidRequest("The time asked for lies in the future.")
    begins_ms = asker.begins_ms(known_at)
    if begins_ms is None or at_ms < begins_ms:
        raise IndexNotReady("The history of this store begins later than the time asked for.")
    client_no = asker.client_named(thing_name) if by_client else client_of(asker, thing_name, at_ms, known_at)
    period = None if client_no is None else asker.in_force(client_no, at_ms, known_at)
    if client_no is None or period is None:
        raise ResourceNotFound(f"The resource {thing_name} was not known at that time.")
    client_id = thing_name if by_client else asker.client_id(client_no)
    return answer_of(
        period,
        thing_name=None if by_client and not is_legal(thing_name) else thing_name,
        client_id=client_id,
        at_ms=at_ms,
        known_at=known_at,
    )
