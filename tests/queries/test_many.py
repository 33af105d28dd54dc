"""Many questions at once beside the same asked one by one: the same answers, the same errors, the same order."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import thingline
from ingest.writer import Writer
from queries import history as history_module
from queries.history import History, Question, Reply
from queries.output import ReplyLines, json_line, reply_json
from store.answer import Answer
from store.engine import open_writer, parse_url
from store.errors import (
    AnswerError,
    BadTime,
    IndexNotReady,
    InvalidRequest,
    ResourceNotFound,
    ThinglineError,
)
from store.model import Event, Learned, Watch
from tests.builders import T0, connect, disconnect
from tests.strategies import history

BACK = 550 * 86_400_000  # stamps of the strategies may lie beyond today; so far back they are all past
CLIENTS = 25
MINUTE_MS = 60_000


def lives(rng: random.Random) -> list[Event]:
    """Give nasty histories: the first ten clients take turns at bearing the names of five things."""
    events = []
    for number in range(CLIENTS):
        for event in history(rng, f"client-{number}").events:
            borne = f"thing-{rng.choice((number, number + 1)) % 5}" if number < 10 else None
            events.append(event._replace(at_ms=event.at_ms - BACK, thing_name=borne))
    # One of them has far more rows than any question is worth reading.
    at_ms = T0 - BACK
    for version in range(400):
        for build in (connect, disconnect):
            at_ms += rng.randrange(1, 5 * MINUTE_MS)
            events.append(build(at_ms, session=f"long-{version}", version=version, client_id="long"))
    rng.shuffle(events)
    return events


@pytest.fixture(scope="module", params=["watched", "always"])
def lived(
    request: pytest.FixtureRequest, new_shared_url: Callable[[], str], shared_rng: random.Random
) -> tuple[str, list[int], list[int]]:
    """Give the URL of a store, instants worth asking about, and moments of learning."""
    url, rng = new_shared_url(), shared_rng
    events = lives(rng)
    stamps = sorted(event.at_ms for event in events)
    moments = sorted(rng.choices(range(stamps[-1], stamps[-1] + 50), k=len(events)))
    items = [Learned(event, 0, known) for event, known in zip(events, moments, strict=True)]
    if request.param == "watched":
        for known in (moments[0], moments[len(moments) // 2]):
            low, high = sorted(rng.sample(stamps, 2))
            items.append(Learned(Watch("sqs", low, high + 1), 0, known))
        items.sort(key=lambda item: item.known_at_ms or 0)
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        while items:
            writer.write(items[:100], source="test")
            del items[:100]
    instants = [stamp + step for stamp in stamps for step in (-1, 0, 1)]
    return url, instants, [moments[0] - 1, *moments]


def alone(opened: History, question: Question) -> tuple[object, ...]:
    """Ask one question by itself; gives its answer, or its error's kind and words."""
    try:
        return (opened.at(question.thing_name, question.at, known_at=question.known_at),)
    except BadTime as error:
        return InvalidRequest, str(error)
    except AnswerError as error:
        return type(error), str(error)


def told(reply: Reply) -> tuple[object, ...]:
    return (reply.answer,) if reply.error is None else (type(reply.error), str(reply.error))


def drawn(rng: random.Random, instants: list[int], moments: list[int], count: int) -> list[Question]:
    """Draw questions: few moments of learning, so that many meet at one thing and one moment."""
    names = [f"client-{number}" for number in range(CLIENTS)] + [f"thing-{number}" for number in range(5)]
    names += ["long", "long", "nope", "no name", "x" * 129]
    few = [None, None, None, moments[0], *rng.sample(moments, 3), moments[-1] + 10**9]
    future = datetime.now(UTC) + timedelta(days=9)
    odd: list[Any] = [
        future,
        "not a time",
        10**30,
        -(10**30),
        0,
        True,
        "1970-01-01T00:00:00Z",
        datetime(2026, 1, 1),
    ]
    near = rng.randrange(len(instants) - 60)
    found = []
    for _ in range(count):
        at = rng.choice(odd) if rng.random() < 0.03 else rng.choice(instants)
        if rng.random() < 0.2:  # many in a narrow window of a long life
            at = rng.choice(instants[near : near + 60])
        known = rng.choice(odd) if rng.random() < 0.01 else rng.choice(few)
        found.append(Question(rng.choice(names), at, known))
    return found


