"""`thingline run` reading a stream over HTTP: shards, resharding, kills, and several ingesters of one store."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.aws import Account
from ingest.inbox import Inbox
from ingest.kinesis import KinesisSource
from ingest.positions import LEASE_MS, Leases
from ingest.tally import Tally
from store.engine import open_writer, parse_url
from tests.aws.json_fake import DENIED
from tests.aws.killing import killed_under_load
from tests.aws.kinesis_fake import KinesisFake, Stream, serving_streams
from tests.aws.test_run import SOAK, end, expected, fleet, held, stored, until, watches
from tests.contents import connected
from tests.contract.test_crash import NewUrl, new_url
from tests.processes import finish, start

__all__ = ["new_url"]  # a fixture


@pytest.fixture
def kinesis() -> Iterator[KinesisFake]:
    with serving_streams() as fake:
        yield fake


def begin(fake: KinesisFake, url: str, folder: Path, *, first: str = "horizon") -> subprocess.Popen[bytes]:
    path = folder / f"{first}.toml"
    path.write_text(f'[[kinesis]]\nstream = "events"\nstart = "{first}"\n')
    environment = {**os.environ, **fake.environment}
    return start("run", "--config", str(path), "--store", url, env=environment)


def distinct(bodies: list[str], folder: Path) -> int:
    """Count the pieces of evidence that bodies hold."""
    url = f"sqlite:///{folder / 'count.db'}"
    expected(url, bodies, folder)
    return stored(url)


def in_store(url: str) -> int:
    """Count the pieces of evidence; the store may not be there yet."""
    try:
        return stored(url)
    except sa.exc.DBAPIError:
        return 0


def has_stored(url: str, count: int) -> bool:
    return in_store(url) >= count


@pytest.mark.parametrize("kills", [2, SOAK])
def test_a_stream_is_read_through_reshardings_and_kills(
    kinesis: KinesisFake, new_url: NewUrl, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    url, bodies = new_url(), fleet(max(800, 180 * kills))
    count = distinct(bodies, tmp_path)
    kinesis.streams["events"] = stream = Stream(rng, 3)
    kinesis.expire_every = 23

    def reshard(number: int) -> None:
        if number % 4 == 0:
            stream.split(rng.choice([shard for shard in stream.shards if not shard.is_closed]))

    killed_under_load(
        begin=lambda: begin(kinesis, url, tmp_path),
        give=stream.put,
        progress=(lambda: stream.given, lambda: in_store(url)),
        left=lambda given: count_unread(stream, url),
        records=bodies,
        kills=kills,
        rng=rng,
        between=reshard,
    )
    process = begin(kinesis, url, tmp_path)
    until(lambda: has_stored(url, count), "all is in", process=process)
    until(lambda: stream.ends().items() <= positions(url).items(), "all is known to be read", process=process)
    code, log = end(process)
    assert code == 0, log
    assert held(url) == expected(new_url(), bodies, tmp_path)
    given = stream.given
    process = begin(kinesis, url, tmp_path)
    stream.put(bodies[:1])
    until(lambda: stream.given > given, "it reads on", process=process)
    assert end(process)[0] == 0
    assert stream.given < given + 50  # from the saved positions, not from the horizon


def positions(url: str) -> dict[str, str]:
    """Tell up to where each shard is known to be read; the store may not be there yet."""
    with connected(url) as connection:
        try:
            found = connection.execute(sa.text("SELECT part, position FROM positions"))
            return {row[0]: row[1] for row in found}
        except sa.exc.DBAPIError:
            return {}


def count_unread(stream: Stream, url: str) -> int:
    """Count the records that lie after the saved positions."""
    at = positions(url)
    places = {shard.name: at.get(shard.name, "") for shard in stream.shards}
    return sum(
        int(record[0]) > (int(places[shard.name]) if places[shard.name].isdecimal() else 0)
        for shard in stream.shards
        if places[shard.name] != "closed"
        for record in shard.records
    )


def test_a_closed_shard_is_read_once_though_its_end_is_not_saved_yet(
    kinesis: KinesisFake, sqlite_store_url: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes what is delivered, so that the store does not come to know."""
    kinesis.streams["events"] = stream = Stream(rng, 1)
    bodies = fleet(20)
    stream.put(bodies)
    stream.split(stream.shards[0])
    for name, value in kinesis.environment.items():
        monkeypatch.setenv(name, value)
    inbox, stop = Inbox(), threading.Event()
    with open_writer(parse_url(sqlite_store_url)) as store:
        source = KinesisSource("events", account=Account(), tally=Tally(), store=store, start="horizon")
        thread = threading.Thread(target=source.run, args=(inbox, stop))
        thread.start()
        until(lambda: kinesis.calls["ListShards"] >= 4, "it has looked again, two pages a look")
        looks = kinesis.calls["GetRecords"]
        until(lambda: kinesis.calls["GetRecords"] >= looks + 2, "the children are read on")
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert stream.given == len(bodies)


