"""What one transaction will write, put together in memory: rows, in the order of their tables' columns.

Built from what folding says has changed, client by client; decides nothing. The rows of a step that a later
step of the same batch takes back are closed here, before anything reached the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.changes import Folded, Proof, Row
from ingest.sweeps import Again, Asked
from store.model import Identity, Session
from store.schema import RULES

Place = tuple[int, int, int]  # client_no, at_ms, seq
Texts = Mapping[str, int]  # interns what it does not hold yet


@dataclass(slots=True)
class Sessions:
    """One client's sessions that a batch made or changed."""

    rows: dict[Identity, Session] = field(default_factory=dict)
    presumed: set[Identity] = field(default_factory=set)  # of these, those that the store should not hold yet


@dataclass(slots=True)
class Plan:
    """Rows that the transaction will write."""

    transitions: dict[int, list[list[Any]]] = field(default_factory=dict)  # by client
    superseded: list[tuple[int, int, int, int]] = field(
        default_factory=list
    )  # known_at and place, of stored ones
    sessions: dict[int, Sessions] = field(default_factory=dict)  # by client
    proofs: dict[Place, list[Any]] = field(default_factory=dict)  # confirmations
    closed_proofs: list[list[Any]] = field(
        default_factory=list
    )  # ... written and superseded within the batch
    superseded_proofs: list[tuple[int, int, int, int]] = field(default_factory=list)
    asked: dict[int, list[Asked]] = field(default_factory=dict)  # by client
    repeated: dict[int, list[Again]] = field(default_factory=dict)  # by client
    closed_runs: dict[Place, int] = field(
        default_factory=dict
    )  # client_no, about_ms, asked_ms: last_asked_ms

    def record(self, client_no: int, known_at: int, folded: Folded, texts: Texts) -> None:
        """Note the changes of one step: what it disproves is superseded by it, what it shows is recorded."""
        if folded.sessions:
            self.keep_sessions(client_no, folded)
        rows = self.transitions.get(client_no)
        if rows is None:
            rows = self.transitions[client_no] = []
        for removed in folded.removed:
            if not _close(rows, known_at, removed):
                self.superseded.append((known_at, client_no, removed.at_ms, removed.seq))
        for at_ms, seq, transition in folded.added:
            _, state, stamp_ms, reason, not_before_ms, not_after_ms, rule, proved_from_ms, _ = transition
            if not_before_ms == stamp_ms and not_after_ms == stamp_ms:
                not_before_ms = not_after_ms = None
            rows.append(
                [
                    client_no,
                    at_ms,
                    seq,
                    known_at,
                    None,
                    int(state),
                    stamp_ms,
                    None if reason is None else texts[reason],
                    not_before_ms,
                    not_after_ms,
                    RULES[rule],
                    proved_from_ms,
                ]
            )
        for gone in folded.unproved:
            self._close_proof(client_no, known_at, gone)
        for proof in folded.proved:
            until_ms, from_ms, open_at = proof.confirmation
            place = (client_no, proof.at_ms, proof.seq)
            self.proofs[place] = [*place, known_at, None, until_ms, from_ms, open_at]

    def keep_sessions(self, client_no: int, folded: Folded) -> None:
        """Note the sessions of a step."""
        sessions = self.sessions.get(client_no)
        if sessions is None:
            sessions = self.sessions[client_no] = Sessions()
        sessions.rows |= folded.sessions
        sessions.presumed |= folded.presumed

    def _close_proof(self, client_no: int, known_at: int, gone: Proof) -> None:
        place = (client_no, gone.at_ms, gone.seq)
        row = self.proofs.pop(place, None)
        if row is None:
            self.superseded_proofs.append((known_at, *place))
        elif row[3] != known_at:
            row[4] = known_at
            self.closed_proofs.append(row)

    def transition_rows(self) -> list[list[Any]]:
        """List the rows of transitions, superseded ones included, in the order of their key."""
        rows: list[list[Any]] = []
        for _, of_client in sorted(self.transitions.items(), key=_client_no):
            of_client.sort()  # no two share a key, so that nothing behind it is compared
            rows += of_client
        return rows

    def proof_rows(self) -> list[list[Any]]:
        """List the rows of confirmations, superseded ones included, in the order of their key."""
        return sorted([*self.proofs.values(), *self.closed_proofs], key=lambda row: row[:4])

    def take_sessions(self) -> list[tuple[int, Sessions]]:
        """Give the sessions of each client, ascending by client, and forget them."""
        taken, self.sessions = sorted(self.sessions.items(), key=_client_no), {}
        return taken


def _client_no(item: tuple[int, object]) -> int:
    return item[0]


def _close(rows: list[list[Any]], known_at: int, removed: Row) -> bool:
    """Supersede a row that this batch made, or unmake it where the same step did; False: the store holds it."""
    at_ms, seq = removed.at_ms, removed.seq
    for index in range(len(rows) - 1, -1, -1):
        row = rows[index]
        if row[1] == at_ms and row[2] == seq and row[4] is None:
            if row[3] == known_at:
                del rows[index]
            else:
                row[4] = known_at
            return True
    return False
