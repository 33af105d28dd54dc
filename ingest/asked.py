"""What came of asking AWS: its answers beside what the store would have said, for people and for programs.

Owns the words and the counts of `thingline check`. Writes nothing to the store.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import click

from ingest.checks import check_of
from ingest.counts import Counts
from ingest.stamps import iso
from store.agreement import Outcome, agreement
from store.answer import Asker, Seen
from store.model import Check, Learned, Observation, Rejected, State


@dataclass(slots=True)
class Sums:
    """What came of the asking, by thing; and what of that was new to the store."""

    asked: int = 0
    agreed: int = 0
    differed: int = 0
    unheard: int = 0  # the store knew nothing of it
    missing: int = 0  # AWS knows no such thing, or no such connection
    unreadable: int = 0  # in quarantine
    stored: int = 0  # what the store had not been told yet
    repeated: int = 0  # ... of which so many said what AWS had said before


class Told:
    """What a person, or a program, is told of it. `listed`: every answer, and not only those that differed."""

    def __init__(self, total: int, *, listed: bool, as_json: bool) -> None:
        self.sums = Sums()
        self._total = total
        self._listed = listed
        self._as_json = as_json
        self._shown = sys.stderr.isatty()

    def compare(
        self, asker: Asker, items: list[Learned | Rejected]
    ) -> tuple[list[Learned | Rejected], list[Learned | Rejected]]:
        """Compare what AWS said with what the store would have said, before it learns of it.

        Gives the answers that agree, and all else.
        """
        sums = self.sums
        agreed: list[Learned | Rejected] = []
        others: list[Learned | Rejected] = []
        with asker.snapshot() as mark:
            for item in items:
                sums.asked += 1
                outcome = self._compared(asker, item, mark)
                (agreed if outcome is Outcome.SAME else others).append(item)
        sums.agreed += len(agreed)
        if self._shown:
            of = f" of {self._total:,}" if self._total else ""
            click.echo(f"\r{sums.asked:,}{of} things asked\x1b[K", nl=False, err=True)
        return agreed, others

    def _compared(self, asker: Asker, item: Learned | Rejected, known_at: int) -> Outcome | None:
        """Compare one answer, and tell of it; None where it says nothing of a connection."""
        sums = self.sums
        if isinstance(item, Rejected) or not isinstance(item.evidence, Observation):
            sums.unreadable += 1
            return None
        said = check_of(item.evidence)
        if said is None:
            sums.missing += 1
            self._line(item.evidence.subject or "", None, None, None)
            return None
        outcome, ours = agreement(asker, asker.client_named(said.client_id), said, known_at)
        sums.unheard += outcome is Outcome.UNKNOWN
        differs = outcome not in (Outcome.SAME, Outcome.UNKNOWN)
        sums.differed += differs
        if self._listed or differs:
            self._line(said.client_id, said, outcome.value, ours)
        return outcome

    def _line(self, name: str, said: Check | None, outcome: str | None, ours: Seen | None) -> None:
        self._clear()
        click.echo((_json if self._as_json else _words)(name, said, outcome, ours))

    def wrote(self, counts: Counts) -> None:
        """Add what the store made of it."""
        self.sums.stored += counts.stored
        self.sums.repeated += counts.repeated

    def say(self, text: str) -> None:
        """Tell a person something meanwhile."""
        self._clear()
        click.echo(f"thingline: {text}", err=True)

    def end(self, place: str) -> None:
        """Print the sums."""
        self._clear()
        sums = self.sums
        if self._as_json:
            click.echo(json.dumps({"store": place, **asdict(sums)}))
            return
        click.echo(
            f"{sums.asked:,} asked: {sums.agreed:,} agreed with the store, {sums.differed:,} differed,"
            f" {sums.unheard:,} it knew nothing of, {sums.missing:,} unknown to AWS,"
            f" {sums.unreadable:,} unreadable; {sums.stored:,} new to the store,"
            f" {sums.repeated:,} of them as AWS answered before"
        )
        click.echo(f"store: {place}", err=True)

    def _clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


_STATES = {State.CONNECTED: "connected", State.DISCONNECTED: "disconnected", State.UNKNOWN: "unknown"}


def _json(name: str, said: Check | None, outcome: str | None, ours: Seen | None) -> str:
    members: dict[str, Any] = {"name": name, "found": said is not None}
    if said is not None:
        members |= {
            "askedAt": iso(said.asked_ms),
            "connected": said.state.connected,
            "timestamp": _iso(said.named_ms),
            "disconnectReason": said.reason,
            "outcome": outcome,
            "ourConnected": None if ours is None else ours.state.connected,
            "ourTimestamp": None if ours is None else _iso(ours.timestamp_ms),
            "ourDisconnectReason": None if ours is None else ours.reason,
        }
    return json.dumps(members)


def _words(name: str, said: Check | None, outcome: str | None, ours: Seen | None) -> str:
    name = name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
    if said is None:
        return f"{name}: AWS knows none of that name"
    text = f"{name}: {_state(said.state, said.named_ms, said.reason)}"
    if outcome == Outcome.UNKNOWN:
        return f"{text}; the store knew nothing of it"
    if ours is None or outcome == Outcome.SAME:
        return f"{text}; so said the store"
    return f"{text}; the store said {_state(ours.state, ours.timestamp_ms, ours.reason)} ({outcome} differs)"


def _state(state: State, since_ms: int | None, reason: str | None) -> str:
    since = "" if since_ms is None else f" since {iso(since_ms)}"
    why = f" ({reason})" if state is State.DISCONNECTED and reason and reason.isprintable() else ""
    return f"{_STATES[state]}{since}{why}"


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
