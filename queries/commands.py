"""The commands that ask: at, ask, history, explain, fidelity; and those that look after a store: db."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from store.engine import SCHEMA_REVISION, masked, open_reader, parse_url
from store.errors import AnswerError, BadTime, UsageError
from store.garbage import uncollected
from store.options import described, json_option, realm_option, store_option

tz_option = click.option(
    "--tz",
    metavar="ZONE",
    envvar="THINGLINE_TZ",
    help="The zone of times that name none: Europe/Berlin, UTC.",
)
known_at_option = click.option(
    "--known-at", metavar="TIME", help="As it was known then; default: as known now."
)
client_option = click.option("--client", "by_client", is_flag=True, help="THING is a client id.")


def _history(url: str | None, realm: str, tz: str | None) -> Any:
    from queries.history import open_history

    return open_history(url, realm=realm, tz=tz)


def _moment(history: Any, text: str | None, what: str) -> int | None:
    """Read a time, and say which UTC was understood where it was not written so."""
    from queries.output import say
    from queries.times import iso

    if text is None:
        return None
    ms: int = history.milliseconds(text)
    if not text.rstrip().upper().endswith("Z"):
        say(f"{what}: {iso(ms)}")
    return ms


def note_cut(wanted: int | None, known_at: int) -> None:
    from queries.output import say
    from queries.times import iso

    if wanted is not None and known_at < wanted:
        said = iso(known_at) if known_at >= 0 else "nothing at all"
        say(f"known at: cut to {said}, the newest that the store has learned")


class _AtCommand(click.Command):
    """Lets `--aws` stand alone anywhere on the line, as well as `--aws=v1`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--aws=v2" if arg == "--aws" else arg for arg in args])


