"""The uptime of things, groups and the fleet: what goes into which sum, and what a report says of itself.

How time is counted stands in queries/uptime.py. A report is a receipt: its window, its policies and its moment of
learning are part of it, and asked again for the same it is the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from queries.uptime import Account, Outage, Policy, Reckoned, Span, Thing, Verdict, account, split, verdict

EXPLAINED = 0.8  # of the down time: by how few it is explained


class NamedPolicy(NamedTuple):
    """A policy, and how it was asked for."""

    name: str
    said: str  # its settings, in the words of the command line
    policy: Policy


class GroupBy(NamedTuple):
    """What groups are made by: type, group, reason, realm, or an attribute of a name."""

    kind: str
    attribute: str | None = None

    def keys(self, thing: Thing, at_ms: int) -> list[str | None]:
        """Name the groups that a thing belonged to at an instant; None: none."""
        if self.kind == "realm":
            return [thing.realm]
        lifetime = None if thing.registry is None else thing.registry.lifetime(at_ms)
        if lifetime is None:
            return [None]
        said = lifetime.described(at_ms)
        if self.kind == "type":
            return [said.type_name]
        if self.kind == "group":
            return list(said.groups) or [None]
        return [dict(said.attributes).get(self.attribute or "")]

    def cuts(self, thing: Thing) -> list[int]:
        """List the instants at which a thing may have changed its groups, ascending."""
        if thing.registry is None or self.kind == "realm":
            return []
        found: set[int] = set()
        for each in thing.registry.lifetimes:
            found |= {each.from_ms, *(from_ms for from_ms, _ in each.descriptions)}
            found |= set() if each.to_ms is None else {each.to_ms}
        return sorted(found)


class Lengths:
    """Lengths of time, of which there may be millions: kept by the power of two that each stays below."""

    __slots__ = ("_by_power",)

    def __init__(self) -> None:
        self._by_power: dict[int, array[int]] = {}

    def add(self, ms: int) -> None:
        """Count one."""
        self._by_power.setdefault(ms.bit_length(), array("q")).append(ms)

    def __len__(self) -> int:
        return sum(map(len, self._by_power.values()))

    def fewest(self, share: float) -> int:
        """Tell how many of the longest make up a share of them all."""
        wanted = share * sum(map(sum, self._by_power.values()))
        reached = count = 0
        for _, lengths in sorted(self._by_power.items(), reverse=True):
            whole = sum(lengths)
            if reached + whole < wanted:
                reached += whole
                count += len(lengths)
                continue
            for ms in sorted(lengths, reverse=True):
                if reached >= wanted:
                    return count
                reached += ms
                count += 1
        return count


@dataclass(slots=True)
class Burned:
    """What the down time of one policy came from: the lengths of its outages, and who had them."""

    outages: Lengths = field(default_factory=Lengths)
    things: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, outages: Iterable[Outage], sums: Account) -> None:
        """Count one thing's."""
        for each in outages:
            self.outages.add(each.down_ms)
        if sums.disconnected_ms:
            self.things[name] = self.things.get(name, 0) + sums.disconnected_ms
        for reason, down_ms in sums.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + down_ms

    def as_json(self) -> dict[str, Any]:
        """Say how few outages, things and reasons explain most of it."""
        return {
            "share": EXPLAINED,
            "outages": len(self.outages),
            "fewestOutages": self.outages.fewest(EXPLAINED),
            "fewestThings": _fewest(self.things),
            "fewestReasons": _fewest(self.reasons),
        }


def _fewest(parts: dict[str, int]) -> list[str]:
    """Name the fewest parts that make up most of the whole, the largest first."""
    wanted, found = EXPLAINED * sum(parts.values()), list[str]()
    reached = 0
    for name, ms in sorted(parts.items(), key=lambda part: (-part[1], part[0])):
        if reached >= wanted:
            break
        found.append(name)
        reached += ms
    return found


