"""A server that is listened to and asked while an ingester writes as fast as it can: nothing untrue, nothing lost.

The long runs are of mark soak: `THINGLINE_SOAK_S=60 pytest -n0 -m soak -s tests/http/test_load.py` for shorter ones.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from ingest.writer import Writer
from queries.history import Reply, open_history
from queries.news import Position
from queries.output import json_line, reply_json
from queries.times import iso
from store.clock import system_clock
from store.engine import open_writer, parse_url
from store.model import Learned
from tests import processes
from tests.bench.test_ingest import lines
from tests.builders import CLIENT, T0, connect
from tests.http.serving import running

EVENTS, DEVICES = 6_000, 200
SOAK_S = int(os.environ.get("THINGLINE_SOAK_S", "600"))
STREAMS = 1_000
AGAIN = 1_000  # answers that are asked for again
PLACE = "/api/v1/at"


def shuffled(rng: random.Random, count: int, *, begins_ms: int = T0) -> bytes:
    """Write events as they come: most in order, some late, some twice."""
    made = lines(rng, count, DEVICES, begins_ms=begins_ms).splitlines(keepends=True)
    due = [
        (number + (rng.randrange(2_000) if rng.random() < 0.05 else 0), line)
        for number, line in enumerate(made)
    ]
    due += [(number + 50, line) for number, line in enumerate(made) if rng.random() < 0.02]
    return b"".join(line for _, line in sorted(due))


class Asking:
    """One who asks about any thing and any instant, again and again, and keeps what was told."""

    def __init__(self, url: str, seed: int, until_ms: int) -> None:
        self.told: list[dict[str, Any]] = []
        self.failed: list[tuple[int, bytes]] = []
        self._rng = random.Random(seed)
        self._address = urlsplit(url)
        self._until_ms = until_ms
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=60)
        while not self._done.is_set():
            thing = f"device-{self._rng.randrange(DEVICES):06}"
            asked = urlencode({"thing": thing, "at": iso(self._rng.randrange(T0, self._until_ms))})
            connection.request("GET", f"{PLACE}?{asked}", headers={"Host": "localhost"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                self.told.append(json.loads(body))
            elif answer.status not in (400, 404):
                self.failed.append((answer.status, body))
        connection.close()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


class Listening:
    """One who listens to all that is learned."""

    def __init__(self, url: str, after: str = "0.0.0.0.0") -> None:
        self.text = b""
        place = urlsplit(url)
        self._socket = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60)
        self._socket.sendall(f"GET /api/v1/events?after={after} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while more := self._socket.recv(65_536):
                self.text += more
        except OSError:
            pass

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Give `(id, data)` of each event so far."""
        found = []
        for block in _joined(self.text).split(b"\n\n")[:-1]:
            told = dict(line.split(b": ", 1) for line in block.splitlines() if b": " in line[1:])
            if b"data" in told:
                found.append((told[b"id"].decode(), json.loads(told[b"data"])))
        return found

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def listening_to(url: str) -> Iterator[Listening]:
    heard = Listening(url)
    try:
        yield heard
    finally:
        heard.stop()


def _joined(text: bytes) -> bytes:
    """Undo the chunked transfer coding of a response, whose last chunk may be cut."""
    rest, body = text.partition(b"\r\n\r\n")[2], b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def ingesting(url: str, file: Path) -> subprocess.Popen[bytes]:
    return processes.start("ingest", str(file), "--store", url)