@pytest.mark.parametrize("batch", [7, 150, 100_000])
def test_many_questions_give_what_each_gives_alone(
    lived: tuple[str, list[int], list[int]],
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    url, instants, moments = lived
    monkeypatch.setattr(history_module, "BATCH", batch)
    questions = drawn(rng, instants, moments, 2_500)
    kinds = set()
    with thingline.open(url) as opened:
        rows = list(opened.transitions("long"))[300:310]
        window = range(rows[0].seen.at_ms, rows[-1].seen.at_ms, MINUTE_MS)
        questions += [Question("long", at_ms) for at_ms in window]
        replies = list(opened.ask(iter(questions)))
        assert len(replies) == len(questions)
        line = ReplyLines().line
        for question, reply in zip(questions, replies, strict=True):
            assert line(reply) == json_line(reply_json(reply))
            assert told(reply) == alone(opened, question), question
            assert reply.thing_name == question.thing_name
            if reply.answer is not None:
                assert (reply.at_ms, reply.known_at) == (reply.answer.at_ms, reply.answer.known_at)
                assert reply.at_ms == question.at
            kinds.add(type(reply.error))
    assert kinds == {type(None), InvalidRequest, ResourceNotFound, IndexNotReady}


def test_what_was_told_while_two_writers_wrote_is_told_again_as_known_then(
    postgres_store_url: str, rng: random.Random
) -> None:
    """A watermark that was seen hides nothing that was committed below it later, however the writers race."""
    url = parse_url(postgres_store_url)
    clients = [f"racer-{number}" for number in range(6)]
    with open_writer(url):
        pass
    done = threading.Event()
    told: list[Answer] = []

    def write(part: list[str], sessions: int) -> None:
        """Write many small batches, or few large ones, which take long to commit what they know since they began."""
        with open_writer(url) as store, Writer(store) as writer:
            for first in range(0, 120, sessions):
                batch = [
                    build(
                        T0 - BACK + version * 60_000 + later,
                        session=f"{client}-{version}",
                        version=version,
                        client_id=client,
                    )
                    for client in part
                    for version in range(first, first + sessions)
                    for build, later in ((connect, 0), (disconnect, 40_000))
                ]
                writer.write([Learned(each, 0) for each in batch], source="test")

    def ask(seed: int) -> None:
        random_source = random.Random(seed)
        with thingline.open(postgres_store_url) as history:
            while not done.is_set():
                at_ms = T0 - BACK + random_source.randrange(120 * 60_000)
                with contextlib.suppress(ResourceNotFound, IndexNotReady):
                    told.append(history.at(random_source.choice(clients), at_ms))

    writers = [
        threading.Thread(target=write, args=(clients[::2], 1)),
        threading.Thread(target=write, args=(clients[1::2], 20)),
    ]
    askers = [threading.Thread(target=ask, args=(rng.randrange(1 << 30),)) for _ in range(2)]
    for thread in (*writers, *askers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in askers:
        thread.join()
    moments = {answer.known_at for answer in told}
    assert len(moments) > 20
    with thingline.open(postgres_store_url) as history:
        asked = [Question(answer.client_id, answer.at_ms, answer.known_at) for answer in told]
        for answer, reply in zip(told, history.ask(asked), strict=True):
            assert reply.answer == answer


def test_the_store_s_history_begins_with_its_first_stamp_known_then(
    store_url: str, rng: random.Random
) -> None:
    """Most of what is oldest was learned last; and no answer depends on what was asked before it."""
    stamps = [T0 - BACK + MINUTE_MS * number for number in range(60)]
    known = [stamps[-1] + 1_000 + rng.randrange(40) for _ in stamps]
    events = [
        connect(at_ms, session=f"s{number}", version=0, client_id=f"c{number}")
        for number, at_ms in enumerate(stamps)
    ]
    items = sorted(zip(known, events, strict=True), key=lambda item: item[0])
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([Learned(event, 0, moment) for moment, event in items], source="test")
    asked = [
        (rng.choice(stamps) + rng.choice((-1, 0)), stamps[-1] + rng.randrange(990, 1_050)) for _ in range(600)
    ]
    with thingline.open(store_url) as opened:
        replies = opened.ask(Question("nope", at_ms, moment) for at_ms, moment in asked)
        for (at_ms, moment), reply in zip(asked, replies, strict=True):
            begun = any(
                stamp <= at_ms for stamp, learned in zip(stamps, known, strict=True) if learned <= moment
            )
            assert type(reply.error) is (ResourceNotFound if begun else IndexNotReady)
            assert told(reply) == alone(opened, Question("nope", at_ms, moment))


def test_an_opened_history_answers_what_was_learned_since(store_url: str) -> None:
    at_ms = T0 - BACK
    write(store_url, connect(at_ms, session="a", version=0, client_id="other"))
    with thingline.open(store_url) as opened:
        for name in ("pump-17", "truck"):
            assert alone(opened, Question(name, at_ms + 9))[0] is ResourceNotFound
            assert alone(opened, Question(name, at_ms - 1))[0] is IndexNotReady
        assert opened.at("other", at_ms + 9).certainty == "inferred"
        with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
            event = connect(at_ms - 5, session="b", version=0)._replace(thing_name="truck")
            writer.write([Learned(event, 0), Learned(Watch("sqs", at_ms - 9, at_ms + 5), 0)], source="test")
        for name in ("pump-17", "truck"):
            assert opened.at(name, at_ms - 1).connected is True
        assert opened.at("other", at_ms + 9).certainty == "unknown"
        assert alone(opened, Question("nope", at_ms - 9))[0] is ResourceNotFound


def test_lines_hold_hostile_names_as_json(store_url: str) -> None:
    """Two instants of one period: the second line is put together from the pieces of the first."""
    name = '"at":"{}\\ \u2028\x01'
    write(store_url, connect(T0 - BACK, session="a", version=0, client_id=name))
    line = ReplyLines().line
    with thingline.open(store_url) as opened:
        for at_ms in (T0 - BACK, T0 - BACK + 1, T0 - BACK + 2):
            answer = opened.at(name, at_ms, by_client=True)
            reply = Reply(answer.thing_name, at_ms, answer.known_at, answer, None)
            assert line(reply) == json_line(reply_json(reply))


def test_what_is_learned_between_two_batches_counts_in_the_second(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "BATCH", 5)
    at_ms = T0 - BACK
    write(store_url, connect(at_ms, session="a", version=0))
    questions = [
        Question("pump-17", at_ms + 10),
        Question("truck", at_ms + 10),
        *[Question("pump-17", at_ms)] * 3,
    ]
    with thingline.open(store_url) as opened:
        replies = opened.ask(questions * 2)
        first = [next(replies) for _ in range(5)]
        write(store_url, disconnect(at_ms + 5, session="a", version=0)._replace(thing_name="truck"))
        second = list(replies)
    assert [told(reply)[0] for reply in first[1:2]] == [ResourceNotFound]
    assert [reply.answer and reply.answer.connected for reply in first[:2]] == [True, None]
    assert [reply.answer and reply.answer.connected for reply in second[:2]] == [False, False]


def write(url: str, *events: Event) -> None:
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        writer.write([Learned(event, 0) for event in events], source="test")


# --- Times in Python ----------------------------------------------------------------------------------------

TOO_FAR = [10**30, -(10**30), 1 << 63, -(1 << 63) - 1, 253_402_300_800_000, -62_135_596_800_001]


@pytest.mark.parametrize("far", TOO_FAR)
def test_a_number_that_no_store_holds_is_no_valid_request(store_url: str, far: int) -> None:
    write(store_url, connect(T0 - BACK, session="a", version=0))
    refused = "is outside the years 1 to 9999; give epoch milliseconds within them."
    with thingline.open(store_url) as opened:
        for question in (
            lambda: opened.at("pump-17", far),
            lambda: opened.at("pump-17", T0 - BACK, known_at=far),
            lambda: list(opened.transitions("pump-17", from_=far)),
            lambda: list(opened.transitions("pump-17", to=far)),
            lambda: list(opened.periods("pump-17", known_at=far)),
            lambda: list(opened.all_periods(known_at=far)),
            lambda: opened.explain("pump-17", far),
        ):
            with pytest.raises(InvalidRequest) as raised:
                question()
            assert refused in str(raised.value)
        (reply,) = opened.ask([Question("pump-17", far)])
        assert isinstance(reply.error, InvalidRequest)
        assert refused in str(reply.error)


@pytest.mark.parametrize("edge", [253_402_300_799_999, -62_135_596_800_000])
def test_the_first_and_the_last_millisecond_can_be_asked_about(store_url: str, edge: int) -> None:
    write(store_url, connect(T0 - BACK, session="a", version=0))
    with thingline.open(store_url) as opened:
        with pytest.raises(InvalidRequest if edge > 0 else IndexNotReady):
            opened.at("pump-17", edge)
        window = {"to": edge} if edge > 0 else {"from_": edge}
        assert len(list(opened.periods("pump-17", **window))) == 1  # type: ignore[arg-type]


def test_a_datetime_is_read_to_the_millisecond(store_url: str) -> None:
    write(store_url, connect(T0 - BACK, session="a", version=0))
    zone = timezone(timedelta(hours=5, minutes=30))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with thingline.open(store_url) as opened:
        for milli in range(1_000):
            moment = begin + timedelta(milliseconds=milli)
            wanted = 1_767_225_600_000 + milli
            assert opened.milliseconds(moment) == opened.milliseconds(moment.astimezone(zone)) == wanted
        assert opened.milliseconds(datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)) == -1


@pytest.mark.parametrize("thing", [1.5, None, True, b"now", datetime(2026, 1, 1)])
def test_what_is_no_time_is_refused(store_url: str, thing: object) -> None:
    write(store_url, connect(T0 - BACK, session="a", version=0))
    with thingline.open(store_url) as opened, pytest.raises(ThinglineError) as raised:
        opened.milliseconds(thing)  # type: ignore[arg-type]
    assert isinstance(raised.value, BadTime)
