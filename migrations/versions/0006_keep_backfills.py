"""Keep how far a back-filling has come, so that it can go on after it was cut short."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "backfills",
        sa.Column("backfill_no", SMALL, primary_key=True, autoincrement=False),
        sa.Column("known_from", BIG, nullable=False),
        sa.Column("last_known_at", BIG, nullable=False),
        sa.Column("replay_source_no", sa.Integer),
        sa.Column("derived_below", sa.Integer, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "backfilled",
        sa.Column("source_no", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", BIG, nullable=False),
        sqlite_strict=True,
    )
