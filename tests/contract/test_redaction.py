"""`--redact` as it is typed, on both engines: what is stored, what is printed, what is handed out, what it costs."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.redact import DROP, HASH, IP, NUMBER, PRINCIPAL, Hashed, redaction
from ingest.writer import Writer
from store.clock import system_clock
from store.engine import open_reader, open_writer, parse_url
from store.model import Event, Observation, Rejected
from store.schema import metadata
from tests.builders import T0
from tests.contract.test_commands import Done, Run, on_any, run
from tests.ingest.test_redact import strings
from tests.property.test_check_laws import histories, in_turn
from tests.property.test_check_laws import ingest as ingest_batches
from tests.property.test_check_laws import learned as learned_checks
from tests.property.test_check_laws import timelines as told_timelines
from tests.property.test_store_laws import NASTY_IDS, NOW, all_rows, cut

__all__ = ["on_any", "run"]  # fixtures

KEY = "a key of thirty-two characters.."
PEOPLE = ["203.0.113.77", "203.0.113.78", "2001:db8:17::4711", "7d" * 32, "AROAEXAMPLE:ann", "vpce-0a1b2c"]
MINUTE = 60_000


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return str(path)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGLINE_REDACT_KEY", KEY)


def whole_store(url: str) -> str:
    """Every value of every table, heads of the quarantine unpacked, as one text."""
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    held: list[str] = []
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                held += [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row]
    engine.dispose()
    return "\n".join(held)


def counted(url: str, table: str) -> int:
    with open_reader(parse_url(url)) as store, store.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0)


def session(number: int, **members: Any) -> list[dict[str, Any]]:
    """A connect and a disconnect with everything personal that AWS puts in them."""
    at = T0 + number * MINUTE
    both = {"clientId": f"client-{number}", "sessionIdentifier": f"s-{number}", "versionNumber": 0, **members}
    who = {"principalIdentifier": PEOPLE[3]}
    return [
        {**who, **both, "eventType": "connected", "timestamp": at, "ipAddress": PEOPLE[number % 3]},
        {**who, **both, "eventType": "disconnected", "timestamp": at + 9, "disconnectReason": "CLIENT_ERROR"},
    ]


def all_kinds() -> list[dict[str, Any]]:
    """Evidence of every kind, with addresses and principals wherever they may be."""
    answer = {"thingName": "client-1", "connected": True, "timestamp": (T0 + MINUTE) / 1000}
    return [
        *session(1),
        *session(2, topics=[f"from/{PEOPLE[1]}"], source_ip=PEOPLE[0]),
        *session(3, deviceId="x", clientId=None, topic="$aws/events/presence/connected/client-3"),
        {"askedAt": T0 + 2 * MINUTE, "check": {
            "api": "GetThingConnectivityData", "thingName": "client-1",
            "response": {**answer, "sourceIp": PEOPLE[0], "sourcePort": 51234, "vpcEndpointId": PEOPLE[5]},
        }},
        {"eventType": "THING_EVENT", "operation": "CREATED", "thingName": "client-1", "timestamp": T0,
         "attributes": {"host": PEOPLE[1], "owner": PEOPLE[3]}},
    ]  # fmt: skip


def broken() -> list[bytes]:
    text = json.dumps(session(4)[0])
    packed = base64.b64encode(text[:-1].encode()).decode()
    return [text[:-1].encode(), json.dumps({"kinesis": {"data": packed}}).encode()]


def written(path: Path, evidence: Iterable[dict[str, Any]], *lines: bytes) -> str:
    path.write_bytes(b"\n".join([*(json.dumps(one).encode() for one in evidence), *lines, b""]))
    return str(path)


# --- On the way in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [["hash"], ["drop"], ["ip=drop", "principal=hash"], ["ip=hash,principal=drop"]]
)
def test_nobody_is_found_in_a_store_that_redacts(
    run: Run, store_url: str, tmp_path: Path, key_file: str, how: list[str]
) -> None:
    path = written(tmp_path / f"of {PEOPLE[0]}.json", all_kinds(), *broken())
    options = [word for one in how for word in ("--redact", one)]
    done = run("ingest", path, *options, "--redact-key-file", key_file, "--json")
    assert done.code == 0
    counts = done.objects[0]
    assert (counts["events"], counts["checks"], counts["stored"], counts["quarantined"]) == (6, 1, 8, 2)
    told = whole_store(store_url)
    told += "".join(
        base64.b64decode(run).decode("latin-1") for run in told.split('"') if len(run) > 99 and run.isalnum()
    )
    assert [who for who in [*PEOPLE[:4], PEOPLE[5], "51234"] if who in told] == []
    assert KEY not in told
    assert not any(who in done.err for who in PEOPLE)
    again = run("ingest", path, *options, "--redact-key-file", key_file, "--json").objects[0]
    assert (again["stored"], again["duplicates"]) == (0, 8)
    assert counted(store_url, "quarantine") == 2


def test_the_environment_says_it_too(
    run: Run, store_url: str, tmp_path: Path, keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINGLINE_INGEST_REDACT", "ip=drop principal=hash")
    assert run("ingest", written(tmp_path / "x", session(1))).code == 0
    told = whole_store(store_url)
    assert Hashed(KEY.encode())(PEOPLE[3]) in told
    assert [who for who in PEOPLE if who in told] == []


def test_takeovers_between_principals_stay_visible(run: Run, tmp_path: Path, keyed: None) -> None:
    first, second = session(1), session(1, sessionIdentifier="s-9", versionNumber=1)
    second[0]["principalIdentifier"] = PEOPLE[4]
    run("ingest", written(tmp_path / "x", [first[0], second[0]]), "--redact", "hash")
    hashed = Hashed(KEY.encode())
    events = [line["event"] for line in run("export", "evidence").objects[1:]]
    assert {one["sessionIdentifier"]: one["principalIdentifier"] for one in events} == {
        "s-1": hashed(PEOPLE[3]),
        "s-9": hashed(PEOPLE[4]),
    }


def test_a_timeline_is_the_same_with_it_and_without(
    store_url: str, on_any: Run, tmp_path: Path, rng: random.Random
) -> None:
    """Events and checks in any order and any batches; and the same again, redacted, changes no transition."""
    told = in_turn(rng, histories(rng, 60))
    plain = [one._replace(evidence=decorated(rng, one.evidence)) for one in learned_checks(told)]
    redact = redaction({IP: HASH, PRINCIPAL: DROP}, key=KEY.encode())
    redacted = [redact.record(one) for one in plain]
    assert redacted != plain
    other = f"sqlite:///{tmp_path / 'plain.db'}"
    ingest_batches(store_url, cut(rng, redacted, 300))  # type: ignore[arg-type]
    ingest_batches(other, cut(rng, plain, 300))
    wanted = told_timelines(other)
    assert told_timelines(store_url) == wanted
    before = all_rows(other)
    ingest_batches(other, cut(rng, redacted, 300), NOW + 1_000)  # type: ignore[arg-type]
    assert all_rows(other) == before
    assert told_timelines(other) == wanted


def decorated(rng: random.Random, evidence: Any) -> Any:
    """Put an address and a principal into evidence, wherever it has room for them."""
    if isinstance(evidence, Observation):
        body = json.loads(evidence.body)
        body["response"] |= {"sourceIp": rng.choice(PEOPLE[:3])}
        return evidence._replace(body=json.dumps(body, sort_keys=True, separators=(",", ":")))
    assert isinstance(evidence, Event)
    return evidence._replace(ip=rng.choice(PEOPLE[:3]), principal=rng.choice(PEOPLE[3:5]))


def test_evidence_that_came_before_is_kept_beside_and_is_no_second_transition(
    run: Run, store_url: str, tmp_path: Path, keyed: None
) -> None:
    strays = [{key: value for key, value in one.items() if key in STRAY} for one in session(5)]
    path = written(tmp_path / "x", [*session(1), *strays])
    run("ingest", path)
    before = all_rows(store_url)
    done = run("ingest", path, "--redact", "hash", "--json").objects[0]
    assert (done["stored"], done["duplicates"], done["transitions"], done["conflicts"]) == (3, 1, 0, 0)
    assert all_rows(store_url) == before
    assert counted(store_url, "evidence") == 7
    assert run("rebuild").out.endswith("; 0 clients differed\n")


STRAY = ("clientId", "eventType", "timestamp", "ipAddress", "disconnectReason")


# --- Quarantine ---------------------------------------------------------------------------------------------


def test_what_is_masked_in_quarantine_can_be_replayed(
    run: Run, store_url: str, tmp_path: Path, keyed: None
) -> None:
    """A record that this version reads, as one from a version that did not would lie there."""
    redact = redaction({IP: HASH, PRINCIPAL: HASH}, key=KEY.encode())
    raw = json.dumps(session(1)[0]).encode()
    item = Rejected(reason="x", detail="y", head=raw, length=len(raw), sha256="z", position=0)
    masked = redact.record(item)
    assert isinstance(masked, Rejected)
    assert (masked.length, masked.sha256) == (len(raw), "z")
    assert len(masked.head) != len(raw)
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([masked], source="test")
    assert run("quarantine", "replay", "--redact", "hash").out.startswith("1 tried, 1 read, 1 new")
    again = run("ingest", written(tmp_path / "x", session(1)[:1]), "--redact", "hash", "--json").objects[0]
    assert (again["stored"], again["duplicates"]) == (0, 1)


def test_a_replay_redacts_what_was_not(run: Run, store_url: str, keyed: None) -> None:
    raw = json.dumps(session(1)[0]).encode()
    item = Rejected(reason="x", detail="y", head=raw, length=len(raw), sha256="z", position=0)
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([item], source="test")
    assert run("quarantine", "replay", "--redact", "drop").out.startswith("1 tried, 1 read, 1 new")
    assert not any(who in run("export", "evidence").out for who in PEOPLE)


# --- On the way out -----------------------------------------------------------------------------------------


def named(number: int) -> str:
    return NASTY_IDS[number % len(NASTY_IDS)].format(number) if number % 2 else f"pump-{number}"


def fleet(rng: random.Random) -> tuple[list[dict[str, Any]], list[str]]:
    """Evidence that is full of names, and all the names in it."""
    names = [named(number) for number in range(60)]
    said: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        other = rng.choice(names)
        more: list[dict[str, Any]] = [{}, {"thingName": other}, {"topics": [f"a/{name}", other]}]
        said += session(number, clientId=name, principalIdentifier=PEOPLE[3 + number % 2], **rng.choice(more))
        if number % 5 == 0:
            answer = {"thingName": name, "connected": False, "timestamp": T0 / 1000 + number}
            check = {
                "api": "GetThingConnectivityData",
                "thingName": name,
                "response": {**answer, "sourceIp": PEOPLE[0]},
            }
            said.append({"askedAt": T0 + 99 * MINUTE, "check": check})
            said.append({"askedAt": T0 + 200 * MINUTE, "check": check})  # repeats itself: of a sweep
            arn = f"arn:aws:iot:eu-west-1:123456789012:thing/{name}"
            group = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "timestamp": T0 + number, "thingArn": arn}
            said += [
                group,
                {"eventType": "THING_EVENT", "timestamp": T0, "thingName": name, "attributes": {other: name}},
            ]
    said += [{"topic": f"$aws/events/presence/connected/{names[1]}", "timestamp": T0 + 1, "who": PEOPLE[4]}]
    said += [{"watch": {"source": f"mqtt {names[0]}", "from": T0, "to": T0 + 1}}]
    return said, names


@pytest.mark.parametrize("way", [NUMBER, HASH])
def test_an_export_can_be_handed_on(
    run: Run, on_any: Run, store_url: str, tmp_path: Path, rng: random.Random, keyed: None, way: str
) -> None:
    said, names = fleet(rng)
    moment = system_clock() - 1_000
    lines = [{"knownAt": moment + number // 9, **wrapped(one)} for number, one in enumerate(said)]
    assert run("ingest", written(tmp_path / "x", lines)).code == 0
    done = run("export", "evidence", "--redact", way)
    assert done.code == 0
    found = [text for line in done.out.splitlines() for text in strings(json.loads(line))]
    for known in (*names, *PEOPLE[:5], "123456789012", "51234"):
        assert [text for text in found if known in text] == [], known
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    on_any("ingest", written(tmp_path / "y", [], done.out.encode()), "--store", copy)
    assert counted(copy, "quarantine") == 0
    for table in ("clients", "things", "evidence", "observations", "checks", "sweeps", "watches"):
        assert counted(copy, table) == counted(store_url, table), table
    new_names = pairs(run("export", "evidence"), done)
    assert len(set(new_names.values())) == len(new_names)
    assert all(legal(name) for name in new_names.values())
    if way == HASH:
        assert new_names == {name: Hashed(KEY.encode())(name) for name in new_names}
    renamed = [(new_names[row[0]], *row[1:]) for row in all_rows(store_url)]
    assert sorted(renamed, key=repr) == all_rows(copy)
    for name in filter(legal, names):  # AWS names no thing otherwise, and nobody can ask for it
        old, new = (
            run("history", name, "--periods", "--json"),
            on_any("history", new_names[name], "--periods", "--json", "--store", copy),
        )
        assert old.objects
        assert [without_names(one) for one in old.objects] == [without_names(one) for one in new.objects]


def wrapped(said: dict[str, Any]) -> dict[str, Any]:
    if "check" in said or "watch" in said:
        return said
    return {"registry" if str(said.get("eventType", "")).endswith("_EVENT") else "event": said}


def pairs(before: Done, after: Done) -> dict[str, str]:
    """The new name of each client and thing, from two exports that go line by line."""
    found: dict[str, str] = {}
    for old, new in zip(before.objects, after.objects, strict=True):
        for kind in ("event", "check"):
            for member in ("clientId", "thingName"):
                if isinstance(name := old.get(kind, {}).get(member), str):
                    assert found.setdefault(name, new[kind][member]) == new[kind][member]
    return found


def legal(name: str) -> bool:
    return 0 < len(name) <= 128 and all(c.isascii() and (c.isalnum() or c in ":_-") for c in name)


def without_names(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in ("thingName", "clientId")}


def test_only_what_is_asked_for_goes(run: Run, tmp_path: Path) -> None:
    run("ingest", written(tmp_path / "x", session(1)))
    whole = run("export", "evidence").out
    assert run("export", "evidence", "--redact", "ip=drop").out == whole.replace(
        f',"ipAddress":"{PEOPLE[1]}"', ""
    )
    assert run("export", "evidence", "--redact", "name=number").out == whole.replace("client-1", "thing-1")


def test_a_hash_of_the_way_in_stays_the_same_on_the_way_out(run: Run, tmp_path: Path, keyed: None) -> None:
    path = written(tmp_path / "x", session(1))
    run("ingest", path, "--redact", "hash")
    held = run("export", "evidence").out
    assert run("export", "evidence", "--redact", "ip=hash,principal=hash").out == held


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--redact", "hash"], "THINGLINE_REDACT_KEY"),
        (["--redact", "ip=hash", "--redact-key-file", "nowhere"], "nowhere cannot be read"),
        (["--redact", "address=drop"], "MEMBER one of ip, principal"),
    ],
)
def test_a_redaction_that_cannot_be_done_does_nothing(
    on_any: Run, tmp_path: Path, options: list[str], complaint: str
) -> None:
    store = tmp_path / "store.db"
    done = on_any("ingest", written(tmp_path / "x", session(1)), *options, "--store", str(store))
    assert done.code in (2, 4)
    assert complaint in done.err
    assert not store.exists()


def test_two_keys_are_one_too_many(run: Run, tmp_path: Path, key_file: str, keyed: None) -> None:
    done = run("ingest", written(tmp_path / "x", []), "--redact", "hash", "--redact-key-file", key_file)
    assert (done.code, KEY in done.err) == (2, False)
    assert "two keys" in done.err


def test_an_export_that_is_refused_prints_nothing(run: Run, tmp_path: Path) -> None:
    run("ingest", written(tmp_path / "x", session(1)))
    for how, complaint in (("hash", "THINGLINE_REDACT_KEY"), ("drop", "name=number"), ("x=y", "name")):
        done = run("export", "evidence", "--redact", how)
        assert (done.code, done.out) == (2, "")
        assert complaint in done.err


def test_what_new_names_make_too_large_is_left_out_and_said(run: Run, tmp_path: Path, keyed: None) -> None:
    run("ingest", written(tmp_path / "x", [*session(1), *session(2, topics=["client-1"] * 70_000)]))
    done = run("export", "evidence", "--redact", "hash")
    assert len(done.out.splitlines()) == 1 + 2
    assert done.err == "left out, for new names make them more than 1 MiB: 2 records\n"
