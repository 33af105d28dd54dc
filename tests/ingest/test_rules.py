"""The rules, and the traps that other consumers fell into, as an operator would read them.

Each case: its name, the rule in a sentence, what arrived (minutes), and the timeline that follows from it, one
line a transition: minute, state, AWS's stamp, reason, and whether the stretch before it is proven.

The cases of API checks follow, where milliseconds and bounds matter: there a line is the instant (min:s), the
state, AWS's stamp, the reason, the rule that made it, its bounds where they are wider than the instant, whether
the stretch before it is proven, and the stretch after it that checks prove.
"""

from __future__ import annotations

import json
import random
from itertools import zip_longest
from typing import NamedTuple

import pytest

from ingest.checks import check_of
from ingest.reduce import proven_from, reduce_events
from store.model import (
    DUPLICATE_CLIENTID,
    MINUTE_MS,
    SECOND_MS,
    Check,
    Event,
    Observation,
    State,
    Transition,
)
from tests.builders import (
    CLIENT,
    T0,
    connect,
    connect_failed,
    disconnect,
    said_connected,
    said_disconnected,
    said_never_connected,
    subscribed,
    taken_over,
)


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


# --- Checks -------------------------------------------------------------------------------------------------


def t(text: str) -> int:
    """Read `min:s` after T0 as epoch ms."""
    minute, _, second = text.partition(":")
    return T0 + int(minute) * MINUTE_MS + round(float(second) * SECOND_MS)


def clock(ms: int) -> str:
    minute, rest_ms = divmod(ms - T0, MINUTE_MS)
    second, fraction_ms = divmod(rest_ms, SECOND_MS)
    return f"{minute}:{second:02}" + (f".{fraction_ms:03}" if fraction_ms else "")


class Checked(NamedTuple):
    rule: str
    events: list[Event]
    checks: list[Check]
    timeline: list[str]


