"""What can be asked under /api/v1, declared once: routes, validation and the OpenAPI document all come from it.

Pure: knows no store and no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus

from queries.http.messages import Refusal, invalid

Row = Mapping[str, Any]
MOST_VALUES = 1_000  # of one parameter
_WHOLE = re.compile(r"-?[0-9]{1,15}", re.ASCII)


class Kind(StrEnum):
    """What a parameter's text must be."""

    TEXT = "text"
    TIME = "time"
    WHOLE = "whole"
    TRUTH = "truth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A parameter of a query. `is_many`: it may come more than once. `least` and `most` bound a whole number."""

    name: str
    text: str
    kind: Kind = Kind.TEXT
    is_needed: bool = False
    is_many: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None

    def schema(self) -> dict[str, Any]:
        """Give the JSON Schema of one value."""
        if self.kind is Kind.TRUTH:
            return {"type": "boolean"}
        if self.kind is Kind.WHOLE:
            bounds = {"minimum": self.least, "maximum": self.most}
            return {"type": "integer", **{name: one for name, one in bounds.items() if one is not None}}
        return {"type": "string", **({"enum": list(self.choices)} if self.choices else {})}

    def read(self, text: str) -> Any:
        """Read a value. Raises Refusal."""
        if self.kind is Kind.TRUTH:
            if text not in ("true", "false"):
                raise invalid(f"{self.name} is true or false.")
            return text == "true"
        if self.kind is Kind.WHOLE:
            value = int(text) if _WHOLE.fullmatch(text) else None
            if (
                value is None
                or (self.least is not None and value < self.least)
                or (self.most is not None and value > self.most)
            ):
                raise invalid(f"{self.name} is a whole number{_bounds(self.least, self.most)}.")
            return value
        if self.choices and text not in self.choices:
            raise invalid(f"{self.name} is one of {', '.join(self.choices)}.")
        return text


def _bounds(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    return "" if least is None else f" from {least:,} on"


Take = Callable[[Row | None, Iterable[Row]], None]  # a receipt, and the rows that it is of


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A question. `one` answers it with an object, `rows` hands rows to a taker while they can be read.

    A row is a line of NDJSON, or an item of a page. `body`: the media type of what is posted. `is_endless`: it is a
    stream of events, with neither.
    """

    name: str
    summary: str
    params: tuple[Param, ...]
    one: Callable[..., Row] | None = None
    rows: Callable[..., None] | None = None
    method: str = "GET"
    body: str | None = None
    is_quick: bool = False
    is_endless: bool = False

    @property
    def is_listed(self) -> bool:
        """Tell whether its answer has pages."""
        return self.rows is not None and self.body is None

    @property
    def path(self) -> str:
        """Give its path."""
        return f"/api/v1/{self.name}"


KNOWN_AT = Param(name="knownAt", text="As it was known then; default: as known now.", kind=Kind.TIME)
TZ = Param(name="tz", text="The zone of times that name none, of days and of months: Europe/Berlin, UTC.")
PAGE = (
    Param(name="limit", text="How many items a page has.", kind=Kind.WHOLE, least=1, most=10_000),
    Param(name="offset", text="How many items to leave out; `next` gives it.", kind=Kind.WHOLE, least=0),
)


def values_of(params: Sequence[Param], query: str) -> dict[str, Any]:
    """Read a query. Raises Refusal for what is unknown, missing, doubled or of another kind."""
    known = {param.name: param for param in params}
    found: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        raw, _, text = pair.partition("=")
        name = unquote_plus(raw)
        param = known.get(name)
        if param is None:
            raise invalid(
                f"There is no parameter {ascii(name)[:80]}; there are {', '.join(known) or 'none'}."
            )
        value = param.read(unquote_plus(text))
        if param.is_many:
            held = found.setdefault(name, [])
            if len(held) >= MOST_VALUES:
                raise invalid(f"{name} may come {MOST_VALUES:,} times.")
            held.append(value)
        elif name in found:
            raise invalid(f"{name} may come once.")
        else:
            found[name] = value
    for param in params:
        if param.is_needed and param.name not in found:
            raise invalid(f"{param.name} is missing: {param.text}")
    return found


def endpoint_of(endpoints: Mapping[str, Endpoint], method: str, raw_path: str) -> Endpoint:
    """Find an endpoint. Raises Refusal, 404 or 405."""
    found = endpoints.get(raw_path)
    if found is None:
        raise Refusal(
            404, "NotFound", "There is no such question; /api/v1/openapi.json has those that there are."
        )
    if found.method != method:
        raise Refusal(
            405,
            "MethodNotAllowed",
            f"That is asked with {found.method}.",
            ((b"allow", found.method.encode()),),
        )
    return found
