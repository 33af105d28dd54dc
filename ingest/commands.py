"""The commands that write: ingest, backfill, rebuild, export, quarantine."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy.engine import URL

from ingest.redact_options import (
    key_file_option,
    redact_export_option,
    redact_ingest_option,
    redaction_in,
    redaction_out,
)
from store.clock import system_clock
from store.engine import masked, open_reader, open_writer, parse_url
from store.errors import BadTime, SourceError
from store.options import described, json_option, realm_option, store_option

if TYPE_CHECKING:
    from ingest.counts import Counts
    from ingest.redact import Redaction


@click.command(
    "ingest",
    **described(
        "Take recorded evidence into the store: lifecycle events in any envelope (NDJSON, concatenated"
        " objects, arrays, gzip, SQS, SNS, Lambda, Kinesis), results of GetThingConnectivityData, SearchIndex"
        " and GetConnection as AWS CLI or boto3 gives them, or thingline's own recordings. PATH may be a"
        " folder; - is standard input, and is written as it comes. Doing it again changes nothing. What cannot be"
        " read goes to quarantine. Years of it go in faster by `thingline backfill`.",
        "thingline ingest events.ndjson.gz",
        "thingline ingest firehose/2026/11/",
        "aws s3 cp s3://bucket/key - | thingline ingest -",
        "aws iot get-thing-connectivity-data --thing-name T | thingline ingest --asked-at now -",
        "thingline ingest --redact ip=drop --redact principal=hash --redact-key-file key events.ndjson",
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--asked-at",
    metavar="TIME",
    help="When AWS was asked for results that do not say it themselves: now (the start of this command), ISO 8601 with"
    " a zone, or epoch s or ms."
    " Without it a result counts as asked at the instant that it names, and proves no more than that.",
)
@redact_ingest_option
@key_file_option
@click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,  # a server that is restarted or fails over is back within it
    show_default=True,
    help="How long to wait for a PostgreSQL that goes away while it is written to, and write again; 0: not at all.",
)
@store_option
@realm_option
@json_option
def ingest(
    paths: tuple[str, ...],
    asked_at: str | None,
    redacted: tuple[str, ...],
    key_file: Path | None,
    wait_s: float,
    url: str | None,
    realm: str,
    as_json: bool,
) -> int:
    from ingest.files import named
    from ingest.patience import PatientWriter

    asked_ms = None if asked_at is None else _asked_ms(asked_at)
    redact = redaction_in(redacted, key_file)
    files = named(paths)
    place = parse_url(url)
    shown = _Progress(files)

    def say(text: str) -> None:
        shown.end()
        click.echo(f"thingline: {text}", err=True)

    with (
        open_writer(place) as store,
        PatientWriter(store, realm=realm, wait_s=wait_s, say=say) as writer,
    ):
        total, faults = _take(files, writer, shown, asked_ms, redact)
    shown.end()
    return _told(total, faults, place, as_json=as_json)


def _take(
    files: list[str], writer: Any, shown: _Progress, asked_ms: int | None, redact: Redaction | None
) -> tuple[Counts, list[str]]:
    """Take files in; gives what became of them, and what is wrong with some as a whole."""
    from ingest.counts import Counts
    from ingest.files import ingest_file

    total, faults = Counts(), []
    for path in files:
        counts, fault = ingest_file(
            path, writer, clock=system_clock, progress=shown.update, asked_ms=asked_ms, redact=redact
        )
        shown.done(path)
        total.add(counts)
        if fault is not None:
            faults.append(f"{path if redact is None else redact.source(path)}: {fault}")
    return total, faults


def _told(total: Counts, faults: list[str], place: URL, *, as_json: bool, **more: int) -> int:
    """Print what became of what was taken in. Raises SourceError where something is wrong with a source."""
    if as_json:
        import json

        counts = {name: getattr(total, name) for name in total.__slots__}
        click.echo(json.dumps({"store": masked(place), **counts, **more}))
    else:
        stale = f" ({total.stale:,} stale)" if total.stale else ""
        click.echo(
            f"{total.read:,} records: {total.events:,} events, {total.checks:,} checks{stale}, {total.stored:,} new,"
            f" {total.duplicates:,} duplicates, {total.corrections:,} late corrections, {total.ignored:,} ignored"
            f" (they change no state), {total.quarantined:,} quarantined"
        )
        click.echo(f"store: {masked(place)}", err=True)
    if faults:
        raise SourceError("; ".join(faults))
    return 0


@click.command(
    "backfill",
    **described(
        "Take years of recordings into a store, faster than `ingest` does and with the same result: the evidence"
        " first, then all timelines at once, by all cores. Questions see none of it until it is complete. Run again"
        " after it was cut short, it goes on where it stopped; until then nothing else may be written. From the"
        " first result of an API check on, the rest is taken in as `ingest` does.",
        "thingline backfill firehose/2024/ firehose/2025/",
        "thingline backfill evidence.ndjson.gz --store postgresql://HOST/DB",
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@redact_ingest_option
@key_file_option
@store_option
@realm_option
@json_option
def backfill(
    paths: tuple[str, ...],
    redacted: tuple[str, ...],
    key_file: Path | None,
    url: str | None,
    realm: str,
    as_json: bool,
) -> int:
    from ingest.backfill import Backfill
    from ingest.files import named

    redact = redaction_in(redacted, key_file)
    files = named(paths)
    place = parse_url(url)
    shown = _Progress(files)
    with open_writer(place) as store, Backfill(store, realm=realm, progress=shown.derived) as writer:
        total, faults = _take(files, writer, shown, None, redact)
        shown.again()
        writer.finish()
        total.transitions += writer.derived
        skipped = writer.skipped
    shown.end()
    if skipped:
        click.echo(f"thingline: {skipped:,} records were in from an earlier run", err=True)
    return _told(total, faults, place, as_json=as_json, skipped=skipped)


def _asked_ms(text: str) -> int:
    """Read --asked-at as epoch ms. Raises BadTime for what is no instant, or not one yet."""
    from ingest.stamps import FAR_FUTURE_MS, stamp_ms

    if text == "now":
        return system_clock()
    asked_ms = stamp_ms(text)
    if asked_ms is None:
        raise BadTime(f"--asked-at {text!r} is not a time; give now, ISO 8601 with a zone, or epoch s or ms.")
    if asked_ms > system_clock() + FAR_FUTURE_MS:
        raise BadTime(f"--asked-at {text!r} lies in the future; give the time at which AWS was asked.")
    return asked_ms


class _Progress:
    """What a person sees of long work, on a terminal only."""

    def __init__(self, files: list[str]) -> None:
        sizes = [Path(path).stat().st_size for path in files if path != "-" and Path(path).is_file()]
        self._total = sum(sizes) if len(sizes) == len(files) else 0
        self._before = 0
        self._shown = sys.stderr.isatty()
        self.again()

    def again(self) -> None:
        """Begin another part of the work, as far as the time that it takes is concerned."""
        self._begun_s = time.monotonic()

    def update(self, read: int, counts: Any) -> None:
        self._show(self._before + read, self._total, f"{counts.read:,} records")

    def derived(self, done: int, total: int) -> None:
        """Show how many clients have their timelines."""
        self._show(done, total, f"timelines of {done:,} of {total:,} clients")

    def _show(self, done: int, total: int, what: str) -> None:
        if not self._shown:
            return
        share = left = ""
        if total and done:
            seconds = (time.monotonic() - self._begun_s) * (total - done) / done
            share, left = f"{100 * done // total}% ", f", about {_lasting(seconds)} left"
        click.echo(f"\r{share}{what}{left}\x1b[K", nl=False, err=True)

    def done(self, path: str) -> None:
        if path != "-" and Path(path).is_file():
            self._before += Path(path).stat().st_size

    def end(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def _lasting(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def existing(url: str | None) -> URL:
    """Read a store's URL, and make sure that there is one: only `ingest` makes it. Raises StoreMissing."""
    place = parse_url(url)
    open_reader(place).close()
    return place


