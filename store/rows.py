"""What the writer's transaction says to the database, in the driver's own words.

One behaviour, which SQLite (store/sqlite_rows.py) and PostgreSQL (store/postgres_rows.py) have each in its way;
what they do differently on the write path stands in these two. Decides nothing: which rows there are is for
ingest/writer.py to say. Rows are plain tuples in the column order of store/schema.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from store.bulk import (
    Codes,
    Packed,
)
from store.care import Care
from store.checks import CONFIRMATION_COLUMNS, CheckRows
from store.clock import Clock
from store.engine import Store
from store.errors import StoreUnfinished
from store.model import Identity, Session
from store.packing import session_from

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
    written_in: int | None = None  # PostgreSQL: by which transaction, so that whoever knows it knows the row


class Mark(NamedTuple):
    """The newest known_at in the store, and the recording it came from, if it came from one."""

    last_known_at: int
    replay_source_no: int | None


class SessionHeld(Exception):
    """A session that was presumed to be new is in the store already."""


class Rows(ABC):
    """One transaction at a time: `begin`, any of the others, then `commit` or `rollback`."""

    transaction_no: int | None = None  # PostgreSQL: of the one that runs, as in ClientRow

    @abstractmethod
    def begin(self, clock: Clock, floor_ms: int | None) -> int:
        """Begin, and give now. No row of this transaction is known before `floor_ms` (None: before now)."""

    def begin_beside(self, clock: Clock) -> int:
        """Begin as `begin` does, for a short transaction beside a writer that hardly ever pauses; gives now."""
        return self.begin(clock, None)

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
    def changed(self, statement: str, rows: Coded) -> int:
        """Run a statement (`?` for a parameter) once a row; gives how many rows of the store it changed."""

    @abstractmethod
    def commit(self) -> None: ...

    @abstractmethod
    def rollback(self) -> None: ...

    def interrupt(self) -> None:
        """Ask the database to give up the statement that another thread waits for; SQLite's are short."""
        return

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
            f" WHERE client_no = {mark} AND {STAMP} < {mark} AND connect_ms IS NOT NULL",
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
            f"SELECT {SESSION_COLUMNS} FROM {SESSION_FROM} WHERE s.client_no = {mark} AND (s.version = {mark}"
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
        """Undo what the very step named had superseded, up to the row's own `superseded_at`; tell whether it had."""

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
            f"SELECT {TRANSITION} FROM transitions WHERE client_no = {mark} ORDER BY at_ms, seq, recorded_at",
            (client_no,),
        )
        confirmations = self._all(
            f"SELECT {CONFIRMATION_COLUMNS} FROM confirmations WHERE client_no = {mark}"
            " ORDER BY at_ms, seq, recorded_at",
            (client_no,),
        )
        sessions = self._all(f"SELECT {SESSION} FROM session_rows WHERE client_no = {mark}", (client_no,))
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


# Parts of statements that both engines say alike; columns in the order of the rows.
SESSION_COLUMNS = "s.session, s.version, s.connect_ms, s.disconnect_ms, t.text"
SESSION_FROM = "session_rows s LEFT JOIN texts t ON t.text_no = s.reason_no"
STAMP = "coalesce(s.connect_ms, s.disconnect_ms)"
TRANSITION = (
    "client_no, at_ms, seq, recorded_at, superseded_at, state, timestamp_ms, reason_no, not_before_ms,"
    " not_after_ms, rule_no, proved_from_ms"
)
EVIDENCE = (
    "at_ms, client_no, digest, kind, known_at, claimed_at, source_no, session, version, reason_no,"
    " client_initiated, principal_no, ip_no, thing_no, extra"
)
ONCE: dict[str, str] = {
    "observations": "at_ms, digest, kind, subject, known_at, claimed_at, source_no, body, realm_no",
    "watches": "source, from_ms, to_ms, known_at, claimed_at",
    "quarantine": "source_no, position, known_at, reason, detail, length, sha256, head",
}
SESSION = "client_no, session, version, connect_ms, disconnect_ms, reason_no"
UPSERT = (
    " ON CONFLICT (client_no, session) DO UPDATE SET version = excluded.version,"
    " connect_ms = excluded.connect_ms, disconnect_ms = excluded.disconnect_ms,"
    " reason_no = excluded.reason_no"
)


def marks(columns: str) -> str:
    """Give a place for the value of each column."""
    return ", ".join("?" for _ in columns.split(","))


def rows_of(store: Store) -> Rows:
    """Open the write path of a store that was opened for writing."""
    connection = store.engine.raw_connection()
    driver: Any = connection.driver_connection
    connection.detach()  # it is the writer's for good, and the writer closes it
    if store.is_sqlite:
        from store.sqlite_rows import SqliteRows

        return SqliteRows(driver)
    from store.postgres_rows import PostgresRows

    return PostgresRows(driver)
