"""A reconnect storm through a queue: 200,000 devices connect at once, and `thingline run` drains what AWS wrote of it.

Prints the rate, what bounds it, and the peak of memory. Beside it the same client of boto3 receives and deletes without
doing anything with the messages: nothing that reads one queue by one process of Python is faster than that.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.mark.bench
def test_a_reconnect_storm_is_drained_in_bounded_memory(store_url: str, tmp_path: Path) -> None:
    bodies = storm()
    with serving_queues() as fake:
        fake.queues["rival"] = other = Queue(random.Random(2))
        other.fill(bodies[: len(bodies) // 4])
        fastest = rival(fake, other)
        fake.queues["storm"] = queue = Queue(random.Random(3))
        queue.fill(bodies)
        arguments = ["run", "--sqs", fake.queue_url("storm"), "--store", store_url]
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env={**os.environ, **fake.environment},
            stderr=subprocess.PIPE,
        )
        rate = drained(queue, process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    print(
        f"\n{DEVICES:,} devices: {rate:,.0f} messages/s drained, {rate / fastest:.2f}x of receiving and deleting"
        f" alone ({fastest:,.0f}/s); peak {peak_kib / 1024:.0f} MiB"
    )
    assert f"{len(bodies):,}".replace(",", "") in log.decode()
    assert peak_kib / 1024 < MOST_MIB
