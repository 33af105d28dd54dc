"""Times in and out: what is understood, what is refused and in which words."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queries.times import duration, iso, parse_time
from store.errors import BadTime

NOW = "2026-11-02T12:30:15.250Z"
NOW_MS = 1_793_622_615_250
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS = -62_135_596_800_000
LAST_MS = 253_402_300_799_999


def read(text: str, tz: str | None = None) -> str:
    return iso(parse_time(text, now_ms=NOW_MS, tz=tz))


def refusal(text: str, tz: str | None = None) -> str:
    with pytest.raises(BadTime) as caught:
        parse_time(text, now_ms=NOW_MS, tz=tz)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01T03:12:00Z", "2026-11-01T03:12:00.000Z"),
        ("2026-11-01t03:12:00z", "2026-11-01T03:12:00.000Z"),
        ("  2026-11-01 03:12 Z ", "2026-11-01T03:12:00.000Z"),
        ("2026-11-01T03:12:00+01:00", "2026-11-01T02:12:00.000Z"),
        ("2026-11-01T03:12:00+0100", "2026-11-01T02:12:00.000Z"),
        ("2026-11-01T03:12+01", "2026-11-01T02:12:00.000Z"),
        ("2026-11-01T03:12:00-03:30", "2026-11-01T06:42:00.000Z"),
        ("2026-11-01T03:12:00.5Z", "2026-11-01T03:12:00.500Z"),
        ("2026-11-01T03:12:00,123+00:00", "2026-11-01T03:12:00.123Z"),
        ("2026-11-01T03Z", "2026-11-01T03:00:00.000Z"),
        ("2026-11-01T24:00Z", "2026-11-02T00:00:00.000Z"),
        ("20261101T031200Z", "2026-11-01T03:12:00.000Z"),
        ("2026-11-01Z", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01+05:30", "2026-10-31T18:30:00.000Z"),
        ("2026-11-01 Europe/Berlin", "2026-10-31T23:00:00.000Z"),
        ("2026-07-01 03:12 Europe/Berlin", "2026-07-01T01:12:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ],
)
def test_iso_8601_with_a_zone_is_read(text: str, meant: str) -> None:
    assert read(text) == meant


@pytest.mark.parametrize("tz", ["Europe/Berlin", "+01:00", "+0100", "+01"])
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01", "2026-10-31T23:00:00.000Z"),
        ("20261101", "2026-10-31T23:00:00.000Z"),
        ("2026-11-01 03:12", "2026-11-01T02:12:00.000Z"),
        ("2026-11-01T03:12:00.250", "2026-11-01T02:12:00.250Z"),
        ("2026-11-01T03:12Z", "2026-11-01T03:12:00.000Z"),  # the zone that is written wins
    ],
)
def test_a_time_without_zone_is_read_in_the_zone_given_beside_it(text: str, meant: str, tz: str) -> None:
    assert read(text, tz) == meant


@pytest.mark.parametrize("tz", ["Z", "z", "UTC", "utc", "+00:00", "-00:00", "Etc/UTC"])
def test_utc_has_many_names(tz: str) -> None:
    assert read("2026-11-01 03:12", tz) == "2026-11-01T03:12:00.000Z"


@pytest.mark.parametrize(
    ("text", "meant_ms"),
    [
        ("1793491200", 1_793_491_200_000),
        ("1793491200.123", 1_793_491_200_123),
        ("1793491200.5", 1_793_491_200_500),
        ("1793491200123", 1_793_491_200_123),
        ("1793491200123.9", 1_793_491_200_123),
        ("1262304000", 1_262_304_000_000),  # 2010 begins
        ("1262304000000", 1_262_304_000_000),
        ("4133980799", 4_133_980_799_000),  # 2100 ends
        ("4133980799999", 4_133_980_799_999),
    ],
)
def test_epoch_seconds_and_milliseconds_are_told_apart_by_magnitude(text: str, meant_ms: int) -> None:
    assert parse_time(text, now_ms=NOW_MS, tz=None) == meant_ms


@pytest.mark.parametrize(
    "text",
    ["0", "2026", "1262303999", "4133980800", "1262303999999", "4133980800000", "1793491200123456", "9" * 18],
)
def test_a_number_of_no_known_magnitude_is_refused(text: str) -> None:
    assert refusal(text).endswith("years 2010 to 2100; give it as ISO 8601 with a zone.")


def test_digits_below_a_millisecond_are_cut_off_and_not_rounded() -> None:
    assert read("2026-11-01T03:12:59.9999999Z") == "2026-11-01T03:12:59.999Z"
    assert read("1793491200.0009999") == "2026-11-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "tz", "meant"),
    [
        ("now", None, NOW),
        ("NOW", "Europe/Berlin", NOW),
        ("-2h", None, "2026-11-02T10:30:15.250Z"),
        ("-90s", None, "2026-11-02T12:28:45.250Z"),
        ("-1d12h", None, "2026-11-01T00:30:15.250Z"),
        ("-1d1h1m1s", None, "2026-11-01T11:29:14.250Z"),
        ("-0s", None, NOW),
        ("yesterday 03:12", "Europe/Berlin", "2026-11-01T02:12:00.000Z"),
        ("yesterday 03:12 Europe/Berlin", None, "2026-11-01T02:12:00.000Z"),
        ("yesterday 03:12 Europe/Berlin", "Z", "2026-11-01T02:12:00.000Z"),
        ("Yesterday 03:12Z", None, "2026-11-01T03:12:00.000Z"),
        ("yesterday  03:12:01.5 -0500", None, "2026-11-01T08:12:01.500Z"),
        ("today 14:00", "+02:00", "2026-11-02T12:00:00.000Z"),
        ("today 14:00 UTC", None, "2026-11-02T14:00:00.000Z"),
        ("yesterday", "Z", "2026-11-01T00:00:00.000Z"),
        ("today Europe/Berlin", None, "2026-11-01T23:00:00.000Z"),
        ("today", "Pacific/Kiritimati", "2026-11-02T10:00:00.000Z"),  # it is the 3rd there
        ("yesterday", "Pacific/Kiritimati", "2026-11-01T10:00:00.000Z"),
    ],
)
def test_relative_times_count_from_the_clock_that_was_given(text: str, tz: str | None, meant: str) -> None:
    assert read(text, tz) == meant


def test_yesterday_is_a_day_of_the_calendar_and_not_24_hours() -> None:
    # Clocks in Berlin went back on 2026-10-25, so that day had 25 hours.
    now_ms = parse_time("2026-10-26T12:00 Europe/Berlin", now_ms=NOW_MS, tz=None)
    start, end = (parse_time(day, now_ms=now_ms, tz="Europe/Berlin") for day in ("yesterday", "today"))
    assert end - start == 25 * 3_600_000


@pytest.mark.parametrize(
    "text", ["2026-11-01", "2026-11-01 03:12", "2026-11-01T03:12:00.000", "yesterday", "today 14:00"]
)
@pytest.mark.parametrize("tz", [None, ""])
def test_a_time_without_any_zone_is_refused(text: str, tz: str | None) -> None:
    assert refusal(text, tz) == (
        f"'{text}' has no zone: add one (Z, +01:00, or \" Europe/Berlin\"), or set --tz or THINGLINE_TZ."
    )


def test_a_local_time_that_came_twice_is_refused_with_both_readings() -> None:
    assert refusal("2026-10-25 02:30", "Europe/Berlin") == (
        "2026-10-25 02:30:00.000 came twice in Europe/Berlin: it can mean "
        "2026-10-25T00:30:00.000Z or 2026-10-25T01:30:00.000Z; give one of these."
    )


def test_a_local_time_that_never_came_is_refused_with_both_readings() -> None:
    assert refusal("2026-03-29T02:30:00.5 Europe/Berlin") == (
        "2026-03-29 02:30:00.500 was skipped in Europe/Berlin: it can mean "
        "2026-03-29T00:30:00.500Z or 2026-03-29T01:30:00.500Z; give one of these."
    )


def test_a_midnight_that_never_came_is_refused_too() -> None:
    assert "was skipped in America/Sao_Paulo" in refusal("2018-11-04", "America/Sao_Paulo")


def test_the_edges_of_a_fold_and_of_a_gap_are_ordinary_times() -> None:
    assert read("2026-10-25 01:59:59.999", "Europe/Berlin") == "2026-10-24T23:59:59.999Z"
    assert read("2026-10-25 03:00", "Europe/Berlin") == "2026-10-25T02:00:00.000Z"
    assert read("2026-03-29 01:59:59.999", "Europe/Berlin") == "2026-03-29T00:59:59.999Z"
    assert read("2026-03-29 03:00", "Europe/Berlin") == "2026-03-29T01:00:00.000Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+2h",
        "-2w",
        "-h",
        "-2h Europe/Berlin",
        "-12h1d",
        "noon",
        "tomorrow",
        "03:12",
        "yesterday 3:12",
        "now Z",
        "2026-11",
        "2026-11-01-05",  # a slip, or the zone -05
        "2026-11-01T",
        "2026-11-01T03:12:00 01:00",  # a plus sign that a URL turned into a space
        "2026-11-01X03:12Z",
        "2026-11-01T03:12:00.Z",
        "1793491200,5",
        "1e12",
        "-1793491200",
        "١٧٩٣٤٩١٢٠٠",  # digits, but not ours
        "ye\u017fterday Z",
    ],
)
def test_what_is_no_time_is_refused_with_what_to_give_instead(text: str) -> None:
    assert refusal(text, "Z") == (
        f"{text!a} is not a time: give ISO 8601 with a zone (2026-11-01T03:12:00Z), epoch ms or s, now, "
        '-2h, or "yesterday 03:12" with a zone.'
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30Z",
        "2026-13-01Z",
        "2026-11-01T24:01Z",
        "2026-11-01T03:60Z",
        "2026-06-30T23:59:60Z",
        "0000-01-01Z",
    ],
)
def test_what_is_not_on_the_calendar_is_refused(text: str) -> None:
    assert f"'{text}' is not on the calendar or the clock" in refusal(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+01:00", "9999-12-31T23:59-01:00", "-999999999d"])
def test_what_leaves_the_calendar_is_refused(text: str) -> None:
    assert refusal(text) == f"'{text}' is outside the years 1 to 9999; give a time within them."


@pytest.mark.parametrize(
    ("tz", "hint"),
    [
        ("europe/berlin", " (is Europe/Berlin meant?)"),
        ("Berlin", " (is Europe/Berlin meant?)"),
        ("Europe/Berlim", " (is Europe/Berlin meant?)"),
        ("Europe", ""),  # a folder of zones
        ("Qqqq", ""),
        ("../../passwd", ""),
        ("localtime", ""),  # the machine's own zone
        ("right/UTC", ""),  # counts leap seconds
        ("+14:01", None),
        ("+01:60", None),
    ],
)
def test_a_zone_that_is_none_is_refused_even_where_the_time_does_not_need_it(
    tz: str, hint: str | None
) -> None:
    expected = (
        f"'{tz}' is not an offset from UTC; give one from -14:00 to +14:00."
        if hint is None
        else f"'{tz}' is not a zone{hint}; give an IANA name, Z, or +02:00."
    )
    assert refusal("2026-11-01T03:12Z", tz) == expected


def test_hostile_text_is_quoted_and_cut_in_the_message() -> None:
    message = refusal("\x1b[31m\u202e" + "x" * 10_000)
    assert message.startswith("'\\x1b[31m\\u202exxx")
    assert message.isprintable()
    assert len(message) < 300


NEARLY = r"\A([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|today)([T ][0-9]{2}(:[0-9]{2})?)?([Z+-][0-9:]{0,5})?\Z"


@given(
    st.text() | st.from_regex(NEARLY), st.sampled_from([None, "Z", "+14:00", "Europe/Berlin", "Asia/Gaza"])
)
def test_any_text_is_a_time_or_bad(text: str, tz: str | None) -> None:
    try:
        at_ms = parse_time(text, now_ms=NOW_MS, tz=tz)
    except BadTime:
        return
    assert FIRST_MS <= at_ms <= LAST_MS


@given(st.integers(FIRST_MS, LAST_MS))
@example(FIRST_MS)
@example(LAST_MS)
@example(-1)
@example(0)
def test_iso_writes_what_datetime_writes(ms: int) -> None:
    expected = (EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None).isoformat(timespec="milliseconds")
    assert iso(ms) == f"{expected}Z"


def test_iso_writes_what_datetime_writes_for_many_instants_of_our_time(rng: random.Random) -> None:
    for _ in range(20_000):
        ms = rng.randrange(1_262_304_000_000, 4_133_980_800_000)
        moment = EPOCH + timedelta(milliseconds=ms)
        assert iso(ms) == moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@pytest.mark.parametrize("ms", [FIRST_MS - 1, LAST_MS + 1, 10**30])
def test_iso_refuses_years_that_it_cannot_write(ms: int) -> None:
    with pytest.raises(OverflowError):
        iso(ms)


@given(st.integers(FIRST_MS, LAST_MS))
def test_what_iso_writes_is_read_back(ms: int) -> None:
    assert parse_time(iso(ms), now_ms=NOW_MS, tz=None) == ms


@given(
    st.integers(1_262_304_000, 4_133_980_799), st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "Asia/Gaza"])
)
def test_a_local_time_is_read_as_zoneinfo_reads_it_or_refused_because_it_has_two_readings(
    s: int, tz: str
) -> None:
    moment = datetime.fromtimestamp(s, ZoneInfo(tz))
    text = moment.replace(tzinfo=None).isoformat()
    if moment.utcoffset() == moment.replace(fold=1 - moment.fold).utcoffset():
        assert parse_time(text, now_ms=NOW_MS, tz=tz) == s * 1_000
    else:
        assert iso(s * 1_000) in refusal(text, tz)


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 s"),
        (1, "1 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (1_200, "1 s 200 ms"),
        (725_000, "12 min 5 s"),
        (725_999, "12 min 5 s"),
        (3_600_000, "1 h"),
        (3_605_000, "1 h"),  # the second unit is the next one below, or none
        (273_600_000, "3 d 4 h"),
        (31_536_000_000, "365 d"),
        (-725_000, "-12 min 5 s"),
    ],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(ms: int, said: str) -> None:
    assert duration(ms) == said
