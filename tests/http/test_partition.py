"""A PostgreSQL that the network cuts off while it is asked: nobody hangs, and it is asked again once it answers.

What is cut off takes everything and answers nothing, so that no timeout of TCP sees anything wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.http.serving import serving
from tests.http.test_fleet import AT, fill
from tests.http.wire import Wire, wired

PATIENCE_S = 60  # boto3 and AWS CLI wait so long for an answer, and ask again


@pytest.fixture
def cut_off(postgres_store_url: str) -> Iterator[tuple[Wire, str]]:
    """A server that reads its store through a wire."""
    fill(postgres_store_url)
    with wired(postgres_store_url) as (wire, url):
        try:
            with serving("--store", url) as base:
                yield wire, base
        finally:
            wire.mend()


def client(base: str) -> Any:
    config = Config(
        signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1}, read_timeout=PATIENCE_S
    )
    return boto3.client("iot", endpoint_url=f"{base}/at/{AT}", region_name="eu-west-1", config=config)


def status_of(base: str, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(urlsplit(base).netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def code_of(question: Any) -> str:
    """Ask, and give the code of the error that is the answer; of what is answered, none."""
    try:
        question()
    except ClientError as error:
        told = error.response
        return f"{told['ResponseMetadata']['HTTPStatusCode']} {told['Error']['Code']}"
    return ""


def test_who_asks_a_server_that_is_cut_off_is_told_so_and_is_answered_once_it_is_back(
    cut_off: tuple[Wire, str],
) -> None:
    wire, base = cut_off
    aws = client(base)
    questions = [
        lambda: aws.describe_thing(thingName="pump-1"),
        lambda: aws.get_thing_connectivity_data(thingName="pump-1"),
        lambda: aws.search_index(queryString="connectivity.connected:false"),
        lambda: aws.get_statistics(queryString="*"),
    ]
    assert [code_of(each) for each in questions] == [""] * 4
    ours = f"/api/v1/at?thing=pump-1&at={AT}"
    assert status_of(base, ours)[0] == 200

    with ThreadPoolExecutor(10) as threads:
        wire.cut()
        told = [threads.submit(code_of, each) for each in questions * 2]
        problem = threads.submit(status_of, base, ours)
        while not all(
            each.done() for each in told
        ):  # whoever asks for nothing of the store is answered meanwhile
            assert status_of(base, "/healthz")[0] == 200
            assert status_of(base, "/api/v1/openapi.json")[0] == 200
            assert status_of(base, "/nothing")[0] == 404
            time.sleep(0.2)
        assert {each.result() for each in told} == {"503 ServiceUnavailableException"}
        status, body = problem.result()
        assert (status, json.loads(body)["code"]) == (503, "ServiceUnavailableException")
    assert {code_of(each) for each in questions} == {"503 ServiceUnavailableException"}

    wire.mend()
    until_s = time.monotonic() + PATIENCE_S
    while code_of(questions[0]):
        assert time.monotonic() < until_s, "it was not asked again"
        time.sleep(0.2)
    for _ in range(10):  # by whatever thread: none goes on with a connection that was cut off
        assert [code_of(each) for each in questions] == [""] * 4
    assert status_of(base, ours)[0] == 200
