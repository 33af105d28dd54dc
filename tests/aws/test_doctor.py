"""`thingline aws doctor`: the real command against the account's reads over HTTP."""

from __future__ import annotations

import json
import random
import re
import socket
from pathlib import Path

import pytest
from botocore.session import get_session

import ingest.doctor_reads
from ingest.setup_template import KEPT_S, RULES
from tests.aws.iot_fake import (
    DENIED,
    DESCRIBE_EVENTS,
    GET_IDENTITY,
    GET_RULE,
    GET_THING,
    LIST_THINGS,
    SEARCH,
    IotFake,
)
from tests.aws.json_fake import DENIED as DENIED_THERE
from tests.aws.kinesis_fake import Stream, serving_streams
from tests.aws.sqs_fake import Queue, serving_queues
from tests.processes import HOME, here

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/events"


def whole(fake: IotFake) -> None:
    """Let the account be as `aws setup` makes it."""
    fake.state.events = dict.fromkeys(("THING", "THING_TYPE_ASSOCIATION", "THING_GROUP_MEMBERSHIP"), True)
    to_queue = {"sqs": {"roleArn": "arn:aws:iam::123456789012:role/r", "queueUrl": URL, "useBase64": False}}
    to_stream = {"kinesis": {"roleArn": "arn:aws:iam::123456789012:role/r", "streamName": "events"}}
    fake.state.rules = {
        name: {
            "ruleName": name,
            "sql": sql,
            "ruleDisabled": False,
            "actions": [to_queue, to_stream],
            "errorAction": to_queue,
        }
        for name, sql in {**RULES, "Other": "SELECT * FROM 'other/#'"}.items()
    }


def asked(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[dict[str, str]]]:
    code = here("aws", "doctor", "--json", *args)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_whole_account_is_well(
    iot: IotFake,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    whole(iot)
    with serving_queues() as sqs, serving_streams() as kinesis:
        sqs.queues["events"] = queue = Queue(rng)
        queue.attributes = {
            "MessageRetentionPeriod": str(KEPT_S),
            "RedrivePolicy": '{"maxReceiveCount": 100}',
        }
        queue.fill(["{}"] * 7)
        kinesis.streams["events"] = stream = Stream(rng, 2)
        stream.kept_h = 168
        for name, value in {**sqs.environment, **kinesis.environment}.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / "thingline.toml"
        path.write_text(f'[[sqs]]\nurl = "{sqs.queue_url("events")}"\n[[kinesis]]\nstream = "events"\n')
        code, found = asked(capsys, "--config", str(path))
        assert (code, {each["level"] for each in found}) == (0, {"ok"}), found
        assert found[0]["message"].startswith("asked as arn:aws:sts::123456789012:assumed-role/ingester/i-1")
        assert "keeps events for 14 days; 7 wait" in [each["message"] for each in found]
        assert "Other" not in [call.asked.get("ruleName") for call in iot.state.calls]
        assert (queue.received, stream.given) == (0, 0)  # it takes nothing away

        kinesis.faults["GetRecords"] = DENIED_THERE
        queue.attributes["MessageRetentionPeriod"] = "345600"
        code, found = asked(capsys, "--sqs", sqs.queue_url("events"), "--kinesis", "events")
        bad = [(each["level"], each["about"], each["mend"]) for each in found if each["level"] != "ok"]
        assert code == 1
        assert [each[:2] for each in bad] == [("warning", "queue events"), ("missing", "stream events")]
        assert "MessageRetentionPeriod=1209600" in bad[0][2]
        assert "kinesis:GetRecords" in bad[1][2]


def test_what_is_missing_and_what_may_not_be_read_is_said_a_line_each(
    iot: IotFake, capsys: pytest.CaptureFixture[str]
) -> None:
    whole(iot)
    iot.state.index = "OFF"
    for api in (DESCRIBE_EVENTS, SEARCH, LIST_THINGS, GET_THING, GET_RULE):
        iot.fail(api, DENIED)
    code = here("aws", "doctor")
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    missing = [line for line in lines if line.startswith("missing  ")]
    assert all(". To mend it: " in line for line in missing)
    for part in (
        "fleet indexing: off",
        "To mend it: `aws iot update-indexing-configuration",
        "allow iot:SearchIndex to this role",
        "allow iot:ListThings to this role",
        "allow iot:GetThingConnectivityData to this role",
        "allow iot:DescribeEventConfigurations to this role",
        "nothing is known of it: Presence: AccessDeniedException",
    ):
        assert any(part in line for line in missing), lines
    assert {line[:9] for line in lines} <= {"ok       ", "warning  ", "missing  "}


def test_an_aws_that_does_not_answer_and_one_that_knows_nobody_end_it(
    iot: IotFake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    iot.fail(GET_IDENTITY, DENIED._replace(code="InvalidClientTokenId", message="The token is invalid"))
    assert here("aws", "doctor") == 4
    assert "InvalidClientTokenId" in capsys.readouterr().err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert here("aws", "doctor") == 4
    said = capsys.readouterr()
    assert ("AWS gives no answer: Could not connect" in said.err, said.out) == (True, ""), said


def test_the_permissions_that_it_needs_are_documented_and_are_aws_s() -> None:
    page = (HOME / "docs" / "run.md").read_text().split("## Looking at the account")[1].split("\n## ")[0]
    documented = set(re.findall(r"`((?:iot|sqs|kinesis|sts):\w+)`", page))
    source = Path(ingest.doctor_reads.__file__).read_text()
    asked = {
        f"{service}:{name}"
        for service in ("iot", "sqs", "kinesis", "sts")
        for name in get_session().get_service_model(service).operation_names
        if re.search(rf"\b{service}\.{_snake(name)}\b|\"{_snake(name)}\"", source)
    }
    assert documented == asked


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
