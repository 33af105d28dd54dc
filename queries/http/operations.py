"""The AWS-shaped operations that are answered, by method and path, as AWS's own service model has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from queries.history import History
from queries.http.connectivity import get_thing_connectivity_data
from queries.http.messages import Refusal

Answers = Callable[[History, int, int | None, Mapping[str, Any]], dict[str, Any]]


class Operation(NamedTuple):
    """An operation: a segment of its path in braces is a member of the request.

    `is_quick`: it costs a few seeks. `members_in_query`: of a GET, by their names in the query.
    """

    name: str
    method: str
    path: tuple[str, ...]
    answers: Answers
    is_quick: bool = False
    members_in_query: Mapping[str, type] = {}


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GetThingConnectivityData",
        "POST",
        ("things", "{thingName}", "connectivity-data"),
        get_thing_connectivity_data,
        is_quick=True,
    ),
)


class Routes:
    """Finds the operation of a path that was split and decoded."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        self._by_length: dict[int, list[Operation]] = {}
        for one in operations:
            self._by_length.setdefault(len(one.path), []).append(one)

    def find(self, method: str, segments: tuple[str, ...]) -> tuple[Operation, dict[str, Any]]:
        """Give the operation and the members that the path holds. Raises Refusal: 404, or 405 for another method."""
        allowed: list[str] = []
        for one in self._by_length.get(len(segments), ()):
            members: dict[str, Any] = {}
            for wanted, segment in zip(one.path, segments, strict=True):
                if wanted[0] == "{":
                    members[wanted[1:-1]] = segment
                elif wanted != segment:
                    break
            else:
                if one.method == method:
                    return one, members
                allowed.append(one.method)
        if allowed:
            raise Refusal(
                405,
                "MethodNotAllowedException",
                f"That is asked with {', '.join(allowed)}.",
                ((b"allow", ", ".join(allowed).encode()),),
            )
        raise Refusal(404, "UnknownOperationException", "No operation has that path.")
