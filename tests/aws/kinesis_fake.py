"""A stream of Kinesis, faked over real HTTP for real boto3: shards, iterators that expire, resharding."""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.aws.iot_fake import Fault
from tests.aws.json_fake import Failed, JsonFake

GONE = Fault(400, "ResourceNotFoundException", "Stream not found.")
EXPIRED_ITERATOR = Fault(400, "ExpiredIteratorException", "Iterator expired.")


@dataclass(slots=True)
class _Shard:
    name: str
    parent: str | None = None
    records: list[tuple[str, str, float]] = field(
        default_factory=list
    )  # sequence number, base64, arrival in s
    is_closed: bool = False


class Stream:
    """What a stream holds. Every method may be called by any thread."""

    def __init__(self, rng: random.Random, shards: int) -> None:
        self.rng = rng
        self.created_s = time.time() - 3_600
        self.shards = [_Shard(f"shardId-{number:012}") for number in range(shards)]
        self.kept_h = 24
        self.given = 0  # records, those that were given again included
        self._numbers = iter(range(10**55, 10**56))
        self._lock = threading.Lock()

    def put(self, bodies: Iterable[str]) -> None:
        """Add records, to any open shard."""
        with self._lock:
            open_shards = [shard for shard in self.shards if not shard.is_closed]
            for body in bodies:
                data = base64.b64encode(body.encode()).decode()
                self.rng.choice(open_shards).records.append((str(next(self._numbers)), data, time.time()))

    def split(self, shard: _Shard) -> None:
        """Close a shard, and begin two in its place."""
        with self._lock:
            shard.is_closed = True
            first = len(self.shards)
            self.shards += [_Shard(f"shardId-{first + at:012}", shard.name) for at in range(2)]

    def ends(self) -> dict[str, str]:
        """Give the position of who has read it all."""
        return {
            shard.name: "closed" if shard.is_closed else shard.records[-1][0]
            for shard in self.shards
            if shard.is_closed or shard.records
        }

    def has_given(self, count: int) -> bool:
        return self.given >= count


class KinesisFake(JsonFake):
    """The server, and its streams by name. An iterator is `STREAM/SHARD/INDEX`, good for a number of calls."""

    service, variable = "kinesis", "AWS_ENDPOINT_URL_KINESIS"

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.expire_every = 0  # every so many calls an iterator has expired
        super().__init__()

    def _stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise Failed(GONE)
        return self.streams[name]

    def DescribeStreamSummary(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["StreamName"]
        stream = self._stream(name)
        said = {
            "StreamName": name,
            "StreamARN": f"arn:aws:kinesis:eu-central-1:123456789012:stream/{name}",
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": stream.kept_h,
            "StreamCreationTimestamp": stream.created_s,
            "EnhancedMonitoring": [],
            "OpenShardCount": sum(not shard.is_closed for shard in stream.shards),
        }
        return {"StreamDescriptionSummary": said}

    def ListShards(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Two shards a page."""
        name, _, first = asked.get("NextToken", asked.get("StreamName", "")).partition("/")
        at = int(first or 0)
        shards = self._stream(name).shards
        said: dict[str, Any] = {"Shards": [_described(shard) for shard in shards[at : at + 2]]}
        if at + 2 < len(shards):
            said["NextToken"] = f"{name}/{at + 2}"
        return said

    def GetShardIterator(self, asked: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(asked["StreamName"])
        (shard,) = (each for each in stream.shards if each.name == asked["ShardId"])
        kind = asked["ShardIteratorType"]
        if kind == "TRIM_HORIZON":
            at = 0
        elif kind == "AT_TIMESTAMP":
            at = sum(record[2] < asked["Timestamp"] for record in shard.records)
        elif kind == "LATEST":
            at = len(shard.records)
        else:
            assert kind == "AFTER_SEQUENCE_NUMBER"
            at = sum(int(record[0]) <= int(asked["StartingSequenceNumber"]) for record in shard.records)
        return {"ShardIterator": f"{asked['StreamName']}/{shard.name}/{at}"}

    def GetRecords(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, part, first = asked["ShardIterator"].split("/")
        stream = self._stream(name)
        if self.expire_every and self.calls["GetRecords"] % self.expire_every == 0:
            raise Failed(EXPIRED_ITERATOR)
        (shard,) = (each for each in stream.shards if each.name == part)
        at = int(first)
        most = min(asked.get("Limit", 10_000), stream.rng.choice((1, 7, 50, 10_000)))
        found = shard.records[at : at + most]
        stream.given += len(found)
        at += len(found)
        said: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": number,
                    "Data": data,
                    "PartitionKey": "p",
                    "ApproximateArrivalTimestamp": arrival_s,
                }
                for number, data, arrival_s in found
            ],
            "MillisBehindLatest": 0,
        }
        if not (shard.is_closed and at == len(shard.records)):
            said["NextShardIterator"] = f"{name}/{part}/{at}"
        return said


def _described(shard: _Shard) -> dict[str, Any]:
    said: dict[str, Any] = {
        "ShardId": shard.name,
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
        "SequenceNumberRange": {"StartingSequenceNumber": "0"},
    }
    return said if shard.parent is None else {**said, "ParentShardId": shard.parent}


@contextmanager
def serving_streams() -> Iterator[KinesisFake]:
    """Serve, and hold every answer to the model at the end."""
    fake = KinesisFake()
    try:
        yield fake
    finally:
        fake.close()
    assert fake.unlike == []
