"""What one question costs: seeks, on both engines, as their planners say of a store of some size."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.writer import Writer
from store.ahead import for_many
from store.answer import prepared
from store.engine import Store, open_reader, open_writer, parse_url
from store.model import Event, Learned
from store.schema import metadata
from tests.builders import T0, connect, disconnect

BACK = 500 * 86_400_000
CLIENTS = 3_000
SESSIONS = 3
BIG = {
    "evidence",
    "observations",
    "transitions",
    "session_rows",
    "clients",
    "things",
    "confirmations",
    "sweeps",
    "checks",
    "annotation_rows",
}
AT = T0 - BACK + 9_000_000

# Every statement that a question about one thing asks.
VALUES: dict[str, dict[str, Any]] = {
    "client": {"realm": "default", "name": "client-7"},
    "thing": {"realm": "default", "name": "thing-7"},
    "client_id": {"client_no": 7},
    "text": {"text_no": 1},
    "bound": {"thing_no": 7, "at_ms": AT, "known_at": T0},
    "bearers": {"thing_no": 7, "known_at": T0},
    "bearers_in": {"thing_no": 7, "known_at": T0, "from_ms": AT, "to_ms": AT + 1_000_000, "most": 100},
    "point": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "next": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "before": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "timeline": {"client_no": 7, "known_at": T0, "from_ms": AT, "to_ms": AT + 1_000_000},
    "versions": {"client_no": 7, "known_at": T0, "from_ms": AT, "to_ms": AT + 1_000_000},
    "beyond": {"client_no": 7, "from_ms": AT, "to_ms": AT + 1_000_000, "most": 100},
    "confirmations": {"client_no": 7, "known_at": T0, "from_ms": AT, "to_ms": AT + 1_000_000},
    "last_slot": {"block_no": 7, "open_at": AT, "known_at": T0, "slot": 3, "none": b"\0\0\0"},
    "checks_about": {"client_no": 7, "from_ms": AT, "to_ms": AT + 3_000, "known_at": T0},
    "answers_about": {"client_no": 7, "from_ms": AT, "to_ms": AT + 3_000, "state": 1, "known_at": T0},
    "fell": {"client_no": 7, "from_ms": AT, "at_ms": AT + 1_000_000, "known_at": T0},
    "sessions": {"client_no": 7},
    "evidence_at": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "holder": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "name_borne": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "things_like": {"realm": "default", "low": "thing-71", "high": "thing-71\x01"},
    "clients_like": {"realm": "default", "low": "client-71", "high": "client-71\x01"},
    "registry_names_like": {"realm": "default", "low": "thing-7", "high": "thing-7\x01", "known_at": T0},
    "registry": {"name": "thing-7", "realm": "default", "known_at": T0},
    "asked_after": {"client_no": 7, "at_ms": AT, "known_at": T0},
    "slots_after": {"block_no": 7, "from_ms": AT, "known_at": T0, "slot": 3, "none": b"\0\0\0"},
    "index_answers": {"client_no": 7, "known_at": T0},
    "annotations": {"realm": "default", "from_ms": AT, "to_ms": AT + 1_000_000, "known_at": T0},
    "annotation_versions": {"realm": "default", "from_ms": AT, "to_ms": AT + 1_000_000, "known_at": T0},
}
FOLDED = "expr"  # what SQLite's plans call the expression of an index
# The columns that each one seeks by.
SEEKS: dict[str, set[str]] = {
    "client": {"realm_no", "client_id"},
    "thing": {"realm_no", "thing_name"},
    "client_id": {"client_no"},
    "text": {"text_no"},
    "bound": {"thing_no", "at_ms"},
    "bearers": {"thing_no"},
    "bearers_in": {"thing_no", "at_ms"},
    "point": {"client_no", "at_ms"},
    "next": {"client_no", "at_ms"},
    "before": {"client_no", "at_ms"},
    "timeline": {"client_no", "at_ms"},
    "versions": {"client_no", "at_ms"},
    "beyond": {"client_no", "at_ms"},
    "confirmations": {"client_no", "at_ms"},
    "last_slot": {"block_no", "known_at"},
    "checks_about": {"client_no", "about_ms"},
    "answers_about": {"client_no", "about_ms"},
    "fell": {"client_no", "at_ms"},
    "name_borne": {"client_no", "at_ms"},
    "sessions": {"client_no"},
    "evidence_at": {"client_no", "at_ms"},
    "holder": {"client_no", "at_ms"},
    "things_like": {"things_by_folded_name", "realm_no", FOLDED},
    "clients_like": {"clients_by_folded_id", "realm_no", FOLDED},
    "registry_names_like": {"observations_by_folded_subject", FOLDED},
    "registry": {"subject"},
    "asked_after": {"client_no"},
    "slots_after": {"block_no", "asked_ms"},
    "index_answers": {"client_no"},
    "annotations": {"realm_no", "to_ms"},
    "annotation_versions": {"realm_no", "to_ms"},
}
# Served in the order of the primary key, up to the first row that fits: an index, and a limit of one.
FIRST: dict[str, tuple[str, dict[str, Any]]] = {
    "earliest_evidence": ("evidence", {"known_at": T0}),
    "registry_begins": ("observations", {"known_at": T0, "realm": "default"}),
}


def lived(rng: random.Random) -> Iterator[Event]:
    """Give many clients' lives; every second one bears a thing's name."""
    for number in range(CLIENTS):
        at_ms = T0 - BACK + rng.randrange(1_000_000)
        for version in range(SESSIONS):
            for build in (connect, disconnect):
                at_ms += rng.randrange(1, 900_000)
                client = f"client-{number}"
                event = build(at_ms, session=f"{number}-{version}", version=version, client_id=client)
                yield event._replace(thing_name=f"thing-{number}" if number % 2 else None)


def confirmations() -> Iterator[dict[str, int]]:
    for number in range(CLIENTS):
        for at_ms in range(AT, AT + 3_000, 1_000):
            yield {
                "client_no": number,
                "at_ms": at_ms,
                "seq": 0,
                "recorded_at": at_ms,
                "until_ms": at_ms + 500,
            }


def observations() -> Iterator[dict[str, Any]]:
    for number in range(CLIENTS):
        for at_ms in range(AT, AT + 3_000, 1_000):
            yield {
                "at_ms": at_ms,
                "digest": number,
                "kind": "registry",
                "subject": f"thing-{number}",
                "known_at": at_ms,
                "source_no": 1,
                "body": "{}",
                "realm_no": 1,
            }


def annotated() -> Iterator[dict[str, Any]]:
    for number in range(CLIENTS):
        yield {
            "annotation_no": number,
            "version": 0,
            "recorded_at": T0 - BACK,
            "withdrawn": 0,
            "realm_no": 1,
            "kind": "ticket",
            "scope": "all",
            "from_ms": AT - number * 60_000,
            "to_ms": AT - number * 60_000 + 90_000,
        }


def texts() -> Iterator[dict[str, str]]:
    return ({"text": f"text-{number}"} for number in range(CLIENTS))


def checks() -> Iterator[dict[str, Any]]:
    for number in range(CLIENTS):
        for at_ms in range(AT, AT + 3_000, 1_000):
            yield {
                "client_no": number,
                "about_ms": at_ms,
                "asked_ms": at_ms,
                "digest": 1,
                "known_at": at_ms,
                "source_no": 1,
                "state": 1,
                "named": 1,
                "answer": "{}",
                "last_asked_ms": at_ms,
            }


def sweeps() -> Iterator[dict[str, Any]]:
    for number in range(20):
        for at_ms in range(AT, AT + 500_000, 1_000):
            yield {
                "block_no": number,
                "known_at": at_ms,
                "asked_ms": at_ms,
                "source_no": 1,
                "first_slot": 0,
                "slots": bytes(30),
            }


@pytest.fixture(scope="module")
def stored(new_shared_url: Callable[[], str], shared_rng: random.Random) -> Iterator[Store]:
    url = parse_url(new_shared_url())
    events = sorted(lived(shared_rng), key=lambda event: event.at_ms)
    with open_writer(url) as store, Writer(store) as writer:
        writer.write([Learned(event, 0, event.at_ms + 5_000) for event in events], source="test")
        with store.engine.begin() as connection:
            filled = (
                ("confirmations", confirmations()),
                ("sweeps", sweeps()),
                ("checks", checks()),
                ("observations", observations()),
                ("texts", texts()),
                ("annotation_rows", annotated()),
            )
            for name, rows in filled:
                connection.execute(metadata.tables[name].insert(), list(rows))
        with store.detached() as driver:
            driver.execute("ANALYZE")
    with open_reader(url) as store:
        yield store


def plan(store: Store, driver: Any, text: str, values: dict[str, Any]) -> list[str]:
    """List the steps of a plan that touch a table: `SEARCH TABLE USING INDEX ... (condition)`, or a SCAN."""
    if store.is_sqlite:
        rows = driver.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall()
        return [row[3] for row in rows]
    ((found,),) = driver.execute(f"EXPLAIN (FORMAT JSON) {text}", values).fetchall()
    return list(nodes(found[0]["Plan"]))


def nodes(node: dict[str, Any]) -> Iterator[str]:
    """Write PostgreSQL's plan in the words of SQLite's: a condition on an index makes a search."""
    inside = node.get("Plans", [])
    if "Relation Name" in node:
        served = inside[0] if node["Node Type"] == "Bitmap Heap Scan" else node
        index = f" USING INDEX {served['Index Name']}" if "Index Name" in served else ""
        condition = served.get("Index Cond")
        verb = "SCAN" if condition is None else "SEARCH"
        yield f"{verb} {node['Relation Name']}{index} {condition or ''}"
    for inner in inside:
        yield from nodes(inner)


def columns(step: str) -> set[str]:
    """Give the words of a step; where SQLite says rowid, the table's one key is meant."""
    return set(
        re.findall(r"\w+", step.replace("rowid=", "text_no= client_no=").replace("lower(", f"{FOLDED}("))
    )


