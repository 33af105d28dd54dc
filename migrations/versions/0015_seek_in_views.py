"""Let an instant or a window cost seeks in SQL, however long a client's history is before it.

`timeline` gives its rows in the order of the key; on PostgreSQL `periods_between` reads those of a window, and the
functions that ask of one read them through it.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

ENGINES = {
    "sqlite": {"TIME(": "strftime('%Y-%m-%dT%H:%M:%fZ', 0.001 * ", "AS_TIME": ", 'unixepoch')"},
    "postgresql": {"TIME(": "to_timestamp(0.001 * ", "AS_TIME": ")"},
}

# The horizon is no table of a join: SQLite takes the order of the key only where nothing else is gone through.
TIMELINE = """
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
        AND (t.at_ms >= (SELECT h.from_ms FROM horizon h) OR NOT EXISTS (
            SELECT 1 FROM transitions n
            WHERE n.client_no = t.client_no AND n.at_ms > t.at_ms AND n.at_ms <= (SELECT h.from_ms FROM horizon h)
                AND n.superseded_at IS NULL
        ))
"""

OPEN = "4611686018427387904"
TO_MS = (
    f"CASE WHEN b.to_ms IS NULL AND g.to_ms = {OPEN} THEN NULL"
    " ELSE least(coalesce(b.to_ms, g.to_ms), g.to_ms) END"
)

# What `asked` and `looked` give is taken once, not for every row: both are subqueries of some size. OFFSET 0 keeps the
# planner from reading every transition to join it with all clients: it goes from client to client, each a seek.
PERIODS_BETWEEN = f"""
    CREATE FUNCTION periods_between(since timestamptz, until timestamptz) RETURNS TABLE (
        realm text, client_id text, from_time timestamptz, from_ms bigint, to_time timestamptz, to_ms bigint,
        state text, timestamp_ms bigint, disconnect_reason text, certainty text, not_before_ms bigint,
        not_after_ms bigint, last_known_state text, last_known_timestamp_ms bigint, last_known_reason text
    ) LANGUAGE sql STABLE AS $body$
    WITH asked AS MATERIALIZED (
        SELECT asked_ms(since) AS from_ms, asked_ms(until + interval '999 microseconds') AS to_ms,
            (SELECT h.from_ms FROM horizon h) AS horizon_ms
    ), looked AS MATERIALIZED (
        SELECT g.from_ms, g.to_ms, g.watched FROM watching g
    )
    SELECT m.name, c.client_id, to_timestamp(0.001 * p.from_ms), p.from_ms, to_timestamp(0.001 * p.to_ms), p.to_ms,
        CASE p.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END,
        CASE WHEN p.state = s.state THEN s.timestamp_ms END,
        CASE WHEN p.state = s.state THEN w.text END,
        CASE WHEN p.state = 2 THEN 'unknown' WHEN p.proven THEN 'observed' ELSE 'inferred' END,
        CASE WHEN p.state = s.state THEN coalesce(s.not_before_ms, s.timestamp_ms) END,
        CASE WHEN p.state <> s.state THEN NULL WHEN p.proven THEN coalesce(s.not_after_ms, s.timestamp_ms)
            ELSE p.to_ms END,
        CASE WHEN p.state <> s.state THEN CASE s.state WHEN 1 THEN 'connected' ELSE 'disconnected' END END,
        CASE WHEN p.state <> s.state THEN s.timestamp_ms END,
        CASE WHEN p.state <> s.state THEN w.text END
    FROM asked a CROSS JOIN realms m JOIN clients c ON c.realm_no = m.realm_no
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT max(t.at_ms) FROM transitions t
            WHERE t.client_no = c.client_no AND t.superseded_at IS NULL AND t.at_ms <= a.from_ms
        ), -{OPEN}) AS at_ms OFFSET 0
    ) l
    CROSS JOIN LATERAL (
        SELECT * FROM stretches x
        WHERE x.client_no = c.client_no AND x.at_ms >= l.at_ms AND x.at_ms < a.to_ms OFFSET 0
    ) s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    CROSS JOIN LATERAL (
        SELECT greatest(b.from_ms, g.from_ms) AS from_ms, {TO_MS} AS to_ms,
            CASE WHEN g.watched = 1 THEN s.state ELSE 2 END AS state, false AS proven
        FROM (VALUES
            (s.at_ms, coalesce(s.confirmed_ms, s.proved_ms)), (s.confirmed_until_ms, s.proved_ms)
        ) b (from_ms, to_ms) CROSS JOIN looked g
        WHERE s.state <> 2 AND b.from_ms IS NOT NULL AND (b.to_ms IS NULL OR b.to_ms > b.from_ms)
            AND g.to_ms > b.from_ms AND g.from_ms < coalesce(b.to_ms, {OPEN})
        UNION ALL
        SELECT greatest(b.from_ms, a.horizon_ms), b.to_ms, s.state, true
        FROM (VALUES
            (s.confirmed_ms, s.confirmed_until_ms, s.confirmed_ms IS NOT NULL),
            (CASE WHEN s.state = 2 THEN s.at_ms ELSE s.proved_ms END, s.end_ms, s.state = 2 OR s.proved_ms < s.end_ms)
        ) b (from_ms, to_ms, holds)
        WHERE b.holds
    ) p
    WHERE p.from_ms < a.to_ms AND (p.to_ms IS NULL OR p.to_ms > a.from_ms)
    $body$
