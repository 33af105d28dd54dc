"""The fake of AWS IoT's reads, one a process; each test begins with an account of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def _led_to(fake: IotFake) -> Iterator[None]:
    """Lead boto3 to the fake meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def iot(iot_server: IotFake) -> Iterator[IotFake]:
    """The fake, with boto3 led to it; that its answers were as botocore's model says is shown at the end."""
    iot_server.state = State()
    with _led_to(iot_server):
        yield iot_server
    assert iot_server.state.unlike == []


# Making a client takes half a second, so one serves all tests. It is led to the fake while it is made and no longer:
# what a fixture of the session sets, every test after it would meet.


@pytest.fixture(scope="session")
def client_server(iot_server: IotFake) -> Any:
    """A client of boto3."""
    with _led_to(iot_server):
        return Account().client("iot", attempts=1)


@pytest.fixture(scope="session")
def asking_server(iot_server: IotFake) -> Iot:
    """What asks the fake, by the account's own clock."""
    with _led_to(iot_server):
        return Iot(Account(), clock=lambda: iot_server.state.clock(), read_s=1)
