"""`thingline run --mqtt wss://...`: signed anew at each connection, by real paho and botocore, before real brokers."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ingest.aws import Account
from ingest.broker import Unsigned, sign, signer_of
from ingest.settings import Mqtt, mqtt_of
from store.errors import SourceError
from tests.aws.iot_fake import DENIED, GET_IDENTITY, IotFake
from tests.aws.mqtt_broker import KINDS, Broker, papers
from tests.aws.test_mqtt import shuffled
from tests.aws.test_run import end, expected, fleet, held, stored, until, watches
from tests.aws.websocket_gateway import Gateway, serving_gateway
from tests.processes import finish, start

KEY, SECRET, TOKEN = "AKIAEXAMPLE", "geheim/+=", "to/ken+with=all"


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(request.param, tmp_path)
    yield made
    made.stop()


def begin(
    gateway: Gateway, broker: Broker, url: str, *more: str, **credentials: str
) -> subprocess.Popen[bytes]:
    scheme = "wss" if more else "ws"
    at = f"{scheme}://127.0.0.1:{gateway.port}/mqtt?client_id=ingester&topic={broker.filter.replace('#', '%23')}"
    environment = {**os.environ, "AWS_REGION": "eu-central-1", **credentials}
    return start("run", "--mqtt", "&".join([at, *more]), "--store", url, env=environment)


def signed_by(key: str, secret: str, token: str | None) -> dict[str, str]:
    said = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    return said if token is None else {**said, "AWS_SESSION_TOKEN": token}


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_signed_websocket_brings_what_is_published_and_is_signed_anew_each_time(
    broker: Broker, tmp_path: Path, rng: random.Random, token: str | None
) -> None:
    url, bodies = f"sqlite:///{tmp_path / 'store.db'}", fleet(200)
    wanted = expected(f"sqlite:///{tmp_path / 'wanted.db'}", bodies, tmp_path)
    own = papers(tmp_path, "own")
    with serving_gateway(broker.port, papers=own) as gateway:
        gateway.keys[KEY] = SECRET, token
        process = begin(gateway, broker, url, f"ca={own.ca}", **signed_by(KEY, SECRET, token))
        until(lambda: watches(url), "it has begun", process=process)
        broker.publish(shuffled(bodies[:100], rng))
        until(lambda: stored(url) > 50, "it takes in", process=process)
        gateway.cut()
        until(lambda: len(gateway.targets) > 1, "it connects again", process=process)
        broker.publish(shuffled(bodies[100:], rng))
        until(lambda: stored(url) == len(wanted["evidence"]), "all is in", process=process)
        code, log = end(process)
    assert code == 0, log
    assert held(url) == wanted
    assert gateway.refused == []
    signatures = {target.partition("X-Amz-Signature=")[2] for target in gateway.targets}
    assert len(signatures) == len(gateway.targets)
    for secret in (KEY, SECRET, TOKEN, "X-Amz", *signatures):
        assert secret not in log


@pytest.mark.parametrize(
    ("credentials", "complaint"),
    [
        (signed_by(KEY, "another", TOKEN), "refused the websocket. Check the AWS credentials"),
        (signed_by(KEY, SECRET, None), "refused the websocket"),
        (signed_by("AKIANOBODY", SECRET, TOKEN), "refused the websocket"),
        ({}, "Unable to locate credentials"),
        ({"AWS_PROFILE": "none"}, "could not be found"),
    ],
)
def test_what_is_not_signed_rightly_is_told_at_the_start(
    credentials: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    broker = Broker(KINDS[0], tmp_path)
    try:
        with serving_gateway(broker.port) as gateway:
            gateway.keys[KEY] = SECRET, TOKEN
            process = begin(gateway, broker, f"sqlite:///{tmp_path / 'store.db'}", **credentials)
            code, _, log = finish(process)
    finally:
        broker.stop()
    assert (code, complaint in log) == (4, True), log
    for secret in (KEY, SECRET, TOKEN, "X-Amz"):
        assert secret not in log


def test_the_region_is_the_endpoints_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in signed_by(KEY, SECRET, None).items():
        monkeypatch.setenv(name, value)
    signer = signer_of(Mqtt(host="a1-ats.iot.eu-west-3.amazonaws.com", client_id="a", sigv4=True), Account())
    assert signer is not None
    assert "%2Feu-west-3%2Fiotdevicegateway%2F" in signer.signed_target("https://a1/mqtt")
    with pytest.raises(SourceError, match="no Region"):
        signer_of(Mqtt(host="example.com", client_id="a", sigv4=True), Account())
    assert signer_of(Mqtt(host="example.com", client_id="a"), Account()) is None


def test_a_role_that_may_not_be_taken_is_no_connection(
    iot: IotFake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS is asked for its keys, in paho's thread, which must outlive that."""
    path = tmp_path / "config"
    role = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = own\nregion = eu-central-1"
    path.write_text(f"[profile r]\n{role}\n[profile own]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    iot.fail(GET_IDENTITY, DENIED)  # its route is that of AssumeRole
    said = Mqtt(host="127.0.0.1", client_id="a", sigv4=True)
    signer = signer_of(said, Account(profile="r"))
    assert signer is not None
    with pytest.raises(Unsigned, match="AccessDenied"):
        sign(Client(CallbackAPIVersion.VERSION2, transport="websockets"), said, signer)


def test_a_url_is_read_as_a_table_of_the_file_is() -> None:
    said = msgspec.convert(mqtt_of("wss://example.com/mqtt?client_id=a"), Mqtt)
    assert said == Mqtt(host="example.com", client_id="a", sigv4=True)
    assert (said.port_used, said.place) == (443, "wss://example.com:443")
    plain = msgspec.convert(mqtt_of("ws://127.0.0.1?client_id=a"), Mqtt)
    assert (plain.tls, plain.port_used) == (False, 80)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("wss://h/other?client_id=a", "wss:// for SigV4"),
        ("mqtts://h/mqtt?client_id=a", "wss:// for SigV4"),
        ("wss://h?client_id=a&cert=c.pem&key=k.pem", "leave out cert"),
        ("wss://h?client_id=a&username=ann", "leave out cert"),
        ("wss://ann:geheim@h?client_id=a", "passwords do not belong"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        msgspec.convert(mqtt_of(url), Mqtt)
    assert complaint in str(refused.value)
    assert "geheim" not in str(refused.value)
