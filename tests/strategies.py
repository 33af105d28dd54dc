"""Histories of one client: what truly happened, what AWS published of it, and what arrived.

A *true* history is drawn first: sessions with versions, resets, takeovers, storms. Its events get stamps
that are wrong by up to two minutes. The truth is what the API would have answered by those stamps, sessions
in their true order. Then the evidence is worn down: members left out, copies made, events lost, the order of
arrival mixed. Checks are answered with that truth, as an index behind its broker knows it.

Every choice comes from the `random.Random` given, so that a seed names a history, and thousands are made in a
second; the hypothesis strategies draw from the same code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from store.model import DUPLICATE_CLIENTID, HOUR_MS, MINUTE_MS, SECOND_MS, Check, Event, Kind, State
from tests.builders import T0

STAMP_ERROR_MS = 2 * MINUTE_MS - SECOND_MS  # AWS: stamps are right to about two minutes; a second spare
RESET_AFTER_MS = HOUR_MS  # AWS: the version restarts after about an hour unconnected
DAY_MS = 24 * HOUR_MS

REASONS = ("CLIENT_INITIATED_DISCONNECT", "CONNECTION_LOST", "MQTT_KEEP_ALIVE_TIMEOUT", "SERVER_ERROR", "NEW")

CLIENT_IDS = (
    "pump-17",
    "plant/7/pump:17",
    "x" * 128,
    "Größe-泵-\U0001f6b0",
    "e\N{COMBINING ACUTE ACCENT}",
    " lead",
    "'; --",
    "-",
)

GAPS_MS = (
    0, 1, 2, 900, 5 * SECOND_MS, MINUTE_MS, 3 * MINUTE_MS, 5 * MINUTE_MS, 20 * MINUTE_MS, 44 * MINUTE_MS,
    45 * MINUTE_MS, 50 * MINUTE_MS, 59 * MINUTE_MS, 61 * MINUTE_MS, 64 * MINUTE_MS, 90 * MINUTE_MS,
    3 * DAY_MS,
)  # fmt: skip

LENGTHS_MS = (
    0, 1, 30, SECOND_MS, 40 * SECOND_MS, 2 * MINUTE_MS, 4 * MINUTE_MS, 10 * MINUTE_MS, 44 * MINUTE_MS,
    50 * MINUTE_MS, 2 * HOUR_MS, 30 * DAY_MS,
)  # fmt: skip

COPIES = (0, 0, 0, 1, 3)  # of an event, beside itself

DELAYS_MS = (0, 0, 0, 50, SECOND_MS, 3 * MINUTE_MS, HOUR_MS, 30 * DAY_MS)

INDEX_LAG_MS = 10 * SECOND_MS  # an index is behind its broker by this much at most

LAGS_MS = (0, 0, 1, 300, SECOND_MS, 4 * SECOND_MS, INDEX_LAG_MS - 1, INDEX_LAG_MS)

ASIDE_MS = (
    -HOUR_MS, -INDEX_LAG_MS, -SECOND_MS, -1, 0, 1, 2, 500, 999, SECOND_MS, 3 * SECOND_MS, INDEX_LAG_MS - 1,
    INDEX_LAG_MS, INDEX_LAG_MS + 1, 2 * INDEX_LAG_MS, 5 * MINUTE_MS, 44 * MINUTE_MS, 61 * MINUTE_MS,
)  # fmt: skip

STALE_MS = (MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 3 * DAY_MS)  # how old the answers of a lagging replica are

SWEEP_MS = 15 * MINUTE_MS

Skew = Literal["none", "orderly", "wild"]
"""How stamps err: *orderly* keeps the true order, save in takeovers; *wild* lets each err by itself."""
SKEWS: tuple[Skew, ...] = ("none", "orderly", "wild")


class Answer(NamedTuple):
    """What the API would have answered from `at_ms` on."""

    at_ms: int
    state: State
    timestamp_ms: int | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueSession:
    """One session as it was, by true time, and the stamps that AWS gave its connect and its disconnect."""

    began_ms: int
    ended_ms: int | None
    session_id: str
    version: int
    reason: str
    connect_ms: int = 0
    disconnect_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What arrived of one client, in its order of arrival, beside the truth.

    `complete`: law 5 holds, the timeline of `events` must be `truth`. `disputed`: some copies disagree, so
    that what arrived is not what AWS published. `stale`: some checks were answered from much older truth, so
    that law 6 does not hold.
    """

    client_id: str
    events: list[Event]
    truth: list[Answer]
    skew: Skew
    complete: bool = False
    disputed: bool = False
    checks: list[Check] = field(default_factory=list)
    stale: bool = False


