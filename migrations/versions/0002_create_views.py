"""Create the views for people who write SQL; docs/views.md tells them column by column."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

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

VIEWS = (
    # When some path was recording: islands of the watch ledger and the gaps between them; without any
    # statement, always.
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
    )
    SELECT from_ms, to_ms, 1 AS watched FROM islands
    UNION ALL
    SELECT a.to_ms, coalesce(b.from_ms, 4611686018427387904), 0
    FROM islands a LEFT JOIN islands b ON b.island = a.island + 1
    UNION ALL
    SELECT -4611686018427387904, from_ms, 0 FROM islands WHERE island = 1
    UNION ALL
    SELECT -4611686018427387904, 4611686018427387904, 1 WHERE NOT EXISTS (SELECT 1 FROM islands)
    """,
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
    FROM realms m CROSS JOIN clients c CROSS JOIN transitions t
    LEFT JOIN rules k ON k.rule_no = t.rule_no
    LEFT JOIN texts w ON w.text_no = t.reason_no
    WHERE c.realm_no = m.realm_no AND t.client_no = c.client_no AND t.superseded_at IS NULL
    """,
    # One row a transition that holds for longer than an instant, with where it ends and from when it is proven.
    """
    CREATE VIEW stretches AS
    SELECT t.client_no, t.at_ms, t.state, t.timestamp_ms, t.reason_no, t.not_before_ms, t.not_after_ms,
        n.at_ms AS end_ms,
        CASE WHEN t.state = 2 THEN n.at_ms WHEN n.at_ms IS NULL THEN NULL
            ELSE LATER(t.at_ms, coalesce(n.proved_from_ms, n.at_ms)) END AS proved_ms
    FROM transitions t
    LEFT JOIN transitions n ON n.client_no = t.client_no AND n.superseded_at IS NULL AND n.seq = 0
        AND n.at_ms = (
            SELECT min(f.at_ms) FROM transitions f
            WHERE f.client_no = t.client_no AND f.at_ms > t.at_ms AND f.superseded_at IS NULL
        )
    WHERE t.superseded_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM transitions o
        WHERE o.client_no = t.client_no AND o.at_ms = t.at_ms AND o.seq > t.seq AND o.superseded_at IS NULL
    )
    """,
    """
    CREATE VIEW periods AS
    SELECT m.name AS realm, c.client_id,
        TIME(LATER(s.at_ms, g.from_ms)AS_TIME AS from_time, LATER(s.at_ms, g.from_ms) AS from_ms,
        TIME(CASE WHEN s.proved_ms IS NULL AND g.to_ms = 4611686018427387904 THEN NULL
            ELSE EARLIER(coalesce(s.proved_ms, g.to_ms), g.to_ms) ENDAS_TIME AS to_time,
        CASE WHEN s.proved_ms IS NULL AND g.to_ms = 4611686018427387904 THEN NULL
            ELSE EARLIER(coalesce(s.proved_ms, g.to_ms), g.to_ms) END AS to_ms,
        CASE WHEN g.watched = 0 THEN 'unknown' WHEN s.state = 1 THEN 'connected' ELSE 'disconnected' END AS state,
        CASE WHEN g.watched = 1 THEN s.timestamp_ms END AS timestamp_ms,
        CASE WHEN g.watched = 1 THEN w.text END AS disconnect_reason,
        CASE WHEN g.watched = 1 THEN 'inferred' ELSE 'unknown' END AS certainty,
        CASE WHEN g.watched = 1 THEN coalesce(s.not_before_ms, s.timestamp_ms) END AS not_before_ms,
        CASE WHEN g.watched = 1 AND (s.proved_ms IS NOT NULL OR g.to_ms < 4611686018427387904)
            THEN EARLIER(coalesce(s.proved_ms, g.to_ms), g.to_ms) END AS not_after_ms
    FROM realms m CROSS JOIN clients c CROSS JOIN stretches s CROSS JOIN watching g
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no
        AND s.state <> 2 AND (s.proved_ms IS NULL OR s.proved_ms > s.at_ms)
        AND g.to_ms > s.at_ms AND g.from_ms < coalesce(s.proved_ms, 4611686018427387904)
    UNION ALL
    SELECT m.name, c.client_id,
        TIME(CASE WHEN s.state = 2 THEN s.at_ms ELSE s.proved_ms ENDAS_TIME,
        CASE WHEN s.state = 2 THEN s.at_ms ELSE s.proved_ms END,
        TIME(s.end_msAS_TIME, s.end_ms,
        CASE s.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END,
        s.timestamp_ms, w.text,
        CASE WHEN s.state = 2 THEN 'unknown' ELSE 'observed' END,
        coalesce(s.not_before_ms, s.timestamp_ms), coalesce(s.not_after_ms, s.timestamp_ms)
    FROM realms m CROSS JOIN clients c CROSS JOIN stretches s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no
        AND (s.state = 2 OR s.proved_ms < s.end_ms)
    """,
    """
    CREATE VIEW sessions AS
    SELECT m.name AS realm, c.client_id, SESSION_ID AS session_identifier, s.version AS version_number,
        TIME(s.connect_msAS_TIME AS connect_time, s.connect_ms,
        TIME(s.disconnect_msAS_TIME AS disconnect_time, s.disconnect_ms,
        w.text AS disconnect_reason
    FROM realms m CROSS JOIN clients c CROSS JOIN session_rows s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no
    """,
    # A run of disconnected stretches is one outage; open while nothing else followed.
    """
    CREATE VIEW outages AS
    SELECT x.realm, x.client_id,
        TIME(x.from_msAS_TIME AS from_time, x.from_ms,
        TIME(x.to_msAS_TIME AS to_time, x.to_ms,
        x.to_ms - x.from_ms AS duration_ms,
        x.disconnect_reason
    FROM (
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
    """,
    """
    CREATE VIEW current_status AS
    SELECT m.name AS realm, c.client_id,
        CASE t.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END AS state,
        TIME(t.at_msAS_TIME AS since_time, t.at_ms AS since_ms,
        TIME(t.timestamp_msAS_TIME AS aws_timestamp, t.timestamp_ms,
        w.text AS disconnect_reason
    FROM realms m CROSS JOIN clients c CROSS JOIN transitions t
    LEFT JOIN texts w ON w.text_no = t.reason_no
    WHERE c.realm_no = m.realm_no AND t.client_no = c.client_no AND t.superseded_at IS NULL
    AND t.at_ms = (
        SELECT l.at_ms FROM transitions l
        WHERE l.client_no = c.client_no AND l.superseded_at IS NULL ORDER BY l.at_ms DESC, l.seq DESC LIMIT 1
    )
    AND NOT EXISTS (
        SELECT 1 FROM transitions o
        WHERE o.client_no = t.client_no AND o.at_ms = t.at_ms AND o.seq > t.seq AND o.superseded_at IS NULL
    )
    """,
)


def upgrade() -> None:
    words = ENGINES[op.get_bind().dialect.name]
    for view in VIEWS:
        for word, meaning in words.items():
            view = view.replace(word, meaning)
        op.execute(view)
