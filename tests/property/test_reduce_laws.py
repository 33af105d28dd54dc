"""The laws of the design page, on the pure reducer and lifecycle events alone.

Seeded histories by the thousand are laid beside the oracle and beside the truth; hypothesis looks once more,
to shrink what it finds. The oracle itself stands under the same laws as the reducer: where it broke one it
would be no witness. A failure names its seed: `random.Random(seed)` draws the history again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.reduce import reduce_events
from store.model import MINUTE_MS, Event, Kind, State, Transition
from tests import oracle
from tests.builders import T0, connect, disconnect, taken_over
from tests.strategies import (
    SKEWS,
    Answer,
    History,
    at_each_boundary,
    complete_histories,
    complete_history,
    histories,
    history,
    worn_history,
)

Reducer = Callable[[Sequence[Event]], list[Transition]]


@pytest.fixture(params=[reduce_events, oracle.timeline], ids=["reducer", "oracle"])
def reducer(request: pytest.FixtureRequest) -> Reducer:
    chosen: Reducer = request.param
    return chosen


def seeded(name: str, count: int) -> Iterator[tuple[str, random.Random]]:
    for number in range(count):
        seed = f"{name}-{number}"
        yield seed, random.Random(seed)


def answers(rows: Sequence[Transition]) -> list[Answer]:
    """Return what a timeline answers, from the first connect or disconnect on."""
    known = [row for row in rows if row.state is not State.UNKNOWN]
    return at_each_boundary([Answer(row.at_ms, row.state, row.timestamp_ms, row.reason) for row in known])


def state_at(truth: Sequence[Answer], at_ms: int) -> State:
    """Return the true state: a client that had never connected was disconnected."""
    return next((one.state for one in reversed(truth) if one.at_ms <= at_ms), State.DISCONNECTED)


def untrue_proofs(one: History, rows: Sequence[Transition], *, within_ms: int = 0) -> list[Transition]:
    """Return the rows whose proven stretch, cut by `within_ms` at either end, is not wholly true.

    In a true one the state is as reported, and no true transition lies that is not reported.
    """
    truth = at_each_boundary(one.truth)
    untrue = []
    for before, row in pairwise(rows):
        if row.proved_from_ms is None:
            continue
        from_ms, to_ms = row.proved_from_ms + within_ms, row.at_ms - within_ms
        if from_ms < to_ms and (
            state_at(truth, from_ms) is not before.state
            or any(from_ms < missed.at_ms < to_ms for missed in truth)
        ):
            untrue.append(row)
    return untrue


# --- Laws 1 and 2, and the oracle ---------------------------------------------------------------------------


def test_any_history_reduces_to_what_the_oracle_says() -> None:
    for seed, rng in seeded("oracle", 4000):
        events = history(rng).events
        assert reduce_events(events) == oracle.timeline(events), seed


@given(histories)
@settings(max_examples=150, deadline=None)
def test_any_history_that_hypothesis_finds_reduces_to_what_the_oracle_says(one: History) -> None:
    assert reduce_events(one.events) == oracle.timeline(one.events)


def test_any_order_of_arrival_gives_the_same_timeline(reducer: Reducer) -> None:
    for seed, rng in seeded("order", 1000):
        events = history(rng).events
        assert reducer(rng.sample(events, len(events))) == reducer(events), seed


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_any_order_that_hypothesis_finds_gives_the_same_timeline(one: History, rng: random.Random) -> None:
    assert reduce_events(rng.sample(one.events, len(one.events))) == reduce_events(one.events)


def test_redelivered_evidence_changes_nothing(reducer: Reducer) -> None:
    for seed, rng in seeded("again", 1000):
        events = history(rng).events
        again = rng.choices(events, k=3) if events else []
        assert reducer([*events, *again]) == reducer(events), seed


def test_members_that_decorate_change_nothing(reducer: Reducer) -> None:
    for seed, rng in seeded("decorated", 500):
        events = history(rng).events
        plain = [
            event._replace(extra=None, principal=None, ip=None, thing_name=None, client_initiated=None)
            for event in events
        ]
        assert reducer(plain) == reducer(events), seed


# --- Law 5 --------------------------------------------------------------------------------------------------


def test_complete_evidence_gives_the_truth_to_the_millisecond(reducer: Reducer) -> None:
    for seed, rng in seeded("complete", 4000):
        one = complete_history(rng)
        assert answers(reducer(one.events)) == at_each_boundary(one.truth), seed


@given(complete_histories)
@settings(max_examples=150, deadline=None)
def test_complete_evidence_that_hypothesis_finds_gives_the_truth(one: History) -> None:
    assert answers(reduce_events(one.events)) == at_each_boundary(one.truth)


# --- Law 6, for events --------------------------------------------------------------------------------------


def test_what_is_proven_is_true_however_much_was_lost(reducer: Reducer) -> None:
    for seed, rng in seeded("lost", 3000):
        one = worn_history(rng, skew=rng.choice(("none", "orderly")), disputes=False)
        assert untrue_proofs(one, reducer(one.events)) == [], seed


def test_where_stamps_contradict_the_order_what_is_proven_is_true_up_to_their_error(reducer: Reducer) -> None:
    """A lost session may have been stamped into the end of another, and nothing else tells of it."""
    for seed, rng in seeded("lost-wild", 2000):
        one = worn_history(rng, skew="wild", disputes=False)
        assert untrue_proofs(one, reducer(one.events), within_ms=oracle.SKEW_MS) == [], seed


def test_an_estimated_transition_has_a_true_one_within_its_bounds(reducer: Reducer) -> None:
    seen = 0
    for seed, rng in seeded("bounds", 3000):
        one = worn_history(rng, skew=rng.choice(SKEWS), disputes=False)
        for row in reducer(one.events):
            if row.timestamp_ms is not None or row.state is State.UNKNOWN:
                continue
            seen += 1
            assert row.not_before_ms is not None, seed
            assert row.not_after_ms is not None, seed
            stamps = [
                stamp_ms
                for answer in one.truth
                if answer.state is row.state
                for stamp_ms in (answer.at_ms, answer.timestamp_ms)
                if stamp_ms is not None
            ]
            assert any(row.not_before_ms <= stamp_ms <= row.not_after_ms for stamp_ms in stamps), seed
    assert seen > 100


# --- What every timeline keeps ------------------------------------------------------------------------------


def test_every_timeline_ascends_and_proves_nothing_beyond_the_row_before(reducer: Reducer) -> None:
    for seed, rng in seeded("ascends", 2000):
        one = history(rng)
        rows = reducer(one.events)
        instants = [row.at_ms for row in rows]
        assert instants == sorted(instants), seed
        if one.events:
            assert rows[0].at_ms == min([rows[0].at_ms, *(event.at_ms for event in one.events)]), seed
            assert rows[0].proved_from_ms is None, seed
        for before, row in pairwise(rows):
            assert row.proved_from_ms is None or before.at_ms <= row.proved_from_ms <= row.at_ms, seed
            if row.not_before_ms is not None and row.not_after_ms is not None:
                assert row.not_before_ms <= row.not_after_ms, seed


def test_events_that_change_no_state_leave_nothing_but_the_first_evidence(reducer: Reducer) -> None:
    for seed, rng in seeded("noise", 500):
        events = history(rng).events
        telling = [event for event in events if event.kind in (Kind.CONNECTED, Kind.DISCONNECTED)]
        with_noise = [row for row in reducer(events) if row.rule != "first-evidence"]
        without = [row for row in reducer(telling) if row.rule != "first-evidence"]
        assert with_noise == without, seed


def test_no_evidence_is_no_timeline(reducer: Reducer) -> None:
    assert reducer([]) == []


# --- Cases that the laws found, each named after its rule ---------------------------------------------------


def test_rule_2_two_versions_in_one_millisecond_are_two_sessions(reducer: Reducer) -> None:
    rows = reducer([connect(T0, version=0), connect(T0, version=1), taken_over(T0 + 9, version=0)])
    assert answers(rows) == [Answer(T0, State.CONNECTED, T0, "NONE")]


def test_rule_2_a_disconnect_with_id_joins_the_connect_of_its_version_that_lacks_one(
    reducer: Reducer,
) -> None:
    rows = reducer(
        [connect(T0, version=1), disconnect(T0 - 9, session="s", version=1, reason="CLIENT_ERROR")]
    )
    assert answers(rows) == [Answer(T0, State.DISCONNECTED, T0 - 9, "CLIENT_ERROR")]


def test_rule_6_two_stamps_of_one_takeover_may_be_four_minutes_apart(reducer: Reducer) -> None:
    """Without versions, or over a skipped one, nothing else says that the two are one takeover."""
    end_ms = T0 + 60 * MINUTE_MS
    rows = reducer(
        [
            connect(T0, session="a", version=7),
            taken_over(end_ms, session="a", version=7),
            connect(end_ms + 3 * MINUTE_MS, session="b", version=9),
        ]
    )
    assert [row.rule for row in rows] == ["connect", "takeover"]


def test_rule_6_an_unseen_takeover_proves_nothing_up_to_its_stamp(reducer: Reducer) -> None:
    """The newer session began up to SKEW before the stamp, and may have ended by then."""
    rows = reducer([connect(T0, session="a", version=0), taken_over(T0 + 9, session="a", version=0)])
    assert [(row.rule, row.proved_from_ms) for row in rows] == [("connect", None), ("takeover-unseen", None)]


def test_rule_6_an_unseen_takeover_is_not_bounded_by_a_lone_disconnect(reducer: Reducer) -> None:
    """The lone one's own connect, which took over, may be stamped after it."""
    rows = reducer([taken_over(T0, session="a", version=0), taken_over(T0 + 9, session="b", version=1)])
    assert rows[0].not_after_ms == T0 + oracle.SKEW_MS


def test_rule_13_a_takeover_proves_nothing_over_a_skipped_version(reducer: Reducer) -> None:
    """The skipped session may have taken over, and ended, before the next one began."""
    rows = reducer(
        [
            connect(T0, session="a", version=1),
            connect(T0 + 70, session="b", version=3),
            taken_over(T0 + 90, session="a", version=1),
        ]
    )
    assert [(row.rule, row.proved_from_ms) for row in rows] == [("connect", None), ("takeover", None)]


def test_rule_13_halves_joined_by_version_alone_prove_only_what_no_reset_can_lie_in(reducer: Reducer) -> None:
    soon_ms, late_ms = T0 + 44 * MINUTE_MS, T0 + 46 * MINUTE_MS
    assert reducer([connect(T0, version=0), disconnect(soon_ms, version=0)])[-1].proved_from_ms == T0
    assert reducer([connect(T0, version=0), disconnect(late_ms, version=0)])[-1].proved_from_ms is None


def test_rule_13_halves_joined_by_time_alone_prove_nothing(reducer: Reducer) -> None:
    assert reducer([connect(T0), disconnect(T0 + 31)])[-1].proved_from_ms is None
