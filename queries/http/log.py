"""The access log: a line of JSON for each request. Holds no header, no query and no body, so no secret either.

A path is anybody's text, also of who may not ask: it is cut, and what a terminal might obey is written in percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import quote

from queries.output import json_line
from queries.times import iso
from store.clock import Clock

MOST_PATH = 1_000  # characters
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class AccessLog:
    """Writes lines. `redact_names`: of a path only its operation is told, and of the caller nothing."""

    def __init__(self, out: IO[str], *, redact_names: bool, clock: Clock) -> None:
        self._out = out
        self._redact_names = redact_names
        self._clock = clock

    def write(self, told: Mapping[str, Any]) -> None:
        """Write one line."""
        line = {"time": iso(self._clock()), **told}
        if self._redact_names:
            del line["path"], line["caller"]
        else:
            line["path"] = quote(told["path"][:MOST_PATH], _PRINTABLE, "latin-1")
        self._out.write(json_line(line) + "\n")
        self._out.flush()
