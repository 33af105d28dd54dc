"""The laws of the design page with checks, on the oracle: it must be a true witness before it is laid beside.

Truth is what the API would have answered. A failure names its seed: `random.Random(seed)` draws the history
again. The oracle itself is written from the page; where it broke a law here, the page's rule was unsound.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    Confirmation,
    State,
    Transition,
)
from tests import oracle
from tests.builders import (
    T0,
    connect,
    disconnect,
    said_connected,
    said_disconnected,
    said_never_connected,
    taken_over,
)
from tests.strategies import (
    Answer,
    History,
    at_each_boundary,
    checked_history,
    complete_history,
    with_checks,
)


def seeded(name: str, count: int) -> Iterator[tuple[str, random.Random]]:
    for number in range(count):
        seed = f"{name}-{number}"
        yield seed, random.Random(seed)


def state_at(truth: Sequence[Answer], at_ms: int) -> State:
    """Return the true state: a client that had never connected was disconnected."""
    return next((one.state for one in reversed(truth) if one.at_ms <= at_ms), State.DISCONNECTED)


def untrue_proofs(
    one: History, rows: Sequence[oracle.Reported], *, within_ms: int = 0
) -> list[oracle.Stretch]:
    """Return the proven stretches, cut by `within_ms` at either end, that are not wholly true.

    In a true one the state is as reported, and no true transition lies that is not reported.
    """
    truth = at_each_boundary(one.truth)
    untrue = []
    for stretch in oracle.proven(rows):
        from_ms, to_ms = stretch[0] + within_ms, stretch[1] - within_ms
        if from_ms < to_ms and (
            state_at(truth, from_ms) is not stretch[2]
            or any(from_ms < missed.at_ms < to_ms for missed in truth)
        ):
            untrue.append(stretch)
    return untrue


def within(row: Transition, answer: Answer, aside_ms: int) -> bool:
    """Say whether a true instant of the row's kind lies within its bounds, give or take `aside_ms`."""
    assert row.not_before_ms is not None
    assert row.not_after_ms is not None
    return answer.state is row.state and any(
        row.not_before_ms - aside_ms <= at_ms <= row.not_after_ms + aside_ms
        for at_ms in (answer.at_ms, answer.timestamp_ms)
        if at_ms is not None
    )


def was(truth: Sequence[Answer], state: State, asked_ms: int) -> bool:
    """Say whether the state was true at some instant in `[asked_ms - LAG, asked_ms]`."""
    begin_ms = asked_ms - oracle.LAG_MS
    return state_at(truth, begin_ms) is state or any(
        answer.state is state and begin_ms <= answer.at_ms <= asked_ms for answer in truth
    )


def undisputed(name: str, count: int, skews: Sequence[str]) -> Iterator[tuple[str, History]]:
    """Draw checked histories that law 6 holds for."""
    for seed, rng in seeded(name, count):
        one = checked_history(rng)
        if one.skew in skews and not one.stale and not one.disputed:
            yield seed, one


# --- Laws 1 and 2 -------------------------------------------------------------------------------------------


def test_any_order_of_arrival_and_redelivery_change_nothing() -> None:
    for seed, rng in seeded("truth-order", 600):
        one = checked_history(rng)
        events = rng.sample(one.events, len(one.events)) + (
            rng.choices(one.events, k=2) if one.events else []
        )
        checks = rng.sample(one.checks, len(one.checks)) + (
            rng.choices(one.checks, k=2) if one.checks else []
        )
        assert oracle.reduced(events, checks) == oracle.reduced(one.events, one.checks), seed


def test_the_timeline_is_the_rows_without_their_confirmations() -> None:
    for seed, rng in seeded("truth-rows", 200):
        one = checked_history(rng)
        rows = [row for row, _ in oracle.reduced(one.events, one.checks)]
        assert oracle.timeline(one.events, one.checks) == rows, seed


# --- Law 5 --------------------------------------------------------------------------------------------------


