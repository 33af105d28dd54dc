"""The reports about the fleet as they are typed and read: every form of each, and again, later."""

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
from store.model import HOUR_MS, MINUTE_MS, Event, Learned, Observation
from tests.builders import connect, disconnect
from tests.contract.test_commands import Run, on_any, run, sampled

__all__ = ["on_any", "run", "sampled"]  # fixtures

MIDNIGHT_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z
MIDNIGHT, THREE = "2026-11-01T00:00:00Z", "2026-11-01T03:00:00Z"
REPORTS: dict[str, tuple[str, ...]] = {
    "snapshot": (THREE,),
    "diff": (MIDNIGHT, THREE),
    "outages": ("--from", MIDNIGHT, "--to", "2026-11-01T05:00:00Z"),
    "takeovers": ("--from", MIDNIGHT, "--to", "2026-11-01T05:00:00Z"),
    "series": ("--from", MIDNIGHT, "--to", THREE),
    "uptime": ("--from", MIDNIGHT, "--to", THREE),
}
FLAPPING = ("--from", MIDNIGHT, "--to", THREE, "--shorter", "30m", "--within", "3h")
NESTED = {"holders"}  # written otherwise in a cell of a table
COUNTED_ONLY = "countBy"  # rows of NDJSON that no table has


def write(url: str, *items: Event | Observation) -> None:
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        writer.write([Learned(item, 0) for item in items], source="test")


def registry_event(name: str, operation: str, at_ms: int, **more: Any) -> Observation:
    body = {"eventType": "THING_EVENT", "operation": operation, "timestamp": at_ms, "thingName": name, **more}
    return Observation("registry", name, at_ms, json.dumps({"attributes": {}, **body}))


def in_group(name: str, group: str, at_ms: int) -> Observation:
    body = {
        "eventType": "THING_GROUP_MEMBERSHIP_EVENT",
        "operation": "ADDED",
        "thingArn": f"arn:aws:iot:eu-west-1:123456789012:thing/{name}",
        "groupArn": f"arn:aws:iot:eu-west-1:123456789012:thinggroup/{group}",
    }
    return Observation("registry", name, at_ms, json.dumps(body))


def cell(value: Any) -> str:
    """Write a member of an object as CSV has it."""
    if isinstance(value, list):
        return ";".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


@pytest.mark.parametrize("name", REPORTS)
def test_every_form_of_a_report_holds_the_same(sampled: Run, tmp_path: Path, name: str) -> None:
    said = name, *REPORTS[name]
    receipt, *objects = sampled(*said, "--json").objects
    assert (receipt["report"], receipt["knownAt"]) == (name, "2026-11-01T05:30:00.000Z")
    rows = [row for row in objects if COUNTED_ONLY not in row]
    assert rows

    listed = list(csv.DictReader(io.StringIO(sampled(*said, "--csv").out)))
    assert [
        {key: line[key] for key in row if key in line.keys() - NESTED}
        for row, line in zip(rows, listed, strict=True)
    ] == [
        {key: cell(value) for key, value in row.items() if key in listed[0].keys() - NESTED} for row in rows
    ]
    assert {line["knownAt"] for line in listed} == {receipt["knownAt"]}

    path = tmp_path / "report.parquet"
    assert sampled(*said, "--parquet", str(path)).code == 0
    with duckdb.connect() as connection:
        columns = [
            one[0] for one in connection.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
        ]
        assert columns == list(listed[0])
        told = connection.execute('SELECT count(*), count("knownAt") FROM read_parquet(?)', [str(path)])
        assert told.fetchall() == [(len(rows), len(rows))]

    words = sampled(*said).out.splitlines()
    assert words[-1] == f"again: {receipt['again']}"
    assert all(any(str(row["clientId"]) in line for line in words) for row in rows if "clientId" in row)


@pytest.mark.parametrize("name", REPORTS)
def test_asked_again_a_report_is_the_same_whatever_was_learned_since(
    sampled: Run, store_url: str, name: str
) -> None:
    first = sampled(name, *REPORTS[name], "--json")
    late = [
        disconnect(MIDNIGHT_MS + 90 * MINUTE_MS + at, session=f"late{at}", version=9, client_id="valve-3")
        for at in range(2)
    ]
    new = connect(MIDNIGHT_MS + HOUR_MS, session="new", version=0, client_id="pump-19")
    bound = connect(MIDNIGHT_MS + HOUR_MS, session="bound", version=7, client_id="pump-18")
    write(store_url, *late, new, bound._replace(thing_name="boiler-1"))
    again = shlex.split(first.objects[0]["again"])
    assert again[0] == "thingline"
    assert sampled(*again[1:], "--json").out == first.out
    assert sampled(name, *REPORTS[name], "--json").out != first.out


