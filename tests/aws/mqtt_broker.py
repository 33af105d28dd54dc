"""Real MQTT brokers, each a process of its own with a listener on loopback.

iotcore is rumqttd (Rust) in a wheel, so the plain test command has one everywhere; it refuses `$aws/...` topics and
takes what a rule republished. mosquitto, where it is installed, takes them.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ingest.settings import PRESENCE

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
KINDS = ["iotcore", *(["mosquitto"] if MOSQUITTO else [])]
USER, PASSWORD = "ingester", "hush-hush"


class Papers(NamedTuple):
    """Files of a certificate authority, and of who it signed."""

    ca: Path
    cert: Path
    key: Path


class Broker:
    """A broker that can be stopped and started; its sessions are gone then."""

    def __init__(
        self, kind: str, folder: Path, *, papers: Papers | None = None, password: bool = False
    ) -> None:
        self.kind = kind
        self.filter = PRESENCE if kind == "mosquitto" else "fleet/presence/#"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._folder = folder
        self._command = (_mosquitto if kind == "mosquitto" else _iotcore)(folder, self.port, papers, password)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self._folder / f"{self.kind}.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end_s = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                assert self._process.poll() is None, (self._folder / f"{self.kind}.log").read_text()
                assert time.monotonic() < end_s
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, client_id: str = "ingester") -> str:
        return f"mqtt://127.0.0.1:{self.port}?client_id={client_id}&topic={self.filter.replace('#', '%23')}"

    def publish(self, bodies: Iterable[str]) -> None:
        """Publish, each event on its topic as AWS IoT does, and wait until the broker has all."""
        client = self.connected("publisher")
        sent = [client.publish(self._topic(body), body, 1) for body in bodies]
        for each in sent:
            each.wait_for_publish(30)
            assert each.is_published()
        client.disconnect()
        client.loop_stop()

    def connected(self, client_id: str) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(20)
        client.connect("127.0.0.1", self.port, clean_start=False)
        client.loop_start()
        return client

    def _topic(self, body: str) -> str:
        try:
            said: dict[str, Any] = json.loads(body)
        except ValueError:
            said = {}
        kind, client = said.get("eventType", "other"), said.get("clientId", "other")
        return f"{self.filter.removesuffix('#')}{kind}/{client}"


def _mosquitto(folder: Path, port: int, papers: Papers | None, password: bool) -> list[str]:
    lines = [
        f"listener {port} 127.0.0.1",
        "max_queued_messages 0",
        f"allow_anonymous {str(not password).lower()}",
    ]
    if papers is not None:
        lines += [f"cafile {papers.ca}", f"certfile {papers.cert}", f"keyfile {papers.key}"]
        lines += ["require_certificate true"]
    if password:
        (folder / "passwords").write_text(f"{USER}:{PASSWORD}\n")
        subprocess.run(["mosquitto_passwd", "-U", str(folder / "passwords")], check=True)
        lines += [f"password_file {folder / 'passwords'}"]
    (folder / "mosquitto.conf").write_text("\n".join(["user root", *lines, ""]))
    assert MOSQUITTO is not None
    return [MOSQUITTO, "-c", str(folder / "mosquitto.conf")]


def _iotcore(folder: Path, port: int, papers: Papers | None, password: bool) -> list[str]:
    text = f"""
        id = 0
        [router]
        id = 0
        max_connections = 100
        max_outgoing_packet_count = 200
        max_segment_size = 104857600
        max_segment_count = 10
        [v5.1]
        name = "v5"
        listen = "127.0.0.1:{port}"
        next_connection_delay_ms = 1
        [v5.1.connections]
        connection_timeout_ms = 10000
        max_payload_size = 200000
        max_inflight_count = 100
        dynamic_filters = true
    """
    if password:
        text += f'[v5.1.connections.auth]\n{USER} = "{PASSWORD}"\n'
    if papers is not None:
        text += f'[v5.1.tls]\ncapath = "{papers.ca}"\ncertpath = "{papers.cert}"\nkeypath = "{papers.key}"\n'
    (folder / "iotcore.toml").write_text(text)
    return [sys.executable, "-m", "iotcore", "--config", str(folder / "iotcore.toml")]


def papers(folder: Path, name: str) -> Papers:
    """Make an authority and what it signed for 127.0.0.1, good for broker and client."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, own_name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (f"{name} CA", name)
    )
    made = []
    for subject, public, is_ca in ((ca_name, ca_key, True), (own_name, key, False)):
        builder = (
            x509.CertificateBuilder(ca_name, subject, public.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            address = x509.IPAddress(IPv4Address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        made.append(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found = Papers(*(folder / f"{name}-{each}.pem" for each in ("ca", "cert", "key")))
    for path, content in zip(found, (*made, secret), strict=True):
        path.write_bytes(content)
    return found
