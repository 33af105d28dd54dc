"""The tables, as SQLAlchemy sees them. Migrations build them; a test holds the two equal.

Keys are chosen for the write path. Evidence is clustered by time, because it arrives by time: a unique key
that led with the client would dirty a page an event. Transitions are clustered by client, because they are
asked for by client. Strings that recur are interned in `texts`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from store.model import Kind, State

metadata = MetaData()

# STRICT tables of SQLite know INTEGER only; PostgreSQL tells widths apart.
BIG = BigInteger().with_variant(Integer, "sqlite")
SMALL = SmallInteger().with_variant(Integer, "sqlite")


class Folded(FunctionElement[str]):
    """A name with its case folded: letters of ASCII alone, in the order of their bytes, whatever the locale."""

    inherit_cache = True


@compiles(Folded)
def _folded(element: Folded, compiler: SQLCompiler, **more: Any) -> str:
    return f"lower({compiler.process(element.clauses, **more)})"


@compiles(Folded, "postgresql")
def _folded_on_postgresql(element: Folded, compiler: SQLCompiler, **more: Any) -> str:
    return f'lower({compiler.process(element.clauses, **more)} COLLATE "C")'


_STRICT: dict[str, Any] = {"sqlite_strict": True}
_CLUSTERED: dict[str, Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}

# Numbers of the rules of ingest/reduce.py in `transitions.rule_no`; names and numbers never change meaning.
RULES: dict[str, int] = {
    "first-evidence": 0,
    "connect": 1,
    "disconnect": 2,
    "takeover": 3,
    "takeover-unseen": 4,
    "connect-lost": 5,
    "disconnect-lost": 6,
    "check-named": 7,
    "check-laid": 8,
}
RULE_NAMES: dict[int, str] = {number: name for name, number in RULES.items()}
STATES: dict[int, State] = {state.value: state for state in State}
KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}

# Views are written in the migrations only; these are their names.
VIEWS = (
    *("horizon", "watching", "timeline", "stretches", "periods", "sessions", "outages", "current_status"),
    "annotations",
)

realms = Table(
    "realms",
    metadata,
    Column("realm_no", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    **_STRICT,
)

texts = Table(
    "texts",
    metadata,
    Column("text_no", Integer, primary_key=True),
    Column("text", Text, nullable=False, unique=True),
    **_STRICT,
)

rules = Table(
    "rules",
    metadata,
    Column("rule_no", SMALL, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    **_STRICT,
)

clients = Table(
    "clients",
    metadata,
    Column("client_no", Integer, primary_key=True),
    Column("realm_no", Integer, ForeignKey("realms.realm_no"), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("first_ms", BIG),  # stamp of its first evidence of any kind
    Column("last_known_at", BIG),  # kept on PostgreSQL, where writers meet at a client
    Column("has_strays", SMALL, nullable=False, server_default="0"),  # bears events without session id
    Column("checked_ms", BIG),  # latest instant that a row of `checks` names or was asked at
    UniqueConstraint("realm_no", "client_id"),
    postgresql_with={"fillfactor": 50},  # every batch writes the rows of its clients again
    **_STRICT,
)

things = Table(
    "things",
    metadata,
    Column("thing_no", Integer, primary_key=True),
    Column("realm_no", Integer, ForeignKey("realms.realm_no"), nullable=False),
    Column("thing_name", Text, nullable=False),
    UniqueConstraint("realm_no", "thing_name"),
    **_STRICT,
)

# A fleet index tells no case apart: queries/fleet.py, like the one of observations.
Index("clients_by_folded_id", clients.c.realm_no, Folded(clients.c.client_id))
Index("things_by_folded_name", things.c.realm_no, Folded(things.c.thing_name))

evidence = Table(
    "evidence",
    metadata,
    Column("at_ms", BIG, primary_key=True, autoincrement=False),
    Column("client_no", Integer, primary_key=True, autoincrement=False),
    Column("digest", BIG, primary_key=True, autoincrement=False),  # of the whole content: one row a copy
    Column("kind", SMALL, nullable=False),
    Column("known_at", BIG, nullable=False),
    Column("claimed_at", BIG),  # a recording's own knownAt, where it could not be honoured
    Column("source_no", Integer, nullable=False),
    Column("session", LargeBinary),  # store/packing.py
    Column("version", BIG),
    Column("reason_no", Integer),
    Column("client_initiated", SMALL),
    Column("principal_no", Integer),
    Column("ip_no", Integer),
    Column("thing_no", Integer),
    Column("extra", Text),  # JSON, see store.model.Event
    **_CLUSTERED,
)

# Which client bore this thing's name last: store/identity.py.
Index(
    "evidence_by_thing",
    evidence.c.thing_no,
    evidence.c.at_ms,
    sqlite_where=evidence.c.thing_no.is_not(None),
    postgresql_where=evidence.c.thing_no.is_not(None),
)

observations = Table(
    "observations",
    metadata,
    Column("at_ms", BIG, primary_key=True, autoincrement=False),
    Column("digest", BIG, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text),
    Column("known_at", BIG, nullable=False),
    Column("claimed_at", BIG),
    Column("source_no", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("realm_no", Integer),  # null: of a store that had one realm only, or none yet
    **_CLUSTERED,
)

# What is told of a thing's registration: store/registry.py.
Index(
    "observations_by_subject",
    observations.c.subject,
    observations.c.at_ms,
    sqlite_where=observations.c.subject.is_not(None),
    postgresql_where=observations.c.subject.is_not(None),
)

Index(
    "observations_by_folded_subject",
    Folded(observations.c.subject),
    sqlite_where=observations.c.subject.is_not(None),
    postgresql_where=observations.c.subject.is_not(None),
)

# What the API said, where it was not what it had said before: store/checks.py.
checks = Table(
    "checks",
    metadata,
    Column("client_no", Integer, primary_key=True, autoincrement=False),
    Column("about_ms", BIG, primary_key=True, autoincrement=False),  # the instant named, else of asking
    Column("asked_ms", BIG, primary_key=True, autoincrement=False),
    Column("digest", BIG, primary_key=True, autoincrement=False),
    Column("known_at", BIG, nullable=False),
    Column("claimed_at", BIG),
    Column("source_no", Integer, nullable=False),
    Column("state", SMALL, nullable=False),
    Column("named", SMALL, nullable=False),  # 0: no instant, 1: to the millisecond, 2: in whole seconds
    Column("reason_no", Integer),
    Column("answer", Text, nullable=False),  # JSON, without the moment of asking
    Column("last_asked_ms", BIG),  # of the checks that repeat it; null while they may
    **_CLUSTERED,
)

Index(
    "checks_open",
    checks.c.client_no,
    sqlite_where=checks.c.last_asked_ms.is_(None),
    postgresql_where=checks.c.last_asked_ms.is_(None),
)

# When a block of clients was asked, of those who said what they had said before.
sweeps = Table(
    "sweeps",
    metadata,
    Column("block_no", Integer, primary_key=True, autoincrement=False),
    Column("known_at", BIG, primary_key=True, autoincrement=False),
    Column("asked_ms", BIG, primary_key=True, autoincrement=False),  # the earliest of its askings
    Column("source_no", Integer, nullable=False),
    Column("first_slot", SMALL, nullable=False),
    Column("slots", LargeBinary, nullable=False),  # store/packing.py
    **_CLUSTERED,
)

Index("sweeps_by_asking", sweeps.c.block_no, sweeps.c.asked_ms)

watches = Table(
    "watches",
    metadata,
    Column("source", Text, primary_key=True),
    Column("from_ms", BIG, primary_key=True, autoincrement=False),
    Column("to_ms", BIG, primary_key=True, autoincrement=False),
    Column("known_at", BIG, nullable=False),
    Column("claimed_at", BIG),
    **_CLUSTERED,
)

session_rows = Table(
    "session_rows",
    metadata,
    Column("client_no", Integer, primary_key=True, autoincrement=False),
    Column("session", LargeBinary, primary_key=True),  # packed identity, store/packing.py
    Column("version", BIG),
    Column("connect_ms", BIG),
    Column("disconnect_ms", BIG),
    Column("reason_no", Integer),
    **_CLUSTERED,
)

# The neighbourhood of a late event, and the tail of a client: store/rows.py.
Index(
    "session_rows_by_time",
    session_rows.c.client_no,
    func.coalesce(session_rows.c.connect_ms, session_rows.c.disconnect_ms),
)

transitions = Table(
    "transitions",
    metadata,
    Column("client_no", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BIG, primary_key=True, autoincrement=False),
    Column("seq", SMALL, primary_key=True, autoincrement=False),  # among those at one instant; the last holds
    Column("recorded_at", BIG, primary_key=True, autoincrement=False),
    Column("superseded_at", BIG),
    Column("state", SMALL, nullable=False),
    Column("timestamp_ms", BIG),
    Column("reason_no", Integer),
    Column("not_before_ms", BIG),  # null where equal to the timestamp
    Column("not_after_ms", BIG),
    Column("rule_no", SMALL, nullable=False),
    Column("proved_from_ms", BIG),  # of the stretch before this row
    **_CLUSTERED,
)

# What checks prove of the stretch after a transition, which they never rewrite.
confirmations = Table(
    "confirmations",
    metadata,
    Column("client_no", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BIG, primary_key=True, autoincrement=False),
    Column("seq", SMALL, primary_key=True, autoincrement=False),
    Column("recorded_at", BIG, primary_key=True, autoincrement=False),
    Column("superseded_at", BIG),
    Column("until_ms", BIG, nullable=False),
    Column("from_ms", BIG),  # null: from the end of the transition's bounds
    Column("open_at", BIG),  # known_at of the check that sweeps repeat
    **_CLUSTERED,
)

# What people say of a stretch of time (store/annotations.py). A version is superseded by the next, never changed.
annotation_rows = Table(
    "annotation_rows",
    metadata,
    Column("annotation_no", Integer, primary_key=True, autoincrement=False),
    Column("version", SMALL, primary_key=True, autoincrement=False),
    Column("recorded_at", BIG, nullable=False),
    Column("superseded_at", BIG),
    Column("withdrawn", SMALL, nullable=False),
    Column("realm_no", Integer, ForeignKey("realms.realm_no"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("subject", Text),  # the thing or the group; null: all things of the realm
    Column("from_ms", BIG, nullable=False),
    Column("to_ms", BIG, nullable=False),
    Column("ticket", Text),
    Column("note", Text),
    Column("author", Text),
    **_CLUSTERED,
)

# Those that speak of a window: most ended before it, and few are still to come.
Index("annotation_rows_by_end", annotation_rows.c.realm_no, annotation_rows.c.to_ms)

# The newest known_at that each writer committed; slot 0 is SQLite's one writer. Together: the watermark.
watermarks = Table(
    "watermarks",
    metadata,
    Column("slot", SMALL, primary_key=True, autoincrement=False),
    Column("last_known_at", BIG, nullable=False),
    Column("replay_source_no", Integer),  # set while the last commit came from a recording
    **_STRICT,
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_no", Integer, primary_key=True),
    Column("source_no", Integer, nullable=False),
    Column("position", BIG, nullable=False),
    Column("known_at", BIG, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("length", BIG, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("replayed_at", BIG),
    UniqueConstraint("source_no", "position", "sha256"),
    **_STRICT,
)

# What was taken out of the store: one row, which every writer's transaction shares (store/care.py).
care = Table(
    "care",
    metadata,
    Column("care_no", SMALL, primary_key=True, autoincrement=False),
    Column("horizon_ms", BIG),  # questions about earlier instants are refused
    Column("known_horizon_ms", BIG),  # ... and those as known earlier
    Column("forgotten", Integer, nullable=False),  # counts what else writers may remember and is no more
    **_STRICT,
)

# A back-filling that is under way, one row: its evidence is in, its timelines may not be (ingest/backfill.py).
backfills = Table(
    "backfills",
    metadata,
    Column("backfill_no", SMALL, primary_key=True, autoincrement=False),
    Column("known_from", BIG, nullable=False),  # its evidence is known from then on
    Column("last_known_at", BIG, nullable=False),  # what the watermark will be
    Column("replay_source_no", Integer),
    Column("derived_below", Integer, nullable=False),  # clients with smaller numbers have their timelines
    **_STRICT,
)

# ... and up to which record of each source its evidence is in.
backfilled = Table(
    "backfilled",
    metadata,
    Column("source_no", Integer, primary_key=True, autoincrement=False),
    Column("position", BIG, nullable=False),
    **_STRICT,
)

# Up to where the parts of a source were read; written in the transaction that wrote what it covers.
positions = Table(
    "positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("position", Text, nullable=False),
    **_STRICT,
)

# Which ingester reads which part; of PostgreSQL only (ingest/positions.py).
leases = Table(
    "leases",
    metadata,
    Column("source", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until_ms", BIG, nullable=False),
    **_STRICT,
)
