"""The application, called in process: paths, errors, limits, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ingest.writer import Writer
from queries.fleet_reads import FleetReads
from queries.history import History, open_history
from queries.http.app import App
from queries.http.auth import Gate
from queries.http.credentials import Credentials, digest
from queries.http.fleet import fleet_operations
from queries.http.limits import MOST_BODY, SMALL_BODY, Bodies, Rate
from queries.http.log import MOST_PATH, AccessLog
from queries.http.messages import Refusal
from queries.http.operations import OPERATIONS
from queries.http.paths import Target, target_of
from queries.http.readers import LOOK_S, THREADS, Readers
from queries.times import iso
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Learned
from tests.builders import T0, connect
from tests.http.answers import HOUR_MS, TOKEN, at, fill
from tests.http.serving import Told, ask, asking

UP = b'{"thingName":"pump-17","connected":true,"timestamp":%d.007,"disconnectReason":"NONE"}' % (T0 // 1000)
OPERATION = "/things/pump-17/connectivity-data"
CLOSED = Credentials(tokens={"grafana": digest(TOKEN)})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = f"sqlite:///{tmp_path_factory.mktemp('http') / 'store.db'}"
    fill(found)
    return found


@pytest.fixture
def readers(url: str) -> Iterator[Readers]:
    found = Readers(lambda: open_history(url), parse_url(url))
    yield found
    found.close()


def app_of(readers: Readers, **more: Any) -> App:
    return App(readers, Gate(Credentials(), region=None, clock=system_clock), **more)


@pytest.fixture
def app(readers: Readers) -> App:
    return app_of(readers)


def error_of(told: Told) -> tuple[int, str]:
    """Give the status and the name of an error in AWS's shape, as both of its places have it."""
    assert told.headers["content-type"] == "application/json"
    value = json.loads(told.body)
    assert set(value) == {"__type", "message"}
    assert value["__type"] == told.headers["x-amzn-errortype"]
    return told.status, value["__type"]


# --- Paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        ("/things/a/connectivity-data", (("things", "a", "connectivity-data"), None, None)),
        ("//things/a", (("things", "a"), None, None)),
        ("/at/T/things/a", (("things", "a"), "T", None)),
        ("/at/T//things/a", (("things", "a"), "T", None)),
        ("/at/T/known-at/K/things", (("things",), "T", "K")),
        ("/known-at/K/at/T/things", (("things",), "T", "K")),
        ("/at/a%3Ab+c%2Bd%20e/things", (("things",), "a:b+c+d e", None)),
        ("/at/T/at/U/things", (("at", "U", "things"), "T", None)),
        ("/things/a%2Fb/x", (("things", "a/b", "x"), None, None)),
        ("/things//x", (("things", "", "x"), None, None)),
        ("/things/at/x", (("things", "at", "x"), None, None)),
        ("/things/../x", (("things", "..", "x"), None, None)),
        ("/things/%ff", (("things", "\ufffd"), None, None)),
        ("/at", (("at",), None, None)),
        ("/at/T", ((), "T", None)),
        ("/", (("",), None, None)),
        ("*", ((), None, None)),
    ],
)
def test_a_path_is_split_before_it_is_decoded(raw: str, target: tuple[Any, ...]) -> None:
    assert target_of(raw) == Target(*target)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "*",
        "/at",
        "/at/2026-11-01T03:12:00Z",
        "/things",
        "/things/pump-17",
        "/things/pump-17/",
        "/things/pump-17/connectivity-data/",
        "/things//connectivity-data/pump-17",
        "/things/x/../pump-17/connectivity-data",
        "/at/x/../../things/pump-17/connectivity-data",
        "/things%2Fpump-17%2Fconnectivity-data",
        "/THINGS/pump-17/connectivity-data",
        "/things/pump-17/connectivity-data%00",
        "/at/%2E%2E/at/x/things/pump-17/connectivity-data",
    ],
)
def test_a_path_of_no_operation_is_not_found(app: App, path: str) -> None:
    assert error_of(ask(app, path, method="PATCH")) == (404, "UnknownOperationException")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_another_method_is_told_which(app: App, method: str) -> None:
    told = ask(app, OPERATION, method=method)
    assert told.status == 405
    assert told.headers["allow"] == "POST"
    assert not any(name.startswith("access-control") for name in told.headers)
    if method != "HEAD":
        assert error_of(told)[1] == "MethodNotAllowedException"


