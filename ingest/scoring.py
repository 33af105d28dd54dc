"""How right a reported history is, against a known truth, over whole intervals.

Owns the comparison and the table that shows it. Pure: it knows no store, no command and no method by name; a
truth and the periods that somebody reports of the same client go in, totals come out. Every time is epoch ms,
every interval half-open; every total is exact, and nothing is sampled.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from store.model import Certainty

Window = tuple[int, int]  # [from_ms, to_ms)

_NEVER = "UNKNOWN"  # the reason that the API gives for what never connected: no transition, and no instant
_FOREVER = 1 << 62


class Answered(NamedTuple):
    """What is answered from `at_ms` on, up to the next one: in a truth, or by a method."""

    at_ms: int
    connected: bool
    timestamp_ms: int | None
    reason: str | None


class Reported(NamedTuple):
    """A period as a method reports it; `to_ms` None: still open; `connected` None: the state is not known.

    The bounds are those of the instant at which the state began, not stretched to the instant asked; both None
    where the method gives none.
    """

    from_ms: int
    to_ms: int | None
    connected: bool | None
    timestamp_ms: int | None
    reason: str | None
    certainty: Certainty = Certainty.INFERRED
    not_before_ms: int | None = None
    not_after_ms: int | None = None


@dataclass(slots=True, kw_only=True)
class Totals:
    """Time split by what was reported of it, in ms. Every instant of the truth is in one of the three."""

    right_ms: int = 0
    wrong_ms: int = 0
    unknown_ms: int = 0
    observed_ms: int = 0  # of all, what was reported as observed

    @property
    def all_ms(self) -> int:
        return self.right_ms + self.wrong_ms + self.unknown_ms

    def as_json(self) -> dict[str, Any]:
        return {
            "ms": self.all_ms,
            "rightMs": self.right_ms,
            "wrongMs": self.wrong_ms,
            "unknownMs": self.unknown_ms,
            "observedMs": self.observed_ms,
            "wrongShare": share(self.wrong_ms, self.all_ms),
            "unknownShare": share(self.unknown_ms, self.all_ms),
            "observedShare": share(self.observed_ms, self.all_ms),
        }


@dataclass(slots=True, kw_only=True)
class Score:
    """What one method got right, added up over clients.

    `between` is the time from each client's first evidence to its last, `beyond` the rest of the window. The
    counts of transitions are of those between the evidence, and of lasting ones: a state of no length is never
    answered.
    """

    between: Totals = field(default_factory=Totals)
    beyond: Totals = field(default_factory=Totals)
    transitions: int = 0  # true ones
    timestamps_exact: int = 0  # ... of which the report shows state and timestamp, to the millisecond
    answers_exact: int = 0  # ... and the reason
    bounded: int = 0  # reported transitions that bear bounds
    bounds_true: int = 0  # ... in which a true transition to that state lies
    observed: int = 0  # stretches called observed
    observed_untrue: int = 0  # ... whose state is not as reported throughout, or that hide a true transition
    observed_wrong_ms: int = 0
    _widths_ms: array[int] = field(default_factory=lambda: array("q"))

    def add(
        self,
        truth: Sequence[Answered],
        reported: Sequence[Reported],
        *,
        evidence: Window | None,
        window: Window,
    ) -> None:
        """Compare one client's report with its truth over `window`; what the truth does not cover is left out.

        Both ascend. `evidence` is the client's first and its last instant of evidence, None where it has none.
        Time that no period covers counts as unknown.
        """
        spans = [(max(span[0], window[0]), min(span[1], window[1]), span[2]) for span in _spans(truth)]
        spans = [span for span in spans if span[0] < span[1]]
        self._time(spans, reported, evidence)
        bounds = list(_bounded(reported))
        self._bounds(truth, bounds)
        self._observed(spans, reported, bounds, window)

    def _time(self, spans: Sequence[_Span], reported: Sequence[Reported], evidence: Window | None) -> None:
        for (from_ms, to_ms, true), periods in zip(spans, _overlaps(spans, reported), strict=True):
            stamped = exact = False
            covered_ms = 0
            for period, begins_ms, ends_ms in periods:
                self._segment(true, period, (begins_ms, ends_ms), evidence)
                covered_ms += ends_ms - begins_ms
                if period.connected == true.connected and period.timestamp_ms == true.timestamp_ms:
                    stamped = True
                    exact = exact or period.reason == true.reason
            if covered_ms < to_ms - from_ms:
                inside_ms = _overlap((from_ms, to_ms), evidence) - sum(
                    _overlap((begins_ms, ends_ms), evidence) for _, begins_ms, ends_ms in periods
                )
                self.between.unknown_ms += inside_ms
                self.beyond.unknown_ms += to_ms - from_ms - covered_ms - inside_ms
            if (
                true.timestamp_ms is not None
                and evidence is not None
                and evidence[0] <= true.at_ms <= evidence[1]
            ):
                self.transitions += 1
                self.timestamps_exact += stamped
                self.answers_exact += exact

    def _segment(self, true: Answered, period: Reported, stretch: Window, evidence: Window | None) -> None:
        inside_ms = _overlap(stretch, evidence)
        for totals, ms in (
            (self.between, inside_ms),
            (self.beyond, stretch[1] - stretch[0] - inside_ms),
        ):
            if period.connected is None:
                totals.unknown_ms += ms
            elif period.connected == true.connected:
                totals.right_ms += ms
            else:
                totals.wrong_ms += ms
            if period.certainty is Certainty.OBSERVED:
                totals.observed_ms += ms

    def _bounds(self, truth: Sequence[Answered], bounds: Sequence[_Bounds]) -> None:
        instants = {
            state: sorted(
                {
                    instant
                    for one in truth
                    if one.connected is state and one.timestamp_ms is not None
                    for instant in (one.at_ms, one.timestamp_ms)
                }
            )
            for state in (False, True)
        }
        for connected, not_before_ms, not_after_ms in bounds:
            self.bounded += 1
            low = -_FOREVER if not_before_ms is None else not_before_ms
            high = _FOREVER if not_after_ms is None else not_after_ms
            at = bisect_left(instants[connected], low)
            self.bounds_true += at < len(instants[connected]) and instants[connected][at] <= high
            if not_before_ms is not None and not_after_ms is not None:
                self._widths_ms.append(not_after_ms - not_before_ms)

    def _observed(
        self,
        spans: Sequence[_Span],
        reported: Sequence[Reported],
        bounds: Sequence[_Bounds],
        window: Window,
    ) -> None:
        changes = [span[2].at_ms for span in spans]
        for period in reported:
            from_ms = max(period.from_ms, window[0])
            to_ms = min(_FOREVER if period.to_ms is None else period.to_ms, window[1])
            if period.certainty is not Certainty.OBSERVED or from_ms >= to_ms:
                continue
            first = max(bisect_right(changes, from_ms) - 1, 0)
            past = bisect_left(changes, to_ms)
            wrong_ms = sum(
                _overlap((from_ms, to_ms), (span[0], span[1]))
                for span in spans[first:past]
                if span[2].connected != period.connected
            )
            inside = spans[bisect_right(changes, from_ms) : past]
            hides = any(not _is_told(true, bounds) for _, _, true in inside)
            self.observed += 1
            self.observed_untrue += wrong_ms > 0 or hides
            self.observed_wrong_ms += wrong_ms

    def width_ms(self, part: float) -> int | None:
        """Give a quantile of the bounds' widths (0.5: the median), the nearest one; None where none is bounded."""
        if not self._widths_ms:
            return None
        ranked = sorted(self._widths_ms)
        return ranked[min(int(part * len(ranked)), len(ranked) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Give all totals; shares are None where there is nothing to be a share of."""
        return {
            "betweenEvidence": self.between.as_json(),
            "beyondEvidence": self.beyond.as_json(),
            "transitions": {
                "true": self.transitions,
                "timestampsExact": self.timestamps_exact,
                "answersExact": self.answers_exact,
            },
            "bounds": {
                "reported": self.bounded,
                "true": self.bounds_true,
                "medianMs": self.width_ms(0.5),
                "p95Ms": self.width_ms(0.95),
            },
            "observed": {
                "stretches": self.observed,
                "untrue": self.observed_untrue,
                "wrongMs": self.observed_wrong_ms,
            },
        }


def periods_of(answers: Iterable[Answered]) -> list[Reported]:
    """Make periods, without certainty or bounds, of the answers of a method that knows neither."""
    return [
        Reported(from_ms, None if to_ms == _FOREVER else to_ms, one.connected, one.timestamp_ms, one.reason)
        for from_ms, to_ms, one in _spans(answers)
    ]


def share(part: int, whole: int) -> float | None:
    """Give a part of a whole; None, never 0 or 1, where there is no whole."""
    return part / whole if whole else None


# --- The walk -----------------------------------------------------------------------------------------------

_Span = tuple[int, int, Answered]
_Bounds = tuple[bool, int | None, int | None]  # connected, not before, not after


def _spans(answers: Iterable[Answered]) -> list[_Span]:
    """Cut time at the answers; those of no length, which nobody could be given, are left out."""
    spans: list[_Span] = []
    before: Answered | None = None
    for one in answers:
        if before is not None and before.at_ms < one.at_ms:
            spans.append((before.at_ms, one.at_ms, before))
        before = one
    if before is not None:
        spans.append((before.at_ms, _FOREVER, before))
    return spans


def _overlaps(
    spans: Sequence[_Span], reported: Sequence[Reported]
) -> Iterator[list[tuple[Reported, int, int]]]:
    """For each true span list the periods over it, each cut to it."""
    first = 0
    for from_ms, to_ms, _ in spans:
        found = []
        for index in range(first, len(reported)):
            period = reported[index]
            ends_ms = _FOREVER if period.to_ms is None else period.to_ms
            if ends_ms <= from_ms:
                first = index + 1
                continue
            if period.from_ms >= to_ms:
                break
            found.append((period, max(from_ms, period.from_ms), min(to_ms, ends_ms)))
        yield found


def _overlap(a: Window, b: Window | None) -> int:
    return 0 if b is None else max(0, min(a[1], b[1]) - max(a[0], b[0]))


def _is_told(true: Answered, bounds: Sequence[_Bounds]) -> bool:
    """Say whether some reported transition to the same state has the true one within its bounds."""
    return any(
        connected == true.connected
        and (low_ms is None or low_ms <= true.at_ms)
        and (high_ms is None or true.at_ms <= high_ms)
        for connected, low_ms, high_ms in bounds
    )


def _bounded(reported: Sequence[Reported]) -> Iterator[_Bounds]:
    """List the reported transitions that bear bounds.

    Periods in a row that differ in certainty only, time of unknown state between them included, are one.
    """
    held: tuple[bool, int | None, str | None, int | None] | None = None
    not_after_ms: int | None = None
    for period in reported:
        if period.connected is None:
            continue
        key = (period.connected, period.timestamp_ms, period.reason, period.not_before_ms)
        if key == held:
            if not_after_ms is not None and period.not_after_ms is not None:
                not_after_ms = min(not_after_ms, period.not_after_ms)
            continue
        if held is not None and _bears_bounds(held, not_after_ms):
            yield held[0], held[3], not_after_ms
        held, not_after_ms = key, period.not_after_ms
    if held is not None and _bears_bounds(held, not_after_ms):
        yield held[0], held[3], not_after_ms


def _bears_bounds(held: tuple[bool, int | None, str | None, int | None], not_after_ms: int | None) -> bool:
    connected, timestamp_ms, reason, not_before_ms = held
    never = not connected and timestamp_ms is None and reason == _NEVER
    return not never and (not_before_ms is not None or not_after_ms is not None)


# --- The table ----------------------------------------------------------------------------------------------

_COLUMNS = (
    "method",
    "wrong",
    "wrong time",
    "unknown",
    "timestamps",
    "and reasons",
    "bounds true",
    "median",
    "95 %",
    "observed",
    "untrue",
)


def table(scores: Mapping[str, Score]) -> str:
    """Draw a row a method: shares of the time between evidence, of the true transitions, of the bounds."""
    rows = [_COLUMNS, *(_row(method, score) for method, score in scores.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(method: str, score: Score) -> tuple[str, ...]:
    between = score.between
    none = "-"
    return (
        method,
        _percent(between.wrong_ms, between.all_ms, 4),
        _duration(between.wrong_ms),
        _percent(between.unknown_ms, between.all_ms, 2),
        _percent(score.timestamps_exact, score.transitions, 2),
        _percent(score.answers_exact, score.transitions, 2),
        f"{score.bounds_true:,} of {score.bounded:,}" if score.bounded else none,
        _duration(score.width_ms(0.5)),
        _duration(score.width_ms(0.95)),
        _percent(between.observed_ms, between.all_ms, 1) if score.observed else none,
        f"{score.observed_untrue:,} of {score.observed:,}" if score.observed else none,
    )


def _percent(part: int, whole: int, digits: int) -> str:
    found = share(part, whole)
    if found is None:
        return "-"
    text = f"{100 * found:.{digits}f}"
    # A rounded figure must not hide that there was something, or that something was missing.
    if part and float(text) == 0:
        text = f"<{10**-digits:.{digits}f}"
    elif part < whole and float(text) == 100:
        text = f">{100 - 10**-digits:.{digits}f}"
    return f"{text} %"


def _duration(ms: int | None) -> str:
    if ms is None:
        return "-"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms} ms"
