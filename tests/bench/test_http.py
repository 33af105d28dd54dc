"""Point answers over HTTP beside a constant answer of the same server, and beside a bare application on its server.

About many things at many instants: questions asked for the first time, and a few thousand asked again and again, as
screens do, whose answers are remembered. Needs wrk. Rounds take turns, so that a busy moment of the machine falls on
all of them; medians of the ratios are told.
"""

from __future__ import annotations

import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from queries.http.server import place_of
from queries.times import iso
from tests.bench.test_ingest import lines, ours
from tests.builders import T0
from tests.http.serving import serving

pytestmark = pytest.mark.bench

EVENTS, DEVICES = 200_000, 2_000
NEW, AGAIN = 120_000, 5_000  # questions: more than a round asks, and few
BARE, CONSTANT = "a bare application", "a constant answer"
FIRST, REMEMBERED = "answer asked first", "answer remembered"
ROUNDS, SECONDS, CONNECTIONS = 3, 4, 16

_BARE = """
import sys
from queries.http.server import Place, run
BODY = b'{"thingName":"pump-17","connected":true,"timestamp":1700000000.123,"disconnectReason":"NONE"}'
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})
run(app, Place("127.0.0.1", int(sys.argv[1]), False), listening=lambda: print("listening", flush=True))
"""
_TELLS = re.compile(r"99%\s+([0-9.]+)(us|ms|s)\b.*Requests/sec:\s+([0-9.]+)", re.DOTALL)


class Load(NamedTuple):
    """What wrk saw."""

    a_second: float
    p99_ms: float


def load(url: str, script: Path | None = None) -> Load:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
    command += [] if script is None else ["-s", str(script)]
    told = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told, told
    found = _TELLS.search(told)
    assert found is not None, told
    return Load(float(found[3]), float(found[1]) * {"us": 0.001, "ms": 1, "s": 1_000}[found[2]])


@contextmanager
def bare() -> Iterator[str]:
    """Run a bare application on the server that we run on."""
    place = place_of("127.0.0.1", 0)
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _BARE, str(place.port)], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield place.url
        process.terminate()


def questions(file: Path, rng: random.Random, count: int) -> Path:
    """Write a script that makes wrk ask about many things at many instants."""
    asked = (
        f'"/at/{iso(rng.randrange(T0 + 3_600_000, T0 + 30 * 3_600_000))}'
        f'/things/device-{rng.randrange(DEVICES):06}/connectivity-data"'
        for _ in range(count)
    )
    file.write_text(
        f"local paths = {{{','.join(asked)}}}\nlocal at = 0\n"
        f'function request() at = at % #paths + 1; return wrk.format("POST", paths[at]) end\n'
    )
    return file


def ratio(loads: list[Load], peers: list[Load]) -> float:
    """Give the median of what each round tells of it."""
    return statistics.median(mine.a_second / its.a_second for mine, its in zip(loads, peers, strict=True))


def test_point_answers_beside_a_constant_one(new_shared_url: Callable[[], str], tmp_path: Path) -> None:
    url = new_shared_url()
    ours(url, lines(random.Random(2), EVENTS, DEVICES))
    rng = random.Random(3)
    again = questions(tmp_path / "again.lua", rng, AGAIN)
    told: dict[str, list[Load]] = {name: [] for name in (BARE, CONSTANT, FIRST, REMEMBERED)}
    with serving("--store", url) as base, bare() as hello:
        load(base, again)  # warm
        for _ in range(ROUNDS):
            told[BARE].append(load(hello))
            told[CONSTANT].append(load(f"{base}/healthz"))
            told[FIRST].append(load(base, questions(tmp_path / "new.lua", rng, NEW)))
            load(base, again)
            told[REMEMBERED].append(load(base, again))
    print()
    for name, loads in told.items():
        rate = statistics.median(one.a_second for one in loads)
        p99_ms = statistics.median(one.p99_ms for one in loads)
        beside = ", ".join(f"{ratio(loads, told[peer]):.2f} x {peer}" for peer in (CONSTANT, BARE))
        print(f"  {name:22} {rate:9,.0f} a second  p99 {p99_ms:6.2f} ms  {beside}")
