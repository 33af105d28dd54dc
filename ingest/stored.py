"""What folding asks of the store: sessions beyond a client's tail, the batch's own included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ingest.changes import Folded
from ingest.client import Client
from ingest.plan import Plan
from ingest.reduce import identity, session_of
from ingest.sweeps import said_in
from ingest.windows import Window
from store.checks import Kept
from store.model import Check, Event, Identity, Kind, Session
from store.rows import Rows

Step = tuple[int, list[Event]]  # what became known at one moment
Steps = Mapping[str, Sequence[Step]]  # by client id; ascending


class StoredHistory:
    """A `History` of ingest/windows.py, over the rows of the store and those that a plan holds.

    `rows` gives the rows when something is asked of them, `save` writes what the plan holds of sessions. Where it
    does not `presume`, it looks up even those sessions that are new in all likelihood.
    """

    def __init__(
        self,
        rows: Callable[[], Rows],
        plan: Plan,
        save: Callable[[Plan], None],
        steps: Steps,
        clients: Mapping[str, Client],
        *,
        presume: bool,
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._save = save
        self._presume = presume
        self._found: dict[tuple[int, Identity], Session] = {}
        self._asked: set[tuple[int, Identity]] = set()
        self._batch: tuple[Steps, Mapping[str, Client]] | None = (steps, clients)

    def _prefetch(self, steps: Steps, clients: Mapping[str, Client]) -> None:
        """Ask at once for every session that the batch names and no tail holds."""
        for client_id, client_steps in steps.items():
            client = clients[client_id]
            if not client.opens_left:
                continue
            known: set[Identity | None] = set(client.tail)
            for event in (each for _, events in client_steps for each in events):
                if event.kind > Kind.DISCONNECTED or event.session_id in known:
                    continue
                known.add(event.session_id)
                if self._presume and event.kind is Kind.CONNECTED and event.at_ms > client.newest_ms:
                    continue
                self._asked.add((client.client_no, identity(session_of(event))))
        if self._asked:
            self._found |= self._rows().find(list(self._asked))

    def find(self, client_no: int, key: Identity) -> Session | None:
        planned = self._plan.sessions.get(client_no)
        if planned is not None and key in planned.rows:
            return planned.rows[key]
        if self._batch is not None:
            batch, self._batch = self._batch, None
            self._prefetch(*batch)
        place = (client_no, key)
        if place not in self._asked:
            self._asked.add(place)
            self._found |= self._rows().find([place])
        return self._found.get(place)

    def presume_new(self, client_no: int, session_id: str) -> bool:
        if not self._presume:
            return self.find(client_no, session_id) is None
        planned = self._plan.sessions.get(client_no)
        return (planned is None or session_id not in planned.rows) and (
            client_no,
            session_id,
        ) not in self._found

    def save(self, client_no: int, folded: Folded) -> None:
        """Write this batch's sessions so far, so that windows are read from one place."""
        self._plan.keep_sessions(client_no, folded)
        folded.presumed.clear()
        for number, planned in self._plan.sessions.items():
            for key, session in planned.rows.items():
                self._found[number, key] = session
                self._asked.add((number, key))
        self._save(self._plan)

    def latest_end(self, client_no: int, before_ms: int) -> int:
        return self._rows().latest_end(client_no, before_ms)

    def of_version(self, client_no: int, version: int) -> list[Session]:
        return self._rows().sessions_of_version(client_no, version)

    def checks(self, client_no: int, from_ms: int, to_ms: int) -> list[Check]:
        held = self._rows().checks
        asked_ms = [again.asked_ms for again in self._plan.repeated.get(client_no, ())]
        closed = self._plan.closed_runs
        kept = [
            one
            if one.last_asked_ms is not None
            else one._replace(last_asked_ms=closed.get((client_no, one.about_ms, one.check.asked_ms)))
            for one in held.about(client_no, from_ms, to_ms)
        ]
        kept += [
            Kept(one.check, one.answer, one.known_at, one.last_asked_ms)
            for one in self._plan.asked.get(client_no, ())
        ]
        return said_in(
            kept,
            from_ms,
            to_ms,
            lambda low, high: [
                *held.asked_between(client_no, low, high),
                *(each for each in asked_ms if low <= each <= high),
            ],
        )

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        rows = self._rows()
        inside = rows.sessions_between(client_no, from_ms, to_ms)
        left = rows.sessions_beside(client_no, from_ms, beside + 1, before=True)
        right = rows.sessions_beside(client_no, to_ms, beside + 1, before=False)
        return Window(
            [*left[:beside], *inside, *right[:beside]],
            opens_left=len(left) > beside,
            opens_right=len(right) > beside,
        )
