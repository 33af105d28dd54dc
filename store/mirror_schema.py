"""The mirror's tables, views and macros, in DuckDB's SQL. Text only: whoever runs it is store/columnar.py.

The tables of the schema `kept` hold numbers, as they are read from the store. What people ask are the views and macros
beside them: their columns are those of the store's own views (docs/views.md), and a thing's name is added. All is as
known at the mirror's watermark. An instant that never comes stands for an open end. What is added up is in
store/mirror_sums.py.
"""

from __future__ import annotations

from store.schema import RULES

FORMAT = 6  # of the mirror, and of the rules that cut its stretches; one of another format is built anew

EVER_MS = 1 << 62
CUT_MS = 7 * 24 * 3_600_000  # stretches are listed by so much time: a question reads that of its window
OBSERVED, INFERRED, UNKNOWN = 2, 1, 0  # kept.stretches.certainty

# What is loaded: files of rows in this order of columns. Those of numbers are CSV, those that hold names NDJSON.
NUMBERS: dict[str, dict[str, str]] = {
    "timeline": {
        "client_no": "INTEGER",
        "at_ms": "BIGINT",
        "seq": "SMALLINT",
        "state": "TINYINT",
        "timestamp_ms": "BIGINT",
        "reason_no": "INTEGER",
        "not_before_ms": "BIGINT",
        "not_after_ms": "BIGINT",
        "rule_no": "TINYINT",
        "recorded_ms": "BIGINT",
    },
    # The stretches of a client as they are proven or carried on; whether anybody was watching cuts them in `periods`.
    # Each is listed in every cut of time that it touches, up to that of the watermark: what holds at the beginning
    # of a cut is carried in, and a question about a day costs the same however much lies behind it.
    "stretches": {
        "client_no": "INTEGER",
        "at_ms": "BIGINT",  # of the transition that made it
        "from_ms": "BIGINT",
        "to_ms": "BIGINT",
        "state": "TINYINT",
        "certainty": "TINYINT",
        "timestamp_ms": "BIGINT",
        "reason_no": "INTEGER",
        "not_before_ms": "BIGINT",
        "not_after_ms": "BIGINT",
    },
    "watching": {"from_ms": "BIGINT", "to_ms": "BIGINT", "watched": "TINYINT"},
    "unsettled": {"client_no": "INTEGER", "from_ms": "BIGINT"},
    "changed": {"client_no": "INTEGER", "from_ms": "BIGINT", "to_ms": "BIGINT"},
    "sessions_changed": {"client_no": "INTEGER"},
}
NAMES: dict[str, dict[str, str]] = {
    "clients": {"client_no": "INTEGER", "realm": "VARCHAR", "client_id": "VARCHAR"},
    # Which client speaks for a thing when (store/identity.py); without a thing where its id is no legal name.
    "speakers": {
        "realm": "VARCHAR",
        "thing_name": "VARCHAR",
        "client_id": "VARCHAR",
        "client_no": "INTEGER",
        "from_ms": "BIGINT",
        "to_ms": "BIGINT",
        "name_no": "INTEGER",  # of a thing in its realm, or of such a client; it lasts
    },
    "sessions": {
        "client_no": "INTEGER",
        "session_identifier": "VARCHAR",
        "version_number": "BIGINT",
        "connect_ms": "BIGINT",
        "disconnect_ms": "BIGINT",
        "disconnect_reason": "VARCHAR",
    },
    "annotations": {
        "realm": "VARCHAR",
        "annotation_no": "INTEGER",
        "kind": "VARCHAR",
        "scope": "VARCHAR",
        "subject": "VARCHAR",
        "from_ms": "BIGINT",
        "to_ms": "BIGINT",
        "ticket": "VARCHAR",
        "note": "VARCHAR",
        "author": "VARCHAR",
        "recorded_ms": "BIGINT",
    },
    "reasons": {"reason_no": "INTEGER", "reason": "VARCHAR"},
    "mark": {
        "format": "INTEGER",
        "revision": "VARCHAR",  # of the store's schema
        "known_at": "BIGINT",
        "signature": "VARCHAR",  # of the state of the store that was read
        "horizon_ms": "BIGINT",
        "known_horizon_ms": "BIGINT",
        "forgotten": "INTEGER",
        "begins_ms": "BIGINT",
    },
}
# These grow by what changed; the others are small and replaced whole.
GROWING = ("timeline", "stretches", "sessions", "reasons")

# A number that tells two timelines apart, in words that every engine reads alike: of one of their rows. Few words, for
# a refresh says them of all rows of a store; and what is recorded is never written again.
PRINT = "(at_ms + 3 * client_no + 7 * state + 11 * recorded_ms) & 1048575"


