"""The search for garbage in cycles: kept out of work on many rows, and made up for in time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from store import garbage
from store.garbage import uncollected


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(garbage, "_unseen", 0)
    gc.collect()
    yield
    assert gc.isenabled()


class Knot:
    """What holds itself."""

    def __init__(self) -> None:
        self.held = self


def knotted() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


def test_it_is_kept_out_until_the_outermost_work_is_done() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()


def test_it_is_back_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), uncollected():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_turned_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_made_meanwhile_is_not_looked_at_at_once() -> None:
    searches = [each["collections"] for each in gc.get_stats()]
    with uncollected():
        rows = [(number,) for number in range(100_000)]
    kept = [(number,) for number in range(100)]
    assert [each["collections"] for each in gc.get_stats()] == searches
    assert len(rows) + len(kept) == 100_100


def test_cycles_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_MOST_UNSEEN", 150_000)
    for turn in range(2):
        with uncollected():
            knot = knotted()
            rows = [[number] for number in range(100_000)]
        assert (knot() is None) is (turn == 1)
        del rows


def test_a_signal_during_the_search_leaves_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(garbage, "_grow_old", interrupted)
    with pytest.raises(KeyboardInterrupt), uncollected():
        pass
    assert gc.isenabled()
