"""The command that tells when a thing was registered, and as what: registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from queries.commands import known_at_option, tz_option
from store.options import described, json_option, realm_option, store_option

if TYPE_CHECKING:
    from store.registry import Lifetime, Registry


@click.command(
    "registry",
    **described(
        "Tell when there was a THING of that name in AWS's registry, and of what type, in which groups and with which"
        " attributes, over time: from registry events, from listings of all things (`thingline run`), and from the"
        " API's answers. While there was none, questions about it are answered with ResourceNotFoundException."
        " docs/registry.md has the rule.",
        "thingline registry pump-17",
        "thingline registry pump-17 --known-at 2026-11-01T00:00:00Z --json",
    ),
)
@click.argument("thing")
@known_at_option
@tz_option
@realm_option
@store_option
@json_option
def registry(
    thing: str, known_at: str | None, tz: str | None, realm: str, url: str | None, as_json: bool
) -> int:
    from queries.history import open_history
    from queries.output import json_line

    with open_history(url, realm=realm, tz=tz) as history:
        found = history.registry(thing, known_at=known_at)
    lines = map(json_line, _objects(thing, found)) if as_json else _words(found)
    for line in lines:
        click.echo(line)
    return 0


def _objects(thing: str, found: Registry) -> Iterator[dict[str, Any]]:
    from queries.times import iso

    def time(ms: int | None) -> str | None:
        return None if ms is None else iso(ms)

    for each in found.lifetimes:
        yield {
            "thingName": thing,
            "thingId": each.thing_id,
            "from": iso(each.from_ms),
            "notBefore": time(each.not_before_ms),
            "to": time(each.to_ms),
            "lastTold": iso(each.last_told_ms),
            "registeredAs": [
                {
                    "from": iso(from_ms),
                    "thingTypeName": said.type_name,
                    "thingGroupNames": list(said.groups),
                    "attributes": dict(said.attributes),
                }
                for from_ms, said in each.descriptions
            ],
        }


def _words(found: Registry) -> Iterator[str]:
    from queries.output import safe
    from queries.times import iso

    for from_ms, to_ms in found.unregistered()[:1]:
        if from_ms == found.absent_from_ms:
            yield f"not registered: from {iso(from_ms)}" + (
                f", to {iso(to_ms)}" if found.lifetimes else " on"
            )
    for each in found.lifetimes:
        yield _span(each)
        for from_ms, said in each.descriptions:
            attributes = ", ".join(f"{name}={value}" for name, value in said.attributes)
            groups = f"groups {', '.join(said.groups)}" if said.groups else "no groups"
            parts = (f"type {said.type_name}" if said.type_name else "no type", groups, attributes)
            yield safe(f"    {iso(from_ms)}  {'; '.join(part for part in parts if part)}")


def _span(each: Lifetime) -> str:
    from queries.output import safe
    from queries.times import iso

    begins = iso(each.from_ms)
    if each.not_before_ms is None:
        begins = f"before {begins}"
    elif each.not_before_ms < each.from_ms:
        begins = f"between {iso(each.not_before_ms)} and {begins}"
    ends = "still" if each.to_ms is None else iso(each.to_ms)
    if each.to_ms is not None and each.last_told_ms < each.to_ms:
        ends = f"between {iso(each.last_told_ms)} and {ends}"
    return f"registered: from {begins}, to {ends}" + (f"  ({safe(each.thing_id)})" if each.thing_id else "")


COMMANDS = (registry,)
