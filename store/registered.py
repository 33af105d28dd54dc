"""What the store takes for registered now, and as what: for whoever lists all things, and says what is otherwise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter

from sqlalchemy.engine import URL

from store.engine import Store, open_reader
from store.model import DEFAULT_REALM
from store.registry import Description, Fact, fact_of, registry_of, was

# What a thing was registered as, without its groups, which no listing tells; None: nothing was told of that.
Known = Description | None

_TOLD = """
    SELECT o.subject, o.kind, o.at_ms, o.body FROM observations o
    WHERE o.subject IS NOT NULL
      AND (o.realm_no IS NULL OR o.realm_no = (SELECT r.realm_no FROM realms r WHERE r.name = ?))
    ORDER BY o.subject, o.at_ms
"""
# The things that AWS's API knows, and how its index described them last; a client's answers lie side by side.
_ANSWERED = """
    SELECT c.client_id, k.asked_ms, k.answer FROM (
        SELECT client_no, max(asked_ms) AS last_ms,
            max(CASE WHEN substr(answer, 1, 20) = '{"api":"SearchIndex"' THEN asked_ms END) AS indexed_ms
        FROM checks WHERE substr(answer, 1, 22) <> '{"api":"GetConnection"' GROUP BY client_no
    ) m JOIN checks k ON k.client_no = m.client_no AND k.asked_ms = coalesce(m.indexed_ms, m.last_ms)
    JOIN clients c ON c.client_no = m.client_no
    WHERE c.realm_no = (SELECT r.realm_no FROM realms r WHERE r.name = ?) ORDER BY k.digest
"""


def registered(store: Store, *, realm: str = DEFAULT_REALM) -> dict[str, Known]:
    """Give what is known of each thing that is registered as far as the store knows.

    Reads all that was told of the registry, and all answers of the API that were new.
    """
    told, answers = (
        statement if store.is_sqlite else statement.replace("?", "%s") for statement in (_TOLD, _ANSWERED)
    )
    with store.streaming() as run:
        answered = {name: fact_of("check", *row) or was(row[0]) for name, *row in run(answers, (realm,))}
        found: dict[str, Known] = {}
        for name, rows in groupby(run(told, (realm,)), key=itemgetter(0)):
            facts = [fact for row in rows if (fact := fact_of(*row[1:])) is not None]
            if (answer := answered.pop(name, None)) is not None:
                facts.append(answer)
            lifetimes = registry_of(facts, observed_from_ms=None).lifetimes
            if lifetimes and lifetimes[-1].to_ms is None:
                found[name] = _known(lifetimes[-1].descriptions[-1][1], facts)
        for name, answer in answered.items():
            found[name] = _known(answer.description, [answer])
    return found


def _known(said: Description, facts: list[Fact]) -> Known:
    told = {member for fact in facts for member in fact.told}
    return said._replace(groups=()) if told >= {"type_name", "attributes"} else None


def knowing(url: URL, *, realm: str = DEFAULT_REALM) -> Callable[[], dict[str, Known]]:
    """Give a way to see what is registered, which opens the store for reading each time."""

    def known() -> dict[str, Known]:
        with open_reader(url) as store:
            return registered(store, realm=realm)

    return known
