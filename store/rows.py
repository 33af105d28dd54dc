"""What the writer's transaction says to the database, in the driver's own words.

Two classes with one behaviour, SQLite and PostgreSQL; everything the two engines do differently on the write
path stands here, side by side. Decides nothing: which rows there are is for ingest/writer.py to say. Rows are
plain tuples in the column order of store/schema.py.
"""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from store.bulk import (
    Codes,
    Packed,
    PostgresCodes,
    SqliteCodes,
    SqliteInsert,
    csv_copy,
    csv_rows,
    json_rows,
    member,
)
from store.care import Care, care_of
from store.checks import CONFIRMATION_COLUMNS, CheckRows
from store.clock import Clock
from store.engine import Store
from store.errors import StoreUnfinished
from store.model import Identity, Session
from store.packing import pack_identity, session_from

Values = tuple[Any, ...]
Coded = Sequence[Sequence[Any]]  # rows whose session is a code of store/bulk.py

WRITER_LOCK = (
    0x7468 << 42
)  # PostgreSQL: advisory lock keys of running transactions; the low 42 bits are a time
WRITER_LOCK_MASK = (1 << 42) - 1
SLOTS = 64  # PostgreSQL: watermark rows that writers spread over, so that they seldom wait for one another


class ClientRow(NamedTuple):
    """A client as the store holds it."""

    client_no: int
    client_id: str
    first_ms: int | None
    has_strays: bool
    last_known_at: int | None
    checked_ms: int | None


class Mark(NamedTuple):
    """The newest known_at in the store, and the recording it came from, if it came from one."""

    last_known_at: int
    replay_source_no: int | None


class SessionHeld(Exception):
    """A session that was presumed to be new is in the store already."""


