"""`thingline aws setup`: the template as cfn-lint sees it, and what its rules would deliver as the decoder does."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.session import get_session

from ingest.setup_template import RULES
from tests.processes import here


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert here("aws", "setup", *args) == 0
    return capsys.readouterr().out


def test_cfn_lint_passes_the_template(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "thingline.json"
    path.write_text(printed(capsys, "--name", "plant-1"))
    lint = "import sys; from cfnlint.runner import main; sys.exit(main())"
    command = [sys.executable, "-c", lint, "--regions", "eu-central-1", "--template", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    broken = json.loads(path.read_text())
    del broken["Resources"]["PresenceRule"]["Properties"]["TopicRulePayload"]["Sql"]
    path.write_text(json.dumps(broken))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_nothing_may_do_more_than_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(printed(capsys))["Resources"]
    (sending,) = made["RuleRole"]["Properties"]["Policies"]
    assert [each["Action"] for each in sending["PolicyDocument"]["Statement"]] == ["sqs:SendMessage"]
    allowed = made["IngesterPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    actions = [
        action
        for each in allowed
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    ]
    assert "*" not in "".join(actions)
    known = {
        f"{prefix}:{name}"
        for prefix in ("sqs", "iot")
        for name in get_session().get_service_model(prefix).operation_names
    }
    assert set(actions) <= known
    rules = [each for each in made.values() if each["Type"] == "AWS::IoT::TopicRule"]
    assert len(rules) == len(RULES)
    assert all("ErrorAction" in each["Properties"]["TopicRulePayload"] for each in rules)


def test_the_commands_are_those_of_the_aws_cli(capsys: pytest.CaptureFixture[str]) -> None:
    """Each names an operation, and gives it what botocore's model of it takes."""
    iot = get_session().get_service_model("iot")
    lines = [shlex.split(line) for line in printed(capsys, "--commands").splitlines()]
    assert [line[:3] for line in lines] == [
        ["aws", "cloudformation", "deploy"],
        ["aws", "cloudformation", "describe-stacks"],
        ["aws", "iot", "update-event-configurations"],
        ["aws", "iot", "update-indexing-configuration"],
    ]
    events = json.loads(lines[2][lines[2].index("--event-configurations") + 1])
    shape = iot.operation_model("UpdateEventConfigurations").input_shape.members["eventConfigurations"]
    assert set(events) <= set(shape.key.enum)
    mode = lines[3][lines[3].index("--thing-indexing-configuration") + 1]
    shape = iot.operation_model("UpdateIndexingConfiguration").input_shape.members[
        "thingIndexingConfiguration"
    ]
    for pair in mode.split(","):
        name, _, value = pair.partition("=")
        assert value in shape.members[name].enum


def test_a_name_that_aws_would_not_take_is_refused() -> None:
    assert here("aws", "setup", "--name", "no spaces") == 2
