"""How a running ingester shows what it does: /metrics for Prometheus, /healthz and /readyz for whoever restarts it.

On loopback only: what it tells is of the whole fleet, and it asks nobody who they are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ingest.inbox import Inbox
from ingest.tally import Tally
from store.clock import Clock
from store.errors import SourceError, UsageError

QUIET_MS = 60_000  # a source that has not answered for so long is not ready

_WRITTEN = {
    "stored": "Pieces of evidence that were new",
    "duplicates": "Pieces of evidence that were there already",
    "corrections": "Transitions that late evidence superseded",
    "transitions": "Transitions written",
    "checks": "API checks that spoke of a connection",
    "stale": "API checks that named an older instant than was held",
    "quarantined": "Records that could not be read",
}


class _Collector:
    """Turns the tally into metrics when it is asked for."""

    def __init__(self, tally: Tally, inbox: Inbox, clock: Clock) -> None:
        self._tally = tally
        self._inbox = inbox
        self._clock = clock

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
            return CounterMetricFamily(f"thingline_{name}", text, labels=labels)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
            return GaugeMetricFamily(f"thingline_{name}", text, labels=labels)

        messages = counter("messages", "Messages received", ("source",))
        size = counter("received_bytes", "Bytes of messages received", ("source",))
        failures = counter("failures", "Calls that failed", ("source", "trouble"))
        answered = gauge("source_answered_seconds_ago", "Since a source last answered", ("source",))
        lag = gauge("event_age_seconds", "How old the newest event of a source is", ("source",))
        with self._tally.lock:
            now_ms = self._clock()
            for name, seen in self._tally.sources.items():
                messages.add_metric([name], seen.messages)
                size.add_metric([name], seen.bytes)
                for trouble, count in seen.failures.items():
                    failures.add_metric([name, trouble], count)
                if seen.received_ms is not None:
                    answered.add_metric([name], (now_ms - seen.received_ms) / 1000)
                if seen.newest_ms is not None:
                    lag.add_metric([name], (now_ms - seen.newest_ms) / 1000)
            written, batches = asdict(self._tally.written), self._tally.batches
        yield from (messages, size, failures, answered, lag)
        for name, text in _WRITTEN.items():
            one = counter(name, text)
            one.add_metric([], written[name])
            yield one
        one = counter("commits", "Transactions")
        one.add_metric([], batches)
        yield one
        waiting = gauge("waiting_bytes", "Bytes received and not written yet")
        waiting.add_metric([], self._inbox.held_bytes)
        yield waiting


def unready(tally: Tally, now_ms: int) -> dict[str, str]:
    """Say of each source that is not ready why; empty: all are."""
    reasons: dict[str, str] = {}
    with tally.lock:
        for name, seen in tally.sources.items():
            if seen.received_ms is None:
                reasons[name] = "has not answered yet"
            elif now_ms - seen.received_ms > QUIET_MS:
                reasons[name] = (
                    f"has not answered, or could not be written, for {(now_ms - seen.received_ms) // 1000} s"
                )
    return reasons


@contextmanager
def serving(port: int, tally: Tally, inbox: Inbox, clock: Clock) -> Iterator[int]:
    """Serve on 127.0.0.1; gives the port (0 chooses one). Raises UsageError without prometheus-client, SourceError
    where the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError as error:
        raise UsageError("Metrics need prometheus-client: pip install 'thingline[serve]'.") from error

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(tally, inbox, clock))

    def ready() -> tuple[int, str, bytes]:
        reasons = unready(tally, clock())
        body = json.dumps({"ready": not reasons, **({"sources": reasons} if reasons else {})}).encode()
        return 503 if reasons else 200, "application/json", body

    pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
        "/healthz": lambda: (200, "application/json", b'{"alive": true}'),
        "/readyz": ready,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            code, kind, body = (
                (404, "application/json", b'{"message": "no such page"}') if page is None else page()
            )
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise SourceError(f"Metrics cannot be served on 127.0.0.1:{port}: {error.strerror}.") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
