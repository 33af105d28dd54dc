"""Keep the horizon of a purge, and begin every view there; count what was forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")

# Words in capitals stand for what the engines write differently. Every view is a walk along keys: no window
# function runs over a whole table, so that a condition on client_id costs seeks.
ENGINES = {
    "sqlite": {
        "TIME(": "strftime('%Y-%m-%dT%H:%M:%fZ', 0.001 * ",
        "AS_TIME": ", 'unixepoch')",
        "LATER(": "max(",
        "EARLIER(": "min(",
        "SESSION_ID": "CASE substr(hex(s.session), 1, 2)"
        " WHEN '02' THEN lower(substr(hex(s.session), 3))"
        " WHEN '03' THEN lower(substr(hex(s.session), 3, 8) || '-' || substr(hex(s.session), 11, 4) || '-'"
        " || substr(hex(s.session), 15, 4) || '-' || substr(hex(s.session), 19, 4) || '-'"
        " || substr(hex(s.session), 23, 12))"
        " WHEN '04' THEN CAST(substr(s.session, 2) AS TEXT) END",
    },
    "postgresql": {
        "TIME(": "to_timestamp(0.001 * ",
        "AS_TIME": ")",
        "LATER(": "greatest(",
        "EARLIER(": "least(",
        "SESSION_ID": "CASE get_byte(s.session, 0)"
        " WHEN 2 THEN encode(substr(s.session, 2), 'hex')"
        " WHEN 3 THEN CAST(CAST(encode(substr(s.session, 2), 'hex') AS uuid) AS text)"
        " WHEN 4 THEN convert_from(substr(s.session, 2), 'UTF8') END",
    },
}


def unproven(begins: str, ends: str, *, named: bool = False) -> str:
    """Select the periods of the stretches between two instants that nothing proves; `ends` null: open."""
    names = (
        "from_time",
        "from_ms",
        "to_time",
        "to_ms",
        "state",
        "timestamp_ms",
        "disconnect_reason",
        "certainty",
        "not_before_ms",
        "not_after_ms",
        "last_known_state",
        "last_known_timestamp_ms",
        "last_known_reason",
    )
    from_ms = f"LATER({begins}, g.from_ms)"
    to_ms = (
        f"CASE WHEN {ends} IS NULL AND g.to_ms = 4611686018427387904 THEN NULL"
        f" ELSE EARLIER(coalesce({ends}, g.to_ms), g.to_ms) END"
    )
    columns = (
        f"TIME({from_ms}AS_TIME",
        from_ms,
        f"TIME({to_ms}AS_TIME",
        to_ms,
        "CASE WHEN g.watched = 0 THEN 'unknown' WHEN s.state = 1 THEN 'connected' ELSE 'disconnected' END",
        "CASE WHEN g.watched = 1 THEN s.timestamp_ms END",
        "CASE WHEN g.watched = 1 THEN w.text END",
        "CASE WHEN g.watched = 1 THEN 'inferred' ELSE 'unknown' END",
        "CASE WHEN g.watched = 1 THEN coalesce(s.not_before_ms, s.timestamp_ms) END",
        f"CASE WHEN g.watched = 1 THEN {to_ms} END",
        "CASE WHEN g.watched = 0 THEN CASE s.state WHEN 1 THEN 'connected' ELSE 'disconnected' END END",
        "CASE WHEN g.watched = 0 THEN s.timestamp_ms END",
        "CASE WHEN g.watched = 0 THEN w.text END",
    )
    listed = ", ".join(
        f"{column} AS {name}" if named else column for column, name in zip(columns, names, strict=True)
    )
    return f"""
    SELECT m.name AS realm, c.client_id, {listed}
    FROM realms m CROSS JOIN clients c CROSS JOIN stretches s CROSS JOIN watching g
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no AND s.state <> 2
        AND {begins} IS NOT NULL AND ({ends} IS NULL OR {ends} > {begins})
        AND g.to_ms > {begins} AND g.from_ms < coalesce({ends}, 4611686018427387904)
    """


def proven(begins: str, ends: str, where: str) -> str:
    """Select the periods of the stretches between two instants whose certainty is that of the whole."""
    from_ms = f"LATER({begins}, h.from_ms)"
    return f"""
    SELECT m.name, c.client_id, TIME({from_ms}AS_TIME, {from_ms}, TIME({ends}AS_TIME, {ends},
        CASE s.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END,
        s.timestamp_ms, w.text,
        CASE WHEN s.state = 2 THEN 'unknown' ELSE 'observed' END,
        coalesce(s.not_before_ms, s.timestamp_ms), coalesce(s.not_after_ms, s.timestamp_ms),
        CAST(NULL AS text), CAST(NULL AS bigint), CAST(NULL AS text)
    FROM horizon h CROSS JOIN realms m CROSS JOIN clients c CROSS JOIN stretches s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no AND {where}
        AND ({ends} IS NULL OR {ends} > h.from_ms)
    """


# The first instant that can be asked about.
HORIZON = "CREATE VIEW horizon AS SELECT coalesce(max(horizon_ms), -4611686018427387904) AS from_ms FROM care"

VIEWS = (
    """
    CREATE VIEW watching AS
    WITH marked AS (
        SELECT from_ms, to_ms,
            max(to_ms) OVER (ORDER BY from_ms, to_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
        FROM watches WHERE from_ms < to_ms
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
    """,
    # The row in force at the horizon comes first.
    """
    CREATE VIEW timeline AS
    SELECT m.name AS realm, c.client_id,
        TIME(t.at_msAS_TIME AS at_time, t.at_ms, t.seq,
        CASE t.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END AS state,
        TIME(t.timestamp_msAS_TIME AS aws_timestamp, t.timestamp_ms,
        w.text AS disconnect_reason,
        coalesce(t.not_before_ms, t.timestamp_ms) AS not_before_ms,
        coalesce(t.not_after_ms, t.timestamp_ms) AS not_after_ms,
        k.name AS rule,
        TIME(t.recorded_atAS_TIME AS recorded_time, t.recorded_at AS recorded_ms
    FROM horizon h CROSS JOIN realms m CROSS JOIN clients c CROSS JOIN transitions t
    LEFT JOIN rules k ON k.rule_no = t.rule_no
    LEFT JOIN texts w ON w.text_no = t.reason_no
    WHERE c.realm_no = m.realm_no AND t.client_no = c.client_no AND t.superseded_at IS NULL
        AND (t.at_ms >= h.from_ms OR NOT EXISTS (
            SELECT 1 FROM transitions n
            WHERE n.client_no = t.client_no AND n.at_ms > t.at_ms AND n.at_ms <= h.from_ms AND n.superseded_at IS NULL
        ))
    """,
    # Those that reach to the horizon.
    """
    CREATE VIEW sessions AS
    SELECT m.name AS realm, c.client_id, SESSION_ID AS session_identifier, s.version AS version_number,
        TIME(s.connect_msAS_TIME AS connect_time, s.connect_ms,
        TIME(s.disconnect_msAS_TIME AS disconnect_time, s.disconnect_ms,
        w.text AS disconnect_reason
    FROM horizon h CROSS JOIN realms m CROSS JOIN clients c CROSS JOIN session_rows s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no
        AND coalesce(s.disconnect_ms, 4611686018427387904) >= h.from_ms
    """,
    f"""
    CREATE VIEW periods AS
    {unproven("s.at_ms", "coalesce(s.confirmed_ms, s.proved_ms)", named=True)}
    UNION ALL
    {unproven("s.confirmed_until_ms", "s.proved_ms")}
    UNION ALL
    {proven("s.confirmed_ms", "s.confirmed_until_ms", "s.confirmed_ms IS NOT NULL")}
    UNION ALL
    {
        proven(
            "CASE WHEN s.state = 2 THEN s.at_ms ELSE s.proved_ms END",
            "s.end_ms",
            "(s.state = 2 OR s.proved_ms < s.end_ms)",
        )
    }
    """,
    # An outage that began before the horizon begins there.
    """
    CREATE VIEW outages AS
    SELECT x.realm, x.client_id,
        TIME(LATER(x.from_ms, h.from_ms)AS_TIME AS from_time, LATER(x.from_ms, h.from_ms) AS from_ms,
        TIME(x.to_msAS_TIME AS to_time, x.to_ms,
        x.to_ms - LATER(x.from_ms, h.from_ms) AS duration_ms,
        x.disconnect_reason
    FROM horizon h CROSS JOIN (
        SELECT m.name AS realm, c.client_id, s.at_ms AS from_ms, w.text AS disconnect_reason,
            (
                SELECT min(f.at_ms) FROM stretches f
                WHERE f.client_no = c.client_no AND f.at_ms > s.at_ms AND f.state <> 0
            ) AS to_ms
        FROM realms m CROSS JOIN clients c CROSS JOIN stretches s
        LEFT JOIN texts w ON w.text_no = s.reason_no
        WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no AND s.state = 0 AND coalesce((
            SELECT b.state FROM stretches b
            WHERE b.client_no = c.client_no AND b.at_ms < s.at_ms ORDER BY b.at_ms DESC LIMIT 1
        ), 2) <> 0
    ) x
    WHERE x.to_ms IS NULL OR x.to_ms > h.from_ms
    """,
)


def upgrade() -> None:
    care = op.create_table(
        "care",
        sa.Column("care_no", SMALL, primary_key=True, autoincrement=False),
        sa.Column("horizon_ms", BIG),
        sa.Column("known_horizon_ms", BIG),
        sa.Column("forgotten", sa.Integer, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(care, [{"care_no": 0, "horizon_ms": None, "known_horizon_ms": None, "forgotten": 0}])
    op.execute(HORIZON)
    dialect = op.get_bind().dialect.name
    for view in VIEWS:
        for word, meaning in ENGINES[dialect].items():
            view = view.replace(word, meaning)
        if dialect == "postgresql":  # views stand on others, and keep their columns
            op.execute(view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
        else:
            op.execute(f"DROP VIEW {view.split()[2]}")
            op.execute(view)
