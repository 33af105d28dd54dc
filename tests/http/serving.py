"""`thingline serve` as a process of its own, and the application called in process."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests import processes

_LISTENING = re.compile(rb"listening at (http://\S+):")


@contextmanager
def serving(*args: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start the server at a port of its own; gives its URL, and ends it. What it wrote must name no traceback."""
    with running(*args, environment=environment) as (url, _):
        yield url


@contextmanager
def running(*args: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """Do as `serving` does, and give the number of its process too."""
    process = processes.start("serve", "--port", "0", *args, env={**os.environ, **(environment or {})})
    try:
        yield address_of(process), process.pid
    finally:
        process.terminate()
        code, _, err = processes.finish(process, timeout_s=30)
        assert code == 0, err
        assert "Traceback" not in err


def address_of(process: subprocess.Popen[bytes]) -> str:
    """Wait until a server listens; gives its URL."""
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if found := _LISTENING.search(line):
            return found[1].decode()
    raise AssertionError(f"it does not listen: {said.decode()}")


class Told(NamedTuple):
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(app: Any, path: str, **more: Any) -> Told:
    """Ask the application in process, as a server would; `more` as `asking` takes it."""
    return asyncio.run(asking(app, path, **more))


async def asking(
    app: Any,
    path: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: bytes = b"",
    query: str = "",
    host: str = "localhost:8080",
) -> Told:
    """Ask in the event loop that runs."""
    given = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    if not any(name == "host" for name, _ in given):
        given.insert(0, ("host", host))
    if body:
        given.append(("content-length", str(len(body))))
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given],
        "client": ("127.0.0.1", 40_000),
    }
    sent: list[Mapping[str, Any]] = []

    received = False

    async def receive() -> Mapping[str, Any]:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # nobody goes away
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    begin, *parts = sent
    told = {name.decode(): value.decode() for name, value in begin["headers"]}
    return Told(begin["status"], told, b"".join(part["body"] for part in parts))
