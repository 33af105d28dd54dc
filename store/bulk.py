"""Many rows to the database in one statement, as JSON: SQLite reads it itself, PostgreSQL takes its lines as CSV.

A statement a batch, instead of one a row, leaves Python free to go on meanwhile: both drivers let go of the
interpreter while the database works. Session ids, which JSON cannot hold as bytes, travel as *codes*.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from store.model import Identity
from store.packing import pack_identity

_json = msgspec.json.Encoder()

_LENGTH_BITS = 21  # of a packed id: a record, and so an id in it, is 1 MiB at most


Packed = tuple[str, Any]  # a statement, and what goes with it


class Codes(dict[Identity, Any]):
    """Session identities as they stand in rows; each is packed once a batch."""


class SqliteCodes(Codes):
    """Places in a blob that goes along with the rows: offset and length in one integer."""

    def __init__(self) -> None:
        self.blob = bytearray()

    def __missing__(self, key: Identity) -> int:
        packed = pack_identity(key)
        code = self[key] = len(self.blob) << _LENGTH_BITS | len(packed)
        self.blob += packed
        return code


class PostgresCodes(Codes):
    """The text form of bytea."""

    def __missing__(self, key: Identity) -> str:
        code = self[key] = f"\\x{pack_identity(key).hex()}"
        return code


class SqliteInsert:
    """An INSERT of many rows, as one statement over one JSON array.

    `coded` names the column that holds codes. Columns that are `mostly_alike` throughout a batch are bound once
    where they are: reading a member out of JSON costs more than the rest of what SQLite does for it.
    """

    def __init__(
        self, insert: str, columns: str, then: str = "", *, coded: str = "", mostly_alike: Iterable[str] = ()
    ) -> None:
        self._columns = columns.split(", ")
        self._insert = f"{insert} ({columns})"
        self._then = then
        self._coded = coded
        self._mostly_alike = [self._columns.index(column) for column in mostly_alike]
        self._statements: dict[tuple[int, ...], str] = {}

    def run(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]], codes: Codes | None = None) -> int:
        """Insert rows, in their order; gives how many it changed."""
        return db.execute(*self.packed(rows, codes)).rowcount if rows else 0

    def packed(self, rows: Sequence[Sequence[Any]], codes: Codes | None = None) -> Packed:
        """Make the statement and its values, of at least one row: another process may run it."""
        blob = codes.blob if isinstance(codes, SqliteCodes) else b""
        alike = self._alike(rows)
        statement = self._statements.get(alike)
        if statement is None:
            statement = self._statements[alike] = self._statement(alike)
        varying = [at for at in range(len(self._columns)) if at not in alike]
        text = json_rows(list(map(itemgetter(*varying), rows)))
        return statement, (text, bytes(blob), *(rows[0][at] for at in alike))

    def _alike(self, rows: Sequence[Sequence[Any]]) -> tuple[int, ...]:
        """List the columns that are alike throughout, of those that mostly are."""
        first, last = rows[0], rows[-1]
        found = tuple(at for at in self._mostly_alike if first[at] == last[at])
        if not found or len(set(map(itemgetter(*found, found[0]), rows))) == 1:
            return found
        return tuple(at for at in found if len(set(map(itemgetter(at), rows))) == 1)

    def _statement(self, alike: tuple[int, ...]) -> str:
        parts: list[str] = []
        index = 0
        for at, column in enumerate(self._columns):
            if at in alike:
                parts.append(f"?{3 + alike.index(at)}")
                continue
            part = member(index)
            index += 1
            if column == self._coded:
                part = f"substr(?2, ({part} >> {_LENGTH_BITS}) + 1, {part} & {(1 << _LENGTH_BITS) - 1})"
            parts.append(part)
        return f"{self._insert} SELECT {', '.join(parts)} FROM json_each(?1) WHERE ?2 IS NOT NULL{self._then}"


def json_rows(rows: Sequence[Sequence[Any]]) -> str:
    """Encode rows as SQLite's `json_each` takes them."""
    return _json.encode(rows).decode()


def member(index: int) -> str:
    """Build the SQL of one column of a row out of `json_each`."""
    return f"json_extract(value, '$[{index}]')"


def csv_copy(table: str, columns: str) -> str:
    """Build the COPY that takes what `csv_rows` gives."""
    return f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\\')"


def csv_rows(rows: Sequence[Sequence[Any]]) -> bytes:
    """Encode rows, at least one, as CSV whose quotes are escaped as JSON escapes them.

    Text must hold no control character, as ids in hexadecimal and canonical JSON do: CSV would not read the others'
    escapes back.
    """
    return _json.encode_lines(rows)[1:-2].replace(b"]\n[", b"\n") + b"\n"
