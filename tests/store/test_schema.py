"""Two statements of the schema, held equal: what the migrations build, and what SQLAlchemy is told of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from ingest import reduce
from store.engine import SCHEMA_REVISION, Store, locked_store, parse_url, revision_of
from store.migrate import config_for, upgrade
from store.model import Transition
from store.schema import RULES, metadata


@contextmanager
def built(url: str, by: str) -> Iterator[Store]:
    """Give a new store, built by the migrations or from the metadata."""
    with locked_store(parse_url(url)) as store:
        if by == "migrations":
            upgrade(store)
        else:
            with store.engine.begin() as connection:
                metadata.create_all(connection)
        yield store


def shape(store: Store) -> dict[str, Any]:
    """Describe every table but Alembic's as the database itself does."""
    inspector = sa.inspect(store.engine)
    dialect = store.engine.dialect
    return {
        table: {
            "columns": [
                (c["name"], c["type"].compile(dialect), c["nullable"], c["default"], c.get("autoincrement"))
                for c in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(map(repr, inspector.get_unique_constraints(table))),
            "foreign keys": sorted(map(repr, inspector.get_foreign_keys(table))),
            "checks": sorted(map(repr, inspector.get_check_constraints(table))),
            "indexes": sorted(indexes(store, table)),
            "options": options(store, table),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def indexes(store: Store, table: str) -> list[str]:
    """Give the indexes as the database itself writes them: expressions and conditions are in the text."""
    statement = (
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = :name"
        if store.is_sqlite
        else "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = :name"
    )
    with store.reading() as connection:
        return [words(one) for one in connection.scalars(sa.text(statement), {"name": table})]


def options(store: Store, table: str) -> list[str]:
    """Give what PostgreSQL was told of how to store a table."""
    if store.is_sqlite:
        return []
    statement = "SELECT reloptions FROM pg_class WHERE oid = to_regclass(:name)"
    with store.reading() as connection:
        return connection.scalar(sa.text(statement), {"name": table}) or []


def words(statement: str) -> str:
    return re.sub(r"\s+", " ", statement).strip().casefold()


def created(store: Store) -> dict[str, str]:
    """Give SQLite's CREATE TABLE of every table: STRICT and WITHOUT ROWID are said only there."""
    statement = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'"
    with store.reading() as connection:
        return {name: words(text) for name, text in connection.execute(sa.text(statement)).all()}


@pytest.fixture
def two_urls(store_url: str, tmp_path: Any) -> Iterator[tuple[str, str]]:
    """Two new databases of one engine."""
    if store_url.startswith("sqlite"):
        yield store_url, f"sqlite:///{tmp_path / 'other.db'}"
        return
    name = f"other_{sa.make_url(store_url).database}"
    server = sa.create_engine(store_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield store_url, store_url.replace(f"/{sa.make_url(store_url).database}?", f"/{name}?")
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


# SQLAlchemy reads no index of an expression; `indexes` does.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection:sqlalchemy.exc.SAWarning")
def test_the_migrations_build_what_the_metadata_says(two_urls: tuple[str, str]) -> None:
    with built(two_urls[0], "migrations") as migrated, built(two_urls[1], "metadata") as described:
        found, wanted = shape(migrated), shape(described)
        assert set(found) == set(metadata.tables)
        for table in wanted:
            assert found[table] == wanted[table], table


def test_on_sqlite_they_write_the_same_statements(sqlite_store_url: str) -> None:
    other = sqlite_store_url.replace("store.db", "other.db")
    with built(sqlite_store_url, "migrations") as migrated, built(other, "metadata") as described:
        found, wanted = created(migrated), created(described)
        assert found == wanted
        assert [name for name, text in found.items() if "strict" not in text.rpartition(")")[2]] == []
        clustered = {name for name, text in found.items() if "without rowid" in text.rpartition(")")[2]}
        assert clustered == {
            "annotation_rows",
            "evidence",
            "observations",
            "watches",
            "session_rows",
            "transitions",
            "checks",
            "sweeps",
            "confirmations",
        }


def test_the_newest_migration_is_the_revision_that_the_engine_asks_for(store_url: str) -> None:
    assert ScriptDirectory.from_config(config_for()).get_heads() == [SCHEMA_REVISION]
    with built(store_url, "migrations") as store:
        assert revision_of(store) == SCHEMA_REVISION


def test_the_rules_that_a_store_names_are_those_that_the_code_numbers(store_url: str) -> None:
    with built(store_url, "migrations") as store, store.reading() as connection:
        rows = connection.execute(sa.text("SELECT name, rule_no FROM rules")).all()
    assert sorted(map(tuple, rows)) == sorted(RULES.items())


def test_every_rule_that_the_reducer_can_write_has_a_number() -> None:
    """Read from its source: each text that stands where a Transition takes its rule, or is assigned to one."""
    with open(reduce.__file__, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    slugs = re.compile(r"[a-z]+(-[a-z]+)*")
    found = {
        inner.value
        for node in ast.walk(tree)
        for value in rule_of(node)
        for inner in ast.walk(value)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and slugs.fullmatch(inner.value)
    }
    assert found == set(RULES)


RULE_PLACE = Transition._fields.index("rule")


def rule_of(node: ast.AST) -> list[ast.expr]:
    """Give the expressions of a node from which a row's rule is taken."""
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "rule" for t in node.targets):
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Transition":
        named = [keyword.value for keyword in node.keywords if keyword.arg == "rule"]
        return named or node.args[RULE_PLACE : RULE_PLACE + 1]
    return []
