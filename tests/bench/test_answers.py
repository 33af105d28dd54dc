"""Point answers beside an exact-key look-up through the same driver, and `ask` beside asking one by one."""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.writer import Writer
from queries.history import History, Question, Reply, open_history
from queries.output import ReplyLines, json_line, reply_json
from store.answer import Asker
from store.engine import open_reader, open_writer, parse_url
from store.errors import AnswerError, ResourceNotFound
from store.garbage import uncollected
from store.model import Learned
from tests.bench.test_ingest import libpq, lines, ours
from tests.builders import T0, connect

pytestmark = pytest.mark.bench

EVENTS = 200_000
DEVICES = 2_000
ASKED = 20_000
MANY = 1_000_000
BACK = 500 * 86_400_000
ROOT = Path(__file__).resolve().parents[2]


def microseconds(run: Callable[[], object], count: int) -> float:
    """Time `run` three times; gives the median, a call of the `count` that each makes."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        found.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(found)


def drawn(rng: random.Random, count: int, end: int) -> list[tuple[str, int]]:
    return [(f"device-{rng.randrange(DEVICES):06}", rng.randrange(T0 + 3_600_000, end)) for _ in range(count)]


def beside_exact_keys(url: str, execute: Callable[..., Any], mark: str) -> None:
    """Print what point answers cost beside an exact-key look-up through `execute`, whose parameters are `mark`."""
    ours(url, lines(random.Random(2), EVENTS, DEVICES))
    rng = random.Random(3)
    execute("ANALYZE")
    (end,) = execute("SELECT max(at_ms) FROM evidence").fetchone()
    keys = execute("SELECT client_no, at_ms, seq, recorded_at FROM transitions").fetchall()
    keys = rng.sample(keys, ASKED)
    asked = drawn(rng, ASKED, end)
    print(f"  {EVENTS:,} transitions, {DEVICES:,} devices, {ASKED:,} random questions")
    exact = (
        "SELECT at_ms, state, timestamp_ms, reason_no FROM transitions"
        " WHERE client_no = ? AND at_ms = ? AND seq = ? AND recorded_at = ?"
    ).replace("?", mark)
    base = microseconds(lambda: [execute(exact, key).fetchone() for key in keys], ASKED)
    print(f"  exact-key look-up, raw driver      {base:8.1f} us")
    with open_reader(parse_url(url)) as store, store.detached() as driver:
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        with asker.snapshot() as known_at:
            numbers = [asker.client_named(name) or 0 for name, _ in asked]
            sought = list(zip(numbers, (at_ms for _, at_ms in asked), strict=True))
            seek = [{"client_no": no, "at_ms": at_ms + 1, "known_at": known_at} for no, at_ms in sought]
            found = microseconds(lambda: [asker.rows("before", **values) for values in seek], ASKED)
            print(f"  transition in force, store level   {found:8.1f} us  {found / base:5.2f} x")
            found = microseconds(lambda: [asker.in_force(*one, known_at) for one in sought], ASKED)
            print(f"  with its certainty, store level    {found:8.1f} us  {found / base:5.2f} x")
    with open_history(url) as history:
        single = microseconds(lambda: [history.at(name, at_ms) for name, at_ms in asked], ASKED)
        print(f"  history.at(thing, time)            {single:8.1f} us  {single / base:5.2f} x")
        answers = [history.at(*one) for one in asked]
        replies = [
            Reply(*one, answer.known_at, answer, None) for one, answer in zip(asked, answers, strict=True)
        ]
        written = microseconds(lambda: [json_line(reply_json(reply)) for reply in replies], ASKED) + single
        line = ReplyLines().line
        for count in (ASKED, MANY):
            questions = [Question(name, at_ms) for name, at_ms in drawn(rng, count, end)]

            def each(questions: list[Question] = questions) -> Iterator[Reply]:
                """Make a reply to each, of an answer at hand."""
                for name, at_ms, _ in questions:
                    assert isinstance(at_ms, int)
                    yield Reply(name, at_ms, 0, answers[0], None)

            made = microseconds(lambda: sum(1 for _ in each()), count)
            many = microseconds(lambda: sum(1 for _ in history.ask(questions)), count)  # noqa: B023
            with uncollected():  # as `thingline ask` does
                lines_of = microseconds(lambda: sum(len(line(one)) for one in history.ask(questions)), count)  # noqa: B023
            print(f"  {count:,} questions, each:")
            print(f"    reply made, nothing looked up     {made:8.2f} us  {single / made:5.1f} x one by one")
            print(f"    history.ask                       {many:8.2f} us  {single / many:5.1f} x")
            print(
                f"    written as NDJSON                 {lines_of:8.2f} us  {written / lines_of:5.1f} x one by one"
            )
        told = list(history.ask(Question(*one) for one in asked))
        assert [reply.answer for reply in told] == answers
        assert [line(reply) for reply in told] == [json_line(reply_json(reply)) for reply in replies]


def test_point_answers_on_sqlite(tmp_path: Path) -> None:
    print("\nSQLite")
    with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as db:
        beside_exact_keys(f"sqlite:///{tmp_path}/store.db", db.execute, "?")


def test_point_answers_on_postgresql(postgres_store_url: str) -> None:
    print("\nPostgreSQL, Unix socket")
    with psycopg.connect(libpq(postgres_store_url), autocommit=True) as db:
        beside_exact_keys(postgres_store_url, db.execute, "%s")


LATE = 300_000


def test_what_was_learned_later_costs_an_older_question_little(tmp_path: Path) -> None:
    """Nearly all of the evidence is older than what was known then, and was learned after it."""
    url = f"sqlite:///{tmp_path}/store.db"
    known_at = T0 - BACK + LATE * 1_000 + 1_000_000

    def learned(number: int, moment: int | None) -> Learned:
        event = connect(
            T0 - BACK + number * 1_000, session=f"s{number}", version=0, client_id=f"c{number % 3_000}"
        )
        return Learned(event, 0, moment)

    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        writer.write([learned(n, known_at - 1) for n in range(LATE - 1_000, LATE)], source="live")
        for start in range(0, LATE - 1_000, 20_000):
            stop = min(start + 20_000, LATE - 1_000)
            writer.write([learned(n, None) for n in range(start, stop)], source="late")
    at_ms = T0 - BACK + (LATE - 1) * 1_000
    print(f"\nSQLite, {LATE:,} events, the oldest {LATE - 1_000:,} learned after known_at")
    for name, kind in ((f"c{(LATE - 1) % 3_000}", None), ("nope", ResourceNotFound)):
        with open_history(url) as history:
            for turn in ("first", "then"):
                began = time.perf_counter()
                kind_found = answer_or_error(history, name, at_ms, known_at)
                took = (time.perf_counter() - began) * 1e6
                assert kind_found is kind
                print(f"  {'known' if kind is None else 'unknown'} name, {turn:<6} {took:10.1f} us")


def answer_or_error(history: History, name: str, at_ms: int, known_at: int) -> type[AnswerError] | None:
    try:
        history.at(name, at_ms, known_at=known_at)
    except AnswerError as error:
        return type(error)
    return None


TEN_MILLION = 10_000_000
MOST_MB = 300
ASKS = """
import random, sys
from pathlib import Path
from queries.history import Question, open_history