def test_without_loss_checks_change_nothing_from_the_first_event_on() -> None:
    """Before it they may say that the client had never connected; and they confirm."""
    confirmed = 0
    for seed, rng in seeded("truth-complete", 1500):
        one = with_checks(rng, complete_history(rng))
        if one.stale:
            continue
        plain = [row for row in oracle.timeline(one.events) if row.state is not State.UNKNOWN]
        rows = oracle.reduced(one.events, one.checks)
        before = [row for row, _ in rows if row.at_ms < plain[0].at_ms]
        assert [row for row, _ in rows[len(before) :]] == plain, seed
        assert {row.state for row in before} <= {State.UNKNOWN, State.DISCONNECTED}, seed
        assert {row.timestamp_ms for row in before} <= {None}, seed
        confirmed += sum(confirmation is not None for _, confirmation in rows)
    assert confirmed > 1000


# --- Law 6 --------------------------------------------------------------------------------------------------


def test_what_is_proven_is_true_however_much_was_lost() -> None:
    proofs = 0
    for seed, one in undisputed("truth-lost", 2500, ("none", "orderly")):
        rows = oracle.reduced(one.events, one.checks)
        proofs += len(oracle.proven(rows))
        assert untrue_proofs(one, rows) == [], seed
    assert proofs > 2000


def test_where_stamps_contradict_the_order_what_is_proven_is_true_up_to_their_error() -> None:
    for seed, one in undisputed("truth-lost-wild", 2000, ("wild",)):
        rows = oracle.reduced(one.events, one.checks)
        assert untrue_proofs(one, rows, within_ms=oracle.SKEW_MS) == [], seed


def test_a_transition_told_by_checks_or_estimated_has_a_true_one_within_its_bounds() -> None:
    """One told by an event is where the event was stamped, though by truth it may have changed no state."""
    seen = {"check-named": 0, "check-laid": 0}
    for seed, one in undisputed("truth-bounds", 2500, ("none", "orderly")):
        for row in oracle.timeline(one.events, one.checks):
            if row.state is State.UNKNOWN or (row.timestamp_ms is not None and row.rule != "check-named"):
                continue
            if row.not_before_ms is None:
                assert was(one.truth, row.state, row.at_ms), seed
                continue
            assert any(within(row, answer, 0) for answer in one.truth), seed
            if row.rule in seen:
                seen[row.rule] += 1
    assert min(seen.values()) > 200


def test_where_stamps_contradict_the_order_bounds_hold_up_to_their_error() -> None:
    """The order of what was stamped out of it may be lost, but the state that is laid was true thereabouts."""
    for seed, one in undisputed("truth-bounds-wild", 1500, ("wild",)):
        for row in oracle.timeline(one.events, one.checks):
            if row.rule == "check-named":
                assert any(within(row, answer, oracle.SKEW_MS) for answer in one.truth), seed
            elif row.rule == "check-laid":
                assert was(one.truth, row.state, row.at_ms), seed


# --- The decisions, one by one ------------------------------------------------------------------------------


def told(rows: Sequence[oracle.Reported]) -> list[tuple[int, State, int | None, str]]:
    """Return what rows tell in short, counted from T0, without the first evidence."""
    return [
        (row.at_ms - T0, row.state, None if row.timestamp_ms is None else row.timestamp_ms - T0, row.rule)
        for row, _ in rows
        if row.state is not State.UNKNOWN
    ]


ON, OFF = State.CONNECTED, State.DISCONNECTED
ASKED = T0 + HOUR_MS


def test_rule_6_a_check_that_tells_of_a_takeover_is_first_evidence_and_no_more() -> None:
    checks = [said_disconnected(T0 - 5, T0 + 9, reason=DUPLICATE_CLIENTID)]
    rows = oracle.reduced([connect(T0)], checks)
    assert [(row.at_ms - T0, row.rule) for row, _ in rows] == [(-5, "first-evidence"), (0, "connect")]
    assert [confirmation for _, confirmation in rows] == [None, None]


