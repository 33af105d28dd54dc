"""All evidence of a store as a recording: what `thingline ingest` restores, moments of learning included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ingest.decode import RECORDING_HEADER, recording_line
from store.engine import Store
from store.model import Evidence, Observation, Watch
from store.reading import EVENT_COLUMNS, EVENT_FROM, event_from

# By the digest before the client: it is the same in every store, the number of a client is not.
_EVENTS = f"SELECT e.known_at, {EVENT_COLUMNS} FROM {EVENT_FROM} ORDER BY e.known_at, e.at_ms, e.digest, e.client_no"
_OBSERVATIONS = (
    "SELECT known_at, kind, subject, at_ms, body FROM observations ORDER BY known_at, at_ms, digest"
)
_WATCHES = "SELECT known_at, source, from_ms, to_ms FROM watches ORDER BY known_at, source, from_ms, to_ms"


def recording(store: Store) -> Iterator[bytes]:
    """Write the store's evidence line by line, ascending by known_at; one snapshot, constant memory."""
    from heapq import merge

    yield RECORDING_HEADER
    with store.streaming() as run:
        streams: list[Iterator[tuple[int, Evidence]]] = [
            ((row[0], event_from(row[1:])) for row in run(_EVENTS)),
            ((row[0], Observation(*row[1:])) for row in run(_OBSERVATIONS)),
            ((row[0], Watch(*row[1:])) for row in run(_WATCHES)),
        ]
        for known_at, evidence in merge(*streams, key=_known_at):
            yield recording_line(evidence, known_at)


def _known_at(pair: tuple[int, Any]) -> int:
    return pair[0]
