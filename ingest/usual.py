"""The usual ways to keep connectivity, for comparison: what a consumer does that keeps one row a client.

Owns four methods as they are met in the field, three that hear events and one that hears checks, each written
as a decent engineer would: copies are dropped, connect_failed and subscriptions are passed over. Beside them
stand the same three hearing both (`CHECKED`), where an index behind its broker is allowed for. None of them may
look ahead, and none uses a rule of the reducer. And there is `SORTED`, which is no live consumer but a batch job
over the complete table of events; it is the most that sorting by timestamp can give.

What popular consumers do, and so do these: a disconnect is a disconnect, whatever its reason (only the version
tells `HIGHEST_VERSION` that the one of a takeover is old); a newer message takes effect at its own timestamp,
save where arrival is what counts; a message that is not newer by the method's own measure is dropped for good.
A check that names a newer instant is a newer message; one that contradicts what is held, though it names an
older instant, overrides from its asking on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ingest.checks import check_of
from ingest.decode import decode_stream
from ingest.scoring import Answered
from store.model import (
    DUPLICATE_CLIENTID,
    HOUR_MS,
    Check,
    Event,
    Kind,
    Learned,
    Observation,
    State,
)

LATEST_TIMESTAMP = "latest timestamp wins"
ARRIVAL_ORDER = "arrival order wins"
HIGHEST_VERSION = "highest version wins"
CHECKS_ONLY = "checks only"
SORTED = "all events sorted by timestamp"

LATEST_TIMESTAMP_CHECKED = f"{LATEST_TIMESTAMP}, and checks"
ARRIVAL_ORDER_CHECKED = f"{ARRIVAL_ORDER}, and checks"
HIGHEST_VERSION_CHECKED = f"{HIGHEST_VERSION}, and checks"

USUAL = (LATEST_TIMESTAMP, ARRIVAL_ORDER, HIGHEST_VERSION, CHECKS_ONLY)
CHECKED = (LATEST_TIMESTAMP_CHECKED, ARRIVAL_ORDER_CHECKED, HIGHEST_VERSION_CHECKED)

_LAG_MS = 10_000  # an index may be this far behind: a check contradicts nothing that is younger
_CONNECTED_REASON = "NONE"


class _Row:
    """The row of one client, and the rows that were in its place before."""

    def __init__(self) -> None:
        self._answers: list[Answered] = []

    def answers(self) -> list[Answered]:
        return self._answers

    @property
    def held(self) -> Answered | None:
        return self._answers[-1] if self._answers else None

    def put(self, answer: Answered) -> None:
        """Write a row; one that says what is held already is no change."""
        held = self.held
        if held is None or held[1:] != answer[1:]:
            at_ms = answer.at_ms if held is None else max(answer.at_ms, held.at_ms)
            self._answers.append(answer._replace(at_ms=at_ms))

    def event(self, event: Event, known_at_ms: int) -> None:
        raise NotImplementedError

    def check(self, check: Check) -> None:
        raise NotImplementedError


class _LatestTimestamp(_Row):
    """A message counts if its timestamp is later than the row's."""

    def __init__(self) -> None:
        super().__init__()
        self._as_of_ms = -1  # the instant that the row speaks for

    def event(self, event: Event, known_at_ms: int) -> None:
        if event.at_ms > self._as_of_ms:
            self._as_of_ms = event.at_ms
            self.put(_answer(event, event.at_ms))

    def check(self, check: Check) -> None:
        self._as_of_ms = max(self._as_of_ms, _override(self, check, self._as_of_ms))


class _HighestVersion(_Row):
    """A message counts if its version is higher than the row's; within one version, if it is later.

    The version starts anew with a later connect of version 0 (a disconnect of version 0 may be the old end of
    a takeover), and with any message that is an hour later than the row.
    """

    def __init__(self) -> None:
        super().__init__()
        self._as_of_ms = -1
        self._version = -1

    def event(self, event: Event, known_at_ms: int) -> None:
        version = -1 if event.version is None else event.version
        later = event.at_ms > self._as_of_ms
        if version == self._version:
            counts = later or (event.kind is Kind.DISCONNECTED and event.at_ms == self._as_of_ms)
        else:
            anew = version == 0 and event.kind is Kind.CONNECTED and later
            counts = version > self._version or anew or event.at_ms > self._as_of_ms + HOUR_MS
        if counts:
            self._version = version
            self._as_of_ms = event.at_ms
            self.put(_answer(event, event.at_ms))

    def check(self, check: Check) -> None:
        self._as_of_ms = max(self._as_of_ms, _override(self, check, self._as_of_ms))


class _ArrivalOrder(_Row):
    """Every message counts, from its arrival on."""

    def event(self, event: Event, known_at_ms: int) -> None:
        self.put(_answer(event, known_at_ms))

    def check(self, check: Check) -> None:
        held = self.held
        if held is None or held.at_ms <= check.asked_ms - _LAG_MS:
            named_ms = check.named_ms
            if held is None or held.connected != _connected(check) or _is_later(check, held.timestamp_ms):
                self.put(_checked(check, check.asked_ms, named_ms))


class _ChecksOnly(_Row):
    """The state of each check, from the instant that it names on."""

    def event(self, event: Event, known_at_ms: int) -> None:
        return

    def check(self, check: Check) -> None:
        at_ms = check.asked_ms if check.named_ms is None else check.named_ms
        self.put(_checked(check, at_ms, check.named_ms))


