"""Folding step by step, with a client forgotten and read again in between, gives what reducing from scratch gives.

In memory, after every single step, over histories strung together until they are longer than any tail.
"""

from __future__ import annotations

import random
from collections import Counter

from ingest.fold import STRAY_TAIL, TAIL, Client, Row, find_last, fold, keyed
from ingest.rebuild import Memory
from ingest.reduce import SKEW_MS, identity, reduce_events, stamp_of
from store.model import HOUR_MS, Event
from tests.strategies import history


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
        )


def strung(rng: random.Random, most: int) -> list[Event]:
    """Draw up to `most` histories, one after another, as one client's; sorted by stamp, shuffled, or neither."""
    events: list[Event] = []
    offset_ms = 0
    for _ in range(rng.randint(1, most)):
        drawn = history(rng, "c").events
        events += [event._replace(at_ms=event.at_ms + offset_ms) for event in drawn]
        offset_ms += rng.choice((HOUR_MS, 24 * HOUR_MS, HOUR_MS // 6, 40 * 24 * HOUR_MS))
    order = rng.random()
    if order < 0.4:
        events.sort(key=lambda event: event.at_ms)
    elif order < 0.6:
        rng.shuffle(events)
    return events


def folds_as_it_reduces(rng: random.Random, events: list[Event]) -> None:
    size = rng.choice((1, 1, 3, 10))
    client, memory = Client(1), Forgetful()
    timeline: Counter[Row] = Counter()
    told = 0
    while told < len(events):
        step = events[told : told + rng.randint(1, size)]
        told += len(step)
        folded = fold(client, step, memory)
        memory.save(1, folded.sessions)
        timeline.subtract(folded.removed)
        timeline.update(folded.added)
        if rng.random() < 0.1:
            client = memory.read_again(client)
        if told >= len(events) or rng.random() < 0.2:
            held = {row: count for row, count in timeline.items() if count}
            assert held == dict.fromkeys(keyed(reduce_events(events[:told])), 1), events[:told]


def test_every_step_leaves_the_timeline_of_what_was_told_so_far(rng: random.Random) -> None:
    for _ in range(300):
        folds_as_it_reduces(rng, [event for event in strung(rng, 12) if event.session_id])


def test_so_it_does_where_session_ids_are_lacking_in_a_history_that_fits_a_tail(rng: random.Random) -> None:
    """Longer ones may still differ, about one in three hundred: see ingest/fold.py."""
    for _ in range(300):
        folds_as_it_reduces(rng, strung(rng, 3))
