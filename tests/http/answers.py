"""A store with a thing for each row of the table of answers (DESIGN 5), and what each client must be told of it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ingest.decode import decode_message
from ingest.writer import Writer
from queries.times import iso
from store.engine import open_writer, parse_url
from store.model import Evidence, Learned, Observation, Watch
from tests.builders import (
    T0,
    connect,
    disconnect,
    observed,
    said_connected,
    said_disconnected,
    said_never_connected,
)

HOUR_MS = 3_600_000
BEGINS_MS = T0 - 24 * HOUR_MS  # the first instant watched
LEARNED_MS = T0 + 61_000  # when the first evidence was, and nothing else
SECRET_KEYS = ("AKIATHINGLINE0000001", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
TOKEN = "0123456789abcdef0123456789abcdef"


class Case(NamedTuple):
    """One question: a path before the operation, a thing's name, and what a client is told."""

    name: str
    prefix: str
    thing: str
    told: dict[str, Any]


def at(after_ms: int, *, zone: str = "Z") -> str:
    """Give the path of an instant after T0."""
    return "/at/" + iso(T0 + after_ms).replace("Z", zone)


def refused(name: str, status: int = 400) -> dict[str, Any]:
    return {"error": name, "status": status}


NOT_FOUND = refused("ResourceNotFoundException", 404)
NOT_READY = refused("IndexNotReadyException")
INVALID = refused("InvalidRequestException")

UP = {"thingName": "pump-17", "connected": True, "timestamp": T0 + 7, "disconnectReason": "NONE"}
DOWN = {
    "thingName": "pump-17",
    "connected": False,
    "timestamp": T0 + 60_123,
    "disconnectReason": "MQTT_KEEP_ALIVE_TIMEOUT",
}
MODERN = {
    "thingName": "modern-1",
    "connected": True,
    "timestamp": T0 + HOUR_MS + 250,
    "disconnectReason": "NONE",
    "clientId": "modern-1",
    "keepAliveDuration": 30,
    "cleanSession": False,
    "sessionExpiry": 3600,
}

CASES = (
    Case("connected", at(30_000), "pump-17", UP),
    Case("connected, to the millisecond", at(7), "pump-17", UP),
    Case("disconnected", at(90_000), "pump-17", DOWN),
    Case(
        "disconnected, as known before that was known",
        f"{at(90_000)}/known-at/{iso(LEARNED_MS)}",
        "pump-17",
        UP,
    ),
    Case("a colon in percent", at(90_000).replace(":", "%3A"), "pump-17", DOWN),
    Case("a plus sign", at(90_000, zone="+00:00"), "pump-17", DOWN),
    Case("a plus sign in percent", at(90_000, zone="%2B00:00"), "pump-17", DOWN),
    Case("a trailing slash", at(90_000) + "/", "pump-17", DOWN),
    Case("epoch milliseconds", f"/at/{T0 + 90_000}", "pump-17", DOWN),
    Case(
        "disconnected at an instant that only has bounds",
        at(3 * HOUR_MS),
        "bounded-1",
        {"thingName": "bounded-1", "connected": False, "disconnectReason": "CONNECTION_LOST"},
    ),
    Case(
        "never connected",
        at(2 * HOUR_MS),
        "never-1",
        {"thingName": "never-1", "connected": False, "disconnectReason": "UNKNOWN"},
    ),
    Case("a state that nobody knows", at(20 * HOUR_MS), "pump-17", {"thingName": "pump-17"}),
    Case("now, which nobody knows", "", "pump-17", {"thingName": "pump-17"}),
    Case(
        "a thing whose client has another id",
        at(90_000),
        "exclusive-1",
        {"thingName": "exclusive-1", "connected": True, "timestamp": T0 + 1_000, "disconnectReason": "NONE"},
    ),
    Case("what checks brought of the connection", at(2 * HOUR_MS), "modern-1", MODERN),
    Case("a thing that was deleted", at(5 * HOUR_MS), "gone-1", NOT_FOUND),
    Case("before the thing's first evidence", at(HOUR_MS), "late-1", NOT_FOUND),
    Case("a name never heard of", at(HOUR_MS), "nope", NOT_FOUND),
    Case("before the store's history", f"/at/{iso(BEGINS_MS - 1)}", "pump-17", NOT_READY),
    Case("the future", "/at/2099-01-01T00:00:00Z", "pump-17", INVALID),
    Case("a time that is none", "/at/soon", "pump-17", INVALID),
    Case("a time without a zone", "/at/2026-11-01T03:00:00", "pump-17", INVALID),
    Case("a moment of learning that is none", f"{at(0)}/known-at/soon", "pump-17", INVALID),
    Case("an illegal name", at(HOUR_MS), "pump 17", INVALID),
    Case("a name with a slash", at(HOUR_MS), "a/b", INVALID),
    Case("a name that is two dots", at(HOUR_MS), "..", INVALID),
)


def _check(thing: str, asked_ms: int, response: dict[str, Any]) -> Observation:
    body = {
        "api": "GetThingConnectivityData",
        "askedAt": asked_ms,
        "response": {**response, "thingName": thing},
        "thingName": thing,
    }
    return Observation("check", thing, asked_ms, json.dumps(body, sort_keys=True, separators=(",", ":")))


def _registry(operation: str, at_ms: int) -> Evidence:
    event = {"eventType": "THING_EVENT", "operation": operation, "timestamp": at_ms, "thingName": "gone-1"}
    (learned,) = decode_message(
        json.dumps({**event, "thingId": "id-1"}).encode(), now=lambda: T0 + 30 * HOUR_MS
    )
    assert isinstance(learned, Learned)
    return learned.evidence


def fill(url: str) -> None:
    """Write the store."""
    modern = {name: value for name, value in MODERN.items() if name != "thingName"}
    modern["timestamp"] = (T0 + HOUR_MS + 250) / 1000
    first: list[Evidence] = [
        Watch("sqs", BEGINS_MS, T0 + 10 * HOUR_MS),
        connect(T0 + 7, session="s1", version=0),
    ]
    rest: list[Evidence] = [
        disconnect(T0 + 60_123, session="s1", version=0, reason="MQTT_KEEP_ALIVE_TIMEOUT"),
        connect(T0 + 120_007, session="s2", version=1),
        observed(said_connected(T0 + HOUR_MS, T0 + HOUR_MS // 2, client_id="bounded-1")),
        observed(said_disconnected(T0 + 2 * HOUR_MS, None, client_id="bounded-1")),
        observed(said_never_connected(T0 + HOUR_MS, client_id="never-1")),
        connect(T0 + 1_000, session="x1", version=0, client_id="c/1")._replace(thing_name="exclusive-1"),
        connect(T0 + 5 * HOUR_MS, session="l1", version=0, client_id="late-1"),
        _check("modern-1", T0 + 90 * 60_000, modern),
        connect(T0 + 1_000, session="g1", version=0, client_id="gone-1"),
        _registry("CREATED", T0 - HOUR_MS),
        _registry("DELETED", T0 + 4 * HOUR_MS),
    ]
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        writer.write([Learned(one, 0, LEARNED_MS) for one in first], source="test")
        writer.write([Learned(one, 0, T0 + 30 * HOUR_MS) for one in rest], source="test")
