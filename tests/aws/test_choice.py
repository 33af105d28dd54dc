"""Whom to ask about next, as tables that an operator can read; and the slices of the store that it goes by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.choice import (
    DAY_MS,
    Asked,
    Doubt,
    Doubtful,
    chosen,
    doubt_of,
    next_sweep_ms,
    patience_ms,
)
from ingest.writer import Writer
from store.doubt import Latest, latest, looking, statement
from store.engine import Store, open_reader, open_writer, parse_url
from store.model import Kind, Learned, State
from tests.builders import T0, connect, disconnect, observed, said_connected
from tests.store.test_plans import plan, scanned, stored

__all__ = ["stored"]  # the fixture

MINUTE = 60_000
EVERY = 16 * MINUTE  # an eighth is two minutes
NOW = T0


def ago(minutes: float, *, agreed: int = 0) -> Asked:
    return Asked(NOW - int(minutes * MINUTE), "said", agreed)


def choose(
    *doubtful: tuple[str, Doubt],
    asked: dict[str, Asked] | None = None,
    absent: dict[str, Asked] | None = None,
    most: int = 4,
) -> list[str]:
    found = [Doubtful(name, why, NOW - DAY_MS) for name, why in doubtful]
    return chosen(found, asked or {}, absent or {}, now_ms=NOW, every_ms=EVERY, due_ms=EVERY, most=most)


def test_the_unknown_come_before_the_contradicted_and_these_before_the_overdue() -> None:
    asked = {"late": ago(17), "contradicted": ago(5)}
    doubtful = [("contradicted", Doubt.CONTRADICTED), ("unknown", Doubt.UNKNOWN)]
    assert choose(*doubtful, asked=asked) == ["unknown", "contradicted", "late"]


def test_of_the_equally_doubtful_the_longest_silent_comes_first() -> None:
    found = [Doubtful(name, Doubt.UNKNOWN, NOW - silent) for name, silent in (("a", 5), ("b", 9), ("c", 7))]
    assert chosen(found, {}, {}, now_ms=NOW, every_ms=EVERY, due_ms=EVERY, most=2) == ["b", "c"]


def test_the_overdue_are_asked_about_in_turn_and_keep_half_of_the_places() -> None:
    asked = {f"late-{number}": ago(30 - number) for number in range(9)}
    doubtful = [(f"unknown-{number}", Doubt.UNKNOWN) for number in range(9)]
    assert choose(*doubtful, asked=asked) == ["unknown-0", "unknown-1", "late-0", "late-1"]
    assert choose(asked=asked) == ["late-0", "late-1", "late-2", "late-3"]
    assert choose(*doubtful) == ["unknown-0", "unknown-1", "unknown-2", "unknown-3"]


def test_what_was_asked_about_within_the_period_is_not_overdue() -> None:
    assert choose(asked={"late": ago(16), "not yet": ago(15.9)}) == ["late"]


def test_who_is_doubtful_and_overdue_has_one_place() -> None:
    assert choose(("a", Doubt.UNKNOWN), asked={"a": ago(17), "b": ago(17)}) == ["a", "b"]


@pytest.mark.parametrize(
    ("last", "is_asked"),
    [
        (ago(2), True),
        (ago(1.9), False),
        (ago(3.9, agreed=1), False),  # it said the same again: wait twice as long
        (ago(4, agreed=1), True),
        (ago(24 * 60 - 1, agreed=40), False),
        (ago(24 * 60, agreed=40), True),  # ... and a day at most
    ],
)
def test_who_says_the_same_again_is_left_alone_for_longer(last: Asked, is_asked: bool) -> None:
    # Where AWS knows the thing, it is overdue as well once the period has passed; where not, it never is.
    wanted = ["a"] if is_asked else []
    assert choose(("a", Doubt.UNKNOWN), absent={"a": last}) == wanted
    if last.at_ms > NOW - EVERY:
        assert choose(("a", Doubt.CONTRADICTED), asked={"a": last}) == wanted


def test_agreement_is_counted_until_something_else_is_said() -> None:
    first = Asked(1, "on")
    second = first.again(2, "on")
    assert (second, second.again(3, "on"), second.again(3, "off")) == (
        Asked(2, "on", 1),
        Asked(3, "on", 2),
        Asked(3, "off", 0),
    )
    assert patience_ms(second.again(3, "on"), EVERY) == 8 * MINUTE


@pytest.mark.parametrize(
    ("begun", "ended", "following"),
    [
        (0, 1, 14),  # what was asked first at 0 is asked at 15 at the latest, a minute early
        (0, 5, 10),
        (0, 8, 8),  # more than half of the period: at once
        (0, 40, 40),
    ],
)
def test_sweeps_follow_each_other_so_that_the_period_is_kept(begun: int, ended: int, following: int) -> None:
    assert next_sweep_ms(begun * MINUTE, ended * MINUTE, EVERY) == following * MINUTE


@pytest.mark.parametrize(
    ("at_ms", "state", "rule", "why"),  # of a client of which events tell
    [
        (None, None, None, Doubt.UNKNOWN),
        (NOW - 1, State.UNKNOWN, "first-evidence", Doubt.UNKNOWN),
        (NOW - 1, State.CONNECTED, "check-named", Doubt.CONTRADICTED),
        (NOW - 1, State.DISCONNECTED, "check-laid", Doubt.CONTRADICTED),
        (NOW - DAY_MS, State.CONNECTED, "check-named", None),  # a day without another is enough
        (NOW - DAY_MS, State.CONNECTED, "connect", None),
        (NOW - 1, State.DISCONNECTED, "connect-lost", None),  # the newest of it is an event
    ],
)
def test_doubt_is_told_by_the_newest_transition(
    at_ms: int | None, state: State | None, rule: str | None, why: Doubt | None
) -> None:
    found = doubt_of(name="a", at_ms=at_ms, state=state, rule=rule, heard=True, now_ms=NOW)
    assert (None if found is None else found.why) is why


def test_what_only_checks_tell_of_they_do_not_contradict() -> None:
    told = {"name": "a", "at_ms": NOW - 1, "state": State.CONNECTED, "rule": "check-named", "now_ms": NOW}
    assert doubt_of(**told, heard=False) is None  # type: ignore[arg-type]
    assert doubt_of(**told, heard=True) is not None  # type: ignore[arg-type]


# --- The store ----------------------------------------------------------------------------------------------


@pytest.fixture
def held(store_url: str) -> Iterator[Store]:
    url = parse_url(store_url)
    told = [
        connect(T0, session="a", version=1, client_id="a"),
        disconnect(T0 + 5, session="a", version=1, client_id="a"),
        connect(T0 + 7, session="b", version=1, client_id="b"),
        connect(T0 + 9, client_id="nothing")._replace(kind=Kind.CONNECT_FAILED),
    ]
    with open_writer(url) as store, Writer(store, clock=lambda: T0 + DAY_MS) as writer:
        writer.write([Learned(each, 0) for each in told], source="test")
        writer.write([Learned(connect(T0 + 1, session="a", version=1, client_id="a"), 0)], source="test")
        check = observed(said_connected(T0 + 60_000, T0 + 50_000)._replace(client_id="checked"))
        writer.write([Learned(check, 0)], source="test")
    with open_writer(url) as store, Writer(store, realm="other") as writer:
        writer.write([Learned(connect(T0, client_id="elsewhere"), 0)], source="test")
    with open_reader(url) as store:
        yield store


def told(rows: list[Latest]) -> dict[str, tuple[int | None, State | None, str | None, bool]]:
    return {row.client_id: (row.at_ms, row.state, row.rule, row.heard) for row in rows}


def test_a_slice_of_the_store_tells_the_newest_transitions_of_its_clients(held: Store) -> None:
    assert told(latest(held, after=0, most=10)) == {
        "a": (T0 + 5, State.DISCONNECTED, "disconnect", True),
        "b": (T0 + 7, State.CONNECTED, "connect", True),
        "nothing": (T0 + 9, State.UNKNOWN, "first-evidence", False),
        "checked": (T0 + 50_000, State.CONNECTED, "check-named", False),
    }
    assert told(latest(held, after=0, most=10, realm="other")) == {
        "elsewhere": (T0, State.CONNECTED, "connect", True)
    }
    assert latest(held, after=0, most=10, realm="none") == []


def test_slices_go_round_all_clients_and_come_to_an_end(held: Store) -> None:
    look = looking(held.url, most=3)
    first = look(0)
    second = look(first[-1].client_no)
    assert (len(first), len(second), look(second[-1].client_no)) == (3, 1, [])
    assert {row.client_id for row in first + second} == {"a", "b", "nothing", "checked"}


def test_a_slice_costs_seeks(stored: Store) -> None:
    with stored.detached() as driver:
        steps = plan(
            stored,
            driver,
            statement(is_sqlite=stored.is_sqlite),
            {"after": 1_000, "most": 50, "realm": "default"},
        )
    # SQLite's plans speak of the aliases: this statement's t is no table of things.
    assert not {"transitions", "things"} & set(scanned(steps)), steps
    assert sum(step.startswith("SEARCH") for step in steps) >= 3, steps
