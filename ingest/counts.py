"""What became of the evidence of a batch, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What became of a batch, or of all batches of a run. `stored` + `duplicates` = what could be read."""

    read: int = 0  # records, those that could not be read included
    events: int = 0  # lifecycle events
    stored: int = 0  # evidence that was new
    duplicates: int = 0  # evidence that was there already
    ignored: int = 0  # evidence that can change no state: connect_failed, subscriptions, registry, errors
    checks: int = 0  # API checks that spoke of a connection
    repeated: int = 0  # ... and said what the one before had said, so that no row was needed
    stale: int = 0  # ... and named an instant older than the newest transition held, long after that
    revealed: int = (
        0  # transitions that checks told of: where AWS's answer was not what the history would have said
    )
    transitions: int = 0  # rows written
    corrections: int = 0  # rows superseded by evidence that came late
    conflicts: int = 0  # copies that contradicted what was held of their session
    quarantined: int = 0

    def add(self, other: Counts) -> None:
        """Add another batch's counts to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
