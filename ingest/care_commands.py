"""The commands that look after a store: db check, db backup."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from store.engine import masked, open_reader, parse_url
from store.options import described, json_option, store_option


class _Progress:
    """How far long work has come, on a terminal only."""

    def __init__(self, what: str, step: int) -> None:
        self._what, self._step = what, step
        self._shown = sys.stderr.isatty()

    def update(self, done: int, total: int) -> None:
        if self._shown and (done % self._step == 0 or done == total):
            click.echo(f"\r{done:,} of {total:,} {self._what}\x1b[K", nl=False, err=True)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


@click.command(
    "check",
    **described(
        "Look for faults in a store: derive every client again from its evidence and compare; find rows that"
        " contradict each other, numbers that name nothing, a watermark that hides evidence, a schema that is not"
        " the revision's, and (SQLite) damage to the file. Writes nothing, and may run beside a writer. Says of"
        " each fault how to mend it, and ends with 1 where there is one.",
        "thingline db check",
        "thingline db check --json",
    ),
)
@store_option
@json_option
def check(url: str | None, as_json: bool) -> int:
    import json

    from ingest.check import faults

    place = parse_url(url)
    shown = _Progress("clients", 100)
    found = 0
    with open_reader(place) as store:
        for fault in faults(store, shown.update):
            found += 1
            shown.end()
            if as_json:
                click.echo(json.dumps(fault.as_json()))
            else:
                whose = "the store" if fault.client_id is None else f"{fault.client_id!r} ({fault.realm})"
                times = f" ({fault.times:,} times; the first)" if fault.times > 1 else ""
                click.echo(f"{fault.kind}: {whose}{times}: {fault.detail}; to mend it: {fault.mend}")
    shown.end()
    if not as_json:
        click.echo(f"{masked(place)}: " + (f"{found:,} faults" if found else "no fault"))
    return 1 if found else 0


@click.command(
    "backup",
    **described(
        "Copy a store to the new file PATH while others write to it: one consistent state, compared with the original"
        " before it gets its name. The copy is a store: name it with --store, or put it where the store was."
        " A store on PostgreSQL is copied into a SQLite store that gives the same answers; for a running server"
        " pg_dump does the same in PostgreSQL's own form.",
        "thingline db backup /backups/2026-11-01.db",
        "thingline db backup --store postgresql://db/thingline copy.db",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@store_option
@json_option
def backup(path: Path, url: str | None, as_json: bool) -> int:
    import json

    from store.backup import back_up

    place = parse_url(url)
    with open_reader(place) as store:
        shown = _Progress("pages" if store.is_sqlite else "rows", 1)
        try:
            done = back_up(store, path, shown.update)
        finally:
            shown.end()
    if as_json:
        said = {"store": masked(place), "path": str(path), "rows": done.rows, "knownAt": done.known_at}
        click.echo(json.dumps(said))
    else:
        click.echo(f"{masked(place)} -> {path}: {done.rows:,} rows, known at {done.known_at}")
    return 0


LOOKING_AFTER = (check, backup)  # commands of the group `db`