def chance(rng: random.Random, share: float) -> bool:
    """Say yes in `share` of all cases; the smallest draw is a no, so that hypothesis shrinks to less."""
    return rng.random() >= 1 - share


# --- What truly happened ------------------------------------------------------------------------------------


def true_sessions(rng: random.Random, *, longest: int = 9) -> list[TrueSession]:
    """Draw the sessions of one client, in true order and with true times."""
    sessions: list[TrueSession] = []
    now_ms = T0
    version = rng.choice((0, 0, 0, 1, 7))
    flapping = chance(rng, 0.2)
    stormy = chance(rng, 0.2)
    count = rng.randint(1, longest)
    for position in range(count):
        length_ms = rng.choice(LENGTHS_MS[:6] if flapping or stormy else LENGTHS_MS)
        length_ms += rng.choice((0, rng.randint(0, length_ms)))
        last = position == count - 1
        taken_over = not last and chance(rng, 0.8 if stormy else 0.25)
        still_on = last and chance(rng, 0.4)
        session = TrueSession(
            began_ms=now_ms,
            ended_ms=None if still_on else now_ms + length_ms,
            session_id=f"{rng.getrandbits(32):08x}-{position:02x}",
            version=version,
            reason=DUPLICATE_CLIENTID if taken_over else rng.choice(REASONS),
        )
        sessions.append(session)
        gap_ms = 0 if taken_over else rng.choice(GAPS_MS[:7] if flapping else GAPS_MS)
        now_ms += length_ms + gap_ms
        if gap_ms >= RESET_AFTER_MS and chance(rng, 0.7):  # else a persistent session
            version = rng.choice((0, 0, 0, 1, 2))
        else:
            version += rng.choice((1, 1, 1, 1, 2, 5))
    return sessions


def stamped(rng: random.Random, sessions: Sequence[TrueSession], skew: Skew) -> list[TrueSession]:
    """Give each event its stamp, wrong by at most two minutes."""

    def error_ms() -> int:
        if skew == "none":
            return 0
        reach_ms = rng.choice((0, 1, 20, SECOND_MS, MINUTE_MS, STAMP_ERROR_MS))
        return rng.randint(-reach_ms, reach_ms)

    result = []
    floor_ms = 0  # of the next stamp, where stamps are in order; none can go further off by being raised
    for session in sessions:
        connect_ms = session.began_ms + error_ms()
        if skew == "orderly":
            connect_ms = floor_ms = max(connect_ms, floor_ms)
        disconnect_ms = 0 if session.ended_ms is None else session.ended_ms + error_ms()
        if skew == "orderly" and session.reason != DUPLICATE_CLIENTID:
            disconnect_ms = floor_ms = max(disconnect_ms, floor_ms)
        result.append(replace(session, connect_ms=connect_ms, disconnect_ms=disconnect_ms))
    return result


def with_every_stamp_its_own(sessions: Sequence[TrueSession]) -> list[TrueSession]:
    """Raise stamps by single milliseconds until connects ascend strictly and no two disconnects are alike.

    Where events bear no version nothing but the stamp says which is which.
    """
    result = []
    floor_ms = 0  # of the next connect: the last stamp of the sessions before, takeovers apart
    taken: set[int] = set()
    for session in sessions:
        connect_ms = max(session.connect_ms, floor_ms)
        floor_ms = connect_ms + 1
        disconnect_ms = session.disconnect_ms
        if session.reason != DUPLICATE_CLIENTID:
            disconnect_ms = max(disconnect_ms, connect_ms)
        while disconnect_ms in taken:
            disconnect_ms += 1
        taken.add(disconnect_ms)
        if session.reason != DUPLICATE_CLIENTID:
            floor_ms = max(floor_ms, disconnect_ms)
        result.append(replace(session, connect_ms=connect_ms, disconnect_ms=disconnect_ms))
    return result


