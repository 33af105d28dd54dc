"""The envelopes that AWS services put around a message: how each is known, and what is in it.

Owns their shapes (FACTS: how events reach a consumer). It must never follow an address found in one.
"""

from __future__ import annotations

from typing import Any

_DATA_MARKS = (
    ("data", frozenset({"partitionKey", "sequenceNumber", "recordId", "kinesisSchemaVersion"})),
    ("Data", frozenset({"PartitionKey", "SequenceNumber"})),
)


def contents(members: dict[str, Any]) -> list[Any] | None:
    """Take an envelope apart: text (JSON or base64) and values in it; None where it is none.

    The shapes are of FACTS: how events reach a consumer. A rule's error action bears clientId and topic of
    its own, so it is looked for before events are.
    """
    original = members.get("base64OriginalPayload")
    if isinstance(original, str):
        return [original]
    if "eventType" in members or "event_type" in members or "thingline" in members:
        return None
    for name in ("Records", "records", "Messages"):
        if isinstance(items := members.get(name), list):
            return items
    for name in ("body", "Body"):
        if isinstance(text := members.get(name), str):
            return [text]
    if isinstance(text := members.get("Message"), str) and any(
        n in members for n in ("TopicArn", "MessageId")
    ):
        return [text] if members.get("Type", "Notification") == "Notification" else None
    for name in ("Sns", "kinesis"):
        if isinstance(inner := members.get(name), dict):
            return [inner]
    for name, marks in _DATA_MARKS:
        if isinstance(text := members.get(name), str) and not marks.isdisjoint(members):
            return [text]
    if "detail-type" in members and isinstance(inner := members.get("detail"), dict):
        return [inner]
    return None
