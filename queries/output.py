"""How answers are written: JSON for machines, words for people, and AWS CLI's own output.

Names and ids are hostile text: nothing here lets one move a terminal's cursor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from queries.explanation import CheckSeen, EvidenceSeen, Explanation
from queries.fidelity import Agreement, By, Compared, Outcome
from queries.history import Reply, ThingPeriod, ThingTransition
from queries.times import iso
from store.annotations import Annotation, annotation_json
from store.answer import Answer, LastKnown, Seen, bounds_of, last_known
from store.errors import AnswerError, ThinglineError
from store.model import Certainty, Kind, Session, State

MOST_SHARED = 100_000  # beginnings and ends of lines, remembered at once

_encode = msgspec.json.Encoder().encode


def json_line(value: object) -> str:
    """Write a value as one line of JSON, without its newline."""
    return _encode(value).decode()


def safe(text: str | None) -> str:
    """Make text that others chose fit for a terminal: what is not printable is escaped."""
    if text is None:
        return "-"
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def say(text: str) -> None:
    """Talk to the person; data goes to standard output, talk to standard error."""
    print(text, file=sys.stderr)


def report_error(error: ThinglineError) -> None:
    """Say what went wrong and what to do."""
    say(f"thingline: {safe(str(error))}")


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)


# --- JSON ---------------------------------------------------------------------------------------------------


def reply_json(reply: Reply) -> dict[str, Any]:
    """Give the object of `ask` and `at --json`."""
    answer = reply.answer
    value: dict[str, Any] = {
        "thingName": reply.thing_name,
        "clientId": None,
        "at": _iso(reply.at_ms),
        "knownAt": None if reply.known_at is None or reply.known_at < 0 else iso(reply.known_at),
        "connected": None,
        "timestamp": None,
        "disconnectReason": None,
        "certainty": "unknown",
        "notBefore": None,
        "notAfter": None,
        "error": None if reply.error is None else reply.error.aws_name,
    }
    if reply.error is not None:
        value["message"] = str(reply.error)
    if answer is not None:
        value |= {
            "thingName": answer.thing_name,
            "clientId": answer.client_id,
            "connected": answer.connected,
            "timestamp": _iso(answer.timestamp_ms),
            "disconnectReason": answer.disconnect_reason,
            "certainty": answer.certainty.value,
            "notBefore": _iso(answer.not_before_ms),
            "notAfter": _iso(answer.not_after_ms),
        }
        if answer.last_known is not None:
            value["lastKnown"] = last_known_json(answer.last_known)
    return value


class ReplyLines:
    """Writes replies as NDJSON, as `reply_json` says; what the answers of one period share is rendered once."""

    def __init__(self) -> None:
        # By identity: to compare answers costs more than to write them. Each is kept, so that none takes its place.
        self._shared: dict[int, tuple[Answer, list[str]]] = {}

    def line(self, reply: Reply) -> str:
        """Write one line, without its newline."""
        held = reply.held
        if held is None or reply.at_ms is None:
            return json_line(reply_json(reply))
        shared = self._shared.get(id(held))
        if shared is None:
            if len(self._shared) >= MOST_SHARED:
                self._shared.clear()
            shared = self._shared[id(held)] = held, _around(reply, held)
        return iso(reply.at_ms).join(shared[1])


_AT = len('{"thingName":,"clientId":,"at":"')
_TIME = len(iso(0))
_END = '","error":null}'  # of an inferred answer, right after its notAfter


def _around(reply: Reply, answer: Answer) -> list[str]:
    """Cut the line of a reply where the instant asked about stands: once, and in an inferred stretch as its end too."""
    line = json_line(reply_json(reply))
    begins = _AT + len(json_line(answer.thing_name)) + len(json_line(answer.client_id))
    pieces = [line[:begins], line[begins + _TIME :]]
    if answer.certainty is Certainty.INFERRED:
        pieces[1:] = [line[begins + _TIME : -len(_END) - _TIME], _END]
    return pieces


def last_known_json(last: LastKnown) -> dict[str, Any]:
    """Give the last answer that was known, where the present one is not."""
    return {
        "connected": last.connected,
        "timestamp": _iso(last.timestamp_ms),
        "disconnectReason": last.disconnect_reason,
    }


def period_json(one: ThingPeriod) -> dict[str, Any]:
    """Give the object of `history --all --json`."""
    seen, certainty = one.period.seen, one.period.certainty
    known = certainty.value != "unknown"
    not_before_ms, not_after_ms = bounds_of(seen)
    if certainty.value == "inferred":
        not_after_ms = one.period.to_ms
    value: dict[str, Any] = {
        "thingName": one.thing_name,
        "clientId": one.client_id,
        "from": iso(one.period.from_ms),
        "to": _iso(one.period.to_ms),
        "connected": seen.state.connected if known else None,
        "timestamp": _iso(seen.timestamp_ms) if known else None,
        "disconnectReason": seen.reason if known else None,
        "certainty": certainty.value,
        "notBefore": _iso(not_before_ms) if known else None,
        "notAfter": _iso(not_after_ms) if known else None,
    }
    if not known and seen.state is not State.UNKNOWN:
        value["lastKnown"] = last_known_json(last_known(seen))
    return value


def seen_json(seen: Seen) -> dict[str, Any]:
    """Give a transition as an object."""
    not_before_ms, not_after_ms = bounds_of(seen)
    return {
        "at": iso(seen.at_ms),
        "connected": seen.state.connected,
        "timestamp": _iso(seen.timestamp_ms),
        "disconnectReason": seen.reason,
        "notBefore": _iso(not_before_ms),
        "notAfter": _iso(not_after_ms),
        "rule": seen.rule,
        "recordedAt": iso(seen.recorded_at),
        "supersededAt": _iso(seen.superseded_at),
    }


def transition_json(one: ThingTransition) -> dict[str, Any]:
    """Give the object of `history THING --json`."""
    return {"thingName": one.thing_name, "clientId": one.client_id, **seen_json(one.seen)}


def session_json(thing_name: str, client_id: str, session: Session) -> dict[str, Any]:
    """Give the object of `history THING --sessions --json`."""
    return {
        "thingName": thing_name,
        "clientId": client_id,
        "sessionIdentifier": session.session_id or None,
        "versionNumber": session.version,
        "connected": _iso(session.connect_ms),
        "disconnected": _iso(session.disconnect_ms),
        "disconnectReason": session.reason,
    }


def evidence_json(one: EvidenceSeen) -> dict[str, Any]:
    """Give a piece of evidence as `explain` shows it."""
    return {
        "eventType": Kind(one.kind).name.lower(),
        "timestamp": iso(one.at_ms),
        "knownAt": iso(one.known_at),
        "claimedKnownAt": _iso(one.claimed_at),
        "source": one.source,
        "sessionIdentifier": one.session_id or None,
        "versionNumber": one.version,
        "disconnectReason": one.reason,
    }


def check_json(one: CheckSeen) -> dict[str, Any]:
    """Give an answer of the API as `explain` shows it."""
    return {
        "askedAt": iso(one.asked_ms),
        "connected": one.state.connected,
        "timestamp": _iso(one.named_ms),
        "disconnectReason": one.reason,
        "knownAt": iso(one.known_at),
        "claimedKnownAt": _iso(one.claimed_at),
        "source": one.source,
    }


def compared_json(one: Compared) -> dict[str, Any]:
    """Give a line of `fidelity --json`."""
    return {
        "clientId": one.client_id,
        "askedAt": iso(one.asked_ms),
        "knownAt": iso(one.known_at),
        "outcome": one.outcome.value,
        "connected": one.connected,
        "timestamp": _iso(one.timestamp_ms),
        "disconnectReason": one.disconnect_reason,
        "ourConnected": one.our_connected,
        "ourTimestamp": _iso(one.our_timestamp_ms),
        "ourDisconnectReason": one.our_disconnect_reason,
    }


def agreement_json(by: By, one: Agreement) -> dict[str, Any]:
    """Give a line of `fidelity --by ... --json`."""
    counts = {outcome.value: one.outcomes[outcome] for outcome in Outcome}
    return {by.value: one.key, "agreement": one.share, **counts, "repeated": one.repeated}


def explanation_json(why: Explanation) -> dict[str, Any]:
    """Give the object of `explain --json`."""
    answer = why.answer
    return {
        **reply_json(Reply(answer.thing_name or "", answer.at_ms, answer.known_at, answer, None)),
        "rule": answer.rule,
        "inForce": seen_json(why.in_force),
        "next": None if why.following is None else seen_json(why.following),
        "evidence": [evidence_json(one) for one in why.evidence],
        "checks": [check_json(one) for one in why.checks],
        "confirmedFrom": _iso(why.in_force.confirmed_from_ms),
        "confirmedUntil": _iso(why.in_force.confirmed_until_ms),
        "believed": [seen_json(one) for one in why.believed],
        "annotations": [annotation_json(one, iso) for one in why.annotations],
    }


# --- Words --------------------------------------------------------------------------------------------------

STATE_WORDS = {True: "connected", False: "disconnected", None: "unknown"}


def answer_words(answer: Answer) -> str:
    """Say an answer to a person."""
    name = safe(answer.thing_name or answer.client_id)
    lines = [f"{name} at {iso(answer.at_ms)}: {STATE_WORDS[answer.connected].upper()} ({answer.certainty})"]
    if answer.timestamp_ms is not None:
        lines.append(f"  since       {iso(answer.timestamp_ms)}")
    if answer.connected is False:
        lines.append(f"  reason      {safe(answer.disconnect_reason)}")
    if (answer.not_before_ms, answer.not_after_ms) != (answer.timestamp_ms, answer.timestamp_ms):
        lines.append(
            f"  bounds      {_iso(answer.not_before_ms) or '-'} .. {_iso(answer.not_after_ms) or '-'}"
        )
    if answer.last_known is not None:
        last = answer.last_known
        lines.append(
            f"  last known  {STATE_WORDS[last.connected]} since {_iso(last.timestamp_ms) or '-'}"
            + ("" if last.connected else f", {safe(last.disconnect_reason)}")
        )
    if answer.client_id != answer.thing_name:
        lines.append(f"  client      {safe(answer.client_id)}")
    lines.append(f"  known at    {iso(answer.known_at)}")
    return "\n".join(lines)


def seen_words(seen: Seen) -> str:
    """Say a transition in one line."""
    stamp = "" if seen.timestamp_ms == seen.at_ms else f"  timestamp {_iso(seen.timestamp_ms) or 'not known'}"
    reason = f"  {safe(seen.reason)}" if seen.state.connected is False else ""
    fallen = "" if seen.superseded_at is None else f"  superseded {iso(seen.superseded_at)}"
    state = STATE_WORDS[seen.state.connected]
    return f"{iso(seen.at_ms)}  {state:<12}  {seen.rule:<15}{reason}{stamp}{fallen}"


def session_words(client_id: str, session: Session) -> str:
    """Say a session in one line."""
    return (
        f"{_iso(session.connect_ms) or '(connect lost)':<24}  {_iso(session.disconnect_ms) or '-':<24}"
        f"  version {'-' if session.version is None else session.version:<6}  {safe(session.reason)}"
        f"  {safe(session.session_id) if session.session_id else '(no id)'}  client {safe(client_id)}"
    )


def check_words(one: CheckSeen) -> str:
    """Say in one line what the API answered."""
    since = "no instant named" if one.named_ms is None else f"since {iso(one.named_ms)}"
    reason = f", {safe(one.reason)}" if one.state.connected is False and one.reason else ""
    state = STATE_WORDS[one.state.connected]
    said = f"{iso(one.asked_ms)}  API asked: {state}, {since}{reason}"
    return f"{said}  known {iso(one.known_at)}  from {safe(one.source)}"


def compared_words(one: Compared) -> str:
    """Say in one line where AWS and we differ."""
    theirs = f"{STATE_WORDS[one.connected]} since {_iso(one.timestamp_ms) or '-'} {safe(one.disconnect_reason or '')}"
    ours = f"{STATE_WORDS[one.our_connected]} since {_iso(one.our_timestamp_ms) or '-'}"
    ours += f" {safe(one.our_disconnect_reason or '')}"
    return f"{iso(one.asked_ms)}  {safe(one.client_id)}  {one.outcome.value}: AWS {theirs.rstrip()}; we {ours.rstrip()}"


def agreement_table(by: By, groups: Sequence[Agreement]) -> list[str]:
    """Draw a row a day, reason or thing."""
    rows = [[by.value, "agreement", *(outcome.value for outcome in Outcome), "repeated"]]
    for one in groups:
        counts = [*(one.outcomes[outcome] for outcome in Outcome), one.repeated]
        cells = ["-" if count is None else f"{count:,}" for count in counts]
        rows.append([safe(one.key), _percent(one.share), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _percent(share: float | None) -> str:
    """Write a share in percent; rounding hides neither that there was something nor that something was missing."""
    if share is None:
        return "-"
    text = f"{100 * share:.2f}"
    if share < 1 and text == "100.00":
        text = ">99.99"
    elif share > 0 and text == "0.00":
        text = "<0.01"
    return f"{text} %"


def annotation_words(one: Annotation) -> str:
    """Say in one line what people say of a stretch of time."""
    ticket = "" if one.ticket is None else f" {safe(one.ticket)}"
    note = "" if one.note is None else f": {safe(one.note)}"
    by = "" if one.author is None else f" by {safe(one.author)}"
    what = f"{one.number}: {one.kind}{ticket}, {iso(one.from_ms)} .. {iso(one.to_ms)}"
    return f"{what}, said {iso(one.recorded_at)}{by}{note}"


def explanation_words(why: Explanation) -> str:
    """Say to a person why an answer is what it is."""
    lines = [answer_words(why.answer), "", f"decided by rule '{why.in_force.rule}':"]
    lines.append("  " + seen_words(why.in_force))
    if why.following is not None:
        proof = "proven" if why.following.proved_from_ms is not None else "not proven"
        lines += [f"followed by (the stretch before it is {proof}):", "  " + seen_words(why.following)]
    begins_ms, until_ms = why.in_force.confirmed_from_ms, why.in_force.confirmed_until_ms
    if begins_ms is not None and until_ms is not None and begins_ms < until_ms:
        lines.append(f"checks prove it from {iso(begins_ms)} to {iso(until_ms)}, or to what followed")
    lines.append("evidence:")
    lines += [
        f"  {iso(one.at_ms)}  {Kind(one.kind).name.lower():<14}  version "
        f"{'-' if one.version is None else one.version}  {safe(one.reason)}  known {iso(one.known_at)}"
        f"  from {safe(one.source)}"
        for one in why.evidence
    ]
    lines += [f"  {check_words(one)}" for one in why.checks]
    if not why.evidence and not why.checks:
        lines.append("  none bears these stamps")
    lines.append("believed, oldest first:")
    lines += [f"  recorded {iso(seen.recorded_at)}: {seen_words(seen)}" for seen in why.believed]
    lines += ["annotated:"] if why.annotations else []
    lines += [f"  {annotation_words(one)}" for one in why.annotations]
    return "\n".join(lines)


# --- AWS ----------------------------------------------------------------------------------------------------


def aws_value(answer: Answer) -> dict[str, Any]:
    """Give the members of GetThingConnectivityData: the timestamp is a number of seconds, exact to the millisecond.

    Of an unknown state there is no more than the name.
    """
    value: dict[str, Any] = {"thingName": answer.thing_name}
    if answer.connected is not None:
        value["connected"] = answer.connected
        if answer.timestamp_ms is not None:
            value["timestamp"] = answer.timestamp_ms / 1000
        if answer.disconnect_reason is not None:
            value["disconnectReason"] = answer.disconnect_reason
    return value


def aws_json(answer: Answer, *, version: int) -> str:
    """Print an answer as AWS CLI prints GetThingConnectivityData: v2 with ISO text, v1 with a number."""
    value = aws_value(answer)
    if version == 2 and answer.timestamp_ms is not None and "timestamp" in value:
        value["timestamp"] = _aws_iso(answer.timestamp_ms)
    return json.dumps(value, indent=4, ensure_ascii=False)


def _aws_iso(ms: int) -> str:
    """Write a time as Python's isoformat does: six digits of fraction, or none."""
    text = iso(ms)[:-1]
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction}000+00:00" if int(fraction) else f"{whole}+00:00"


def aws_error(error: AnswerError) -> str:
    """Print an error as AWS CLI prints it."""
    return (
        f"\nAn error occurred ({error.aws_name}) when calling the GetThingConnectivityData operation: {error}"
    )


def period_words(one: ThingPeriod) -> str:
    """Say a period in one line."""
    seen, certainty = one.period.seen, one.period.certainty
    state = STATE_WORDS[seen.state.connected if certainty.value != "unknown" else None]
    reason = f"  {safe(seen.reason)}" if seen.state.connected is False else ""
    return (
        f"{safe(one.thing_name or one.client_id)}  {iso(one.period.from_ms)}  "
        f"{_iso(one.period.to_ms) or '(open)':<24}  {state:<12}  {certainty.value:<8}{reason}"
    )