def truth(sessions: Sequence[TrueSession]) -> list[Answer]:
    """Return the API's answers by AWS's own stamps, with the sessions in their true order.

    A connect takes effect not before the connects before it, a disconnect not before its own connect; a
    session that was taken over by then never goes to disconnected.
    """
    starts: list[int] = []
    for session in sessions:
        starts.append(max([session.connect_ms, *starts]))
    answers = []
    for session, start_ms, next_ms in zip(sessions, starts, [*starts[1:], None], strict=False):
        answers.append(Answer(start_ms, State.CONNECTED, session.connect_ms, "NONE"))
        if session.ended_ms is None or session.reason == DUPLICATE_CLIENTID:
            continue
        end_ms = max(session.disconnect_ms, start_ms)
        if next_ms is None or end_ms < next_ms:
            answers.append(Answer(end_ms, State.DISCONNECTED, session.disconnect_ms, session.reason))
    return answers


def at_each_boundary(answers: Sequence[Answer]) -> list[Answer]:
    """Leave out what no one could be answered: stretches of no length, and changes that change nothing."""
    seen: list[Answer] = []
    for answer, following in zip(answers, [*answers[1:], None], strict=False):
        if following is not None and following.at_ms == answer.at_ms:
            continue
        if not seen or seen[-1][1:] != answer[1:]:
            seen.append(answer)
    return seen


# --- What AWS published of it -------------------------------------------------------------------------------

Shape = Literal["full", "id", "version", "bare"]
"""Which of session id and version an event bears."""


def published(client_id: str, sessions: Sequence[TrueSession]) -> list[tuple[Event, Event | None]]:
    """Return the connect and, where it ended, the disconnect of each session, every member filled in."""
    pairs: list[tuple[Event, Event | None]] = []
    for one in sessions:
        connect = Event(
            client_id, Kind.CONNECTED, one.connect_ms, one.session_id, one.version, ip="192.0.2.7"
        )
        disconnect = Event(
            client_id,
            Kind.DISCONNECTED,
            one.disconnect_ms,
            one.session_id,
            one.version,
            one.reason,
            client_initiated=one.reason == "CLIENT_INITIATED_DISCONNECT",
        )
        pairs.append((connect, None if one.ended_ms is None else disconnect))
    return pairs


def shaped(event: Event, shape: Shape) -> Event:
    return event._replace(
        session_id=event.session_id if shape in ("full", "id") else None,
        version=event.version if shape in ("full", "version") else None,
    )


def noise(rng: random.Random, client_id: str, near_ms: Sequence[int]) -> list[Event]:
    """Return events that change no state."""
    kinds = (Kind.CONNECT_FAILED, Kind.SUBSCRIBED, Kind.UNSUBSCRIBED)
    return [
        Event(
            client_id,
            rng.choice(kinds),
            rng.choice(near_ms) + rng.choice((-HOUR_MS, -1, 0, 1, MINUTE_MS)),
            session_id=f"{rng.getrandbits(32):x}",
        )
        for _ in range(rng.choice((0, 0, 1, 3)))
    ]


# --- What arrived -------------------------------------------------------------------------------------------


def decorated(rng: random.Random, event: Event) -> Event:
    """Return a copy that says the same in other clothes."""
    dress = rng.randrange(4)
    if dress == 0:
        return event
    if dress == 1:
        return event._replace(extra=f'{{"rule_ts":{event.at_ms + rng.randint(1, 9999)}}}')
    if dress == 2:
        return event._replace(principal="arn:aws:iot", ip=None)
    return event._replace(reason=None) if event.kind is Kind.DISCONNECTED else event._replace(thing_name="t")


def disputed(rng: random.Random, event: Event) -> Event:
    """Return a copy that disagrees in one member."""
    member = rng.randrange(3)
    if member == 0:
        return event._replace(at_ms=event.at_ms + rng.choice((-MINUTE_MS, -1, 1, SECOND_MS, HOUR_MS)))
    if member == 1:
        return event._replace(version=rng.choice((None, 0, 1, 4)))
    return event._replace(reason=rng.choice((None, DUPLICATE_CLIENTID, *REASONS)))


def arrival(rng: random.Random, events: Sequence[Event]) -> list[Event]:
    """Return the events in an order of arrival: as stamped, late by anything up to a month, or at random."""
    if chance(rng, 0.3):
        return rng.sample(events, len(events))
    late = [(event.at_ms + rng.choice(DELAYS_MS), position) for position, event in enumerate(events)]
    return [events[position] for _, position in sorted(late)]


COMMON: tuple[tuple[Shape, Shape], ...] = (
    ("full", "full"),
    ("version", "version"),
    ("full", "version"),
    ("version", "full"),
    ("full", "id"),
    ("id", "full"),
)
"""Shapes of a session's connect and disconnect that share its id or its version, and tell its version."""


