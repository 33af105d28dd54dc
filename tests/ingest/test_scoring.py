"""Scoring, and the usual methods, on histories short enough to reckon by hand."""

from __future__ import annotations

import pytest

from ingest.scoring import Answered, Reported, Score, Totals, periods_of, table
from ingest.usual import (
    ARRIVAL_ORDER,
    ARRIVAL_ORDER_CHECKED,
    CHECKED,
    CHECKS_ONLY,
    HIGHEST_VERSION,
    HIGHEST_VERSION_CHECKED,
    LATEST_TIMESTAMP,
    LATEST_TIMESTAMP_CHECKED,
    SORTED,
    USUAL,
    Usual,
    replay,
)
from store.model import HOUR_MS, MINUTE_MS, SECOND_MS, Certainty, Event, Learned, Observation
from tests.builders import CLIENT, T0, connect, connect_failed, disconnect, taken_over

WINDOW = (T0, T0 + 1_000)
LOST = "CONNECTION_LOST"


def up(after_ms: int, stamp_ms: int | None = None) -> Answered:
    return Answered(T0 + after_ms, True, T0 + (after_ms if stamp_ms is None else stamp_ms), "NONE")


def down(after_ms: int, stamp_ms: int | None = None, reason: str = LOST) -> Answered:
    return Answered(T0 + after_ms, False, T0 + (after_ms if stamp_ms is None else stamp_ms), reason)


NEVER = Answered(T0, False, None, "UNKNOWN")
TRUTH = [NEVER, up(100), down(400), up(500), down(900)]


def told(
    from_ms: int,
    to_ms: int | None,
    answer: Answered,
    certainty: Certainty = Certainty.INFERRED,
    bounds: tuple[int, int] | None = None,
) -> Reported:
    low, high = (None, None) if bounds is None else (T0 + bounds[0], T0 + bounds[1])
    return Reported(
        T0 + from_ms,
        None if to_ms is None else T0 + to_ms,
        answer.connected,
        answer.timestamp_ms,
        answer.reason,
        certainty,
        low,
        high,
    )


def scored(
    reported: list[Reported],
    *,
    truth: list[Answered] = TRUTH,
    evidence: tuple[int, int] | None = (100, 900),
) -> Score:
    score = Score()
    held = None if evidence is None else (T0 + evidence[0], T0 + evidence[1])
    score.add(truth, reported, evidence=held, window=WINDOW)
    return score


# --- Time ---------------------------------------------------------------------------------------------------


def test_the_truth_itself_is_right_throughout_and_exact() -> None:
    score = scored(periods_of(TRUTH))
    assert score.between == Totals(right_ms=800)
    assert score.beyond == Totals(right_ms=200)
    assert (score.transitions, score.timestamps_exact, score.answers_exact) == (4, 4, 4)


def test_a_lost_outage_is_wrong_for_as_long_as_it_lasted() -> None:
    score = scored(periods_of([up(100), up(500), down(900)]))
    assert score.between == Totals(right_ms=700, wrong_ms=100)
    assert score.beyond == Totals(right_ms=100, unknown_ms=100)  # before 100 nothing is reported
    assert (score.transitions, score.answers_exact) == (4, 3)


def test_a_period_over_several_true_states_is_right_in_some_and_wrong_in_others() -> None:
    score = scored([told(0, 150, down(0)), told(150, None, up(150))])
    assert score.between == Totals(right_ms=650, wrong_ms=150)
    assert score.beyond == Totals(right_ms=100, wrong_ms=100)


def test_to_call_connected_what_never_connected_is_wrong() -> None:
    score = scored([told(0, None, up(0))], truth=[NEVER], evidence=(0, 1_000))
    assert score.between == Totals(wrong_ms=1_000)


def test_time_that_is_reported_as_unknown_or_not_at_all_is_unknown() -> None:
    unknown = Reported(T0 + 500, T0 + 700, None, None, None, Certainty.UNKNOWN)
    score = scored([told(100, 400, up(100)), unknown, told(800, None, up(500))])
    assert score.between == Totals(right_ms=400, unknown_ms=400)
    assert score.beyond == Totals(wrong_ms=100, unknown_ms=100)


def test_a_wrong_stretch_is_split_at_the_last_evidence() -> None:
    score = scored([told(0, None, down(0))], truth=[NEVER, up(200)], evidence=(300, 600))
    assert score.between == Totals(wrong_ms=300)
    assert score.beyond == Totals(right_ms=200, wrong_ms=500)


