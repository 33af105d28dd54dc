"""What was registered, as it is typed: thingline registry, and what `at` and `ask` say meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contract.test_commands import Run, on_any, run

__all__ = ["on_any", "run"]  # fixtures

CREATED_MS, DELETED_MS = 1_793_480_400_000, 1_793_503_000_000  # 2026-10-31T21:00:00Z, 2026-11-01T03:16:40Z


def told(operation: str, at_ms: int, **more: object) -> str:
    event = {"eventType": "THING_EVENT", "operation": operation, "timestamp": at_ms, "thingName": "pump-17"}
    return json.dumps({**event, "thingId": "id-1", "attributes": {"site": "no\x1brth"}, **more})


def test_a_thing_that_is_gone_has_its_lifetime_and_no_answer(run: Run, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_text("\n".join((told("CREATED", CREATED_MS), told("DELETED", DELETED_MS))))
    assert run("ingest", "docs/sample.ndjson").code == 0
    assert run("ingest", str(events)).code == 0
    assert run("registry", "pump-17").out.splitlines() == [
        "registered: from 2026-10-31T21:00:00.000Z, to 2026-11-01T03:16:40.000Z  (id-1)",
        "    2026-10-31T21:00:00.000Z  no type; no groups; site=no\\x1brth",
    ]
    (lifetime,) = run("registry", "pump-17", "--json").objects
    assert lifetime | {"registeredAs": None} == {
        "thingName": "pump-17",
        "thingId": "id-1",
        "from": "2026-10-31T21:00:00.000Z",
        "notBefore": "2026-10-31T21:00:00.000Z",
        "to": "2026-11-01T03:16:40.000Z",
        "lastTold": "2026-11-01T03:16:40.000Z",
        "registeredAs": None,
    }
    assert run("at", "pump-17", "2026-11-01T03:16:39Z").code == 0
    gone = run("at", "pump-17", "2026-11-01T03:16:40Z")
    assert (gone.code, "`thingline registry pump-17`" in gone.err) == (5, True)
    assert run("at", "pump-17", "2026-11-01T03:16:40Z", "--client").code == 0
    assert run("at", "pump-17", "2026-11-01T03:16:40Z", "--known-at", "2026-11-01T05:00:00Z").code == 0


def test_what_nobody_told_of_is_said_so(run: Run) -> None:
    assert run("ingest", "docs/sample.ndjson").code == 0
    for name, said in (("pump-17", "Nothing was told"), ("no such name", "thingName")):
        done = run("registry", name)
        assert done.code != 0
        assert said in done.err
