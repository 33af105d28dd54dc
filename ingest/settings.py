"""What `thingline run` is told to do, by options or by a file in TOML: the names in that file, and their limits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

import msgspec

from store.errors import UsageError

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
HORIZON = "horizon"  # everything that is still there
LATEST = "latest"  # what comes from now on
PRESENCE = "$aws/events/presence/#"  # not +/+: a client id may hold a slash
_SCHEMES = {  # of --mqtt: whether TLS, whether SigV4 over a websocket
    "mqtt": (False, False),
    "mqtts": (True, False),
    "ws": (False, True),
    "wss": (True, True),
}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Receivers = Annotated[int, msgspec.Meta(ge=1, le=64)]
StreamName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Bucket = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9._-]{3,255}$")]
Prefix = Annotated[str, msgspec.Meta(max_length=1024)]
QueueUrl = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]+/.+")]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: an unknown name in it is an error, not a setting that does nothing."""


class Sqs(_Table, frozen=True):
    """`[[sqs]]`: a queue that an AWS IoT rule or an SNS topic writes to."""

    url: QueueUrl
    receivers: Receivers = 4


class Kinesis(_Table, frozen=True):
    """`[[kinesis]]`: a stream that an AWS IoT rule writes to."""

    stream: StreamName
    start: str = LATEST  # for a stream that was never read: horizon, latest, or epoch ms

    def __post_init__(self) -> None:
        _check_start(self.start)


class S3(_Table, frozen=True):
    """`[[s3]]`: a prefix of a bucket that Firehose, or an S3 action of an AWS IoT rule, writes to."""

    bucket: Bucket
    prefix: Prefix = ""
    notices: QueueUrl | None = None  # a queue that S3 tells of new objects
    start: str = HORIZON  # for a prefix that was never read: horizon, latest, or epoch ms

    def __post_init__(self) -> None:
        _check_start(self.start)


class Mqtt(_Table, frozen=True):
    """`[[mqtt]]`: a broker, and what to subscribe to there. Passwords are in files or the environment."""

    host: Text
    client_id: Text  # of a session that the broker keeps, so that nothing is lost between two runs
    topics: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)] = (PRESENCE,)
    tls: bool = True
    sigv4: bool = (
        False  # over a websocket whose address is signed with AWS credentials, in place of a certificate
    )
    port: Port | None = None  # 8883, or 1883 without TLS; of a websocket 443, or 80
    ca: Text | None = None
    cert: Text | None = None
    key: Text | None = None
    username: Text | None = None
    password_file: Text | None = None
    session: str = "1h"  # how long the broker keeps the session while nobody is connected

    def __post_init__(self) -> None:
        if self.session_ms >= 1000 << 32:
            raise ValueError("MQTT counts a session's seconds in 32 bits; give a shorter one")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        if not self.tls and (self.ca or self.cert):
            raise ValueError("ca, cert and key are for TLS; leave them out or tls = false")
        if self.sigv4 and (self.cert or self.username):
            raise ValueError("with sigv4 AWS credentials speak for us; leave out cert, key and username")
        if self.username is None and self.password_file is not None:
            raise ValueError("a password is nothing without username")

    @property
    def port_used(self) -> int:
        """The port, or the usual one."""
        return (
            self.port
            or {(True, False): 8883, (False, False): 1883, (True, True): 443, (False, True): 80}[
                self.tls, self.sigv4
            ]
        )

    @property
    def session_ms(self) -> int:
        """How long the broker keeps the session."""
        return duration_ms(self.session)

    @property
    def place(self) -> str:
        """Where it is, as a URL without anything that is nobody's business."""
        scheme = next(name for name, said in _SCHEMES.items() if said == (self.tls, self.sigv4))
        return f"{scheme}://{self.host}:{self.port_used}"


class Checks(_Table, frozen=True):
    """`[checks]`: the API is asked about every thing once in `every`, and for all things once in `list_every`."""

    every: str
    list_every: str = "1d"

    def __post_init__(self) -> None:
        duration_ms(self.every)
        duration_ms(self.list_every)


class Metrics(_Table, frozen=True):
    """`[metrics]`: /metrics, /healthz and /readyz on this port of 127.0.0.1; 0: one that is free, as the log tells."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Settings(_Table, frozen=True):
    """All of it. What the command line says goes before the file."""

    store: str | None = None
    realm: str | None = None
    profile: str | None = None
    region: str | None = None
    sqs: tuple[Sqs, ...] = ()
    kinesis: tuple[Kinesis, ...] = ()
    s3: tuple[S3, ...] = ()
    mqtt: tuple[Mqtt, ...] = ()
    checks: Checks | None = None
    metrics: Metrics | None = None

    def __post_init__(self) -> None:
        ids = [each.client_id for each in self.mqtt]
        if len(set(ids)) < len(ids):
            raise ValueError("two brokers share a client_id; give each its own")
        queues = [*(each.url for each in self.sqs), *(each.notices for each in self.s3 if each.notices)]
        if len(set(queues)) < len(queues):
            raise ValueError(
                "two sources share a queue, and would take each other's messages; give each its own"
            )

    @property
    def has_sources(self) -> bool:
        """Tell whether there is anything to run."""
        return bool(self.sqs or self.kinesis or self.s3 or self.mqtt or self.checks)


def duration_ms(text: str) -> int:
    """Read `90s`, `15m`, `6h` or `1d` as milliseconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; give 90s, 15m, 6h or 1d")
    return int(match[1]) * _UNITS_MS[match[2]]


def _check_start(start: str) -> None:
    if start not in (HORIZON, LATEST) and not start.isdecimal():
        raise ValueError(f"{start!r} is no start; give horizon, latest, or epoch ms")


def s3_of(url: str) -> dict[str, object]:
    """Read `s3://BUCKET/PREFIX?notices=URL&start=...` as the members of an S3. Raises ValueError."""
    place, _, query = url.partition("?")
    scheme, _, path = place.partition("://")
    bucket, _, prefix = path.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError("give --s3 s3://BUCKET/PREFIX, or s3://BUCKET/PREFIX?notices=URL")
    return {"bucket": bucket, "prefix": prefix, **dict(parse_qsl(query, keep_blank_values=True))}


def mqtt_of(url: str) -> dict[str, object]:
    """Read `mqtts://HOST:PORT?client_id=NAME&topic=FILTER&...` as the members of an Mqtt, or `wss://HOST/mqtt?...`.

    Raises ValueError.
    """
    parts = urlsplit(url)
    tls, sigv4 = _SCHEMES.get(parts.scheme, (None, None))
    paths = ("", "/", "/mqtt") if sigv4 else ("", "/")
    if tls is None or parts.path not in paths or "#" in url:
        raise ValueError(
            "give --mqtt mqtts://HOST:PORT?client_id=NAME, or wss:// for SigV4, and # in a topic as %23"
        )
    if "@" in parts.netloc:
        raise ValueError("names and passwords do not belong before the host: docs/run.md")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(
            "the port is no number of 0 to 65535"
        ) from None  # it may be anything, a password too
    said: dict[str, object] = {"host": parts.hostname or "", "tls": tls, "sigv4": sigv4, "port": port}
    topics = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "topic":
            topics.append(value)
        else:
            said[name] = value
    return said | ({"topics": topics} if topics else {})


def read_settings(path: Path) -> Settings:
    """Read a file of settings. Raises UsageError that names the file, the place in it and what is wrong."""
    try:
        with path.open("rb") as file:
            return msgspec.convert(tomllib.load(file), Settings)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}.") from error
