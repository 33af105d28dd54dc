"""The questions under /api/v1. Renders nothing of its own: what `--json` of a command prints, is answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from queries import output
from queries.coverage import as_json as coverage_lines
from queries.fidelity import By
from queries.history import History, Question, Reply
from queries.http.declarations import KNOWN_AT, TZ, Endpoint, Kind, Param, Row, Take
from queries.http.messages import invalid
from queries.http.reports import report_of
from queries.outage_commands import flapping, outages
from queries.series_command import series
from queries.snapshot_commands import diff, snapshot
from queries.takeover_command import takeovers
from queries.uptime_command import uptime

Values = Mapping[str, Any]

AT = Param(
    name="at",
    text="The instant: ISO 8601 with a zone, epoch ms or s, now, -2h.",
    kind=Kind.TIME,
    is_needed=True,
)
THING = Param(name="thing", text="The name of a thing.", is_needed=True)
CLIENT = Param(name="client", text="Whether `thing` is a client id.", kind=Kind.TRUTH)
FROM = Param(name="from", text="From then on.", kind=Kind.TIME)
TO = Param(name="to", text="... and before then.", kind=Kind.TIME)


# --- One thing ----------------------------------------------------------------------------------------------


def _at(history: History, values: Values) -> Row:
    known_at = values.get("knownAt")
    answer = history.at(
        values["thing"], values["at"], known_at=known_at, by_client=values.get("client", False)
    )
    return output.reply_json(Reply(values["thing"], answer.at_ms, answer.known_at, answer, None))


def _explain(history: History, values: Values) -> Row:
    why = history.explain(
        values["thing"],
        values["at"],
        known_at=values.get("knownAt"),
        by_client=values.get("client", False),
    )
    return output.explanation_json(why)


def _history(history: History, values: Values, take: Take) -> None:
    window: dict[str, Any] = {
        "from_": values.get("from"),
        "to": values.get("to"),
        "known_at": values.get("knownAt"),
        "by_client": values.get("client", False),
    }
    if values.get("periods"):
        take(None, map(output.period_json, history.periods(values["thing"], **window)))
    else:
        take(None, map(output.transition_json, history.transitions(values["thing"], **window)))


def _sessions(history: History, values: Values, take: Take) -> None:
    name = values["thing"]
    found = history.sessions(name, by_client=values.get("client", False))
    take(None, (output.session_json(name, client_id, session) for client_id, session in found))


# --- Many ---------------------------------------------------------------------------------------------------


class _Asked(msgspec.Struct):
    """A line of what is posted to ask."""

    thingName: str  # noqa: N815 - as JSON has it
    at: str | int
    knownAt: str | int | None = None  # noqa: N815


_question = msgspec.json.Decoder(_Asked).decode


def _ask(history: History, values: Values, take: Take) -> None:
    lines = [line for line in values["body"].splitlines() if line.strip()]
    take(None, map(output.reply_json, history.ask(_questions(lines))))


def _questions(lines: Iterable[bytes]) -> Iterator[Question]:
    for number, line in enumerate(lines, 1):
        try:
            asked = _question(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid(
                f'Line {number} is no question; give {{"thingName": TEXT, "at": TIME, "knownAt": TIME}}.'
            ) from None
        known_at = None if asked.knownAt is None else str(asked.knownAt)
        yield Question(asked.thingName, str(asked.at), known_at)


def _fidelity(history: History, values: Values, take: Take) -> None:
    low, high, known_at = values.get("from"), values.get("to"), values.get("knownAt")
    by = values.get("by")
    if by is None:
        take(None, map(output.compared_json, history.fidelity(low, high, known_at=known_at)))
    else:
        groups = history.agreements(By(by), low, high, known_at=known_at)
        take(None, (output.agreement_json(By(by), group) for group in groups))


def _coverage(history: History, values: Values, take: Take) -> None:
    if len(history.realms()) > 1:  # a source may have brought things of any, and its name tells of an account
        raise invalid(
            f"This server answers of one realm, {history.realm}; coverage is of the whole store, which holds others."
            " Ask the command."
        )
    found = history.coverage(values["from"], values.get("to"))
    take(None, coverage_lines(found))


_THINGS = Param(name="thing", text="Only of these things; may come more than once.", is_many=True)
_AFTER = Param(
    name="after", text="The id of the last event that was heard, where the header Last-Event-ID is not."
)
_PERIODS = Param(
    name="periods", text="Stretches with their certainty, in place of transitions.", kind=Kind.TRUTH
)
_BY = Param(name="by", text="Add up by day, reason or thing.", choices=tuple(By))

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        name="at",
        summary="Answer what GetThingConnectivityData would have said of a thing at an instant, and how sure that is.",
        params=(THING, AT, KNOWN_AT, CLIENT, TZ),
        one=_at,
        is_quick=True,
    ),
    Endpoint(
        name="ask",
        summary="Answer many questions at once: NDJSON in, one line each out, in order.",
        params=(),
        rows=_ask,
        method="POST",
        body="application/x-ndjson",
    ),
    Endpoint(
        name="history",
        summary="List the transitions of a thing, or its periods: stretches with one answer.",
        params=(THING, FROM, TO, _PERIODS, KNOWN_AT, CLIENT, TZ),
        rows=_history,
    ),
    Endpoint(
        name="sessions",
        summary="List the sessions of a thing, as merged from their events, as known now.",
        params=(THING, CLIENT),
        rows=_sessions,
    ),
    Endpoint(
        name="explain",
        summary="Show why an answer is what it is: the rule, the evidence, and what was believed before.",
        params=(THING, AT, KNOWN_AT, CLIENT, TZ),
        one=_explain,
    ),
    Endpoint(
        name="fidelity",
        summary="Compare what AWS answered to API checks with what the store would have answered just before.",
        params=(FROM, TO, _BY, KNOWN_AT, TZ),
        rows=_fidelity,
    ),
    Endpoint(
        name="coverage",
        summary="Tell which path was recording when, and how much of what it should have brought is missing.",
        params=(FROM, TO, TZ),
        rows=_coverage,
    ),
    Endpoint(
        name="events",
        summary="Listen to what is learned, as server-sent events: transitions, and those that were superseded.",
        params=(_THINGS, _AFTER),
        is_endless=True,
    ),
    *map(report_of, (snapshot, diff, uptime, outages, flapping, takeovers, series)),
)