@dataclass(slots=True)
class Fleet:
    """All things, or those of one group, by one policy."""

    sums: Account = field(default_factory=Account)
    things: int = 0
    shares: array[float] = field(default_factory=lambda: array("d"))  # availability, of each that has one

    def add(self, sums: Account) -> None:
        """Count one thing."""
        self.sums.add(sums)
        self.things += 1
        if sums.availability is not None:
            self.shares.append(sums.availability)

    @property
    def mean(self) -> float | None:
        """The mean of the things' availabilities, each counting the same."""
        return sum(self.shares) / len(self.shares) if self.shares else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to report, and of what: `rows` goes through the things."""

    window: Span
    policies: Sequence[NamedPolicy]
    group_by: GroupBy | None = None
    target: float | None = None
    each_thing: bool = True

    def rows(self, things: Iterable[Thing]) -> Iterator[dict[str, Any]]:
        """Give a row a thing and policy, in the order of the things; then the groups, by name; then the fleet."""
        fleets = [Fleet() for _ in self.policies]
        burned = [Burned() for _ in self.policies]
        groups: dict[tuple[int, str | None], Fleet] = {}
        for thing in things:
            name = (thing.realm + ": " if thing.realm else "") + (thing.thing_name or thing.client_id)
            for place, (policy, reckoned) in enumerate(zip(self.policies, thing.reckoned, strict=True)):
                sums = account(reckoned)
                fleets[place].add(sums)
                burned[place].add(name, reckoned.outages, sums)
                for key, part in self._parts(thing, reckoned, sums):
                    groups.setdefault((place, key), Fleet()).add(part)
                if self.each_thing:
                    named = {"thingName": thing.thing_name, "clientId": thing.client_id}
                    yield {**named, **self._sums(policy, sums)}
        for (place, key), group in sorted(groups.items(), key=lambda one: (one[0][0], one[0][1] or "")):
            assert self.group_by is not None
            by = ":".join(filter(None, self.group_by))
            head: dict[str, Any] = {"groupBy": by, "group": key, "things": group.things}
            if self.group_by.kind == "reason":  # of time that is connected there is no reason
                down_ms = group.sums.disconnected_ms
                yield {**head, "policy": self.policies[place].name, "disconnectedMs": down_ms}
            else:
                yield {**head, **self._sums(self.policies[place], group.sums), "meanAvailability": group.mean}
        for place, fleet in enumerate(fleets):
            row: dict[str, Any] = {
                "fleet": True,
                "things": fleet.things,
                **self._sums(self.policies[place], fleet.sums),
            }
            yield {**row, "meanAvailability": fleet.mean, "explainedBy": burned[place].as_json()}

    def _parts(self, thing: Thing, reckoned: Reckoned, sums: Account) -> Iterator[tuple[str | None, Account]]:
        """Give the sums of a thing that belong to each group, as it was grouped then."""
        if self.group_by is None:
            return
        if self.group_by.kind == "reason":
            for reason, down_ms in sums.reasons.items():
                yield reason, Account(disconnected_ms=down_ms, reasons={reason: down_ms})
            return
        found: dict[str | None, Account] = {}
        cuts = [at_ms for at_ms in self.group_by.cuts(thing) if self.window[0] < at_ms < self.window[1]]
        begins = [self.window[0], *cuts]
        for from_ms, part in zip(begins, split(reckoned, cuts), strict=True):
            for key in self.group_by.keys(thing, from_ms):
                found.setdefault(key, Account()).add(account(part))
        yield from found.items()

    def _sums(self, policy: NamedPolicy, sums: Account) -> dict[str, Any]:
        row: dict[str, Any] = {"policy": policy.name, **figures(sums)}
        if self.target is not None:
            row |= slo(sums, self.target)
        return row

    def said(self) -> dict[str, Any]:
        """Say what the report is about, its window apart."""
        return {"policies": {each.name: each.said for each in self.policies}, "target": self.target}


def figures(sums: Account) -> dict[str, Any]:
    """Give what a report says of one thing's sums, or of a group's; targets apart."""
    return {
        "connectedMs": sums.connected_ms,
        "disconnectedMs": sums.disconnected_ms,
        "unknownMs": sums.unknown_ms,
        "excludedMs": sums.excluded_ms,
        "notRegisteredMs": sums.not_registered_ms,
        "availability": sums.availability,
        "availabilityLow": sums.availability_low,
        "availabilityHigh": sums.availability_high,
        "outages": sums.outages,
        "outagesEnded": sums.ended,
        "longestOutageMs": sums.longest_outage_ms,
        "mtbfMs": sums.mtbf_ms,
        "mttrMs": sums.mttr_ms,
        "reconnects": sums.reconnects,
        "takeovers": sums.takeovers,
    }


def slo(sums: Account, target: float) -> dict[str, Any]:
    """Judge a target, with its error budget: the down time that it allows in the time that is known."""
    known_ms = sums.connected_ms + sums.disconnected_ms
    budget_ms = round((1 - target) * known_ms)
    judged = verdict(sums, target)
    unsure_ms = sums.counted_ms - sums.observed_connected_ms - sums.observed_disconnected_ms
    return {
        "target": target,
        "verdict": judged.value,
        "budgetMs": budget_ms,
        "budgetLeftMs": budget_ms - sums.disconnected_ms,
        # What is not proven; checks of the API, or events that come late, may still settle it.
        "unsureMs": unsure_ms if judged is Verdict.CANNOT_BE_TOLD else 0,
    }
