"""What could not be read: listed, shown, tried again."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ingest.decode import decode_message
from ingest.redact import Redaction
from ingest.refusal import HEAD_BYTES
from ingest.writer import Counts, Writer
from store.clock import Clock
from store.engine import Store, translated
from store.errors import UsageError
from store.model import Learned
from store.schema import quarantine, texts


def listed(store: Store) -> list[dict[str, Any]]:
    """List the quarantine, oldest first; without the bytes."""
    q = quarantine.c
    query = (
        sa.select(q.quarantine_no, q.reason, q.detail, texts.c.text, q.position, q.length, q.sha256)
        .add_columns(q.known_at, q.replayed_at)
        .join(texts, texts.c.text_no == q.source_no)
        .order_by(q.quarantine_no)
    )
    names = ("id", "reason", "detail", "source", "position", "length", "sha256", "knownAt", "replayedAt")
    with store.reading() as connection:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def head_of(store: Store, number: int) -> bytes:
    """Give the bytes kept of one record. Raises UsageError where there is none of that number."""
    query = sa.select(quarantine.c.head).where(quarantine.c.quarantine_no == number)
    with store.reading() as connection:
        head = connection.scalar(query)
    if head is None:
        raise UsageError(f"There is no {number} in quarantine; see `thingline quarantine list`.")
    return bytes(head)


def replay(
    store: Store, writer: Writer, *, clock: Clock, redact: Redaction | None = None
) -> tuple[int, int, Counts]:
    """Decode again what is kept whole; gives how many were tried, how many read, and what became of them.

    A record counts as read when nothing in it is refused any more. Run again, it finds less to do. `redact` is
    done to what is read.
    """
    q = quarantine.c
    query = (
        sa.select(q.quarantine_no, q.head, q.position, texts.c.text)
        .join(texts, texts.c.text_no == q.source_no)
        # Not by the length of the head, which redaction changes.
        .where(q.replayed_at.is_(None), q.length <= HEAD_BYTES)
        .order_by(q.quarantine_no)
    )
    total = Counts()
    tried = read = 0
    with store.reading() as connection:
        waiting = list(connection.execute(query))
    for number, head, position, source in waiting:
        tried += 1
        records = decode_message(bytes(head), now=clock, position=position)
        learned = [record for record in records if isinstance(record, Learned)]
        if not learned or len(learned) < len(records):
            continue
        total.add(writer.write(learned if redact is None else [*map(redact.record, learned)], source=source))
        with translated(store.url), store.engine.begin() as connection:
            mark = sa.update(quarantine).where(q.quarantine_no == number).values(replayed_at=clock())
            connection.execute(mark)
        read += 1
    return tried, read, total
