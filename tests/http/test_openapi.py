"""The OpenAPI document against a running server: schemathesis draws requests from it, good ones and bad ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from queries.http.endpoints import ENDPOINTS
from tests.http.answers import fill
from tests.http.serving import serving

EXAMPLES = 10  # an operation and mode
# Left out: that what fits the schema is accepted. A time is a text, and not every text is a time.
WANTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Send what was drawn as it is, where it is a text."""
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    url = str(tmp_path_factory.mktemp("openapi") / "store.db")
    fill(url)
    with serving("--store", url) as base:
        yield schemathesis.openapi.from_url(f"{base}/api/v1/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("path", [one.path for one in ENDPOINTS if not one.is_endless])
def test_what_the_document_lets_one_ask_is_answered_as_it_says(
    schema: schemathesis.BaseSchema, path: str, mode: GenerationMode
) -> None:
    (method,) = (one.method for one in ENDPOINTS if one.path == path)
    operation = schema[path][method]
    checks: list[Any] = [CHECKS.get_one(name) for name in WANTED]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(checks=checks)

    ask()