def complete_history(rng: random.Random, client_id: str | None = None) -> History:
    """Draw a history of which every event arrived, bearing what law 5 asks for."""
    client_id = rng.choice(CLIENT_IDS) if client_id is None else client_id
    mix = rng.choice(("full", "version", "common", "id"))
    skew: Skew = "orderly" if mix == "id" else rng.choice(SKEWS)
    sessions = stamped(rng, true_sessions(rng), skew)
    if mix == "id":
        sessions = with_every_stamp_its_own(sessions)
    events: list[Event] = []
    for connect, disconnect in published(client_id, sessions):
        shapes: tuple[Shape, Shape] = ("full", "full")
        if mix == "version":
            shapes = ("version", "version")
        elif mix == "common":
            shapes = rng.choice(COMMON if disconnect is not None else COMMON[:2])
        elif mix == "id":
            shapes = rng.choice((("id", "id"), *COMMON))
        for event, shape in zip((connect, disconnect), shapes, strict=True):
            if event is None:
                continue
            events.append(shaped(event, shape))
            for _ in range(rng.choice(COPIES)):
                copy = shaped(
                    event, rng.choice(("full", "version", "bare" if mix == "id" else "full", shape))
                )
                events.append(decorated(rng, copy))
    near_ms = [event.at_ms for event in events]
    return History(
        client_id=client_id,
        events=arrival(rng, [*events, *noise(rng, client_id, near_ms)]),
        truth=truth(sessions),
        skew=skew,
        complete=True,
    )


def worn_history(
    rng: random.Random,
    client_id: str | None = None,
    *,
    skew: Skew | None = None,
    disputes: bool | None = None,
) -> History:
    """Draw a history of which events are lost, bare, or in dispute."""
    client_id = rng.choice(CLIENT_IDS) if client_id is None else client_id
    given: Skew = rng.choice(SKEWS)
    skew = given if skew is None else skew
    disputes = chance(rng, 0.5) if disputes is None else disputes
    sessions = stamped(rng, true_sessions(rng), skew)
    bareness = rng.choice((0.0, 0.0, 0.3, 1.0))
    lossiness = rng.choice((0.1, 0.3, 0.6))
    shapes: tuple[Shape, ...] = rng.choice((("full",), ("full", "version", "id"), ("version",), ("id",)))
    copied: tuple[Shape, ...] = rng.choice((("full",), ("full", "version", "id", "bare")))
    if skew != "wild" and (bareness or shapes != ("full",) or copied != ("full",)):
        sessions = with_every_stamp_its_own(sessions)
    events: list[Event] = []
    for connect, disconnect in published(client_id, sessions):
        if chance(rng, lossiness / 2):
            continue
        for event in (connect, disconnect):
            if event is None or chance(rng, lossiness / 2):
                continue
            events.append(shaped(event, "bare" if chance(rng, bareness) else rng.choice(shapes)))
            for _ in range(rng.choice(COPIES)):
                copy = decorated(rng, shaped(event, rng.choice(copied)))
                events.append(disputed(rng, copy) if disputes and chance(rng, 0.3) else copy)
    near_ms = [event.at_ms for event in events] or [T0]
    return History(
        client_id=client_id,
        events=arrival(rng, [*events, *noise(rng, client_id, near_ms)]),
        truth=truth(sessions),
        skew=skew,
        disputed=disputes,
    )


def history(rng: random.Random, client_id: str | None = None) -> History:
    """Draw any history: a third of them complete."""
    draw = complete_history if chance(rng, 1 / 3) else worn_history
    return draw(rng, client_id)


# --- What checks said ---------------------------------------------------------------------------------------

Form = Literal["precise", "whole", "unnamed"]
"""How a check names its instant: to the millisecond, in whole seconds, or not at all."""


