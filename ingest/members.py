"""One JSON object of a known kind in, one piece of evidence out, losslessly.

Owns the member names of events, registry events and watch statements (ingest/checks.py those of checks), and
what is kept of members that have no column. It must never drop a member, and never make up a value that was
not said.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ingest.refusal import Unreadable
from ingest.stamps import FAR_FUTURE_MS, FIRST_MS, stamp_ms
from ingest.syntax import NESTING, RECORD_BYTES, check_nesting
from store.model import EVENT_TYPES, MOST_TEXT_BYTES, Event, Kind, Observation, Watch, bytes_of

# Rules in the wild rename these (FACTS: how events reach a consumer); the first is AWS's own.
CLIENT_NAMES = ("clientId", "clientID", "ClientId", "client_id", "client_Id", "deviceId", "device_id")
TYPE_NAMES = ("eventType", "event_type")
TOPIC_NAMES = ("topic", "eventTopic", "mqttTopic")

TOPIC = re.compile(
    r"\$aws/events/(?:presence/(connected|disconnected|connect_failed)"
    r"|subscriptions/(subscribed|unsubscribed))/(.+)",
    re.DOTALL,
)
THING_ARN = re.compile(r"arn:[^:]*:iot:[^:]*:[^:]*:thing/(.+)", re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,19}")
_MOST_VERSION = 2**63
# The registry writes ms and no rule rewrites them; AWS's own example lies in 2009.
_FIRST_REGISTRY_MS = 1_000_000_000_000
_LINE_BYTES = 256  # what a line of a recording needs beside its observation
_write = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(value: Any) -> str:
    """Write JSON so that equal values give equal text: sorted, compact, ASCII.

    Raises Unreadable where there is no such text: a number beyond a double.
    """
    try:
        return _write(value)
    except ValueError:
        raise Unreadable("not-json", "a number is too large; write it as text") from None
    except RecursionError:
        raise Unreadable("too-deep", "nested too deep; flatten it") from None


def storable(text: str, name: str) -> str:
    """Return the text of member `name`, or raise Unreadable where no store can hold it, or not in an index."""
    size = bytes_of(text)
    if size is None:
        raise Unreadable(
            "unstorable-text", "a name holds NUL or half a surrogate pair; rename it at its source"
        )
    if size > MOST_TEXT_BYTES:
        raise Unreadable(
            "too-long", f"{name} is longer than {MOST_TEXT_BYTES:,} bytes; shorten it at its source"
        )
    return text


def required_stamp_ms(value: object, name: str, receipt_ms: int) -> int:
    """Read the stamp of something received at `receipt_ms`. Raises Unreadable when it is not plausible."""
    if value is None:
        raise Unreadable("no-timestamp", f"there is no {name}; without one it has no place in time")
    at_ms = stamp_ms(value)
    if at_ms is None:
        raise Unreadable(
            "ambiguous-timestamp",
            f"{name} is no instant in 2010..2100; give epoch s, ms, us or ns, or ISO 8601 with a zone",
        )
    if at_ms - receipt_ms > FAR_FUTURE_MS:
        raise Unreadable(
            "future-stamp",
            f"{name} is more than ten minutes after its receipt; check the clock that wrote it",
        )
    return at_ms


def event_kind(members: dict[str, Any]) -> Kind | str | None:
    """Say which lifecycle event this is; the name itself where it is another event; None where it is none."""
    for name in TYPE_NAMES:
        value = members.get(name)
        if value is not None:
            return EVENT_TYPES.get(value, value) if isinstance(value, str) else str(type(value).__name__)
    topic = _topic(members)
    return EVENT_TYPES[topic[0]] if topic else None


def _topic(members: dict[str, Any]) -> tuple[str, str] | None:
    for name in TOPIC_NAMES:
        value = members.get(name)
        if isinstance(value, str) and (match := TOPIC.fullmatch(value)):
            return match[1] or match[2], match[3]
    return None


def read_event(members: dict[str, Any], kind: Kind, receipt_ms: int) -> Event:
    """Read a lifecycle event that was received at `receipt_ms`.

    Raises Unreadable: no-client-id, no-timestamp, ambiguous-timestamp, future-stamp, unstorable-text,
    too-long, too-large.
    """
    rest = dict(members)
    client_id = _client_id(members)
    stamp = members.get("timestamp")
    at_ms = required_stamp_ms(stamp, "timestamp", receipt_ms)
    exact = (
        rest.pop("clientId", None) == client_id
        and EVENT_TYPES.get(rest.pop("eventType", None)) is kind
        and type(rest.pop("timestamp")) is int
        and stamp == at_ms
    )

    def take(name: str, of: type) -> Any:
        nonlocal exact
        value = rest.pop(name, _ABSENT)
        if isinstance(value, of) and value != "":
            return storable(value, name) if isinstance(value, str) else value
        exact = exact and value is _ABSENT
        return None

    session_id: str | None = take("sessionIdentifier", str)
    principal: str | None = take("principalIdentifier", str)
    ip: str | None = take("ipAddress", str)
    thing_name: str | None = take("thingName", str)
    client_initiated: bool | None = take("clientInitiatedDisconnect", bool)
    reason: str | None = None
    if kind is Kind.DISCONNECTED:
        reason = take("disconnectReason", str)
    elif kind is Kind.CONNECT_FAILED:
        reason = take("connectFailureReason", str)
    said = rest.pop("versionNumber", _ABSENT)
    version = _version(said)
    exact = exact and (said is _ABSENT or (type(said) is int and version == said))
    extra = None
    if not exact:
        extra = canonical([members])
    elif rest:
        extra = canonical(rest)
    if extra is not None:
        if len(extra) > RECORD_BYTES:
            raise Unreadable("too-large", "more than 1 MiB; an event this large is none of AWS's")
        check_nesting(extra.encode("ascii"), members, NESTING)
    return Event(
        client_id,
        kind,
        at_ms,
        session_id,
        version,
        reason,
        client_initiated,
        principal,
        ip,
        thing_name,
        extra,
    )


_ABSENT: Any = object()


def _client_id(members: dict[str, Any]) -> str:
    for name in CLIENT_NAMES:
        value = members.get(name)
        if isinstance(value, str) and value:
            return storable(value, name)
    topic = _topic(members)
    if topic:
        return storable(topic[1], "the client id in the topic")
    raise Unreadable("no-client-id", "there is no clientId; let the rule select it")


def _version(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    numeric = (
        value.is_integer()
        if isinstance(value, float)
        else isinstance(value, str) and _DIGITS.fullmatch(value)
    )
    if numeric and isinstance(value, (float, str)):
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < _MOST_VERSION else None


def read_registry(members: dict[str, Any], receipt_ms: int, asked_ms: int | None) -> Observation:
    """Read a registry event (FACTS: registry events); one without a timestamp stands at `asked_ms`."""
    stamp = members.get("timestamp")
    at_ms = asked_ms
    if type(stamp) is int and _FIRST_REGISTRY_MS <= stamp < FIRST_MS:
        at_ms = stamp
    elif stamp is not None or at_ms is None:
        at_ms = required_stamp_ms(stamp, "timestamp", receipt_ms)
    subject = name_of(members, "thingName")
    arn = members.get("thingArn")
    if subject is None and isinstance(arn, str) and (match := THING_ARN.fullmatch(arn)):
        subject = storable(match[1], "the thing's name in thingArn")
    return Observation("registry", subject, at_ms, body_of(members))


def read_watch(members: dict[str, Any], receipt_ms: int, now_ms: int) -> Watch:
    """Read a statement of watching. Raises Unreadable where it says no source or no stretch.

    What began by its receipt may have gone on until now: one statement grows with its stretch (ingest/ledger.py).
    """
    source = name_of(members, "source")
    from_ms = required_stamp_ms(members.get("from"), "from", receipt_ms)
    to_ms = required_stamp_ms(members.get("to"), "to", max(receipt_ms, now_ms))
    if source is None or to_ms < from_ms:
        raise Unreadable("unknown-shape", "a watch statement needs a source, and from before to")
    return Watch(source, from_ms, to_ms)


def name_of(members: dict[str, Any], name: str) -> str | None:
    """Give a member that is text and not empty. Raises Unreadable as `storable` does."""
    value = members.get(name)
    return storable(value, name) if isinstance(value, str) and value else None


def body_of(members: dict[str, Any]) -> str:
    """Write an observation as it is kept; small enough that its line in a recording is a record again."""
    body = canonical(members)
    if len(body) > RECORD_BYTES - _LINE_BYTES:
        raise Unreadable("too-large", "more than 1 MiB; split it")
    check_nesting(body.encode("ascii"), members, NESTING + 1)  # one more for what we put around an answer
    return body
