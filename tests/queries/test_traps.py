"""What other consumers got wrong, as an operator would check it by hand: what came in, and what the report says.

Each trap of the list in a table: the rule in a sentence, the events in the order in which they came, each with its
share, and the minutes of the window that count as up, down, unknown and not registered; outages, reconnects, takeovers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.purge import purge
from ingest.writer import Writer
from queries.history import History, open_history
from queries.uptime import Account, Policy, account
from store.engine import open_writer, parse_url
from store.model import MINUTE_MS, Event, Learned, Watch
from tests.builders import T0, connect, connect_failed, disconnect, taken_over
from tests.contract.test_commands import Run, event_json, on_any, run

__all__ = ["on_any", "run"]  # fixtures

DAY = 24 * 60
BEGIN_MS = T0 - 30 * DAY * MINUTE_MS  # minute 0; the store knows of nothing before it
NOW_MS = T0


def at(minute: float) -> int:
    return BEGIN_MS + round(minute * MINUTE_MS)


def up(minute: float, session: str, version: int | None = 0) -> Event:
    return connect(at(minute), session=session, version=version)


def down(minute: float, session: str, version: int | None = 0, reason: str = "CONNECTION_LOST") -> Event:
    return disconnect(at(minute), session=session, version=version, reason=reason)


class Trap(NamedTuple):
    """What came in, and the sums of the report of `[from, to)`, in minutes."""

    name: str
    rule: str
    told: Sequence[Event]
    window: tuple[int, int]
    sums: tuple[int, int, int, int]  # up, down, unknown, not registered
    counts: tuple[int, int, int]  # outages, reconnects, takeovers


TRAPS = [
    Trap(
        "a reset that begins with version 1",
        "The counter starts anew after an hour off, and its first message may be lost: the highest is not the newest.",
        [
            up(0, "a", 41),
            down(60, "a", 41),
            up(180, "c", 1),  # version 0 got lost: what waits for it ignores the device for ever
            down(240, "c", 1),
        ],
        (0, 300),
        (120, 180, 0, 0),  # 0-60, 180-240 up
        (2, 1, 0),
    ),
    Trap(
        "two epochs with one version",
        "Both sessions are version 0; without the session id one would be taken for a copy of the other.",
        [up(0, "a"), down(30, "a"), up(150, "b"), down(180, "b")],
        (0, 200),
        (60, 140, 0, 0),
        (2, 1, 0),
    ),
    Trap(
        "version 0 is a number like any other",
        "A falsy version must not be read as none: the session continues where 1 follows 0.",
        [up(0, "a", 0), down(10, "a", 0), up(12, "b", 1)],
        (0, 20),
        (18, 2, 0, 0),
        (1, 1, 0),
    ),
    Trap(
        "connect_failed is no disconnect",
        "Somebody else tried the client id in vain; the session lives.",
        [up(0, "a"), connect_failed(at(5), session="x"), connect_failed(at(6), session="y")],
        (0, 60),
        (60, 0, 0, 0),
        (0, 0, 0),
    ),
    Trap(
        "connect_failed alone connects nobody",
        "A client of which only failures are told was never connected, and has no outage.",
        [connect_failed(at(5), session="x")],
        (10, 60),
        (0, 0, 50, 0),
        (0, 0, 0),
    ),
    Trap(
        "a late disconnect of an old session",
        "The device was back before the end of its old session was told: it ends the old session, not the live one.",
        [
            up(0, "a", 0),
            up(30, "b", 1),
            taken_over(at(30.02), session="a", version=0),  # a second later, of the session before
            down(29, "a", 0),  # ... and again, much later
        ],
        (0, 60),
        (59, 1, 0, 0),  # down from 29 to 30: that much was true
        (1, 1, 0),
    ),
    Trap(
        "a takeover is no outage",
        "DUPLICATE_CLIENTID says that a newer session exists: the device never went off.",
        [up(0, "a", 0), up(30, "b", 1), taken_over(at(30.01), session="a", version=0)],
        (0, 60),
        (60, 0, 0, 0),
        (0, 0, 1),
    ),
    Trap(
        "one duplicate of each",
        "A state kept as a count of events is inverted by one copy, for ever.",
        [up(0, "a"), up(0, "a"), down(20, "a"), down(20, "a"), down(20, "a"), up(30, "b", 1)],
        (0, 60),
        (50, 10, 0, 0),
        (1, 1, 0),
    ),
    Trap(
        "the other way round",
        "Order of arrival is no order: the disconnect came before its connect, and both after the next session.",
        [up(40, "b", 1), down(20, "a", 0), up(0, "a", 0)],
        (0, 60),
        (40, 20, 0, 0),
        (1, 1, 0),
    ),
    Trap(
        "connected all through",
        "No event in the window, and none for days before it: looked back for, however far.",
        [up(0, "a")],
        (20 * DAY, 21 * DAY),
        (DAY, 0, 0, 0),
        (0, 0, 0),
    ),
    Trap(
        "disconnected all through",
        "The same of an outage: it is 0 % up, and one outage, not no data.",
        [up(0, "a"), down(60, "a")],
        (20 * DAY, 21 * DAY),
        (0, DAY, 0, 0),
        (1, 0, 0),
    ),
    Trap(
        "an outage that goes on",
        "It has no end to be summed by; it counts up to the end of the window.",
        [up(0, "a"), down(60, "a")],
        (0, 100),
        (60, 40, 0, 0),
        (1, 0, 0),
    ),
    Trap(
        "an outage cut on both sides",
        "More than 100 % comes of counting it whole in each window that it touches.",
        [up(0, "a"), down(60, "a"), up(160, "b", 0)],
        (100, 150),
        (0, 50, 0, 0),
        (1, 0, 0),
    ),
    Trap(
        "two states at one millisecond",
        "A connect and a disconnect of one stamp: the last in session order holds, and nothing stops.",
        [up(0, "a", 0), down(30, "a", 0), up(30, "b", 1), down(30, "b", 1), up(30, "c", 2)],
        (0, 60),
        (60, 0, 0, 0),
        (0, 0, 1),
    ),
    Trap(
        "a disconnect stamped before its own connect",
        "Stamps are approximate; the session has length zero, and time does not run backwards.",
        [up(0, "a", 0), down(20, "a", 0), up(30, "b", 1), down(29.5, "b", 1)],
        (0, 60),
        (20, 40, 0, 0),
        (1, 0, 0),
    ),
    Trap(
        "not heard of yet",
        "What was not there is neither up nor down: not 100 %, and not 0 %.",
        [up(5 * DAY, "a")],
        (4 * DAY, 6 * DAY),
        (DAY, 0, 0, DAY),
        (0, 0, 0),
    ),
]


@pytest.fixture(scope="module")
def stored(new_shared_url: Callable[[], str]) -> Iterator[History]:
    """One store: a client a trap, told one event a batch, in the order in which they came."""
    url = new_shared_url()
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: NOW_MS) as writer:
        # Something was told at minute 0, so that the store's history begins there.
        writer.write(
            [Learned(connect(BEGIN_MS, session="s", version=0, client_id="first"), 0)], source="test"
        )
        for number, trap in enumerate(TRAPS):
            for event in trap.told:
                writer.write([Learned(event._replace(client_id=f"trap-{number}"), 0)], source="test")
    with open_history(url, clock=lambda: NOW_MS) as history:
        yield history


def sums_of(history: History, name: str, window: tuple[int, int]) -> Account:
    (thing,) = history.uptime(window, [Policy()], names=[name])
    return account(thing.reckoned[0])


@pytest.mark.parametrize("number", range(len(TRAPS)), ids=[trap.name for trap in TRAPS])
def test_a_report_does_not_fall_into_it(stored: History, number: int) -> None:
    trap = TRAPS[number]
    window = at(trap.window[0]), at(trap.window[1])
    sums = sums_of(stored, f"trap-{number}", window)
    told = sums.connected_ms, sums.disconnected_ms, sums.unknown_ms, sums.not_registered_ms
    assert tuple(ms / MINUTE_MS for ms in told) == trap.sums, trap.rule
    assert (sums.outages, sums.reconnects, sums.takeovers) == trap.counts, trap.rule
    assert sum(told) == window[1] - window[0]


def test_the_parts_of_a_window_add_up_to_it(stored: History) -> None:
    """A year is the sum of its months: of each trap, days cut anywhere give what the whole gives."""
    cuts = [at(minute) for minute in (0, 7, 30, 31, 100, DAY, 5 * DAY, 5 * DAY + 1, 21 * DAY)]
    for number in range(len(TRAPS)):
        name = f"trap-{number}"
        whole, added = sums_of(stored, name, (cuts[0], cuts[-1])), Account()
        for window in pairwise(cuts):
            added.add(sums_of(stored, name, window))
        parts = ("connected_ms", "disconnected_ms", "unknown_ms", "not_registered_ms", "reasons")
        assert [getattr(added, part) for part in parts] == [getattr(whole, part) for part in parts], name


def test_our_own_downtime_is_not_the_device_s(store_url: str) -> None:
    """Nobody recorded from minute 60 to 120; the device was lost at 30 and is there again at 150."""
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: NOW_MS) as writer:
        told = [up(0, "a", 0), down(30, "a", 0), up(150, "b", 1)]
        writer.write([Learned(event, 0) for event in told], source="test")
        watched = [Watch("queue", at(0), at(60)), Watch("queue", at(120), at(200))]
        writer.write([Learned(each, 0) for each in watched], source="test")
    with open_history(store_url, clock=lambda: NOW_MS) as history:
        sums = sums_of(history, "pump-17", (at(0), at(200)))
    # Version 1 follows 0 within 45 minutes only; over two hours nothing proves that it was off all the time.
    found = (sums.connected_ms, sums.disconnected_ms, sums.unknown_ms)
    assert tuple(ms / MINUTE_MS for ms in found) == (80, 60, 60)


def test_what_is_redelivered_is_the_same_evidence_whatever_it_is_wrapped_in(run: Run, tmp_path: Path) -> None:
    """No id is made up on the way in: the same events as lines, in an SQS body and in an array change nothing."""
    told = [event_json(each) for each in (up(0, "a", 0), down(20, "a", 0), up(30, "b", 1))]
    lines = tmp_path / "lines.ndjson"
    lines.write_text("\n".join(map(json.dumps, told)))
    records = tmp_path / "records.json"
    records.write_text(json.dumps({"Records": [{"body": json.dumps(each)} for each in told]}))
    array = tmp_path / "array.json"
    array.write_text(json.dumps(told[::-1]))
    window = ("--from", str(at(0)), "--to", str(at(60)))
    reports = []
    for path in (lines, records, array):
        assert run("ingest", str(path)).code == 0
        reports.append(run("uptime", *window, "--json").objects[1:])
    assert reports[0] == reports[1] == reports[2]
    assert reports[0][0]["disconnectedMs"] == 10 * MINUTE_MS
    assert run("db", "status", "--json").objects[0]["evidence"] == 3


def test_no_statistic_is_of_a_listed_page(run: Run, store_url: str) -> None:
    """Of 400 outages three are listed; the sums are of all of them."""
    told = [
        event
        for turn in range(400)
        for event in (up(10 * turn, f"s{turn}", turn), down(10 * turn + 9, f"s{turn}", turn))
    ]
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([Learned(event, 0) for event in told], source="test")
    window = ("--from", str(at(0)), "--to", str(at(4_000)))
    _, *listed = run("outages", *window, "--longest", "3", "--json").objects
    _, thing, fleet = run("uptime", *window, "--json").objects
    assert len(listed) == 3
    for row in (thing, fleet):
        assert (row["outages"], row["disconnectedMs"]) == (400, 400 * MINUTE_MS)
    assert fleet["explainedBy"]["outages"] == 400


def test_a_purge_keeps_the_state_that_still_holds(store_url: str) -> None:
    """Connected, or disconnected, since long before the horizon: after the purge the report is the same."""
    told = [up(0, "a"), up(0, "b")._replace(client_id="pump-18"), down(60, "b")._replace(client_id="pump-18")]
    window = at(20 * DAY), at(21 * DAY)
    with open_writer(parse_url(store_url)) as store:
        with Writer(store, clock=lambda: NOW_MS) as writer:
            writer.write([Learned(event, 0) for event in told], source="test")
        purge(store, at(10 * DAY))
    with open_history(store_url, clock=lambda: NOW_MS) as history:
        first, second = (sums_of(history, name, window) for name in ("pump-17", "pump-18"))
    assert (first.connected_ms, first.availability) == (DAY * MINUTE_MS, 1)
    assert (second.disconnected_ms, second.availability, second.outages) == (DAY * MINUTE_MS, 0, 1)
