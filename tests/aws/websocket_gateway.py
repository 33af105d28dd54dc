"""AWS IoT's gateway for MQTT over websockets, as far as a client sees it.

It stands before a real broker, checks signatures, and unwraps frames. A signature is computed here from the request's
own bytes, by the description of SigV4 and not by botocore, which the ingester signs with. What AWS does beside
(policies, limits) is not here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import struct
import threading
import time
from calendar import timegm
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import unquote

from tests.aws.mqtt_broker import Papers

SERVICE = "iotdevicegateway"
_ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


class Gateway:
    """A listener on loopback. `keys` are secrets and session tokens by access key; a test changes them as it likes."""

    def __init__(self, broker_port: int, papers: Papers | None, region: str) -> None:
        self.keys: dict[str, tuple[str, str | None]] = {}
        self.targets: list[str] = []  # of the requests that came, which are secrets
        self.refused: list[str] = []  # why
        self._region = region
        self._broker_port = broker_port
        self._tls: ssl.SSLContext | None = None
        if papers is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(papers.cert, papers.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        for each in self._open:
            with suppress(OSError):
                _shut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(client)
            if self._tls is not None:
                client = stack.enter_context(self._tls.wrap_socket(client, server_side=True))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            target, headers = _request(head)
            self.targets.append(target)
            why = self._wrong(target, headers["host"])
            if why is not None:
                self.refused.append(why)
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                return
            accept = hashlib.sha1((headers["sec-websocket-key"] + _ACCEPT).encode()).digest()
            client.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: "
                + base64.b64encode(accept)
                + b"\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", self._broker_port)) as broker:
                self._open += [client, broker]
                back = threading.Thread(target=_to_client, args=(broker, client), daemon=True)
                back.start()
                _to_broker(client, broker)
                broker.shutdown(socket.SHUT_RDWR)
                back.join(5)

    def _wrong(self, target: str, host: str) -> str | None:
        """Say what is wrong with a signed target; None: nothing is."""
        path, _, query = target.partition("?")
        before, _, token = query.partition("&X-Amz-Security-Token=")
        said = dict(each.split("=", 1) for each in before.split("&"))
        key, date, region, service, kind = unquote(said["X-Amz-Credential"]).split("/")
        if (path, region, service, kind) != ("/mqtt", self._region, SERVICE, "aws4_request"):
            return f"signed for {path} {region} {service}"
        if key not in self.keys:
            return "unknown key"
        age_s = time.time() - timegm(time.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        if not -300 < age_s < int(said["X-Amz-Expires"]):
            return "expired"
        secret, wanted_token = self.keys[key]
        if unquote(token) != (wanted_token or ""):
            return "wrong token"
        signature = said.pop("X-Amz-Signature")
        names = sorted(said)
        nothing = hashlib.sha256(b"").hexdigest()
        canonical = f"GET\n{path}\n{'&'.join(f'{name}={said[name]}' for name in names)}\nhost:{host}\n\nhost\n{nothing}"
        scope = f"{date}/{region}/{service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signing = f"AWS4{secret}".encode()
        for part in (
            date,
            region,
            service,
            "aws4_request",
            f"AWS4-HMAC-SHA256\n{said['X-Amz-Date']}\n{scope}\n{digest}",
        ):
            signing = hmac.digest(signing, part.encode(), "sha256")
        return None if hmac.compare_digest(signing.hex(), signature) else "wrong signature"


def _request(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return first.split(" ")[1], {name.lower(): value for name, value in headers.items()}


def _shut(each: socket.socket) -> None:
    """End a connection in both directions. An SSLSocket's own way leaves whoever reads it with the bytes of TLS."""
    socket.socket.shutdown(each, socket.SHUT_RDWR)


def _exactly(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = client.recv(size - len(found))
        if not more:
            raise ConnectionResetError
        found += more
    return found


def _to_broker(client: socket.socket, broker: socket.socket) -> None:
    """Unwrap what a client sends: masked frames (RFC 6455, 5.2)."""
    with suppress(OSError):
        while True:
            kind, size = _exactly(client, 2)
            size &= 0x7F
            if size > 125:
                size = int.from_bytes(_exactly(client, 2 if size == 126 else 8))
            mask = _exactly(client, 4)
            content = _exactly(client, size)
            if kind & 0x0F == 8:  # close
                return
            broker.sendall(bytes(byte ^ mask[at % 4] for at, byte in enumerate(content)))


def _to_client(broker: socket.socket, client: socket.socket) -> None:
    """Wrap what the broker sends."""
    with suppress(OSError):
        while content := broker.recv(16_000):
            size = bytes([len(content)]) if len(content) < 126 else struct.pack("!BH", 126, len(content))
            client.sendall(b"\x82" + size + content)
    with suppress(OSError):
        _shut(client)


@contextmanager
def serving_gateway(
    broker_port: int, *, papers: Papers | None = None, region: str = "eu-central-1"
) -> Iterator[Gateway]:
    """Serve for a while."""
    gateway = Gateway(broker_port, papers, region)
    try:
        yield gateway
    finally:
        gateway.close()
