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

from ingest.checks import GET_THING_CONNECTIVITY_DATA, SEARCH_INDEX
from ingest.inbox import Inbox
from ingest.poller import Poller
from ingest.tally import QUIET_MS, Tally
from store.clock import Clock
from store.errors import SourceError, UsageError

_WRITTEN = {
    "stored": "Pieces of evidence that were new",
    "duplicates": "Pieces of evidence that were there already",
    "corrections": "Transitions that late evidence superseded",
    "transitions": "Transitions written",
    "checks": "API checks that spoke of a connection",
    "repeated": "API checks that said what the one before had said",
    "revealed": "Transitions that only API checks told of",
    "stale": "API checks that named an older instant than was held",
    "quarantined": "Records that could not be read",
}


class _Collector:
    """Turns the tally into metrics when it is asked for."""

    def __init__(self, tally: Tally, inbox: Inbox, poller: Poller | None, clock: Clock) -> None:
        self._poller = poller
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
                if seen.answered_ms is not None:
                    answered.add_metric([name], (now_ms - seen.answered_ms) / 1000)
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
        if self._poller is not None:
            calls = counter("check_calls", "Calls of AWS's API", ("api",))
            left = gauge("check_calls_left_today", "What the budget leaves until 00:00 UTC", ("api",))
            failed = counter("check_failures", "Calls that gave no answer", ("api",))
            progress, budget = self._poller.progress, self._poller.budget
            for api in (SEARCH_INDEX, GET_THING_CONNECTIVITY_DATA):
                calls.add_metric([api], progress.calls[api])
                failed.add_metric([api], progress.failures[api])
                left.add_metric([api], budget.left_today(api, now_ms))
            things = gauge("checked_things", "Things that AWS knows, as far as it was asked")
            things.add_metric([], progress.things)
            yield from (calls, failed, left, things)


def unready(tally: Tally, inbox: Inbox, now_ms: int) -> dict[str, str]:
    """Say what is not ready and why; empty: all is."""
    reasons: dict[str, str] = {}
    with tally.lock:
        for name, seen in tally.sources.items():
            if seen.quiet_ms is not None and (
                seen.answered_ms is None or now_ms - seen.answered_ms > seen.quiet_ms
            ):
                since = "yet" if seen.answered_ms is None else f"for {(now_ms - seen.answered_ms) // 1000} s"
                reasons[name] = f"has not answered {since}"
        committed_ms = tally.committed_ms
    if inbox.held and committed_ms is not None and now_ms - committed_ms > QUIET_MS:
        reasons["store"] = f"has taken nothing for {(now_ms - committed_ms) // 1000} s"
    return reasons


@contextmanager
def serving(
    port: int, tally: Tally, inbox: Inbox, clock: Clock, poller: Poller | None = None
) -> Iterator[int]:
    """Serve on 127.0.0.1; gives the port (0 chooses one). Raises UsageError without prometheus-client, SourceError
    where the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError as error:
        raise UsageError("Metrics need prometheus-client: pip install 'thingline[serve]'.") from error

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(tally, inbox, poller, clock))

    def ready() -> tuple[int, str, bytes]:
        reasons = unready(tally, inbox, clock())
        body = json.dumps({"ready": not reasons, **({"waitingFor": reasons} if reasons else {})}).encode()
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
