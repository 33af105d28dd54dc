"""The words of the project as values: evidence, sessions, transitions, answers.

Standard library only, no I/O, no clock. Every time is an integer of epoch milliseconds, UTC; every
interval is half-open. The values that exist once an event are named tuples, because building one costs a
fifth of a frozen dataclass; the others are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS

LAG_MS = 10 * SECOND_MS  # an index may be this far behind its broker

# Makes a named tuple of all its members, on hot paths: a third of the price of calling its class.
new_tuple = tuple.__new__

DUPLICATE_CLIENTID = "DUPLICATE_CLIENTID"

DEFAULT_REALM = "default"

# Of UTF-8, in a name or another text that recurs. An index of PostgreSQL takes 2,704 bytes at most, and refuses
# what is longer with the whole batch; AWS's own ids are no longer than 128.
MOST_TEXT_BYTES = 1_024


def bytes_of(text: str) -> int | None:
    """Count the bytes of a text in UTF-8; None where no SQL text can hold it (NUL, half a surrogate pair)."""
    if "\0" in text:
        return None
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


class Kind(IntEnum):
    """What a lifecycle event tells. Only the first two can change a state (FACTS: lifecycle events)."""

    CONNECTED = 1
    DISCONNECTED = 2
    CONNECT_FAILED = 3
    SUBSCRIBED = 4
    UNSUBSCRIBED = 5


EVENT_TYPES: dict[str, Kind] = {
    "connected": Kind.CONNECTED,
    "disconnected": Kind.DISCONNECTED,
    "connect_failed": Kind.CONNECT_FAILED,
    "subscribed": Kind.SUBSCRIBED,
    "unsubscribed": Kind.UNSUBSCRIBED,
}


class State(IntEnum):
    """What the API would say in `connected`; UNKNOWN is our own word for its absence."""

    DISCONNECTED = 0
    CONNECTED = 1
    UNKNOWN = 2

    @property
    def connected(self) -> bool | None:
        return None if self is State.UNKNOWN else self is State.CONNECTED


class Certainty(StrEnum):
    """How sure a state is: proven, carried on without proof, or not known at all."""

    OBSERVED = "observed"
    INFERRED = "inferred"
    UNKNOWN = "unknown"


# --- Evidence -----------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """One lifecycle event as AWS published it, losslessly: typed members plus `extra` give its JSON back.

    `extra` is JSON text, or None where the typed members say everything: an object holds further members;
    an array of one holds the whole original, for the shapes that typed members cannot rebuild (renamed
    ids, odd timestamps, explicit nulls).
    """

    client_id: str
    kind: Kind
    at_ms: int
    session_id: str | None = None
    version: int | None = None
    reason: str | None = None  # disconnectReason, or connectFailureReason of a connect_failed
    client_initiated: bool | None = None
    principal: str | None = None
    ip: str | None = None
    thing_name: str | None = None
    extra: str | None = None


class Observation(NamedTuple):
    """Evidence that is no lifecycle event: a registry event or an API check, kept as the JSON it came in.

    `kind` is "registry" or "check"; `subject` the thing (or client) that it speaks of, where it names one;
    `at_ms` its own stamp, or the moment of asking.
    """

    kind: str
    subject: str | None
    at_ms: int
    body: str


class Check(NamedTuple):
    """What one API call said of one client's connection (ingest/checks.py reads it out of an Observation).

    `named_ms` is the instant that it names: the `timestamp` of the answer, None where that is absent, null
    or 0. `whole`: it was given in whole seconds, so that the instant lies in `[named_ms, named_ms + 999]`.
    `reason` as AWS says it; None where it says none.
    """

    client_id: str
    asked_ms: int  # a bare result, of which nobody said when it was asked, counts as asked at `named_ms`
    state: State  # CONNECTED or DISCONNECTED
    named_ms: int | None
    whole: bool
    reason: str | None


class Watch(NamedTuple):
    """A statement that the path `source` was recording throughout `[from_ms, to_ms)`."""

    source: str
    from_ms: int
    to_ms: int


Evidence = Event | Observation | Watch


class Learned(NamedTuple):
    """One piece of evidence, where it stood, and the moment of learning that a recording claims for it."""

    evidence: Evidence
    position: int  # offset in bytes of the record in its (uncompressed) source
    known_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What could not be read: its first 64 KiB, and enough to find and recognise the whole."""

    reason: str  # a slug: not-json, too-large, too-deep, no-client-id, ambiguous-timestamp, future-stamp, ...
    detail: str
    head: bytes
    length: int
    sha256: str
    position: int


# --- Sessions and transitions -------------------------------------------------------------------------------


class Session(NamedTuple):
    """The merge of all evidence of one session: each member the smallest that any copy gives.

    `session_id` is "" for evidence without one; such a row holds exactly one half (connect or disconnect).
    """

    session_id: str
    version: int | None
    connect_ms: int | None
    disconnect_ms: int | None
    reason: str | None


class Stray(NamedTuple):
    """What evidence without a session id is merged by: all that it says of itself."""

    kind: Kind  # of its one half
    stamp_ms: int
    version: int  # -1: none


Identity = str | Stray  # what a session's evidence is merged by: its id, where it bears one


class Confirmation(NamedTuple):
    """What checks prove of the stretch after a transition: its state, up to `until_ms` or the next transition.

    It begins with the transition, at the end of its bounds, and not before `from_ms`: the end of the second
    that checks named, where they named whole ones.

    `open_at` is the known_at of the check whose answer the client's newest checks repeat, where that is this
    one: each of those, known since, proves up to its own asking less LAG.
    """

    until_ms: int
    from_ms: int | None = None
    open_at: int | None = None


class Transition(NamedTuple):
    """A change of answer, in force from `at_ms` to the next transition's `at_ms`.

    `timestamp_ms` is AWS's stamp (None where only bounds are known); `[not_before_ms, not_after_ms]` bounds
    the true instant. `proved_from_ms` speaks of the stretch *before* the transition: proven from there up to
    `at_ms`; None where nothing proves it. `rule` names the rule of ingest/reduce.py that made it.
    `confirmed` speaks of the stretch *after* it; the store keeps it apart, so that a check rewrites no row.
    """

    at_ms: int
    state: State
    timestamp_ms: int | None
    reason: str | None
    not_before_ms: int | None
    not_after_ms: int | None
    rule: str
    proved_from_ms: int | None
    confirmed: Confirmation | None = None
