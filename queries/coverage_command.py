"""The command that tells how well events were listened to: coverage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from store.clock import system_clock
from store.engine import open_reader, parse_url
from store.errors import BadTime
from store.options import described, json_option, store_option

if TYPE_CHECKING:
    from queries.coverage import Coverage, Day


@click.command(
    "coverage",
    **described(
        "Tell which path of events was recording when, with its gaps; and for each source and UTC day how many events"
        " came, how late, and how many are missing: sessions of which one half never came, and transitions that API"
        " checks revealed. Time in a gap in which nothing else proves a state is unknown, in every answer.",
        "thingline coverage",
        "thingline coverage --from -7d --json",
    ),
)
@click.option("--from", "from_", metavar="TIME", help="From then on; default: seven days ago.")
@click.option("--to", metavar="TIME", help="... and before then; default: now.")
@click.option("--tz", metavar="ZONE", envvar="THINGLINE_TZ", help="The zone of times that name none.")
@store_option
@json_option
def coverage(from_: str | None, to: str | None, tz: str | None, url: str | None, as_json: bool) -> int:
    from queries.coverage import as_json as lines_of
    from queries.coverage import coverage as found_in
    from queries.output import json_line
    from queries.times import parse_time

    now_ms = system_clock()
    from_ms = parse_time(from_ or "-7d", now_ms=now_ms, tz=tz)
    to_ms = now_ms + 1 if to is None else parse_time(to, now_ms=now_ms, tz=tz)
    if to_ms <= from_ms:
        raise BadTime("--to is not later than --from.")
    with open_reader(parse_url(url)) as store:
        found = found_in(store, from_ms, to_ms, now_ms=now_ms)
    lines = map(json_line, lines_of(found)) if as_json else _words(found)
    for line in lines:
        click.echo(line)
    return 0


def _words(found: Coverage) -> Iterator[str]:
    from queries.output import safe
    from queries.times import duration, iso

    if not found.paths:
        yield "no path said when it was recording: all time counts as watched"
    for path in found.paths:
        state = "watching" if path.is_watching else f"not watching since {iso(path.to_ms)}"
        yield f"{safe(path.source)}: {state}; first {iso(path.from_ms)}"
    revealed = dict(found.revealed)
    for day in found.days:
        yield f"{iso(day.day_ms)[:10]}  {safe(day.source)}  {_day(day)}"
        for begins_ms, ends_ms in day.gaps:
            yield f"    gap {iso(begins_ms)} .. {iso(ends_ms)} ({duration(ends_ms - begins_ms)})"
    for day_ms, count in revealed.items():
        yield f"{iso(day_ms)[:10]}  API checks revealed {count:,} transitions that no event told of"


def _day(day: Day) -> str:
    from queries.times import duration

    parts = [f"{day.events:,} events"]
    if day.watched_ms is not None:
        parts.append(f"watched {duration(day.watched_ms)}")
    if day.mean_lag_ms is not None and day.longest_lag_ms is not None:
        parts.append(f"lag {duration(day.mean_lag_ms)}, at most {duration(day.longest_lag_ms)}")
    if day.lost_connects or day.lost_disconnects:
        share = "" if day.loss is None else f" (about {100 * day.loss:.2g} %)"
        parts.append(f"missing: {day.lost_connects:,} connects, {day.lost_disconnects:,} disconnects{share}")
    return ", ".join(parts)


COMMANDS = (coverage,)
