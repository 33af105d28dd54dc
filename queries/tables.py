"""Rows for machines and spreadsheets: NDJSON, CSV and Parquet of the same columns; and a table for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from queries.output import json_line, safe
from store.errors import UsageError

Row = Mapping[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Write rows as CSV, a line each; a text that a spreadsheet would take for a formula gets a leading quote."""
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line([_cell(row.get(name)) for name in columns])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        value = ";".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def write_parquet(path: Path, types: Mapping[str, str], rows: Iterable[Row]) -> None:
    """Write rows as a Parquet file. Raises UsageError where it cannot be written."""
    from store import columnar

    lines = (json_line({name: row.get(name) for name in types}) for row in rows)
    try:
        columnar.write_parquet(path, types, lines)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def table_lines(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Write a table for people: the first `left` columns flush left, the others flush right. Memory: the rows."""
    cells = [list(headings), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headings))]
    for row in cells:
        parts = (
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(parts).rstrip()
