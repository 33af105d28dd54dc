"""AWS clients as they are, against a running server: every row of the table of answers, signed and unsigned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.http.answers import CASES, SECRET_KEYS, Case, fill
from tests.http.serving import serving

CLIENTS = Path(__file__).parent / "clients"
NAMES = ["newest boto3", "oldest boto3", "AWS CLI v1"]
if shutil.which("node") and shutil.which("npm"):
    NAMES.append("JavaScript SDK")


class Served(NamedTuple):
    """Two servers of one store: one that asks nobody who they are, and one that takes signatures."""

    unsigned: str
    signed: str


@pytest.fixture(scope="module")
def served(new_shared_url: Callable[[], str]) -> Iterator[Served]:
    url = new_shared_url()
    fill(url)
    known = {"THINGLINE_SERVE_KEY_PAIRS": ":".join(SECRET_KEYS)}
    with (
        serving("--store", url) as unsigned,
        serving("--store", url, "--region", "eu-west-1", environment=known) as signed,
    ):
        yield Served(unsigned, signed)


def answers(
    command: Sequence[str], base: str, cases: Sequence[Case], keys: Any, **more: str
) -> tuple[str, list[Any]]:
    """Run a client's program over cases; gives its version, and what it was told."""
    lines = [{"keys": keys}, *([base + case.prefix, case.thing] for case in cases)]
    done = subprocess.run(
        command,
        input="".join(json.dumps(line) + "\n" for line in lines),
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, *told = [json.loads(line) for line in done.stdout.splitlines()]
    return version, told


@pytest.mark.parametrize("keys", [None, SECRET_KEYS], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_client_is_told_what_the_table_says(
    served: Served, name: str, keys: Any, request: pytest.FixtureRequest
) -> None:
    more: dict[str, str] = {}
    if name == "JavaScript SDK":
        folder = request.getfixturevalue("javascript_sdk")
        command = ["node", str(CLIENTS / "ask_sdk.mjs"), str(folder)]
    elif name == "AWS CLI v1":
        command = [sys.executable, "-W", "ignore", str(CLIENTS / "ask_cli.py")]
    else:
        command = [sys.executable, "-W", "ignore", str(CLIENTS / "ask_boto3.py")]
        if name == "oldest boto3":
            more["PYTHONPATH"] = str(request.getfixturevalue("oldest_boto3"))
    version, told = answers(command, served.signed if keys else served.unsigned, CASES, keys, **more)
    if name == "oldest boto3":
        assert version == "1.35.84"
    wanted = []
    for case in CASES:
        one = dict(case.told)
        if name == "AWS CLI v1":
            one.pop("status", None)
        if name == "oldest boto3":  # it drops what it does not know
            for member in ("clientId", "keepAliveDuration", "cleanSession", "sessionExpiry"):
                one.pop(member, None)
        wanted.append((case.name, one))
    assert [(case.name, one) for case, one in zip(CASES, told, strict=True)] == wanted
