"""The fake of AWS IoT's reads, one a process; each test begins with an account of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingest.aws import Account
from ingest.iot import Iot
from tests.aws.iot_fake import IotFake, State, serving
from tests.processes import end_all


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no `thingline run` behind."""
    yield
    end_all()


@pytest.fixture(scope="session")
def iot_server(clean_environment: None) -> Iterator[IotFake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def iot(iot_server: IotFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[IotFake]:
    """The fake, with boto3 led to it; that its answers were as botocore's model says is shown at the end."""
    iot_server.state = State()
    for name, value in iot_server.environment.items():
        monkeypatch.setenv(name, value)
    yield iot_server
    assert iot_server.state.unlike == []


@pytest.fixture(scope="session")
def led(iot_server: IotFake) -> Iterator[None]:
    """boto3 is led to the fake while session-wide clients are made, which takes half a second each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in iot_server.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def client_server(led: None) -> Any:
    """A client of boto3."""
    return Account().client("iot", attempts=1)


@pytest.fixture(scope="session")
def asking_server(iot_server: IotFake, led: None) -> Iot:
    """What asks the fake, by the account's own clock."""
    return Iot(Account(), clock=lambda: iot_server.state.clock(), read_s=1)
