"""The command that tells why a report changed: report diff."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from queries.receipts import (
    OF_ALL,
    OF_WINDOW,
    SETTINGS,
    Asked,
    Receipt,
    report_options,
    window_options,
    window_words,
)
from store.errors import ResourceNotFound, UsageError
from store.options import described

if TYPE_CHECKING:
    from queries.history import History
    from queries.revision import Change, Revised
    from queries.uptime import Policy, Span, Thing

_MOST = 1 << 20  # bytes of a receipt
_TYPES = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "fleet": "BOOLEAN",
    "policy": "VARCHAR",
    "figure": "VARCHAR",
    "before": "VARCHAR",
    "after": "VARCHAR",
    "learned": "VARCHAR[]",
    "knownBefore": "TIMESTAMPTZ",
    **OF_WINDOW,
    **OF_ALL,
}


@click.group("report", help="Look into reports.")
def report() -> None:
    pass


@report.command(
    "diff",
    **described(
        "Tell why a report of `uptime` says something else than it did: of each thing whose figures changed between two"
        " moments of learning, A and B, what changed, and the evidence behind it that was learned in between: events,"
        " API checks, annotations, registry events, and the transitions that they made or disproved. A and B are times,"
        " or files that `uptime --json` printed; a file for A says the window, policies and things too, where they are"
        " not given. docs/reports.md.",
        "thingline report diff 2026-11-02T00:00Z now --from 2026-10-01T00:00Z --to 2026-11-01T00:00Z",
        "thingline report diff -7d now --month 2026-10 --tz Europe/Berlin --policy 'lenient: grace=5m'",
        "thingline report diff october.json now --json",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("a")
@click.argument("b")
@click.argument("things", nargs=-1, metavar="[THING]...")
@window_options
@click.option(
    "--policy", "policies", multiple=True, metavar="'NAME: SETTINGS'", help=f"{SETTINGS}; may be repeated."
)
@report_options
def report_diff(
    asked: Asked,
    a: str,
    b: str,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    policies: tuple[str, ...],
) -> int:
    from queries.policies import read_policies
    from queries.revision import revisions
    from queries.times import iso
    from queries.uptime_report import Report

    saved = _saved(a)
    if saved is not None:
        a = saved.known_at
        asked = asked if asked.tz is not None else replace(asked, tz=saved.tz)
        things, policies = things or saved.things, policies or saved.policies
        if not (from_ or to or month_):
            from_, to = saved.window
    b_saved = _saved(b)
    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        since = history.milliseconds(a)
        until = min(asked.moment(history), history.known_at(b if b_saved is None else b_saved.known_at))
        if since >= until:
            raise UsageError("Nothing was learned between A and B; A must be the earlier moment of learning.")
        named = read_policies(policies or ("plain",), asked.zone, window)
        figures = Report(window=window, policies=named)
        names = sorted(dict.fromkeys(things)) or None
        said = {"knownBefore": iso(since), "policies": {each.name: each.said for each in named}}
        receipt = asked.receipt(
            "report diff",
            said,
            known_at=until,
            words=(iso(since), iso(until), *things),
            window=window,
            options=[("--policy", each) for each in policies],
        )
        with asked.open() as before, asked.open() as after:
            counted = [each.policy for each in named]
            changed = list(
                revisions(
                    figures,
                    _told(before, names, window, counted, since),
                    _told(after, names, window, counted, until),
                )
            )
        if names is not None and not changed:
            for name in names:
                list(
                    history.uptime(window, [], names=[name], known_at=until)
                )  # raises where it was never heard of
        rows = list(_rows(history, changed, window, since, until))
    asked.hand_over(
        receipt,
        _TYPES,
        rows=rows,
        table=_cells(rows, iso(since)),
        words=_words(receipt, rows),
    )
    return 0


class _Saved:
    """A report of `uptime` that was saved: as known when, and what it was about."""

    def __init__(self, said: dict[str, Any]) -> None:
        from queries.uptime_command import uptime

        words = shlex.split(said["again"])
        given = uptime.make_context("uptime", words[2:]).params
        self.known_at: str = said["knownAt"]
        self.window: tuple[str, str] = said["from"], said["to"]
        self.things: tuple[str, ...] = given["things"]
        self.policies: tuple[str, ...] = given["policies"]
        self.tz: str | None = given["tz"]


def _saved(text: str) -> _Saved | None:
    """Read the receipt of a saved report; None where the text names no file. Raises UsageError."""
    path = Path(text)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            said = json.loads(file.readline(_MOST))
        if said["report"] == "uptime":
            return _Saved(said)
    except (OSError, ValueError, KeyError, TypeError, click.ClickException):
        pass
    raise UsageError(f"{text!a} holds no report of `thingline uptime --json`.")


def _told(
    history: History, names: Sequence[str] | None, window: Span, policies: Sequence[Policy], known_at: int
) -> Iterator[Thing]:
    """Go through the things that were known at a moment, by name; of those that are named, if any are."""
    if names is None:
        yield from history.uptime(window, policies, known_at=known_at)
        return
    for name in names:
        with suppress(ResourceNotFound):
            yield from history.uptime(window, policies, names=[name], known_at=known_at)


# --- Forms --------------------------------------------------------------------------------------------------


def _rows(
    history: History, changed: Sequence[Revised], window: Span, since: int, until: int
) -> Iterator[dict[str, Any]]:
    """Give an object a thing that changed, with what was learned of it; and one of the fleet, which comes last."""
    from queries.times import iso

    things = [each for each in changed if not each.fleet]
    names = ((each.name, each.thing_name is None) for each in things)
    for each, learned in zip(things, history.learned(names, window, since, until), strict=True):
        yield {
            "thingName": each.thing_name,
            "clientId": each.client_id,
            "changed": [_change_json(one) for one in each.changes],
            **_learned_json(learned),
        }
    watched = history.watched(window, since, until)
    for each in changed:
        if each.fleet:
            yield {
                "fleet": True,
                "things": len(things),
                "changed": [_change_json(one) for one in each.changes],
                "watched": [{"from": iso(from_ms), "to": iso(to_ms)} for from_ms, to_ms in watched],
            }


def _change_json(one: Change) -> dict[str, Any]:
    return {"policy": one.policy, "figure": one.figure, "before": one.before, "after": one.after}


def _learned_json(learned: Any) -> dict[str, Any]:
    from queries.output import check_json, evidence_json, seen_json
    from queries.times import iso
    from store.annotations import annotation_json

    return {
        "evidence": [evidence_json(one) for one in learned.evidence],
        "checks": [check_json(one) for one in learned.checks],
        "registry": [{"at": iso(one.at_ms), "kind": one.kind, "body": one.body} for one in learned.registry],
        "annotations": [annotation_json(one, iso) for one in learned.annotations],
        "recorded": [seen_json(one) for one in learned.recorded],
        "superseded": [seen_json(one) for one in learned.superseded],
    }


def _behind(row: dict[str, Any]) -> list[str]:
    """Say in a line each what is behind a thing's changes."""
    lines = [
        f"event {one['eventType']} of {one['timestamp']}"
        f"{' ' + one['disconnectReason'] if one['disconnectReason'] else ''}, known {one['knownAt']},"
        f" from {one['source']}"
        for one in row["evidence"]
    ]
    states = {True: "connected", False: "disconnected", None: "unknown"}
    lines += [
        f"API asked {one['askedAt']}: {states[one['connected']]} since {one['timestamp'] or '-'},"
        f" known {one['knownAt']}, from {one['source']}"
        for one in row["checks"]
    ]
    lines += [f"registry {one['kind']} of {one['at']}: {_told_of(one['body'])}" for one in row["registry"]]
    lines += [
        f"annotation {one['annotation']} {'withdrawn' if one['withdrawn'] else 'made'}: {one['kind']}"
        f" {one['from']} .. {one['to']}{' by ' + one['author'] if one['author'] else ''}, known {one['recordedAt']}"
        for one in row["annotations"]
    ]
    for verb, moment in (("recorded", "recordedAt"), ("superseded", "supersededAt")):
        lines += [
            f"transition {verb}: {states[one['connected']]} from {one['at']} by rule '{one['rule']}',"
            f" known {one[moment]}"
            for one in row[verb]
        ]
    if all(one["after"] is None for one in row["changed"]):
        lines.append("in the report no more: its client speaks for a thing of another name since")
    return lines or [
        "nothing of its own: answers that were repeated, who was recording, where history begins, or time that passed"
    ]


