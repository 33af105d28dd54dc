"""One report about all realms of a store: each thing counts in its own, whatever others are called."""

from __future__ import annotations

import csv
import io
import shlex

import pytest

from ingest.writer import Writer
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, Learned
from tests.builders import connect, disconnect
from tests.contract.test_commands import Run, on_any, run
from tests.contract.test_uptime import DAY, MIDNIGHT_MS

__all__ = ["on_any", "run"]  # fixtures


@pytest.fixture
def two(run: Run, store_url: str) -> Run:
    """Two pumps of one name, down at three: that of the EU for an hour, that of the US for good; and a valve."""
    three = MIDNIGHT_MS + 3 * HOUR_MS
    first, down = connect(MIDNIGHT_MS, session="s", version=0), disconnect(three, session="s", version=0)
    up = connect(three + HOUR_MS, session="t", version=1)
    for realm, events in (
        ("eu", [first, down, up]),
        ("us", [first, down, connect(MIDNIGHT_MS, session="v", version=0, client_id="valve-3")]),
    ):
        with open_writer(parse_url(store_url)) as store, Writer(store, realm=realm) as writer:
            writer.write([Learned(event, 0) for event in events], source="test")
    return run


def test_uptime_adds_up_by_realm(two: Run) -> None:
    shown = two("uptime", *DAY, "--group-by", "realm", "--json")
    receipt, eu, us, fleet = shown.objects
    found = [(one["groupBy"], one["group"], one["things"], one["disconnectedMs"]) for one in (eu, us)]
    assert found == [("realm", "eu", 1, HOUR_MS), ("realm", "us", 2, 21 * HOUR_MS)]
    assert (fleet["things"], fleet["disconnectedMs"]) == (3, 22 * HOUR_MS)
    assert fleet["explainedBy"]["fewestThings"] == ["us: pump-17"]
    for realm, part in (("eu", eu), ("us", us)):
        *_, alone = two("uptime", *DAY, "--realm", realm, "--json").objects
        assert {name: alone[name] for name in alone if name in part and name != "things"} == {
            name: part[name] for name in alone if name in part and name != "things"
        }
    assert two(*shlex.split(receipt["again"])[1:], "--json").out == shown.out


def test_uptime_of_a_name_counts_whoever_bears_it(two: Run) -> None:
    *_, fleet = two("uptime", "pump-17", "valve-3", *DAY, "--group-by", "realm", "--json").objects
    assert (fleet["things"], fleet["disconnectedMs"]) == (3, 22 * HOUR_MS)
    done = two("uptime", "pump-17", "nobody", *DAY, "--group-by", "realm", "--json")
    assert (done.code, "nobody was never heard of" in done.err) == (5, True)


def test_a_snapshot_lists_and_counts_all_realms(two: Run) -> None:
    at = ("2026-11-01T03:30:00Z", "--group-by", "realm")
    receipt, *rows = two("snapshot", *at, "--json").objects
    listed = [(row["realm"], row["thingName"], row["state"]) for row in rows if "thingName" in row]
    assert listed == [
        ("eu", "pump-17", "disconnected"),
        ("us", "pump-17", "disconnected"),
        ("us", "valve-3", "connected"),
    ]
    counted = {row["key"]: row["disconnected"] for row in rows if row.get("countBy") == "realm"}
    assert counted == {"eu": 1, "us": 1}
    assert "us: valve-3" in two("snapshot", *at).out
    table = list(csv.DictReader(io.StringIO(two("snapshot", *at, "--csv").out)))
    assert [line["realm"] for line in table] == ["eu", "us", "us"]
    assert two(*shlex.split(receipt["again"])[1:], "--json").objects[1:] == rows
    assert two("snapshot", "2026-11-01T03:30:00Z", "--realm", "eu", "--json").objects[1].keys() == (
        rows[0].keys() - {"realm"}
    )
