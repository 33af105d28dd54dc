"""Keep what people say of a stretch of time, on both clocks; docs/annotations.md tells it, docs/views.md the view."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SMALL = sa.SmallInteger().with_variant(sa.Integer, "sqlite")

# What the engines write differently, as in 0002.
TIMES = {
    "sqlite": {"TIME(": "strftime('%Y-%m-%dT%H:%M:%fZ', 0.001 * ", "AS_TIME": ", 'unixepoch')"},
    "postgresql": {"TIME(": "to_timestamp(0.001 * ", "AS_TIME": ")"},
}
VIEW = """
    CREATE VIEW annotations AS
    SELECT m.name AS realm, a.annotation_no, a.kind, a.scope, a.subject,
        TIME(a.from_msAS_TIME AS from_time, a.from_ms, TIME(a.to_msAS_TIME AS to_time, a.to_ms,
        a.ticket, a.note, a.author, TIME(a.recorded_atAS_TIME AS recorded_time, a.recorded_at AS recorded_ms
    FROM annotation_rows a JOIN realms m ON m.realm_no = a.realm_no
    WHERE a.superseded_at IS NULL AND a.withdrawn = 0
"""


def upgrade() -> None:
    op.create_table(
        "annotation_rows",
        sa.Column("annotation_no", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", SMALL, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", BIG, nullable=False),
        sa.Column("superseded_at", BIG),
        sa.Column("withdrawn", SMALL, nullable=False),
        sa.Column("realm_no", sa.Integer, sa.ForeignKey("realms.realm_no"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("from_ms", BIG, nullable=False),
        sa.Column("to_ms", BIG, nullable=False),
        sa.Column("ticket", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("author", sa.Text),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("annotation_rows_by_end", "annotation_rows", ["realm_no", "to_ms"])
    view = VIEW
    for word, said in TIMES[op.get_bind().dialect.name].items():
        view = view.replace(word, said)
    op.execute(view)
