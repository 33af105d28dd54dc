"""A batch on its way to the rows that its transaction will write.

Gives every piece of evidence its moment of learning, folds it client by client into a plan of what changes
(ingest/fold.py decides that, ingest/plan.py holds it), in memory as far as the ends of the timelines that are kept in
mind reach, and makes the rows. Writes nothing but what is folded already, where that is wanted ahead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter

from ingest.asking import Asking, Other
from ingest.beside import Beside
from ingest.client import Client
from ingest.counts import Counts
from ingest.digest import digest
from ingest.fold import fold
from ingest.ledger import Stretch
from ingest.mind import Mind
from ingest.moments import Moments
from ingest.plan import Plan
from ingest.positions import Position
from ingest.stored import Step, StoredHistory
from ingest.storing import Ready, Values, by_place, session_rows
from ingest.sweeps import Ask, client_of
from store.checks import NAMED, UNNAMED, WHOLE
from store.model import Event, Kind, Learned, Observation, Rejected, Watch
from store.rows import Mark, Rows

AHEAD = 2_000  # clients whose rows are written while others of their batch are folded

Items = Sequence[Learned | Rejected]


@dataclass(slots=True, kw_only=True)
class Batch:
    """A batch, and what it needs of the store."""

    items: Items
    source_no: int
    learned: list[Learned]
    clients: dict[str, Client]
    claims: bool  # it says itself when some of it was learned
    watched: Sequence[Stretch]  # what goes into the watch ledger with it
    positions: Sequence[Position]  # up to where its source is read then
    now: int
    mark: Mark  # that the batch before leaves behind


class Folding:
    """Folds one batch.

    `rows` are those of its transaction, and another thread may be using them: they are asked through the mind. Where it
    does not `presume`, sessions are looked up even if they are new in all likelihood; where it does not `derive`,
    evidence is all that becomes of it. What is ready is written `ahead`, where there is a thread for that.
    """

    def __init__(
        self,
        batch: Batch,
        mind: Mind,
        rows: Rows,
        *,
        presume: bool = True,
        derive: bool = True,
        ahead: Beside | None = None,
    ) -> None:
        self._batch = batch
        self._mind = mind
        self._rows = rows
        self._presume = presume
        self._derive = derive
        self._ahead = ahead
        self._counts = Counts(read=len(batch.items))
        self._plan = Plan()
        self._codes = rows.codes()
        self._steps: dict[str, list[Step]] = {}  # by client id; ascending
        self._asks: dict[str, list[Ask]] = {}
        self._others: list[Other] = []
        self._goes_on = False

    def ready(self) -> Ready:
        """Give the rows. May be called once."""
        batch, plan, counts = self._batch, self._plan, self._counts
        newest = max((client.last_known_at or 0 for client in batch.clients.values()), default=0)
        live_ms = max(batch.now, batch.mark.last_known_at + 1, newest + 1)
        moments = Moments(batch.mark, batch.source_no, live_ms, batch.now)
        evidence = self._sorted_out(moments)
        watched = [(each, moments.of(None)[0]) for each in batch.watched]
        stored = self._put_evidence(evidence)
        touched: list[Client] = []
        for client in self._folded() if self._derive else ():
            touched.append(client)
            if self._ahead is not None and len(touched) == AHEAD:
                self._put_ahead(self._ahead, touched)
                touched = []
        counts.events = len(evidence)
        kinds = Counter(map(_kind, evidence))
        counts.ignored = len(evidence) - kinds[Kind.CONNECTED] - kinds[Kind.DISCONNECTED]
        ready = Ready(
            counts=counts,
            codes=self._codes,
            mark=batch.mark,
            mark_after=moments.mark(),
            claims=batch.claims,
            goes_on=self._goes_on,
            source_no=batch.source_no,
            position=batch.items[-1].position if batch.items else 0,
            evidence=evidence,
            stored=stored,
            clients=_client_rows(touched),
            closed_runs=plan.closed_runs,
            superseded=plan.superseded,
            superseded_proofs=plan.superseded_proofs,
            transitions=plan.transition_rows(),
            proofs=plan.proof_rows(),
            watched=watched,
            positions=batch.positions,
        )
        ready.new_sessions, ready.sessions = session_rows(plan.take_sessions(), self._codes, self._mind.texts)
        self._add_others(ready)
        self._add_checks(ready)
        rejected = [item for item in batch.items if isinstance(item, Rejected)]
        counts.quarantined += len(rejected)
        ready.rejected = [
            (batch.source_no, r.position, live_ms, r.reason, r.detail, r.length, r.sha256, r.head)
            for r in rejected
        ]
        return ready

    def _sorted_out(self, moments: Moments) -> list[Values]:
        """Sort evidence by whom it speaks of; gives the rows of lifecycle events, in the order of their key."""
        row_of, rows = self._evidence_row(), list[Values]()
        steps = self._steps
        was_ms: int | None = -1  # no moment
        for evidence, _, own_ms in self._batch.learned:
            if own_ms != was_ms:
                was_ms = own_ms
                known_at, claimed_at = moments.of(own_ms)
                if known_at == self._batch.mark.last_known_at:
                    self._goes_on = True
            if type(evidence) is Event:
                rows.append(row_of(evidence, known_at, claimed_at))
                of_client = steps.get(evidence.client_id)
                if of_client is None:
                    steps[evidence.client_id] = [(known_at, [evidence])]
                elif of_client[-1][0] == known_at:
                    of_client[-1][1].append(evidence)
                else:
                    of_client.append((known_at, [evidence]))
                continue
            assert not isinstance(evidence, Event)
            client_id = client_of(evidence)
            if client_id is None:
                self._others.append((known_at, claimed_at, evidence))
            else:
                assert isinstance(evidence, Observation)
                self._asks.setdefault(client_id, []).append(Ask(known_at, claimed_at, evidence))
        rows.sort(key=_by_time)  # so that a page is written once
        return rows

    def _folded(self) -> Iterator[Client]:
        """Fold client by client; gives those whose row changes."""
        mind, plan, counts = self._mind, self._plan, self._counts
        clients, steps, texts = self._batch.clients, self._steps, mind.texts
        history = StoredHistory(mind.begun, plan, self._save_sessions, steps, clients, presume=self._presume)
        asking = Asking(mind.begun, plan, history, texts, counts, self._others)
        for client_id, client in clients.items():
            client_steps, client_asks = steps.get(client_id, ()), self._asks.get(client_id, ())
            was = client.first_ms, client.has_strays, client.checked_ms
            if client_asks:
                last_known_at = asking.fold(client, client_steps, client_asks)
            else:
                for known_at, events in client_steps:
                    folded = fold(client, events, history, (), known_at)
                    counts.conflicts += folded.conflicts
                    plan.record(client.client_no, known_at, folded, texts)
                    last_known_at = known_at
            if not mind.alone:
                client.last_known_at, client.written_in = last_known_at, self._rows.transaction_no
            elif was == (client.first_ms, client.has_strays, client.checked_ms):
                continue
            yield client

    # --- What is written before the rest is folded ------------------------------------------------------------

    def _put_evidence(self, evidence: list[Values]) -> Future[int] | None:
        if self._ahead is None:
            return None
        rows = self._mind.begun()
        return self._ahead.begin(lambda: rows.put_evidence(evidence, self._codes))

    def _put_ahead(self, ahead: Beside, touched: Sequence[Client]) -> None:
        rows, codes, clients = self._rows, self._codes, _client_rows(touched)
        new, changed = session_rows(self._plan.take_sessions(), codes, self._mind.texts)

        def put() -> None:
            rows.add_sessions(new, codes)
            rows.put_sessions(changed, codes)
            rows.put_clients(clients)

        ahead.begin(put)

    def _save_sessions(self, plan: Plan) -> None:
        """Write what a plan holds of sessions, for windows are read from the store. Raises SessionHeld."""
        rows, codes = self._mind.begun(), self._rows.codes()
        new, changed = session_rows(plan.take_sessions(), codes, self._mind.texts)
        rows.add_sessions(new, codes)
        rows.put_sessions(changed, codes)

    # --- Rows -------------------------------------------------------------------------------------------------

    def _evidence_row(self) -> Callable[[Event, int, int | None], Values]:
        """Make what makes rows of evidence: a closure, for it is called once an event."""
        texts, things, codes = self._mind.texts, self._mind.things, self._codes
        clients, source_no = self._batch.clients, self._batch.source_no

        def row(evidence: Event, known_at: int, claimed_at: int | None) -> Values:
            client_id, kind, at_ms, session_id, version, reason, initiated, principal, ip, thing, extra = (
                evidence
            )
            return (
                at_ms,
                clients[client_id].client_no,
                digest(evidence),
                int(kind),
                known_at,
                claimed_at,
                source_no,
                None if session_id is None else codes[session_id],
                version,
                None if reason is None else texts[reason],
                None if initiated is None else int(initiated),
                None if principal is None else texts[principal],
                None if ip is None else texts[ip],
                None if thing is None else things[thing],
                extra,
            )

        return row

    def _add_others(self, ready: Ready) -> None:
        for known_at, claimed_at, said in self._others:
            if isinstance(said, Watch):
                ready.watches.append((said.source, said.from_ms, said.to_ms, known_at, claimed_at))
            else:
                row = (said.at_ms, digest(said), said.kind, said.subject, known_at, claimed_at)
                ready.observations.append((*row, ready.source_no, said.body, self._mind.realm_no))
        ready.counts.ignored += len(ready.observations)

    def _add_checks(self, ready: Ready) -> None:
        texts = self._mind.texts
        rows = [
            (
                client_no,
                one.place[0],
                one.check.asked_ms,
                one.digest,
                one.known_at,
                one.claimed_at,
                ready.source_no,
                int(one.check.state),
                UNNAMED if one.check.named_ms is None else WHOLE if one.check.whole else NAMED,
                None if one.check.reason is None else texts[one.check.reason],
                one.answer,
                one.last_asked_ms,
            )
            for client_no, asked in self._plan.asked.items()
            for one in asked
        ]
        ready.checks = sorted(rows, key=by_place)
        ready.repeated = [
            (no, one.known_at, one.asked_ms) for no, asked in self._plan.repeated.items() for one in asked
        ]


def _client_rows(clients: Iterable[Client]) -> list[Values]:
    return [(c.first_ms, int(c.has_strays), c.last_known_at, c.checked_ms, c.client_no) for c in clients]


_by_time = itemgetter(0, 1)
_kind = itemgetter(3)
