"""How long a thing was connected: exact sums of milliseconds, and the outages among them. Pure.

The rule.

1. Time is cut into *stretches* that tile a window: connected, disconnected, unknown, or not registered. So any window
   is the sum of its parts, to the millisecond, however it is cut.
2. Policies change what a stretch counts as, in this order: disconnected time that was annotated as a false alarm counts
   as connected, though not as observed; outages with less than `coalesce_ms` connected between them are one outage,
   that time included; an outage shorter than `grace_ms` counts as connected. These two look at whole outages, those
   that begin before the window or end after it too, so that a cut changes nothing. What is excluded (annotated
   maintenance, outside service hours) counts as that, whatever the state; what is not registered goes before it.
3. Availability is connected / (connected + disconnected), and nothing where both are 0. Its *low* bound counts all time
   that is unknown, and all that is inferred connected, as disconnected; its *high* bound the other way round.
4. An outage is a run of disconnected time. It is *cut* where its beginning or its end is not seen: by the window, by
   unknown time, or because it goes on. Mean times count as statistics of censored times do: all down time by the ends
   that were seen, all up time by the beginnings that were seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

from store.annotations import Applied, Note
from store.certainty import Period, Seen, merged
from store.model import Certainty, State
from store.registry import Registry

Span = tuple[int, int]  # [from_ms, to_ms)


class Counted(StrEnum):
    """What a stretch of time counts as."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"
    EXCLUDED = "excluded"
    NOT_REGISTERED = "notRegistered"


class UnknownAs(StrEnum):
    """What unknown time counts as."""

    APART = "apart"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Stretch(NamedTuple):
    """A stretch of one thing's time, `[from_ms, to_ms)`.

    `reason` is that of the disconnect where it counts as disconnected. `turn`: the answer changed at `from_ms` (else it
    only became more or less sure, or is cut there). `seen`: the transition in force, where the state is known.
    """

    from_ms: int
    to_ms: int
    counted: Counted
    observed: bool
    reason: str | None = None
    turn: bool = False
    seen: Seen | None = None


class ThingTime(NamedTuple):
    """A thing's time as it is told, not yet counted by any policy: stretches that tile a window."""

    thing_name: str | None
    client_id: str  # that spoke for it last
    registry: Registry | None
    stretches: Sequence[Stretch]
    said: Sequence[Applied] = ()  # what annotations say of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How time is counted. `excluded` is disjoint and ascending; a report states all of it."""

    grace_ms: int = 0
    coalesce_ms: int = 0
    unknown: UnknownAs = UnknownAs.APART
    excluded: Sequence[Span] = ()
    without_maintenance: bool = False  # it is excluded, where it was annotated
    without_false_alarms: bool = False  # they count as connected

    @property
    def reach_ms(self) -> int:
        """How far beyond a window a policy looks at outages that cross its edge."""
        return self.grace_ms + self.coalesce_ms


class Outage(NamedTuple):
    """A run of disconnected time within a window; `down_ms` of it counts, the rest is excluded."""

    from_ms: int
    to_ms: int
    reason: str | None
    down_ms: int
    begins: bool  # its beginning was seen in the window
    ends: bool  # ... and its end
    observed: bool  # all of it was
    began: Seen | None = (
        None  # the transition that it began with, where that was seen; none where a false alarm ended
    )