def statement_of(store: Store, name: str) -> str:
    return prepared("sqlite" if store.is_sqlite else "postgresql")[name]


# The names that statements give their tables, which SQLite's plans speak of.
ALIASES = {
    "e": "evidence",
    "x": "transitions",
    "s": "session_rows",
    "c": "clients",
    "t": "things",
    "o": "observations",
    "w": "sweeps",
    "k": "checks",
}
SCAN = re.compile(r"SCAN (\w+)")


def scanned(steps: list[str]) -> list[str]:
    """Name the big tables that a plan reads through."""
    found = [match[1] for step in steps if (match := SCAN.match(step))]
    return [name for alias in found if (name := ALIASES.get(alias, alias)) in BIG]


def test_one_thing_costs_seeks(stored: Store) -> None:
    with stored.detached() as driver:
        for name, values in VALUES.items():
            steps = plan(stored, driver, statement_of(stored, name), values)
            sought = [columns(step) for step in steps if step.startswith("SEARCH")]
            assert any(found >= SEEKS[name] for found in sought), (name, steps)
            assert scanned(steps) == [], (name, steps)


# What store/ahead.py asks for many keys at once, and by what each is sought.
KEYS = {
    "registry": ("name",),
    "client": ("name",),
    "thing": ("name",),
    "bound": ("thing_no",),
    "index_answers": ("client_no",),
    "asked_after": ("client_no",),
    "slots_after": ("block_no", "slot"),
    "client_id": ("client_no",),
    "point": ("client_no",),
    "last_slot": ("block_no", "slot", "open_at"),
}


