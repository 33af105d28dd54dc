"""What S3 says of new objects: event notifications, as S3, SNS and EventBridge word them.

Owns their shapes. Pure. It says which objects a notice names and no more: whether one is ours to read is for the
source to know (ingest/s3.py), and an address in a notice is never followed.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from ingest.decode import ENVELOPES
from ingest.refusal import Unreadable
from ingest.syntax import parse

_NO_NOTICE = "this message is no notice of S3's; let only S3 write to the queue of notices"


class Notice(NamedTuple):
    """A new object."""

    bucket: str
    key: str
    etag: str = ""  # where it is said


def notices(body: bytes) -> list[Notice]:
    """Give the objects that a message says are new; none where it is a test, or speaks of deletions and the like.

    Raises Unreadable: unknown-shape, and what `parse` raises.
    """
    said = parse(body)
    for _ in range(ENVELOPES):
        if not (isinstance(said, dict) and isinstance(text := said.get("Message"), str)):
            break
        said = parse(text.encode("utf-8", "surrogatepass"))
    if not isinstance(said, dict):
        raise Unreadable("unknown-shape", _NO_NOTICE)
    if said.get("Event") == "s3:TestEvent":
        return []
    if said.get("source") == "aws.s3" and isinstance(kind := said.get("detail-type"), str):
        return [_named(said.get("detail"), encoded=False)] if kind == "Object Created" else []
    records = said.get("Records")
    if not isinstance(records, list):
        raise Unreadable("unknown-shape", _NO_NOTICE)
    return [_named(each.get("s3"), encoded=True) for each in records if _is_of_new(each)]


def _is_of_new(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":
        raise Unreadable("unknown-shape", _NO_NOTICE)
    name = record.get("eventName")
    return isinstance(name, str) and name.removeprefix("s3:").startswith("ObjectCreated:")


def _named(said: Any, *, encoded: bool) -> Notice:
    """Read which object; S3 itself encodes keys as a form does, EventBridge gives them as they are."""
    try:
        bucket, key = said["bucket"]["name"], said["object"]["key"]
    except (LookupError, TypeError):
        raise Unreadable("unknown-shape", "this notice of S3's names no object") from None
    if not (isinstance(bucket, str) and isinstance(key, str) and isinstance(said["object"], dict) and key):
        raise Unreadable("unknown-shape", "this notice of S3's names no object")
    etag = said["object"].get("eTag", said["object"].get("etag", ""))
    return Notice(bucket, unquote_plus(key) if encoded else key, etag if isinstance(etag, str) else "")