# --- Bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"includeSocketInformation":true,"thingName":"nope","\\u0000":[]}']
)
def test_members_that_nobody_knows_are_for_nobody(app: App, body: bytes) -> None:
    told = ask(app, at(30_000) + OPERATION, body=body)
    assert (told.status, told.body) == (200, UP)
    assert told.headers["content-type"] == "application/json"
    assert len(told.headers["x-amzn-requestid"]) == 32


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b"nul"])
def test_a_body_that_is_no_object_is_refused(app: App, body: bytes) -> None:
    assert error_of(ask(app, OPERATION, body=body)) == (400, "SerializationException")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": str(MOST_BODY + 1)},
        {"transfer-encoding": "chunked"},
        {"content-length": "-1"},
        {"content-length": "0" * 5_000 + "2"},
    ],
)
def test_a_body_that_is_too_large_is_refused(app: App, headers: dict[str, str]) -> None:
    sent = [*headers.items()]
    told = _ask_in_parts(app, sent, [b"x" * 600_000] * 2)
    assert error_of(told) == (413, "RequestEntityTooLargeException")


def _ask_in_parts(app: App, headers: list[tuple[str, str]], parts: list[bytes]) -> Told:
    class Split:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            rest = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

            async def receive_part() -> Any:
                return rest.pop(0) if rest else {"type": "http.disconnect"}

            await app(scope, receive_part, send)

    return ask(Split(), OPERATION, headers=headers)


def test_a_body_that_ends_before_its_end_is_refused(app: App) -> None:
    assert _ask_in_parts(app, [("content-length", "10")], [b"{"]).status == 400


