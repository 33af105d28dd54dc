"""The simulated fleet: what its recording holds, that its truth is the truth, and that seeds name both."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingest.checks import check_of
from ingest.decode import decode_stream
from ingest.reduce import reduce_events
from ingest.scoring import Answered, Score, periods_of
from ingest.simulate import APIS, KINDS, PAGE_THINGS, SEARCH, Choices, Tally, simulate, truth_lines
from ingest.simulate_commands import choices_of, simulate_command
from ingest.usual import CHECKED, CHECKS_ONLY, HIGHEST_VERSION_CHECKED, SORTED, USUAL, replay
from store.errors import UsageError
from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    MINUTE_MS,
    Event,
    Kind,
    Learned,
    Observation,
    State,
    Watch,
)
from tests.strategies import Answer, at_each_boundary

LATER_MS = 1_790_000_000_000  # of receipt, after any run here
SMALL = Choices(things=60, days=2)


@cache
def recorded(choices: Choices) -> tuple[tuple[bytes, ...], Tally]:
    simulated = simulate(choices)
    return tuple(simulated.lines()), simulated.tally


@cache
def learned(choices: Choices) -> tuple[Learned, ...]:
    """Decode the recording; nothing of it may be refused."""
    records = list(decode_stream(recorded(choices)[0], now=lambda: LATER_MS))
    assert [one for one in records if not isinstance(one, Learned)] == []
    return tuple(one for one in records if isinstance(one, Learned))


@cache
def truth(choices: Choices) -> dict[str, list[Answered]]:
    return dict(simulate(choices).truth())


def events(choices: Choices) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for one in learned(choices):
        if isinstance(one.evidence, Event):
            found.setdefault(one.evidence.client_id, []).append(one.evidence)
    return found


def checks(choices: Choices) -> list[Learned]:
    return [one for one in learned(choices) if isinstance(one.evidence, Observation)]


# --- Seeds and shares ---------------------------------------------------------------------------------------


def test_a_seed_names_a_recording_and_a_truth() -> None:
    simulated = simulate(SMALL)
    assert tuple(simulated.lines()) == tuple(simulated.lines()) == recorded(SMALL)[0]
    assert list(truth_lines(simulated)) == list(truth_lines(simulate(SMALL)))
    other = Choices(things=60, days=2, seed=2)
    assert recorded(other)[0] != recorded(SMALL)[0]
    assert truth(other) != truth(SMALL)


def test_what_is_done_to_the_evidence_changes_no_truth() -> None:
    worn = Choices(
        things=60, days=2, loss=0.5, duplicates=0, late=1, gaps=1, check_minutes=0, lag_ms=0, api=SEARCH
    )
    assert truth(worn) == truth(SMALL)


def test_lines_ascend_by_the_moment_of_learning_and_are_counted() -> None:
    lines, tally = recorded(SMALL)
    known_at = [json.loads(line)["knownAt"] for line in lines[1:]]
    assert known_at == sorted(known_at)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert tally.lines == len(lines) - 1
    assert tally.lines == tally.published - tally.lost + tally.duplicates + tally.checks + tally.failed_checks


def test_no_event_is_learned_before_it_was_stamped_nor_a_check_before_it_was_asked() -> None:
    assert all(
        one.known_at_ms is not None and one.evidence.at_ms < one.known_at_ms
        for one in learned(SMALL)
        if not isinstance(one.evidence, Watch)
    )


@pytest.mark.parametrize(("loss", "duplicates", "failures"), [(0.02, 0.10, 0.01), (0.3, 0.5, 0.2)])
def test_losses_duplicates_and_failures_are_near_the_shares_chosen(
    loss: float, duplicates: float, failures: float
) -> None:
    _, tally = recorded(Choices(loss=loss, duplicates=duplicates, check_failures=failures, days=2))
    assert tally.published > 10_000
    assert tally.lost / tally.published == pytest.approx(loss, rel=0.15)
    assert tally.duplicates / (tally.published - tally.lost) == pytest.approx(duplicates, rel=0.15)
    asked = tally.checks + tally.failed_checks
    assert tally.failed_checks / asked == pytest.approx(failures, rel=0.15)


def test_a_duplicate_is_an_event_that_came_before() -> None:
    _, tally = recorded(SMALL)
    arrived = [one.evidence for one in learned(SMALL) if isinstance(one.evidence, Event)]
    assert len(arrived) - len(set(arrived)) == tally.duplicates > 0


def test_deliveries_are_as_late_as_chosen_and_some_overtake_others() -> None:
    once = Choices(things=60, days=2, duplicates=0, late=0.5, reorder_minutes=3, check_minutes=0)
    delays = [
        one.known_at_ms - one.evidence.at_ms
        for one in learned(once)
        if one.known_at_ms is not None and isinstance(one.evidence, Event)
    ]
    assert 2.5 * MINUTE_MS < max(delays) <= 3 * MINUTE_MS + 800
    late = sum(delay > 900 for delay in delays)
    assert late / len(delays) == pytest.approx(0.5, rel=0.1)
    stamps = [one.evidence.at_ms for one in learned(once) if isinstance(one.evidence, Event)]
    assert stamps != sorted(stamps)


# --- The fleet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("things", [1, 6, 7, 50, 333])
def test_every_kind_of_device_is_there_where_the_fleet_has_room(things: int) -> None:
    counts = Counter(simulate(Choices(things=things)).kinds().values())
    assert counts.total() == things
    assert len(counts) == min(things, len(KINDS))


def test_versions_rise_by_connection_and_restart_after_about_an_hour() -> None:
    complete = Choices(loss=0, duplicates=0, late=0, days=5, check_minutes=0, outages=0)
    kept = rose = restarted = 0
    for found in events(complete).values():
        ends = {one.session_id: one for one in found if one.kind is Kind.DISCONNECTED}
        connects = [one for one in found if one.kind is Kind.CONNECTED]
        for end in ends.values():
            assert end.version == next(one.version for one in connects if one.session_id == end.session_id)
        for a, b in pairwise(sorted(connects, key=lambda one: one.at_ms)):
            assert a.version is not None
            assert b.version is not None
            off_ms = b.at_ms - ends[a.session_id].at_ms
            if b.version <= a.version:
                restarted += 1
                assert off_ms >= 55 * MINUTE_MS
                assert b.version <= 4
            else:
                rose += b.version == a.version + 1
                kept += off_ms > 65 * MINUTE_MS
    assert restarted > 100
    assert rose > 5_000
    assert kept > 10  # persistent sessions


def test_session_ids_are_unique() -> None:
    complete = Choices(things=60, days=2, loss=0, duplicates=0, check_minutes=0)
    ids = Counter(
        one.session_id for found in events(complete).values() for one in found if one.kind is Kind.CONNECTED
    )
    assert max(ids.values()) == 1


def test_a_takeover_ends_the_old_session_just_after_the_new_connect_and_is_no_outage() -> None:
    complete = Choices(things=60, days=2, loss=0, duplicates=0, check_minutes=0)
    takeovers = 0
    for client_id, found in events(complete).items():
        connects = sorted(one.at_ms for one in found if one.kind is Kind.CONNECTED)
        for end in found:
            if end.reason == DUPLICATE_CLIENTID:
                takeovers += 1
                assert any(0 <= end.at_ms - at_ms <= 3_000 for at_ms in connects)
        assert all(one.reason != DUPLICATE_CLIENTID for one in truth(complete)[client_id])
    assert takeovers > 100


def test_an_outage_drops_its_part_of_the_fleet_within_a_minute_and_a_storm_follows() -> None:
    chosen = Choices(things=400, days=1, outages=1, outage_share=0.8, check_minutes=0)
    calm = Choices(things=400, days=1, outages=0, check_minutes=0)

    def most(choices: Choices, kind: Kind, within_ms: int) -> int:
        times = sorted(
            one.at_ms for found in events(choices).values() for one in set(found) if one.kind is kind
        )
        most = first = 0
        for last, at_ms in enumerate(times):
            while times[first] <= at_ms - within_ms:
                first += 1
            most = max(most, last - first + 1)
        return most

    assert most(chosen, Kind.DISCONNECTED, MINUTE_MS) > 200 > 5 * most(calm, Kind.DISCONNECTED, MINUTE_MS)
    assert most(chosen, Kind.CONNECTED, MINUTE_MS) > 3 * most(calm, Kind.CONNECTED, MINUTE_MS)


def test_what_never_connects_has_checks_and_no_events() -> None:
    never = [client_id for client_id, kind in simulate(SMALL).kinds().items() if kind == "never"]
    assert never
    assert not set(never) & set(events(SMALL))
    for client_id in never:
        assert truth(SMALL)[client_id] == [Answered(SMALL.start_ms, False, None, "UNKNOWN")]
    said = [check_of(one.evidence) for one in checks(SMALL) if isinstance(one.evidence, Observation)]
    states = {(one.state, one.named_ms, one.reason) for one in said if one and one.client_id in never}
    assert states == {(State.DISCONNECTED, None, "UNKNOWN")}


# --- The truth ----------------------------------------------------------------------------------------------


def test_the_truth_ascends_from_the_beginning_of_the_run() -> None:
    for answers in truth(SMALL).values():
        assert answers[0].at_ms == SMALL.start_ms
        assert all(a.at_ms <= b.at_ms for a, b in pairwise(answers))


@pytest.mark.parametrize("skew_ms", [0, 1_000, 119_000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_every_event_delivered_the_timeline_is_the_truth(seed: int, skew_ms: int) -> None:
    # Law 5, with two witnesses that know nothing of each other.
    complete = Choices(seed=seed, skew_ms=skew_ms, loss=0, late=0.5, check_minutes=0, days=2, things=60)
    found = events(complete)
    for client_id, answers in truth(complete).items():
        rows = [row for row in reduce_events(found.get(client_id, [])) if row.state is not State.UNKNOWN]
        reduced = [Answer(row.at_ms, row.state, row.timestamp_ms, row.reason) for row in rows]
        true = [
            Answer(one.at_ms, State.CONNECTED if one.connected else State.DISCONNECTED, *one[2:])
            for one in answers[1:]
        ]
        assert at_each_boundary(reduced) == at_each_boundary(true), client_id


# --- Checks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", APIS)
def test_a_check_answers_what_was_true_within_the_lag_before_its_asking(api: str) -> None:
    chosen = Choices(things=120, days=1, api=api)
    answered = 0
    for one in checks(chosen):
        assert isinstance(one.evidence, Observation)
        check = check_of(one.evidence)
        if check is None:
            continue
        answered += 1
        held = [
            (true.connected, true.timestamp_ms, true.reason)
            for true, following in pairwise([*truth(chosen)[check.client_id], None])
            if true is not None
            and true.at_ms <= check.asked_ms
            and (following is None or following.at_ms >= check.asked_ms - chosen.lag_ms)
        ]
        reason = check.reason if check.reason is not None else "NONE"
        assert (check.state is State.CONNECTED, check.named_ms, reason) in held
    assert answered > 0.9 * 120 * 96


def test_without_lag_the_index_is_where_the_broker_is() -> None:
    chosen = Choices(things=60, days=1, lag_ms=0, loss=0)
    for one in checks(chosen):
        assert isinstance(one.evidence, Observation)
        check = check_of(one.evidence)
        if check is not None:
            true = [a for a in truth(chosen)[check.client_id] if a.at_ms <= check.asked_ms][-1]
            assert (check.state is State.CONNECTED, check.named_ms) == (true.connected, true.timestamp_ms)


def test_whole_seconds_name_the_second_in_which_it_happened() -> None:
    chosen = Choices(things=30, days=1, whole_seconds=True, lag_ms=0)
    said = [check_of(one.evidence) for one in checks(chosen) if isinstance(one.evidence, Observation)]
    named = [one for one in said if one is not None and one.named_ms is not None]
    assert named
    for one in named:
        assert one.whole
        stamps = {true.timestamp_ms for true in truth(chosen)[one.client_id]}
        assert one.named_ms is not None
        assert stamps & set(range(one.named_ms, one.named_ms + 1_000))


@pytest.mark.parametrize("api", APIS)
def test_a_page_of_a_sweep_is_learned_at_once_and_no_faster_than_allowed(api: str) -> None:
    chosen = Choices(things=PAGE_THINGS + 20, days=0.1, api=api)
    pages: dict[int, list[Observation]] = {}
    for one in checks(chosen):
        assert isinstance(one.evidence, Observation)
        assert one.known_at_ms is not None
        pages.setdefault(one.known_at_ms, []).append(one.evidence)
    assert {len(page) for page in pages.values()} == {PAGE_THINGS, 20}
    assert len(pages) == 2 * 10  # every 15 minutes for 2.4 hours
    for page in pages.values():
        asked = {one.at_ms for one in page}
        errors = {"error" in json.loads(one.body) for one in page}
        if api == SEARCH:
            assert len(asked) == len(errors) == 1
        else:
            assert max(asked) - min(asked) <= 286
            assert len(asked) > 10


def test_no_checks_are_made_where_none_are_chosen() -> None:
    without = Choices(things=30, days=1, check_minutes=0)
    assert checks(without) == []
    assert recorded(without)[1].checks == 0


# --- Gaps ---------------------------------------------------------------------------------------------------


def test_in_a_gap_every_event_is_lost_and_nothing_watches() -> None:
    chosen = Choices(things=60, days=2, gaps=2, gap_minutes=90, loss=0, duplicates=0)
    gaps = simulate(chosen).gaps
    assert [to_ms - from_ms for from_ms, to_ms in gaps] == [90 * MINUTE_MS] * 2
    stamps = [one.evidence.at_ms for one in learned(chosen) if isinstance(one.evidence, Event)]
    true = [
        one.timestamp_ms
        for answers in truth(chosen).values()
        for one in answers
        if one.timestamp_ms is not None
    ]
    for from_ms, to_ms in gaps:
        assert any(from_ms <= stamp < to_ms for stamp in true)
        assert not any(from_ms <= stamp < to_ms for stamp in stamps)
    watches = [one.evidence for one in learned(chosen) if isinstance(one.evidence, Watch)]
    edges = sorted([*((one.from_ms, one.to_ms) for one in watches), *gaps])
    assert edges[0][0] == chosen.start_ms
    assert edges[-1][1] == chosen.to_ms
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    assert max(one.to_ms - one.from_ms for one in watches) <= HOUR_MS


def test_without_gaps_nothing_is_said_of_watching() -> None:
    assert not any(isinstance(one.evidence, Watch) for one in learned(SMALL))


# --- Beside the usual methods -------------------------------------------------------------------------------


def test_the_usual_methods_are_scored_on_the_same_recording() -> None:
    chosen = SMALL
    simulated = simulate(chosen)
    usual = replay(recorded(chosen)[0], now=lambda: LATER_MS, methods=(*USUAL, *CHECKED, SORTED))
    scores = {method: Score() for method in usual.methods}
    for client_id, answers in simulated.truth():
        for method, score in scores.items():
            score.add(
                answers,
                periods_of(usual.answers(method, client_id)),
                evidence=usual.evidence(client_id),
                window=(simulated.from_ms, simulated.to_ms),
            )
    for score in scores.values():
        assert score.between.all_ms + score.beyond.all_ms == chosen.things * (chosen.to_ms - chosen.start_ms)
        assert score.between.wrong_ms > 0
    for method in (*CHECKED, CHECKS_ONLY, SORTED):
        assert scores[method].between.wrong_ms < 0.03 * scores[method].between.all_ms
    assert scores[SORTED].between.wrong_ms < scores[HIGHEST_VERSION_CHECKED].between.wrong_ms
    assert scores[CHECKS_ONLY].answers_exact < 0.5 * scores[CHECKS_ONLY].transitions


# --- Choices and command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        {"loss": 1.1},
        {"duplicates": -0.1},
        {"late": float("nan")},
        {"things": 0},
        {"days": 0},
        {"days": float("nan")},
        {"reorder_minutes": -1},
        {"check_minutes": float("inf")},
        {"skew_ms": 120_001},
        {"api": "GetConnection"},
        {"gaps": 30, "gap_minutes": 600},
    ],
)
def test_what_cannot_be_simulated_is_refused(chosen: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Choices(**chosen)


def test_a_run_that_ends_in_the_future_is_refused() -> None:
    assert choices_of(start="2025-02-01T00:00:00Z", things=1).start_ms == 1_738_368_000_000
    with pytest.raises(UsageError, match="future"):
        choices_of(start="2090-01-01T00:00:00Z")
    with pytest.raises(UsageError, match="no time"):
        choices_of(start="yesterday")


@pytest.fixture
def run() -> Callable[..., Any]:
    def invoke(*args: str) -> Any:
        return CliRunner().invoke(simulate_command, args, standalone_mode=False, catch_exceptions=False)

    return invoke


def test_the_command_writes_the_recording_and_its_truth(run: Callable[..., Any], tmp_path: Path) -> None:
    out, told, packed = tmp_path / "o.ndjson", tmp_path / "t.ndjson", tmp_path / "o.ndjson.gz"
    chosen = ("--things", "60", "--days", "2")
    found = run(str(out), "--truth", str(told), *chosen, "--json")
    assert out.read_bytes() == b"".join(recorded(SMALL)[0])
    header, *answers = [json.loads(line) for line in told.read_bytes().splitlines()]
    assert (header["from"], header["to"]) == (SMALL.start_ms, SMALL.to_ms)
    assert [(one["thingName"], one["at"]) for one in answers] == [
        (client_id, one.at_ms) for client_id, listed in truth(SMALL).items() for one in listed
    ]
    counts = json.loads(found.stdout)
    assert counts["lines"] == recorded(SMALL)[1].lines
    assert counts["trueAnswers"] == len(answers)

    run(str(packed), *chosen)
    assert gzip.decompress(packed.read_bytes()) == out.read_bytes()
    assert packed.read_bytes()[3:8] == bytes(5)  # no name and no time of writing, for equal bytes


def test_the_command_writes_to_standard_output_and_talks_to_standard_error(run: Callable[..., Any]) -> None:
    found = run("-", "--things", "60", "--days", "2")
    assert found.stdout_bytes == b"".join(recorded(SMALL)[0])
    assert f"{recorded(SMALL)[1].lines:,} lines" in found.stderr


@pytest.mark.parametrize("truth_out", ["-", "same.ndjson"])
def test_recording_and_truth_do_not_share_a_file(run: Callable[..., Any], truth_out: str) -> None:
    with pytest.raises(UsageError):
        run("same.ndjson", "--truth", truth_out)


def test_a_place_that_cannot_be_written_is_named(run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        run(str(tmp_path / "nowhere" / "o.ndjson"), "--things", "1")
