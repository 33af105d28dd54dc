"""A queue of SQS: received from by several threads, held while it waits for the writer, deleted afterwards.

Owns the message's way. A message is never deleted before what it said is committed. While it waits its visibility is
extended, so that nobody else gets it meanwhile; if we die, SQS gives it again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest.aws import Account, errors, failure_of
from ingest.standing import Standing
from ingest.tally import Tally
from store.clock import Clock, system_clock

log = logging.getLogger("thingline.sqs")

PAGE = 10  # messages a call: SQS's most
POLL_S = 4  # how long a call waits for a message; at the end it is waited for, lest it take messages along
HIDDEN_S = 120  # how long a message that we hold is hidden from others, unless we say so again
_PAGES_HELD = 500  # pages of one queue that wait at once: with more, others could do them sooner


class Message(NamedTuple):
    """What one message said, and when it was sent, in epoch ms."""

    body: bytes
    sent_ms: int


class Page(NamedTuple):
    """What one call brought; of no message too. One of the two is to be called where there was any."""

    messages: list[Message]
    weight: int  # bytes
    settle: Callable[[], None]  # have the messages deleted; quick, in any thread
    give_back: Callable[..., None]  # let others have them, after so many seconds, for we shall not write them


@dataclass(slots=True)
class _Held:
    """Messages of one call that were handed over and are not deleted yet."""

    handles: list[str]
    hidden_until_s: float


class Queue:
    """Receives from one queue. `receivers` calls run at once where there is much to receive; one where there is not."""

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
        self.unbroken_ms: int | None = None  # since when it has kept what came, as far as is known
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
        self._kept = False

    def check(self) -> None:
        """Ask for the queue's attributes. Raises SourceError where it is not there or not ours to read."""
        self._standing.first(self._learn_attributes)

    def run(self, take: Callable[[Page], None], stop: threading.Event) -> None:
        """Give each page to `take`, in several threads, until `stop` is set; may be run again then.

        What is settled is deleted until `end` is called.
        """
        if not self._kept:
            self._kept = True
            for each in (*(self._delete_all,) * self._receivers, self._hide_all):
                threading.Thread(target=each, daemon=True).start()
        receivers = [
            threading.Thread(target=self._receive_all, args=(take, stop, number), daemon=True)
            for number in range(self._receivers)
        ]
        for thread in receivers:
            thread.start()
        stop.wait()
        self._busy.set()
        for thread in receivers:
            thread.join()

    def end(self, *, within_s: float) -> None:
        """Delete what was settled and wait for that; nothing will be settled any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._undeleted, within_s)
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    # --- Receiving ------------------------------------------------------------------------------------------

    def _receive_all(self, take: Callable[[Page], None], stop: threading.Event, number: int) -> None:
        failures = 0
        while not stop.is_set():
            if number and not self._busy.wait(1):
                continue
            with self._changed:  # what is held waits for the writer: let others receive
                self._changed.wait_for(lambda: len(self._held) < _PAGES_HELD or stop.is_set(), 1)
                if len(self._held) >= _PAGES_HELD:
                    continue
            try:
                if self.unbroken_ms is None:
                    self._learn_attributes()
                messages = self._receive(POLL_S if number == 0 else 0)
            except errors() as error:
                self.unbroken_ms = None  # the queue may be another one afterwards
                self._standing.failed(failure_of(error), stop, failures)
                failures += 1
                continue
            failures = 0
            self._standing.answered()
            if len(messages) >= PAGE // 2:
                self._busy.set()
            elif not messages:
                self._busy.clear()
            take(self._page(messages))

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

    def _page(self, found: list[dict[str, Any]]) -> Page:
        now_ms = self._clock()
        messages = [
            Message(
                each["Body"].encode("utf-8", "surrogatepass"),
                int(each.get("Attributes", {}).get("SentTimestamp", now_ms)),
            )
            for each in found
        ]
        weight = sum(len(each.body) for each in messages)
        self._tally.received(self.name, len(messages), weight, now_ms)
        if not messages:
            return Page(messages, weight, _nothing, _nothing)
        number = self._hold([each["ReceiptHandle"] for each in found])

        def settle() -> None:
            with self._changed:
                self._done.append(number)
                self._undeleted += 1
                self._changed.notify_all()

        def give_back(after_s: int = 0) -> None:
            with self._changed:
                held = self._held.pop(number)
            self._hide(held.handles, after_s)

        return Page(messages, weight, settle, give_back)

    def _hold(self, handles: list[str]) -> int:
        with self._changed:
            number = next(self._numbers)
            self._held[number] = _Held(handles, self._clock() / 1000 + HIDDEN_S)
            return number

    def _learn_attributes(self) -> None:
        names = ["CreatedTimestamp", "MessageRetentionPeriod"]
        said = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        kept_ms = self._clock() - 1000 * int(said["MessageRetentionPeriod"])
        self.unbroken_ms = max(int(1000 * float(said["CreatedTimestamp"])), kept_ms)

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


def _nothing(*_: object) -> None:
    pass
