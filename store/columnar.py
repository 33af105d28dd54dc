"""Columns: the only importer of DuckDB, which commands that do not need it never load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

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