@dataclass(slots=True)
class Account:
    """The sums of one thing, or of a group of them, over a window; milliseconds."""

    connected_ms: int = 0
    disconnected_ms: int = 0
    unknown_ms: int = 0
    excluded_ms: int = 0
    not_registered_ms: int = 0
    observed_connected_ms: int = 0
    observed_disconnected_ms: int = 0
    outages: int = 0
    ended: int = 0  # outages whose end was seen
    begun: int = 0  # ... and whose beginning was
    longest_outage_ms: int = 0
    reconnects: int = 0
    takeovers: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # disconnected ms by reason

    def add_time(self, counted: Counted, length_ms: int, *, observed: bool, reason: str | None) -> None:
        """Add a stretch of time."""
        match counted:
            case Counted.CONNECTED:
                self.connected_ms += length_ms
                self.observed_connected_ms += length_ms if observed else 0
            case Counted.DISCONNECTED:
                self.disconnected_ms += length_ms
                self.observed_disconnected_ms += length_ms if observed else 0
                said = reason or "UNKNOWN"
                self.reasons[said] = self.reasons.get(said, 0) + length_ms
            case Counted.UNKNOWN:
                self.unknown_ms += length_ms
            case Counted.EXCLUDED:
                self.excluded_ms += length_ms
            case Counted.NOT_REGISTERED:
                self.not_registered_ms += length_ms

    def add(self, other: Account) -> None:
        """Add another thing's sums."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_outage_ms = max(self.longest_outage_ms, other.longest_outage_ms)
        for reason, down_ms in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + down_ms

    @property
    def window_ms(self) -> int:
        """All time there is."""
        return self.counted_ms + self.excluded_ms + self.not_registered_ms

    @property
    def counted_ms(self) -> int:
        """The time that an availability is about."""
        return self.connected_ms + self.disconnected_ms + self.unknown_ms

    @property
    def availability(self) -> float | None:
        """The share connected of what is known; None where nothing is."""
        known_ms = self.connected_ms + self.disconnected_ms
        return self.connected_ms / known_ms if known_ms else None

    @property
    def availability_low(self) -> float | None:
        """The least that it can have been."""
        return self.observed_connected_ms / self.counted_ms if self.counted_ms else None

    @property
    def availability_high(self) -> float | None:
        """The most that it can have been."""
        if not self.counted_ms:
            return None
        return (self.counted_ms - self.observed_disconnected_ms) / self.counted_ms

    @property
    def mttr_ms(self) -> int | None:
        """The mean time to come back; None where no end of an outage was seen."""
        return round(self.disconnected_ms / self.ended) if self.ended else None

    @property
    def mtbf_ms(self) -> int | None:
        """The mean time connected between outages; None where no beginning of one was seen."""
        return round(self.connected_ms / self.begun) if self.begun else None


_SUMS = (
    "connected_ms",
    "disconnected_ms",
    "unknown_ms",
    "excluded_ms",
    "not_registered_ms",
    "observed_connected_ms",
    "observed_disconnected_ms",
    "outages",
    "ended",
    "begun",
    "reconnects",
    "takeovers",
)


class Verdict(StrEnum):
    """Whether a target of availability was reached."""

    MET = "met"
    MISSED = "missed"
    CANNOT_BE_TOLD = "cannot be told"


def verdict(account: Account, target: float) -> Verdict:
    """Judge a target: met or missed only where no unknown or inferred time could turn it."""
    low, high = account.availability_low, account.availability_high
    if low is None or high is None:
        return Verdict.CANNOT_BE_TOLD
    if low >= target:
        return Verdict.MET
    return Verdict.MISSED if high < target else Verdict.CANNOT_BE_TOLD


# --- Counting -----------------------------------------------------------------------------------------------


class Reckoned(NamedTuple):
    """One thing's time in a window as a policy counts it: stretches that tile it, and the outages among them."""

    stretches: list[Stretch]
    outages: list[Outage]


class Thing(NamedTuple):
    """A thing's time in a window, counted by each policy in turn."""

    thing_name: str | None
    client_id: str  # that spoke for it last
    registry: Registry | None
    reckoned: Sequence[Reckoned]
    said: Sequence[Applied] = ()  # what annotations say of it
    realm: str | None = None  # where a report is of several


def reckon(told: Iterable[Stretch], policy: Policy, window: Span, said: Sequence[Applied] = ()) -> Reckoned:
    """Count the stretches of one thing by a policy, and by what annotations say of it.

    Both are of a time that holds the window and `policy.reach_ms` on either side of it, where there is so much; the
    stretches tile it, ascending.
    """
    stretches = list(_known_as(told, policy.unknown))
    if policy.without_false_alarms and said:
        stretches = list(_refuted(stretches, _Spans(_of(said, Note.FALSE_ALARM), Counted.CONNECTED)))
    if policy.coalesce_ms:
        stretches = _recounted(stretches, Counted.CONNECTED, policy.coalesce_ms)
    if policy.grace_ms:
        stretches = _recounted(stretches, Counted.DISCONNECTED, policy.grace_ms)
    maintained = _of(said, Note.MAINTENANCE) if policy.without_maintenance else ()
    excluded = _Spans([*policy.excluded, *maintained], Counted.EXCLUDED)
    outages = [
        outage
        for before, run, after in _runs(stretches)
        if run[0].counted is Counted.DISCONNECTED
        and (outage := _outage(before, run, after, window, excluded)) is not None
    ]
    return Reckoned([part for each in stretches for part in excluded.cut(_cut(each, window))], outages)


