"""The fake of AWS IoT's reads, one a process; each test begins with an account of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws.iot_fake import IotFake, State, serving


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
