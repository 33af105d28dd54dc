"""Which client speaks for a thing. The only module that holds this rule.

At T it is the client bound to the thing by the latest event up to T that bears its `thingName` (an exclusive
thing: the connection may use another client id); else the client of the same name, which is what AWS's own
index follows (FACTS: GetThingConnectivityData).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Names(Protocol):
    """What the rule asks of the store."""

    def client_named(self, client_id: str) -> int | None:
        """Find a client by its id."""

    def thing_named(self, name: str) -> int | None:
        """Find a thing by a name that events bore."""

    def bound(self, thing_no: int, at_ms: int, known_at: int) -> int | None:
        """Find the client that the latest event up to `at_ms` bearing the thing's name came from."""

    def bearers(self, thing_no: int, known_at: int) -> Iterable[tuple[int, int]]:
        """List `(at_ms, client_no)` of every event that bears a thing's name, ascending."""


class Binding(NamedTuple):
    """This client speaks for the thing throughout `[from_ms, to_ms)`; None: no beginning, no end."""

    from_ms: int | None
    to_ms: int | None
    client_no: int


def client_of(names: Names, thing_name: str, at_ms: int, known_at: int) -> int | None:
    """Find the client that speaks for a thing at an instant, as known at another; None: never heard of."""
    thing_no = names.thing_named(thing_name)
    if thing_no is not None:
        bound = names.bound(thing_no, at_ms, known_at)
        if bound is not None:
            return bound
    return names.client_named(thing_name)


def bindings(names: Names, thing_name: str, known_at: int) -> list[Binding]:
    """List who speaks for a thing when, ascending and without gap; empty for a name never heard of."""
    spoken: list[tuple[int | None, int]] = []
    own = names.client_named(thing_name)
    if own is not None:
        spoken.append((None, own))
    thing_no = names.thing_named(thing_name)
    if thing_no is not None:
        for at_ms, client_no in names.bearers(thing_no, known_at):
            if spoken and spoken[-1][0] == at_ms:
                spoken.pop()  # the last of those at one instant holds
            if not spoken or spoken[-1][1] != client_no:
                spoken.append((at_ms, client_no))
    ends = [*(from_ms for from_ms, _ in spoken), None][1:]
    return [Binding(from_ms, to_ms, no) for (from_ms, no), to_ms in zip(spoken, ends, strict=True)]
