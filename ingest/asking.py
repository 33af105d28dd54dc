"""The API checks of a batch, folded client by client: which repeat an answer, which are in the store already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from ingest.choice import TAUGHT_BY_CHECKS
from ingest.client import Client, Newest, Run, Told
from ingest.counts import Counts
from ingest.fold import fold
from ingest.plan import Plan
from ingest.stored import Step, StoredHistory
from ingest.sweeps import Again, Ask, Asked, answer_of, asked_of, is_stale
from store.model import Observation, Watch
from store.rows import Rows
from store.schema import STATES

Other = tuple[int, int | None, Observation | Watch]  # known_at, the recording's own, what was said


class Asking:
    """Folds the steps of clients that were checked into a plan. `rows` gives the rows when one is asked for."""

    def __init__(
        self,
        rows: Callable[[], Rows],
        plan: Plan,
        history: StoredHistory,
        texts: Mapping[str, int],
        counts: Counts,
        others: list[Other],
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._history = history
        self._texts = texts
        self._counts = counts
        self._others = others

    def fold(self, client: Client, steps: Sequence[Step], asks: Sequence[Ask]) -> int:
        """Fold the steps of a client; gives the last known_at.

        What looked like a check and says nothing of the connection goes to `others`.
        """
        plan, counts = self._plan, self._counts
        if client.newest is None and client.first_ms is not None:  # nothing was asked of it when it was read
            client.newest = newest_of(self._rows(), client.client_no)
        told = dict(steps)
        asked_at = {known_at: list(group) for known_at, group in groupby(asks, key=_known_at)}
        for known_at in sorted(told.keys() | asked_at.keys()):
            events, checks = told.get(known_at, []), asked_at.get(known_at, [])
            if not events and len(checks) == 1 and self._repeats(client, checks[0]):
                counts.checks += 1
                counts.stored += 1
                counts.repeated += 1
                continue
            read = {each.digest: each for ask in checks if (each := asked_of(ask)) is not None}
            if len(read) < len(checks):
                self._others += [
                    (ask.known_at, ask.claimed_at, ask.said) for ask in checks if asked_of(ask) is None
                ]
            asked = [one for one in read.values() if not self._holds(client, one)]
            counts.checks += len(read)
            counts.stored += len(asked)
            counts.duplicates += len(read) - len(asked)
            run = client.run
            answers = [Told(one.check, one.answer) for one in asked]
            folded = fold(client, events, self._history, answers, known_at)
            counts.conflicts += folded.conflicts
            if asked:
                counts.revealed += sum(row.transition.rule in TAUGHT_BY_CHECKS for row in folded.added)
            if client.run is not run:
                self._close_run(client.client_no, run)
            for one in asked:
                if client.run is run or client.run is None or one.check != client.run.check:
                    one.last_asked_ms = one.check.asked_ms
            counts.stale += sum(is_stale(one.check, client.newest) for one in asked)
            plan.asked.setdefault(client.client_no, []).extend(asked)
            plan.record(client.client_no, known_at, folded, self._texts)
        return known_at

    def _repeats(self, client: Client, ask: Ask) -> bool:
        """Take a check into the client's run, if all it says was said before."""
        run, asked_ms = client.run, ask.said.at_ms
        if run is None or ask.claimed_at is not None:
            return False
        if not run.repeats(answer_of(ask.said.body, asked_ms), asked_ms, ask.known_at, client.newest):
            return False
        run.last_asked_ms, run.last_known_at = asked_ms, ask.known_at
        again = Again(ask.known_at, asked_ms, run.answer)
        self._plan.repeated.setdefault(client.client_no, []).append(again)
        return True

    def _holds(self, client: Client, one: Asked) -> bool:
        """Tell whether the store, or this batch, holds a check already."""
        client_no, asked_ms = client.client_no, one.check.asked_ms
        if client.checked_ms is None:
            return False
        if any(one.digest == other.digest for other in self._plan.asked.get(client_no, ())):
            return True
        if any((asked_ms, one.answer) == again[1:] for again in self._plan.repeated.get(client_no, ())):
            return True
        return self._rows().checks.holds(client_no, *one.place, one.digest, one.answer)

    def _close_run(self, client_no: int, run: Run | None) -> None:
        """Write beside an answer until when it was repeated, for another has come."""
        if run is None:
            return
        for one in self._plan.asked.get(client_no, ()):
            if one.check == run.check and one.last_asked_ms is None:
                one.last_asked_ms = run.last_asked_ms
                return
        check = run.check
        about_ms = check.asked_ms if check.named_ms is None else check.named_ms
        self._plan.closed_runs[client_no, about_ms, check.asked_ms] = run.last_asked_ms


def newest_of(rows: Rows, client_no: int) -> Newest | None:
    """Read what a client's timeline ends with."""
    row = rows.newest(client_no)
    return None if row is None else Newest(row[0], STATES[row[1]], row[2])


def _known_at(ask: Ask) -> int:
    return ask.known_at
