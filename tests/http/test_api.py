"""/api/v1: the same answers as the commands print, in pages and streams, with errors that are problems."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import thingline
from ingest.forget import forget
from ingest.writer import Writer
from queries.history import History, open_history
from queries.http.api import Api
from queries.http.app import App
from queries.http.auth import Gate
from queries.http.credentials import Credentials
from queries.http.endpoints import ENDPOINTS
from queries.http.event_stream import EventStream
from queries.http.readers import THREADS, Readers
from queries.news import Position
from queries.times import iso
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Evidence, Learned, Watch
from tests.builders import T0, connect, disconnect
from tests.http.answers import BEGINS_MS, HOUR_MS, fill
from tests.http.serving import Told, ask, asking

FROM, TO = iso(BEGINS_MS), iso(T0 + 12 * HOUR_MS)
WINDOW = f"from={FROM}&to={TO}"
AT = iso(T0 + 90_000)
SUPPRESSED = {"again", "version"}


def app_over(url: str) -> tuple[App, Readers, EventStream]:
    readers = Readers(lambda: open_history(url), parse_url(url))
    events = EventStream(readers, every_s=0.02, beat_s=0.2)
    api = Api(readers, ENDPOINTS, events, version="1")
    gate = Gate(Credentials(), region=None, clock=system_clock)
    return App(readers, gate, api=api), readers, events


@pytest.fixture(scope="module")
def url(new_shared_url: Any) -> str:
    found: str = new_shared_url()
    fill(found)
    return found


@pytest.fixture(scope="module")
def app(url: str) -> Iterator[App]:
    found, readers, events = app_over(url)
    yield found
    events.close()
    readers.close()


def get(app: App, question: str, **headers: str) -> Told:
    name, _, query = question.partition("?")
    return ask(app, f"/api/v1/{name}", method="GET", query=query, headers=headers)


def lines(told: Told) -> list[Any]:
    assert told.status == 200, told.body
    assert told.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in told.body.splitlines()]


def page(told: Told) -> dict[str, Any]:
    assert told.status == 200, told.body
    assert told.headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(told.body)
    return found


# --- One rule, two doors ------------------------------------------------------------------------------------

SAME = {
    f"at?thing=pump-17&at={AT}": ("at", "pump-17", AT),
    f"at?thing=pump-17&at={AT}&client=true": ("at", "pump-17", AT, "--client"),
    f"explain?thing=pump-17&at={AT}": ("explain", "pump-17", AT),
    "history?thing=pump-17": ("history", "pump-17"),
    f"history?thing=pump-17&periods=true&{WINDOW}": (
        "history",
        "pump-17",
        "--periods",
        "--from",
        FROM,
        "--to",
        TO,
    ),
    "sessions?thing=pump-17": ("history", "pump-17", "--sessions"),
    "fidelity": ("fidelity",),
    "fidelity?by=thing": ("fidelity", "--by", "thing"),
    f"coverage?{WINDOW}": ("coverage", "--from", FROM, "--to", TO),
    f"snapshot?at={AT}": ("snapshot", AT),
    f"diff?from={FROM}&to={TO}": ("diff", FROM, TO),
    f"uptime?{WINDOW}&slo=99.9&policy=plain&policy=lenient:+grace%3D5m": (
        *("uptime", "--from", FROM, "--to", TO, "--slo", "99.9"),
        *("--policy", "plain", "--policy", "lenient: grace=5m"),
    ),
    f"uptime?{WINDOW}&thing=pump-17": ("uptime", "pump-17", "--from", FROM, "--to", TO),
    "uptime?month=2026-09&tz=Europe/Berlin&groupBy=type": (
        *("uptime", "--month", "2026-09", "--tz", "Europe/Berlin", "--group-by", "type"),
    ),
    f"outages?{WINDOW}&longest=1": ("outages", "--from", FROM, "--to", TO, "--longest", "1"),
    f"flapping?{WINDOW}&outages=2": ("flapping", "--from", FROM, "--to", TO, "--outages", "2"),
    f"takeovers?{WINDOW}": ("takeovers", "--from", FROM, "--to", TO),
    f"series?{WINDOW}&bucket=6h": ("series", "--from", FROM, "--to", TO, "--bucket", "6h"),
}


@pytest.mark.parametrize("question", SAME)
def test_an_answer_is_what_the_command_prints(
    app: App, url: str, question: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert thingline.main([*SAME[question], "--json", "--store", url]) == 0
    printed = [_bare(json.loads(line)) for line in capfd.readouterr().out.splitlines()]
    told = get(app, question)
    if "items" not in json.loads(told.body):
        assert [_bare(json.loads(told.body))] == printed
        return
    first = page(told)
    listed = [*([first["receipt"]] if "receipt" in first else []), *first["items"]]
    assert [_bare(one) for one in listed] == printed
    assert first["next"] is None
    assert [_bare(one) for one in lines(get(app, question, accept="application/x-ndjson"))] == printed


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what tells by which door it was asked, and until when where that was not said."""
    return {name: value for name, value in row.items() if name not in SUPPRESSED}


