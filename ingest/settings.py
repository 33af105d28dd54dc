"""What `thingline run` is told to do, by options or by a file in TOML: the names in that file, and their limits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from store.errors import UsageError

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Receivers = Annotated[int, msgspec.Meta(ge=1, le=64)]
StreamName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
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
    start: str = "latest"  # for a stream that was never read: horizon, latest, or epoch ms

    def __post_init__(self) -> None:
        if self.start not in ("horizon", "latest") and not self.start.isdecimal():
            raise ValueError(f"{self.start!r} is no start; give horizon, latest, or epoch ms")


class Checks(_Table, frozen=True):
    """`[checks]`: the API is asked about every thing once in `every`."""

    every: str

    def __post_init__(self) -> None:
        duration_ms(self.every)


class Metrics(_Table, frozen=True):
    """`[metrics]`: /metrics, /healthz and /readyz on this port of 127.0.0.1."""

    port: Port


class Settings(_Table, frozen=True):
    """All of it. What the command line says goes before the file."""

    store: str | None = None
    realm: str | None = None
    profile: str | None = None
    region: str | None = None
    sqs: tuple[Sqs, ...] = ()
    kinesis: tuple[Kinesis, ...] = ()
    checks: Checks | None = None
    metrics: Metrics | None = None

    @property
    def has_sources(self) -> bool:
        """Tell whether there is anything to run."""
        return bool(self.sqs or self.kinesis or self.checks)


def duration_ms(text: str) -> int:
    """Read `90s`, `15m`, `6h` or `1d` as milliseconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; give 90s, 15m, 6h or 1d")
    return int(match[1]) * _UNITS_MS[match[2]]


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