def account(reckoned: Reckoned) -> Account:
    """Add up one thing's time."""
    sums = Account()
    before: Stretch | None = None
    for each in reckoned.stretches:
        length_ms = each.to_ms - each.from_ms
        sums.add_time(each.counted, length_ms, observed=each.observed, reason=each.reason)
        if each.counted is Counted.EXCLUDED:
            continue
        if before is not None and each.turn and each.counted is Counted.CONNECTED:
            sums.reconnects += before.counted is Counted.DISCONNECTED
            # Not where it was disconnected, and only counts as connected: by grace, or as a false alarm.
            was_connected = before.seen is None or before.seen.state is State.CONNECTED
            sums.takeovers += before.counted is Counted.CONNECTED and was_connected
        before = each
    for outage in reckoned.outages:
        sums.outages += 1
        sums.begun += outage.begins
        sums.ended += outage.ends
        sums.longest_outage_ms = max(sums.longest_outage_ms, outage.down_ms)
    return sums


def split(reckoned: Reckoned, cuts: Sequence[int]) -> Iterator[Reckoned]:
    """Cut one thing's time at ascending instants; an outage belongs to where it begins in the window."""
    edges = [-(1 << 62), *cuts, 1 << 62]
    for from_ms, to_ms in pairwise(edges):
        yield Reckoned(
            [part for each in reckoned.stretches if (part := _cut(each, (from_ms, to_ms))) is not None],
            [outage for outage in reckoned.outages if from_ms <= outage.from_ms < to_ms],
        )


def _known_as(told: Iterable[Stretch], unknown: UnknownAs) -> Iterator[Stretch]:
    for each in told:
        if each.counted is Counted.UNKNOWN and unknown is not UnknownAs.APART:
            yield each._replace(counted=Counted(unknown.value), observed=False)
        else:
            yield each


def _of(said: Iterable[Applied], kind: Note) -> list[Span]:
    return [(each.from_ms, each.to_ms) for each in said if each.annotation.kind is kind]


def _refuted(stretches: Iterable[Stretch], alarms: _Spans) -> Iterator[Stretch]:
    """Count as connected what of disconnected time was a false alarm."""
    for each in stretches:
        if each.counted is Counted.DISCONNECTED:
            yield from (part._replace(seen=each.seen) for part in alarms.cut(each))
        else:
            yield each


Run = list[Stretch]  # that follow one another and count as the same


def _runs(stretches: Iterable[Stretch]) -> Iterator[tuple[Run | None, Run, Run | None]]:
    """Give each run, with the one before it and the one after."""
    runs = [list(group) for _, group in groupby(stretches, key=attrgetter("counted"))]
    return zip([None, *runs[:-1]], runs, [*runs[1:], None], strict=True)


def _recounted(stretches: Run, short: Counted, most_ms: int) -> list[Stretch]:
    """Count runs of `short` that last less than `most_ms` as the other state.

    Connected time only where it lies between two outages; an outage wherever it is.
    """
    other = Counted.DISCONNECTED if short is Counted.CONNECTED else Counted.CONNECTED
    found: list[Stretch] = []
    for before, run, after in _runs(stretches):
        flanked = all(one is not None and one[0].counted is other for one in (before, after))
        is_short = run[-1].to_ms - run[0].from_ms < most_ms
        if run[0].counted is short and is_short and (flanked or short is Counted.DISCONNECTED):
            reason = before[-1].reason if before is not None and other is Counted.DISCONNECTED else None
            found += (each._replace(counted=other, reason=reason, turn=False) for each in run)
        else:
            found += run
    return found


def _outage(before: Run | None, run: Run, after: Run | None, window: Span, excluded: _Spans) -> Outage | None:
    parts = [part for each in run if (part := _cut(each, window)) is not None]
    counts = [one for part in parts for one in excluded.cut(part) if one.counted is Counted.DISCONNECTED]
    if not counts:
        return None
    known = Counted.CONNECTED
    begins = before is not None and before[0].counted is known and window[0] <= run[0].from_ms
    return Outage(
        from_ms=parts[0].from_ms,
        to_ms=parts[-1].to_ms,
        reason=parts[0].reason,
        down_ms=sum(one.to_ms - one.from_ms for one in counts),
        begins=begins,
        ends=after is not None and after[0].counted is known and run[-1].to_ms < window[1],
        observed=all(part.observed for part in parts),
        began=run[0].seen if begins and run[0].turn else None,
    )


def _cut(each: Stretch | None, window: Span) -> Stretch | None:
    if each is None or (window[0] <= each.from_ms and each.to_ms <= window[1]):
        return each
    from_ms, to_ms = max(each.from_ms, window[0]), min(each.to_ms, window[1])
    return None if from_ms >= to_ms else _part(each, from_ms, to_ms)


