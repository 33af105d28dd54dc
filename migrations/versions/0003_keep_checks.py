"""Keep API checks: what they said, who repeated it when, and what they prove."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")

RULES = ((7, "check-named"), (8, "check-laid"))


def key(name: str, kind: sa.types.TypeEngine[int] = BIG) -> sa.Column[int]:
    """Give a column of a composite primary key."""
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def upgrade() -> None:
    rules = sa.table("rules", sa.column("rule_no", sa.Integer), sa.column("name", sa.Text))
    op.bulk_insert(rules, [{"rule_no": number, "name": name} for number, name in RULES])
    op.add_column("clients", sa.Column("checked_ms", BIG))
    op.create_table(
        "checks",
        key("client_no", sa.Integer()),
        key("about_ms"),
        key("asked_ms"),
        key("digest"),
        sa.Column("known_at", BIG, nullable=False),
        sa.Column("claimed_at", BIG),
        sa.Column("source_no", sa.Integer, nullable=False),
        sa.Column("state", SMALL, nullable=False),
        sa.Column("named", SMALL, nullable=False),
        sa.Column("reason_no", sa.Integer),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("last_asked_ms", BIG),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "checks_open",
        "checks",
        ["client_no"],
        sqlite_where=sa.text("last_asked_ms IS NULL"),
        postgresql_where=sa.text("last_asked_ms IS NULL"),
    )
    op.create_table(
        "sweeps",
        key("block_no", sa.Integer()),
        key("known_at"),
        key("asked_ms"),
        sa.Column("source_no", sa.Integer, nullable=False),
        sa.Column("first_slot", SMALL, nullable=False),
        sa.Column("slots", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("sweeps_by_asking", "sweeps", ["block_no", "asked_ms"])
    op.create_table(
        "confirmations",
        key("client_no", sa.Integer()),
        key("at_ms"),
        key("seq", SMALL),
        key("recorded_at"),
        sa.Column("superseded_at", BIG),
        sa.Column("until_ms", BIG, nullable=False),
        sa.Column("from_ms", BIG),
        sa.Column("open_at", BIG),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
