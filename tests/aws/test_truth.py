"""A simulated fleet, through each kind of source and with checks beside it, is known as it truly was."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from ingest.simulate import Choices, simulate
from queries.history import open_history
from store.errors import ResourceNotFound
from tests.aws.iot_fake import LIST_THINGS, IotFake, truth_of
from tests.aws.iot_fake import State as Account
from tests.aws.kinesis_fake import Stream, serving_streams
from tests.aws.mqtt_broker import Broker
from tests.aws.s3_fake import Bucket, serving_buckets
from tests.aws.sqs_fake import Queue, serving_queues
from tests.aws.test_kinesis import has_stored
from tests.aws.test_mqtt import shuffled
from tests.aws.test_run import end, expected, stored, until, watches
from tests.aws.test_s3 import firehose
from tests.contents import connected
from tests.processes import start

DAY_MS = 86_400_000


class Feed(NamedTuple):
    """What leads `thingline run` to a source, and what is still to be done once it listens there."""

    arguments: list[str]
    environment: Mapping[str, str] = {}
    publish: Callable[[], object] = lambda: None


Feeding = Callable[[list[str], random.Random, Path], Any]  # a context that gives a Feed; doubles and reorders


@contextmanager
def by_queue(bodies: list[str], rng: random.Random, folder: Path) -> Iterator[Feed]:
    with serving_queues() as fake:
        fake.queues["events"] = queue = Queue(rng, doubled=0.05)
        queue.fill(bodies)
        yield Feed(["--sqs", fake.queue_url("events")], fake.environment)


@contextmanager
def by_stream(bodies: list[str], rng: random.Random, folder: Path) -> Iterator[Feed]:
    (folder / "stream.toml").write_text('[[kinesis]]\nstream = "events"\nstart = "horizon"\n')
    with serving_streams() as fake:
        fake.streams["events"] = stream = Stream(rng, 3)
        stream.put(shuffled(bodies, rng))
        yield Feed(["--config", str(folder / "stream.toml")], fake.environment)


@contextmanager
def by_bucket(bodies: list[str], rng: random.Random, folder: Path) -> Iterator[Feed]:
    with serving_buckets() as fake:
        fake.buckets["lake"] = bucket = Bucket()
        for key, content in firehose(bodies, rng, each=50).items():
            bucket.put(key, content)
        yield Feed(["--s3", "s3://lake/iot/"], fake.environment)


@contextmanager
def by_broker(bodies: list[str], rng: random.Random, folder: Path) -> Iterator[Feed]:
    broker = Broker("iotcore", folder)
    try:
        yield Feed(["--mqtt", broker.url()], publish=lambda: broker.publish(shuffled(bodies, rng)))
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("feeding", "store_url"),
    [(by_queue, "postgresql"), (by_stream, "sqlite"), (by_bucket, "postgresql"), (by_broker, "sqlite")],
    indirect=["store_url"],
)
def test_events_and_checks_together_are_the_truth(
    feeding: Feeding, iot: IotFake, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    """Events were lost, doubled and reordered: what AWS says when it is asked puts the store right."""
    now_ms = int(time.time() * 1000)
    simulated = simulate(
        Choices(things=80, days=0.5, loss=0.1, start_ms=now_ms - DAY_MS // 2, check_minutes=0)
    )
    things, truth = truth_of(simulated.truth())
    iot.state = Account(things=things, truth=truth)
    bodies = [json.dumps(line["event"]) for line in map(json.loads, simulated.lines()) if "event" in line]
    alone = f"sqlite:///{tmp_path / 'alone.db'}"
    expected(alone, bodies, tmp_path)
    with feeding(bodies, rng, tmp_path) as feed:
        environment = {**os.environ, **iot.environment, **feed.environment}
        process = start("run", *feed.arguments, "--store", store_url, "--check-every", "1h", env=environment)
        until(lambda: watches(store_url), "it listens", process=process)
        feed.publish()
        until(lambda: has_stored(store_url, stored(alone)), "all is in", process=process)
        until(lambda: iot.counts()["SearchIndex"] >= 1, "everything was asked about", process=process)
        asked_ms = int(time.time() * 1000)
        code, log = end(process)
    assert code == 0, log
    with connected(store_url) as connection:
        spent = connection.execute(sa.text("SELECT position FROM positions WHERE source = 'checks'"))
        asked = {api: calls for api, calls in iot.counts().items() if api != LIST_THINGS}
        assert json.loads(spent.scalar_one())["spent"] == asked
    found = {}
    with open_history(store_url) as history:
        for thing in things:
            answer = history.at(thing, asked_ms)
            found[thing] = answer.connected, answer.timestamp_ms, answer.disconnect_reason
    assert found == {thing: tuple(truth(thing, asked_ms)) for thing in things}
    with open_history(alone) as history:
        states = {thing: _state(history, thing, asked_ms) for thing in things}
    assert any(
        states[thing] is not truth(thing, asked_ms).connected for thing in things
    )  # events were not enough


def _state(history: Any, thing: str, at_ms: int) -> bool | None:
    try:
        return bool(history.at(thing, at_ms).connected)
    except ResourceNotFound:
        return None
