"""What the writer's transaction says to PostgreSQL, in the words of its driver (store/rows.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from store.bulk import (
    Codes,
    Packed,
    PostgresCodes,
    csv_copy,
    csv_rows,
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
    SLOTS,
    STAMP,
    TRANSITION,
    UPSERT,
    WRITER_LOCK,
    ClientRow,
    Coded,
    Mark,
    Rows,
    SessionHeld,
    Values,
    marks,
)

_UNLESS_THERE = " ON CONFLICT DO NOTHING"
FEW = 10  # rows that are put there one by one before a table in between, emptied each time, is quicker
_INTERRUPT_S = 5.0  # how long a server may take to be asked to give up


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
        row = self._db.execute(
            "SELECT pg_advisory_xact_lock_shared(%s), txid_current() & 4294967295", (WRITER_LOCK | floor_ms,)
        ).fetchone()
        self.transaction_no = int(row[1])
        return clock()

    def begin_care(self, *, alone: bool) -> None:
        self._db.execute("BEGIN")
        if alone:
            care_of(self._db.execute, lock=" FOR UPDATE")
            self._check_finished()

    def care(self) -> Care:
        return care_of(self._db.execute, lock=" FOR SHARE")

    def changed(self, statement: str, rows: Coded) -> int:
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

    def interrupt(self) -> None:
        from psycopg import Error

        with suppress(Error):  # then it is waited for
            self._db.cancel_safe(timeout=_INTERRUPT_S)

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
            " ORDER BY n ON CONFLICT DO NOTHING",
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
            " ORDER BY i ON CONFLICT DO NOTHING",  # in one order, whatever the plan: two writers would block each other
            (realm_no, wanted, realm_no),
        )
        rows = self._db.execute(
            "SELECT client_no, client_id, first_ms, has_strays, last_known_at, checked_ms, xmin::text::bigint"
            " FROM clients WHERE realm_no = %s AND client_id = ANY(%s) ORDER BY client_no FOR NO KEY UPDATE",
            (realm_no, wanted),
        ).fetchall()
        return [ClientRow(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]

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
        if len(packed) == 1:  # which the planner takes for a hundred, in an array
            ((place, asked),) = packed.items()
            found = self._sessions(
                f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM} WHERE s.client_no = %s AND s.session = %s",
                place,
            )
            return {asked: found[0]} if found else {}
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
            f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM}"
            f" WHERE s.client_no = %s AND {STAMP} BETWEEN %s AND %s",
            (client_no, from_ms, to_ms),
        )

    def sessions_beside(self, client_no: int, at_ms: int, limit: int, *, before: bool) -> list[Session]:
        side = f"< %s ORDER BY {STAMP} DESC" if before else f"> %s ORDER BY {STAMP}"
        return self._sessions(
            f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM}"
            f" WHERE s.client_no = %s AND {STAMP} {side} LIMIT %s",
            (client_no, at_ms, limit),
        )

    def _sessions(self, statement: str, values: Values) -> list[Session]:
        return [session_from(*row) for row in self._db.execute(statement, values).fetchall()]

    def _copy(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        self.put_packed((csv_copy(table, columns), csv_rows(rows)))

    @staticmethod
    def packed(table: str, rows: Coded, codes: Codes) -> Packed:
        columns = {"transitions": TRANSITION, "session_rows": SESSION}
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
            self._copy("session_rows", SESSION, rows)
        except UniqueViolation as error:
            raise SessionHeld from error

    def put_sessions(self, rows: Coded, codes: Codes) -> None:
        self._put("session_rows", SESSION, rows, UPSERT)

    def put_evidence(self, rows: Coded, codes: Codes) -> int:
        return self._put("evidence", EVIDENCE, rows, _UNLESS_THERE)

    def put_once(self, table: str, rows: Sequence[Values]) -> int:
        return self.changed(_insert(table, ONCE[table], _UNLESS_THERE), rows)

    def _put(self, table: str, columns: str, rows: Coded, then: str) -> int:
        """Insert rows that a constraint may be against; gives how many rows of the store it changed."""
        if len(rows) <= FEW:
            statement = _insert(table, columns, then).replace("?", self._mark)
            return sum(self._db.execute(statement, row).rowcount for row in rows)
        self._copy(f"{table}_in", columns, rows)
        done = self._db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_in{then}")
        self._db.execute(f"TRUNCATE {table}_in")
        return int(done.rowcount)

    def put_transitions(self, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._copy("transitions", TRANSITION, rows)

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
            "UPDATE transitions SET superseded_at = %s WHERE client_no = %s AND at_ms = %s AND seq = %s"
            " AND superseded_at = %s AND state = %s AND timestamp_ms IS NOT DISTINCT FROM %s::bigint"
            " AND reason_no IS NOT DISTINCT FROM %s::int AND not_before_ms IS NOT DISTINCT FROM %s::bigint"
            " AND not_after_ms IS NOT DISTINCT FROM %s::bigint AND rule_no = %s"
            " AND proved_from_ms IS NOT DISTINCT FROM %s::bigint",
            (row[4], *row[:3], known_at, *row[5:]),
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


def _insert(table: str, columns: str, then: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({marks(columns)}){then}"
