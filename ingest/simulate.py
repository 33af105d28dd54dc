"""A made-up fleet with known truth: what its devices do, what AWS says of it, and what of that arrives.

Owns the making-up. Every choice comes from a seed: equal choices give equal bytes, on any machine. It reads
no clock, no store and no rule of the reducer; where AWS leaves a behaviour open, the reading is named here.

The recording begins when the fleet is switched on, so that without loss nothing is missing from it. The truth
is what the API would have answered by AWS's own stamps (with a stamp error, these are not what physics says,
and a check that is asked between the two sees what the broker holds, not what the stamps say).

Memory is that of the fleet and of what is under way: the truth is not kept but made again from the seed.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from ingest.encode import RECORDING_HEADER, recording_line
from ingest.scoring import Answered
from store.errors import UsageError
from store.model import DUPLICATE_CLIENTID, HOUR_MS, MINUTE_MS, SECOND_MS, Event, Kind, Watch

DAY_MS = 24 * HOUR_MS

PER_THING, SEARCH = APIS = ("GetThingConnectivityData", "SearchIndex")
# By FACTS: 350 calls of one thing a second, or 15 calls of a page of 100 things.
PAGE_THINGS = 100
_PAGE_MS = {PER_THING: 286, SEARCH: 67}

# Kinds of device with their share of the fleet in percent; every kind is there where the fleet has room.
KINDS = {"stable": 45, "mobile": 22, "sleepy": 15, "flapping": 8, "cloned": 4, "never": 6}

_MOST = 10_000_000  # of anything chosen

WATCH_SOURCE = "simulated-queue"
SKIP_SHARE = 0.01  # of connections that skip version numbers
FAILED_SHARE = 0.01  # of connects that one connect_failed precedes

_SHORTEST_MS = 6 * SECOND_MS  # a session; longer than the disconnect of the one it took over takes
_TAKEOVER_MS = 3 * SECOND_MS  # at most so long after the new connect comes the old session's disconnect
_USUAL_MS = (20, 800)  # what a delivery takes when nothing is wrong
_RESET_MS = (55 * MINUTE_MS, 65 * MINUTE_MS)  # "about one hour" unconnected, after which versions restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What to simulate. Shares are of 1. Raises UsageError for what cannot be."""

    things: int = 200
    days: float = 7.0
    seed: int = 1
    start_ms: int = 1_736_121_600_000  # 2025-01-06T00:00:00Z, fixed: the same seed gives the same bytes
    loss: float = 0.02  # share of events that never arrive
    duplicates: float = 0.10  # share of arriving events that arrive twice
    reorder_minutes: float = 5.0  # how late a late delivery is at most, and the second copy after the first
    late: float = 0.10  # share of arriving events that are late; the others take less than a second
    skew_ms: int = 0  # each stamp is wrong by up to this, either way; AWS admits two minutes
    gaps: int = 0  # stretches in which every event is lost and nothing watches the path
    gap_minutes: float = 60.0  # length of each
    check_minutes: float = 15.0  # from one sweep of checks to the next; 0: none
    check_failures: float = 0.01  # share of API calls that are throttled
    api: str = PER_THING
    whole_seconds: bool = False  # GetThingConnectivityData names whole seconds (SearchIndex has ms anyway)
    lag_ms: int = 2_000  # the index is up to this far behind the broker
    outages: int = 3  # times that a part of the fleet is lost within a minute, and comes back in a storm
    outage_share: float = 0.3  # of the fleet, that each takes down

    def __post_init__(self) -> None:
        for name in ("loss", "duplicates", "late", "check_failures", "outage_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a share; give a number from 0 to 1.")
        for name in ("skew_ms", "gaps", "reorder_minutes", "check_minutes", "lag_ms", "outages"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise UsageError(f"{name} is out of range; it cannot be negative.")
        if self.things < 1 or not 0 < self.days <= 3_660:
            raise UsageError("A fleet has one thing at least, and a run lasts up to ten years.")
        if self.skew_ms > 2 * MINUTE_MS:
            raise UsageError("AWS admits stamps that are wrong by two minutes; skew goes up to 120000 ms.")
        if self.api not in APIS:
            raise UsageError(f"Checks are simulated of {' and '.join(APIS)}.")
        if self.gaps and not 0 < self.gap_minutes * MINUTE_MS <= (self.to_ms - self.start_ms) // self.gaps:
            raise UsageError("The gaps do not fit into the run; make them fewer or shorter.")

    @property
    def to_ms(self) -> int:
        return self.start_ms + int(self.days * DAY_MS)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of everything, complete once all lines were read."""

    published: int = 0  # events that AWS published
    lost: int = 0  # ... of which so many never arrived, those in gaps included
    duplicates: int = 0  # second copies that arrived
    checks: int = 0  # answers about one thing
    failed_checks: int = 0  # errors in the place of one
    lines: int = 0  # of the recording, its header not counted


class Session(NamedTuple):
    """One connection: when it truly began and ended, and how AWS stamped that."""

    began_ms: int
    ended_ms: int | None  # None: not within the run
    session_id: str
    version: int
    reason: str
    connect_ms: int
    disconnect_ms: int
    failed_ms: int | None  # a connect_failed before it


# --- What a device does -------------------------------------------------------------------------------------


class _Stretch(NamedTuple):
    """A connection and how it ends; DUPLICATE_CLIENTID: by the next connect, without a gap."""

    length_ms: int
    reason: str
    gap_ms: int


_DROPS = ("MQTT_KEEP_ALIVE_TIMEOUT", "CONNECTION_LOST", "MQTT_KEEP_ALIVE_TIMEOUT", "SERVER_ERROR")
_ENDS = (*_DROPS, "CLIENT_INITIATED_DISCONNECT", "SERVER_INITIATED_DISCONNECT", "CLIENT_ERROR")


def _about(rng: random.Random, mean_ms: int) -> int:
    return int(rng.expovariate(1 / mean_ms))


def _stable(rng: random.Random) -> Iterator[_Stretch]:
    while True:
        seldom = rng.random() < 0.15
        gap_ms = rng.randint(HOUR_MS // 2, 8 * HOUR_MS) if seldom else rng.randint(2_000, 5 * MINUTE_MS)
        yield _Stretch(_about(rng, 60 * HOUR_MS), rng.choice(_ENDS), gap_ms)


def _mobile(rng: random.Random) -> Iterator[_Stretch]:
    while True:
        length_ms = _about(rng, 50 * MINUTE_MS)
        kind = rng.random()
        if kind < 0.35:  # back before the keep-alive ran out
            yield _Stretch(length_ms, DUPLICATE_CLIENTID, 0)
        elif kind < 0.9:
            yield _Stretch(length_ms, rng.choice(_DROPS), rng.randint(3_000, 10 * MINUTE_MS))
        else:
            yield _Stretch(length_ms, rng.choice(_ENDS), rng.randint(20 * MINUTE_MS, 9 * HOUR_MS))


def _sleepy(rng: random.Random) -> Iterator[_Stretch]:
    period_ms = rng.choice((1, 2, 4, 8, 24, 48)) * HOUR_MS
    while True:
        reason = "CLIENT_INITIATED_DISCONNECT" if rng.random() < 0.9 else rng.choice(_DROPS)
        slept_ms = int(period_ms * rng.uniform(0.95, 1.05)) * (1 if rng.random() < 0.95 else 3)
        yield _Stretch(rng.randint(15_000, 2 * MINUTE_MS), reason, slept_ms)


def _flapping(rng: random.Random) -> Iterator[_Stretch]:
    while True:
        yield _Stretch(_about(rng, 20 * HOUR_MS), rng.choice(_DROPS), rng.randint(1_000, MINUTE_MS))
        for _ in range(rng.randint(10, 60)):
            yield _Stretch(rng.randint(6_000, 90_000), rng.choice(_ENDS), rng.randint(500, MINUTE_MS))


def _cloned(rng: random.Random) -> Iterator[_Stretch]:
    while True:
        for _ in range(rng.randint(20, 80)):  # two devices are on, and each throws the other out
            yield _Stretch(rng.randint(8_000, 70_000), DUPLICATE_CLIENTID, 0)
        alone_ms = _about(rng, 10 * HOUR_MS)
        if rng.random() < 0.5:
            yield _Stretch(alone_ms, DUPLICATE_CLIENTID, 0)
        else:
            yield _Stretch(alone_ms, rng.choice(_DROPS), rng.randint(2_000, 2 * HOUR_MS))


def _never(rng: random.Random) -> Iterator[_Stretch]:
    yield from ()


_LIVES: dict[str, Callable[[random.Random], Iterator[_Stretch]]] = {
    "stable": _stable,
    "mobile": _mobile,
    "sleepy": _sleepy,
    "flapping": _flapping,
    "cloned": _cloned,
    "never": _never,
}


class _Outage(NamedTuple):
    from_ms: int
    to_ms: int


class _Device(NamedTuple):
    number: int  # in the fleet, from 0
    kind: str
    client_id: str  # and thing name


def _sessions(choices: Choices, device: _Device, outages: list[_Outage]) -> Iterator[Session]:
    """Live one device's life: its sessions in their order. Depends on nothing but its own seed.

    Versions rise by one a connection, rarely by more, and restart at 0 after about an hour unconnected; with a
    persistent session only after its expiry, which may run up to half an hour longer.
    """
    rng = random.Random(f"{choices.seed}/{device.client_id}")
    drops = []  # (when this device is lost, from when it can connect again)
    for outage in outages:
        if rng.random() < choices.outage_share:
            storm_ms = min(_about(rng, MINUTE_MS), 10 * MINUTE_MS)
            drops.append((outage.from_ms + rng.randrange(MINUTE_MS), outage.to_ms + storm_ms))
    drops.reverse()
    persistent = rng.random() < (0.6 if device.kind == "sleepy" else 0.1)
    expiry_ms = rng.choice((HOUR_MS, DAY_MS, 7 * DAY_MS))
    run_ms = choices.to_ms - choices.start_ms
    late = rng.random() < 0.05  # came to the fleet later
    now_ms = (
        choices.start_ms
        + choices.skew_ms
        + rng.randrange(min(run_ms, run_ms // 3 if late else HOUR_MS // 2) + 1)
    )
    version = 0
    ended_before_ms: int | None = None
    for length_ms, reason, gap_ms in _LIVES[device.kind](rng):
        while drops and drops[-1][1] <= now_ms:
            drops.pop()
        if drops and drops[-1][0] <= now_ms:
            now_ms = drops.pop()[1]
        if ended_before_ms is not None:
            restart_ms = rng.randint(*_RESET_MS)
            if persistent:
                restart_ms = expiry_ms + rng.randrange(HOUR_MS // 2)
            version = 0 if now_ms - ended_before_ms >= restart_ms else version + 1
            version += rng.randint(1, 4) if rng.random() < SKIP_SHARE else 0
        if now_ms >= choices.to_ms:
            return
        failed_ms = None
        if ended_before_ms is not None and now_ms - ended_before_ms > 5_000 and rng.random() < FAILED_SHARE:
            failed_ms = now_ms - rng.randint(500, 4_000)
        following_ms = now_ms + max(_SHORTEST_MS, length_ms)
        ended_ms = following_ms
        if drops and drops[-1][0] <= following_ms:
            lost_ms, back_ms = drops.pop()
            ended_ms = max(lost_ms, now_ms + _SHORTEST_MS)
            following_ms = max(back_ms, ended_ms + 1)
            reason = rng.choice(_DROPS)
        elif reason == DUPLICATE_CLIENTID:
            ended_ms += rng.randint(0, _TAKEOVER_MS)
        else:
            following_ms += gap_ms
        yield Session(
            now_ms,
            ended_ms if ended_ms < choices.to_ms else None,
            f"{rng.getrandbits(128):032x}",
            version,
            reason,
            now_ms + _error(rng, choices.skew_ms),
            ended_ms + _error(rng, choices.skew_ms),
            failed_ms,
        )
        now_ms, ended_before_ms = following_ms, min(ended_ms, following_ms)


def _error(rng: random.Random, skew_ms: int) -> int:
    return rng.randint(-skew_ms, skew_ms) if skew_ms else 0


def _answers(sessions: Iterator[Session], from_ms: int) -> Iterator[Answered]:
    """Give the API's answers by AWS's own stamps, ascending, led by "never connected".

    A connect takes effect no earlier than the connects before it, a disconnect no earlier than its own
    connect; a session that was taken over by then never goes to disconnected.
    """
    yield Answered(from_ms, False, None, "UNKNOWN")
    floor_ms = from_ms
    ending: Answered | None = None
    for session in sessions:
        floor_ms = max(floor_ms, session.connect_ms)
        if ending is not None and ending.at_ms < floor_ms:
            yield ending
        yield Answered(floor_ms, True, session.connect_ms, "NONE")
        ending = None
        if session.ended_ms is not None and session.reason != DUPLICATE_CLIENTID:
            at_ms = max(session.disconnect_ms, floor_ms)
            ending = Answered(at_ms, False, session.disconnect_ms, session.reason)
    if ending is not None:
        yield ending


# --- What AWS says of it ------------------------------------------------------------------------------------


class _Said(NamedTuple):
    """An event as the broker publishes it at `true_ms`; `answer`: what the API says from then on, if new."""

    true_ms: int
    number: int  # the device's
    event: Event
    answer: tuple[bool, int, str] | None


def _published(device: _Device, sessions: Iterator[Session]) -> Iterator[_Said]:
    """Publish one device's events in true order; the end of a session taken over follows the next connect."""
    number, client_id = device.number, device.client_id
    principal = f"{device.number:064x}"
    ip = f"198.51.{100 + device.number // 250 % 100}.{device.number % 250 + 1}"
    ending: _Said | None = None
    for session in sessions:
        if ending is not None and ending.true_ms < session.began_ms:
            yield ending
            ending = None
        if session.failed_ms is not None:
            failed = Event(
                client_id,
                Kind.CONNECT_FAILED,
                session.failed_ms,
                session.session_id[::-1],
                reason="AUTHORIZATION_FAILED",
                principal=principal,
                ip=ip,
            )
            yield _Said(session.failed_ms, number, failed, None)
        connect = Event(
            client_id,
            Kind.CONNECTED,
            session.connect_ms,
            session.session_id,
            session.version,
            principal=principal,
            ip=ip,
        )
        yield _Said(session.began_ms, number, connect, (True, session.connect_ms, "NONE"))
        if ending is not None:
            yield ending
            ending = None
        if session.ended_ms is not None:
            taken_over = session.reason == DUPLICATE_CLIENTID
            disconnect = Event(
                client_id,
                Kind.DISCONNECTED,
                session.disconnect_ms,
                session.session_id,
                session.version,
                session.reason,
                session.reason == "CLIENT_INITIATED_DISCONNECT",
                principal,
            )
            answer = None if taken_over else (False, session.disconnect_ms, session.reason)
            ending = _Said(session.ended_ms, number, disconnect, answer)
    if ending is not None:
        yield ending


class _Index:
    """What the API holds of each thing, behind the broker by its lag; and how it words that."""

    def __init__(self, choices: Choices, devices: list[_Device], rng: random.Random) -> None:
        self._choices = choices
        self._rng = rng
        self._names = [json.dumps(device.client_id) for device in devices]
        # What never connected bears no timestamp, or 0; both are seen.
        self._worded = [
            self._words(number, False, 0 if number % 2 else None, "UNKNOWN") for number in range(len(devices))
        ]
        self._behind: dict[int, deque[tuple[int, tuple[bool, int, str]]]] = {}

    def take(self, said: _Said) -> None:
        if said.answer is None:
            return
        shown_ms = said.true_ms + self._rng.randint(0, self._choices.lag_ms)
        waiting = self._behind.setdefault(said.number, deque())
        if waiting:
            shown_ms = max(shown_ms, waiting[-1][0])
        waiting.append((shown_ms, said.answer))

    def asked(self, number: int, asked_ms: int) -> str:
        """Word what is answered for a thing; moments of asking ascend."""
        waiting = self._behind.get(number)
        if waiting is not None and waiting[0][0] <= asked_ms:
            while waiting and waiting[0][0] <= asked_ms:
                _, answer = waiting.popleft()
            self._worded[number] = self._words(number, *answer)
            if not waiting:
                del self._behind[number]
        return self._worded[number]

    def failed(self, number: int) -> str:
        return f'"thingName":{self._names[number]},"error":"ThrottlingException"'

    def _words(self, number: int, connected: bool, at_ms: int | None, reason: str) -> str:
        per_thing = self._choices.api == PER_THING
        body: dict[str, object] = {"connected": connected}
        if at_ms is not None:
            stamp: int | float = at_ms
            if per_thing:
                stamp = at_ms // SECOND_MS if self._choices.whole_seconds or not at_ms else at_ms / SECOND_MS
            body["timestamp"] = stamp
        if per_thing or not connected:
            body["disconnectReason"] = reason
        name = self._names[number]
        text = json.dumps(body, separators=(",", ":"))
        inside = text[1:-1] if per_thing else f'"connectivity":{text}'
        return f'"thingName":{name},"response":{{"thingName":{name},{inside}}}'


# --- What arrives -------------------------------------------------------------------------------------------


class Simulated:
    """A fleet to be simulated: its recording, and its truth, each made anew whenever it is asked for."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.from_ms, self.to_ms = choices.start_ms, choices.to_ms
        rng = random.Random(f"{choices.seed}")
        self._devices = _fleet(choices.things, rng)
        self._outages = [
            _Outage(
                begins_ms,
                begins_ms + rng.randint(2 * MINUTE_MS, max(3 * MINUTE_MS, min(2 * HOUR_MS, room_ms))),
            )
            for begins_ms, room_ms in _spread(rng, choices, choices.outages, None)
        ]
        gap_ms = int(choices.gap_minutes * MINUTE_MS)
        self.gaps = [
            (begins_ms, begins_ms + gap_ms) for begins_ms, _ in _spread(rng, choices, choices.gaps, gap_ms)
        ]
        self.tally = Tally()

    def kinds(self) -> dict[str, str]:
        """Say of each client id which kind of device it is."""
        return {device.client_id: device.kind for device in self._devices}

    def truth(self) -> Iterator[tuple[str, list[Answered]]]:
        """Yield `(client id, answers)` of every device, by client id; the answers tile the run, ascending."""
        for device in sorted(self._devices, key=lambda one: one.client_id):
            sessions = _sessions(self.choices, device, self._outages)
            yield device.client_id, list(_answers(sessions, self.from_ms))

    def lines(self, progress: Callable[[float], None] = lambda done: None) -> Iterator[bytes]:
        """Yield the recording, a line at a time, ascending by `knownAt`; `tally` counts them.

        `progress` is told now and then which share of the run is done.
        """
        choices = self.choices
        self.tally = tally = Tally()
        rng = random.Random(f"{choices.seed}/delivery")
        index = _Index(choices, self._devices, rng)
        under_way: list[tuple[int, int, list[bytes]]] = []
        count = 0

        def send(known_at_ms: int, lines: list[bytes]) -> None:
            nonlocal count
            heapq.heappush(under_way, (known_at_ms, count, lines))
            count += 1

        for from_ms, to_ms in self._watched():
            send(to_ms, [recording_line(Watch(WATCH_SOURCE, from_ms, to_ms), to_ms)])
        pages = self._pages()
        page = next(pages, None)
        told_ms = self.from_ms
        yield RECORDING_HEADER
        for said in self._said():
            until_ms = self.to_ms if said is None else said.true_ms
            while page is not None and page[0] + _PAGE_MS[choices.api] <= until_ms:
                self._ask(page, index, rng, send)
                page = next(pages, None)
            while under_way and (said is None or under_way[0][0] <= until_ms):
                lines = heapq.heappop(under_way)[2]
                tally.lines += len(lines)
                yield from lines
            if until_ms - told_ms >= HOUR_MS:
                told_ms = until_ms
                progress((told_ms - self.from_ms) / (self.to_ms - self.from_ms))
            if said is not None:
                index.take(said)
                self._deliver(said, rng, send)

    def _said(self) -> Iterator[_Said | None]:
        """Yield what AWS publishes of the whole fleet, in true order, and None at its end."""
        lives = [_published(one, _sessions(self.choices, one, self._outages)) for one in self._devices]
        yield from heapq.merge(*lives, key=itemgetter(0))
        yield None

    def _deliver(self, said: _Said, rng: random.Random, send: Callable[[int, list[bytes]], None]) -> None:
        choices, tally = self.choices, self.tally
        tally.published += 1
        lost = rng.random() < choices.loss
        if lost or any(from_ms <= said.true_ms < to_ms for from_ms, to_ms in self.gaps):
            tally.lost += 1
            return
        longest_ms = int(choices.reorder_minutes * MINUTE_MS)
        known_at_ms = said.true_ms + rng.randint(*_USUAL_MS)
        if rng.random() < choices.late:
            known_at_ms += rng.randint(0, longest_ms)
        send(known_at_ms, [recording_line(said.event, known_at_ms)])
        if rng.random() < choices.duplicates:
            tally.duplicates += 1
            again_ms = known_at_ms + rng.randint(1, max(1, longest_ms))
            send(again_ms, [recording_line(said.event, again_ms)])

    def _watched(self) -> Iterator[tuple[int, int]]:
        """Yield the stretches that the path says it was recording, an hour at a time; none without gaps."""
        if not self.gaps:
            return
        begins_ms = self.from_ms
        for ends_ms, resumes_ms in [*self.gaps, (self.to_ms, self.to_ms)]:
            while begins_ms < ends_ms:
                until_ms = min(begins_ms + HOUR_MS, ends_ms)
                yield begins_ms, until_ms
                begins_ms = until_ms
            begins_ms = resumes_ms

    def _pages(self) -> Iterator[tuple[int, int]]:
        """Yield `(moment of asking, first thing)` of each page of each sweep, no faster than AWS allows."""
        period_ms = int(self.choices.check_minutes * MINUTE_MS)
        step_ms = _PAGE_MS[self.choices.api]
        begins_ms = self.from_ms + period_ms // 2
        while period_ms and begins_ms < self.to_ms:
            at_ms = begins_ms
            for first in range(0, len(self._devices), PAGE_THINGS):
                if at_ms + step_ms > self.to_ms:
                    return
                yield at_ms, first
                at_ms += step_ms
            begins_ms = max(begins_ms + period_ms, at_ms)

    def _ask(
        self,
        page: tuple[int, int],
        index: _Index,
        rng: random.Random,
        send: Callable[[int, list[bytes]], None],
    ) -> None:
        """Ask for a page of things: with SearchIndex in one call, else in a call each, one after another."""
        choices, tally = self.choices, self.tally
        begins_ms, first = page
        step_ms = _PAGE_MS[choices.api]
        per_thing = choices.api == PER_THING
        known_at_ms = begins_ms + step_ms + rng.randint(20, 150)
        numbers = range(first, min(first + PAGE_THINGS, len(self._devices)))
        fails = rng.random() < choices.check_failures
        lines = []
        for place, number in enumerate(numbers):
            asked_ms = begins_ms
            if per_thing:
                asked_ms += place * step_ms // PAGE_THINGS
                fails = rng.random() < choices.check_failures
            if fails:
                tally.failed_checks += 1
                words = index.failed(number)
            else:
                tally.checks += 1
                words = index.asked(number, asked_ms)
            lines.append(
                f'{{"knownAt":{known_at_ms},"check":{{"api":"{choices.api}","askedAt":{asked_ms},{words}}}}}\n'.encode(
                    "ascii"
                )
            )
        send(known_at_ms, lines)


def simulate(choices: Choices) -> Simulated:
    """Make up a fleet; nothing is lived yet, the recording and the truth come when they are read."""
    return Simulated(choices)


def truth_lines(simulated: Simulated) -> Iterator[bytes]:
    """Yield the truth as NDJSON: a header with the window, then a line an answer, by client and time."""
    header = {"thingline": "truth", "version": 1, "from": simulated.from_ms, "to": simulated.to_ms}
    yield json.dumps(header, separators=(",", ":")).encode("ascii") + b"\n"
    kinds = simulated.kinds()
    for client_id, answers in simulated.truth():
        for one in answers:
            line = {
                "thingName": client_id,
                "kind": kinds[client_id],
                "at": one.at_ms,
                "connected": one.connected,
                "timestamp": one.timestamp_ms,
                "disconnectReason": one.reason,
            }
            yield json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


def _fleet(things: int, rng: random.Random) -> list[_Device]:
    """Deal the kinds out by their shares, mixed; a name says its kind and counts within it."""
    kinds = list(KINDS)[:things]
    rest = things - len(kinds)
    wanted = {kind: rest * part / sum(KINDS.values()) for kind, part in KINDS.items()}
    for kind, number in wanted.items():
        kinds += [kind] * int(number)
    for kind in sorted(wanted, key=lambda one: (int(wanted[one]) - wanted[one], one)):
        if len(kinds) < things:
            kinds.append(kind)
    rng.shuffle(kinds)
    counts = dict.fromkeys(KINDS, 0)
    devices = []
    for index, kind in enumerate(kinds):
        counts[kind] += 1
        devices.append(_Device(index, kind, f"{kind}-{counts[kind]:05}"))
    return devices


def _spread(
    rng: random.Random, choices: Choices, count: int, length_ms: int | None
) -> Iterator[tuple[int, int]]:
    """Yield `(begin, room)` of things that happen now and then: one at random in each equal part of the run.

    Without a length of their own they begin in the middle half, and have an eighth of the part as room.
    """
    for number in range(count):
        part_ms = (choices.to_ms - choices.start_ms) // count
        begins_ms = choices.start_ms + number * part_ms
        if length_ms is None:
            yield begins_ms + part_ms // 4 + rng.randrange(part_ms // 2 + 1), part_ms // 8
        else:
            yield begins_ms + rng.randrange(part_ms - length_ms + 1), length_ms
