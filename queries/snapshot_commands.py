"""The commands about the fleet at an instant, and between two: snapshot, diff."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from queries.receipts import OF_ALL, Asked, Receipt, report_options
from store.options import described

if TYPE_CHECKING:
    from queries.difference import Difference
    from queries.standing import Standing
    from queries.uptime import ThingTime

# The columns of CSV and Parquet, and their types.
_SNAPSHOT = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "state": "VARCHAR",
    "connected": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "disconnectReason": "VARCHAR",
    "certainty": "VARCHAR",
    "notBefore": "TIMESTAMPTZ",
    "notAfter": "TIMESTAMPTZ",
    "lastKnownConnected": "BOOLEAN",
    "lastKnownTimestamp": "TIMESTAMPTZ",
    "lastKnownDisconnectReason": "VARCHAR",
    "thingTypeName": "VARCHAR",
    "thingGroupNames": "VARCHAR[]",
    "realm": "VARCHAR",
    "at": "TIMESTAMPTZ",
    **OF_ALL,
}
_DIFF = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "change": "VARCHAR",
    "before": "VARCHAR",
    "after": "VARCHAR",
    "firstAt": "TIMESTAMPTZ",
    "at": "TIMESTAMPTZ",
    "changes": "BIGINT",
    "downMs": "BIGINT",
    "reasonBefore": "VARCHAR",
    "reasonAfter": "VARCHAR",
    "reasons": "VARCHAR[]",
    "earlier": "TIMESTAMPTZ",
    "later": "TIMESTAMPTZ",
    **OF_ALL,
}


@click.command(
    "snapshot",
    **described(
        "Answer for every thing at TIME, as `at` does, and count them by state, by reason of the disconnect, and by"
        " type and group as they were registered then. Things that were not registered then, or not heard of yet, are"
        " counted but not listed. The table lists what is not connected first; NDJSON is a receipt, a line a thing by"
        " name, then the counts. docs/reports.md.",
        "thingline snapshot 2026-11-01T03:12:00Z",
        "thingline snapshot 'yesterday 03:12' --tz Europe/Berlin --csv",
        "thingline snapshot now --known-at -1h --json",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("time")
@click.option(
    "--group-by",
    type=click.Choice(["realm"]),
    help="The things of all realms of the store, whatever --realm says, each with its realm; counted by realm as well.",
)
@report_options
def snapshot(asked: Asked, time: str, group_by: str | None) -> int:
    from queries.output import last_known_json
    from queries.standing import Counts, standing_row
    from queries.times import iso

    with asked.open() as history:
        at_ms = history.milliseconds(time)
        known_at = asked.moment(history)
        receipt = asked.receipt(
            "snapshot",
            {"at": iso(at_ms)},
            known_at=known_at,
            words=[iso(at_ms)],
            options=[("--group-by", group_by)],
        )
        counts = Counts()

        def everyone() -> Iterator[Standing]:
            if group_by is None:
                yield from history.snapshot(at_ms, known_at=known_at)
                return
            for realm, each in asked.everywhere(history):
                yield from (one._replace(realm=realm) for one in each.snapshot(at_ms, known_at=known_at))

        def standing() -> Iterator[Standing]:
            for one in everyone():
                counts.add(one, at_ms)
                if one.answer is not None:
                    yield one

        def rows() -> Iterator[dict[str, Any]]:
            for one in standing():
                row = standing_row(one, at_ms)
                flat = [name for name in row if name.startswith("lastKnown")]
                assert one.answer is not None
                last = one.answer.last_known
                nested = {} if last is None else {"lastKnown": last_known_json(last)}
                yield {**{name: value for name, value in row.items() if name not in flat}, **nested}
            yield from counts.rows()

        def words() -> Iterator[str]:
            listed = [standing_row(one, at_ms) for one in standing()]
            yield from _snapshot_words(receipt, listed, list(counts.rows()), at_ms)

        asked.hand_over(
            receipt,
            _SNAPSHOT,
            rows=rows(),
            table=({**standing_row(one, at_ms), "at": iso(at_ms)} for one in standing()),
            words=words(),
        )
    return 0


def _snapshot_words(
    receipt: Receipt, listed: Sequence[dict[str, Any]], counts: Sequence[dict[str, Any]], at_ms: int
) -> Iterator[str]:
    from queries.tables import table_lines
    from queries.times import duration, parse_time

    said = receipt.as_json()
    yield f"{said['at']}, known at {said['knownAt']}: {_counted(counts, 'state')}"
    if any(row["countBy"] == "reason" for row in counts):
        yield f"disconnected by reason: {_counted(counts, 'reason')}"
    for name in ("realm", "type", "group"):
        told = [row for row in counts if row["countBy"] == name]
        if any(row["key"] is not None for row in told):
            yield from table_lines(
                [name, "things", "connected", "disconnected", "unknown"],
                (
                    [_key(row["key"]), *(f"{row[part]:,}" for part in ("things", *_STATES[:3]))]
                    for row in told
                ),
            )
    order = ("disconnected", "unknown", "connected")
    ordered = sorted(listed, key=lambda row: order.index(row["state"]))
    headings = ["thing", "state", "since", "for", "reason", "certainty", "type", "groups"]

    def cells(row: dict[str, Any]) -> list[str]:
        since = row["timestamp"]
        lasts = "" if since is None else duration(at_ms - parse_time(since, now_ms=0, tz=None))
        reason = row["disconnectReason"] if row["connected"] is False else None
        groups = ", ".join(row["thingGroupNames"])
        name = (row["realm"] + ": " if "realm" in row else "") + (row["thingName"] or row["clientId"])
        state, certainty = row["state"], row["certainty"]
        if row["lastKnownConnected"] is not None:
            certainty = f"last known {'connected' if row['lastKnownConnected'] else 'disconnected'}"
        return [name, state, since or "", lasts, reason or "", certainty, row["thingTypeName"] or "", groups]

    yield from table_lines(headings, map(cells, ordered), left=len(headings))


_STATES = ("connected", "disconnected", "unknown", "notRegistered")


def _key(key: str | None) -> str:
    return "(none)" if key is None else key


def _counted(counts: Iterable[dict[str, Any]], name: str) -> str:
    from queries.output import safe

    return ", ".join(
        f"{row['things']:,} {_SAID.get(row['key'], row['key'])}"
        for row in ({**row, "key": safe(_key(row["key"]))} for row in counts if row["countBy"] == name)
    )


_SAID = {
    "notRegistered": "not registered",
    "wentDown": "went down",
    "cameUp": "came up",
    "reasonChanged": "for another reason",
    "becameUnknown": "became unknown",
    "becameKnown": "became known",
}


@click.command(
    "diff",
    **described(
        "Tell what differs between the fleet at T1 and at T2: what went down, came up, flapped (the same state at both,"
        " and another between), is new, was deleted, was deleted and made anew, is down for another reason, or became"
        " unknown or known; with the instants and the reasons. The counts come first; what does not differ is only"
        " counted. docs/reports.md.",
        "thingline diff 2026-11-01T02:00:00Z 2026-11-01T03:00:00Z",
        "thingline diff -1h now",
        "thingline diff 'yesterday 22:00' 'today 06:00' --tz Europe/Berlin --csv",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("t1")
@click.argument("t2")
@report_options
def diff(asked: Asked, t1: str, t2: str) -> int:
    from queries.difference import Change
    from queries.times import iso

    with asked.open() as history:
        earlier_ms, later_ms = asked.window(history, t1, t2, None)
        known_at = asked.moment(history)
        history.check_begun(earlier_ms, known_at=known_at)
        earlier, later = iso(earlier_ms), iso(later_ms)
        receipt = asked.receipt(
            "diff", {"earlier": earlier, "later": later}, known_at=known_at, words=[earlier, later]
        )
        found: dict[Change, list[dict[str, Any]]] = {change: [] for change in Change}
        counts: Counter[str] = Counter()
        for thing in history.stretches((earlier_ms, later_ms + 1), known_at=known_at):
            _sort(thing, found, counts)
        counted = [
            {"countBy": "change", "key": key, "things": counts[key]}
            for key in (*Change, "unchanged", "absent")
        ]
        listed = [row for rows in found.values() for row in sorted(rows, key=_by_time)]
        asked.hand_over(
            receipt,
            _DIFF,
            rows=(row for rows in (counted, listed) for row in rows),
            table=({**row, "earlier": earlier, "later": later} for row in listed),
            words=_diff_words(receipt, listed, counted),
        )
    return 0


def _sort(thing: ThingTime, found: dict[Any, list[dict[str, Any]]], counts: Counter[str]) -> None:
    """Put a thing where it belongs."""
    from queries.difference import difference
    from queries.uptime import Counted

    differs = difference(thing.stretches)
    if differs is None:
        absent = thing.stretches[-1].counted is Counted.NOT_REGISTERED
        counts["absent" if absent else "unchanged"] += 1
    else:
        counts[differs.change] += 1
        found[differs.change].append(_difference_row(thing, differs))


def _difference_row(thing: ThingTime, differs: Difference) -> dict[str, Any]:
    from queries.times import iso

    return {
        "thingName": thing.thing_name,
        "clientId": thing.client_id,
        "change": differs.change.value,
        "before": differs.before.value,
        "after": differs.after.value,
        "firstAt": iso(differs.first_ms),
        "at": iso(differs.at_ms),
        "changes": differs.changes,
        "downMs": differs.down_ms,
        "reasonBefore": differs.reason_before,
        "reasonAfter": differs.reason_after,
        "reasons": list(differs.reasons),
    }


def _by_time(row: dict[str, Any]) -> tuple[str, str]:
    return row["at"], row["clientId"]


def _diff_words(
    receipt: Receipt, listed: Sequence[dict[str, Any]], counts: Iterable[dict[str, Any]]
) -> Iterator[str]:
    from queries.tables import table_lines
    from queries.times import duration

    said = receipt.as_json()
    told = [row for row in counts if row["things"] or row["key"] == "unchanged"]
    yield f"{said['earlier']} .. {said['later']}, known at {said['knownAt']}: {_counted(told, 'change')}"
    headings = ["thing", "change", "at", "down", "changes", "reasons"]
    yield from table_lines(
        headings,
        (
            [
                row["thingName"] or row["clientId"],
                _SAID.get(row["change"], row["change"]),
                row["at"],
                duration(row["downMs"]) if row["downMs"] else "-",
                f"{row['changes']:,}",
                _reasons(row),
            ]
            for row in listed
        ),
        left=len(headings),
    )


def _reasons(row: dict[str, Any]) -> str:
    if row["change"] == "reasonChanged":
        return f"{row['reasonBefore'] or 'UNKNOWN'} -> {row['reasonAfter'] or 'UNKNOWN'}"
    return ", ".join(row["reasons"])


COMMANDS = (snapshot, diff)
