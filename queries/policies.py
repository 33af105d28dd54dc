"""Policies of uptime accounting as they are typed: `NAME: grace=5m coalesce=1m hours='Mon-Fri 08:00-18:00'`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

from queries.calendars import outside_hours
from queries.times import length_ms
from queries.uptime import Policy, Span, UnknownAs
from queries.uptime_report import NamedPolicy
from store.errors import BadTime, UsageError


def read_policies(said: Sequence[str], zone: tzinfo | None, window: Span) -> list[NamedPolicy]:
    """Read policies, each of a name of its own. Raises UsageError."""
    found = [read_policy(text, zone, window) for text in said]
    if len({each.name for each in found}) < len(found):
        raise UsageError("Two policies have one name; give each its own.")
    return found


def read_policy(text: str, zone: tzinfo | None, window: Span) -> NamedPolicy:
    """Read one policy; its service hours are those of a zone, in a window. Raises UsageError."""
    name, _, settings = (part.strip() for part in text.partition(":"))
    given: dict[str, Any] = {}
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise UsageError(f"--policy {text!a}: {error}.") from error
    for word in words:
        key, _, value = word.partition("=")
        try:
            if key in ("grace", "coalesce"):
                given[f"{key}_ms"] = length_ms(value)
            elif key == "unknown":
                given["unknown"] = UnknownAs(value)
            elif key == "maintenance":
                given["without_maintenance"] = _one_of(value, "count", "exclude") == "exclude"
            elif key == "false-alarms":
                given["without_false_alarms"] = _one_of(value, "count", "connected") == "connected"
            elif key == "hours":
                if zone is None:
                    raise BadTime("service hours are those of a zone: give --tz Europe/Berlin, or UTC")
                given["excluded"] = outside_hours(value, zone, window)
            else:
                raise BadTime(
                    f"{key!a} is no setting; give grace, coalesce, unknown, hours, maintenance or false-alarms"
                )
        except (ValueError, BadTime) as error:
            raise UsageError(f"--policy {text!a}: {str(error).rstrip('.')}.") from error
    if not name:
        raise UsageError(f"--policy {text!a} has no name; give 'NAME: SETTINGS'.")
    return NamedPolicy(name, " ".join(words), Policy(**given))


def _one_of(value: str, *words: str) -> str:
    if value not in words:
        raise ValueError(f"{value!a} is none of {' and '.join(words)}")
    return value
