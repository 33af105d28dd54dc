"""Columns: Parquet files, and the file of the mirror. Imports DuckDB, which commands that do not need it never load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from store import mirror_sums
from store.mirror_schema import (
    CUT_MS,
    GROWING,
    MACROS,
    NAMES,
    NUMBERS,
    PRINT,
    RECKONED,
    VIEWS,
    carried,
    listing,
    moment,
)

DOUBLE = '"'

Types = Mapping[
    str, str
]  # a column's name, and its type in SQL: BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMPTZ


def write_parquet(path: Path, types: Types, lines: Iterable[str]) -> None:
    """Write lines of JSON as a Parquet file, which is there once it is whole. Raises OSError."""
    import duckdb

    with TemporaryDirectory(dir=path.parent, prefix=".thingline-") as folder:
        told, part = Path(folder, "rows.ndjson"), Path(folder, "rows.parquet")
        with told.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        columns = ", ".join(f"{_quoted(name, DOUBLE)}: {_quoted(kind)}" for name, kind in types.items())
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(
                f"COPY (SELECT * FROM read_json({_quoted(str(told))}, format = 'newline_delimited',"
                f" columns = {{{columns}}})) TO {_quoted(str(part))} (FORMAT parquet, COMPRESSION zstd)"
            )
        part.replace(path)


def _quoted(text: str, mark: str = "'") -> str:
    return mark + text.replace(mark, 2 * mark) + mark


# --- The mirror: store/mirror.py decides what is loaded ----------------------------------------------------


def mirrored(path: Path) -> tuple[dict[str, Any], list[tuple[int, int]]] | None:
    """Give the mark of a mirror, and what was unsettled then; None where there is none that can be read."""
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            cursor = connection.execute("SELECT * FROM kept.mark")
            names = [column[0] for column in cursor.description or ()]
            (row,) = cursor.fetchall()
            unsettled = connection.execute("SELECT client_no, from_ms FROM kept.unsettled").fetchall()
    except (duckdb.Error, ValueError):
        return None  # absent, damaged, of another form: it is built anew
    return dict(zip(names, row, strict=True)), unsettled


def load(path: Path, folder: Path, *, known_at: int, held_at: int | None) -> tuple[int, int]:
    """Load files of rows into a mirror as known at `known_at`; gives the fingerprint of its timelines.

    `held_at` is as known when it is; None: it is a new one.

    What is kept of the clients in `changed` between its instants is replaced, and the sessions of those in
    `sessions_changed`. The mirror is nobody else's yet.
    """
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.execute("SET enable_progress_bar = false; SET preserve_insertion_order = true")
        connection.execute("BEGIN")
        if held_at is None:
            connection.execute("CREATE SCHEMA kept")
            for table, columns in (NUMBERS | NAMES | mirror_sums.SUMMED).items():
                listed = ", ".join(
                    f"{name} {kind}" for name, kind in (columns | RECKONED.get(table, {})).items()
                )
                connection.execute(f"CREATE TABLE kept.{table} ({listed})")
            for statement in (*moment(known_at), *VIEWS, *mirror_sums.MACROS, *MACROS):
                connection.execute(statement)
        _fill(connection, folder, ("changed", "sessions_changed"))
        incoming = {table: _rows(folder, table) for table in ("stretches", "speakers", "watching")}
        connection.execute(mirror_sums.stale(incoming, held_at, known_at))
        ((stale_ms,),) = connection.execute("SELECT min(from_ms) FROM stale").fetchall()
        if stale_ms is not None:
            connection.execute(mirror_sums.taken_out(stale_ms))
        if held_at is not None:
            for table in ("timeline", "stretches"):
                connection.execute(
                    f"DELETE FROM kept.{table} t USING kept.changed c"
                    " WHERE t.client_no = c.client_no AND t.at_ms >= c.from_ms AND t.at_ms < c.to_ms"
                )
            connection.execute(
                "DELETE FROM kept.sessions t USING kept.sessions_changed c WHERE t.client_no = c.client_no"
            )
            for statement in moment(known_at):
                connection.execute(statement)
            for cut in range(held_at // CUT_MS + 1, known_at // CUT_MS + 1):
                connection.execute(carried(cut))
        for table in NUMBERS | NAMES:
            if table not in (*GROWING, "changed", "sessions_changed"):
                connection.execute(f"DELETE FROM kept.{table}")
        _fill(
            connection, folder, [name for name in NUMBERS | NAMES if not name.endswith("changed")], known_at
        )
        if stale_ms is not None:
            for statement in mirror_sums.put_in(stale_ms, known_at):
                connection.execute(statement)
        connection.execute("DELETE FROM kept.changed; DELETE FROM kept.sessions_changed")
        count, number = connection.execute(f"SELECT count(*), sum({PRINT}) FROM kept.timeline").fetchall()[0]
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")
    return int(count), int(number or 0)


def _fill(connection: Any, folder: Path, tables: Iterable[str], known_at: int = 0) -> None:
    for table in tables:
        if not _has_rows(folder, table):
            continue
        new = " ANTI JOIN kept.reasons USING (reason_no)" if table == "reasons" else ""
        listed = f", {listing(known_at)}" if table == "stretches" else ""
        order = " ORDER BY cut, from_ms, client_no" if listed else ""
        connection.execute(
            f"INSERT INTO kept.{table} BY NAME SELECT *{listed} FROM {_rows(folder, table)}{new}{order}"
        )


def _rows(folder: Path, table: str) -> str:
    """Give the source of the rows of a file."""
    columns = (NUMBERS | NAMES)[table]
    if not _has_rows(folder, table):
        return f"(SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in columns.items())} LIMIT 0)"
    told = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    file = _quoted(str(_file(folder, table)))
    return (
        f"read_csv({file}, columns = {{{told}}}, header = false, auto_detect = false, delim = ',',"
        " quote = '', escape = '', nullstr = '')"
        if table in NUMBERS
        else f"read_json({file}, format = 'newline_delimited', columns = {{{told}}})"
    )


def _file(folder: Path, table: str) -> Path:
    return folder / f"{table}.{'csv' if table in NUMBERS else 'ndjson'}"


def _has_rows(folder: Path, table: str) -> bool:
    file = _file(folder, table)
    return file.exists() and file.stat().st_size > 0