def test_many_questions_are_answered_in_their_order(app: App) -> None:
    asked = [
        {"thingName": "pump-17", "at": AT},
        {"thingName": "nope", "at": T0},
        {"thingName": "pump-17", "at": iso(T0 + 30_000), "knownAt": TO},
    ]
    body = b"\n".join(json.dumps(one).encode() for one in asked)
    told = lines(ask(app, "/api/v1/ask", body=body, headers={"content-type": "application/x-ndjson"}))
    assert [one["connected"] for one in told] == [False, None, True]
    assert [one["error"] for one in told] == [None, "ResourceNotFoundException", None]


def test_pages_tile_the_answer_whatever_is_learned_between_them(new_shared_url: Any) -> None:
    url = new_shared_url()
    fill(url)
    app, readers, _ = app_over(url)
    whole = page(get(app, f"outages?from={FROM}&to=-1h"))["items"]
    assert len(whole) > 2
    path, found = f"outages?from={FROM}&to=-1h&limit=1", []
    while True:
        told = page(get(app, path))
        found += told["items"]
        if told["next"] is None:
            break
        path = told["next"].removeprefix("/api/v1/")
        with open_writer(parse_url(url)) as store, Writer(store) as writer:
            more = [connect(T0 + len(found), client_id="a"), disconnect(T0 + 10 + len(found), client_id="a")]
            writer.write([Learned(one, 0) for one in more], source="test")
    assert [one | {"to": 0, "downMs": 0} for one in found] == [one | {"to": 0, "downMs": 0} for one in whole]
    readers.close()


def test_a_long_answer_comes_in_pieces_and_whole(app: App) -> None:
    body = b'{"thingName":"pump-17","at":1790000030}\n' * 3_000
    told = lines(ask(app, "/api/v1/ask", body=body))
    assert len(told) == 3_000
    assert {one["connected"] for one in told} == {True}


