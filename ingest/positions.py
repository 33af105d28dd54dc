"""Up to where the parts of a source were read, and which ingester reads which of them.

A position is saved by the writer, in the transaction that wrote what it covers (DESIGN law 7). A lease only keeps two
ingesters from reading the same: where it fails to, what both read is written once, for evidence that comes twice
changes nothing, and a position that is set back is read on from there.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from store.clock import Clock, system_clock
from store.engine import Store, translated
from store.schema import leases, positions

LEASE_MS = 10_000  # an ingester that died gives up its parts within that
_INGESTER = (
    "ingester "  # a lease of this and the owner's name says that it is there, though it holds nothing yet
)


class Position(NamedTuple):
    """Up to where a part of a source was read: `position` in the source's own words."""

    source: str
    part: str
    position: str


def saved(store: Store, source: str) -> dict[str, str]:
    """Give the saved position of each part of a source."""
    with store.reading() as connection:
        found = connection.execute(
            sa.select(positions.c.part, positions.c.position).where(positions.c.source == source)
        )
        return {row[0]: row[1] for row in found}


class Leases:
    """Shares the parts of a source out among the ingesters of one store, as evenly as they come.

    A SQLite store has one ingester, which reads them all.
    """

    def __init__(
        self, store: Store, source: str, *, owner: str | None = None, clock: Clock = system_clock
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self.owner = uuid.uuid4().hex if owner is None else owner

    def hold(self, parts: Collection[str]) -> set[str]:
        """Renew what is held and take what is due, of the parts that there are; gives what is held now.

        To be called several times in LEASE_MS. Raises StoreError where the store does not answer.
        """
        if self._store.is_sqlite:
            return set(parts)
        now_ms = self._clock()
        with translated(self._store.url), self._store.engine.begin() as connection:
            # One at a time, so that two do not count the same parts as free.
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(hashtext(:source))"),
                {"source": f"leases:{self._source}"},
            )
            rows = connection.execute(
                sa.select(leases.c.part, leases.c.owner, leases.c.until_ms).where(
                    leases.c.source == self._source
                )
            ).all()
            live = {row.part: row.owner for row in rows if row.until_ms > now_ms}
            owners = {owner for part, owner in live.items() if part.startswith(_INGESTER)} | {self.owner}
            share = -(-len(parts) // len(owners))
            held = sorted(part for part in parts if live.get(part) == self.owner)
            free = sorted(part for part in parts if part not in live)
            held = [*held, *free[: max(0, share - len(held))]][:share]  # what is too much goes to the others
            ours = [*held, _INGESTER + self.owner]
            mine = sa.or_(leases.c.owner == self.owner, leases.c.part.in_(ours))
            connection.execute(sa.delete(leases).where(leases.c.source == self._source, mine))
            until_ms = now_ms + LEASE_MS
            connection.execute(
                sa.insert(leases),
                [
                    {"source": self._source, "part": part, "owner": self.owner, "until_ms": until_ms}
                    for part in ours
                ],
            )
            return set(held)

    def release(self) -> None:
        """Let others take what is held."""
        if not self._store.is_sqlite:
            with translated(self._store.url), self._store.engine.begin() as connection:
                connection.execute(
                    sa.delete(leases).where(leases.c.source == self._source, leases.c.owner == self.owner)
                )
