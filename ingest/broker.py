"""How an MQTT broker is reached, and what its refusals mean: the only importer of paho.

Owns TLS, the password, the signed address and the words for what went wrong. A password is never an option nor part of
a URL, and neither it nor a signed address is ever printed.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ingest.aws import Account, Signer, Trouble
from ingest.settings import Mqtt
from store.errors import SourceError, UsageError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

UNACKNOWLEDGED = 200  # messages that the broker may send ahead; AWS sends 100 at most, of 128 KiB at most
KEEP_ALIVE_S = 15  # also how often an idle connection is known to live; AWS makes it 30
PASSWORD = "THINGLINE_MQTT_PASSWORD"
_DELAYS_S = (1, 30)  # between tries to connect again: the first, the longest
_ALPN = "x-amzn-mqtt-ca"  # AWS IoT asks for it on port 443: MQTT with a client's certificate
_CREDENTIALS = {134, 140}  # reason codes of MQTT 5: bad user name or password, bad method
_DENIED = {135, 138}  # not authorized, banned
_TAKEN_OVER = 142
_RIGHTS = (
    f"Check username and password (password_file, or {PASSWORD}) or cert and key, and that they may connect with this"
    " client_id, subscribe and receive (AWS: iot:Connect, iot:Subscribe, iot:Receive)."
)

_SIGNED = (
    "Check the AWS credentials and the clock, and that the role may iot:Connect with this client_id, iot:Subscribe and"
    " iot:Receive."
)
_SERVICE = "iotdevicegateway"
_ENDPOINT = re.compile(r".*\.iot\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


class Unsigned(OSError):
    """There is nothing to sign an address with; an OSError, for that is what paho takes for no connection."""


class Refusal(NamedTuple):
    """What went wrong, and what a person can do about it."""

    trouble: Trouble
    message: str
    advice: str


def make_client(broker: Mqtt) -> Client:
    """Make a client with a persistent session that acknowledges nothing by itself; it connects when it is started.

    Raises UsageError without paho-mqtt, SourceError where a file that the settings name cannot be used.
    """
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
    except ImportError as error:
        raise UsageError("MQTT needs paho-mqtt: pip install 'thingline[mqtt]'.") from error
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=broker.client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        transport="websockets" if broker.sigv4 else "tcp",
        manual_ack=True,
    )
    if broker.username is not None:
        client.username_pw_set(broker.username, _password(broker))
    if broker.tls:
        client.tls_set_context(tls_of(broker))
    client.reconnect_delay_set(*_DELAYS_S)
    wanted = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    wanted.SessionExpiryInterval = broker.session_ms // 1000
    wanted.ReceiveMaximum = UNACKNOWLEDGED
    client.connect_async(broker.host, broker.port_used, KEEP_ALIVE_S, clean_start=False, properties=wanted)
    return client


def signer_of(broker: Mqtt, account: Account) -> Signer | None:
    """Make what signs the address of a broker that wants it signed. Raises SourceError without a Region."""
    if not broker.sigv4:
        return None
    found = _ENDPOINT.fullmatch(broker.host)
    return account.signer(_SERVICE, None if found is None else found[1])


def sign(client: Client, broker: Mqtt, signer: Signer) -> None:
    """Sign the address of the next connection. Raises Unsigned."""
    scheme, usual = ("https", 443) if broker.tls else ("http", 80)
    port = "" if broker.port_used == usual else f":{broker.port_used}"
    try:
        client.ws_set_options(path=signer.signed_target(f"{scheme}://{broker.host}{port}/mqtt"))
    except SourceError as error:
        raise Unsigned(str(error)) from error


def _password(broker: Mqtt) -> str | None:
    if broker.password_file is None:
        return os.environ.get(PASSWORD)
    try:
        return Path(broker.password_file).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"The password in {broker.password_file} cannot be read: {_text(error)}."
        ) from error


def tls_of(broker: Mqtt) -> ssl.SSLContext:
    """Make what TLS is done with. Raises SourceError where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=broker.ca)
        if broker.cert is not None:
            context.load_cert_chain(broker.cert, broker.key)
    except OSError as error:  # of which SSLError is one
        files = ", ".join(each for each in (broker.ca, broker.cert, broker.key) if each is not None)
        raise SourceError(f"One of {files} cannot be used: {_text(error)}.") from error
    if broker.port_used == 443 and broker.cert is not None:
        context.set_alpn_protocols([_ALPN])
    return context


def refusal(code: int, message: str) -> Refusal:
    """Say what a reason code of MQTT 5 asks of us."""
    if code in _CREDENTIALS:
        return Refusal(Trouble.CREDENTIALS, message, _RIGHTS)
    if code in _DENIED:
        return Refusal(Trouble.DENIED, message, _RIGHTS)
    if code == _TAKEN_OVER:
        return Refusal(
            Trouble.REFUSED, message, "Another client uses the same client_id; give each ingester its own."
        )
    return Refusal(Trouble.AWAY, message, "Trying again.")


def shown_the_door() -> Refusal:
    """Say what it means that a broker ends a connection before we are subscribed, and gives no reason."""
    return Refusal(Trouble.DENIED, "the broker ended the connection and did not say why", _RIGHTS)


def no_connection(error: BaseException | None, broker: Mqtt) -> Refusal:
    """Say why there is no connection."""
    place = f"{broker.host}:{broker.port_used}"
    from paho.mqtt.client import WebsocketConnectionError

    match error:
        case Unsigned():
            return Refusal(Trouble.CREDENTIALS, str(error).rstrip("."), _SIGNED)
        case WebsocketConnectionError():
            return Refusal(Trouble.DENIED, f"{place} refused the websocket", _SIGNED)
        case ssl.SSLCertVerificationError():
            message = f"the certificate of {place} was not believed: {error.verify_message}"
            return Refusal(
                Trouble.REFUSED, message, "Give ca, the file of who signed it, and the host's own name."
            )
        case ssl.SSLError():
            message = f"no TLS with {place}: {_text(error)}"
            return Refusal(Trouble.REFUSED, message, "Check the port, cert and key.")
        case socket.gaierror():
            return Refusal(Trouble.AWAY, f"{broker.host} has no address: {_text(error)}", "Check host.")
        case _:
            message = f"{place} does not answer: {'no reason given' if error is None else _text(error)}"
            return Refusal(Trouble.AWAY, message, "Check host and port, and that the broker runs.")


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