url, names, count, low, high = sys.argv[1], *map(int, sys.argv[2:])
rng = random.Random(6)
with open_history(url) as history:
    def drawn():
        for _ in range(count):
            yield Question(f"device-{int(rng.random() * names):06}", low + int(rng.random() * (high - low)))

    told = sum(1 for reply in history.ask(drawn()) if reply.answer is not None)
print(told, int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.parametrize("names", [10_000, 1_000_000])
def test_ten_million_questions_take_constant_memory(tmp_path: Path, names: int) -> None:
    """Of a million names, the store knows ten thousand."""
    url = f"sqlite:///{tmp_path}/store.db"
    ours(url, lines(random.Random(2), EVENTS, 10_000))
    with sqlite3.connect(tmp_path / "store.db") as db:
        low, high = db.execute("SELECT min(at_ms), max(at_ms) FROM evidence").fetchone()
    for count in (TEN_MILLION // 10, TEN_MILLION):
        given = [sys.executable, "-c", ASKS, url, *map(str, (names, count, low, high))]
        told, peak_mb = map(
            int, subprocess.run(given, capture_output=True, text=True, check=True).stdout.split()
        )
        print(f"\nSQLite, {count:,} questions about {names:,} names, {told:,} known: peak {peak_mb} MB")
        assert told > count * 9_000 // names
        assert peak_mb < MOST_MB