"""  # noqa: S608

CONNECTIVITY_AT = """
    CREATE OR REPLACE FUNCTION connectivity_at(asked timestamptz) RETURNS TABLE (
        realm text, client_id text, state text, aws_timestamp timestamptz, timestamp_ms bigint,
        disconnect_reason text, certainty text, not_before_ms bigint, not_after_ms bigint, last_known_state text
    ) LANGUAGE sql STABLE AS $body$
    WITH told AS MATERIALIZED (SELECT asked_ms(asked) AS at_ms)
    SELECT p.realm, p.client_id, p.state, to_timestamp(0.001 * p.timestamp_ms), p.timestamp_ms, p.disconnect_reason,
        p.certainty, p.not_before_ms,
        CASE WHEN p.certainty = 'inferred' THEN t.at_ms ELSE p.not_after_ms END, p.last_known_state
    FROM told t CROSS JOIN periods_between(
        date_trunc('milliseconds', asked), date_trunc('milliseconds', asked) + interval '1 millisecond'
    ) p
    $body$
"""

UPTIME = """
    CREATE OR REPLACE FUNCTION uptime(from_time timestamptz, to_time timestamptz) RETURNS TABLE (
        realm text, client_id text, connected_ms bigint, disconnected_ms bigint, unknown_ms bigint,
        not_registered_ms bigint, availability double precision, availability_low double precision,
        availability_high double precision
    ) LANGUAGE sql STABLE AS $body$
    WITH asked AS (
        SELECT asked_ms(from_time) AS from_ms, asked_ms(to_time) AS to_ms,
            (SELECT 1 + coalesce(max(w.last_known_at), -1) FROM watermarks w) AS known_ms,
            least((SELECT min(e.at_ms) FROM evidence e),
                (SELECT min(w.from_ms) FROM watches w WHERE w.from_ms < w.to_ms)) AS begun_ms
    ), parts AS (
        SELECT p.realm, p.client_id, p.state, p.certainty = 'observed' AS observed, a.known_ms,
            greatest(p.from_ms, a.from_ms) AS from_ms, least(coalesce(p.to_ms, a.to_ms), a.to_ms) AS to_ms
        FROM asked a CROSS JOIN periods_between(from_time, to_time) p
    ), sums AS (
        SELECT p.realm, p.client_id, min(p.from_ms) AS first_ms,
            coalesce(sum(p.to_ms - p.from_ms) FILTER (WHERE p.state = 'connected'), 0) AS up,
            coalesce(sum(p.to_ms - p.from_ms) FILTER (WHERE p.state = 'disconnected'), 0) AS down,
            coalesce(sum(greatest(least(p.to_ms, p.known_ms) - p.from_ms, 0))
                FILTER (WHERE p.state = 'connected' AND p.observed), 0) AS up_observed,
            coalesce(sum(greatest(least(p.to_ms, p.known_ms) - p.from_ms, 0))
                FILTER (WHERE p.state = 'disconnected' AND p.observed), 0) AS down_observed
        FROM parts p GROUP BY p.realm, p.client_id
    ), counted AS (
        SELECT m.name AS realm, c.client_id, coalesce(s.up, 0) AS up, coalesce(s.down, 0) AS down,
            coalesce(s.up_observed, 0) AS up_observed, coalesce(s.down_observed, 0) AS down_observed,
            a.to_ms - a.from_ms AS length,
            CASE WHEN a.begun_ms IS NULL THEN 0
                ELSE greatest(coalesce(s.first_ms, a.to_ms) - greatest(a.from_ms, a.begun_ms), 0) END AS absent
        FROM asked a CROSS JOIN clients c JOIN realms m ON m.realm_no = c.realm_no
        LEFT JOIN sums s ON s.realm = m.name AND s.client_id = c.client_id
        WHERE a.to_ms > a.from_ms
    )
    SELECT t.realm, t.client_id, CAST(t.up AS bigint), CAST(t.down AS bigint),
        CAST(t.length - t.absent - t.up - t.down AS bigint), CAST(t.absent AS bigint),
        CAST(t.up AS double precision) / nullif(CAST(t.up + t.down AS double precision), 0),
        CAST(t.up_observed AS double precision) / nullif(CAST(t.length - t.absent AS double precision), 0),
        CAST(t.length - t.absent - t.down_observed AS double precision)
            / nullif(CAST(t.length - t.absent AS double precision), 0)
    FROM counted t
    $body$
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    view = TIMELINE
    for word, meaning in ENGINES[dialect].items():
        view = view.replace(word, meaning)
    if dialect == "postgresql":
        op.execute(view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
        for function in (PERIODS_BETWEEN, CONNECTIVITY_AT, UPTIME):
            op.execute(function)
    else:
        op.execute("DROP VIEW timeline")
        op.execute(view)