CHECKED: dict[str, Checked] = {
    "confirmed to the millisecond": Checked(
        "An answer that names the millisecond of a transition proves its state from there on, up to the asking"
        " less LAG; it adds nothing else.",
        [connect(t("0:00.120"), session="a", version=0), disconnect(t("20:00.345"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:00.120")), said_disconnected(t("30:00"), t("20:00.345"))],
        [
            "0:00.120 connected @0:00.120 NONE by connect; checks prove 0:00.120..14:50",
            "20:00.345 disconnected @20:00.345 CONNECTION_LOST by disconnect, proven;"
            " checks prove 20:00.345..29:50",
        ],
    ),
    "a check proves up to its asking less LAG": Checked(
        "The index may be ten seconds behind the broker: of those an answer says nothing.",
        [connect(t("0:00"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:00")), said_connected(t("30:00"), t("0:00"))],
        ["0:00 connected @0:00 NONE by connect; checks prove 0:00..29:50"],
    ),
    "a check proves nothing past the next transition": Checked(
        "An answer from before the change was indexed is no witness against it.",
        [connect(t("0:00"), session="a", version=0), disconnect(t("10:00"), session="a", version=0)],
        [said_connected(t("10:30"), t("0:00"))],
        [
            "0:00 connected @0:00 NONE by connect; checks prove 0:00..10:00",
            "10:00 disconnected @10:00 CONNECTION_LOST by disconnect, proven",
        ],
    ),
    "confirmed in whole seconds": Checked(
        "An answer in whole seconds confirms the transition within that second: the event's own milliseconds"
        " stand. Of the second itself it proves nothing.",
        [connect(t("0:00.120"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:00"), whole=True)],
        ["0:00.120 connected @0:00.120 NONE by connect; checks prove 0:00.999..14:50"],
    ),
    "within a second": Checked(
        "An instant up to a second beside a transition that we hold is that transition; it proves nothing.",
        [connect(t("0:00.120"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:01.120"))],
        ["0:00.120 connected @0:00.120 NONE by connect"],
    ),
    "more than a second aside": Checked(
        "A millisecond further it is another transition, which we missed.",
        [connect(t("0:00.120"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:01.121"))],
        [
            "0:00.120 connected @0:00.120 NONE by connect",
            "0:01.121 connected @0:01.121 NONE by check-named; checks prove 0:01.121..14:50",
        ],
    ),
    "a connect that we missed": Checked(
        "A named connect that no event told of is laid at its instant. It need not be the session whose"
        " disconnect comes next, so that nothing is proven between the last asking and that.",
        [
            connect(t("0:00"), session="a", version=0),
            disconnect(t("10:00"), session="a", version=0),
            disconnect(t("30:00"), session="b", version=1),
        ],
        [said_connected(t("15:00"), t("12:00.250"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "10:00 disconnected @10:00 CONNECTION_LOST by disconnect, proven",
            "12:00.250 connected @12:00.250 NONE by check-named; checks prove 12:00.250..14:50",
            "30:00 disconnected @30:00 CONNECTION_LOST by connect-lost",
        ],
    ),
    "a disconnect that we missed": Checked(
        "A named disconnect that no event told of is back-dated to the very millisecond, whenever it was asked.",
        [connect(t("0:00"), session="a", version=0), connect(t("40:00"), session="b", version=1)],
        [said_disconnected(t("30:00"), t("12:00.250"), reason="MQTT_KEEP_ALIVE_TIMEOUT")],
        [
            "0:00 connected @0:00 NONE by connect",
            "12:00.250 disconnected @12:00.250 MQTT_KEEP_ALIVE_TIMEOUT by check-named;"
            " checks prove 12:00.250..29:50",
            "40:00 connected @40:00 NONE by connect",
        ],
    ),
    "a disconnect that we missed, in whole seconds": Checked(
        "Then it lies within that second.",
        [connect(t("0:00"), session="a", version=0)],
        [said_disconnected(t("30:00"), t("12:00"), whole=True)],
        [
            "0:00 connected @0:00 NONE by connect",
            "12:00 disconnected @12:00 CONNECTION_LOST by check-named, in 12:00..12:00.999;"
            " checks prove 12:00.999..29:50",
        ],
    ),
    "an answer that names no instant": Checked(
        "It is laid at its asking, its timestamp unknown, bounded by the last proof of another state.",
        [connect(t("0:00"), session="a", version=0)],
        [said_connected(t("15:00"), t("0:00")), said_disconnected(t("30:00"))],
        [
            "0:00 connected @0:00 NONE by connect; checks prove 0:00..14:50",
            "30:00 disconnected @? CONNECTION_LOST by check-laid, in 14:50..30:00",
        ],
    ),
    "an answer that names no instant, and no proof before it": Checked(
        "Without a proof the bounds begin where the state began.",
        [connect(t("0:00"), session="a", version=0)],
        [said_disconnected(t("30:00"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "30:00 disconnected @? CONNECTION_LOST by check-laid, in 0:00..30:00",
        ],
    ),
    "unnamed answers that repeat one": Checked(
        "The first of them is laid; the others agree with it.",
        [connect(t("0:00"), session="a", version=0)],
        [said_disconnected(t("30:00")), said_disconnected(t("45:00")), said_disconnected(t("60:00"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "30:00 disconnected @? CONNECTION_LOST by check-laid, in 0:00..30:00",
        ],
    ),
    "never connected": Checked(
        "Disconnected, of reason UNKNOWN, since nobody knows when: no timestamp, and no lower bound.",
        [],
        [said_never_connected(t("5:00")), said_never_connected(t("20:00"))],
        [
            "5:00 unknown @? - by first-evidence",
            "5:00 disconnected @? UNKNOWN by check-laid, in ?..5:00",
        ],
    ),
    "never connected, until it did": Checked(
        "The first connect ends it.",
        [connect(t("30:00"), session="a", version=0)],
        [said_never_connected(t("5:00"))],
        [
            "5:00 unknown @? - by first-evidence",
            "5:00 disconnected @? UNKNOWN by check-laid, in ?..5:00",
            "30:00 connected @30:00 NONE by connect",
        ],
    ),
    "a stale answer": Checked(
        "An answer that names a transition older than what we hold changes no state.",
        [
            connect(t("0:00"), session="a", version=0),
            disconnect(t("10:00"), session="a", version=0),
            connect(t("12:00"), session="b", version=1),
        ],
        [said_disconnected(t("20:00"), t("10:00"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "10:00 disconnected @10:00 CONNECTION_LOST by disconnect, proven; checks prove 10:00..12:00",
            "12:00 connected @12:00 NONE by connect, proven",
        ],
    ),
    "agreeing within LAG": Checked(
        "An unnamed answer that was true at some instant of the last ten seconds contradicts nothing.",
        [connect(t("0:00"), session="a", version=0), disconnect(t("10:00"), session="a", version=0)],
        [said_connected(t("10:09.999"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "10:00 disconnected @10:00 CONNECTION_LOST by disconnect, proven",
        ],
    ),
    "no longer within LAG": Checked(
        "Ten seconds after the change an answer that still disagrees tells of a transition.",
        [connect(t("0:00"), session="a", version=0), disconnect(t("10:00"), session="a", version=0)],
        [said_connected(t("10:10"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "10:00 disconnected @10:00 CONNECTION_LOST by disconnect, proven",
            "10:10 connected @? NONE by check-laid, in 10:00..10:10",
        ],
    ),
    "an answer of DUPLICATE_CLIENTID": Checked(
        "It speaks of a session that another one replaced, and is no outage, named or not.",
        [connect(t("0:00"), session="a", version=0)],
        [
            said_disconnected(t("15:00"), t("10:00"), reason=DUPLICATE_CLIENTID),
            said_disconnected(t("30:00"), reason=DUPLICATE_CLIENTID),
        ],
        ["0:00 connected @0:00 NONE by connect"],
    ),
    "an unnamed answer against a proof by one session": Checked(
        "Connect and disconnect of one session prove the time between: an answer against that changes nothing.",
        [connect(t("0:00"), session="a", version=0), disconnect(t("30:00"), session="a", version=0)],
        [said_disconnected(t("15:00"))],
        [
            "0:00 connected @0:00 NONE by connect",
            "30:00 disconnected @30:00 CONNECTION_LOST by disconnect, proven",
        ],
    ),
    "an unnamed answer against a proof by a check": Checked(
        "So does a check that names its instant.",
        [connect(t("0:00"), session="a", version=0)],
        [said_connected(t("30:00"), t("0:00")), said_disconnected(t("15:00"))],
        ["0:00 connected @0:00 NONE by connect; checks prove 0:00..29:50"],
    ),
    "a lost disconnect, the version fell, and a check": Checked(
        "The bounds of the disconnect that nobody saw begin at the last proof by a check.",
        [connect(t("0:00"), session="a", version=7), connect(t("300:00"), session="b", version=0)],
        [said_connected(t("120:10"), t("0:00"))],
        [
            "0:00 connected @0:00 NONE by connect; checks prove 0:00..120:00",
            "240:00 disconnected @? - by disconnect-lost, in 120:00..255:00",
            "300:00 connected @300:00 NONE by connect",
        ],
    ),
    "a lost disconnect, and a check less than an hour before the next connect": Checked(
        "It is shown an hour before that connect, but not before the last proof.",
        [connect(t("0:00"), session="a", version=7), connect(t("300:00"), session="b", version=0)],
        [said_connected(t("250:10"), t("0:00"))],
        [
            "0:00 connected @0:00 NONE by connect; checks prove 0:00..250:00",
            "250:00 disconnected @? - by disconnect-lost, in 250:00..255:00",
            "300:00 connected @300:00 NONE by connect",
        ],
    ),
}


def checked_lines(rows: list[Transition]) -> list[str]:
    return [
        _checked_line(row, following) for row, following in zip_longest(rows, rows[1:]) if row is not None
    ]


def _checked_line(row: Transition, following: Transition | None) -> str:
    stamp = "?" if row.timestamp_ms is None else clock(row.timestamp_ms)
    line = f"{clock(row.at_ms)} {row.state.name.lower()} @{stamp} {row.reason or '-'} by {row.rule}"
    if row.not_after_ms is not None and (row.not_before_ms, row.not_after_ms) != (row.at_ms, row.at_ms):
        earliest = "?" if row.not_before_ms is None else clock(row.not_before_ms)
        line += f", in {earliest}..{clock(row.not_after_ms)}"
    if row.proved_from_ms is not None:
        line += ", proven"
    if row.confirmed is not None:
        until_ms = row.confirmed.until_ms
        ends_ms = until_ms if following is None else min(until_ms, following.at_ms)
        line += f"; checks prove {clock(proven_from(row))}..{clock(ends_ms)}"
    return line


@pytest.mark.parametrize("name", CHECKED)
def test_checks_confirm_mend_and_prove_as_the_rule_says_in_any_order(name: str, rng: random.Random) -> None:
    case = CHECKED[name]
    for _ in range(6):
        assert checked_lines(reduce_events(case.events, case.checks)) == case.timeline, case.rule
        rng.shuffle(case.events)
        rng.shuffle(case.checks)


@pytest.mark.parametrize(
    "stamp", [{}, {"timestamp": None}, {"timestamp": 0}, {"timestamp": "1970-01-01T00:00:00+00:00"}]
)
def test_what_never_connected_is_no_transition_in_1970(stamp: dict[str, object]) -> None:
    response = {"thingName": CLIENT, "connected": False, "disconnectReason": "UNKNOWN", **stamp}
    body = {"api": "GetThingConnectivityData", "thingName": CLIENT, "response": response}
    check = check_of(Observation("check", CLIENT, t("5:00"), json.dumps(body)))
    assert check == said_never_connected(t("5:00"))
    rows = reduce_events([], [check])
    assert [(row.rule, row.timestamp_ms, row.not_before_ms) for row in rows] == [
        ("first-evidence", None, None),
        ("check-laid", None, None),
    ]
    assert all(row.at_ms == t("5:00") for row in rows)
