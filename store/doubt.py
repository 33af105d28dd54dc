"""What the store holds last of its clients, a slice of them at a time: for whoever has to choose whom to ask about.

Reads only. A slice costs three seeks a client and a snapshot of its own, so that going round a fleet never takes a
scan of the transitions, and no transaction stays open between two slices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from store.engine import Store, open_reader
from store.model import DEFAULT_REALM, State
from store.schema import RULE_NAMES, STATES


class Latest(NamedTuple):
    """The newest transition of a client, None where it has none; and whether events told of its connections."""

    client_no: int
    client_id: str
    at_ms: int | None
    state: State | None
    rule: str | None
    heard: bool


# Served by the primary keys of clients and of transitions, and by session_rows_by_time. Of several transitions at one
# instant the last in order holds.
LATEST = """
    SELECT n.client_no, n.client_id, x.at_ms, x.state, x.rule_no, n.heard FROM (
        SELECT c.client_no, c.client_id, EXISTS (
            SELECT 1 FROM session_rows s WHERE s.client_no = c.client_no
        ) AS heard, (
            SELECT t.at_ms FROM transitions t
            WHERE t.client_no = c.client_no AND t.superseded_at IS NULL
            ORDER BY t.at_ms DESC, t.seq DESC LIMIT 1
        ) AS newest_ms
        FROM clients c
        WHERE c.client_no > :after AND c.realm_no = (SELECT r.realm_no FROM realms r WHERE r.name = :realm)
        ORDER BY c.client_no LIMIT :most
    ) n LEFT JOIN transitions x
        ON x.client_no = n.client_no AND x.at_ms = n.newest_ms AND x.superseded_at IS NULL
    ORDER BY n.client_no, x.seq
"""


def latest(store: Store, *, after: int, most: int, realm: str = DEFAULT_REALM) -> list[Latest]:
    """List the newest transitions of up to `most` clients with numbers above `after`, ascending."""
    with store.reading() as connection:
        driver: Any = connection.connection.driver_connection
        values = {"after": after, "most": most, "realm": realm}
        rows = driver.execute(statement(is_sqlite=store.is_sqlite), values).fetchall()
    found: dict[int, Latest] = {}
    for client_no, client_id, at_ms, state, rule_no, heard in rows:
        known = None if at_ms is None else STATES[state], None if at_ms is None else RULE_NAMES[rule_no]
        found[client_no] = Latest(client_no, client_id, at_ms, *known, bool(heard))
    return list(found.values())


def looking(url: URL, *, most: int, realm: str = DEFAULT_REALM) -> Callable[[int], list[Latest]]:
    """Give a way to see the `most` clients after a number, which opens the store for reading each time."""

    def look(after: int) -> list[Latest]:
        with open_reader(url) as store:
            return latest(store, after=after, most=most, realm=realm)

    return look


def statement(*, is_sqlite: bool) -> str:
    """Give the statement in the words of the driver."""
    if is_sqlite:
        return LATEST
    named = LATEST
    for name in ("after", "realm", "most"):
        named = named.replace(f":{name}", f"%({name})s")
    return named