class _Never:
    """An application whose caller sends a head, and never a body."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def receive_nothing() -> Any:
            raise AssertionError("the body was waited for")

        await self._app(scope, receive_nothing, send)


@pytest.mark.parametrize(
    ("credentials", "headers", "error"),
    [
        (Credentials(), {"host": "evil.example"}, (403, "ForbiddenException")),
        (Credentials(), {"origin": "http://evil.example"}, (403, "ForbiddenException")),
        (CLOSED, {}, (401, "MissingAuthenticationTokenException")),
        (CLOSED, {"authorization": "Bearer wrong"}, (401, "UnauthorizedException")),
    ],
)
def test_the_body_of_who_may_not_ask_is_not_waited_for(
    readers: Readers, credentials: Credentials, headers: dict[str, str], error: tuple[int, str]
) -> None:
    app = App(readers, Gate(credentials, region=None, clock=system_clock))
    assert error_of(ask(_Never(app), OPERATION, headers={**headers, "content-length": "9"})) == error


def test_bodies_that_come_at_once_share_a_room_beyond_what_is_small() -> None:
    bodies = Bodies(room=1_000)

    async def read(*sizes: int) -> list[bytes | BaseException]:
        """Read bodies of which the last byte comes once all have come so far, or were refused."""
        others = asyncio.Event()

        async def one(size: int) -> bytes:
            parts = [b"a" * (size - 1), b"b"]

            async def receive() -> Any:
                if len(parts) == 1:
                    asyncio.get_running_loop().call_later(0.01, others.set)
                    await others.wait()
                return {"body": parts.pop(0), "type": "http.request", "more_body": bool(parts)}

            return await bodies.read({}, receive)

        return await asyncio.gather(*map(one, sizes), return_exceptions=True)

    large = SMALL_BODY + 1_000
    first, second, third = asyncio.run(read(large, large, SMALL_BODY))
    refused = [one for one in (first, second) if isinstance(one, Refusal)]
    assert [one.status for one in refused] == [503]
    assert third == b"a" * (SMALL_BODY - 1) + b"b"
    assert isinstance(asyncio.run(read(large))[0], bytes)  # what was taken is given back


# --- What goes wrong inside ---------------------------------------------------------------------------------


def test_an_error_of_ours_is_told_to_the_log_alone(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(History, "connection", fails)
    told = ask(app, OPERATION)
    assert error_of(told) == (500, "InternalFailureException")
    assert b"secret" not in told.body
    err = capsys.readouterr().err
    assert "a secret of the house" in err
    assert told.headers["x-amzn-requestid"] in err


def test_an_error_is_answered_though_nobody_reads_the_log(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(History, "connection", fails)
    with open(writes, "w", buffering=1) as broken:
        monkeypatch.setattr("sys.stderr", broken)
        told = ask(app, OPERATION)
        monkeypatch.undo()
        with suppress(BrokenPipeError):
            broken.close()
    assert error_of(told) == (500, "InternalFailureException")


def test_a_store_that_went_away_is_unavailable_and_its_place_is_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "gone.db")
    found = Readers(lambda: open_history(place), parse_url(place))
    told = ask(app_of(found), OPERATION)
    found.close()
    assert error_of(told) == (503, "ServiceUnavailableException")
    assert b"gone.db" not in told.body
    assert "gone.db" in capsys.readouterr().err


def test_a_store_that_was_put_in_the_place_of_another_is_not_answered_from_half_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, old, new = (tmp_path / name for name in ("store.db", "old.db", "new.db"))
    fill(str(place))
    fill(str(new))
    found = Readers(lambda: open_history(str(place)), parse_url(str(place)))
    app = app_of(found, operations=(*OPERATIONS, *fleet_operations(FleetReads(b"key"))))
    both: list[tuple[str, dict[str, Any]]] = [
        (OPERATION, {}),
        ("/indices/search", {"body": b'{"queryString":"*"}'}),
    ]
    assert {ask(app, path, **more).status for path, more in both} == {200}
    place.rename(old)
    for after in (lambda: None, lambda: new.rename(place)):
        after()
        time.sleep(2 * LOOK_S)
        for path, more in both:
            assert error_of(ask(app, path, **more)) == (503, "ServiceUnavailableException")
            assert "restart the server" in capsys.readouterr().err
    old.rename(place)
    time.sleep(2 * LOOK_S)
    assert {ask(app, path, **more).status for path, more in both} == {200}
    found.close()


def test_a_history_whose_connection_broke_is_opened_again(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[History] = []

    def open_one() -> History:
        opened.append(open_history(url))
        return opened[-1]

    found = Readers(open_one, parse_url(url))
    app = app_of(found)
    assert ask(app, OPERATION).status == 200
    opened[0]._asker._driver.close()
    assert error_of(ask(app, OPERATION)) == (503, "ServiceUnavailableException")
    assert ask(app, OPERATION).status == 200
    assert len(opened) == 2
    found.close()


@pytest.mark.parametrize("in_loop", [True, False])
def test_questions_that_come_at_once_are_each_told_their_own_answer(url: str, in_loop: bool) -> None:
    found = Readers(lambda: open_history(url), parse_url(url))
    found.answers_in_loop = in_loop
    app = app_of(found)
    paths = [
        at(30_000) + OPERATION,
        at(90_000) + OPERATION,
        "/things/nope/connectivity-data",
        "/at/x" + OPERATION,
    ]
    one_by_one = [ask(app, path) for path in paths]

    async def together() -> list[Told]:
        return await asyncio.gather(*(asking(app, path) for path in paths * 50))

    for _ in range(2):
        told = asyncio.run(together())
        assert [one.body for one in told] == [one.body for one in one_by_one] * 50
        assert [one.status for one in told] == [200, 200, 404, 400] * 50
    found.close()


def test_a_question_that_takes_long_holds_up_the_end_for_a_while_only(url: str) -> None:
    found = Readers(lambda: open_history(url), parse_url(url))
    begun, ends = threading.Event(), threading.Event()

    def slow(_: History) -> None:
        begun.set()
        ends.wait()

    async def end() -> bool:
        asked = asyncio.ensure_future(found.elsewhere(slow))
        await asyncio.to_thread(begun.wait)
        is_over = found.close(patience_s=0.05)
        ends.set()
        await asked
        return is_over

    assert asyncio.run(end()) is False
    assert found.close()


def test_point_answers_reports_and_streams_do_not_wait_for_each_other(url: str) -> None:
    found = Readers(lambda: open_history(url), parse_url(url))
    found.answers_in_loop = False
    ways = (found.soon, found.elsewhere, found.while_sent)

    async def answers_beside(way: Any) -> None:
        """Answer in the other ways while all threads of one are busy."""
        ends = threading.Event()
        slow = [asyncio.ensure_future(way(lambda _: ends.wait())) for _ in range(2 * THREADS)]
        try:
            await asyncio.sleep(0)
            async with asyncio.timeout(20):
                for other in ways:
                    if other != way:
                        assert await other(lambda history: history.realm) == "default"
        finally:
            ends.set()
        await asyncio.gather(*slow)

    for way in ways:
        asyncio.run(answers_beside(way))
    found.close()


def test_what_is_learned_is_answered_by_the_next_question(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    fill(place)
    found = Readers(lambda: open_history(place), parse_url(place))
    app = app_of(found)
    path = "/at/" + iso(T0 + 50 * HOUR_MS) + "/things/new-1/connectivity-data"
    with open_writer(parse_url(place)) as store, Writer(store) as writer:

        async def both() -> tuple[int, int]:
            before = await asking(app, path)
            await asyncio.sleep(0)  # a request that comes later is a step of the loop of its own
            writer.write([Learned(connect(T0 + 49 * HOUR_MS, client_id="new-1"), 0)], source="test")
            return before.status, (await asking(app, path)).status

        assert asyncio.run(both()) == (404, 200)
    found.close()


# --- Rate and log -------------------------------------------------------------------------------------------


def test_whoever_asks_too_often_is_throttled_until_the_bucket_has_filled(readers: Readers) -> None:
    now_s = [0.0]
    app = app_of(readers, rate=Rate(2, 2, lambda: now_s[0]))
    assert [ask(app, OPERATION).status for _ in range(3)] == [200, 200, 400]
    assert error_of(ask(app, OPERATION)) == (400, "ThrottlingException")
    now_s[0] = 0.5
    assert [ask(app, OPERATION).status for _ in range(2)] == [200, 400]


def test_the_log_has_a_line_for_each_request_and_no_secret(readers: Readers) -> None:
    out = StringIO()
    app = app_of(readers, log=AccessLog(out, redact_names=False, clock=lambda: T0).write)
    told = ask(
        app, OPERATION, headers={"authorization": "Bearer hush"}, query="token=hush", body=b'{"a":"hush"}'
    )
    line = json.loads(out.getvalue())
    assert line.pop("ms") >= 0
    assert line == {
        "time": "2026-09-21T14:13:20.000Z",
        "requestId": told.headers["x-amzn-requestid"],
        "method": "POST",
        "path": OPERATION,
        "operation": "GetThingConnectivityData",
        "caller": "127.0.0.1",
        "status": 200,
    }


def test_the_log_writes_no_path_that_a_terminal_obeys_or_that_fills_it(readers: Readers) -> None:
    out = StringIO()
    app = app_of(readers, log=AccessLog(out, redact_names=False, clock=lambda: T0).write)
    ask(app, "/things/a\xc2\x9b31m%2F\x7f/" + "b" * 60_000)
    assert out.getvalue().isascii()
    assert json.loads(out.getvalue())["path"] == ("/things/a%C2%9B31m%2F%7F/" + "b" * (MOST_PATH - 19))


def test_the_log_leaves_names_out_where_that_is_wanted(readers: Readers) -> None:
    out = StringIO()
    ask(app_of(readers, log=AccessLog(out, redact_names=True, clock=lambda: T0).write), OPERATION)
    assert "pump" not in out.getvalue()
    assert set(json.loads(out.getvalue())) == {"time", "requestId", "method", "operation", "status", "ms"}


def test_whether_it_is_alive_is_told_to_everybody(app: App) -> None:
    told = ask(app, "/healthz", method="GET", host="10.0.0.1")
    assert (told.status, told.body) == (200, b'{"alive":true}')
