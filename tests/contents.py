"""All that a store holds, in names rather than numbers and in ranks rather than moments.

Two stores that were told the same are equal here in every table and every column, whatever the order in which
their names were numbered, and whenever they were told. A column that this module does not know fails the look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from ingest.sweeps import asked_in
from store.schema import metadata

Contents = dict[str, list[tuple[Any, ...]]]

# Moments of learning: what is compared is only which came before which.
MOMENTS = {"known_at", "recorded_at", "superseded_at", "open_at", "replayed_at"}
# When a client was last told of, be it of nothing new: which is what the second run of two tells it.
LAST_TOLD = "last_known_at"
# Numbers given in order of arrival: the key of their own table says nothing, elsewhere the name stands for them.
NAMES = {
    "realm_no": ("realms", "name"),
    "client_no": ("clients", "client_id"),
    "thing_no": ("things", "thing_name"),
    "source_no": ("texts", "text"),
    "reason_no": ("texts", "text"),
    "principal_no": ("texts", "text"),
    "ip_no": ("texts", "text"),
    "text_no": ("texts", "text"),
    "replay_source_no": ("texts", "text"),
}
OWN_KEYS = {"realms": "realm_no", "clients": "client_no", "things": "thing_no", "texts": "text_no"}
OWN_KEYS |= {"quarantine": "quarantine_no", "care": "care_no", "backfills": "backfill_no"}
OWN_KEYS |= {"annotation_rows": "annotation_no"}
# Each writer of PostgreSQL keeps its own newest moment: which of them it was is told by no law.
LEFT_OUT = {"watermarks", "rules", "leases"}
TABLES = [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                # It thinks there are fewer moments than there are, and takes minutes to join what workers counted.
                connection.exec_driver_sql("SET max_parallel_workers_per_gather = 0")
            yield connection
    finally:
        engine.dispose()


def contents(url: str) -> Contents:
    """Give every row of every table, sorted; for stores that fit into memory."""
    with connected(url) as connection:
        return {name: sorted(rows, key=repr) for name, rows in _Look(connection).tables()}


def beliefs(url: str) -> Contents:
    """Give what is held now, whoever of several writers told it when: no moment, no source, nothing superseded."""
    with connected(url) as connection:
        look = _Look(connection, current=True)
        return {name: sorted(rows, key=repr) for name, rows in look.tables()}


def fingerprint(url: str) -> dict[str, tuple[int, int]]:
    """Give the number of rows of every table and a hash that does not depend on their order."""
    found = {}
    with connected(url) as connection:
        for name, rows in _Look(connection).tables():
            count = total = 0
            for row in rows:
                count += 1
                total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), "big")
            found[name] = count, total % (1 << 128)
    return found


class _Look:
    def __init__(self, connection: sa.Connection, *, current: bool = False) -> None:
        self._connection = connection
        self._current = current
        self._skipped = {LAST_TOLD, *((MOMENTS | {"claimed_at", "source_no"}) if current else ())}
        moments: set[int] = set()
        for table in TABLES:
            for column in table.columns:
                if column.name in MOMENTS:
                    moments |= set(connection.scalars(sa.select(column).distinct()))
        self._ranks = {moment: rank for rank, moment in enumerate(sorted(moments - {None}))}
        self._names: dict[str, dict[int, str]] = {}
        for name, column_name in set(NAMES.values()):
            c = metadata.tables[name].c
            rows = connection.execute(sa.select(c[OWN_KEYS[name]], c[column_name]))
            self._names[name] = {row[0]: row[1] for row in rows}

    def tables(self) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
        for table in TABLES:
            yield table.name, self._asked(table) if table.name == "sweeps" else self._rows(table)

    def _rows(self, table: sa.Table) -> Iterator[tuple[Any, ...]]:
        skipped = self._skipped | {OWN_KEYS.get(table.name)}
        columns = [column for column in table.columns if column.name not in skipped]
        told = [self._telling(column.name) for column in columns]
        wanted = sa.select(*columns)
        if self._current and "superseded_at" in table.columns:
            wanted = wanted.where(table.c.superseded_at.is_(None))
        for row in self._connection.execution_options(yield_per=10_000).execute(wanted):
            yield tuple(None if value is None else tell(value) for tell, value in zip(told, row, strict=True))

    def _telling(self, column: str) -> Callable[[Any], Any]:
        if column in MOMENTS:
            return self._ranks.__getitem__
        if column == "rule_no":
            return int
        if column.endswith("_no"):
            return self._names[NAMES[column][0]].__getitem__
        return lambda value: bytes(value) if isinstance(value, memoryview) else value

    def _asked(self, table: sa.Table) -> Iterator[tuple[Any, ...]]:
        """Tell sweeps as what they say: who was asked when."""
        c = table.c
        columns = (c.block_no, c.known_at, c.asked_ms, c.source_no, c.first_slot, c.slots)
        assert len(columns) == len(table.columns)
        for row in self._connection.execute(sa.select(*columns)):
            source = self._names["texts"][row[3]]
            for client_no, known_at, asked_ms in asked_in(tuple(row)):
                yield self._names["clients"][client_no], self._ranks[known_at], asked_ms, source
