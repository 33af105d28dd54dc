"""The engines under test are real, new for each test, and as the contract suite expects them."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tests.conftest import POSTGRES, SEED, NetworkUsed


@pytest.fixture
def engine(store_url: str) -> Engine:
    return create_engine(store_url)


def test_a_store_answers(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_a_store_is_new_for_each_test(engine: Engine, turn: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE once (turn TEXT)"))  # fails where the other turn left one
    engine.dispose()


def test_the_url_names_its_engine(store_url: str, request: pytest.FixtureRequest) -> None:
    assert make_url(store_url).get_backend_name() == request.node.callspec.params["store_url"]


@pytest.fixture
def left_open() -> Iterator[list[Connection]]:
    """Connections that a test leaves open, closed only when its database is gone."""
    connections: list[Connection] = []
    yield connections
    for connection in connections:
        connection.close()


def test_a_database_in_use_is_dropped_all_the_same(
    left_open: list[Connection], postgres_store_url: str
) -> None:
    engine = create_engine(postgres_store_url, poolclass=NullPool)
    left_open.append(engine.connect())  # that the fixtures end without an error is what this asserts


def test_the_server_is_the_version_that_was_asked_for(postgres_url: str, pytestconfig: pytest.Config) -> None:
    if POSTGRES in os.environ:
        pytest.skip(f"{POSTGRES} names a server of somebody's own")
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        listens = connection.execute(text("SHOW listen_addresses")).scalar_one()
    engine.dispose()
    assert (number // 10_000, listens) == (pytestconfig.getoption("--postgres-version"), "")


def test_sqlite_starts_without_a_file(sqlite_store_url: str) -> None:
    database = make_url(sqlite_store_url).database
    assert database is not None
    assert Path(database).is_absolute()
    assert not Path(database).exists()


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("2001:db8::1", 443, 0, 0)])
def test_a_connection_beyond_loopback_is_refused(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one, pytest.raises(NetworkUsed):
        one.connect(address)


def test_a_look_up_of_a_name_is_refused() -> None:
    with pytest.raises(NetworkUsed):
        socket.create_connection(("iot.example.com", 443))


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()


def test_no_setting_of_the_developer_leaks_in() -> None:
    leaks = {name for name in os.environ if name.startswith(("AWS_", "THINGLINE_"))}
    fixed = {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"}
    assert {name for name in leaks if not name.startswith("THINGLINE_TEST_")} == fixed


def test_a_test_draws_the_same_from_the_same_seed(rng: random.Random, request: pytest.FixtureRequest) -> None:
    assert rng.random() == random.Random(f"{os.environ[SEED]}:{request.node.nodeid}").random()