def test_what_is_answered_while_an_ingester_writes_stays_true(
    new_shared_url: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    url, file = new_shared_url(), tmp_path / "events.ndjson"
    file.write_bytes(shuffled(rng, 500))
    assert processes.run("ingest", str(file), "--store", url)[0] == 0
    file.write_bytes(shuffled(rng, EVENTS))
    until_ms = T0 + 100 * 3_600_000
    with running("--store", url) as (base, _), listening_to(base) as listening:
        asking = [Asking(base, seed, until_ms) for seed in range(2)]
        code, _, err = processes.finish(ingesting(url, file))
        for one in asking:
            one.stop()
        assert code == 0, err
        with open_history(url) as history:
            wanted = _news(history)
            told = [reply for one in asking for reply in one.told]
            for reply in rng.sample(told, min(len(told), AGAIN)):
                again = history.at(reply["thingName"], reply["at"], known_at=reply["knownAt"])
                same = reply_json(Reply(reply["thingName"], again.at_ms, again.known_at, again, None))
                assert json_line(same) == json_line(reply)
        assert [one.failed for one in asking] == [[], []]
        moments = {reply["knownAt"] for one in asking for reply in one.told}
        assert len(moments) > 1, "nothing was asked while it wrote"
        deadline = time.monotonic() + 60
        while len(listening.heard()) < len(wanted) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert [one for one, _ in listening.heard()] == wanted


def test_a_question_is_answered_with_all_that_was_committed_before_it(
    new_shared_url: Callable[[], str],
) -> None:
    """However many others are answered at the same time, with what was looked up for all of them."""
    url = new_shared_url()
    with (
        open_writer(parse_url(url)) as store,
        Writer(store, clock=system_clock) as writer,
        ExitStack() as held,
    ):
        writer.write([Learned(connect(T0, session="0"), 0, None)], source="test")
        base, _ = held.enter_context(running("--store", url))
        for _ in range(8):
            held.enter_context(repeating(base))
        asking = PointQuestion(base)
        for number in range(1, 100):
            writer.write([Learned(connect(T0 + number, session=str(number)), number, None)], source="test")
            assert asking.timestamp_ms() == T0 + number
        asking.close()


class PointQuestion:
    """GetThingConnectivityData of one thing, for now, over one connection."""

    def __init__(self, base: str) -> None:
        place = urlsplit(base)
        self._connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)

    def timestamp_ms(self) -> int:
        self._connection.request("POST", f"/things/{CLIENT}/connectivity-data", headers={"Host": "localhost"})
        answer = self._connection.getresponse()
        assert answer.status == 200
        return int(json.loads(answer.read())["timestamp"] * 1000 + 0.5)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def repeating(base: str) -> Iterator[None]:
    """Ask again and again, in a thread."""
    done = threading.Event()

    def ask() -> None:
        asking = PointQuestion(base)
        while not done.is_set():
            asking.timestamp_ms()
        asking.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _news(history: Any) -> list[str]:
    """List the ids of all that was learned, in order."""
    found, after = [], Position(0, 0)
    while (news := history.news(after)).learned:
        found += [str(one.position) for one in news.learned]
        after = news.until
    return found


# --- Long runs ----------------------------------------------------------------------------------------------


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def idle_streams(base: str, count: int) -> Iterator[list[socket.socket]]:
    """Listen with many sockets to what comes, and read nothing of it but the beginning."""
    place = urlsplit(base)
    with ExitStack() as held:
        opened = []
        for _ in range(count):
            one = held.enter_context(
                socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60)
            )
            one.sendall(b"GET /api/v1/events?thing=nobody HTTP/1.1\r\nHost: localhost\r\n\r\n")
            opened.append(one)
        for one in opened:
            assert one.recv(4_096).startswith(b"HTTP/1.1 200 ")
        yield opened


@pytest.mark.soak
def test_memory_is_flat_under_idle_streams_questions_and_an_ingester(
    new_shared_url: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    url, file = new_shared_url(), tmp_path / "events.ndjson"
    file.write_bytes(shuffled(rng, EVENTS))
    assert processes.run("ingest", str(file), "--store", url)[0] == 0
    samples: list[float] = []
    print()
    with running("--store", url) as (base, pid):
        print(f"  begun                        {resident_mib(pid):8.1f} MiB")
        with idle_streams(base, STREAMS), listening_to(base):
            before = cpu_s(pid)
            time.sleep(10)
            took_s = cpu_s(pid) - before
            print(f"  {STREAMS:,} idle streams          {resident_mib(pid):8.1f} MiB, {took_s:.2f} s of 10")
            asking = [Asking(base, seed, T0 + 100 * 3_600_000) for seed in range(2)]
            ends_s, turn = time.monotonic() + SOAK_S, 0
            while time.monotonic() < ends_s:
                turn += 1
                file.write_bytes(shuffled(rng, 2_000, begins_ms=T0 + turn * 3_600_000))
                code, _, err = processes.finish(ingesting(url, file))
                assert code == 0, err
                for one in asking:
                    one.told.clear()
                samples.append(resident_mib(pid))
            for one in asking:
                one.stop()
                assert one.failed == []
    fifth = max(1, len(samples) // 5)
    most = [max(samples[at : at + fifth]) for at in range(0, fifth * 5, fifth)]
    told = ", ".join(f"{one:.0f}" for one in most)
    print(f"  {SOAK_S} s, {turn} ingestions     {told} MiB at most in each fifth")
    assert most[4] < most[2] * 1.1 + 5  # caches fill at first
