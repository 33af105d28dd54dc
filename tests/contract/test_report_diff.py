"""Why a report changed: `report diff` names what changed, and what was learned in between that is behind it."""

from __future__ import annotations

import csv
import io
import random
import shlex
from pathlib import Path
from typing import Any

from ingest.writer import Writer
from queries.history import open_history
from queries.revision import revisions
from queries.uptime import Policy, account
from queries.uptime_report import NamedPolicy, Report, figures
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, MINUTE_MS, Learned, Watch
from tests.builders import T0, connect, disconnect, observed, said_connected
from tests.contract.test_commands import Run, on_any, run, sampled
from tests.contract.test_uptime import DAY, MIDNIGHT_MS, registered, write
from tests.strategies import history

__all__ = ["on_any", "run", "sampled"]  # fixtures

THEN = "2026-11-01T03:30:00Z"  # before the events of the outage came in


def changes(row: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {one["figure"]: (one["before"], one["after"]) for one in row["changed"]}


def test_a_late_event_stands_behind_each_figure_that_it_changed(sampled: Run) -> None:
    receipt, pump, second, fleet = sampled("report", "diff", THEN, "now", *DAY, "--json").objects
    assert (receipt["knownBefore"], receipt["knownAt"]) == (
        "2026-11-01T03:30:00.000Z",
        "2026-11-01T05:30:00.000Z",
    )
    assert [pump["thingName"], second["thingName"], fleet["things"]] == ["pump-17", "pump-18", 2]
    assert changes(pump)["disconnectedMs"] == (0, 1_353_806)
    assert "takeovers" not in changes(pump)
    assert [(one["eventType"], one["knownAt"]) for one in pump["evidence"]] == [
        ("disconnected", "2026-11-01T04:00:02.000Z"),
        ("connected", "2026-11-01T04:00:02.000Z"),
    ]
    assert [(one["connected"], one["rule"]) for one in pump["recorded"]] == [
        (False, "disconnect"),
        (True, "connect"),
    ]
    again = shlex.split(receipt["again"])
    words = sampled("report", "diff", THEN, "now", *DAY).out
    assert "MQTT_KEEP_ALIVE_TIMEOUT, known 2026-11-01T04:00:02.000Z, from" in words
    assert "valve-3" not in words
    assert sampled(*again[1:]).out == words
    listed = list(csv.DictReader(io.StringIO(sampled(*again[1:], "--csv").out)))
    assert {line["thingName"] for line in listed} == {"pump-17", "pump-18", ""}
    (line,) = (one for one in listed if (one["thingName"], one["figure"]) == ("pump-17", "disconnectedMs"))
    assert (line["before"], line["after"]) == ("0", "1353806")
    assert "transition recorded: disconnected" in line["learned"]


def test_asked_again_it_prints_the_same_whatever_was_learned_since(sampled: Run, store_url: str) -> None:
    first = sampled("report", "diff", THEN, "now", *DAY, "--json")
    late = disconnect(MIDNIGHT_MS + 2 * HOUR_MS, session="late", version=9, client_id="valve-3")
    write(store_url, Learned(late, 0))
    assert sampled(*shlex.split(first.objects[0]["again"])[1:], "--json").out == first.out
    assert sampled("report", "diff", THEN, "now", *DAY, "--json").out != first.out


def test_a_saved_report_says_what_it_is_about(sampled: Run, tmp_path: Path) -> None:
    policy = ("--policy", "lenient: grace=30m")
    saved = tmp_path / "then.json"
    saved.write_text(sampled("uptime", "pump-17", *DAY, *policy, "--known-at", THEN, "--json").out)
    by_file = sampled("report", "diff", str(saved), "now", "--json").out
    assert by_file == sampled("report", "diff", THEN, "now", "pump-17", *DAY, *policy, "--json").out
    later = tmp_path / "later.json"
    later.write_text(sampled("uptime", *DAY, "--known-at", "2026-11-01T04:30:00Z", "--json").out)
    receipt, *rows = sampled("report", "diff", str(saved), str(later), "--policy", "plain", "--json").objects
    assert receipt["knownAt"] == "2026-11-01T04:30:00.000Z"
    assert changes(rows[0])["disconnectedMs"] == (0, 1_353_806)
    later.write_text("{}\n")
    done = sampled("report", "diff", str(later), "now", *DAY)
    assert (done.code, "holds no report" in done.err) == (2, True)


def test_annotations_checks_and_the_registry_are_evidence_too(run: Run, store_url: str) -> None:
    now = MIDNIGHT_MS
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: now) as writer:
        writer.write([Learned(connect(MIDNIGHT_MS, session="s", version=0), 0)], source="events")
        now += 9 * HOUR_MS
        said = observed(said_connected(MIDNIGHT_MS + 5 * HOUR_MS, MIDNIGHT_MS + 2 * HOUR_MS))
        writer.write([Learned(said, 0)], source="checks")
        writer.write([registered("pump-17", MIDNIGHT_MS + HOUR_MS, operation="CREATED")], source="registry")
        writer.write([Learned(Watch("queue", MIDNIGHT_MS, MIDNIGHT_MS + HOUR_MS), 0)], source="run")
    window = ("--from", str(MIDNIGHT_MS), "--to", str(MIDNIGHT_MS + 6 * HOUR_MS))
    assert run("annotate", "pump-17", *window, "--maintenance", "--author", "Ada").code == 0
    assert run("annotate", "withdraw", "1").code == 0
    _, pump, fleet = run("report", "diff", str(MIDNIGHT_MS + 1), "now", *window, "--json").objects
    assert [each["askedAt"] for each in pump["checks"]] == ["2026-11-01T05:00:00.000Z"]
    assert [each["at"] for each in pump["registry"]] == ["2026-11-01T01:00:00.000Z"]
    assert [each["withdrawn"] for each in pump["annotations"]] == [True]
    # Nobody was recording until the instant that the API names, nor from ten seconds before it was asked.
    assert changes(pump)["unknownMs"] == (0, 2 * HOUR_MS + 10_000)
    assert fleet["watched"] == [{"from": "2026-11-01T00:00:00.000Z", "to": "2026-11-01T01:00:00.000Z"}]
    words = run("report", "diff", str(MIDNIGHT_MS + 1), "now", *window).out
    for said_of in ("API asked", "THING_EVENT CREATED", "annotation 1 withdrawn", "recording 2026-11-01"):
        assert said_of in words


