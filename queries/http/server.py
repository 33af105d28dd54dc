"""Listens: granian in this process's event loop, until a signal says stop.

granian bounds the size of a head and the time that it takes; it keeps the raw path. Whether somebody else listens at
the address already is looked at first, for granian would share it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

from queries.http.limits import HEAD_S, MOST_HEADERS
from store.errors import UsageError

MOST_CONNECTIONS = 4_096
DRAIN_S = 5  # for what is being answered, once told to stop


class Place:
    """An address that can be listened at: `host` an address, `port` not 0."""

    def __init__(self, host: str, port: int, is_ipv6: bool) -> None:
        self.host = host
        self.port = port
        self.url = f"http://[{host}]:{port}" if is_ipv6 else f"http://{host}:{port}"


def place_of(host: str, port: int) -> Place:
    """Look up a host, and see that nobody listens there; port 0 chooses one. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            tried.listen()
            chosen = tried.getsockname()
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened at: {error.strerror or error}.") from error
    return Place(chosen[0], chosen[1], family == socket.AF_INET6)


def run(
    app: Any, place: Place, *, listening: Callable[[], None], stopping: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT, and let what is being answered finish.

    `listening` is called once it listens, `stopping` when it is told to stop, to end what has no end.
    """
    try:
        import uvloop
    except ImportError:  # a system that it is not made for
        asyncio.run(_serve(app, place, listening, stopping))
    else:
        uvloop.run(_serve(app, place, listening, stopping))


async def _serve(app: Any, place: Place, listening: Callable[[], None], stopping: Callable[[], None]) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    server = Server(
        app,
        address=place.host,
        port=place.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_S * 1000, max_buffer_size=MOST_HEADERS),
        websockets=False,
        backlog=1_024,
        backpressure=MOST_CONNECTIONS,
        log_enabled=False,
    )
    server.workers_kill_timeout = DRAIN_S

    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.set_exception_handler(_let_go)
        stopping()
        server.stop()  # type: ignore[no-untyped-call]

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = loop.create_task(server.serve())
    announcing = loop.create_task(_announce(place, listening))
    try:
        await serving
    except TimeoutError:  # granian's, of what did not end within DRAIN_S: it is let go of
        pass
    finally:
        announcing.cancel()


def _let_go(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of a worker that ends just as granian no longer waits for it."""
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


async def _announce(place: Place, listening: Callable[[], None]) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(place.host, place.port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            listening()
            return
