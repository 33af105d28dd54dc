"""Asks AWS about the fleet all the time: sweeps of the index, and between them single things that are in doubt.

The rule. A sweep of SearchIndex (a hundred things a call) asks about everything: at the start, after every gap of
the event sources (`sweep_soon`), and so often that each thing is asked about within the period. The budget of
GetThingConnectivityData, which is another, goes to single things, by the rule of ingest/choice.py: those that the
store is unsure of, and those that the sweeps did not reach in time. With both calls refused, both go on trying, ever
more slowly; each says once what is wrong, and once that it is over.

What a sweep brings is delivered page by page; but answers that say what AWS had said before are held until the sweep
ends, for 5 minutes and 32 MiB of JSON (80 MB of memory) at most. Committed together they cost 3 bytes each, page by
page up to 114: a page of the index is scattered over the clients of the store.

What it keeps in mind is when AWS was asked last about each thing and what it said, about 300 bytes a thing; a restart
begins with a sweep. Of the store it reads a slice of clients at a time (store/doubt.py), going round the fleet once a
period: 100,000 clients take a second of that. No lock is held and no transaction is open while AWS is asked: calls are
under way in threads of their own (ingest/flights.py), one page and some single things at once; all else is done by one.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ingest.aws import Trouble
from ingest.budget import Budget
from ingest.checks import GET_THING_CONNECTIVITY_DATA, SEARCH_INDEX, check_of
from ingest.choice import Asked, Doubt, Doubtful, chosen, doubt_of, next_sweep_ms
from ingest.flights import Flights, Spawn, in_a_thread
from ingest.inbox import Delivery, Inbox
from ingest.iot import PAGE, Iot, NoAnswer, Page, is_thing_name, weight
from store.clock import Clock, system_clock
from store.doubt import Latest
from store.errors import StoreError
from store.model import DEFAULT_REALM, HOUR_MS, MINUTE_MS, SECOND_MS, Learned, Observation, Rejected

EVERY_MS = 15 * MINUTE_MS
SHORTEST_EVERY_MS = SECOND_MS

AT_ONCE = 16  # single calls under way: at 100 a second, each may take 160 ms
SLICE = 5_000  # clients of the store that a look sees
LOOKS = 20  # a period: a hundred thousand clients
MOST_DOUBTFUL = 10_000  # kept in mind; the others are found again when their turn comes
MOST_ABSENT = 100_000
PICKED = 100  # single things, before the choice is made anew
REPEATS_BYTES = 32 << 20  # held at most of what says what was said before; some 150,000 short answers
REPEATS_HELD_MS = 5 * MINUTE_MS
HELD_MS = 500  # answers about single things wait so long for company
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS, _LONGEST_THROTTLED_MS = SECOND_MS, 5 * MINUTE_MS, 30 * SECOND_MS
_DAY_MS = 24 * HOUR_MS
_NAP_MS = SECOND_MS  # at most, before it is seen that a sweep is wanted
_LAST_S = 2  # what is under way at the end may take so long

Look = Callable[[int], list[Latest]]  # the clients after one, as the store holds them; empty at the end


class Sweep(NamedTuple):
    """A sweep that came to its end."""

    begun_ms: int
    ended_ms: int
    things: int


@dataclass
class Progress:
    """What a poller has done and how it stands, for people and metrics; other threads may read it."""

    calls: Counter[str] = field(default_factory=Counter)  # by API
    failures: Counter[str] = field(default_factory=Counter)  # ... that were no answers
    troubles: dict[str, str] = field(default_factory=dict)  # APIs that give none just now, and what is wrong
    things: int = 0  # that AWS knows, as far as it was asked
    answers: int = 0  # about one thing
    single: int = 0  # ... of which so many were asked for by themselves
    sweeps: int = 0
    last_sweep: Sweep | None = None


@dataclass
class _Line:
    """One API's place in the queue: when it may be called again."""

    api: str
    at_once: int = 1
    under_way: int = 0
    sent: int = 0  # calls, which are numbered
    trouble: int = (
        0  # the last that was sent before the latest failure was known: those up to it tell nothing new
    )
    pause_ms: int = 0
    not_before_ms: int = 0
    code: str | None = None  # of the trouble that was told
    day: int = -1  # of which was told that it is used up


@dataclass
class _Running:
    begun_ms: int
    token: str | None = None
    things: int = 0


