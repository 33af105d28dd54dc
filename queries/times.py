"""Times as people write and read them: text to epoch milliseconds and back.

Pure but for the zone database. Reads no clock: what is relative counts from `now_ms`, and no zone is ever
taken from the machine.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise

from store.errors import BadTime, InvalidRequest
from store.model import HOUR_MS, MINUTE_MS, SECOND_MS

DAY_MS = 24 * HOUR_MS

# Between these years epoch seconds and epoch milliseconds cannot be taken for each other: [2010, 2101).
_EPOCH_MIN_S = 1_262_304_000
_EPOCH_MAX_S = 4_133_980_800

_EPOCH = datetime(1970, 1, 1)
UTC_EPOCH = _EPOCH.replace(tzinfo=UTC)
_MS = timedelta(milliseconds=1)
# Times are of the years 1 to 9999, which can be written and which every store holds.
FIRST_MS = (datetime(1, 1, 1) - _EPOCH) // _MS
LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000) - _EPOCH) // _MS

_UNIT_MS = {"d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": SECOND_MS}

# What iso() writes, with or without milliseconds: most of what machines ask with, and read ten times as fast.
_EXACT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3})?Z")
_NUMBER = re.compile(r"([0-9]{1,18})(?:\.([0-9]+))?")
_AGO = re.compile(
    r"-(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", re.ASCII | re.IGNORECASE
)
_OFFSET = re.compile(r"([+-])([0-9]{2})(?::?([0-9]{2}))?")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
# Keys that some systems carry: the machine's own zone, and clocks that count leap seconds, as ours do not.
_NO_ZONE = re.compile(r"(?:localtime|posixrules|Factory)$|right/|posix/", re.IGNORECASE)

# A day, then perhaps a time of day, then perhaps a zone. A bare date takes an offset only with minutes, since
# 2026-11-01-05 is more likely a slip than a zone.
_CIVIL = re.compile(
    r"""
    (?: (?P<word>yesterday|today)
      | (?P<year>[0-9]{4}) (?: -(?P<month>[0-9]{2})-(?P<day>[0-9]{2}) | (?P<basic>[0-9]{4}) )
    )
    (?: (?:T|[ ]+) (?P<hour>[0-9]{2})
        (?: :?(?P<minute>[0-9]{2}) (?: :?(?P<second>[0-9]{2}) (?: [.,](?P<fraction>[0-9]+) )? )? )?
    )?
    (?: [ ]*(?P<zone> Z | [+-][0-9]{2}:?[0-9]{2} | (?(hour)[+-][0-9]{2}|(?!)) )
      | [ ]+(?P<name> [A-Z][A-Z0-9_+/-]* )
    )?
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

_HELP = (
    "give ISO 8601 with a zone (2026-11-01T03:12:00Z), epoch ms or s, now, -2h, "
    'or "yesterday 03:12" with a zone'
)
_ADD_ZONE = 'add one (Z, +01:00, or " Europe/Berlin"), or set --tz or THINGLINE_TZ'


# --- Reading ------------------------------------------------------------------------------------------------


def parse_time(text: str, *, now_ms: int, tz: str | None) -> int:
    """Read a time as epoch ms; digits below a millisecond are cut off.

    Understood: ISO 8601 (extended or basic, down to a date alone, which is its midnight), epoch seconds or
    milliseconds from 2010 to 2100 told apart by magnitude, `now`, `-1d12h` (a d is 24 hours), and
    `yesterday` or `today` with or without a time of day. A zone written in the text comes before `tz`; each
    is an IANA name, Z, UTC or an offset. Raises BadTime for anything else, for a local time without any
    zone, and for one that the zone's clocks showed twice or never.
    """
    zone = read_zone(tz) if tz else None
    text = text.strip()
    if _EXACT.fullmatch(text):
        with suppress(ValueError):  # no such day or time of day: the long way round says which
            return (datetime.fromisoformat(text) - UTC_EPOCH) // _MS
    if text.lower() == "now":
        return now_ms
    if match := _NUMBER.fullmatch(text):
        number = _epoch_ms(match)
        if number is not None:
            return number
    if len(text) > 1 and (match := _AGO.fullmatch(text)):
        at_ms = now_ms - sum(
            int(count) * unit_ms
            for count, unit_ms in zip(match.groups(), _UNIT_MS.values(), strict=True)
            if count is not None
        )
    elif match := _CIVIL.fullmatch(text):
        written = match["zone"] or match["name"]
        zone = read_zone(written) if written else zone
        if zone is None:
            raise BadTime(f"{_quoted(text)} has no zone: {_ADD_ZONE}.")
        at_ms = _instant(_local(match, zone=zone, now_ms=now_ms), zone)
    elif _NUMBER.fullmatch(text):
        raise BadTime(
            f"{_quoted(text)} is neither epoch seconds nor milliseconds of the years 2010 to 2100; "
            "give it as ISO 8601 with a zone."
        )
    else:
        raise BadTime(f"{_quoted(text)} is not a time: {_HELP}.")
    if not FIRST_MS <= at_ms <= LAST_MS:
        raise BadTime(f"{_quoted(text)} is outside the years 1 to 9999; give a time within them.")
    return at_ms