def test_a_hostile_name_moves_no_cursor_and_is_no_formula(run: Run, store_url: str) -> None:
    for hostile in ("=1+1\x1b[2J", "pump\n17"):
        lives = [
            build(MIDNIGHT_MS + (20 * number + turn) * MINUTE_MS, session=f"s{number}", version=number)
            for number in range(9)
            for turn, build in enumerate((connect, disconnect, connect))
        ]
        lives += [
            connect(MIDNIGHT_MS + (170 + number) * MINUTE_MS, session=f"t{number}", version=9 + number)
            for number in range(2)
        ]
        write(store_url, *(event._replace(client_id=hostile) for event in lives))
    for name, options in {**REPORTS, "flapping": FLAPPING}.items():
        done = run(name, *options)
        assert (done.code, done.err) == (0, ""), name
        assert "\x1b" not in done.out, name
        assert "pump\n17" not in done.out, name
        assert "pump\\n17" in done.out or name == "series"
        assert "\n=" not in run(name, *options, "--csv").out, name


# One store for all of them: what is refused changes none.
REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("snapshot", "2126-11-01T00:00:00Z"), "lies in the future"),
    (("snapshot", "2126-11-01T00:00:00Z", "--json"), "lies in the future"),
    (("snapshot", "2126-11-01T00:00:00Z", "--csv"), "lies in the future"),
    (("snapshot", "2026-01-01T00:00:00Z"), "begins later than"),
    (("snapshot", "03:12"), "is not a time"),
    (("snapshot", THREE, "--json", "--csv"), "one of"),
    (("snapshot", THREE, "--parquet", "/nowhere/x.parquet"), "cannot be written"),
    (("outages", "nobody"), "never heard of"),
    (("outages", "--longest", "0"), "--longest"),
    (("outages", "--policy", "x: colour=red"), "no setting"),
    (("outages", "--month", "2026-10"), "give --tz"),
    (("series", "--bucket", "0s"), "makes more than"),
    (("series", "--from", "-30d", "--bucket", "1s"), "give a longer one"),
    (("series", "--bucket", "5"), "--bucket: '5' is no length of time"),
    (("takeovers", "nobody"), "never heard of"),
    (("flapping", "--outages", "1"), "give --outages 2"),
    (("flapping", "--shorter", "soon"), "--shorter: 'soon' is no length of time"),
    (("flapping", "--within", "0s"), "lengths of time above none"),
    (("diff", THREE, MIDNIGHT), "ends before it begins"),
    (("diff", "2026-01-01T00:00:00Z", THREE), "begins later than"),
    (("diff", "2126-11-01T00:00:00Z", "2127-11-01T00:00:00Z"), "in the future"),
]


def test_what_cannot_be_reported_is_refused(sampled: Run) -> None:
    for said, message in REFUSED:
        done = sampled(*said)
        assert (done.code != 0, done.out) == (True, ""), said
        assert message in done.err, (said, done.err)
        assert "Traceback" not in done.err


def test_a_snapshot_counts_things_as_they_were_registered_then(run: Run, store_url: str) -> None:
    names = ["pump-1", "pump-2", "valve-1", "later-1"]
    write(
        store_url,
        *(connect(MIDNIGHT_MS, session=name, version=0, client_id=name) for name in names[:3]),
        disconnect(MIDNIGHT_MS + HOUR_MS, session="pump-2", version=0, client_id="pump-2"),
        *(
            registry_event(name, "CREATED", MIDNIGHT_MS, thingTypeName=name[:-2], thingId=name)
            for name in names[:3]
        ),
        in_group("pump-1", "north", MIDNIGHT_MS + 1),
        in_group("pump-1", "old", MIDNIGHT_MS + 1),
        in_group("pump-2", "north", MIDNIGHT_MS + 3 * HOUR_MS),  # later than what is asked about
        connect(MIDNIGHT_MS + 3 * HOUR_MS, session="later-1", version=0, client_id="later-1"),
        registry_event("valve-1", "DELETED", MIDNIGHT_MS + HOUR_MS, thingId="valve-1"),
    )
    _, *objects = run("snapshot", str(MIDNIGHT_MS + 2 * HOUR_MS), "--json").objects
    things = [row for row in objects if COUNTED_ONLY not in row]
    assert [(row["thingName"], row["state"], row["thingGroupNames"]) for row in things] == [
        ("pump-1", "connected", ["north", "old"]),
        ("pump-2", "disconnected", []),
    ]
    counts = {(row["countBy"], row["key"]): row["things"] for row in objects if COUNTED_ONLY in row}
    assert counts == {
        ("state", "connected"): 1,
        ("state", "disconnected"): 1,
        ("state", "unknown"): 0,
        ("state", "notRegistered"): 2,
        ("reason", "CONNECTION_LOST"): 1,
        ("type", "pump"): 2,
        ("group", "north"): 1,
        ("group", "old"): 1,
        ("group", None): 1,
    }
    words = run("snapshot", str(MIDNIGHT_MS + 2 * HOUR_MS)).out.splitlines()
    assert words[0].endswith(": 1 connected, 1 disconnected, 0 unknown, 2 not registered")
    assert words[1] == "disconnected by reason: 1 CONNECTION_LOST"
    assert [line.split()[0] for line in words[-3:-1]] == ["pump-2", "pump-1"]  # what is down first

    _, *differ = run("diff", str(MIDNIGHT_MS + 1), str(MIDNIGHT_MS + 4 * HOUR_MS), "--json").objects
    assert {(row["thingName"], row["change"]) for row in differ if COUNTED_ONLY not in row} == {
        ("pump-2", "wentDown"),
        ("valve-1", "deleted"),
        ("later-1", "new"),
    }


