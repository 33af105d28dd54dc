"""Whatever is asked of a fleet's reads, the answer is one of theirs: no 5xx, no HTML, nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queries.fleet_reads import FleetReads
from queries.history import open_history
from queries.http.app import App
from queries.http.auth import Gate
from queries.http.credentials import Credentials
from queries.http.fleet import fleet_operations
from queries.http.readers import Readers
from store.clock import system_clock
from store.engine import parse_url
from tests.http.serving import ask
from tests.http.test_fleet import AT, fill
from tests.queries.test_search_query import NASTY, PIECES

OPERATIONS = fleet_operations(FleetReads(b"k"))
MEMBERS = [
    "indexName",
    "queryString",
    "nextToken",
    "maxResults",
    "queryVersion",
    "aggregationField",
    "percents",
    "bucketsAggregationType",
]
QUERIES = st.sampled_from(["*", "thingName:pump-*", "attributes.power>1", "connectivity.connected:true"])
VALUES = st.one_of(
    QUERIES,
    st.sampled_from(["attributes.power", "thingName", "AWS_Things", "2017-09-30", {"termsAggregation": {}}]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | NASTY.map(lambda text: text.replace("\ud800", "")),
        lambda below: (
            st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), below, max_size=3)
        ),
        max_leaves=5,
    ),
)
REQUESTS = st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=5).flatmap(
    lambda told: st.sampled_from([told, {"queryString": "*", **told}])
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    url = f"sqlite:///{tmp_path_factory.mktemp('fuzz') / 'store.db'}"
    fill(url)
    readers = Readers(lambda: open_history(url), parse_url(url))
    gate = Gate(Credentials(), region=None, clock=system_clock)
    yield App(readers, gate, operations=OPERATIONS)
    readers.close()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(OPERATIONS), REQUESTS, st.lists(PIECES, max_size=8).map(" ".join))
def test_any_request_is_answered_or_refused_in_aws_s_shape(
    app: App, operation: Any, request_: dict[str, Any], text: str
) -> None:
    path = "/".join(text or "x" if part.startswith("{") else part for part in operation.path)
    query, body = "", b""
    if operation.method == "POST":
        body = json.dumps({"queryString": text, **request_}).encode()
    else:
        query = urlencode({name: str(value).encode("utf-8", "replace") for name, value in request_.items()})
    path = f"/at/{AT}/{path}".replace(" ", "%20").replace("?", "%3F").replace("\\", "%5C")
    told = ask(app, path, method=operation.method, body=body, query=query)
    assert told.status in (200, 400, 404), told
    assert told.headers["content-type"] == "application/json"
    answer = json.loads(told.body)
    assert isinstance(answer, dict)
    if told.status != 200:
        assert set(answer) == {"__type", "message"}
        assert "Traceback" not in answer["message"]
