"""Where a store is and how it is opened: URLs, SQLite's files and lock, PostgreSQL's connections.

Opens for reading (never migrates, never writes) or for writing (makes a store where there is none, refuses
one of another schema). Holds no SQL of the domain.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from store.connections import Connections
from store.errors import (
    StoreAway,
    StoreBusy,
    StoreError,
    StoreMissing,
    StoreRefused,
    StoreTooNew,
    StoreTooOld,
    StoreUnreachable,
    UsageError,
)

SCHEMA_REVISION = "0015"  # the newest file in migrations/versions; a test holds them equal

_BUSY_TIMEOUT_MS = 10_000
_VERSIONED = "alembic_version"  # which other programs have as well
_OURS = "watermarks"  # a table of every schema of ours
# What PostgreSQL says of a state that passes: it starts, stops or fails over, has no connection free, or let
# another transaction go first. Class 08 besides: the connection broke.
_PASSING = frozenset({"57P01", "57P02", "57P03", "53300", "40001", "40P01"})
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"}
    | {"fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}
)


# What a URL may say after its `?` that is safe to print. All else is masked: a password may stand under a name
# that is misspelt, and libpq has several that are secret.
_PUBLIC_OPTIONS = frozenset(
    {"application_name", "connect_timeout", "dbname", "host", "hostaddr", "port", "service", "sslmode"}
    | {"target_session_attrs", "user"}
)
# How long a server that is cut off is waited for, where the URL does not say: libpq would wait a quarter of an hour for
# what was asked of it, and two hours for what it was to answer.
_PATIENCE = {
    "connect_timeout": 10,  # s
    "keepalives_idle": 30,  # s
    "keepalives_interval": 10,  # s
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # ms
}
# What libpq takes and we do not; as a path it would be printed, password and all.
_CONNINFO = re.compile(r"postgres(?:ql)?(?:\+\w+)?:|(?:.*\W)?password\s*=", re.DOTALL)


def default_path() -> Path:
    """Give the place of the embedded store of this user."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(data) / "thingline" / "store.db"