# --- Problems -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "status", "code"),
    [
        ("nothing", 404, "NotFound"),
        ("", 404, "NotFound"),
        ("at/", 404, "NotFound"),
        ("at", 400, "InvalidRequestException"),
        (f"at?thing=nope&at={AT}", 404, "ResourceNotFoundException"),
        (f"at?thing=pump-17&at={iso(BEGINS_MS - 1)}", 400, "IndexNotReadyException"),
        ("at?thing=pump-17&at=2099-01-01T00:00:00Z", 400, "InvalidRequestException"),
        ("at?thing=pump-17&at=soon", 400, "InvalidRequestException"),
        ("at?thing=a/b&at=now", 400, "InvalidRequestException"),
        ("at?thing=a&thing=b&at=now", 400, "InvalidRequestException"),
        ("at?thing=a&at=now&client=yes", 400, "InvalidRequestException"),
        ("at?thing=a&at=now&tz=Nowhere", 400, "InvalidRequestException"),
        ("history?thing=pump-17&limit=0", 400, "InvalidRequestException"),
        ("history?thing=pump-17&limit=1e3", 400, "InvalidRequestException"),
        ("history?thing=pump-17&offset=-1", 400, "InvalidRequestException"),
        ("history?thing=pump-17&colour=red", 400, "InvalidRequestException"),
        ("history?thing=pump-17&from=now&to=-1h", 400, "InvalidRequestException"),
        ("fidelity?by=colour", 400, "InvalidRequestException"),
        ("uptime?month=2026-09", 400, "InvalidRequestException"),
        ("uptime?month=2026-09&from=-1h&tz=UTC", 400, "InvalidRequestException"),
        ("uptime?policy=x:%20y%3Dz", 400, "InvalidRequestException"),
        ("uptime?groupBy=realm", 400, "InvalidRequestException"),
        ("snapshot?at=-1h&groupBy=realm", 400, "InvalidRequestException"),
        ("uptime?slo=many", 400, "InvalidRequestException"),
        ("outages?longest=0", 400, "InvalidRequestException"),
        ("series?bucket=-1h", 400, "InvalidRequestException"),
        ("events?after=1.2.3", 400, "InvalidRequestException"),
        ("events?after=x.0.0.0.0", 400, "InvalidRequestException"),
    ],
)
def test_what_cannot_be_answered_is_a_problem(app: App, question: str, status: int, code: str) -> None:
    for accept in ("application/json", "application/x-ndjson"):
        told = get(app, question, accept=accept)
        assert (told.status, told.headers["content-type"]) == (status, "application/problem+json")
        value = json.loads(told.body)
        assert (value["status"], value["code"]) == (status, code)
        assert value["requestId"] == told.headers["x-amzn-requestid"]
        assert "--" not in value["detail"]


def test_nothing_is_told_of_another_realm(new_shared_url: Any) -> None:
    url = new_shared_url()
    fill(url)
    with open_writer(parse_url(url)) as store, Writer(store, realm="other") as writer:
        known: list[Evidence] = [
            connect(T0 + 5_000, client_id="hidden-1", session="h"),
            disconnect(T0 + 9_000, client_id="hidden-1", session="h"),
            connect(T0 + 10_000, client_id="hidden-1", session="i"),
            connect(T0 + 1, client_id="hidden-2")._replace(thing_name="hidden-3"),
            Watch("hidden-queue", T0, T0 + 10_000),
        ]
        writer.write([Learned(one, 0) for one in known], source="hidden-queue")
    app, readers, _ = app_over(url)
    for question in SAME:
        told = get(app, question)
        assert b"hidden" not in told.body, question
        assert told.status == (400 if question.startswith("coverage") else 200), question
    for question in (f"at?thing=hidden-1&at={AT}", "history?thing=hidden-1", "sessions?thing=hidden-3"):
        assert get(app, question).status == 404
    readers.close()


def test_another_method_is_told_which(app: App) -> None:
    told = ask(app, "/api/v1/at", method="POST")
    assert (told.status, told.headers["allow"], told.headers["content-type"]) == (
        405,
        "GET",
        "application/problem+json",
    )


def test_a_question_of_another_type_is_refused(app: App) -> None:
    told = ask(app, "/api/v1/ask", body=b"<a/>", headers={"content-type": "application/xml"})
    assert told.status == 415