@click.command(
    "rebuild",
    **described(
        "Derive every session and transition again from the evidence, superseded rows included, and say what"
        " differed. On a sound store nothing does.",
        "thingline rebuild",
    ),
)
@store_option
@json_option
def rebuild(url: str | None, as_json: bool) -> int:
    from ingest.rebuild import rebuild_store

    with open_writer(existing(url)) as store:
        report = rebuild_store(store)
    if as_json:
        import json

        click.echo(json.dumps(report.as_json()))
    else:
        click.echo(
            f"{report.clients:,} clients, {report.transitions:,} transitions derived again;"
            f" {len(report.differing):,} clients differed"
        )
        for client_id in report.differing[:20]:
            click.echo(f"  {client_id!r} was mended")
    return 0


@click.group("export", help="Write what the store holds in a form that `thingline ingest` takes back.")
def export() -> None:
    pass


@click.command(
    "evidence",
    **described(
        "Write all evidence as a recording, in the order in which it was learned; `thingline ingest` restores"
        " it, moments of learning included.",
        "thingline export evidence > evidence.ndjson",
        "thingline export evidence | thingline ingest --store copy.db -",
        "thingline export evidence --redact number > for-the-vendor.ndjson",
    ),
)
@redact_export_option
@key_file_option
@store_option
def export_evidence(redacted: tuple[str, ...], key_file: Path | None, url: str | None) -> int:
    from ingest.export import recording

    redaction_of = redaction_out(redacted, key_file)
    left_out = Counter[str]()
    out = sys.stdout.buffer
    with open_reader(parse_url(url)) as store:
        for line in recording(store, redaction_of, lambda why: left_out.update([why])):
            out.write(line)
    out.flush()
    for why, count in left_out.items():
        click.echo(f"left out, for {why}: {count:,} records", err=True)
    return 0