class Poller:
    """A source of checks: everything within `every_ms`, what is in doubt more often. Runs in a thread of its own.

    `look` gives what the store holds last of the clients after a number; without one, nothing is in doubt but what
    is overdue. `say` is told what a person should read. `nap` sleeps so many seconds (default: until it is stopped),
    `spawn` runs a call (default: in a thread of its own). With what it delivers goes what was spent of the day, as the
    position of `realm`; `resume` takes it over from the process before.
    """

    name = "checks"

    def __init__(
        self,
        iot: Iot,
        *,
        every_ms: int = EVERY_MS,
        look: Look | None = None,
        budget: Budget | None = None,
        clock: Clock = system_clock,
        say: Callable[[str], None] = lambda text: None,
        nap: Callable[[float], object] | None = None,
        spawn: Spawn = in_a_thread,
        realm: str = DEFAULT_REALM,
    ) -> None:
        if every_ms < SHORTEST_EVERY_MS:
            raise ValueError("a period is a second at least")
        self._iot = iot
        self._every_ms = every_ms
        self._look_every_ms = max(_NAP_MS, every_ms // LOOKS)
        self._look = look
        self.budget = Budget() if budget is None else budget
        self._clock = clock
        self._say = say
        self._nap = nap
        self._realm = realm
        self._flights = Flights(spawn)
        self.progress = Progress()
        self._wanted = threading.Event()
        self._wanted.set()
        self._lines = {
            SEARCH_INDEX: _Line(SEARCH_INDEX),  # a page is named by the one before it
            GET_THING_CONNECTIVITY_DATA: _Line(GET_THING_CONNECTIVITY_DATA, at_once=AT_ONCE),
        }
        self._sweep: _Running | None = None
        self._asked: dict[str, Asked] = {}  # in the order of asking
        self._absent: dict[str, Asked] = {}
        self._doubtful: dict[str, Doubtful] = {}
        self._picked: deque[str] = deque()
        self._under_way: set[str] = set()  # single things that are being asked about
        self._gathered: list[Learned | Rejected] = []
        self._gathered_ms = 0
        self._repeats: list[Learned | Rejected] = []
        self._repeats_bytes = 0
        self._repeats_ms = 0
        self._looked_up_to = 0
        self._next_look_ms = 0
        self._next_choice_ms = 0
        self._look_failed = False
        self._last_api = ""

    def sweep_soon(self) -> None:
        """Ask about everything as soon as the budget lets, as after a gap of the event sources. Any thread may."""
        self._wanted.set()

    def resume(self, positions: Mapping[str, str]) -> None:
        """Count on from where the process before was, by the saved positions of this source."""
        if (spent := positions.get(self._realm)) is not None:
            self.budget.resume(spent, self._clock())

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Deliver checks until `stop` is set or the inbox is closed. Outlives all that AWS and the store may do."""
        nap = stop.wait if self._nap is None else self._nap
        while not stop.is_set():
            now_ms = self._clock()
            steps = [
                (self._sweep_ready_ms(now_ms), self._last_api == SEARCH_INDEX, self._ask_page),
                (self._single_ready_ms(now_ms), self._last_api != SEARCH_INDEX, self._ask_single),
            ]
            ready_ms, _, step = min(steps, key=lambda each: each[:2])
            delivered: bool | None = True
            if self._repeats and not 0 <= now_ms - self._repeats_ms < REPEATS_HELD_MS:
                delivered = self._hand_over_repeats(inbox)
            wait_s = min(ready_ms - now_ms, _NAP_MS) / SECOND_MS
            if ready_ms <= now_ms:
                step(now_ms)
                delivered = delivered and self._flights.land_next(inbox)
            elif self._flights.under_way:
                delivered = delivered and self._flights.land_next(inbox, wait_s=wait_s)
            else:
                delivered = delivered and self._hand_over(inbox)
                nap(wait_s)
            if delivered is False:
                return
        while self._flights.under_way and self._flights.land_next(inbox, wait_s=_LAST_S):
            pass
        self._hand_over(inbox)
        self._hand_over_repeats(inbox)

    def end(self, *, within_s: float) -> None:
        """Nothing was settled that is to be finished."""

    # --- Sweeps ---------------------------------------------------------------------------------------------

    def _sweep_ready_ms(self, now_ms: int) -> int:
        if self._sweep is None and not self._wanted.is_set():
            last = self.progress.last_sweep
            if (
                last is not None and now_ms >= last.ended_ms
            ):  # else the clock was set back: nothing is known of when
                due_ms = next_sweep_ms(last.begun_ms, last.ended_ms, self._every_ms)
                if due_ms > now_ms:
                    return due_ms
        return self._ready_ms(SEARCH_INDEX, now_ms)

    def _ask_page(self, now_ms: int) -> None:
        """Ask for the next page of the sweep, which begins where none is running."""
        if self._sweep is None:
            self._wanted.clear()  # what is wanted from now on is another sweep
            self._sweep = _Running(now_ms)
        number = self._count(SEARCH_INDEX, now_ms)
        self._flights.send(
            partial(self._iot.page, self._sweep.token), partial(self._page_came, self._sweep, number)
        )

    def _page_came(self, sweep: _Running, number: int, inbox: Inbox, page: Page | NoAnswer) -> bool:
        """Take in a page; False: the inbox is closed."""
        if isinstance(page, NoAnswer):
            self._failed(SEARCH_INDEX, number, page)
            if page.trouble is Trouble.REFUSED:  # a token may be too old: from the beginning, then
                self._sweep = None
                self._wanted.set()
            return True
        self._answered(SEARCH_INDEX, number)
        news: list[Learned | Rejected] = []
        for name, item in zip(page.names, page.items, strict=True):
            if name is not None and self._remember(name, item):
                self._hold(item)
            else:
                news.append(item)
        sweep.things += len(page.items)
        sweep.token = page.token
        if page.token is None:
            self._sweep = None
            self.progress.sweeps += 1
            self.progress.last_sweep = Sweep(sweep.begun_ms, self._clock(), sweep.things)
        delivered = self._deliver(inbox, news)
        if page.token is None or self._repeats_bytes > REPEATS_BYTES:
            delivered = delivered and self._hand_over_repeats(inbox)
        return delivered

    def _hold(self, item: Learned | Rejected) -> None:
        if not self._repeats:
            self._repeats_ms = self._clock()
        self._repeats.append(item)
        self._repeats_bytes += weight(item)

    def _hand_over_repeats(self, inbox: Inbox) -> bool:
        items, self._repeats, self._repeats_bytes = self._repeats, [], 0
        return self._deliver(inbox, items)

    def _deliver(self, inbox: Inbox, items: list[Learned | Rejected]) -> bool:
        spent = self._realm, self.budget.as_text(self._clock())
        return not items or inbox.put(Delivery(self.name, items, sum(map(weight, items)), position=spent))

    # --- Single things --------------------------------------------------------------------------------------

    def _single_ready_ms(self, now_ms: int) -> int:
        if not self._picked and now_ms < self._next_choice_ms <= now_ms + self._look_every_ms:
            return self._next_choice_ms
        return self._ready_ms(GET_THING_CONNECTIVITY_DATA, now_ms)

    def _ask_single(self, now_ms: int) -> None:
        """Ask about the next thing that was chosen, choosing where none is left."""
        if not self._picked:
            self._choose(now_ms)
            if not self._picked:
                return
        name = self._picked.popleft()
        self._under_way.add(name)
        number = self._count(GET_THING_CONNECTIVITY_DATA, now_ms)
        self._flights.send(partial(self._iot.thing, name), partial(self._single_came, name, number))

    def _single_came(self, name: str, number: int, inbox: Inbox, item: Learned | NoAnswer) -> bool:
        """Take in what was said of a thing; False: the inbox is closed."""
        self._under_way.discard(name)
        if isinstance(item, NoAnswer):  # it will be chosen again
            self._failed(GET_THING_CONNECTIVITY_DATA, number, item)
            return self._hand_over(inbox)
        self._answered(GET_THING_CONNECTIVITY_DATA, number)
        self._remember(name, item)
        self.progress.single += 1
        now_ms = self._clock()
        if not self._gathered:
            self._gathered_ms = now_ms
        self._gathered.append(item)
        full = len(self._gathered) >= PAGE or now_ms - self._gathered_ms >= HELD_MS
        return self._hand_over(inbox) if full or not self._picked else True

    def _hand_over(self, inbox: Inbox) -> bool:
        items, self._gathered = self._gathered, []
        return self._deliver(inbox, items)

    def _choose(self, now_ms: int) -> None:
        """Choose the next things, having looked into the store where it is time for that."""
        sweeping = SEARCH_INDEX not in self.progress.troubles
        if self.progress.sweeps == 0 and sweeping:
            self._next_choice_ms = now_ms + _NAP_MS  # the first sweep is about to ask about them all
            return
        if not now_ms < self._next_look_ms <= now_ms + self._look_every_ms:
            self._look_into_store(now_ms)
            self._next_look_ms = now_ms + self._look_every_ms
        picked = chosen(
            self._doubtful.values(),
            self._asked,
            self._absent,
            now_ms=now_ms,
            every_ms=self._every_ms,
            due_ms=self._every_ms if sweeping else self._every_ms // 2,
            most=PICKED,
        )
        self._picked.extend(name for name in picked if name not in self._under_way)
        self._next_choice_ms = now_ms + (0 if len(picked) == PICKED else self._look_every_ms)

    def _look_into_store(self, now_ms: int) -> None:
        """Find the doubtful among the next clients of the store."""
        if self._look is None:
            return
        try:
            rows = self._look(self._looked_up_to)
        except StoreError as error:  # the writer says more of it, and waits for it
            if not self._look_failed:
                self._say(f"checks: the store cannot be read for what is in doubt: {error}")
            self._look_failed = True
            return
        self._look_failed = False
        self._looked_up_to = rows[-1].client_no if rows else 0
        swept = self.progress.sweeps > 0
        for row in rows:
            if not is_thing_name(row.client_id):
                continue
            found = doubt_of(
                name=row.client_id,
                at_ms=row.at_ms,
                state=row.state,
                rule=row.rule,
                heard=row.heard,
                now_ms=now_ms,
            )
            if found is None and not swept and row.client_id not in self._asked:
                found = Doubtful(row.client_id, Doubt.OVERDUE, row.at_ms or 0)
            if found is None:
                self._doubtful.pop(row.client_id, None)
            elif len(self._doubtful) < MOST_DOUBTFUL:
                self._doubtful[row.client_id] = found

    # --- What AWS said --------------------------------------------------------------------------------------

    def _remember(self, name: str, item: Learned | Rejected) -> bool:
        """Keep in mind what AWS said of a thing; tell whether it had said so before."""
        if isinstance(item, Rejected) or not isinstance(item.evidence, Observation):
            return False
        self.progress.answers += 1
        if (doubtful := self._doubtful.get(name)) is not None and doubtful.why is Doubt.OVERDUE:
            del self._doubtful[name]
        check, at_ms = check_of(item.evidence), item.evidence.at_ms
        before = self._asked.pop(name, None) or self._absent.pop(name, None)
        # SearchIndex leaves the reason out where GetThingConnectivityData says NONE, and names milliseconds.
        answer = None if check is None else (check.state, (check.named_ms or 0) // SECOND_MS)
        now = Asked(at_ms, answer) if before is None else before.again(at_ms, answer)
        if answer is None:
            self._absent[name] = now
            if len(self._absent) > MOST_ABSENT:
                del self._absent[next(iter(self._absent))]
        else:
            self._asked[name] = now
        self.progress.things = len(self._asked)
        return now.agreed > 0

    # --- Budget and trouble ---------------------------------------------------------------------------------

    def _ready_ms(self, api: str, now_ms: int) -> int:
        line = self._lines[api]
        if self.budget.left_today(api, now_ms) == 0 and line.day != now_ms // _DAY_MS:
            line.day = now_ms // _DAY_MS
            spent = self.budget.spent_today(api, now_ms)
            self._say(f"checks: the day's {spent:,} calls of {api} are used up; it goes on at 00:00 UTC.")
        # A clock that was set back does not make a pause longer.
        line.not_before_ms = min(line.not_before_ms, now_ms + line.pause_ms)
        if line.under_way >= line.at_once:
            return now_ms + _NAP_MS  # or as soon as one of them is back
        return max(line.not_before_ms, now_ms + self.budget.wait_ms(api, now_ms))

    def _count(self, api: str, now_ms: int) -> int:
        """Note that a call is sent; gives its number."""
        line = self._lines[api]
        line.under_way += 1
        line.sent += 1
        self._last_api = api
        self.budget.spend(api, now_ms)
        self.progress.calls[api] += 1
        return line.sent

    def _failed(self, api: str, number: int, error: NoAnswer) -> None:
        line, now_ms = self._lines[api], self._clock()
        line.under_way -= 1
        self.progress.failures[api] += 1
        throttled = error.trouble is Trouble.THROTTLED
        if throttled:
            self.budget.throttled(api, now_ms)
        if number <= line.trouble:
            return
        line.trouble = line.sent
        longest_ms = _LONGEST_THROTTLED_MS if throttled else _LONGEST_PAUSE_MS
        line.pause_ms = min(max(_FIRST_PAUSE_MS, 2 * line.pause_ms), longest_ms)
        line.not_before_ms = now_ms + line.pause_ms
        self.progress.troubles = {**self.progress.troubles, api: str(error)}
        if line.code != error.failure.code:
            line.code = error.failure.code
            self._say(f"checks: {api} gives no answer: {error} It is asked again, ever more slowly.")

    def _answered(self, api: str, number: int) -> None:
        line = self._lines[api]
        line.under_way -= 1
        if number <= line.trouble:
            return
        line.pause_ms = line.not_before_ms = 0
        if line.code is not None:
            line.code = None
            self.progress.troubles = {
                other: told for other, told in self.progress.troubles.items() if other != api
            }
            self._say(f"checks: {api} answers again.")
