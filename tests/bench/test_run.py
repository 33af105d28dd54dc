"""A reconnect storm through a queue: 200,000 devices connect at once, and `thingline run` drains what AWS wrote of it.

Prints the rate, what bounds it, and the peak of memory; and the same with AWS asked about the fleet meanwhile. Beside
it the same client of boto3 receives and deletes without doing anything with the messages: nothing that reads one queue
by one process of Python is faster than that.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.budget import LIMITS
from ingest.poller import AT_ONCE
from tests.aws.iot_fake import GET_THING, SEARCH, THROTTLED, Said, serving
from tests.aws.sqs_fake import Queue, SqsFake, serving_queues
from tests.builders import T0
from tests.processes import COMMAND

DEVICES = int(os.environ.get("THINGLINE_BENCH_DEVICES", "200000"))
MOST_MIB = 300


def storm() -> list[str]:
    """Each device connects anew; the disconnect of its old session comes with it, in any order."""
    rng = random.Random(1)
    bodies = []
    for number in range(DEVICES):
        at_ms = T0 + rng.randrange(60_000)
        both = {"clientId": f"device-{number:06}", "principalIdentifier": f"{number:064x}"}
        new = {
            "eventType": "connected",
            "timestamp": at_ms,
            "sessionIdentifier": f"{number:08x}-b",
            "versionNumber": 1,
        }
        bodies.append(json.dumps({**both, **new, "ipAddress": "192.0.2.7"}))
    rng.shuffle(bodies)
    return bodies


def rival(fake: SqsFake, queue: Queue) -> float:
    """Receive and delete with as many threads, and forget; gives messages a second."""
    code = (
        "import boto3, sys, threading\n"
        "from botocore.config import Config\n"
        "url, most = sys.argv[1], int(sys.argv[2])\n"
        "sqs = boto3.client('sqs', config=Config(max_pool_connections=10))\n"
        "def work():\n"
        "    while True:\n"
        "        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get('Messages')\n"
        "        if not found: return\n"
        "        sqs.delete_message_batch(QueueUrl=url, Entries=[\n"
        "            {'Id': str(n), 'ReceiptHandle': m['ReceiptHandle']} for n, m in enumerate(found)])\n"
        "threads = [threading.Thread(target=work) for _ in range(most)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    environment = {**os.environ, **fake.environment}
    process = subprocess.Popen([sys.executable, "-c", code, fake.queue_url("rival"), "8"], env=environment)
    rate = drained(queue, process)
    assert process.wait() == 0
    return rate


def drained(queue: Queue, process: subprocess.Popen[bytes]) -> float:
    """Wait until a queue is empty; gives messages a second, from the first deletion on."""
    begun_s, begun = None, 0
    while queue.left:
        assert process.poll() is None
        if begun_s is None and queue.deleted:
            begun_s, begun = time.monotonic(), queue.deleted
        time.sleep(0.1)
    assert begun_s is not None
    return (queue.deleted - begun) / (time.monotonic() - begun_s)


class Drained(NamedTuple):
    """What became of a storm."""

    rate: float  # messages a second
    peak_mib: float
    log: str


def drain(fake: SqsFake, bodies: list[str], store_url: str, *args: str, **environment: str) -> Drained:
    """Drain a storm by `thingline run`, to its end."""
    fake.queues["storm"] = queue = Queue(random.Random(3))
    queue.fill(bodies)
    process = subprocess.Popen(
        [*COMMAND, "run", "--sqs", fake.queue_url("storm"), "--store", store_url, *args],
        env={**os.environ, **fake.environment, **environment},
        stderr=subprocess.PIPE,
    )
    rate = drained(queue, process)
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 0, log
    return Drained(rate, peak_kib / 1024, log)


@pytest.mark.bench
def test_a_reconnect_storm_is_drained_in_bounded_memory(store_url: str) -> None:
    bodies = storm()
    with serving_queues() as fake:
        fake.queues["rival"] = other = Queue(random.Random(2))
        other.fill(bodies[: len(bodies) // 4])
        fastest = rival(fake, other)
        found = drain(fake, bodies, store_url)
    print(
        f"\n{DEVICES:,} devices: {found.rate:,.0f} messages/s drained, {found.rate / fastest:.2f}x of receiving and"
        f" deleting alone ({fastest:,.0f}/s); peak {found.peak_mib:.0f} MiB"
    )
    assert f"ended: {len(bodies)} records" in found.log
    assert found.peak_mib < MOST_MIB


@pytest.mark.bench
def test_while_a_storm_is_drained_checks_keep_to_their_budget(store_url: str) -> None:
    """Of fifty pages two are throttled: meanwhile single things are asked about, as in the field."""
    bodies = storm()
    at_ms = {said["clientId"]: said["timestamp"] for said in map(json.loads, bodies)}
    with serving_queues() as fake, serving() as iot:
        pages = itertools.count()
        iot.state.things = Fleet(DEVICES)
        iot.state.truth = lambda thing, now_ms: Said(True, at_ms[thing], "NONE")
        iot.state.fault_of = lambda api: THROTTLED if api == SEARCH and next(pages) % 50 in (8, 9) else None
        alone = drain(fake, bodies, store_url)
        found = drain(fake, bodies, store_url, "--check-every", "1m", **iot.environment)
        assert iot.state.unlike == []
    told = []
    for api, at_once in ((SEARCH, 1), (GET_THING, AT_ONCE)):
        calls = [call.at_ms for call in iot.state.calls if call.api == api]
        limit = LIMITS[api]
        whole_s = (calls[-1] - calls[0]) / 1_000
        for seconds in (1, 10, 60, whole_s + 1):
            # What was under way before a stretch may arrive within it.
            most = limit.a_second * seconds + 1 + at_once
            assert all(
                bisect_left(calls, first_ms + seconds * 1_000) - at <= most
                for at, first_ms in enumerate(calls)
            )
        assert len(calls) <= limit.a_day
        busiest = max(bisect_left(calls, first_ms + 1_000) - at for at, first_ms in enumerate(calls))
        told.append(
            f"{api} {len(calls):,} calls, {busiest} in the busiest second of {limit.a_second:g} allowed"
        )
    print(
        f"\n{DEVICES:,} devices: {found.rate:,.0f} messages/s drained beside checks, {found.rate / alone.rate:.2f}x"
        f" of without; peak {found.peak_mib:.0f} MiB ({alone.peak_mib:.0f} without); {'; '.join(told)}"
    )
    assert found.peak_mib < MOST_MIB


class Fleet(Sequence[str]):
    """The names of the devices; a list of them would be searched through at every call."""

    def __init__(self, size: int) -> None:
        self._names = [f"device-{number:06}" for number in range(size)]
        self._known = frozenset(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __getitem__(self, place: Any) -> Any:
        return self._names[place]
