"""`thingline run` reading objects over HTTP: as Firehose writes them, told of by notices, hostile and broken."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote_plus

import msgspec
import pytest
import sqlalchemy as sa
from botocore.exceptions import EndpointConnectionError

from ingest.aws import Account
from ingest.ledger import Ledger
from ingest.marks import MARKS, Marks, hour_of, mark_of
from ingest.notices import Notice, notices
from ingest.objects import Changed, Content, fault_of
from ingest.patience import PatientWriter
from ingest.refusal import Unreadable
from ingest.run import Runner
from ingest.s3 import S3Source
from ingest.settings import S3, Settings, s3_of
from ingest.tally import Tally
from store.engine import open_writer, parse_url
from store.errors import SourceError
from tests.aws.json_fake import DENIED
from tests.aws.s3_fake import ARCHIVED, SLOW_DOWN, Bucket, S3Fake, serving_buckets
from tests.aws.sqs_fake import Queue, SqsFake, serving_queues
from tests.aws.test_kinesis import has_stored
from tests.aws.test_run import end, expected, fleet, held, stored, until, watches
from tests.contents import connected
from tests.contract.test_crash import NewUrl, new_url
from tests.processes import finish, start

__all__ = ["new_url"]  # a fixture

HOUR_S = 3_600


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Fake]:
    """A fake with an empty bucket, and boto3 led to it."""
    with serving_buckets() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        fake.buckets["lake"] = Bucket()
        yield fake


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqsFake]:
    monkeypatch.setattr("ingest.queue.POLL_S", 1)  # a call that waits is waited for at the end
    with serving_queues() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


class Ingester:
    """A prefix being read in this process, listed every so often."""

    def __init__(self, settings: S3, url: str, *, every_ms: int) -> None:
        self.tally = Tally()
        self.log: list[str] = []
        self._begun = threading.Event()
        self._settings, self._url, self._every_ms = settings, url, every_ms
        self._runner: Runner | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._begun.wait(30)

    def _run(self) -> None:
        try:
            with open_writer(parse_url(self._url)) as store:
                source = S3Source(
                    self._settings,
                    account=Account(),
                    tally=self.tally,
                    store=store,
                    every_ms=self._every_ms,
                )
                self.source = source
                source.check()
                self._runner = Runner([source], Ledger(store), self.tally)
                with PatientWriter(store, wait_s=0) as writer:
                    self._begun.set()
                    self._runner.run(writer)
        except BaseException as error:
            self._failure = error
            self._begun.set()

    def end(self) -> None:
        if self._runner is not None:
            self._runner.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure


@contextmanager
def reading(
    url: str, *, prefix: str = "iot/", every_ms: int = 100, notices: str | None = None, start: str = "horizon"
) -> Iterator[Ingester]:
    ingester = Ingester(
        S3(bucket="lake", prefix=prefix, notices=notices, start=start), url, every_ms=every_ms
    )
    try:
        yield ingester
    finally:
        ingester.end()


def begin(url: str, place: str = "s3://lake/iot/") -> subprocess.Popen[bytes]:
    return start("run", "--s3", place, "--store", url, env=os.environ)


def firehose(bodies: list[str], rng: random.Random, *, each: int) -> dict[str, bytes]:
    """Write bodies as Firehose does, so many an object, in every form; some objects twice, none in order."""
    bodies = rng.sample(bodies, len(bodies))
    objects = {}
    for at in range(0, len(bodies), each):
        joint = rng.choice(("", "\n", ",", "\n"))
        body = joint.join(bodies[at : at + each]).encode()
        key = f"iot/2026/11/{20 + at % 5}/{at % 24:02}/events-1-{rng.randbytes(8).hex()}"
        objects[key] = gzip.compress(body) if rng.random() < 0.5 else body
        if rng.random() < 0.2:
            objects[key + "-again"] = body
    return objects


def quarantined(url: str) -> list[tuple[str, str, bytes]]:
    with connected(url) as connection:
        found = connection.execute(sa.text("SELECT reason, detail, head FROM quarantine ORDER BY 1, 2"))
        return [(row[0], row[1], bytes(row[2])) for row in found]


def event(client: str, at_ms: int = 1_790_000_000_000) -> str:
    return json.dumps(
        {"clientId": client, "eventType": "connected", "timestamp": at_ms, "sessionIdentifier": client}
    )


def clients(url: str) -> set[str]:
    with connected(url) as connection:
        try:
            return set(connection.execute(sa.text("SELECT client_id FROM clients")).scalars())
        except sa.exc.DBAPIError:
            return set()


def notice(key: str, *, bucket: str = "lake", name: str = "ObjectCreated:Put", etag: str = "0") -> str:
    written = {"key": quote_plus(key, safe="/"), "size": 1, "eTag": etag.strip('"')}
    named = {"bucket": {"name": bucket}, "object": written}
    return json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": name, "s3": named}]})


# --- A prefix -----------------------------------------------------------------------------------------------


def killed_again_and_again(
    s3: S3Fake, new_url: NewUrl, folder: Path, rng: random.Random, *, bodies: list[str], each: int, kills: int
) -> None:
    url, whole, bucket = new_url(), new_url(), s3.buckets["lake"]
    wanted_in_the_end = expected(whole, bodies, folder)
    count = stored(whole)
    objects = firehose(bodies, rng, each=each)
    s3.page = 7
    keys = rng.sample(sorted(objects), len(objects))  # keys come behind those that were read
    share = -(-len(keys) // (kills + 1))
    for at in range(0, len(keys), share):
        process = begin(url)
        part = keys[at : at + share]
        for key in part:
            bucket.put(key, objects[key], age_s=rng.randrange(3 * HOUR_S))
        wanted = bucket.got.total() + rng.randint(1, len(part))  # so many are sure to be asked for
        until(partial(bucket.has_given, wanted), "it reads", process=process)
        time.sleep(rng.random() * 0.2)
        if at + share < len(keys):
            process.kill()
            finish(process)
            forget_leases(url)
    until(lambda: has_stored(url, count), "all is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert "testing-secret" not in log
    assert held(url) == wanted_in_the_end
    with reading(url, every_ms=50) as ingester:  # what was not marked in time is read a last time
        until(
            lambda: marked(url) >= {mark_of(key, bucket.objects[key].etag) for key in keys}, "all is marked"
        )
    bucket.got.clear()
    with reading(url, every_ms=50) as ingester:
        until(lambda: ingester.source._unbroken_ms, "it is listed whole")
    assert bucket.got.total() == 0
    assert held(url) == wanted_in_the_end


def forget_leases(url: str) -> None:
    """Let what a killed ingester held be free at once, not in ten seconds."""
    with connected(url) as connection:
        connection.execute(sa.text("DELETE FROM leases"))
        connection.commit()


def marked(url: str) -> set[int]:
    with connected(url) as connection:
        rows = connection.execute(sa.text("SELECT part, position FROM positions")).all()
    marks = Marks({row[0]: row[1] for row in rows})
    return {mark for hour in marks._hours.values() for mark in hour}


def test_a_prefix_is_read_through_kills(
    s3: S3Fake, new_url: NewUrl, tmp_path: Path, rng: random.Random
) -> None:
    killed_again_and_again(s3, new_url, tmp_path, rng, bodies=fleet(600), each=20, kills=2)


@pytest.mark.soak
def test_a_prefix_is_read_through_many_kills(
    s3: S3Fake, new_url: NewUrl, tmp_path: Path, rng: random.Random
) -> None:
    killed_again_and_again(s3, new_url, tmp_path, rng, bodies=fleet(8_000), each=20, kills=20)


def test_objects_are_found_wherever_they_appear_and_each_is_read_once(s3: S3Fake, url: str) -> None:
    bucket = s3.buckets["lake"]
    s3.page = 2
    for number in range(9):
        bucket.put(f"iot/2026/11/20/{number}", event(f"c{number}").encode(), age_s=number * HOUR_S)
    oldest_s = bucket.objects["iot/2026/11/20/8"].at_s
    bucket.put("iot/", b"")
    bucket.put("other/1", event("other").encode())
    with reading(url) as ingester:
        until(lambda: len(clients(url)) == 9, "all is in")
        ingester.source._clock = lambda: (
            int(time.time() * 1000) + 10 * HOUR_S * 1000
        )  # the next whole listing is due
        bucket.put("iot/2026/11/19/late", event("behind").encode(), age_s=40 * HOUR_S)
        bucket.put("iot/2026/11/20/8", event("overwritten").encode())
        bucket.put("iot/2026/11/21/0", event("ahead").encode())
        until(lambda: clients(url) >= {"behind", "overwritten", "ahead"}, "all is in")
    assert "other" not in clients(url)
    assert bucket.got.total() == 12, bucket.got
    assert not [key for key in bucket.got if key in ("iot/", "other/1")]
    assert watches(url)[0][:2] == ("s3:lake/iot/", oldest_s * 1000)


def test_the_last_page_is_listed_often_and_the_whole_seldom(s3: S3Fake, url: str) -> None:
    bucket = s3.buckets["lake"]
    s3.page = 10
    for number in range(95):
        bucket.put(f"iot/{number:03}", event(f"c{number}").encode())
    with reading(url, every_ms=50) as ingester:
        until(lambda: ingester.source._unbroken_ms, "it is listed whole")
        s3.listed.clear()
        bucket.put("iot/100", event("new").encode())
        until(lambda: "new" in clients(url), "it is found")
    assert set(s3.listed) == {"iot/089"}


@pytest.mark.parametrize("start", ["latest", "1700000000000"])
def test_a_start_leaves_out_what_is_older_and_holds_after_a_restart(s3: S3Fake, url: str, start: str) -> None:
    bucket = s3.buckets["lake"]
    age_s = 60 if start == "latest" else int(time.time()) - 1_600_000_000
    bucket.put("iot/old", event("old").encode(), age_s=age_s)
    with reading(url, start=start):
        until(lambda: watches(url), "it has begun")
    bucket.put("iot/new", event("new").encode(), age_s=-1)
    with reading(url, start=start):
        until(lambda: clients(url) == {"new"}, "it goes on")
    assert bucket.got == {"iot/new": 1}


def test_a_restart_leaves_no_gap_and_a_bucket_that_was_made_anew_does(s3: S3Fake, url: str) -> None:
    s3.buckets["lake"].put("iot/1", event("one").encode(), age_s=600)
    for _ in range(2):
        with reading(url):
            until(lambda: watches(url), "it is watched")
            time.sleep(0.2)
        time.sleep(0.1)
    rows = watches(url)
    assert rows[0][1] == s3.buckets["lake"].objects["iot/1"].at_s * 1000
    assert all(after[1] <= before[2] for before, after in pairwise(rows))
    with reading(url):
        until(lambda: len(watches(url)) > len(rows), "it is watched")
        del s3.buckets["lake"]
        failed = s3.failed
        until(lambda: s3.failed > failed, "it is missed")
        gone_ms = int(time.time() * 1000)
        s3.buckets["lake"] = Bucket()
        s3.buckets["lake"].put("iot/2", event("two").encode(), age_s=-2)
        until(lambda: "two" in clients(url), "it is read again")
        until(lambda: watches(url)[-1][1] > gone_ms, "it is watched again")
    assert not [row for row in watches(url) if row[1] < gone_ms < row[2]]


def test_two_ingesters_read_a_prefix_in_turn(s3: S3Fake, postgres_store_url: str) -> None:
    bucket = s3.buckets["lake"]
    with reading(postgres_store_url) as one:
        until(lambda: one.source._unbroken_ms, "the first reads")
        with reading(postgres_store_url) as other:
            bucket.put("iot/1", event("one").encode())
            until(lambda: "one" in clients(postgres_store_url), "it is read")
            assert other.source._unbroken_ms is None
            one.end()
            bucket.put("iot/2", event("two").encode())
            until(lambda: "two" in clients(postgres_store_url), "the other reads on")
    assert bucket.got == {"iot/1": 1, "iot/2": 1}


# --- Notices ------------------------------------------------------------------------------------------------


def test_notices_tell_of_objects_at_once_and_are_deleted_when_these_are_in(
    s3: S3Fake, sqs: SqsFake, url: str, tmp_path: Path, rng: random.Random
) -> None:
    bucket, bodies = s3.buckets["lake"], fleet(300)
    sqs.queues["new"] = queue = Queue(rng, doubled=0.2)
    objects = firehose(bodies, rng, each=20)
    early = dict(list(objects.items())[:3])
    for key, body in early.items():
        bucket.put(key, body)
    with reading(url, every_ms=3_600_000, notices=sqs.queue_url("new")) as ingester:
        until(lambda: ingester.source._unbroken_ms, "what came before is listed")
        queue.fill([json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "lake"})])
        for at, (key, body) in enumerate(objects.items()):
            bucket.put(key, body)
            said = notice(key)
            if at % 3 == 1:
                said = json.dumps(
                    {"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": said}
                )
            if at % 3 == 2:
                detail = {"bucket": {"name": "lake"}, "object": {"key": key}}
                said = json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})
            queue.fill([said])
        until(lambda: queue.left == 0, "the notices are deleted")
        assert held(url) == expected(f"sqlite:///{tmp_path / 'other.db'}", bodies, tmp_path)
    assert s3.calls["ListObjectsV2"] == 2  # the check, and the beginning


def test_notices_are_obeyed_for_this_bucket_and_prefix_only(
    s3: S3Fake, sqs: SqsFake, url: str, rng: random.Random
) -> None:
    bucket = s3.buckets["lake"]
    s3.buckets["private"] = Bucket()
    s3.buckets["private"].put("iot/1", event("foreign").encode())
    sqs.queues["new"] = queue = Queue(rng)
    with reading(url, every_ms=3_600_000, notices=sqs.queue_url("new")) as ingester:
        until(lambda: ingester.source._unbroken_ms, "it has begun")
        bucket.put("payroll/1", event("payroll").encode())
        queue.fill(
            [
                notice("iot/1", bucket="private"),
                notice("payroll/1"),
                notice("iot/gone"),
                notice("iot/1", name="ObjectRemoved:Delete"),
                event("intruder"),
                "no JSON",
                '{"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}}]}',
            ]
        )
        until(lambda: queue.left == 0, "all is deleted")
        assert ingester.tally.sources["s3:lake/iot/"].failures == {"foreign": 2, "gone-object": 1}
        bucket.put("iot/1", event("read").encode())
        said = notice("iot/1", etag=bucket.objects["iot/1"].etag)
        queue.fill([said])
        until(lambda: queue.left == 0, "it is read")
        del bucket.objects["iot/1"]
        queue.fill([said])
        until(lambda: queue.left == 0, "it is deleted")
    assert clients(url) == {"read"}
    assert s3.buckets["private"].got == {}
    assert bucket.got == {"iot/gone": 1, "iot/1": 2}
    found = quarantined(url)
    assert [reason for reason, _, _ in found] == ["gone-object", "not-json", "unknown-shape", "unknown-shape"]
    assert found[0][2] == b"s3://lake/iot/gone"


def test_a_notice_is_not_deleted_before_its_object_is_in(
    s3: S3Fake, sqs: SqsFake, url: str, rng: random.Random
) -> None:
    bucket = s3.buckets["lake"]
    sqs.queues["new"] = queue = Queue(
        rng, haste=120
    )  # what is to come again in a minute comes in half a second
    with reading(url, every_ms=3_600_000, notices=sqs.queue_url("new")) as ingester:
        until(lambda: ingester.source._unbroken_ms, "it has begun")
        bucket.put("iot/1", event("one").encode())
        bucket.faults["iot/1"] = DENIED
        queue.fill([notice("iot/1")])
        until(lambda: bucket.got["iot/1"] > 1, "it is tried again")
        assert (queue.deleted, queue.left) == (0, 1)
        bucket.faults.clear()
        until(lambda: queue.left == 0, "the notice is deleted")
        assert clients(url) == {"one"}
        assert ingester.tally.sources["s3:lake/iot/"].failures["denied"] > 0


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (notice("a b+c%20d/é\u2028"), [("lake", "a b+c%20d/é\u2028", "0")]),
        (notice("x", name="s3:ObjectCreated:CompleteMultipartUpload"), [("lake", "x", "0")]),
        (notice("x", name="ObjectRestore:Completed"), []),
        ('{"Records": []}', []),
        ('{"source": "aws.s3", "detail-type": "Object Deleted", "detail": {}}', []),
        ('{"Records": [{"eventSource": "aws:kinesis"}]}', None),
        ('{"Records": [3]}', None),
        ('{"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": "lake"}}', None),
        ("[]", None),
        ("{" * 200, None),
    ],
)
def test_what_a_notice_names_is_what_s3_wrote(body: str, found: list[Notice] | None) -> None:
    if found is None:
        with pytest.raises(Unreadable):
            notices(body.encode())
    else:
        assert notices(body.encode()) == found


# --- What may be wrong --------------------------------------------------------------------------------------


def test_keys_may_hold_anything_and_none_is_logged(
    s3: S3Fake, sqs: SqsFake, url: str, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = s3.buckets["lake"]
    names = [
        "a b",
        "a+b",
        "a%20b",
        "%",
        "ü/日本",
        "?notices=x&y#z",
        "a//b",
        "../up",
        "\u2028\x1b[31m",
        "'\"<&>",
    ]
    s3.page = 3
    for at, name in enumerate(names):
        bucket.put(f"iot/{name}", event(f"listed-{at}").encode())
    bucket.put("iot/\x1b[31mbroken", b"no JSON")
    sqs.queues["new"] = queue = Queue(rng)
    with reading(url, notices=sqs.queue_url("new"), every_ms=3_600_000) as ingester:
        until(lambda: ingester.source._unbroken_ms, "all is listed")
        for at, name in enumerate(names):
            bucket.put(f"iot/new {name}", event(f"told-{at}").encode())
        queue.fill([notice(f"iot/new {name}") for name in names])
        queue.fill([notice("iot/secret-gone"), notice("secret-other/1")])
        until(lambda: queue.left == 0, "all was told")
        until(lambda: len(clients(url)) == 2 * len(names), "all is in")
    assert set(bucket.got.values()) == {1}
    details = [detail for _, detail, _ in quarantined(url)]
    assert [detail[detail.index("(s3") :] for detail in details] == [
        "(s3://lake/iot/secret-gone)",
        "(s3://lake/iot/%1B[31mbroken, byte 0)",
    ]
    assert "other objects too" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_said_of_a_failure_names_no_object() -> None:
    at = EndpointConnectionError(endpoint_url="https://lake.s3.eu-west-1.amazonaws.com/iot/secret")
    assert fault_of(at).message == "Could not connect to the endpoint URL: S3"


def test_objects_that_cannot_be_read_leave_a_trace_and_stop_nothing(s3: S3Fake, url: str) -> None:
    bucket, good = s3.buckets["lake"], event("good").encode()
    whole = gzip.compress(b"".join(event(f"c{number}").encode() for number in range(2_000)))
    bucket.put("iot/1-bomb", gzip.compress(event("bomb").encode() + b"\n" + b"0" * (40 << 20)))
    bucket.put("iot/2-long", b'{"clientId": "' + b"x" * (3 << 20) + b'"}\n' + good)
    bucket.put("iot/3-cut", whole[:-2_000])
    bucket.put("iot/4-parquet", b"PAR1\0\x15\x04" + bytes(range(256)) * 20)
    bucket.put("iot/5-archived", good)
    bucket.put("iot/6-good", good)
    bucket.faults["iot/5-archived"] = ARCHIVED
    with reading(url):
        until(lambda: len(marked(url)) == 6, "each is done")
    assert set(bucket.got.values()) == {1}
    assert clients(url) >= {"bomb", "good", "c0", "c1000"}
    found = {detail[detail.index("(s3:") :].split(",")[0]: reason for reason, detail, _ in quarantined(url)}
    assert found == {
        "(s3://lake/iot/1-bomb": "too-large",
        "(s3://lake/iot/2-long": "too-large",
        "(s3://lake/iot/3-cut": "truncated-gzip",
        "(s3://lake/iot/4-parquet": "not-json",
        "(s3://lake/iot/5-archived)": "archived-object",
    }


def test_a_connection_that_breaks_is_made_anew_where_it_broke(
    s3: S3Fake, url: str, tmp_path: Path, rng: random.Random
) -> None:
    bucket, bodies = s3.buckets["lake"], fleet(2_500)
    body = "".join(bodies).encode()
    bucket.put("iot/1", body)
    bucket.cut["iot/1"] = len(body) // 2
    with reading(url) as ingester:
        until(lambda: bucket.got["iot/1"], "it is asked for")
        bucket.faults["iot/1"] = SLOW_DOWN
        until(lambda: ingester.tally.sources["s3:lake/iot/"].failures["throttled"], "it is asked for again")
        assert not marked(url)
        bucket.faults.clear()
        until(lambda: marked(url), "it is in")
    assert held(url) == expected(f"sqlite:///{tmp_path / 'other.db'}", bodies, tmp_path)


def test_an_object_that_changes_while_it_is_read_is_told_from_one_that_fails(s3: S3Fake) -> None:
    bucket, client = s3.buckets["lake"], Account().client("s3")
    for change in (partial(bucket.put, "iot/1", b"other"), partial(bucket.objects.pop, "iot/1")):
        bucket.put("iot/1", bytes(1 << 20))
        bucket.cut["iot/1"] = 300_000
        pieces = Content(client, "lake", "iot/1").pieces(lambda failure, failures: None)
        assert next(pieces)
        change()
        with pytest.raises(Changed):
            list(pieces)


def test_throttling_and_outages_pass_and_what_was_put_back_is_read(
    s3: S3Fake, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = s3.buckets["lake"]
    for number in range(3):
        bucket.put(f"iot/{number}", event(f"c{number}").encode())
    bucket.faults["iot/1"] = SLOW_DOWN
    bucket.faults["iot/2"] = DENIED
    with reading(url) as ingester:
        failures = ingester.tally.sources["s3:lake/iot/"].failures
        until(lambda: failures["throttled"] and failures["denied"] > 1, "it is tried again")
        assert clients(url) == {"c0"}
        bucket.faults.clear()
        until(lambda: len(clients(url)) == 3, "all is in")
        s3.faults["ListObjectsV2"] = DENIED
        denied = failures["denied"]
        until(lambda: failures["denied"] > denied, "a listing fails")
        bucket.put("iot/3", event("c3").encode())
        s3.faults.clear()
        until(lambda: len(clients(url)) == 4, "the rest is in")
    assert bucket.got["iot/0"] == 1
    assert [
        entry.message for entry in caplog.records if "Allow s3:ListBucket and s3:GetObject" in entry.message
    ]


def test_a_bucket_that_is_not_there_is_refused_at_the_start(s3: S3Fake, url: str) -> None:
    s3.buckets.clear()
    with pytest.raises(SourceError, match="NoSuchBucket"), reading(url):
        pass


# --- Marks and settings -------------------------------------------------------------------------------------


def test_marks_are_those_that_were_saved_by_whichever_run(rng: random.Random) -> None:
    saved: dict[str, str] = {"start": "@0"}
    known: set[tuple[int, int]] = set()
    for _ in range(4):
        marks = Marks(saved)
        for _ in range(rng.randrange(1, 2 * MARKS)):
            mark, at_ms = rng.getrandbits(64), rng.randrange(3) * HOUR_S * 1000
            part, position = marks.add(mark, at_ms)
            saved[part] = position
            known.add((mark, at_ms))
        assert all(marks.has(*each) for each in known)
        assert not any(marks.has(mark, at_ms + HOUR_S * 1000) for mark, at_ms in known)
        assert len(marks) == len(known)
    assert max(len(position) for position in saved.values()) <= MARKS * 8 * 4 // 3 + 4
    marks = Marks(saved)
    saved |= dict(marks.drop(listed={1}, before_ms=hour_of(2 * HOUR_S * 1000) * HOUR_S * 1000))
    kept = {each for each in known if each[1] > 0}
    for each in (marks, Marks(saved)):
        assert {one for one in known if each.has(*one)} == kept


def test_marks_tell_keys_contents_and_quotes_apart_as_s3_does() -> None:
    assert mark_of("a", '"x"') == mark_of("a", "x")
    assert len({mark_of("a", "x"), mark_of("a", "y"), mark_of("ax", ""), mark_of("b", "x")}) == 4


def test_a_prefix_is_named_by_a_url(tmp_path: Path) -> None:
    said = s3_of("s3://lake/iot/a%20b+c/?notices=https://sqs.eu-west-1.amazonaws.com/1/new&start=latest")
    assert msgspec.convert(said, S3) == S3(
        bucket="lake",
        prefix="iot/a%20b+c/",
        notices="https://sqs.eu-west-1.amazonaws.com/1/new",
        start="latest",
    )
    assert s3_of("s3://lake") == {"bucket": "lake", "prefix": ""}
    for wrong in ("lake/iot", "https://lake/iot", "s3:///iot"):
        with pytest.raises(ValueError, match="s3://BUCKET/PREFIX"):
            s3_of(wrong)
    one = {"bucket": "lake", "notices": "https://sqs/1/new"}
    for wrong_settings in ({"s3": [one, one]}, {"s3": [one], "sqs": [{"url": "https://sqs/1/new"}]}):
        with pytest.raises(msgspec.ValidationError, match="share a queue"):
            msgspec.convert(wrong_settings, Settings)