def test_latest_begins_now_and_goes_on_there_after_a_restart(
    kinesis: KinesisFake, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(60)
    kinesis.streams["events"] = stream = Stream(rng, 2)
    stream.put(bodies[:20])
    process = begin(kinesis, url, tmp_path, first="latest")
    until(lambda: watches(url), "it has begun", process=process)
    until(lambda: len(positions(url)) == 2, "it has begun with both", process=process)
    assert end(process)[0] == 0
    stream.put(bodies[20:])  # while nobody reads
    process = begin(kinesis, url, tmp_path, first="latest")
    count = distinct(bodies[20:], tmp_path)
    until(lambda: has_stored(url, count), "what came meanwhile is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert held(url) == expected(f"sqlite:///{tmp_path / 'other.db'}", bodies[20:], tmp_path)
    assert len({row[0] for row in watches(url)}) == 1


def test_two_ingesters_share_the_shards_and_one_takes_over_from_the_other(
    kinesis: KinesisFake, postgres_store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    bodies = fleet(1_200, seed=5)
    count = distinct(bodies, tmp_path)
    kinesis.streams["events"] = stream = Stream(rng, 4)
    stream.put(bodies[:600])
    one = begin(kinesis, postgres_store_url, tmp_path)
    until(lambda: stream.has_given(600), "the first reads", process=one)

    def owners() -> list[int]:
        with connected(postgres_store_url) as connection:
            shares = sa.text("SELECT count(*) - 1 FROM leases GROUP BY owner HAVING count(*) > 1 ORDER BY 1")
            return list(connection.execute(shares).scalars())

    other = begin(kinesis, postgres_store_url, tmp_path)
    until(lambda: owners() == [2, 2], "they share", process=other)
    stream.put(bodies[600:])
    code, log = end(one)
    assert code == 0, log
    until(lambda: owners() == [4], "the other takes over", process=other)
    until(lambda: has_stored(postgres_store_url, count), "all is in", process=other)
    code, log = end(other)
    assert code == 0, log
    assert held(postgres_store_url) == expected(f"sqlite:///{tmp_path / 'one.db'}", bodies, tmp_path)


def test_a_stream_that_fails_is_told_and_read_on(
    kinesis: KinesisFake, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(60)
    code, _, log = finish(begin(kinesis, url, tmp_path))
    assert (code, "ResourceNotFoundException" in log) == (4, True), log
    kinesis.streams["events"] = stream = Stream(rng, 1)
    process = begin(kinesis, url, tmp_path)
    until(lambda: kinesis.calls["GetRecords"] > 0, "it reads", process=process)
    kinesis.faults["*"] = DENIED
    failed = kinesis.failed
    until(lambda: kinesis.failed > failed + 1, "it tries again", process=process)
    stream.put(bodies)
    kinesis.faults.clear()
    until(lambda: has_stored(url, distinct(bodies, tmp_path)), "all is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert "kinesis:GetRecords" in log


def test_leases_are_shared_evenly_whoever_comes_goes_or_dies(
    postgres_store_url: str, rng: random.Random
) -> None:
    """Random lives of ingesters: a part has one owner at most, and two rounds after a change all are held evenly."""
    now = [1_000_000]
    with open_writer(parse_url(postgres_store_url)) as store:
        known: dict[str, Leases] = {}

        def look() -> dict[str, set[str]]:
            return {owner: leases.hold(parts) for owner, leases in known.items()}

        parts = [f"shard-{number}" for number in range(5)]
        for step in range(25):
            what = rng.choice(("come", "go", "die", "split"))
            if what == "come" or not known:
                owner = f"owner-{step}"
                known[owner] = Leases(store, "stream", owner=owner, clock=lambda: now[0])
            elif what == "go":
                known.pop(rng.choice(list(known))).release()
            elif what == "die":
                known.pop(rng.choice(list(known)))
                now[0] += LEASE_MS + 1
            else:
                parts = [*parts[1:], f"shard-{step}-a", f"shard-{step}-b"][-9:]
            if not known:
                continue
            look()
            shares = look()
            assert_disjoint(shares)
            shares = look()
            now[0] += rng.randrange(LEASE_MS // 3)
            assert_disjoint(shares)
            sizes = [len(share) for share in shares.values()]
            assert sum(sizes) == len(parts)
            assert max(sizes) <= -(-len(parts) // len(known))


def assert_disjoint(shares: dict[str, Any]) -> None:
    held = [part for share in shares.values() for part in share]
    assert len(held) == len(set(held))