def parse_url(text: str | None) -> URL:
    """Read a store's URL: `sqlite:///PATH`, `postgresql://...`, a bare path; None is the default place."""
    if not text:
        return URL.create("sqlite", database=str(default_path()))
    if "://" not in text:
        if _CONNINFO.match(text):
            raise UsageError("Give postgresql://USER@HOST/DB; a file of such a name is sqlite:///PATH.")
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ... of a port that is none, which may be half of a password
        raise UsageError(
            "That is no store URL; give sqlite:///PATH, postgresql://HOST/DB or a path. In a password, write"
            " what is neither letter nor digit as %XX; several hosts as ?host=A:PORT&host=B:PORT."
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UsageError("A SQLite store needs a file: sqlite:///PATH (four slashes for a full path).")
        return url.set(drivername="sqlite", database=str(Path(url.database).absolute()))
    if backend == "postgresql":
        if "@" in (url.host or ""):
            raise UsageError("There are two @ in the store's URL; in a password, write @ as %40.")
        return url.set(drivername="postgresql+psycopg")
    raise UsageError(f"{backend} is no engine for a store; give sqlite:///PATH or postgresql://HOST/DB.")


def masked(url: URL) -> str:
    """Render a URL for people and logs: without its password, nor any option that may hold a secret."""
    query = {name: value if name in _PUBLIC_OPTIONS else "***" for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def _without_secrets(url: URL, text: str) -> str:
    """Take out of a driver's message what `masked` hides of the URL; libpq repeats an option's bad value."""
    hidden = [url.password] if url.password else []
    for name, value in url.query.items():
        if name not in _PUBLIC_OPTIONS:
            hidden += [value] if isinstance(value, str) else value
    for secret in sorted(hidden, key=len, reverse=True):
        # As a whole word: a password that is as short as a word of the message would make it unreadable.
        if secret and secret != url.username:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


class Store:
    """An opened store: its engine, and whether it may be written. Close it, or use it as a context."""

    def __init__(self, url: URL, engine: Engine, unlock: Callable[[], None] | None = None) -> None:
        self.url = url
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._unlock = unlock

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and give up the writer's lock."""
        self.engine.dispose()
        if self._unlock is not None:
            self._unlock()
            self._unlock = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection whose statements all see one snapshot."""
        with translated(self.url), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def detached(self) -> Iterator[Any]:
        """Give a driver connection of the caller's own, in autocommit; closed at the end."""
        with translated(self.url):
            pooled = self.engine.raw_connection()
            driver: Any = pooled.driver_connection
            pooled.detach()
            try:
                if not self.is_sqlite:
                    driver.autocommit = True
                yield driver
            finally:
                driver.close()

    @contextlib.contextmanager
    def streaming(self) -> Iterator[Callable[..., Iterator[Any]]]:
        """Give a way to run statements whose rows stream, all from one snapshot, in constant memory."""
        with self.detached() as driver:
            if self.is_sqlite:
                driver.execute("BEGIN")
                yield driver.execute
                return
            driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            numbers = itertools.count()

            def run(statement: str, values: Sequence[Any] | None = None) -> Iterator[Any]:
                with driver.cursor(name=f"stream_{next(numbers)}") as cursor:
                    cursor.itersize = 10_000
                    cursor.execute(statement, values)
                    yield from cursor

            yield run


def is_deadlock(error: Exception) -> bool:
    """Tell whether PostgreSQL undid a transaction because it and another waited for each other."""
    return getattr(error, "sqlstate", None) == "40P01"


@contextlib.contextmanager
def translated(url: URL) -> Iterator[None]:
    """Turn a driver's refusal into an error that says what to do."""
    try:
        yield
    except DBAPIError as error:
        raise _explained(url, error.orig or error) from error
    except sqlite3.Error as error:
        raise _explained(url, error) from error
    except Exception as error:
        if type(error).__module__.startswith("psycopg"):
            raise _explained(url, error) from error
        raise


def _explained(url: URL, error: BaseException) -> StoreError:
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    detail = _without_secrets(url, detail)
    if isinstance(error, sqlite3.Error) and ("locked" in detail or "busy" in detail):
        return StoreBusy()
    if "disk is full" in detail or "No space left" in detail:
        return StoreUnreachable(
            f"The disk that holds {masked(url)} is full; nothing of the last batch is kept."
        )
    if "readonly" in detail or "read-only" in detail:
        return StoreUnreachable(
            f"{masked(url)} cannot be written: {detail}. Check who owns the file and its folder; SQLite writes"
            " beside the file for a reader too, where no writer has it open."
        )
    if "malformed" in detail:
        return StoreUnreachable(
            f"{masked(url)} is damaged: {detail}. `thingline db check` says where, if it can; restore a backup."
        )
    if "not a database" in detail:
        return StoreUnreachable(f"{masked(url)} is not a store of thingline: {detail}.")
    if str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_IOERR"):
        return StoreUnreachable(
            f"{masked(url)} cannot be read or written: {detail}; nothing of the last batch is kept."
            " Check the disk, its quota and limits on the size of files."
        )
    if _passes(error):
        return StoreAway(f"{masked(url)} does not answer: {detail}.")
    return StoreUnreachable(f"{masked(url)} does not answer: {detail}.")


def _passes(error: BaseException) -> bool:
    """Tell whether a server's refusal is of its state, and not of what it was asked."""
    if not type(error).__module__.startswith("psycopg"):
        return False
    from psycopg import OperationalError

    state = getattr(error, "sqlstate", None)
    return isinstance(error, OperationalError) and (
        state is None or state.startswith("08") or state in _PASSING
    )


# --- Opening ------------------------------------------------------------------------------------------------


def open_reader(url: URL, connections: Connections | None = None) -> Store:
    """Open an existing store for reading. Raises StoreMissing, StoreTooNew, StoreTooOld, StoreUnreachable.

    Its connections to a PostgreSQL are counted among `connections`.
    """
    if url.get_backend_name() == "sqlite":
        _check_is_file(Path(url.database or ""))
    store = Store(url, _engine(url, read_only=True, connections=connections))
    with closing_on_error(store):
        check_revision(store)
    return store


def open_writer(url: URL) -> Store:
    """Open a store for writing, making it where there is none. Raises StoreBusy too."""
    store = locked_store(url)
    with closing_on_error(store):
        if revision_of(store) is None:
            from store.migrate import upgrade

            upgrade(store)
        check_revision(store)
    return store


def open_beside(url: URL) -> Store:
    """Open an existing store for short transactions beside whoever writes it, whom they make wait.

    Of SQLite without the writer's lock: what such a transaction writes is nothing that the writer keeps in mind, but
    for the watermark, which the writer looks at again (ingest/writer.py). Raises as `open_reader`, StoreRefused too.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if not path.exists():
            raise StoreMissing(f"There is no store at {path}; `thingline ingest` makes one.")
        _check_is_file(path)
        _check_place(path)
        _check_is_ours(url)
    store = Store(url, _engine(url, read_only=False))
    with closing_on_error(store):
        check_revision(store)
    return store


def locked_store(url: URL) -> Store:
    """Open a store for writing as it stands, whatever its schema. Raises StoreBusy, StoreRefused.

    A SQLite file with somebody else's tables is refused before anything is written, to it or beside it.
    """
    unlock = None
    if url.get_backend_name() == "sqlite":
        _check_is_file(Path(url.database or ""))
        _check_is_ours(url)
        unlock = _lock(Path(url.database or ""))
    return Store(url, _engine(url, read_only=False), unlock)


@contextlib.contextmanager
def closing_on_error(store: Store) -> Iterator[None]:
    """Close the store where what follows fails."""
    try:
        yield
    except BaseException:
        store.close()
        raise


def revision_of(store: Store) -> str | None:
    """Tell which migration the store stands at; None where there is no store yet.

    Raises StoreRefused where the migration is that of another program: Alembic's table alone makes no store.
    """
    with translated(store.url), store.engine.connect() as connection:
        inspector = sa.inspect(connection)
        if not inspector.has_table(_VERSIONED):
            return None
        revision = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(_VERSIONED)))
        if revision is None:
            return None
        if not inspector.has_table(_OURS):
            raise _not_ours(store.url, inspector.get_table_names())
        return str(revision)


def check_revision(store: Store) -> None:
    """Make sure that the store is of this schema. Raises StoreMissing, StoreTooNew, StoreTooOld."""
    revision = revision_of(store)
    if revision is None:
        if store.is_sqlite:
            _check_is_ours(store.url)
        raise StoreMissing(f"{masked(store.url)} holds no store; `thingline ingest` makes one.")
    if revision > SCHEMA_REVISION:
        raise StoreTooNew(
            f"{masked(store.url)} is of schema {revision}, newer than this thingline knows"
            f" ({SCHEMA_REVISION}); install a newer thingline."
        )
    if revision < SCHEMA_REVISION:
        raise StoreTooOld(f"{masked(store.url)} is of schema {revision}; run `thingline db upgrade`.")


def _engine(url: URL, *, read_only: bool, connections: Connections | None = None) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, read_only=read_only)
    try:
        engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            connect_args={name: value for name, value in _PATIENCE.items() if name not in url.query},
            hide_parameters=True,  # names and addresses have no business in an error
        )
    except ArgumentError:
        raise UsageError(f"{masked(url)} cannot be understood; check its hosts and ports.") from None
    except ModuleNotFoundError:
        raise UsageError("PostgreSQL needs a driver: pip install 'thingline[postgres]'.") from None
    if connections is not None:
        held = connections
        # The first to hear of it: what SQLAlchemy asks of a new connection may be waited for too.
        sa.event.listen(engine, "connect", lambda driver, _: held.hold(driver), insert=True)
    return engine


def _sqlite_engine(url: URL, *, read_only: bool) -> Engine:
    path = Path(url.database or "")
    if read_only and not path.exists():
        raise StoreMissing(f"There is no store at {path}; `thingline ingest` makes one.")
    uri = f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            # An acknowledgement to a queue follows the commit, so a commit must outlive a power cut.
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_size=-16384")
            connection.execute("PRAGMA wal_autocheckpoint=8000")
        else:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA cache_size=-8192")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


# --- Whose file it is ---------------------------------------------------------------------------------------


def _check_is_file(path: Path) -> None:
    if os.path.isdir(path):  # unlike Path's, False where it may not be looked at: opening it says so
        raise StoreRefused(f"{path} is a folder; a store needs a file: {path / 'store.db'}, say.")


def _check_is_ours(url: URL) -> None:
    """Refuse a SQLite file that holds tables, none of them ours. Raises StoreRefused; writes nothing."""
    path = Path(url.database or "")
    # What lies in no write-ahead log can be read without a file of SQLite's own beside it.
    mode = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    with translated(url):
        try:
            if not os.path.getsize(path):
                return
        except OSError:  # there is none, or opening it says why not
            return
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as connection:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    strange = {name for name in tables if name != _VERSIONED and not name.startswith("sqlite_")}
    if strange and not {_VERSIONED, _OURS} <= tables:
        raise _not_ours(url, strange)


def _not_ours(url: URL, tables: Iterable[str]) -> StoreRefused:
    named = ", ".join(repr(name) for name in sorted(tables)[:3])
    return StoreRefused(
        f"{masked(url)} is not a store of thingline: it holds somebody else's tables ({named}); give another path"
        " or database."
    )


# --- SQLite's one writer ------------------------------------------------------------------------------------


def _lock(path: Path) -> Callable[[], None]:
    """Take the writer's lock beside a SQLite store. Raises StoreBusy when another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_place(path)
        handle = open(path.with_name(path.name + ".lock"), "a+b")  # noqa: SIM115 - held while the store is open
    except OSError as error:
        raise StoreUnreachable(f"{path} cannot be written: {error.strerror or error}.") from error
    try:
        import fcntl
    except ImportError:  # a system without flock: SQLite's own lock is all there is
        return handle.close
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise StoreBusy() from None
    return handle.close


def _check_place(path: Path) -> None:
    kind = _file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreRefused(
            f"{path} lies on a network file system ({kind}), where SQLite loses data;"
            " use a local disk, or PostgreSQL."
        )


def _file_system(folder: Path) -> str:
    """Name the kind of file system that a folder lies on; "" where the system does not tell."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    place = str(folder.resolve())
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind
