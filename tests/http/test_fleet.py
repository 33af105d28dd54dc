"""The reads of a fleet over HTTP, by boto3 and AWS CLI as they are; every answer is held to AWS's service model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from ingest.writer import Writer
from queries.fleet_reads import FleetReads
from queries.http.fleet import fleet_operations
from store.engine import open_writer, parse_url
from store.model import HOUR_MS, Learned, Observation
from tests.aws.iot_fake import unlike_model
from tests.builders import T0, connect, disconnect
from tests.http.answers import SECRET_KEYS
from tests.http.serving import serving

MODEL = botocore.session.get_session().get_service_model("iot")
OPERATIONS = fleet_operations(FleetReads(b"k"))
AT, BEFORE = "2026-09-21T14:13:20Z", "2026-09-21T13:43:20Z"  # T0, and half an hour earlier


def fill(url: str) -> None:
    """Tell of three pumps: of one that went down within the last half hour, of one that was created then, of one up."""
    evidence: list[Any] = [
        connect(T0 - 3 * HOUR_MS, session="a", version=0, client_id="pump-1"),
        disconnect(T0 - 60_000, session="a", version=0, client_id="pump-1", reason="CONNECTION_LOST"),
        connect(T0 - 2 * HOUR_MS, client_id="pump-2"),
        connect(T0 - 50_000, client_id="pump-3"),
    ]
    for number, at_ms in ((1, T0 - 4 * HOUR_MS), (2, T0 - 4 * HOUR_MS), (3, T0 - 60_000)):
        body = {"eventType": "THING_EVENT", "operation": "CREATED", "timestamp": at_ms}
        body |= {"thingName": f"pump-{number}", "thingId": f"id-{number}", "thingTypeName": "pump"}
        body |= {"attributes": {"power": str(10 * number), "site": "north" if number < 3 else "south"}}
        evidence.append(Observation("registry", f"pump-{number}", at_ms, json.dumps(body)))
        joined = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "operation": "ADDED", "timestamp": at_ms + 1}
        joined |= {
            "groupArn": "arn:aws:iot:eu-west-1:123456789012:thinggroup/cellar",
            "thingId": f"id-{number}",
        }
        if number != 2:
            evidence.append(Observation("registry", f"pump-{number}", at_ms + 1, json.dumps(joined)))
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: T0 + HOUR_MS) as writer:
        writer.write([Learned(one, 0) for one in evidence], source="test")


@pytest.fixture(scope="module")
def served(new_shared_url: Callable[[], str]) -> Iterator[str]:
    url = new_shared_url()
    fill(url)
    with serving("--store", url) as base:
        yield base


def camel(operation: str) -> str:
    return "".join(map(str.title, operation.split("_")))


def client(endpoint: str) -> Any:
    config = Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1})
    return boto3.client("iot", endpoint_url=endpoint, region_name="eu-west-1", config=config)


PUMP_1 = {
    "thingName": "pump-1",
    "thingId": "id-1",
    "thingTypeName": "pump",
    "thingGroupNames": ["cellar"],
    "attributes": {"power": "10", "site": "north"},
}
DOWN = {"connected": False, "timestamp": T0 - 60_000, "disconnectReason": "CONNECTION_LOST"}
UP = {"connected": True, "timestamp": T0 - 3 * HOUR_MS}
TERMS = {"termsAggregation": {"maxBuckets": 5}}

# An operation, its members, and what it answers.
ANSWERED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "search_index",
        {"queryString": "thingName:pump-1 connectivity.connected:false", "indexName": "AWS_Things"},
        {"things": [{**PUMP_1, "connectivity": DOWN}]},
    ),
    (
        "search_index",
        {
            "queryString": f"connectivity.timestamp > {T0 - HOUR_MS} AND thingGroupNames:cel* NOT thingName:pump-1"
        },
        {
            "things": [
                {
                    **PUMP_1,
                    "thingName": "pump-3",
                    "thingId": "id-3",
                    "attributes": {"power": "30", "site": "south"},
                    "connectivity": {"connected": True, "timestamp": T0 - 50_000},
                }
            ]
        },
    ),
    ("search_index", {"queryString": "nothing"}, {"things": []}),
    (
        "list_things",
        {"attributeName": "site", "attributeValue": "s", "usePrefixAttributeValue": True, "maxResults": 250},
        {
            "things": [
                {
                    "thingName": "pump-3",
                    "thingTypeName": "pump",
                    "attributes": {"power": "30", "site": "south"},
                }
            ]
        },
    ),
    (
        "describe_thing",
        {"thingName": "pump-1"},
        {
            "defaultClientId": "pump-1",
            "thingName": "pump-1",
            "thingId": "id-1",
            "thingTypeName": "pump",
            "attributes": {"power": "10", "site": "north"},
        },
    ),
    (
        "describe_index",
        {"indexName": "AWS_Things"},
        {"indexName": "AWS_Things", "indexStatus": "ACTIVE", "schema": "REGISTRY_AND_CONNECTIVITY_STATUS"},
    ),
    ("get_statistics", {"queryString": "*"}, {"statistics": {"count": 3}}),
    (
        "get_statistics",
        {"queryString": "*", "aggregationField": "attributes.power"},
        {
            "statistics": {
                "count": 3,
                "average": 20.0,
                "sum": 60.0,
                "minimum": 10.0,
                "maximum": 30.0,
                "sumOfSquares": 1400.0,
                "variance": 200.0 / 3,
                "stdDeviation": (200.0 / 3) ** 0.5,
            }
        },
    ),
    ("get_cardinality", {"queryString": "*", "aggregationField": "attributes.site"}, {"cardinality": 2}),
    (
        "get_percentiles",
        {"queryString": "*", "aggregationField": "attributes.power", "percents": [0, 50]},
        {"percentiles": [{"percent": 0.0, "value": 10.0}, {"percent": 50.0, "value": 20.0}]},
    ),
    (
        "get_buckets_aggregation",
        {"queryString": "*", "aggregationField": "connectivity.connected", "bucketsAggregationType": TERMS},
        {"totalCount": 3, "buckets": [{"keyValue": "true", "count": 2}, {"keyValue": "false", "count": 1}]},
    ),
]


@pytest.mark.parametrize(("operation", "members", "expected"), ANSWERED)
def test_boto3_is_told_how_the_fleet_stood(
    served: str, operation: str, members: dict[str, Any], expected: dict[str, Any]
) -> None:
    told = getattr(client(f"{served}/at/{AT}"), operation)(**members)
    told.pop("ResponseMetadata")
    assert told == expected


def test_another_instant_and_another_moment_of_learning_are_other_answers(served: str) -> None:
    told = client(f"{served}/at/{BEFORE}").search_index(queryString="*")["things"]
    assert [(one["thingName"], one["connectivity"]) for one in told] == [
        ("pump-1", UP),
        ("pump-2", {"connected": True, "timestamp": T0 - 2 * HOUR_MS}),
    ]
    with pytest.raises(ClientError, match="IndexNotReadyException"):
        client(f"{served}/at/{BEFORE}/known-at/{AT}").search_index(queryString="*")  # nothing was known yet
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client(f"{served}/at/{BEFORE}").describe_thing(thingName="pump-3")


@pytest.mark.parametrize("prefix", ["", "/at/-1s", f"/at/{AT}"])
def test_a_paginator_of_boto3_goes_through_all_pages(served: str, prefix: str) -> None:
    iot = client(served + prefix)
    pages = iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 1})
    assert [one["thingName"] for page in pages for one in page["things"]] == ["pump-1", "pump-2", "pump-3"]
    first = iot.search_index(queryString="*", maxResults=2)
    second = iot.search_index(queryString="*", maxResults=2, nextToken=first["nextToken"])
    assert [one["thingName"] for one in first["things"] + second["things"]] == ["pump-1", "pump-2", "pump-3"]
    assert "nextToken" not in second


@pytest.mark.parametrize(
    ("operation", "members", "name"),
    [
        ("search_index", {"queryString": "a~"}, "InvalidQueryException"),
        ("search_index", {"queryString": "shadow.reported.x:1"}, "InvalidQueryException"),
        ("search_index", {"queryString": "*", "maxResults": 500}, "InvalidRequestException"),
        ("search_index", {"queryString": "*", "nextToken": "made up"}, "InvalidRequestException"),
        ("search_index", {"queryString": "*", "indexName": "AWS_ThingGroups"}, "ResourceNotFoundException"),
        (
            "get_cardinality",
            {"queryString": "*", "aggregationField": "shadow.x"},
            "InvalidAggregationException",
        ),
        ("describe_thing", {"thingName": "nobody"}, "ResourceNotFoundException"),
        ("describe_index", {"indexName": "search"}, "ResourceNotFoundException"),
    ],
)
def test_boto3_knows_the_errors_by_aws_s_names(served: str, operation: str, members: Any, name: str) -> None:
    iot = client(f"{served}/at/{AT}")
    with pytest.raises(getattr(iot.exceptions, name)) as refused:
        getattr(iot, operation)(**members)
    shape = MODEL.operation_model(camel(operation))
    assert name in [error.name for error in shape.error_shapes]
    status = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert status == MODEL.shape_for(name).metadata["error"]["httpStatusCode"]


def test_signatures_cover_the_query_of_a_listing(sqlite_store_url: str) -> None:
    fill(sqlite_store_url)
    known = {"THINGLINE_SERVE_KEY_PAIRS": ":".join(SECRET_KEYS)}
    with serving("--store", sqlite_store_url, "--region", "eu-west-1", environment=known) as base:
        key, secret = SECRET_KEYS
        for given, is_taken in ((secret, True), (secret[::-1], False)):
            iot = boto3.client(
                "iot",
                endpoint_url=f"{base}/at/{AT}",
                region_name="eu-west-1",
                aws_access_key_id=key,
                aws_secret_access_key=given,
                config=Config(retries={"total_max_attempts": 1}),
            )
            asked: list[Callable[[], Any]] = [
                lambda: iot.list_things(attributeName="site", attributeValue="north", maxResults=1),  # noqa: B023
                lambda: iot.search_index(queryString="attributes.site:north", maxResults=1),  # noqa: B023
                lambda: iot.describe_thing(thingName="pump-1"),  # noqa: B023
            ]
            for ask in asked:
                if is_taken:
                    assert "pump-1" in json.dumps(ask())
                else:
                    with pytest.raises(ClientError) as refused:
                        ask()
                    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_aws_cli_prints_it(served: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "awscli", "iot", "search-index", "--no-sign-request"]
    command += ["--region", "eu-west-1", "--endpoint-url", f"{served}/at/{AT}"]
    command += ["--query-string", "thingName:pump-1"]
    done = subprocess.run(
        command, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"things": [{**PUMP_1, "connectivity": DOWN}]}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_an_operation_stands_where_aws_s_model_has_it(operation: Any) -> None:
    model = MODEL.operation_model(operation.name)
    assert (operation.method, f"/{'/'.join(operation.path)}") == (
        model.http["method"],
        model.http["requestUri"],
    )
    in_query = {
        member.serialization["name"]
        for member in model.input_shape.members.values()
        if member.serialization.get("location") == "querystring"
    }
    assert set(operation.members_in_query) == in_query


@pytest.mark.parametrize(("operation", "members", "expected"), ANSWERED)
def test_an_answer_is_what_aws_s_model_allows(
    served: str, operation: str, members: dict[str, Any], expected: dict[str, Any]
) -> None:
    # Raw, for boto3 drops what it does not know.
    model = MODEL.operation_model(camel(operation))
    request = create_serializer("rest-json").serialize_to_request(members, model)
    url = urlsplit(f"{served}/at/{AT}")
    connection = HTTPConnection(url.netloc)
    path = f"{url.path}{request['url_path']}?{urlencode(request['query_string'])}"
    connection.request(request["method"], path, request["body"], request["headers"])
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    assert unlike_model(model.output_shape, json.loads(body), operation) == []
    told = create_parser("rest-json").parse(
        {"status_code": 200, "headers": {}, "body": body}, model.output_shape
    )
    assert {**told, "ResponseMetadata": None} == {**expected, "ResponseMetadata": None}
