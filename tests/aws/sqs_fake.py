"""A queue of SQS, faked over real HTTP for real boto3: at least once, in no order, and as fast as a queue is.

moto's queue walks through all its messages at every call, so that it serves ten a second where 1,500 wait. Answers are
held to botocore's service model, as in iot_fake.py.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.aws.iot_fake import Fault
from tests.aws.json_fake import Failed, JsonFake

GONE = Fault(400, "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")


@dataclass(slots=True)
class _Message:
    body: str
    sent_ms: int
    number: int
    receipts: set[str] = field(default_factory=set)
    deleted: bool = False


class Queue:
    """What waits, what is in flight, and what became of it. Every method may be called by any thread."""

    def __init__(
        self, rng: random.Random, *, doubled: float = 0.0, haste: float = 1.0, created_ms: int | None = None
    ) -> None:
        self.rng = rng
        self.haste = haste  # what is hidden is shown again so many times sooner
        self.doubled = doubled  # share of messages that are given again though they were deleted
        self.created_ms = int(time.time() * 1000) if created_ms is None else created_ms
        self.received = self.deleted = 0
        self.attributes = {"MessageRetentionPeriod": "345600"}  # the others too, where a test sets them
        self._waiting: deque[_Message] = deque()
        self._in_flight: list[tuple[float, str, _Message]] = []  # a heap: hidden until, by which receipt
        self._by_receipt: dict[str, tuple[_Message, float]] = {}
        self._changed = threading.Condition()
        self._numbers = iter(range(1 << 62))

    def fill(self, bodies: Iterable[str], *, sent_ms: int | None = None) -> None:
        """Put messages in, without a call a message."""
        now_ms = int(time.time() * 1000) if sent_ms is None else sent_ms
        with self._changed:
            self._waiting.extend(_Message(body, now_ms, next(self._numbers)) for body in bodies)
            self._changed.notify_all()

    def has_given(self, count: int) -> bool:
        """Tell whether so many messages were received, those that were received again included."""
        return self.received >= count

    @property
    def left(self) -> int:
        """How many messages are neither deleted nor lost."""
        with self._changed:
            self._show_again()
            return len(self._waiting) + sum(not message.deleted for message, _ in self._by_receipt.values())

    def receive(self, most: int, wait_s: float, hidden_s: float) -> list[tuple[str, _Message]]:
        until_s = time.monotonic() + wait_s
        with self._changed:
            while True:
                self._show_again()
                if self._waiting or time.monotonic() >= until_s:
                    break
                self._changed.wait(min(0.2, max(0.0, until_s - time.monotonic())))
            taken: list[tuple[str, _Message]] = []
            while self._waiting and len(taken) < most:
                if self.rng.random() < 0.3:
                    self._waiting.rotate(self.rng.randrange(-20, 20))
                message = self._waiting.popleft()
                receipt = f"{message.number}.{uuid.uuid4().hex}"
                self._hide(receipt, message, hidden_s)
                taken.append((receipt, message))
            self.received += len(taken)
            return taken

    def delete(self, receipt: str) -> None:
        with self._changed:
            found = self._by_receipt.pop(receipt, None)
            if found is None or found[0].deleted:
                return
            if self.rng.random() < self.doubled:  # SQS may give again what was deleted
                self._waiting.append(_Message(found[0].body, found[0].sent_ms, next(self._numbers)))
            found[0].deleted = True
            self.deleted += 1

    def hide(self, receipt: str, hidden_s: float) -> None:
        with self._changed:
            found = self._by_receipt.get(receipt)
            if found is not None:
                self._hide(receipt, found[0], hidden_s)
                self._changed.notify_all()

    def _hide(self, receipt: str, message: _Message, hidden_s: float) -> None:
        until_s = time.monotonic() + hidden_s / self.haste
        self._by_receipt[receipt] = message, until_s
        heapq.heappush(self._in_flight, (until_s, receipt, message))

    def _show_again(self) -> None:
        now_s = time.monotonic()
        while self._in_flight and self._in_flight[0][0] <= now_s:
            until_s, receipt, message = heapq.heappop(self._in_flight)
            found = self._by_receipt.get(receipt)
            if found is not None and found[1] == until_s and not message.deleted:
                del self._by_receipt[receipt]
                self._waiting.append(message)


class SqsFake(JsonFake):
    """The server, and its queues by name."""

    service, variable = "sqs", "AWS_ENDPOINT_URL_SQS"

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        super().__init__()

    def queue_url(self, name: str) -> str:
        return f"{self.url}/123456789012/{name}"

    def _queue(self, asked: dict[str, Any]) -> Queue:
        queue = self.queues.get(asked["QueueUrl"].rsplit("/", 1)[-1])
        if queue is None:
            raise Failed(GONE)
        return queue

    def ReceiveMessage(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self._queue(asked).receive(
            asked.get("MaxNumberOfMessages", 1),
            asked.get("WaitTimeSeconds", 0),
            asked.get("VisibilityTimeout", 30),
        )
        messages = [
            {
                "MessageId": str(uuid.UUID(int=message.number)),
                "ReceiptHandle": receipt,
                "MD5OfBody": hashlib.md5(message.body.encode()).hexdigest(),
                "Body": message.body,
                "Attributes": {"SentTimestamp": str(message.sent_ms)},
            }
            for receipt, message in found
        ]
        return {"Messages": messages} if messages else {}

    def DeleteMessageBatch(self, asked: dict[str, Any]) -> dict[str, Any]:
        for entry in asked["Entries"]:
            self._queue(asked).delete(entry["ReceiptHandle"])
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}

    def ChangeMessageVisibilityBatch(self, asked: dict[str, Any]) -> dict[str, Any]:
        for entry in asked["Entries"]:
            self._queue(asked).hide(entry["ReceiptHandle"], entry["VisibilityTimeout"])
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}

    def GetQueueAttributes(self, asked: dict[str, Any]) -> dict[str, Any]:
        queue = self._queue(asked)
        held = {
            "CreatedTimestamp": str(queue.created_ms // 1000),
            "ApproximateNumberOfMessages": str(queue.left),
            **queue.attributes,
        }
        return {"Attributes": {name: held[name] for name in asked["AttributeNames"] if name in held}}


@contextmanager
def serving_queues() -> Iterator[SqsFake]:
    """Serve, and hold every answer to the model at the end."""
    fake = SqsFake()
    try:
        yield fake
    finally:
        fake.close()
    assert fake.unlike == []
