"""The OpenAPI document of /api/v1, made of the declarations that route and validate. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from queries.http.declarations import PAGE, Endpoint, Param

NDJSON = "application/x-ndjson"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "requestId"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {
            "type": "string",
            "description": "What to go by: ResourceNotFoundException, ThrottlingException, ...",
        },
        "requestId": {"type": "string"},
    },
}
_PAGE = {
    "type": "object",
    "required": ["items", "next"],
    "properties": {
        "receipt": {"type": "object", "description": "What a report is about, and how to have it again."},
        "items": {"type": "array", "items": {"type": "object"}},
        "next": {
            "type": ["string", "null"],
            "description": "The path of the next page; its times are pinned.",
        },
    },
}
_STATUSES = {
    400: "The question cannot be asked, or the history begins later",
    401: "No token, or none of those that may ask",
    403: "Not signed as it must be, or another origin's page",
    404: "No such thing was known then",
    408: "The body took too long",
    413: "The body is too large",
    500: "Something went wrong inside",
    503: "The store does not answer",
}


def _parameter(param: Param) -> dict[str, Any]:
    one = param.schema()
    schema = {"type": "array", "items": one} if param.is_many else one
    return {
        "name": param.name,
        "in": "query",
        "required": param.is_needed,
        "description": param.text,
        "schema": schema,
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    params = (*endpoint.params, *PAGE) if endpoint.is_listed else endpoint.params
    if endpoint.is_endless:
        content: dict[str, Any] = {"text/event-stream": {"schema": {}}}
    elif endpoint.one is not None:
        content = {"application/json": {"schema": {"type": "object"}}}
    elif endpoint.body is not None:
        content = {NDJSON: {"schema": {}}}
    else:
        content = {
            "application/json": {"schema": {"$ref": "#/components/schemas/Page"}},
            NDJSON: {"schema": {}},
        }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    told: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": list(map(_parameter, params)),
        "responses": {
            "200": {"description": "The answer", "content": content},
            **{str(status): {"description": text, "content": problem} for status, text in _STATUSES.items()},
        },
    }
    if endpoint.body is not None:
        told["requestBody"] = {"required": True, "content": {endpoint.body: {"schema": {"type": "string"}}}}
    return told


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Write the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Thingline",
            "version": version,
            "description": "The connectivity history of AWS IoT things: what was connected when, as known when, and how"
            " sure that is. Times are read as ISO 8601 with a zone, epoch ms or s, now, or -2h, and written in UTC.",
        },
        "paths": {one.path: {one.method.lower(): _operation(one)} for one in endpoints},
        "security": [{}, {"bearer": []}],
        "components": {
            "schemas": {"Problem": _PROBLEM, "Page": _PAGE},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
