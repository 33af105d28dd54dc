"""AWS IoT's answers as evidence, through real boto3: what the decoder would make of a recording of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ingest.aws import Account, Trouble
from ingest.checks import check_of
from ingest.decode import decode_message
from ingest.iot import TURN_ON, Iot, NoAnswer, weight
from store.errors import UsageError
from store.model import Learned, Observation, Rejected
from tests.aws.iot_fake import (
    CUT,
    DENIED,
    EXPIRED,
    GET_CONNECTION,
    GET_THING,
    INTERNAL,
    NEVER,
    NO_SUCH_THING,
    SEARCH,
    THROTTLED,
    UNAVAILABLE,
    Fault,
    IotFake,
    Said,
    State,
)
from tests.builders import T0

NOW = T0 + 60_000
SAID = {
    "on-1": Said(True, T0 + 123, "NONE"),
    "off-12": Said(False, T0 + 45_000, "CONNECTION_LOST"),
    "never": NEVER,
    "never-known": NEVER,
}


@pytest.fixture
def asking(iot: IotFake, asking_server: Iot) -> Iot:
    iot.state = State(things=list(SAID), truth=lambda thing, now_ms: SAID[thing], clock=lambda: NOW)
    return asking_server


def decoded(check: dict[str, Any]) -> list[Any]:
    """Read a line of a recording with that check; without what the line adds."""
    line = json.dumps({"check": check}).encode()
    return [item.evidence for item in decode_message(line, now=lambda: NOW) if isinstance(item, Learned)]


def body(item: Learned | Rejected) -> dict[str, Any]:
    assert isinstance(item, Learned)
    assert isinstance(item.evidence, Observation)
    found: dict[str, Any] = json.loads(item.evidence.body)
    return found


def evidence(items: list[Learned | Rejected]) -> list[Any]:
    return [item.evidence for item in items if isinstance(item, Learned)]


def test_one_thing_is_the_check_that_a_recording_of_the_call_holds(iot: IotFake, asking: Iot) -> None:
    for thing, said in SAID.items():
        item = asking.thing(thing)
        assert item.known_at_ms is None
        response: dict[str, Any] = {"thingName": thing, "connected": said.connected}
        if said.timestamp_ms is not None:
            response["timestamp"] = said.timestamp_ms / 1000
        elif len(thing) % 2:
            response["timestamp"] = 0
        response["disconnectReason"] = said.reason
        line = {"api": GET_THING, "askedAt": NOW, "thingName": thing, "response": response}
        assert [item.evidence] == decoded(line)
        assert isinstance(item.evidence, Observation)
        check = check_of(item.evidence)
        assert check is not None
        assert (check.asked_ms, check.named_ms, check.reason) == (NOW, said.timestamp_ms, said.reason)


def test_what_a_page_says_of_other_matters_is_left_out(iot: IotFake, asking: Iot) -> None:
    """A shadow changes by itself: with it no answer would be the one before."""
    thing = {"thingName": "a", "thingTypeName": "pump", "connectivity": {"connected": True, "timestamp": T0}}
    whole = {**thing, "shadow": '{"reported": {}}', "deviceDefender": "{}", "since2030": [1]}
    iot.fail(SEARCH, Fault(body=json.dumps({"things": [whole]}).encode()))
    assert body(asking.page().items[0])["response"] == {**thing, "since2030": [1]}


def test_whole_seconds_are_known_as_such(iot: IotFake, asking: Iot) -> None:
    """An instant in whole seconds lies anywhere within its second."""
    iot.state.whole_seconds = True
    said = asking.thing("on-1").evidence
    assert isinstance(said, Observation)
    check = check_of(said)
    assert check is not None
    assert (check.named_ms, check.whole) == (T0, True)


def test_a_page_is_one_check_a_thing_as_a_recording_of_the_page_holds(iot: IotFake, asking: Iot) -> None:
    page = asking.page()
    things = [
        {
            "thingName": thing,
            "thingId": f"id-of-{thing}",
            "connectivity": {"connected": said.connected}
            | ({"timestamp": said.timestamp_ms or 0} if said.timestamp_ms or len(thing) % 2 else {})
            | ({} if said.connected else {"disconnectReason": said.reason}),
        }
        for thing, said in SAID.items()
    ]
    assert evidence(page.items) == decoded({"api": SEARCH, "askedAt": NOW, "response": {"things": things}})
    assert (len(page.items), page.token) == (4, None)
    assert sum(map(weight, page.items)) > 100


def test_pages_follow_each_other_to_the_last(iot: IotFake, asking: Iot) -> None:
    names = [f"t{number}" for number in range(201)]
    iot.state = State(things=names, truth=lambda thing, now_ms: SAID["on-1"])
    found: list[str] = []
    token = None
    while True:
        page = asking.page(token)
        found += [one.subject for one in evidence(page.items)]
        token = page.token
        if token is None:
            break
    assert found == names
    assert iot.counts()[SEARCH] == 3


def test_a_connection_is_asked_for_by_client_id(iot: IotFake, asking: Iot) -> None:
    assert body(asking.connection("on-1")) == {
        "api": GET_CONNECTION,
        "askedAt": NOW,
        "clientId": "on-1",
        "response": {"clientId": "on-1", "connected": True, "connectedSince": T0 + 123},
    }
    assert body(asking.connection("never"))["error"] == "ResourceNotFoundException"


def test_a_thing_that_is_not_there_is_evidence_and_not_of_a_device(iot: IotFake, asking: Iot) -> None:
    item = asking.thing("nobody")
    line = {"api": GET_THING, "askedAt": NOW, "thingName": "nobody", "error": "ResourceNotFoundException"}
    assert [item.evidence] == decoded(line)
    assert isinstance(item.evidence, Observation)
    assert check_of(item.evidence) is None


ASKS: list[tuple[str, Callable[[Iot], object]]] = [
    (GET_THING, lambda asking: asking.thing("on-1")),
    (SEARCH, lambda asking: asking.page()),
    (GET_CONNECTION, lambda asking: asking.connection("on-1")),
]


@pytest.mark.parametrize(
    ("fault", "trouble", "said"),
    [
        (THROTTLED, Trouble.THROTTLED, "quota"),
        (INTERNAL, Trouble.AWAY, "InternalFailure"),
        (UNAVAILABLE, Trouble.AWAY, "temporarily"),
        (EXPIRED, Trouble.CREDENTIALS, "renew the credentials"),
        (DENIED, Trouble.DENIED, "allow iot:GetThingConnectivityData"),
        (CUT, Trouble.AWAY, "broken"),
        (Fault(body=b"<html>a proxy's page</html>"), Trouble.AWAY, "broken"),
        (Fault(body=b""), Trouble.AWAY, "broken"),
        (Fault(body=b'{"things": 7, "connected": null}'), Trouble.AWAY, "broken"),
        (Fault(503, body=b"<html>a proxy's page</html>"), Trouble.AWAY, "503"),
    ],
)
def test_what_is_no_answer_teaches_nothing_and_says_what_to_do(
    iot: IotFake, asking: Iot, fault: Fault, trouble: Trouble, said: str
) -> None:
    for api, ask in ASKS:
        iot.fail(api, fault)
        with pytest.raises(NoAnswer, match=said) as caught:
            ask(asking)
        assert caught.value.trouble is trouble
        ask(asking)
    assert set(iot.counts().values()) == {2}  # a call is one request


def test_an_answer_that_takes_too_long_is_none(iot: IotFake, asking: Iot) -> None:
    quick = Iot(Account(), clock=lambda: NOW, read_s=0.2)
    iot.fail(SEARCH, Fault(delay_s=0.6))
    with pytest.raises(NoAnswer, match="Read timeout") as caught:
        quick.page()
    assert caught.value.trouble is Trouble.AWAY


@pytest.mark.parametrize(
    "answer",
    [
        {"thingName": "other", "connected": True, "timestamp": T0 / 1000},
        {"connected": True, "timestamp": T0 / 1000},
        {"thingName": "on-1", "timestamp": T0 / 1000},
        {"thingName": "on-1", "connected": "yes", "timestamp": T0 / 1000},
        {"thingName": "on-1", "connected": True, "timestamp": NOW / 1000 + 86_400},
        {"thingName": "on-1", "connected": True, "timestamp": "soon"},
    ],
)
def test_nonsense_about_a_thing_is_no_evidence(iot: IotFake, asking: Iot, answer: dict[str, Any]) -> None:
    iot.fail(GET_THING, Fault(body=json.dumps(answer).encode()))
    with pytest.raises(NoAnswer, match="broken"):
        asking.thing("on-1")


def test_nonsense_about_one_thing_of_a_page_costs_the_others_nothing(iot: IotFake, asking: Iot) -> None:
    things = [
        {"thingName": "a", "connectivity": {"connected": "yes"}},
        {"thingName": "b", "connectivity": {"connected": True, "timestamp": T0}},
        {"thingName": "c"},
    ]
    iot.fail(SEARCH, Fault(body=json.dumps({"things": things}).encode()), times=2)
    (first, second), (again, _) = asking.page().items, asking.page().items
    assert isinstance(first, Rejected)
    assert first == again  # kept once, however often it is said
    assert body(second)["thingName"] == "b"


def test_an_index_that_is_off_is_told_from_a_thing_that_is_not_there(iot: IotFake, asking: Iot) -> None:
    iot.state.index = "OFF"
    for ask in (ASKS[0][1], ASKS[1][1]):
        with pytest.raises(NoAnswer) as caught:
            ask(asking)
        assert caught.value.trouble is Trouble.OFF
        assert TURN_ON in str(caught.value)
    assert body(asking.connection("on-1"))["response"]["connected"]  # needs no index
    iot.state.index = "ACTIVE"
    iot.fail(GET_THING, NO_SUCH_THING)
    assert body(asking.thing("on-1"))["error"] == "ResourceNotFoundException"


def test_an_index_without_connectivity_is_as_good_as_none(iot: IotFake, asking: Iot) -> None:
    iot.state.connectivity_indexed = False
    with pytest.raises(NoAnswer, match="without `connectivity`") as caught:
        asking.page()
    assert caught.value.trouble is Trouble.OFF
    assert TURN_ON in str(caught.value)


def test_an_index_that_is_being_built_asks_for_patience(iot: IotFake, asking: Iot) -> None:
    iot.state.index = "BUILDING"
    with pytest.raises(NoAnswer, match="describe-index") as caught:
        asking.page()
    assert caught.value.trouble is Trouble.NOT_READY


def test_a_page_that_leads_to_itself_is_no_answer(iot: IotFake, asking: Iot) -> None:
    iot.fail(SEARCH, Fault(body=b'{"things": [], "nextToken": "MTAw"}'))
    with pytest.raises(NoAnswer, match="broken"):
        asking.page("MTAw")


def test_no_call_is_sent_for_what_nothing_is_called(iot: IotFake, asking: Iot) -> None:
    for name in ("", "a b", "a/b", "ä", "x" * 129):
        with pytest.raises(UsageError, match="no thing's name"):
            asking.thing(name)
    for client in ("", "$aws", "x" * 129):
        with pytest.raises(UsageError, match="no client's id"):
            asking.connection(client)
    assert iot.counts() == {}


def test_without_credentials_it_is_said_which_are_wanted(
    iot: IotFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(NoAnswer) as caught:
        Iot(Account()).page()
    assert str(caught.value).count("get-caller-identity") == 1
    assert caught.value.trouble is Trouble.CREDENTIALS


def test_the_region_is_found_as_the_aws_cli_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert Account().client("sts").meta.region_name == "eu-west-2"
    assert Account(region="eu-west-3").client("sts").meta.region_name == "eu-west-3"
