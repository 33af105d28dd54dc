"""What a writer keeps in mind of its store, and looks up where it does not: numbers, clients, the newest mark.

Nothing here is more than the store holds, or than a transaction that runs will have put there: whoever takes that
back has all of it forgotten. Clients that are looked up are locked, where others may write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from ingest.asking import newest_of
from ingest.client import STRAY_TAIL, TAIL, Client, Run, is_crowded, resumed
from ingest.reduce import CONNECTED_REASON
from ingest.remembered import Remembered
from store.errors import StoreUnfinished
from store.model import Event, Session
from store.rows import ClientRow, Interned, Mark, Rows

MOST_TEXTS = 50_000  # interned strings that are kept in mind at once


class Mind:
    """`begun` gives the rows, in a transaction. Of who is `alone` to write, what is in mind is what is there."""

    def __init__(self, begun: Callable[[], Rows], realm: str, *, alone: bool) -> None:
        self.begun = begun
        self.alone = alone
        self._realm = realm
        self._forgotten = 0  # devices, as the store counts them
        self.forget()

    def forget(self) -> None:
        """Drop everything, as after a failure: it may speak of rows that were never committed."""
        self._clients = Remembered()
        self.texts = Interned(self.begun)
        self.things: dict[str, int] = {}
        self.realm_no: int | None = None
        self.mark: Mark | None = None
        self._newest: Iterable[str] = ()  # clients of the newest batch

    def shrink(self) -> None:
        """Drop what has become too much; not of the newest batch, which may not be written yet."""
        self._clients.shrink(needed=self._newest)
        if len(self.texts) > MOST_TEXTS:
            self.texts = Interned(self.begun)
        if len(self.things) > MOST_TEXTS:
            self.things = {}

    def recall(self, rows: Rows, forgotten: int) -> Mark:
        """Give the newest mark; drop everything first if another device was forgotten meanwhile."""
        if forgotten != self._forgotten:
            self.forget()
            self._forgotten = forgotten
        if self.realm_no is None:
            self.realm_no = rows.realm(self._realm)
        if self.mark is None or not self.alone:
            self.mark = self.read_mark(rows)
        return self.mark

    def read_mark(self, rows: Rows) -> Mark:
        """Read the mark that the batches before left. Raises StoreUnfinished where timelines are missing."""
        if rows.fetch("SELECT 1 FROM backfills"):
            raise StoreUnfinished
        return rows.mark()

    def intern(self, events: Sequence[Event], source: str) -> None:
        """Look up the numbers of all that recurs in events, and of their source."""
        texts: set[str | None] = {source}
        if events:
            texts.add(CONNECTED_REASON)
        for member in ("reason", "principal", "ip"):
            texts.update(map(attrgetter(member), events))
        new = {text for text in texts if text is not None and text not in self.texts}
        if new:
            self.texts |= self.begun().texts(new)
        things = {name for name in map(attrgetter("thing_name"), events) if name not in self.things}
        things.discard(None)
        if things:
            assert self.realm_no is not None
            self.things |= self.begun().things(self.realm_no, things)

    def clients(self, ids: set[str]) -> dict[str, Client]:
        """Give the clients of a batch, each with the end of its history; where others write, the mark is read again."""
        known = self._known(ids)
        self._clients.keep(known)
        self._newest = known
        return known

    def _known(self, ids: set[str]) -> dict[str, Client]:
        assert self.realm_no is not None
        known: dict[str, Client] = {}
        if self.alone:
            known = self._clients.known(ids)
            ids = ids - known.keys()
        missing: dict[int, ClientRow] = {}
        rows = self.begun().clients(self.realm_no, ids)
        if not self.alone:  # whoever had the clients until now may have left a later one
            self.mark = self.read_mark(self.begun())
        for row in rows:
            client = self._clients.get(row.client_id)
            if client is not None and client.written_in == row.written_in is not None:
                known[row.client_id] = client
            else:
                missing[row.client_no] = row
        return known | self._read(missing) if missing else known

    def _read(self, missing: dict[int, ClientRow]) -> dict[str, Client]:
        tails: dict[int, list[Session]] = {}
        for strays, depth in ((False, TAIL), (True, 2 * STRAY_TAIL)):
            wanted = [
                no for no, row in missing.items() if row.has_strays is strays and row.first_ms is not None
            ]
            while wanted:
                tails |= self.begun().tails(wanted, depth)
                wanted = [no for no in wanted if len(tails[no]) == depth and is_crowded(tails[no])]
                depth *= 4
        clients: dict[str, Client] = {}
        for no, row in missing.items():
            tail = tails.get(no, [])
            clients[row.client_id] = resumed(
                no,
                reversed(tail),
                opens_left=len(tail) >= (2 * STRAY_TAIL if row.has_strays else TAIL),
                first_ms=row.first_ms,
                last_known_at=row.last_known_at,
                has_strays=row.has_strays,
            )
            if row.checked_ms is not None:
                self._read_checks(clients[row.client_id], row.checked_ms)
        return clients

    def _read_checks(self, client: Client, checked_ms: int) -> None:
        """Bring to mind what the API said of a client last, and what its timeline ends with."""
        client.checked_ms, client.plain = checked_ms, False
        rows = self.begun()
        kept = rows.checks.open_run(client.client_no)
        if kept is not None:
            asked_ms, known_at = kept.check.asked_ms, kept.known_at
            last = rows.checks.last_asked(client.client_no, known_at)
            client.run = Run(kept.check, kept.answer, known_at, *(last or (asked_ms, known_at)))
            assert self.mark is not None
            # Where a recording goes on with a step, that step may have said more already.
            begun_at = self.mark.last_known_at
            if self.mark.replay_source_no is not None and rows.checks.proves_in(client.client_no, begun_at):
                client.run.last_known_at = begun_at
        client.newest = newest_of(rows, client.client_no)
