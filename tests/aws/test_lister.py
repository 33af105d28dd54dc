"""The lister over real HTTP, by a clock of the test's own: what it says of the registry, and what follows from it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from ingest.inbox import Inbox
from ingest.iot import Iot
from ingest.lister import EVERY_MS, Lister
from ingest.poller import Poller
from ingest.writer import Writer
from queries.history import open_history
from store.engine import open_writer, parse_url
from store.errors import ResourceNotFound
from store.model import Learned, Observation
from store.registered import knowing
from store.registry import Description
from tests.aws.iot_fake import CUT, DENIED, INTERNAL, LIST_THINGS, THROTTLED, IotFake, Said, State
from tests.builders import T0, connect

HOUR = 3_600_000


class World:
    """An account, a store, and time that passes while the lister naps."""

    def __init__(self, iot: IotFake, asking: Iot, url: str) -> None:
        self.url, self.now_ms = url, T0
        self.said: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.account = iot.state = State(clock=lambda: self.now_ms)
        self._asking = asking
        self._inbox = Inbox()
        self._stop = threading.Event()
        self._hooks: list[tuple[int, Callable[[], object]]] = []
        self._until_ms = 0
        open_writer(parse_url(url)).close()

    def lister(self) -> Lister:
        return Lister(
            self._asking,
            known=knowing(parse_url(self.url)),
            clock=lambda: self.now_ms,
            say=self.said.append,
            nap=self.nap,
        )

    def at(self, after_ms: int, do: Callable[[], object]) -> None:
        self._hooks.append((self.now_ms + after_ms, do))

    def nap(self, seconds: float) -> None:
        self.take_in()
        # Nothing happens while nothing is due: a day passes in a few steps.
        self.now_ms += max(1, round(seconds * 1_000)) if len(self._hooks) else 10 * 60_000
        for when, do in [each for each in self._hooks if each[0] <= self.now_ms]:
            self._hooks.remove((when, do))
            do()
        if self.now_ms >= self._until_ms:
            self._stop.set()

    def live(self, source: Lister | Poller, for_ms: int) -> None:
        self._until_ms = self.now_ms + for_ms
        self._stop = threading.Event()
        source.run(self._inbox, self._stop)
        self.take_in()

    def take_in(self) -> None:
        for delivery in self._inbox.take(most=10_000, wait_s=0):
            self.learn(delivery.items)
            for each in delivery.items:
                assert isinstance(each, Learned)
                assert isinstance(each.evidence, Observation)
                self.told.append(json.loads(each.evidence.body))

    def learn(self, items: Any) -> None:
        with open_writer(parse_url(self.url)) as store, Writer(store, clock=lambda: self.now_ms) as writer:
            writer.write(items, source="registry")

    def operations(self) -> list[tuple[str, str | None]]:
        """List what was told, and of which thing."""
        return [(each["operation"], each.get("thingName")) for each in self.told]


@pytest.fixture
def world(iot: IotFake, asking_server: Iot, sqlite_store_url: str) -> World:
    return World(iot, asking_server, sqlite_store_url)


def names(count: int) -> list[str]:
    return [f"pump-{number:03}" for number in range(count)]


def test_all_things_are_told_once_and_then_what_changes(world: World) -> None:
    world.account.things = names(600)
    world.account.described = {"pump-001": {"thingTypeName": "pump", "attributes": {"site": "north"}}}
    lister = world.lister()
    world.live(lister, HOUR)
    assert len(world.told) == 601
    assert world.operations()[-1] == ("COMPLETE", None)
    world.told.clear()
    changed = {"pump-001": {"thingTypeName": "valve", "attributes": {}}}

    def change() -> None:
        world.account.things = [*names(599), "new"]
        world.account.described = changed

    world.at(HOUR, change)
    world.live(lister, EVERY_MS + HOUR)
    wanted = [("LISTED", "pump-001"), ("LISTED", "new"), ("NOT_LISTED", "pump-599"), ("COMPLETE", None)]
    assert sorted(world.operations(), key=str) == sorted(wanted, key=str)
    with open_history(world.url, clock=lambda: world.now_ms) as history:
        (lifetime,) = history.registry("pump-001").lifetimes
        assert [said for _, said in lifetime.descriptions] == [
            Description("pump", (), (("site", "north"),)),
            Description("valve", (), ()),
        ]
        assert history.registry("pump-599").lifetimes[0].to_ms is not None


def test_what_was_told_before_is_not_told_again_after_a_restart(world: World) -> None:
    world.account.things = names(300)
    world.live(world.lister(), HOUR)
    world.told.clear()
    world.live(world.lister(), HOUR)
    assert world.operations() == [("COMPLETE", None)]


def test_what_the_index_told_is_not_told_again(iot: IotFake, asking_server: Iot, store_url: str) -> None:
    world = World(iot, asking_server, store_url)
    world.account.things = names(30)
    world.account.described = {"pump-003": {"thingTypeName": "pump", "thingGroupNames": ["north"]}}
    poller = Poller(asking_server, clock=lambda: world.now_ms, nap=world.nap)
    world.live(poller, HOUR)
    world.told.clear()
    world.live(world.lister(), HOUR)
    assert world.operations() == [("COMPLETE", None)]
    with open_history(world.url, clock=lambda: world.now_ms) as history:
        (lifetime,) = history.registry("pump-003").lifetimes
    assert lifetime.thing_id == "id-of-pump-003"
    assert lifetime.descriptions[-1][1] == Description("pump", ("north",), ())


def test_a_thing_that_is_gone_has_no_answer_from_then_on(world: World) -> None:
    """And none before it is listed again; of what was while it was there the answers stay."""
    world.account.things = names(3)
    world.learn([Learned(connect(T0 - HOUR, client_id="pump-002"), 0)])
    lister = world.lister()
    world.live(lister, HOUR)
    asked_ms = world.now_ms - 1
    world.account.things = names(2)
    lister.sweep_soon()
    world.live(lister, HOUR)
    gone_ms = world.now_ms - 1
    world.account.things = names(3)
    lister.sweep_soon()
    world.live(lister, HOUR)
    with open_history(world.url, clock=lambda: world.now_ms) as history:
        assert history.at("pump-002", asked_ms).connected
        with pytest.raises(ResourceNotFound):
            history.at("pump-002", gone_ms)
        assert history.at("pump-002", world.now_ms).connected
        assert history.at("pump-002", gone_ms, known_at=asked_ms).connected


def test_a_listing_that_breaks_off_says_nothing_of_the_rest(world: World, iot: IotFake) -> None:
    world.account.things = names(600)
    world.live(world.lister(), HOUR)
    world.told.clear()
    world.account.things = names(10)
    calls = 0

    def fault(api: str) -> Any:
        nonlocal calls
        calls += api == LIST_THINGS
        return DENIED if calls > 0 else None

    world.account.fault_of = fault
    world.live(world.lister(), HOUR)
    assert world.told == []
    assert len(world.said) == 1
    assert "AccessDenied" in world.said[0]
    world.account.fault_of = lambda api: None
    world.live(world.lister(), HOUR)
    assert [each for each, _ in world.operations()].count("NOT_LISTED") == 590


def test_throttling_and_broken_answers_are_outlived(world: World, iot: IotFake) -> None:
    world.account.things = names(600)
    for fault in (THROTTLED, INTERNAL, CUT, THROTTLED):
        iot.fail(LIST_THINGS, fault)
    world.live(world.lister(), HOUR)
    assert len(world.told) == 601
    assert world.said == []
    times = [call.at_ms for call in world.account.calls]
    assert len(times) == 7
    assert all(later - earlier >= 200 for earlier, later in pairwise(times))
    assert world.account.truth("pump-001", T0) == Said(False, None, "UNKNOWN")
