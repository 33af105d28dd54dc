"""Windows of a client's sessions, as wide as a change needs: what folding shows to the rules.

Never touches a database itself: what a window needs beyond the client's tail comes through the `History` that the
caller hands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from ingest.changes import Folded
from ingest.client import Client
from ingest.reduce import (
    SKEW_MS,
    identity,
    stamp_of,
)
from store.model import (
    Check,
    Identity,
    Session,
)

BESIDE = 4  # sessions to show on either side of what changed, at first
EVER_MS = 1 << 62  # later than every stamp


class Window(NamedTuple):
    """A run of one client's sessions, and whether its history goes on beyond either edge."""

    rows: list[Session]
    opens_left: bool
    opens_right: bool


class History(Protocol):
    """What a fold may ask of the store about one client."""

    def find(self, client_no: int, key: Identity) -> Session | None:
        """Give the session that bears this identity."""

    def presume_new(self, client_no: int, session_id: str) -> bool:
        """Tell whether a connect later than all else begins a session; what is only presumed is verified later."""

    def window(self, client_no: int, from_ms: int, to_ms: int, beside: int) -> Window:
        """Give all sessions stamped in `[from_ms, to_ms]`, and up to `beside` more on either side."""

    def save(self, client_no: int, folded: Folded) -> None:
        """Make this step's sessions part of what the other questions are answered from; none is presumed then."""

    def latest_end(self, client_no: int, before_ms: int) -> int:
        """Give the latest disconnect of the sessions that have a connect, stamped before `before_ms`; -1: none."""

    def of_version(self, client_no: int, version: int) -> list[Session]:
        """Give all sessions of a version; and those without any whose connect or disconnect one shares."""

    def checks(self, client_no: int, from_ms: int, to_ms: int) -> list[Check]:
        """Give the checks before this step that name an instant in `[from_ms, to_ms]`, or were asked in it.

        Of checks that repeat an answer, the last; of those that repeat one without an instant, all.
        """


def held_of(client: Client, key: Identity, history: History, folded: Folded) -> Session | None:
    """Find what is held of a session: in the tail, in this step, or in the store."""
    held = client.tail.get(key)
    if held is None:
        held = folded.sessions.get(key)
    if held is None and client.opens_left:
        held = history.find(client.client_no, key)
    return held


class Span(NamedTuple):
    """Changes that are folded together, and the stamps that they touch."""

    from_ms: int
    to_ms: int
    changes: dict[Identity, tuple[Session | None, Session]]
    checks: list[Check]


class View(NamedTuple):
    """What to show the rules for a span: a window, strays' partners beyond it, and from when on rows are right."""

    window: Window
    far: list[Session]
    trusted_ms: int


def views_of(client: Client, span: Span, history: History, folded: Folded) -> Iterator[View]:
    """Give wider and wider windows of a client without strays: of its tail if that reaches, then of the store."""
    from_ms, to_ms, beside = span.from_ms - 2 * SKEW_MS, span.to_ms + 2 * SKEW_MS, BESIDE
    window = Window(sorted(client.tail.values(), key=stamp_of), client.opens_left, False)
    if not window.opens_left or (window.rows and from_ms > stamp_of(window.rows[0])):
        yield View(window, [], -EVER_MS)
        beside *= 4
    while True:
        history.save(client.client_no, folded)
        yield View(history.window(client.client_no, from_ms, to_ms, beside), [], -EVER_MS)
        beside *= 4


def shown_in(window: Window, span: Span, far: Iterable[Session] = ()) -> tuple[list[Session], list[Session]]:
    """List the sessions of the window, and those far from it, as they were and as they are now."""
    before = {identity(row): row for row in (*far, *window.rows)}
    after = dict(before)
    for key, (held, merged) in span.changes.items():
        if held is not None:
            before[key] = held
        after[key] = merged
    return list(before.values()), list(after.values())
