"""What is missing in an account for a whole history, by what was read of it (ingest/doctor_reads.py). Pure.

A finding says what it means for the history, and what mends it. *Missing*: some or all of the history will not come,
or nothing could be learned of it. *Warning*: it comes, and something about it may be lost or known less exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from ingest.aws import Failure, Trouble
from ingest.doctor_reads import Facts, Indexing, Queue, Rule, Stream
from ingest.iot import TURN_ON
from ingest.members import CLIENT_NAMES, TOPIC_NAMES, TYPE_NAMES
from ingest.rule_sql import Select, hears, read_sql
from ingest.setup_template import KEPT_S, RULES, TURN_ON_EVENTS

LOW_RECEIVES = 20  # each restart of an ingester may receive a message once more, unread
SHORT_STREAM_H = 72  # a long weekend; Kinesis keeps a day unless it is told otherwise
_DAY_S = 24 * 3600


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


class Finding(NamedTuple):
    """What is so, what that means, and what mends it."""

    level: Level
    about: str
    message: str
    mend: str | None = None


# What a client's events come on; the ids with a slash are told apart, for only # takes them.
_PRESENCE = "$aws/events/presence"
_HALVES = {"connects": f"{_PRESENCE}/connected/a", "disconnects": f"{_PRESENCE}/disconnected/a"}
_SLASHED = [f"{topic}/b" for topic in _HALVES.values()]

# Members without which an event goes to quarantine, each by the names that the decoder takes.
_NEEDED = {
    "clientId": (*CLIENT_NAMES, *TOPIC_NAMES),
    "eventType": (*TYPE_NAMES, *TOPIC_NAMES),
    "timestamp": ("timestamp",),
}
# ... and those without which it says less.
_WANTED = {
    "sessionIdentifier": "a disconnect finds its connect by version and time only",
    "versionNumber": "the order of sessions is by time only, which AWS gives within minutes",
    "disconnectReason": "a takeover is taken for an outage",
    "thingName": "things whose clients have other ids are not told apart from them",
}
_REGISTRY = {
    "THING": "$aws/events/thing/t/created",
    "THING_TYPE_ASSOCIATION": "$aws/events/thingTypeAssociation/thing/t/added",
    "THING_GROUP_MEMBERSHIP": "$aws/events/thingGroupMembership/thingGroup/g/thing/t/added",
}
_SELECT_ALL = f"make its SQL {RULES['Presence']} (`thingline aws setup` has such a rule)"


def findings(facts: Facts, *, by_mqtt: bool = False) -> Iterator[Finding]:
    """Judge an account. `by_mqtt`: a broker gives events, so that without queue and stream no rule is needed."""
    yield Finding(
        Level.OK, "identity", f"asked as {facts.identity.arn} in {facts.identity.region} (no other Region)"
    )
    yield from _of_indexing(facts.indexing)
    yield from _of_index(facts.indexing, facts.index)
    yield from _of_checks(facts.checks)
    for url, queue in facts.queues.items():
        yield from _of_queue(url, queue)
    for name, stream in facts.streams.items():
        yield from _of_stream(name, stream)
    if by_mqtt and not facts.queues and not facts.streams:
        yield Finding(Level.OK, "rules", "none is needed: events come by MQTT")
        return
    if isinstance(facts.rules, Failure):
        yield _unread("rules", facts.rules, "iot:ListTopicRules")
    else:
        yield from _of_rules(facts.rules, list(facts.queues), list(facts.streams))
    yield from _of_events(facts.events, facts.rules)


def _unread(about: str, failure: Failure, permission: str) -> Finding:
    """Say that something could not be learned."""
    match failure.trouble:
        case Trouble.DENIED:
            mend = f"allow {permission} to this role"
        case Trouble.THROTTLED:
            mend = "run it again in a minute"
        case _:
            mend = "see what AWS says"
    return Finding(Level.MISSING, about, f"nothing is known of it: {failure.message}", mend)


# --- Asking ---------------------------------------------------------------------------------------------------


def _of_indexing(indexing: Indexing | Failure) -> Iterator[Finding]:
    about = "fleet indexing"
    if isinstance(indexing, Failure):
        yield _unread(about, indexing, "iot:GetIndexingConfiguration")
    elif indexing.things == "OFF":
        text = "off, so AWS can be asked about no thing: lost events stay lost"
        yield Finding(Level.MISSING, about, text, f"`{TURN_ON}`")
    elif indexing.connectivity != "STATUS":
        mend = TURN_ON.replace("thingIndexingMode=REGISTRY,", f"thingIndexingMode={indexing.things},")
        text = "on without connectivity, so AWS can be asked about no thing's: lost events stay lost"
        yield Finding(Level.MISSING, about, text, f"`{mend}`")
    else:
        yield Finding(Level.OK, about, f"on with connectivity ({indexing.things}): checks find lost events")


def _of_index(indexing: Indexing | Failure, status: str | Failure) -> Iterator[Finding]:
    about = "index AWS_Things"
    if isinstance(indexing, Indexing) and indexing.things == "OFF":
        return
    if isinstance(status, Failure):
        yield _unread(about, status, "iot:DescribeIndex")
    elif status != "ACTIVE":
        text = f"{status}: checks get no answer, or an incomplete one, until it is ACTIVE"
        yield Finding(
            Level.WARNING, about, text, "wait; `aws iot describe-index --index-name AWS_Things` says when"
        )
    else:
        yield Finding(Level.OK, about, "ACTIVE")


def _of_checks(checks: Mapping[str, Failure | None]) -> Iterator[Finding]:
    for permission, failure in checks.items():
        if failure is None:
            yield Finding(Level.OK, permission, "allowed")
        else:
            text = f"checks (--check-every) cannot ask: {failure.message}"
            yield Finding(Level.MISSING, permission, text, f"allow {permission} to this role")


# --- Queues and streams ---------------------------------------------------------------------------------------


def _of_queue(url: str, queue: Queue | Failure) -> Iterator[Finding]:
    about = f"queue {_short(url)}"
    if isinstance(queue, Failure):
        if queue.trouble is Trouble.GONE:
            yield Finding(
                Level.MISSING, about, "is not there: no event comes", "`thingline aws setup` makes one"
            )
        else:
            yield _unread(about, queue, "sqs:GetQueueAttributes")
        return
    text = f"keeps events for {queue.kept_s / _DAY_S:g} days; {queue.waiting:,} wait"
    yield from list(_faults_of(url, queue, about)) or [Finding(Level.OK, about, text)]


def _faults_of(url: str, queue: Queue, about: str) -> Iterator[Finding]:
    if url.endswith(".fifo"):
        text = "is a FIFO queue, to which no rule of AWS IoT can write"
        yield Finding(
            Level.MISSING, about, text, "give the rule a standard queue (`thingline aws setup` makes one)"
        )
    if queue.kept_s < KEPT_S:
        text = f"keeps events for {queue.kept_s / _DAY_S:g} days: an ingester that is away for longer leaves a gap"
        set_it = (
            f"aws sqs set-queue-attributes --queue-url {url} --attributes MessageRetentionPeriod={KEPT_S}"
        )
        yield Finding(Level.WARNING, about, text, f"`{set_it}`")
    if queue.most_receives is not None and queue.most_receives < LOW_RECEIVES:
        text = (
            f"gives a message up after {queue.most_receives} receives: an ingester that restarts so often"
            " loses it to the dead-letter queue"
        )
        yield Finding(
            Level.WARNING, about, text, f"set maxReceiveCount of its RedrivePolicy to {5 * LOW_RECEIVES}"
        )


def _of_stream(name: str, stream: Stream | Failure) -> Iterator[Finding]:
    about = f"stream {name}"
    if isinstance(stream, Failure):
        if stream.trouble is Trouble.GONE:
            yield Finding(
                Level.MISSING, about, "is not there: no event comes", f"make it, or mend its name: {name}"
            )
        else:
            yield _unread(about, stream, "kinesis:DescribeStreamSummary")
        return
    for permission, failure in stream.refused.items():
        text = f"it cannot be read: {failure.message}"
        yield Finding(Level.MISSING, about, text, f"allow {permission} to this role")
    if stream.kept_h < SHORT_STREAM_H:
        text = f"keeps events for {stream.kept_h} h: an ingester that is away for longer leaves a gap"
        longer = f"aws kinesis increase-stream-retention-period --stream-name {name}"
        yield Finding(Level.WARNING, about, text, f"`{longer} --retention-period-hours 168`")
    elif not stream.refused:
        yield Finding(Level.OK, about, f"{stream.status}, keeps events for {stream.kept_h} h")


# --- Rules ----------------------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """A rule that takes lifecycle events, and its SQL."""

    rule: Rule
    select: Select

    def hears(self, topic: str) -> bool:
        return hears(self.select.topic_filter, topic)

    def writes_to(self, place: str) -> bool:
        queues = (_place(url) for url in self.rule.queues)
        return place in (*queues, *self.rule.streams)


def _of_rules(rules: Sequence[Rule | Failure], queues: list[str], streams: list[str]) -> Iterator[Finding]:
    reading = []
    for rule in rules:
        if isinstance(rule, Failure):
            yield _unread("rules", rule, "iot:GetTopicRule")
            continue
        select = read_sql(rule.sql)
        if select is None:
            text = "its SQL is not understood here; what it delivers is not known"
            yield Finding(Level.WARNING, f"rule {rule.name}", text, "compare it with `thingline aws setup`")
        elif any(hears(select.topic_filter, topic) for topic in (*_HALVES.values(), *_SLASHED)):
            reading.append(_Reading(rule, select))
    for each in reading:
        yield from _of_rule(each)
    able = [each for each in reading if not each.rule.is_disabled]
    for url in queues:
        yield _of_way(f"to queue {_short(url)}", able, _place(url), can_come_by_sns=True)
    for name in streams:
        yield _of_way(f"to stream {name}", able, name, can_come_by_sns=False)
    if not queues and not streams:
        yield _of_way("to any queue or stream", able, None, can_come_by_sns=True)


def _of_rule(each: _Reading) -> Iterator[Finding]:
    rule, select, about = each.rule, each.select, f"rule {each.rule.name}"
    if rule.is_disabled:
        text = "reads lifecycle events and is disabled: it delivers nothing"
        yield Finding(Level.WARNING, about, text, f"`aws iot enable-topic-rule --rule-name {rule.name}`")
        return
    faults = list(_of_members(about, select))
    if select.has_condition:
        text = "has a condition: events that do not meet it never come"
        faults.append(Finding(Level.WARNING, about, text, "drop its WHERE"))
    if not rule.has_error_action:
        text = "has no error action: what it cannot write is lost without a trace"
        mend = "give it one that writes to a queue of its own, as `thingline aws setup` does"
        faults.append(Finding(Level.WARNING, about, text, mend))
    yield from faults or [Finding(Level.OK, about, f"delivers {select.topic_filter} as it is")]


def _of_members(about: str, select: Select) -> Iterator[Finding]:
    for name, names in _NEEDED.items():
        if not select.lets_through(*names):
            text = f"drops or renames {name}: its events cannot be read and go to quarantine"
            yield Finding(Level.MISSING, about, text, _SELECT_ALL)
    lost = [name for name in _WANTED if not select.lets_through(name)]
    if lost:
        text = f"drops or renames {', '.join(lost)}: {'; '.join(_WANTED[name] for name in lost)}"
        yield Finding(Level.WARNING, about, text, _SELECT_ALL)
    made = sorted(select.made.intersection({"clientId", "eventType", "timestamp", *_WANTED}))
    if made:
        what = (
            "the instants in the history are its own, not AWS's" if "timestamp" in made else "it is not AWS's"
        )
        yield Finding(Level.WARNING, about, f"writes its own {', '.join(made)}: {what}", _SELECT_ALL)


def _of_way(way: str, able: Sequence[_Reading], place: str | None, *, can_come_by_sns: bool) -> Finding:
    """Say whether connects and disconnects come somewhere; `place` None: anywhere."""
    about = f"events {way}"
    writing = [each for each in able if place is None or each.writes_to(place)]
    lacking = [name for name, topic in _HALVES.items() if not any(each.hears(topic) for each in writing)]
    if lacking:
        by_sns = [each.rule.name for each in able if "sns" in each.rule.others]
        if can_come_by_sns and by_sns and place is not None:
            text = f"no rule writes them there; {', '.join(by_sns)} writes to SNS, which is not looked into"
            return Finding(Level.WARNING, about, text, "see that the queue subscribes to that topic")
        text = f"no enabled rule delivers {' and '.join(lacking)}: the history has none"
        return Finding(Level.MISSING, about, text, "`thingline aws setup` makes queue and rules")
    if not all(any(each.hears(topic) for each in writing) for topic in _SLASHED):
        filters = ", ".join(sorted({each.select.topic_filter for each in writing}))
        text = f"of clients whose id holds a slash none come, for + in {filters} stands for one level"
        return Finding(Level.WARNING, about, text, "end the filter in #")
    return Finding(Level.OK, about, f"by {', '.join(each.rule.name for each in writing)}")


def _of_events(
    events: Mapping[str, bool] | Failure, rules: Sequence[Rule | Failure] | Failure
) -> Iterator[Finding]:
    about = "registry events"
    if isinstance(events, Failure):
        yield _unread(about, events, "iot:DescribeEventConfigurations")
        return
    off = [name for name in _REGISTRY if not events.get(name)]
    if off:
        text = f"{', '.join(off)} off: when things come, go and change group or type is not told"
        yield Finding(Level.WARNING, about, text, f"`{TURN_ON_EVENTS}`")
    if isinstance(rules, Failure):
        return
    filters = list(_filters(rules))
    unheard = [
        name
        for name, topic in _REGISTRY.items()
        if name not in off and not any(hears(one, topic) for one in filters)
    ]
    if unheard:
        text = f"{', '.join(unheard)} on, and no enabled rule reads them"
        yield Finding(Level.WARNING, about, text, "`thingline aws setup` has the rules")
    elif not off:
        yield Finding(Level.OK, about, "on, and rules read them")


def _filters(rules: Iterable[Rule | Failure]) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule, Rule) and not rule.is_disabled and (select := read_sql(rule.sql)) is not None:
            yield select.topic_filter


def _place(url: str) -> str:
    """Give the account and name of a queue: its host is written in several ways."""
    return "/".join(url.rstrip("/").split("/")[-2:])


def _short(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1]
