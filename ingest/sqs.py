"""Events from an SQS queue that an AWS IoT rule, or an SNS topic, writes to.

A message that cannot be read is deleted from its queue too, for by then it stands in quarantine.
"""

from __future__ import annotations

import threading

from ingest.aws import Account
from ingest.decode import decode_message
from ingest.inbox import Delivery, Inbox
from ingest.ledger import Watched
from ingest.queue import Page, Queue
from ingest.tally import Tally
from store.clock import Clock, system_clock
from store.model import Learned, Rejected


class SqsSource:
    """Receives from one queue with several threads. A Source."""

    def __init__(
        self,
        url: str,
        *,
        account: Account,
        tally: Tally,
        receivers: int = 4,
        clock: Clock = system_clock,
    ) -> None:
        self._queue = Queue(url, account=account, tally=tally, receivers=receivers, clock=clock)
        self.name = self._queue.name
        self._clock = clock

    def check(self) -> None:
        """Ask for the queue's attributes. Raises SourceError where it is not there or not ours to read."""
        self._queue.check()

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Receive until `stop` is set, then delete what is committed by then, for as long as `end` is not called."""
        self._queue.run(lambda page: self._hand_over(page, inbox), stop)

    def end(self, *, within_s: float) -> None:
        """Delete what was committed and wait for that; the writer has written its last."""
        self._queue.end(within_s=within_s)

    def _hand_over(self, page: Page, inbox: Inbox) -> None:
        now_ms = self._clock()
        since_ms = min((each.sent_ms for each in page.messages), default=now_ms)
        items: list[Learned | Rejected] = []
        for each in page.messages:
            items += decode_message(each.body, now=self._clock, position=each.sent_ms)
        watched = Watched(min(since_ms, now_ms), now_ms, self._queue.unbroken_ms)
        if not inbox.put(Delivery(self.name, items, page.weight, page.settle, watched)):
            page.give_back()
