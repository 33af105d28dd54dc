"""Small builders of evidence: an instant and what matters to the test, and defaults for the rest."""

from __future__ import annotations

from store.model import DUPLICATE_CLIENTID, Event, Kind

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
