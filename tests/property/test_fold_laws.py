"""Folding step by step, with a client forgotten and read again in between, gives what reducing from scratch gives.

In memory, after every single step, over histories strung together until they are longer than any tail.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from ingest.changes import Row, keyed, proofs
from ingest.client import STRAY_TAIL, TAIL, Client, Told, find_last
from ingest.fold import fold
from ingest.rebuild import Memory
from ingest.reduce import SKEW_MS, identity, reduce_events, stamp_of
from store.model import HOUR_MS, LAG_MS, Check, Confirmation, Event
from tests.builders import T0, connect, disconnect
from tests.strategies import History, checked_history, history


class Forgetful(Memory):
    """A client's sessions, answered as the store would; and what a writer reads again of them."""

    def read_again(self, client: Client) -> Client:
        """Forget a client, and read the end of its history as the writer does."""
        depth = enough = 2 * (STRAY_TAIL if client.has_strays else TAIL)
        newest = sorted(self.sessions.values(), key=lambda session: -stamp_of(session))
        while len(newest) > depth and stamp_of(newest[0]) - stamp_of(newest[depth - 1]) <= 3 * SKEW_MS:
            depth *= 4
        tail = {identity(session): session for session in reversed(newest[:depth])}
        return Client(
            client_no=1,
            tail=tail,
            opens_left=len(tail) >= enough,
            newest_ms=max((stamp_of(session) for session in tail.values()), default=-1),
            last=find_last(tail),
            first_ms=client.first_ms,
            has_strays=client.has_strays,
            checked_ms=client.checked_ms,
            plain=client.checked_ms is None,
            newest=client.newest,
            run=client.run,
        )


Evidence = Event | Check

# What goes wrong once in thousands of histories is for the long run to find.
repeated = pytest.mark.parametrize(
    "turn", [0, *(pytest.param(turn, marks=pytest.mark.soak) for turn in range(1, 60))]
)


