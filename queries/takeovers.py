"""Which client ids are taken over, and by whom. Pure, but for the look at who connected.

A takeover is a connect while the same client is connected: the state stays, the session is another. Between two devices
that were given one client id it goes on for ever: each throws the other out. The *holder* of a session is the principal
and the address that its connect bore. A takeover is a *swap* where the two holders are known to differ, and *ping-pong*
where it takes the swap before it back. Both are lower bounds: what no evidence says, or what was redacted, counts as no
difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from queries.uptime import Counted, Span, Stretch
from store.asker import Asker


class Holder(NamedTuple):
    """Who connected; None where no evidence says so."""

    principal: str | None
    ip: str | None


class Takeover(NamedTuple):
    """One session in the place of another.

    `told`: an event told of the former's end after that, as AWS does in a takeover. Else its end was never told: a
    disconnect may have got lost.
    """

    at_ms: int
    before: Holder
    after: Holder
    told: bool


class Taken(NamedTuple):
    """The takeovers of one client while it spoke for a thing; ascending."""

    thing_name: str | None
    client_id: str
    takeovers: Sequence[Takeover]


class Summary(NamedTuple):
    """What the takeovers of one client come to."""

    takeovers: int
    told: int
    swaps: int
    ping_pong: int
    principals: int  # distinct
    addresses: int
    first_ms: int
    last_ms: int
    holders: Sequence[tuple[Holder, int]]  # how many takeovers each won, most first


_TOLD = ("takeover", "takeover-unseen")  # rules of ingest/reduce.py


def takeovers_in(
    asker: Asker, client_id: str, stretches: Sequence[Stretch], window: Span, known_at: int
) -> list[Takeover]:
    """List the takeovers of one client, with who held the sessions: a seek for each of those."""
    client_no = asker.client_named(client_id)
    holders: dict[int | None, Holder] = {None: Holder(None, None)}

    def holder(stretch: Stretch) -> Holder:
        at_ms = None if stretch.seen is None else stretch.seen.timestamp_ms
        if at_ms not in holders:
            rows = asker.rows("holder", client_no=client_no, at_ms=at_ms, known_at=known_at)
            principal, ip = (next((row[place] for row in rows if row[place]), None) for place in (0, 1))
            holders[at_ms] = Holder(principal, ip)
        return holders[at_ms]

    return [
        Takeover(
            after.from_ms,
            holder(before),
            holder(after),
            told=after.seen is not None and after.seen.rule in _TOLD,
        )
        for before, after in turns(stretches, window)
    ]


def turns(stretches: Sequence[Stretch], window: Span) -> Iterator[tuple[Stretch, Stretch]]:
    """List the takeovers in a window as the stretches before and after each."""
    for before, after in pairwise(stretches):
        is_on = before.counted is after.counted is Counted.CONNECTED
        if is_on and after.turn and window[0] <= after.from_ms < window[1]:
            yield before, after


def summary(takeovers: Sequence[Takeover]) -> Summary:
    """Add up the takeovers of one client, of which there is at least one."""
    wins = Counter(each.after for each in takeovers)
    holders = {each.before for each in takeovers} | set(wins)
    swaps = [(each.before, each.after) for each in takeovers if _differ(each.before, each.after)]
    return Summary(
        takeovers=len(takeovers),
        told=sum(each.told for each in takeovers),
        swaps=len(swaps),
        ping_pong=sum(later == earlier[::-1] for earlier, later in pairwise(swaps)),
        principals=len({each.principal for each in holders} - {None}),
        addresses=len({each.ip for each in holders} - {None}),
        first_ms=takeovers[0].at_ms,
        last_ms=takeovers[-1].at_ms,
        holders=sorted(wins.items(), key=lambda one: (-one[1], one[0].principal or "", one[0].ip or "")),
    )


def _differ(one: Holder, other: Holder) -> bool:
    """Tell whether two holders are known to differ."""
    return any(
        None not in pair and pair[0] != pair[1]
        for pair in ((one.principal, other.principal), (one.ip, other.ip))
    )
