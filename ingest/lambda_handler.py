"""AWS Lambda in place of `thingline run`, for event sources of SQS and Kinesis: `ingest.lambda_handler.handler`.

One invocation is one transaction, in the store that THINGLINE_STORE names (a PostgreSQL; THINGLINE_REALM as anywhere).
What cannot be read goes to quarantine and counts as done. Where the store does not take the records, they are named as
failed (set ReportBatchItemFailures on the event source), so that AWS brings them again: all of them while it is away;
else each is tried alone, so that one that it never takes holds up no other.

Nobody says here who was watching: between two invocations there is nobody to say it (`thingline coverage`).
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from ingest.decode import decode_message
from ingest.patience import PatientWriter
from store.clock import Clock, system_clock
from store.engine import open_writer, parse_url
from store.errors import StoreAway, StoreError, UsageError
from store.model import DEFAULT_REALM, Learned, Rejected

log = logging.getLogger("thingline.lambda")

WAIT_S = 5.0  # for a store that is away, of an invocation that costs while it waits

# Kept from one invocation of this environment to the next.
_writer: PatientWriter | None = None
_opened = ExitStack()


def close() -> None:
    """Give the store back; the next invocation opens it again."""
    global _writer
    _writer = None
    _opened.close()


class _Record(NamedTuple):
    """A record of an event source, and how the answer names it."""

    source: str
    identifier: str
    items: list[Learned | Rejected]


def handler(event: Mapping[str, Any], context: object) -> dict[str, list[dict[str, str]]]:
    """Write what an event source brings; gives what it is to bring again.

    Raises UsageError for an event of another kind, and without THINGLINE_STORE.
    """
    records = [_read(record, system_clock) for record in _records(event)]
    failed: list[_Record] = []
    for source in dict.fromkeys(record.source for record in records):
        of_source = [record for record in records if record.source == source]
        try:
            _write(of_source)
        except StoreAway as away:
            log.error("%s", away)
            failed += of_source
        except StoreError as error:
            log.error("%s; each record is tried alone", error)
            failed += [record for record in of_source if not _is_written(record)]
    return {"batchItemFailures": [{"itemIdentifier": record.identifier} for record in failed]}


def _records(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    records = event.get("Records")
    if not isinstance(records, list) or not all(
        isinstance(each, dict) and each.get("eventSource") in ("aws:sqs", "aws:kinesis") for each in records
    ):
        raise UsageError(
            "This handler takes events of SQS and of Kinesis; set one as the function's event source."
        )
    return records


def _read(record: Mapping[str, Any], clock: Clock) -> _Record:
    stream = str(record["eventSourceARN"]).rpartition(":")[2].rpartition("/")[2]
    if record["eventSource"] == "aws:sqs":
        sent_ms = int(record["attributes"]["SentTimestamp"])
        body = record["body"].encode("utf-8", "surrogatepass")
        items = decode_message(body, now=clock, position=sent_ms)
        return _Record(f"sqs:{stream}", record["messageId"], items)
    told = record["kinesis"]
    came_ms = int(1000 * told["approximateArrivalTimestamp"])
    items = decode_message(base64.b64decode(told["data"]), now=clock, position=came_ms)
    return _Record(f"kinesis:{stream}", told["sequenceNumber"], items)


def _write(records: list[_Record]) -> None:
    global _writer
    if _writer is None:
        url = os.environ.get("THINGLINE_STORE")
        if not url:
            raise UsageError("THINGLINE_STORE names no store; give the URL of a PostgreSQL.")
        store = _opened.enter_context(open_writer(parse_url(url)))
        realm = os.environ.get("THINGLINE_REALM", DEFAULT_REALM)
        _writer = _opened.enter_context(PatientWriter(store, realm=realm, wait_s=WAIT_S, say=log.warning))
    items = [item for record in records for item in record.items]
    _writer.write(items, source=records[0].source)


def _is_written(record: _Record) -> bool:
    try:
        _write([record])
    except StoreError as error:
        log.error("%s", error)
        return False
    return True