def test_of_a_client_without_evidence_all_is_beyond() -> None:
    score = scored([], evidence=None)
    assert score.between.all_ms == 0
    assert score.beyond == Totals(unknown_ms=1_000)
    assert score.transitions == 0


def test_the_totals_of_any_report_are_the_window() -> None:
    for reported in ([], periods_of(TRUTH), [told(50, 60, up(50)), told(399, 2_000, down(399))]):
        score = scored(reported)
        assert score.between.all_ms + score.beyond.all_ms == 1_000


def test_never_connected_is_a_state_and_no_transition() -> None:
    score = scored(periods_of([NEVER]), truth=[NEVER], evidence=(0, 1_000))
    assert score.between == Totals(right_ms=1_000)
    assert (score.transitions, score.bounded) == (0, 0)


def test_a_true_state_of_no_length_is_not_asked_for() -> None:
    score = scored(periods_of([up(100)]), truth=[NEVER, down(100), up(100)])
    assert (score.transitions, score.answers_exact) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "stamps", "answers"),
    [(down(400), 1, 1), (down(400, reason="OTHER"), 1, 0), (down(400, stamp_ms=401), 0, 0)],
)
def test_a_transition_is_exact_by_its_millisecond_and_its_reason(
    answer: Answered, stamps: int, answers: int
) -> None:
    score = scored(periods_of([answer]), truth=[up(100), down(400)], evidence=(400, 900))
    assert (score.transitions, score.timestamps_exact, score.answers_exact) == (1, stamps, answers)


def test_a_transition_told_at_another_time_than_its_own_is_not_exact() -> None:
    score = scored([told(600, 700, down(400))])
    assert score.timestamps_exact == 0


# --- Bounds and proof ---------------------------------------------------------------------------------------


def test_bounds_hold_where_a_true_transition_to_that_state_lies_in_them() -> None:
    holding = told(0, 300, up(0), bounds=(50, 100))
    too_early = told(300, 450, down(300), bounds=(300, 399))
    of_the_other_state = told(450, None, up(450), bounds=(890, 910))
    score = scored([holding, too_early, of_the_other_state])
    assert (score.bounded, score.bounds_true) == (3, 1)
    assert (score.width_ms(0.5), score.width_ms(0.95)) == (50, 99)


def test_periods_that_differ_in_certainty_only_are_one_transition() -> None:
    parts = [
        told(100, 200, up(100), bounds=(100, 100)),
        Reported(T0 + 200, T0 + 300, None, None, None, Certainty.UNKNOWN),
        told(300, 400, up(100), Certainty.OBSERVED, bounds=(100, 100)),
    ]
    assert (scored(parts).bounded, scored(parts).bounds_true) == (1, 1)


def test_a_method_without_bounds_has_none_to_be_held_to() -> None:
    score = scored(periods_of(TRUTH))
    assert (score.bounded, score.width_ms(0.5)) == (0, None)


def test_an_observed_stretch_is_true_where_its_state_holds_throughout() -> None:
    score = scored([told(100, 400, up(100), Certainty.OBSERVED, bounds=(100, 100))])
    assert (score.observed, score.observed_untrue, score.observed_wrong_ms) == (1, 0, 0)
    assert score.between.observed_ms == 300


def test_an_observed_stretch_over_an_outage_is_untrue_for_as_long() -> None:
    score = scored([told(100, 900, up(100), Certainty.OBSERVED, bounds=(100, 100))])
    assert (score.observed, score.observed_untrue, score.observed_wrong_ms) == (1, 1, 100)


def test_an_observed_stretch_that_hides_a_takeover_is_untrue_though_its_state_holds() -> None:
    truth = [up(100), up(500)]
    hiding = [told(100, 900, up(100), Certainty.OBSERVED, bounds=(100, 100))]
    assert scored(hiding, truth=truth).observed_untrue == 1
    bounded = [
        told(100, 450, up(100), Certainty.OBSERVED, bounds=(100, 100)),
        told(450, 900, up(450), Certainty.OBSERVED, bounds=(450, 549)),
    ]
    assert scored(bounded, truth=truth).observed_untrue == 0


def test_scores_of_many_clients_add_up_and_are_drawn_as_a_table() -> None:
    score = Score()
    for _ in range(3):
        score.add(TRUTH, periods_of([up(100)]), evidence=(T0 + 100, T0 + 900), window=WINDOW)
    assert score.between == Totals(right_ms=2_100, wrong_ms=300)
    assert score.as_json()["betweenEvidence"]["wrongShare"] == 0.125
    assert score.as_json()["transitions"] == {"true": 12, "timestampsExact": 3, "answersExact": 3}
    head, row = table({"this one": score}).splitlines()
    assert head.split()[0] == "method"
    assert row.startswith("this one  12.5000 %      300 ms   0.00 %")