def time(ms: str) -> str:
    """Give the expression of a real timestamp."""
    return f"make_timestamptz(1000 * ({ms}))"


def state(of: str) -> str:
    """Give the expression of a state's name."""
    return f"CASE {of} WHEN 1 THEN 'connected' WHEN 0 THEN 'disconnected' ELSE 'unknown' END"


_OPEN = f"nullif(p.to_ms, {EVER_MS})"
_RULES = " ".join(f"WHEN {number} THEN '{name}'" for name, number in RULES.items())
_CERTAINTY = (
    f"CASE certainty WHEN {OBSERVED} THEN 'observed' WHEN {INFERRED} THEN 'inferred' ELSE 'unknown' END"
)

LISTED = f"from_ms // {CUT_MS}"  # the cut in which a stretch begins
_ALWAYS = f"{-EVER_MS}, {EVER_MS}"

# The columns that are reckoned when a file is loaded.
RECKONED = {"stretches": {"cut": "INTEGER"}}


def moment(known_at: int) -> tuple[str, ...]:
    """Give the statements that say up to when it is, and which cut is the last: constants, for plans to use."""
    return (
        f"CREATE OR REPLACE MACRO kept.known_at() AS {known_at}",
        f"CREATE OR REPLACE MACRO kept.last_cut() AS {known_at // CUT_MS}",
    )


def listing(known_at: int) -> str:
    """Give the cuts of a stretch, and the order in which a file of stretches is kept."""
    last = f"greatest({LISTED}, least(to_ms - 1, {known_at}) // {CUT_MS})"
    return f"unnest(generate_series({LISTED}, {last})) AS cut"


def carried(cut: int) -> str:
    """Give the statement that carries what holds at the beginning of a new cut into it."""
    return f"""
        INSERT INTO kept.stretches BY NAME
        SELECT * REPLACE ({cut} AS cut) FROM kept.stretches
        WHERE cut = {cut - 1} AND to_ms > {cut * CUT_MS} ORDER BY from_ms, client_no
    """


# A stretch without proof is inferred while a path was recording, and unknown while none was (store/certainty.py).
_UNSEEN = f"s.certainty = {INFERRED} AND g.watched <> 1"
_STATE = f"CASE WHEN {_UNSEEN} THEN 2 ELSE s.state END"
_SURE = f"CASE WHEN {_UNSEEN} THEN {UNKNOWN} ELSE s.certainty END"

