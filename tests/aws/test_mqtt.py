"""`thingline run` against real brokers: the real command in a process of its own, signals and kills included."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

import ingest.broker
from ingest.inbox import Delivery, Inbox
from ingest.mqtt import MqttSource
from ingest.settings import PRESENCE, Mqtt, mqtt_of
from ingest.tally import Tally
from tests.aws.killing import killed_under_load
from tests.aws.mqtt_broker import KINDS, PASSWORD, USER, Broker, papers
from tests.aws.test_run import SOAK, end, expected, fleet, held, stored, until, watches
from tests.contents import connected
from tests.contract.test_crash import NewUrl, new_url
from tests.processes import finish, run, start

__all__ = ["new_url"]  # a fixture


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(request.param, tmp_path)
    yield made
    made.stop()


def begin(broker: Broker, url: str, *args: str) -> subprocess.Popen[bytes]:
    return start("run", "--mqtt", broker.url(), "--store", url, *args)


def shuffled(bodies: list[str], rng: random.Random) -> list[str]:
    """Give what a broker may: some twice, and out of order."""
    twice = set(rng.sample(range(len(bodies)), len(bodies) // 10))
    sent = [(at, body) for at, body in enumerate(bodies) for _ in range(2 if at in twice else 1)]
    return [body for _, body in sorted((at + rng.random() * 40, body) for at, body in sent)]


def test_what_is_published_is_in_the_store(
    broker: Broker, new_url: NewUrl, tmp_path: Path, rng: random.Random
) -> None:
    url, bodies = new_url(), fleet(1_000)
    wanted = expected(new_url(), bodies, tmp_path)
    process = begin(broker, url)
    until(lambda: watches(url), "it has begun", process=process)
    broker.publish(shuffled(bodies, rng))
    until(lambda: stored(url) == len(wanted["evidence"]), "all is in", process=process)
    begun_s = time.monotonic()
    code, log = end(process)
    assert (code, time.monotonic() - begun_s < 10) == (0, True), log
    assert held(url) == wanted
    with connected(url) as connection:
        (reason,) = connection.execute(sa.text("SELECT DISTINCT reason FROM quarantine")).scalars()
    assert reason == "unknown-shape"


def evidence_by(bodies: list[str]) -> list[int]:
    """Count the pieces of evidence up to each body: in or out of an envelope, once or twice."""
    seen: set[str] = set()
    counts = []
    for body in bodies:
        said = json.loads(body)
        if "no" not in said:
            seen.add(said.get("Message") or json.dumps(said))
        counts.append(len(seen))
    return counts


@pytest.mark.parametrize("kills", [3, SOAK])
def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(
    broker: Broker, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(max(1_500, 180 * kills))
    wanted = expected(f"sqlite:///{tmp_path / 'wanted.db'}", bodies, tmp_path)
    sent = shuffled(bodies, rng)
    counts = evidence_by(sent)
    assert counts[-1] == len(wanted["evidence"])
    process = begin(broker, url)
    until(lambda: watches(url), "it has begun", process=process)  # the broker keeps what comes from here on
    process.kill()
    finish(process)
    reading = sqlite3.connect(
        tmp_path / "store.db", isolation_level=None
    )  # once: it takes longer than a commit

    def in_store() -> int:
        return int(reading.execute("SELECT count(*) FROM evidence").fetchone()[0])

    killed_under_load(
        begin=lambda: begin(broker, url),
        give=broker.publish,
        progress=[in_store],
        left=lambda given: counts[len(given) - 1] - in_store(),
        records=sent,
        kills=kills,
        rng=rng,
    )
    reading.close()
    begun_ms = int(time.time() * 1000)
    process = begin(broker, url)
    until(lambda: watches(url)[-1][2] > begun_ms, "it has begun again", process=process)
    until(lambda: stored(url) == len(wanted["evidence"]), "all is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert held(url) == wanted


def test_nothing_is_acknowledged_before_its_commit(broker: Broker, tmp_path: Path) -> None:
    """The store's file is locked meanwhile: nothing can be committed. What was received comes again."""
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(150)
    wanted = expected(f"sqlite:///{tmp_path / 'wanted.db'}", bodies, tmp_path)
    process = begin(broker, url)
    until(lambda: watches(url), "it has begun", process=process)
    holding = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    broker.publish(bodies)
    time.sleep(1)
    process.kill()
    finish(process)
    holding.execute("ROLLBACK")
    holding.close()
    assert stored(url) == 0
    process = begin(broker, url)
    until(lambda: stored(url) == len(wanted["evidence"]), "all came again", process=process)
    code, log = end(process)
    assert code == 0, log
    assert held(url) == wanted


