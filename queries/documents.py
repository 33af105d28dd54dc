"""A thing as AWS's fleet index describes it: its document, and the fields that a query or an aggregation may name.

Pure: whoever reads the store makes the documents (queries/fleet.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Document(NamedTuple):
    """How one thing stood at an instant. `connected` None: nobody knows, and the index says nothing of it."""

    thing_name: str
    thing_id: str | None = None
    type_name: str | None = None
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    connected: bool | None = None
    timestamp_ms: int | None = None
    reason: str | None = None  # None while it is connected: the index leaves it out then


Values = Callable[[Document], tuple[str, ...]]  # what a document holds in a field; () where it holds nothing

_CONNECTED: dict[bool | None, tuple[str, ...]] = {True: ("true",), False: ("false",), None: ()}


def _optional(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


FIELDS: dict[str, Values] = {
    "thingName": lambda one: (one.thing_name,),
    "thingId": lambda one: _optional(one.thing_id),
    "thingTypeName": lambda one: _optional(one.type_name),
    "thingGroupNames": lambda one: one.groups,
    "connectivity.connected": lambda one: _CONNECTED[one.connected],
    "connectivity.timestamp": lambda one: () if one.timestamp_ms is None else (str(one.timestamp_ms),),
    "connectivity.disconnectReason": lambda one: _optional(one.reason),
}
ATTRIBUTE = "attributes."
# What the name and the timeline of a thing tell; all other fields take the registry.
NAMING = frozenset({"thingName"})
STANDING = NAMING | {name for name in FIELDS if name.startswith("connectivity.")}
# As GetIndexingConfiguration names the managed fields.
_SAME = {"registry.thingTypeName": "thingTypeName", "registry.thingGroupNames": "thingGroupNames"}
# What AWS indexes and no evidence tells.
_NOT_KEPT = ("shadow", "deviceDefender", "registry", "connectivity")


class UnknownField(Exception):
    """The field is none of the index, or none that is kept; the message says which are."""


def field_named(name: str) -> str:
    """Give the one name of a field. Raises UnknownField. Names are case sensitive, as AWS's are."""
    name = _SAME.get(name, name)
    if name in FIELDS or (name.startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE)):
        return name
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    known = ", ".join(FIELDS)
    if name.partition(".")[0] in _NOT_KEPT:
        raise UnknownField(
            f"{shown} is not supported: no evidence tells it. Fields are {known}, attributes.NAME"
        )
    raise UnknownField(f"there is no field {shown}. Fields are {known}, attributes.NAME; case matters")


def values_of(field: str) -> Values:
    """Give the way to a field's values; `field` is one that `field_named` gave."""
    if not field.startswith(ATTRIBUTE):
        return FIELDS[field]
    name = field[len(ATTRIBUTE) :]
    return lambda one: tuple(value for key, value in one.attributes if key == name)


def everywhere(one: Document) -> tuple[str, ...]:
    """Give what a term without a field is looked for in: all that the registry holds of a thing."""
    told = (one.thing_name, one.thing_id, one.type_name, *one.groups, *(value for _, value in one.attributes))
    return tuple(value for value in told if value is not None)


# --- Numbers ------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def number(text: str) -> int | float | None:
    """Read a number as JSON writes it, exactly; None: it is none, or too large for a double."""
    match = _NUMBER.fullmatch(text) if len(text) <= 400 else None
    if match is None:
        return None
    if match[1] is None and match[2] is None:
        return int(text)
    value = float(text)
    return value if abs(value) <= 1.7976931348623157e308 else None


def indexed_number(text: str) -> int | float | None:
    """Read a value that the index takes for a number: an integer in -2^53..2^53-1, or a double."""
    value = number(text)
    return None if isinstance(value, int) and not -(1 << 53) <= value < 1 << 53 else value


# --- Shapes -------------------------------------------------------------------------------------------------


def search_json(one: Document) -> dict[str, Any]:
    """Give the member of `things` in SearchIndex's answer; what is empty is left out, times are milliseconds."""
    told: dict[str, Any] = {"thingName": one.thing_name}
    if one.thing_id is not None:
        told["thingId"] = one.thing_id
    if one.type_name is not None:
        told["thingTypeName"] = one.type_name
    if one.groups:
        told["thingGroupNames"] = list(one.groups)
    if one.attributes:
        told["attributes"] = dict(one.attributes)
    if one.connected is not None:
        said: dict[str, Any] = {"connected": one.connected}
        if one.timestamp_ms is not None:
            said["timestamp"] = one.timestamp_ms
        if one.reason is not None:
            said["disconnectReason"] = one.reason
        told["connectivity"] = said
    return told


def listed_json(one: Document) -> dict[str, Any]:
    """Give the member of `things` in ListThings' answer. Its ARN and version are left out: no evidence tells them."""
    told: dict[str, Any] = {"thingName": one.thing_name, "attributes": dict(one.attributes)}
    if one.type_name is not None:
        told["thingTypeName"] = one.type_name
    return told


def described_json(one: Document) -> dict[str, Any]:
    """Give DescribeThing's answer."""
    told = {"defaultClientId": one.thing_name, **listed_json(one)}
    if one.thing_id is not None:
        told["thingId"] = one.thing_id
    return told
