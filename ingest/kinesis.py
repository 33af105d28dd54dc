"""Events from a Kinesis stream that an AWS IoT rule writes to.

Owns the reading of shards: each by a thread of its own, from the position that was saved with the evidence before it.
Shards of one stream are shared out among the ingesters of a store (ingest/positions.py). After a resharding parents are
read to their end and children from their beginning, side by side: evidence needs no order.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

from ingest.aws import Account, errors, failure_of
from ingest.decode import decode_message
from ingest.inbox import Delivery, Inbox
from ingest.ledger import Watched
from ingest.positions import LEASE_MS, Leases, saved
from ingest.settings import HORIZON, LATEST
from ingest.standing import Standing
from ingest.tally import Tally
from store.clock import Clock, system_clock
from store.engine import Store
from store.errors import StoreError
from store.model import Learned, Rejected

log = logging.getLogger("thingline.kinesis")

RECORDS = 2_000  # a call; Kinesis gives 10,000 or 10 MiB at most
_EMPTY_S = 1.0  # between calls that bring nothing; a shard takes five a second
_BUSY_S = 0.2
_LIST_MS = 30_000  # from one look for shards to the next
_BEAT_MS = 10_000  # how often it is said that a shard records, where nothing comes
_CLOSED = "closed"  # position of a shard that was read to its end
_AT = re.compile(r"@([0-9]{1,15})")  # ... of one of which nothing was read yet: from that moment on


class KinesisSource:
    """Reads a stream. A Source. `start` is for a stream that was never read: HORIZON, LATEST, or epoch ms."""

    def __init__(
        self,
        stream: str,
        *,
        account: Account,
        tally: Tally,
        store: Store,
        start: str | int = LATEST,
        clock: Clock = system_clock,
    ) -> None:
        self.name = f"kinesis:{stream}"
        self._stream = stream
        self._client = account.client("kinesis", connections=50)
        self._tally = tally
        self._store = store
        self._leases = Leases(store, self.name, clock=clock)
        self._start = start
        self._clock = clock
        self._unbroken_ms: int | None = None
        self._standing = Standing(
            self.name,
            tally,
            what="stream",
            permissions="kinesis:DescribeStreamSummary, kinesis:ListShards, kinesis:GetShardIterator"
            " and kinesis:GetRecords",
        )
        self._ended: set[str] = set()  # shards read to their end, which the store may not know yet
        self._look = threading.Event()  # a shard came to its end: there may be others

    def check(self) -> None:
        """Ask for the stream. Raises SourceError where it is not there or not ours to read."""
        self._standing.first(self._describe)

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Read the shards that are ours until `stop` is set."""
        threads: dict[str, tuple[threading.Thread, threading.Event]] = {}
        shards: dict[str, dict[str, Any]] = {}
        listed_ms = failures = 0
        while not stop.is_set():
            try:
                if self._look.is_set() or self._clock() - listed_ms > _LIST_MS:
                    self._look.clear()
                    shards = {shard["ShardId"]: shard for shard in self._shards()}
                    listed_ms = self._clock()
                at = saved(self._store, self.name)
                closed = self._ended | {part for part, position in at.items() if position == _CLOSED}
                open_shards = [part for part in shards if part not in closed]
                held = self._leases.hold(open_shards)
            except errors() as error:
                self._standing.failed(failure_of(error), stop, failures)
                failures += 1
                continue
            except StoreError as error:  # the writer waits for it, and says so
                log.info("%s: the store does not answer: %s", self.name, error)
                stop.wait(_EMPTY_S)
                continue
            failures = 0
            for part in [part for part in threads if part not in held or not threads[part][0].is_alive()]:
                threads.pop(part)[1].set()
            for part in held - threads.keys():
                position = at.get(part) or self._first(shards[part], is_new_stream=not at)
                mine = threading.Event()
                thread = threading.Thread(
                    target=self._read_shard, args=(part, position, inbox, stop, mine), daemon=True
                )
                threads[part] = thread, mine
                thread.start()
            self._wait(stop)
        for thread, mine in threads.values():
            mine.set()
            thread.join()

    def end(self, *, within_s: float) -> None:
        """Give the shards to the others."""
        try:
            self._leases.release()
        except StoreError as error:
            log.info("%s: its shards are free in %d s: %s", self.name, LEASE_MS // 1000, error)

    def _wait(self, stop: threading.Event) -> None:
        """Wait until leases are to be renewed, a shard came to its end, or it is time to stop."""
        for _ in range(LEASE_MS // 4 // 200):
            if stop.is_set() or self._look.wait(0.2):
                return

    # --- The stream -----------------------------------------------------------------------------------------

    def _describe(self) -> None:
        said = self._client.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        created_ms = int(said["StreamCreationTimestamp"].timestamp() * 1000)
        kept_ms = self._clock() - 3_600_000 * int(said["RetentionPeriodHours"])
        self._unbroken_ms = max(created_ms, kept_ms)

    def _shards(self) -> Iterator[dict[str, Any]]:
        self._describe()
        asked: dict[str, Any] = {"StreamName": self._stream}
        while True:
            page = self._client.list_shards(**asked)
            yield from page["Shards"]
            if not page.get("NextToken"):
                return
            asked = {"NextToken": page["NextToken"]}

    def _first(self, shard: dict[str, Any], *, is_new_stream: bool) -> str:
        """Give the position from which a shard is read that was never read: children from their beginning."""
        if not is_new_stream or shard.get("ParentShardId") or self._start == HORIZON:
            return HORIZON
        return f"@{self._clock() if self._start == LATEST else self._start}"

    def _iterator(self, part: str, position: str) -> str:
        asked: dict[str, Any] = {"StreamName": self._stream, "ShardId": part}
        if position == HORIZON:
            asked["ShardIteratorType"] = "TRIM_HORIZON"
        elif match := _AT.fullmatch(position):
            asked |= {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": int(match[1]) / 1000}
        else:
            asked |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": position}
        iterator: str = self._client.get_shard_iterator(**asked)["ShardIterator"]
        return iterator

    # --- A shard --------------------------------------------------------------------------------------------

    def _read_shard(
        self, part: str, position: str, inbox: Inbox, stop: threading.Event, lost: threading.Event
    ) -> None:
        iterator: str | None = None
        failures, told_ms = 0, -_BEAT_MS
        while not (stop.is_set() or lost.is_set()):
            try:
                if iterator is None:
                    iterator = self._iterator(part, position)
                answer = self._client.get_records(ShardIterator=iterator, Limit=RECORDS)
            except errors() as error:
                failure = failure_of(error)
                iterator = None  # it may have expired: after five minutes, or with other credentials
                if failure.code != "ExpiredIteratorException":
                    self._standing.failed(failure, stop, failures)
                    failures += 1
                continue
            failures = 0
            self._standing.answered()
            records, iterator = answer["Records"], answer.get("NextShardIterator")
            is_closed = iterator is None
            if records:
                position = records[-1]["SequenceNumber"]
            now_ms = self._clock()
            if records or is_closed or now_ms - told_ms >= _BEAT_MS:
                told_ms = now_ms
                delivery = self._delivery(part, _CLOSED if is_closed else position, records, now_ms)
                if not inbox.put(delivery):
                    return
            if is_closed:
                self._ended.add(part)
                self._look.set()
                return
            stop.wait(_BUSY_S if records else _EMPTY_S)

    def _delivery(self, part: str, position: str, records: list[dict[str, Any]], now_ms: int) -> Delivery:
        items: list[Learned | Rejected] = []
        weight, since_ms = 0, now_ms
        for record in records:
            came = record.get("ApproximateArrivalTimestamp")
            came_ms = now_ms if came is None else int(came.timestamp() * 1000)
            since_ms = min(since_ms, came_ms)
            weight += len(record["Data"])
            items += decode_message(record["Data"], now=self._clock, position=came_ms)
        self._tally.received(self.name, len(records), weight, now_ms)
        return Delivery(
            self.name,
            items,
            weight,
            watched=Watched(since_ms, now_ms, self._unbroken_ms),
            position=(part, position),
        )