def test_a_session_that_the_broker_kept_leaves_no_gap_and_one_that_it_lost_does(
    broker: Broker, tmp_path: Path
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(90)
    process = begin(broker, url)
    until(lambda: watches(url), "it has begun", process=process)
    code, log = end(process)
    broker.publish(bodies[:40])  # while nobody listens
    process = begin(broker, url)
    until(lambda: stored(url) >= 30, "what the broker kept is in", process=process)
    until(lambda: watches(url)[-1][2] > watches(url)[0][2], "it says that it watches", process=process)
    rows = watches(url)
    assert all(after[1] <= before[2] for before, after in pairwise(rows))
    before = len(rows)
    broker.stop()
    gone_ms = int(time.time() * 1000)
    time.sleep(1.5)
    broker.start()
    until(lambda: len(watches(url)) > before, "it is there again", process=process)
    broker.publish(bodies[40:])
    until(lambda: stored(url) >= 80, "the rest is in", process=process)
    code, log = end(process)
    assert code == 0, log
    assert not [row for row in watches(url) if row[1] < gone_ms + 500 < row[2]]
    assert log.count("answers again") == 1, log
    assert {row[0] for row in watches(url)} == {"mqtt:ingester"}
    out = run("coverage", "--from", "-1h", "--store", url)[1]
    assert "    gap " in out


class Taking:
    """A source in this process, and what it handed over."""

    def __init__(self, broker: Broker, *, most_bytes: int = 1 << 20) -> None:
        self.tally = Tally()
        said = msgspec.convert(mqtt_of(broker.url()), Mqtt)
        self.source = MqttSource(said, tally=self.tally)
        self.inbox = Inbox(most_bytes=most_bytes)
        self.stop = threading.Event()
        self.source.check()
        self._thread = threading.Thread(target=self.source.run, args=(self.inbox, self.stop), daemon=True)
        self._thread.start()

    def take(self, records: int) -> list[Delivery]:
        """Take until so many records came."""
        taken: list[Delivery] = []
        end_s = time.monotonic() + 30
        while sum(len(each.items) for each in taken) < records:
            assert time.monotonic() < end_s, [len(each.items) for each in taken]
            taken += self.inbox.take(most=1_000, wait_s=0.5)
        return taken

    def end(self) -> None:
        self.stop.set()
        self.inbox.close()
        self._thread.join()
        self.source.end(within_s=10)


def event(number: int) -> str:
    said = {"clientId": f"pump/{number}", "eventType": "connected", "timestamp": 1_793_500_000_000 + number}
    return json.dumps({**said, "sessionIdentifier": str(number), "versionNumber": 0})


def clients(deliveries: list[Delivery]) -> list[str]:
    return [item.evidence.client_id for each in deliveries for item in each.items]  # type: ignore[union-attr]


def test_an_acknowledgement_never_leaves_its_connection(broker: Broker) -> None:
    """After the broker's restart the same numbers stand for other messages."""
    first = Taking(broker)
    broker.publish(map(event, range(3)))
    early = first.take(3)
    broker.stop()
    broker.start()
    until(lambda: "away" in first.tally.sources["mqtt:ingester"].failures, "it was lost")
    until(lambda: first.inbox.take(most=1, wait_s=1), "it is there again")
    broker.publish(map(event, range(3, 6)))
    first.take(3)
    for each in early:
        each.settle()
    first.end()
    second = Taking(broker)
    late = second.take(3)
    assert sorted(clients(late)) == ["pump/3", "pump/4", "pump/5"]
    for each in late:
        each.settle()
    second.end()
    third = Taking(broker)
    broker.publish([event(6)])
    assert clients(third.take(1)) == ["pump/6"]  # what was acknowledged does not come again
    third.end()


def test_a_connection_outlives_a_writer_that_stalls_and_memory_is_bounded(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.broker, "KEEP_ALIVE_S", 1)
    taking = Taking(broker, most_bytes=1)
    broker.publish(map(event, range(800)))
    time.sleep(4)  # the broker cuts what was silent for 1.5 s
    assert taking.tally.sources["mqtt:ingester"].messages <= 2 * ingest.broker.UNACKNOWLEDGED
    if broker.kind == "mosquitto":  # rumqttd answers no ping while it waits for acknowledgements
        assert not taking.tally.sources["mqtt:ingester"].failures
    came: set[str] = set()
    while len(came) < 800:
        taken = taking.take(1)
        came.update(clients(taken))
        for each in taken:
            each.settle()
    taking.end()


def test_an_idle_connection_is_watched_for_as_long_as_the_broker_answers(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.broker, "KEEP_ALIVE_S", 1)
    taking = Taking(broker)
    time.sleep(3.5)
    said = [each.watched for each in taking.inbox.take(most=100, wait_s=0) if each.watched]
    taking.end()
    assert len(said) >= 3
    assert {each.from_ms for each in said} == {said[0].from_ms}
    assert said[-1].to_ms - said[0].from_ms > 1_500
    assert {each.unbroken_ms for each in said} == {None}


def test_an_unreachable_broker_is_told_at_the_start(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{free.getsockname()[1]}?client_id=a"
        code, _, err = run("run", "--mqtt", url, "--store", f"sqlite:///{tmp_path / 'a.db'}")
    assert (code, "does not answer: Connection refused. Check host and port" in err) == (4, True), err


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_comes_from_a_file_or_the_environment_and_a_wrong_one_is_told(
    kind: str, tmp_path: Path
) -> None:
    broker = Broker(kind, tmp_path, password=True)
    try:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        right.write_text(PASSWORD + "\n")
        wrong.write_text("something else\n")
        at = f"{broker.url()}&username={USER}"
        code, _, err = run("run", "--mqtt", f"{at}&password_file={wrong}", "--store", url)
        assert (code, "Check username and password" in err) == (4, True), err
        assert "something else" not in err
        process = start("run", "--mqtt", f"{at}&password_file={right}", "--store", url)
        until(lambda: watches(url), "it has begun", process=process)
        assert end(process)[0] == 0
        url = f"sqlite:///{tmp_path / 'other.db'}"
        environment = {**os.environ, "THINGLINE_MQTT_PASSWORD": PASSWORD}
        process = start("run", "--mqtt", at, "--store", url, env=environment)
        until(lambda: watches(url), "it has begun", process=process)
        assert end(process)[0] == 0
    finally:
        broker.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_speak_for_both_sides(kind: str, tmp_path: Path) -> None:
    own, other = papers(tmp_path, "own"), papers(tmp_path, "other")
    broker = Broker(kind, tmp_path, papers=own)
    try:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        at = broker.url().replace("mqtt://", "mqtts://")
        process = start("run", "--mqtt", f"{at}&ca={own.ca}&cert={own.cert}&key={own.key}", "--store", url)
        until(lambda: watches(url), "it has begun", process=process)
        assert end(process)[0] == 0
        code, _, err = run("run", "--mqtt", f"{at}&ca={other.ca}", "--store", url)
        assert (code, "was not believed" in err) == (4, True), err
        if kind == "mosquitto":  # iotcore lets in who has none
            code, _, err = run(
                "run", "--mqtt", f"{at}&ca={own.ca}&cert={other.cert}&key={other.key}", "--store", url
            )
            assert (code, "mqtt:ingester: " in err) == (4, True), err
        code, _, err = run("run", "--mqtt", f"{at}&ca={tmp_path / 'none'}", "--store", url)
        assert (code, "cannot be used" in err) == (4, True), err
    finally:
        broker.stop()


@pytest.mark.parametrize(("port", "protocol"), [(443, "x-amzn-mqtt-ca"), (8883, None)])
def test_on_port_443_aws_is_told_that_it_is_mqtt(port: int, protocol: str | None, tmp_path: Path) -> None:
    own = papers(tmp_path, "own")
    said = Mqtt(
        host="127.0.0.1", client_id="a", port=port, ca=str(own.ca), cert=str(own.cert), key=str(own.key)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own.cert, own.key)
    server.set_alpn_protocols(["http/1.1", "x-amzn-mqtt-ca"])
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = ingest.broker.tls_of(said).wrap_bio(back, there, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(there, back, server_side=True)
    steps: list[Callable[[], None]] = [ours.do_handshake, theirs.do_handshake]
    for step in steps * 3:
        try:
            step()
        except ssl.SSLWantReadError:
            continue
    assert ours.version() is not None
    assert theirs.selected_alpn_protocol() == protocol


def test_without_paho_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "paho").mkdir()
    (tmp_path / "paho" / "__init__.py").write_text("raise ImportError('not there')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = start(
        "run",
        "--mqtt",
        "mqtt://127.0.0.1?client_id=a",
        "--store",
        f"sqlite:///{tmp_path / 'a.db'}",
        env=environment,
    )
    code, _, err = finish(process)
    assert (code, "pip install 'thingline[mqtt]'" in err) == (2, True), err


def test_a_url_is_read_as_a_table_of_the_file_is() -> None:
    url = "mqtts://example.com?client_id=a&topic=x/%23&topic=y&ca=ca.pem&cert=c.pem&key=k.pem&session=6h"
    assert msgspec.convert(mqtt_of(url), Mqtt) == Mqtt(
        host="example.com",
        client_id="a",
        topics=("x/#", "y"),
        ca="ca.pem",
        cert="c.pem",
        key="k.pem",
        session="6h",
    )
    plain = msgspec.convert(mqtt_of("mqtt://127.0.0.1:1999?client_id=a"), Mqtt)
    assert (plain.tls, plain.port_used, plain.topics) == (False, 1999, (PRESENCE,))
    assert Mqtt(host="h", client_id="a").port_used == 8883


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mqtts://h", "client_id"),
        ("https://h?client_id=a", "mqtts://"),
        ("mqtts://h?client_id=a&topic=x/#", "%23"),
        ("mqtts://ann:geheim@h?client_id=a", "passwords do not belong"),
        ("mqtts://h?client_id=a&password=geheim", "unknown field"),
        ("mqtts://h?client_id=a&cert=c.pem", "cert and key belong together"),
        ("mqtt://h?client_id=a&ca=c.pem", "for TLS"),
        ("mqtts://h?client_id=a&session=soon", "15m"),
        ("mqtts://h?client_id=a&session=99999d", "shorter"),
        ("mqtts://ann:geheim?client_id=a", "port"),
        ("mqtts://h?client_id=a&password_file=x", "username"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        msgspec.convert(mqtt_of(url), Mqtt)
    assert complaint in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_a_refused_url_is_a_fault_of_the_command(tmp_path: Path) -> None:
    url = "mqtts://ann:geheim@h?client_id=a"
    code, _, err = run("run", "--mqtt", url, "--store", f"sqlite:///{tmp_path / 'a.db'}")
    assert (code, "That cannot be run" in err, "geheim" in err) == (2, True, False), err
