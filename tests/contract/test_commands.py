"""The commands as they are typed, in process, on both engines: what is printed, and the exit code."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

import thingline
from ingest.decode import decode_message, recording_line
from ingest.writer import Writer
from queries.history import History, Question, Reply
from queries.output import json_line, reply_json
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.errors import AnswerError
from store.model import Event, Learned, Observation, Rejected, Watch
from tests.builders import T0, connect, disconnect
from tests.property.test_store_laws import all_rows, in_turn
from tests.strategies import history

SAMPLE = str(Path(__file__).parent.parent.parent / "docs" / "sample.ndjson")
AT = "2026-11-01T03:12:00Z"
AFTER = "2026-11-01T06:00:00Z"
NOT_KNOWN = "The resource nope was not known at that time."
DISCONNECTED = {
    "thingName": "pump-17",
    "clientId": "pump-17",
    "at": "2026-11-01T03:12:00.000Z",
    "knownAt": "2026-11-01T05:30:00.000Z",
    "connected": False,
    "timestamp": "2026-11-01T02:58:11.201Z",
    "disconnectReason": "MQTT_KEEP_ALIVE_TIMEOUT",
    "certainty": "observed",
    "notBefore": "2026-11-01T02:58:11.201Z",
    "notAfter": "2026-11-01T02:58:11.201Z",
    "error": None,
}


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def on_any(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Type a command line that names its own store."""

    def run(*args: str) -> Done:
        code = thingline.main(list(args))
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return run


@pytest.fixture
def run(on_any: Run, store_url: str) -> Run:
    """Type a command about the store of this test."""
    return lambda *args: on_any(*args, "--store", store_url)


@pytest.fixture
def sampled(run: Run) -> Run:
    """The same, once the sample recording is in."""
    done = run("ingest", SAMPLE)
    assert (done.code, done.out) == (
        0,
        "10 records: 10 events, 0 checks, 10 new, 0 duplicates, 1 late corrections, 1 ignored (they change no state),"
        " 0 quarantined\n",
    )
    return run


def event_json(event: Event, **more: Any) -> dict[str, Any]:
    kinds = {1: "connected", 2: "disconnected"}
    shown = {
        "clientId": event.client_id,
        "eventType": kinds[event.kind],
        "timestamp": event.at_ms,
        "sessionIdentifier": event.session_id,
        "versionNumber": event.version,
        "disconnectReason": event.reason,
        **more,
    }
    return {name: value for name, value in shown.items() if value is not None}


