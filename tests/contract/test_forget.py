"""Forgetting a device: no byte of its names is left, and every total is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.decode import decode_message
from ingest.forget import forget
from ingest.writer import Writer
from queries.history import open_history
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Learned, Rejected
from tests.contract.test_commands import SAMPLE, Run, execute, ndjson, on_any, run

__all__ = ["on_any", "run"]  # fixtures

DAY = 1_793_500_000_000
SECRETS = ("boiler-99", "gw-99/main", "arn:own-99", "192.0.2.99", "north-hall-99")


def event(at_ms: int, kind: str, session: str, **members: Any) -> dict[str, Any]:
    return {
        "clientId": "gw-99/main",
        "thingName": "boiler-99",
        "timestamp": at_ms,
        "eventType": kind,
        "sessionIdentifier": session,
        "principalIdentifier": "arn:own-99",
        "versionNumber": 0,
        **members,
    }


def decoded(said: dict[str, Any]) -> list[Learned | Rejected]:
    return decode_message(json.dumps(said).encode(), now=system_clock)


def said_of_the_device() -> list[dict[str, Any]]:
    """Give evidence that names the device in every place that there is."""
    name = {"thingName": "boiler-99"}
    connectivity = {"connected": True, "timestamp": DAY}
    search = {**name, "connectivity": connectivity, "attributes": {"place": "north-hall-99"}}
    return [
        event(DAY, "connected", "s1", ipAddress="192.0.2.99", room="north-hall-99"),
        event(DAY + 500, "connected", "s0", clientId="boiler-99", thingName="boiler-99"),
        event(DAY + 60_000, "disconnected", "s1", disconnectReason="CONNECTION_LOST"),
        {"api": "SearchIndex", "askedAt": DAY + 30_000, **name, "response": search},
        {"api": "SearchIndex", "askedAt": DAY + 90_000, **name, "error": "boiler-99 is not indexed"},
        {"eventType": "THING_EVENT", "operation": "CREATED", "timestamp": DAY - 5, **name, "attributes": {}},
        event(0, "connected", "s1") | {"timestamp": "when boiler-99 was built"},
    ]


def ingest_device(run: Run, tmp_path: Path) -> None:
    assert run("ingest", SAMPLE).code == 0
    recorded = tmp_path / "boiler-99.ndjson"
    lines = [json.dumps({"check": one} if "api" in one else one) for one in said_of_the_device()]
    recorded.write_text("\n".join(lines))
    done = run("ingest", str(recorded), "--json")
    assert (done.code, done.objects[0]["stored"], done.objects[0]["quarantined"]) == (0, 6, 1), done


def holdings(url: str) -> str:
    """Give all that the tables hold, as text; of SQLite, the bytes of its files."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return "".join(
            one.read_bytes().decode("latin-1")
            for one in path.parent.iterdir()
            if one.name.startswith("store.db")
        )
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = [connection.execute(sa.text(f"SELECT * FROM {name}")).all() for name in tables]  # noqa: S608
    return repr(rows)


def timelines(url: str) -> list[Any]:
    with open_history(url) as history:
        told = [one.period for one in history.all_periods(by_client=True)]
    return sorted(told, key=repr)