def test_no_share_of_nothing_is_made_up() -> None:
    assert Score().as_json()["betweenEvidence"]["wrongShare"] is None
    assert " - " in table({"none": Score()})


def test_rounding_does_not_hide_that_something_is_wrong_or_missing() -> None:
    score = Score(between=Totals(right_ms=10**9, wrong_ms=1), transitions=10**6, timestamps_exact=10**6 - 1)
    row = table({"x": score}).splitlines()[1]
    assert "<0.0001 %" in row
    assert ">99.99 %" in row


# --- The usual methods --------------------------------------------------------------------------------------


def check(asked_ms: int, *, connected: bool, named_ms: int | None, reason: str = LOST) -> Observation:
    named = "" if named_ms is None else f',"timestamp":{named_ms}'
    said = (
        f'"connected":{str(connected).lower()}{named},"disconnectReason":"{"NONE" if connected else reason}"'
    )
    body = f'{{"api":"GetThingConnectivityData","response":{{"thingName":"{CLIENT}",{said}}}}}'
    return Observation("check", CLIENT, asked_ms, body)


def says(method: str, *arrived: Event | Observation, late_ms: int = 1) -> list[Answered]:
    """Tell a method of evidence in its order of arrival, each piece `late_ms` after the one before at least."""
    usual = Usual([method])
    known_at_ms = 0
    for one in arrived:
        known_at_ms = max(known_at_ms + late_ms, one.at_ms)
        usual.take(Learned(one, 0, known_at_ms))
    return usual.answers(method, CLIENT)


FIRST = connect(T0, session="a", version=3)
END = disconnect(T0 + 10_000, session="a", version=3)
SECOND = connect(T0 + 20_000, session="b", version=4)


@pytest.mark.parametrize("method", [LATEST_TIMESTAMP, ARRIVAL_ORDER, HIGHEST_VERSION, SORTED])
def test_a_plain_history_is_told_right_by_all_that_hear_events(method: str) -> None:
    assert says(method, FIRST, END, END, SECOND) == [up(0), down(10_000), up(20_000)]


def test_checks_only_hears_no_event() -> None:
    assert says(CHECKS_ONLY, FIRST, END, SECOND) == []


@pytest.mark.parametrize("method", [LATEST_TIMESTAMP, ARRIVAL_ORDER, HIGHEST_VERSION])
def test_three_hear_no_check(method: str) -> None:
    asked = check(T0 + HOUR_MS, connected=False, named_ms=END.at_ms)
    assert says(method, FIRST, asked) == [up(0)]


@pytest.mark.parametrize("method", [*USUAL, *CHECKED])
def test_connect_failed_ends_nothing(method: str) -> None:
    told_before = says(method, FIRST)
    assert says(method, FIRST, connect_failed(T0 + 5_000)) == told_before


def test_the_latest_timestamp_drops_a_late_connect_and_with_it_the_time_it_stood_for() -> None:
    assert says(LATEST_TIMESTAMP, END, FIRST) == [down(10_000)]


def test_the_late_end_of_a_session_taken_over_closes_the_live_one() -> None:
    old_end = taken_over(T0 + 21_000, session="a", version=3)
    closed = down(21_000, reason="DUPLICATE_CLIENTID")
    assert says(LATEST_TIMESTAMP, FIRST, SECOND, old_end) == [up(0), up(20_000), closed]
    assert says(ARRIVAL_ORDER, FIRST, SECOND, old_end)[-1].connected is False


@pytest.mark.parametrize("version", [0, 3])
def test_the_version_tells_that_the_end_of_a_session_taken_over_is_old(version: int) -> None:
    first = connect(T0, session="a", version=version)
    second = connect(T0 + 20_000, session="b", version=version + 1)
    old_end = taken_over(T0 + 21_000, session="a", version=version)
    assert says(HIGHEST_VERSION, first, second, old_end) == [up(0), up(20_000)]


def test_the_version_starts_anew_at_0_and_after_an_hour() -> None:
    at_ms = T0 + 30_000
    assert says(HIGHEST_VERSION, FIRST, END, connect(at_ms, session="c", version=0))[-1] == up(30_000)
    soon = connect(at_ms, session="c", version=1)
    assert says(HIGHEST_VERSION, FIRST, END, soon) == [up(0), down(10_000)]
    later = connect(at_ms + HOUR_MS, session="c", version=1)
    assert says(HIGHEST_VERSION, FIRST, END, later)[-1] == up(30_000 + HOUR_MS)


