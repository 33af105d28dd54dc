"""Writing batches: one while the next is folded gives what one after another gives, whatever is found out late."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.check import faults
from ingest.files import FIRST, Batches
from ingest.writer import Counts, Writer
from store.engine import open_reader, open_writer, parse_url
from store.errors import StoreError
from store.model import HOUR_MS, MINUTE_MS, Event, Learned, Observation
from store.packing import pack_id, unpack_id
from store.schema import metadata
from tests.builders import T0, connect, disconnect, observed, said_connected, said_disconnected
from tests.strategies import checked_history, history

NOW = T0 + 400 * 24 * HOUR_MS


def learned(evidence: Event | Observation, known_at: int | None = None) -> Learned:
    return Learned(evidence, 0, known_at)


def every_row(url: str) -> dict[str, list[Any]]:
    """Read all that a store holds, numbers of interned strings and moments of learning included."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = {
            name: sorted(tuple(row) for row in connection.execute(sa.select(table)))
            if table.primary_key
            else []
            for name, table in metadata.tables.items()
        }
    engine.dispose()
    return found


def in_one_go(url: str, batches: Sequence[Sequence[Learned]]) -> list[Counts]:
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: NOW) as writer:
        return list(writer.write_all(batches, source="test"))


def one_by_one(url: str, batches: Sequence[Sequence[Learned]]) -> list[Counts]:
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: NOW) as writer:
        return [writer.write(batch, source="test") for batch in batches]


def drawn(rng: random.Random, *, recorded: bool) -> list[Sequence[Learned]]:
    """Draw many clients' histories, checks included, in batches of random sizes; some of them come twice."""
    evidence: list[Event | Observation] = []
    for number in range(60):
        one = checked_history(rng, f"client-{number}")
        evidence += [*one.events, *map(observed, one.checks)]
    rng.shuffle(evidence)
    moments = itertools.count(NOW - 10**9, rng.choice((1, 1_000)))
    items = [learned(each, next(moments) if recorded and rng.random() < 0.9 else None) for each in evidence]
    batches: list[Sequence[Learned]] = []
    while items:
        size = rng.randint(1, 200)
        batches.append(items[:size])
        items = items[size:]
        if recorded and rng.random() < 0.2:  # learned live, copies may make the clock tick
            batches.append(rng.choice(batches))
    return batches


