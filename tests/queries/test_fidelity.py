"""AWS's answers beside ours, as a table that an operator can read, and over a fleet whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from ingest.decode import decode_stream
from ingest.simulate import Choices, simulate
from ingest.writer import Writer
from queries.fidelity import Outcome
from queries.history import open_history
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Check, Event, Learned
from tests.builders import (
    T0,
    connect,
    disconnect,
    observed,
    said_connected,
    said_disconnected,
    said_never_connected,
)

MINUTE = 60_000
ASKED = T0 + 60 * MINUTE
ON, OFF = connect(T0, session="a", version=1), disconnect(T0 + 30 * MINUTE, session="a", version=1)


def outcomes(url: str, *told: Event | Check) -> list[Outcome]:
    """Learn one piece after another, a second apart, and compare."""
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: ASKED * 2) as writer:
        writer.write(
            [
                Learned(each if isinstance(each, Event) else observed(each), at, ASKED + at * 1_000)
                for at, each in enumerate(told)
            ],
            source="test",
        )
    with open_history(url, clock=lambda: ASKED * 2) as history:
        return [one.outcome for one in history.fidelity()]


@pytest.mark.parametrize(
    ("check", "outcome"),
    [
        (said_disconnected(ASKED, OFF.at_ms), Outcome.SAME),
        (said_disconnected(ASKED, OFF.at_ms // 1000 * 1000, whole=True), Outcome.SAME),
        (said_disconnected(ASKED, None), Outcome.SAME),
        (said_disconnected(ASKED, OFF.at_ms, reason="SERVER_ERROR"), Outcome.REASON),
        (said_disconnected(ASKED, OFF.at_ms + 5 * MINUTE), Outcome.TIMESTAMP),
        (said_connected(ASKED, OFF.at_ms + 5 * MINUTE), Outcome.STATE),
        (said_connected(OFF.at_ms + 5_000, ON.at_ms), Outcome.SAME),  # an index may be ten seconds behind
        (said_connected(OFF.at_ms + 11_000, ON.at_ms), Outcome.STATE),
        (said_disconnected(T0 - MINUTE, T0 - 2 * MINUTE), Outcome.UNKNOWN),
    ],
)
def test_an_answer_is_compared_with_ours_of_just_before(
    sqlite_store_url: str, check: Check, outcome: Outcome
) -> None:
    assert outcomes(sqlite_store_url, ON, OFF, check) == [outcome]


def test_what_a_check_taught_does_not_count_for_itself(sqlite_store_url: str) -> None:
    missed = OFF.at_ms + 5 * MINUTE
    found = outcomes(
        sqlite_store_url,
        ON,
        OFF,
        said_connected(ASKED, missed),
        said_connected(ASKED + 1, missed, reason=None),
    )
    assert found == [Outcome.STATE, Outcome.SAME]


def test_of_a_thing_never_heard_of_nothing_was_known(sqlite_store_url: str) -> None:
    first, again = said_never_connected(ASKED), said_never_connected(ASKED + MINUTE)
    assert outcomes(sqlite_store_url, first) == [Outcome.UNKNOWN]
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store) as writer:
        assert writer.write([Learned(observed(again), 0)], source="test").repeated == 1
    with open_history(sqlite_store_url) as history:
        assert (len(list(history.fidelity())), history.repeated()) == (1, 1)
        assert history.repeated(ASKED + 1, ASKED + MINUTE) == 0


def test_every_check_of_a_fleet_is_compared_or_counted_as_repeating(store_url: str) -> None:
    simulated = simulate(Choices(things=30, days=1, loss=0.05))
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        records = [
            one for one in decode_stream(simulated.lines(), now=system_clock) if isinstance(one, Learned)
        ]
        counts = writer.write(records, source="test")
    with open_history(store_url) as history:
        found = Counter(one.outcome for one in history.fidelity())
        again = history.repeated()
    assert found.total() + again == counts.checks == simulated.tally.checks
    assert counts.repeated == again > 0.8 * counts.checks
    assert found[Outcome.SAME] > 10 * found[Outcome.STATE] > 0


def test_who_has_heard_enough_may_close_the_history_before_the_answer_ends(store_url: str) -> None:
    """As a pipe into `head` does."""
    outcomes(store_url, ON, OFF, said_disconnected(ASKED, OFF.at_ms))
    history = open_history(store_url, clock=lambda: ASKED * 2)
    periods = history.all_periods()
    next(periods)
    history.close()
    assert isinstance(periods, Generator)
    periods.close()
