"""The command that tells how long things were connected: uptime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from queries.receipts import (
    SETTINGS,
    Asked,
    Receipt,
    report_options,
    things_argument,
    window_options,
    window_words,
)
from store.errors import ResourceNotFound, UsageError
from store.options import described

if TYPE_CHECKING:
    from queries.history import History
    from queries.uptime import Thing
    from queries.uptime_report import GroupBy, Report

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
        "thingline uptime --month 2026-10 --tz UTC --policy 'contract: maintenance=exclude false-alarms=connected'",
        "thingline uptime --from -30d --policy 'office: hours=\"Mon-Fri 08:00-18:00\"' --tz Europe/Berlin",
    ),
)
@things_argument
@window_options
@click.option(
    "--group-by",
    metavar="KEY",
    help="Sums by type, group, reason or attribute:NAME, as things were then, in place of a row a thing; or by realm:"
    " of all realms of the store, whatever --realm says.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="'NAME: SETTINGS'",
    help=f"{SETTINGS}; may be repeated. Default: nothing of it.",
)
@click.option("--slo", metavar="PERCENT", help="A target of availability: met, missed, or cannot be told.")
@report_options
def uptime(
    asked: Asked,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    group_by: str | None,
    policies: tuple[str, ...],
    slo: str | None,
) -> int:
    from queries.policies import read_policies
    from queries.uptime_report import Report

    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        report = Report(
            window=window,
            policies=read_policies(policies or ("plain",), asked.zone, window),
            group_by=_group_by(group_by),
            target=_target(slo),
            each_thing=group_by is None,
        )
        known_at = asked.moment(history)
        receipt = asked.receipt(
            "uptime",
            report.said(),
            known_at=known_at,
            words=things,
            window=window,
            options=[("--group-by", group_by), ("--slo", slo), *(("--policy", each) for each in policies)],
        )
        names = list(dict.fromkeys(things)) or None
        if report.group_by is not None and report.group_by.kind == "realm":
            told = _of_all_realms(asked, history, report, names, known_at)
        else:
            _note_annotations(history, report, known_at)
            told = history.uptime(
                window,
                [each.policy for each in report.policies],
                names=names,
                known_at=known_at,
                described=group_by is not None,
            )
        asked.hand_over(
            receipt,
            _TYPES,
            rows=report.rows(told),
            table=(_flat(row, receipt) for row in report.rows(told)),
            words=_words(receipt, report, report.rows(told)),
        )
    return 0


def _of_all_realms(
    asked: Asked, history: History, report: Report, names: Sequence[str] | None, known_at: int
) -> Iterator[Thing]:
    """Go through the things of one realm after another. Raises ResourceNotFound for a name that no realm knows."""
    unheard = set(names or ())
    policies = [each.policy for each in report.policies]
    for realm, each in asked.everywhere(history):
        for name in names or (None,):
            with suppress(ResourceNotFound):
                asked_for = None if name is None else [name]
                for thing in each.uptime(report.window, policies, names=asked_for, known_at=known_at):
                    unheard.discard(name or "")
                    yield thing._replace(realm=realm)
    if unheard:
        raise ResourceNotFound(f"The resource {min(unheard)} was never heard of, in no realm.")


def _note_annotations(history: History, report: Report, known_at: int) -> None:
    """Tell the person where something was said of the window that a policy does not count."""
    from queries.output import say
    from store.annotations import Note

    kinds = {each.kind for each in history.annotations(*report.window, known_at=known_at)}
    for policy in report.policies:
        left = (
            [] if policy.policy.without_maintenance else ["maintenance=exclude"] * (Note.MAINTENANCE in kinds)
        )
        if not policy.policy.without_false_alarms and Note.FALSE_ALARM in kinds:
            left.append("false-alarms=connected")
        if left:
            say(
                f"policy {policy.name}: annotations of this window count for nothing; to have them count:"
                f" {' '.join(left)} (`thingline annotate list`)"
            )


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
    if kind in ("type", "group", "reason", "realm") and not name:
        return GroupBy(kind)
    if kind == "attribute" and name:
        return GroupBy(kind, name)
    raise UsageError(f"--group-by {text!a}: give type, group, reason, realm or attribute:NAME.")


def _flat(row: dict[str, Any], receipt: Receipt) -> dict[str, Any]:
    said = receipt.said
    # Not null where it is false: `WHERE NOT fleet` is how a table of things is read.
    row = {"fleet": False, **row}
    return {**row, "from": said["from"], "to": said["to"], "policySettings": said["policies"][row["policy"]]}


# --- For people ---------------------------------------------------------------------------------------------


def _words(receipt: Receipt, report: Report, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from queries.output import safe
    from queries.tables import table_lines

    policies = ", ".join(
        f"{name} ({said})" if said else name for name, said in receipt.said["policies"].items()
    )
    told = list(rows)  # a question that is refused prints nothing
    yield f"{window_words(receipt)}; policy {safe(policies)}"
    several, slo = len(report.policies) > 1, report.target is not None
    headings = ["", *(["policy"] if several else []), "available", "at least", "at most", "connected"]
    headings += ["disconnected", "unknown", "excluded", "not reg.", "outages", "longest", "MTTR"]
    headings += ["SLO"] if slo else []
    yield from table_lines(
        headings, (_cells(row, several=several, slo=slo) for row in told), left=2 if several else 1
    )
    for row in told:
        if "explainedBy" in row and row["disconnectedMs"]:
            yield _explained(row, several=several)


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
