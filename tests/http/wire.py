"""A wire between a client and a PostgreSQL of our own that can be made to swallow everything, as a cut network does.

What is sent into it is taken and kept, and nothing of it arrives until it flows again: neither side hears of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit


class Wire:
    """Forwards what comes to a port of this machine to a Unix socket; see `wired`."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._loop: asyncio.AbstractEventLoop
        self._flowing = asyncio.Event()
        self._over = asyncio.Event()
        self.port = 0

    def cut(self) -> None:
        """Swallow everything from now on; connections that are made are taken, too."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def mend(self) -> None:
        """Forward again, beginning with what was swallowed."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def stop(self) -> None:
        """End all connections, and forward no more."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def serve(self, is_listening: threading.Event) -> None:
        """Forward until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._flowing.set()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        is_listening.set()
        async with server:
            await self._over.wait()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = [writer]
        try:
            await self._flowing.wait()
            there, back = await asyncio.open_unix_connection(self._path)
            opened.append(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side went away, or the wire is taken down
        finally:
            for each in opened:
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await self._flowing.wait()
            target.write(data)
            await target.drain()
        target.close()


@contextmanager
def wired(store_url: str) -> Iterator[tuple[Wire, str]]:
    """Lay a wire to a database of our own server; gives it, and the URL of the same database through it."""
    parts = urlsplit(store_url)
    (folder,) = parse_qs(parts.query)["host"]
    wire, is_listening = Wire(f"{folder}/.s.PGSQL.5432"), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(wire.serve(is_listening)))
    thread.start()
    try:
        assert is_listening.wait(30)
        yield wire, f"postgresql://postgres@127.0.0.1:{wire.port}{parts.path}"
    finally:
        wire.stop()
        thread.join(30)
