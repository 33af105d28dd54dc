"""An object of S3: its bytes, piece by piece, read on where the connection broke; and what shows it to people."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from ingest.aws import Failure, errors, failure_of
from ingest.queue import Page
from store.model import Event, Learned, Observation, Rejected

_PIECE = 256 << 10
_TRIES = 5  # in a row that bring nothing, until an object is left for later
_RECORD_BYTES = 500  # of an event without anything unusual, in memory
_OTHER = frozenset({"PreconditionFailed", "412", "NoSuchKey"})  # it is another object by now, or none
_URL = re.compile(r"\"?https?://\S+")

Failed = Callable[[Failure, int], None]  # told what is wrong and after how many failures in a row; waits


class Changed(Exception):
    """An object was overwritten or deleted while it was read."""


class Content:
    """An object that was asked for; its bytes are to be read once."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        """Ask for it. Raises what boto3 raises."""
        self._ask = partial(client.get_object, Bucket=bucket, Key=key)
        answer = self._ask()
        self._body: Any = answer["Body"]
        self.etag: str = answer["ETag"]
        self.at_ms = int(answer["LastModified"].timestamp() * 1000)
        self.size = int(answer["ContentLength"])

    def pieces(self, failed: Failed) -> Iterator[bytes]:
        """Yield its bytes. Raises Changed, and what boto3 raises.

        A connection that breaks, as one may that was idle while the store was away, is made anew from there on,
        for the same bytes; `failed` is told before, and waits.
        """
        at = failures = 0
        while True:
            try:
                if self._body is None:
                    self._body = self._ask(Range=f"bytes={at}-", IfMatch=self.etag)["Body"]
                while piece := self._body.read(_PIECE):
                    at, failures = at + len(piece), 0
                    yield piece
                return
            except errors() as error:
                failure = fault_of(error)
                if failure.code in _OTHER:
                    raise Changed from error
                if failures == _TRIES:
                    raise
            self.close()
            failed(failure, failures)
            failures += 1

    def close(self) -> None:
        """Read no more of it."""
        body, self._body = self._body, None
        if body is not None:
            body.close()


class Sheet:
    """The objects that one page of notices names: its messages are deleted once all of them are done."""

    def __init__(self, page: Page, left: int) -> None:
        self._page = page
        self._left = left
        self._lock = threading.Lock()

    def done(self) -> None:
        """Count one that was committed."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._page.settle()

    def give_back(self, after_s: int) -> None:
        """Let the messages come again, for one could not be read; the others change nothing then."""
        with self._lock:
            is_first, self._left = self._left > 0, -1
        if is_first:
            self._page.give_back(after_s)


def fault_of(error: Exception) -> Failure:
    """Read what boto3 raised of an object, without the object's URL: it goes to the log."""
    failure = failure_of(error)
    return replace(failure, message=_URL.sub("S3", failure.message))


def shown(bucket: str, key: str) -> str:
    """Give an object's URL; what cannot be printed is escaped."""
    text = "".join(each if each.isprintable() else quote(each, errors="surrogatepass") for each in key)
    return f"s3://{bucket}/{text}"


def weight(items: Sequence[Learned | Rejected]) -> int:
    """Give about how many bytes records take until they are written."""
    return sum(map(_weight, items))


def _weight(item: Learned | Rejected) -> int:
    if isinstance(item, Rejected):
        return _RECORD_BYTES + len(item.head)
    said = item.evidence
    extra = said.extra if isinstance(said, Event) else said.body if isinstance(said, Observation) else None
    return _RECORD_BYTES + len(extra or "")
