"""The reads of a fleet against a naive filter over the point answers, on random fleets, on both engines."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.forget import forget
from ingest.writer import Writer
from queries.documents import Document, described_json, listed_json, search_json
from queries.fleet import MOST_INSTANTS, Fleet, all_names, names_like
from queries.fleet_reads import FleetReads
from queries.history import History, open_history
from queries.search_match import Beginning
from queries.search_query import And, Not, Or, Phrase, Query, Range, Term, Wild
from store.engine import open_reader, open_writer, parse_url
from store.errors import AnswerError, IndexNotReady, InvalidRequest, ResourceNotFound
from store.model import HOUR_MS, Event, Learned, Observation, Watch
from tests.builders import T0, connect, disconnect
from tests.queries.test_search_query import obviously, unparse
from tests.strategies import history

BACK_MS = 550 * 24 * HOUR_MS
KEY = b"k" * 32
THINGS = [f"pump-{number}" for number in range(14)] + ["PUMP-3", "valve:1", "no legal name"]
NEVER_CONNECTED = ["spare-1", "spare-2"]
Lived = tuple[str, list[Learned], list[int], list[int]]  # URL, evidence, stamps, moments of learning


def registered(rng: random.Random, name: str, stamps: list[int]) -> Iterator[Observation]:
    """Tell of the registry: created, now and then changed, listed, deleted, created anew; or nothing."""
    thing_id = f"id-{rng.randrange(1 << 30)}"
    for at_ms in sorted(rng.sample(stamps, rng.randrange(4))):
        operation = rng.choice(("CREATED", "UPDATED", "UPDATED", "DELETED"))
        described = {
            "thingTypeName": rng.choice((None, "Boiler", "valve")),
            "attributes": {"site": rng.choice(("north", "South")), "fw": str(rng.randrange(5))},
        }
        body: dict[str, Any] = {"eventType": "THING_EVENT", "operation": operation, "timestamp": at_ms}
        body |= {"thingName": name, "thingId": thing_id} | described
        if rng.random() < 0.3:
            group = f"arn:aws:iot:eu-central-1:123456789012:thinggroup/{rng.choice('abc')}"
            body = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "operation": "ADDED", "timestamp": at_ms}
            body |= {"thingId": thing_id, "groupArn": group}
        elif operation == "DELETED":
            thing_id = f"id-{rng.randrange(1 << 30)}"
        yield Observation("registry", name, at_ms, json.dumps(body))
    if rng.random() < 0.3:
        at_ms = rng.choice(stamps)
        said = {"connected": rng.random() < 0.5, "timestamp": at_ms - 60_000}
        thing = {
            "thingName": name,
            "thingGroupNames": ["a", "x"],
            "attributes": {"site": "a:b"},
            "connectivity": said,
        }
        for asked_ms in (at_ms, at_ms + HOUR_MS):  # the second says what the first said
            body = {"api": "SearchIndex", "askedAt": asked_ms, "thingName": name, "response": thing}
            yield Observation("check", name, asked_ms, json.dumps(body))


@pytest.fixture(scope="module")
def lived(new_shared_url: Callable[[], str], shared_rng: random.Random) -> Lived:
    """Write a random fleet: watched half of the time; some things bound to another client, some heard of late."""
    url, rng = new_shared_url(), shared_rng
    events = [
        event._replace(
            at_ms=event.at_ms - BACK_MS,
            thing_name=f"boiler-{number}" if number % 5 == 0 and rng.random() < 0.5 else None,
        )
        for number, name in enumerate(THINGS)
        for event in history(rng, name).events
    ]
    stamps = sorted(event.at_ms for event in events)
    told = [
        one for name in (*THINGS[:-1], *NEVER_CONNECTED, "boiler-5") for one in registered(rng, name, stamps)
    ]
    watch = Watch("queue", stamps[0] - HOUR_MS, stamps[len(stamps) // 2])
    moments = sorted(rng.randrange(T0 - HOUR_MS, T0) for _ in (*events, *told, watch))
    evidence: list[Event | Observation | Watch] = [*events, *told]
    rng.shuffle(evidence)
    learned = [Learned(one, 0, known) for one, known in zip([watch, *evidence], moments, strict=True)]
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write(learned, source="test")
    return url, learned, stamps, [T0, moments[len(moments) // 2]]


def naively(opened: History, evidence: list[Learned], at_ms: int, known_at: int) -> list[Document]:
    """Describe every thing there was, from the point answers and what `thingline registry` tells."""
    known = [one.evidence for one in evidence if (one.known_at_ms or 0) <= known_at]
    events = [one for one in known if isinstance(one, Event)]
    borne = {one.thing_name for one in events if one.thing_name is not None}
    bound = {one.client_id for one in events if one.thing_name is not None}
    names = borne | {one.client_id for one in events} - bound
    for one in known:
        if isinstance(one, Observation):
            names |= {one.subject or ""} - (set() if one.kind == "registry" else bound)
    found: list[Document] = []
    for name in sorted(names - {"no legal name"}):
        try:
            lives = opened.registry(name, known_at=known_at)
        except ResourceNotFound:
            lives = None
        lifetime = None if lives is None else lives.lifetime(at_ms)
        said = None if lifetime is None else lifetime.described(at_ms)
        try:
            answer = opened.at(name, at_ms, known_at=known_at)
        except ResourceNotFound:
            if lives is None or not lives.is_registered(at_ms):
                continue
            answer = None
        document = Document(
            name,
            None if lifetime is None else lifetime.thing_id,
            *((None, (), ()) if said is None else (said.type_name, said.groups, said.attributes)),
        )
        if answer is not None and answer.connected is not None:
            reason = None if answer.connected else answer.disconnect_reason
            document = document._replace(
                connected=answer.connected, timestamp_ms=answer.timestamp_ms, reason=reason
            )
        found.append(document)
    return found


def drawn_query(rng: random.Random, documents: list[Document], depth: int = 2) -> Query:
    if depth and rng.random() < 0.7:
        parts = tuple(drawn_query(rng, documents, depth - 1) for _ in range(2))
        return rng.choice((And(parts), Or(parts), Not(parts[0])))
    one = rng.choice(documents)
    values: list[tuple[str, str]] = [("thingName", one.thing_name)]
    values += [("thingTypeName", one.type_name or "valve"), ("thingId", one.thing_id or "x")]
    values += [("thingGroupNames", group) for group in one.groups]
    values += [(f"attributes.{name}", value) for name, value in one.attributes]
    values += [("connectivity.connected", rng.choice(("true", "false")))]
    values += [("connectivity.disconnectReason", one.reason or "unknown")]
    field, value = rng.choice(values)
    value = value.lower()
    match rng.randrange(6):
        case 0:
            stamp = one.timestamp_ms or T0 - BACK_MS
            return Range("connectivity.timestamp", stamp, None, rng.random() < 0.5, True)
        case 1:
            return Term(field, (value[: rng.randrange(len(value)) + 1], Wild.ANY))
        case 2:
            return Range(field, value, None, True, True)
        case 3:
            return Phrase(field, (value,))
    return Term(field, (value,)) if rng.random() < 0.8 else Term(None, (value,))


def pages(
    ask: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """Give all things of a listing, and the number of its pages."""
    answer = ask(request)
    things, count = list(answer["things"]), 1
    while "nextToken" in answer:
        answer = ask({**request, "nextToken": answer["nextToken"]})
        things += answer["things"]
        count += 1
    return things, count


def test_a_search_finds_what_a_naive_filter_over_the_point_answers_finds(
    lived: Lived, rng: random.Random
) -> None:
    url, evidence, stamps, moments = lived
    found_some = 0
    with open_history(url, clock=lambda: T0) as opened:
        reads = FleetReads(KEY, fleet=Fleet(most=rng.choice((3, 40, 1000))))
        for known_at in moments:
            for at_ms in (rng.choice(stamps), stamps[-1], rng.choice(stamps) + 1):
                documents = naively(opened, evidence, at_ms, known_at)
                for _ in range(12):
                    query = drawn_query(rng, documents)
                    expected = [search_json(one) for one in documents if obviously(query, one)]
                    most = rng.choice((1, 3, 100))
                    request = {"queryString": unparse(query), "maxResults": most}
                    things, count = pages(
                        lambda asked: reads.search_index(opened, at_ms, known_at, asked),  # noqa: B023
                        request,
                    )
                    assert things == expected, request
                    assert count == max(1, -(-len(expected) // most))
                    found_some += bool(expected)
                    told = reads.get_statistics(opened, at_ms, known_at, request)
                    assert told == {"statistics": {"count": len(expected)}}
    assert found_some > 10


def test_a_query_of_one_name_finds_the_things_of_that_name_in_any_case(lived: Lived) -> None:
    url, evidence, stamps, moments = lived
    with open_history(url, clock=lambda: T0) as opened:
        reads, at_ms = FleetReads(KEY), stamps[-1]
        expected = {known_at: naively(opened, evidence, at_ms, known_at) for known_at in moments}
        for name in {*THINGS[:-1], *NEVER_CONNECTED, "Boiler-0", "boiler-5", "pump-3", "nobody"}:
            for known_at in moments:  # one after the other: what was known then is not what is known now
                request = {"queryString": f'thingName:"{name}"'}
                told = reads.search_index(opened, at_ms, known_at, request)["things"]
                like = [one for one in expected[known_at] if one.thing_name.lower() == name.lower()]
                assert told == [search_json(one) for one in like]


def test_names_that_begin_in_a_way_are_those_of_all_names_that_do(lived: Lived, rng: random.Random) -> None:
    url, _, _, moments = lived
    with open_history(url, clock=lambda: T0) as opened:
        for known_at in moments:
            with opened.reading(known_at) as reading:
                names = all_names(reading.asker, reading.known_at)
                drawn = {name[: rng.randrange(1, len(name) + 1)].lower() for name in names}
                for text in {*drawn, *(name.lower() for name in names), "pump-", "nobody", "é", "no legal"}:
                    for begins in (Beginning(text, False), Beginning(text, True)):
                        like = [name for name in names if fits(name.lower(), begins)]
                        assert names_like(reading.asker, begins, reading.known_at) == like, begins


def fits(name: str, begins: Beginning) -> bool:
    return name == begins.text if begins.is_whole else name.startswith(begins.text)


def test_a_name_costs_the_same_in_any_fleet(sqlite_store_url: str) -> None:
    """The names of the fleet are not read through for it: what is asked for is sought by an index."""
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        known = [connect(T0 - HOUR_MS, client_id=f"Pump-{number}") for number in range(30)]
        writer.write([Learned(one, 0) for one in known], source="test")
    asked: list[str] = []
    with open_history(sqlite_store_url, clock=lambda: T0) as opened:
        with opened.reading() as reading:
            reading.asker._driver.set_trace_callback(asked.append)
        for query, count in (("thingName:pump-17", 1), ("thingName:pump-1* connectivity.connected:true", 11)):
            found = FleetReads(KEY).search_index(opened, T0, None, {"queryString": query})["things"]
            assert len(found) == count
    with open_reader(parse_url(sqlite_store_url)) as store, store.detached() as driver:
        for statement in (each for each in asked if "SELECT" in each and "LIMIT 1" not in each):
            steps = [step for *_, step in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
            read_through = [step for step in steps if step.startswith(("SCAN c", "SCAN t", "SCAN o"))]
            assert read_through == [], statement


def test_things_are_listed_and_described_as_they_were_registered(lived: Lived, rng: random.Random) -> None:
    url, evidence, stamps, moments = lived
    with open_history(url, clock=lambda: T0) as opened:
        reads = FleetReads(KEY)
        for known_at in moments:
            at_ms = rng.choice(stamps)
            documents = {one.thing_name: one for one in naively(opened, evidence, at_ms, known_at)}
            filters: list[tuple[dict[str, Any], Callable[[Document], bool]]] = [
                ({}, lambda one: True),
                ({"thingTypeName": "valve"}, lambda one: one.type_name == "valve"),
                (
                    {"attributeName": "site", "attributeValue": "South"},
                    lambda one: dict(one.attributes).get("site") == "South",
                ),
                (
                    {"attributeName": "site", "attributeValue": "S", "usePrefixAttributeValue": "true"},
                    lambda one: dict(one.attributes).get("site", "").startswith("S"),
                ),
            ]
            for request, wanted in filters:
                things, _ = pages(
                    lambda asked: reads.list_things(opened, at_ms, known_at, asked),  # noqa: B023
                    {**request, "maxResults": "4"},
                )
                assert things == [listed_json(one) for one in documents.values() if wanted(one)]
            for name in (*THINGS[:-1], *NEVER_CONNECTED, "nobody"):
                try:
                    told = reads.describe_thing(opened, at_ms, known_at, {"thingName": name})
                except ResourceNotFound:
                    assert name not in documents
                else:  # a client that speaks for another thing is not listed, and answered when asked for
                    assert name not in documents or told == described_json(documents[name])
            counted = Counter(one.type_name for one in documents.values() if one.type_name is not None)
            request = {"queryString": "*", "aggregationField": "registry.thingTypeName"}
            assert reads.get_cardinality(opened, at_ms, known_at, request) == {"cardinality": len(counted)}
            kind = {"bucketsAggregationType": {"termsAggregation": {"maxBuckets": 10}}}
            told = reads.get_buckets_aggregation(opened, at_ms, known_at, request | kind)
            assert told["totalCount"] == len(documents)
            assert {one["keyValue"]: one["count"] for one in told["buckets"]} == counted


def test_a_listing_is_of_one_state_while_the_store_grows(store_url: str) -> None:
    now = [T0]
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: now[0]) as writer:
        known = [connect(T0 - HOUR_MS + number, client_id=f"pump-{number}") for number in range(7)]
        writer.write([Learned(one, 0) for one in known], source="test")
        with open_history(store_url, clock=lambda: now[0]) as opened:
            reads = FleetReads(KEY)
            request: dict[str, Any] = {"queryString": "connectivity.connected:true", "maxResults": 2}
            answer = reads.search_index(opened, now[0], None, request)
            names = [one["thingName"] for one in answer["things"]]
            while "nextToken" in answer:
                now[0] += 1000  # somebody asks for "now" again, and much has happened
                gone = disconnect(T0 - 1, client_id=f"pump-{len(names)}")
                new = connect(T0 - 2, client_id=f"pump-{len(names)}-{now[0]}")
                writer.write([Learned(gone, 0), Learned(new, 0)], source="test")
                answer = reads.search_index(
                    opened, now[0], None, {**request, "nextToken": answer["nextToken"]}
                )
                names += [one["thingName"] for one in answer["things"]]
            assert names == [f"pump-{number}" for number in range(7)]
            anew = reads.search_index(opened, now[0], None, request | {"maxResults": 100})["things"]
            assert [one["thingName"] for one in anew] != names
            with pytest.raises(AnswerError):
                reads.search_index(opened, now[0] + 1, None, request)


def test_what_is_remembered_is_bounded_by_things_and_by_instants(three: History) -> None:
    fleet = Fleet(most=50)
    reads = FleetReads(KEY, fleet=fleet)
    for number in range(200):
        reads.search_index(three, T0 - number, None, {"queryString": "NOT thingName:pump-1"})
        reads.search_index(three, T0 - number, None, {"queryString": "thingName:pump-1"})
        assert 0 < fleet.remembered <= 50
    few = Fleet()
    for number in range(200):
        FleetReads(KEY, fleet=few).search_index(
            three, T0 - number, None, {"queryString": "thingName:pump-1*"}
        )
    assert few.remembered == MOST_INSTANTS


def test_a_thing_that_is_forgotten_is_not_remembered(store_url: str) -> None:
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        known = [connect(T0 - HOUR_MS, client_id=name) for name in ("pump-1", "pump-2")]
        writer.write([Learned(one, 0) for one in known], source="test")
    fleet = Fleet()
    with open_history(store_url, clock=lambda: T0) as opened:
        request = {"queryString": "connectivity.connected:true"}
        assert len(FleetReads(KEY, fleet=fleet).search_index(opened, T0, T0, request)["things"]) == 2
        with open_writer(parse_url(store_url)) as store:
            forget(store, "pump-1", realm="default")
        told = FleetReads(KEY, fleet=fleet).search_index(opened, T0, T0, request)["things"]
        assert "pump-1" not in [one["thingName"] for one in told]
        assert "pump-2" in [one["thingName"] for one in told]
        assert fleet.holds("pump-1") is False
        assert fleet.holds("pump-2") is True


@pytest.fixture
def three(sqlite_store_url: str) -> Iterator[History]:
    """Open a store that knows three things connected, the first of them since four hours."""
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        known = [connect(T0 - (5 - number) * HOUR_MS, client_id=f"pump-{number}") for number in (1, 2, 3)]
        writer.write([Learned(one, 0) for one in known], source="test")
    with open_history(sqlite_store_url, clock=lambda: T0) as opened:
        yield opened


def test_the_registry_is_read_of_those_things_alone_that_a_connection_leaves_over(
    sqlite_store_url: str,
) -> None:
    """Reading it is most of what the first query of an instant costs."""
    names = [f"pump-{number}" for number in range(9)]
    created = {"eventType": "THING_EVENT", "operation": "CREATED", "timestamp": T0 - 2 * HOUR_MS}
    told: list[Event | Observation] = [connect(T0 - HOUR_MS, client_id=name) for name in names]
    told += [Observation("registry", name, T0 - 2 * HOUR_MS, json.dumps(created)) for name in names]
    told.append(disconnect(T0 - 1, client_id="pump-7"))
    with open_writer(parse_url(sqlite_store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        writer.write([Learned(one, 0) for one in told], source="test")
    asked: list[str] = []
    with open_history(sqlite_store_url, clock=lambda: T0) as opened:
        with opened.reading() as reading:
            reading.asker._driver.set_trace_callback(asked.append)
        down = {"queryString": "connectivity.connected:false"}
        found = FleetReads(KEY).search_index(opened, T0, None, down)["things"]
    assert [one["thingName"] for one in found] == ["pump-7"]
    of_registry = [one for one in asked if "o.subject = " in one]
    assert of_registry
    assert all("'pump-7'" in one for one in of_registry)


def test_a_token_goes_on_with_its_own_question_only(three: History) -> None:
    reads, other = FleetReads(KEY), FleetReads(b"another")
    request = {"queryString": "*", "maxResults": 1}
    token = reads.search_index(three, T0, None, request)["nextToken"]
    going_on = request | {"nextToken": token}
    (second,) = reads.search_index(three, T0, None, going_on)["things"]
    assert second["thingName"] == "pump-2"
    assert len(reads.search_index(three, T0, None, going_on | {"maxResults": 100})["things"]) == 2
    tampered = f"{token[:-6]}{'B' if token[-6] == 'A' else 'A'}{token[-5:]}"
    questions: list[Callable[[], object]] = [
        lambda: reads.search_index(three, T0, None, going_on | {"queryString": "thingName:*"}),
        lambda: reads.search_index(three, T0 - HOUR_MS, None, going_on),
        lambda: reads.search_index(three, T0, T0 - HOUR_MS, going_on),
        lambda: reads.list_things(three, T0, None, {"nextToken": token}),
        lambda: other.search_index(three, T0, None, going_on),
        lambda: reads.search_index(three, T0, None, going_on | {"nextToken": tampered}),
        lambda: reads.search_index(three, T0, None, going_on | {"nextToken": "é"}),
        lambda: reads.search_index(three, T0, None, going_on | {"nextToken": "A" * 3000}),
        lambda: reads.search_index(three, T0, None, going_on | {"nextToken": token[:20]}),
    ]
    for refused in questions:
        with pytest.raises(InvalidRequest, match="nextToken"):
            refused()


REFUSED = [
    ("search_index", {}, "InvalidRequestException", "queryString is missing"),
    ("search_index", {"queryString": ""}, "InvalidRequestException", "queryString is missing"),
    ("search_index", {"queryString": 5}, "InvalidRequestException", "is a text"),
    ("search_index", {"queryString": "a~"}, "InvalidQueryException", "fuzzy"),
    ("search_index", {"queryString": "shadow.reported.x:1"}, "InvalidQueryException", "not supported"),
    ("search_index", {"queryString": "*", "maxResults": 101}, "InvalidRequestException", "from 1 to 100"),
    ("search_index", {"queryString": "*", "maxResults": 0}, "InvalidRequestException", "from 1 to 100"),
    ("search_index", {"queryString": "*", "maxResults": True}, "InvalidRequestException", "from 1 to 100"),
    ("search_index", {"queryString": "*", "queryVersion": "2020"}, "InvalidRequestException", "2017-09-30"),
    (
        "search_index",
        {"queryString": "*", "indexName": "AWS_ThingGroups"},
        "ResourceNotFoundException",
        "does not exist",
    ),
    ("list_things", {"maxResults": "251"}, "InvalidRequestException", "from 1 to 250"),
    ("list_things", {"maxResults": "²"}, "InvalidRequestException", "from 1 to 250"),
    ("list_things", {"attributeName": "a"}, "InvalidRequestException", "go together"),
    ("list_things", {"usePrefixAttributeValue": "maybe"}, "InvalidRequestException", "true or false"),
    ("describe_thing", {"thingName": "a/b"}, "InvalidRequestException", "thingName"),
    ("describe_thing", {"thingName": "nobody"}, "ResourceNotFoundException", "nobody"),
    ("describe_index", {"indexName": "x"}, "ResourceNotFoundException", "AWS_Things"),
    (
        "get_statistics",
        {"queryString": "*", "aggregationField": "shadow.x"},
        "InvalidAggregationException",
        "no",
    ),
    ("get_cardinality", {"queryString": "*"}, "InvalidAggregationException", "aggregationField is missing"),
    (
        "get_percentiles",
        {"queryString": "*", "aggregationField": "thingName"},
        "InvalidAggregationException",
        "no number",
    ),
    (
        "get_percentiles",
        {"queryString": "*", "aggregationField": "attributes.a", "percents": [101]},
        "InvalidRequestException",
        "0 to 100",
    ),
    (
        "get_buckets_aggregation",
        {"queryString": "*", "aggregationField": "thingName", "bucketsAggregationType": {}},
        "InvalidRequestException",
        "termsAggregation",
    ),
]


@pytest.mark.parametrize(("operation", "request_", "name", "why"), REFUSED)
def test_what_cannot_be_asked_is_refused_as_aws_does(
    three: History, operation: str, request_: dict[str, Any], name: str, why: str
) -> None:
    with pytest.raises(AnswerError, match=why) as refused:
        getattr(FleetReads(KEY), operation)(three, T0, None, request_)
    assert refused.value.aws_name == name


def test_instants_that_nothing_can_be_said_of_are_refused(three: History) -> None:
    reads = FleetReads(KEY)
    request: dict[str, Any] = {
        "queryString": "*",
        "aggregationField": "thingName",
        "thingName": "pump-1",
        "indexName": "AWS_Things",
    }
    request["bucketsAggregationType"] = {"termsAggregation": {}}
    operations = (reads.search_index, reads.list_things, reads.describe_thing, reads.describe_index)
    for ask in (*operations, reads.get_statistics, reads.get_cardinality, reads.get_buckets_aggregation):
        with pytest.raises(IndexNotReady):
            ask(three, T0 - 10 * HOUR_MS, None, request)
        with pytest.raises(InvalidRequest, match="future"):
            ask(three, T0 + 1, None, request)
        assert ask(three, T0 - HOUR_MS, None, request)


def test_what_was_learned_since_is_not_in_it(three: History) -> None:
    told = FleetReads(KEY).search_index(three, T0 - 3 * HOUR_MS, None, {"queryString": "*"})
    assert [one["thingName"] for one in told["things"]] == ["pump-1", "pump-2"]
