"""The thread beside the writer's: jobs in their order, none after a failure, and none that begins once stopped."""

from __future__ import annotations

import sys
import threading
from functools import partial

import pytest

from ingest.beside import Beside


class Database:
    """Counts how often it was asked to give up, and to take a transaction back."""

    def __init__(self) -> None:
        self.interrupted = self.undone = 0
        self.asked = threading.Semaphore(0)

    def undo(self) -> None:
        self.undone += 1

    def interrupt(self) -> None:
        self.interrupted += 1
        self.asked.release()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def beside(database: Database) -> Beside:
    return Beside(database.undo, database.interrupt)


def test_jobs_are_done_in_their_order_and_waited_for(beside: Beside, database: Database) -> None:
    done: list[int] = []
    with beside.running():
        jobs = [beside.begin(partial(done.append, number)) for number in range(5)]
        beside.wait()
    assert done == [0, 1, 2, 3, 4]
    assert all(job.done() for job in jobs)
    assert (database.undone, database.interrupted) == (0, 0)


def test_what_fails_is_undone_at_once_and_nothing_is_done_after_it(
    beside: Beside, database: Database
) -> None:
    def fail() -> None:
        raise ValueError("the first")

    done: list[int] = []
    with beside.running():
        beside.begin(fail).exception()
        assert database.undone == 1  # before anybody waits for it
        for number in range(3):
            beside.begin(partial(done.append, number))
        for _ in range(2):
            with pytest.raises(ValueError, match="the first"):
                beside.wait()
        beside.stop()
        beside.begin(lambda: done.append(9))
        beside.wait()
    assert (done, database.undone) == ([9], 1)


def test_what_was_begun_is_stopped_as_often_as_it_takes_and_nothing_else_begins(
    beside: Beside, database: Database
) -> None:
    """A database that is asked between two statements knows of nothing to give up."""
    begun, done = threading.Event(), list[str]()

    def statements() -> None:
        begun.set()
        for _ in range(3):
            assert database.asked.acquire(timeout=30)
        raise KeyError("given up")

    with beside.running():
        job, after = beside.begin(statements), beside.begin(lambda: done.append("after"))
        assert begun.wait(30)
        beside.stop()
        assert isinstance(job.exception(30), KeyError)
        assert isinstance(after.exception(30), RuntimeError)
        assert not beside.connection.locked()
    assert (done, database.undone) == ([], 1)
    assert database.interrupted >= 3


def test_the_turns_of_threads_are_as_long_as_before_once_the_last_has_ended(beside: Beside) -> None:
    usual_s, other = sys.getswitchinterval(), Beside(int, int)  # type: ignore[arg-type]
    one, two = beside.running(), other.running()
    one.__enter__()
    two.__enter__()
    assert sys.getswitchinterval() < usual_s
    one.__exit__(None, None, None)
    assert sys.getswitchinterval() < usual_s
    two.__exit__(None, None, None)
    assert sys.getswitchinterval() == usual_s
