"""The rules, and the traps that other consumers fell into, as an operator would read them.

Each case: its name, the rule in a sentence, what arrived (minutes), and the timeline that follows from it, one
line a transition: minute, state, AWS's stamp, reason, and whether the stretch before it is proven.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from ingest.reduce import reduce_events
from store.model import MINUTE_MS, Event, State
from tests.builders import T0, connect, connect_failed, disconnect, subscribed, taken_over


def m(minutes: float) -> int:
    return T0 + round(minutes * MINUTE_MS)


class Case(NamedTuple):
    rule: str
    arrived: list[Event]
    timeline: list[str]


CASES: dict[str, Case] = {
    "one session": Case(
        "Connect and disconnect of one session prove the time between them.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
        ],
        ["0 connected @0 NONE", "10 disconnected @10 CONNECTION_LOST proven"],
    ),
    "consecutive sessions": Case(
        "The next version, less than 45 minutes later: nothing lay between, so the outage is proven.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
            connect(m(12), session="b", version=1),
        ],
        [
            "0 connected @0 NONE",
            "10 disconnected @10 CONNECTION_LOST proven",
            "12 connected @12 NONE proven",
        ],
    ),
    "a skipped version": Case(
        "A version left out proves nothing either way: the outage is inferred.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
            connect(m(12), session="c", version=2),
        ],
        ["0 connected @0 NONE", "10 disconnected @10 CONNECTION_LOST proven", "12 connected @12 NONE"],
    ),
    "takeover": Case(
        "The old session's DUPLICATE_CLIENTID, stamped after the new connect, closes nothing.",
        [
            connect(m(0), session="a", version=0),
            connect(m(5), session="b", version=1),
            taken_over(m(5.1), session="a", version=0),
        ],
        ["0 connected @0 NONE", "5 connected @5 NONE proven"],
    ),
    "takeover stamped early": Case(
        "DUPLICATE_CLIENTID is never an outage, though stamped before the connect that caused it.",
        [
            connect(m(0), session="a", version=0),
            taken_over(m(4.9), session="a", version=0),
            connect(m(5), session="b", version=1),
        ],
        ["0 connected @0 NONE", "5 connected @5 NONE proven"],
    ),
    "takeover by a session unseen": Case(
        "A newer session exists though its connect was lost: connected, its timestamp unknown.",
        [connect(m(0), session="a", version=0), taken_over(m(30), session="a", version=0)],
        ["0 connected @0 NONE", "30 connected @? NONE"],
    ),
    "trap: a late disconnect of an old session": Case(
        "A disconnect of any session but the current one changes no state.",
        [
            connect(m(0), session="a", version=0),
            connect(m(20), session="b", version=1),
            disconnect(m(25), session="a", version=0),
        ],
        ["0 connected @0 NONE", "20 connected @20 NONE proven"],
    ),
    "trap: highest version wins": Case(
        "After a reset the first message may bear version 1, not 0; it still is the newest session.",
        [
            connect(m(0), session="a", version=41),
            disconnect(m(10), session="a", version=41),
            connect(m(90), session="b", version=1),
            disconnect(m(95), session="b", version=1),
        ],
        [
            "0 connected @0 NONE",
            "10 disconnected @10 CONNECTION_LOST proven",
            "90 connected @90 NONE",
            "95 disconnected @95 CONNECTION_LOST proven",
        ],
    ),
    "trap: version 0 twice": Case(
        "Two epochs may both hold version 0: the session id tells them apart.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
            connect(m(80), session="b", version=0),
        ],
        ["0 connected @0 NONE", "10 disconnected @10 CONNECTION_LOST proven", "80 connected @80 NONE"],
    ),
    "trap: connect_failed": Case(
        "A failed connect is no disconnect; the live session goes on.",
        [
            connect(m(0), session="a", version=0),
            connect_failed(m(5), session="x"),
            subscribed(m(6), session="a"),
        ],
        ["0 connected @0 NONE"],
    ),
    "trap: one duplicate inverts a count": Case(
        "Redelivered events change nothing, with or without their decoration.",
        [
            connect(m(0), session="a", version=0),
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
            connect(m(0), session="a", version=0, extra='{"topic":"x"}'),
        ],
        ["0 connected @0 NONE", "10 disconnected @10 CONNECTION_LOST proven"],
    ),
    "trap: two states in one millisecond": Case(
        "At one instant the last in session order holds; the others have length zero and stay in history.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(0), session="a", version=0),
            connect(m(0), session="b", version=1),
        ],
        ["0 connected @0 NONE", "0 connected @0 NONE proven"],
    ),
    "a disconnect stamped before its connect": Case(
        "Stamps are approximations: a disconnect takes effect no earlier than its own connect.",
        [connect(m(1), session="a", version=0), disconnect(m(0.5), session="a", version=0)],
        ["0.5 unknown @? -", "1 connected @1 NONE", "1 disconnected @0.5 CONNECTION_LOST proven"],
    ),
    "a connect stamped before its predecessor": Case(
        "Versions say which came first; the later session takes effect at the earlier one's instant.",
        [connect(m(2), session="a", version=0), connect(m(1), session="b", version=1)],
        ["1 unknown @? -", "2 connected @2 NONE", "2 connected @1 NONE"],
    ),
    "a lost disconnect, the version went on": Case(
        "The last state is carried on to the next connect, inferred.",
        [connect(m(0), session="a", version=0), connect(m(60), session="b", version=1)],
        ["0 connected @0 NONE", "60 connected @60 NONE"],
    ),
    "a lost disconnect, the version fell": Case(
        "The client was off for about an hour before the connect: shown an hour before, within bounds.",
        [connect(m(0), session="a", version=7), connect(m(300), session="b", version=0)],
        ["0 connected @0 NONE", "240 disconnected @? -", "300 connected @300 NONE"],
    ),
    "a lost connect": Case(
        "The former state stands up to the disconnect, inferred.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0),
            disconnect(m(30), session="b", version=1),
        ],
        [
            "0 connected @0 NONE",
            "10 disconnected @10 CONNECTION_LOST proven",
            "30 disconnected @30 CONNECTION_LOST",
        ],
    ),
    "only a disconnect": Case(
        "Before its first evidence nothing is said of a client.",
        [disconnect(m(30), session="b", version=1)],
        ["30 disconnected @30 CONNECTION_LOST"],
    ),
    "only noise": Case(
        "A client that was heard of, but never of its state, is known, and its state is not.",
        [connect_failed(m(3))],
        ["3 unknown @? -"],
    ),
    "an old shape: no session id": Case(
        "A disconnect joins the latest connect of its version.",
        [
            connect(m(0), version=3),
            disconnect(m(10), version=3),
            connect(m(11), version=4),
        ],
        [
            "0 connected @0 NONE",
            "10 disconnected @10 CONNECTION_LOST proven",
            "11 connected @11 NONE proven",
        ],
    ),
    "an old shape: neither id nor version": Case(
        "A disconnect ends the session that is current just before its stamp, and proves nothing.",
        [connect(m(0)), disconnect(m(10), reason=None), connect(m(11))],
        ["0 connected @0 NONE", "10 disconnected @10 -", "11 connected @11 NONE"],
    ),
    "a copy that disagrees": Case(
        "Of each member the smallest value holds, whichever copy came first.",
        [
            connect(m(0), session="a", version=0),
            disconnect(m(10), session="a", version=0, reason="SERVER_ERROR"),
            disconnect(m(12), session="a", version=0, reason="CLIENT_ERROR"),
        ],
        ["0 connected @0 NONE", "10 disconnected @10 SERVER_ERROR proven"],
    ),
}


def minutes(ms: int) -> str:
    return f"{(ms - T0) / MINUTE_MS:g}"


def lines(events: list[Event]) -> list[str]:
    words = {State.CONNECTED: "connected", State.DISCONNECTED: "disconnected", State.UNKNOWN: "unknown"}
    return [
        f"{minutes(row.at_ms)} {words[row.state]}"
        f" @{'?' if row.timestamp_ms is None else minutes(row.timestamp_ms)} {row.reason or '-'}"
        + (" proven" if row.proved_from_ms is not None else "")
        for row in reduce_events(events)
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_timeline_is_as_the_rule_says_in_any_order_of_arrival(name: str, rng: random.Random) -> None:
    case = CASES[name]
    for _ in range(6):
        assert lines(case.arrived) == case.timeline, case.rule
        rng.shuffle(case.arrived)


def test_an_estimated_disconnect_is_bounded_by_the_last_proof_and_the_reset() -> None:
    estimated = reduce_events(CASES["a lost disconnect, the version fell"].arrived)[1]
    assert (estimated.not_before_ms, estimated.not_after_ms) == (m(0), m(300 - 45))
