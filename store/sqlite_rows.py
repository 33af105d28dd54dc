"""What the writer's transaction says to SQLite, in the words of its driver (store/rows.py)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from store.bulk import (
    Codes,
    Packed,
    SqliteCodes,
    SqliteInsert,
    json_rows,
    member,
)
from store.care import Care, care_of
from store.clock import Clock
from store.model import Identity, Session
from store.packing import pack_identity, session_from
from store.rows import (
    EVIDENCE,
    ONCE,
    SESSION,
    SESSION_COLUMNS,
    SESSION_FROM,
    STAMP,
    TRANSITION,
    UPSERT,
    ClientRow,
    Coded,
    Mark,
    Rows,
    SessionHeld,
    Values,
    marks,
)

_PATIENCE_S, _PAUSE_S = 60.0, 0.0002  # of who writes beside the writer

_CURRENT = f"client_no = {member(1)} AND at_ms = {member(2)} AND seq = {member(3)} AND superseded_at IS NULL"


class SqliteRows(Rows):
    """One writer, held by the lock file; every statement is a prepared one."""

    _PUT_EVIDENCE = SqliteInsert(
        "INSERT OR IGNORE INTO evidence",
        EVIDENCE,
        coded="session",
        mostly_alike=("known_at", "claimed_at", "source_no", "thing_no", "extra"),
    )
    _PUT_TRANSITIONS = SqliteInsert(
        "INSERT INTO transitions",
        TRANSITION,
        mostly_alike=("seq", "recorded_at", "superseded_at", "not_before_ms", "not_after_ms"),
    )
    _ADD_SESSIONS = SqliteInsert("INSERT INTO session_rows", SESSION, coded="session")
    _PUT_SESSIONS = SqliteInsert("INSERT INTO session_rows", SESSION, UPSERT, coded="session")
    _TAIL = (
        f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM} WHERE s.client_no = ? ORDER BY {STAMP} DESC LIMIT ?"
    )
    _FIND = f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM} WHERE s.client_no = ? AND s.session = ?"
    _BETWEEN = (
        f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM} WHERE s.client_no = ? AND {STAMP} BETWEEN ? AND ?"
    )
    _BEFORE = (
        f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM}"
        f" WHERE s.client_no = ? AND {STAMP} < ? ORDER BY {STAMP} DESC LIMIT ?"
    )
    _AFTER = (
        f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM}"
        f" WHERE s.client_no = ? AND {STAMP} > ? ORDER BY {STAMP} LIMIT ?"
    )
    _REVIVE = (
        "UPDATE transitions SET superseded_at = ? WHERE client_no = ? AND at_ms = ? AND seq = ?"
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

    def begin_beside(self, clock: Clock) -> int:
        # SQLite itself tries again ten times a second, and a writer that is busy pauses for less than a millisecond.
        self._db.execute("PRAGMA busy_timeout=0")
        ends = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.begin(clock, None)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                    raise
            time.sleep(_PAUSE_S)

    def begin_care(self, *, alone: bool) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if alone:
            self._check_finished()

    def care(self) -> Care:
        return care_of(self._db.execute)

    def changed(self, statement: str, rows: Coded) -> int:
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
        columns = ONCE[table]
        return self._counted(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks(columns)})", rows)

    def _counted(self, statement: str, rows: Coded) -> int:
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
        return self._db.execute(self._REVIVE, (row[4], *row[:3], known_at, *row[5:])).rowcount == 1

    def put_clients(self, rows: Sequence[Values]) -> None:
        self._bulk(
            f"UPDATE clients SET first_ms = {member(0)}, has_strays = {member(1)}, last_known_at = {member(2)},"
            f" checked_ms = {member(3)} FROM json_each(?) WHERE client_no = {member(4)}",
            rows,
        )

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        self._db.executemany(statement, rows)
