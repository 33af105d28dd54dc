"""Find what is told of a thing's registration by its name (store/registry.py), and keep of which realm it is told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("observations", sa.Column("realm_no", sa.Integer))
    op.execute(
        "UPDATE observations SET realm_no = (SELECT min(realm_no) FROM realms)"
        " WHERE (SELECT count(*) FROM realms) = 1"
    )
    told = sa.text("subject IS NOT NULL")
    op.create_index(
        "observations_by_subject",
        "observations",
        ["subject", "at_ms"],
        sqlite_where=told,
        postgresql_where=told,
    )
