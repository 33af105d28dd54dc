"""A longer history behind the same question; instants corrected again and again; late events."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ingest.writer import Writer
from queries.history import History, Question, open_history
from store.answer import Answer, Asker
from store.engine import Store, open_reader, open_writer, parse_url
from store.model import Event, Learned
from tests.bench.test_ingest import lines, ours
from tests.builders import T0, connect, disconnect

pytestmark = pytest.mark.bench

MINUTE_MS = 60_000
DEVICES = 20
RECENT = 2_000  # events
BEHIND = 100  # times as many
ASKED = 300
MANY = 10_000
BACK = 500 * 86_400_000


def microseconds(run: Callable[[], Sequence[object]]) -> float:
    """Time `run` five times, after once unmeasured; gives the median, an element of what it gives."""
    count = len(run())
    found = []
    for _ in range(5):
        began = time.perf_counter()
        run()
        found.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(found)


# --- Growth -------------------------------------------------------------------------------------------------

# A planner that knows of one realm takes the order of the key; else it sorts all of the client's rows.
VIEWS = {
    "timeline, with realm": "SELECT state, timestamp_ms FROM timeline WHERE realm = 'default' AND client_id = ?"
    " AND at_ms <= ? ORDER BY at_ms DESC, seq DESC LIMIT 1",
    "timeline": "SELECT state, timestamp_ms FROM timeline WHERE client_id = ? AND at_ms <= ?"
    " ORDER BY at_ms DESC, seq DESC LIMIT 1",
    "periods": "SELECT state, timestamp_ms FROM periods WHERE client_id = ?"
    " AND from_ms <= ? AND (to_ms IS NULL OR to_ms > ?)",
    "current_status": "SELECT state, timestamp_ms FROM current_status WHERE client_id = ?",
}
FUNCTIONS = {
    "connectivity_at": "SELECT f.state, f.timestamp_ms FROM (VALUES (CAST(? AS text))) n (name)"
    " CROSS JOIN connectivity_at(to_timestamp(0.001 * ?)) f WHERE f.client_id = n.name",
}  # of PostgreSQL
SLOW = 40  # questions to a view, whose cost may rise with the history


@contextmanager
def asked_of(url: str) -> Iterator[tuple[History, Store, Any]]:
    with (
        open_history(url, clock=lambda: T0 + 10**12) as history,
        open_reader(parse_url(url)) as store,
        store.detached() as driver,
    ):
        driver.execute("SELECT 1")
        yield history, store, driver


def without_moment(answers: Sequence[Answer | None]) -> list[tuple[object, ...]]:
    return [
        () if one is None else (one.at_ms, one.connected, one.timestamp_ms, one.certainty) for one in answers
    ]


def test_the_same_question_with_a_longer_history_behind_it(
    store_url: str, other_store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = lines(random.Random(2), RECENT * BEHIND, DEVICES).split(b"\n")
    short, long = store_url, other_store_url
    ours(short, b"\n".join(everything[-RECENT:]))
    ours(long, b"\n".join(everything))
    rng = random.Random(3)
    figures: dict[str, list[float]] = {}
    answers: dict[str, list[object]] = {}
    with open_reader(parse_url(short)) as store, store.detached() as driver:
        ((low, high),) = driver.execute("SELECT min(at_ms), max(at_ms) FROM evidence").fetchall()
    low = (low + high) // 2
    asked = [(f"device-{rng.randrange(DEVICES):06}", rng.randrange(low, high)) for _ in range(MANY)]
    few = asked[:ASKED]
    for url in (short, long):
        if not url.startswith("sqlite"):
            with open_writer(parse_url(url)) as writing, writing.detached() as driver:
                driver.execute("ANALYZE")
        with asked_of(url) as (history, store, driver):
            mark = "?" if store.is_sqlite else "%s"

            def note(name: str, run: Callable[[], Sequence[object]], said: list[object]) -> None:
                figures.setdefault(name, []).append(microseconds(run))
                answers.setdefault(name, []).append(said)

            def at() -> list[Answer]:
                return [history.at(*one) for one in few]

            def window() -> list[list[Any]]:
                return [list(history.transitions(name, from_=low)) for name, _ in few]

            def ask() -> list[Answer | None]:
                return [one.answer for one in history.ask(Question(*one) for one in asked)]

            note("history.at", at, list(without_moment(at())))
            said = [[(one.seen.at_ms, one.seen.state) for one in found[1:]] for found in window()]
            note("history.transitions, one window", window, list(said))
            note(f"history.ask({MANY:,}), a question", ask, list(without_moment(ask())))
            for name, text in (VIEWS if store.is_sqlite else VIEWS | FUNCTIONS).items():

                def view(text: str = text) -> list[tuple[object, ...]]:
                    text = text.replace("?", mark)  # noqa: B023
                    values = [(name, at_ms, at_ms)[: text.count(mark)] for name, at_ms in few[:SLOW]]  # noqa: B023
                    return [tuple(driver.execute(text, one).fetchone()) for one in values]

                note(f"view {name}, one thing at T", view, list(view()))
    with capsys.disabled():
        print(
            f"\n{'SQLite' if short.startswith('sqlite') else 'PostgreSQL'}, {BEHIND} x the history behind it"
        )
        for name, (once, hundred) in figures.items():
            print(f"  {name:36} {once:9.1f} us  {hundred:9.1f} us  {hundred / once:6.2f} x")
    for name, (first, second) in answers.items():
        assert first == second, name


# --- Corrected again and again --------------------------------------------------------------------------------

CORRECTED = 100  # times


def corrections() -> Iterator[list[Event]]:
    """Give batches: every device connects and disconnects, then the disconnect gets another reason each time."""
    began = T0 - BACK

    def ends(number: int, at_ms: int, version: int, reason: str) -> Event:
        client = f"device-{number:06}"
        return disconnect(
            at_ms, session=f"{number}-{version}", version=version, reason=reason, client_id=client
        )

    first = []
    for number in range(DEVICES):
        for version in range(30):
            at_ms = began + version * 20 * MINUTE_MS
            client = f"device-{number:06}"
            first.append(connect(at_ms, session=f"{number}-{version}", version=version, client_id=client))
            first.append(ends(number, at_ms + 10 * MINUTE_MS, version, "Z"))
    yield first
    at_ms = began + 10 * 20 * MINUTE_MS + 10 * MINUTE_MS  # the smallest that any copy gives holds
    for turn in range(CORRECTED):
        yield [ends(number, at_ms, 10, f"R{CORRECTED - turn:03}") for number in range(DEVICES)]


def test_a_corrected_instant_as_known_at_any_moment(
    store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = parse_url(store_url)
    with open_writer(url) as store, Writer(store) as writer:
        for batch in corrections():
            writer.write([Learned(event, 0) for event in batch], source="test")
        with store.detached() as driver:
            driver.execute("ANALYZE")
    rng = random.Random(4)
    instant = T0 - BACK + 10 * 20 * MINUTE_MS + 15 * MINUTE_MS
    elsewhere = instant + 10 * 20 * MINUTE_MS
    with open_reader(url) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        with asker.snapshot() as mark:
            rows = driver.execute(
                "SELECT client_no, recorded_at, superseded_at FROM transitions WHERE superseded_at IS NOT NULL"
            ).fetchall()
            assert len(rows) == CORRECTED * DEVICES
            # As known while the row stood.
            drawn = [(rng.choice(rows), rng.random()) for _ in range(2_000)]
            then = [(row[0], row[1] + int(part * (row[2] - row[1]))) for row, part in drawn]

            def ask(at_ms: int, known: Sequence[tuple[int, int]]) -> list[Any]:
                return [asker.in_force(client_no, at_ms, known_at) for client_no, known_at in known]

            now = [(client_no, mark) for client_no, _ in then]
            base = microseconds(lambda: ask(elsewhere, now))
            settled = microseconds(lambda: ask(instant, now))
            past = microseconds(lambda: ask(instant, then))
            for (row, _), found in zip(drawn, ask(instant, then), strict=True):
                assert (found.seen.recorded_at, found.seen.superseded_at) == (row[1], row[2])
    with capsys.disabled():
        print(
            f"\n{'SQLite' if store.is_sqlite else 'PostgreSQL'}, {CORRECTED} superseded rows at the instant"
        )
        print(f"  as known now, nothing superseded   {base:8.1f} us")
        print(f"  as known now, at the instant       {settled:8.1f} us  {settled / base:5.2f} x")
        print(f"  as known at K, at the instant      {past:8.1f} us  {past / base:5.2f} x")


# --- Late events ----------------------------------------------------------------------------------------------

LONG = 100_000  # transitions of one client
LATE = 100  # events


def test_a_late_event_beside_one_in_order(store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    began, step = T0 - BACK, 10 * MINUTE_MS

    def session(version: int) -> list[Event]:
        at_ms = began + version * step
        return [
            connect(at_ms, session=f"s{version}", version=version),
            disconnect(at_ms + step // 2, session=f"s{version}", version=version),
        ]

    rng = random.Random(5)
    sessions = LONG // 2
    late = set(rng.sample(range(1_000, sessions - 1_000), 2 * LATE))
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:

        def write(events: Sequence[Event]) -> None:
            writer.write([Learned(event, 0) for event in events], source="test")

        events = [event for version in range(sessions) if version not in late for event in session(version)]
        for start in range(0, len(events), 20_000):
            write(events[start : start + 20_000])
        in_order = [event for version in range(sessions, sessions + LATE) for event in session(version)]
        missing = sorted(late)
        rng.shuffle(missing)
        belated = [event for version in missing for event in session(version)]

        def took(events: Sequence[Event], batch: int) -> float:
            found = []
            for start in range(0, len(events), batch):
                clock = time.perf_counter()
                write(events[start : start + batch])
                found.append((time.perf_counter() - clock) / batch * 1e6)
            return statistics.median(found)

        alone = took(in_order[:LATE], 1), took(belated[:LATE], 1)
        together = took(in_order[LATE:], 20), took(belated[LATE : 2 * LATE], 20)
        write(belated[2 * LATE :])
    with open_history(store_url) as history:
        found = sum(1 for _ in history.transitions("pump-17"))
    assert found == 2 * (sessions + LATE)
    with capsys.disabled():
        print(f"\n{'SQLite' if store.is_sqlite else 'PostgreSQL'}, one thing with {LONG:,} transitions")
        for name, (ordered, lately) in {"a batch each": alone, "batches of 20": together}.items():
            print(f"  {name:14} in order {ordered:9.1f} us  late {lately:9.1f} us  {lately / ordered:5.2f} x")
