"""What a writer keeps in mind of a client agrees with the store, whatever came in one batch, before or meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ingest.check import faults
from ingest.reduce import reduce_events
from ingest.writer import Writer
from store.clock import Clock
from store.engine import open_reader, open_writer, parse_url
from store.model import HOUR_MS, MINUTE_MS, Event, Learned, Observation
from tests.builders import T0, connect, disconnect, observed, said_disconnected
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
