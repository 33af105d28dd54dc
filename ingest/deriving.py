"""Timelines derived in bulk from the evidence of a store, by as many processes as there are cores.

Each process reads the evidence of every other block of clients, ascending by client, folds it as `rebuild` does, and
packs the rows; whoever asked for them writes what comes, again ascending, so that every page is written once.
Reads only. Memory: the longest history of one client, and a few packets.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from heapq import merge
from itertools import groupby
from multiprocessing.connection import Connection
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from ingest.client import Told
from ingest.plan import Sessions
from ingest.rebuild import Again, derive, told_of
from ingest.storing import session_rows
from store.bulk import Packed, PostgresCodes, SqliteCodes
from store.checks import CheckRows
from store.engine import Store, open_reader
from store.errors import StoreError, ThinglineError
from store.garbage import uncollected
from store.model import Event
from store.packing import BLOCK, unpack_id
from store.postgres_rows import PostgresRows
from store.schema import KINDS
from store.sqlite_rows import SqliteRows

MOST_ROWS = 50_000  # transitions a packet, but for the rest of a client


class Packet(NamedTuple):
    """Timelines of some clients of one block, ready to be written."""

    block_no: int
    ends_block: bool
    client_nos: list[int]
    clients: list[tuple[Any, ...]]  # as put_clients takes them
    transitions: Packed | None
    sessions: Packed | None
    confirmations: list[tuple[Any, ...]]
    rows: int  # transitions


class Wanted(NamedTuple):
    """Which clients to derive: those from `first_client_no` on that anything was learned of since `known_from`."""

    first_client_no: int
    known_from: int | None  # None: all of them


class _Texts(dict[str, int]):
    """Strings that are interned already, and the other way round."""

    def __init__(self, fetch: Callable[[str, tuple[Any, ...]], Sequence[Any]], mark: str) -> None:
        self._fetch = fetch
        self._number = f"SELECT text_no FROM texts WHERE text = {mark}"
        self._text = f"SELECT text FROM texts WHERE text_no = {mark}"
        self.of: dict[int | None, str | None] = {None: None}

    def __missing__(self, text: str) -> int:
        self[text] = number = self._fetch(self._number, (text,))[0][0]
        return int(number)

    def reason(self, number: int | None) -> str | None:
        if number not in self.of:
            self.of[number] = self._fetch(self._text, (number,))[0][0]
        return self.of[number]


def packets(store: Store, wanted: Wanted, part: int = 0, parts: int = 1) -> Iterator[Packet]:
    """Derive the clients of every `parts`-th block, ascending; the last packet of a block says so."""
    pack = SqliteRows.packed if store.is_sqlite else PostgresRows.packed
    new_codes = SqliteCodes if store.is_sqlite else PostgresCodes
    mark = "?" if store.is_sqlite else "%s"
    with store.streaming() as run, store.detached() as driver:

        def fetch(statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
            rows: Sequence[Any] = driver.execute(statement, values).fetchall()
            return rows

        texts, checks = _Texts(fetch, mark), CheckRows(fetch, mark)
        checked = _checked(run)
        by_client = groupby(run(_evidence(wanted, part, parts)), key=itemgetter(0))
        for block_no, of_block in groupby(by_client, key=lambda pair: int(pair[0]) // BLOCK):
            packet = _Packing(block_no)
            for client_no, rows in of_block:
                if packet.count > MOST_ROWS:
                    yield packet.packed(pack, new_codes(), texts, ends_block=False)
                    packet = _Packing(block_no)
                evidence = [(row[1], _event(row, texts)) for row in rows]
                if client_no in checked:
                    evidence += told_of(checks, client_no)
                    evidence.sort(key=itemgetter(0))
                packet.add(client_no, evidence, texts, is_sqlite=store.is_sqlite)
            yield packet.packed(pack, new_codes(), texts, ends_block=True)


def _evidence(wanted: Wanted, part: int, parts: int) -> str:
    """Select what folding needs of the lifecycle events, the numbers of reasons instead of their texts."""
    where = [f"e.client_no >= {int(wanted.first_client_no)}", f"(e.client_no / {BLOCK}) % {parts} = {part}"]
    if wanted.known_from is not None:
        where.append(
            f"e.client_no IN (SELECT n.client_no FROM evidence n WHERE n.known_at >= {int(wanted.known_from)})"
        )
    return (
        "SELECT e.client_no, e.known_at, e.kind, e.at_ms, e.session, e.version, e.reason_no FROM evidence e"
        f" WHERE {' AND '.join(where)} ORDER BY e.client_no, e.known_at, e.at_ms, e.digest"
    )


def _checked(run: Callable[[str], Iterator[Any]]) -> set[int]:
    return {row[0] for row in run("SELECT client_no FROM clients WHERE checked_ms IS NOT NULL")}


def _event(row: Sequence[Any], texts: _Texts) -> Event | Told | Again:
    _, _, kind, at_ms, session, version, reason_no = row
    session_id = None if session is None else unpack_id(bytes(session))
    return Event("", KINDS[kind], at_ms, session_id, version, texts.reason(reason_no))


class _Packing:
    """Rows of some clients of a block, until they are packed."""

    def __init__(self, block_no: int) -> None:
        self._block_no = block_no
        self._clients: list[tuple[Any, ...]] = []
        self._client_nos: list[int] = []
        self._transitions: list[tuple[Any, ...]] = []
        self._confirmations: list[tuple[Any, ...]] = []
        self._sessions: list[tuple[int, Sessions]] = []

    @property
    def count(self) -> int:
        return len(self._transitions)

    def add(
        self,
        client_no: int,
        evidence: list[tuple[int, Event | Told | Again]],
        texts: _Texts,
        *,
        is_sqlite: bool,
    ) -> None:
        derived = derive(client_no, evidence, texts)
        client = derived.client
        last_known_at = None if is_sqlite else client.last_known_at
        self._client_nos.append(client_no)
        self._clients.append(
            (client.first_ms, int(client.has_strays), last_known_at, client.checked_ms, client_no)
        )
        self._transitions += derived.transitions
        self._confirmations += derived.confirmations
        self._sessions.append((client_no, Sessions(derived.memory.sessions)))

    def packed(
        self,
        pack: Callable[..., Packed],
        codes: SqliteCodes | PostgresCodes,
        texts: _Texts,
        *,
        ends_block: bool,
    ) -> Packet:
        _, sessions = session_rows(self._sessions, codes, texts)
        return Packet(
            self._block_no,
            ends_block,
            self._client_nos,
            self._clients,
            pack("transitions", self._transitions, codes) if self._transitions else None,
            pack("session_rows", sessions, codes) if sessions else None,
            self._confirmations,
            len(self._transitions),
        )


# --- In several processes -----------------------------------------------------------------------------------


def _work(url: URL, wanted: Wanted, part: int, parts: int, pipe: Connection) -> None:
    """Be one of the processes; an error is the last thing that is sent."""
    with suppress(BrokenPipeError):  # nobody listens any more: whoever waited was killed
        try:
            with open_reader(url) as store, uncollected():
                for packet in packets(store, wanted, part, parts):
                    pipe.send(packet)
            pipe.send(None)
        except ThinglineError as error:
            pipe.send(str(error))


@contextmanager
def in_parallel(store: Store, wanted: Wanted) -> Iterator[Iterator[Packet]]:
    """Give the packets of all clients, ascending by block. Raises StoreError where a process fails."""
    parts = os.cpu_count() or 1
    if parts == 1:
        yield packets(store, wanted)
        return
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        streams = []
        for part in range(parts):
            listening, sending = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(store.url, wanted, part, parts, sending), daemon=True
            )
            process.start()
            sending.close()  # so that its end is seen
            stack.callback(process.join)
            stack.callback(process.terminate)
            streams.append(_received(listening))
        yield merge(*streams, key=attrgetter("block_no"))


def _received(pipe: Connection) -> Iterator[Packet]:
    while True:
        try:
            packet = pipe.recv()
        except EOFError:
            raise StoreError("A process that derives timelines ended early; run the command again.") from None
        if packet is None:
            return
        if isinstance(packet, str):
            raise StoreError(f"Timelines cannot be derived: {packet}")
        yield packet