def test_rule_9_a_precise_check_confirms_the_very_millisecond_up_to_its_asking_less_lag() -> None:
    rows = oracle.reduced(
        [connect(T0)], [said_connected(ASKED, T0), said_connected(ASKED - 9, T0, reason=None)]
    )
    assert rows == [(oracle.timeline([connect(T0)])[0], Confirmation(ASKED - oracle.LAG_MS))]
    assert oracle.proven(rows) == [(T0, ASKED - oracle.LAG_MS, ON)]


def test_rule_9_a_whole_second_confirms_the_latest_within_it_and_proves_from_its_end_on() -> None:
    """A session within that second may have been lost: what was named may be the later one."""
    rows = oracle.reduced([connect(T0 + 100), connect(T0 + 700)], [said_connected(ASKED, T0, whole=True)])
    confirmation = Confirmation(ASKED - oracle.LAG_MS, T0 + 999)
    assert [confirmed for _, confirmed in rows] == [None, confirmation]
    assert oracle.proven(rows) == [(T0 + 999, ASKED - oracle.LAG_MS, ON)]


@pytest.mark.parametrize("precise_ms", [T0 + 5, T0 + MINUTE_MS])
def test_rule_9_where_one_of_the_checks_names_a_whole_second_nothing_is_proven_within_it(
    precise_ms: int,
) -> None:
    """However much the precise one proves: as agreeing checks go on, a row of the store must not change."""
    precise, whole = said_connected(precise_ms, T0), said_connected(ASKED, T0, whole=True)
    [(_, confirmation)] = oracle.reduced([connect(T0)], [precise, whole])
    assert confirmation == Confirmation(ASKED - oracle.LAG_MS, T0 + 999)


def test_rule_9_of_two_sessions_with_that_stamp_the_one_of_the_largest_id_is_confirmed() -> None:
    events = [connect(T0, session="b", version=1), connect(T0, session="a", version=2)]
    rows = oracle.reduced(events, [said_connected(ASKED, T0)])
    assert [confirmation is not None for _, confirmation in rows] == [True, False]
    assert oracle.proven(rows) == []


@pytest.mark.parametrize("aside_ms", [-SECOND_MS, -1, 1, SECOND_MS])
def test_rule_9_within_a_second_it_is_the_same_transition_and_nothing_is_proven(aside_ms: int) -> None:
    events = [connect(T0), disconnect(T0 + MINUTE_MS)]
    checks = [said_connected(ASKED, T0 + aside_ms), said_disconnected(ASKED, T0 + MINUTE_MS + aside_ms)]
    rows = oracle.reduced(events, checks)
    assert rows == oracle.reduced(events, [])


def test_rule_9_a_named_connect_that_we_missed_is_a_session_of_its_own() -> None:
    events = [disconnect(T0 + MINUTE_MS, session="s", version=3)]
    rows = oracle.reduced(events, [said_connected(T0 + 30 * SECOND_MS, T0, whole=True)])
    assert told(rows) == [(0, ON, 0, "check-named"), (MINUTE_MS, OFF, MINUTE_MS, "connect-lost")]
    assert (rows[0][0].not_before_ms, rows[0][0].not_after_ms) == (T0, T0 + 999)
    assert oracle.proven(rows) == [(T0 + 999, T0 + 20 * SECOND_MS, ON)]


def test_rule_9_a_precise_check_comes_before_one_in_whole_seconds_that_it_fits() -> None:
    checks = [said_connected(ASKED, T0, whole=True), said_connected(T0 + 400, T0 + 300)]
    rows = oracle.reduced([], checks)
    assert told(rows) == [(300, ON, 300, "check-named")]


def test_rule_9_a_named_disconnect_ends_the_session_current_just_before_it() -> None:
    events = [connect(T0, session="s", version=1), connect(ASKED, session="t", version=2)]
    rows = oracle.reduced(events, [said_disconnected(ASKED - 9, T0 + MINUTE_MS, reason="NEW")])
    assert told(rows) == [
        (0, ON, 0, "connect"),
        (MINUTE_MS, OFF, MINUTE_MS, "check-named"),
        (HOUR_MS, ON, HOUR_MS, "connect"),
    ]
    assert rows[1][0].reason == "NEW"
    assert oracle.proven(rows) == [(T0 + MINUTE_MS, ASKED - 9 - oracle.LAG_MS, OFF)]


