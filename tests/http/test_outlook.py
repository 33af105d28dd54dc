"""When a question that waits for long is given up: where a new connection gets no answer either, and not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from queries.http.outlook import Outlook
from store.errors import StoreAway

SLOW_S, PATIENCE_S = 0.05, 0.3
Watching = Callable[[Callable[[], object]], tuple[Outlook, list[str]]]


@pytest.fixture
def watching() -> Iterator[Watching]:
    """Give what watches over a server that is tried so, and the list of what was cut off."""
    with ExitStack() as opened:

        def watch(try_anew: Callable[[], object]) -> tuple[Outlook, list[str]]:
            cut: list[str] = []
            outlook = Outlook(try_anew, lambda: cut.append("all"), slow_s=SLOW_S, patience_s=PATIENCE_S)
            opened.callback(outlook.close)
            return outlook, cut

        yield watch


def waited_for(what: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 30
    while not what() and time.monotonic() < until_s:
        time.sleep(0.01)
    return what()


def test_a_slow_question_to_a_server_that_answers_goes_on(watching: Watching) -> None:
    tried: list[str] = []
    outlook, cut = watching(lambda: tried.append("once"))
    with outlook.asking():
        assert waited_for(lambda: len(tried) > 1)
    assert (cut, outlook.is_away) == ([], False)


def test_a_server_that_refuses_is_not_cut_off_for_it_answers(watching: Watching) -> None:
    tried: list[str] = []

    def refused() -> None:
        tried.append("once")
        raise StoreAway("too many clients already")

    outlook, cut = watching(refused)
    with outlook.asking():
        assert waited_for(lambda: len(tried) > 1)
    assert (cut, outlook.is_away) == ([], False)


def test_nobody_is_tried_while_nobody_asks(watching: Watching) -> None:
    tried: list[str] = []
    outlook, _ = watching(lambda: tried.append("once"))
    with outlook.asking():
        pass
    time.sleep(1.2)  # twice as long as it takes to look
    assert tried == []


def test_a_server_that_swallows_the_trial_too_is_away_until_it_answers_one(watching: Watching) -> None:
    is_back, tried = threading.Event(), []

    def swallowed() -> None:
        tried.append("once")
        assert is_back.wait(30)

    outlook, cut = watching(swallowed)
    with outlook.asking():
        assert waited_for(lambda: outlook.is_away)
    assert waited_for(lambda: cut == ["all"])
    assert outlook.severed == 1
    is_back.set()
    assert waited_for(lambda: not outlook.is_away)
    assert (cut, tried) == (["all"], ["once"])
