"""Who may ask: key pairs of Signature Version 4 and bearer tokens, from a file or the environment, never from argv.

Keeps secrets out of every message: what is wrong is told by the name of an entry, or by its place.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.errors import UsageError

KEY_PAIRS = "THINGLINE_SERVE_KEY_PAIRS"  # "ID:SECRET ID:SECRET"
TOKENS = "THINGLINE_SERVE_TOKENS"  # "NAME:TOKEN NAME:TOKEN"

SHORTEST = 20  # characters of a secret: what is shorter can be guessed
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SECRET = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Secrets by key id; and of tokens their SHA-256 by name, for the token itself is not needed."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self.secrets or self.tokens)


def read_credentials(file: Path | None, environment: Mapping[str, str]) -> Credentials:
    """Read the credentials of a file (TOML: tables `keys` and `tokens`) and of the environment, together.

    Raises UsageError for a file that others can read or that holds none, for what is no credential, and for a secret
    that is short.
    """
    keys: dict[str, str] = {}
    tokens: dict[str, str] = {}
    if file is not None:
        told = _file(file)
        _add(keys, told.get("keys", {}), f"{file}: keys")
        _add(tokens, told.get("tokens", {}), f"{file}: tokens")
        if not keys and not tokens:  # who gave it wants callers to be asked for them
            raise UsageError(
                f'{file} holds no credentials; write [keys] or [tokens], and below NAME = "SECRET".'
            )
    _add(keys, dict(_pairs(environment.get(KEY_PAIRS, ""), KEY_PAIRS)), KEY_PAIRS)
    _add(tokens, dict(_pairs(environment.get(TOKENS, ""), TOKENS)), TOKENS)
    return Credentials(secrets=keys, tokens={name: digest(token) for name, token in tokens.items()})


def digest(token: str) -> bytes:
    """Give what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            held = os.fstat(opened.fileno())
            if not stat.S_ISREG(held.st_mode):
                raise UsageError(f"{file} is no regular file.")
            if held.st_mode & 0o077:
                raise UsageError(f"{file} holds secrets and others can read it; run: chmod 600 {file}")
            if hasattr(os, "geteuid") and held.st_uid not in (0, os.geteuid()):
                raise UsageError(f"{file} belongs to another user, who could change who may ask.")
            told = tomllib.load(opened)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # Not with its message, which may quote a secret.
        raise UsageError(
            f'{file} is no TOML; write [keys] and [tokens], and below them NAME = "SECRET".'
        ) from None
    unknown = set(told) - {"keys", "tokens"}
    if unknown:
        raise UsageError(
            f"{file} has {', '.join(sorted(map(repr, unknown)))}; it may have [keys] and [tokens]."
        )
    return told


def _pairs(text: str, where: str) -> Iterator[tuple[str, str]]:
    for number, pair in enumerate(text.split(), 1):
        name, colon, secret = pair.partition(":")
        if not colon:
            raise UsageError(f"{where}: entry {number} is not NAME:SECRET.")
        yield name, secret


def _add(into: dict[str, str], told: object, where: str) -> None:
    if not isinstance(told, dict):
        raise UsageError(f'{where} must be a table: NAME = "SECRET".')
    for name, secret in told.items():
        if not _ID.fullmatch(name):
            raise UsageError(f"{where}: {ascii(name)[:80]} is no name; letters, digits, - and _ make one.")
        if not isinstance(secret, str) or len(secret) < SHORTEST or not _SECRET.fullmatch(secret):
            raise UsageError(
                f"{where}: the secret of {name} must be {SHORTEST} or more visible ASCII characters, e.g. of"
                " `openssl rand -hex 24`."
            )
        if into.setdefault(name, secret) != secret:
            raise UsageError(f"{where}: {name} is there already, with another secret.")
