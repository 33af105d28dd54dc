"""Raw sockets against a running server: nothing that is sent brings a 5xx, a traceback, HTML or another's data."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from queries.http.paths import target_of
from tests import processes
from tests.builders import T0
from tests.http.answers import SECRET_KEYS, at, fill
from tests.http.serving import address_of, serving

OPERATION = "/things/pump-17/connectivity-data"
HEAD = b"Host: localhost\r\nConnection: close\r\n"
DATA = str(T0 // 1000).encode()  # in every answer about a thing


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("wire") / "store.db")
    fill(path)
    return path


@pytest.fixture(scope="module")
def address(store: str) -> Iterator[tuple[str, int]]:
    with serving("--store", store) as url:
        place = urlsplit(url)
        assert place.hostname is not None
        assert place.port is not None
        yield place.hostname, place.port


def sent(address: tuple[str, int], *parts: bytes, end: bool = False) -> bytes:
    """Send bytes, and give all that comes back until the server closes. `end`: and say that no more will follow."""
    with socket.create_connection(address, timeout=10) as told:
        found = b""
        try:
            for part in parts:
                told.sendall(part)
            if end:
                told.shutdown(socket.SHUT_WR)
            while more := told.recv(65_536):
                found += more
        except OSError:
            pass
        return found


def harmless(told: bytes) -> bool:
    """Tell whether an answer is none, or one that says no more than it should."""
    if not told:
        return True
    for answer in told.split(b"HTTP/1.1 ")[1:]:  # bytes that were bent may be two requests
        head, _, body = answer.partition(b"\r\n\r\n")
        if body:
            json.loads(body)
        if int(head.split()[0]) >= 500:
            return False
    return b"Traceback" not in told and b"<" not in told and b'File "' not in told


MALFORMED = [
    b"",
    b"\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST " + OPERATION.encode(),
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\nHost: localhost\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/9.9\r\n" + HEAD + b"\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\n{",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"Content-Length: x\r\n\r\n",
    b"POST "
    + OPERATION.encode()
    + b" HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"X: a\r\n b\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"X\x00Y: a\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"X: \xff\xfe\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"X: a\r\n" * 50_000 + b"\r\n",
    b"POST /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"POST \\things\\pump-17\\connectivity-data HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"POST /things/pump-17/connectivity-data\x00 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"POST /th\xefngs/pump-17/connectivity-data HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.0\r\n\r\n",
    b"POST " + OPERATION.encode() + b" HTTP/1.1\r\nHost: a\r\n" + HEAD + b"\r\n",
    b"POST http://evil.example"
    + OPERATION.encode()
    + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
]


@pytest.mark.parametrize("request_", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_request_gets_no_data(address: tuple[str, int], request_: bytes) -> None:
    told = sent(address, request_, end=True)
    assert harmless(told), told
    assert DATA not in told


# fmt: off
PIECES = (
    "/", "//", "..", ".", "%2e%2e", "%2F", "%5c", "\\", ";a=b", "?", "%00", "%ff", "%", "%zz", "+", ":", "*", "~", "'",
    '"', "at", "known-at", "things", "pump-18", "connectivity-data", "2026-11-01T03:12:00Z", "api", "v1",
)
# fmt: on


def test_no_trick_with_a_path_brings_data_or_an_error_of_ours(
    address: tuple[str, int], rng: random.Random, request: pytest.FixtureRequest
) -> None:
    connection = http.client.HTTPConnection(*address, timeout=10)
    request.addfinalizer(connection.close)
    connection._validate_path = lambda _: None  # type: ignore[attr-defined]
    for _ in range(1_500):
        drawn = rng.choices(PIECES, k=rng.randrange(1, 9))
        path = "/" + "/".join(drawn) if rng.random() < 0.5 else "/" + "".join(drawn)
        connection.request(rng.choice(["POST", "GET"]), path, headers={"Host": "localhost"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status < 500, path
        is_listing = target_of(path.partition("?")[0]).segments == ("things",)
        assert answer.status in (400, 404, 405) or is_listing, (path, body)
        assert DATA not in body
        assert b"Traceback" not in body
        if body:
            assert "json" in answer.headers["content-type"]
            json.loads(body)


def test_bytes_at_random_do_no_harm(address: tuple[str, int], rng: random.Random) -> None:
    whole = (
        b"POST "
        + (at(30_000) + OPERATION).encode()
        + b" HTTP/1.1\r\n"
        + HEAD
        + b"Content-Length: 2\r\n\r\n{}"
    )
    assert DATA in sent(address, whole)
    for _ in range(150):
        bent = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        cut = rng.randrange(len(bent))
        told = sent(address, bytes(bent[:cut]), bytes(bent[cut:]), end=True)
        assert harmless(told), (bytes(bent), told)


def test_halves_of_requests_hold_up_nobody_else(address: tuple[str, int]) -> None:
    held = [socket.create_connection(address, timeout=10) for _ in range(50)]
    for one in held:
        one.sendall(
            b"POST " + OPERATION.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
    began_s = time.monotonic()
    told = sent(address, b"POST " + (at(30_000) + OPERATION).encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert DATA in told
    assert time.monotonic() - began_s < 9  # less than what a half is waited for
    for one in held:
        one.close()


# --- Starting and stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_frees_its_port(store: str, number: signal.Signals) -> None:
    process = processes.start("serve", "--port", "0", "--store", store)
    assert process.stderr is not None
    said = process.stderr.readline().decode()
    port = int(said.partition("127.0.0.1:")[2].partition(":")[0])
    idle = socket.create_connection(("127.0.0.1", port), timeout=10)
    process.send_signal(number)
    code, out, err = processes.finish(process, timeout_s=20)
    idle.close()
    assert (code, out, err) == (0, "", "")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_who_never_ends_a_request_does_not_make_a_failure_of_the_end(store: str) -> None:
    begin = "import sys, thingline, queries.http.server as one; one.DRAIN_S = 0.2; sys.exit(thingline.main())"
    command = (sys.executable, "-c", begin, "serve", "--port", "0", "--store", store)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=processes.HOME)
    place = urlsplit(address_of(process))
    with socket.create_connection((place.hostname, place.port)) as half:
        head = b"POST " + OPERATION.encode() + b" HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        half.sendall(head + b"Content-Length: 9\r\n\r\n")
        assert half.recv(100).startswith(b"HTTP/1.1 100")  # it waits for the body
        process.terminate()
        code, _, err = processes.finish(process, timeout_s=30)
    assert (code, err) == (0, "")


def test_a_realm_of_which_nothing_is_held_is_told(store: str) -> None:
    process = processes.start("serve", "--port", "0", "--store", store, "--realm", "defualt")
    assert process.stderr is not None
    first = process.stderr.readline()
    address_of(process)
    process.terminate()
    processes.finish(process)
    assert first == b"the store holds nothing of realm defualt yet: no thing is found. It holds default\n"


def test_a_port_that_is_taken_is_told(store: str, address: tuple[str, int]) -> None:
    code, _, err = processes.run("serve", "--port", str(address[1]), "--store", store)
    assert (code, "cannot be listened at: Address already in use" in err) == (2, True)


def test_what_it_says_has_no_secret(store: str) -> None:
    known = {"THINGLINE_SERVE_KEY_PAIRS": ":".join(SECRET_KEYS), "THINGLINE_SERVE_REGION": "eu-west-1"}
    with serving("--store", store, "--host", "127.0.0.1", "--access-log", environment=known) as url:
        told = sent(
            (str(urlsplit(url).hostname), int(urlsplit(url).port or 0)),
            b"POST " + OPERATION.encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
        )
    assert told.startswith(b"HTTP/1.1 403")
    assert DATA not in told
    assert Path(store).exists()
