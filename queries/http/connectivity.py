"""GetThingConnectivityData, as of any instant. It answers what `thingline at --aws` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queries.history import History
from queries.output import aws_value


def get_thing_connectivity_data(
    history: History, at: int, known_at: int | None, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer the response of the operation. Raises AnswerError, as AWS would."""
    answer, told = history.connection(request["thingName"], at, known_at=known_at)
    return {**aws_value(answer), **told}