def test_outages_are_those_that_uptime_counts(sampled: Run) -> None:
    day = ("--from", MIDNIGHT, "--to", "2026-11-02T00:00:00Z")
    _, *rows = sampled("outages", *day, "--json").objects
    assert rows == [
        {
            "thingName": "pump-17",
            "clientId": "pump-17",
            "from": "2026-11-01T02:58:11.201Z",
            "notBefore": "2026-11-01T02:58:11.201Z",
            "notAfter": "2026-11-01T02:58:11.201Z",
            "to": "2026-11-01T03:20:45.007Z",
            "downMs": 1_353_806,
            "reason": "MQTT_KEEP_ALIVE_TIMEOUT",
            "beginSeen": True,
            "endSeen": True,
            "observed": True,
            "annotations": [],
        },
        {
            "thingName": "pump-18",
            "clientId": "pump-18",
            "from": "2026-11-01T05:30:00.000Z",
            "notBefore": "2026-11-01T05:30:00.000Z",
            "notAfter": "2026-11-01T05:30:00.000Z",
            "to": "2026-11-02T00:00:00.000Z",
            "downMs": 66_600_000,
            "reason": "CLIENT_INITIATED_DISCONNECT",
            "beginSeen": True,
            "endSeen": False,
            "observed": False,
            "annotations": [],
        },
    ]
    assert sampled("outages", *day, "--longest", "1", "--json").objects[1:] == rows[1:]
    assert sampled("outages", *day, "pump-17", "--json").objects[1:] == rows[:1]
    assert sampled("outages", *day, "pump-17", "--policy", "kind: grace=30m", "--json").objects[1:] == []
    words = sampled("outages", *day).out
    assert "2 outages, 18 h 52 min" in words
    assert "goes on" in words


def test_an_outage_whose_beginning_is_only_bounded_says_so(run: Run, store_url: str) -> None:
    """No disconnect came, and the version began anew: the device was off for about an hour before that."""
    write(
        store_url,
        connect(MIDNIGHT_MS, session="a", version=5),
        connect(MIDNIGHT_MS + 5 * HOUR_MS, session="b", version=0),
    )
    window = ("--from", MIDNIGHT, "--to", "2026-11-01T06:00:00Z")
    (row,) = run("outages", *window, "--json").objects[1:]
    assert (row["notBefore"], row["from"], row["notAfter"], row["to"], row["observed"]) == (
        "2026-11-01T00:00:00.000Z",
        "2026-11-01T04:00:00.000Z",
        "2026-11-01T04:15:00.000Z",
        "2026-11-01T05:00:00.000Z",
        False,
    )
    assert "2026-11-01T00:00:00.000Z .. 2026-11-01T04:15:00.000Z" in run("outages", *window).out