def strung(
    rng: random.Random, most: int, draw: Callable[[random.Random, str], History] = history
) -> list[Evidence]:
    """Draw up to `most` histories, one after another, as one client's; sorted by stamp, shuffled, or neither."""
    told: list[Evidence] = []
    offset_ms = 0
    for _ in range(rng.randint(1, most)):
        drawn = draw(rng, "c")
        told += [event._replace(at_ms=event.at_ms + offset_ms) for event in drawn.events]
        for check in drawn.checks:
            named_ms = None if check.named_ms is None else check.named_ms + offset_ms
            told.append(check._replace(asked_ms=check.asked_ms + offset_ms, named_ms=named_ms))
        offset_ms += rng.choice((HOUR_MS, 24 * HOUR_MS, HOUR_MS // 6, 40 * 24 * HOUR_MS))
    order = rng.random()
    if order < 0.4:
        told.sort(key=_when)
    elif order < 0.6:
        rng.shuffle(told)
    return told


def _when(evidence: Evidence) -> int:
    return evidence.at_ms if isinstance(evidence, Event) else evidence.asked_ms


def folds_as_it_reduces(rng: random.Random, told: list[Evidence], size: int | None = None) -> None:
    """Tell evidence step by step; checks that repeat an answer by themselves are taken in as the writer does."""
    size = size or rng.choice((1, 1, 3, 10))
    client, memory = Client(1), Forgetful()
    timeline: Counter[Row] = Counter()
    proved: dict[tuple[int, int], Confirmation] = {}
    count = known_at = 0
    while count < len(told):
        step = told[count : count + rng.randint(1, size)]
        count, known_at = count + len(step), known_at + 1
        events = [each for each in step if isinstance(each, Event)]
        checks = [Told(each, str(each[2:])) for each in step if isinstance(each, Check)]
        run = client.run
        if run is not None and not events and len(checks) == 1:
            asked_ms = checks[0].check.asked_ms
            if run.repeats(checks[0].answer, asked_ms, known_at, client.newest):
                run.last_asked_ms, run.last_known_at = asked_ms, known_at
                memory.repeated.append(asked_ms)
                checks = []
        folded = fold(client, events, memory, checks, known_at)
        memory.keep(client, run, checks, known_at)
        memory.save(1, folded)
        timeline.subtract(folded.removed)
        timeline.update(folded.added)
        for gone in folded.unproved:
            del proved[gone.at_ms, gone.seq]
        for proof in folded.proved:
            assert (proof.at_ms, proof.seq) not in proved
            proved[proof.at_ms, proof.seq] = proof.confirmation
        if rng.random() < 0.1:
            client = memory.read_again(client)
        if count >= len(told) or rng.random() < 0.2:
            wanted = reduce_events(
                [each for each in told[:count] if isinstance(each, Event)],
                [each for each in told[:count] if isinstance(each, Check)],
            )
            held = {row: count for row, count in timeline.items() if count}
            assert held == dict.fromkeys(keyed(wanted), 1), told[:count]
            wanted_proofs = {(p.at_ms, p.seq): p.confirmation for p in proofs(wanted)}
            assert {place: as_of_now(proof, client) for place, proof in proved.items()} == wanted_proofs


def as_of_now(proof: Confirmation, client: Client) -> Confirmation:
    """Let a confirmation that goes on reach to the last check that repeated it, as an answer does."""
    if proof.open_at is None:
        return proof
    assert client.run is not None
    assert client.run.known_at == proof.open_at
    return proof._replace(until_ms=max(proof.until_ms, client.run.last_asked_ms - LAG_MS), open_at=None)


@repeated
def test_every_step_leaves_the_timeline_of_what_was_told_so_far(rng: random.Random, turn: int) -> None:
    for _ in range(100):
        told = strung(rng, 12)
        folds_as_it_reduces(rng, [each for each in told if isinstance(each, Check) or each.session_id])


@repeated
def test_so_it_does_where_session_ids_are_lacking(rng: random.Random, turn: int) -> None:
    for _ in range(75):
        folds_as_it_reduces(rng, strung(rng, 12))


@repeated
def test_every_step_leaves_what_checks_say_and_prove(rng: random.Random, turn: int) -> None:
    for _ in range(75):
        told = strung(rng, 6, checked_history)
        folds_as_it_reduces(rng, [each for each in told if isinstance(each, Check) or each.session_id])


@repeated
def test_so_it_does_with_checks_where_session_ids_are_lacking(rng: random.Random, turn: int) -> None:
    for _ in range(50):
        folds_as_it_reduces(rng, strung(rng, 6, checked_history))


# Versions order sessions stamped within SKEW of one another: a session just beyond a window may belong in between
# those that the window shows.
_HIDDEN = {
    "before the window": [
        *(connect(T0 - hours * HOUR_MS, session=f"early-{hours}", version=1) for hours in (9, 8, 7)),
        disconnect(T0 + 531_567, session="a", version=10, reason="MQTT_KEEP_ALIVE_TIMEOUT"),
        connect(T0 + 591_566, session="b", version=11),
        disconnect(T0 + 600_667, session="c", version=0, reason="DUPLICATE_CLIENTID"),
        connect(T0 + 600_667, session="d", version=1),
        connect(T0 + 660_669, session="e", version=3),
        connect(T0 + 3_456_506_711, session="f", version=9),
        disconnect(T0 + 3_456_547_216, session="g", version=8, reason="DUPLICATE_CLIENTID"),
        connect(T0 + 3_456_599_919, session="g", version=8),
    ],
    "after the window": [
        connect(T0 + 932_760, session="a", version=4),
        *(connect(T0 + 7_266_678_533 + n * HOUR_MS, session=f"late-{n}", version=6 + n) for n in range(9)),
        connect(T0 + 652_760, session="b", version=9),
        disconnect(T0 + 7_265_487_069, session="c", version=5, reason="SERVER_ERROR"),
        connect(T0 + 108_123, session="d", version=0),
        connect(T0, session="e", version=8),
        disconnect(T0 + 707_760, session="f"),
        disconnect(T0 + 707_770, session="h"),
        connect(T0 + 707_756, session="g", version=7),
        disconnect(T0 + 1, session="e", version=8),
    ],
}


@pytest.mark.parametrize("told", _HIDDEN.values(), ids=_HIDDEN)
def test_what_a_window_does_not_show_may_come_in_between_what_it_shows(
    told: list[Evidence], rng: random.Random
) -> None:
    for _ in range(30):
        folds_as_it_reduces(rng, told, size=1)
