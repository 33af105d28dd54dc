"""The command that tells how long things were connected: uptime."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from queries.commands import known_at_option, tz_option
from store.clock import system_clock
from store.errors import BadTime, UsageError
from store.options import described, json_option, realm_option, store_option

if TYPE_CHECKING:
    from queries.history import History
    from queries.uptime import Span
    from queries.uptime_report import GroupBy, NamedPolicy, Report

# The columns of CSV and Parquet, and their types; the receipt goes into each row, so that none is lost from it.
_TYPES = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "groupBy": "VARCHAR",
    "group": "VARCHAR",
    "fleet": "BOOLEAN",
    "things": "BIGINT",
    "policy": "VARCHAR",
    "connectedMs": "BIGINT",
    "disconnectedMs": "BIGINT",
    "unknownMs": "BIGINT",
    "excludedMs": "BIGINT",
    "notRegisteredMs": "BIGINT",
    "availability": "DOUBLE",
    "availabilityLow": "DOUBLE",
    "availabilityHigh": "DOUBLE",
    "meanAvailability": "DOUBLE",
    "outages": "BIGINT",
    "outagesEnded": "BIGINT",
    "longestOutageMs": "BIGINT",
    "mtbfMs": "BIGINT",
    "mttrMs": "BIGINT",
    "reconnects": "BIGINT",
    "takeovers": "BIGINT",
    "target": "DOUBLE",
    "verdict": "VARCHAR",
    "budgetMs": "BIGINT",
    "budgetLeftMs": "BIGINT",
    "unsureMs": "BIGINT",
    "from": "TIMESTAMPTZ",
    "to": "TIMESTAMPTZ",
    "knownAt": "TIMESTAMPTZ",
    "policySettings": "VARCHAR",
    "version": "VARCHAR",
}


@click.command(
    "uptime",
    **described(
        "Tell how long things were connected, disconnected, unknown, excluded and not registered in a window, to the"
        " millisecond: the parts add up to the window. Availability is connected / (connected + disconnected), with the"
        " least and the most that it can have been, for what is unknown or inferred counts against it in the one and"
        " for it in the other. An outage that goes on counts; a thing that was connected all through is up for all of"
        " it. The report says for what it holds, and asked again with its --known-at it is the same. docs/uptime.md.",
        "thingline uptime --month 2026-10 --tz Europe/Berlin",
        "thingline uptime pump-17 --from -7d --slo 99.9",
        "thingline uptime --month 2026-10 --tz UTC --group-by type --csv",
        "thingline uptime --from -30d --policy plain --policy 'lenient: grace=5m coalesce=1m'",
        "thingline uptime --from -30d --policy 'office: hours=\"Mon-Fri 08:00-18:00\"' --tz Europe/Berlin",
    ),
)
@click.argument("things", nargs=-1, metavar="[THING]...")
@click.option("--from", "from_", metavar="TIME", help="From then on; default: seven days ago.")
@click.option("--to", metavar="TIME", help="... and before then; default: now.")
@click.option("--month", "month_", metavar="YYYY-MM", help="A calendar month of --tz instead.")
@click.option(
    "--group-by",
    metavar="KEY",
    help="Sums by type, group, reason or attribute:NAME, as things were then, in place of a row a thing.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="'NAME: SETTINGS'",
    help="How time counts: grace=5m, coalesce=1m, unknown=connected or disconnected, hours='Mon-Fri 08:00-18:00';"
    " may be repeated. Default: nothing of it.",
)
@click.option("--slo", metavar="PERCENT", help="A target of availability: met, missed, or cannot be told.")
@known_at_option
@tz_option
@realm_option
@store_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, the receipt in each row.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file.")
def uptime(
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    group_by: str | None,
    policies: tuple[str, ...],
    slo: str | None,
    known_at: str | None,
    tz: str | None,
    realm: str,
    url: str | None,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
) -> int:
    from queries.history import open_history
    from queries.output import json_line, say
    from queries.tables import csv_lines, write_parquet
    from queries.times import iso, read_zone
    from queries.uptime_report import Report

    if as_json + as_csv + (parquet is not None) > 1:
        raise UsageError("Give one of --json, --csv and --parquet.")
    zone = None if tz is None else read_zone(tz)
    with open_history(url, realm=realm, tz=tz) as history:
        window = _window(history, from_, to, month_, zone)
        now_ms = system_clock()
        if window[0] >= now_ms:
            raise BadTime("The window lies in the future; nothing is known of it.")
        if window[1] > now_ms:
            window = window[0], now_ms
            say(f"to: cut to {iso(now_ms)}, for nothing is known of what is to come")
        report = Report(
            window=window,
            known_at=history.known_at(known_at),
            policies=_policies(policies or ("plain",), zone, window),
            group_by=_group_by(group_by),
            target=_target(slo),
            each_thing=group_by is None,
        )
        again = _again(things, report, group_by, policies, slo, tz)
        told = history.uptime(
            window,
            [each.policy for each in report.policies],
            names=list(dict.fromkeys(things)) or None,
            known_at=report.known_at,
            described=group_by is not None,
        )
        receipt = report.receipt(_version(), again)
        if as_json:
            click.echo(json_line(receipt))
            for row in report.rows(told):
                click.echo(json_line(row))
        elif as_csv or parquet is not None:
            rows = (_flat(row, receipt) for row in report.rows(told))
            if parquet is not None:
                write_parquet(parquet, _TYPES, rows)
            else:
                for line in csv_lines(list(_TYPES), rows):
                    click.echo(line)
        else:
            for line in _words(receipt, report, report.rows(told)):
                click.echo(line)
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return version("thingline")
    return "unknown"


def _window(
    history: History, from_: str | None, to: str | None, month_: str | None, zone: tzinfo | None
) -> Span:
    from queries.calendars import month

    if month_ is None:
        return history.milliseconds(from_ or "-7d"), history.milliseconds(to or "now")
    if from_ or to:
        raise UsageError("Give --month, or --from and --to.")
    if zone is None:
        raise BadTime("A month is one of a zone: give --tz Europe/Berlin (or UTC), or set THINGLINE_TZ.")
    return month(month_, zone)


def _target(text: str | None) -> float | None:
    if text is None:
        return None
    with suppress(ValueError):
        target = float(text.removesuffix("%")) / 100
        if 0 < target < 1:
            return target
    raise UsageError(f"--slo {text!a} is no target; give a percentage below 100, as 99.9.")


def _group_by(text: str | None) -> GroupBy | None:
    from queries.uptime_report import GroupBy

    if text is None:
        return None
    kind, _, name = text.partition(":")
    if kind in ("type", "group", "reason") and not name:
        return GroupBy(kind)
    if kind == "attribute" and name:
        return GroupBy(kind, name)
    raise UsageError(f"--group-by {text!a}: give type, group, reason or attribute:NAME.")


def _policies(said: Sequence[str], zone: tzinfo | None, window: Span) -> list[NamedPolicy]:
    found = [_policy(text, zone, window) for text in said]
    if len({each.name for each in found}) < len(found):
        raise UsageError("Two policies have one name; give each its own.")
    return found


def _policy(text: str, zone: tzinfo | None, window: Span) -> NamedPolicy:
    """Read `NAME: grace=5m coalesce=1m unknown=disconnected hours='Mon-Fri 08:00-18:00'`. Raises UsageError."""
    from queries.calendars import outside_hours
    from queries.times import length_ms
    from queries.uptime import Policy, UnknownAs
    from queries.uptime_report import NamedPolicy

    name, _, settings = (part.strip() for part in text.partition(":"))
    given: dict[str, Any] = {}
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise UsageError(f"--policy {text!a}: {error}.") from error
    for word in words:
        key, _, value = word.partition("=")
        try:
            if key in ("grace", "coalesce"):
                given[f"{key}_ms"] = length_ms(value)
            elif key == "unknown":
                given["unknown"] = UnknownAs(value)
            elif key == "hours":
                if zone is None:
                    raise BadTime("service hours are those of a zone: give --tz Europe/Berlin, or UTC")
                given["excluded"] = outside_hours(value, zone, window)
            else:
                raise BadTime(f"{key!a} is no setting; give grace, coalesce, unknown or hours")
        except (ValueError, BadTime) as error:
            raise UsageError(f"--policy {text!a}: {str(error).rstrip('.')}.") from error
    if not name:
        raise UsageError(f"--policy {text!a} has no name; give 'NAME: SETTINGS'.")
    return NamedPolicy(name, " ".join(words), Policy(**given))


def _again(
    things: Sequence[str],
    report: Report,
    group_by: str | None,
    policies: Sequence[str],
    slo: str | None,
    tz: str | None,
) -> str:
    """Give the command that prints the same."""
    from queries.times import iso

    words = ["thingline", "uptime", *things, "--from", iso(report.window[0]), "--to", iso(report.window[1])]
    words += ["--known-at", iso(report.known_at)]
    for option, value in (("--group-by", group_by), ("--slo", slo), ("--tz", tz)):
        words += [] if value is None else [option, value]
    for policy in policies:
        words += ["--policy", policy]
    return shlex.join(words)


def _flat(row: dict[str, Any], receipt: dict[str, Any]) -> dict[str, Any]:
    told = {name: receipt[name] for name in ("from", "to", "knownAt", "version")}
    return {**row, **told, "policySettings": receipt["policies"][row["policy"]]}


# --- For people ---------------------------------------------------------------------------------------------


def _words(receipt: dict[str, Any], report: Report, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from queries.output import safe
    from queries.tables import table_lines

    policies = ", ".join(f"{name} ({said})" if said else name for name, said in receipt["policies"].items())
    yield f"{receipt['from']} .. {receipt['to']}, known at {receipt['knownAt']}; policy {safe(policies)}"
    several, slo = len(report.policies) > 1, report.target is not None
    headings = ["", *(["policy"] if several else []), "available", "at least", "at most", "connected"]
    headings += ["disconnected", "unknown", "excluded", "not reg.", "outages", "longest", "MTTR"]
    headings += ["SLO"] if slo else []
    told = list(rows)
    yield from table_lines(
        headings, (_cells(row, several=several, slo=slo) for row in told), left=2 if several else 1
    )
    for row in told:
        if "explainedBy" in row and row["disconnectedMs"]:
            yield _explained(row, several=several)
    yield f"again: {safe(receipt['again'])}"


def _cells(row: dict[str, Any], *, several: bool, slo: bool) -> list[str]:
    if row.get("fleet"):
        name = f"all {row['things']:,} things"
    elif "groupBy" in row:
        name = f"{row['groupBy']} {row['group'] or '(none)'}"
    else:
        name = row["thingName"] or row["clientId"]
    cells = [name, *([row["policy"]] if several else [])]
    cells += [_percent(row.get(key)) for key in ("availability", "availabilityLow", "availabilityHigh")]
    lengths = ("connectedMs", "disconnectedMs", "unknownMs", "excludedMs", "notRegisteredMs")
    cells += [_length(row.get(key)) for key in lengths]
    cells += ["" if row.get("outages") is None else f"{row['outages']:,}"]
    cells += [_length(row.get("longestOutageMs")), _length(row.get("mttrMs"))]
    return cells + ([row.get("verdict", "")] if slo else [])


def _percent(share: float | None) -> str:
    """Write a share so that nothing is rounded up to 100 % or down to 0 % that is not."""
    if share is None:
        return "-"
    shown = f"{100 * share:.4f}"
    if share < 1 and shown == "100.0000":
        return "<100 %"
    return ">0 %" if share > 0 and shown == "0.0000" else f"{shown} %"


def _length(ms: int | None) -> str:
    from queries.times import duration

    return "-" if not ms else duration(ms)


def _explained(row: dict[str, Any], *, several: bool) -> str:
    from queries.output import safe

    said = row["explainedBy"]
    things, reasons = said["fewestThings"], said["fewestReasons"]
    named = ", ".join(things[:5]) + (f" and {len(things) - 5:,} more" if len(things) > 5 else "")
    policy = f"{row['policy']}: " if several else ""
    outages = f"{said['fewestOutages']:,} of {said['outages']:,} outages"
    return safe(
        f"{policy}{said['share']:.0%} of the time disconnected: {outages}; {named}; {', '.join(reasons)}"
    )


COMMANDS = (uptime,)
