"""Who took over from whom: one device that comes back, and two that were given one client id."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from queries.takeovers import Holder, Takeover, summary

A, B, C = Holder("cert-a", "192.0.2.1"), Holder("cert-b", "192.0.2.2"), Holder("cert-c", "192.0.2.3")
A_ELSEWHERE = Holder("cert-a", "198.51.100.1")
NOBODY, ONLY_IP = Holder(None, None), Holder(None, "192.0.2.1")


class Case(NamedTuple):
    """Who held the sessions, one after another; swaps, ping-pong, principals and addresses."""

    name: str
    holders: list[Holder]
    swaps: int
    ping_pong: int
    principals: int
    addresses: int


CASES = [
    Case("a device takes over its own session", [A, A, A, A], 0, 0, 1, 1),
    Case("it moved to another network", [A, A, A_ELSEWHERE, A_ELSEWHERE], 1, 0, 1, 2),
    Case("a device was replaced", [A, A, B, B], 1, 0, 2, 2),
    Case("two devices throw each other out", [A, B, A, B, A], 4, 3, 2, 2),
    Case("... coming back for themselves between", [A, A, B, B, A], 2, 1, 2, 2),
    Case("three in a circle", [A, B, C, A, B, C], 5, 0, 3, 3),
    Case("one certificate on two devices", [A, A_ELSEWHERE, A, A_ELSEWHERE], 3, 2, 1, 2),
    Case("what nobody told differs from nothing", [A, NOBODY, A, ONLY_IP, A], 0, 0, 1, 1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_took_over(case: Case) -> None:
    taken = [
        Takeover(at_ms, before, after, told=True)
        for at_ms, (before, after) in enumerate(zip(case.holders, case.holders[1:], strict=False))
    ]
    found = summary(taken)
    assert (found.swaps, found.ping_pong, found.principals, found.addresses) == case[2:]
    assert (found.takeovers, found.first_ms, found.last_ms) == (len(taken), 0, len(taken) - 1)
    assert sum(times for _, times in found.holders) == found.takeovers
