"""The commands that annotate a stretch of time, and withdraw what was said: annotate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from store.clock import system_clock
from store.errors import UsageError
from store.options import described, json_option, realm_option, store_option

if TYPE_CHECKING:
    from store.annotations import Annotation

# Reads a time as it is typed: text, now in epoch ms, the zone of times that name none. Raises BadTime.
ReadTime = Callable[[str, int, str | None], int]

author_option = click.option(
    "--author",
    metavar="NAME",
    envvar="THINGLINE_AUTHOR",
    help="Who says so; default: the name that you are logged in by.",
)
tz_option = click.option(
    "--tz",
    metavar="ZONE",
    envvar="THINGLINE_TZ",
    help="The zone of times that name none: Europe/Berlin, UTC.",
)


class _Annotating(click.Group):
    """Takes what is no subcommand for what is to be annotated."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["add", *args]
        return super().parse_args(ctx, args)


def annotate_command(read_time: ReadTime, listing: click.Command) -> click.Command:
    """Make the group `annotate` of what writes here and of what lists."""

    @click.group(
        "annotate",
        cls=_Annotating,
        **described(
            "Say of a stretch of time that it was maintenance or a false alarm, or name a ticket; before, during or"
            " after it. Without a subcommand it is `annotate add`. docs/annotations.md.",
            "thingline annotate pump-17 --from 2026-11-01T02:00Z --to 2026-11-01T04:00Z --maintenance --ticket CHG-12",
            "thingline annotate --group north --from -2h --to now --false-alarm --note 'broker upgrade'",
            "thingline annotate list --from -7d",
            "thingline annotate withdraw 3 --note 'wrong night'",
        ),
    )
    def annotate() -> None:
        pass

    annotate.add_command(_add_command(read_time))
    annotate.add_command(_withdraw)
    annotate.add_command(listing)
    return annotate


def _add_command(read_time: ReadTime) -> click.Command:
    @click.command(
        "add",
        **described(
            "Say of a stretch of time that it was maintenance or a false alarm, or name a ticket; before, during or"
            " after it. Of things (an annotation each), of the things that are in a group at the time, or of all. It"
            " counts in `uptime` where a policy says so (maintenance=exclude, false-alarms=connected), and stands by"
            " the outages in `outages` and `explain`. Evidence stays as it is, and a report as known earlier stays what"
            " it was. A false alarm is about the disconnected time within its stretch: give it rather too wide than too"
            " narrow. Runs beside an ingester. docs/annotations.md.",
            "thingline annotate pump-17 pump-18 --from 2026-11-01T02:00Z --to 2026-11-01T04:00Z --maintenance",
            "thingline annotate --all --from 2026-11-05T20:00Z --to 2026-11-05T22:00Z --maintenance --ticket CHG-13",
            "thingline annotate pump-17 --from -3h --to -2h --ticket INC-4711 --author 'Ada'",
            "thingline annotate add list --from -3h --to -2h --false-alarm",
        ),
    )
    @click.argument("things", nargs=-1, metavar="[THING]...")
    @click.option("--group", metavar="NAME", help="The things that belong to a thing group at the time.")
    @click.option("--all", "everything", is_flag=True, help="All things of the realm.")
    @click.option("--from", "from_", required=True, metavar="TIME", help="From then on,")
    @click.option("--to", required=True, metavar="TIME", help="... and before then.")
    @click.option("--maintenance", is_flag=True, help="It was, or will be, maintenance.")
    @click.option("--false-alarm", is_flag=True, help="What looks like an outage was none.")
    @click.option("--ticket", metavar="ID", help="A ticket; alone, or with one of the two.")
    @click.option("--note", metavar="TEXT", help="Anything else.")
    @author_option
    @tz_option
    @store_option
    @realm_option
    @json_option
    def add(
        things: tuple[str, ...],
        group: str | None,
        everything: bool,
        from_: str,
        to: str,
        maintenance: bool,
        false_alarm: bool,
        ticket: str | None,
        note: str | None,
        author: str | None,
        tz: str | None,
        url: str | None,
        realm: str,
        as_json: bool,
    ) -> int:
        from ingest.annotate import Said, annotate, group_was_heard_of
        from store.annotations import Note, Scope
        from store.engine import open_beside, parse_url

        if bool(things) + (group is not None) + everything != 1:
            raise UsageError("Say of whom: THINGs, --group NAME or --all.")
        if maintenance and false_alarm:
            raise UsageError("Give --maintenance or --false-alarm; make two annotations of the two.")
        if not maintenance and not false_alarm and ticket is None:
            raise UsageError("Say what: --maintenance, --false-alarm or --ticket ID.")
        now_ms = system_clock()
        window = read_time(from_, now_ms, tz), read_time(to, now_ms, tz)
        kind = Note.MAINTENANCE if maintenance else Note.FALSE_ALARM if false_alarm else Note.TICKET
        whom: list[tuple[Scope, str | None]] = [(Scope.THING, name) for name in dict.fromkeys(things)]
        whom += [(Scope.GROUP, group)] if group is not None else [(Scope.ALL, None)] if everything else []
        said = [Said(kind, *each, *window, ticket, note, author or _login()) for each in whom]
        with open_beside(parse_url(url)) as store:
            done = annotate(store, said, realm=realm)
            if group is not None and not group_was_heard_of(store, group):
                click.echo(f"nothing was told of a group {group!a}; it is annotated all the same", err=True)
        _show(done, as_json=as_json)
        return 0

    command: click.Command = add
    return command


@click.command(
    "withdraw",
    **described(
        "Withdraw annotations, by the numbers that `annotate list` shows: from now on they count as never made. A"
        " report as known earlier still sees them, and `annotate list --withdrawn` says who withdrew them and why.",
        "thingline annotate withdraw 3",
        "thingline annotate withdraw 3 4 --note 'wrong night' --author 'Ada'",
    ),
)
@click.argument("numbers", nargs=-1, required=True, type=click.IntRange(1, 2**31 - 1), metavar="NUMBER...")
@click.option("--note", metavar="TEXT", help="Why.")
@author_option
@store_option
@realm_option
@json_option
def _withdraw(
    numbers: tuple[int, ...],
    note: str | None,
    author: str | None,
    url: str | None,
    realm: str,
    as_json: bool,
) -> int:
    from ingest.annotate import withdraw
    from store.engine import open_beside, parse_url

    with open_beside(parse_url(url)) as store:
        done = withdraw(store, numbers, realm=realm, note=note, author=author or _login())
    _show(done, as_json=as_json)
    return 0


def _login() -> str | None:
    from getpass import getuser

    try:
        return getuser()
    except (OSError, KeyError):  # nobody has a name here, as in some containers
        return None


def _show(done: Sequence[Annotation], *, as_json: bool) -> None:
    for each in done:
        if as_json:
            click.echo(json.dumps(_json(each)))
        else:
            whom = each.scope.value if each.subject is None else f"{each.scope.value} {each.subject!a}"
            verb = "withdrawn" if each.withdrawn else "annotated"
            ticket = "" if each.ticket is None else f", ticket {each.ticket!a}"
            stretch = f"{_iso(each.from_ms)} .. {_iso(each.to_ms)}"
            click.echo(f"{each.number}: {verb}: {each.kind.value} of {whom}, {stretch}{ticket}")


def _json(each: Annotation) -> dict[str, Any]:
    from store.annotations import annotation_json

    return annotation_json(each, _iso)


def _iso(ms: int) -> str:
    from ingest.stamps import iso

    return iso(ms)
