"""The one tree of errors. A class's docstring is its default message; its attributes say what follows.

ThinglineError
|- UsageError           we were asked something malformed: unreadable time, unknown option value
|  |- BadTime
|  `- BadQuery          SQL that is not understood, asks for what it may not, or takes too long
|- StoreError           the store cannot serve
|  |- StoreMissing      there is none at that place
|  |- StoreTooNew       written by a newer thingline
|  |- StoreTooOld       needs `thingline db upgrade`
|  |- StoreBusy         another process writes it
|  |- StoreUnreachable  the server or the file does not answer
|  |  `- StoreAway      ... for the moment: it can be waited for
|  |- StoreUnfinished   a back-filling was cut short
|  `- StoreRefused      a place where a store must not be (a network file system, a folder, somebody else's file)
|- SourceError          what was to be read cannot be read
`- AnswerError          AWS's own errors: the question was understood, and this is the answer
   |- ResourceNotFound
   |- IndexNotReady
   |- InvalidRequest
   |- InvalidQuery       of the fleet index's query language
   `- InvalidAggregation
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class ThinglineError(Exception):
    """Something went wrong."""

    slug: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(self.__doc__ or self.slug))


class UsageError(ThinglineError):
    """The command was not understood; see --help."""

    slug = "usage"
    exit_code = 2
    http_status = 400


class BadTime(UsageError):
    """That is not a time. Give ISO 8601 with a zone, epoch ms or s, -2h, or "yesterday 03:12" with --tz."""

    slug = "bad-time"


class BadQuery(UsageError):
    """The SQL was not understood, does not only ask, or took too long; `DESCRIBE periods` tells the columns."""

    slug = "bad-query"


class StoreError(ThinglineError):
    """The store cannot serve."""

    slug = "store"
    exit_code = 3
    http_status = 503


class StoreMissing(StoreError):
    """There is no store at that place; `thingline ingest` makes one."""

    slug = "store-missing"


class StoreTooNew(StoreError):
    """The store was written by a newer thingline; install that version or later."""

    slug = "store-too-new"


class StoreTooOld(StoreError):
    """The store was written by an older thingline; run `thingline db upgrade` (it makes a copy first)."""

    slug = "store-too-old"


class StoreBusy(StoreError):
    """Another process is writing to this store; wait for it, or use PostgreSQL for several writers."""

    slug = "store-busy"
    retryable = True


class StoreUnreachable(StoreError):
    """The store does not answer; check its URL, that the server runs, and the permissions of the file."""

    slug = "store-unreachable"
    retryable = True


class StoreAway(StoreUnreachable):
    """The server does not answer for the moment; `thingline ingest` waits for it (--wait)."""

    slug = "store-away"


class StoreUnfinished(StoreError):
    """A back-filling of this store was cut short; run the same `thingline backfill` again, and it goes on."""

    slug = "store-unfinished"


class StoreRefused(StoreError):
    """A store must not live there."""

    slug = "store-refused"


class SourceError(ThinglineError):
    """The source cannot be read."""

    slug = "source"
    exit_code = 4


class AnswerError(ThinglineError):
    """AWS's answer to this question is an error."""

    slug = "answer"
    exit_code = 5
    http_status = 400
    aws_name: ClassVar[str] = "InvalidRequestException"


class ResourceNotFound(AnswerError):
    """No such thing was known then."""

    slug = "resource-not-found"
    http_status = 404
    aws_name = "ResourceNotFoundException"


class IndexNotReady(AnswerError):
    """The store's history begins later than the instant asked for."""

    slug = "index-not-ready"
    aws_name = "IndexNotReadyException"


class InvalidRequest(AnswerError):
    """The question is not one that can be asked."""

    slug = "invalid-request"
    aws_name = "InvalidRequestException"


class InvalidQuery(AnswerError):
    """The query is not one of the fleet index's language, or asks for what is not kept."""

    slug = "invalid-query"
    aws_name = "InvalidQueryException"


class InvalidAggregation(AnswerError):
    """The field cannot be aggregated, or not in this way."""

    slug = "invalid-aggregation"
    aws_name = "InvalidAggregationException"
