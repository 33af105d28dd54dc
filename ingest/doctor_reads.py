"""What `thingline aws doctor` reads of an account. It reads, and changes nothing.

A read that AWS refuses is a Failure in the place of what it would have given: that too is something to tell. An AWS
that does not answer, or credentials that do not work, end it, for then nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ingest.aws import Account, Failure, Trouble, errors, failure_of
from store.errors import SourceError

_T = TypeVar("_T")

# No thing is called so in earnest: that it is not found says that asking for it is allowed.
NO_THING = "thingline-doctor-asks-for-no-thing"
_ATTRIBUTES = ["MessageRetentionPeriod", "RedrivePolicy", "ApproximateNumberOfMessages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks, and where."""

    arn: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexing:
    """How fleet indexing is set."""

    things: str
    connectivity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A topic rule that may read AWS's own events."""

    name: str
    sql: str
    is_disabled: bool
    queues: tuple[str, ...]  # URLs that it writes to
    streams: tuple[str, ...]
    others: tuple[str, ...]  # AWS's names for the kinds of its other actions
    has_error_action: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What a queue keeps, and for how long."""

    kept_s: int
    most_receives: int | None  # before a message goes to a dead-letter queue; None: it never does
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What a stream keeps, and for how long."""

    kept_h: int
    status: str
    refused: Mapping[str, Failure]  # by permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read; a Failure where it could not be."""

    identity: Identity
    indexing: Indexing | Failure
    index: str | Failure  # its status
    events: Mapping[str, bool] | Failure
    rules: Sequence[Rule | Failure] | Failure  # one of them: its name is in the message
    queues: Mapping[str, Queue | Failure]  # by URL
    streams: Mapping[str, Stream | Failure]  # by name
    checks: Mapping[str, Failure | None]  # permissions that asking about things needs; None: it is there


def read_facts(account: Account, *, queues: Sequence[str] = (), streams: Sequence[str] = ()) -> Facts:
    """Read what there is to know. Raises SourceError where AWS does not answer or nobody is who asks."""
    sts = _client(account, "sts")
    who = _tried(sts.get_caller_identity, lambda said: str(said["Arn"]))
    if isinstance(who, Failure):
        raise SourceError(f"AWS does not say who asks: {who.message}.")
    iot = _client(account, "iot")
    return Facts(
        identity=Identity(arn=who, region=iot.meta.region_name),
        indexing=_tried(iot.get_indexing_configuration, _indexing),
        index=_tried(lambda: iot.describe_index(indexName="AWS_Things"), lambda said: said["indexStatus"]),
        events=_tried(iot.describe_event_configurations, _events),
        rules=_rules(iot),
        queues=_queues(account, queues),
        streams=_streams(account, streams),
        checks={
            "iot:SearchIndex": _denied(lambda: iot.search_index(queryString="*", maxResults=1)),
            "iot:ListThings": _denied(lambda: iot.list_things(maxResults=1)),
            "iot:GetThingConnectivityData": _denied(
                lambda: iot.get_thing_connectivity_data(thingName=NO_THING)
            ),
        },
    )


def _client(account: Account, service: str) -> Any:
    return account.client(service, read_s=15)


def _tried(ask: Callable[[], Any], read: Callable[[Any], _T]) -> _T | Failure:
    """Ask, and read the answer. Raises SourceError where AWS does not answer."""
    try:
        said = ask()
    except errors() as error:
        failure = failure_of(error)
        if failure.trouble in (Trouble.AWAY, Trouble.CREDENTIALS):
            raise SourceError(f"AWS gives no answer: {failure.message}.") from error
        return failure
    return read(said)


def _denied(ask: Callable[[], Any]) -> Failure | None:
    """Tell why a call is not allowed; None: it is, whatever else it said."""
    failure = _tried(ask, lambda said: None)
    return failure if failure is not None and failure.trouble is Trouble.DENIED else None