def test_arrival_order_tells_what_came_last_from_its_coming_on() -> None:
    told_of = says(ARRIVAL_ORDER, SECOND, END, late_ms=MINUTE_MS)
    assert told_of == [up(20_000), down(80_000, 10_000)]


def test_checks_only_tells_from_the_instant_that_a_check_names() -> None:
    checks = (
        check(T0, connected=False, named_ms=None, reason="UNKNOWN"),
        check(T0 + HOUR_MS, connected=True, named_ms=T0 + MINUTE_MS),
        check(T0 + 2 * HOUR_MS, connected=True, named_ms=T0 + MINUTE_MS),
        check(T0 + 3 * HOUR_MS, connected=False, named_ms=T0 + 2 * HOUR_MS + 5),
    )
    assert says(CHECKS_ONLY, *checks) == [NEVER, up(MINUTE_MS), down(2 * HOUR_MS + 5)]


@pytest.mark.parametrize("method", [LATEST_TIMESTAMP_CHECKED, HIGHEST_VERSION_CHECKED, SORTED])
def test_a_check_that_names_a_newer_instant_mends_a_lost_event_from_that_instant_on(method: str) -> None:
    mended = says(method, FIRST, check(T0 + HOUR_MS, connected=False, named_ms=END.at_ms))
    assert mended == [up(0), down(10_000)]
    assert says(method, FIRST, check(T0 + HOUR_MS, connected=False, named_ms=END.at_ms), END) == mended


@pytest.mark.parametrize("method", [LATEST_TIMESTAMP_CHECKED, ARRIVAL_ORDER_CHECKED])
def test_a_check_that_contradicts_overrides_from_its_asking_on(method: str) -> None:
    old_end = taken_over(T0 + 21_000, session="a", version=3)
    asked = check(T0 + HOUR_MS, connected=True, named_ms=SECOND.at_ms)
    assert says(method, FIRST, SECOND, old_end, asked)[-1] == up(HOUR_MS, 20_000)


@pytest.mark.parametrize("method", [LATEST_TIMESTAMP_CHECKED, ARRIVAL_ORDER_CHECKED, HIGHEST_VERSION_CHECKED])
def test_a_check_of_an_index_behind_its_broker_overrides_nothing(method: str) -> None:
    behind = check(T0 + 22_000, connected=False, named_ms=END.at_ms)
    assert says(method, FIRST, END, SECOND, behind) == [up(0), down(10_000), up(20_000)]


def test_sorting_all_events_knows_no_late_ones_and_no_takeovers() -> None:
    third = connect(T0 + 30_000, session="c", version=5)
    old_end = taken_over(T0 + 31_000, session="b", version=4)
    assert says(SORTED, old_end, third, SECOND, END, FIRST) == [
        up(0),
        down(10_000),
        up(20_000),
        up(30_000),
    ]


def test_the_evidence_of_a_client_spans_its_stamps_and_the_checks_that_answered() -> None:
    usual = Usual()
    failed = Observation(
        "check",
        CLIENT,
        T0 + 2 * HOUR_MS,
        f'{{"api":"SearchIndex","thingName":"{CLIENT}","error":"ThrottlingException"}}',
    )
    for one in (FIRST, check(T0 + HOUR_MS, connected=True, named_ms=T0), failed):
        usual.take(Learned(one, 0, T0 + 3 * HOUR_MS))
    assert usual.evidence(CLIENT) == (T0, T0 + HOUR_MS)
    assert usual.evidence("another") is None


def test_a_recording_is_replayed_in_its_order() -> None:
    lines = [
        b'{"knownAt":%d,"event":{"clientId":"p","eventType":"connected","timestamp":%d}}\n'
        % (T0 + 5 * SECOND_MS, T0),
        b'{"knownAt":%d,"check":{"api":"SearchIndex","askedAt":%d,"response":{"thingName":"p",'
        b'"connectivity":{"connected":false,"timestamp":%d,"disconnectReason":"X"}}}}\n'
        % (T0 + 90_000, T0 + 90_000, T0 + 60_000),
    ]
    usual = replay(lines, now=lambda: T0 + HOUR_MS)
    assert usual.methods == (*USUAL, *CHECKED)
    assert usual.answers(ARRIVAL_ORDER_CHECKED, "p") == [up(5_000, 0), down(90_000, 60_000, "X")]
    assert usual.answers(LATEST_TIMESTAMP_CHECKED, "p") == [up(0), down(60_000, reason="X")]
