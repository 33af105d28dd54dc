"""What one caller may cost: the size of a body, the time to send it, and how often it may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from queries.http.messages import Refusal

MOST_BODY = 1 << 20  # bytes: as one record
SMALL_BODY = 16 << 10  # bytes that each may send, whatever others do
BODIES_ROOM = 64 << 20  # ... and beyond those all together, while they come
MOST_DIGITS = 20  # of a length; Python refuses to read thousands of them
MOST_HEADERS = 64 << 10  # bytes of a request's head
HEAD_S = 10  # to send the head of a request
BODY_S = 20  # ... and its body
MOST_CALLERS = 10_000  # remembered at once

Receive = Callable[[], Awaitable[Any]]


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether there is a body to be read."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


class Bodies:
    """Reads bodies, before it is known who sends them: large ones take from a room that all callers share."""

    def __init__(self, room: int = BODIES_ROOM) -> None:
        self._room = room

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read a whole body. Raises Refusal for one that is too long, too long in coming, or has no room just now."""
        length = headers.get(b"content-length")
        if length is not None and not _is_bearable(length):
            raise _too_large()
        parts: list[bytes] = []
        size = taken = 0
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "InvalidRequestException", "The request was not sent to its end.")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > MOST_BODY:
                        raise _too_large()
                    more = max(0, size - SMALL_BODY) - taken
                    if more > self._room:
                        raise Refusal(
                            503, "ServiceUnavailableException", "Too many large bodies at once; ask again."
                        )
                    self._room -= more
                    taken += more
                    parts.append(part)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refusal(
                408, "RequestTimeoutException", f"The body took more than {BODY_S} s to come."
            ) from None
        finally:
            self._room += taken
        return b"".join(parts)


def _is_bearable(length: bytes) -> bool:
    return length.isdigit() and len(length) <= MOST_DIGITS and int(length) <= MOST_BODY


def _too_large() -> Refusal:
    return Refusal(413, "RequestEntityTooLargeException", f"A body may have {MOST_BODY:,} bytes.")


class Rate:
    """Counts requests a caller by a bucket that fills `a_second` times a second and holds `burst`."""

    def __init__(self, a_second: float, burst: float, now_s: Callable[[], float]) -> None:
        self._a_second = a_second
        self._burst = burst
        self._now_s = now_s
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and as of when

    def take(self, caller: str) -> None:
        """Count one request. Raises Refusal: AWS clients wait and ask again after it."""
        now_s = self._now_s()
        left, since_s = self._buckets.pop(caller, (self._burst, now_s))
        left = min(self._burst, left + (now_s - since_s) * self._a_second)
        if len(self._buckets) >= MOST_CALLERS:
            del self._buckets[
                next(iter(self._buckets))
            ]  # who has asked least lately: its bucket is the fullest
        self._buckets[caller] = (left - 1 if left >= 1 else left, now_s)
        if left < 1:
            raise Refusal(400, "ThrottlingException", "Rate exceeded")
