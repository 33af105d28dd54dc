"""The fake is as botocore's model of the service is, and as real boto3 understands it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from ingest.aws import Account, Trouble, failure_of
from ingest.simulate import Choices, simulate
from tests.aws.iot_fake import (
    CUT,
    DENIED,
    EXPIRED,
    GET_THING,
    INTERNAL,
    NEVER,
    SEARCH,
    SERVICES,
    THROTTLED,
    UNAVAILABLE,
    Fault,
    IotFake,
    Said,
    State,
    truth_of,
    unlike_model,
)
from tests.builders import T0

ON = Said(True, T0 + 123, "NONE")
OFF = Said(False, T0 + 456, "CONNECTION_LOST")


@pytest.fixture
def client(iot: IotFake, client_server: Any) -> Any:
    return client_server


def three(iot: IotFake, **more: Any) -> None:
    said = {"a": ON, "bb": OFF, "ccc": NEVER, "dddd": NEVER}
    iot.state = State(things=list(said), truth=lambda thing, now_ms: said[thing], clock=lambda: T0, **more)


def test_things_that_are_on_off_and_never_connected_are_told_apart(iot: IotFake, client: Any) -> None:
    three(iot)
    found = {name: client.get_thing_connectivity_data(thingName=name) for name in iot.state.things}
    said = {
        name: (one["connected"], one.get("timestamp"), one["disconnectReason"]) for name, one in found.items()
    }
    assert {
        name: (on, None if at is None else at.timestamp(), why) for name, (on, at, why) in said.items()
    } == {
        "a": (True, ON.timestamp_ms / 1000 if ON.timestamp_ms else None, "NONE"),
        "bb": (False, OFF.timestamp_ms / 1000 if OFF.timestamp_ms else None, "CONNECTION_LOST"),
        "ccc": (False, 0, "UNKNOWN"),
        "dddd": (False, None, "UNKNOWN"),
    }


def test_the_index_is_searched_page_by_page(iot: IotFake, client: Any) -> None:
    names = [f"thing-{number:03}" for number in range(250)]
    iot.state = State(things=names, truth=lambda thing, now_ms: ON if thing < "thing-100" else OFF)
    pages = []
    more: dict[str, str] = {}
    while True:
        page = client.search_index(queryString="*", maxResults=100, **more)
        pages.append(page["things"])
        if "nextToken" not in page:
            break
        more = {"nextToken": page["nextToken"]}
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [thing["thingName"] for page in pages for thing in page] == names
    assert pages[0][0]["connectivity"] == {"connected": True, "timestamp": T0 + 123}
    assert pages[2][0]["connectivity"] == {
        "connected": False,
        "timestamp": T0 + 456,
        "disconnectReason": "CONNECTION_LOST",
    }
    (one,) = client.search_index(queryString="thingName:thing-007")["things"]
    assert one["thingName"] == "thing-007"
    listed = client.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250})
    assert [thing["thingName"] for page in listed for thing in page["things"]] == names


@pytest.mark.parametrize("index", ["ACTIVE", "BUILDING", "OFF"])
def test_the_index_and_its_settings_say_how_it_stands(iot: IotFake, client: Any, index: str) -> None:
    three(iot, index=index)
    settings = client.get_indexing_configuration()["thingIndexingConfiguration"]
    assert settings["thingConnectivityIndexingMode"] == ("OFF" if index == "OFF" else "STATUS")
    if index == "ACTIVE":
        assert client.describe_index(indexName="AWS_Things")["indexStatus"] == "ACTIVE"
        assert client.search_index(queryString="*")["things"]
        return
    code = "ResourceNotFoundException" if index == "OFF" else "IndexNotReadyException"
    asks: list[Callable[[], Any]] = [
        lambda: client.search_index(queryString="*"),
        lambda: client.get_thing_connectivity_data(thingName="a"),
    ]
    for ask in asks:
        with pytest.raises(ClientError, match=code):
            ask()


def test_event_configurations_are_told(iot: IotFake, client: Any) -> None:
    assert client.describe_event_configurations()["eventConfigurations"] == {"THING": {"Enabled": False}}


def test_a_connection_is_told_by_client_id_where_this_botocore_can_ask(iot: IotFake) -> None:
    if "GetConnection" not in botocore.session.get_session().get_service_model("iot-data").operation_names:
        pytest.skip("this botocore has no GetConnection")
    three(iot)
    data: Any = Account().client("iot-data", attempts=1)
    assert data.get_connection(clientId="a")["connectedSince"] == T0 + 123
    assert data.get_connection(clientId="bb")["disconnectReason"] == "CONNECTION_LOST"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        data.get_connection(clientId="ccc")


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (THROTTLED, Trouble.THROTTLED),
        (INTERNAL, Trouble.AWAY),
        (UNAVAILABLE, Trouble.AWAY),
        (EXPIRED, Trouble.CREDENTIALS),
        (DENIED, Trouble.DENIED),
    ],
)
def test_faults_reach_boto3_as_faults(iot: IotFake, client: Any, fault: Fault, trouble: Trouble) -> None:
    three(iot)
    iot.fail(SEARCH, fault)
    with pytest.raises((ClientError, BotoCoreError)) as caught:
        client.search_index(queryString="*")
    assert failure_of(caught.value).trouble is trouble
    assert len(client.search_index(queryString="*")["things"]) == 4
    assert iot.counts() == {SEARCH: 2}


def test_of_half_an_answer_boto3_makes_an_empty_one(iot: IotFake, client: Any) -> None:
    """It neither counts the bytes nor minds JSON that breaks off: who asks has to see that nothing is in it."""
    three(iot)
    iot.fail(SEARCH, CUT)
    assert client.search_index(queryString="*").keys() == {"ResponseMetadata"}


def test_a_simulated_fleet_stands_behind_it(iot: IotFake, client: Any) -> None:
    simulated = simulate(Choices(things=20, days=1))
    things, truth = truth_of(simulated.truth())
    now_ms = simulated.to_ms - 1
    iot.state = State(things=things, truth=truth, clock=lambda: now_ms, lag_ms=1)
    last = {thing: answers[-1] for thing, answers in simulated.truth()}
    for thing in client.search_index(queryString="*")["things"]:
        said, true = thing["connectivity"], last[thing["thingName"]]
        assert (said["connected"], said.get("timestamp") or None) == (true.connected, true.timestamp_ms)


def test_an_answer_that_is_not_as_the_model_says_is_seen() -> None:
    model = botocore.session.get_session().get_service_model("iot")
    shape = model.operation_model(GET_THING).output_shape
    assert unlike_model(shape, {"thingName": "a", "connected": True, "timestamp": 1.5}, "x") == []
    for wrong in (
        {"thingname": "a"},
        {"connected": "true"},
        {"timestamp": "2026"},
        {"disconnectReason": "BORED"},
        {"keepAliveDuration": True},
    ):
        assert len(unlike_model(shape, wrong, "x")) == 1
    settings = model.operation_model("GetIndexingConfiguration").output_shape
    assert unlike_model(settings, {"thingIndexingConfiguration": {}}, "x") == [
        "x.thingIndexingConfiguration lacks thingIndexingMode"
    ]
    assert {name for names in SERVICES.values() for name in names} >= {GET_THING, SEARCH}