def test_a_thing_that_is_heard_of_later_had_no_figures(run: Run, store_url: str) -> None:
    write(store_url, Learned(connect(MIDNIGHT_MS, session="s", version=0, client_id="old"), 0, MIDNIGHT_MS))
    write(store_url, Learned(connect(MIDNIGHT_MS, session="n", version=0, client_id="new\x1b[2J"), 0))
    window = ("--from", str(MIDNIGHT_MS), "--to", str(MIDNIGHT_MS + HOUR_MS))
    _, new, fleet = run("report", "diff", str(MIDNIGHT_MS), "now", *window, "--json").objects
    assert new["clientId"] == "new\x1b[2J"
    assert changes(new)["connectedMs"] == (None, HOUR_MS)
    assert changes(fleet)["things"] == (1, 2)
    assert "\x1b" not in run("report", "diff", str(MIDNIGHT_MS), "now", *window).out


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("now", "now", *DAY), "A must be the earlier"),
    (("now", THEN, *DAY), "A must be the earlier"),
    (("soon", "now", *DAY), "not a time"),
    ((THEN, "now", "nobody", *DAY), "nobody was never heard of"),
    ((THEN, "now", *DAY, "--policy", "x: colour=red"), "no setting"),
]


def test_what_cannot_be_compared_is_refused(sampled: Run) -> None:
    for words, complaint in REFUSED:
        done = sampled("report", "diff", *words)
        assert done.code != 0
        assert complaint in done.err, done.err
        assert done.out == ""


def test_nothing_changes_without_evidence_behind_it(store_url: str, rng: random.Random) -> None:
    """Of random histories: what is listed is what differs between the two reports, and something is behind it all."""
    back_ms = 550 * 24 * HOUR_MS
    events = [
        event._replace(at_ms=event.at_ms - back_ms)
        for number in range(25)
        for event in history(rng, f"pump-{number}").events
    ]
    moments = sorted(rng.randrange(T0 - HOUR_MS, T0) for _ in events)
    rng.shuffle(events)
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write(
            [Learned(event, 0, known) for event, known in zip(events, moments, strict=True)], source="test"
        )
    stamps = sorted(event.at_ms for event in events)
    listed = 0
    for _ in range(6):
        since, until = sorted(rng.sample(moments, 2))
        window = stamps[len(stamps) // 4] - MINUTE_MS, rng.choice(stamps[len(stamps) // 2 :])
        if since == until or window[1] <= window[0]:
            continue
        report = Report(window=window, policies=[NamedPolicy("plain", "", Policy())])
        with open_history(store_url, clock=lambda: T0) as opened:
            then, now = (
                list(opened.uptime(window, [Policy()], known_at=known_at)) for known_at in (since, until)
            )
            found = [each for each in revisions(report, then, now) if not each.fleet]
            learned = list(
                opened.learned([(each.name, each.thing_name is None) for each in found], window, since, until)
            )
        told = [
            {one.thing_name or one.client_id: figures(account(one.reckoned[0])) for one in things}
            for things in (then, now)
        ]
        differing = {name for name in told[0] | told[1] if told[0].get(name) != told[1].get(name)}
        assert {each.name for each in found} == differing
        for each, behind in zip(found, learned, strict=True):
            assert all(since < one.known_at <= until for one in behind.evidence)
            states = [one for one in each.changes if one.figure in ("connectedMs", "disconnectedMs")]
            # Else it spoke for a thing of another name before, or does since.
            if any(None not in one for one in states):
                assert behind.evidence, each
                # A copy that bears the name of the one thing that many speak for hands it on, and changes no timeline.
                assert behind.recorded or behind.superseded or each.name == "t", each
        listed += len(found)
    assert listed > 20
