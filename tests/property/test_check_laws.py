"""Laws 1 to 4 and 6 with API checks, on a real SQLite file and a real PostgreSQL, thousands of histories.

What the store answers is compared with the oracle: each transition, and what checks prove of the stretch after
it, agreeing checks that have no row of their own included.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pytest
import sqlalchemy as sa

from ingest.check import faults
from ingest.checks import check_of
from ingest.decode import decode_stream
from ingest.export import recording
from ingest.rebuild import rebuild_store
from ingest.reduce import reduce_events
from ingest.writer import Counts, Writer
from queries.history import open_history
from store.answer import Asker, Seen
from store.engine import open_reader, open_writer, parse_url
from store.model import Certainty, Check, Event, Kind, Learned, Transition
from tests import oracle
from tests.builders import CLIENT, T0, connect, disconnect, observed, said_connected, said_disconnected
from tests.property.test_oracle_truth import state_at
from tests.property.test_store_laws import NOW, all_rows, client_id, cut, transition
from tests.strategies import (
    History,
    at_each_boundary,
    checked_history,
    complete_history,
    with_checks,
)

Evidence = Event | Check
Told = tuple[Transition, tuple[int, int] | None]


def histories(rng: random.Random, count: int) -> list[History]:
    return [checked_history(rng, client_id(number)) for number in range(count)]


def in_turn(rng: random.Random, drawn: Sequence[History]) -> list[Evidence]:
    """Interleave what arrived of many clients: checks as they were asked, or at random, among the events."""
    queues: list[list[Evidence]] = []
    for one in drawn:
        told: list[Evidence] = [*one.events, *one.checks]
        if rng.random() < 0.5:
            told.sort(key=lambda each: each.at_ms if isinstance(each, Event) else each.asked_ms)
        else:
            rng.shuffle(told)
        queues.append(told[::-1])
    turns = [number for number, queue in enumerate(queues) for _ in queue]
    rng.shuffle(turns)
    return [queues[number].pop() for number in turns]


def learned(told: Iterable[Evidence], moments: Sequence[int] | None = None) -> list[Learned]:
    return [
        Learned(
            each if isinstance(each, Event) else observed(each), at, None if moments is None else moments[at]
        )
        for at, each in enumerate(told)
    ]


def ingest(url: str, batches: Iterable[Sequence[Learned]], now: int = NOW) -> Counts:
    total = Counts()
    with open_writer(parse_url(url)) as store:
        writer = Writer(store, clock=lambda: now)
        for number, batch in enumerate(batches):
            if number % 7 == 6:  # as after a restart
                writer.close()
                writer = Writer(store, clock=lambda: now)
            total.add(writer.write(batch, source="test"))
        writer.close()
    return total


def timelines(url: str, known_at: int = 1 << 60) -> dict[str, list[Told]]:
    found: dict[str, list[Told]] = {}
    with open_reader(parse_url(url)) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        for client_no, name in driver.execute("SELECT client_no, client_id FROM clients").fetchall():
            found[name] = [(transition(seen), proof_of(seen)) for seen in asker.timeline(client_no, known_at)]
    return {name: rows for name, rows in found.items() if rows}


def proof_of(seen: Seen) -> tuple[int, int] | None:
    if seen.confirmed_from_ms is None or seen.confirmed_until_ms is None:
        return None
    return seen.confirmed_from_ms, seen.confirmed_until_ms


def expected(told: Iterable[Evidence]) -> dict[str, list[Told]]:
    events: dict[str, list[Event]] = defaultdict(list)
    checks: dict[str, list[Check]] = defaultdict(list)
    for each in told:
        if isinstance(each, Event):
            events[each.client_id].append(each)
        else:
            checks[each.client_id].append(each)
    return {
        name: [
            (
                row,
                None
                if proof is None
                else (max(row.at_ms, row.not_after_ms or 0, proof.from_ms or 0), proof.until_ms),
            )
            for row, proof in oracle.reduced(events[name], checks[name])
        ]
        for name in events.keys() | checks.keys()
    }


def assert_same(found: dict[str, list[Told]], wanted: dict[str, list[Told]]) -> None:
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert found[name] == rows, name


def test_a_check_reads_back_as_what_it_said(rng: random.Random) -> None:
    for one in histories(rng, 120):
        for check in one.checks:
            assert check_of(observed(check)) == check


def test_the_reducer_equals_the_oracle(rng: random.Random) -> None:
    for one in histories(rng, 2_000):
        rows = [
            (row._replace(confirmed=None), row.confirmed) for row in reduce_events(one.events, one.checks)
        ]
        assert rows == oracle.reduced(one.events, one.checks), one


def test_any_order_in_any_batches_gives_the_timeline_of_the_oracle(
    store_url: str, rng: random.Random
) -> None:
    """Laws 1 and 3."""
    told = in_turn(rng, histories(rng, 60))
    ingest(store_url, cut(rng, learned(told), 1_500))
    assert_same(timelines(store_url), expected(told))


@pytest.mark.parametrize(("most", "count", "asked"), [(1, 8, 8), (60, 25, 4), (3_000, 100, 2)])
def test_an_answer_as_known_then_is_that_of_the_evidence_known_then(
    store_url: str, rng: random.Random, most: int, count: int, asked: int
) -> None:
    """Law 4: nothing learned later leaks into an earlier view, nothing known then is lost."""
    told = in_turn(rng, histories(rng, count))
    moments = sorted(rng.choices(range(NOW - 30, NOW), k=len(told)))
    ingest(store_url, cut(rng, learned(told, moments), most))
    for known_at in sorted(rng.sample(range(NOW - 31, NOW), asked)):
        then = [each for each, known in zip(told, moments, strict=True) if known <= known_at]
        assert_same(timelines(store_url, known_at), expected(then))


def test_checks_one_by_one_take_rows_only_where_they_say_something_new(
    store_url: str, rng: random.Random
) -> None:
    told = in_turn(rng, histories(rng, 10))
    counts = ingest(store_url, [[each] for each in learned(told)])
    assert counts.repeated > 5
    assert_same(timelines(store_url), expected(told))


def test_evidence_delivered_again_changes_nothing(store_url: str, rng: random.Random) -> None:
    """Law 2."""
    told = in_turn(rng, histories(rng, 30))
    ingest(store_url, cut(rng, learned(told), 60))
    before = timelines(store_url)
    again = [*told, *told]
    rng.shuffle(again)
    counts = ingest(store_url, cut(rng, learned(again), 300), NOW + 1_000_000)
    assert (counts.stored, counts.transitions) == (0, 0)
    assert timelines(store_url) == before


def test_a_stale_answer_changes_nothing_and_is_counted(sqlite_store_url: str) -> None:
    told: list[Evidence] = [
        connect(T0, session="a", version=1),
        disconnect(T0 + 60_000, session="a", version=1),
        connect(T0 + 120_000, session="b", version=2),
        said_connected(T0 + 900_000, T0 + 120_000),
    ]
    ingest(sqlite_store_url, [[each] for each in learned(told)])
    before = timelines(sqlite_store_url)
    stale = [said_connected(T0 + 960_000, T0), said_disconnected(T0 + 970_000, T0 + 60_000)]
    counts = ingest(sqlite_store_url, [[each] for each in learned(stale)])
    assert (counts.stale, counts.transitions, counts.corrections) == (2, 0, 0)
    after = timelines(sqlite_store_url)
    assert [row for row, _ in after[CLIENT]] == [row for row, _ in before[CLIENT]]
    assert after[CLIENT][-1] == before[CLIENT][-1]


def test_what_the_store_calls_observed_is_true(store_url: str, rng: random.Random) -> None:
    """Law 6: whatever was lost, an observed stretch has the true state throughout, and hides no transition."""
    drawn = [one for one in histories(rng, 200) if one.skew != "wild" and not one.stale and not one.disputed]
    drawn = [one for one in drawn if one.events or one.checks]
    ingest(store_url, cut(rng, learned(in_turn(rng, drawn)), 3_000))
    observed_periods = 0
    with open_history(store_url, clock=lambda: NOW) as history:
        for one in drawn:
            truth = at_each_boundary(one.truth)
            for _, client_id, period in history.periods(one.client_id, by_client=True):
                if period.certainty is not Certainty.OBSERVED:
                    continue
                observed_periods += 1
                assert period.to_ms is not None
                assert state_at(truth, period.from_ms) is period.seen.state, client_id
                assert not [missed for missed in truth if period.from_ms < missed.at_ms < period.to_ms], (
                    client_id
                )
    assert observed_periods > 150


def test_checks_never_contradict_complete_evidence(store_url: str, rng: random.Random) -> None:
    """Law 5 with checks: where every event was delivered, states, timestamps and reasons stay the truth."""
    drawn = [with_checks(rng, complete_history(rng, client_id(number))) for number in range(100)]
    drawn = [one for one in drawn if not one.stale]
    told = in_turn(rng, drawn)
    ingest(store_url, cut(rng, learned(told), 400))
    without = {one.client_id: oracle.timeline(one.events) for one in drawn}
    found = timelines(store_url)
    for name, rows in without.items():
        rows = [row for row in rows if row.rule != "first-evidence"]
        shown = [row for row, _ in found[name] if row.at_ms >= rows[0].at_ms]  # never connected, before that
        assert [row[:4] for row in shown] == [row[:4] for row in rows], name


def test_what_is_exported_and_restored_is_the_same(
    sqlite_store_url: str, postgres_store_url: str, rng: random.Random
) -> None:
    # The reason of a disconnect in a connect is none to the decoder: it keeps it among what is unusual.
    told = [
        each
        for each in in_turn(rng, histories(rng, 50))
        if not (isinstance(each, Event) and each.kind is Kind.CONNECTED and each.reason is not None)
    ]
    moments = sorted(rng.choices(range(NOW - len(told), NOW), k=len(told)))
    counts = ingest(sqlite_store_url, cut(rng, learned(told, moments), 500))
    assert counts.repeated > 50
    lines = exported(sqlite_store_url)
    restored = decode_stream(lines, now=lambda: NOW)
    ingest(postgres_store_url, [[one for one in restored if isinstance(one, Learned)]])
    assert [json.loads(line) for line in exported(postgres_store_url)] == [json.loads(line) for line in lines]
    assert timelines(postgres_store_url) == timelines(sqlite_store_url)


def exported(url: str) -> list[bytes]:
    with open_reader(parse_url(url)) as store:
        return list(recording(store))


def test_rebuilding_ends_with_the_same_rows_and_mends_what_was_changed(
    store_url: str, rng: random.Random
) -> None:
    told = in_turn(rng, histories(rng, 15))
    ingest(store_url, cut(rng, learned(told, range(NOW - len(told), NOW)), 4))
    before = timelines(store_url)
    with open_writer(parse_url(store_url)) as store:
        report = rebuild_store(store)
        assert (report.differing, report.clients) == ([], len(before))
        with store.engine.begin() as connection:
            connection.execute(sa.text("UPDATE confirmations SET until_ms = until_ms + 1"))
        assert rebuild_store(store).differing
    assert timelines(store_url) == before


@pytest.mark.parametrize(("most", "moments"), [(40, 200), (3, 40)])
def test_how_equal_moments_are_cut_into_batches_never_shows(
    sqlite_store_url: str, postgres_store_url: str, rng: random.Random, most: int, moments: int
) -> None:
    """Law 3 with checks, superseded rows included: one batch on one engine, crumbs on the other."""
    told = in_turn(rng, histories(rng, 16))
    known = sorted(rng.choices(range(NOW - moments, NOW), k=len(told)))
    items = learned(told, known)
    ingest(sqlite_store_url, [items])
    ingest(postgres_store_url, cut(rng, items, most))
    assert all_rows(sqlite_store_url) == all_rows(postgres_store_url)
    for url in (
        sqlite_store_url,
        postgres_store_url,
    ):  # and what is derived again of a store is what it holds
        with open_reader(parse_url(url)) as store:
            assert list(faults(store)) == []
