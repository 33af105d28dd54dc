"""Whether a store's tables, indexes and views are those of its revision."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from store.schema import VIEWS, metadata

_INDEXES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
}


def differences(connection: sa.Connection) -> Iterator[str]:
    """Say how a store that claims the newest schema differs from it; what is there beside it does not count."""
    inspector, dialect = sa.inspect(connection), connection.dialect
    tables, views = set(inspector.get_table_names()), set(inspector.get_view_names())
    indexes = set(connection.exec_driver_sql(_INDEXES[dialect.name]).scalars())
    for name, table in metadata.tables.items():
        if name not in tables:
            yield f"the table {name} is missing"
            continue
        held = {column["name"]: column for column in inspector.get_columns(name)}
        for column in table.columns:
            found = held.get(column.name)
            if found is None:
                yield f"the column {name}.{column.name} is missing"
            elif found["type"].compile(dialect) != column.type.compile(dialect):
                yield f"the column {name}.{column.name} is {found['type'].compile(dialect)}"
            elif found["nullable"] != column.nullable:
                yield f"the column {name}.{column.name} is {'' if found['nullable'] else 'not '}nullable"
        keys = inspector.get_pk_constraint(name)["constrained_columns"]
        if keys != [column.name for column in table.primary_key.columns]:
            yield f"the primary key of {name} is {', '.join(keys) or 'missing'}"
        for index in table.indexes:
            if index.name not in indexes:
                yield f"the index {index.name} is missing"
    for name in VIEWS:
        if name not in views:
            yield f"the view {name} is missing"
