"""Add the functions of PostgreSQL for people who write SQL; docs/views.md tells them. SQLite has none."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FUNCTIONS = (
    """
    CREATE FUNCTION asked_ms(asked timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $body$
    DECLARE ms bigint := floor(1000 * extract(epoch FROM asked));
    BEGIN
        IF ms < (SELECT h.from_ms FROM horizon h) THEN
            RAISE EXCEPTION 'The history was purged up to a later time than the one asked for.';
        END IF;
        RETURN ms;
    END
    $body$
    """,
    # One SELECT, so that the planner puts it into the query: a condition on client_id costs seeks.
    """
    CREATE FUNCTION connectivity_at(asked timestamptz) RETURNS TABLE (
        realm text, client_id text, state text, aws_timestamp timestamptz, timestamp_ms bigint,
        disconnect_reason text, certainty text, not_before_ms bigint, not_after_ms bigint, last_known_state text
    ) LANGUAGE sql STABLE AS $body$
    SELECT p.realm, p.client_id, p.state, to_timestamp(0.001 * p.timestamp_ms), p.timestamp_ms, p.disconnect_reason,
        p.certainty, p.not_before_ms,
        CASE WHEN p.certainty = 'inferred' THEN asked_ms(asked) ELSE p.not_after_ms END, p.last_known_state
    FROM periods p WHERE p.from_ms <= asked_ms(asked) AND (p.to_ms IS NULL OR p.to_ms > asked_ms(asked))
    $body$
    """,
    # As queries/uptime.py counts without policies, by client; of the registry it knows nothing. Before a client was
    # first heard of it was not registered, once the store's history had begun.
    """
    CREATE FUNCTION uptime(from_time timestamptz, to_time timestamptz) RETURNS TABLE (
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
        FROM asked a JOIN periods p ON p.from_ms < a.to_ms AND (p.to_ms IS NULL OR p.to_ms > a.from_ms)
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
    """,
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for function in FUNCTIONS:
            op.execute(function)
