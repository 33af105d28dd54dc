"""The statements that a question asks of the store, and a transition as a row of them says it.

Each costs index seeks where it is about one thing (tests/store/test_plans.py). Runs none of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from store.annotations import COLUMNS
from store.certainty import Seen
from store.schema import RULE_NAMES, STATES

# Reasons go by number: there are few, and a join costs a third of a row.
_SEEN = (
    "x.at_ms, x.seq, x.recorded_at, x.superseded_at, x.state, x.timestamp_ms, x.reason_no, x.not_before_ms,"
    " x.not_after_ms, x.rule_no, x.proved_from_ms"
)
REASON, PROVED_FROM = 6, 10  # where a row of _SEEN has reason_no and proved_from_ms
_VISIBLE = "x.recorded_at <= :known_at AND (x.superseded_at IS NULL OR x.superseded_at > :known_at)"
_REALM = "(SELECT r.realm_no FROM realms r WHERE r.name = :realm)"
# An observation of no realm is of a store that had one only.
_OF_REALM = f"(o.realm_no IS NULL OR o.realm_no = {_REALM})"

_STATEMENTS: dict[str, str] = {
    "thing": """
        SELECT t.thing_no FROM things t JOIN realms r ON r.realm_no = t.realm_no
        WHERE r.name = :realm AND t.thing_name = :name
    """,
    "client": """
        SELECT c.client_no FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm AND c.client_id = :name
    """,
    "client_id": "SELECT client_id FROM clients WHERE client_no = :client_no",
    # Served by evidence_by_thing.
    "bound": """
        SELECT e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.at_ms <= :at_ms AND e.known_at <= :known_at
        ORDER BY e.at_ms DESC, e.digest DESC LIMIT 1
    """,
    "bearers": """
        SELECT e.at_ms, e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.known_at <= :known_at ORDER BY e.at_ms, e.digest
    """,
    "bearers_in": """
        SELECT e.at_ms, e.client_no FROM evidence e
        WHERE e.thing_no = :thing_no AND e.known_at <= :known_at AND e.at_ms > :from_ms AND e.at_ms <= :to_ms
        ORDER BY e.at_ms, e.digest LIMIT :most
    """,
    "text": "SELECT text FROM texts WHERE text_no = :text_no",
    # Served by the primary key of transitions, like those that follow. The one in force; beside it, when the next
    # one is and from when the stretch between them is proven; and what checks prove of that stretch.
    "point": f"""
        SELECT f.*, n.at_ms, n.proved_from_ms, c.until_ms, c.from_ms, c.open_at FROM (
            SELECT {_SEEN} FROM transitions x
            WHERE x.client_no = :client_no AND x.at_ms <= :at_ms AND {_VISIBLE}
            ORDER BY x.at_ms DESC, x.seq DESC LIMIT 1
        ) f LEFT JOIN (
            SELECT x.at_ms, x.proved_from_ms FROM transitions x
            WHERE x.client_no = :client_no AND x.at_ms > :at_ms AND {_VISIBLE}
            ORDER BY x.at_ms, x.seq LIMIT 1
        ) n ON true
        LEFT JOIN confirmations c ON c.client_no = :client_no AND c.at_ms = f.at_ms AND c.seq = f.seq
            AND c.recorded_at <= :known_at AND (c.superseded_at IS NULL OR c.superseded_at > :known_at)
    """,
    "next": f"""
        SELECT x.at_ms, x.proved_from_ms FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms > :at_ms AND {_VISIBLE}
        ORDER BY x.at_ms, x.seq LIMIT 1
    """,
    "timeline": f"""
        SELECT {_SEEN} FROM transitions x
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms >= :from_ms AND x.at_ms < :to_ms
        ORDER BY x.at_ms, x.seq
    """,
    "versions": f"""
        SELECT {_SEEN} FROM transitions x
        WHERE x.client_no = :client_no AND x.recorded_at <= :known_at AND x.at_ms >= :from_ms AND x.at_ms < :to_ms
        ORDER BY x.at_ms, x.seq, x.recorded_at
    """,
    "before": f"""
        SELECT {_SEEN} FROM transitions x
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms < :at_ms
        ORDER BY x.at_ms DESC, x.seq DESC LIMIT 1
    """,
    # Served by the primary key of confirmations.
    "confirmations": f"""
        SELECT x.at_ms, x.seq, x.until_ms, x.from_ms, x.open_at FROM confirmations x
        WHERE x.client_no = :client_no AND {_VISIBLE} AND x.at_ms >= :from_ms AND x.at_ms < :to_ms
        ORDER BY x.at_ms, x.seq
    """,
    # Served by the primary key of sweeps; see store/checks.py.
    "last_slot": """
        SELECT w.asked_ms, w.first_slot, w.slots FROM sweeps w
        WHERE w.block_no = :block_no AND w.known_at > :open_at AND w.known_at <= :known_at
          AND w.first_slot <= :slot AND substr(w.slots, 1 + 3 * (:slot - w.first_slot), 3) > :none
        ORDER BY w.known_at DESC, w.asked_ms DESC LIMIT 1
    """,
    "realms": "SELECT r.name FROM realms r ORDER BY r.name",
    "things": """
        SELECT t.thing_name FROM things t JOIN realms r ON r.realm_no = t.realm_no WHERE r.name = :realm
    """,
    "all_clients": """
        SELECT c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no WHERE r.name = :realm
    """,
    "numbered_clients": """
        SELECT c.client_no, c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm
    """,
    # Clients that no event binds to a thing: these speak for the thing of their own name.
    "own_names": """
        SELECT c.client_id FROM clients c JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm AND c.client_no NOT IN (
            SELECT e.client_no FROM evidence e WHERE e.thing_no IS NOT NULL AND e.known_at <= :known_at
        )
    """,
    # What was learned of transitions, in the order of learning: 0 recorded, 1 superseded. No index serves it, for one
    # would cost each transition more than a reader now and then costs: it reads all of them.
    "learned_after": f"""
        SELECT y.* FROM (
            SELECT x.recorded_at AS learned_at, 0 AS what, x.client_no, {_SEEN} FROM transitions x
            WHERE x.recorded_at >= :learned_at AND x.recorded_at <= :known_at
              AND (x.superseded_at IS NULL OR x.superseded_at > x.recorded_at)
            UNION ALL
            SELECT x.superseded_at, 1, x.client_no, {_SEEN} FROM transitions x
            WHERE x.superseded_at >= :learned_at AND x.superseded_at <= :known_at
              AND x.superseded_at > x.recorded_at
        ) y JOIN clients c ON c.client_no = y.client_no JOIN realms r ON r.realm_no = c.realm_no
        WHERE r.name = :realm
          AND (y.learned_at, y.what, y.client_no, y.at_ms, y.seq) > (:learned_at, :what, :client_no, :at_ms, :seq)
        ORDER BY y.learned_at, y.what, y.client_no, y.at_ms, y.seq LIMIT :most
    """,
    # Served by the primary key of evidence.
    "name_borne": """
        SELECT t.thing_name FROM evidence e JOIN things t ON t.thing_no = e.thing_no
        WHERE e.at_ms = :at_ms AND e.client_no = :client_no AND e.known_at <= :known_at
        ORDER BY e.digest DESC LIMIT 1
    """,
    "sessions": """
        SELECT s.session, s.version, s.connect_ms, s.disconnect_ms, w.text
        FROM session_rows s LEFT JOIN texts w ON w.text_no = s.reason_no
        WHERE s.client_no = :client_no ORDER BY coalesce(s.connect_ms, s.disconnect_ms), s.session
    """,
    "evidence_at": """
        SELECT e.at_ms, e.kind, e.known_at, e.claimed_at, o.text, e.session, e.version, w.text
        FROM evidence e JOIN texts o ON o.text_no = e.source_no LEFT JOIN texts w ON w.text_no = e.reason_no
        WHERE e.at_ms = :at_ms AND e.client_no = :client_no AND e.known_at <= :known_at ORDER BY e.known_at
    """,
    # Who connected: the principal and the address that a connect bore.
    "holder": """
        SELECT p.text, i.text FROM evidence e
        LEFT JOIN texts p ON p.text_no = e.principal_no LEFT JOIN texts i ON i.text_no = e.ip_no
        WHERE e.at_ms = :at_ms AND e.client_no = :client_no AND e.kind = 1 AND e.known_at <= :known_at
        ORDER BY e.digest
    """,
    # Served by the primary key of checks.
    "checks_about": """
        SELECT k.asked_ms, k.about_ms, k.named, k.state, w.text, k.known_at, k.claimed_at, o.text
        FROM checks k JOIN texts o ON o.text_no = k.source_no LEFT JOIN texts w ON w.text_no = k.reason_no
        WHERE k.client_no = :client_no AND k.about_ms >= :from_ms AND k.about_ms <= :to_ms
          AND k.known_at <= :known_at
        ORDER BY k.about_ms, k.asked_ms
    """,
    # What GetThingConnectivityData answered about one instant of a client, the last answer first.
    "answers_about": """
        SELECT k.answer FROM checks k
        WHERE k.client_no = :client_no AND k.about_ms >= :from_ms AND k.about_ms <= :to_ms
          AND k.state = :state AND k.named <> 0 AND k.known_at <= :known_at
          AND substr(k.answer, 1, 33) = '{"api":"GetThingConnectivityData"'
        ORDER BY k.asked_ms DESC, k.digest LIMIT 4
    """,
    "any_check": "SELECT 1 FROM checks LIMIT 1",
    "all_checks": """
        SELECT k.client_no, c.client_id, k.asked_ms, k.about_ms, k.named, k.state, w.text, k.known_at
        FROM checks k JOIN clients c ON c.client_no = k.client_no JOIN realms r ON r.realm_no = c.realm_no
        LEFT JOIN texts w ON w.text_no = k.reason_no
        WHERE r.name = :realm AND k.asked_ms >= :from_ms AND k.asked_ms < :to_ms AND k.known_at <= :known_at
        ORDER BY k.asked_ms, c.client_id, k.digest
    """,
    "all_sweeps": """
        SELECT w.asked_ms, w.first_slot, w.slots, w.block_no FROM sweeps w
        WHERE w.asked_ms >= :from_ms - 16777216 AND w.asked_ms < :to_ms AND w.known_at <= :known_at
    """,
    "beyond": """
        SELECT x.at_ms FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms >= :from_ms AND x.at_ms <= :to_ms LIMIT 1 OFFSET :most
    """,
    "fell": """
        SELECT max(x.superseded_at) FROM transitions x
        WHERE x.client_no = :client_no AND x.at_ms >= :from_ms AND x.at_ms <= :at_ms
          AND x.superseded_at <= :known_at
    """,
    # Served by the primary key of evidence, which leads with the time.
    "earliest_evidence": """
        SELECT at_ms, known_at FROM evidence WHERE known_at <= :known_at ORDER BY at_ms LIMIT 1
    """,
    "watches": "SELECT from_ms, to_ms FROM watches WHERE known_at <= :known_at",
    # Served by observations_by_subject.
    "registry": f"""
        SELECT o.kind, o.at_ms, o.body FROM observations o
        WHERE o.subject = :name AND o.known_at <= :known_at AND {_OF_REALM} ORDER BY o.at_ms, o.digest
    """,
    # Served by observations_by_subject: the names that the registry was told to hold.
    "registry_names": f"""
        SELECT DISTINCT o.subject FROM observations o
        WHERE o.subject IS NOT NULL AND o.kind = 'registry' AND o.known_at <= :known_at AND {_OF_REALM}
    """,
    # Names are told apart by case and searched for without: those that, folded, lie in `[low, high)`. Served by the
    # indexes of folded names.
    "things_like": f"""
        SELECT t.thing_name FROM things t
        WHERE t.realm_no = {_REALM} AND lower(t.thing_name) >= :low AND lower(t.thing_name) < :high
    """,
    "clients_like": f"""
        SELECT c.client_no, c.client_id FROM clients c
        WHERE c.realm_no = {_REALM} AND lower(c.client_id) >= :low AND lower(c.client_id) < :high
    """,
    "registry_names_like": f"""
        SELECT DISTINCT o.subject FROM observations o
        WHERE o.subject IS NOT NULL AND lower(o.subject) >= :low AND lower(o.subject) < :high
          AND o.kind = 'registry' AND o.known_at <= :known_at AND {_OF_REALM}
    """,
    "bound_clients": """
        SELECT DISTINCT e.client_no FROM evidence e WHERE e.thing_no IS NOT NULL AND e.known_at <= :known_at
    """,
    # Whether an event binds a client to a thing. Served by evidence_by_thing, of which it may read all.
    "is_bound": """
        SELECT 1 FROM evidence e
        WHERE e.thing_no IS NOT NULL AND e.client_no = :client_no AND e.known_at <= :known_at LIMIT 1
    """,
    # Served by the primary key of observations, which leads with the time.
    "registry_begins": f"""
        SELECT o.at_ms FROM observations o WHERE o.known_at <= :known_at AND {_OF_REALM}
        ORDER BY o.at_ms LIMIT 1
    """,
    "asked_after": """
        SELECT k.asked_ms FROM checks k
        WHERE k.client_no = :client_no AND k.asked_ms > :at_ms AND k.known_at <= :known_at
          AND substr(k.answer, 1, 22) <> '{"api":"GetConnection"' ORDER BY k.asked_ms LIMIT 1
    """,
    # Served by sweeps_by_asking.
    "slots_after": """
        SELECT w.asked_ms, w.first_slot, w.slots FROM sweeps w
        WHERE w.block_no = :block_no AND w.asked_ms > :from_ms AND w.known_at <= :known_at
          AND w.first_slot <= :slot AND substr(w.slots, 1 + 3 * (:slot - w.first_slot), 3) > :none
        ORDER BY w.asked_ms LIMIT 20
    """,
    # Served by annotation_rows_by_end. In no order: for the sake of one, SQLite would read them all by their key.
    "annotations": f"""
        SELECT {COLUMNS} FROM annotation_rows x
        WHERE x.realm_no = (SELECT r.realm_no FROM realms r WHERE r.name = :realm)
          AND x.to_ms > :from_ms AND x.from_ms < :to_ms AND x.withdrawn = 0 AND {_VISIBLE}
    """,
    "annotation_versions": f"""
        SELECT {COLUMNS} FROM annotation_rows x
        WHERE x.realm_no = (SELECT r.realm_no FROM realms r WHERE r.name = :realm)
          AND x.to_ms > :from_ms AND x.from_ms < :to_ms AND x.recorded_at <= :known_at
    """,
    "index_answers": """
        SELECT k.asked_ms, k.answer FROM checks k
        WHERE k.client_no = :client_no AND k.known_at <= :known_at
          AND substr(k.answer, 1, 20) = '{"api":"SearchIndex"' ORDER BY k.asked_ms
    """,
}


def seen_from(row: Sequence[Any], reason: str | None) -> Seen:
    """Build a transition from a row of the statements above; `reason` is what its number stands for."""
    at_ms, seq, recorded_at, superseded_at, state, stamp_ms, _, low_ms, high_ms, rule_no, proved, *_ = row
    return Seen(
        at_ms,
        seq,
        recorded_at,
        superseded_at,
        STATES[state],
        stamp_ms,
        reason,
        low_ms,
        high_ms,
        RULE_NAMES[rule_no],
        proved,
    )


@cache
def prepared(dialect_name: str) -> dict[str, str]:
    """Give the statements in the words of a dialect's driver: sqlite3 takes `:name`, psycopg `%(name)s`."""
    if dialect_name == "sqlite":
        return _STATEMENTS
    return {
        name: _FOLDED.sub(r'lower(\1 COLLATE "C")', _PARAMETER.sub(r"%(\1)s", statement))
        for name, statement in _STATEMENTS.items()
    }


_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_FOLDED = re.compile(r"lower\((\w+\.\w+)\)")  # as store/schema.py has it
