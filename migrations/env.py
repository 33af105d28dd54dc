"""Run by Alembic. The connection comes from store/migrate.py, in a transaction that it owns."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
context.run_migrations()
