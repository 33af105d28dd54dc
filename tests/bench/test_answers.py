"""Point answers beside an exact-key look-up through the same driver, and `ask` beside asking one by one."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from queries.history import Question, open_history
from store.answer import Asker
from store.engine import open_reader, parse_url
from tests.bench.test_ingest import lines, ours
from tests.builders import T0

pytestmark = pytest.mark.bench

EVENTS = 200_000
DEVICES = 2_000
ASKED = 20_000


def microseconds(run: Callable[[], object], count: int) -> float:
    """Time `run` three times; gives the median, a call of the `count` that each makes."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        found.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(found)


def test_point_answers_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    ours(url, lines(random.Random(2), EVENTS, DEVICES))
    rng = random.Random(3)
    with sqlite3.connect(tmp_path / "store.db") as db:
        (end,) = db.execute("SELECT max(at_ms) FROM evidence").fetchone()
        keys = db.execute("SELECT client_no, at_ms, seq, recorded_at FROM transitions").fetchall()
    keys = rng.sample(keys, ASKED)
    asked = [
        (f"device-{rng.randrange(DEVICES):06}", rng.randrange(T0 + 3_600_000, end)) for _ in range(ASKED)
    ]
    names = {name: number for number, (name, _) in enumerate(asked)}
    print(f"\nSQLite, {EVENTS:,} transitions, {DEVICES:,} devices, {ASKED:,} random questions")
    with sqlite3.connect(tmp_path / "store.db") as db:
        exact = (
            "SELECT at_ms, state, timestamp_ms, reason_no FROM transitions"
            " WHERE client_no = ? AND at_ms = ? AND seq = ? AND recorded_at = ?"
        )
        base = microseconds(lambda: [db.execute(exact, key).fetchone() for key in keys], ASKED)
        print(f"  exact-key look-up, raw driver      {base:8.1f} us")
    with open_reader(parse_url(url)) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=True)
        with asker.snapshot() as mark:
            numbers = {name: asker.client_named(name) for name in names}
            found = microseconds(
                lambda: [asker.before(numbers[name] or 0, at_ms + 1, mark) for name, at_ms in asked], ASKED
            )
            print(f"  transition in force, store level   {found:8.1f} us  {found / base:5.2f} x")
            found = microseconds(
                lambda: [asker.in_force(numbers[name] or 0, at_ms, mark) for name, at_ms in asked], ASKED
            )
            print(f"  ... with its certainty             {found:8.1f} us  {found / base:5.2f} x")
    with open_history(url) as history:
        single = microseconds(lambda: [history.at(name, at_ms) for name, at_ms in asked], ASKED)
        print(f"  history.at(thing, time)            {single:8.1f} us  {single / base:5.2f} x")
        questions = [Question(name, at_ms) for name, at_ms in asked]
        many = microseconds(lambda: list(history.ask(questions)), ASKED)
        print(
            f"  history.ask(many), a question      {many:8.1f} us  {single / many:5.1f} x as fast as one by one"
        )
        assert [reply.answer for reply in history.ask(questions)] == [history.at(*one) for one in asked]
