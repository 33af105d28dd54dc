"""A store that somebody damaged, or that a purge or a back-filling was killed in: what is said and read of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ingest.backfill import EvidenceWriter
from store.engine import open_writer, parse_url
from store.model import Learned
from tests.builders import T0, connect, disconnect
from tests.contract.test_care import fill_checked
from tests.contract.test_commands import Run, event_json, execute, ndjson, on_any, run, sampled

__all__ = ["on_any", "run", "sampled"]  # fixtures


def test_what_was_refused_later_than_all_that_was_learned_is_no_fault(sampled: Run, tmp_path: Path) -> None:
    """A recording knows nothing of today; what is in quarantine is of today, and no question asks about it."""
    (tmp_path / "noise").write_text("not json")
    before = sampled("db", "status", "--json").objects[0]["watermark"]
    assert sampled("ingest", str(tmp_path / "noise")).code == 4
    assert sampled("quarantine", "list").out
    assert sampled("db", "check").code == 0
    assert sampled("rebuild").code == 0
    assert sampled("db", "status", "--json").objects[0]["watermark"] == before


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("UPDATE evidence SET kind = 77 WHERE kind = 1", "evidence.kind is none that there is"),
        ("UPDATE evidence SET extra = '{not json'", "evidence.extra is no JSON"),
        ("UPDATE checks SET answer = 'xx'", "checks.answer is no JSON"),
        ("INSERT INTO observations SELECT 5, 5, 'registry', NULL, known_at, NULL, source_no, '{', NULL"
         " FROM evidence LIMIT 1", "observations.body is no JSON"),
    ],
)  # fmt: skip
def test_evidence_that_says_nothing_any_more_is_named_and_ends_no_command_in_a_traceback(
    run: Run, store_url: str, rng: random.Random, fault: str, said: str
) -> None:
    fill_checked(store_url, rng, 5)
    execute(store_url, fault)
    done = run("db", "check", "--json")
    assert done.code == 1
    assert said in {one["detail"] for one in done.objects}
    assert {one["mend"].partition(";")[0] for one in done.objects if one["kind"] == "evidence"} == {
        "restore a backup"
    }
    exported = run("export", "evidence")
    assert exported.code == 3
    assert "`thingline db check` says what" in exported.err


def test_an_answer_that_a_purge_took_before_it_was_killed_leaves_the_rest_to_be_read(
    run: Run, store_url: str, rng: random.Random
) -> None:
    fill_checked(store_url, rng, 5)
    whole = [json.loads(line) for line in run("export", "evidence").out.splitlines()[1:]]
    execute(store_url, "DELETE FROM checks")
    done = run("export", "evidence")
    assert done.code == 0
    assert "what they repeat is gone (run `thingline db purge` again)" in done.err
    assert [json.loads(line) for line in done.out.splitlines()[1:]] == [
        line for line in whole if "check" not in line
    ]


def test_a_back_filling_that_was_cut_short_is_one_fault_and_what_is_said_to_mend_it_does(
    on_any: Run, store_url: str
) -> None:
    with open_writer(parse_url(store_url)) as store, EvidenceWriter(store) as writer:
        told = [connect(T0, session="s"), disconnect(T0 + 1_000, session="s")]
        writer.write([Learned(each, 0) for each in told], source="test")
    done = on_any("db", "check", "--store", store_url, "--json")
    assert [(one["kind"], one["mend"]) for one in done.objects] == [
        ("backfill", "run the same `thingline backfill` again, and it goes on")
    ]


def test_rules_that_are_gone_are_brought_back(sampled: Run, store_url: str) -> None:
    execute(store_url, "DELETE FROM rules WHERE rule_no = 1")
    done = sampled("db", "check", "--json")
    assert [one["kind"] for one in done.objects] == ["reference"]
    assert sampled("rebuild").code == 0
    assert sampled("db", "check").code == 0


@pytest.mark.parametrize(
    ("change", "times"),
    [
        ("UPDATE evidence SET ip_no = NULL WHERE ip_no IS NOT NULL AND client_no = {client}", 1),
        ('UPDATE evidence SET extra = \'{{"eventReason":"x"}}\' WHERE client_no = {client}', 2),
        ("UPDATE evidence SET principal_no = reason_no WHERE kind = 2 AND client_no = {client}", 1),
        ("UPDATE checks SET answer = replace(answer, 'whatever', 'else')", 1),
        ("UPDATE checks SET reason_no = (SELECT min(text_no) FROM texts)", 1),
        ("UPDATE observations SET body = replace(body, 'ghost', 'other')", 1),
    ],
)
def test_evidence_that_was_changed_is_found_though_every_timeline_is_right(
    run: Run, store_url: str, tmp_path: Path, change: str, times: int
) -> None:
    api = "GetThingConnectivityData"
    told = [
        event_json(connect(T0, client_id="pump-17", session="s"), ipAddress="192.0.2.7"),
        event_json(disconnect(T0 + 1_000, client_id="pump-17", session="s")),
        {"check": {"api": api, "response": {"thingName": "pump-17", "connected": False, "more": "whatever"}}},
        {"check": {"api": api, "thingName": "ghost", "error": "ResourceNotFoundException"}},
    ]
    assert run("ingest", "--asked-at", str(T0 + 90_000), ndjson(tmp_path / "told", told)).code == 0
    assert run("db", "check").code == 0
    client = "(SELECT client_no FROM clients WHERE client_id = 'pump-17')"
    execute(store_url, change.format(client=client))
    done = run("db", "check", "--json")
    assert done.code == 1
    assert [(one["kind"], one["times"]) for one in done.objects] == [("evidence-changed", times)]
    assert all(one["mend"].startswith("restore a backup") for one in done.objects)
    assert run("rebuild").code == 0
    assert run("db", "check").code == 1  # no rule brings it back
