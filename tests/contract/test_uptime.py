"""The uptime report as it is typed and read: a table, NDJSON, a spreadsheet's CSV, Parquet; and again, later."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.writer import Writer
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, Learned, Observation
from tests.builders import connect, disconnect
from tests.contract.test_commands import Run, on_any, run, sampled

__all__ = ["on_any", "run", "sampled"]  # fixtures

DAY = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T00:00:00Z")
MIDNIGHT_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z


def write(url: str, *items: Learned) -> None:
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        writer.write(items, source="test")


def registered(name: str, at_ms: int, **more: Any) -> Learned:
    body = {
        "eventType": "THING_EVENT",
        "operation": "UPDATED",
        "timestamp": at_ms,
        "thingName": name,
        "thingId": name,
    }
    return Learned(Observation("registry", name, at_ms, json.dumps({**body, "attributes": {}, **more})), 0)


def test_every_form_holds_the_same_figures(sampled: Run, tmp_path: Path) -> None:
    receipt, *rows = sampled("uptime", *DAY, "--slo", "99.9", "--json").objects
    assert [row.get("thingName") for row in rows] == ["pump-17", "pump-18", "valve-3", None]
    parts = ("connectedMs", "disconnectedMs", "unknownMs", "excludedMs", "notRegisteredMs")
    assert [sum(row[part] for part in parts) for row in rows] == [24 * HOUR_MS] * 3 + [3 * 24 * HOUR_MS]
    assert rows[0]["verdict"] == "missed"
    assert rows[-1]["explainedBy"]["fewestThings"] == ["pump-18"]

    table = csv.DictReader(io.StringIO(sampled("uptime", *DAY, "--slo", "99.9", "--csv").out))
    listed = list(table)
    assert [line["thingName"] for line in listed] == ["pump-17", "pump-18", "valve-3", ""]
    assert [int(line["disconnectedMs"]) for line in listed] == [row["disconnectedMs"] for row in rows]
    assert {line["knownAt"] for line in listed} == {receipt["knownAt"]}

    path = tmp_path / "it's.parquet"
    assert sampled("uptime", *DAY, "--slo", "99.9", "--parquet", str(path)).code == 0
    counted = "SELECT count(*) FILTER (NOT fleet), count(*) FILTER (fleet) FROM read_parquet(?)"
    assert duckdb.execute(counted, [str(path)]).fetchall() == [(3, 1)]
    with duckdb.connect() as connection:
        found = connection.execute(
            'SELECT "thingName", "connectedMs", availability, epoch_ms("from") FROM read_parquet(?)',
            [str(path)],
        ).fetchall()
    assert found == [
        (row.get("thingName"), row["connectedMs"], row["availability"], MIDNIGHT_MS) for row in rows
    ]
    assert [
        each.name for each in tmp_path.iterdir() if "parquet" in each.name or each.name.startswith(".")
    ] == [path.name]

    words = sampled("uptime", *DAY, "--slo", "99.9").out
    assert "pump-17        98.4331 %  12.3741 %" in words
    assert words.splitlines()[-1] == f"again: {receipt['again']}"


def test_asked_again_it_prints_the_same_whatever_was_learned_since(sampled: Run, store_url: str) -> None:
    first = sampled(
        "uptime", *DAY, "--policy", "plain", "--policy", "kind: grace=30m unknown=connected", "--json"
    )
    late = disconnect(MIDNIGHT_MS + 2 * HOUR_MS, session="late", version=9, client_id="valve-3")
    write(store_url, Learned(late, 0))
    again = shlex.split(first.objects[0]["again"])
    assert again[0] == "thingline"
    assert sampled(*again[1:], "--json").out == first.out
    now = sampled(
        "uptime", *DAY, "--policy", "plain", "--policy", "kind: grace=30m unknown=connected", "--json"
    )
    assert now.out != first.out
    assert [row["policy"] for row in first.objects[1:]] == ["plain", "kind"] * 4
    assert first.objects[1]["disconnectedMs"] > first.objects[2]["disconnectedMs"] == 0


def test_groups_are_what_things_were_then(run: Run, store_url: str) -> None:
    """A pump moves from the north to the south at noon, and is down for an hour at either place."""
    noon_ms = MIDNIGHT_MS + 12 * HOUR_MS
    events = [connect(MIDNIGHT_MS, session="s0", version=0)]
    for number, hour in enumerate((6, 18)):
        at_ms = MIDNIGHT_MS + hour * HOUR_MS
        events.append(disconnect(at_ms, session=f"s{number}", version=number))
        events.append(connect(at_ms + HOUR_MS, session=f"s{number + 1}", version=number + 1))
    write(
        store_url,
        *(Learned(event, 0) for event in events),
        registered("pump-17", MIDNIGHT_MS, attributes={"site": "north"}, thingTypeName="pump"),
        registered("pump-17", noon_ms, attributes={"site": "south"}, thingTypeName="pump"),
    )
    window = ("--from", str(MIDNIGHT_MS), "--to", str(MIDNIGHT_MS + 20 * HOUR_MS))
    _, north, south, fleet = run("uptime", *window, "--group-by", "attribute:site", "--json").objects
    assert [(one["group"], one["disconnectedMs"], one["connectedMs"]) for one in (north, south)] == [
        ("north", HOUR_MS, 11 * HOUR_MS),
        ("south", HOUR_MS, 7 * HOUR_MS),
    ]
    assert (fleet["outages"], north["outages"], south["outages"]) == (2, 1, 1)
    _, pumps, _ = run("uptime", *window, "--group-by", "type", "--json").objects
    assert (pumps["group"], pumps["things"], pumps["disconnectedMs"]) == ("pump", 1, 2 * HOUR_MS)
    _, reason, _ = run("uptime", *window, "--group-by", "reason", "--json").objects
    assert reason["disconnectedMs"] == 2 * HOUR_MS
    assert "attribute:site north" in run("uptime", *window, "--group-by", "attribute:site").out


def test_service_hours_are_those_of_a_zone(sampled: Run) -> None:
    office = ("--policy", "office: hours='Mon-Fri 08:00-18:00'")
    assert "give --tz" in sampled("uptime", *DAY, *office).err
    _, *rows = sampled("uptime", *DAY, *office, "--tz", "Europe/Berlin", "--json").objects
    assert all(row["excludedMs"] == 24 * HOUR_MS for row in rows[:-1])  # a Sunday
    assert all(row["availability"] is None for row in rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--month", "2026-10"), "give --tz"),
        (("--month", "2026-10", "--from", "-1d"), "--month, or --from"),
        (("--month", "2126-10", "--tz", "UTC"), "in the future"),
        (("--month", "2026-14", "--tz", "UTC"), "is no month"),
        (("--from", "-1d", "--to", "-2d"), "ends before it begins"),
        (("--slo", "100"), "no target"),
        (("--group-by", "colour"), "give type, group, reason, realm or attribute:NAME"),
        (("--policy", "x: grace=5"), "no length of time"),
        (("--policy", "x: colour=red"), "no setting"),
        (("--policy", "x: unknown=maybe"), "maybe"),
        (("--policy", "x: hours='"), "quotation"),
        (("--policy", ": grace=5m"), "has no name"),
        (("--policy", "x", "--policy", "x"), "one name"),
        (("--json", "--csv"), "one of"),
        (("nobody",), "never heard of"),
        (("--parquet", "/nowhere/x.parquet"), "cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_refused(sampled: Run, options: tuple[str, ...], said: str) -> None:
    done = sampled("uptime", *options)
    assert done.code != 0
    assert said in done.err, done.err
    assert "Traceback" not in done.err


def test_a_name_that_is_a_formula_is_none_in_a_spreadsheet(run: Run, store_url: str) -> None:
    write(store_url, Learned(connect(MIDNIGHT_MS, session="s", version=0, client_id="=HYPERLINK(1)"), 0))
    (line,) = list(csv.DictReader(io.StringIO(run("uptime", *DAY, "--csv").out)))[:1]
    assert (line["thingName"], line["clientId"]) == ("", "'=HYPERLINK(1)")