def length_ms(text: str) -> int:
    """Read a length of time, `90s`, `5m` or `1h30m` (a d is 24 hours), as milliseconds. Raises BadTime."""
    match = _AGO.fullmatch(f"-{text}") if text else None
    if match is None:
        raise BadTime(f"{_quoted(text)} is no length of time; give 90s, 5m or 1h30m.")
    lengths = zip(match.groups(), _UNIT_MS.values(), strict=True)
    return sum(int(count) * unit_ms for count, unit_ms in lengths if count is not None)


def milliseconds_of(time: object) -> int:
    """Read an int of epoch milliseconds, or an aware datetime; digits below a millisecond are cut off.

    Raises BadTime for anything else, naive datetimes too; InvalidRequest outside the years 1 to 9999.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise BadTime("That datetime has no zone; give one, e.g. tzinfo=UTC.")
        at_ms = (time - UTC_EPOCH) // _MS
    elif isinstance(time, int) and not isinstance(time, bool):
        at_ms = time
    else:
        raise BadTime(f"{_quoted(repr(time))} is not a time: give epoch ms, an aware datetime, or text.")
    if not FIRST_MS <= at_ms <= LAST_MS:
        raise InvalidRequest(
            f"{_quoted(str(time))} is outside the years 1 to 9999; give epoch milliseconds within them."
        )
    return at_ms


@lru_cache(maxsize=256)
def read_zone(text: str) -> tzinfo:
    """Read a zone: an IANA name, Z, UTC, or an offset such as +02:00. Raises BadTime for anything else."""
    text = text.strip()
    if text.upper() in ("Z", "UTC"):
        return UTC
    if match := _OFFSET.fullmatch(text):
        hours, minutes = int(match[2]), int(match[3] or 0)
        if minutes > 59 or hours * 60 + minutes > 14 * 60:
            raise BadTime(f"{_quoted(text)} is not an offset from UTC; give one from -14:00 to +14:00.")
        offset = timedelta(hours=hours, minutes=minutes)
        return timezone(-offset if match[1] == "-" else offset)
    if _KEY.fullmatch(text) and not _NO_ZONE.match(text):
        with suppress(KeyError, ValueError, OSError):  # OSError: a folder of zones, such as "Europe"
            return zoneinfo.ZoneInfo(text)
    raise BadTime(f"{_quoted(text)} is not a zone{_suggestion(text)}; give an IANA name, Z, or +02:00.")


def _suggestion(text: str) -> str:
    known = {name.lower(): name for name in zoneinfo.available_timezones() if not _NO_ZONE.match(name)}
    lower = text.lower()
    close = [lower] if lower in known else difflib.get_close_matches(lower, known, n=1, cutoff=0.8)
    cities = [name for name in known if name.endswith(f"/{lower}")]
    names = sorted(known[name] for name in [*close, *cities])
    return f" (is {names[0]} meant?)" if names else ""


def _epoch_ms(match: re.Match[str]) -> int | None:
    number, fraction = int(match[1]), match[2] or ""
    if _EPOCH_MIN_S <= number < _EPOCH_MAX_S:
        return number * SECOND_MS + _fraction_ms(fraction)
    if _EPOCH_MIN_S <= number // SECOND_MS < _EPOCH_MAX_S:
        return number
    return None


def _fraction_ms(digits: str) -> int:
    return int(digits[:3].ljust(3, "0"))


def _local(match: re.Match[str], *, zone: tzinfo, now_ms: int) -> datetime:
    """Return the calendar day and time of day that the text says, as a datetime without zone."""
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    fraction_ms = _fraction_ms(match["fraction"] or "")
    end_of_day = hour == 24 and minute == second == fraction_ms == 0  # ISO 8601: the midnight after the day
    try:
        if match["word"]:
            day = _instant_in(zone, now_ms).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            if match["word"].lower() == "yesterday":
                day -= timedelta(days=1)
        else:
            basic = match["basic"]
            month, of_month = (basic[:2], basic[2:]) if basic else (match["month"], match["day"])
            day = datetime(int(match["year"]), int(month), int(of_month))
        if end_of_day:
            return day + timedelta(days=1)
        return day.replace(hour=hour, minute=minute, second=second, microsecond=fraction_ms * 1_000, fold=0)
    except (ValueError, OverflowError) as error:
        raise BadTime(
            f"{_quoted(match[0])} is not on the calendar or the clock ({error}); correct it."
        ) from None


def _instant_in(zone: tzinfo, at_ms: int) -> datetime:
    return (UTC_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def day_of(at_ms: int, zone: tzinfo) -> str:
    """Name the calendar day of an instant in a zone, as ISO 8601."""
    return _instant_in(zone, at_ms).date().isoformat()


def _instant(local: datetime, zone: tzinfo) -> int:
    """Return the one instant at which clocks of `zone` showed `local`; raise BadTime for none and for two."""
    first_ms, second_ms = (_reading_ms(local, zone, fold=fold) for fold in (0, 1))
    if first_ms == second_ms:
        return first_ms
    # PEP 495: where clocks went back the first reading is the earlier, where they went forward the later.
    what = "came twice" if first_ms < second_ms else "was skipped"
    readings = " or ".join(_said(ms) for ms in sorted((first_ms, second_ms)))
    shown = local.isoformat(sep=" ", timespec="milliseconds")
    raise BadTime(f"{shown} {what} in {zone}: it can mean {readings}; give one of these.")


def _reading_ms(local: datetime, zone: tzinfo, *, fold: int) -> int:
    offset = local.replace(fold=fold, tzinfo=zone).utcoffset() or timedelta()
    return (local - _EPOCH - offset) // _MS


def local_ms(local: datetime, zone: tzinfo) -> int:
    """Give the instant at which clocks of `zone` showed `local`; the earlier where it came twice or was skipped."""
    return min(_reading_ms(local, zone, fold=0), _reading_ms(local, zone, fold=1))


def _said(at_ms: int) -> str:
    return iso(at_ms) if FIRST_MS <= at_ms <= LAST_MS else "an instant outside the years 1 to 9999"


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")


# --- Writing ------------------------------------------------------------------------------------------------

# Rendered once: a time is written for each of millions of rows, and datetime.isoformat costs four times this.
_MINUTES = tuple(f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))
_SECONDS = tuple(f"{second:02}." for second in range(60))
_MILLIS = tuple(f"{milli:03}Z" for milli in range(1_000))


def iso(ms: int) -> str:
    """Write an instant as ISO 8601 in UTC, always with milliseconds: 2026-11-01T03:12:00.000Z.

    Raises OverflowError outside the years 1 to 9999.
    """
    seconds, milli = divmod(ms, 1_000)
    minutes, second = divmod(seconds, 60)
    day, minute = divmod(minutes, 1_440)
    return f"{_date(day)}{_MINUTES[minute]}{_SECONDS[second]}{_MILLIS[milli]}"


@lru_cache(maxsize=4_096)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def duration(ms: int) -> str:
    """Write a length of time for people: its largest unit and the next below, the rest cut off (3 d 4 h)."""
    if ms < 0:
        return f"-{duration(-ms)}"
    units = (("d", DAY_MS), ("h", HOUR_MS), ("min", MINUTE_MS), ("s", SECOND_MS), ("ms", 1))
    for (unit, unit_ms), (lower, lower_ms) in pairwise(units):
        if ms >= unit_ms:
            whole, rest_ms = divmod(ms, unit_ms)
            rest = rest_ms // lower_ms
            return f"{whole} {unit} {rest} {lower}" if rest else f"{whole} {unit}"
    return f"{ms} ms" if ms else "0 s"