class Rows(ABC):
    """One transaction at a time: `begin`, any of the others, then `commit` or `rollback`."""

    @abstractmethod
    def begin(self, clock: Clock, floor_ms: int | None) -> int:
        """Begin, and give now. No row of this transaction is known before `floor_ms` (None: before now)."""

    @abstractmethod
    def begin_care(self, *, alone: bool) -> None:
        """Begin a transaction that learns nothing; `alone` waits for all writers and holds up others.

        Raises StoreUnfinished where timelines are missing, and they would be touched `alone`.
        """

    def _check_finished(self) -> None:
        if self.fetch("SELECT 1 FROM backfills"):
            raise StoreUnfinished

    @abstractmethod
    def care(self) -> Care:
        """Read what was taken out of the store, and hold that until the end of the transaction."""

    def fetch(self, statement: str, values: Values = ()) -> list[Values]:
        """Run a SELECT (`?` for a parameter)."""
        return self._all(statement.replace("?", self._mark), values)

    @abstractmethod
    def changed(self, statement: str, rows: Sequence[Values]) -> int:
        """Run a statement (`?` for a parameter) once a row; gives how many rows of the store it changed."""

    @abstractmethod
    def commit(self) -> None: ...

    @abstractmethod
    def rollback(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def mark(self) -> Mark: ...

    @abstractmethod
    def set_mark(self, mark: Mark) -> None: ...

    @abstractmethod
    def realm(self, name: str) -> int: ...

    @abstractmethod
    def texts(self, texts: Iterable[str]) -> dict[str, int]:
        """Intern: give every text its number, new ones included."""

    @abstractmethod
    def things(self, realm_no: int, names: Iterable[str]) -> dict[str, int]: ...

    @abstractmethod
    def clients(self, realm_no: int, ids: Iterable[str]) -> list[ClientRow]:
        """Give (and lock) the clients of these ids, making those that are new."""

    @abstractmethod
    def tails(self, client_nos: Sequence[int], depth: int) -> dict[int, list[Session]]:
        """Give each client's newest sessions, `depth` at most, newest first."""

    @abstractmethod
    def find(self, keys: Sequence[tuple[int, Identity]]) -> dict[tuple[int, Identity], Session]: ...

    @abstractmethod
    def sessions_between(self, client_no: int, from_ms: int, to_ms: int) -> list[Session]: ...

    @abstractmethod
    def sessions_beside(self, client_no: int, at_ms: int, limit: int, *, before: bool) -> list[Session]:
        """Give the sessions nearest to `at_ms` on one side of it (that instant left out), nearest first."""

    def latest_end(self, client_no: int, before_ms: int) -> int:
        """Give the latest disconnect of sessions with a connect stamped before `before_ms`; -1: none."""
        mark = self._mark
        rows = self._all(
            "SELECT max(disconnect_ms) FROM session_rows s"
            f" WHERE client_no = {mark} AND {_STAMP} < {mark} AND connect_ms IS NOT NULL",
            (client_no, before_ms),
        )
        latest_ms = rows[0][0]
        return -1 if latest_ms is None else int(latest_ms)

    def sessions_of_version(self, client_no: int, version: int) -> list[Session]:
        """Give a client's sessions of a version, and those without any that share an instant with one.

        No index holds versions: reads all of the client's sessions, and is for what no window shows.
        """
        mark = self._mark
        same = f"FROM session_rows WHERE client_no = {mark} AND version = {mark}"
        rows = self._all(
            f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM} WHERE s.client_no = {mark} AND (s.version = {mark}"
            " OR (s.version IS NULL"
            f" AND (s.connect_ms IN (SELECT connect_ms {same} AND connect_ms IS NOT NULL)"
            f" OR s.disconnect_ms IN (SELECT disconnect_ms {same} AND disconnect_ms IS NOT NULL))))",
            (client_no, version) * 3,
        )
        return [session_from(*row) for row in rows]

    @abstractmethod
    def codes(self) -> Codes:
        """Give a code for every session identity, for the rows of one batch."""

    @abstractmethod
    def add_sessions(self, rows: Coded, codes: Codes) -> None:
        """Add sessions that are new. Raises SessionHeld where one is not; the transaction is lost then."""

    @abstractmethod
    def put_sessions(self, rows: Coded, codes: Codes) -> None:
        """Add sessions, or change them."""

    @abstractmethod
    def put_evidence(self, rows: Coded, codes: Codes) -> int:
        """Add what is not there yet; give how many that were."""

    @abstractmethod
    def put_once(self, table: str, rows: Sequence[Values]) -> int:
        """Add to observations, watches or quarantine what is not there yet; give how many that were."""

    @abstractmethod
    def put_transitions(self, rows: Sequence[Sequence[Any]]) -> None: ...

    @abstractmethod
    def supersede(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """Mark current rows `(known_at, client_no, at_ms, seq)` as superseded."""

    @abstractmethod
    def unsay(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """Delete current rows `(known_at, client_no, at_ms, seq)` recorded in the very step named."""

    @abstractmethod
    def revive(self, row: Values, known_at: int) -> bool:
        """Make a row current again that the very step named had superseded; tell whether there was one."""

    @abstractmethod
    def put_clients(self, rows: Sequence[Values]) -> None:
        """Save `(first_ms, has_strays, last_known_at, checked_ms, client_no)`."""

    # --- checks ---------------------------------------------------------------------------------------------

    @property
    def checks(self) -> CheckRows:
        """What the store holds of API checks."""
        return CheckRows(self._all, self._mark)

    def newest(self, client_no: int) -> Values | None:
        """Give the last transition of a client, as `(at_ms, state, timestamp_ms)`."""
        rows = self._all(
            f"SELECT at_ms, state, timestamp_ms FROM transitions WHERE client_no = {self._mark}"
            " AND superseded_at IS NULL ORDER BY at_ms DESC, seq DESC LIMIT 1",
            (client_no,),
        )
        return rows[0] if rows else None

    @abstractmethod
    def many(self, statement: str, rows: Sequence[Values]) -> None:
        """Run a statement of store/checks.py once a row."""

    # --- rebuilding -----------------------------------------------------------------------------------------

    def derived(self, client_no: int) -> tuple[list[Values], list[Values], list[Values], int | None]:
        """Give all that was derived of a client: transitions, confirmations, sessions, its first evidence."""
        mark = self._mark
        transitions = self._all(
            f"SELECT {_TRANSITION} FROM transitions WHERE client_no = {mark}"
            " ORDER BY at_ms, seq, recorded_at",
            (client_no,),
        )
        confirmations = self._all(
            f"SELECT {CONFIRMATION_COLUMNS} FROM confirmations WHERE client_no = {mark}"
            " ORDER BY at_ms, seq, recorded_at",
            (client_no,),
        )
        sessions = self._all(f"SELECT {_SESSION} FROM session_rows WHERE client_no = {mark}", (client_no,))
        first = self._all(f"SELECT first_ms FROM clients WHERE client_no = {mark}", (client_no,))
        unwrapped = [(row[0], bytes(row[1]), *row[2:]) for row in sessions]
        return transitions, confirmations, sorted(unwrapped), first[0][0] if first else None

    @staticmethod
    @abstractmethod
    def packed(table: str, rows: Coded, codes: Codes) -> Packed:
        """Pack rows of transitions or session_rows, at least one, for `put_packed` of a store of this engine."""

    @abstractmethod
    def put_packed(self, packed: Packed) -> None: ...

    def drop_derived(self, client_no: int) -> None:
        """Delete a client's transitions and sessions; evidence stays."""
        for table in ("transitions", "confirmations", "session_rows"):
            self._all(f"DELETE FROM {table} WHERE client_no = {self._mark}", (client_no,))

    _mark: str  # how the driver writes a parameter

    @abstractmethod
    def _all(self, statement: str, values: Values) -> list[Values]: ...


class Interned(dict[str, int]):
    """Strings and their numbers; one that is not held is looked up in the rows that are running then."""

    def __init__(self, rows: Callable[[], Rows]) -> None:
        self._rows = rows

    def __missing__(self, text: str) -> int:
        self |= self._rows().texts({text})
        return self[text]


_SESSION_COLUMNS = "s.session, s.version, s.connect_ms, s.disconnect_ms, t.text"
_SESSION_FROM = "session_rows s LEFT JOIN texts t ON t.text_no = s.reason_no"
_STAMP = "coalesce(s.connect_ms, s.disconnect_ms)"
_TRANSITION = (
    "client_no, at_ms, seq, recorded_at, superseded_at, state, timestamp_ms, reason_no, not_before_ms,"
    " not_after_ms, rule_no, proved_from_ms"
)
_EVIDENCE = (
    "at_ms, client_no, digest, kind, known_at, claimed_at, source_no, session, version, reason_no,"
    " client_initiated, principal_no, ip_no, thing_no, extra"
)
_ONCE: dict[str, str] = {
    "observations": "at_ms, digest, kind, subject, known_at, claimed_at, source_no, body, realm_no",
    "watches": "source, from_ms, to_ms, known_at, claimed_at",
    "quarantine": "source_no, position, known_at, reason, detail, length, sha256, head",
}
_CURRENT = f"client_no = {member(1)} AND at_ms = {member(2)} AND seq = {member(3)} AND superseded_at IS NULL"
_SESSION = "client_no, session, version, connect_ms, disconnect_ms, reason_no"
_UPSERT = (
    " ON CONFLICT (client_no, session) DO UPDATE SET version = excluded.version,"
    " connect_ms = excluded.connect_ms, disconnect_ms = excluded.disconnect_ms,"
    " reason_no = excluded.reason_no"
)


def _marks(columns: str) -> str:
    return ", ".join("?" for _ in columns.split(","))


def rows_of(store: Store) -> Rows:
    """Open the write path of a store that was opened for writing."""
    connection = store.engine.raw_connection()
    driver: Any = connection.driver_connection
    connection.detach()  # it is the writer's for good, and the writer closes it
    return SqliteRows(driver) if isinstance(driver, sqlite3.Connection) else PostgresRows(driver)


class SqliteRows(Rows):
    """One writer, held by the lock file; every statement is a prepared one."""

    _PUT_EVIDENCE = SqliteInsert(
        "INSERT OR IGNORE INTO evidence",
        _EVIDENCE,
        coded="session",
        mostly_alike=("known_at", "claimed_at", "source_no", "thing_no", "extra"),
    )
    _PUT_TRANSITIONS = SqliteInsert(
        "INSERT INTO transitions",
        _TRANSITION,
        mostly_alike=("seq", "recorded_at", "superseded_at", "not_before_ms", "not_after_ms"),
    )
    _ADD_SESSIONS = SqliteInsert("INSERT INTO session_rows", _SESSION, coded="session")
    _PUT_SESSIONS = SqliteInsert("INSERT INTO session_rows", _SESSION, _UPSERT, coded="session")
    _TAIL = (
        f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM} WHERE s.client_no = ? ORDER BY {_STAMP} DESC LIMIT ?"
    )
    _FIND = f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM} WHERE s.client_no = ? AND s.session = ?"
    _BETWEEN = (
        f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM} WHERE s.client_no = ? AND {_STAMP} BETWEEN ? AND ?"
    )
    _BEFORE = (
        f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM}"
        f" WHERE s.client_no = ? AND {_STAMP} < ? ORDER BY {_STAMP} DESC LIMIT ?"
    )
    _AFTER = (
        f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM}"
        f" WHERE s.client_no = ? AND {_STAMP} > ? ORDER BY {_STAMP} LIMIT ?"
    )
    _REVIVE = (
        "UPDATE transitions SET superseded_at = NULL WHERE client_no = ? AND at_ms = ? AND seq = ?"
        " AND superseded_at = ? AND state = ? AND timestamp_ms IS ? AND reason_no IS ?"
        " AND not_before_ms IS ? AND not_after_ms IS ? AND rule_no = ? AND proved_from_ms IS ?"
    )

    _mark = "?"

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _all(self, statement: str, values: Values) -> list[Values]:
        return self._db.execute(statement, values).fetchall()

    def begin(self, clock: Clock, floor_ms: int | None) -> int:
        self._db.execute("BEGIN IMMEDIATE")
        return clock()

    def begin_care(self, *, alone: bool) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if alone:
            self._check_finished()

    def care(self) -> Care:
        return care_of(self._db.execute)

    def changed(self, statement: str, rows: Sequence[Values]) -> int:
        return self._counted(statement, rows)

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        # Without waiting: whoever reads an older state may go on for long, and the next to close will shorten it.
        self._db.execute("PRAGMA busy_timeout=0")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def mark(self) -> Mark:
        row = self._db.execute(
            "SELECT last_known_at, replay_source_no FROM watermarks WHERE slot = 0"
        ).fetchone()
        return Mark(-1, None) if row is None else Mark(*row)

    def set_mark(self, mark: Mark) -> None:
        self._db.execute(
            "INSERT INTO watermarks (slot, last_known_at, replay_source_no) VALUES (0, ?, ?)"
            " ON CONFLICT (slot) DO UPDATE SET last_known_at = excluded.last_known_at,"
            " replay_source_no = excluded.replay_source_no",
            mark,
        )

    def realm(self, name: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO realms (name) VALUES (?)", (name,))
        return int(self._db.execute("SELECT realm_no FROM realms WHERE name = ?", (name,)).fetchone()[0])

    def texts(self, texts: Iterable[str]) -> dict[str, int]:
        wanted = sorted(texts)
        self._db.executemany("INSERT OR IGNORE INTO texts (text) VALUES (?)", ((text,) for text in wanted))
        one = "SELECT text_no FROM texts WHERE text = ?"
        return {text: self._db.execute(one, (text,)).fetchone()[0] for text in wanted}

    def things(self, realm_no: int, names: Iterable[str]) -> dict[str, int]:
        wanted = sorted(names)
        self._db.executemany(
            "INSERT OR IGNORE INTO things (realm_no, thing_name) VALUES (?, ?)",
            ((realm_no, name) for name in wanted),
        )
        one = "SELECT thing_no FROM things WHERE realm_no = ? AND thing_name = ?"
        return {name: self._db.execute(one, (realm_no, name)).fetchone()[0] for name in wanted}

    def clients(self, realm_no: int, ids: Iterable[str]) -> list[ClientRow]:
        one = (
            "SELECT client_no, client_id, first_ms, has_strays, last_known_at, checked_ms FROM clients"
            " WHERE realm_no = ? AND client_id = ?"
        )
        found: list[ClientRow] = []
        for client_id in sorted(ids):
            row = self._db.execute(one, (realm_no, client_id)).fetchone()
            if row is None:
                self._db.execute(
                    "INSERT INTO clients (realm_no, client_id) VALUES (?, ?)", (realm_no, client_id)
                )
                row = self._db.execute(one, (realm_no, client_id)).fetchone()
            found.append(ClientRow(row[0], row[1], row[2], bool(row[3]), row[4], row[5]))
        return found

    def tails(self, client_nos: Sequence[int], depth: int) -> dict[int, list[Session]]:
        return {no: self._sessions(self._TAIL, (no, depth)) for no in client_nos}

    def find(self, keys: Sequence[tuple[int, Identity]]) -> dict[tuple[int, Identity], Session]:
        found: dict[tuple[int, Identity], Session] = {}
        for client_no, key in keys:
            for session in self._sessions(self._FIND, (client_no, pack_identity(key))):
                found[client_no, key] = session
        return found

    def sessions_between(self, client_no: int, from_ms: int, to_ms: int) -> list[Session]:
        return self._sessions(self._BETWEEN, (client_no, from_ms, to_ms))

    def sessions_beside(self, client_no: int, at_ms: int, limit: int, *, before: bool) -> list[Session]:
        return self._sessions(self._BEFORE if before else self._AFTER, (client_no, at_ms, limit))

    def _sessions(self, statement: str, values: Values) -> list[Session]:
        return [session_from(*row) for row in self._db.execute(statement, values)]

    def codes(self) -> SqliteCodes:
        return SqliteCodes()

    def add_sessions(self, rows: Coded, codes: Codes) -> None:
        try:
            self._ADD_SESSIONS.run(self._db, rows, codes)
        except sqlite3.IntegrityError as error:
            raise SessionHeld from error

    def put_sessions(self, rows: Coded, codes: Codes) -> None:
        self._PUT_SESSIONS.run(self._db, rows, codes)

    def put_evidence(self, rows: Coded, codes: Codes) -> int:
        return self._PUT_EVIDENCE.run(self._db, rows, codes)

    def put_once(self, table: str, rows: Sequence[Values]) -> int:
        columns = _ONCE[table]
        return self._counted(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({_marks(columns)})", rows)

    def _counted(self, statement: str, rows: Sequence[Values]) -> int:
        before = self._db.total_changes
        self._db.executemany(statement, rows)
        return self._db.total_changes - before

    def put_transitions(self, rows: Sequence[Sequence[Any]]) -> None:
        self._PUT_TRANSITIONS.run(self._db, rows)

    @staticmethod
    def packed(table: str, rows: Coded, codes: Codes) -> Packed:
        inserts = {"transitions": SqliteRows._PUT_TRANSITIONS, "session_rows": SqliteRows._ADD_SESSIONS}
        return inserts[table].packed(rows, codes)

    def put_packed(self, packed: Packed) -> None:
        self._db.execute(*packed)

    def supersede(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        self._bulk(
            f"UPDATE transitions SET superseded_at = {member(0)} FROM json_each(?) WHERE {_CURRENT}", rows
        )

    def unsay(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        self._db.executemany(
            "DELETE FROM transitions WHERE recorded_at = ?"
            " AND client_no = ? AND at_ms = ? AND seq = ? AND superseded_at IS NULL",
            rows,
        )

    def _bulk(self, statement: str, rows: Sequence[Values]) -> None:
        if rows:
            self._db.execute(statement, (json_rows(rows),))

    def revive(self, row: Values, known_at: int) -> bool:
        return self._db.execute(self._REVIVE, (*row[:3], known_at, *row[5:])).rowcount == 1

    def put_clients(self, rows: Sequence[Values]) -> None:
        self._bulk(
            f"UPDATE clients SET first_ms = {member(0)}, has_strays = {member(1)}, last_known_at = {member(2)},"
            f" checked_ms = {member(3)} FROM json_each(?) WHERE client_no = {member(4)}",
            rows,
        )

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        self._db.executemany(statement, rows)


class PostgresRows(Rows):
    """Many writers, who meet at the rows of `clients`: every transaction locks those it touches, in order."""

    _mark = "%s"

    def _all(self, statement: str, values: Values) -> list[Values]:
        cursor = self._db.execute(statement, values)
        return [] if cursor.description is None else list(cursor.fetchall())

    def __init__(self, db: Any) -> None:
        self._db = db
        self._slot = 1 + os.getpid() % (SLOTS - 1)
        db.autocommit = True
        with db.cursor() as cursor:
            for table in ("evidence", "session_rows"):
                cursor.execute(
                    f"CREATE TEMP TABLE {table}_in (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
                )

    def begin(self, clock: Clock, floor_ms: int | None) -> int:
        self._db.execute("BEGIN")
        # The lock is seen by readers before any known_at of this transaction is chosen: store/watermark.py.
        floor_ms = clock() if floor_ms is None else min(floor_ms, clock())
        self._db.execute("SELECT pg_advisory_xact_lock_shared(%s)", (WRITER_LOCK | floor_ms,))
        return clock()

    def begin_care(self, *, alone: bool) -> None:
        self._db.execute("BEGIN")
        if alone:
            care_of(self._db.execute, lock=" FOR UPDATE")
            self._check_finished()

    def care(self) -> Care:
        return care_of(self._db.execute, lock=" FOR SHARE")

    def changed(self, statement: str, rows: Sequence[Values]) -> int:
        if not rows:
            return 0
        with self._db.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s"), rows)
            return int(cursor.rowcount)

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if not self._db.closed:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def mark(self) -> Mark:
        row = self._db.execute(
            "SELECT last_known_at, replay_source_no FROM watermarks ORDER BY last_known_at DESC, slot LIMIT 1"
        ).fetchone()
        return Mark(-1, None) if row is None else Mark(*row)

    def set_mark(self, mark: Mark) -> None:
        self._db.execute(
            "INSERT INTO watermarks AS w (slot, last_known_at, replay_source_no) VALUES (%s, %s, %s)"
            " ON CONFLICT (slot) DO UPDATE SET"
            " last_known_at = greatest(w.last_known_at, excluded.last_known_at),"
            " replay_source_no = excluded.replay_source_no",
            (self._slot, *mark),
        )

    def realm(self, name: str) -> int:
        self._db.execute("INSERT INTO realms (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
        return int(self._db.execute("SELECT realm_no FROM realms WHERE name = %s", (name,)).fetchone()[0])

    def texts(self, texts: Iterable[str]) -> dict[str, int]:
        wanted = sorted(texts)
        select = "SELECT text, text_no FROM texts WHERE text = ANY(%s)"
        found = dict(self._db.execute(select, (wanted,)).fetchall())
        new = [text for text in wanted if text not in found]
        if new:
            self._db.execute(
                "INSERT INTO texts (text) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (new,)
            )
            found |= dict(self._db.execute(select, (new,)).fetchall())
        return found

    def things(self, realm_no: int, names: Iterable[str]) -> dict[str, int]:
        wanted = sorted(names)
        self._db.execute(
            "INSERT INTO things (realm_no, thing_name) SELECT %s, n FROM unnest(%s::text[]) n"
            " WHERE NOT EXISTS (SELECT FROM things t WHERE t.realm_no = %s AND t.thing_name = n)"
            " ON CONFLICT DO NOTHING",
            (realm_no, wanted, realm_no),
        )
        return dict(
            self._db.execute(
                "SELECT thing_name, thing_no FROM things WHERE realm_no = %s AND thing_name = ANY(%s)",
                (realm_no, wanted),
            ).fetchall()
        )

    def clients(self, realm_no: int, ids: Iterable[str]) -> list[ClientRow]:
        wanted = sorted(ids)
        self._db.execute(
            "INSERT INTO clients (realm_no, client_id) SELECT %s, i FROM unnest(%s::text[]) i"
            " WHERE NOT EXISTS (SELECT FROM clients c WHERE c.realm_no = %s AND c.client_id = i)"
            " ON CONFLICT DO NOTHING",
            (realm_no, wanted, realm_no),
        )
        rows = self._db.execute(
            "SELECT client_no, client_id, first_ms, has_strays, last_known_at, checked_ms FROM clients"
            " WHERE realm_no = %s AND client_id = ANY(%s) ORDER BY client_no FOR NO KEY UPDATE",
            (realm_no, wanted),
        ).fetchall()
        return [ClientRow(row[0], row[1], row[2], bool(row[3]), row[4], row[5]) for row in rows]

    def tails(self, client_nos: Sequence[int], depth: int) -> dict[int, list[Session]]:
        tails: dict[int, list[Session]] = {no: [] for no in client_nos}
        rows = self._db.execute(
            "SELECT c.no, s.session, s.version, s.connect_ms, s.disconnect_ms, t.text"
            " FROM unnest(%s::int[]) c(no)"
            " CROSS JOIN LATERAL (SELECT * FROM session_rows s WHERE s.client_no = c.no"
            " ORDER BY coalesce(s.connect_ms, s.disconnect_ms) DESC LIMIT %s) s"
            " LEFT JOIN texts t ON t.text_no = s.reason_no",
            (list(client_nos), depth),
        ).fetchall()
        for client_no, *session in rows:
            tails[client_no].append(session_from(*session))
        for tail in tails.values():
            tail.sort(key=lambda s: -(s.connect_ms if s.connect_ms is not None else s.disconnect_ms or 0))
        return tails

    def find(self, keys: Sequence[tuple[int, Identity]]) -> dict[tuple[int, Identity], Session]:
        packed = {(no, pack_identity(key)): (no, key) for no, key in keys}
        rows = self._db.execute(
            "SELECT s.client_no, s.session, s.version, s.connect_ms, s.disconnect_ms, t.text"
            " FROM unnest(%s::int[], %s::bytea[]) k(no, session)"
            " JOIN session_rows s ON s.client_no = k.no AND s.session = k.session"
            " LEFT JOIN texts t ON t.text_no = s.reason_no",
            ([no for no, _ in packed], [session for _, session in packed]),
        ).fetchall()
        return {packed[no, bytes(session[0])]: session_from(*session) for no, *session in rows}

    def sessions_between(self, client_no: int, from_ms: int, to_ms: int) -> list[Session]:
        return self._sessions(
            f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM}"
            f" WHERE s.client_no = %s AND {_STAMP} BETWEEN %s AND %s",
            (client_no, from_ms, to_ms),
        )

    def sessions_beside(self, client_no: int, at_ms: int, limit: int, *, before: bool) -> list[Session]:
        side = f"< %s ORDER BY {_STAMP} DESC" if before else f"> %s ORDER BY {_STAMP}"
        return self._sessions(
            f"SELECT {_SESSION_COLUMNS} FROM {_SESSION_FROM}"
            f" WHERE s.client_no = %s AND {_STAMP} {side} LIMIT %s",
            (client_no, at_ms, limit),
        )

    def _sessions(self, statement: str, values: Values) -> list[Session]:
        return [session_from(*row) for row in self._db.execute(statement, values).fetchall()]

    def _copy(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        self.put_packed((csv_copy(table, columns), csv_rows(rows)))

    @staticmethod
    def packed(table: str, rows: Coded, codes: Codes) -> Packed:
        columns = {"transitions": _TRANSITION, "session_rows": _SESSION}
        return csv_copy(table, columns[table]), csv_rows(rows)

    def put_packed(self, packed: Packed) -> None:
        statement, data = packed
        with self._db.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(data)

    def codes(self) -> PostgresCodes:
        return PostgresCodes()

    def add_sessions(self, rows: Coded, codes: Codes) -> None:
        from psycopg.errors import UniqueViolation

        if not rows:
            return
        try:
            self._copy("session_rows", _SESSION, rows)
        except UniqueViolation as error:
            raise SessionHeld from error

    def put_sessions(self, rows: Coded, codes: Codes) -> None:
        if not rows:
            return
        self._copy("session_rows_in", _SESSION, rows)
        self._db.execute(
            f"INSERT INTO session_rows ({_SESSION}) SELECT {_SESSION} FROM session_rows_in{_UPSERT}"
        )
        self._db.execute("TRUNCATE session_rows_in")

    def put_evidence(self, rows: Coded, codes: Codes) -> int:
        if not rows:
            return 0
        self._copy("evidence_in", _EVIDENCE, rows)
        done = self._db.execute(
            f"INSERT INTO evidence ({_EVIDENCE}) SELECT {_EVIDENCE} FROM evidence_in ON CONFLICT DO NOTHING"
        ).rowcount
        self._db.execute("TRUNCATE evidence_in")
        return int(done)

    def put_once(self, table: str, rows: Sequence[Values]) -> int:
        if not rows:
            return 0
        columns = _ONCE[table]
        marks = _marks(columns).replace("?", "%s")
        with self._db.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                rows,
            )
            return int(cursor.rowcount)

    def put_transitions(self, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._copy("transitions", _TRANSITION, rows)

    def supersede(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        self._on_current("UPDATE transitions t SET superseded_at = k.known_at", "FROM", "", rows)

    def unsay(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        self._on_current("DELETE FROM transitions t", "USING", " AND t.recorded_at = k.known_at", rows)

    def _on_current(
        self, verb: str, joined: str, also: str, rows: Sequence[tuple[int, int, int, int]]
    ) -> None:
        if not rows:
            return
        known, clients, ats, seqs = (list(column) for column in zip(*rows, strict=True))
        self._db.execute(
            f"{verb} {joined} unnest(%s::bigint[], %s::int[], %s::bigint[], %s::smallint[])"
            " k(known_at, client_no, at_ms, seq) WHERE t.client_no = k.client_no AND t.at_ms = k.at_ms"
            f" AND t.seq = k.seq AND t.superseded_at IS NULL{also}",
            (known, clients, ats, seqs),
        )

    def revive(self, row: Values, known_at: int) -> bool:
        done = self._db.execute(
            "UPDATE transitions SET superseded_at = NULL WHERE client_no = %s AND at_ms = %s AND seq = %s"
            " AND superseded_at = %s AND state = %s AND timestamp_ms IS NOT DISTINCT FROM %s::bigint"
            " AND reason_no IS NOT DISTINCT FROM %s::int AND not_before_ms IS NOT DISTINCT FROM %s::bigint"
            " AND not_after_ms IS NOT DISTINCT FROM %s::bigint AND rule_no = %s"
            " AND proved_from_ms IS NOT DISTINCT FROM %s::bigint",
            (*row[:3], known_at, *row[5:]),
        ).rowcount
        return bool(done == 1)

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        if rows:
            with self._db.cursor() as cursor:
                cursor.executemany(statement, rows)

    def put_clients(self, rows: Sequence[Values]) -> None:
        if not rows:
            return
        firsts, strays, known, checked, numbers = (list(column) for column in zip(*rows, strict=True))
        self._db.execute(
            "UPDATE clients c SET first_ms = k.first_ms, has_strays = k.has_strays,"
            " last_known_at = k.last_known_at, checked_ms = k.checked_ms"
            " FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[], %s::bigint[], %s::int[])"
            " k(first_ms, has_strays, last_known_at, checked_ms, client_no) WHERE c.client_no = k.client_no",
            (firsts, strays, known, checked, numbers),
        )
