"""All evidence of a store as a recording: what `thingline ingest` restores, moments of learning included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import groupby
from typing import Any

from ingest.decode import RECORDING_HEADER, recording_line
from ingest.redact import IP, NAME, PRINCIPAL, Redaction
from ingest.refusal import Unreadable
from ingest.sweeps import asked_in, body_of
from store.checks import SWEEP_COLUMNS
from store.engine import Store
from store.errors import StoreError
from store.model import Evidence, Observation, Watch
from store.reading import EVENT_COLUMNS, EVENT_FROM, event_from

# By what is the same in every store; the number of a client is not.
_EVENTS = f"SELECT e.known_at, {EVENT_COLUMNS} FROM {EVENT_FROM} ORDER BY e.known_at, e.at_ms, e.digest, c.client_id"
_OBSERVATIONS = (
    "SELECT known_at, kind, subject, at_ms, body FROM observations ORDER BY known_at, at_ms, digest"
)
_ANSWERS = (
    "SELECT k.known_at, k.client_no, c.client_id, k.asked_ms, k.answer, k.last_asked_ms FROM checks k"
    " JOIN clients c ON c.client_no = k.client_no ORDER BY k.known_at, k.asked_ms, k.digest, c.client_id"
)
_SWEEPS = f"SELECT {SWEEP_COLUMNS} FROM sweeps ORDER BY known_at, asked_ms, block_no"
_WATCHES = "SELECT known_at, source, from_ms, to_ms FROM watches ORDER BY known_at, source, from_ms, to_ms"

_KNOWN = {
    NAME: (
        "SELECT client_id FROM clients",
        "SELECT thing_name FROM things",
        "SELECT DISTINCT subject FROM observations WHERE subject IS NOT NULL",
    ),
    PRINCIPAL: ("SELECT text FROM texts WHERE text_no IN (SELECT principal_no FROM evidence)",),
    IP: ("SELECT text FROM texts WHERE text_no IN (SELECT ip_no FROM evidence)",),
}


def recording(
    store: Store,
    redaction_of: Callable[[Mapping[str, Collection[str]]], Redaction] | None = None,
    left_out: Callable[[str], None] = lambda why: None,
) -> Iterator[bytes]:
    """Write the store's evidence line by line, ascending by known_at; one snapshot, constant memory.

    With `redaction_of`, which is told the store's names, principals and addresses (held in memory, then), every
    line is redacted. `left_out` is told of a piece that longer names make too large for a record, or whose answer
    was purged. Raises StoreError where the store holds what cannot be read.
    """
    try:
        yield from _lines(store, redaction_of, left_out)
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"Some of the evidence cannot be read ({error!r}); `thingline db check` says what, and to mend it is to"
            " restore a backup."
        ) from error


def _lines(
    store: Store,
    redaction_of: Callable[[Mapping[str, Collection[str]]], Redaction] | None,
    left_out: Callable[[str], None],
) -> Iterator[bytes]:
    from heapq import merge

    yield RECORDING_HEADER
    with store.streaming() as run:
        redact = None
        if redaction_of is not None:
            redact = redaction_of(
                {
                    member: {row[0] for query in queries for row in run(query)}
                    for member, queries in _KNOWN.items()
                }
            )
        streams: list[Iterator[tuple[int, Evidence]]] = [
            ((row[0], event_from(row[1:])) for row in run(_EVENTS)),
            ((row[0], Observation(*row[1:])) for row in run(_OBSERVATIONS)),
            _checks(run(_ANSWERS), run(_SWEEPS), left_out),
            ((row[0], Watch(*row[1:])) for row in run(_WATCHES)),
        ]
        for known_at, evidence in merge(*streams, key=_known_at):
            if redact is not None:
                try:
                    evidence = redact.evidence(evidence)
                except Unreadable:
                    left_out("new names make them more than 1 MiB")
                    continue
            yield recording_line(evidence, known_at)


def _checks(
    answers: Iterator[Any], sweeps: Iterator[Any], left_out: Callable[[str], None]
) -> Iterator[tuple[int, Observation]]:
    """Tell every check again, ascending by known_at; memory: an answer a client, and a sweep."""
    from heapq import merge

    repeating: dict[int, tuple[str, str]] = {}  # by client: its id, and the answer that its sweeps repeat
    told = ((row[0], 0, row) for row in answers)
    swept = ((row[1], 1, row) for row in sweeps)
    for known_at, group in groupby(merge(told, swept, key=_known_at), key=_known_at):
        said: list[tuple[int, str, str]] = []
        rows = [(is_sweep, row) for _, is_sweep, row in group]
        # What a sweep repeats was known before it, and so before what was told in the same moment.
        for is_sweep, row in rows:
            if is_sweep:
                for client_no, _, asked_ms in asked_in(row):
                    if client_no in repeating:
                        said.append((asked_ms, *repeating[client_no]))
                    else:  # a purge was cut short
                        left_out("what they repeat is gone (run `thingline db purge` again)")
        for is_sweep, row in rows:
            if not is_sweep:
                _, client_no, client_id, asked_ms, answer, last_asked_ms = row
                said.append((asked_ms, client_id, answer))
                if last_asked_ms is None or last_asked_ms > asked_ms:
                    repeating[client_no] = client_id, answer
        for asked_ms, client_id, answer in sorted(said):
            yield known_at, Observation("check", client_id, asked_ms, body_of(answer, asked_ms))


def _known_at(pair: tuple[int, *tuple[Any, ...]]) -> int:
    return pair[0]