@pytest.mark.parametrize("recorded", [False, True])
def test_in_one_go_is_one_by_one(
    store_url: str,
    other_store_url: str,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    batches = drawn(rng, recorded=recorded)
    monkeypatch.setattr("ingest.folding.AHEAD", 3)
    monkeypatch.setattr("store.postgres_rows.FEW", 2)
    assert in_one_go(store_url, batches) == one_by_one(other_store_url, batches)
    assert every_row(store_url) == every_row(other_store_url)


def long_history(client_id: str) -> list[Event]:
    """Give more sessions than a writer keeps in mind, hours apart."""
    events: list[Event] = []
    for number in range(40):
        at_ms, session = T0 + number * HOUR_MS, f"{client_id}-{number}"
        events.append(connect(at_ms, session=session, version=number, client_id=client_id))
        events.append(disconnect(at_ms + MINUTE_MS, session=session, version=number, client_id=client_id))
    return events


@pytest.mark.parametrize("packed", [0, 5, 1_000])
def test_how_many_clients_are_kept_in_mind_never_shows(
    store_url: str, other_store_url: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch, packed: int
) -> None:
    """Histories longer than what is kept of each, nearly in order; some come late, and some twice."""
    events = [each for number in range(12) for each in long_history(f"client-{number}")]
    events += [each for number in range(12) for each in history(rng, f"short-{number}").events]
    events += rng.choices(events, k=50)
    late_ms = {id(each): rng.choice((0, 0, 0, HOUR_MS, 20 * HOUR_MS)) * rng.random() for each in events}
    events.sort(key=lambda each: each.at_ms + late_ms[id(each)])
    batches = [[learned(each) for each in events[start : start + 8]] for start in range(0, len(events), 8)]
    one_by_one(other_store_url, batches)
    monkeypatch.setattr("ingest.remembered.AT_HAND", 4)
    monkeypatch.setattr("ingest.remembered.PACKED", packed)
    in_one_go(store_url, batches)
    assert every_row(store_url) == every_row(other_store_url)


def test_a_session_that_only_seems_new_is_found_in_the_store(store_url: str, tmp_path: Any) -> None:
    """Its id comes again, later than all else: what was presumed is verified, and folded again."""
    events = [*long_history("a"), *long_history("b")]
    again = [connect(T0 + 50 * HOUR_MS, session="a-3", version=3, client_id="a")]
    after = [connect(T0 + 51 * HOUR_MS, session="b-x", version=40, client_id="b")]
    batches = [[learned(each) for each in part] for part in (events, again, after)]
    counts = in_one_go(store_url, batches)
    assert [each.stored for each in counts] == [160, 1, 1]
    assert counts[1].conflicts == 1
    assert counts[1].transitions == 0  # the smallest stamp of the session is the one that was held
    held = every_row(store_url)
    assert len(held["session_rows"]) == 81
    (session,) = [row for row in held["session_rows"] if row[1] == pack_id("a-3")]
    assert session[3] == T0 + 3 * HOUR_MS
    assert len(held["transitions"]) == 161


def test_a_batch_without_news_does_not_move_what_the_next_is_known_from(sqlite_store_url: str) -> None:
    """A recording goes on where the store ended, though copies known now came between."""
    first = connect(T0, session="s", version=0)
    later = [disconnect(T0 + n * MINUTE_MS, session=f"t{n}", version=n) for n in range(2)]
    batches = [
        [learned(first, NOW - 500_000)],
        [learned(first)],
        [learned(first)],
        [learned(later[0], NOW - 400_000)],
        [learned(later[1], NOW - 300_000)],
    ]
    counts = in_one_go(sqlite_store_url, batches)
    assert [(each.stored, each.duplicates) for each in counts] == [(1, 0), (0, 1), (0, 1), (1, 0), (1, 0)]
    assert {row[4] for row in every_row(sqlite_store_url)["evidence"]} == {
        NOW - 500_000,
        NOW - 400_000,
        NOW - 300_000,
    }


def test_what_was_read_before_a_source_failed_is_written(store_url: str) -> None:
    def batches() -> Iterator[list[Learned]]:
        for number in range(3):
            yield [learned(connect(T0 + number * HOUR_MS, session=f"s{number}", version=number))]
        raise OSError("the cable")

    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writing = writer.write_all(batches(), source="test")
        assert [next(writing).stored for _ in range(3)] == [1, 1, 1]
        with pytest.raises(OSError, match="the cable"):
            next(writing)
        writer.write([learned(connect(T0 + 9 * HOUR_MS, session="s9", version=9))], source="test")
    assert len(every_row(store_url)["evidence"]) == 4


def test_what_was_written_before_another_batch_failed_is_counted(store_url: str) -> None:
    class Failing(Writer):
        def _fold(self, *args: Any, **more: Any) -> Any:
            if next(turns) == 2:
                raise StoreError("the disk")
            return super()._fold(*args, **more)

    turns = itertools.count()
    batches = [[learned(connect(T0 + n * HOUR_MS, session=f"s{n}", version=n))] for n in range(5)]
    given: list[Counts] = []
    with open_writer(parse_url(store_url)) as store, Failing(store) as writer:
        with pytest.raises(StoreError, match="the disk"):
            given.extend(writer.write_all(batches, source="test"))
        assert len(given) == len(every_row(store_url)["evidence"]) == 2
        given.extend(writer.write_all(batches[2:], source="test"))
    assert [each.stored for each in given] == [1] * 5


def test_what_was_learned_in_one_moment_is_not_cut_in_two() -> None:
    """Half of it would be asked about, as known then, until the other half is there; a long moment is cut."""
    moments = [*range(7), *[7] * 5, *range(8, 15), *[20] * 30, None, None]
    items = [learned(connect(T0 + n, session=f"s{n}"), moment) for n, moment in enumerate(moments)]
    cut = [
        [each.known_at_ms for each in batch if isinstance(each, Learned)] for batch in Batches(items, most=10)
    ]
    assert [each for batch in cut for each in batch] == moments
    assert [len(batch) for batch in cut[:2]] == [11, 11]
    live = [learned(connect(T0 + n, session=f"s{n}")) for n in range(25)]
    assert [len(batch) for batch in Batches(live, most=10)] == [10, 10, 5]
    sizes = [len(batch) for batch in Batches(itertools.repeat(live[0], 3 * FIRST + 5))]
    assert sizes == [FIRST, 2 * FIRST, 5]
    twice = [learned(connect(T0 + n, session=f"s{n}"), n // 2) for n in range(44)]
    sizes = [len(batch) for batch in Batches(twice, most=21)]
    assert sizes == [22, 22]


def test_a_pause_ends_a_batch_but_not_in_the_midst_of_what_a_recording_learned_in_one_moment() -> None:
    live = [learned(connect(T0 + n, session=f"s{n}")) for n in range(3)]
    recorded = [learned(connect(T0 + n, session=f"s{n}"), NOW) for n in range(2)]
    told = [live[0], None, None, live[1], live[2], None, recorded[0], None, recorded[1], None]
    assert list(Batches(told)) == [live[:1], [], [], live[1:], [], [], [], recorded]
    told = [live[0], recorded[0], recorded[1], None, None, *live[1:]]
    assert list(Batches(told)) == [live[:1], [], recorded, [], live[1:]]
    told = [None, None, *([live[0]] * (FIRST + 5))]  # a pause is no batch: the first is no longer for it
    assert [len(batch) for batch in Batches(told)] == [0, 0, FIRST, 5]


def hurried(events: Sequence[Event]) -> list[list[Learned]]:
    return [[learned(each) for each in events[start : start + 20]] for start in range(0, len(events), 20)]


def test_ctrl_c_while_the_thread_that_writes_starts_leaves_nothing_half_written(
    sqlite_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, once = threading.Thread.start, [1]

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if once and thread.name.startswith("thingline-store"):
            once.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    batches = hurried(long_history("a"))
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store) as writer:
        with pytest.raises(KeyboardInterrupt):
            next(writer.write_all(batches, source="test"))
        time.sleep(0.5)  # whatever goes on in a thread that nobody waits for
        held = every_row(sqlite_store_url)
        assert not any(held[table] for table in ("evidence", "session_rows", "transitions", "clients"))
        assert sum(counts.stored for counts in writer.write_all(batches, source="test")) == 80


def test_ctrl_c_again_and_again_while_a_batch_is_written_takes_nothing_from_under_it(
    sqlite_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(Writer):
        def _leave(self, *args: Any) -> None:
            begun.set()
            go.wait(30)
            super()._leave(*args)

        def _fold(self, *args: Any, **more: Any) -> Any:
            if self._writing is not None:
                assert begun.wait(30)
                monkeypatch.setattr(threading.Thread, "join", interrupted)
                monkeypatch.setattr(Future, "exception", interrupted)
                threading.Timer(0.5, go.set).start()
                raise KeyboardInterrupt
            return super()._fold(*args, **more)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    batches = hurried(long_history("a"))
    with open_writer(parse_url(sqlite_store_url)) as store:
        with Slow(store) as slow, pytest.raises(KeyboardInterrupt):
            next(slow.write_all(batches, source="test"))
        monkeypatch.undo()
        assert len(every_row(sqlite_store_url)["evidence"]) == 20
        with Writer(store) as writer:
            found = [counts.stored for counts in writer.write_all(batches, source="test")]
    assert found == [0, 20, 20, 20]
    with open_reader(parse_url(sqlite_store_url)) as reading:
        assert not list(faults(reading))


def test_whoever_stops_listening_leaves_a_sound_store(store_url: str) -> None:
    events = long_history("a")
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writing = writer.write_all([[learned(each)] for each in events], source="test")
        next(writing)
        writing.close()  # type: ignore[attr-defined]
        assert sum(c.stored for c in writer.write_all([[learned(e) for e in events]], source="test")) > 70
    assert len(every_row(store_url)["evidence"]) == 80


IDS = ["a" * 32, "00000000-0000-0000-0000-000000000000", "x", "é" * 500, 'q"\\', "\\.", "y" * 1_024]


@pytest.mark.parametrize("few", [0, 1_000])
def test_rows_in_bulk_keep_every_kind_of_id_and_text(
    store_url: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Ids of any shape, and members that no column has, travel to either engine and back, few or many."""
    monkeypatch.setattr("store.postgres_rows.FEW", few)
    extra = '{"a\\u0000b":["\\"quoted\\"","line\\nend","],[","null",null,1.5e300]}'
    batch = [
        learned(connect(T0 + n * HOUR_MS, session=one, version=2**62, extra=extra if n % 2 else None))
        for n, one in enumerate(IDS)
    ]
    in_one_go(store_url, [batch])
    rows = every_row(store_url)
    assert [unpack_id(row[7]) for row in rows["evidence"]] == IDS
    assert [row[14] for row in rows["evidence"]] == [extra if n % 2 else None for n in range(len(IDS))]
    assert {row[8] for row in rows["evidence"]} == {2**62}
    assert sorted(unpack_id(row[1]) for row in rows["session_rows"]) == sorted(IDS)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_checks_of_one_moment_in_several_batches_are_one_step(store_url: str, order: tuple[int, ...]) -> None:
    """Asked at once and learned at once, the last by its text begins what later checks repeat, however it was cut."""
    asked_ms = T0 + HOUR_MS
    checks = [
        said_connected(asked_ms, None),
        said_connected(asked_ms, T0),
        said_connected(asked_ms, T0 + MINUTE_MS),
    ]
    items = [learned(observed(checks[at]), asked_ms) for at in order]
    for item in items:  # each by a writer of its own, which keeps nothing in mind
        one_by_one(store_url, [[item]])
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_what_a_step_disproves_in_one_batch_and_proves_in_the_next_stood_throughout(store_url: str) -> None:
    """Also where that next batch goes on to a later step, which disproves it for good."""
    lost = disconnect(T0 + 30, session="a", reason="DUPLICATE_CLIENTID")
    taking = connect(T0 + 52_784, session="c")
    between = disconnect(T0 + 51_835, session="b", reason="MQTT_KEEP_ALIVE_TIMEOUT")
    found = connect(T0, session="a")
    one_by_one(store_url, [[learned(lost, NOW - 3), learned(taking, NOW - 2)]])
    one_by_one(store_url, [[learned(between, NOW - 2), learned(found, NOW - 1)]])
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_an_answer_repeated_in_a_step_that_said_more_in_an_earlier_batch_is_a_check_of_that_step(
    store_url: str,
) -> None:
    """What it proves is the same derived again, where the order within a step is not known."""
    first, again = (said_disconnected(T0 + hours * HOUR_MS, T0 + 60_000, whole=True) for hours in (1, 2))
    end = disconnect(T0 + 60_264, session="a", version=3)
    one_by_one(store_url, [[learned(connect(T0, session="a", version=3), NOW - 5)]])
    one_by_one(store_url, [[learned(observed(first), NOW - 4)]])
    one_by_one(store_url, [[learned(end, NOW - 3)]])
    one_by_one(store_url, [[learned(observed(again), NOW - 3)]])
    one_by_one(store_url, [[learned(connect(T0 + 60_264, session="b", version=4), NOW - 2)]])
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_copies_alone_keep_no_answer_from_being_a_repetition(store_url: str) -> None:
    """They are folded at a moment that is never written, which may be later than what a recording claims next."""
    event = connect(T0, session="a", version=0)
    begun, copies = learned(event, NOW - 100), learned(event)
    checks = [said_connected(T0 + hours * HOUR_MS, T0) for hours in (1, 2)]
    first, again = (learned(observed(each), NOW - 90 + at) for at, each in enumerate(checks))
    assert [counts.repeated for counts in one_by_one(store_url, [[begun], [first], [copies], [again]])] == [
        0,
        0,
        0,
        1,
    ]


def test_what_a_check_reveals_is_counted_and_what_it_confirms_is_not(store_url: str) -> None:
    events = [learned(connect(T0, session="s", version=0))]
    agrees, differs = said_connected(T0 + HOUR_MS, T0), said_connected(T0 + 3 * HOUR_MS, T0 + 2 * HOUR_MS)
    again = differs._replace(asked_ms=T0 + 4 * HOUR_MS)
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write(events, source="test")
        found = [
            writer.write([learned(observed(check))], source="test") for check in (agrees, differs, again)
        ]
    assert [(each.revealed, each.repeated) for each in found] == [(0, 0), (1, 0), (0, 1)]


@pytest.mark.parametrize("write", [one_by_one, in_one_go])
@pytest.mark.parametrize("held", ["SELECT FROM clients FOR UPDATE", "LOCK evidence", "LOCK transitions"])
def test_of_two_that_wait_for_each_other_the_one_that_is_stopped_writes_again(
    postgres_store_url: str, write: Callable[..., list[Counts]], held: str
) -> None:
    url = parse_url(postgres_store_url)
    one_by_one(postgres_store_url, [[learned(connect(T0, session="a"))]])
    news = learned(disconnect(T0 + 1, session="a", reason="NEW"))
    after = learned(connect(T0 + 2, session="b"))
    with open_writer(url) as store, store.detached() as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout = '60s'")  # so that it is not the one that is stopped
        other.execute("BEGIN")
        other.execute(held)
        writing = pool.submit(write, postgres_store_url, [[news], [after]])
        while not other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            time.sleep(0.01)
        other.execute(
            "INSERT INTO texts (text) VALUES ('NEW')"
        )  # which the writer has put there, and not committed
        other.execute("ROLLBACK")
        assert [counts.stored for counts in writing.result(timeout=60)] == [1, 1]
    with open_reader(url) as reading:
        assert not list(faults(reading))