def test_no_byte_of_the_names_is_left_and_totals_stay(run: Run, store_url: str, tmp_path: Path) -> None:
    ingest_device(run, tmp_path)
    assert all(secret in holdings(store_url) for secret in SECRETS)
    before, (status,) = timelines(store_url), run("db", "status", "--json").objects
    done = run("forget", "boiler-99", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.objects[0] | {"names": 3, "checks": 1, "observations": 2, "quarantined": 1} == done.objects[0]
    held = holdings(store_url)
    assert [secret for secret in SECRETS if secret in held] == []
    assert "pump-17" in held
    assert "c0ffee" in held  # which others bear
    assert timelines(store_url) == before
    assert run("db", "status", "--json").objects == [status]
    assert run("db", "check").code == 0
    assert json.loads(run("rebuild", "--json").out)["differing"] == []
    assert run("at", "boiler-99", str(DAY + 1)).code == 5
    exported = run("export", "evidence").out
    assert "boiler" not in exported
    assert run("quarantine", "replay").code == 0


def test_what_others_say_of_it_is_said_of_another_name_and_is_still_there(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    ingest_device(run, tmp_path)
    created = {"eventType": "THING_EVENT", "operation": "CREATED", "timestamp": DAY, "thingName": "sensor-1"}
    told = [
        event(
            DAY, "connected", "o1", clientId="sensor-1", thingName="sensor-1", principalIdentifier="arn:other"
        )
        | {"note": "behind gw-99/main, beside boiler-99", "room": "south"},
        {**created, "thingTypeName": "pump", "attributes": {"gateway": "boiler-99", "site": "north"}},
    ]
    (tmp_path / "others").write_text("\n".join(map(json.dumps, told)))
    assert run("ingest", str(tmp_path / "others")).code == 0
    assert run("forget", "boiler-99", "--yes").code == 0
    held = holdings(store_url)
    assert not [secret for secret in ("boiler-99", "gw-99/main", "gw-99\\/main") if secret in held]
    registry = run("registry", "sensor-1").out
    assert "pump" in registry
    assert "site=north" in registry
    exported = run("export", "evidence").out
    assert "behind forgotten-" in exported
    assert '"room":"south"' in exported


def test_what_was_rewritten_is_no_fault_and_what_somebody_changed_then_is(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    """Nothing in some of it tells any more that it ever spoke of the device."""
    api = {"api": "GetThingConnectivityData", "askedAt": DAY + 30_000}
    answer = {"thingName": "sensor-1", "connected": False}
    told = [
        *(
            event(DAY + n, "connected", f"o{n}", clientId=f"sensor-{n}", thingName=f"sensor-{n}")
            for n in (1, 2)
        ),
        {"check": {**api, "response": {**answer, "attributes": {"by": "boiler-99"}}}},
        {"check": {**api, "response": {**answer, "thingName": "sensor-2", "disconnectReason": "boiler-99"}}},
        {"check": {**api, "askedAt": DAY + 60_000, "error": "boiler-99 is away"}},
        {
            "eventType": "THING_TYPE_EVENT",
            "operation": "CREATED",
            "timestamp": DAY,
            "thingTypeName": "boiler-99",
        },
    ]
    assert run("ingest", ndjson(tmp_path / "others", told)).code == 0
    ingest_device(run, tmp_path)
    assert run("db", "check").code == 0
    assert run("forget", "boiler-99", "--yes", "--json").objects[0]["checks"] >= 3
    assert "boiler-99" not in holdings(store_url)
    done = run("db", "check")
    assert done.code == 0, done.out
    execute(
        store_url, "UPDATE evidence SET ip_no = principal_no WHERE ip_no IS NULL AND principal_no IS NOT NULL"
    )
    assert {one["kind"] for one in run("db", "check", "--json").objects} == {"evidence-changed"}


@pytest.mark.parametrize("name", ["NONE", "DUPLICATE_CLIENTID"])
def test_a_device_called_like_a_reason_leaves_the_reason(
    run: Run, store_url: str, tmp_path: Path, name: str
) -> None:
    assert run("ingest", SAMPLE).code == 0
    told = [event(DAY, "disconnected", "s1", clientId=name, thingName=name, disconnectReason=name)]
    assert run("ingest", ndjson(tmp_path / "told", told)).code == 0
    before = timelines(store_url)
    assert run("forget", name, "--yes").code == 0
    assert timelines(store_url) == before
    assert run("db", "check").code == 0


def test_what_comes_later_begins_anew_under_the_real_name(run: Run, store_url: str, tmp_path: Path) -> None:
    ingest_device(run, tmp_path)
    with open_writer(parse_url(store_url)) as store, open_history(store_url) as history:
        writer = Writer(store)
        writer.write(
            decode_message(json.dumps(event(DAY + 9, "subscribed", "s1")).encode(), now=system_clock),
            source="t",
        )
        assert history.at("boiler-99", DAY + 70_000).connected is False
        if not store.is_sqlite:  # SQLite has one writer, and this is it
            with open_writer(parse_url(store_url)) as other:
                forget(other, "boiler-99", realm="default")
        else:
            forget(store, "boiler-99", realm="default")
        writer.write(decoded(event(DAY + 120_000, "connected", "s2")), source="t")
        writer.close()
        answer = history.at("boiler-99", DAY + 130_000)
        assert (answer.client_id, answer.connected) == ("gw-99/main", True)
        with pytest.raises(Exception, match="not known"):
            history.at("boiler-99", DAY + 70_000)
    assert run("db", "check").code == 0


def test_the_same_recording_again_is_new_evidence(run: Run, store_url: str, tmp_path: Path) -> None:
    ingest_device(run, tmp_path)
    assert run("forget", "--client", "gw-99/main", "--yes").code == 0
    held = holdings(store_url)
    assert ("gw-99/main" in held, "boiler-99" in held) == (False, True)
    done = run("ingest", str(tmp_path / "boiler-99.ndjson"), "--json")
    assert done.objects[0]["stored"] == 2
    assert run("db", "check").code == 0


def test_forgetting_asks_first_and_may_be_done_again(
    run: Run, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_device(run, tmp_path)
    with (tmp_path / "no").open("w+") as answers:
        answers.write("n\n")
        answers.seek(0)
        monkeypatch.setattr("sys.stdin", answers)
        assert run("forget", "boiler-99").code == 130
    assert "boiler-99" in holdings(store_url)
    assert run("forget", "boiler-99", "--yes").code == 0
    again = run("forget", "boiler-99", "--yes", "--json")
    assert (again.code, again.objects[0]["names"], again.objects[0]["evidence"]) == (0, 0, 0)
    assert "No thing or client of realm 'default' is called 'boiler-99'" in again.err