class _Sorted(_Row):
    """All that ever arrived, sorted by timestamp; takeovers end nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._all: set[Answered] = set()

    def event(self, event: Event, known_at_ms: int) -> None:
        if event.reason != DUPLICATE_CLIENTID:
            self._all.add(_answer(event, event.at_ms))

    def check(self, check: Check) -> None:
        if check.named_ms is not None:
            self._all.add(_checked(check, check.named_ms, check.named_ms))
        elif not self._all:
            self._all.add(_checked(check, check.asked_ms, None))

    def answers(self) -> list[Answered]:
        rows = _Row()
        for answer in sorted(self._all, key=lambda one: (one.at_ms, one.connected, one.reason or "")):
            rows.put(answer)
        return rows.answers()


_METHODS: dict[str, Callable[[], _Row]] = {
    LATEST_TIMESTAMP: _LatestTimestamp,
    ARRIVAL_ORDER: _ArrivalOrder,
    HIGHEST_VERSION: _HighestVersion,
    CHECKS_ONLY: _ChecksOnly,
    LATEST_TIMESTAMP_CHECKED: _LatestTimestamp,
    ARRIVAL_ORDER_CHECKED: _ArrivalOrder,
    HIGHEST_VERSION_CHECKED: _HighestVersion,
    SORTED: _Sorted,
}
_HEAR_NO_CHECKS = frozenset({LATEST_TIMESTAMP, ARRIVAL_ORDER, HIGHEST_VERSION})


def _answer(event: Event, at_ms: int) -> Answered:
    connected = event.kind is Kind.CONNECTED
    return Answered(at_ms, connected, event.at_ms, _CONNECTED_REASON if connected else event.reason)


def _connected(check: Check) -> bool:
    return check.state is State.CONNECTED


def _checked(check: Check, at_ms: int, named_ms: int | None) -> Answered:
    connected = _connected(check)
    return Answered(at_ms, connected, named_ms, _CONNECTED_REASON if connected else check.reason)


def _is_later(check: Check, timestamp_ms: int | None) -> bool:
    return check.named_ms is not None and (timestamp_ms is None or check.named_ms > timestamp_ms)


def _override(row: _Row, check: Check, as_of_ms: int) -> int:
    """Let a check into a row that goes by timestamps; gives the instant that the row speaks for then."""
    held = row.held
    if check.named_ms is not None and check.named_ms > as_of_ms:
        row.put(_checked(check, check.named_ms, check.named_ms))
        return check.named_ms
    if held is None or (held.connected != _connected(check) and as_of_ms <= check.asked_ms - _LAG_MS):
        row.put(_checked(check, check.asked_ms, check.named_ms))
        return check.asked_ms
    return as_of_ms


class Usual:
    """The methods, fed with one recording in its order; memory is that of the answers they give."""

    def __init__(self, methods: Iterable[str] = (*USUAL, *CHECKED)) -> None:
        self._rows: dict[str, dict[str, _Row]] = {method: {} for method in methods}
        self._seen: dict[str, set[tuple[object, ...]]] = {}
        self._evidence: dict[str, tuple[int, int]] = {}

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def take(self, learned: Learned) -> None:
        """Tell all methods of one piece of evidence; what speaks of no connection is passed over."""
        evidence = learned.evidence
        if isinstance(evidence, Event):
            self._extend(evidence.client_id, evidence.at_ms)
            if evidence.kind <= Kind.DISCONNECTED and self._is_new(evidence):
                known_at_ms = evidence.at_ms if learned.known_at_ms is None else learned.known_at_ms
                for _, row in self._of(evidence.client_id):
                    row.event(evidence, known_at_ms)
        elif isinstance(evidence, Observation):
            check = check_of(evidence)
            if check is not None:
                self._extend(check.client_id, check.asked_ms)
                for method, row in self._of(check.client_id):
                    if method not in _HEAR_NO_CHECKS:
                        row.check(check)

    def answers(self, method: str, client_id: str) -> list[Answered]:
        """Give what a method says of a client, ascending by `at_ms`."""
        row = self._rows[method].get(client_id)
        return [] if row is None else row.answers()

    def evidence(self, client_id: str) -> tuple[int, int] | None:
        """Give the first and the last instant of evidence: stamps of events, moments of answered checks."""
        return self._evidence.get(client_id)

    def _of(self, client_id: str) -> Iterator[tuple[str, _Row]]:
        for method, rows in self._rows.items():
            row = rows.get(client_id)
            if row is None:
                row = rows[client_id] = _METHODS[method]()
            yield method, row

    def _is_new(self, event: Event) -> bool:
        if event.session_id is not None:
            key: tuple[object, ...] = (event.session_id, event.kind)
        else:
            key = (event.kind, event.at_ms, event.version)
        seen = self._seen.setdefault(event.client_id, set())
        if key in seen:
            return False
        seen.add(key)
        return True

    def _extend(self, client_id: str, at_ms: int) -> None:
        held = self._evidence.get(client_id)
        first_ms, last_ms = (at_ms, at_ms) if held is None else held
        self._evidence[client_id] = (min(first_ms, at_ms), max(last_ms, at_ms))


def replay(
    lines: Iterable[bytes], *, now: Callable[[], int], methods: Iterable[str] = (*USUAL, *CHECKED)
) -> Usual:
    """Feed the methods with a recording, in bytes cut anywhere; `now` as `decode_stream` takes it."""
    usual = Usual(methods)
    for record in decode_stream(lines, now=now):
        if isinstance(record, Learned):
            usual.take(record)
    return usual
