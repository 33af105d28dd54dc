"""Alembic's folder: how a store came to be what store/schema.py says."""
