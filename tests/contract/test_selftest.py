"""`thingline selftest` and `simulate` as they are typed: how right the history is where the truth is known.

The fleets are small, so that the whole file takes less than a minute; their seeds are fixed, so that equal code
gives equal figures.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thingline

FOUR_USUAL = (
    "latest timestamp wins",
    "arrival order wins",
    "highest version wins",
    "checks only",
)
HEARING_CHECKS = tuple(f"{method}, and checks" for method in FOUR_USUAL[:3])

# The conditions; the failures of checks and the outages of parts of the fleet are as they come.
LOSSY = ("--loss", "0.02", "--duplicates", "0.1", "--reorder", "5", "--late", "1", "--check-every", "15")
COMPLETE = ("--loss", "0", "--duplicates", "0.3", "--reorder", "20", "--late", "0.5")

Scores = dict[str, Any]
Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str]) -> Typed:
    """Type a command line; gives the exit code and what went to standard output."""

    def run(*args: str) -> tuple[int, str]:
        code = thingline.main(list(args))
        return code, capfd.readouterr().out

    return run


def selftest(typed: Typed, *choices: str) -> tuple[int, Scores]:
    code, out = typed("selftest", "--json", *choices)
    scores: Scores = json.loads(out)
    assert tuple(scores) == ("thingline", *FOUR_USUAL, *HEARING_CHECKS)
    return code, scores


def assert_nothing_untrue(ours: Scores) -> None:
    assert ours["bounds"]["reported"] > 0
    assert ours["bounds"]["true"] == ours["bounds"]["reported"]
    assert ours["observed"]["stretches"] > 0
    assert (ours["observed"]["untrue"], ours["observed"]["wrongMs"]) == (0, 0)


# --- Without loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["1", pytest.param("2", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "checks",
    [
        ("--api", "GetThingConnectivityData"),
        ("--api", "GetThingConnectivityData", "--whole-seconds"),
        ("--api", "SearchIndex"),
    ],
    ids=["milliseconds", "whole-seconds", "SearchIndex"],
)
def test_without_loss_every_answer_is_exact_whatever_the_order(
    typed: Typed, checks: tuple[str, ...], seed: str
) -> None:
    code, scores = selftest(typed, *COMPLETE, "--things", "24", "--days", "1.5", "--seed", seed, *checks)
    ours = scores["thingline"]
    assert_nothing_untrue(ours)
    between = ours["betweenEvidence"]
    assert (between["wrongMs"], between["unknownMs"]) == (0, 0)
    assert between["rightMs"] == between["ms"] > 24 * 24 * 3_600_000
    transitions = ours["transitions"]
    assert transitions["true"] > 500
    assert transitions["timestampsExact"] == transitions["answersExact"] == transitions["true"]
    assert code == 0
    # The same recording is no easy one: each usual method gets something of it wrong.
    assert all(scores[method]["betweenEvidence"]["wrongMs"] > 0 for method in FOUR_USUAL)


def test_without_loss_and_without_checks_every_answer_is_exact(typed: Typed) -> None:
    code, scores = selftest(typed, *COMPLETE, "--things", "24", "--days", "1.5", "--check-every", "0")
    ours = scores["thingline"]
    assert_nothing_untrue(ours)
    assert (ours["betweenEvidence"]["wrongMs"], ours["betweenEvidence"]["unknownMs"]) == (0, 0)
    assert ours["transitions"]["answersExact"] == ours["transitions"]["true"] > 500
    assert code == 0
    assert scores["checks only"]["betweenEvidence"]["rightMs"] == 0


# --- With loss ----------------------------------------------------------------------------------------------


def test_with_loss_no_bound_and_no_proof_is_untrue_and_little_is_wrong(typed: Typed) -> None:
    code, scores = selftest(typed, *LOSSY, "--things", "60", "--days", "3")
    ours = scores["thingline"]
    assert_nothing_untrue(ours)
    assert code == 0
    wrong_ms = {method: score["betweenEvidence"]["wrongMs"] for method, score in scores.items()}
    assert ours["betweenEvidence"]["wrongShare"] < 0.000_5
    assert 20 * wrong_ms["thingline"] < min(wrong_ms[method] for method in FOUR_USUAL)
    assert wrong_ms["thingline"] < min(wrong_ms[method] for method in HEARING_CHECKS)
    # What was lost was really lost: nobody knows all of it.
    assert ours["transitions"]["answersExact"] < ours["transitions"]["true"]
    assert wrong_ms["thingline"] > 0
    assert ours["betweenEvidence"]["observedShare"] > 0.8


def test_where_the_path_had_gaps_nothing_observed_is_untrue_and_what_nobody_watched_is_unknown(
    typed: Typed,
) -> None:
    chosen = (*LOSSY, "--things", "50", "--days", "2", "--gaps", "3", "--gap-length", "120")
    code, scores = selftest(typed, *chosen)
    ours = scores["thingline"]
    assert_nothing_untrue(ours)
    assert code == 0
    assert ours["betweenEvidence"]["unknownMs"] > 0


# --- The command --------------------------------------------------------------------------------------------


def test_on_postgresql_the_figures_are_those_of_sqlite(typed: Typed, postgres_store_url: str) -> None:
    chosen = (*LOSSY, "--things", "24", "--days", "1")
    code, scores = selftest(typed, *chosen, "--store", postgres_store_url)
    assert_nothing_untrue(scores["thingline"])
    assert (code, scores) == selftest(typed, *chosen)
    # The store stays, and answers.
    code, out = typed("history", "--all", "--periods", "--json", "--store", postgres_store_url)
    assert code == 0
    assert len({json.loads(line)["thingName"] for line in out.splitlines()}) > 20


def test_an_untrue_proof_is_told_by_the_exit_code(typed: Typed) -> None:
    # An API two minutes behind its broker, which no rule allows for: it confirms what has ended since.
    chosen = ("--lag", "120000", "--check-every", "5", "--loss", "0.1")
    code, scores = selftest(typed, "--things", "20", "--days", "1", *chosen)
    ours = scores["thingline"]
    assert ours["bounds"]["true"] < ours["bounds"]["reported"] or ours["observed"]["untrue"] > 0
    assert code == 1


def test_the_table_has_a_row_a_method_and_says_what_the_json_says(typed: Typed) -> None:
    chosen = (*LOSSY, "--things", "12", "--days", "0.5")
    code, out = typed("selftest", *chosen)
    header, *rows = out.splitlines()
    assert code == 0
    assert header.split()[:2] == ["method", "wrong"]
    _, scores = selftest(typed, *chosen)
    assert len(rows) == len(scores)
    for row, (method, score) in zip(rows, scores.items(), strict=True):
        assert row.startswith(f"{method}  ")
        wrong = 100 * score["betweenEvidence"]["wrongShare"]
        assert row.removeprefix(method).split("%")[0].strip() == f"{wrong:.4f}"


# --- simulate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fleet.ndjson", "fleet.ndjson.gz"])
def test_what_simulate_writes_is_read_without_a_remainder_and_its_truth_too(
    typed: Typed, tmp_path: Path, name: str
) -> None:
    recording, truth = tmp_path / name, tmp_path / "truth.ndjson"
    store = ("--store", str(tmp_path / "fleet.db"))
    chosen = (*LOSSY, "--things", "20", "--days", "1", "--gaps", "1")
    code, out = typed("simulate", *chosen, str(recording), "--truth", str(truth), "--json")
    assert code == 0
    tally = json.loads(out)
    assert min(tally.values()) > 0  # something was lost, doubled, checked, and failed
    code, out = typed("ingest", "--json", *store, str(recording))
    counts = json.loads(out)
    assert (code, counts["quarantined"]) == (0, 0)
    assert (counts["read"], counts["checks"]) == (tally["lines"], tally["checks"])
    assert counts["events"] == tally["published"] - tally["lost"] + tally["duplicates"]

    header, *answers = (json.loads(line) for line in truth.read_text().splitlines())
    assert (header["thingline"], header["version"], header["to"] - header["from"]) == ("truth", 1, 86_400_000)
    assert len(answers) == tally["trueAnswers"]
    for one in answers:
        assert set(one) == {"thingName", "kind", "at", "connected", "timestamp", "disconnectReason"}
        assert one["at"] <= header["to"]
        assert isinstance(one["connected"], bool)
        assert one["timestamp"] is None or isinstance(one["timestamp"], int)
    assert len({one["thingName"] for one in answers}) == 20

    packed = recording.read_bytes()
    lines = gzip.decompress(packed) if name.endswith(".gz") else packed
    assert json.loads(lines.splitlines()[0]) == {"thingline": "recording", "version": 1}
    typed("simulate", *chosen, str(recording))
    assert recording.read_bytes() == packed, "equal choices give equal bytes"


def test_the_store_that_is_kept_must_be_new(
    typed: Typed, sqlite_store_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ("--things", "3", "--days", "0.5", "--store", sqlite_store_url)
    assert typed("selftest", *small)[0] == 0
    assert thingline.main(["selftest", *small, "--seed", "2"]) == 2
    assert "must be new" in capfd.readouterr().err