@click.group("quarantine", help="What could not be read, kept with its reason, source and position.")
def quarantine() -> None:
    pass


@click.command("list", **described("List what is in quarantine.", "thingline quarantine list --json"))
@store_option
@json_option
def quarantine_list(url: str | None, as_json: bool) -> int:
    import json

    from ingest.quarantine import listed

    with open_reader(parse_url(url)) as store:
        found = listed(store)
        for one in found:
            if as_json:
                click.echo(json.dumps(one))
            else:
                click.echo(
                    f"{one['id']:>6}  {one['reason']:<20}  {one['length']:>9,} B  at {one['position']}"
                    f" of {one['source']!r}  {one['detail']}" + ("  (replayed)" if one["replayedAt"] else "")
                )
    if not found:
        click.echo("the quarantine is empty", err=True)
    return 0


@click.command("show", **described("Print the first 64 KiB of one.", "thingline quarantine show 1"))
@click.argument("number", type=int)
@store_option
def quarantine_show(number: int, url: str | None) -> int:
    from ingest.quarantine import head_of

    with open_reader(parse_url(url)) as store:
        sys.stdout.buffer.write(head_of(store, number))
    return 0


@click.command(
    "replay",
    **described(
        "Try again what is in quarantine, after an upgrade that reads it. Only what is kept whole (64 KiB"
        " at most) can be tried; what is read leaves the quarantine.",
        "thingline quarantine replay",
    ),
)
@redact_ingest_option
@key_file_option
@store_option
@realm_option
def quarantine_replay(redacted: tuple[str, ...], key_file: Path | None, url: str | None, realm: str) -> int:
    from ingest.quarantine import replay
    from ingest.writer import Writer

    redact = redaction_in(redacted, key_file)
    with open_writer(existing(url)) as store, Writer(store, realm=realm) as writer:
        tried, read, counts = replay(store, writer, clock=system_clock, redact=redact)
    click.echo(f"{tried:,} tried, {read:,} read, {counts.stored:,} new pieces of evidence")
    return 0


export.add_command(export_evidence)
for _command in (quarantine_list, quarantine_show, quarantine_replay):
    quarantine.add_command(_command)

COMMANDS = (ingest, backfill, rebuild, export, quarantine)
