"""What a writer keeps in mind of a client agrees with the store, whatever came in one batch, before or meanwhile."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.check import faults
from ingest.reduce import reduce_events
from ingest.writer import Writer
from store.clock import Clock
from store.engine import open_reader, open_writer, parse_url
from store.model import HOUR_MS, MINUTE_MS, Event, Learned, Observation
from tests.builders import T0, connect, disconnect, observed, said_connected, said_disconnected
from tests.contents import beliefs, contents

NOW = T0 + 400 * 24 * HOUR_MS


def sound(url: str) -> bool:
    with open_reader(parse_url(url)) as store:
        return not list(faults(store))


def ticking() -> Clock:
    """Give a clock that goes on by a millisecond each time."""
    moments = iter(range(NOW, NOW + 10**6))
    return lambda: next(moments)


def written(url: str, batches: Sequence[Sequence[Event | Observation]], *, restarts: bool = False) -> None:
    """Write batches by one writer, or by one each."""
    clock = ticking()
    for of_one in [[each] for each in batches] if restarts else [batches]:
        with open_writer(parse_url(url)) as store, Writer(store, clock=clock) as writer:
            for batch in of_one:
                writer.write([Learned(each, 0) for each in batch], source="test")


def long_history(client_id: str = "a", count: int = 40) -> list[Event]:
    """Give more sessions than a writer keeps in mind, an hour apart."""
    events: list[Event] = []
    for number in range(count):
        at_ms, session = T0 + number * HOUR_MS, f"{client_id}-{number}"
        events.append(connect(at_ms, session=session, version=number, client_id=client_id))
        events.append(disconnect(at_ms + MINUTE_MS, session=session, version=number, client_id=client_id))
    return events


AGAIN = connect(T0 + 70 * HOUR_MS, session="a-3", version=3, client_id="a")  # later than all else


def test_a_session_that_begins_again_in_the_batch_that_ended_it_is_one(
    store_url: str, other_store_url: str
) -> None:
    """It has left what is kept in mind by then, and is not in the store yet."""
    events = [*long_history(), AGAIN]
    written(store_url, [events])
    written(other_store_url, [[each] for each in events])
    assert beliefs(store_url)["session_rows"] == beliefs(other_store_url)["session_rows"]
    assert len(beliefs(store_url)["transitions"]) == len(reduce_events(events))
    assert sound(store_url)


@pytest.mark.parametrize("late", ["a", "a-first", "z-last"])
def test_a_session_that_only_seems_new_does_not_hold_up_its_batch(
    store_url: str, other_store_url: str, late: str
) -> None:
    """Folding a late event of any client of the batch writes sessions ahead of the rest, and meets it there."""
    histories = [*long_history("a"), *long_history("a-first"), *long_history("z-last")]
    batch = [AGAIN, connect(T0 + 5 * HOUR_MS + 30 * MINUTE_MS, session="late", version=5, client_id=late)]
    written(store_url, [histories, batch])
    written(other_store_url, [histories, *([each] for each in batch)])
    assert beliefs(store_url) == beliefs(other_store_url)
    assert sound(store_url)


@pytest.mark.parametrize("cut", ["one by one", "restarts", "at once"])
def test_a_newest_session_that_turns_out_to_be_old_leaves_all_in_sight(store_url: str, cut: str) -> None:
    """Ten hours after a storm it cut what is kept of it to a few, and not to those that come last in order."""
    storm = [connect(T0 + n * 15_000, session=f"c{n}", version=99 if n == 3 else n) for n in range(12)]
    events = [
        *storm,
        connect(T0 + 10 * HOUR_MS, session="moved", version=100),
        connect(T0 - 24 * HOUR_MS, session="moved", version=100),
        disconnect(T0 + 11 * 15_000 + 30_000, session="c11", version=11),
    ]
    written(
        store_url, [events] if cut == "at once" else [[each] for each in events], restarts=cut == "restarts"
    )
    timeline = [row for row in contents(store_url)["transitions"] if row[4] is None]
    assert len(timeline) == len(reduce_events(events))
    assert timeline[-1][1] == reduce_events(events)[-1].at_ms
    assert sound(store_url)


@pytest.mark.parametrize("way", ["restarted", "packed"])
def test_the_first_answer_about_long_ago_leaves_the_next_one_a_repetition(
    store_url: str, other_store_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    others = [connect(T0 + n, session=f"o{n}", version=0, client_id=f"other-{n}") for n in range(4)]
    batches: list[list[Event | Observation]] = [
        [*long_history("client")],
        [*others],
        [connect(T0, session="z", version=0, client_id="zz")],
        [observed(said_disconnected(T0 + 5 * HOUR_MS + 30 * MINUTE_MS, None, client_id="client"))],
        [observed(said_disconnected(T0 + 70 * HOUR_MS, None, client_id="client"))],
    ]
    written(store_url, batches)
    if way == "packed":
        monkeypatch.setattr("ingest.remembered.AT_HAND", 1)
        written(other_store_url, batches)
    else:
        written(other_store_url, batches[:3])
        written(other_store_url, batches[3:])
    assert contents(store_url) == contents(other_store_url)
    assert contents(store_url)["sweeps"]


# --- Drawn histories, however they are cut --------------------------------------------------------------------


def disputed_history(rng: random.Random, client_id: str) -> list[Event | Observation]:
    """Draw more sessions than are kept in mind, hours apart or in a storm; copies, some of which move a session far."""
    gaps = rng.choice(
        ((0, 500, 20_000, 60_000), (1, 20_000, 239_000, 10 * MINUTE_MS, 46 * MINUTE_MS, 10 * HOUR_MS))
    )
    told: list[tuple[float, Event | Observation]] = []
    at_ms, version = T0, 0
    for number in range(rng.choice((8, 16, 30))):
        at_ms += rng.choice(gaps)
        version = max(0, version + rng.choice((1, 1, 1, 2, 0, -1)))
        session = None if rng.random() < 0.05 else f"{client_id}-{number}"
        lasted_ms = rng.choice((1, 1_000, 30_000, HOUR_MS))
        ends = rng.choice(("CONNECTION_LOST", "DUPLICATE_CLIENTID"))
        halves = (
            connect(at_ms, session=session, version=version, client_id=client_id),
            disconnect(at_ms + lasted_ms, session=session, version=version, client_id=client_id, reason=ends),
        )
        for event in halves:
            if rng.random() < 0.1:
                continue  # lost
            late = rng.choice((0, 0, 0, 0, 1, 3, 10, 30))
            told.append((number + late, event))
            if rng.random() < 0.2:
                moved_ms = rng.choice((0, -30 * HOUR_MS, -HOUR_MS, -10_000, 10_000, HOUR_MS, 30 * HOUR_MS))
                told.append(
                    (number + rng.choice((-3, 0, 2, 20)), event._replace(at_ms=event.at_ms + moved_ms))
                )
    for _ in range(rng.randint(0, 4)):
        asked_ms, place = T0 + rng.randint(0, at_ms - T0 + HOUR_MS), rng.randint(0, 40)
        said = rng.choice((said_connected, said_disconnected))
        named_ms = rng.choice((None, min(asked_ms, at_ms)))
        for again in range(rng.randint(1, 3)):
            check = said(asked_ms + again * HOUR_MS, named_ms, client_id=client_id)
            told.append((place + again, observed(check)))
    return [each for _, each in sorted(told, key=lambda pair: pair[0])]


@pytest.mark.parametrize("clients", [6, pytest.param(150, marks=pytest.mark.soak)])
def test_how_evidence_was_cut_and_who_wrote_it_never_shows(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:
    histories = [disputed_history(rng, f"client-{number:03}") for number in range(clients)]
    batches = [
        [Learned(each, 0, NOW - 10**7 + turn) for each in of_all if each is not None]
        for turn, of_all in enumerate(itertools.zip_longest(*histories))
    ]
    grouped = [list(itertools.chain.from_iterable(batches[at : at + 4])) for at in range(0, len(batches), 4)]
    found: dict[str, dict[str, list[tuple[object, ...]]]] = {}
    for way, cut in (("one", batches), ("restarts", batches), ("packed", batches), ("grouped", grouped)):
        url = f"sqlite:///{tmp_path}/{way}.db"
        monkeypatch.setattr("ingest.remembered.AT_HAND", 2 if way == "packed" else 8_000)
        for part in [[batch] for batch in cut] if way == "restarts" else [cut]:
            with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: NOW) as writer:
                if way == "one":
                    for batch in part:
                        writer.write(batch, source="test")
                else:
                    list(writer.write_all(part, source="test"))
        found[way] = contents(url)
    assert sound(f"sqlite:///{tmp_path}/one.db")
    for way, held in found.items():
        for table, rows in found["one"].items():
            assert held[table] == rows, (way, table)


# --- Several writers on PostgreSQL --------------------------------------------------------------------------


def test_what_another_writer_said_in_the_same_step_is_seen(postgres_store_url: str) -> None:
    """Both go on with a recording, so that the client is known as of the same moment before and after."""
    known_at = NOW - 1_000
    told = [
        (connect(T0, session="s1", version=1), known_at),
        (disconnect(T0 + HOUR_MS, session="s1", version=1), known_at),
        (connect(T0 + HOUR_MS + MINUTE_MS, session="s2", version=2), known_at + 1),
    ]
    with (
        open_writer(parse_url(postgres_store_url)) as store,
        Writer(store, clock=lambda: NOW) as one,
        Writer(store, clock=lambda: NOW) as other,
    ):
        for writer, (event, moment) in zip((one, other, one), told, strict=True):
            writer.write([Learned(event, 0, moment)], source="recording")
        for event, moment in told:  # and what the one read, the other reads
            other.write([Learned(event, 0, moment)], source="recording")
    assert sound(postgres_store_url)
    assert [row[11] for row in contents(postgres_store_url)["transitions"]] == [None, T0, T0 + HOUR_MS]


def test_a_recording_is_not_honoured_before_what_was_waited_for(postgres_store_url: str) -> None:
    """A writer that waits for a client learns what the other left, and then which moments are free."""
    known_at = NOW - 100_000
    begun, go = threading.Event(), threading.Event()

    class Slow(Writer):
        def _leave(self, *args: object) -> None:  # the last thing before the commit
            super()._leave(*args)  # type: ignore[arg-type]
            begun.set()
            go.wait(30)

    def write(writer: Writer, at_ms: int, moment: int, source: str) -> threading.Thread:
        event = Learned(disconnect(at_ms, session="s", version=0), 0, moment)
        thread = threading.Thread(target=lambda: writer.write([event], source=source))
        thread.start()
        return thread

    with (
        open_writer(parse_url(postgres_store_url)) as store,
        Slow(store, clock=lambda: NOW) as slow,
        Writer(store, clock=lambda: NOW) as quick,
    ):
        quick.write([Learned(connect(T0, session="s", version=0), 0, known_at - 1_000)], source="first")
        first = write(slow, T0 + HOUR_MS, known_at + 500, "one")
        assert begun.wait(30)
        second = write(quick, T0 + HOUR_MS - 5, known_at + 100, "other")
        second.join(1)
        assert second.is_alive()
        go.set()
        first.join(30)
        second.join(30)
    assert sound(postgres_store_url)