def _told_of(body: str) -> str:
    with suppress(ValueError):
        said = json.loads(body)
        if isinstance(said, dict):
            words = (said.get(name) for name in ("eventType", "api", "operation"))
            return " ".join(str(word) for word in words if word)
    return "?"


def _cells(rows: Iterable[dict[str, Any]], since: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        fleet = "fleet" in row
        learned = _recorded(row) if fleet else _behind(row)
        head = {"thingName": row.get("thingName"), "clientId": row.get("clientId"), "fleet": fleet}
        for one in row["changed"]:
            figures = {name: None if one[name] is None else str(one[name]) for name in ("before", "after")}
            yield {**head, **one, **figures, "learned": learned, "knownBefore": since}


def _recorded(row: dict[str, Any]) -> list[str]:
    return [f"recording {one['from']} .. {one['to']}" for one in row["watched"]]


def _words(receipt: Receipt, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    from queries.output import safe
    from queries.tables import table_lines

    things = sum("fleet" not in row for row in rows)
    yield f"{window_words(receipt)}, and before at {receipt.said['knownBefore']}: {things:,} things changed"
    for row in rows:
        fleet = "fleet" in row
        yield ""
        yield "all things" if fleet else safe(row["thingName"] or row["clientId"])
        cells = (
            [
                f"  {one['policy']}",
                one["figure"],
                _figure(one["figure"], one["before"]),
                "->",
                _figure(one["figure"], one["after"]),
            ]
            for one in row["changed"]
        )
        yield from list(table_lines(["", "", "", "", ""], cells, left=2))[1:]
        yield from (f"  {safe(line)}" for line in (_recorded(row) if fleet else _behind(row)))
    yield ""


def _figure(name: str, value: Any) -> str:
    """Write a figure as the table of `uptime` does; lengths with what seconds hide."""
    from queries.times import duration

    if value is None:
        return "-"
    if name.endswith("Ms"):
        return f"{duration(value)} ({value:,} ms)" if value else "0"
    return f"{100 * value:.4f} %" if name.lower().endswith(("availability", "low", "high")) else f"{value:,}"


COMMANDS = (report,)
