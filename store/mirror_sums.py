"""What the mirror adds up: uptime and series, and what is kept of them of whole days and minutes. SQL as text only.

The accounting stands once, in `_sums` and `_turns`. A question puts it to its window. The same is put to what changed
when a mirror is loaded, and kept: what each thing's days add up to (`kept.days`), and how many things turned to a state
in each minute (`kept.turns`). So a month is read as thirty rows a thing, and as stretches at its ragged ends only.

Pieces, that is a client's stretches, cut by who was watching, while it speaks for a thing, are made of three tables.
Where one of these becomes another, from that instant on, a thing's sums are *stale*, and are added up anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from store.mirror_schema import EVER_MS, FROM, LISTED, OBSERVED, TO, not_purged, time
from store.model import HOUR_MS, MINUTE_MS

DAY_MS = 24 * HOUR_MS  # of UTC

# Tables that are loaded from no file.
SUMMED: dict[str, dict[str, str]] = {
    # A row a day that is over, and a thing that was known in it. Whole milliseconds of one thing are exact as DOUBLE.
    "days": {
        "day": "INTEGER",
        "name_no": "INTEGER",
        "first_ms": "BIGINT",  # when it was first known in the day
        "up": "DOUBLE",
        "down": "DOUBLE",
        "up_observed": "DOUBLE",
        "down_observed": "DOUBLE",
    },
    # How many more are in a state at a minute's beginning than were a minute earlier: the rows of a minute, summed.
    "turns": {"minute": "BIGINT", "up": "INTEGER", "down": "INTEGER", "unclear": "INTEGER"},
}


def days_over(known_at: int) -> int:
    """Tell the day that is not over at a moment: what lies beyond it may still come out otherwise."""
    return (1 + known_at) // DAY_MS


def _pieces(low: str, high: str, *, since: str, among: str = "") -> str:
    """Give the pieces of things in a window, and of each what lies in it and is not before `since`."""
    return f"""
        SELECT name_no, p.state, p.certainty = {OBSERVED} AS observed,
            greatest(p.from_ms, {since}) AS from_ms, least(p.to_ms, {high}) AS to_ms
        FROM kept.spoken({low}, {high}) p {among}
        WHERE {low} < {high} AND p.from_ms < {high} AND p.to_ms > {since}
    """


def _sums(pieces: str) -> str:
    """Give what pieces add up to by thing and day."""
    return f"""
        SELECT day, name_no, min(first_ms) AS first_ms,
            coalesce(sum(ms) FILTER (state = 1), 0) AS up,
            coalesce(sum(ms) FILTER (state = 0), 0) AS down,
            coalesce(sum(ms) FILTER (state = 1 AND observed), 0) AS up_observed,
            coalesce(sum(ms) FILTER (state = 0 AND observed), 0) AS down_observed
        FROM (
            SELECT day, name_no, state, observed, min(from_ms) AS first_ms, sum(CAST(to_ms - from_ms AS DOUBLE)) AS ms
            FROM ({pieces}) GROUP BY ALL
        ) GROUP BY ALL
    """


def _by_day(pieces: str) -> str:
    """Cut pieces where days end."""
    return f"""
        SELECT * REPLACE (
            greatest(from_ms, day * {DAY_MS}) AS from_ms, least(to_ms, (day + 1) * {DAY_MS}) AS to_ms
        ) FROM (SELECT *, unnest(range(from_ms // {DAY_MS}, (to_ms - 1) // {DAY_MS} + 1)) AS day FROM ({pieces}))
    """


def _turns(pieces: str, step_ms: str, origin: str) -> str:
    """Give how many more are in a state at each step from an origin on; queries/series.py says what is counted."""
    return f"""
        SELECT step, coalesce(sum(many) FILTER (state = 1), 0) AS up,
            coalesce(sum(many) FILTER (state = 0), 0) AS down,
            coalesce(sum(many) FILTER (state = 2), 0) AS unclear
        FROM (
            WITH parts AS ({pieces})
            SELECT (from_ms - {origin} + {step_ms} - 1) // {step_ms} AS step, state, 1 AS many FROM parts
            UNION ALL
            SELECT (to_ms - {origin} + {step_ms} - 1) // {step_ms}, state, -1 FROM parts
        ) GROUP BY step
    """


# --- What is kept -----------------------------------------------------------------------------------------------

_STALE = "JOIN stale s USING (name_no)"


def stale(incoming: Mapping[str, str], held_at: int | None, known_at: int) -> str:
    """Give the statement that lists the things whose sums change, and from when on.

    `incoming` are sources of what is about to be loaded: the rows of `stretches` of those clients in `changed`, and
    all of `speakers` and of `watching`. `held_at` is as known when the mirror is; None: it is a new one.
    """
    names = f"SELECT name_no, client_no FROM kept.speakers UNION SELECT name_no, client_no FROM {incoming['speakers']}"
    if held_at is None:
        return f"CREATE TEMP TABLE stale AS SELECT DISTINCT name_no, {-EVER_MS} AS from_ms FROM ({names})"

    def another(columns: str, table: str, which: str = "") -> str:
        return f"""(
            SELECT {columns} FROM (
                SELECT {columns} FROM kept.{table} t {which} UNION ALL SELECT {columns} FROM {incoming[table]}
            ) GROUP BY ALL HAVING count(*) = 1
        )"""

    changed = (
        "SEMI JOIN kept.changed c ON c.client_no = t.client_no AND c.from_ms <= t.at_ms AND t.at_ms < c.to_ms"
        f" WHERE cut = {LISTED}"
    )
    return f"""
        CREATE TEMP TABLE stale AS
        WITH names AS ({names})
        SELECT name_no, min(from_ms) AS from_ms FROM (
            SELECT name_no, from_ms FROM names
            JOIN {another("client_no, from_ms, state, certainty", "stretches", changed)} USING (client_no)
            UNION ALL
            SELECT name_no, from_ms FROM {another("name_no, from_ms, client_no", "speakers")}
            UNION ALL
            SELECT name_no, (SELECT min(from_ms) FROM {another("from_ms, watched", "watching")}) FROM names
            UNION ALL
            SELECT name_no, {days_over(held_at) * DAY_MS} FROM names WHERE {days_over(held_at)} < {days_over(known_at)}
        ) WHERE from_ms IS NOT NULL GROUP BY name_no
    """


def taken_out(low: int) -> str:
    """Give the statement that notes the turns of what is stale, from `low` on, before the mirror is loaded."""
    return f"CREATE TEMP TABLE taken AS {_turned(low, '-')}"


def put_in(low: int, known_at: int) -> tuple[str, ...]:
    """Give the statements that add up anew what is stale, from `low` on, once the mirror is loaded."""
    first, over = low // DAY_MS, days_over(known_at)
    pieces = _pieces(
        str(first * DAY_MS), str(over * DAY_MS), since=f"s.from_ms // {DAY_MS} * {DAY_MS}", among=_STALE
    )
    days = (
        f"DELETE FROM kept.days t USING stale s WHERE t.name_no = s.name_no AND t.day >= s.from_ms // {DAY_MS}",
        f"INSERT INTO kept.days BY NAME {_sums(_by_day(pieces))} ORDER BY day, name_no",
    )
    turns = f"""
        INSERT INTO kept.turns BY NAME
        SELECT minute, sum(up) AS up, sum(down) AS down, sum(unclear) AS unclear
        FROM (FROM taken UNION ALL {_turned(low, "+")})
        GROUP BY minute HAVING sum(up) <> 0 OR sum(down) <> 0 OR sum(unclear) <> 0 ORDER BY minute
    """
    return (turns, *days) if first < over else (turns,)


def _turned(low: int, sign: str) -> str:
    pieces = _pieces(str(low), str(EVER_MS), since="s.from_ms", among=_STALE)
    return f"""
        SELECT step AS minute, {sign}up AS up, {sign}down AS down, {sign}unclear AS unclear
        FROM ({_turns(pieces, str(MINUTE_MS), "0")})
    """


# --- What is asked ----------------------------------------------------------------------------------------------


# The whole days of a window, and where its ends are cut off; where there is none, the first end is all of it.
_DAY, _LAST = (
    f"(({FROM} + {DAY_MS - 1}) // {DAY_MS})",
    f"least({TO} // {DAY_MS}, (1 + kept.known_at()) // {DAY_MS})",
)
_HEAD = f"CASE WHEN {_DAY} < {_LAST} THEN {_DAY} * {DAY_MS} ELSE {TO} END"
_TAIL = f"CASE WHEN {_DAY} < {_LAST} THEN {_LAST} * {DAY_MS} ELSE {TO} END"
_IS_WHOLE = f"({FROM} % {MINUTE_MS} = 0 AND bucket_ms % {MINUTE_MS} = 0)"
_OF_WINDOW = _pieces("low_ms", "high_ms", since="low_ms")

MACROS = (
    f"CREATE MACRO kept.sums(low_ms, high_ms) AS TABLE {_sums(f'SELECT 0 AS day, * FROM ({_OF_WINDOW})')}",
    f"CREATE MACRO kept.turned(low_ms, high_ms, step_ms) AS TABLE {_turns(_OF_WINDOW, 'step_ms', 'low_ms')}",
    # As queries/uptime.py counts without policies: before a thing was first heard of it was not registered.
    f"""
    CREATE MACRO uptime(from_time, to_time) AS TABLE
    WITH named AS (
        SELECT name_no, any_value(realm) AS realm, any_value(thing_name) AS thing_name,
            coalesce(
                arg_max(client_id, from_ms) FILTER (from_ms < {TO} AND to_ms > {FROM}),
                any_value(thing_name), any_value(client_id)
            ) AS client_id
        FROM kept.speakers GROUP BY name_no
    ), sums AS (
        SELECT name_no, min(first_ms) AS first_ms, sum(up) AS up, sum(down) AS down,
            sum(up_observed) AS up_observed, sum(down_observed) AS down_observed
        FROM (
            FROM kept.days WHERE day >= {_DAY} AND day < {_LAST}
            UNION ALL FROM kept.sums({FROM}, {_HEAD})
            UNION ALL FROM kept.sums({_TAIL}, {TO})
            UNION ALL
            -- What lies beyond the watermark is carried on, and observed by nobody.
            SELECT 0, name_no, NULL, 0, 0, -up_observed, -down_observed
            FROM kept.sums(greatest({FROM}, 1 + kept.known_at()), {TO})
        ) GROUP BY name_no
    ), counted AS (
        SELECT n.thing_name, n.realm, n.client_id, coalesce(s.up, 0) AS up, coalesce(s.down, 0) AS down,
            coalesce(s.up_observed, 0) AS up_observed, coalesce(s.down_observed, 0) AS down_observed,
            coalesce(greatest(coalesce(s.first_ms, {TO})
                - greatest({FROM}, (SELECT begins_ms FROM kept.mark WHERE begins_ms IS NOT NULL)), 0), 0) AS absent,
            (SELECT count(begins_ms) FROM kept.mark) AS has_begun
        FROM named n LEFT JOIN sums s USING (name_no)
    ), added AS (
        SELECT *, absent * has_begun AS not_registered, {TO} - {FROM} - absent * has_begun AS whole FROM counted
    )
    SELECT thing_name, realm, client_id, CAST(up AS BIGINT) AS connected_ms, CAST(down AS BIGINT) AS disconnected_ms,
        CAST(whole - up - down AS BIGINT) AS unknown_ms, CAST(not_registered AS BIGINT) AS not_registered_ms,
        up / nullif(up + down, 0) AS availability, up_observed / nullif(whole, 0) AS availability_low,
        (whole - down_observed) / nullif(whole, 0) AS availability_high
    FROM added
    WHERE {not_purged(FROM)}
        AND CASE WHEN {TO} <= {FROM} THEN error('The window ends before it begins.') ELSE true END
    """,
    # From the kept turns where the buckets begin with whole minutes, else from the stretches.
    f"""
    CREATE MACRO series(from_time, to_time, bucket_ms) AS TABLE
    WITH sums AS (
        SELECT bucket, sum(up) AS up, sum(down) AS down, sum(unclear) AS unclear FROM (
            SELECT greatest((minute * {MINUTE_MS} - {FROM} + bucket_ms - 1) // bucket_ms, 0) AS bucket,
                up, down, unclear
            FROM kept.turns WHERE minute <= {TO} // {MINUTE_MS} AND {_IS_WHOLE}
            UNION ALL FROM kept.turned({FROM}, {TO}, bucket_ms) WHERE NOT {_IS_WHOLE}
        ) GROUP BY bucket
    )
    SELECT {time(f"{FROM} + b.bucket * bucket_ms")} AS from_time, {FROM} + b.bucket * bucket_ms AS from_ms,
        CAST(coalesce(sum(s.up) OVER told, 0) AS BIGINT) AS connected,
        CAST(coalesce(sum(s.down) OVER told, 0) AS BIGINT) AS disconnected,
        CAST(coalesce(sum(s.unclear) OVER told, 0) AS BIGINT) AS unknown
    FROM range(0, ({TO} - {FROM} + bucket_ms - 1) // bucket_ms) b(bucket) LEFT JOIN sums s ON s.bucket = b.bucket
    WHERE {not_purged(FROM)} WINDOW told AS (ORDER BY b.bucket) ORDER BY b.bucket
    """,
)
