"""Find names in any case by a seek, whole or by how they begin: fleet indexes tell no case apart (queries/fleet.py)."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# As PostgreSQL's C locale does it, and SQLite anyhow: letters of ASCII alone, in the order of their bytes. Another
# locale may fold otherwise, and sorts otherwise.
FOLDED = {"sqlite": "lower({})", "postgresql": 'lower({} COLLATE "C")'}


def upgrade() -> None:
    folded = FOLDED[op.get_bind().dialect.name]
    for statement in (
        f"CREATE INDEX clients_by_folded_id ON clients (realm_no, {folded.format('client_id')})",
        f"CREATE INDEX things_by_folded_name ON things (realm_no, {folded.format('thing_name')})",
        f"CREATE INDEX observations_by_folded_subject ON observations ({folded.format('subject')})"
        " WHERE subject IS NOT NULL",
    ):
        op.execute(statement)
