"""${message}

File name: NNNN_verb_object.py. Import only alembic.op and sqlalchemy; additive first; never edited after a
release; tested with rows. On PostgreSQL a migration runs under lock_timeout, so take no lock for long.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
