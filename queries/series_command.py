"""The command that tells how many things were connected over time: series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from store.errors import BadTime, UsageError
from store.options import described

if TYPE_CHECKING:
    from queries.series import Bucket
    from queries.uptime import Span

# The columns of CSV and Parquet, and their types.
_SERIES = {
    "from": "TIMESTAMPTZ",
    "to": "TIMESTAMPTZ",
    "connected": "BIGINT",
    "disconnected": "BIGINT",
    "unknown": "BIGINT",
    "leastConnected": "BIGINT",
    "mostConnected": "BIGINT",
    "connects": "BIGINT",
    "disconnects": "BIGINT",
    "takeovers": "BIGINT",
    **OF_WINDOW,
    **OF_ALL,
}


@click.command(
    "series",
    **described(
        "Tell how many things were connected over time: a row a bucket, with how many were connected, disconnected and"
        " unknown at its beginning, the least and the most that were connected at any instant of it, and the connects,"
        " disconnects and takeovers in it. Exact: each thing counts as its answer of that instant says. Buckets begin"
        " with the window; of --bucket 1d with --tz, at each midnight there. docs/reports.md.",
        "thingline series --from -24h --bucket 5m",
        "thingline series --month 2026-10 --tz Europe/Berlin --bucket 1d --csv",
        "thingline series pump-17 pump-18 --from -1h --bucket 1m --json",
    ),
)
@things_argument
@window_options
@click.option("--bucket", default="1h", show_default=True, metavar="LENGTH", help="30s, 5m, 1h, 1d.")
@report_options
def series(
    asked: Asked,
    things: tuple[str, ...],
    from_: str | None,
    to: str | None,
    month_: str | None,
    bucket: str,
) -> int:
    from queries.series import Series

    with asked.open() as history:
        window = asked.window(history, from_, to, month_)
        added = Series(_starts(asked, window, bucket), window[1])
        known_at = asked.moment(history)
        receipt = asked.receipt(
            "series",
            {"bucket": bucket, "tz": asked.tz},
            known_at=known_at,
            words=things,
            window=window,
            options=[("--bucket", bucket)],
        )
        names = list(dict.fromkeys(things)) or None
        for thing in history.stretches(window, names=names, known_at=known_at, reach_ms=1):
            added.add(thing.stretches)
        rows = map(_row, added.buckets())
        asked.hand_over(receipt, _SERIES, rows=rows, table=rows, words=_words(receipt, rows))
    return 0


def _starts(asked: Asked, window: Span, bucket: str) -> Sequence[int]:
    """List where the buckets of a window begin. Raises UsageError."""
    from queries.calendars import midnights
    from queries.series import MOST_BUCKETS
    from queries.times import DAY_MS, length_ms

    try:
        length = length_ms(bucket)
    except BadTime as error:
        raise UsageError(f"--bucket: {error}") from error
    if length <= 0 or (window[1] - window[0]) // length >= MOST_BUCKETS:
        raise UsageError(
            f"--bucket {bucket} makes more than {MOST_BUCKETS:,} of this window; give a longer one."
        )
    zone = asked.zone
    if length == DAY_MS and zone is not None:
        return [window[0], *midnights(zone, window)]
    return range(window[0], window[1], length)


def _row(bucket: Bucket) -> dict[str, Any]:
    from queries.times import iso

    return {
        "from": iso(bucket.from_ms),
        "to": iso(bucket.to_ms),
        "connected": bucket.connected,
        "disconnected": bucket.disconnected,
        "unknown": bucket.unknown,
        "leastConnected": bucket.least,
        "mostConnected": bucket.most,
        "connects": bucket.connects,
        "disconnects": bucket.disconnects,
        "takeovers": bucket.takeovers,
    }


def _words(receipt: Receipt, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from queries.tables import table_lines

    yield f"{window_words(receipt)}; buckets of {receipt.said['bucket']}"
    columns = [
        "connected",
        "least",
        "most",
        "disconnected",
        "unknown",
        "connects",
        "disconnects",
        "takeovers",
    ]
    keys = [{"least": "leastConnected", "most": "mostConnected"}.get(name, name) for name in columns]
    yield from table_lines(
        ["from", *columns], ([row["from"], *(f"{row[key]:,}" for key in keys)] for row in rows)
    )


COMMANDS = (series,)
