"""The poller over real HTTP, by a clock of the test's own: what it asks when, and what the store knows by it."""

from __future__ import annotations

import json
import random
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import pytest

from ingest.aws import Account as Access
from ingest.budget import DAY_MS, Budget, Limit
from ingest.counts import Counts
from ingest.inbox import Delivery, Inbox
from ingest.iot import TURN_ON, Iot
from ingest.poller import AT_ONCE, EVERY_MS, SLICE, Poller
from ingest.simulate import Choices, simulate
from ingest.writer import Writer
from queries.history import open_history
from store.doubt import looking
from store.engine import open_reader, open_writer, parse_url
from store.model import Event, Learned, Observation, State
from tests.aws.iot_fake import (
    CUT,
    DENIED,
    EXPIRED,
    GET_THING,
    INTERNAL,
    NEVER,
    SEARCH,
    THROTTLED,
    UNAVAILABLE,
    Fault,
    IotFake,
    Said,
    Truth,
    truth_of,
)
from tests.aws.iot_fake import State as Account
from tests.aws.iot_fake import _Failed as Failing
from tests.builders import T0, connect

MINUTE = 60_000
NOON = (T0 // DAY_MS) * DAY_MS + DAY_MS // 2


class World:
    """An account, a store, and time that passes while the poller naps."""

    def __init__(self, iot: IotFake, asking: Iot, url: str, now_ms: int = NOON) -> None:
        self.iot, self.asking, self.url, self.now_ms = iot, asking, parse_url(url), now_ms
        self.inbox = Inbox()
        self.said: list[str] = []
        self.deliveries: list[Delivery] = []
        self.counts = Counts()
        self._until_ms = 0
        self._stop = threading.Event()
        self._writer: Writer | None = None
        self._hooks: list[tuple[int, Callable[[], object]]] = []
        open_writer(self.url).close()

    def account(self, things: list[str], truth: Truth) -> Account:
        self.iot.state = Account(things=things, truth=truth, clock=lambda: self.now_ms)
        return self.iot.state

    def at(self, after_ms: int, do: Callable[[], object]) -> None:
        """Do something when so much time has passed."""
        self._hooks.append((self.now_ms + after_ms, do))

    def poller(self, *, every_ms: int = EVERY_MS, budget: Budget | None = None, look: bool = True) -> Poller:
        return Poller(
            self.asking,
            every_ms=every_ms,
            look=looking(self.url, most=SLICE) if look else None,
            budget=budget,
            clock=lambda: self.now_ms,
            say=self.said.append,
            nap=self.nap,
            spawn=lambda call: call(),
        )

    def nap(self, seconds: float) -> None:
        self.take_in()
        self.now_ms += max(1, round(seconds * 1_000))
        for when, do in [each for each in self._hooks if each[0] <= self.now_ms]:
            self._hooks.remove((when, do))
            do()
        if self.now_ms >= self._until_ms:
            self._stop.set()

    def live(self, poller: Poller, for_ms: int) -> None:
        """Let the poller run for so long; what it delivers is written meanwhile."""
        self._until_ms = self.now_ms + for_ms
        self._stop = threading.Event()
        with open_writer(self.url) as store, Writer(store, clock=lambda: self.now_ms) as self._writer:
            poller.run(self.inbox, self._stop)
            self.take_in()

    def take_in(self) -> None:
        assert self._writer is not None
        for delivery in self.inbox.take(most=10_000, wait_s=0):
            self.deliveries.append(delivery)
            self.counts.add(self._writer.write(delivery.items, source=delivery.source))

    def learn(self, *batches: list[Event]) -> None:
        with open_writer(self.url) as store, Writer(store, clock=lambda: self.now_ms) as writer:
            for events in batches:
                writer.write([Learned(event, 0) for event in events], source="test")

    def asked(self, api: str | None = None) -> dict[str, list[int]]:
        """Tell when each thing was asked about, by what was delivered."""
        found: dict[str, list[int]] = defaultdict(list)
        for delivery in self.deliveries:
            for item in delivery.items:
                assert isinstance(item, Learned)
                assert isinstance(item.evidence, Observation)
                body = json.loads(item.evidence.body)
                if api in (None, body["api"]):
                    found[body["thingName"]].append(item.evidence.at_ms)
        return found

    def calls(self, api: str) -> list[int]:
        return [call.at_ms for call in self.iot.state.calls if call.api == api]

    def assert_true(self, truth: Truth, asked: dict[str, list[int]]) -> None:
        """Compare the store's answers at the instants of asking with the truth."""
        with open_history(str(self.url), clock=lambda: self.now_ms + DAY_MS) as history:
            for thing, moments in asked.items():
                for at_ms in moments:
                    answer = history.at(thing, at_ms)
                    found = answer.connected, answer.timestamp_ms, answer.disconnect_reason
                    assert found == tuple(truth(thing, at_ms)), (thing, at_ms)


@pytest.fixture
def world(iot: IotFake, asking_server: Iot, sqlite_store_url: str) -> World:
    return World(iot, asking_server, sqlite_store_url)


def always_on(thing: str, now_ms: int) -> Said:
    return Said(True, NOON - 60 * MINUTE, "NONE")


def assert_within(calls: list[int], a_second: float) -> None:
    """No stretch holds more calls than the rate allows."""
    for first, at_ms in enumerate(calls):
        for seconds in (1, 10, 60, 600):
            inside = bisect_left(calls, at_ms + seconds * 1_000) - first
            assert inside <= a_second * seconds + 1


def names(count: int) -> list[str]:
    return [f"thing-{number:03}" for number in range(count)]


# --- A fleet ------------------------------------------------------------------------------------------------


def test_a_fleet_known_by_checks_alone_is_known_truly_at_each_asking(
    iot: IotFake, asking_server: Iot, store_url: str
) -> None:
    simulated = simulate(Choices(things=130, days=1))
    things, truth = truth_of(simulated.truth())
    world = World(iot, asking_server, store_url, simulated.from_ms + 12 * 60 * MINUTE)
    world.account(things, truth)
    begun_ms = world.now_ms
    poller = world.poller()
    world.live(poller, 35 * MINUTE)
    asked = world.asked(SEARCH)
    assert asked.keys() == set(things)
    world.assert_true(truth, asked)
    assert poller.progress.sweeps == 3
    for moments in asked.values():
        assert moments[0] - begun_ms < 10_000
        assert max(later - earlier for earlier, later in pairwise(moments)) <= EVERY_MS
    assert {delivery.source for delivery in world.deliveries} == {"checks"}
    assert [len(delivery.items) for delivery in world.deliveries[:2]] == [100, 30]
    assert world.counts.quarantined == 0
    assert world.said == []


def test_what_goes_wrong_on_the_way_invents_nothing_and_is_told_and_over(
    world: World, rng: random.Random
) -> None:
    """Every fourth call meets a fault; the truth at each asking stays the store's, and the period is kept."""
    simulated = simulate(Choices(things=130, days=1))
    things, truth = truth_of(simulated.truth())
    world.now_ms = simulated.from_ms + 12 * 60 * MINUTE
    account = world.account(things, truth)
    faults = [
        THROTTLED,
        INTERNAL,
        UNAVAILABLE,
        EXPIRED,
        CUT,
        Fault(body=b"<html>"),
        Fault(503, body=b"<html>"),
        Fault(body=b'{"things": [{"thingName": "stable-00001"}]}'),
    ]
    account.fault_of = lambda api: rng.choice(faults) if rng.random() < 0.25 else None
    world.iot.fail(SEARCH, rng.choice(faults))
    world.iot.fail(SEARCH, Fault(delay_s=1.2))  # longer than is waited for
    poller = world.poller()
    world.live(poller, 65 * MINUTE)
    asked = world.asked()
    assert asked.keys() == set(things)
    world.assert_true(truth, world.asked(SEARCH))
    for moments in asked.values():
        assert max(later - earlier for earlier, later in pairwise(sorted(moments))) <= EVERY_MS + MINUTE
    assert world.counts.quarantined == 0
    assert poller.progress.failures[SEARCH] >= 1
    told = [text for text in world.said if "gives no answer" in text]
    over = [text for text in world.said if "answers again" in text]
    assert len(told) >= len(over) >= 1
    assert len(told) + len(over) == len(world.said)


# --- Budgets ------------------------------------------------------------------------------------------------


def test_neither_budget_is_exceeded_and_throttling_slows_it_down(world: World, rng: random.Random) -> None:
    account = world.account(names(400), always_on)
    throttled: list[int] = []

    def throttle(api: str) -> Fault | None:
        if api == SEARCH and 5 <= len(world.calls(SEARCH)) < 8:
            throttled.append(world.now_ms)
            return THROTTLED
        return None

    account.fault_of = throttle
    limits = {SEARCH: Limit(a_second=4, a_day=10_000), GET_THING: Limit(a_second=9, a_day=10_000)}
    poller = world.poller(every_ms=3_000, budget=Budget(limits))
    world.live(poller, 40_000)
    assert_within(world.calls(SEARCH), 4)
    assert_within(world.calls(GET_THING), 9)
    assert len(throttled) == 3
    slow = [at_ms for at_ms in world.calls(SEARCH) if throttled[-1] < at_ms <= throttled[-1] + 25_000]
    assert 1 <= len(slow) <= 25 * 4 / 8 + 1  # halved three times
    assert len(world.asked()) == 400
    assert poller.progress.calls[SEARCH] == len(world.calls(SEARCH))


def test_a_day_that_is_used_up_is_told_and_ends_at_midnight(world: World) -> None:
    world.account(names(150), always_on)
    world.now_ms = midnight = (NOON // DAY_MS + 1) * DAY_MS
    world.now_ms -= 61 * MINUTE
    limits = {SEARCH: Limit(a_second=7, a_day=5), GET_THING: Limit(a_second=7, a_day=40)}
    world.live(world.poller(budget=Budget(limits)), 91 * MINUTE)
    for api, most in ((SEARCH, 5), (GET_THING, 40)):
        calls = world.calls(api)
        assert sum(at_ms < midnight for at_ms in calls) == most
        assert 0 < sum(at_ms >= midnight for at_ms in calls) <= most
        assert sum(f"day's {most} calls of {api} are used up" in text for text in world.said) >= 1


def test_things_that_the_sweeps_do_not_reach_are_asked_about_one_by_one_within_the_period(
    world: World,
) -> None:
    """SearchIndex is refused from the start; the fleet is known from the events in the store."""
    things = names(60)
    world.account(things, always_on).fault_of = lambda api: DENIED if api == SEARCH else None
    world.learn([connect(NOON - 60 * MINUTE, session=each, version=1, client_id=each) for each in things])
    world.live(world.poller(every_ms=5 * MINUTE), 11 * MINUTE)
    asked = world.asked(GET_THING)
    assert asked.keys() == set(things)
    for moments in asked.values():
        assert max(later - earlier for earlier, later in pairwise(moments)) <= 5 * MINUTE
    assert len(world.calls(SEARCH)) < 20  # ever more slowly
    (told,) = world.said
    assert "allow iot:GetThingConnectivityData, iot:SearchIndex" in told


# --- Trouble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "advice"), [("OFF", TURN_ON), ("BUILDING", "describe-index")])
def test_an_index_that_is_not_there_yet_is_waited_for(world: World, index: str, advice: str) -> None:
    account = world.account(names(3), always_on)
    account.index = index
    world.learn([connect(NOON - 1, session="a", version=1, client_id="thing-001")])
    world.at(20 * MINUTE, lambda: setattr(account, "index", "ACTIVE"))
    world.live(world.poller(), 18 * MINUTE)
    assert world.deliveries == []
    assert advice in world.said[0]
    assert len(world.said) == 2  # one for each call
    world.live(world.poller(), 5 * MINUTE)
    assert world.asked().keys() == set(names(3))


def test_trouble_is_told_once_and_its_end_too(world: World) -> None:
    account = world.account(names(3), always_on)
    account.fault_of = lambda api: EXPIRED
    world.at(10 * MINUTE, lambda: setattr(account, "fault_of", lambda api: None))
    poller = world.poller(look=False)
    world.live(poller, 9 * MINUTE)
    (told,) = world.said
    assert "renew the credentials" in told
    assert "renew the credentials" in poller.progress.troubles[SEARCH]
    world.live(poller, 10 * MINUTE)
    assert world.said[1:] == ["checks: SearchIndex answers again."]
    assert poller.progress.troubles == {}
    assert world.asked().keys() == set(names(3))


def test_a_thing_that_was_deleted_is_asked_for_once_more_and_that_is_kept(world: World) -> None:
    account = world.account(names(3), always_on)
    world.at(10 * MINUTE, lambda: setattr(account, "things", names(2)))
    world.live(world.poller(), 60 * MINUTE)
    asked = world.asked(GET_THING)
    assert asked.keys() == {"thing-002"}
    assert len(asked["thing-002"]) == 1
    with open_reader(world.url) as store, store.reading() as connection:
        (body,) = connection.exec_driver_sql("SELECT body FROM observations").scalars()
    assert json.loads(body)["error"] == "ResourceNotFoundException"


# --- What is in doubt ---------------------------------------------------------------------------------------


def test_what_contradicts_the_store_is_asked_about_again_and_then_less_and_less(world: World) -> None:
    """An event was lost: the sweep teaches it, and the thing is looked at more often for a while."""
    world.account(names(20), always_on)
    world.learn([connect(NOON - 60 * MINUTE, session=each, version=1, client_id=each) for each in names(20)])
    lost = Said(False, NOON - 5 * MINUTE, "CONNECTION_LOST")
    world.iot.state.truth = lambda thing, now_ms: lost if thing == "thing-007" else always_on(thing, now_ms)
    world.live(world.poller(), 90 * MINUTE)
    asked = world.asked(GET_THING)
    assert asked.keys() == {"thing-007"}
    gaps = [later - earlier for earlier, later in pairwise(sorted(world.asked()["thing-007"]))]
    assert min(gaps[:3]) < EVERY_MS / 3
    assert 2 <= len(asked["thing-007"]) <= 5


def test_a_client_that_is_no_thing_is_asked_about_now_and_then_only(world: World) -> None:
    world.account(names(2), always_on)
    failed = connect(NOON - MINUTE, client_id="gateway")
    world.learn([failed._replace(kind=failed.kind.CONNECT_FAILED), connect(NOON, client_id="no/thing")])
    world.live(world.poller(), 120 * MINUTE)
    asked = world.asked(GET_THING)
    assert asked.keys() == {"gateway"}
    assert 3 <= len(asked["gateway"]) <= 7


# --- Gaps, restarts, the end --------------------------------------------------------------------------------


def test_after_a_gap_everything_is_asked_about_at_once(world: World) -> None:
    world.account(names(120), always_on)
    poller = world.poller()
    world.at(4 * MINUTE, poller.sweep_soon)
    world.live(poller, 6 * MINUTE)
    assert poller.progress.sweeps == 2
    assert all(4 * MINUTE <= moments[1] - NOON < 4 * MINUTE + 3_000 for moments in world.asked().values())


def test_a_gap_that_ends_during_a_sweep_is_followed_by_another(world: World) -> None:
    world.account(names(800), always_on)
    poller = world.poller()
    world.at(500, poller.sweep_soon)
    world.live(poller, MINUTE)
    assert poller.progress.sweeps == 2


def test_a_restart_begins_with_a_sweep_and_an_answer_that_repeats_costs_no_row(world: World) -> None:
    things = names(300)
    world.account(things, always_on)
    world.live(world.poller(), 2 * MINUTE)
    assert (world.counts.stored, world.counts.repeated) == (300, 0)
    world.live(world.poller(), 2 * MINUTE)
    assert (world.counts.stored, world.counts.repeated) == (600, 300)
    world.assert_true(always_on, world.asked())
    with open_reader(world.url) as store, store.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM checks").scalar() == 300


def test_a_clock_that_is_set_back_stops_neither_sweeps_nor_choices(world: World) -> None:
    world.account(names(3), always_on)
    failed = connect(NOON - MINUTE, client_id="gateway")
    poller = world.poller()
    world.at(5 * MINUTE, lambda: setattr(world, "now_ms", world.now_ms - 45 * MINUTE))
    world.learn([failed._replace(kind=failed.kind.CONNECT_FAILED)])
    world.live(poller, 10 * MINUTE)  # by the clock; 55 minutes in all
    assert poller.progress.sweeps >= 5
    assert len(world.asked()["gateway"]) >= 2


def test_what_repeats_is_committed_together_however_the_index_lies_across_the_store(
    world: World, rng: random.Random
) -> None:
    """Page by page, each page would have a row in each block of clients."""
    things = names(600)
    world.account(things, always_on)
    events = [connect(NOON - 60 * MINUTE, session=each, version=1, client_id=each) for each in things]
    rng.shuffle(events)
    world.learn(*(events[first : first + 20] for first in range(0, 600, 20)))
    poller = world.poller(every_ms=2 * MINUTE)
    world.live(poller, 9 * MINUTE)
    assert poller.progress.sweeps >= 4
    with open_reader(world.url) as store, store.reading() as connection:
        rows = connection.exec_driver_sql("SELECT count(*), sum(length(slots)) FROM sweeps").one()
    again = poller.progress.sweeps - 1
    assert rows == (3 * again, 3 * 600 * again)


def test_what_repeats_is_not_held_for_long_nor_lost_when_it_ends(world: World) -> None:
    account = world.account(names(150), always_on)
    poller = world.poller()
    world.live(poller, 2 * MINUTE)
    poller.sweep_soon()
    account.fault_of = lambda api: INTERNAL if len(world.calls(SEARCH)) > 3 else None
    world.live(poller, 4 * MINUTE)
    assert world.counts.repeated == 100  # handed over at the end
    poller.sweep_soon()
    world.live(poller, 6 * MINUTE)
    assert poller.progress.sweeps == 1
    account.fault_of = lambda api: None
    world.live(poller, 6 * MINUTE)
    assert world.counts.repeated >= 150


def test_it_ends_when_it_is_told_to_and_when_nobody_takes_what_it_delivers(
    iot: IotFake, asking_server: Iot
) -> None:
    """In real time, as in the field: a thread that naps is not waited for."""
    iot.state = Account(things=names(3), truth=lambda thing, now_ms: Said(True, T0, "NONE"))
    inbox, stop = Inbox(), threading.Event()
    thread = threading.Thread(target=Poller(asking_server, every_ms=1_000).run, args=(inbox, stop))
    thread.start()
    taken: list[Delivery] = []
    while sum(len(delivery.items) for delivery in taken) < 6:  # two sweeps, a second apart
        taken += inbox.take(most=100, wait_s=10)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    inbox.close()
    Poller(asking_server).run(inbox, threading.Event())


def test_single_calls_are_under_way_together_and_what_fails_together_is_one_failure(
    iot: IotFake, sqlite_store_url: str
) -> None:
    """In real time. The first calls wait for each other in AWS, fail, and are sent again after one pause."""
    things = names(3 * AT_ONCE)
    together, held = threading.Barrier(AT_ONCE + 1), threading.Event()

    def truth(thing: str, now_ms: int) -> Said:
        if not held.is_set():
            together.wait(30)
            held.wait(30)
            raise Failing(INTERNAL)
        return always_on(thing, now_ms)

    iot.state = Account(things=things, truth=truth, fault_of=lambda api: DENIED if api == SEARCH else None)
    patient = Iot(Access(), read_s=60, connections=AT_ONCE + 1)
    world = World(iot, patient, sqlite_store_url)
    world.learn([connect(NOON - 60 * MINUTE, session=each, version=1, client_id=each) for each in things])
    said: list[str] = []
    inbox, stop = Inbox(), threading.Event()
    poller = Poller(patient, every_ms=2_000, look=looking(world.url, most=SLICE), say=said.append)
    thread = threading.Thread(target=poller.run, args=(inbox, stop))
    thread.start()
    together.wait(30)
    thread.join(0.2)
    assert iot.counts()[GET_THING] == AT_ONCE
    held.set()
    taken: set[str] = set()
    while len(taken) < len(things):
        deliveries = inbox.take(most=100, wait_s=20)
        assert deliveries
        taken.update(item.evidence.subject for each in deliveries for item in each.items)  # type: ignore[union-attr, misc]
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert poller.progress.failures[GET_THING] == AT_ONCE
    told = [text for text in said if text.startswith(f"checks: {GET_THING}")]
    assert ["gives no answer" in told[0], "answers again" in told[1], len(told)] == [True, True, 2]


def test_a_call_that_is_never_answered_does_not_hold_up_the_end(iot: IotFake) -> None:
    held = threading.Event()
    iot.state = Account(
        things=names(3), truth=lambda thing, now_ms: NEVER if held.wait(30) else always_on(thing, 0)
    )
    stop = threading.Event()
    thread = threading.Thread(target=Poller(Iot(Access(), read_s=60)).run, args=(Inbox(), stop))
    thread.start()
    while not iot.state.calls:
        thread.join(0.02)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    held.set()


def test_a_restart_goes_on_with_the_budget_of_the_day(world: World) -> None:
    world.account(names(250), always_on)
    limits = {SEARCH: Limit(a_second=7, a_day=5), GET_THING: Limit(a_second=7, a_day=0)}
    for most in (3, 5, 5):
        poller = world.poller(budget=Budget(limits))
        poller.resume(dict([each.position for each in world.deliveries if each.position is not None]))
        world.live(poller, MINUTE)
        assert len(world.calls(SEARCH)) == most


def test_a_state_that_checks_taught_is_of_the_store_only_if_aws_said_so(world: World) -> None:
    """Every transition in the store is one of the truth: none was made up by errors between."""
    on, off = Said(True, NOON - 9 * MINUTE, "NONE"), Said(False, NOON + 20 * MINUTE, "CONNECTION_LOST")
    account = world.account(["a"], lambda thing, now_ms: on if now_ms < NOON + 20 * MINUTE else off)
    world.at(16 * MINUTE, lambda: setattr(account, "fault_of", lambda api: INTERNAL))
    world.at(45 * MINUTE, lambda: setattr(account, "fault_of", lambda api: None))
    world.live(world.poller(), 60 * MINUTE)
    with open_history(str(world.url)) as history:
        seen = [(one.seen.at_ms, one.seen.state) for one in history.transitions("a")]
    assert seen == [(on.timestamp_ms, State.CONNECTED), (off.timestamp_ms, State.DISCONNECTED)]
