"""The Lambda handler, called as AWS calls it: whole batches, bad records, a store that is away, and what it imports."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest import lambda_handler
from ingest.lambda_handler import handler
from store.errors import UsageError
from tests.aws.test_run import expected, fleet, held, stored
from tests.conftest import Server
from tests.contract.test_patience import stoppable, url_there
from tests.processes import HOME

__all__ = ["stoppable", "url_there"]  # fixtures


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An execution environment of its own."""
    monkeypatch.setattr(lambda_handler, "WAIT_S", 0.2)
    yield
    lambda_handler.close()


def of_sqs(bodies: list[str]) -> dict[str, Any]:
    records = [
        {
            "messageId": f"m-{at}",
            "body": body,
            "attributes": {"SentTimestamp": "1793491200000"},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:events",
        }
        for at, body in enumerate(bodies)
    ]
    return {"Records": records}


def of_kinesis(bodies: list[str]) -> dict[str, Any]:
    records = [
        {
            "kinesis": {
                "sequenceNumber": str(10**50 + at),
                "data": base64.b64encode(body.encode()).decode(),
                "approximateArrivalTimestamp": 1793491200.987,
            },
            "eventSource": "aws:kinesis",
            "eventSourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/events",
        }
        for at, body in enumerate(bodies)
    ]
    return {"Records": records}


@pytest.mark.parametrize("event_of", [of_sqs, of_kinesis])
def test_what_event_sources_bring_is_what_a_file_would_have_brought(
    store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, event_of: Any
) -> None:
    monkeypatch.setenv("THINGLINE_STORE", store_url)
    bodies = fleet(400)
    for at in range(0, len(bodies), 50):
        for _ in range(2):  # at least once
            assert handler(event_of(bodies[at : at + 50]), None) == {"batchItemFailures": []}
    lambda_handler.close()
    assert held(store_url) == expected(f"sqlite:///{tmp_path / 'one.db'}", bodies, tmp_path)


def test_while_the_store_is_away_every_record_is_to_come_again(
    stoppable: Server, url_there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINGLINE_STORE", url_there)
    bodies = fleet(30)
    assert handler(of_sqs(bodies[:5]), None) == {"batchItemFailures": []}
    stoppable.stop("immediate")
    failed = handler(of_sqs(bodies), None)["batchItemFailures"]
    assert failed == [{"itemIdentifier": f"m-{at}"} for at in range(len(bodies))]
    stoppable.start()
    assert handler(of_sqs(bodies), None) == {"batchItemFailures": []}
    assert stored(url_there) > 20


def test_what_is_no_event_of_a_queue_or_a_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for event in ({}, {"Records": [{"eventSource": "aws:s3"}]}, {"Records": ["x"]}):
        with pytest.raises(UsageError):
            handler(event, None)
    monkeypatch.delenv("THINGLINE_STORE", raising=False)
    with pytest.raises(UsageError, match="THINGLINE_STORE"):
        handler(of_sqs(fleet(1)), None)


def test_it_starts_without_what_only_others_need(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom ingest.lambda_handler import handler\n"
        "print(handler(json.loads(sys.argv[1]), None))\n"
        "print(sorted({'duckdb', 'boto3', 'botocore', 'alembic', 'http.server', 'click', 'paho'} & set(sys.modules)))"
    )
    environment = {**os.environ, "THINGLINE_STORE": f"sqlite:///{tmp_path / 'store.db'}"}
    command = [sys.executable, "-c", code, json.dumps(of_sqs(fleet(2)))]
    subprocess.run(command, cwd=HOME, env=environment, check=True, capture_output=True)  # makes the store
    done = subprocess.run(command, cwd=HOME, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["{'batchItemFailures': []}", "[]"]
