"""The runner and its inbox, with sources made for the purpose: order, bounds, and what happens when one breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from ingest.inbox import Delivery, Inbox
from ingest.ledger import Ledger
from ingest.run import MOST_RECORDS, Runner
from ingest.tally import Tally
from ingest.writer import Writer
from store.engine import Store, open_writer, parse_url
from store.errors import SourceError
from store.model import Learned
from tests.builders import T0, connect


class Given:
    """A source that delivers what a test gives it."""

    def __init__(self, name: str, deliver: Callable[[Inbox], None]) -> None:
        self.name = name
        self._deliver = deliver
        self.ended = False

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        self._deliver(inbox)

    def end(self, *, within_s: float) -> None:
        self.ended = True


def events(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM evidence")).scalar_one())


def delivery(number: int, settle: Callable[[], None]) -> Delivery:
    item = Learned(connect(T0 + number, session=f"s{number}", version=number), number)
    return Delivery("given", [item], 100, settle)


def test_what_was_delivered_is_settled_after_its_commit_and_all_of_it_before_the_end(store_url: str) -> None:
    seen: list[int] = []
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        runner: Runner

        def deliver(inbox: Inbox) -> None:
            for number in range(300):
                assert inbox.put(delivery(number, lambda: seen.append(events(store))))
            runner.stop()

        source = Given("given", deliver)
        runner = Runner([source], Ledger(store), Tally())
        runner.run(writer)
        assert events(store) == 300
    assert len(seen) == 300
    assert all(count > at for at, count in enumerate(seen))  # each sees at least itself
    assert source.ended


def test_a_thread_that_breaks_ends_it_all_once_what_came_is_written(sqlite_store_url: str) -> None:
    def deliver(inbox: Inbox) -> None:
        inbox.put(delivery(1, lambda: None))
        threading.Thread(target=lambda: [][0], name="receiver").start()

    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store) as writer:
        before = threading.excepthook
        with pytest.raises(SourceError, match="receiver failed: IndexError"):
            Runner([Given("given", deliver)], Ledger(store), Tally()).run(writer)
        assert events(store) == 1
        assert threading.excepthook is before


def test_an_inbox_that_is_full_holds_up_who_fills_it_and_takes_no_more_once_closed() -> None:
    inbox = Inbox(most_bytes=250)
    put: list[bool] = []

    def fill() -> None:
        put.extend(inbox.put(delivery(number, lambda: None)) for number in range(6))

    thread = threading.Thread(target=fill)
    thread.start()
    until_s = time.monotonic() + 10
    while len(put) < 3:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    time.sleep(0.05)
    assert (put, inbox.held, inbox.held_bytes) == ([True] * 3, 3, 300)
    assert len(inbox.take(most=MOST_RECORDS, wait_s=0)) == 3
    while len(put) < 6:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    thread.join()
    inbox.close()
    assert not inbox.put(delivery(9, lambda: None))
    assert [len(inbox.take(most=2, wait_s=0)) for _ in range(3)] == [2, 1, 0]
