"""Purging never changes an answer after the horizon: on random histories, on both clocks, and for what comes later.

Beside the purged store stands a copy of it as it was; both are asked the same, before and after more evidence
comes to both in the same order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.check import faults
from ingest.purge import purge
from ingest.rebuild import rebuild_store
from queries.history import Question, ThingPeriod, open_history
from store.backup import back_up
from store.engine import open_reader, open_writer, parse_url
from store.errors import IndexNotReady, ResourceNotFound
from store.model import HOUR_MS, Event, Kind, State
from tests.builders import CLIENT, T0, connect, disconnect
from tests.property.test_check_laws import Evidence, learned
from tests.property.test_check_laws import ingest as ingest_batches
from tests.property.test_store_laws import client_id, cut
from tests.strategies import DAY_MS, History, checked_history, history

LATEST = T0 + 10_000 * DAY_MS  # later than every stamp of the histories
DELAYS_MS = (0, 0, 0, 40, 2_000, HOUR_MS, 5 * DAY_MS)


def long_history(rng: random.Random, name: str, *, strays: bool = True) -> History:
    """Draw a client of several histories, one after the other: long enough that something can go.

    Without `strays` each event has its session id, which is folded many times as fast.
    """
    draw = rng.choice((history, checked_history))
    parts, at_ms = [], 0
    for _ in range(rng.choice((1, 3, 8, 12))):
        part = draw(rng, name)
        stamps = [each.at_ms for each in part.events] + [each.asked_ms for each in part.checks]
        if not stamps:
            continue
        parts.append((part, at_ms))
        at_ms += max(stamps) - T0 + rng.choice((0, HOUR_MS, 2 * DAY_MS))
    events, checks = [], []
    for number, (part, shift_ms) in enumerate(parts):
        for event in part.events:
            session_id = None if event.session_id is None else f"{event.session_id}-{number}"
            events.append(event._replace(at_ms=event.at_ms + shift_ms, session_id=session_id))
        for check in part.checks:
            named_ms = None if check.named_ms is None else check.named_ms + shift_ms
            checks.append(check._replace(asked_ms=check.asked_ms + shift_ms, named_ms=named_ms))
    if not strays:
        events = [event for event in events if not is_stray(event)]
    return History(client_id=name, events=events, truth=[], skew="none", checks=checks)


def steady_history(name: str) -> History:
    """Build a client that was on for an hour a day before the others began: there is something to purge."""
    events = [
        half
        for day in range(1, 61)
        for half in (
            connect(T0 - day * DAY_MS, session=f"d{day}", client_id=name),
            disconnect(T0 - day * DAY_MS + HOUR_MS, session=f"d{day}", client_id=name),
        )
    ]
    return History(client_id=name, events=events, truth=[], skew="none")


def evidence_of(one: History) -> list[Evidence]:
    return [*one.events, *one.checks]


def stamp(each: Evidence) -> int:
    return each.at_ms if isinstance(each, Event) else each.asked_ms


def is_stray(each: Evidence) -> bool:
    return isinstance(each, Event) and each.kind <= Kind.DISCONNECTED and each.session_id is None


def as_it_came(rng: random.Random, drawn: Sequence[History]) -> list[tuple[int, Evidence]]:
    """Give each piece of evidence the moment that it was learned at: its stamp, and some delay."""
    told = [
        (stamp(each) + rng.choice(DELAYS_MS), number, each)
        for one in drawn
        for number, each in enumerate(evidence_of(one))
    ]
    told.sort(key=lambda each: each[:2])
    return [(known_at, each) for known_at, _, each in told]


def write(url: str, told: Sequence[tuple[int, Evidence]], rng: random.Random) -> None:
    items = learned([each for _, each in told], [known_at for known_at, _ in told])
    ingest_batches(url, cut(rng, items, 120), LATEST)


def seen_from(
    url: str, names: Sequence[str], horizon_ms: int, known: Sequence[int]
) -> dict[tuple[str, int], object]:
    """Ask for every client's periods from the horizon on, as known at each moment."""
    found: dict[tuple[str, int], object] = {}
    with open_history(url) as opened:
        for name in names:
            for known_at in known:
                try:
                    told = list(opened.periods(name, from_=horizon_ms, known_at=known_at, by_client=True))
                except ResourceNotFound:
                    told = []
                found[name, known_at] = [comparable(one) for one in told]
    return found


