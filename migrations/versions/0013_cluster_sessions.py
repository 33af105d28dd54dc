"""Keep a client's sessions together: on SQLite each lay on a page of its own, and the end of a history on ten."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return  # a heap, either way
    for statement in (
        "CREATE TABLE session_rows_before AS SELECT * FROM session_rows",
        "DROP TABLE session_rows",  # not renamed, for views name it
        """
        CREATE TABLE session_rows (
            client_no INTEGER NOT NULL,
            session BLOB NOT NULL,
            version INTEGER,
            connect_ms INTEGER,
            disconnect_ms INTEGER,
            reason_no INTEGER,
            PRIMARY KEY (client_no, session)
        ) WITHOUT ROWID, STRICT
        """,
        "INSERT INTO session_rows (client_no, session, version, connect_ms, disconnect_ms, reason_no)"
        " SELECT client_no, session, version, connect_ms, disconnect_ms, reason_no FROM session_rows_before"
        " ORDER BY client_no, session",
        "DROP TABLE session_rows_before",
        "CREATE INDEX session_rows_by_time ON session_rows (client_no, coalesce(connect_ms, disconnect_ms))",
    ):
        op.execute(statement)
