"""Create the store: evidence, sessions, transitions, and what names them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")

RULES = (
    (0, "first-evidence"),
    (1, "connect"),
    (2, "disconnect"),
    (3, "takeover"),
    (4, "takeover-unseen"),
    (5, "connect-lost"),
    (6, "disconnect-lost"),
)


def key(name: str, kind: sa.types.TypeEngine[int] = BIG) -> sa.Column[int]:
    """Give a column of a composite primary key."""
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def upgrade() -> None:
    op.create_table(
        "realms",
        sa.Column("realm_no", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sqlite_strict=True,
    )
    op.create_table(
        "texts",
        sa.Column("text_no", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False, unique=True),
        sqlite_strict=True,
    )
    rules = op.create_table(
        "rules",
        sa.Column("rule_no", SMALL, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sqlite_strict=True,
    )
    op.bulk_insert(rules, [{"rule_no": number, "name": name} for number, name in RULES])
    op.create_table(
        "clients",
        sa.Column("client_no", sa.Integer, primary_key=True),
        sa.Column("realm_no", sa.Integer, sa.ForeignKey("realms.realm_no"), nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("first_ms", BIG),
        sa.Column("last_known_at", BIG),
        sa.Column("has_strays", SMALL, nullable=False, server_default="0"),
        sa.UniqueConstraint("realm_no", "client_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "things",
        sa.Column("thing_no", sa.Integer, primary_key=True),
        sa.Column("realm_no", sa.Integer, sa.ForeignKey("realms.realm_no"), nullable=False),
        sa.Column("thing_name", sa.Text, nullable=False),
        sa.UniqueConstraint("realm_no", "thing_name"),
        sqlite_strict=True,
    )
    op.create_table(
        "evidence",
        key("at_ms"),
        key("client_no", sa.Integer()),
        key("digest"),
        sa.Column("kind", SMALL, nullable=False),
        sa.Column("known_at", BIG, nullable=False),
        sa.Column("claimed_at", BIG),
        sa.Column("source_no", sa.Integer, nullable=False),
        sa.Column("session", sa.LargeBinary),
        sa.Column("version", BIG),
        sa.Column("reason_no", sa.Integer),
        sa.Column("client_initiated", SMALL),
        sa.Column("principal_no", sa.Integer),
        sa.Column("ip_no", sa.Integer),
        sa.Column("thing_no", sa.Integer),
        sa.Column("extra", sa.Text),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "evidence_by_thing",
        "evidence",
        ["thing_no", "at_ms"],
        sqlite_where=sa.text("thing_no IS NOT NULL"),
        postgresql_where=sa.text("thing_no IS NOT NULL"),
    )
    op.create_table(
        "observations",
        key("at_ms"),
        key("digest"),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("known_at", BIG, nullable=False),
        sa.Column("claimed_at", BIG),
        sa.Column("source_no", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "watches",
        sa.Column("source", sa.Text, primary_key=True),
        key("from_ms"),
        key("to_ms"),
        sa.Column("known_at", BIG, nullable=False),
        sa.Column("claimed_at", BIG),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "session_rows",
        key("client_no", sa.Integer()),
        sa.Column("session", sa.LargeBinary, primary_key=True),
        sa.Column("version", BIG),
        sa.Column("connect_ms", BIG),
        sa.Column("disconnect_ms", BIG),
        sa.Column("reason_no", sa.Integer),
        sqlite_strict=True,
    )
    op.create_index(
        "session_rows_by_time",
        "session_rows",
        ["client_no", sa.text("coalesce(connect_ms, disconnect_ms)")],
    )
    op.create_table(
        "transitions",
        key("client_no", sa.Integer()),
        key("at_ms"),
        key("seq", SMALL),
        key("recorded_at"),
        sa.Column("superseded_at", BIG),
        sa.Column("state", SMALL, nullable=False),
        sa.Column("timestamp_ms", BIG),
        sa.Column("reason_no", sa.Integer),
        sa.Column("not_before_ms", BIG),
        sa.Column("not_after_ms", BIG),
        sa.Column("rule_no", SMALL, nullable=False),
        sa.Column("proved_from_ms", BIG),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "watermarks",
        key("slot", SMALL),
        sa.Column("last_known_at", BIG, nullable=False),
        sa.Column("replay_source_no", sa.Integer),
        sqlite_strict=True,
    )
    op.create_table(
        "quarantine",
        sa.Column("quarantine_no", sa.Integer, primary_key=True),
        sa.Column("source_no", sa.Integer, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("known_at", BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("length", BIG, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sa.Column("replayed_at", BIG),
        sa.UniqueConstraint("source_no", "position", "sha256"),
        sqlite_strict=True,
    )
