"""Recorded evidence from files, folders and standard input, into the store, in constant memory."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from select import select
from typing import BinaryIO, Protocol

from ingest.decode import decode_stream
from ingest.redact import Redaction
from ingest.writer import Counts
from store.clock import Clock
from store.errors import SourceError
from store.garbage import uncollected
from store.model import MOST_TEXT_BYTES, Event, Learned, Observation, Rejected

Record = Learned | Rejected

# Records a transaction. Many, for a transaction writes pages of every client that it touches, however little it says of
# each; fewer at first, so that there is soon one to write. Three are held at once: one in writing, one folded, one
# being read.
BATCH, FIRST = 25_000, 10_000
BATCH_CLIENTS = 8_000  # ... and clients that they speak of, the end of whose histories is held in memory
BATCH_BYTES = 8 << 20  # ... and bytes of what has no column of its own, so that giants do not fill the memory
_TOGETHER = 10  # a part: so many more may be of the moment of learning that the last of them was learned in
_CHUNK = 1 << 20
_PAUSE_S = 0.25  # after which what was read of a pipe is written, if there is no more for now

# A source that ends in one of these was cut short or damaged: what came before is kept, and we say so.
BROKEN = frozenset({"truncated-gzip", "corrupt-gzip", "truncated-array"})


def named(paths: Sequence[str]) -> list[str]:
    """List the files that the paths name, folders walked in order. Raises SourceError for what is not there."""
    files: list[str] = []
    for path in paths:
        if path != "-" and Path(path).is_dir():
            files += sorted(str(inside) for inside in Path(path).rglob("*") if inside.is_file())
        elif path != "-" and not Path(path).exists():
            raise SourceError(f"There is no file {path}.")
        else:
            files.append(path)
    if not files:
        raise SourceError("There is no file in that folder.")
    return files


def chunks(source: BinaryIO, seen: Callable[[int], None] = lambda count: None) -> Iterator[bytes]:
    """Read a stream piece by piece; tells `seen` how many bytes each had.

    What a pipe, a terminal or a socket has is given at once; where it has no more for now, an empty piece says so, a
    few times a second at most.
    """
    live = _live(source)
    pieces = _from_file(source) if live is None else _as_it_comes(live)
    for piece in pieces:
        seen(len(piece))
        yield piece


def _from_file(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_CHUNK):
        yield piece


def _as_it_comes(live: int) -> Iterator[bytes]:
    due_s = time.monotonic() + _PAUSE_S
    while True:
        if not select([live], (), (), max(0.0, due_s - time.monotonic()))[0]:
            yield b""
            due_s = time.monotonic() + _PAUSE_S
            continue
        piece = os.read(live, _CHUNK)
        if not piece:
            return
        yield piece


def _live(source: BinaryIO) -> int | None:
    """Give the descriptor of a stream whose bytes come as somebody writes them; None for a file, or none at all."""
    try:
        number = source.fileno()
    except OSError:
        return None
    return None if stat.S_ISREG(os.fstat(number).st_mode) else number


class Taking(Protocol):
    """Whatever takes batches of evidence: a Writer, patient or not."""

    def write_all(self, batches: Iterable[Sequence[Record]], *, source: str) -> Iterator[Counts]: ...


def ingest_file(
    path: str,
    writer: Taking,
    *,
    clock: Clock,
    progress: Callable[[int, Counts], None],
    asked_ms: int | None = None,
    redact: Redaction | None = None,
) -> tuple[Counts, str | None]:
    """Ingest one file (`-`: standard input), a transaction a batch.

    Gives what became of it, and what is wrong with it as a whole, if anything. `progress` is told the bytes
    read so far and the counts after every batch. `asked_ms` is when the API was asked, in epoch ms, for
    results that do not say it. `redact` is done to each record, and to the name of the file, before they are
    written. Raises SourceError where it cannot be opened or read.
    """
    total = Counts()
    read = 0

    def count(piece: int) -> None:
        nonlocal read
        read += piece

    fault: str | None = None
    name = "stdin" if path == "-" else path if redact is None else redact.source(path)
    name = name.encode("utf-8", "surrogateescape").decode(
        "utf-8", "backslashreplace"
    )  # any bytes may name a file
    if len(name.encode()) > MOST_TEXT_BYTES:
        return (
            total,
            f"its path is longer than {MOST_TEXT_BYTES:,} bytes; change to its folder, and name it from there",
        )
    try:
        with _opened(path) as source:
            records = decode_stream(chunks(source, count), now=clock, asked_ms=asked_ms, pauses=True)
            if redact is not None:
                redacted = redact.record
                records = (record and redacted(record) for record in records)
            batches = Batches(records)
            for counts in writer.write_all(batches, source=name):
                total.add(counts)
                progress(read, total)
            fault = batches.broken
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or error}.") from error
    if read == 0:
        fault = "it is empty"
    elif total.read and total.read == total.quarantined and fault is None:
        fault = "nothing in it could be read as evidence; see `thingline quarantine list`"
    return total, fault


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    if path != "-":
        return open(path, "rb")
    if sys.stdin is None:
        raise SourceError("Standard input is closed; pipe something into it, or name a file.")
    return nullcontext(sys.stdin.buffer)


class Batches:
    """Records cut into transactions: so many records, of so many clients, or so many bytes of what is unusual.

    A None among them says that there is no more for now: what was read until then is a transaction, and an empty one
    follows, so that whoever writes need not wait for more to end what was begun. What a recording learned last waits
    for another None, for more of the same moment may follow.

    `broken` tells what is wrong with their source as a whole, once it was met.
    """

    def __init__(
        self, records: Iterable[Record | None], *, most: int = BATCH, most_bytes: int = BATCH_BYTES
    ) -> None:
        self._records = records
        self._most = most
        self._most_bytes = most_bytes
        self._ended = self._paused = False
        self.broken: str | None = None

    def __iter__(self) -> Iterator[list[Record]]:
        records = iter(self._records)
        over: list[Record] = []
        most = min(FIRST, self._most)
        self._ended = False
        while not self._ended:
            held, self._paused = (len(over) if self._paused else None), False
            with uncollected():
                batch, over = self._taken(chain(over, records), most, held)
            if batch:
                yield batch
                most = min(2 * most, self._most)
            if self._paused:
                yield []

    def _taken(
        self, records: Iterator[Record | None], most: int, held: int | None
    ) -> tuple[list[Record], list[Record]]:
        """Take `most` records or fewer, up to the end or a pause; and give back those that were read for nothing.

        What was learned in one moment stays together, if it is not too much: half of it would be asked about, else. So
        many as `held` are what a pause gave back.
        """
        batch: list[Record] = []
        named: set[str | None] = set()
        heavy = 0
        moment = None
        for record in records:
            if record is None:
                self._paused = True
                end = len(batch) if len(batch) == held else _whole(batch)
                return batch[:end], batch[end:]
            if len(batch) >= most and _moment(record) != moment:
                return batch, [record]
            batch.append(record)
            if isinstance(record, Rejected):
                heavy += len(record.head)
                if record.reason in BROKEN:
                    self.broken = record.detail
            elif type(record.evidence) is Event:
                named.add(record.evidence.client_id)
                if record.evidence.extra is not None:
                    heavy += len(record.evidence.extra)
            elif isinstance(record.evidence, Observation):
                named.add(record.evidence.subject)
                heavy += len(record.evidence.body)
            if len(batch) == most + most // _TOGETHER or heavy > self._most_bytes:
                break
            if len(batch) == most or (len(named) == BATCH_CLIENTS and len(batch) < most):
                most, moment = len(batch), _moment(record)
                if moment is None:
                    break
        else:
            self._ended = True
        return batch, []


def _whole(batch: Sequence[Record]) -> int:
    """Count the records before those of the moment that the last was learned in, all if nobody says when."""
    end = len(batch)
    moment = None if not batch else _moment(batch[-1])
    while moment is not None and end and _moment(batch[end - 1]) == moment:
        end -= 1
    return end


def _moment(record: Record) -> int | None:
    return record.known_at_ms if type(record) is Learned else None
