"""The command that tells which client ids are fought over: takeovers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from queries.receipts import (
    OF_ALL,
    OF_WINDOW,
    Asked,
    Receipt,
    report_options,
    things_argument,
    window_options,
    window_words,
)
from store.options import described

if TYPE_CHECKING:
    from queries.takeovers import Holder, Taken

_SHOWN = 10  # holders of one client

# The columns of CSV and Parquet, and their types.
_TAKEOVERS = {
    "thingName": "VARCHAR",
    "clientId": "VARCHAR",
    "takeovers": "BIGINT",
    "told": "BIGINT",
    "swaps": "BIGINT",
    "pingPong": "BIGINT",
    "principals": "BIGINT",
    "addresses": "BIGINT",
    "first": "TIMESTAMPTZ",
    "last": "TIMESTAMPTZ",
    "holders": "VARCHAR[]",
    **OF_WINDOW,
    **OF_ALL,
}


@click.command(
    "takeovers",
    **described(
        "List the client ids that were taken over, those taken most often first: a connect while the same client is"
        " connected. A device that comes back before its keep-alive has run out takes over its own session; two devices"
        " with one client id throw each other out for ever. So it tells how often the principal or the address changed"
        " (swaps), how often it changed back to the one before the last (ping-pong), and between how many of them."
        " docs/reports.md.",
        "thingline takeovers --from -24h",
        "thingline takeovers pump-17 --from -7d --json",
    ),
)
@things_argument
@window_options
@report_options
def takeovers(
    asked: Asked,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
) -> int:
    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        known_at = asked.moment(history)
        receipt = asked.receipt("takeovers", {}, known_at=known_at, words=things, window=window)
        names = list(dict.fromkeys(things)) or None
        found = [_row(taken) for taken in history.takeovers(window, names=names, known_at=known_at)]
        found.sort(key=lambda row: (-row["takeovers"], row["clientId"], row["thingName"] or ""))
        asked.hand_over(
            receipt,
            _TAKEOVERS,
            rows=found,
            table=({**row, "holders": [_named(one) for one in row["holders"]]} for row in found),
            words=_words(receipt, found),
        )
    return 0


def _row(taken: Taken) -> dict[str, Any]:
    from queries.takeovers import summary
    from queries.times import iso

    found = summary(taken.takeovers)
    return {
        "thingName": taken.thing_name,
        "clientId": taken.client_id,
        "takeovers": found.takeovers,
        "told": found.told,
        "swaps": found.swaps,
        "pingPong": found.ping_pong,
        "principals": found.principals,
        "addresses": found.addresses,
        "first": iso(found.first_ms),
        "last": iso(found.last_ms),
        "holders": [_holder(one, times) for one, times in found.holders[:_SHOWN]],
    }


def _holder(holder: Holder, times: int) -> dict[str, Any]:
    return {"principalIdentifier": holder.principal, "ipAddress": holder.ip, "takeovers": times}


def _named(holder: dict[str, Any]) -> str:
    return f"{holder['principalIdentifier'] or '?'} {holder['ipAddress'] or '?'} {holder['takeovers']}"


def _words(receipt: Receipt, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    from queries.tables import table_lines

    taken, pingpong = (sum(row[key] for row in found) for key in ("takeovers", "pingPong"))
    yield f"{window_words(receipt)}: {taken:,} takeovers of {len(found):,} clients, {pingpong:,} of them ping-pong"
    counts = ("takeovers", "told", "swaps", "pingPong", "principals", "addresses")
    headings = ["client", "takeovers", "told", "swaps", "ping-pong", "principals", "addresses", "last"]

    def cells(row: dict[str, Any]) -> list[str]:
        bound = row["thingName"] not in (None, row["clientId"])
        name = f"{row['clientId']} (thing {row['thingName']})" if bound else row["clientId"]
        holders = "; ".join(map(_named, row["holders"][:2])) if row["swaps"] else ""
        return [name, *(f"{row[key]:,}" for key in counts), row["last"], holders]

    headings.append("most often by")
    yield from table_lines(headings, map(cells, found), left=len(headings))


COMMANDS = (takeovers,)
