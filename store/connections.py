"""The connections to a PostgreSQL that were opened for one purpose, so that all of them can be cut off at once.

A server that takes what it is sent and answers nothing is waited for without end: a timeout of TCP sees nothing wrong.
Whoever finds out that it is so frees those who wait.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet


class Connections:
    """Holds driver connections as long as somebody uses them. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: WeakSet[Any] = WeakSet()

    def hold(self, driver: Any) -> None:
        """Count a connection among these."""
        with self._lock:
            self._held.add(driver)

    def sever(self) -> None:
        """Cut off each: who waits for its server is told at once that the connection broke; so is who uses it."""
        with self._lock:
            for driver in list(self._held):
                # It may have been closed meanwhile. A socket of our own on the same connection: closing it leaves the
                # driver's alone.
                with suppress(Exception), socket.socket(fileno=os.dup(driver.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
            self._held.clear()
