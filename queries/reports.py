"""Reports over a whole store."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from queries.times import iso
from store import schema
from store.engine import Store
from store.watermark import watermark


def status(store: Store) -> dict[str, Any]:
    """Count what a store holds, and say how new it is. Costs a scan of its tables."""
    tables = {
        "clients": schema.clients,
        "evidence": schema.evidence,
        "observations": schema.observations,
        "checks": schema.checks,
        "sweeps": schema.sweeps,
        "sessions": schema.session_rows,
        "transitions": schema.transitions,
        "quarantine": schema.quarantine,
        "annotations": schema.annotation_rows,
    }
    with store.detached() as driver:
        mark = watermark(driver.execute, is_sqlite=store.is_sqlite)
    with store.reading() as connection:
        counts = {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table))
            for name, table in tables.items()
        }
        earliest = connection.scalar(sa.select(sa.func.min(schema.evidence.c.at_ms)))
        horizon_ms = connection.scalar(sa.select(sa.func.max(schema.care.c.horizon_ms)))
    if earliest is not None and horizon_ms is not None:
        earliest = max(earliest, horizon_ms)  # what is kept from before it answers nothing by itself
    return {
        **counts,
        "begins": None if earliest is None else iso(earliest),
        "horizon": None if horizon_ms is None else iso(horizon_ms),
        "watermark": None if mark < 0 else iso(mark),
    }
