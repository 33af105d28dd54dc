"""How a report is asked for and handed over: the options of every report, its receipt, and its forms.

A report is a receipt: it says what it is about, as known when, and the command that prints the same again, whatever is
learned later. NDJSON begins with it, CSV and Parquet hold it in each row, and the table ends with how to have it again.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import tzinfo
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from queries.commands import known_at_option, note_cut, tz_option
from store.clock import system_clock
from store.errors import BadTime, UsageError
from store.model import DEFAULT_REALM
from store.options import json_option, realm_option, store_option

if TYPE_CHECKING:
    from queries.history import History
    from queries.uptime import Span

Row = Mapping[str, Any]

# What --policy takes: queries/policies.py.
SETTINGS = (
    "How time counts: grace=5m, coalesce=1m, unknown=connected or disconnected, hours='Mon-Fri 08:00-18:00',"
    " maintenance=exclude, false-alarms=connected"
)
OF_WINDOW = {"windowFrom": "TIMESTAMPTZ", "windowTo": "TIMESTAMPTZ"}
OF_ALL = {"knownAt": "TIMESTAMPTZ", "version": "VARCHAR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a report is about. `said` is the rest of it, in the words of JSON; `again` is a command line."""

    report: str
    said: Row
    known_at: int
    version: str
    again: str

    def as_json(self) -> dict[str, Any]:
        """Give the first line of `--json`."""
        from queries.times import iso

        head = {"report": self.report, "knownAt": iso(self.known_at)}
        return {**head, **self.said, "version": self.version, "again": self.again}

    def in_row(self) -> dict[str, Any]:
        """Give what of it stands in each row of CSV and Parquet; a row may have a `from` and a `to` of its own."""
        said = self.as_json()
        window = {"windowFrom": said.get("from"), "windowTo": said.get("to")}
        return {**window, "knownAt": said["knownAt"], "version": self.version}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every report is asked with: of which store, as known when, in which zone and in which form."""

    known_at: str | None
    tz: str | None
    realm: str
    url: str | None
    as_json: bool
    as_csv: bool
    parquet: Path | None

    def open(self) -> History:
        """Open the store."""
        from queries.history import open_history

        return open_history(self.url, realm=self.realm, tz=self.tz)

    def everywhere(self, history: History) -> Iterator[tuple[str, History]]:
        """Open the store once for each of its realms, one after another, by name."""
        for realm in history.realms():
            with replace(self, realm=realm).open() as each:
                yield realm, each

    @property
    def zone(self) -> tzinfo | None:
        """The zone that was given. Raises BadTime."""
        from queries.times import read_zone

        return None if self.tz is None else read_zone(self.tz)

    def moment(self, history: History) -> int:
        """Give the moment of learning that the report is as known at; says so where it had to be cut."""
        wanted = None if self.known_at is None else history.milliseconds(self.known_at)
        known_at = history.known_at(wanted)
        note_cut(wanted, known_at)
        return known_at

    def window(self, history: History, from_: str | None, to: str | None, month_: str | None) -> Span:
        """Read the window of `window_options`, cut to now; says so where it had to be cut. Raises BadTime."""
        from queries.output import say
        from queries.times import iso

        window = self._window(history, from_, to, month_)
        if window[1] <= window[0]:
            raise BadTime("The window ends before it begins; give the earlier time first.")
        now_ms = system_clock()
        if window[0] >= now_ms:
            raise BadTime("The window lies in the future; nothing is known of it.")
        if window[1] > now_ms:
            window = window[0], now_ms
            say(f"to: cut to {iso(now_ms)}, for nothing is known of what is to come")
        return window

    def _window(self, history: History, from_: str | None, to: str | None, month_: str | None) -> Span:
        from queries.calendars import month

        if month_ is None:
            return history.milliseconds(from_ or "-7d"), history.milliseconds(to or "now")
        if from_ or to:
            raise UsageError("Give --month, or --from and --to.")
        zone = self.zone
        if zone is None:
            raise BadTime("A month is one of a zone: give --tz Europe/Berlin (or UTC), or set THINGLINE_TZ.")
        return month(month_, zone)

    def receipt(
        self,
        report: str,
        said: Row,
        *,
        known_at: int,
        words: Sequence[str] = (),
        window: Span | None = None,
        options: Sequence[tuple[str, str | None]] = (),
        flags: Sequence[str] = (),
    ) -> Receipt:
        """Write the receipt. `words` are the arguments, `options` those of the report; None: not given."""
        from queries.times import iso

        told = [] if window is None else [("--from", iso(window[0])), ("--to", iso(window[1]))]
        told.append(("--known-at", iso(known_at)))
        told += [(option, value) for option, value in options if value is not None]
        told += [] if self.tz is None else [("--tz", self.tz)]
        told += [] if self.realm == DEFAULT_REALM else [("--realm", self.realm)]
        named = ["thingline", *report.split()]
        given = [*flags, *(word for pair in told for word in pair)]
        # What begins with a dash would be taken for an option.
        hidden = any(word.startswith("-") for word in words)
        command = [*named, *given, "--", *words] if hidden else [*named, *words, *given]
        about = said if window is None else {"from": iso(window[0]), "to": iso(window[1]), **said}
        return Receipt(
            report=report, said=about, known_at=known_at, version=version(), again=shlex.join(command)
        )

    def hand_over(
        self,
        receipt: Receipt,
        types: Mapping[str, str],
        *,
        rows: Iterable[Row],
        table: Iterable[Row],
        words: Iterable[str],
    ) -> None:
        """Print the report, or write its file: `rows` of NDJSON, `table` of CSV and Parquet, `words` for people.

        Only one of them is gone through. The receipt is added to each: to a row of the table as `in_row` gives it.
        """
        from queries.output import json_line, safe
        from queries.tables import csv_lines, write_parquet

        if self.as_json:
            rows = _begun(rows)
            click.echo(json_line(receipt.as_json()))
            for row in rows:
                click.echo(json_line(row))
        elif self.as_csv or self.parquet is not None:
            told = receipt.in_row()
            begun = _begun(table)
            whole = ({**told, **row} for row in begun)
            if self.parquet is not None:
                write_parquet(self.parquet, types, whole)
            else:
                for line in csv_lines(list(types), whole):
                    click.echo(line)
        else:
            for line in words:
                click.echo(line)
            click.echo(f"again: {safe(receipt.again)}")


def _begun(rows: Iterable[Row]) -> Iterator[Row]:
    """Begin to go through rows, so that a question that is refused prints nothing."""
    going = iter(rows)
    first = list(islice(going, 1))
    return chain(first, going)


def window_words(receipt: Receipt) -> str:
    """Begin a report for people: its window, and as known when."""
    told = receipt.as_json()
    return f"{told['from']} .. {told['to']}, known at {told['knownAt']}"


def version() -> str:
    """Give the version of thingline that is installed."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        return metadata.version("thingline")
    return "unknown"


