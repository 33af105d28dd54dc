"""Bring a store to the newest schema. Only commands that write call this; readers never migrate."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL

from store.engine import SCHEMA_REVISION, Store, locked_store, masked, revision_of, translated
from store.errors import StoreMissing, StoreTooNew

_RUN_LOCK = 0x7468696E  # "thin": PostgreSQL's advisory lock around a run


def scripts() -> Path:
    """Find the migrations: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "migrations"


def config_for(connection: sa.Connection | None = None) -> Config:
    """Build Alembic's configuration in code; there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(store: Store, revision: str = "head") -> None:
    """Run the migrations that the store lacks, all in one transaction; one process at a time does it."""
    with translated(store.url), store.engine.connect() as connection, connection.begin():
        if not store.is_sqlite:
            connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _RUN_LOCK})
        command.upgrade(config_for(connection), revision)


def upgrade_existing(url: URL) -> tuple[str, str, str | None]:
    """Upgrade the store at `url`, a SQLite file after a copy; gives schema before, after, and the copy.

    Raises StoreMissing, StoreTooNew, StoreBusy.
    """
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise StoreMissing(f"There is no store at {url.database}; `thingline ingest` makes one.")
    with locked_store(url) as store:
        before = revision_of(store)
        if before is None:
            raise StoreMissing(f"{masked(url)} holds no store; `thingline ingest` makes one.")
        if before > SCHEMA_REVISION:
            raise StoreTooNew()
        copy: Path | None = None
        if before < SCHEMA_REVISION:
            if store.is_sqlite:
                from store.backup import copy_pages, placed

                copy = _free(f"{url.database}.{before}.bak")
                with placed(copy) as part, store.detached() as driver:
                    copy_pages(driver, part)
            upgrade(store)
        return before, SCHEMA_REVISION, None if copy is None else str(copy)


def _free(wanted: str) -> Path:
    """Give a name that no file has: an upgrade that was interrupted left its copy."""
    path, number = Path(wanted), 2
    while path.exists():
        path, number = Path(f"{wanted}.{number}"), number + 1
    return path
