"""What AWS's API said of a client's connection, in any form in which AWS CLI and boto3 hand on its results.

Owns the three calls that speak of connections (FACTS: GetThingConnectivityData, sibling reads), the shapes of
their results, and the reading of a stored check. Pure. It must never make up an instant or a moment of
asking, and `check_of` must never raise: what is stored is stored.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from ingest.members import body_of, name_of, required_stamp_ms, storable
from ingest.refusal import Unreadable
from ingest.stamps import END_MS, FAR_FUTURE_MS
from store.model import Check, Observation, State

GET_THING_CONNECTIVITY_DATA = "GetThingConnectivityData"
SEARCH_INDEX = "SearchIndex"
GET_CONNECTION = "GetConnection"
APIS = (GET_THING_CONNECTIVITY_DATA, SEARCH_INDEX, GET_CONNECTION)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = re.compile(r"0+(?:\.0+)?", re.ASCII)
_FRACTION = re.compile(r"[.,][0-9]*[1-9]")


class _Said(NamedTuple):
    """What the JSON of a check says; `state` is None where it says nothing of a connection."""

    subject: str | None
    state: State | None
    named_ms: int | None = None
    whole: bool = False
    reason: str | None = None


class Result(NamedTuple):
    """A check found in something larger: its body, and the JSON that would give it again by itself."""

    body: dict[str, Any]
    alone: dict[str, Any]


def check_of(said: Observation) -> Check | None:
    """Read a stored check as what it says of one client's connection; None where it says nothing of it.

    An error says nothing, nor does ResourceNotFoundException (which is registry evidence), nor a response
    without `connected`. The client is the `clientId` of the response, else the thing's name, for AWS follows
    the connection whose clientId that is; of GetConnection it is the clientId that was asked for. Never
    raises, for any body.
    """
    if said.kind != "check":
        return None
    try:
        members = json.loads(said.body)
        found = _said(members) if isinstance(members, dict) else None
    except (ValueError, RecursionError):
        return None
    if found is None or found.state is None or found.subject is None:
        return None
    return Check(found.subject, said.at_ms, found.state, found.named_ms, found.whole, found.reason)


def read_check(members: dict[str, Any], receipt_ms: int, asked_ms: int | None) -> Observation:
    """Read the JSON of a check. `asked_ms` is the moment of asking where the check does not say it.

    Where nobody says it, the check counts as asked at the instant that it names. Its subject is the client
    (see `check_of`); where it says nothing of a connection, the thing or client that it was asked about.

    Raises Unreadable: unknown-shape, no-client-id, no-timestamp, ambiguous-timestamp, future-stamp (against
    its receipt and against its asking), unstorable-text, too-long, too-large.
    """
    said = _said(members)
    asked = members.get("askedAt")
    at_ms = said.named_ms if asked_ms is None else asked_ms
    if asked is not None:
        at_ms = required_stamp_ms(asked, "askedAt", receipt_ms)
    if at_ms is None:
        raise Unreadable(
            "no-timestamp",
            "it names no instant, and nothing says when it was asked; give --asked-at, or askedAt beside it",
        )
    if said.named_ms is not None:
        if said.named_ms - receipt_ms > FAR_FUTURE_MS:
            raise Unreadable(
                "future-stamp", "the instant it names is more than ten minutes after its receipt"
            )
        if said.named_ms - at_ms > FAR_FUTURE_MS:
            raise Unreadable(
                "future-stamp",
                "the instant it names is more than ten minutes after its asking; check askedAt or --asked-at",
            )
    return Observation("check", said.subject, at_ms, body_of(members))


def results(result: dict[str, Any]) -> list[Result] | None:
    """Find the checks in a bare result of one of the calls, as printed; None where it is none.

    | bare result | known by |
    |---|---|
    | SearchIndex | `things`: one check a thing |
    | one thing of SearchIndex | `thingName` and `connectivity` |
    | GetConnection | `connected` with `connectedSince` or `disconnectedSince`; or with `clientId` alone |
    | GetThingConnectivityData | `connected` and `thingName` |

    The body keeps the whole result as its `response`. Of a page each thing has its own; what the page says of
    itself (`nextToken`, `thingGroups`, `ResponseMetadata`) speaks of no thing and is left out, and so is a
    thing without `connectivity`. Raises Unreadable (unknown-shape) for things of which none has it.
    """
    things = result.get("things")
    if isinstance(things, list):
        return [
            Result({"api": SEARCH_INDEX, "thingName": _thing_name(thing), "response": thing}, thing)
            for thing in _connected_things(things)
        ]
    if "thingName" in result and "connectivity" in result:
        return [Result({"api": SEARCH_INDEX, "thingName": result["thingName"], "response": result}, result)]
    if result.get("connected") is None:
        return None
    since = "connectedSince" in result or "disconnectedSince" in result
    if since or ("clientId" in result and "thingName" not in result and "timestamp" not in result):
        body = {"api": GET_CONNECTION, "clientId": result.get("clientId"), "response": result}
        return [Result(body, result)]
    if "thingName" in result:
        body = {"api": GET_THING_CONNECTIVITY_DATA, "thingName": result["thingName"], "response": result}
        return [Result(body, result)]
    return None


def recorded(check: dict[str, Any], line: dict[str, Any]) -> list[Result]:
    """Find the checks in the `check` of a recording's line: itself, or one a thing of a page of SearchIndex.

    A thing's body is the line's check with that thing as its response. Raises as `results` does.
    """
    response = check.get("response")
    things = response.get("things") if isinstance(response, dict) else None
    if check.get("api") != SEARCH_INDEX or not isinstance(things, list):
        return [Result(check, line)]
    beside: dict[str, Any] = {name: line[name] for name in ("knownAt", "askedAt") if name in line}
    return [
        Result(
            {**check, "thingName": _thing_name(thing), "response": thing},
            {**beside, "check": {**check, "response": {"things": [thing]}}},
        )
        for thing in _connected_things(things)
    ]


def is_page(members: dict[str, Any]) -> bool:
    """Say whether this holds many checks, and so may be larger than one record."""
    check = members.get("check")
    page = check.get("response") if isinstance(check, dict) else members
    return isinstance(page, dict) and isinstance(page.get("things"), list)


def _connected_things(things: list[Any]) -> list[Any]:
    """Leave out the things without `connectivity`; what is no object stays, to be refused by itself."""
    found = [one for one in things if not isinstance(one, dict) or one.get("connectivity") is not None]
    if things and not found:
        raise Unreadable(
            "unknown-shape",
            "no thing in it has `connectivity`; ask SearchIndex, with connectivity indexing switched on",
        )
    return found


def _thing_name(thing: Any) -> Any:
    return thing.get("thingName") if isinstance(thing, dict) else None


def _said(members: dict[str, Any]) -> _Said:
    """Read the JSON of a check. Raises Unreadable where its shape is none of the API's."""
    api = members.get("api")
    if api not in APIS:
        raise Unreadable("unknown-shape", f"a check needs its api, one of {', '.join(APIS)}")
    failed = members.get("error") is not None
    response = members.get("response")
    if not isinstance(response, dict):
        if not failed:
            raise Unreadable("unknown-shape", "a check holds its response as a JSON object, or an error")
        response = {}
    thing = name_of(members, "thingName") or name_of(response, "thingName")
    asked_for = name_of(members, "clientId")
    answer = response
    if api == SEARCH_INDEX and "connectivity" in response:
        answer = {} if response["connectivity"] is None else response["connectivity"]
        if not isinstance(answer, dict):
            raise Unreadable("unknown-shape", "connectivity is no JSON object")
    if api == GET_CONNECTION:
        client = asked_for or name_of(response, "clientId")
    else:
        client = name_of(answer, "clientId") or thing
    connected = answer.get("connected")
    if failed or connected is None:
        subject = client or thing or asked_for
        if subject is None and not failed:
            raise Unreadable("no-client-id", "there is neither thingName nor clientId in it")
        return _Said(subject, None)
    if not isinstance(connected, bool):
        raise Unreadable("unknown-shape", "connected is neither true nor false")
    if client is None:
        name = "clientId" if api == GET_CONNECTION else "thingName"
        raise Unreadable("no-client-id", f"there is no {name}; say of which connection it speaks")
    stamp_name = "timestamp"
    if api == GET_CONNECTION:
        stamp_name = "connectedSince" if connected else "disconnectedSince"
    named_ms, whole = _instant(answer.get(stamp_name), stamp_name)
    reason = answer.get("disconnectReason")
    return _Said(
        client,
        State.CONNECTED if connected else State.DISCONNECTED,
        named_ms,
        whole,
        storable(reason, "disconnectReason") if isinstance(reason, str) and reason else None,
    )


def _instant(value: Any, name: str) -> tuple[int | None, bool]:
    """Read the instant that an answer names as epoch ms, and whether it was given in whole seconds.

    Absent, null and 0 name none. The unit shows in the magnitude (ingest/stamps.py), so that a client which
    hands on the other unit is understood too; text is what AWS CLI v2 or Python made of a number.
    """
    if value is None or _is_zero(value):
        return None, False
    named_ms = required_stamp_ms(value, name, END_MS)
    if isinstance(value, str):
        text = value.strip()
        if not text.replace(".", "", 1).isdecimal():
            return named_ms, _FRACTION.search(text) is None
        value = text
    number = Decimal(str(value))
    return named_ms, number % 1 == 0 and int(number) * 1000 == named_ms


def _is_zero(value: object) -> bool:
    if isinstance(value, str):
        text = value.strip()
        try:
            return bool(_ZERO.fullmatch(text)) or datetime.fromisoformat(text.upper()) == _EPOCH
        except (ValueError, OverflowError):
            return False
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0
