"""The judgement of an account: a table of accounts, each a whole one with one thing wrong, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingest.aws import Failure, Trouble
from ingest.doctor import Level, findings
from ingest.doctor_reads import Facts, Identity, Indexing, Queue, Rule, Stream
from ingest.rule_sql import hears, read_sql
from ingest.setup_template import KEPT_S, RULES

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/iot-events"
DENIED = Failure(Trouble.DENIED, "AccessDeniedException", "AccessDeniedException: not authorized")
GONE = Failure(Trouble.GONE, "QueueDoesNotExist", "QueueDoesNotExist: it does not exist")


def rule(name: str, sql: str, **more: Any) -> Rule:
    whole: dict[str, Any] = {
        "is_disabled": False,
        "queues": (URL,),
        "streams": ("events",),
        "others": (),
        "has_error_action": True,
    }
    return Rule(name=name, sql=sql, **(whole | more))


REGISTRY = [rule(name, sql) for name, sql in RULES.items() if name != "Presence"]
WHOLE = Facts(
    identity=Identity(arn="arn:aws:iam::123456789012:user/ann", region="eu-west-1"),
    indexing=Indexing(things="REGISTRY", connectivity="STATUS"),
    index="ACTIVE",
    events={"THING": True, "THING_TYPE_ASSOCIATION": True, "THING_GROUP_MEMBERSHIP": True, "JOB": False},
    rules=[rule("Presence", RULES["Presence"]), *REGISTRY],
    queues={URL: Queue(kept_s=KEPT_S, most_receives=100, waiting=3)},
    streams={"events": Stream(kept_h=168, status="ACTIVE", refused={})},
    checks={"iot:SearchIndex": None, "iot:GetThingConnectivityData": None},
)


def presence(*sqls: str, **more: Any) -> dict[str, Any]:
    """Give rules for lifecycle events in place of the whole account's one."""
    return {"rules": [*(rule(f"r{at}", sql, **more) for at, sql in enumerate(sqls)), *REGISTRY]}


def queue(**more: Any) -> dict[str, Any]:
    return {"queues": {URL: replace(WHOLE.queues[URL], **more)}}


ALL = RULES["Presence"]
BY_SNS = {"queues": (), "streams": (), "others": ("sns",)}
CASES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    # --- Indexing: what is changed; what is said, by level and text, the order being that of the page
    ({"indexing": Indexing(things="OFF", connectivity="OFF"), "index": GONE}, [("missing", "STATUS`")]),
    (
        {"indexing": Indexing(things="REGISTRY_AND_SHADOW", connectivity="OFF")},
        [("missing", "thingIndexingMode=REGISTRY_AND_SHADOW,thingConnectivityIndexingMode=STATUS")],
    ),
    ({"index": "BUILDING"}, [("warning", "until it is ACTIVE")]),
    ({"index": "REBUILDING"}, [("warning", "REBUILDING")]),
    ({"indexing": DENIED, "index": DENIED}, [("missing", "iot:GetIndexing"), ("missing", "iot:DescribeIndex")]),
    ({"index": Failure(Trouble.THROTTLED, "T", "T: slow down")}, [("missing", "again in a minute")]),
    ({"checks": {**WHOLE.checks, "iot:SearchIndex": DENIED}}, [("missing", "allow iot:SearchIndex")]),
    # --- Queues and streams
    (queue(kept_s=345_600), [("warning", "for 4 days")]),
    (queue(most_receives=5), [("warning", "after 5 receives")]),
    (queue(most_receives=None), []),
    ({"queues": {URL: GONE}}, [("missing", "is not there")]),
    ({"queues": {URL: DENIED}}, [("missing", "allow sqs:GetQueueAttributes")]),
    (
        {
            "queues": {f"{URL}.fifo": WHOLE.queues[URL]},
            **presence(ALL, queues=(f"{URL}.fifo",)),
        },
        [("missing", "FIFO")],
    ),
    ({"streams": {"events": Stream(kept_h=24, status="ACTIVE", refused={})}}, [("warning", "for 24 h")]),
    (
        {"streams": {"events": Stream(kept_h=168, status="ACTIVE", refused={"kinesis:GetRecords": DENIED})}},
        [("missing", "allow kinesis:GetRecords")],
    ),
    ({"streams": {"events": DENIED}}, [("missing", "allow kinesis:DescribeStreamSummary")]),
    # --- Rules: their way
    (presence(), [("missing", "connects and disconnects"), ("missing", "to stream events")]),
    (
        presence(ALL, is_disabled=True),
        [("warning", "enable-topic-rule --rule-name r0"), ("missing", "queue"), ("missing", "stream")],
    ),
    (presence(ALL, queues=()), [("missing", "to queue iot-events")]),
    (presence(ALL, streams=("other",)), [("missing", "to stream events")]),
    (presence(ALL, queues=(URL.replace("sqs.eu-west-1", "eu-west-1.queue"),)), []),
    ({**presence(ALL, **BY_SNS), "streams": {}}, [("warning", "subscribes")]),
    ({**presence(ALL, **BY_SNS), "queues": {}, "streams": {}}, []),
    ({**presence(), "queues": {}, "streams": {}}, [("missing", "to any queue or stream")]),
    (presence(ALL, has_error_action=False), [("warning", "no error action")]),
    ({"rules": DENIED}, [("missing", "allow iot:ListTopicRules")]),
    ({"rules": [*WHOLE.rules, DENIED]}, [("missing", "allow iot:GetTopicRule")]),  # type: ignore[misc]
    # --- Rules: their SQL
    (
        presence("SELECT * FROM '$aws/events/presence/+/+'"),
        [("warning", "queue iot-events: of clients whose id holds a slash"), ("warning", "end the filter in #")],
    ),
    (presence("SELECT * FROM '$aws/events/presence/+/+'", ALL), []),
    (presence("SELECT * FROM '$aws/events/#'"), []),
    (presence(ALL.replace("#", "connected/#"), ALL.replace("#", "disconnected/#")), []),
    (
        presence("SELECT * FROM '$aws/events/presence/connected/#'"),
        [("missing", "delivers disconnects"), ("missing", "delivers disconnects")],
    ),
    (presence("SELECT *, topic() AS topic, timestamp() AS rule_ts FROM '$aws/events/presence/#'"), []),
    (
        presence("SELECT *, timestamp() AS timestamp FROM '$aws/events/presence/#'"),
        [("warning", "writes its own timestamp: the instants")],
    ),
    (
        presence("SELECT clientId, eventType, timestamp, sessionIdentifier, thingName FROM '$aws/events/presence/#'"),
        [("warning", "renames versionNumber, disconnectReason: the order")],
    ),
    (
        presence(
            "select clientId as deviceId, eventType, timestamp as ts, sessionIdentifier, versionNumber,"
            " disconnectReason, thingName from '$aws/events/presence/#'"
        ),
        [("missing", "renames timestamp")],
    ),
    (
        presence("SELECT * FROM '$aws/events/presence/#' WHERE eventType = 'disconnected'"),
        [("warning", "has a condition")],
    ),
    (
        presence("SELECT * FROM a join b '$aws/events/presence/#'"),
        [("warning", "not understood"), ("missing", "queue"), ("missing", "stream")],
    ),
    # --- Registry events
    (
        {"events": {"THING": True}},
        [("warning", "THING_TYPE_ASSOCIATION, THING_GROUP_MEMBERSHIP off")],
    ),
    ({"rules": [WHOLE.rules[0]]}, [("warning", "THING_GROUP_MEMBERSHIP on, and no")]),  # type: ignore[index]
    ({"events": DENIED}, [("missing", "allow iot:DescribeEventConfigurations")]),
]  # fmt: skip


