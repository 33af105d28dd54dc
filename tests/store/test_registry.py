"""When a thing was registered, and as what: each rule by a case, and random lives told in any order and in part."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ingest.writer import Writer
from queries.history import Question, open_history
from store.engine import open_writer, parse_url
from store.errors import IndexNotReady, ResourceNotFound
from store.model import LAG_MS, Learned, Observation
from store.registry import Description, Fact, Registry, fact_of, registry_of
from tests.builders import T0, connect

MINUTE = 60_000
ARN = "arn:aws:iot:eu-central-1:123456789012:"
Told = tuple[str, int, dict[str, Any]]  # kind, instant, body


def thing_event(operation: str, at_ms: int, thing_id: str | None = "id-1", **more: Any) -> Told:
    """A registry event about the thing `pump-17`."""
    body = {
        "eventType": "THING_EVENT",
        "operation": operation,
        "timestamp": at_ms,
        "thingName": "pump-17",
        "thingTypeName": None,
        "attributes": {},
    }
    return "registry", at_ms, body | ({} if thing_id is None else {"thingId": thing_id}) | more


def type_event(operation: str, at_ms: int, name: str) -> Told:
    body = {"eventType": "THING_TYPE_ASSOCIATION_EVENT", "operation": operation, "timestamp": at_ms}
    return "registry", at_ms, {**body, "thingId": "id-1", "thingName": "pump-17", "thingTypeName": name}


def group_event(operation: str, at_ms: int, group: str) -> Told:
    body = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "operation": operation, "timestamp": at_ms}
    arns = {"groupArn": f"{ARN}thinggroup/{group}", "thingArn": f"{ARN}thing/pump-17"}
    return "registry", at_ms, {**body, "thingId": "id-1", **arns}


def listed(at_ms: int, **thing: Any) -> Told:
    body = {"eventType": "THING_LISTING", "operation": "LISTED", "timestamp": at_ms, "thingName": "pump-17"}
    return "registry", at_ms, {**body, "thing": {"thingName": "pump-17", **thing}}


def not_listed(from_ms: int, to_ms: int) -> Told:
    body = {"eventType": "THING_LISTING", "operation": "NOT_LISTED", "timestamp": from_ms, "until": to_ms}
    return "registry", from_ms, {**body, "thingName": "pump-17"}


def not_found(at_ms: int, message: str = "") -> Told:
    error = {"Code": "ResourceNotFoundException", "Message": message}
    body = {"api": "GetThingConnectivityData", "askedAt": at_ms, "thingName": "pump-17", "error": error}
    return "check", at_ms, body


def indexed(at_ms: int, thing_id: str = "id-1", **thing: Any) -> Told:
    response = {"thingName": "pump-17", "thingId": thing_id, "connectivity": {"connected": False}, **thing}
    return "check", at_ms, {"api": "SearchIndex", "askedAt": at_ms, "response": response}


def facts(told: list[Told]) -> list[Fact]:
    found = [fact_of(kind, at_ms, json.dumps(body, sort_keys=True)) for kind, at_ms, body in told]
    return [fact for fact in found if fact is not None]


def spans(registry: Registry) -> list[tuple[int | None, int, int, int | None]]:
    return [(one.not_before_ms, one.from_ms, one.last_told_ms, one.to_ms) for one in registry.lifetimes]


class Case(NamedTuple):
    """What is told, and the lifetimes that follow: not before, from, last told, to; and since when it was not."""

    name: str
    told: list[Told]
    lifetimes: list[tuple[int | None, int, int, int | None]]
    absent_from_ms: int | None = None


CASES = [
    Case("nothing", [], []),
    Case("created", [thing_event("CREATED", 50)], [(50, 50, 50, None)], 10),
    Case(
        "created and deleted",
        [thing_event("CREATED", 50), thing_event("DELETED", 90)],
        [(50, 50, 90, 90)],
        10,
    ),
    Case(
        "recreated: another id",
        [
            thing_event("CREATED", 50),
            thing_event("DELETED", 90),
            thing_event("CREATED", 95, "id-2"),
            thing_event("UPDATED", 99, "id-2"),
        ],
        [(50, 50, 90, 90), (95, 95, 99, None)],
        10,
    ),
    Case(
        "the deletion was lost: another id ends it",
        [thing_event("CREATED", 50), thing_event("UPDATED", 60), thing_event("CREATED", 95, "id-2")],
        [(50, 50, 60, 95), (95, 95, 95, None)],
        10,
    ),
    Case(
        "deletion and creation were lost",
        [thing_event("CREATED", 50), thing_event("UPDATED", 95, "id-2")],
        [(50, 50, 50, 95), (50, 95, 95, None)],
        10,
    ),
    Case("the creation was lost", [thing_event("UPDATED", 50)], [(None, 50, 50, None)]),
    Case("only the deletion was told", [thing_event("DELETED", 50)], [(None, 50, 50, 50)]),
    Case(
        "told of after its end",
        [
            thing_event("CREATED", 50),
            thing_event("DELETED", 90),
            thing_event("UPDATED", 91),
            thing_event("DELETED", 92),
        ],
        [(50, 50, 90, 90)],
        10,
    ),
    Case(
        "an absence ends it, somewhere since it was told of",
        [listed(50), not_listed(90, 95)],
        [(None, 50, 50, 95)],
    ),
    Case(
        "an absence and a listing later",
        [not_listed(20, 25), listed(50)],
        [(20, 50, 50, None)],
        25,
    ),
    Case(
        "deleted while it was listed",
        [listed(50), not_listed(90, 95), thing_event("DELETED", 93)],
        [(None, 50, 93, 93)],
    ),
    Case(
        "created while the others were listed",
        [not_listed(90, 95), thing_event("CREATED", 93)],
        [(93, 93, 93, None)],
        10,
    ),
    Case(
        "an id that is told of again was there all the time",
        [indexed(20_050), not_found(60_000), indexed(90_000)],
        [(None, 20_050, 90_000 - LAG_MS, None)],
    ),
    Case(
        "an id that is told to end was there up to then",
        [indexed(20_050), not_found(60_000), thing_event("DELETED", 90_000)],
        [(None, 20_050, 90_000, 90_000)],
    ),
    Case(
        "an index that is behind a creation that nobody told of",
        [thing_event("UPDATED", 58_000), not_found(60_000)],
        [(None, 58_000, 58_000, None)],
    ),
    Case(
        "not found",
        [listed(20_050), not_found(60_000), listed(90_000)],
        [(None, 20_050, 20_050, 60_000), (60_000 - LAG_MS, 90_000, 90_000, None)],
    ),
    Case(
        "not found, but created within the lag of the index",
        [not_found(60_000), thing_event("CREATED", 60_000 - LAG_MS)],
        [(60_000 - LAG_MS, 60_000 - LAG_MS, 60_000 - LAG_MS, None)],
        10,
    ),
    Case(
        "found, but deleted within the lag of the index",
        [thing_event("CREATED", 20), thing_event("DELETED", 55_000), indexed(60_000, "id-1")],
        [(20, 20, 55_000, 55_000)],
        10,
    ),
    Case("never seen", [not_found(60_000), not_listed(70_000, 70_000)], [], 60_000),
    Case("the index is off", [not_found(60_000, "Index AWS_Things does not exist")], []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_rule(case: Case, rng: random.Random) -> None:
    told = case.told * 2
    rng.shuffle(told)
    registry = registry_of(facts(told), observed_from_ms=10)
    assert spans(registry) == case.lifetimes
    assert registry.absent_from_ms == case.absent_from_ms


def test_what_it_was_registered_as() -> None:
    told = [
        thing_event("CREATED", 100, attributes={"site": "north"}),
        type_event("ADDED", 200, "pump"),
        group_event("ADDED", 300, "plant-1"),
        group_event("ADDED", 310, "line:2"),
        group_event("REMOVED", 320, "plant-1"),
        thing_event("UPDATED", 400, thingTypeName="pump", attributes={"site": "south", "n": 4}),
        indexed(500_000, thingTypeName="pump", thingGroupNames=["b", "a"]),
        listed(600_000, thingTypeName="valve", attributes={"site": "west"}),
        type_event("REMOVED", 700_000, "valve"),
    ]
    (lifetime,) = registry_of(facts(told), observed_from_ms=100).lifetimes
    west = (("site", "west"),)
    assert lifetime.descriptions == (
        (100, Description(None, (), (("site", "north"),))),
        (200, Description("pump", (), (("site", "north"),))),
        (300, Description("pump", ("plant-1",), (("site", "north"),))),
        (310, Description("pump", ("line:2", "plant-1"), (("site", "north"),))),
        (320, Description("pump", ("line:2",), (("site", "north"),))),
        (400, Description("pump", ("line:2",), (("n", "4"), ("site", "south")))),
        (500_000, Description("pump", ("a", "b"), ())),
        (600_000, Description("valve", ("a", "b"), west)),
        (700_000, Description(None, ("a", "b"), west)),
    )
    assert lifetime.described(50) == lifetime.described(150) == lifetime.descriptions[0][1]
    assert lifetime.described(10**9) == lifetime.descriptions[-1][1]


NOTHING = (
    "",
    "[]",
    "{}",
    "nonsense",
    '{"eventType":"THING_EVENT"}',
    '{"eventType":"THING_LISTING","operation":"LISTED"}',
    '{"api":"SearchIndex","response":[]}',
    '{"api":"GetThingConnectivityData","error":"ThrottlingException"}',
)


@pytest.mark.parametrize("body", NOTHING)
@pytest.mark.parametrize("kind", ["registry", "check"])
def test_what_says_nothing_of_the_registry(kind: str, body: str) -> None:
    assert fact_of(kind, T0, body) is None


class Life(NamedTuple):
    thing_id: str
    from_ms: int
    to_ms: int | None


def lived(rng: random.Random) -> tuple[list[Life], list[Told]]:
    """Draw the true lifetimes of a name, and every event about them."""
    lives: list[Life] = []
    told: list[Told] = []
    at_ms = T0
    for number in range(rng.randrange(1, 5)):
        begin_ms = at_ms = at_ms + rng.choice([1, 5_000, 40_000, 10 * MINUTE])
        told.append(thing_event("CREATED", begin_ms, f"id-{number}"))
        for _ in range(rng.randrange(3)):
            at_ms += rng.choice([1, 3_000, 20 * MINUTE])
            told.append(thing_event("UPDATED", at_ms, f"id-{number}", attributes={"n": str(at_ms)}))
        at_ms += rng.choice([1, 7_000, 30 * MINUTE])
        lives.append(Life(f"id-{number}", begin_ms, at_ms))
        told.append(thing_event("DELETED", at_ms, f"id-{number}"))
    if rng.random() < 0.5:
        told.pop()
        lives[-1] = lives[-1]._replace(to_ms=None)
    return lives, told


def is_there(lives: list[Life], at_ms: int) -> bool:
    return any(one.from_ms <= at_ms and (one.to_ms is None or at_ms < one.to_ms) for one in lives)


def asked(rng: random.Random, lives: list[Life]) -> Iterator[Told]:
    """Ask about the name now and then; the index is up to its lag behind."""
    for _ in range(rng.randrange(6)):
        at_ms = T0 + rng.randrange(4 * 60 * MINUTE)
        seen_ms = at_ms - rng.randrange(LAG_MS)
        there = next((one for one in lives if is_there([one], seen_ms)), None)
        if there is None:
            yield not_found(at_ms)
        else:
            yield indexed(at_ms, there.thing_id)


def test_with_every_event_told_the_lifetimes_are_the_truth(rng: random.Random) -> None:
    for _ in range(500):
        lives, told = lived(rng)
        told += [*asked(rng, lives), *rng.choices(told, k=3)]
        rng.shuffle(told)
        registry = registry_of(facts(told), observed_from_ms=T0)
        assert [Life(str(one.thing_id), one.from_ms, one.to_ms) for one in registry.lifetimes] == lives
        assert all(one.not_before_ms == one.from_ms for one in registry.lifetimes)


def test_with_events_lost_what_is_told_is_true(rng: random.Random) -> None:
    """Any order makes the same lifetimes, and the bounds of each id's beginning and end hold the true instants."""
    for _ in range(1_000):
        lives, told = lived(rng)
        told = [each for each in told if rng.random() < 0.6] + list(asked(rng, lives))
        registry = registry_of(facts(told), observed_from_ms=T0)
        rng.shuffle(told)
        assert registry_of(facts(told), observed_from_ms=T0) == registry
        for one in registry.lifetimes:
            if one.thing_id is None or one.from_ms == one.to_ms:
                continue
            (truth,) = (life for life in lives if life.thing_id == one.thing_id)
            assert (one.not_before_ms or 0) <= truth.from_ms <= one.from_ms
            assert truth.to_ms is None or one.last_told_ms <= truth.to_ms + LAG_MS
            assert one.to_ms is None or (truth.to_ms is not None and truth.to_ms <= one.to_ms)


