"""How the fleet stands at an instant: every thing's answer, and how many answer alike.

The answers are those of store/answer.py, one by one; the rest is pure, whoever reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from queries.times import iso
from store.answer import Answer, Asker, ask, is_legal
from store.errors import IndexNotReady, ResourceNotFound
from store.identity import bindings
from store.registry import Description, Registry

_EVER_MS = 1 << 62
STATES = {True: "connected", False: "disconnected", None: "unknown"}


class Standing(NamedTuple):
    """How one thing stands at an instant. `answer` None: there was no such thing then."""

    thing_name: str | None
    client_id: str
    answer: Answer | None
    registry: Registry | None
    realm: str | None = None  # where several are told of

    def described(self, at_ms: int) -> Description:
        """Tell what it was registered as; nothing where nobody knows."""
        lifetime = None if self.registry is None else self.registry.lifetime(at_ms)
        return Description() if lifetime is None else lifetime.described(at_ms)


def standings(
    asker: Asker, names: Iterable[tuple[str, bool]], at_ms: int, *, known_at: int, now_ms: int
) -> Iterator[Standing]:
    """Answer for each of `(name, whether it is a client's id)`, in that order.

    Raises InvalidRequest for the future, IndexNotReady before the history begins or before what a purge left.
    """
    check_begun(asker, at_ms, known_at)
    for name, as_client in names:
        thing_name = name if is_legal(name) else None
        registry = None if as_client else asker.registry(name, known_at, whole=True)
        try:
            answer = ask(asker, name, at_ms, known_at=known_at, now_ms=now_ms, by_client=as_client)
        except ResourceNotFound:
            with suppress(ResourceNotFound):
                check_heard_of(asker, name, known_at, by_client=as_client)
                yield Standing(thing_name, name, None, registry)
        else:
            yield Standing(thing_name, answer.client_id, answer, registry)


def names_of(asker: Asker, known_at: int, *, by_client: bool = False) -> list[tuple[str, bool]]:
    """List whom to ask for, by name: `(name, whether it is a client's id)`; of some nobody may have known then."""
    if by_client:
        return sorted((row[0], True) for row in asker.rows("all_clients", realm=asker.realm))
    names = {(row[0], False) for row in asker.rows("things", realm=asker.realm) if is_legal(row[0])}
    for (client_id,) in asker.rows("own_names", realm=asker.realm, known_at=known_at):
        names.add((client_id, not is_legal(client_id)))
    return sorted(names)


def check_begun(asker: Asker, at_ms: int, known_at: int) -> None:
    """Refuse an instant before the history begins, or before what a purge left. Raises IndexNotReady."""
    asker.check_horizon(at_ms, known_at)
    if not asker.begun(at_ms, known_at):
        raise IndexNotReady("The history of this store begins later than the time asked for.")


def check_heard_of(asker: Asker, name: str, known_at: int, *, by_client: bool = False) -> None:
    """Refuse a thing (or client) of which nothing was known at a moment, of whatever time. Raises ResourceNotFound.

    A report of then must not list what was first heard of since.
    """
    if by_client:
        own = asker.client_named(name)
        numbers = [] if own is None else [own]
    else:
        numbers = [binding.client_no for binding in bindings(asker, name, known_at)]
    if all(asker.before(number, _EVER_MS, known_at) is None for number in numbers):
        raise ResourceNotFound(f"The resource {name} was never heard of.")


@dataclass(slots=True)
class Counts:
    """How many things stand how, by what: of each key the states of its things."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of those that are disconnected
    types: dict[str | None, Counter[str]] = field(default_factory=dict)
    groups: dict[str | None, Counter[str]] = field(default_factory=dict)
    realms: dict[str | None, Counter[str]] = field(default_factory=dict)

    def add(self, standing: Standing, at_ms: int) -> None:
        """Count one thing; in every group that it was in."""
        answer = standing.answer
        if answer is None:
            self.states["notRegistered"] += 1
            return
        state = STATES[answer.connected]
        self.states[state] += 1
        if standing.realm is not None:
            self.realms.setdefault(standing.realm, Counter())[state] += 1
        if answer.connected is False:
            self.reasons[answer.disconnect_reason or "UNKNOWN"] += 1
        said = standing.described(at_ms)
        self.types.setdefault(said.type_name, Counter())[state] += 1
        for group in said.groups or (None,):
            self.groups.setdefault(group, Counter())[state] += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give a row a count: states, then reasons, most first, then types, groups and realms by name."""
        for state in (*STATES.values(), "notRegistered"):
            yield {"countBy": "state", "key": state, "things": self.states[state]}
        for reason, things in sorted(self.reasons.items(), key=lambda one: (-one[1], one[0])):
            yield {"countBy": "reason", "key": reason, "things": things}
        for name, counted in (("type", self.types), ("group", self.groups), ("realm", self.realms)):
            for key, states in sorted(counted.items(), key=lambda one: (one[0] is None, one[0] or "")):
                parts = {state: states[state] for state in STATES.values()}
                yield {"countBy": name, "key": key, "things": states.total(), **parts}


def standing_row(standing: Standing, at_ms: int) -> dict[str, Any]:
    """Give the row of a thing that there was, of one level, as CSV and Parquet have it."""
    answer = standing.answer
    assert answer is not None
    said, last = standing.described(at_ms), answer.last_known
    realm = {} if standing.realm is None else {"realm": standing.realm}
    return {
        "thingName": standing.thing_name,
        "clientId": answer.client_id,
        "state": STATES[answer.connected],
        "connected": answer.connected,
        "timestamp": _iso(answer.timestamp_ms),
        "disconnectReason": answer.disconnect_reason,
        "certainty": answer.certainty.value,
        "notBefore": _iso(answer.not_before_ms),
        "notAfter": _iso(answer.not_after_ms),
        "lastKnownConnected": None if last is None else last.connected,
        "lastKnownTimestamp": None if last is None else _iso(last.timestamp_ms),
        "lastKnownDisconnectReason": None if last is None else last.disconnect_reason,
        "thingTypeName": said.type_name,
        "thingGroupNames": list(said.groups),
        **realm,
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