def test_what_goes_wrong_in_a_stream_is_told_in_its_last_line(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = History.periods

    def breaks(self: History, *args: Any, **more: Any) -> Iterator[Any]:
        for _ in range(500):
            yield from whole(self, *args, **more)
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(History, "periods", breaks)
    *told, last = lines(get(app, "history?thing=pump-17&periods=true", accept="application/x-ndjson"))
    assert len(told) > 500
    assert last["error"] == "InternalFailureException"
    assert "secret" not in last["message"]


def test_who_takes_no_more_of_a_stream_holds_up_nobody_else(url: str) -> None:
    app, readers, _ = app_over(url)

    class Stalled:
        """Passes on a head, and lets go of what is sent only in the end."""

        def __init__(self) -> None:
            self.begun, self.ends = asyncio.Event(), asyncio.Event()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_slowly(message: Mapping[str, Any]) -> None:
                if message["type"] == "http.response.body":
                    self.begun.set()
                    await self.ends.wait()
                await send(message)

            await app(scope, receive, send_slowly)

    async def scenario() -> None:
        stalled = [Stalled() for _ in range(THREADS)]
        more: dict[str, Any] = {"method": "GET", "headers": {"accept": "application/x-ndjson"}}
        query = f"from={iso(T0)}&to={iso(T0 + HOUR_MS)}&bucket=1s"
        told = [asyncio.ensure_future(asking(one, "/api/v1/series", query=query, **more)) for one in stalled]
        async with asyncio.timeout(20):
            for one in stalled:
                await one.begun.wait()
            assert (await asking(app, "/api/v1/outages", method="GET", query="from=-1h")).status == 200
        for one in stalled:
            one.ends.set()
        assert {len(lines(each)) for each in await asyncio.gather(*told)} == {3_601}

    asyncio.run(scenario())
    readers.close()


# --- Events -------------------------------------------------------------------------------------------------


class Heard:
    """Someone who listens: what was heard, and a way to go."""

    def __init__(self, app: App, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.text = ""
        self._gone = asyncio.Event()
        self._task = asyncio.ensure_future(self._listen(app, query, headers or {}))

    async def _listen(self, app: App, query: str, headers: Mapping[str, str]) -> None:
        async def receive() -> Mapping[str, Any]:
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                assert (b"content-type", b"text/event-stream") in message["headers"]
            else:
                self.text += message["body"].decode()

        told = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/api/v1/events",
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), *told],
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)

    async def until(self, count: int, *, seconds: float = 20) -> list[tuple[str, str, dict[str, Any]]]:
        """Wait for so many events; gives each one's kind, id and data."""
        async with asyncio.timeout(seconds):
            while self.text.count("\ndata: ") < count:
                await asyncio.sleep(0.01)
        return self.events

    @property
    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        found = []
        for block in self.text.split("\n\n"):
            told = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in told:
                found.append((told["event"], told["id"], json.loads(told["data"])))
        return found

    async def leave(self) -> None:
        self._gone.set()
        await self._task


def test_what_is_learned_is_heard_once_by_each_and_resumed_without_a_gap(new_shared_url: Any) -> None:
    url = new_shared_url()
    fill(url)
    app, readers, events = app_over(url)

    async def scenario() -> None:
        with open_writer(parse_url(url)) as store, Writer(store) as writer:

            def learn(*evidence: Any) -> None:
                writer.write([Learned(one, 0) for one in evidence], source="test")

            old = Heard(app, "after=0.0.0.0.0")
            new, only = Heard(app), Heard(app, "thing=exclusive-9")
            first = await old.until(8)
            await new_has_begun(new, only)
            learn(
                connect(T0 + 50 * HOUR_MS, client_id="n-1", session="a"),
                connect(T0 + 50 * HOUR_MS, client_id="n-2", session="b")._replace(thing_name="exclusive-9"),
            )
            told = await new.until(2)
            assert sorted((kind, one["thingName"], one["clientId"]) for kind, _, one in told) == [
                ("transition", "exclusive-9", "n-2"),
                ("transition", "n-1", "n-1"),
            ]
            assert [one["clientId"] for _, _, one in await only.until(1)] == ["n-2"]
            assert (await old.until(len(first) + 2))[-2:] == told
            # One goes away, something is corrected meanwhile, and it comes back.
            await new.leave()
            learn(connect(T0 + 49 * HOUR_MS, client_id="n-1", session="a"))
            later = (await old.until(len(first) + 4))[-2:]
            back = Heard(app, headers={"last-event-id": told[-1][1]})
            assert await back.until(2) == later
            assert sorted(kind for kind, _, _ in later) == ["superseded", "transition"]
            ids = [Position.read(told_id) for _, told_id, _ in old.events]
            assert ids == sorted(set(ids))
            for one in (old, only, back):
                await one.leave()
            assert events._listeners == 0

    asyncio.run(scenario())
    readers.close()


