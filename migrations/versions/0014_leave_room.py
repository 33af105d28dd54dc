"""Leave room beside a client: every batch writes its row again, which takes a third less where it stays on its page."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        # Of pages from now on; those that are full empty as their rows are written again.
        op.execute("ALTER TABLE clients SET (fillfactor = 50)")