_REPORT_OPTIONS = (
    known_at_option,
    tz_option,
    realm_option,
    store_option,
    json_option,
    click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, the receipt in each row."),
    click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file."),
)
_WINDOW_OPTIONS = (
    click.option("--from", "from_", metavar="TIME", help="From then on; default: seven days ago."),
    click.option("--to", metavar="TIME", help="... and before then; default: now."),
    click.option("--month", "month_", metavar="YYYY-MM", help="A calendar month of --tz instead."),
)

things_argument = click.argument("things", nargs=-1, metavar="[THING]...")


def check_one_form(*, as_json: bool, as_csv: bool, parquet: Path | None) -> None:
    """Refuse two forms at once. Raises UsageError."""
    if as_json + as_csv + (parquet is not None) > 1:
        raise UsageError("Give one of --json, --csv and --parquet.")


def report_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of every report, which it takes as one value, `asked`."""

    @functools.wraps(command)
    def run(
        *,
        known_at: str | None,
        tz: str | None,
        realm: str,
        url: str | None,
        as_json: bool,
        as_csv: bool,
        parquet: Path | None,
        **rest: Any,
    ) -> int:
        check_one_form(as_json=as_json, as_csv=as_csv, parquet=parquet)
        asked = Asked(
            known_at=known_at,
            tz=tz,
            realm=realm,
            url=url,
            as_json=as_json,
            as_csv=as_csv,
            parquet=parquet,
        )
        return command(asked=asked, **rest)

    return _with(run, _REPORT_OPTIONS)


def window_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say a window: `from_`, `to`, `month_`."""
    return _with(command, _WINDOW_OPTIONS)


def _with(command: Callable[..., int], options: Sequence[Callable[..., Any]]) -> Callable[..., int]:
    for option in reversed(options):
        command = option(command)
    return command
