"""Show in the views what checks prove."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
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
        "NOTHING": "x'000000'",
        "SLOT": "("
        + " + ".join(
            f"{16 ** (5 - digit)} * instr('123456789ABCDEF', substr(hex(BYTES), {digit + 1}, 1))"
            for digit in range(6)
        )
        + ")",
    },
    "postgresql": {
        "TIME(": "to_timestamp(0.001 * ",
        "AS_TIME": ")",
        "LATER(": "greatest(",
        "EARLIER(": "least(",
        "NOTHING": "CAST('\\x000000' AS bytea)",
        "SLOT": "(65536 * get_byte(BYTES, 0) + 256 * get_byte(BYTES, 1) + get_byte(BYTES, 2))",
    },
}

# Where a sweep says when a client was asked: three bytes of its row (store/packing.py).
BYTES = "substr(w.slots, 1 + 3 * (t.client_no % 256 - w.first_slot), 3)"


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
    return f"""
    SELECT m.name, c.client_id, TIME({begins}AS_TIME, {begins}, TIME({ends}AS_TIME, {ends},
        CASE s.state WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END,
        s.timestamp_ms, w.text,
        CASE WHEN s.state = 2 THEN 'unknown' ELSE 'observed' END,
        coalesce(s.not_before_ms, s.timestamp_ms), coalesce(s.not_after_ms, s.timestamp_ms),
        CAST(NULL AS text), CAST(NULL AS bigint), CAST(NULL AS text)
    FROM realms m CROSS JOIN clients c CROSS JOIN stretches s
    LEFT JOIN texts w ON w.text_no = s.reason_no
    WHERE c.realm_no = m.realm_no AND s.client_no = c.client_no AND {where}
    """


VIEWS = (
    # One row a transition that holds for longer than an instant, with where it ends, from when on it is proven by
    # what followed, and what checks prove of it before that: [confirmed_ms, confirmed_until_ms).
    """
    CREATE VIEW stretches AS
    SELECT x.client_no, x.at_ms, x.state, x.timestamp_ms, x.reason_no, x.not_before_ms, x.not_after_ms, x.end_ms,
        x.proved_ms,
        CASE WHEN x.checked_until_ms > x.checked_ms AND (x.proved_ms IS NULL OR x.proved_ms > x.checked_ms)
            THEN x.checked_ms END AS confirmed_ms,
        CASE WHEN x.checked_until_ms > x.checked_ms AND (x.proved_ms IS NULL OR x.proved_ms > x.checked_ms)
            THEN EARLIER(x.checked_until_ms, coalesce(x.proved_ms, x.checked_until_ms)) END AS confirmed_until_ms
    FROM (
        SELECT t.client_no, t.at_ms, t.state, t.timestamp_ms, t.reason_no, t.not_before_ms, t.not_after_ms,
            n.at_ms AS end_ms,
            CASE WHEN t.state = 2 THEN n.at_ms WHEN n.at_ms IS NULL THEN NULL
                ELSE LATER(t.at_ms, coalesce(n.proved_from_ms, n.at_ms)) END AS proved_ms,
            LATER(t.at_ms, LATER(coalesce(t.not_after_ms, t.timestamp_ms, t.at_ms), coalesce(f.from_ms, t.at_ms)))
                AS checked_ms,
            LATER(f.until_ms, coalesce(CASE WHEN f.open_at IS NOT NULL THEN (
                SELECT w.asked_ms + SLOT - 10001 FROM sweeps w
                WHERE w.block_no = t.client_no / 256 AND w.known_at > f.open_at
                    AND w.first_slot <= t.client_no % 256 AND BYTES > NOTHING
                ORDER BY w.known_at DESC, w.asked_ms DESC LIMIT 1
            ) END, f.until_ms)) AS checked_until_ms
        FROM transitions t
        LEFT JOIN transitions n ON n.client_no = t.client_no AND n.superseded_at IS NULL AND n.seq = 0
            AND n.at_ms = (
                SELECT min(f.at_ms) FROM transitions f
                WHERE f.client_no = t.client_no AND f.at_ms > t.at_ms AND f.superseded_at IS NULL
            )
        LEFT JOIN confirmations f ON f.client_no = t.client_no AND f.at_ms = t.at_ms AND f.seq = t.seq
            AND f.superseded_at IS NULL AND t.state <> 2
        WHERE t.superseded_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM transitions o
            WHERE o.client_no = t.client_no AND o.at_ms = t.at_ms AND o.seq > t.seq AND o.superseded_at IS NULL
        )
    ) x
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
)


def upgrade() -> None:
    words = ENGINES[op.get_bind().dialect.name]
    for view in ("outages", "periods", "stretches"):
        op.execute(f"DROP VIEW {view}")
    for view in VIEWS:
        for word, meaning in words.items():
            view = view.replace(word, meaning)
        op.execute(view.replace("BYTES", BYTES))