VIEWS = (
    # The stretches of a window, each once: those that begin in its cuts, and what is carried into the first of them.
    f"""
    CREATE MACRO kept.within(low_ms, high_ms) AS TABLE
    SELECT * FROM kept.stretches
    WHERE cut >= least(low_ms // {CUT_MS}, kept.last_cut()) AND cut <= high_ms // {CUT_MS}
        AND (cut = {LISTED} OR cut = least(low_ms // {CUT_MS}, kept.last_cut()))
        AND from_ms < high_ms AND to_ms > low_ms
    """,
    # ... cut where the watching of those without proof begins or ends.
    f"""
    CREATE MACRO kept.cut(low_ms, high_ms) AS TABLE
    SELECT client_no, from_ms, to_ms, state, state AS known_state, certainty, timestamp_ms, reason_no,
        not_before_ms, not_after_ms
    FROM kept.within(low_ms, high_ms) WHERE certainty <> {INFERRED}
    UNION ALL
    SELECT s.client_no, greatest(s.from_ms, g.from_ms), least(s.to_ms, g.to_ms),
        {_STATE}, s.state, {_SURE}, s.timestamp_ms, s.reason_no, s.not_before_ms, NULL
    FROM kept.within(low_ms, high_ms) s JOIN kept.watching g ON g.to_ms > s.from_ms AND g.from_ms < s.to_ms
    WHERE s.certainty = {INFERRED}
    """,
    # The same of one instant: what holds then, which one look at the watching tells.
    f"""
    CREATE MACRO kept.standing(at_ms) AS TABLE
    SELECT s.client_no, {_STATE} AS state, s.state AS known_state, {_SURE} AS certainty, s.timestamp_ms,
        s.reason_no, s.not_before_ms, s.not_after_ms
    FROM kept.stretches s, (SELECT watched FROM kept.watching WHERE from_ms <= at_ms AND to_ms > at_ms) g
    WHERE s.cut = least(at_ms // {CUT_MS}, kept.last_cut()) AND s.from_ms <= at_ms AND s.to_ms > at_ms
    """,
    # ... and of a thing while its client speaks for it.
    """
    CREATE MACRO kept.spoken(low_ms, high_ms) AS TABLE
    SELECT s.realm, s.thing_name, s.client_id, s.name_no, greatest(p.from_ms, s.from_ms) AS from_ms,
        least(p.to_ms, s.to_ms) AS to_ms, p.state, p.known_state, p.certainty, p.timestamp_ms, p.reason_no,
        p.not_before_ms, p.not_after_ms
    FROM kept.cut(low_ms, high_ms) p JOIN kept.speakers s
        ON s.client_no = p.client_no AND p.from_ms < s.to_ms AND p.to_ms > s.from_ms
    """,
    f"""
    CREATE VIEW periods AS
    SELECT p.thing_name, p.realm, p.client_id, {time("p.from_ms")} AS from_time, p.from_ms,
        {time(_OPEN)} AS to_time, {_OPEN} AS to_ms, {state("p.state")} AS state,
        CASE WHEN p.state = p.known_state THEN p.timestamp_ms END AS timestamp_ms,
        CASE WHEN p.state = p.known_state THEN r.reason END AS disconnect_reason,
        {_CERTAINTY} AS certainty,
        CASE WHEN p.state = p.known_state THEN p.not_before_ms END AS not_before_ms,
        CASE WHEN p.state = p.known_state THEN
            CASE p.certainty WHEN {INFERRED} THEN {_OPEN} ELSE p.not_after_ms END END AS not_after_ms,
        CASE WHEN p.state <> p.known_state THEN {state("p.known_state")} END AS last_known_state,
        CASE WHEN p.state <> p.known_state THEN p.timestamp_ms END AS last_known_timestamp_ms,
        CASE WHEN p.state <> p.known_state THEN r.reason END AS last_known_reason
    FROM kept.spoken({_ALWAYS}) p LEFT JOIN kept.reasons r ON r.reason_no = p.reason_no
    """,
    f"""
    CREATE VIEW things AS
    SELECT p.thing_name, p.realm, p.client_id, {time(f"nullif(p.from_ms, {-EVER_MS})")} AS from_time,
        nullif(p.from_ms, {-EVER_MS}) AS from_ms, {time(_OPEN)} AS to_time, {_OPEN} AS to_ms
    FROM kept.speakers p
    """,
    # The row in force at the horizon comes first.
    f"""
    CREATE VIEW timeline AS
    SELECT c.realm, c.client_id, {time("t.at_ms")} AS at_time, t.at_ms, t.seq, {state("t.state")} AS state,
        {time("t.timestamp_ms")} AS aws_timestamp, t.timestamp_ms, r.reason AS disconnect_reason,
        t.not_before_ms, t.not_after_ms, CASE t.rule_no {_RULES} END AS rule,
        {time("t.recorded_ms")} AS recorded_time, t.recorded_ms
    FROM kept.timeline t JOIN kept.clients c ON c.client_no = t.client_no
    LEFT JOIN kept.reasons r ON r.reason_no = t.reason_no
    LEFT JOIN (
        SELECT client_no, max(at_ms) AS at_ms FROM kept.timeline
        WHERE at_ms <= (SELECT horizon_ms FROM kept.mark) GROUP BY client_no
    ) h ON h.client_no = t.client_no
    WHERE h.at_ms IS NULL OR t.at_ms >= h.at_ms
    """,
    f"""
    CREATE VIEW sessions AS
    SELECT c.realm, c.client_id, s.session_identifier, s.version_number,
        {time("s.connect_ms")} AS connect_time, s.connect_ms,
        {time("s.disconnect_ms")} AS disconnect_time, s.disconnect_ms, s.disconnect_reason
    FROM kept.sessions s JOIN kept.clients c ON c.client_no = s.client_no
    WHERE coalesce(s.disconnect_ms, {EVER_MS}) >= (SELECT horizon_ms FROM kept.mark)
    """,
    # A run of transitions to disconnected that hold for longer than an instant; it ends where another state begins.
    f"""
    CREATE VIEW outages AS
    WITH held AS (
        SELECT client_no, at_ms, state, reason_no FROM kept.timeline
        QUALIFY lead(at_ms) OVER (PARTITION BY client_no ORDER BY at_ms, seq) IS DISTINCT FROM at_ms
    ), turns AS (
        SELECT * FROM held
        QUALIFY lag(state) OVER (PARTITION BY client_no ORDER BY at_ms) IS DISTINCT FROM state
    ), runs AS (
        SELECT client_no, state, reason_no, greatest(at_ms, (SELECT horizon_ms FROM kept.mark)) AS from_ms,
            lead(at_ms) OVER (PARTITION BY client_no ORDER BY at_ms) AS to_ms
        FROM turns
    )
    SELECT c.realm, c.client_id, {time("p.from_ms")} AS from_time, p.from_ms, {time("p.to_ms")} AS to_time, p.to_ms,
        p.to_ms - p.from_ms AS duration_ms, r.reason AS disconnect_reason
    FROM runs p JOIN kept.clients c ON c.client_no = p.client_no
    LEFT JOIN kept.reasons r ON r.reason_no = p.reason_no
    WHERE p.state = 0 AND (p.to_ms IS NULL OR p.to_ms > p.from_ms)
    """,
    f"""
    CREATE VIEW current_status AS
    SELECT c.realm, c.client_id, {state("t.state")} AS state, {time("t.at_ms")} AS since_time, t.at_ms AS since_ms,
        {time("t.timestamp_ms")} AS aws_timestamp, t.timestamp_ms, r.reason AS disconnect_reason
    FROM (
        SELECT * FROM kept.timeline
        QUALIFY row_number() OVER (PARTITION BY client_no ORDER BY at_ms DESC, seq DESC) = 1
    ) t JOIN kept.clients c ON c.client_no = t.client_no
    LEFT JOIN kept.reasons r ON r.reason_no = t.reason_no
    """,
    f"""
    CREATE VIEW annotations AS
    SELECT realm, annotation_no, kind, scope, subject, {time("from_ms")} AS from_time, from_ms,
        {time("to_ms")} AS to_time, to_ms, ticket, note, author, {time("recorded_ms")} AS recorded_time, recorded_ms
    FROM kept.annotations
    """,
    """
    CREATE VIEW watching AS
    SELECT greatest(from_ms, (SELECT horizon_ms FROM kept.mark)) AS from_ms, to_ms, watched
    FROM kept.watching WHERE to_ms > (SELECT horizon_ms FROM kept.mark)
    """,
    """
    CREATE VIEW horizon AS SELECT horizon_ms AS from_ms FROM kept.mark
    """,
    f"""
    CREATE VIEW mirror AS SELECT {time("known_at")} AS known_time, known_at AS known_ms FROM kept.mark
    """,
)

