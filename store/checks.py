"""API checks as the store keeps them: answers that were new, and who repeated theirs when.

Most checks say what the one before said. Such a check costs no row: a row of `sweeps` says when each client of
a block was asked, and the answer is that of the newest row of `checks` which the client had by then (its *run*).
A run goes on until another answer opens the next; only then is its last asking written beside it. Both
engines take the same statements; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from store.model import Check
from store.packing import BLOCK, LONGEST_SWEEP_MS, SLOT_BYTES, slot_ms
from store.schema import STATES

Execute = Callable[[str, tuple[Any, ...]], Sequence[Any]]

CHECK_COLUMNS = (
    "client_no, about_ms, asked_ms, digest, known_at, claimed_at, source_no, state, named, reason_no, answer,"
    " last_asked_ms"
)
SWEEP_COLUMNS = "block_no, known_at, asked_ms, source_no, first_slot, slots"
CONFIRMATION_COLUMNS = "client_no, at_ms, seq, recorded_at, superseded_at, until_ms, from_ms, open_at"

UNNAMED, NAMED, WHOLE = 0, 1, 2  # checks.named


class Kept(NamedTuple):
    """A row of `checks`, as what it says and until when it was repeated (None: it still may be)."""

    check: Check
    answer: str
    known_at: int
    last_asked_ms: int | None

    @property
    def about_ms(self) -> int:
        """Give the instant that it names, else that of asking."""
        return self.check.asked_ms if self.check.named_ms is None else self.check.named_ms


KEPT_COLUMNS = (
    "c.client_id, k.asked_ms, k.state, k.about_ms, k.named, t.text, k.answer, k.known_at, k.last_asked_ms"
)
KEPT_FROM = (
    "checks k JOIN clients c ON c.client_no = k.client_no LEFT JOIN texts t ON t.text_no = k.reason_no"
)

# `?` stands for a parameter; PostgreSQL's driver reads `%s`.
STATEMENTS: dict[str, str] = {
    "open": f"SELECT {KEPT_COLUMNS} FROM {KEPT_FROM} WHERE k.client_no = ? AND k.last_asked_ms IS NULL",
    # In the order of about_ms and asked_ms, which a UNION knows by their places only.
    "about": (
        f"SELECT * FROM (SELECT {KEPT_COLUMNS} FROM {KEPT_FROM}"
        " WHERE k.client_no = ? AND k.about_ms < ? AND k.named = 0"
        " ORDER BY k.about_ms DESC, k.asked_ms DESC LIMIT 1) AS before_it"
        f" UNION ALL SELECT {KEPT_COLUMNS} FROM {KEPT_FROM}"
        " WHERE k.client_no = ? AND k.about_ms BETWEEN ? AND ?"
        " ORDER BY 4, 2"
    ),
    "proves_in": "SELECT 1 FROM confirmations WHERE client_no = ? AND recorded_at = ? LIMIT 1",
    "same": "SELECT 1 FROM checks WHERE client_no = ? AND about_ms = ? AND asked_ms = ? AND digest = ?",
    "repeated_at": (
        "SELECT k.answer FROM checks k WHERE k.client_no = ? AND k.asked_ms < ?"
        " AND (k.last_asked_ms IS NULL OR k.last_asked_ms >= ?)"
        " AND (k.last_asked_ms IS NULL OR k.last_asked_ms > k.asked_ms)"
    ),
    "close": (
        "UPDATE checks SET last_asked_ms = ? WHERE client_no = ? AND about_ms = ? AND asked_ms = ?"
        " AND last_asked_ms IS NULL"
    ),
    # Served by the primary key: of a client's sweeps within a run, the newest known is the last asked.
    "last_slot": (
        "SELECT asked_ms, first_slot, slots, known_at FROM sweeps"
        " WHERE block_no = ? AND known_at > ?"
        " AND first_slot <= ? AND substr(slots, 1 + 3 * (? - first_slot), 3) > ?"
        " ORDER BY known_at DESC, asked_ms DESC LIMIT 1"
    ),
    # Served by sweeps_by_asking.
    "slots": (
        "SELECT asked_ms, first_slot, slots FROM sweeps WHERE block_no = ? AND asked_ms BETWEEN ? AND ?"
        " ORDER BY asked_ms"
    ),
    "sweeps_of": (
        "SELECT known_at, asked_ms, first_slot, slots FROM sweeps WHERE block_no = ?"
        " AND first_slot <= ? AND substr(slots, 1 + 3 * (? - first_slot), 3) > ? ORDER BY known_at, asked_ms"
    ),
    "taken": f"SELECT {SWEEP_COLUMNS} FROM sweeps WHERE block_no = ? AND known_at = ? AND asked_ms = ?",
    "take": "DELETE FROM sweeps WHERE block_no = ? AND known_at = ? AND asked_ms = ?",
    "put_checks": f"INSERT INTO checks ({CHECK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "put_sweeps": f"INSERT INTO sweeps ({SWEEP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
    "put_confirmations": (
        f"INSERT INTO confirmations ({CONFIRMATION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    ),
    "unsay_confirmations": (
        "DELETE FROM confirmations WHERE recorded_at = ? AND client_no = ? AND at_ms = ? AND seq = ?"
        " AND superseded_at IS NULL"
    ),
    "supersede_confirmations": (
        "UPDATE confirmations SET superseded_at = ? WHERE client_no = ? AND at_ms = ? AND seq = ?"
        " AND superseded_at IS NULL"
    ),
}


class CheckRows:
    """The statements above over one connection; `fetch` gives the rows of a SELECT."""

    def __init__(self, fetch: Execute, mark: str) -> None:
        self._fetch = fetch
        self._sql = {name: text.replace("?", mark) for name, text in STATEMENTS.items()}

    def sql(self, name: str) -> str:
        """Give a statement in the words of the driver."""
        return self._sql[name]

    def open_run(self, client_no: int) -> Kept | None:
        """Give the answer that a client's next check may repeat."""
        rows = self._fetch(self._sql["open"], (client_no,))
        return kept_from(rows[0]) if rows else None

    def proves_in(self, client_no: int, known_at: int) -> bool:
        """Tell whether anything of a client was confirmed at a moment of learning."""
        return bool(self._fetch(self._sql["proves_in"], (client_no, known_at)))

    def last_asked(self, client_no: int, since_known_at: int) -> tuple[int, int] | None:
        """Tell when a client was last asked in a sweep known after a moment, and when that was known."""
        slot = client_no % BLOCK
        values = (client_no // BLOCK, since_known_at, slot, slot, bytes(SLOT_BYTES))
        for asked_ms, first_slot, slots, known_at in self._fetch(self._sql["last_slot"], values):
            found = slot_ms(asked_ms, first_slot, slots, slot)
            assert found is not None
            return found, known_at
        return None

    def about(self, client_no: int, from_ms: int, to_ms: int) -> list[Kept]:
        """List the answers about instants in `[from_ms, to_ms]`, and the last before that named none."""
        rows = self._fetch(self._sql["about"], (client_no, from_ms, client_no, from_ms, to_ms))
        return [kept_from(row) for row in rows]

    def asked_between(self, client_no: int, from_ms: int, to_ms: int) -> list[int]:
        """List when a client was asked in sweeps, within `[from_ms, to_ms]`."""
        rows = self._fetch(self._sql["slots"], (client_no // BLOCK, from_ms - LONGEST_SWEEP_MS, to_ms))
        found = (slot_ms(row[0], row[1], row[2], client_no % BLOCK) for row in rows)
        return sorted(asked_ms for asked_ms in found if asked_ms is not None and from_ms <= asked_ms <= to_ms)

    def sweeps_of(self, client_no: int) -> list[tuple[int, int]]:
        """List `(known_at, asked_ms)` of all that a client was asked in sweeps, ascending."""
        slot = client_no % BLOCK
        rows = self._fetch(self._sql["sweeps_of"], (client_no // BLOCK, slot, slot, bytes(SLOT_BYTES)))
        asked = ((row[0], slot_ms(row[1], row[2], row[3], slot)) for row in rows)
        return [(known_at, asked_ms) for known_at, asked_ms in asked if asked_ms is not None]

    def holds(self, client_no: int, about_ms: int, asked_ms: int, digest: int, answer: str) -> bool:
        """Tell whether a check is in the store already, as a row of its own or in a sweep."""
        if self._fetch(self._sql["same"], (client_no, about_ms, asked_ms, digest)):
            return True
        if not self.asked_between(client_no, asked_ms, asked_ms):
            return False
        said = self._fetch(self._sql["repeated_at"], (client_no, asked_ms, asked_ms))
        return any(row[0] == answer for row in said)

    def taken_sweeps(self, keys: Iterable[tuple[int, int, int]]) -> list[tuple[Any, ...]]:
        """Take rows out of the store, to be written anew with more askings."""
        taken: list[tuple[Any, ...]] = []
        for key in keys:
            taken += [tuple(row) for row in self._fetch(self._sql["taken"], key)]
            self._fetch(self._sql["take"], key)
        return taken


def kept_from(row: Sequence[Any]) -> Kept:
    """Build an answer from a row of KEPT_COLUMNS."""
    client_id, asked_ms, state, about_ms, named, reason, answer, known_at, last_asked_ms = row
    named_ms = None if named == UNNAMED else about_ms
    check = Check(client_id, asked_ms, STATES[state], named_ms, named == WHOLE, reason)
    return Kept(check, answer, known_at, last_asked_ms)
