"""The command that takes questions in SQL: sql, with a prompt of its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from queries.commands import tz_option
from queries.receipts import check_one_form
from store.errors import BadQuery, UsageError
from store.options import described, json_option, store_option

if TYPE_CHECKING:
    from queries.sql import Result, Session

SHOWN = 10_000  # rows of a table, whose widths are known when all are there

_HELP = """Ask in DuckDB's SQL, and end with a semicolon. Ctrl-C cancels, .exit ends.
  SHOW TABLES;                       what there is: periods, timeline, outages, sessions, current_status, things
  DESCRIBE periods;                  its columns
  FROM uptime('2026-11-01', '2026-12-01');
  FROM connectivity_at('2026-11-01 03:12:00Z');"""


@click.command(
    "sql",
    **described(
        "Answer a question in SQL about the whole fleet, as known now: by DuckDB, over a columnar mirror of the store"
        " that is brought up to date first. There are the views `periods`, `timeline`, `outages`, `sessions`,"
        " `current_status` and `things`, and the macros `uptime(from, to)` and `connectivity_at(time)`. A query sees"
        " the mirror and nothing else: it cannot write, read files, load extensions or change settings. Without a"
        " query: a prompt, or queries from standard input, each ended by a semicolon. docs/sql.md has questions with"
        " their SQL.",
        "thingline sql 'SELECT state, count(*) FROM current_status GROUP BY state'",
        "thingline sql \"FROM uptime('2026-11-01', '2026-12-01') ORDER BY availability LIMIT 10\"",
        "thingline sql --csv 'FROM outages WHERE duration_ms > 3600000' > outages.csv",
        "thingline sql",
    ),
)
@click.argument("query", required=False)
@click.option(
    "--timeout", default="5m", show_default=True, metavar="LENGTH", help="A query may take so long."
)
@click.option("--memory", default="1GB", show_default=True, metavar="SIZE", help="... and so much memory.")
@click.option(
    "--mirror",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the mirror is. Default: beside a SQLite store, in your cache folder for PostgreSQL.",
)
@click.option("--as-it-is", is_flag=True, help="Ask the mirror without bringing it up to date.")
@tz_option
@store_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file.")
def sql(
    query: str | None,
    timeout: str,
    memory: str,
    mirror: Path | None,
    as_it_is: bool,
    tz: str | None,
    url: str | None,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
) -> int:
    from queries.output import report_error, say
    from queries.sql import Session
    from queries.times import length_ms, read_zone

    check_one_form(as_json=as_json, as_csv=as_csv, parquet=parquet)
    if parquet is not None and query is None:
        raise UsageError("--parquet takes one query; give it.")
    if not re.fullmatch(r"[1-9][0-9]{0,6}\s*(MB|GB|TB|MiB|GiB|TiB)", memory):
        raise UsageError(f"--memory {memory!a} is no size; give 500MB, or 4GB.")
    timeout_s = length_ms(timeout) / 1000
    if timeout_s <= 0:
        raise UsageError("--timeout must be longer than nothing.")
    if tz is not None:
        read_zone(tz)
    path = _mirror(url, mirror, as_it_is=as_it_is)
    with Session(path, memory=memory, zone=tz or "UTC") as session:
        if query is not None:
            _show(session, query, timeout_s, as_json=as_json, as_csv=as_csv, parquet=parquet)
            return 0
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 - lines are edited; they are written nowhere
            say(_HELP)
        code = 0
        for asked in _asked(is_terminal):
            try:
                _show(session, asked, timeout_s, as_json=as_json, as_csv=as_csv, parquet=None)
            except BadQuery as error:
                report_error(error)
                code = error.exit_code
            except KeyboardInterrupt:
                session.cancel()
                say("cancelled")
        return 0 if is_terminal else code


def _mirror(url: str | None, path: Path | None, *, as_it_is: bool) -> Path:
    """Bring the mirror up to date, and say up to when it is."""
    from queries.output import say
    from queries.times import iso
    from store.engine import open_reader, parse_url
    from store.mirror import mirror_path, mirrored_at, refresh

    place = parse_url(url)
    path = path or mirror_path(place)
    if as_it_is:
        known_at = mirrored_at(path)
        if known_at is None:
            raise UsageError(f"There is no mirror at {path} yet; leave out --as-it-is, and it is built.")
    else:
        with open_reader(place) as store:
            known_at = refresh(store, path, say=say).known_at
    say(f"known at {iso(known_at)}" if known_at >= 0 else "nothing was learned yet")
    return path


def _asked(is_terminal: bool) -> Iterator[str]:
    """Read queries, each up to a line that ends with a semicolon."""
    lines: list[str] = []
    while True:
        try:
            line = input(("thingline> " if not lines else "      ...> ") if is_terminal else "")
        except EOFError:
            if is_terminal:
                click.echo()
            elif any(line.strip() for line in lines):
                yield "\n".join(lines)
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            click.echo()
            lines.clear()
            continue
        if not lines and line.strip() in (".exit", ".quit"):
            return
        if not lines and line.strip() == ".help":
            click.echo(_HELP)
            continue
        if lines or line.strip():
            lines.append(line)
        if line.rstrip().endswith(";"):
            yield "\n".join(lines)
            lines.clear()


def _show(
    session: Session, query: str, timeout_s: float, *, as_json: bool, as_csv: bool, parquet: Path | None
) -> None:
    from queries.tables import csv_lines

    result = session.ask(query, timeout_s=timeout_s)
    if as_json:
        for line in _objects(result):
            click.echo(line)
    elif as_csv:
        rows = (dict(zip(result.columns, map(_flat, row), strict=True)) for row in result.rows)
        for line in csv_lines(result.columns, rows):
            click.echo(line)
    elif parquet is not None:
        _write_parquet(parquet, result)
    else:
        for line in _table(result):
            click.echo(line)


def _objects(result: Result) -> Iterator[str]:
    for row in result.rows:
        yield json.dumps(dict(zip(result.columns, row, strict=True)), ensure_ascii=False)


def _flat(value: Any) -> Any:
    """Give a value that fits into a cell."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _table(result: Result) -> Iterable[str]:
    from queries.output import safe, say
    from queries.tables import table_lines

    if result.columns == ["explain_key", "explain_value"]:
        for _, drawn in result.rows:
            yield from map(safe, drawn.splitlines())
        return
    rows = list(islice(result.rows, SHOWN))
    cells = [[_cell(value) for value in row] for row in rows]
    yield from table_lines(result.columns, cells, left=len(result.columns))
    if next(result.rows, None) is not None:
        say(f"The first {SHOWN:,} rows; --csv, --json and --parquet give all.")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(_flat(value))


# What Parquet, or reading JSON, has no such type for goes as text; sums of whole numbers stay whole.
_OTHERWISE = {"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)"}
_AS_TEXT = re.compile(r"ENUM|BLOB|INTERVAL|BIT|TIME WITH TIME ZONE|\"?NULL\"?|UNION|VARIANT|GEOMETRY")


def _write_parquet(path: Path, result: Result) -> None:
    from store import columnar

    types = {
        name: "VARCHAR" if _AS_TEXT.match(kind) else _OTHERWISE.get(kind, kind)
        for name, kind in zip(result.columns, result.types, strict=True)
    }
    try:
        columnar.write_parquet(path, types, _objects(result))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


COMMANDS = (sql,)