def comparable(one: ThingPeriod) -> object:
    """Leave out when a state that is not known began, and which rows stand behind a stretch when."""
    seen = one.period.seen
    if seen.state is State.UNKNOWN:
        seen = seen._replace(at_ms=0, proved_from_ms=None)
    plain = seen._replace(
        seq=0, recorded_at=0, superseded_at=None, confirmed_from_ms=None, confirmed_until_ms=None
    )
    return one.client_id, one.period._replace(seen=plain)


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.soak) for turn in range(1, 10))])
def test_no_answer_after_the_horizon_changes(
    store_url: str, tmp_path: Path, rng: random.Random, turn: int
) -> None:
    drawn = [*(long_history(rng, client_id(number)) for number in range(6)), steady_history(client_id(6))]
    told = as_it_came(rng, drawn)
    stamps = sorted(stamp(each) for _, each in told)
    horizon_ms = rng.choice(stamps[len(stamps) // 2 :]) + rng.choice((0, 1, HOUR_MS))
    begun = horizon_ms + rng.choice((0, HOUR_MS, 3 * DAY_MS, 60 * DAY_MS))
    before = [one for one in told if one[0] <= begun]
    later = [one for one in told if one[0] > begun and stamp(one[1]) >= horizon_ms]
    with_strays = {each.client_id for _, each in before if is_stray(each)}  # docs/care.md: the second limit
    later = [one for one in later if not is_stray(one[1]) or one[1].client_id in with_strays]
    write(store_url, before, rng)
    other = f"sqlite:///{tmp_path / 'whole.db'}"
    with open_reader(parse_url(store_url)) as store:
        back_up(store, tmp_path / "whole.db")
    names = sorted({one.client_id for one in drawn if one.events or one.checks})
    with open_writer(parse_url(store_url)) as store:
        planned = purge(store, horizon_ms, dry_run=True)
        done = purge(store, horizon_ms)
        assert planned == done
        assert done.evidence > 0
        assert purge(store, horizon_ms).evidence == 0
        assert rebuild_store(store).differing == []
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []
    moments = [known_at for known_at, _ in told if known_at >= horizon_ms]
    known = sorted({horizon_ms, *rng.sample(moments, min(6, len(moments)))})
    assert seen_from(store_url, names, horizon_ms, known) == seen_from(other, names, horizon_ms, known)

    mixed = [(LATEST - len(later) + at, each) for at, (_, each) in enumerate(rng.sample(later, len(later)))]
    for url in (store_url, other):
        write(url, mixed, random.Random(turn))
    known = [*known, *rng.sample(range(LATEST - len(later), LATEST), min(4, len(later))), LATEST]
    assert seen_from(store_url, names, horizon_ms, known) == seen_from(other, names, horizon_ms, known)
    with open_writer(parse_url(store_url)) as store:
        assert rebuild_store(store).differing == []


def test_what_is_before_the_horizon_is_refused(store_url: str, rng: random.Random) -> None:
    drawn: list[History] = []
    while sum(bool(evidence_of(one)) for one in drawn[1:3]) < 2:  # those who are asked about
        drawn = [long_history(rng, client_id(number)) for number in range(8)]
    told = as_it_came(rng, drawn)
    write(store_url, told, rng)
    horizon_ms = T0 + 3 * DAY_MS
    with open_writer(parse_url(store_url)) as store:
        purge(store, horizon_ms)
    with open_history(store_url) as opened:
        for at_ms, known_at in ((horizon_ms - 1, None), (horizon_ms + 5, horizon_ms - 1)):
            with pytest.raises(IndexNotReady):
                opened.at("client-1", at_ms, known_at=known_at)
        with pytest.raises(IndexNotReady):
            list(opened.transitions("client-1", from_=horizon_ms - 1))
        listed = [one for name in ("client-1", "client-2") for one in opened.periods(name)]
        assert all(one.period.from_ms >= horizon_ms for one in listed)
        with open_history(store_url) as many:
            asked = [Question("client-1", horizon_ms + step) for step in (-2, -1, 0, 1)]
            replies = [reply.error for _ in range(2) for reply in many.ask(asked)]
            refused = [isinstance(error, IndexNotReady) for error in replies]
            assert refused == [True, True, False, False] * 2


@pytest.mark.parametrize(
    "late", [disconnect(T0 + 200 * DAY_MS, version=1), connect(T0 + 200 * DAY_MS, version=1)]
)
def test_what_bears_a_version_alone_finds_its_session_however_old(
    store_url: str, tmp_path: Path, late: Event
) -> None:
    """Rule 2: without a session id it joins the latest connect of its version, whichever half said the version."""
    first = [connect(T0, session="first"), disconnect(T0 + HOUR_MS, session="first", version=1)]
    first += [connect(T0 + 2 * HOUR_MS), disconnect(T0 + 3 * HOUR_MS)]
    later = [
        event
        for day in range(1, 90)
        for event in (
            connect(T0 + day * DAY_MS, session=f"s{day}", version=day % 5 + 2),
            disconnect(T0 + day * DAY_MS + HOUR_MS, session=f"s{day}", version=day % 5 + 2),
        )
    ]
    write(store_url, [(event.at_ms, event) for event in (*first, *later)], random.Random(1))
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    with open_reader(parse_url(store_url)) as store:
        back_up(store, tmp_path / "whole.db")
    horizon_ms = T0 + 80 * DAY_MS
    with open_writer(parse_url(store_url)) as store:
        assert purge(store, horizon_ms).evidence > 10
    for url in (store_url, whole):
        write(url, [(LATEST, late)], random.Random(1))
    asked = [horizon_ms, LATEST]
    assert seen_from(store_url, [CLIENT], horizon_ms, asked) == seen_from(whole, [CLIENT], horizon_ms, asked)