def test_rule_9_a_named_disconnect_in_whole_seconds_ends_a_session_begun_within_that_second() -> None:
    [_, (row, _)] = oracle.reduced([connect(T0 + 400)], [said_disconnected(ASKED, T0, whole=True)])
    assert (row.at_ms, row.timestamp_ms) == (T0 + 400, T0)
    assert (row.not_before_ms, row.not_after_ms) == (T0, T0 + 999)


def test_rule_9_the_smaller_of_a_named_and_a_held_disconnect_wins_and_proves_no_session() -> None:
    events = [
        connect(T0, session="s", version=1),
        disconnect(T0 + MINUTE_MS, session="s", version=1),
        connect(T0 + 2 * MINUTE_MS, session="t", version=2),
    ]
    rows = oracle.reduced(events, [said_disconnected(T0 + 31 * SECOND_MS, T0 + 30 * SECOND_MS)])
    assert told(rows) == [
        (0, ON, 0, "connect"),
        (30_000, OFF, 30_000, "check-named"),
        (120_000, ON, 120_000, "connect"),
    ]
    assert [row.proved_from_ms for row, _ in rows] == [None, None, None]


def test_rule_9_the_disconnect_of_a_takeover_is_not_the_one_that_a_check_names() -> None:
    events = [connect(T0, session="s"), taken_over(T0 + MINUTE_MS, session="s")]
    rows = oracle.reduced(events, [said_disconnected(ASKED, T0 + MINUTE_MS - 500)])
    assert told(rows) == [(0, ON, 0, "connect"), (59_500, OFF, 59_500, "check-named")]


def test_rule_9_an_end_that_a_later_answer_takes_back_is_of_the_session_before() -> None:
    """Stamps contradict the order: the connect that came after it is stamped before it."""
    end = said_disconnected(T0 + 2 * MINUTE_MS + 1_000, T0 + 2 * MINUTE_MS)
    begun = connect(T0 + MINUTE_MS)
    assert oracle.timeline([begun], [end])[-1].state is State.DISCONNECTED
    asked = said_connected(ASKED, T0 + MINUTE_MS)
    assert [row.rule for row in oracle.timeline([begun], [end, asked])] == ["connect"]


def test_rule_9_of_checks_that_name_one_instant_the_smallest_reason_counts() -> None:
    reasons = ("NEW", None, "CLIENT_ERROR")
    rows = oracle.reduced([], [said_disconnected(ASKED, T0, reason=reason) for reason in reasons])
    assert [row.reason for row, _ in rows] == ["CLIENT_ERROR"]


def test_rule_9_a_named_disconnect_of_no_session_stands_alone() -> None:
    rows = oracle.reduced([connect(ASKED)], [said_disconnected(T0 + MINUTE_MS, T0)])
    assert told(rows) == [(0, OFF, 0, "check-named"), (HOUR_MS, ON, HOUR_MS, "connect")]
    assert rows[0][0].proved_from_ms is None
    assert rows[1][0].proved_from_ms is None


def test_rule_7_the_hour_off_lies_after_the_last_proof_of_the_session_before() -> None:
    late_ms = T0 + 3 * HOUR_MS
    events = [connect(T0, version=1), connect(late_ms, version=0)]
    asked_ms = late_ms - 50 * MINUTE_MS
    [_, (lost, _), _] = oracle.reduced(events, [said_connected(asked_ms, T0)])
    assert lost.rule == "disconnect-lost"
    assert lost.not_before_ms == lost.at_ms == asked_ms - oracle.LAG_MS
    assert lost.not_after_ms == late_ms - oracle.RESET_MS


def test_rule_11_an_unnamed_check_is_laid_between_the_last_proof_and_its_asking() -> None:
    checks = [said_connected(T0 + MINUTE_MS, T0), said_disconnected(ASKED, reason=None)]
    rows = oracle.reduced([connect(T0)], checks)
    laid = rows[-1][0]
    assert told(rows) == [(0, ON, 0, "connect"), (HOUR_MS, OFF, None, "check-laid")]
    assert (laid.not_before_ms, laid.not_after_ms) == (T0 + MINUTE_MS - oracle.LAG_MS, ASKED)
    assert laid.reason is None