class _Spans:
    """Spans of time that count as one thing, whatever the state."""

    def __init__(self, spans: Iterable[Span], counted: Counted) -> None:
        self._counted = counted
        self._spans = merged(list(spans))
        self._ends = [to_ms for _, to_ms in self._spans]

    def cut(self, each: Stretch | None) -> Iterator[Stretch]:
        """Cut the spans out of a stretch, to count as that; what is not registered stays so."""
        if each is None:
            return
        if not self._spans or each.counted is Counted.NOT_REGISTERED:
            yield each
            return
        cursor_ms = each.from_ms
        for from_ms, to_ms in self._spans[bisect_right(self._ends, each.from_ms) :]:
            if from_ms >= each.to_ms:
                break
            if cursor_ms < from_ms:
                yield _part(each, cursor_ms, from_ms)
            begins_ms, cursor_ms = max(cursor_ms, from_ms), min(to_ms, each.to_ms)
            yield Stretch(begins_ms, cursor_ms, self._counted, observed=False)
        if cursor_ms < each.to_ms:
            yield _part(each, cursor_ms, each.to_ms)


def _part(each: Stretch, from_ms: int, to_ms: int) -> Stretch:
    return each._replace(from_ms=from_ms, to_ms=to_ms, turn=each.turn and from_ms == each.from_ms)


# --- Stretches out of answers -------------------------------------------------------------------------------


def stretches_of(
    periods: Iterable[Period], absent: Sequence[Span], *, begun_ms: int | None, window: Span, known_at: int
) -> Iterator[Stretch]:
    """Give one thing's time as stretches that tile a window.

    `periods` are its periods, ascending and without overlap, those of several clients included; `absent` is when it
    was not registered. Before its first period it was not known: not registered, as the point answer says, or unknown
    where the store's own history had not begun (`begun_ms`; None: it never did). What is later than `known_at` is
    inferred at best.
    """
    gone = _Spans(absent, Counted.NOT_REGISTERED)
    for each in _tiled(periods, begun_ms, window, known_at):
        yield from gone.cut(each)


def _tiled(periods: Iterable[Period], begun_ms: int | None, window: Span, known_at: int) -> Iterator[Stretch]:
    cursor_ms, high_ms = window
    dark_ms = high_ms if begun_ms is None else begun_ms  # up to then nobody knew of anything
    for period in periods:
        from_ms = max(period.from_ms, cursor_ms)
        to_ms = high_ms if period.to_ms is None else min(period.to_ms, high_ms)
        if from_ms >= to_ms:
            continue
        if cursor_ms < from_ms:
            yield from _untold(cursor_ms, from_ms, dark_ms)
        dark_ms = high_ms  # the thing was heard of: what is told no more is unknown
        turn = period.from_ms == period.seen.at_ms and from_ms == period.from_ms
        known = _stretch(period, from_ms, to_ms, turn=turn)
        if not known.observed or to_ms - 1 <= known_at:
            yield known
        elif from_ms <= known_at:
            yield known._replace(to_ms=known_at + 1)
            yield known._replace(from_ms=known_at + 1, observed=False, turn=False)
        else:
            yield known._replace(observed=False)
        cursor_ms = to_ms
    if cursor_ms < high_ms:
        yield from _untold(cursor_ms, high_ms, dark_ms)


def _untold(from_ms: int, to_ms: int, dark_ms: int) -> Iterator[Stretch]:
    """Count time of which no period tells: unknown up to `dark_ms`, not registered from then on."""
    edge_ms = min(max(from_ms, dark_ms), to_ms)
    if from_ms < edge_ms:
        yield Stretch(from_ms, edge_ms, Counted.UNKNOWN, observed=False)
    if edge_ms < to_ms:
        yield Stretch(edge_ms, to_ms, Counted.NOT_REGISTERED, observed=False)


_STATES = {State.CONNECTED: Counted.CONNECTED, State.DISCONNECTED: Counted.DISCONNECTED}


def _stretch(period: Period, from_ms: int, to_ms: int, *, turn: bool) -> Stretch:
    seen = period.seen
    if period.certainty is Certainty.UNKNOWN or seen.state is State.UNKNOWN:
        return Stretch(from_ms, to_ms, Counted.UNKNOWN, observed=False, turn=turn)
    counted = _STATES[seen.state]
    reason = seen.reason if counted is Counted.DISCONNECTED else None
    return Stretch(from_ms, to_ms, counted, period.certainty is Certainty.OBSERVED, reason, turn, seen)