ASKED = "epoch_ms(CAST(asked_time AS TIMESTAMPTZ))"
FROM, TO = "epoch_ms(CAST(from_time AS TIMESTAMPTZ))", "epoch_ms(CAST(to_time AS TIMESTAMPTZ))"


def not_purged(from_ms: str) -> str:
    """Refuse what begins before what a purge left."""
    return (
        f"CASE WHEN {from_ms} < (SELECT horizon_ms FROM kept.mark)"
        " THEN error('The history was purged up to a later time than the one asked for.') ELSE true END"
    )


MACROS = (
    f"""
    CREATE MACRO connectivity_at(asked_time) AS TABLE
    SELECT s.thing_name, s.realm, s.client_id, {state("p.state")} AS state,
        CASE WHEN p.state = p.known_state THEN {time("p.timestamp_ms")} END AS aws_timestamp,
        CASE WHEN p.state = p.known_state THEN p.timestamp_ms END AS timestamp_ms,
        CASE WHEN p.state = p.known_state THEN r.reason END AS disconnect_reason,
        {_CERTAINTY} AS certainty,
        CASE WHEN p.state = p.known_state THEN p.not_before_ms END AS not_before_ms,
        CASE WHEN p.state = p.known_state THEN
            CASE p.certainty WHEN {INFERRED} THEN {ASKED} ELSE p.not_after_ms END END AS not_after_ms,
        CASE WHEN p.state <> p.known_state THEN {state("p.known_state")} END AS last_known_state
    FROM kept.standing({ASKED}) p JOIN kept.speakers s ON s.client_no = p.client_no
    LEFT JOIN kept.reasons r ON r.reason_no = p.reason_no
    WHERE s.from_ms <= {ASKED} AND s.to_ms > {ASKED} AND {not_purged(ASKED)}
    """,
    # How things stood at two instants, where that differs; what happened between them is for `thingline diff`.
    """
    CREATE MACRO changes(first_time, second_time) AS TABLE
    SELECT coalesce(b.thing_name, a.thing_name) AS thing_name, coalesce(b.realm, a.realm) AS realm,
        coalesce(b.client_id, a.client_id) AS client_id, a.state AS state_before, b.state AS state_after,
        a.disconnect_reason AS reason_before, b.disconnect_reason AS reason_after
    FROM (SELECT *, coalesce(thing_name, client_id) AS name FROM connectivity_at(first_time)) a
    FULL JOIN (SELECT *, coalesce(thing_name, client_id) AS name FROM connectivity_at(second_time)) b
        ON b.realm = a.realm AND b.name = a.name
    WHERE a.state IS DISTINCT FROM b.state OR a.disconnect_reason IS DISTINCT FROM b.disconnect_reason
    """,
)
