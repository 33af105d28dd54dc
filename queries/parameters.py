"""What API checks told of the connection that an answer is about: its client id, keep-alive, session and expiry.

GetThingConnectivityData answers these since 2026. They belong to the connection, so they are had from any check about
the same instant, whenever it was asked. Never made up: events do not tell them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from store.answer import Answer, Asker

# Members of the response, with the type that each has (botocore's model of 2026).
MEMBERS: Mapping[str, type] = {
    "clientId": str,
    "keepAliveDuration": int,
    "cleanSession": bool,
    "sessionExpiry": int,
}
NEAR_MS = 1_000  # a check that names an instant so near names the same one: rule 9 of the reducer


def parameters_of(asker: Asker, answer: Answer) -> dict[str, object]:
    """Give what the last check about the instant of an answer told of its connection, as known then; else nothing."""
    if answer.timestamp_ms is None or answer.connected is None or not asker.has_checks():
        return {}
    client_no = asker.client_named(answer.client_id)
    if client_no is None:
        return {}
    rows = asker.rows(
        "answers_about",
        client_no=client_no,
        from_ms=answer.timestamp_ms - NEAR_MS,
        to_ms=answer.timestamp_ms + NEAR_MS,
        state=int(answer.connected),
        known_at=answer.known_at,
    )
    return next((told for (text,) in rows if (told := _told(text))), {})


def _told(text: str) -> dict[str, object]:
    response = json.loads(text).get("response")
    if not isinstance(response, dict):
        return {}
    return {name: response[name] for name, kind in MEMBERS.items() if type(response.get(name)) is kind}
