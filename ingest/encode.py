"""Evidence back to the JSON that it came from, and to lines of our recording format.

Owns the inverse of decoding: for every evidence, decoding its line gives the equal evidence. It must never
add to what was said.
"""

from __future__ import annotations

import json
from typing import Any

from store.model import EVENT_TYPES, Event, Kind, Observation, Watch

TYPE_OF_KIND = {kind: name for name, kind in EVENT_TYPES.items()}
RECORDING_VERSION = 1
RECORDING_HEADER = b'{"thingline":"recording","version":1}\n'


def to_json(evidence: Event | Observation | Watch) -> dict[str, Any]:
    """Return the JSON object that the evidence came from; for an Event exactly as AWS published it."""
    if isinstance(evidence, Event):
        return _event_json(evidence)
    if isinstance(evidence, Watch):
        return {"source": evidence.source, "from": evidence.from_ms, "to": evidence.to_ms}
    body: dict[str, Any] = json.loads(evidence.body)
    return body


def _event_json(event: Event) -> dict[str, Any]:
    extra: Any = json.loads(event.extra) if event.extra is not None else {}
    if isinstance(extra, list):
        original: dict[str, Any] = extra[0]
        return original
    reason_name = "connectFailureReason" if event.kind == Kind.CONNECT_FAILED else "disconnectReason"
    members: dict[str, Any] = {
        "clientId": event.client_id,
        "thingName": event.thing_name,
        "timestamp": event.at_ms,
        "eventType": TYPE_OF_KIND[event.kind],
        "sessionIdentifier": event.session_id,
        "principalIdentifier": event.principal,
        "ipAddress": event.ip,
        "clientInitiatedDisconnect": event.client_initiated,
        reason_name: event.reason,
        "versionNumber": event.version,
    }
    said = {name: value for name, value in members.items() if value is not None}
    said.update(extra)
    return said


def recording_line(evidence: Event | Observation | Watch, known_at_ms: int) -> bytes:
    """Write one line of a recording, with its newline.

    `askedAt` stands beside an observation that does not say its own moment, where `knownAt` would give
    another one.
    """
    name = "event" if isinstance(evidence, Event) else "watch"
    line: dict[str, Any] = {"knownAt": known_at_ms}
    content = to_json(evidence)
    if isinstance(evidence, Observation):
        name = evidence.kind
        own = content.get("askedAt" if name == "check" else "timestamp")
        if own is None and evidence.at_ms != known_at_ms:
            line["askedAt"] = evidence.at_ms
    line[name] = content
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
