"""What changed between two states of one report of uptime. Pure: of things in the order of their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from queries.uptime import Thing, account
from queries.uptime_report import Fleet, Report, figures


class Change(NamedTuple):
    """A figure of one policy that is another than it was; None: there was no such thing, or nothing was known."""

    policy: str
    figure: str
    before: Any
    after: Any


class Revised(NamedTuple):
    """A thing (or the fleet) whose figures changed."""

    thing_name: str | None
    client_id: str | None
    changes: list[Change]
    fleet: bool = False

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.thing_name or self.client_id or ""


def revisions(report: Report, before: Iterable[Thing], after: Iterable[Thing]) -> Iterator[Revised]:
    """Give the things whose figures changed, by name, then the fleet if its did. Constant memory."""
    sums = [Fleet() for _ in report.policies], [Fleet() for _ in report.policies]
    for pair in _pairs(before, after):
        changes: list[Change] = []
        told = [_figures(report, thing, fleets) for thing, fleets in zip(pair, sums, strict=True)]
        for place, policy in enumerate(report.policies):
            changes += _changes(policy.name, told[0][place], told[1][place])
        one = pair[1] or pair[0]
        if changes and one is not None:
            yield Revised(one.thing_name, one.client_id, changes)
    changes = []
    for policy, was, now in zip(report.policies, *sums, strict=True):
        changes += _changes(policy.name, _of_fleet(was), _of_fleet(now))
    if changes:
        yield Revised(None, None, changes, fleet=True)


def _figures(report: Report, thing: Thing | None, fleets: list[Fleet]) -> list[dict[str, Any]]:
    if thing is None:
        return [{} for _ in report.policies]
    found = []
    for fleet, reckoned in zip(fleets, thing.reckoned, strict=True):
        sums = account(reckoned)
        fleet.add(sums)
        found.append(figures(sums))
    return found


def _of_fleet(fleet: Fleet) -> dict[str, Any]:
    return {"things": fleet.things, **figures(fleet.sums), "meanAvailability": fleet.mean}


def _changes(policy: str, was: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    for name in now or was:
        if was.get(name) != now.get(name):
            yield Change(policy, name, was.get(name), now.get(name))


def _pairs(before: Iterable[Thing], after: Iterable[Thing]) -> Iterator[tuple[Thing | None, Thing | None]]:
    """Put together what is of one name; both ascend by it."""
    left, right = iter(before), iter(after)
    was, now = next(left, None), next(right, None)
    while was is not None or now is not None:
        if was is None or (now is not None and _key(now) < _key(was)):
            yield None, now
            now = next(right, None)
        elif now is None or _key(was) < _key(now):
            yield was, None
            was = next(left, None)
        else:
            yield was, now
            was, now = next(left, None), next(right, None)


def _key(thing: Thing) -> tuple[str, bool]:
    return thing.thing_name or thing.client_id, thing.thing_name is None