def answered(
    rng: random.Random,
    client_id: str,
    answers: Sequence[Answer],
    asked_ms: int,
    form: Form,
    *,
    old_ms: int = 0,
) -> Check:
    """Return the check asked at `asked_ms`, answered with the truth as it was some lag, and `old_ms`, before.

    Before the first answer: never connected.
    """
    as_of_ms = asked_ms - rng.choice((*LAGS_MS, rng.randint(0, INDEX_LAG_MS))) - old_ms
    answer = next((one for one in reversed(answers) if one.at_ms <= as_of_ms), None)
    if answer is None:
        return Check(client_id, asked_ms, State.DISCONNECTED, None, False, "UNKNOWN")
    reason = answer.reason
    named_ms = answer.timestamp_ms
    if form == "unnamed" or named_ms is None:
        given = chance(rng, 0.5)
        return Check(client_id, asked_ms, answer.state, None, False, reason if given else None)
    if chance(rng, 0.2):  # SearchIndex leaves it out when connected, GetConnection always
        reason = None
    whole = form == "whole"
    return Check(
        client_id,
        asked_ms,
        answer.state,
        named_ms - named_ms % SECOND_MS if whole else named_ms,
        whole,
        reason,
    )


def asked_instants(rng: random.Random, answers: Sequence[Answer]) -> list[int]:
    """Draw when checks were asked: beside transitions, by sweeps that sometimes fail, and at any time."""
    first_ms, last_ms = answers[0].at_ms, answers[-1].at_ms
    instants = []
    for _ in range(rng.choice((0, 1, 2, 5, 12))):
        at_ms = rng.choice(answers).at_ms + rng.choice(ASIDE_MS)
        instants += [at_ms + rng.choice((0, 0, 1, 700)) for _ in range(rng.choice((1, 1, 1, 3)))]
    if chance(rng, 0.4):
        from_ms = rng.choice((first_ms, rng.randint(first_ms, last_ms))) - rng.randint(0, 3 * SWEEP_MS)
        failing = rng.choice((0.0, 0.2, 0.6))
        sweeps = range(from_ms, from_ms + rng.choice((3, 10, 40)) * SWEEP_MS, SWEEP_MS)
        instants += [at_ms for at_ms in sweeps if not chance(rng, failing)]
    if chance(rng, 0.3):  # agreeing for days
        at_ms = rng.choice(answers).at_ms
        instants += [at_ms + hours * 6 * HOUR_MS for hours in range(rng.choice((2, 8)))]
    for _ in range(rng.choice((0, 0, 1, 3))):
        instants.append(rng.randint(first_ms - HOUR_MS, last_ms + DAY_MS))
    return instants


def takeover_checks(rng: random.Random, client_id: str, answers: Sequence[Answer]) -> list[Check]:
    """Return what an index may say of the older session in the midst of a takeover: never an outage."""
    checks = []
    for before, answer in pairwise(answers):
        if before.state is answer.state is State.CONNECTED and chance(rng, 0.1):
            named_ms = rng.choice((None, answer.at_ms, answer.at_ms + 300))
            asked_ms = answer.at_ms + rng.choice((0, 400, SECOND_MS))
            checks.append(Check(client_id, asked_ms, State.DISCONNECTED, named_ms, False, DUPLICATE_CLIENTID))
    return checks


def with_checks(rng: random.Random, one: History) -> History:
    """Add checks to a history, in any order, some twice; a few percent of histories get stale ones."""
    answers = at_each_boundary(one.truth)
    forms: tuple[Form, ...] = rng.choice(
        (("precise",), ("whole",), ("unnamed",), ("precise", "unnamed"), ("precise", "whole", "unnamed"))
    )
    stale = chance(rng, 0.05)
    checks = [
        answered(
            rng,
            one.client_id,
            answers,
            asked_ms,
            rng.choice(forms),
            old_ms=rng.choice(STALE_MS) if stale and chance(rng, 0.3) else 0,
        )
        for asked_ms in asked_instants(rng, answers)
    ]
    checks += takeover_checks(rng, one.client_id, answers)
    checks += [check for check in checks if chance(rng, 0.1)]
    return replace(one, checks=rng.sample(checks, len(checks)), stale=stale)


def checked_history(rng: random.Random, client_id: str | None = None) -> History:
    """Draw a history of lost and copied events, seldom in dispute, and of checks; some have checks alone."""
    one = worn_history(rng, client_id, disputes=chance(rng, 0.1))
    if chance(rng, 0.05):
        one = replace(one, events=[])
    return with_checks(rng, one)


# --- For hypothesis -----------------------------------------------------------------------------------------


def drawn(draw: Callable[[random.Random], History]) -> st.SearchStrategy[History]:
    """Make a strategy of a generator: hypothesis makes each of its choices, so that it can shrink them."""
    return st.randoms(use_true_random=False).map(draw)


histories = drawn(history)
complete_histories = drawn(complete_history)
worn_histories = drawn(worn_history)
checked_histories = drawn(checked_history)