def test_rule_11_what_contradicts_a_proof_changes_nothing() -> None:
    events = [connect(T0, session="s", version=1), disconnect(T0 + MINUTE_MS, session="s", version=1)]
    assert told(oracle.reduced(events, [said_disconnected(T0 + 40 * SECOND_MS)])) == told(
        oracle.reduced(events, [])
    )


@pytest.mark.parametrize(("after_ms", "laid"), [(0, False), (9_999, False), (10_000, True)])
def test_rule_11_within_lag_of_a_row_nothing_is_laid(after_ms: int, laid: bool) -> None:
    """A first connect: the check may tell of before it. The same of a transition that we missed."""
    rows = oracle.reduced([connect(T0)], [said_never_connected(T0 + after_ms)])
    assert [row.rule == "check-laid" for row, _ in rows] == ([False, True] if laid else [False])


def test_rule_11_a_lone_disconnect_within_lag_leaves_room_for_its_own_session() -> None:
    """Its connect was lost: the check that says connected may tell of before the disconnect."""
    rows = oracle.reduced([disconnect(T0 - HOUR_MS), disconnect(T0)], [said_connected(T0 + 5)])
    assert [row.rule for row, _ in rows] == ["connect-lost", "connect-lost"]


@pytest.mark.parametrize(("asked_ms", "laid"), [(10_998, False), (10_999, True)])
def test_rule_11_within_lag_of_a_second_named_whole_nothing_is_laid(asked_ms: int, laid: bool) -> None:
    """The disconnect named may lie at the end of its second, and the check tell of before it."""
    checks = [said_disconnected(T0 + 1_000, T0, whole=True), said_connected(T0 + asked_ms)]
    assert [row.rule == "check-laid" for row, _ in oracle.reduced([], checks) if row.state is ON] == [
        True
    ] * laid


def test_rule_11_a_laid_row_proves_its_state_no_later_than_lag_before_it() -> None:
    """The truth may have changed between the instant that an answer tells of and its asking."""
    checks = [said_disconnected(T0, reason=None), said_connected(T0 + 11 * SECOND_MS)]
    rows = oracle.reduced([], checks)
    assert told(rows) == [(0, OFF, None, "check-laid"), (11_000, ON, None, "check-laid")]
    assert rows[-1][0].not_before_ms == T0 - oracle.LAG_MS


def test_rule_11_the_end_of_a_proof_of_the_same_state_is_no_lower_bound() -> None:
    """A late DUPLICATE_CLIENTID of a session before cuts what is proven of the disconnect after it."""
    checks = [said_disconnected(ASKED, T0 + MINUTE_MS), said_disconnected(ASKED, reason=None)]
    events = [connect(T0), taken_over(T0 + 2 * MINUTE_MS, session="s")]
    rows = oracle.reduced(events, checks)
    assert [row.rule for row, _ in rows] == ["connect", "check-named", "takeover-unseen", "check-laid"]
    assert rows[-1][0].not_before_ms == T0 + 2 * MINUTE_MS - oracle.SKEW_MS


def test_rule_11_never_connected_is_disconnected_unknown_and_bounded_by_nothing_below() -> None:
    rows = oracle.reduced([connect(ASKED)], [said_never_connected(T0)])
    assert [row.rule for row, _ in rows] == ["first-evidence", "check-laid", "connect"]
    assert rows[1][0] == Transition(T0, OFF, None, "UNKNOWN", None, T0, "check-laid", None)


def test_rule_6_an_unseen_takeover_may_come_as_late_as_the_next_connect_that_a_check_named() -> None:
    rows = oracle.reduced(
        [taken_over(T0 + 500, session="s")], [said_connected(ASKED, T0 + SECOND_MS, whole=True)]
    )
    assert told(rows) == [(500, ON, None, "takeover-unseen"), (1_000, ON, 1_000, "check-named")]
    assert rows[0][0].not_after_ms == T0 + SECOND_MS + 999
