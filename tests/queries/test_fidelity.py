"""AWS's answers beside ours, as a table that an operator can read, and over a fleet whose truth is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from datetime import UTC

import pytest

import thingline
from ingest.decode import decode_stream
from ingest.simulate import Choices, simulate
from ingest.writer import Writer
from queries.fidelity import By, Compared, Outcome, grouped
from queries.history import open_history
from queries.output import agreement_table
from queries.times import day_of, read_zone
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Check, Event, Learned
from tests.builders import (
    CLIENT,
    T0,
    connect,
    disconnect,
    observed,
    said_connected,
    said_disconnected,
    said_never_connected,
)

MINUTE = 60_000
DAY = 1_440 * MINUTE
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


# --- In groups ----------------------------------------------------------------------------------------------


def one(
    outcome: Outcome, *, client: str = "a", asked_ms: int = ASKED, reason: str | None = "CONNECTION_LOST"
) -> Compared:
    connected = reason is None
    return Compared(client, asked_ms, asked_ms + 1, outcome, connected, T0, reason, None, None, None)


def utc_day(at_ms: int) -> str:
    return day_of(at_ms, UTC)


def test_agreement_adds_up_by_day_reason_and_thing() -> None:
    answers = [
        one(Outcome.SAME),
        one(Outcome.STATE, client="b", reason=None),
        one(Outcome.UNKNOWN, client="b", asked_ms=ASKED + DAY),
        one(Outcome.REASON, client="c", asked_ms=ASKED + DAY),
    ]
    again = [("a", ASKED), ("a", ASKED + DAY), ("a", ASKED + 2 * DAY)]
    told = {
        by: [
            (each.key, each.share, each.answers, each.repeated)
            for each in grouped(by, answers, again, utc_day)
        ]
        for by in By
    }
    assert told == {
        By.DAY: [
            ("2026-09-21", 2 / 3, 3, 1),
            ("2026-09-22", 1 / 2, 3, 1),
            ("2026-09-23", 1.0, 1, 1),
        ],
        By.REASON: [("CONNECTION_LOST", 1 / 2, 3, None), ("NONE", 0.0, 1, None)],
        By.THING: [("b", 0.0, 2, 0), ("c", 0.0, 1, 0), ("a", 1.0, 4, 3)],
    }


def test_where_nothing_was_known_there_is_no_agreement_to_speak_of() -> None:
    (group,) = grouped(By.THING, [one(Outcome.UNKNOWN)], [], utc_day)
    assert group.share is None
    assert agreement_table(By.THING, [group])[1].split() == ["a", "-", "0", "0", "0", "0", "1", "0"]


def test_rounding_hides_neither_agreement_nor_its_lack() -> None:
    answers = [one(Outcome.STATE)] + [one(Outcome.SAME)] * 99_999
    (group,) = grouped(By.THING, answers, [], utc_day)
    assert ">99.99 %" in agreement_table(By.THING, [group])[1]


def test_days_are_those_of_the_zone() -> None:
    late = ASKED // DAY * DAY + 23 * 60 * MINUTE
    (group,) = grouped(
        By.DAY, [one(Outcome.SAME, asked_ms=late)], [], lambda ms: day_of(ms, read_zone("Europe/Berlin"))
    )
    assert group.key == "2026-09-22"


def test_the_command_adds_up_over_all_checks_of_its_realm(
    sqlite_store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = sqlite_store_url
    outcomes(url, ON, OFF, said_disconnected(ASKED, OFF.at_ms), said_disconnected(ASKED + MINUTE, OFF.at_ms))
    with open_writer(parse_url(url)) as store, Writer(store, realm="other") as writer:
        for at_ms in (ASKED, ASKED + MINUTE):
            writer.write([Learned(observed(said_never_connected(at_ms)), 0)], source="test")
    assert thingline.main(["fidelity", "--store", url, "--by", "day", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "day": "2026-09-21",
            "agreement": 1.0,
            "same": 1,
            "reason": 0,
            "timestamp": 0,
            "state": 0,
            "unknown": 0,
            "repeated": 1,
        }
    ]
    assert thingline.main(["fidelity", "--store", url, "--by", "reason"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "reason",
        "agreement",
        "same",
        "reason",
        "timestamp",
        "state",
        "unknown",
        "repeated",
    ]
    assert row.split() == ["CONNECTION_LOST", "100.00", "%", "1", "0", "0", "0", "0", "-"]
    assert thingline.main(["fidelity", "--store", url, "--realm", "other", "--by", "thing"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        CLIENT,
        "100.00",
        "%",
        "0",
        "0",
        "0",
        "0",
        "1",
        "1",
    ]
    assert thingline.main(["fidelity", "--store", url]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 new answers (1 same), 1 repeated what had been said"
