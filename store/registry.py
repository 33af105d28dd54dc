"""When a thing was registered, and as what: its lifetimes, type, groups and attributes over time. Pure.

What is told of the registry is kept as it came and read anew for each question, for it is little; nothing derived
from it is stored. Each piece says of one instant that the thing *was*, that it *was not*, or that it *began* or
*ended* there; sorted by instant, they make lifetimes, and any order of arrival makes the same.

| told by | says |
|---|---|
| THING_EVENT of CREATED, of DELETED | began, ended at its stamp |
| THING_EVENT of UPDATED; an association with a type or a group | was, at its stamp |
| an answer of the API about it | was, at some instant of the index's lag before the asking |
| a listing of all things that holds it | was, at the asking |
| a complete listing that does not | was not, at some instant between its beginning and its end |
| ResourceNotFoundException | was not, at some instant of the index's lag before the asking |

1. A `thingId` begins and ends once: what is told of it after its end changes nothing, another id in its place ends it,
   and an absence between two pieces that tell of it was none. Where its end was not told, it lies between the last that
   was told of it and the first that contradicts it.
2. Of what speaks of a span only that counts which no event within the span explains: an index may be behind.
3. Before its first lifetime it was not registered where something says so: an absence, or that it was created later,
   from where anything was told of the registry at all. Else nobody knows. Between two lifetimes, and after the last, it
   was not.
4. Type and attributes are those of the last piece that tells them; groups are counted by what joins and leaves, and by
   the index, which tells them all. A new lifetime begins with none.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from enum import IntEnum
from operator import itemgetter
from typing import Any, NamedTuple

from store.model import LAG_MS

LISTING = "THING_LISTING"  # eventType of what a sweep of ListThings says; ours, not AWS's
LISTED, NOT_LISTED, COMPLETE = "LISTED", "NOT_LISTED", "COMPLETE"

# By the message alone this is told from a thing that is not there (FACTS: GetThingConnectivityData).
NO_INDEX = re.compile(r"AWS_Things\b.*does not exist", re.ASCII | re.IGNORECASE | re.DOTALL)
_GROUP_ARN = re.compile(r"arn:[^:]*:iot:[^:]*:[^:]*:thinggroup/(.+)", re.DOTALL)
_EVER_MS = 1 << 62


class Description(NamedTuple):
    """What a thing was registered as. Groups and the names of attributes ascend."""

    type_name: str | None = None
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


class Lifetime(NamedTuple):
    """One registration of a name, in force throughout `[from_ms, to_ms)`; `to_ms` None: it goes on.

    It began in `[not_before_ms, from_ms]`, None where nobody knows how much earlier, and ended in
    `[last_told_ms, to_ms]`: each one instant where its beginning, or its end, was told.
    """

    thing_id: str | None
    not_before_ms: int | None
    from_ms: int
    last_told_ms: int
    to_ms: int | None
    descriptions: tuple[tuple[int, Description], ...]  # each from an instant on; ascending

    def described(self, at_ms: int) -> Description:
        """Tell what it was registered as at an instant; before the first that was told, as at that one."""
        place = bisect_right(self.descriptions, at_ms, key=itemgetter(0))
        return self.descriptions[max(0, place - 1)][1]


class Registry(NamedTuple):
    """All lifetimes of one name, ascending, without overlap.

    `absent_from_ms`: before the first of them it was not registered from then on; None: nobody knows.
    """

    lifetimes: tuple[Lifetime, ...]
    absent_from_ms: int | None

    def lifetime(self, at_ms: int) -> Lifetime | None:
        """Find the lifetime that an instant falls into."""
        place = bisect_right(self.lifetimes, at_ms, key=_from)
        if place == 0:
            return None
        found = self.lifetimes[place - 1]
        return found if found.to_ms is None or at_ms < found.to_ms else None

    def unregistered(self) -> list[tuple[int, int]]:
        """List the stretches `[from_ms, to_ms)` in which the name was not registered, ascending."""
        ends = [self.absent_from_ms, *(each.to_ms for each in self.lifetimes)]
        begins = [*(each.from_ms for each in self.lifetimes), _EVER_MS]
        return [
            (from_ms, to_ms)
            for from_ms, to_ms in zip(ends, begins, strict=True)
            if from_ms is not None and from_ms < to_ms
        ]

    def is_registered(self, at_ms: int) -> bool | None:
        """Tell whether the name was registered at an instant; None: nobody knows."""
        if self.lifetime(at_ms) is not None:
            return True
        return False if any(from_ms <= at_ms < to_ms for from_ms, to_ms in self.unregistered()) else None


class _Word(IntEnum):
    """In the order in which they hold at one instant."""

    ENDED = 0
    WAS_NOT = 1
    BEGAN = 2
    WAS = 3


_OPERATIONS = {"CREATED": _Word.BEGAN, "DELETED": _Word.ENDED, "UPDATED": _Word.WAS}
_UNTOLD: dict[str, Any] = {"thingTypeName": None, "attributes": {}}  # a listing leaves out what is empty


class Fact(NamedTuple):
    """What one piece of evidence says of one thing: at its stamp, or at some instant of a span that ends with `at_ms`.

    Sorted by the first four, which no two that differ share.
    """

    at_ms: int
    word: _Word
    version: int
    body: str
    from_ms: int  # of the span
    thing_id: str | None = None
    told: tuple[str, ...] = ()  # of type, groups, attributes: which are told, whole
    description: Description = Description()
    joined: str | None = None  # a group
    left: str | None = None


def was(at_ms: int) -> Fact:
    """Say that a thing was registered, as an answer of the API about it does that was asked for at an instant."""
    return Fact(at_ms, _Word.WAS, -1, "", at_ms - LAG_MS)


def fact_of(kind: str, at_ms: int, body: str) -> Fact | None:
    """Read a piece of evidence, as the store keeps it, as what it says of a thing's registration; None: nothing.

    Never raises, for any body: what is stored is stored.
    """
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict):
        return None
    if kind == "registry":
        return _registry_fact(at_ms, members, body)
    error, response = members.get("error"), members.get("response")
    if error is not None:
        text = error if isinstance(error, str) else json.dumps(error)
        if members.get("api") != "GetThingConnectivityData" or "ResourceNotFoundException" not in text:
            return None
        said = f"{text} {members.get('message', '')}"
        if NO_INDEX.search(said):
            return None
        return Fact(at_ms, _Word.WAS_NOT, -1, body, at_ms - LAG_MS)
    if members.get("api") == "SearchIndex" and isinstance(response, dict):
        return _told(at_ms, _Word.WAS, -1, body, at_ms - LAG_MS, response)
    return None


def description_of(thing: dict[str, Any]) -> Description:
    """Read a thing as ListThings describes it, which tells no groups."""
    return _told(0, _Word.WAS, -1, "", 0, {**_UNTOLD, **thing}).description._replace(groups=())


def _registry_fact(at_ms: int, members: dict[str, Any], body: str) -> Fact | None:
    event, operation, version = (
        members.get("eventType"),
        members.get("operation"),
        members.get("versionNumber"),
    )
    version = version if type(version) is int else -1
    if event == "THING_EVENT":
        word = _OPERATIONS.get(str(operation))
        return None if word is None else _told(at_ms, word, version, body, at_ms, members)
    if event == "THING_TYPE_ASSOCIATION_EVENT":
        name = members.get("thingTypeName") if operation == "ADDED" else None
        said = {"thingId": members.get("thingId"), "thingTypeName": name}
        return _told(at_ms, _Word.WAS, version, body, at_ms, said)
    if event == "THING_GROUP_MEMBERSHIP_EVENT":
        match = _GROUP_ARN.fullmatch(str(members.get("groupArn") or members.get("thingGroupArn")))
        group = None if match is None else match[1]
        fact = Fact(at_ms, _Word.WAS, version, body, at_ms, _text(members.get("thingId")))
        return fact._replace(joined=group) if operation == "ADDED" else fact._replace(left=group)
    if event == LISTING and operation == LISTED:
        thing = members.get("thing")
        if not isinstance(thing, dict):
            return None
        return _told(at_ms, _Word.WAS, version, body, at_ms, {**_UNTOLD, **thing})
    if event == LISTING and operation == NOT_LISTED:
        until = members.get("until")
        until_ms = until if type(until) is int and until > at_ms else at_ms
        return Fact(until_ms, _Word.WAS_NOT, version, body, at_ms)
    return None


# Each is made once, at the price of one value: there are several a thing, and a query may read all things.
def _told(at_ms: int, word: _Word, version: int, body: str, from_ms: int, members: dict[str, Any]) -> Fact:
    """Say what a description of the thing says; what is not in it is not told."""
    is_indexed = "connectivity" in members  # the index leaves out what is empty
    told: list[str] = []
    type_name: str | None = None
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    if "thingTypeName" in members or is_indexed:
        told.append("type_name")
        type_name = _text(members.get("thingTypeName"))
    if isinstance(names := members.get("thingGroupNames"), list):
        told.append("groups")
        groups = tuple(sorted({group for group in names if isinstance(group, str) and group}))
    elif is_indexed:
        told.append("groups")
    if isinstance(found := members.get("attributes"), dict):
        told.append("attributes")
        attributes = tuple(sorted((name, _value(value)) for name, value in found.items()))
    elif is_indexed:
        told.append("attributes")
    description = Description(type_name, groups, attributes)
    return Fact(at_ms, word, version, body, from_ms, _text(members.get("thingId")), tuple(told), description)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


# --- Lifetimes ----------------------------------------------------------------------------------------------


class _Open:
    """A lifetime that goes on, as far as the facts were read."""

    def __init__(self, fact: Fact, not_before_ms: int | None) -> None:
        self.thing_id = fact.thing_id
        self._not_before_ms = not_before_ms
        self._from_ms, self.last_told_ms = fact.at_ms, fact.from_ms
        self._described: list[tuple[int, Description]] = []
        self.tell(fact)

    def is_same(self, fact: Fact) -> bool:
        return self.thing_id is not None and self.thing_id == fact.thing_id

    def is_another(self, fact: Fact) -> bool:
        return None not in (self.thing_id, fact.thing_id) and self.thing_id != fact.thing_id

    def began_before(self, fact: Fact) -> bool:
        return self._from_ms < fact.at_ms and not self.is_same(fact)

    def tell(self, fact: Fact) -> None:
        self.thing_id = self.thing_id or fact.thing_id
        self.last_told_ms = max(self.last_told_ms, fact.from_ms)
        new = self._after(fact)
        if self._described and self._described[-1][0] == fact.at_ms:
            self._described.pop()
        if not self._described or self._described[-1][1] != new:
            self._described.append((fact.at_ms, new))

    def _after(self, fact: Fact) -> Description:
        """Lay what a piece tells over what was told before it."""
        now, told = self._described[-1][1] if self._described else Description(), fact.told
        type_name, groups, attributes = (
            getattr(fact.description if name in told else now, name) for name in Description._fields
        )
        if fact.joined is not None or fact.left is not None:
            groups = tuple(sorted({*groups, fact.joined or ""} - {fact.left, ""}))
        return Description(type_name, groups, attributes)

    def ended(self, to_ms: int | None, last_told_ms: int) -> Lifetime:
        told = tuple(self._described)
        return Lifetime(self.thing_id, self._not_before_ms, self._from_ms, last_told_ms, to_ms, told)


def registry_of(facts: Iterable[Fact], *, observed_from_ms: int | None) -> Registry:
    """Make the lifetimes of one name out of all that is told of it, in any order.

    `observed_from_ms`: when anything was first told of the registry, of whatever thing.
    """
    told = sorted(set(facts), key=itemgetter(0, 1, 2, 3))
    exact = [each.at_ms for each in told if each.from_ms == each.at_ms]
    names = _Lifetimes(observed_from_ms)
    for fact in told:
        if fact.thing_id is not None and fact.thing_id in names.over:
            continue
        if fact.from_ms < fact.at_ms and _any_in(exact, fact):
            continue
        if fact.word is _Word.WAS_NOT:
            names.absent(fact)
        elif fact.word is _Word.ENDED:
            names.end(fact)
        else:
            names.tell(fact)
    return names.registry()


def _any_in(instants: Sequence[int], fact: Fact) -> bool:
    place = bisect_left(instants, fact.from_ms)
    return place < len(instants) and instants[place] <= fact.at_ms


class _Lifetimes:
    """The lifetimes of one name, as far as the facts were read; ascending."""

    def __init__(self, observed_from_ms: int | None) -> None:
        self.over: set[str] = set()  # the ids that ended
        self._observed_from_ms = observed_from_ms
        self._ended: list[Lifetime] = []
        self._going: _Open | None = None
        self._supposed: _Open | None = None  # the last of those that ended, where only an absence says so
        self._absent_ms: int | None = None  # the last instant at which it was not
        self._absent_from_ms: int | None = None

    def absent(self, fact: Fact) -> None:
        if self._going is not None:
            self._supposed = self._going
            self._close(fact.at_ms, self._going.last_told_ms)
        elif not self._ended and self._absent_from_ms is None:
            self._absent_from_ms = fact.at_ms
        self._absent_ms = fact.from_ms

    def end(self, fact: Fact) -> None:
        self._resume(fact)
        if fact.thing_id is not None:
            self.over.add(fact.thing_id)
        if self._going is None and (fact.thing_id is not None or not self._ended):
            self._going = _Open(fact, self._absent_ms)  # nothing else is known of it
        if self._going is not None and not self._going.is_another(fact):
            self._close(fact.at_ms, fact.at_ms)
            self._supposed = None
            self._absent_ms = fact.at_ms

    def tell(self, fact: Fact) -> None:
        self._resume(fact)
        going, began = self._going, fact.word is _Word.BEGAN
        if going is not None and not going.is_another(fact) and not (began and going.began_before(fact)):
            going.tell(fact)
            return
        not_before_ms = self._absent_ms
        if going is not None:
            not_before_ms = going.last_told_ms
            if going.thing_id is not None:
                self.over.add(going.thing_id)
            self._close(fact.at_ms, going.last_told_ms)
        elif began and not self._ended:
            known = (self._absent_from_ms, self._observed_from_ms, fact.at_ms)
            self._absent_from_ms = min(each for each in known if each is not None)
        self._supposed = None
        self._going = _Open(fact, fact.at_ms if began else not_before_ms)

    def _resume(self, fact: Fact) -> None:
        """Take back an end that only an absence told of, where the same id is told of later: it ends once."""
        if self._going is None and self._supposed is not None and self._supposed.is_same(fact):
            self._going = self._supposed
            self._ended.pop()

    def _close(self, to_ms: int, last_told_ms: int) -> None:
        assert self._going is not None
        self._ended.append(self._going.ended(to_ms, last_told_ms))
        self._going = None

    def registry(self) -> Registry:
        going = [] if self._going is None else [self._going.ended(None, self._going.last_told_ms)]
        return Registry((*self._ended, *going), self._absent_from_ms)


def absences(facts: Sequence[Fact]) -> list[int]:
    """List the instants at which a thing was told not to be, or to have begun: before each it may have been unseen."""
    return sorted({fact.at_ms for fact in facts if fact.word is not _Word.WAS})


def _from(lifetime: Lifetime) -> int:
    return lifetime.from_ms