def test_many_things_at_once_cost_seeks_too(stored: Store) -> None:
    if stored.is_sqlite:
        return  # it is asked for each of them
    with stored.detached() as driver:
        for name, keys in KEYS.items():
            many, told = for_many(statement_of(stored, name), [{key: VALUES[name][key] for key in keys}] * 3)
            steps = plan(stored, driver, many, {**VALUES[name], **told})
            sought = [columns(step) for step in steps if step.startswith("SEARCH")]
            assert any(found >= SEEKS[name] for found in sought), (name, steps)
            assert scanned(steps) == [], (name, steps)


def test_the_newest_binding_is_found_by_its_index(stored: Store) -> None:
    with stored.detached() as driver:
        for name in ("bound", "bearers"):
            steps = plan(stored, driver, statement_of(stored, name), VALUES[name])
            assert any("evidence_by_thing" in step for step in steps), (name, steps)


def test_the_beginning_of_history_is_read_in_the_order_of_the_key(stored: Store) -> None:
    with stored.detached() as driver:
        for name, (table, values) in FIRST.items():
            steps = plan(stored, driver, statement_of(stored, name), values)
            read = [step for step in steps if ALIASES.get(step.split()[1], step.split()[1]) == table]
            # SQLite clusters both by their keys, so that a scan with no sort is in their order.
            assert read == [
                f"SCAN {'o' if table == 'observations' else table}"
                if stored.is_sqlite
                else f"SCAN {table} USING INDEX {table}_pkey "
            ]
            assert not any("TEMP B-TREE" in step for step in steps)


def test_the_statements_that_are_not_about_one_thing_are_all_there_are(stored: Store) -> None:
    """A new statement must be put on one of the lists."""
    assert SEEKS.keys() == VALUES.keys()
    whole = {
        "things",
        "bound_clients",
        "registry_names",
        "is_bound",
        "any_check",
        "all_checks",
        "all_clients",
        "all_sweeps",
        "numbered_clients",
        "own_names",
        "watches",
        "realms",
        "learned_after",
    }
    assert VALUES.keys() | FIRST.keys() | whole == prepared("sqlite").keys()
    assert set(metadata.tables) > BIG


def test_a_scan_is_recognised_as_one(stored: Store) -> None:
    """What the tests above rely on: on both engines a scan shows in a plan."""
    with stored.detached() as driver:
        text = "SELECT e.digest FROM evidence e WHERE e.version = 1"
        assert "evidence" in scanned(plan(stored, driver, text, {}))