def ndjson(path: Path, objects: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return str(path)


# --- at -----------------------------------------------------------------------------------------------------


def test_at_says_the_state_in_words(sampled: Run) -> None:
    assert sampled("at", "pump-17", AT) == Done(
        0,
        "pump-17 at 2026-11-01T03:12:00.000Z: DISCONNECTED (observed)\n"
        "  since       2026-11-01T02:58:11.201Z\n"
        "  reason      MQTT_KEEP_ALIVE_TIMEOUT\n"
        "  known at    2026-11-01T05:30:00.000Z\n",
        "",
    )


def test_at_gives_one_object_with_json(sampled: Run) -> None:
    assert sampled("at", "pump-17", AT, "--json").objects == [DISCONNECTED]
    then = sampled("at", "pump-17", AT, "--known-at", "2026-11-01T03:30:00Z", "--json")
    assert then.objects == [
        DISCONNECTED
        | {
            "knownAt": "2026-11-01T03:30:00.000Z",
            "connected": True,
            "timestamp": "2026-10-31T22:10:04.120Z",
            "disconnectReason": "NONE",
            "certainty": "inferred",
            "notBefore": "2026-10-31T22:10:04.120Z",
            "notAfter": "2026-11-01T03:12:00.000Z",
        }
    ]


def test_a_moment_of_learning_not_reached_yet_is_cut_and_said(sampled: Run) -> None:
    done = sampled("at", "pump-17", AT, "--known-at", AFTER, "--json")
    assert done.objects == [DISCONNECTED]
    assert "known at: cut to 2026-11-01T05:30:00.000Z" in done.err


def test_a_time_not_written_in_utc_is_said_in_utc(sampled: Run) -> None:
    done = sampled("at", "pump-17", "2026-11-01 04:12 Europe/Berlin", "--json")
    assert (done.objects, done.err) == ([DISCONNECTED], "at: 2026-11-01T03:12:00.000Z\n")


@pytest.mark.parametrize(
    ("option", "stamp"),
    [("--aws", '"2026-11-01T02:58:11.201000+00:00"'), ("--aws=v1", "1793501891.201")],
)
def test_at_prints_what_aws_cli_prints(sampled: Run, option: str, stamp: str) -> None:
    for place in (("at", option, "pump-17", AT), ("at", "pump-17", AT, option)):
        assert sampled(*place) == Done(
            0,
            '{\n    "thingName": "pump-17",\n    "connected": false,\n'
            f'    "timestamp": {stamp},\n    "disconnectReason": "MQTT_KEEP_ALIVE_TIMEOUT"\n}}\n',
            "",
        )


@pytest.mark.parametrize(
    ("thing", "time", "name", "message"),
    [
        ("nope", AT, "ResourceNotFoundException", NOT_KNOWN),
        ("pump-17", "2020-01-01T00:00:00Z", "IndexNotReadyException", "begins later"),
        ("pump-17", "2099-01-01T00:00:00Z", "InvalidRequestException", "lies in the future"),
        ("a b", AT, "InvalidRequestException", "failed to satisfy constraint"),
    ],
)
def test_an_error_of_aws_is_an_answer(sampled: Run, thing: str, time: str, name: str, message: str) -> None:
    words = sampled("at", thing, time)
    assert (words.code, words.out) == (5, "")
    assert message in words.err
    reply = sampled("at", thing, time, "--json")
    assert (reply.code, reply.objects[0]["error"]) == (5, name)
    for option, code in (("--aws", 254), ("--aws=v2", 254), ("--aws=v1", 255)):
        done = sampled("at", thing, time, option)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(
            f"\nAn error occurred ({name}) when calling the GetThingConnectivityData operation: "
        )
        assert message in done.err


def test_a_client_that_could_be_no_thing_is_asked_for_by_its_id(run: Run, tmp_path: Path) -> None:
    ids = ["plant 7/pump:1", "ü-17", "-2h"]
    events = [event_json(connect(T0, session="s1", version=0, client_id=one)) for one in ids]
    assert run("ingest", ndjson(tmp_path / "events.ndjson", events)).code == 0
    for client_id in ids[:2]:
        assert run("at", client_id, AFTER).code == 5
        (reply,) = run("at", client_id, AFTER, "--client", "--json").objects
        assert (reply["thingName"], reply["clientId"], reply["connected"]) == (None, client_id, True)
    (reply,) = run("at", "-2h", AFTER, "--json").objects
    assert (reply["thingName"], reply["clientId"], reply["connected"]) == ("-2h", "-2h", True)


# --- history ------------------------------------------------------------------------------------------------


def test_history_lists_transitions(sampled: Run) -> None:
    assert sampled("history", "pump-18").out == (
        "2026-10-31T22:11:00.000Z  connected     connect        \n"
        "2026-11-01T01:00:00.500Z  connected     takeover       \n"
        "2026-11-01T05:30:00.000Z  disconnected  disconnect       CLIENT_INITIATED_DISCONNECT\n"
    )
    assert [(o["at"], o["rule"]) for o in sampled("history", "pump-18", "--json").objects] == [
        ("2026-10-31T22:11:00.000Z", "connect"),
        ("2026-11-01T01:00:00.500Z", "takeover"),
        ("2026-11-01T05:30:00.000Z", "disconnect"),
    ]


def test_history_lists_sessions(sampled: Run) -> None:
    both = {"thingName": "pump-18", "clientId": "pump-18"}
    assert sampled("history", "pump-18", "--sessions", "--json").objects == [
        {
            **both,
            "sessionIdentifier": "00000003-0000-4000-8000-000000000000",
            "versionNumber": 0,
            "connected": "2026-10-31T22:11:00.000Z",
            "disconnected": "2026-11-01T01:00:01.900Z",
            "disconnectReason": "DUPLICATE_CLIENTID",
        },
        {
            **both,
            "sessionIdentifier": "00000004-0000-4000-8000-000000000000",
            "versionNumber": 1,
            "connected": "2026-11-01T01:00:00.500Z",
            "disconnected": "2026-11-01T05:30:00.000Z",
            "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
        },
    ]
    words = sampled("history", "pump-18", "--sessions").out.splitlines()
    assert [line[:24] for line in words] == ["2026-10-31T22:11:00.000Z", "2026-11-01T01:00:00.500Z"]


def test_history_lists_periods(sampled: Run) -> None:
    assert sampled("history", "pump-18", "--periods").out == (
        "pump-18  2026-10-31T22:11:00.000Z  2026-11-01T01:00:00.500Z  connected     observed\n"
        "pump-18  2026-11-01T01:00:00.500Z  2026-11-01T05:30:00.000Z  connected     observed\n"
        "pump-18  2026-11-01T05:30:00.000Z  (open)                    disconnected  inferred"
        "  CLIENT_INITIATED_DISCONNECT\n"
    )


def test_a_window_begins_with_what_is_in_force_and_ends_before_its_end(sampled: Run) -> None:
    def window(*args: str) -> list[str]:
        return [line[:24] for line in sampled("history", "pump-17", *args).out.splitlines()]

    up, down, again = "2026-10-31T22:10:04.120Z", "2026-11-01T02:58:11.201Z", "2026-11-01T03:20:45.007Z"
    assert window() == [up, down, again]
    assert window("--from", AT) == [down, again]
    assert window("--from", down) == [down, again]
    assert window("--to", again) == [up, down]
    assert window("--from", AT, "--to", again) == [down]
    assert window("--from", AT, "--known-at", "2026-11-01T03:30:00Z") == [up]
    periods = sampled("history", "pump-17", "--periods", "--from", AT, "--to", AFTER, "--json").objects
    assert [(one["from"], one["to"]) for one in periods] == [
        ("2026-11-01T03:12:00.000Z", again),
        (again, "2026-11-01T06:00:00.000Z"),
    ]


def test_the_periods_of_all_things_tile_and_ascend(
    run: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    fill(store_url, rng, 40)
    found = run("history", "--all", "--json").objects
    names = [one["thingName"] or one["clientId"] for one in found]
    assert names == sorted(names)
    for one, after in pairwise(found):
        if (one["thingName"] or one["clientId"]) == (after["thingName"] or after["clientId"]):
            assert one["from"] < one["to"] == after["from"], one
        else:
            assert one["to"] is None, one
    assert found[-1]["to"] is None
    with thingline.open(store_url) as opened:
        for one in found:
            answer = opened.at(
                one["thingName"] or one["clientId"], one["from"], by_client=not one["thingName"]
            )
            assert (answer.connected, answer.certainty) == (one["connected"], one["certainty"]), one


def test_history_of_nobody_and_of_everybody_at_once_is_refused(sampled: Run) -> None:
    assert sampled("history", "nope").code == 5
    assert sampled("history").code == 2
    assert sampled("history", "pump-17", "--all").code == 2
    assert sampled("history", "pump-17", "--from", AFTER, "--to", AT).code == 2


# --- ask, explain -------------------------------------------------------------------------------------------


def test_ask_keeps_the_order_and_gives_errors_as_replies(sampled: Run, tmp_path: Path) -> None:
    asked = [
        {"thingName": "pump-17", "at": AT},
        {"thingName": "nope", "at": AT},
        {"thingName": "pump-17", "at": "not a time"},
        {"thingName": "pump-17", "at": 0},
        {"thingName": "a b", "at": AT},
        {"thingName": "pump-17", "at": 10**30},
        {"thingName": "pump-17", "at": AT, "knownAt": -(10**30)},
        {"thingName": "pump-17", "at": 1793502720},
        {"thingName": "pump-18", "at": 1793502720000, "knownAt": AFTER},
    ]
    done = sampled("ask", ndjson(tmp_path / "questions.ndjson", asked))
    assert done.code == 0, done.err
    found = [(one["thingName"], one["connected"], one["error"]) for one in done.objects]
    assert found == [
        ("pump-17", False, None),
        ("nope", None, "ResourceNotFoundException"),
        ("pump-17", None, "InvalidRequestException"),
        ("pump-17", None, "InvalidRequestException"),
        ("a b", None, "InvalidRequestException"),
        ("pump-17", None, "InvalidRequestException"),
        ("pump-17", None, "InvalidRequestException"),
        ("pump-17", False, None),
        ("pump-18", True, None),
    ]
    assert done.objects[0] == DISCONNECTED


@pytest.mark.parametrize("line", ["{", "[]", '{"thingName": "a"}', '{"thingName": "a", "at": 1.5}', "3"])
def test_ask_refuses_what_is_no_question(sampled: Run, tmp_path: Path, line: str) -> None:
    (tmp_path / "questions.ndjson").write_text(f"\n{line}\n")
    done = sampled("ask", str(tmp_path / "questions.ndjson"))
    assert (done.code, done.out) == (2, "")
    assert "Line 2 is no question" in done.err


def test_many_questions_at_once_are_answered_as_one_by_one(
    run: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    names, instants = fill(store_url, rng, 30)
    asked = questions(rng, [*names, "nope", "no name"], instants, 1_000)
    lines = [{"thingName": q.thing_name, "at": q.at, "knownAt": q.known_at} for q in asked]
    found = run("ask", ndjson(tmp_path / "questions.ndjson", lines)).objects
    with thingline.open(store_url) as opened:
        assert found == [json.loads(one_reply(opened, question)) for question in asked]


def one_reply(opened: History, question: Question) -> str:
    """Ask alone, and write the reply as `ask` does."""
    name, at, known_at = question
    at_ms = opened.milliseconds(at)
    try:
        answer = opened.at(name, at, known_at=known_at)
    except AnswerError as error:
        # An error does not say what the moment of learning was cut to; a reply does.
        (reply,) = opened.ask([question])
        return json_line(reply_json(Reply(name, at_ms, reply.known_at, None, error)))
    return json_line(reply_json(Reply(name, at_ms, answer.known_at, answer, None)))


def test_explain_names_the_rule_the_evidence_and_what_was_believed(sampled: Run) -> None:
    (why,) = sampled("explain", "pump-17", AT, "--json").objects
    evidence = why["evidence"]
    assert [(one["eventType"], one["timestamp"], one["knownAt"], one["source"]) for one in evidence] == [
        ("disconnected", "2026-11-01T02:58:11.201Z", "2026-11-01T04:00:02.000Z", SAMPLE),
        ("connected", "2026-11-01T03:20:45.007Z", "2026-11-01T04:00:02.000Z", SAMPLE),
    ]
    assert [(one["at"], one["rule"], one["recordedAt"]) for one in why["believed"]] == [
        ("2026-10-31T22:10:04.120Z", "connect", "2026-10-31T22:10:04.120Z"),
        ("2026-11-01T02:58:11.201Z", "disconnect", "2026-11-01T04:00:02.000Z"),
    ]
    assert {name: why[name] for name in DISCONNECTED} == DISCONNECTED
    assert why["rule"] == why["inForce"]["rule"] == "disconnect"
    assert why["next"]["rule"] == "connect"
    words = sampled("explain", "pump-17", AT)
    assert words.code == 0
    assert "decided by rule 'disconnect':" in words.out
    assert sampled("explain", "nope", AT).code == 5


# --- Ingest, rebuild, export --------------------------------------------------------------------------------


def test_ingesting_twice_changes_nothing(sampled: Run, store_url: str) -> None:
    before, status = all_rows(store_url), sampled("db", "status", "--json").objects
    done = sampled("ingest", SAMPLE, "--json")
    counts = {"read": 10, "stored": 0, "duplicates": 10, "transitions": 0, "corrections": 0}
    assert done.objects[0] | counts == done.objects[0]
    assert all_rows(store_url) == before
    assert sampled("db", "status", "--json").objects == status


NOTHING_DIFFERS = re.compile(r"[\d,]+ clients, [\d,]+ transitions derived again; 0 clients differed\n")


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE transitions SET state = 1 - state WHERE state < 2 AND client_no = {}",
        "DELETE FROM transitions WHERE client_no = {}",
        "UPDATE transitions SET superseded_at = 1793600000000 WHERE client_no = {}",
        "UPDATE session_rows SET version = 77 WHERE client_no = {}",
        "DELETE FROM session_rows WHERE client_no = {}",
        "UPDATE clients SET first_ms = 5 WHERE client_no = {}",
    ],
)
def test_a_rebuild_names_the_client_that_differs_and_mends_it(
    sampled: Run, store_url: str, fault: str
) -> None:
    before = all_rows(store_url)
    assert NOTHING_DIFFERS.fullmatch(sampled("rebuild").out)
    number = "(SELECT client_no FROM clients WHERE client_id = 'pump-17')"
    execute(store_url, fault.format(number))
    assert sampled("rebuild", "--json").objects == [
        {"clients": 3, "transitions": 9, "differing": ["pump-17"]}
    ]
    assert all_rows(store_url) == before
    assert NOTHING_DIFFERS.fullmatch(sampled("rebuild").out)
    assert sampled("at", "pump-17", AT, "--json").objects == [DISCONNECTED]


def test_a_store_of_nasty_histories_is_rebuilt_as_it_was(
    run: Run, store_url: str, rng: random.Random
) -> None:
    fill(store_url, rng, 150)
    before = all_rows(store_url)
    assert NOTHING_DIFFERS.fullmatch(run("rebuild").out)
    assert all_rows(store_url) == before


@pytest.mark.parametrize("towards", ["postgresql", "sqlite"])
def test_an_export_restores_every_answer_on_the_other_engine(
    towards: str,
    on_any: Run,
    sqlite_store_url: str,
    postgres_store_url: str,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    first, second = sqlite_store_url, postgres_store_url
    if towards == "sqlite":
        first, second = second, first
    names, instants = fill(first, rng, 60)
    exported = on_any("export", "evidence", "--store", first).out
    (tmp_path / "evidence.ndjson").write_text(exported)
    done = on_any("ingest", "--store", second, "--json", str(tmp_path / "evidence.ndjson"))
    assert (done.code, done.objects[0]["quarantined"], done.objects[0]["duplicates"]) == (0, 0, 0)
    assert done.objects[0]["stored"] == len(exported.splitlines()) - 1
    assert on_any("export", "evidence", "--store", second).out == exported
    assert all_rows(second) == all_rows(first)
    asked = questions(rng, [*names, "nope"], instants, 4_000)
    with thingline.open(first) as one, thingline.open(second) as other:
        for question, here, there in zip(asked, one.ask(asked), other.ask(asked), strict=True):
            assert reply_json(here) == reply_json(there), question
        assert list(one.all_periods()) == list(other.all_periods())
    assert NOTHING_DIFFERS.fullmatch(on_any("rebuild", "--store", second).out)


def fill(url: str, rng: random.Random, count: int) -> tuple[list[str], list[int]]:
    """Write nasty histories, checks and watches, learned over many moments; gives names, and instants."""
    events = in_turn(rng, [history(rng, f"client-{number}") for number in range(count)])
    # Stamps of the strategies may lie beyond today; a year and a half back they are all past.
    back = 550 * 86_400_000
    events = [event._replace(at_ms=event.at_ms - back) for event in events if event.extra is None]
    newest = max(event.at_ms for event in events)
    moments = sorted(rng.choices(range(newest, newest + 500), k=len(events)))
    items: list[Learned | Rejected] = []
    for event, known in zip(
        events, moments, strict=True
    ):  # as read from a file, so in the form that reading gives
        items += decode_message(recording_line(event, known), now=system_clock)
    assert len(items) == len(events)
    stamps = [event.at_ms for event in events]
    body = '{"api":"SearchIndex","askedAt":%d,"error":"ThrottlingException","thingName":"client-1"}'
    # The newest is no duplicate, so that the watermark is a moment that an export tells.
    for known in (*rng.sample(range(newest, newest + 500), 5), newest + 600):
        items.append(Learned(Observation("check", "client-1", known - 5, body % (known - 5)), 0, known))
        low, high = sorted(rng.sample(stamps, 2))
        items.append(Learned(Watch(rng.choice(["sqs", "mqtt"]), low, high + 1), 0, known))
    items.sort(key=lambda item: item.known_at_ms or 0 if isinstance(item, Learned) else 0)
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        while items:
            size = rng.randint(1, 300)
            writer.write(items[:size], source="test")
            del items[:size]
    names = sorted({event.client_id for event in events})
    near = [stamp + step for stamp in rng.sample(stamps, min(400, len(stamps))) for step in (-1, 0, 1)]
    return names, [*near, *range(newest, newest + 500, 7)]


def questions(
    rng: random.Random, names: Sequence[str], instants: Sequence[int], count: int
) -> list[Question]:
    late = sorted(instants)[-200:]
    return [
        Question(rng.choice(names), rng.choice(instants), rng.choice([None, rng.choice(late)]))
        for _ in range(count)
    ]


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


# --- Quarantine ---------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_listed_shown_and_replayed(run: Run, store_url: str, tmp_path: Path) -> None:
    assert run("ingest", SAMPLE).code == 0
    assert run("quarantine", "list") == Done(0, "", "the quarantine is empty\n")
    bad, good = "this is no JSON", event_json(connect(T0, session="s", version=0, client_id="late"))
    path = tmp_path / "mixed.ndjson"
    path.write_text(json.dumps(good) + "\n" + bad + "\n")
    assert run("ingest", str(path)).code == 0
    (one,) = run("quarantine", "list", "--json").objects
    position = len(json.dumps(good)) + 1
    wanted = {"reason": "not-json", "source": str(path), "position": position, "length": len(bad)}
    assert one | wanted | {"replayedAt": None} == one
    assert str(path) in run("quarantine", "list").out
    assert run("quarantine", "show", str(one["id"])).out == bad
    assert run("quarantine", "show", "999").code == 2
    assert run("quarantine", "replay").out == "1 tried, 0 read, 0 new pieces of evidence\n"
    # As after an upgrade that reads what was refused: the bytes now make sense.
    repaired = json.dumps(event_json(connect(T0, session="t", version=0, client_id="mended")))
    engine = sa.create_engine(store_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE quarantine SET head = :head, length = :length"),
            {"head": repaired.encode(), "length": len(repaired)},
        )
    engine.dispose()
    assert run("quarantine", "replay").out == "1 tried, 1 read, 1 new pieces of evidence\n"
    (reply,) = run("at", "mended", AFTER, "--json").objects
    assert (reply["connected"], reply["error"]) == (True, None)
    assert run("quarantine", "list", "--json").objects[0]["replayedAt"] is not None
    assert run("quarantine", "replay").out == "0 tried, 0 read, 0 new pieces of evidence\n"


# --- Names --------------------------------------------------------------------------------------------------


def test_a_thing_is_answered_for_by_the_client_that_bore_its_name_last(run: Run, tmp_path: Path) -> None:
    hour = 3_600_000
    events = [
        event_json(connect(T0, session="a", version=0, client_id="truck")),
        event_json(connect(T0 + hour, session="b", version=0, client_id="modem-1"), thingName="truck"),
        event_json(disconnect(T0 + 2 * hour, session="b", version=0, client_id="modem-1"), thingName="truck"),
        event_json(connect(T0 + 3 * hour, session="c", version=0, client_id="modem-2"), thingName="truck"),
    ]
    assert run("ingest", ndjson(tmp_path / "events.ndjson", events)).code == 0

    def spoke(at_ms: int) -> tuple[str, bool]:
        (reply,) = run("at", "truck", str(at_ms), "--json").objects
        return reply["clientId"], reply["connected"]

    assert [spoke(T0 + half * hour // 2) for half in range(8)] == [
        ("truck", True),
        ("truck", True),
        ("modem-1", True),
        ("modem-1", True),
        ("modem-1", False),
        ("modem-1", False),
        ("modem-2", True),
        ("modem-2", True),
    ]
    periods = run("history", "truck", "--periods", "--json").objects
    assert [(one["clientId"], one["connected"], one["to"] is None) for one in periods] == [
        ("truck", True, False),
        ("modem-1", True, False),
        ("modem-1", False, False),
        ("modem-2", True, True),
    ]
    for one, after in pairwise(periods):
        assert one["to"] == after["from"]
    everything = run("history", "--all", "--json").objects
    assert everything == periods
    sessions = run("history", "truck", "--sessions", "--json").objects
    assert [one["clientId"] for one in sessions] == ["truck", "modem-1", "modem-2"]


def test_the_same_names_in_two_realms_are_two_things(run: Run, tmp_path: Path) -> None:
    up = [event_json(connect(T0, session="s", version=0), thingName="truck")]
    down = [
        event_json(connect(T0, session="t", version=0), thingName="truck"),
        event_json(disconnect(T0 + 5, session="t", version=0), thingName="truck"),
    ]
    assert run("ingest", ndjson(tmp_path / "up.ndjson", up), "--realm", "here").code == 0
    assert run("ingest", ndjson(tmp_path / "down.ndjson", down), "--realm", "there").code == 0
    for name in ("pump-17", "truck"):
        for realm, connected in (("here", True), ("there", False)):
            (reply,) = run("at", name, AFTER, "--realm", realm, "--json").objects
            assert (reply["connected"], reply["error"]) == (connected, None)
        assert run("at", name, AFTER).code == 5
        assert run("history", name).code == 5
    assert run("history", "--all", "--json").objects == []
    here = run("history", "--all", "--json", "--realm", "here").objects
    assert [(one["thingName"], one["connected"]) for one in here] == [("truck", True)]
