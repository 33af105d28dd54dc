"""The commands that look after a store: db check, db backup, db purge, forget."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from ingest.commands import existing
from store.care import care_of
from store.clock import system_clock
from store.engine import Store, masked, open_reader, open_writer, parse_url
from store.errors import BadTime, StoreBusy, StoreUnreachable, UsageError
from store.options import described, json_option, realm_option, store_option


def _iso(at_ms: int) -> str | None:
    """Write an instant as ISO 8601 in UTC; None where there is none yet."""
    if at_ms < 0:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
        said = {"store": masked(place), "path": str(path), "rows": done.rows, "knownAt": _iso(done.known_at)}
        click.echo(json.dumps(said))
    else:
        known = _iso(done.known_at)
        click.echo(
            f"{masked(place)} -> {path}: {done.rows:,} rows, "
            + ("nothing was learned yet" if known is None else f"known at {known}")
        )
    return 0


@click.command(
    "purge",
    **described(
        "Delete the history before an instant, the horizon. No answer about an instant from there on changes, as"
        " known at any moment from there on: of each client the evidence is kept that such an answer may need."
        " Questions before it, on either clock, are refused from then on (IndexNotReady), and evidence from before it"
        " goes to quarantine. It cannot be undone: make a backup first. Others may write meanwhile; a purge that was"
        " killed goes on when it is run again.",
        "thingline db purge --before 2025-11-01T00:00:00Z --dry-run",
        "thingline db purge --before 2025-11-01T00:00:00Z",
    ),
)
@click.option(
    "--before", required=True, metavar="TIME", help="The horizon: ISO 8601 with a zone, or epoch s or ms."
)
@click.option(
    "--known-before",
    metavar="TIME",
    help="Refuse questions as known before then, too; default: the horizon. A later moment deletes more of what was"
    " learned after its time, as from an old recording.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@store_option
@json_option
def purge(before: str, known_before: str | None, dry_run: bool, url: str | None, as_json: bool) -> int:
    import json

    from ingest.purge import purge as purge_store

    horizon_ms = _past_ms(before, "--before")
    known_ms = None if known_before is None else _past_ms(known_before, "--known-before")
    shown = _Progress("clients", 100)
    with open_writer(existing(url)) as store:
        try:
            done = purge_store(
                store, horizon_ms, known_horizon_ms=known_ms, dry_run=dry_run, progress=shown.update
            )
        finally:
            shown.end()
    if as_json:
        horizons = {"horizon": _iso(done.horizon_ms), "knownHorizon": _iso(done.known_horizon_ms)}
        click.echo(json.dumps({**horizons, **done.counts()}))
    else:
        click.echo(
            f"{'would delete' if dry_run else 'deleted'} {done.evidence:,} events, {done.checks:,} checks (and"
            f" {done.repeated:,} that repeated them), {done.transitions:,} transitions of {done.clients:,} clients;"
            f" {done.observations:,} other checks; {done.quarantined:,} in quarantine; {done.annotations:,} annotations"
        )
    if done.waiting:
        click.echo(f"{done.waiting:,} clients were being written to; run it again", err=True)
    return 0


def _past_ms(text: str, option: str) -> int:
    """Read an instant that has passed, as epoch ms. Raises BadTime."""
    from ingest.stamps import stamp_ms

    at_ms = system_clock() if text == "now" else stamp_ms(text)
    if at_ms is None:
        raise BadTime(f"{option} {text!r} is not a time; give ISO 8601 with a zone, or epoch s or ms.")
    if at_ms > system_clock():
        raise BadTime(f"{option} {text!r} lies in the future; what is still to come cannot be purged.")
    return at_ms


@click.command(
    "forget",
    **described(
        "Take the names, addresses and principals of THING out of the store, and of the clients that spoke for it"
        " alone. What it adds to totals stays, under a random name that leads nowhere. On SQLite the file is written"
        " anew, so that no free page holds a name. It cannot be undone. Backups, exports and files beside the store"
        " are yours to delete. What the device sends later begins anew under its real name, and so does a recording"
        " that is ingested again. With --author, THING is the author of annotations whose name is taken out of them.",
        "thingline forget pump-17",
        "thingline forget --client 'plant/7/pump:17' --yes",
        "thingline forget --author 'Ada Lovelace'",
    ),
)
@click.argument("thing")
@click.option("--client", "by_client", is_flag=True, help="THING is a client id.")
@click.option(
    "--author", "by_author", is_flag=True, help="THING is an author of annotations, in every realm."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@realm_option
@json_option
def forget(
    thing: str, by_client: bool, by_author: bool, yes: bool, url: str | None, realm: str, as_json: bool
) -> int:
    import json

    from ingest.forget import forget as forget_device
    from ingest.forget import forget_author
    from store.mirror import drop_mirror

    if by_client and by_author:
        raise UsageError("Give --client or --author.")
    place = existing(url)
    if not yes:
        click.confirm(f"Forget {thing!r} in {masked(place)}? It cannot be undone.", abort=True, err=True)
    with open_writer(place) as store:
        before = _times_forgotten(store)
        try:
            if by_author:
                done = forget_author(store, thing)
            else:
                done = forget_device(store, thing, realm=realm, by_client=by_client)
        except StoreUnreachable as error:
            if not store.is_sqlite or _times_forgotten(store) == before:
                raise
            drop_mirror(place)
            raise StoreUnreachable(
                f"It is forgotten, but the file could not be written anew ({error.__cause__}), and its free pages may"
                " still hold the names. It takes the room of the store once more, on its disk and among temporary"
                " files; make room, and run this again."
            ) from error
    drop_mirror(place)
    if as_json:
        click.echo(json.dumps(done.as_json()))
    else:
        click.echo(
            f"{done.names:,} names forgotten; rewritten: {done.evidence:,} events, {done.checks:,} checks,"
            f" {done.observations:,} observations, {done.quarantined:,} in quarantine, {done.texts:,} texts,"
            f" {done.annotations:,} annotations"
        )
    if not done.names and not by_author:
        click.echo(
            f"No thing or client of realm {realm!r} is called {thing!r}; what was refused for that name was looked for"
            " as well.",
            err=True,
        )
    if not done.scrubbed:
        raise StoreBusy(
            "It is forgotten, but a reader keeps old pages of the file; end it, and run this again."
        )
    return 0


def _times_forgotten(store: Store) -> int:
    with store.detached() as driver:
        return care_of(driver.execute).forgotten


LOOKING_AFTER = (check, backup, purge)  # commands of the group `db`
COMMANDS = (forget,)
