"""The command that lists what people said of a stretch of time: annotate list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from queries.receipts import OF_ALL, OF_WINDOW, Asked, Receipt, report_options
from store.options import described

_TYPES = {
    "annotation": "BIGINT",
    "kind": "VARCHAR",
    "scope": "VARCHAR",
    "subject": "VARCHAR",
    "from": "TIMESTAMPTZ",
    "to": "TIMESTAMPTZ",
    "ticket": "VARCHAR",
    "note": "VARCHAR",
    "author": "VARCHAR",
    "recordedAt": "TIMESTAMPTZ",
    "supersededAt": "TIMESTAMPTZ",
    "withdrawn": "BOOLEAN",
    **OF_WINDOW,
    **OF_ALL,
}


@click.command(
    "list",
    **described(
        "List the annotations that speak of a window, by number; those that were withdrawn, and who did so, with"
        " --withdrawn. docs/annotations.md.",
        "thingline annotate list --from -7d",
        "thingline annotate list --from 2026-11-01T00:00Z --to 2026-12-01T00:00Z --withdrawn --json",
    ),
)
@click.option("--from", "from_", metavar="TIME", help="That end after then; default: all.")
@click.option("--to", metavar="TIME", help="... and begin before then; default: all, those to come too.")
@click.option("--withdrawn", is_flag=True, help="Those that were withdrawn as well, a row a version.")
@report_options
def list_annotations(asked: Asked, from_: str | None, to: str | None, withdrawn: bool) -> int:
    from queries.times import iso
    from store.annotations import annotation_json

    with asked.open() as history:
        from_ms = None if from_ is None else history.milliseconds(from_)
        to_ms = None if to is None else history.milliseconds(to)
        known_at = asked.moment(history)
        window = {
            "from": None if from_ms is None else iso(from_ms),
            "to": None if to_ms is None else iso(to_ms),
        }
        receipt = asked.receipt(
            "annotate list",
            {**window, "withdrawn": withdrawn},
            known_at=known_at,
            options=[("--from", window["from"]), ("--to", window["to"])],
            flags=["--withdrawn"] if withdrawn else [],
        )
        found = history.annotations(from_ms, to_ms, known_at=known_at, versions=withdrawn)
    rows = [annotation_json(each, iso) for each in found]
    asked.hand_over(receipt, _TYPES, rows=rows, table=rows, words=_words(receipt, rows))
    return 0


def _words(receipt: Receipt, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    from queries.tables import table_lines

    told = receipt.as_json()
    window = f"{told['from'] or ''} .. {told['to'] or ''}, " if told["from"] or told["to"] else ""
    yield f"{window}known at {told['knownAt']}: {len(rows):,} annotations"
    headings = ["", "what", "of", "from", "to", "ticket", "author", "since", "note"]
    yield from table_lines(
        headings,
        (
            [
                str(row["annotation"]),
                row["kind"]
                + (" (withdrawn)" if row["withdrawn"] else " (until then)" if row["supersededAt"] else ""),
                "all things" if row["subject"] is None else f"{row['scope']} {row['subject']}",
                row["from"],
                row["to"],
                row["ticket"] or "",
                row["author"] or "",
                row["recordedAt"],
                row["note"] or "",
            ]
            for row in rows
        ),
        left=len(headings),
    )
