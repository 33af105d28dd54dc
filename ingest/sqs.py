"""Events from an SQS queue that an AWS IoT rule, or an SNS topic, writes to.

Owns the message's way: received, decoded, handed over, and deleted once what it said is committed. A message is never
deleted before; one that cannot be read is deleted too, for by then it stands in quarantine. While a message waits for
the writer its visibility is extended, so that nobody else gets it meanwhile; if we die, SQS gives it again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.aws import Account, errors, failure_of
from ingest.decode import decode_message
from ingest.inbox import Delivery, Inbox
from ingest.ledger import Watched
from ingest.standing import Standing
from ingest.tally import Tally
from store.clock import Clock, system_clock
from store.model import Learned, Rejected

log = logging.getLogger("thingline.sqs")

PAGE = 10  # messages a call: SQS's most
POLL_S = 4  # how long a call waits for a message; at the end it is waited for, lest it take messages along
HIDDEN_S = 120  # how long a message that we hold is hidden from others, unless we say so again
_PAGES_HELD = 500  # deliveries of one queue that wait at once: with more, others could do them sooner


@dataclass(slots=True)
class _Held:
    """Messages of one call that were handed over and are not deleted yet."""

    handles: list[str]
    hidden_until_s: float


class SqsSource:
    """Receives from one queue with several threads. A Source.

    `receivers` calls run at once where there is much to receive; one does where there is not.
    """

    def __init__(
        self,
        url: str,
        *,
        account: Account,
        tally: Tally,
        receivers: int = 4,
        clock: Clock = system_clock,
    ) -> None:
        self.name = f"sqs:{url.rstrip('/').rsplit('/', 1)[-1]}"
        self._url = url
        self._clock = clock
        self._tally = tally
        self._receivers = receivers
        self._client = account.client("sqs", connections=2 * receivers + 2, read_s=POLL_S + 20)
        self._held: dict[int, _Held] = {}
        self._done: deque[int] = deque()  # committed, to be deleted
        self._undeleted = 0  # those, and those that are being deleted
        self._numbers = iter(range(1 << 62))
        self._changed = threading.Condition()
        self._busy = threading.Event()
        self._standing = Standing(
            self.name,
            tally,
            what="queue",
            permissions="sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and sqs:GetQueueAttributes",
        )
        self._ended = threading.Event()
        self._unbroken_ms: int | None = None

    def check(self) -> None:
        """Ask for the queue's attributes. Raises SourceError where it is not there or not ours to read."""
        self._standing.first(self._learn_attributes)

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Receive until `stop` is set, then delete what is committed by then, for as long as `end` is not called."""
        receivers = [
            threading.Thread(target=self._receive_all, args=(inbox, stop, number), daemon=True)
            for number in range(self._receivers)
        ]
        keepers = [
            threading.Thread(target=each, daemon=True)
            for each in (*(self._delete_all,) * self._receivers, self._hide_all)
        ]
        for thread in (*receivers, *keepers):
            thread.start()
        stop.wait()
        self._busy.set()
        for thread in receivers:
            thread.join()

    def end(self, *, within_s: float) -> None:
        """Delete what was committed and wait for that; the writer has written its last."""
        with self._changed:
            self._changed.wait_for(lambda: not self._undeleted, within_s)
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    # --- Receiving ------------------------------------------------------------------------------------------

    def _receive_all(self, inbox: Inbox, stop: threading.Event, number: int) -> None:
        failures = 0
        while not stop.is_set():
            if number and not self._busy.wait(1):
                continue
            with self._changed:  # what is held waits for the writer: let others receive
                self._changed.wait_for(lambda: len(self._held) < _PAGES_HELD or stop.is_set(), 1)
                if len(self._held) >= _PAGES_HELD:
                    continue
            try:
                if self._unbroken_ms is None:
                    self._learn_attributes()
                messages = self._receive(POLL_S if number == 0 else 0)
            except errors() as error:
                self._unbroken_ms = None  # the queue may be another one afterwards
                self._standing.failed(failure_of(error), stop, failures)
                failures += 1
                continue
            failures = 0
            self._standing.answered()
            if len(messages) >= PAGE // 2:
                self._busy.set()
            elif not messages:
                self._busy.clear()
            self._hand_over(messages, inbox)

    def _receive(self, wait_s: int) -> list[dict[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=PAGE,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=HIDDEN_S,
            AttributeNames=["SentTimestamp"],
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _hand_over(self, messages: list[dict[str, Any]], inbox: Inbox) -> None:
        now_ms = self._clock()
        items: list[Learned | Rejected] = []
        weight, since_ms = 0, now_ms
        for message in messages:
            body = message["Body"].encode("utf-8", "surrogatepass")
            sent_ms = int(message.get("Attributes", {}).get("SentTimestamp", now_ms))
            since_ms = min(since_ms, sent_ms)
            weight += len(body)
            items += decode_message(body, now=self._clock, position=sent_ms)
        self._tally.received(self.name, len(messages), weight, now_ms)
        watched = Watched(since_ms, now_ms, self._unbroken_ms)
        settle: Callable[[], None] = _nothing
        if messages:
            number = self._hold([message["ReceiptHandle"] for message in messages])

            def settle() -> None:
                with self._changed:
                    self._done.append(number)
                    self._undeleted += 1
                    self._changed.notify_all()

        if not inbox.put(Delivery(self.name, items, weight, settle, watched)) and messages:
            self._give_back(number)

    def _hold(self, handles: list[str]) -> int:
        with self._changed:
            number = next(self._numbers)
            self._held[number] = _Held(handles, self._clock() / 1000 + HIDDEN_S)
            return number

    def _give_back(self, number: int) -> None:
        """Let others have what we shall not write any more."""
        with self._changed:
            held = self._held.pop(number)
        self._hide(held.handles, 0)

    def _learn_attributes(self) -> None:
        names = ["CreatedTimestamp", "MessageRetentionPeriod"]
        said = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        kept_ms = self._clock() - 1000 * int(said["MessageRetentionPeriod"])
        self._unbroken_ms = max(int(1000 * float(said["CreatedTimestamp"])), kept_ms)

    # --- Afterwards -----------------------------------------------------------------------------------------

    def _delete_all(self) -> None:
        """Delete what is committed, a call for ten messages, until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._done) or self._ended.is_set())
                if self._ended.is_set():
                    return
                number = self._done.popleft()
                handles = self._held[number].handles
            self._delete(handles)
            with self._changed:
                del self._held[number]
                self._undeleted -= 1
                self._changed.notify_all()

    def _delete(self, handles: list[str]) -> None:
        """Delete messages; what cannot be deleted comes again, and is a duplicate then."""
        entries = [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate(handles)]
        try:
            answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        except errors() as error:
            self._tally.failed(self.name, failure_of(error).trouble.value)
            log.warning("%s: messages could not be deleted, and will come again: %s", self.name, error)
            return
        for failed in answer.get("Failed", ()):
            log.warning("%s: a message could not be deleted: %s", self.name, failed.get("Code"))

    def _hide_all(self) -> None:
        """Extend the visibility of what waits for longer than half of it."""
        while not self._ended.wait(HIDDEN_S / 8):
            soon_s = self._clock() / 1000 + HIDDEN_S / 2
            with self._changed:
                late = [held for held in self._held.values() if held.hidden_until_s < soon_s]
            for held in late:
                if self._hide(held.handles, HIDDEN_S):
                    held.hidden_until_s = self._clock() / 1000 + HIDDEN_S

    def _hide(self, handles: list[str], seconds: int) -> bool:
        entries = [
            {"Id": str(at), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for at, handle in enumerate(handles)
        ]
        try:
            self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        except errors() as error:  # they may come again, and are duplicates then
            log.warning("%s: the visibility of messages could not be changed: %s", self.name, error)
            return False
        return True


def _nothing() -> None:
    pass
