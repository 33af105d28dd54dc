"""What is remembered of answers changes none: nothing that was committed is missed, and no answer outlasts itself."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import chain

import pytest

import queries.recent
from ingest.purge import purge
from ingest.writer import Writer
from queries.history import History
from queries.parameters import parameters_of
from store.asker import Asker
from store.engine import open_reader, open_writer, parse_url
from store.errors import AnswerError
from store.model import Learned, Watch
from tests.builders import CLIENT, T0, connect
from tests.property.test_check_laws import in_turn, learned
from tests.property.test_purge_laws import stamp
from tests.strategies import checked_history, history
from tests.test_readme import HOME

ROUNDS = 12
NAMES = [*(f"client-{number}" for number in range(7)), "t"]  # "t" is a thing that several of them bear
NOW = 1_900_000_000_000


def outcome(opened: History, name: str, at_ms: int, known_at: int | None) -> object:
    """Ask for the answer as it is remembered."""
    try:
        return opened.connection(name, at_ms, known_at=known_at)
    except AnswerError as error:
        return type(error), str(error)


def sought(opened: History, name: str, at_ms: int, known_at: int | None) -> object:
    """Ask anew."""
    try:
        answer = opened.at(name, at_ms, known_at=known_at)
        with opened.reading() as reading:
            return answer, parameters_of(reading.asker, answer)
    except AnswerError as error:
        return type(error), str(error)


@pytest.mark.parametrize("most", [queries.recent.MOST, 7])
def test_a_remembered_answer_is_what_asking_anew_gives(
    store_url: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(queries.recent, "MOST", most)
    drawn = [history(rng, f"client-{n}") for n in range(6)] + [
        checked_history(rng, f"client-{n}") for n in range(6)
    ]
    told = in_turn(rng, drawn)
    stamps = sorted(stamp(each) for each in told)
    items = learned(told, stamps)
    url = parse_url(store_url)
    with open_writer(url):
        pass
    hits = 0
    with (
        History(open_reader(url), clock=lambda: NOW) as opened,
        History(open_reader(url), clock=lambda: NOW) as other,
    ):
        found = opened._recent.find

        def counted(*about: object) -> object:
            nonlocal hits
            told = found(*about)  # type: ignore[arg-type]
            hits += told is not None
            return told

        monkeypatch.setattr(opened._recent, "find", counted)
        for number in range(ROUNDS):
            part = items[number * len(items) // ROUNDS : (number + 1) * len(items) // ROUNDS]
            low, high = sorted(rng.sample(stamps, 2))
            with open_writer(url) as store, Writer(store, clock=lambda: NOW) as writer:
                writer.write(part, source="test")
                if number % 4 == 3:
                    writer.write([Learned(Watch("sqs", low, high + 1), 0, None)], source="test")
            asked = [
                (
                    rng.choice(NAMES),
                    rng.choice(stamps) + rng.choice((-1, 0, 1, 60_000)),
                    rng.choice((None, None, rng.choice(stamps))),
                )
                for _ in range(60)
            ]
            asked += [("client-1", NOW + 1, None), ("no such thing", NOW + 1, None)]
            again = rng.choices(asked, k=60)
            in_turns = rng.random() < 0.5
            for place, question in enumerate(chain(asked, again)):
                if in_turns and place % 7 == 0:
                    opened.end_turn()
                    opened.begin_turn()
                assert outcome(opened, *question) == sought(other, *question), (number, question)
            opened.end_turn()
            if number % 5 == 4:
                with open_writer(url) as store:
                    purge(store, stamps[number * len(stamps) // ROUNDS // 2])
                for question in again:
                    assert outcome(opened, *question) == sought(other, *question), (number, question)
    assert hits > ROUNDS


COMMITS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    for statement in line.split(";"):
        connection.execute(statement)
    print("done", flush=True)
"""


def test_a_glance_misses_no_commit_of_another_process(sqlite_store_url: str) -> None:
    """However the log is written: on, from its beginning, or after it was emptied."""
    open_writer(parse_url(sqlite_store_url)).close()
    path = sqlite_store_url.removeprefix("sqlite:///")
    put = "INSERT INTO texts (text) VALUES ('{}')"
    with (
        subprocess.Popen(
            [sys.executable, "-c", COMMITS, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HOME,
        ) as other,
        open_reader(parse_url(sqlite_store_url)) as store,
        store.detached() as driver,
    ):
        assert other.stdin is not None
        assert other.stdout is not None

        def run(statements: str) -> None:
            other.stdin.write(f"{statements}\n")  # type: ignore[union-attr]
            other.stdin.flush()  # type: ignore[union-attr]
            assert other.stdout.readline() == "done\n"  # type: ignore[union-attr]

        asker = Asker(driver, is_sqlite=True)

        def settle() -> None:
            for _ in range(2):
                with asker.snapshot():
                    pass

        settle()
        for number in range(200):
            assert asker.glance() is not None
            run(f"BEGIN;{put.format(number)}")
            assert asker.glance() is not None  # it is not committed
            run("COMMIT")
            assert asker.glance() is None
            settle()
            if number % 10 == 3:
                run("PRAGMA wal_checkpoint(PASSIVE)")
            if number % 10 == 7:
                run("PRAGMA wal_checkpoint(TRUNCATE)")
                settle()
        other.stdin.close()


def test_a_glance_misses_no_commit_on_postgresql(postgres_store_url: str) -> None:
    url = parse_url(postgres_store_url)
    with (
        open_writer(url) as writing,
        writing.detached() as other,
        History(open_reader(url)) as opened,
        opened.reading() as reading,
    ):
        with Writer(writing, clock=lambda: NOW) as writer:
            writer.write([Learned(Watch("sqs", 0, 1), 0, None)], source="test")
        asker = reading.asker
        asker.end()
        for number in range(50):
            for _ in range(20):
                with asker.snapshot() as mark:
                    assert asker.glance() == mark
                if asker.glance() == asker.glance() == mark:
                    break
            else:  # once or twice the server may have cleaned up between two looks, but not each time
                pytest.fail("a glance never tells that nothing was committed")
            other.execute("BEGIN")
            other.execute("INSERT INTO texts (text) VALUES (%s)", (str(number),))
            other.execute("COMMIT")
            assert asker.glance() is None
        asker.begin()


def test_one_look_does_for_a_turn_and_no_longer(store_url: str) -> None:
    url = parse_url(store_url)
    with (
        open_writer(url) as writing,
        Writer(writing, clock=lambda: NOW) as writer,
        History(open_reader(url), clock=lambda: NOW) as opened,
    ):
        for at_ms in range(T0, T0 + 5):
            writer.write([Learned(connect(at_ms, session=str(at_ms)), at_ms, None)], source="test")
            opened.connection(CLIENT, NOW)  # is remembered
            opened.begin_turn()
            before = opened.connection(CLIENT, NOW)[0]
            writer.write([Learned(connect(at_ms + 1, session="later"), at_ms, None)], source="test")
            assert opened.connection(CLIENT, NOW)[0] == before
            opened.end_turn()
            assert opened.connection(CLIENT, NOW)[0].known_at > before.known_at