@click.command(
    "at",
    cls=_AtCommand,
    **described(
        "Answer what GetThingConnectivityData would have said of THING at TIME, and how sure that is. TIME is"
        " ISO 8601 with a zone, epoch ms or s, -2h, or 'yesterday 03:12' with a zone.",
        "thingline at pump-17 2026-11-01T03:12:00Z",
        "thingline at pump-17 'yesterday 03:12' --tz Europe/Berlin",
        "thingline at pump-17 -2h --known-at -1h --json",
        "thingline at pump-17 -2h --aws",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("thing")
@click.argument("time")
@known_at_option
@client_option
@click.option(
    "--aws",
    "aws",
    type=click.Choice(["v2", "v1"]),
    help="Print what AWS CLI v2 (or v1) prints, errors and exit codes included.",
)
@store_option
@realm_option
@tz_option
@json_option
def at(
    thing: str,
    time: str,
    known_at: str | None,
    by_client: bool,
    aws: str | None,
    url: str | None,
    realm: str,
    tz: str | None,
    as_json: bool,
) -> int:
    from queries.history import Reply
    from queries.output import answer_words, aws_error, aws_json, json_line, reply_json, say

    with _history(url, realm, tz) as history:
        at_ms: int | None = None
        known_ms: int | None = None
        try:
            try:
                at_ms = _moment(history, time, "at")
            except BadTime as error:
                if aws is None and not as_json:
                    raise
                from store.errors import InvalidRequest

                raise InvalidRequest(str(error)) from error
            known_ms = _moment(history, known_at, "known at")
            answer = history.at(thing, at_ms, known_at=known_ms, by_client=by_client)
        except AnswerError as error:
            if aws is not None:
                say(aws_error(error))
                return 254 if aws == "v2" else 255
            if as_json:
                click.echo(json_line(reply_json(Reply(thing, at_ms, known_ms, None, error))))
                return error.exit_code
            raise
    note_cut(known_ms, answer.known_at)
    if aws is not None:
        click.echo(aws_json(answer, version=2 if aws == "v2" else 1))
    elif as_json:
        click.echo(json_line(reply_json(Reply(thing, answer.at_ms, answer.known_at, answer, None))))
    else:
        click.echo(answer_words(answer))
    return 0


@click.command(
    "ask",
    **described(
        "Answer many questions at once: NDJSON in, one line each out, in order. A line is"
        ' {"thingName": ..., "at": TIME, "knownAt": TIME or left out}.',
        "thingline ask questions.ndjson > answers.ndjson",
    ),
)
@click.argument("file", type=click.File("rb"))
@store_option
@realm_option
@tz_option
def ask(file: Any, url: str | None, realm: str, tz: str | None) -> int:
    from queries.output import ReplyLines

    line = ReplyLines().line
    with _history(url, realm, tz) as history, uncollected():
        out = sys.stdout
        for reply in history.ask(_questions(file)):
            out.write(line(reply) + "\n")
        out.flush()
    return 0


def _questions(lines: Any) -> Iterator[Any]:
    import msgspec

    from queries.history import Question

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            asked = msgspec.json.decode(line)
            name, time, known_at = asked["thingName"], asked["at"], asked.get("knownAt")
            fits = isinstance(name, str) and _is_time(time) and (known_at is None or _is_time(known_at))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
            fits = False
        if not fits:
            raise UsageError(
                f'Line {number} is no question; give {{"thingName": TEXT, "at": TIME, "knownAt": TIME}}.'
            )
        # A number is read as it is on the command line: seconds or milliseconds, and no other.
        yield Question(name, str(time), None if known_at is None else str(known_at))


def _is_time(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


@click.command(
    "history",
    **described(
        "List the transitions of THING, or of every thing its periods: stretches with one answer, which tile"
        " the time from its first evidence on.",
        "thingline history pump-17 --from -24h",
        "thingline history pump-17 --sessions",
        "thingline history --all --json > periods.ndjson",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("thing", required=False)
@click.option(
    "--all", "everything", is_flag=True, help="Every thing's periods (with --client: every client's)."
)
@click.option("--from", "from_", metavar="TIME", help="Begin here; the transition in force is listed first.")
@click.option("--to", "to", metavar="TIME", help="End before here.")
@click.option(
    "--sessions",
    "as_sessions",
    is_flag=True,
    help="Sessions as known now, merged from their events: those that last at any time from --from to --to.",
)
@click.option("--periods", "as_periods", is_flag=True, help="Periods, with their certainty.")
@known_at_option
@client_option
@store_option
@realm_option
@tz_option
@json_option
def history(
    thing: str | None,
    everything: bool,
    from_: str | None,
    to: str | None,
    as_sessions: bool,
    as_periods: bool,
    known_at: str | None,
    by_client: bool,
    url: str | None,
    realm: str,
    tz: str | None,
    as_json: bool,
) -> int:
    from queries import output

    if everything == (thing is not None):
        raise UsageError("Give either a THING or --all.")
    if as_sessions and known_at is not None:
        raise UsageError("Sessions are told as known now only; give --sessions without --known-at.")
    if as_sessions and (everything or as_periods):
        raise UsageError("Sessions are listed of one THING, and without --periods.")
    with _history(url, realm, tz) as opened:
        window: dict[str, Any] = {
            "from_": _moment(opened, from_, "from"),
            "to": _moment(opened, to, "to"),
            "known_at": _moment(opened, known_at, "known at"),
        }
        if everything or as_periods:
            if everything:
                if from_ is not None or to is not None:
                    raise UsageError("--all lists whole histories; give --from and --to with a THING.")
                found = opened.all_periods(known_at=window["known_at"], by_client=by_client)
            else:
                found = opened.periods(thing, by_client=by_client, **window)
            for one in found:
                click.echo(output.json_line(output.period_json(one)) if as_json else output.period_words(one))
        elif as_sessions:
            low, high = window["from_"], window["to"]
            for client_id, session in opened.sessions(thing, from_=low, to=high, by_client=by_client):
                if as_json:
                    click.echo(output.json_line(output.session_json(str(thing), client_id, session)))
                else:
                    click.echo(output.session_words(client_id, session))
        else:
            for one in opened.transitions(thing, by_client=by_client, **window):
                click.echo(
                    output.json_line(output.transition_json(one)) if as_json else output.seen_words(one.seen)
                )
    return 0


@click.command(
    "explain",
    **described(
        "Show why the answer for THING at TIME is what it is: the rule that decided, the evidence, and what"
        " was believed before.",
        "thingline explain pump-17 2026-11-01T03:12:00Z",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("thing")
@click.argument("time")
@known_at_option
@client_option
@store_option
@realm_option
@tz_option
@json_option
def explain(
    thing: str,
    time: str,
    known_at: str | None,
    by_client: bool,
    url: str | None,
    realm: str,
    tz: str | None,
    as_json: bool,
) -> int:
    from queries.output import explanation_json, explanation_words, json_line

    with _history(url, realm, tz) as history:
        at_ms = _moment(history, time, "at")
        known_ms = _moment(history, known_at, "known at")
        why = history.explain(thing, at_ms, known_at=known_ms, by_client=by_client)
    note_cut(known_ms, why.answer.known_at)
    click.echo(json_line(explanation_json(why)) if as_json else explanation_words(why))
    return 0


@click.command(
    "fidelity",
    **described(
        "Compare what AWS answered to API checks with what this store would have answered just before: counts,"
        " and every answer that differed. It tells how far the history can be trusted, and finds lost events."
        " With --by, a row a day (of UTC, or of the zone of --tz), a reason or a thing: the share of the answers on"
        " which both agreed, of those of which the store knew anything; how many of the new answers were the same,"
        " differed in reason, timestamp or state, or were of what was not known; and how many only repeated what AWS"
        " had said before.",
        "thingline fidelity --from -7d",
        "thingline fidelity --by day --tz Europe/Berlin",
        "thingline fidelity --by thing | head",
        "thingline fidelity --json",
    ),
)
@click.option("--from", "from_", metavar="TIME", help="Checks asked from then on.")
@click.option("--to", metavar="TIME", help="... and before then.")
@click.option("--by", type=click.Choice(["day", "reason", "thing"]), help="Add up, instead of listing.")
@known_at_option
@store_option
@realm_option
@tz_option
@json_option
def fidelity(
    from_: str | None,
    to: str | None,
    by: str | None,
    known_at: str | None,
    url: str | None,
    realm: str,
    tz: str | None,
    as_json: bool,
) -> int:
    from collections import Counter

    from queries.fidelity import By
    from queries.output import agreement_json, agreement_table, compared_json, compared_words, json_line

    outcomes: Counter[str] = Counter()
    with _history(url, realm, tz) as history:
        low, high = _moment(history, from_, "from"), _moment(history, to, "to")
        known_ms = _moment(history, known_at, "known at")
        if by is not None:
            groups = history.agreements(By(by), low, high, known_at=known_ms)
            if as_json:
                lines = [json_line(agreement_json(By(by), group)) for group in groups]
            else:
                lines = agreement_table(By(by), groups)
            click.echo("\n".join(lines), nl=bool(lines))
            return 0
        for one in history.fidelity(low, high, known_at=known_ms):
            outcomes[one.outcome.value] += 1
            if as_json:
                click.echo(json_line(compared_json(one)))
            elif one.outcome.value != "same":
                click.echo(compared_words(one))
        again = history.repeated(low, high, known_at=known_ms)
    if not as_json:
        listed = ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common())
        click.echo(
            f"{outcomes.total():,} new answers ({listed or 'none'}), {again:,} repeated what had been said"
        )
    return 0


@click.group("db", help="Look after a store.")
def db() -> None:
    pass


@click.command(
    "status", **described("Say what a store holds and how new it is.", "thingline db status --json")
)
@store_option
@json_option
def db_status(url: str | None, as_json: bool) -> int:
    from queries.reports import status

    place = parse_url(url)
    with open_reader(place) as store:
        found = {"store": masked(place), "schema": SCHEMA_REVISION, **status(store)}
    if as_json:
        from queries.output import json_line

        click.echo(json_line(found))
    else:
        for name, value in found.items():
            said = "none" if value is None else format(value, ",") if isinstance(value, int) else value
            click.echo(f"{name:<14}{said}")
    return 0


@click.command(
    "upgrade",
    **described(
        "Bring a store to this version's schema. A SQLite store is copied beside itself first.",
        "thingline db upgrade",
    ),
)
@store_option
def db_upgrade(url: str | None) -> int:
    from store.migrate import upgrade_existing

    place = parse_url(url)
    before, after, copy = upgrade_existing(place)
    if before == after:
        click.echo(f"{masked(place)} is at schema {after} already")
    else:
        click.echo(f"{masked(place)}: schema {before} -> {after}" + (f"; copy: {copy}" if copy else ""))
    return 0


db.add_command(db_status)
db.add_command(db_upgrade)

COMMANDS = (at, ask, history, explain, fidelity, db)
