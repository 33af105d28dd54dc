"""What the mirror reads of a store, in one snapshot: what changed since a moment of learning, and rows for its tables.

Holds no DuckDB. How a timeline is cut into stretches is the rule of store/certainty.py, who speaks for a thing that of
store/identity.py.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from store.answer import is_legal
from store.asker import Asker
from store.certainty import bounds_of, periods
from store.identity import bindings
from store.mirror_schema import CUT_MS, EVER_MS, INFERRED, OBSERVED, PRINT, UNKNOWN
from store.model import Certainty
from store.packing import BLOCK, unpack_id, unpack_slots
from store.schema import RULES
from store.seeks import REASON, seen_from

Row = tuple[Any, ...]
_Numbers = TypeVar("_Numbers", bound=tuple[int, ...])
Pair = tuple[int, int]  # a client's number, and the instant from which on it is read
Span = tuple[int, int, int]  # ... and from which on it is not

_BATCH = 1_000  # clients a statement
_CERTAINTIES = {Certainty.OBSERVED: OBSERVED, Certainty.INFERRED: INFERRED, Certainty.UNKNOWN: UNKNOWN}

_PAIRS = {
    "sqlite": "(SELECT json_extract(value, '$[0]') AS client_no, json_extract(value, '$[1]') AS from_ms,"
    " json_extract(value, '$[2]') AS to_ms FROM json_each(:pairs)) p",
    "postgresql": "(SELECT CAST(j.value ->> 0 AS int) AS client_no, CAST(j.value ->> 1 AS bigint) AS from_ms,"
    " CAST(j.value ->> 2 AS bigint) AS to_ms FROM json_array_elements(CAST(:pairs AS json)) j) p",
}
_VISIBLE = "x.recorded_at <= :known_at AND (x.superseded_at IS NULL OR x.superseded_at > :known_at)"
_TOUCHED = "(x.recorded_at >= :since OR x.superseded_at >= :since)"
_AT_LAST = "CASE WHEN x.recorded_at >= :known_at OR x.superseded_at >= :known_at THEN x.at_ms END"
_FOUND = f"x.client_no, min(x.at_ms), max(x.at_ms), min({_AT_LAST})"
_PRINT = PRINT.replace("recorded_ms", "recorded_at")

_STATEMENTS = {
    # What was touched at the newest moment may be touched again at it, and rows of that very moment may vanish.
    # Cut by time, lest a client be read whole for what is late and what is new.
    "transitions_changed": f"""
        SELECT {_FOUND} FROM transitions x WHERE {_TOUCHED} GROUP BY x.client_no, x.at_ms / {CUT_MS}
    """,
    "confirmations_changed": f"""
        SELECT {_FOUND} FROM confirmations x WHERE {_TOUCHED} GROUP BY x.client_no, x.at_ms / {CUT_MS}
    """,
    "fingerprint": f"SELECT count(*), sum({_PRINT}) FROM transitions x WHERE {_VISIBLE}",
    "sweeps": """
        SELECT w.block_no, w.asked_ms, w.first_slot, w.slots FROM PAIRS CROSS JOIN sweeps w
        WHERE w.block_no = p.client_no AND w.known_at >= p.from_ms
    """,
    "repeated": """
        SELECT x.client_no, x.at_ms FROM confirmations x WHERE x.open_at IS NOT NULL AND x.superseded_at IS NULL
    """,
    "sessions_changed": "SELECT DISTINCT e.client_no FROM evidence e WHERE e.known_at >= :since",
    # From the transition in force before it, for its stretch ends elsewhere once what follows has changed, to the next.
    "spans": f"""
        SELECT p.client_no, coalesce((
            SELECT max(x.at_ms) FROM transitions x
            WHERE x.client_no = p.client_no AND x.at_ms < p.from_ms AND {_VISIBLE}
        ), p.from_ms), coalesce((
            SELECT min(x.at_ms) FROM transitions x
            WHERE x.client_no = p.client_no AND x.at_ms > p.to_ms AND {_VISIBLE}
        ), {EVER_MS}) FROM PAIRS
    """,
    # With the transition after it, where the last of its stretches ends.
    "timelines": f"""
        SELECT x.client_no, p.from_ms, p.to_ms, x.at_ms, x.seq, x.recorded_at, x.superseded_at, x.state,
            x.timestamp_ms, x.reason_no, x.not_before_ms, x.not_after_ms, x.rule_no, x.proved_from_ms
        FROM PAIRS CROSS JOIN transitions x
        WHERE x.client_no = p.client_no AND x.at_ms >= p.from_ms AND x.at_ms <= p.to_ms AND {_VISIBLE}
        ORDER BY x.client_no, p.from_ms, x.at_ms, x.seq
    """,
    "confirmations": f"""
        SELECT x.client_no, x.at_ms, x.seq, x.until_ms, x.from_ms, x.open_at
        FROM PAIRS CROSS JOIN confirmations x
        WHERE x.client_no = p.client_no AND x.at_ms >= p.from_ms AND x.at_ms <= p.to_ms AND {_VISIBLE}
    """,
    "sessions": """
        SELECT s.client_no, s.session, s.version, s.connect_ms, s.disconnect_ms, w.text
        FROM PAIRS CROSS JOIN session_rows s LEFT JOIN texts w ON w.text_no = s.reason_no
        WHERE s.client_no = p.client_no
    """,
    "annotations": """
        SELECT m.name, a.annotation_no, a.kind, a.scope, a.subject, a.from_ms, a.to_ms, a.ticket, a.note, a.author,
            a.recorded_at
        FROM annotation_rows a JOIN realms m ON m.realm_no = a.realm_no
        WHERE a.withdrawn = 0 AND a.recorded_at <= :known_at
            AND (a.superseded_at IS NULL OR a.superseded_at > :known_at)
        ORDER BY a.annotation_no
    """,
    "clients": """
        SELECT c.client_no, r.name, c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        ORDER BY c.client_no
    """,
    "things": "SELECT t.thing_no, r.name, t.thing_name FROM things t JOIN realms r ON r.realm_no = t.realm_no",
    # Only where another client begins to bear a thing's name. Of events there are many, and nearly every name is borne
    # by one client: the index tells so, and the first of its events is sought.
    "bearers": """
        WITH borne AS (
            SELECT thing_no, min(client_no) AS client_no, max(client_no) AS other
            FROM evidence WHERE thing_no IS NOT NULL GROUP BY thing_no
        )
        SELECT b.thing_no, b.at_ms, b.client_no FROM (
            SELECT o.thing_no, (
                SELECT e.at_ms FROM evidence e WHERE e.thing_no = o.thing_no AND e.known_at <= :known_at
                ORDER BY e.at_ms LIMIT 1
            ) AS at_ms, 0 AS digest, o.client_no, NULL AS former
            FROM borne o WHERE o.client_no = o.other
            UNION ALL
            SELECT e.thing_no, e.at_ms, e.digest, e.client_no,
                lag(e.client_no) OVER (PARTITION BY e.thing_no ORDER BY e.at_ms, e.digest)
            FROM borne o CROSS JOIN evidence e
            WHERE o.client_no <> o.other AND e.thing_no = o.thing_no AND e.known_at <= :known_at
        ) b WHERE b.at_ms IS NOT NULL AND (b.former IS NULL OR b.former <> b.client_no)
        ORDER BY b.thing_no, b.at_ms, b.digest
    """,
}
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class Changed(NamedTuple):
    """What of clients has to be read again, ascending and apart; and of which of them the sessions."""

    spans: list[Span]
    unsettled: list[Pair]  # what may yet change at the very moment that the mirror is of
    sessions: list[int]
    fingerprint: tuple[int, int]  # of all timelines, as they are now


class Speaker(NamedTuple):
    """A client speaks for a thing throughout `[from_ms, to_ms)`; no name: of no thing that could have one."""

    realm: str
    thing_name: str | None
    client_id: str
    client_no: int
    from_ms: int
    to_ms: int
    name_no: int


class Reader:
    """Reads one snapshot, as known at its watermark."""

    def __init__(self, asker: Asker, driver: Any, *, is_sqlite: bool, known_at: int) -> None:
        self._asker = asker
        self._execute = driver.execute
        self._known_at = known_at
        dialect = "sqlite" if is_sqlite else "postgresql"
        self._sql = {
            name: statement.replace("PAIRS", _PAIRS[dialect]) for name, statement in _STATEMENTS.items()
        }
        if not is_sqlite:
            self._sql = {
                name: _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%"))
                for name, statement in self._sql.items()
            }

    def _rows(self, statement: str, **values: Any) -> list[Row]:
        found: list[Row] = self._execute(
            self._sql[statement], {"known_at": self._known_at, **values}
        ).fetchall()
        return found

    def _of(self, statement: str, pairs: Sequence[tuple[int, ...]]) -> list[Row]:
        return self._rows(statement, pairs=json.dumps(pairs))

    # --- What changed -------------------------------------------------------------------------------------

    def everything(self) -> Changed:
        """Read all there is."""
        numbers = [row[0] for row in self.clients]
        return self.since(self._known_at, [])._replace(
            spans=[(no, -EVER_MS, EVER_MS) for no in numbers], sessions=numbers
        )

    def since(self, since: int, unsettled: Iterable[Pair]) -> Changed:
        """Tell what was learned at or after a moment; `unsettled` as it was told then."""
        last: dict[int, int] = {}
        found: list[Span] = [(client_no, at_ms, EVER_MS) for client_no, at_ms in unsettled]
        found += [(client_no, at_ms, at_ms) for client_no, at_ms in self._swept(since)]
        for statement in ("transitions_changed", "confirmations_changed"):
            for client_no, from_ms, to_ms, at_last_ms in self._rows(statement, since=since):
                found.append((client_no, from_ms, to_ms))
                if at_last_ms is not None:
                    last[client_no] = min(at_last_ms, last.get(client_no, EVER_MS))
        spans: list[Span] = []
        for batch in batched(sorted(found), _BATCH):
            for client_no, from_ms, to_ms in sorted(self._of("spans", batch)):
                if spans and spans[-1][0] == client_no and from_ms < spans[-1][2]:
                    from_ms, to_ms = spans[-1][1], max(spans.pop()[2], to_ms)
                spans.append((client_no, from_ms, to_ms))
        sessions = [row[0] for row in self._rows("sessions_changed", since=since)]
        ((total, number),) = self._rows("fingerprint")
        return Changed(spans, sorted(last.items()), sorted(sessions), (total, int(number or 0)))

    def _swept(self, since: int) -> list[Pair]:
        """List the clients that a sweep found as they had been, and the transition that it confirms."""
        newest = self.clients[-1][0] if self.clients else 0
        blocks = [(block_no, since) for block_no in range(newest // BLOCK + 1)]
        asked = {
            block_no * BLOCK + slot
            for block_no, *row in self._of("sweeps", blocks)
            for slot, _ in unpack_slots(*row)
        }
        return [(row[0], row[1]) for row in self._rows("repeated") if row[0] in asked] if asked else []

    # --- Rows ---------------------------------------------------------------------------------------------

    def timelines(self, spans: Sequence[Span]) -> Iterator[tuple[list[Row], list[Row]]]:
        """Give the rows of `timeline` and of `stretches`, span by span."""
        for batch in batched(spans, _BATCH):
            proofs: dict[int, dict[Pair, Row]] = defaultdict(dict)
            for client_no, at_ms, seq, *proof in self._of("confirmations", batch):
                proofs[client_no][at_ms, seq] = tuple(proof)
            for (client_no, _, to_ms), rows in groupby(self._of("timelines", batch), key=itemgetter(0, 1, 2)):
                seen, cut = self._cut(client_no, [row[3:] for row in rows], proofs.get(client_no, {}))
                yield [row for row in seen if row[1] < to_ms], [row for row in cut if row[1] < to_ms]

    def _cut(self, client_no: int, rows: list[Row], proofs: dict[Pair, Row]) -> tuple[list[Row], list[Row]]:
        timeline, numbers = [], {}
        seen_rows: list[Row] = []
        for row in rows:
            seen = seen_from(row, self._asker.text(row[REASON]))
            proof = proofs.get((seen.at_ms, seen.seq))
            if proof is not None:
                until_ms, from_ms, open_at = proof
                seen = self._asker.proven(seen, (until_ms, from_ms, open_at), client_no, self._known_at)
            timeline.append(seen)
            numbers[seen.at_ms, seen.seq] = row[REASON]
            seen_rows.append(
                (
                    client_no,
                    seen.at_ms,
                    seen.seq,
                    seen.state.value,
                    seen.timestamp_ms,
                    row[REASON],
                    *bounds_of(seen),
                    RULES[seen.rule],
                    seen.recorded_at,
                )
            )
        stretches: list[Row] = [
            (
                client_no,
                seen.at_ms,
                from_ms,
                EVER_MS if to_ms is None else to_ms,
                seen.state.value,
                _CERTAINTIES[certainty],
                seen.timestamp_ms,
                numbers[seen.at_ms, seen.seq],
                *bounds_of(seen),
            )
            for from_ms, to_ms, seen, certainty in periods(timeline, None)
        ]
        return seen_rows, stretches

    def reason(self, reason_no: int) -> str | None:
        """Give the text of a reason."""
        return self._asker.text(reason_no)

    def sessions(self, clients: Sequence[int]) -> Iterator[Row]:
        """Give the rows of `sessions` of these clients."""
        for batch in batched([(no, 0) for no in clients], _BATCH):
            for client_no, session, *more in self._of("sessions", batch):
                yield (client_no, unpack_id(bytes(session)) or None, *more)

    def watching(self) -> list[Row]:
        """Give the stretches in which some path was recording, and those between them: they tile all time."""
        watched = self._asker.watched(self._known_at)
        if watched is None:
            return [(-EVER_MS, EVER_MS, 1)]
        found: list[Row] = []
        cursor_ms = -EVER_MS
        for from_ms, to_ms in watched:
            found += [(cursor_ms, from_ms, 0), (from_ms, to_ms, 1)]
            cursor_ms = to_ms
        return [*found, (cursor_ms, EVER_MS, 0)]

    def annotations(self) -> list[Row]:
        """Give the annotations that were not withdrawn, as the view of the store has them."""
        return self._rows("annotations")

    @cached_property
    def clients(self) -> list[Row]:
        """Give `(client_no, realm, client_id)` of all clients, ascending."""
        return self._rows("clients")

    def speakers(self, horizon_ms: int) -> Iterator[Speaker]:
        """List which client speaks for which thing when, after a horizon; every client that bears no other's name."""
        clients = self.clients
        ids = {client_no: client_id for client_no, _, client_id in clients}
        own = {(realm, client_id): client_no for client_no, realm, client_id in clients}
        borne: dict[int, list[Pair]] = defaultdict(list)
        for thing_no, at_ms, client_no in self._rows("bearers"):
            borne[thing_no].append((at_ms, client_no))
        bound = {client_no for bearers in borne.values() for _, client_no in bearers}
        named: set[tuple[str, str]] = set()
        for thing_no, realm, name in self._rows("things"):
            if not is_legal(name):
                continue
            named.add((realm, name))
            listed = _Listed(own.get((realm, name)), borne.get(thing_no, []))
            for from_ms, to_ms, client_no in bindings(listed, name, self._known_at):
                begins_ms = max(horizon_ms, -EVER_MS if from_ms is None else from_ms)
                ends_ms = EVER_MS if to_ms is None else to_ms
                if begins_ms < ends_ms:
                    yield Speaker(realm, name, ids[client_no], client_no, begins_ms, ends_ms, thing_no)
        for client_no, realm, client_id in clients:
            if client_no not in bound and (realm, client_id) not in named:
                name = client_id if is_legal(client_id) else None
                yield Speaker(realm, name, client_id, client_no, horizon_ms, EVER_MS, -client_no)


class _Listed:
    """What the rule of store/identity.py asks, of one thing whose bearers were read."""

    def __init__(self, own: int | None, bearers: list[Pair]) -> None:
        self._own, self._bearers = own, bearers

    def client_named(self, client_id: str) -> int | None:
        return self._own

    def thing_named(self, name: str) -> int | None:
        return 0

    def bound(self, thing_no: int, at_ms: int, known_at: int) -> int | None:
        raise NotImplementedError

    def bearers(self, thing_no: int, known_at: int) -> Iterable[Pair]:
        return self._bearers


def batched(pairs: Sequence[_Numbers], size: int) -> Iterator[list[_Numbers]]:
    """Cut a list into parts of a size."""
    rest = iter(pairs)
    while part := list(islice(rest, size)):
        yield part
