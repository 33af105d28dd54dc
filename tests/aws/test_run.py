"""`thingline run` against queues over HTTP: the real command in a process of its own, signals and kills included."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from ingest.settings import Settings
from ingest.simulate import Choices, simulate
from tests.aws.json_fake import AWAY, DENIED, EXPIRED
from tests.aws.killing import killed_under_load
from tests.aws.sqs_fake import Queue, SqsFake, serving_queues
from tests.conftest import Server
from tests.contents import beliefs, connected
from tests.contract.test_crash import NewUrl, new_url
from tests.contract.test_patience import stoppable, url_there
from tests.processes import HOME, finish, here, start

__all__ = ["new_url", "stoppable", "url_there"]  # fixtures

WAIT_S = 60


@pytest.fixture
def sqs() -> Iterator[SqsFake]:
    with serving_queues() as fake:
        yield fake


def until(true: Callable[[], Any], what: str, *, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + WAIT_S
    while not true():
        assert process is None or process.poll() is None, process.communicate() if process else ""
        assert time.monotonic() < end_s, f"not within {WAIT_S} s: {what}"
        time.sleep(0.05)


def begin(fake: SqsFake, url: str, *args: str, queue: str = "events", **more: str) -> subprocess.Popen[bytes]:
    """Start `thingline run`."""
    environment = {**os.environ, **fake.environment, **more}
    return start("run", "--sqs", fake.queue_url(queue), "--store", url, *args, env=environment)


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has a handler of SIGTERM by now."""
    told = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(told.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    until(lambda: listens(process), "it can be told to end", process=process)
    process.send_signal(signal.SIGTERM)
    code, _, log = finish(process, timeout_s=20)
    return code, log


def fleet(events: int, seed: int = 1) -> list[str]:
    """Draw events of a simulated fleet, as a rule writes them; some in an SNS envelope, one that is no event."""
    lines = (json.loads(line) for line in simulate(Choices(things=30, days=3, seed=seed)).lines())
    bodies = [json.dumps(line["event"]) for line in lines if "event" in line][:events]
    for at in range(0, len(bodies), 7):
        bodies[at] = json.dumps(
            {"Type": "Notification", "MessageId": f"m-{at}", "TopicArn": "t", "Message": bodies[at]}
        )
    bodies.insert(len(bodies) // 2, '{"no": "event"}')
    return bodies


HELD = ("clients", "things", "evidence", "session_rows", "transitions", "confirmations")


def held(url: str) -> dict[str, Any]:
    """Give what a store holds now, however it came and when."""
    found = beliefs(url)
    return {name: found[name] for name in HELD}


def stored(url: str) -> int:
    with connected(url) as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM evidence")).scalar_one())


def expected(url: str, bodies: list[str], folder: Path) -> dict[str, Any]:
    """Give what a store holds that was told the same from a file."""
    path = folder / "events.ndjson"
    path.write_text("\n".join(bodies))
    assert here("ingest", str(path), "--store", url) == 0
    return held(url)


def watches(url: str) -> list[tuple[Any, ...]]:
    """List what a store's ledger holds; the store may not be there yet."""
    with connected(url) as connection:
        try:
            found = connection.execute(sa.text("SELECT source, from_ms, to_ms FROM watches ORDER BY from_ms"))
            return [tuple(row) for row in found]
        except sa.exc.DBAPIError:
            return []


def test_a_queue_is_drained_into_the_store(
    sqs: SqsFake, new_url: NewUrl, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = new_url(), fleet(1_500)
    sqs.queues["events"] = queue = Queue(rng, doubled=0.1)
    queue.fill(bodies)
    process = begin(sqs, url)
    until(lambda: queue.left == 0, "the queue is drained", process=process)
    code, log = end(process)
    assert code == 0, log
    assert "testing-secret" not in log
    assert held(url) == expected(new_url(), bodies, tmp_path)
    with connected(url) as connection:
        (reason,) = connection.execute(sa.text("SELECT reason FROM quarantine")).scalars()
    assert reason == "unknown-shape"


SOAK = pytest.param(20, marks=pytest.mark.soak)


@pytest.mark.parametrize("kills", [3, SOAK])
def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(
    sqs: SqsFake, new_url: NewUrl, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    url, bodies = new_url(), fleet(375 * kills)
    sqs.queues["events"] = queue = Queue(rng, doubled=0.05, haste=60)
    killed_under_load(
        begin=lambda: begin(sqs, url),
        give=queue.fill,
        progress=(lambda: queue.received, lambda: queue.deleted),
        left=lambda given: queue.left,
        records=bodies,
        kills=kills,
        rng=rng,
    )
    process = begin(sqs, url)
    until(lambda: queue.left == 0, "the queue is drained", process=process)
    code, log = end(process)
    assert code == 0, log
    assert held(url) == expected(new_url(), bodies, tmp_path)


def test_nothing_is_deleted_before_its_commit(sqs: SqsFake, tmp_path: Path, rng: random.Random) -> None:
    """The store's file is locked by a reader's transaction that begins a write: nothing can be committed."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    sqs.queues["events"] = queue = Queue(rng)
    process = begin(sqs, url)
    until(lambda: watches(url), "it has begun", process=process)
    holding = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    queue.fill(fleet(200))
    until(lambda: queue.received >= 200, "all is received", process=process)
    time.sleep(0.5)
    assert queue.deleted == 0
    process.kill()
    finish(process)
    holding.execute("ROLLBACK")
    holding.close()
    assert stored(url) == 0
    assert queue.deleted == 0


def test_at_the_end_what_was_received_is_written_and_deleted(
    sqs: SqsFake, tmp_path: Path, rng: random.Random
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    sqs.queues["events"] = queue = Queue(rng)
    queue.fill(fleet(2_000))
    process = begin(sqs, url)
    until(lambda: queue.deleted > 50, "it has begun", process=process)
    begun_s = time.monotonic()
    code, log = end(process)
    assert (code, time.monotonic() - begun_s < 10) == (0, True), log
    given_back = queue.left
    assert stored(url) > 0
    until(lambda: queue.received >= queue.deleted + given_back or queue.left == given_back, "it is at rest")
    with connected(url) as connection:
        told = connection.execute(sa.text("SELECT count(*) FROM evidence")).scalar_one()
    assert told <= queue.deleted
    assert "ended:" in log


def test_a_queue_that_fails_for_a_while_is_received_from_afterwards(
    sqs: SqsFake, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(40)
    sqs.queues["events"] = queue = Queue(rng)
    process = begin(sqs, url)
    for at, fault in enumerate((DENIED, EXPIRED, AWAY)):
        queue.fill(bodies[10 * at : 10 * at + 10])
        until(lambda: queue.left == 0, "what came is in", process=process)
        sqs.failed = 0
        sqs.faults["*"] = fault
        tries = 3 if fault is AWAY else 1  # boto3 tries again by itself before it says so
        until(partial(sqs.has_failed, tries), "it fails", process=process)
        sqs.faults.clear()
    queue.fill(bodies[30:])
    until(lambda: queue.left == 0, "the rest is in", process=process)
    code, log = end(process)
    assert code == 0
    assert log.count("answers again") == 3, log
    assert [log.count(fault.code) for fault in (DENIED, EXPIRED, AWAY)] == [1, 1, 1], log


def test_a_queue_that_is_deleted_is_not_watched_until_it_is_there_again(
    sqs: SqsFake, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(40)
    sqs.queues["events"] = Queue(rng, created_ms=int(time.time() * 1000) - 60_000)
    sqs.queues["events"].fill(bodies[:20])
    process = begin(sqs, url)
    until(lambda: sqs.queues["events"].deleted == 20, "the first are in", process=process)
    del sqs.queues["events"]
    until(lambda: sqs.failed > 0, "it tries again", process=process)
    gone_ms = int(time.time() * 1000)
    time.sleep(1)
    sqs.queues["events"] = Queue(rng, created_ms=int(time.time() * 1000))
    sqs.queues["events"].fill(bodies[20:])
    until(lambda: sqs.queues["events"].deleted >= 20, "the rest is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert "Create the queue" in log
    assert not [row for row in watches(url) if row[1] < gone_ms < row[2]]
    assert len(watches(url)) > 1


def test_a_queue_that_is_not_there_is_refused_at_the_start(sqs: SqsFake, tmp_path: Path) -> None:
    process = begin(sqs, f"sqlite:///{tmp_path / 'store.db'}")
    code, _, log = finish(process)
    assert code == 4
    assert "NonExistentQueue" in log


def test_what_is_being_received_is_watched_and_a_restart_leaves_no_gap(
    sqs: SqsFake, tmp_path: Path, rng: random.Random
) -> None:
    """A durable queue that is read later was watching: its rows meet, though nobody read it between."""
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(40)
    sqs.queues["events"] = queue = Queue(rng, created_ms=int(time.time() * 1000) - 3_600_000)
    queue.fill(bodies[:20], sent_ms=int(time.time() * 1000) - 600_000)
    for half in (bodies[:0], bodies[20:]):
        queue.fill(half)
        process = begin(sqs, url)
        until(lambda: queue.left == 0 and watches(url), "it is in", process=process)
        assert end(process)[0] == 0
        time.sleep(1)
    rows = watches(url)
    assert {row[0] for row in rows} == {"sqs:events"}
    assert all(after[1] <= before[2] for before, after in pairwise(rows))
    assert rows[-1][2] - rows[0][1] > 600_000


def test_metrics_and_health_are_told(sqs: SqsFake, tmp_path: Path, rng: random.Random) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(100)
    sqs.queues["events"] = queue = Queue(rng)
    queue.fill(bodies)
    arguments = ["run", "--sqs", sqs.queue_url("events"), "--store", url, "--metrics-port", "0"]
    environment = {**os.environ, **sqs.environment}
    process = start(*arguments, "--log-format", "json", env=environment, bufsize=0)
    assert process.stderr is not None
    port = re.search(r"http://127.0.0.1:([0-9]+)/metrics", process.stderr.readline().decode())
    assert port is not None
    until(lambda: queue.left == 0, "it is in", process=process)

    def page(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert page("/healthz") == (200, '{"alive": true}')
    assert page("/readyz") == (200, '{"ready": true}')
    assert page("/other")[0] == 404
    told = page("/metrics")[1]
    assert f'thingline_messages_total{{source="sqs:events"}} {float(len(bodies))}' in told
    assert "thingline_quarantined_total 1.0" in told
    assert "thingline_revealed_total 0.0" in told
    sqs.faults["*"] = DENIED
    until(lambda: 'trouble="denied"' in page("/metrics")[1], "it is counted", process=process)
    code, log = end(process)
    assert code == 0
    assert all(json.loads(line)["message"] for line in log.splitlines())


def test_four_ingesters_on_one_store_are_as_one(
    sqs: SqsFake, postgres_store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    bodies = fleet(1_000, seed=3)
    sqs.queues["events"] = queue = Queue(rng, doubled=0.1)
    queue.fill(bodies[:1])
    processes = [begin(sqs, postgres_store_url) for _ in range(1)]
    until(lambda: queue.left == 0, "there is a store", process=processes[0])
    processes += [begin(sqs, postgres_store_url) for _ in range(3)]
    queue.fill(bodies[1:])
    until(lambda: queue.left == 0, "the queue is drained")
    logs = [end(process) for process in processes]
    assert [code for code, _ in logs] == [0] * 4, logs
    assert held(postgres_store_url) == expected(f"sqlite:///{tmp_path / 'one.db'}", bodies, tmp_path)


def test_a_store_that_goes_away_is_waited_for_and_nothing_is_deleted_meanwhile(
    sqs: SqsFake, stoppable: Server, url_there: str, tmp_path: Path, rng: random.Random
) -> None:
    bodies = fleet(900, seed=4)
    sqs.queues["events"] = queue = Queue(rng)
    queue.fill(bodies[:100])
    process = begin(sqs, url_there)
    until(lambda: queue.left == 0, "the first are in", process=process)
    stoppable.stop("immediate")
    deleted = queue.deleted
    queue.fill(bodies[100:])
    until(lambda: queue.received >= 400, "it receives on", process=process)
    time.sleep(1)
    assert (process.poll(), queue.deleted) == (None, deleted)
    stoppable.start()
    until(lambda: queue.left == 0, "the rest is in", process=process)
    stoppable.stop("immediate")
    queue.fill(bodies[:5])
    until(lambda: queue.received >= len(bodies) + 5, "it waits again", process=process)
    code, log = end(process)
    assert code == 0, log
    assert log.count("It answers again") == 1, log
    assert "the store is away" in log
    stoppable.start()
    assert held(url_there) == expected(f"sqlite:///{tmp_path / 'one.db'}", bodies, tmp_path)


def test_settings_come_from_a_file_and_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> tuple[int, str, str]:
        code = here(*args)
        return code, *capsys.readouterr()

    path = tmp_path / "thingline.toml"
    path.write_text(
        'store = "history.db"\n[[sqs]]\nurl = "https://sqs.eu-west-1.amazonaws.com/123456789012/events"\n'
        '[checks]\nevery = "15m"\n[metrics]\nport = 9464\n'
    )
    code, out, _ = run("config", "check", str(path), "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["sqs"][0]["receivers"], told["checks"]["every"], told["metrics"]["port"]) == (4, "15m", 9464)
    assert "every thing once in 15m" in run("config", "check", str(path))[1]
    documented = (HOME / "docs" / "run.md").read_text().split("```toml\n")[1].split("```")[0]
    path.write_text(documented)
    told = json.loads(run("config", "check", str(path), "--json")[1])
    assert told["sqs"] == [
        {"url": "https://sqs.eu-west-1.amazonaws.com/123456789012/iot-events", "receivers": 4}
    ]
    assert [each.name for each in msgspec.structs.fields(Settings)] == list(tomllib.loads(documented))
    for text, complaint in (
        ("[[sqs]]\nurl = 5", "Expected `str`"),
        ('[[sqs]]\nurl = "https://a/b"\nreceiver = 3', "unknown field `receiver`"),
        ('[checks]\nevery = "soon"', "15m"),
        ("store = ", "is not TOML"),
        ('store = "a.db"', "nothing to receive from"),
    ):
        path.write_text(text)
        code, _, err = run("config", "check", str(path))
        assert (code, complaint in err) == (2, True), err
        assert run("run", "--config", str(path))[0] == 2
