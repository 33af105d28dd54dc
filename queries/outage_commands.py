"""The commands about outages: outages, flapping."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from queries.receipts import (
    OF_ALL,
    OF_WINDOW,
    SETTINGS,
    Asked,
    Receipt,
    report_options,
    things_argument,
    window_options,
    window_words,
)
from store.errors import BadTime, UsageError
from store.options import described

if TYPE_CHECKING:
    from queries.flapping import Flapping, Rule
    from queries.uptime import Outage, Thing
    from store.annotations import Annotation

# The columns of CSV and Parquet, and their types.
_OUTAGES = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "from": "TIMESTAMPTZ",
    "notBefore": "TIMESTAMPTZ",
    "notAfter": "TIMESTAMPTZ",
    "to": "TIMESTAMPTZ",
    "downMs": "BIGINT",
    "reason": "VARCHAR",
    "beginSeen": "BOOLEAN",
    "endSeen": "BOOLEAN",
    "observed": "BOOLEAN",
    "tickets": "VARCHAR[]",
    "annotated": "VARCHAR[]",
    **OF_WINDOW,
    "policy": "VARCHAR",
    "policySettings": "VARCHAR",
    **OF_ALL,
}
_FLAPPING = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "outages": "BIGINT",
    "mostWithin": "BIGINT",
    "episodes": "BIGINT",
    "from": "TIMESTAMPTZ",
    "to": "TIMESTAMPTZ",
    "downMs": "BIGINT",
    "reasons": "VARCHAR[]",
    "askedFor": "BIGINT",
    **OF_WINDOW,
    "rule": "VARCHAR",
    **OF_ALL,
}


@click.command(
    "outages",
    **described(
        "List the outages of things in a window by time, as `uptime` counts them: when each began and ended, for what"
        " reason, and how long it counts. The beginning has bounds; whether it and the end were seen in the window is"
        " said, for an outage may be cut by the window, by unknown time, or go on. docs/reports.md.",
        "thingline outages --from -24h",
        "thingline outages --month 2026-10 --tz Europe/Berlin --longest 20",
        "thingline outages pump-17 --from -30d --policy 'lenient: grace=5m coalesce=1m' --csv",
    ),
)
@things_argument
@window_options
@click.option(
    "--policy",
    metavar="'NAME: SETTINGS'",
    help=f"{SETTINGS}. Default: nothing of it.",
)
@click.option(
    "--longest", type=click.IntRange(min=1), metavar="N", help="Only the N that count longest, these first."
)
@report_options
def outages(
    asked: Asked,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    policy: str | None,
    longest: int | None,
) -> int:
    from queries.policies import read_policy

    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        named = read_policy(policy or "plain", asked.zone, window)
        known_at = asked.moment(history)
        receipt = asked.receipt(
            "outages",
            {"policies": {named.name: named.said}, "longest": longest},
            known_at=known_at,
            words=things,
            window=window,
            options=[("--policy", policy), ("--longest", None if longest is None else str(longest))],
        )
        told = history.uptime(
            window, [named.policy], names=list(dict.fromkeys(things)) or None, known_at=known_at
        )
        found = _found(told, longest)
        policies = {"policy": named.name, "policySettings": named.said}
        asked.hand_over(
            receipt,
            _OUTAGES,
            rows=(_outage_row(*each) for each in found),
            table=({**_outage_cells(*each), **policies} for each in found),
            words=_outage_words(receipt, found),
        )
    return 0


_Found = tuple[
    str | None, str, "Outage", Sequence["Annotation"]
]  # thing, client, what, and what is said of it


def _found(things: Iterable[Thing], longest: int | None) -> list[_Found]:
    """List outages by time, or the longest, these first. Memory: all of them, or as many as are asked for."""
    from store.annotations import touching

    every = (
        (each.thing_name, each.client_id, outage, touching(each.said, outage.from_ms, outage.to_ms))
        for each in things
        for outage in each.reckoned[0].outages
    )
    if longest is not None:
        return heapq.nsmallest(longest, every, key=lambda one: (-one[2].down_ms, one[2].from_ms, one[1]))
    return sorted(every, key=lambda one: (one[2].from_ms, one[1]))


def _outage_row(
    thing_name: str | None, client_id: str, outage: Outage, said: Sequence[Annotation]
) -> dict[str, Any]:
    from queries.times import iso
    from store.annotations import annotation_json
    from store.certainty import bounds_of

    low_ms, high_ms = (None, None) if outage.began is None else bounds_of(outage.began)
    return {
        "thingName": thing_name,
        "clientId": client_id,
        "from": iso(outage.from_ms),
        "notBefore": None if low_ms is None else iso(low_ms),
        "notAfter": None if high_ms is None else iso(high_ms),
        "to": iso(outage.to_ms),
        "downMs": outage.down_ms,
        "reason": outage.reason,
        "beginSeen": outage.begins,
        "endSeen": outage.ends,
        "observed": outage.observed,
        "annotations": [annotation_json(each, iso) for each in said],
    }


def _outage_cells(
    thing_name: str | None, client_id: str, outage: Outage, said: Sequence[Annotation]
) -> dict[str, Any]:
    """Put what is said of an outage into cells of a table."""
    tickets = list(dict.fromkeys(each.ticket for each in said if each.ticket is not None))
    annotated = list(dict.fromkeys(each.kind.value for each in said))
    return {**_outage_row(thing_name, client_id, outage, said), "tickets": tickets, "annotated": annotated}


def _outage_words(receipt: Receipt, found: Sequence[_Found]) -> Iterator[str]:
    from queries.output import safe
    from queries.tables import table_lines
    from queries.times import duration

    policies = ", ".join(
        f"{name} ({said})" if said else name for name, said in receipt.said["policies"].items()
    )
    down = duration(sum(outage.down_ms for _, _, outage, _ in found))
    listed = f"{len(found):,} outages" + (", the longest" if receipt.said["longest"] else "")
    yield f"{window_words(receipt)}; policy {safe(policies)}: {listed}, {down}"
    headings = ["thing", "from", "to", "down", "reason", "observed", "began between"]
    annotated = any(said for *_, said in found)
    headings += ["annotated"] if annotated else []

    def cells(
        thing_name: str | None, client_id: str, outage: Outage, said: Sequence[Annotation]
    ) -> list[str]:
        row = _outage_cells(thing_name, client_id, outage, said)
        begins = row["from"] if outage.begins else f"before {row['from']}"
        ends = row["to"] if outage.ends else "goes on" if row["to"] == iso_to else f"after {row['to']}"
        bounds = {row["notBefore"], row["notAfter"]} - {row["from"], None}
        between = f"{row['notBefore'] or '-'} .. {row['notAfter'] or '-'}" if bounds else ""
        observed = "yes" if outage.observed else "no"
        reason = outage.reason or "UNKNOWN"
        told = [thing_name or client_id, begins, ends, duration(outage.down_ms), reason, observed, between]
        return told + ([" ".join([*row["annotated"], *row["tickets"]])] if annotated else [])

    iso_to = receipt.said["to"]
    yield from table_lines(headings, (cells(*each) for each in found), left=len(headings))


@click.command(
    "flapping",
    **described(
        "List the things that flap, the worst first. The rule: at least N outages, each shorter than S and seen from"
        " beginning to end, that begin within W of one another (--outages N, --shorter S, --within W). Outages that the"
        " client asked for (CLIENT_INITIATED_DISCONNECT) do not count: devices that sleep do not flap. Takeovers are no"
        " outages; `takeovers` lists them. docs/reports.md.",
        "thingline flapping --from -24h",
        "thingline flapping --from -7d --outages 10 --shorter 1m --within 30m",
        "thingline flapping --month 2026-10 --tz UTC --csv",
    ),
)
@things_argument
@window_options
@click.option(
    "--outages", "least", type=int, default=5, show_default=True, metavar="N", help="So many outages,"
)
@click.option("--shorter", default="5m", show_default=True, metavar="LENGTH", help="each shorter than that,")
@click.option("--within", default="1h", show_default=True, metavar="LENGTH", help="begin within that time.")
@report_options
def flapping(
    asked: Asked,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    least: int,
    shorter: str,
    within: str,
) -> int:
    from queries.flapping import flapping as flapping_of
    from queries.uptime import Policy

    rule = _rule(least, shorter, within)
    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        known_at = asked.moment(history)
        said = {"outages": rule.outages, "shorterMs": rule.shorter_ms, "withinMs": rule.within_ms}
        receipt = asked.receipt(
            "flapping",
            {"rule": {**said, "words": _said(least, shorter, within)}},
            known_at=known_at,
            words=things,
            window=window,
            options=[("--outages", str(least)), ("--shorter", shorter), ("--within", within)],
        )
        found: list[dict[str, Any]] = []
        count = 0
        names = list(dict.fromkeys(things)) or None
        for thing in history.uptime(window, [Policy()], names=names, known_at=known_at):
            count += 1
            flaps = flapping_of(thing.reckoned[0].outages, rule)
            if flaps is not None:
                found.append(_flapping_row(thing, flaps))
        found.sort(key=lambda row: (-row["outages"], row["clientId"]))
        asked.hand_over(
            receipt,
            _FLAPPING,
            rows=found,
            table=({**_flat(row), "rule": _said(least, shorter, within)} for row in found),
            words=_flapping_words(receipt, found, count),
        )
    return 0


def _rule(least: int, shorter: str, within: str) -> Rule:
    from queries.flapping import Rule
    from queries.times import length_ms

    lengths = []
    for option, text in (("--shorter", shorter), ("--within", within)):
        try:
            lengths.append(length_ms(text))
        except BadTime as error:
            raise UsageError(f"{option}: {error}") from error
    return Rule(outages=least, shorter_ms=lengths[0], within_ms=lengths[1])


def _said(least: int, shorter: str, within: str) -> str:
    return (
        f"{least} outages shorter than {shorter} within {within}, those not counted that the client asked for"
    )


def _flapping_row(thing: Thing, flaps: Flapping) -> dict[str, Any]:
    from queries.times import iso

    return {
        "thingName": thing.thing_name,
        "clientId": thing.client_id,
        "outages": flaps.outages,
        "mostWithin": flaps.most,
        "episodes": [{"from": iso(from_ms), "to": iso(to_ms)} for from_ms, to_ms in flaps.episodes],
        "downMs": flaps.down_ms,
        "reasons": flaps.reasons,
        "askedFor": flaps.asked_for,
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Put a thing's episodes and reasons into cells of a table."""
    episodes = row["episodes"]
    span = {"episodes": len(episodes), "from": episodes[0]["from"], "to": episodes[-1]["to"]}
    return {**row, **span, "reasons": list(row["reasons"])}


def _flapping_words(receipt: Receipt, found: Sequence[dict[str, Any]], count: int) -> Iterator[str]:
    from queries.tables import table_lines
    from queries.times import duration

    yield f"{window_words(receipt)}: {len(found):,} of {count:,} things flap"
    yield f"rule: {receipt.said['rule']['words']}"
    headings = ["thing", "outages", "most", "episodes", "down", "first", "last", "reasons"]
    yield from table_lines(
        headings,
        (
            [
                row["thingName"] or row["clientId"],
                *(f"{each:,}" for each in (row["outages"], row["mostWithin"], flat["episodes"])),
                duration(row["downMs"]),
                flat["from"],
                flat["to"],
                ", ".join(f"{reason} {times:,}" for reason, times in row["reasons"].items()),
            ]
            for row in found
            for flat in [_flat(row)]
        ),
        left=len(headings),
    )


COMMANDS = (outages, flapping)
