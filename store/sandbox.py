"""The process in which other people's SQL runs: it sees the mirror, for reading, and nothing else.

Run as `python -m store.sandbox` by queries/sql.py, which talks to it in lines of JSON. Two walls, each of which holds
alone but for the process's own folder: DuckDB is locked down before the first query (the file opened for reading, no
other file, no extension, no setting, no object of Python), and only what asks is run at all. How long and how much it
takes is bounded: by a limit of memory, an interrupt, and the end of the process.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from queue import SimpleQueue
from threading import Thread
from typing import Any

import duckdb

ROWS = 1_000  # a line

_EXPLAIN = re.compile(r"\s*explain\s+(?:analyze\s+)?", re.IGNORECASE)


def locked_down(path: str, *, memory: str, folder: str, zone: str) -> duckdb.DuckDBPyConnection:
    """Open a mirror so that whatever SQL is run can but read it. `folder` is for what does not fit into memory."""
    connection = duckdb.connect(
        path,
        read_only=True,
        config={
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "memory_limit": memory,
            "temp_directory": folder,
            "max_temp_directory_size": "20GB",
        },
    )
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = ?", [zone])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def question(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """Give the one statement of a text, if it only asks. Raises ValueError."""
    statements = connection.extract_statements(text)
    if len(statements) != 1:
        raise ValueError("Ask one question at a time." if statements else "Nothing was asked.")
    (statement,) = statements
    if statement.type == duckdb.StatementType.EXPLAIN:
        explained, found = _EXPLAIN.subn("", statement.query, count=1)
        kinds = {each.type for each in connection.extract_statements(explained)} if found else set()
    else:
        kinds = {statement.type}
    if kinds != {duckdb.StatementType.SELECT}:
        raise ValueError(
            "That does not ask: SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN of these are run."
        )
    return statement


def answers(connection: duckdb.DuckDBPyConnection, text: str) -> Iterator[dict[str, Any]]:
    """Answer a query: its columns, rows in parts, and the end or an error."""
    try:
        cursor = connection.execute(question(connection, text))
        yield {"columns": [(column[0], str(column[1])) for column in cursor.description or ()]}
        while rows := cursor.fetchmany(ROWS):
            yield {"rows": [[plain(value) for value in row] for row in rows]}
        yield {"end": True}
    except duckdb.InterruptException:
        yield {"error": "The query was interrupted."}
    except MemoryError as error:
        yield {"error": f"The memory did not suffice: {error}"}
    except Exception as error:  # whatever a query brings about is its answer
        yield {"error": _said(error)}


def _said(error: Exception) -> str:
    """Give an error in one line, and the line of the query that it points at."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line.strip("^~ ")) or type(error).__name__


def plain(value: Any) -> Any:
    """Give a value as JSON can say it: times in ISO 8601, those with a zone in UTC; bytes in hexadecimal."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            return _time(value)
        case date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case timedelta():
            return str(value)
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {str(key): plain(each) for key, each in value.items()}
    return str(value)


def _time(value: datetime) -> str:
    exact = "microseconds" if value.microsecond % 1000 else "milliseconds"
    if value.tzinfo is None:
        return value.isoformat(timespec=exact)
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=exact) + "Z"


def _listen(lines: Iterator[str], queries: SimpleQueue[str], interrupt: Callable[[], None]) -> None:
    """Take what is asked, and interrupt what runs when told so; nobody there any more: end."""
    for line in lines:
        said = json.loads(line)
        if "query" in said:
            queries.put(said["query"])
        else:
            interrupt()
    os._exit(0)


def main() -> None:
    """Answer queries from standard input until it ends."""
    settings = json.loads(sys.stdin.readline())
    connection = locked_down(**settings)
    queries: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(sys.stdin, queries, connection.interrupt), daemon=True).start()
    while True:
        for answer in answers(connection, queries.get()):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
