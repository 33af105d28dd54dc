"""What comes in and what goes out: requests, responses, and refusals in AWS's shape and in our own.

Every body is JSON, of errors too: AWS's JavaScript SDK throws on any other. Nothing that went wrong inside is told.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from store.errors import AnswerError, ThinglineError, UsageError

Headers = tuple[tuple[bytes, bytes], ...]

_encode = msgspec.json.Encoder().encode

# Nothing may be kept, guessed, framed, run or fetched because of an answer.
SECURE: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
AWS_JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"


class Request(NamedTuple):
    """A request as it came: path, query and headers raw, names of headers in lower case, the body whole.

    `named` has the last value of each header, for those that may not come twice are looked for in `headers`.
    """

    method: str
    raw_path: str
    query: str
    headers: Sequence[tuple[bytes, bytes]]
    named: Mapping[bytes, bytes]
    body: bytes
    peer: str

    def header(self, name: str) -> str | None:
        """Give a header that may come once. Raises Refusal where it came twice."""
        values = self.all_of(name)
        if len(values) > 1:
            raise invalid(f"There is more than one {name} header.")
        return values[0] if values else None

    def all_of(self, name: str) -> list[str]:
        """Give every value of a header."""
        key = name.encode("latin-1")
        if key not in self.named:
            return []
        return [value.decode("latin-1") for told, value in self.headers if told == key]


class Response(NamedTuple):
    """A status, a body and its type; `stream` instead of the body where it is long."""

    status: int
    body: bytes
    content_type: bytes = AWS_JSON
    headers: Headers = ()
    stream: AsyncIterator[bytes] | None = None


class Refusal(Exception):
    """A request that is not answered: its status, AWS's name for that, and what to do."""

    def __init__(self, status: int, name: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.headers = headers


def invalid(message: str) -> Refusal:
    """Refuse a request that asks what cannot be asked."""
    return Refusal(400, "InvalidRequestException", message)


def json_response(value: object) -> Response:
    """Answer with an object."""
    return Response(200, _encode(value))


def refusal_of(error: Exception) -> Refusal:
    """Say an error as a refusal; of one that is not the asker's, no more than that it happened."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, AnswerError):
        return Refusal(error.http_status, error.aws_name, str(error))
    if isinstance(error, UsageError):
        return invalid(str(error))
    if isinstance(error, ThinglineError) and error.http_status == 503:
        return Refusal(
            503, "ServiceUnavailableException", "The store does not answer; the server's log says why."
        )
    return Refusal(500, "InternalFailureException", "Something went wrong; the server's log says what.")


Shape = Callable[[Refusal, str], Response]


def aws_error(refusal: Refusal, _: str) -> Response:
    """Write a refusal as AWS does; the header's name wins over the body's in every client."""
    body = _encode({"__type": refusal.name, "message": str(refusal)})
    return Response(
        refusal.status, body, AWS_JSON, ((b"x-amzn-errortype", refusal.name.encode()), *refusal.headers)
    )


def problem(refusal: Refusal, request_id: str) -> Response:
    """Write a refusal as RFC 9457 has it. `code` is AWS's name for it, which is what to go by."""
    value: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(refusal.status, "Error"),
        "status": refusal.status,
        "detail": as_parameters(str(refusal)),
        "code": refusal.name,
        "requestId": request_id,
    }
    return Response(refusal.status, _encode(value), PROBLEM_JSON, refusal.headers)


_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")  # as a command calls what is a parameter here


def as_parameters(text: str) -> str:
    """Call options by the names that parameters have: --group-by is groupBy."""
    return _OPTION.sub(lambda match: camel(match[1]), text)


def camel(option: str) -> str:
    """Write a word with dashes as one with humps."""
    first, *rest = option.split("-")
    return first + "".join(word.title() for word in rest)


TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
