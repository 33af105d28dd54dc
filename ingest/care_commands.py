"""The commands that look after a store and need what follows from evidence: db check."""

from __future__ import annotations

import sys

import click

from store.engine import masked, open_reader, parse_url
from store.options import described, json_option, store_option


class _Progress:
    """How far long work has come, on a terminal only."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def update(self, done: int, total: int) -> None:
        if self._shown and (done % 100 == 0 or done == total):
            click.echo(f"\r{done:,} of {total:,} clients\x1b[K", nl=False, err=True)

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
    shown = _Progress()
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


LOOKING_AFTER = (check,)  # commands of the group `db`