# --- In the store -------------------------------------------------------------------------------------------


def learned(told: Told, known_at: int) -> Learned:
    kind, at_ms, body = told
    return Learned(Observation(kind, "pump-17", at_ms, json.dumps(body, sort_keys=True)), 0, known_at)


def check(at_ms: int, known_at: int) -> Learned:
    response = {"thingName": "pump-17", "connected": True, "timestamp": (T0 + MINUTE) / 1000}
    body = {"api": "GetThingConnectivityData", "askedAt": at_ms, "response": response, "thingName": "pump-17"}
    return Learned(
        Observation("check", "pump-17", at_ms, json.dumps(body, sort_keys=True, separators=(",", ":"))),
        0,
        known_at,
    )


def test_no_thing_no_answer(store_url: str) -> None:
    """Created, connected, deleted, created again, as it became known."""
    connected = Learned(connect(T0 + MINUTE, client_id="pump-17"), 0, T0 + 2 * MINUTE)
    batches = [
        [connected],
        [learned(thing_event("CREATED", T0 + 30_000), T0 + 3 * MINUTE)],
        [learned(thing_event("DELETED", T0 + 60 * MINUTE), T0 + 61 * MINUTE)],
        [check(T0 + 90 * MINUTE, T0 + 91 * MINUTE)],
    ]
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        for batch in batches:
            writer.write(batch, source="test")
    cases = [
        # at, known at (minutes), answered
        (10, 2, True),
        (0.25, 2, IndexNotReady),
        (0.25, 3, IndexNotReady),
        (10, 3, True),
        (70, 60, True),
        (70, 61, ResourceNotFound),
        (59.99, 61, True),
        (60, 61, ResourceNotFound),
        (95, 91, True),
        (89, 91, ResourceNotFound),
    ]
    with open_history(store_url) as history:
        asked = [
            Question("pump-17", int(T0 + at * MINUTE), int(T0 + known * MINUTE)) for at, known, _ in cases
        ]
        replies = list(history.ask(asked * 3))
        for question, reply, (at, known, expected) in zip(asked, replies, cases, strict=False):
            said = True if reply.error is None else type(reply.error)
            assert said == expected, (at, known)
            if expected is True:
                assert history.at("pump-17", question.at, known_at=question.known_at) == reply.answer
            else:
                assert isinstance(expected, type)
                with pytest.raises(expected):
                    history.at("pump-17", question.at, known_at=question.known_at)
                if expected is ResourceNotFound:  # of the client something is known all the same
                    client = history.at("pump-17", question.at, known_at=question.known_at, by_client=True)
                    assert client.connected
        assert [reply.error is None for reply in replies] == [expected is True for *_, expected in cases] * 3


def test_another_realm_says_nothing_of_ours(store_url: str) -> None:
    with open_writer(parse_url(store_url)) as store:
        with Writer(store) as writer:
            writer.write([Learned(connect(T0, client_id="pump-17"), 0)], source="test")
        with Writer(store, realm="other") as writer:
            writer.write(
                [learned(thing_event("DELETED", T0 + 1), T0 + 2)._replace(known_at_ms=None)], source="test"
            )
    with open_history(store_url) as history:
        assert history.at("pump-17", T0 + 10).connected
