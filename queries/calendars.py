"""Months and service hours as people mean them, cut into epoch milliseconds. Pure but for the zone database.

Every engine and every report gets its boundaries from here: nothing else knows how long a day is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

from queries.times import UTC_EPOCH, local_ms
from store.certainty import merged
from store.errors import BadTime

Span = tuple[int, int]  # [from_ms, to_ms)

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?[ ]+)?"
    r"(?P<h1>[0-9]{2}):(?P<m1>[0-9]{2})-(?P<h2>[0-9]{2}):(?P<m2>[0-9]{2})",
    re.ASCII | re.IGNORECASE,
)


def month(text: str, zone: tzinfo) -> Span:
    """Give a calendar month of a zone, `2026-10`, from midnight to midnight. Raises BadTime."""
    match = _MONTH.fullmatch(text.strip())
    if match is None:
        raise BadTime(f"{text[:40]!a} is no month; give it as 2026-10.")
    year, number = int(match[1]), int(match[2])
    if not 1 <= year <= 9998:
        raise BadTime("That month is outside the years 1 to 9998.")
    first = datetime(year, number, 1)
    following = datetime(year + number // 12, number % 12 + 1, 1)
    return local_ms(first, zone), local_ms(following, zone)


def outside_hours(text: str, zone: tzinfo, window: Span) -> list[Span]:
    """List the time of a window that lies outside service hours: `Mon-Fri 08:00-18:00`, several joined by commas.

    Without days they hold on each. Hours that end before they begin go on into the next day; `24:00` is midnight.
    Of a local time that came twice, or was skipped, the earlier reading counts. Raises BadTime.
    """
    rules = [_rule(part.strip()) for part in text.split(",")]
    inside = merged(
        [span for day in _days(window, zone) for rule in rules for span in _hours(rule, day, zone)]
    )
    outside: list[Span] = []
    cursor_ms, end_ms = window
    for from_ms, to_ms in inside:
        if from_ms > cursor_ms:
            outside.append((cursor_ms, min(from_ms, end_ms)))
        cursor_ms = max(cursor_ms, to_ms)
        if cursor_ms >= end_ms:
            return [each for each in outside if each[0] < each[1]]
    return [each for each in [*outside, (cursor_ms, end_ms)] if each[0] < each[1]]


def midnights(zone: tzinfo, window: Span) -> list[int]:
    """List the midnights of a zone inside a window, its beginning and its end left out; ascending."""
    found = (local_ms(day, zone) for day in _days(window, zone))
    return [at_ms for at_ms in found if window[0] < at_ms < window[1]]


_Rule = tuple[set[int], int, int]  # weekdays (0: Monday), minutes of the day: from, to


def _rule(text: str) -> _Rule:
    match = _HOURS.fullmatch(text)
    help_ = "give service hours as 'Mon-Fri 08:00-18:00, Sat 09:00-13:00'"
    if match is None:
        raise BadTime(f"{text[:60]!a} is not understood; {help_}.")
    first, last = (match["first"] or "mon").lower(), (match["last"] or match["first"] or "sun").lower()
    if first not in _DAYS or last not in _DAYS:
        raise BadTime(f"{text[:60]!a} names no day of the week; {help_}.")
    begin, end = (int(match[f"h{n}"]) * 60 + int(match[f"m{n}"]) for n in (1, 2))
    if max(int(match["m1"]), int(match["m2"])) > 59 or begin >= 24 * 60 or end > 24 * 60 or begin == end:
        raise BadTime(f"{text[:60]!a} is no time of day, or lasts no time; {help_}.")
    low, high = _DAYS.index(first), _DAYS.index(last)
    days = set(range(low, high + 1)) if low <= high else {*range(low, 7), *range(high + 1)}
    return days, begin, end if end > begin else end + 24 * 60


def _days(window: Span, zone: tzinfo) -> Iterator[datetime]:
    """List the local days that a window touches, and the one before, whose hours may reach into it."""
    first, last = ((UTC_EPOCH + timedelta(milliseconds=ms)).astimezone(zone).date() for ms in window)
    day = datetime(first.year, first.month, first.day) - timedelta(days=1)
    while day.date() <= last:
        yield day
        day += timedelta(days=1)


def _hours(rule: _Rule, day: datetime, zone: tzinfo) -> Iterator[Span]:
    days, begin, end = rule
    if day.weekday() in days:
        span = tuple(local_ms(day + timedelta(minutes=minute), zone) for minute in (begin, end))
        if span[0] < span[1]:
            yield span[0], span[1]
