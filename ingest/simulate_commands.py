"""The command that makes up a fleet, and the options by which a fleet is chosen."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO, TypeVar

import click

from ingest.simulate import APIS, Choices, Tally, simulate, truth_lines
from ingest.stamps import stamp_ms
from store.clock import system_clock
from store.errors import BadTime, UsageError
from store.model import MINUTE_MS
from store.options import described, json_option

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULT = Choices()


def _option(flag: str, name: str, help_text: str, metavar: str | None = None, **more: Any) -> Any:
    """Declare the option of one choice, with its default."""
    return click.option(
        flag,
        name,
        metavar=metavar,
        default=getattr(_DEFAULT, name),
        show_default=True,
        help=help_text,
        **more,
    )


_CHOICES = (
    _option("--things", "things", "Size of the fleet.", "N"),
    _option("--days", "days", "Length of the run.", "DAYS"),
    _option("--seed", "seed", "Equal seeds and choices give equal bytes.", "N"),
    click.option("--start", metavar="TIME", help="When the run begins.  [default: 2025-01-06T00:00:00Z]"),
    _option("--loss", "loss", "Share of events that never arrive.", "SHARE"),
    _option("--duplicates", "duplicates", "Share of arriving events that arrive twice.", "SHARE"),
    _option("--late", "late", "Share of arriving events that are late.", "SHARE"),
    _option("--reorder", "reorder_minutes", "How late they are at most.", "MINUTES"),
    _option("--skew", "skew_ms", "Each stamp is wrong by up to this, either way.", "MS"),
    _option("--gaps", "gaps", "Stretches in which no event arrives and nothing watches.", "N"),
    _option("--gap-length", "gap_minutes", "How long each is.", "MINUTES"),
    _option(
        "--check-every", "check_minutes", "From one sweep of API checks to the next; 0: none.", "MINUTES"
    ),
    _option("--check-failures", "check_failures", "Share of API calls that are throttled.", "SHARE"),
    _option("--api", "api", "The call that checks.", type=click.Choice(APIS)),
    _option(
        "--whole-seconds", "whole_seconds", "GetThingConnectivityData names whole seconds.", is_flag=True
    ),
    _option("--lag", "lag_ms", "The API is up to this far behind.", "MS"),
    _option("--outages", "outages", "Times that a part of the fleet is lost at once.", "N"),
    _option("--outage-share", "outage_share", "The part that each takes down.", "SHARE"),
)


def choice_options(command: _Command) -> _Command:
    """Give a command the options of `Choices`; `choices_of` reads them."""
    for option in reversed(_CHOICES):
        command = option(command)
    return command


def choices_of(*, start: str | None, **chosen: Any) -> Choices:
    """Make the choices of the options' values. Raises UsageError for a run that cannot be, or not yet."""
    if start is not None:
        start_ms = stamp_ms(start)
        if start_ms is None:
            raise BadTime(f"{start!r} is no time; give ISO 8601 with a zone, or epoch ms or s.")
        chosen["start_ms"] = start_ms
    choices = Choices(**chosen)
    if choices.to_ms + int(2 * choices.reorder_minutes * MINUTE_MS) >= system_clock():
        raise UsageError(
            "The run would end in the future, where nothing is evidence; let it --start earlier."
        )
    return choices


@click.command(
    "simulate",
    **described(
        "Make up a fleet with known truth and write what a consumer would have received of it to OUT, as a"
        " recording for `thingline ingest` (.gz: compressed; - is standard output). Some devices are stable,"
        " others mobile, sleepy or flapping, two share a client id, some never connect; parts of the fleet are"
        " lost at once and come back in a storm. --truth writes what the API would have answered, a line a"
        " change, times in epoch ms.",
        "thingline simulate fleet.ndjson.gz --truth truth.ndjson",
        "thingline simulate --things 1000 --days 30 --loss 0.05 --seed 7 fleet.ndjson.gz",
        "thingline simulate --gaps 2 --gap-length 90 - | thingline ingest --store fleet.db -",
    ),
)
@click.argument("out", metavar="OUT")
@click.option("--truth", "truth_out", metavar="FILE", help="Write the truth there (.gz: compressed).")
@choice_options
@json_option
def simulate_command(out: str, truth_out: str | None, as_json: bool, **chosen: Any) -> int:
    if truth_out == "-" or (truth_out is not None and truth_out == out):
        raise UsageError("The truth goes to a file of its own.")
    simulated = simulate(choices_of(**chosen))
    shown = sys.stderr.isatty()

    def progress(done: float) -> None:
        if shown:
            click.echo(f"\r{done:.0%}\x1b[K", nl=False, err=True)

    with _writing(out) as sink:
        for line in simulated.lines(progress):
            sink.write(line)
    answers = 0
    if truth_out is not None:
        with _writing(truth_out) as sink:
            for line in truth_lines(simulated):
                sink.write(line)
                answers += 1
        answers -= 1  # its header
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    _report(simulated.tally, answers, as_json=as_json, to_stderr=out == "-")
    return 0


def _report(tally: Tally, answers: int, *, as_json: bool, to_stderr: bool) -> None:
    """Say what was written: to standard error, or as JSON where data goes that is not the recording."""
    if as_json:
        import json

        counts = asdict(tally)
        counts["failedChecks"] = counts.pop("failed_checks")
        click.echo(json.dumps({**counts, "trueAnswers": answers}), err=to_stderr)
        return
    click.echo(
        f"{tally.lines:,} lines: {tally.published:,} events published, {tally.lost:,} of them lost,"
        f" {tally.duplicates:,} duplicates, {tally.checks:,} checks and {tally.failed_checks:,} that failed"
        + (f"; {answers:,} true answers" if answers else ""),
        err=True,
    )


@contextmanager
def _writing(path: str) -> Iterator[BinaryIO | gzip.GzipFile]:
    """Open what is to be written; equal content gives equal bytes, compressed too. Raises UsageError."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with open(path, "wb") as file:
            if path.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    yield packed
            else:
                yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


COMMANDS = (simulate_command,)
