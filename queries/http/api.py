"""Answers /api/v1: reads the parameters, asks in a thread, and gives an object, a page, or a stream of NDJSON.

A page pins its times, so that the next one is of the same answer, whatever is learned in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from queries.history import History
from queries.http.channel import Channel, Gone
from queries.http.declarations import PAGE, Endpoint, Kind, Row, endpoint_of, values_of
from queries.http.event_stream import MEDIA_TYPE, EventStream
from queries.http.messages import (
    Refusal,
    Request,
    Response,
    json_response,
    refusal_of,
)
from queries.http.openapi import NDJSON, document
from queries.http.readers import Readers
from queries.news import Position
from queries.output import json_line
from queries.times import iso

PREFIX = "/api/v1/"
OPENAPI = f"{PREFIX}openapi.json"
ITEMS = 1_000  # of a page, where nothing is said
CHUNK = 64 << 10  # bytes

Values = dict[str, Any]


class Api:
    """Answers requests whose path begins with PREFIX."""

    def __init__(
        self, readers: Readers, endpoints: Sequence[Endpoint], events: EventStream, *, version: str
    ) -> None:
        self._readers = readers
        self._events = events
        self._endpoints = {one.path: one for one in endpoints}
        self._document = json_response(document(endpoints, version))

    def find(self, request: Request) -> Endpoint | None:
        """Give the endpoint that is asked; None: the OpenAPI document. Raises Refusal."""
        if request.raw_path == OPENAPI and request.method in ("GET", "HEAD"):
            return None
        return endpoint_of(self._endpoints, request.method, request.raw_path)

    async def answer(self, endpoint: Endpoint | None, request: Request) -> Response:
        """Answer a request. Raises Refusal, or what the question raises."""
        if endpoint is None:
            return self._document
        params = (*endpoint.params, *PAGE) if endpoint.is_listed else endpoint.params
        values = values_of(params, request.query)
        if endpoint.is_endless:
            return await self._listen(values, request)
        if endpoint.body is not None:
            values["body"] = _body(endpoint, request)
        if endpoint.one is not None:
            return await self._one(endpoint, values)
        accepted = (request.header("accept") or "").lower()
        if endpoint.body is not None or NDJSON in accepted:
            return await self._stream(endpoint, values)
        return json_response(await self._readers.elsewhere(lambda history: _page(history, endpoint, values)))

    async def _listen(self, values: Values, request: Request) -> Response:
        """Begin a stream of events where the last one ended; a browser says that in a header when it comes back."""
        told = request.header("last-event-id") or values.get("after")
        after = Position.read(told) if told else None
        events = await self._events.open(after, values.get("thing", ()))
        return Response(200, b"", MEDIA_TYPE.encode(), (), events)

    async def _one(self, endpoint: Endpoint, values: Values) -> Response:
        answers = endpoint.one
        assert answers is not None

        def question(history: History) -> Row:
            return answers(history, pinned(history, endpoint, values))

        if endpoint.is_quick:
            return json_response(await self._readers.soon(question))
        return json_response(await self._readers.elsewhere(question))

    async def _stream(self, endpoint: Endpoint, values: Values) -> Response:
        """Begin a stream; what is refused before its first line is refused as such."""
        channel = Channel(asyncio.get_running_loop())
        running = asyncio.ensure_future(
            self._readers.while_sent(lambda history: _send(history, endpoint, values, channel))
        )
        first = asyncio.ensure_future(channel.get())
        await asyncio.wait({running, first}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            await running  # raises what it was refused with
            raise AssertionError("a stream that was not refused has an end")
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # told in its last line
        begun = first.result()
        if begun is None:
            return Response(200, b"", NDJSON.encode())
        return Response(200, b"", NDJSON.encode(), (), channel.rest(begun))


def _body(endpoint: Endpoint, request: Request) -> bytes:
    told = (request.header("content-type") or NDJSON).partition(";")[0].strip().lower()
    if told not in (NDJSON, "application/json", "text/plain", "application/octet-stream"):
        raise Refusal(415, "UnsupportedMediaType", f"{endpoint.name} takes {NDJSON}.")
    return request.body


def pinned(history: History, endpoint: Endpoint, values: Values) -> Values:
    """Read the times of a question, and set those that it leaves open: they are the same for all its pages.

    Raises BadTime.
    """
    found, tz = dict(values), values.get("tz")
    names = {param.name for param in endpoint.params}
    if (
        "month" not in values and endpoint.rows is not None and names & {"month"}
    ) or endpoint.name == "coverage":
        found.setdefault("from", "-7d")
        found.setdefault("to", "now")
    for param in endpoint.params:
        if param.kind is Kind.TIME and param.name in found:
            found[param.name] = iso(history.milliseconds(found[param.name], tz))
    if "knownAt" in names and endpoint.rows is not None:
        known_at = history.known_at(found.get("knownAt"))
        if known_at >= 0:
            found["knownAt"] = iso(known_at)
    return found


def _page(history: History, endpoint: Endpoint, values: Values) -> Row:
    """Answer a page, and the path of the next."""
    asked = pinned(history, endpoint, values)
    limit, offset = asked.pop("limit", ITEMS), asked.pop("offset", 0)
    page: dict[str, Any] = {}

    def take(receipt: Row | None, rows: Iterable[Row]) -> None:
        if receipt is not None:
            page["receipt"] = receipt
        page["items"] = list(islice(rows, offset, offset + limit + 1))

    assert endpoint.rows is not None
    endpoint.rows(history, asked, take)
    items = page["items"]
    more = len(items) > limit
    page["items"] = items[:limit]
    page["next"] = _path(endpoint, {**asked, "limit": limit, "offset": offset + limit}) if more else None
    return page


def _path(endpoint: Endpoint, values: Mapping[str, Any]) -> str:
    words = {name: str(one).lower() if isinstance(one, bool) else one for name, one in values.items()}
    return f"{endpoint.path}?{urlencode(words, doseq=True)}"


def _send(history: History, endpoint: Endpoint, values: Values, channel: Channel) -> None:
    """Write a receipt and rows as NDJSON, in the thread that reads them."""
    asked = pinned(history, endpoint, values)
    limit, offset = asked.pop("limit", None), asked.pop("offset", 0)
    sent = False

    def take(receipt: Row | None, rows: Iterable[Row]) -> None:
        nonlocal sent
        lines = [] if receipt is None else [json_line(receipt)]
        size = 0
        for row in islice(rows, offset, None if limit is None else offset + limit):
            line = json_line(row)
            lines.append(line)
            size += len(line)
            if size >= CHUNK:
                channel.put(("\n".join(lines) + "\n").encode())
                sent, lines, size = True, [], 0
        if lines:
            channel.put(("\n".join(lines) + "\n").encode())
            sent = True

    assert endpoint.rows is not None
    try:
        endpoint.rows(history, asked, take)
        channel.put(None)
    except Gone:
        return
    except Exception as error:
        if not sent:
            raise
        # The status is sent; the last line says that the rest is missing.
        refusal = refusal_of(error)
        channel.put((json_line({"error": refusal.name, "message": str(refusal)}) + "\n").encode())
        channel.put(None)
        raise
