"""The ASGI application: reads a request, asks who it is, finds what is asked, and writes the answer.

No framework: the path must be split before it is decoded, and every error must be JSON of one of two shapes; what
is left of routing is a few lines (docs/serve.md has the measurement). Holds no rule of what is answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from queries.history import History
from queries.http.api import PREFIX, Api
from queries.http.auth import Gate
from queries.http.channel import PATIENCE_S
from queries.http.limits import Bodies, Rate, has_body
from queries.http.messages import (
    SECURE,
    Refusal,
    Request,
    Response,
    aws_error,
    invalid,
    json_response,
    problem,
    refusal_of,
)
from queries.http.operations import OPERATIONS, Operation, Routes
from queries.http.paths import Target, target_of
from queries.http.readers import Readers
from store.errors import BadTime, InvalidRequest, StoreError

Scope = Mapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Log = Callable[[Mapping[str, Any]], None]

ALIVE = Response(200, b'{"alive":true}')


class App:
    """Answers requests. `log` is told of each (None: of none); `rate` None: as often as one likes.

    `api` answers /api/v1; None: nothing does.
    """

    def __init__(
        self,
        readers: Readers,
        gate: Gate,
        *,
        rate: Rate | None = None,
        log: Log | None = None,
        api: Api | None = None,
        operations: tuple[Operation, ...] = OPERATIONS,
    ) -> None:
        self._readers = readers
        self._gate = gate
        self._rate = rate
        self._log = log
        self._bodies = Bodies()
        self._api = api
        self._routes = Routes(operations)
        self._ids = uuid.uuid4().hex[:20]
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began_s = time.perf_counter()
        self._count += 1
        request_id = f"{self._ids}{self._count:012x}"
        raw_path = scope["raw_path"].decode("latin-1")
        asked = _Asked()
        is_ours = raw_path.startswith("/api/")
        try:
            response = await self._response(scope, receive, raw_path, asked)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status >= 500:
                _complain(error, request_id)
            response = (problem if is_ours else aws_error)(refusal, request_id)
        headers = (
            (b"content-type", response.content_type),
            (b"x-amzn-requestid", request_id.encode()),
            *SECURE,
            *response.headers,
        )
        if response.stream is None:
            length = (b"content-length", b"%d" % len(response.body))
            await send(
                {"type": "http.response.start", "status": response.status, "headers": (length, *headers)}
            )
            body = b"" if scope["method"] == "HEAD" else response.body
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            try:
                await _send_all(response.stream, receive, send)
            except Exception as error:
                _complain(error, request_id)
        if self._log is not None:
            self._log(
                {
                    "requestId": request_id,
                    "method": scope["method"],
                    "path": raw_path,
                    "operation": asked.operation,
                    "caller": asked.caller,
                    "status": response.status,
                    "ms": round((time.perf_counter() - began_s) * 1000, 3),
                }
            )

    async def _response(self, scope: Scope, receive: Receive, raw_path: str, asked: _Asked) -> Response:
        headers = scope["headers"]
        named = dict(headers)
        if raw_path == "/healthz" and scope["method"] in ("GET", "HEAD"):
            return ALIVE
        request = Request(
            scope["method"],
            raw_path,
            scope["query_string"].decode("latin-1"),
            headers,
            named,
            b"",
            scope["client"][0] if scope.get("client") else "",
        )
        if has_body(named):
            self._gate.caller_of(request)  # refuses whoever may not ask whatever the body is
            request = request._replace(body=await self._bodies.read(named, receive))
        asked.caller = caller = self._gate.admit(request)
        if self._rate is not None:
            self._rate.take(caller)
        if self._api is not None and raw_path.startswith(PREFIX):
            endpoint = self._api.find(request)
            asked.operation = "openapi" if endpoint is None else endpoint.name
            return await self._api.answer(endpoint, request)
        target = target_of(raw_path)
        operation, members = self._routes.find(request.method, target.segments)
        asked.operation = operation.name
        members = {**_members(operation, request), **members}

        def question(history: History) -> dict[str, Any]:
            at, known_at = _times(history, target)
            return operation.answers(history, at, known_at, members)

        if operation.is_quick:
            return json_response(await self._readers.soon(question))
        return json_response(await self._readers.elsewhere(question))


async def _send_all(chunks: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send chunks as they come, until they end or whoever listens goes away."""
    gone = asyncio.ensure_future(_gone(receive))
    coming = aiter(chunks)
    try:
        while True:
            following = asyncio.ensure_future(anext(coming, None))
            await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following  # a generator that still runs cannot be closed
                break
            chunk = following.result()
            if chunk is None:
                await send({"type": "http.response.body", "body": b""})
                break
            async with asyncio.timeout(
                PATIENCE_S
            ):  # who takes nothing for so long holds a snapshot, or a chunk
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        pass
    finally:
        gone.cancel()
        await chunks.aclose()  # type: ignore[attr-defined]  # they are of a generator


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Asked:
    """What the log is told of a request."""

    __slots__ = ("caller", "operation")

    def __init__(self) -> None:
        self.caller: str | None = None
        self.operation: str | None = None


def _times(history: History, target: Target) -> tuple[int, int | None]:
    """Read the times before a path; without them: now, as known now. Raises InvalidRequest."""
    try:
        at = history.milliseconds("now" if target.at is None else target.at)
        return at, None if target.known_at is None else history.milliseconds(target.known_at)
    except BadTime as error:
        raise InvalidRequest(str(error)) from error


def _members(operation: Operation, request: Request) -> dict[str, Any]:
    """Read the members of a request's body, and of its query; those that nobody knows are for nobody."""
    told: dict[str, Any] = {}
    if request.body:
        try:
            decoded = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refusal(400, "SerializationException", "The body is not JSON.") from None
        if not isinstance(decoded, dict):
            raise Refusal(400, "SerializationException", "The body is no JSON object.")
        told = decoded
    for pair in request.query.split("&") if operation.members_in_query else ():
        name, _, value = pair.partition("=")
        kind = operation.members_in_query.get(unquote_plus(name))
        if kind is not None:
            try:
                told[unquote_plus(name)] = kind(unquote_plus(value))
            except ValueError:
                raise invalid(f"{unquote_plus(name)} is no {kind.__name__}.") from None
    return told


def _complain(error: Exception, request_id: str) -> None:
    """Tell the log what went wrong inside; of a store that does not answer, one line."""
    ours = isinstance(error, StoreError)
    told = f"{ascii(str(error))[1:-1]}\n" if ours else "".join(traceback.format_exception(error))
    with suppress(OSError):  # whoever read the log went away; the caller is answered all the same
        print(f"thingline: {request_id}: {told}", file=sys.stderr, end="")
