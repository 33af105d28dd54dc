"""All things of AWS's registry, listed now and then: for registry events are off by default, and get lost.

The rule. At the start, after every gap of the event sources (`sweep_soon`) and once in `every_ms` all things are listed
(ListThings, 250 a call). Of a thing that is listed as the store knows it nothing is said; of another one that it is
there, as what. A thing that the store takes for registered and that a complete listing did not name was not there at
some instant of the listing, which is said too. A listing that breaks off says nothing of what it did not reach.

What is kept in mind is what the store knows of each thing, about 250 bytes a thing while a listing goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ingest.aws import Trouble
from ingest.budget import Budget
from ingest.inbox import Delivery, Inbox
from ingest.iot import LIST_THINGS, Iot, Listed, NoAnswer
from ingest.members import body_of
from store.clock import Clock, system_clock
from store.errors import StoreError
from store.model import HOUR_MS, MINUTE_MS, SECOND_MS, Learned, Observation
from store.registered import Known
from store.registry import COMPLETE, LISTED, LISTING, NOT_LISTED, description_of

EVERY_MS = 24 * HOUR_MS
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = SECOND_MS, 10 * MINUTE_MS
_NAP_MS = SECOND_MS  # at most, before it is seen that a listing is wanted


class Lister:
    """A source of registry observations. Runs in a thread of its own.

    `known` gives what the store holds of each thing that it takes for registered. `say` is told what a person should
    read. `nap` sleeps so many seconds (default: until it is stopped).
    """

    name = "registry"

    def __init__(
        self,
        iot: Iot,
        *,
        known: Callable[[], dict[str, Known]],
        every_ms: int = EVERY_MS,
        budget: Budget | None = None,
        clock: Clock = system_clock,
        say: Callable[[str], None] = lambda text: None,
        nap: Callable[[float], object] | None = None,
    ) -> None:
        self._iot = iot
        self._known = known
        self._every_ms = every_ms
        self._budget = Budget() if budget is None else budget
        self._clock = clock
        self._say = say
        self._nap = nap
        self._wanted = threading.Event()
        self._wanted.set()
        self._next_ms = 0
        self._told: str | None = None  # the trouble that was told

    def sweep_soon(self) -> None:
        """List everything as soon as the budget lets. Any thread may ask for it."""
        self._wanted.set()

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Deliver listings until `stop` is set or the inbox is closed. Outlives all that AWS and the store may do."""
        nap = stop.wait if self._nap is None else self._nap
        pause_ms = 0
        while not stop.is_set():
            now_ms = self._clock()
            if not self._wanted.is_set() and now_ms < self._next_ms <= now_ms + self._every_ms:
                nap(min(self._next_ms - now_ms, _NAP_MS) / SECOND_MS)
                continue
            self._wanted.clear()  # what is wanted from now on is another one
            try:
                if not self._list(inbox, stop, nap):
                    return
                pause_ms, self._next_ms = 0, now_ms + self._every_ms
                self._tell(None)
            except (NoAnswer, StoreError) as error:
                pause_ms = min(max(_FIRST_PAUSE_MS, 2 * pause_ms), _LONGEST_PAUSE_MS)
                self._next_ms = self._clock() + pause_ms
                self._tell(str(error))

    def end(self, *, within_s: float) -> None:
        """Nothing was settled that is to be finished."""

    def _tell(self, trouble: str | None) -> None:
        if trouble is None and self._told is not None:
            self._say("registry: all things were listed again.")
        elif trouble is not None and self._told is None:
            self._say(f"registry: things cannot be listed: {trouble} It is tried again, ever more slowly.")
        self._told = trouble

    def _list(self, inbox: Inbox, stop: threading.Event, nap: Callable[[float], object]) -> bool:
        """List all things once; False: the inbox is closed, or it was stopped. Raises NoAnswer, StoreError."""
        known = self._known()
        begun_ms = self._clock()
        token: str | None = None
        count = 0
        while not stop.is_set():
            page = self._page(token, stop, nap)
            if page is None:
                return False
            count += len(page.things)
            if not self._deliver(
                inbox, [item for thing in page.things for item in _listed(thing, page, known)]
            ):
                return False
            token = page.token
            if token is None:
                return self._deliver(inbox, _missing(known, begun_ms, self._clock(), count))
        return False

    def _page(
        self, token: str | None, stop: threading.Event, nap: Callable[[float], object]
    ) -> Listed | None:
        """Ask for a page when the budget lets; where AWS is away or throttles, again and ever more slowly."""
        pause_ms = 0
        while not stop.is_set():
            now_ms = self._clock()
            wait_ms = self._budget.wait_ms(LIST_THINGS, now_ms) + pause_ms
            if wait_ms > 0:
                nap(wait_ms / SECOND_MS)
            self._budget.spend(LIST_THINGS, self._clock())
            try:
                return self._iot.listed(token)
            except NoAnswer as error:
                if error.trouble is Trouble.THROTTLED:
                    self._budget.throttled(LIST_THINGS, self._clock())
                elif error.trouble is not Trouble.AWAY or pause_ms >= MINUTE_MS:
                    raise
                pause_ms = max(_FIRST_PAUSE_MS, 2 * pause_ms)
        return None

    def _deliver(self, inbox: Inbox, items: list[Learned]) -> bool:
        weight = sum(len(each.evidence.body) for each in items if isinstance(each.evidence, Observation))
        return not items or inbox.put(Delivery(self.name, items, weight))


def _listed(thing: dict[str, Any], page: Listed, known: dict[str, Known]) -> list[Learned]:
    """Say that a thing is there, unless the store knows it to be just that; takes it from what is known."""
    name = thing["thingName"]
    was = known.pop(name, None)
    if was is not None and was == description_of(thing):
        return []
    return [_said(name, page.asked_ms, operation=LISTED, thing=thing)]


def _missing(known: dict[str, Known], begun_ms: int, ended_ms: int, count: int) -> list[Learned]:
    """Say which things the store takes for registered and the listing did not name; and that it was complete."""
    gone = [_said(name, begun_ms, operation=NOT_LISTED, until=ended_ms) for name in known]
    return [*gone, _said(None, begun_ms, operation=COMPLETE, until=ended_ms, things=count)]


def _said(name: str | None, at_ms: int, **members: object) -> Learned:
    body = {"eventType": LISTING, "timestamp": at_ms, **members}
    if name is not None:
        body["thingName"] = name
    return Learned(Observation("registry", name, at_ms, body_of(body)), 0)