def test_flapping_is_told_with_its_rule(run: Run, store_url: str) -> None:
    def lives(client_id: str, reason: str) -> list[Event]:
        return [
            event
            for number in range(7)
            for at_ms in [MIDNIGHT_MS + 10 * number * MINUTE_MS]
            for event in (
                connect(at_ms, session=f"{client_id}{number}", version=number, client_id=client_id),
                disconnect(
                    at_ms + 8 * MINUTE_MS,
                    session=f"{client_id}{number}",
                    version=number,
                    client_id=client_id,
                    reason=reason,
                ),
            )
        ]

    write(store_url, *lives("pump-1", "CONNECTION_LOST"), *lives("sleeper", "CLIENT_INITIATED_DISCONNECT"))
    window = ("--from", MIDNIGHT, "--to", THREE)
    receipt, *rows = run("flapping", *window, "--json").objects
    assert receipt["rule"] == {
        "outages": 5,
        "shorterMs": 300_000,
        "withinMs": 3_600_000,
        "words": "5 outages shorter than 5m within 1h, those not counted that the client asked for",
    }
    assert rows == [
        {
            "thingName": "pump-1",
            "clientId": "pump-1",
            "outages": 6,
            "mostWithin": 6,
            "episodes": [{"from": "2026-11-01T00:08:00.000Z", "to": "2026-11-01T01:00:00.000Z"}],
            "downMs": 12 * MINUTE_MS,
            "reasons": {"CONNECTION_LOST": 6},
            "askedFor": 0,
        }
    ]
    assert "1 of 2 things flap" in run("flapping", *window).out
    (line,) = csv.DictReader(io.StringIO(run("flapping", *window, "--csv").out))
    assert (line["episodes"], line["reasons"], line["from"]) == (
        "1",
        "CONNECTION_LOST",
        "2026-11-01T00:08:00.000Z",
    )
    assert run("flapping", *window, "--outages", "7", "--json").objects[1:] == []
    assert run("flapping", *window, "--shorter", "2m", "--json").objects[1:] == []


def test_two_devices_with_one_client_id_play_ping_pong(run: Run, store_url: str) -> None:
    def session(client_id: str, number: int, principal: str, ip: str) -> Event:
        at_ms = MIDNIGHT_MS + number * MINUTE_MS
        event = connect(at_ms, session=f"{client_id}{number}", version=number, client_id=client_id)
        return event._replace(principal=principal, ip=ip)

    write(
        store_url,
        *(session("pump-1", number, "cert-a", "192.0.2.1") for number in range(3)),  # its own sessions
        *(
            session("twin", number, f"cert-{'ab'[number % 2]}", f"192.0.2.{number % 2}")
            for number in range(6)
        ),
        session("alone", 0, "cert-c", "192.0.2.9"),
    )
    window = ("--from", MIDNIGHT, "--to", THREE)
    _, *rows = run("takeovers", *window, "--json").objects
    assert rows[0] == {
        "thingName": "twin",
        "clientId": "twin",
        "takeovers": 5,
        "told": 0,  # no event of the former session's end came
        "swaps": 5,
        "pingPong": 4,
        "principals": 2,
        "addresses": 2,
        "first": "2026-11-01T00:01:00.000Z",
        "last": "2026-11-01T00:05:00.000Z",
        "holders": [
            {"principalIdentifier": "cert-b", "ipAddress": "192.0.2.1", "takeovers": 3},
            {"principalIdentifier": "cert-a", "ipAddress": "192.0.2.0", "takeovers": 2},
        ],
    }
    assert [(row["clientId"], row["takeovers"], row["swaps"]) for row in rows[1:]] == [("pump-1", 2, 0)]
    assert "7 takeovers of 2 clients, 4 of them ping-pong" in run("takeovers", *window).out
    later = ("--from", str(MIDNIGHT_MS + 5 * MINUTE_MS), "--to", THREE)
    assert [row["takeovers"] for row in run("takeovers", *later, "twin", "--json").objects[1:]] == [1]
    assert run("takeovers", *later, "alone", "--json").objects[1:] == []


def test_again_names_the_realm_and_a_thing_whatever_it_is_called(on_any: Run, store_url: str) -> None:
    with open_writer(parse_url(store_url)) as store, Writer(store, realm="eu") as writer:
        event = connect(MIDNIGHT_MS, session="s", version=0, client_id="-x")
        writer.write([Learned(event, 0)], source="test")
    here = ("series", "--store", store_url, "--json")
    first = on_any(*here, "--realm", "eu", "--from", MIDNIGHT, "--to", THREE, "--", "-x")
    receipt, bucket, *_ = first.objects
    again = shlex.split(receipt["again"])
    assert again[:2] == ["thingline", "series"]
    assert on_any(*here, *again[2:]).out == first.out
    assert bucket["connected"] == 1


def test_days_of_a_series_are_those_of_the_zone(sampled: Run) -> None:
    month = ("--month", "2026-10", "--tz", "Europe/Berlin", "--bucket", "1d", "--json")
    _, *rows = sampled("series", *month).objects
    assert len(rows) == 31
    assert [row["from"] for row in rows[23:26]] == [
        "2026-10-23T22:00:00.000Z",
        "2026-10-24T22:00:00.000Z",
        "2026-10-25T23:00:00.000Z",
    ]
    assert (rows[-1]["to"], rows[-1]["connects"], rows[-1]["mostConnected"]) == (
        "2026-10-31T23:00:00.000Z",
        2,
        2,
    )
