"""Read the watch ledger as of now: the stretch of an ingester that runs goes on (store/certainty.py)."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ENGINES = {"sqlite": {"LATER(": "max("}, "postgresql": {"LATER(": "greatest("}}

WATCHING = """
    CREATE VIEW watching AS
    WITH newest AS (
        SELECT coalesce(max(last_known_at), -1) AS now_ms FROM watermarks
    ), said AS (
        SELECT from_ms, CASE WHEN now_ms > to_ms + 60000 THEN to_ms ELSE now_ms + 60000 END AS to_ms
        FROM watches CROSS JOIN newest WHERE from_ms < to_ms
    ), marked AS (
        SELECT from_ms, to_ms,
            max(to_ms) OVER (ORDER BY from_ms, to_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
        FROM said WHERE from_ms < to_ms
    ), numbered AS (
        SELECT from_ms, to_ms,
            sum(CASE WHEN reached IS NULL OR from_ms > reached THEN 1 ELSE 0 END)
                OVER (ORDER BY from_ms, to_ms) AS island
        FROM marked
    ), islands AS (
        SELECT island, min(from_ms) AS from_ms, max(to_ms) AS to_ms FROM numbered GROUP BY island
    ), whole AS (
    SELECT from_ms, to_ms, 1 AS watched FROM islands
    UNION ALL
    SELECT a.to_ms, coalesce(b.from_ms, 4611686018427387904), 0
    FROM islands a LEFT JOIN islands b ON b.island = a.island + 1
    UNION ALL
    SELECT -4611686018427387904, from_ms, 0 FROM islands WHERE island = 1
    UNION ALL
    SELECT -4611686018427387904, 4611686018427387904, 1 WHERE NOT EXISTS (SELECT 1 FROM islands)
    )
    SELECT LATER(whole.from_ms, h.from_ms) AS from_ms, whole.to_ms, whole.watched
    FROM whole CROSS JOIN horizon h WHERE whole.to_ms > h.from_ms
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    view = WATCHING
    for word, meaning in ENGINES[dialect].items():
        view = view.replace(word, meaning)
    if dialect == "postgresql":  # views stand on it
        op.execute(view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
    else:
        op.execute("DROP VIEW watching")
        op.execute(view)
