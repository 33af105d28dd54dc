"""Events from objects under a prefix of an S3 bucket: what Firehose wrote, or an S3 rule action, an object an event.

Owns the finding of objects and their way. The prefix is listed, whole at the start; a queue of S3's notices, where one
is configured, tells of new objects meanwhile, and is obeyed for this bucket and this prefix only. Each object is read
once (ingest/marks.py states the rule) by one of several threads, in pieces, and decoded as a file is; with its last
record its mark is committed, and only then is the notice deleted. What fails is put back and found again by the next
whole listing, so nothing is kept in mind of it. One ingester of a store reads a prefix; the others stand by. No key may
stand in the log, for it may hold a device's name.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ingest.aws import Account, errors, failure_of
from ingest.decode import INFLATED_TIMES, decode_stream
from ingest.files import Batches
from ingest.inbox import Delivery, Inbox
from ingest.ledger import Watched
from ingest.marks import Marks, hour_of, mark_of
from ingest.notices import Notice, notices
from ingest.objects import Changed, Content, Sheet, fault_of, shown, weight
from ingest.positions import LEASE_MS, Leases, saved
from ingest.queue import Page, Queue
from ingest.refusal import Unreadable, rejected
from ingest.settings import HORIZON, LATEST, S3
from ingest.standing import Standing
from ingest.tally import QUIET_MS, Tally
from store.clock import Clock, system_clock
from store.engine import Store
from store.errors import StoreError
from store.model import Learned, Rejected

log = logging.getLogger("thingline.s3")

EVERY_MS = 15_000  # from one listing to the next: a quarter of what a watched path may be silent for
_CALL_MS = 6_000  # a whole listing of n > 1 calls is made once in n times that: ten calls a minute at most
_SAFETY_MS = 3_600_000  # ... and where notices tell of new objects, once an hour at most
_READERS = 8  # objects that are read at once: one takes 30 ms and more, however small
_WAITING = 1_000  # objects that wait to be read
_BATCH = 2_000  # records a delivery
_BATCH_BYTES = 1 << 20  # ... and bytes of what is unusual about them
_LEAST_INFLATED = 1 << 20  # so much any object may unpack to
_KEPT_MS = 48 * 3_600_000  # marks so young are kept though nothing is listed: a listing is not of one moment
_AGAIN_S = 60  # after what time a notice comes again whose object could not be read
_WHOLE = "prefix"  # the part that is leased
_START = "start"  # the part that says from when on objects are read, as @ms
_SET_ASIDE = {
    "NoSuchKey": ("gone-object", "it was not there any more when it was to be read"),
    "InvalidObjectState": (
        "archived-object",
        "it is in an archive; restore it, then `aws s3 cp` it to `thingline ingest -`",
    ),
}


class _Object(NamedTuple):
    """An object that is to be read. Where a notice told of it the time is not its own, and `etag` may be ""."""

    key: str
    etag: str
    at_ms: int
    sheet: Sheet | None = None

    def done(self) -> None:
        if self.sheet is not None:
            self.sheet.done()

    def put_back(self, after_s: int) -> None:
        if self.sheet is not None:
            self.sheet.give_back(after_s)


class _Listed(NamedTuple):
    """What a listing came to: `tail` is the key after which its last page began."""

    calls: int
    tail: str | None
    oldest_ms: int | None
    hours: set[int]


class S3Source:
    """Reads a prefix. A Source."""

    def __init__(
        self,
        settings: S3,
        *,
        account: Account,
        tally: Tally,
        store: Store,
        every_ms: int = EVERY_MS,
        clock: Clock = system_clock,
    ) -> None:
        self.name = f"s3:{settings.bucket}/{settings.prefix}"
        self._settings = settings
        self._tally = tally
        self._store = store
        self._every_ms = every_ms
        self._clock = clock
        self._client = account.client("s3", connections=_READERS + 2, read_s=60)
        self._leases = Leases(store, self.name, clock=clock)
        self._listing, self._reading = (
            Standing(
                self.name,
                tally,
                what="bucket",
                permissions="s3:ListBucket and s3:GetObject (and kms:Decrypt of its key, if it has one)",
                quiet_ms=every_ms + QUIET_MS,
            )
            for _ in range(2)
        )
        self._queue = (
            None
            if settings.notices is None
            else Queue(settings.notices, account=account, tally=tally, receivers=1, clock=clock)
        )
        self._marks = Marks({})
        self._is_new = False  # nothing was ever read of it
        self._start_ms = 0
        self._waiting: queue.Queue[_Object] = queue.Queue(_WAITING)
        self._flying: set[str] = set()  # keys that a listing found and that are not read yet
        self._again = threading.Event()  # something was not read: do not wait for an hour
        # A row of marks speaks of what was handed over before it, and of no more.
        self._order = threading.Lock()
        self._unbroken_ms: int | None = None
        self._is_foreign_told = False

    def check(self) -> None:
        """Ask for a first object. Raises SourceError where bucket or queue are not there or not ours to read."""
        asked = {"Bucket": self._settings.bucket, "Prefix": self._settings.prefix, "MaxKeys": 1}
        self._listing.first(lambda: self._client.list_objects_v2(**asked))
        if self._queue is not None:
            self._queue.check()

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Read until `stop` is set, while no other ingester does."""
        while not stop.is_set():
            try:
                if self._leases.hold({_WHOLE}):
                    self._begin(inbox)
                    self._run_leased(inbox, stop)
                    continue
            except StoreError as error:  # the writer waits for it, and says so
                log.info("%s: the store does not answer: %s", self.name, error)
            else:
                self._tally.received(self.name, 0, 0, self._clock())
            stop.wait(LEASE_MS / 4_000)

    def end(self, *, within_s: float) -> None:
        """Delete the notices of what was committed, and let others read the prefix."""
        if self._queue is not None:
            self._queue.end(within_s=within_s)
        try:
            self._leases.release()
        except StoreError as error:
            log.info("%s: it is free in %d s: %s", self.name, LEASE_MS // 1000, error)

    def _begin(self, inbox: Inbox) -> None:
        """Take up what was saved; of a prefix that was never read, save from when on it is."""
        rows = saved(self._store, self.name)
        self._marks = Marks(rows)
        self._is_new = not rows
        start = self._settings.start
        if self._is_new:
            self._start_ms = 0 if start == HORIZON else self._clock() if start == LATEST else int(start)
            inbox.put(Delivery(self.name, [], position=(_START, f"@{self._start_ms}")))
        else:
            self._start_ms = int(rows.get(_START, "@0")[1:])
        self._unbroken_ms = None

    def _run_leased(self, inbox: Inbox, stop: threading.Event) -> None:
        over = threading.Event()
        jobs: list[Any] = [self._list_on, *(self._read_on,) * _READERS]
        threads = [threading.Thread(target=job, args=(inbox, over), daemon=True) for job in jobs]
        if self._queue is not None:
            told = threading.Thread(
                target=self._queue.run, args=(lambda page: self._take(page, inbox, over), over), daemon=True
            )
            threads.append(told)
        for thread in threads:
            thread.start()
        while not stop.wait(LEASE_MS / 4_000):
            try:
                if not self._leases.hold({_WHOLE}):
                    log.info("%s: another ingester reads it from now on", self.name)
                    break
            except StoreError as error:
                log.info("%s: the store does not answer: %s", self.name, error)
        over.set()
        for thread in threads:
            thread.join()
        while not self._waiting.empty():
            self._waiting.get().put_back(0)
        self._flying.clear()

    # --- Finding --------------------------------------------------------------------------------------------

    def _list_on(self, inbox: Inbox, over: threading.Event) -> None:
        """List over and over: from the last page on, and whole where that is due."""
        tail: str | None = None
        whole_ms = cost_ms = failures = 0
        while not over.is_set():
            begun_ms = self._clock()
            is_prompt = self._queue is None or self._again.is_set()
            is_whole = tail is None or begun_ms >= whole_ms + (
                cost_ms if is_prompt else max(cost_ms, _SAFETY_MS)
            )
            if is_whole:
                self._again.clear()
            try:
                found = self._list(None if is_whole else tail, over)
            except errors() as error:
                self._unbroken_ms = tail = None  # the bucket may be another one afterwards
                self._listing.failed(failure_of(error), over, failures)
                failures += 1
                continue
            if over.is_set():
                return
            failures, tail = 0, found.tail
            self._listing.answered()
            if is_whole:
                whole_ms, cost_ms = begun_ms, found.calls * _CALL_MS
                self._saw_all(found, begun_ms, inbox)
            inbox.put(Delivery(self.name, [], watched=self._watched(begun_ms)))
            over.wait(self._every_ms / 1000)

    def _list(self, after: str | None, over: threading.Event) -> _Listed:
        """List what comes after a key, or all; offers what was not read."""
        asked = {"Bucket": self._settings.bucket, "Prefix": self._settings.prefix}
        more = {} if after is None else {"StartAfter": after}
        calls, tail, oldest_ms, hours = 0, after, None, set()
        while True:
            page = self._client.list_objects_v2(**asked, **more)
            calls += 1
            self._tally.received(self.name, 0, 0, self._clock())
            found = page.get("Contents", [])
            for each in found:
                at_ms = int(each["LastModified"].timestamp() * 1000)
                oldest_ms = at_ms if oldest_ms is None else min(oldest_ms, at_ms)
                hours.add(hour_of(at_ms))
                if each["Size"] and at_ms >= self._start_ms:
                    self._offer(_Object(each["Key"], each["ETag"], at_ms), over)
            if not page.get("IsTruncated") or over.is_set():
                return _Listed(calls, tail, oldest_ms, hours)
            tail = found[-1]["Key"] if found else tail
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _offer(self, found: _Object, over: threading.Event) -> None:
        # In that order: who has read it marks it first, and lets it go afterwards.
        if found.key not in self._flying and not self._marks.has(mark_of(found.key, found.etag), found.at_ms):
            self._flying.add(found.key)
            self._await(found, over)

    def _await(self, found: _Object, over: threading.Event) -> None:
        while not over.is_set():
            try:
                self._waiting.put(found, timeout=0.2)
                return
            except queue.Full:
                continue
        found.put_back(0)

    def _saw_all(self, found: _Listed, begun_ms: int, inbox: Inbox) -> None:
        """Conclude from a whole listing since when the bucket has kept what came, and which marks are for nothing.

        An object that is still there proves that the bucket has been there since it was written. And what is
        younger: whatever deletes objects by their age deletes the oldest first.
        """
        oldest_ms = begun_ms if found.oldest_ms is None else min(found.oldest_ms, begun_ms)
        self._unbroken_ms = min(oldest_ms, self._unbroken_ms or begun_ms)
        if self._is_new:
            self._is_new = False
            from_ms = min(begun_ms, max(self._unbroken_ms, self._start_ms))
            inbox.put(Delivery(self.name, [], watched=Watched(from_ms, begun_ms, self._unbroken_ms)))
        for position in self._marks.drop(listed=found.hours, before_ms=begun_ms - _KEPT_MS):
            inbox.put(Delivery(self.name, [], position=position))

    def _watched(self, now_ms: int) -> Watched | None:
        """Say that the path records; nothing before all was listed, for where it was broken is not known then."""
        return None if self._unbroken_ms is None else Watched(now_ms, now_ms, self._unbroken_ms)

    def _take(self, page: Page, inbox: Inbox, over: threading.Event) -> None:
        """Do what notices say, where they speak of this prefix."""
        found: list[Notice] = []
        refused: list[Learned | Rejected] = []
        for message in page.messages:
            try:
                named = notices(message.body)
            except Unreadable as error:
                refused.append(rejected(error.reason, error.detail, message.body, message.sent_ms))
                continue
            for each in named:
                if each.bucket == self._settings.bucket and each.key.startswith(self._settings.prefix):
                    found.append(each)
                else:
                    self._foreign(each.bucket)
        if page.messages:
            sheet = Sheet(page, len(found) + 1)
            if not inbox.put(Delivery(self.name, refused, page.weight, sheet.done)):
                sheet.give_back(0)
            for each in found:
                self._await(_Object(each.key, each.etag, self._clock(), sheet), over)

    def _foreign(self, bucket: str) -> None:
        """Count what is not ours to read; nothing is lost by it, for the object stays where it is."""
        self._tally.failed(self.name, "foreign")
        if not self._is_foreign_told:
            self._is_foreign_told = True
            log.warning(
                "%s: notices speak of other objects too, of %s; these are not read", self.name, bucket
            )

    # --- Reading --------------------------------------------------------------------------------------------

    def _read_on(self, inbox: Inbox, over: threading.Event) -> None:
        """Read what was found, an object at a time."""
        failures = 0
        while not over.is_set():
            try:
                found = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                if not self._read(found, inbox, over):
                    found.put_back(0)
                failures = 0
            except Changed:  # it is found again as what it is by now
                found.put_back(0)
                self._again.set()
            except errors() as error:
                found.put_back(_AGAIN_S)
                self._again.set()
                self._reading.failed(fault_of(error), over, failures)
                failures += 1
            finally:
                self._flying.discard(found.key)

    def _read(self, found: _Object, inbox: Inbox, over: threading.Event) -> bool:
        """Hand over all that an object says, its mark last; False where the end came before."""
        bucket = self._settings.bucket
        try:
            said = Content(self._client, bucket, found.key)
        except errors() as error:
            reason, detail = _SET_ASIDE.get(failure_of(error).code, ("", ""))
            if not reason:
                raise
            return self._set_aside(found, reason, detail, inbox)
        self._reading.answered()
        mark = mark_of(found.key, said.etag)
        if self._marks.has(mark, said.at_ms):  # what a notice names was found by a listing
            said.close()
            return inbox.put(Delivery(self.name, [], settle=found.done))
        records = self._records(said, shown(bucket, found.key), over)
        for batch in Batches(records, most=_BATCH, most_bytes=_BATCH_BYTES):
            now_ms = self._clock()
            self._tally.received(self.name, 0, 0, now_ms)
            delivery = Delivery(self.name, batch, weight(batch), watched=self._watched(now_ms))
            if over.is_set() or not inbox.put(delivery):
                said.close()
                return False
        self._tally.received(self.name, 1, said.size, self._clock())
        return self._hand_over(mark, said.at_ms, [], found, inbox)

    def _records(self, said: Content, where: str, over: threading.Event) -> Iterator[Learned | Rejected]:
        """Yield what an object says. Its records' position is its LastModified; where one stands is in its detail."""
        most = max(_LEAST_INFLATED, INFLATED_TIMES * said.size)
        pieces = said.pieces(lambda failure, failures: self._reading.failed(failure, over, failures))
        for record in decode_stream(pieces, now=self._clock, most_inflated=most):
            if isinstance(record, Learned):
                yield record._replace(position=said.at_ms)
            else:
                detail = f"{record.detail} ({where}, byte {record.position})"
                yield replace(record, detail=detail, position=said.at_ms)

    def _set_aside(self, found: _Object, reason: str, detail: str, inbox: Inbox) -> bool:
        """Leave a trace of an object that cannot be read, now or ever."""
        mark = mark_of(found.key, found.etag)
        if self._marks.has(mark):  # it was read before the notice of it came
            return inbox.put(Delivery(self.name, [], settle=found.done))
        self._tally.failed(self.name, reason)
        where = shown(self._settings.bucket, found.key)
        log.warning("%s: of an object: %s; `thingline quarantine list` says which", self.name, detail)
        trace = rejected(reason, f"{detail} ({where})", where.encode(), 0)
        return self._hand_over(mark, found.at_ms, [trace], found, inbox)

    def _hand_over(
        self, mark: int, at_ms: int, items: list[Learned | Rejected], found: _Object, inbox: Inbox
    ) -> bool:
        with self._order:
            position = self._marks.add(mark, at_ms)
            watched = self._watched(self._clock())
            return inbox.put(
                Delivery(self.name, items, settle=found.done, watched=watched, position=position)
            )