async def new_has_begun(*listeners: Heard) -> None:
    async with asyncio.timeout(20):
        while not all(": alive" in one.text for one in listeners):
            await asyncio.sleep(0.01)


def test_streams_end_when_the_server_does(url: str) -> None:
    app, readers, events = app_over(url)

    async def scenario() -> None:
        heard = [Heard(app) for _ in range(20)]
        await new_has_begun(*heard)
        events.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*(one._task for one in heard))

    asyncio.run(scenario())
    readers.close()


def test_what_was_forgotten_is_not_told_to_who_comes_back(new_shared_url: Any) -> None:
    url = new_shared_url()
    fill(url)
    app, readers, events = app_over(url)

    async def scenario() -> None:
        stays = Heard(app)
        await new_has_begun(stays)
        begin = stays.text.split("id: ")[1].split()[0]
        with open_writer(parse_url(url)) as store, Writer(store) as writer:
            writer.write(
                [Learned(connect(T0 + 50 * HOUR_MS, client_id="n-1", session="a"), 0)], source="test"
            )
        ((_, _, told),) = await stays.until(1)
        assert told["thingName"] == "n-1"
        with open_writer(parse_url(url)) as store:
            forget(store, "n-1", realm="default")
        comes_back = Heard(app, f"after={begin}")
        await comes_back.until(1)
        assert '"n-1"' not in comes_back.text
        await asyncio.gather(stays.leave(), comes_back.leave())

    asyncio.run(scenario())
    events.close()
    readers.close()


def test_who_comes_as_the_last_one_leaves_hears_what_is_learned(tmp_path: Path) -> None:
    url = str(tmp_path / "store.db")
    fill(url)
    _, readers, events = app_over(url)

    async def scenario() -> bytes:
        first, second = await events.open(None, ()), await events.open(None, ())
        await anext(first)
        await first.aclose()  # type: ignore[attr-defined]  # it is a generator
        await anext(second)
        with open_writer(parse_url(url)) as store, Writer(store) as writer:
            writer.write([Learned(connect(T0 + 50 * HOUR_MS, client_id="n-1"), 0)], source="test")
        async with asyncio.timeout(20):
            while (heard := await anext(second)).startswith(b": alive"):
                pass
        events.close()
        return heard

    assert b"n-1" in asyncio.run(scenario())
    readers.close()


def test_looks_that_bring_nothing_do_not_fill_the_memory(
    new_shared_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches a source states so again and again, and moves the watermark each time."""
    monkeypatch.setattr("queries.http.event_stream.MOST_BATCHES", 5)
    url = new_shared_url()
    fill(url)
    app, readers, events = app_over(url)

    async def scenario() -> None:
        heard = Heard(app)
        await new_has_begun(heard)
        with open_writer(parse_url(url)) as store, Writer(store) as writer:
            for number in range(12):
                until = events._until
                writer.write([Learned(Watch("sqs", T0, T0 + 1 + number), 0)], source="test")
                async with asyncio.timeout(20):
                    while events._until == until:
                        await asyncio.sleep(0.01)
            assert 0 < len(events._batches) <= 5
            writer.write([Learned(connect(T0 + 50 * HOUR_MS, client_id="n-1"), 0)], source="test")
        ((_, _, told),) = await heard.until(1)
        assert told["thingName"] == "n-1"
        await heard.leave()

    asyncio.run(scenario())
    readers.close()


def test_more_than_can_listen_are_told_to_wait(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queries.http.event_stream.MOST_LISTENERS", 0)
    told = get(app, "events")
    assert (told.status, json.loads(told.body)["code"]) == (400, "ThrottlingException")


async def _ask_twice(app: App) -> list[Told]:
    return list(await asyncio.gather(asking(app, "/api/v1/openapi.json", method="GET")))


def test_the_document_declares_what_is_routed(app: App) -> None:
    (told,) = asyncio.run(_ask_twice(app))
    document = json.loads(told.body)
    assert set(document["paths"]) == {one.path for one in ENDPOINTS}
    for path, operations in document["paths"].items():
        for method in operations:
            assert ask(app, path, method="PATCH").headers["allow"] == method.upper()
