"""`thingline check` over real HTTP: what AWS says now, in the store; and what of that the store had known."""

from __future__ import annotations

import json
from itertools import takewhile

import pytest

import thingline
from ingest.decode import decode_stream
from ingest.iot import TURN_ON
from ingest.simulate import Choices, simulate
from ingest.writer import Writer
from queries.fidelity import Outcome
from queries.history import open_history
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, Learned
from tests.aws.iot_fake import (
    DENIED,
    GET_CONNECTION,
    GET_THING,
    NEVER,
    SEARCH,
    THROTTLED,
    Fault,
    IotFake,
    Said,
    State,
    truth_of,
)
from tests.builders import connect, disconnect

MINUTE = 60_000


def test_a_fleet_that_lost_events_is_known_truly_after_one_check(
    iot: IotFake, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = system_clock()
    simulated = simulate(
        Choices(things=110, days=0.5, loss=0.3, start_ms=now_ms - 6 * HOUR_MS, check_minutes=0)
    )
    things, truth = truth_of(simulated.truth())
    iot.state = State(things=things, truth=truth, clock=lambda: now_ms)  # nothing moves while it is asked
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        recorded = decode_stream(simulated.lines(), now=lambda: now_ms + 24 * HOUR_MS)
        past = takewhile(lambda one: isinstance(one, Learned) and (one.known_at_ms or 0) < now_ms, recorded)
        writer.write(list(past), source="events")

    assert thingline.main(["check", "--store", store_url, "--json"]) == 0
    *lines, sums = map(json.loads, capsys.readouterr().out.splitlines())
    assert (sums["asked"], sums["stored"], sums["missing"], sums["unreadable"]) == (110, 110, 0, 0)
    assert sums["agreed"] + sums["differed"] + sums["unheard"] == 110
    assert sums["differed"] == len(lines) > 0
    assert iot.counts() == {SEARCH: 2}
    with open_history(store_url) as history:
        compared = list(history.fidelity())
        assert len(compared) == 110
        for one in compared:
            answer = history.at(one.client_id, one.asked_ms)
            found = answer.connected, answer.timestamp_ms, answer.disconnect_reason
            assert found == tuple(truth(one.client_id, now_ms))
    assert sum(one.outcome is Outcome.SAME for one in compared) == sums["agreed"]
    assert sum(one.outcome is Outcome.UNKNOWN for one in compared) == sums["unheard"]

    assert thingline.main(["check", "--store", store_url]) == 0
    (out,) = capsys.readouterr().out.splitlines()
    assert out.startswith("110 asked: 110 agreed with the store, 0 differed")
    assert out.endswith("110 new to the store, 110 of them as AWS answered before")


@pytest.fixture
def three(iot: IotFake, sqlite_store_url: str) -> str:
    """A store that is right of one thing, wrong of another, and has never heard of the others."""
    hour_ago = system_clock() - HOUR_MS
    said = {
        "right": Said(True, hour_ago, "NONE"),
        "wrong": Said(False, hour_ago + 5 * MINUTE, "CONNECTION_LOST"),
        "new": NEVER,
    }
    iot.state = State(things=list(said), truth=lambda thing, now_ms: said[thing])
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store) as writer:
        events = [connect(hour_ago, session=name, version=1, client_id=name) for name in ("right", "wrong")]
        writer.write([Learned(event, 0) for event in events], source="test")
    return sqlite_store_url


def test_named_things_are_told_one_by_one(
    three: str, iot: IotFake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thingline.main(["check", "--store", three, "right", "wrong", "new", "nobody", "right"]) == 0
    said = capsys.readouterr()
    right, wrong, new, nobody, sums = said.out.splitlines()
    assert right.startswith("right: connected since ")
    assert right.endswith("; so said the store")
    assert wrong.startswith("wrong: disconnected since ")
    assert "(CONNECTION_LOST); the store said connected since" in wrong
    assert wrong.endswith("(state differs)")
    assert new == "new: disconnected (UNKNOWN); the store knew nothing of it"
    assert nobody == "nobody: AWS knows none of that name"
    assert sums == (
        "4 asked: 1 agreed with the store, 1 differed, 1 it knew nothing of, 1 unknown to AWS, 0 unreadable;"
        " 4 new to the store, 0 of them as AWS answered before"
    )
    assert iot.counts() == {GET_THING: 4}
    with open_history(three) as history:
        assert history.at("wrong", system_clock() - 1).connected is False


def test_the_answers_as_json_end_with_their_sums(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert thingline.main(["check", "--store", three, "--json", "wrong", "nobody"]) == 0
    wrong, nobody, sums = map(json.loads, capsys.readouterr().out.splitlines())
    assert (wrong["connected"], wrong["ourConnected"], wrong["outcome"]) == (False, True, "state")
    assert nobody == {"name": "nobody", "found": False}
    assert (sums["asked"], sums["differed"], sums["missing"]) == (2, 1, 1)


def test_connections_are_asked_for_by_client_id(
    three: str, iot: IotFake, capsys: pytest.CaptureFixture[str]
) -> None:
    off = disconnect(system_clock() - 20 * MINUTE, client_id="wrong")
    iot.state.truth = lambda thing, now_ms: Said(False, off.at_ms, "CONNECTION_LOST")
    assert thingline.main(["check", "--store", three, "--client", "wrong", "gate/way"]) == 0
    wrong, gateway, _ = capsys.readouterr().out.splitlines()
    assert "disconnected since" in wrong
    assert gateway == "gate/way: AWS knows none of that name"
    assert iot.counts() == {GET_CONNECTION: 2}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "--client"], 2, "--client needs client ids"),
        (["check", "right", "a b"], 2, "'a b' is no thing's name"),
        (["check", "--profile", "nobody"], 4, "nobody"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(
    three: str, iot: IotFake, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert thingline.main([*arguments, "--store", three]) == code
    assert said in capsys.readouterr().err
    assert iot.counts() == {}


def test_trouble_that_somebody_has_to_mend_ends_it_at_once(
    three: str, iot: IotFake, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was learned before stays learned, and is told."""
    iot.fail(GET_THING, Fault())
    iot.fail(GET_THING, DENIED)
    assert thingline.main(["check", "--store", three, "right", "wrong"]) == 4
    said = capsys.readouterr()
    assert "allow iot:GetThingConnectivityData" in said.err
    assert said.out.splitlines()[-1].startswith("1 asked: 1 agreed")
    iot.state.index = "OFF"
    assert thingline.main(["check", "--store", three]) == 4
    said = capsys.readouterr()
    assert TURN_ON in said.err
    assert said.out == ""
    with open_history(three) as history:
        assert [one.client_id for one in history.fidelity()] == ["right"]
        assert history.at("wrong", system_clock() - 1).connected is True


def test_trouble_that_passes_is_told_and_waited_for(
    three: str, iot: IotFake, capsys: pytest.CaptureFixture[str]
) -> None:
    iot.fail(GET_THING, THROTTLED)
    assert thingline.main(["check", "--store", three, "right"]) == 0
    said = capsys.readouterr()
    assert "GetThingConnectivityData gives no answer: ThrottlingException" in said.err
    assert said.out.splitlines()[-1].startswith("1 asked: 1 agreed")
    iot.fail(SEARCH, THROTTLED)
    assert thingline.main(["check", "--store", three, "--wait", "0"]) == 4