def told(facts: Facts, **more: Any) -> list[tuple[str, str]]:
    """Give what is not well, as text."""
    return [
        (each.level.value, f"{each.about}: {each.message}; {each.mend}")
        for each in findings(facts, **more)
        if each.level is not Level.OK
    ]


def test_of_a_whole_account_all_is_said_to_be_well() -> None:
    found = list(findings(WHOLE))
    assert {each.level for each in found} == {Level.OK}
    assert [each.mend for each in found] == [None] * len(found)
    about = [each.about for each in found]
    for place in ("fleet indexing", "index AWS_Things", "events to queue iot-events", "registry events"):
        assert place in about


@pytest.mark.parametrize(("change", "expected"), CASES)
def test_what_is_wrong_is_said_and_nothing_else(
    change: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = told(replace(WHOLE, **change))
    assert [level for level, _ in found] == [level for level, _ in expected], found
    for (_, text), (_, part) in zip(found, expected, strict=True):
        assert part in text


def test_who_takes_events_from_a_broker_needs_no_rule() -> None:
    bare = replace(WHOLE, queues={}, streams={}, rules=[], events={})
    assert told(bare, by_mqtt=True) == []
    assert told(bare)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_heard"),
    [
        ("$aws/events/presence/#", "$aws/events/presence/connected/a/b", True),
        ("$aws/events/presence/+/+", "$aws/events/presence/connected/a/b", False),
        ("$aws/events/presence/+/+", "$aws/events/presence/connected/a", True),
        ("$aws/events/presence/connected/a/#", "$aws/events/presence/connected/a", True),  # the parent too
        ("$aws/+/presence/#", "$aws/events/presence/connected/a", True),
        ("#", "$aws/events/presence/connected/a", False),
        ("+/events/#", "$aws/events/presence/connected/a", False),
        ("$aws/events/thing/#", "$aws/events/presence/connected/a", False),
    ],
)
def test_a_filter_hears_what_mqtt_says(topic_filter: str, topic: str, is_heard: bool) -> None:
    assert hears(topic_filter, topic) is is_heard


def test_commas_in_calls_and_quotes_part_no_members() -> None:
    said = read_sql(
        "SELECT concat(a, ',)', b) AS x, {'a': 1, 'b': [2, 3]} AS y, topic(3), clientId FROM 'a/#'"
    )
    assert said is not None
    assert (set(said.kept), set(said.made), said.is_whole) == ({"clientId"}, {"x", "y"}, False)
    assert read_sql("SELECT * FROM 'a' AS b WHERE b.c = 1") is not None
    assert read_sql("DELETE FROM 'a'") is None