def _indexing(said: Any) -> Indexing:
    things = said.get("thingIndexingConfiguration", {})
    return Indexing(
        things=things.get("thingIndexingMode", "OFF"),
        connectivity=things.get("thingConnectivityIndexingMode", "OFF"),
    )


def _events(said: Any) -> Mapping[str, bool]:
    return {name: bool(each.get("Enabled")) for name, each in said.get("eventConfigurations", {}).items()}


def _rules(iot: Any) -> Sequence[Rule | Failure] | Failure:
    """Read the rules that may hear AWS's own topics; no others, for an account may have thousands."""
    pages = iot.get_paginator("list_topic_rules").paginate
    listed = _tried(lambda: [each for page in pages() for each in page.get("rules", ())], list)
    if isinstance(listed, Failure):
        return listed
    names = [each["ruleName"] for each in listed if each.get("topicPattern", "").startswith("$aws/")]
    return [_rule(iot, name) for name in names]


def _rule(iot: Any, name: str) -> Rule | Failure:
    found = _tried(lambda: iot.get_topic_rule(ruleName=name), lambda said: said["rule"])
    if isinstance(found, Failure):
        return Failure(found.trouble, found.code, f"{name}: {found.message}")
    actions = found.get("actions", [])
    return Rule(
        name=name,
        sql=found.get("sql", ""),
        is_disabled=bool(found.get("ruleDisabled")),
        queues=tuple(each["sqs"]["queueUrl"] for each in actions if "sqs" in each),
        streams=tuple(each["kinesis"]["streamName"] for each in actions if "kinesis" in each),
        others=tuple(kind for each in actions for kind in each if kind not in ("sqs", "kinesis")),
        has_error_action="errorAction" in found,
    )


def _queues(account: Account, urls: Sequence[str]) -> Mapping[str, Queue | Failure]:
    if not urls:
        return {}
    sqs = _client(account, "sqs")

    def read(url: str) -> Queue | Failure:
        return _tried(lambda: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=_ATTRIBUTES), _queue)

    return {url: read(url) for url in urls}


def _queue(said: Any) -> Queue:
    held = said["Attributes"]
    redrive = json.loads(held.get("RedrivePolicy", "{}"))
    most = redrive.get("maxReceiveCount")
    return Queue(
        kept_s=int(held["MessageRetentionPeriod"]),
        most_receives=None if most is None else int(most),
        waiting=int(held.get("ApproximateNumberOfMessages", 0)),
    )


def _streams(account: Account, names: Sequence[str]) -> Mapping[str, Stream | Failure]:
    if not names:
        return {}
    kinesis = _client(account, "kinesis")
    return {name: _stream(kinesis, name) for name in names}


def _stream(kinesis: Any, name: str) -> Stream | Failure:
    """Describe a stream, and try what reading it needs: from its newest record on, which takes nothing away."""
    found = _tried(
        lambda: kinesis.describe_stream_summary(StreamName=name),
        lambda said: said["StreamDescriptionSummary"],
    )
    if isinstance(found, Failure):
        return found
    refused: dict[str, Failure] = {}

    def tried(permission: str, ask: Callable[[], Any]) -> Any:
        said = _tried(ask, dict)
        if isinstance(said, Failure):
            refused[permission] = said
            return {}
        return said

    shards = tried("kinesis:ListShards", lambda: kinesis.list_shards(StreamName=name)).get("Shards", [])
    if shards:
        place = {"StreamName": name, "ShardId": shards[-1]["ShardId"], "ShardIteratorType": "LATEST"}
        iterator = tried("kinesis:GetShardIterator", lambda: kinesis.get_shard_iterator(**place))
        if iterator:
            first = iterator["ShardIterator"]
            tried("kinesis:GetRecords", lambda: kinesis.get_records(ShardIterator=first, Limit=1))
    return Stream(kept_h=found["RetentionPeriodHours"], status=found["StreamStatus"], refused=refused)
