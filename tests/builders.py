"""Small builders of evidence: an instant and what matters to the test, and defaults for the rest."""

from __future__ import annotations

import json
from typing import Any

from store.model import DUPLICATE_CLIENTID, Check, Event, Kind, Observation, State

T0 = 1_790_000_000_000  # 2026-09-21T14:13:20Z, the instant that tests count from

CLIENT = "pump-17"


def connect(
    at_ms: int,
    *,
    session: str | None = None,
    version: int | None = None,
    client_id: str = CLIENT,
    extra: str | None = None,
) -> Event:
    return Event(client_id, Kind.CONNECTED, at_ms, session_id=session, version=version, extra=extra)


def disconnect(
    at_ms: int,
    *,
    session: str | None = None,
    version: int | None = None,
    reason: str | None = "CONNECTION_LOST",
    client_id: str = CLIENT,
    extra: str | None = None,
) -> Event:
    return Event(
        client_id, Kind.DISCONNECTED, at_ms, session_id=session, version=version, reason=reason, extra=extra
    )


def taken_over(
    at_ms: int, *, session: str | None = None, version: int | None = None, client_id: str = CLIENT
) -> Event:
    """Build the disconnect of the older session in a takeover."""
    return disconnect(at_ms, session=session, version=version, reason=DUPLICATE_CLIENTID, client_id=client_id)


def connect_failed(at_ms: int, *, session: str | None = None, client_id: str = CLIENT) -> Event:
    return Event(client_id, Kind.CONNECT_FAILED, at_ms, session_id=session, reason="AUTHORIZATION_FAILED")


def subscribed(at_ms: int, *, session: str | None = None, client_id: str = CLIENT) -> Event:
    return Event(client_id, Kind.SUBSCRIBED, at_ms, session_id=session)


def said_connected(
    asked_ms: int,
    named_ms: int | None = None,
    *,
    whole: bool = False,
    reason: str | None = "NONE",
    client_id: str = CLIENT,
) -> Check:
    """Build a check that was answered: connected, since `named_ms`."""
    return Check(client_id, asked_ms, State.CONNECTED, named_ms, whole, reason)


def said_disconnected(
    asked_ms: int,
    named_ms: int | None = None,
    *,
    whole: bool = False,
    reason: str | None = "CONNECTION_LOST",
    client_id: str = CLIENT,
) -> Check:
    """Build a check that was answered: disconnected, since `named_ms`."""
    return Check(client_id, asked_ms, State.DISCONNECTED, named_ms, whole, reason)


def said_never_connected(asked_ms: int, *, client_id: str = CLIENT) -> Check:
    return said_disconnected(asked_ms, None, reason="UNKNOWN", client_id=client_id)


def observed(check: Check) -> Observation:
    """Give the evidence that reads as a check: SearchIndex to the millisecond, else GetThingConnectivityData."""
    connected = check.state is State.CONNECTED
    said: dict[str, Any] = {"connected": connected}
    if check.reason is not None:
        said["disconnectReason"] = check.reason
    body: dict[str, Any] = {"api": "GetThingConnectivityData", "askedAt": check.asked_ms}
    body["thingName"] = check.client_id
    if check.named_ms is not None and not check.whole:
        body["api"] = "SearchIndex"
        body["response"] = {
            "connectivity": {**said, "timestamp": check.named_ms},
            "thingName": check.client_id,
        }
    else:
        if check.named_ms is not None:
            said["timestamp"] = check.named_ms // 1000
        body["response"] = {**said, "thingName": check.client_id}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Observation("check", check.client_id, check.asked_ms, text)
