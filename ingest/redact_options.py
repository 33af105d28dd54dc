"""`--redact` of the commands that take evidence in or hand it out, and the key that it needs.

Owns where a key is read from. It must never print one, nor take one as the value of an option, which every user
of the machine can read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from store.errors import SourceError, UsageError

if TYPE_CHECKING:
    from ingest.redact import Redaction

_KEY = "THINGLINE_REDACT_KEY"

redact_ingest_option = click.option(
    "--redact",
    "redacted",
    multiple=True,
    metavar="MEMBER=WAY|WAY",
    envvar="THINGLINE_INGEST_REDACT",
    help="Take personal data out of what comes in, before it is compared and stored. MEMBER: ip (addresses, ports, VPC"
    " endpoints) or principal. WAY: hash (keyed; equal ones stay alike) or drop. A WAY alone stands for both. Give"
    " it always or never (or set THINGLINE_INGEST_REDACT): what came without it is stored beside. docs/privacy.md.",
)
redact_export_option = click.option(
    "--redact",
    "redacted",
    multiple=True,
    metavar="MEMBER=WAY|WAY",
    help="Take personal data out, so that the recording can be handed on. MEMBER: ip, principal, or name (of things"
    " and clients, wherever they stand). WAY: number (thing-1, principal-1, ...; alike within this export), hash"
    " (keyed; alike in every export) or drop (not of names). A WAY alone stands for all three. docs/privacy.md.",
)
key_file_option = click.option(
    "--redact-key-file",
    "key_file",
    metavar="PATH",
    type=click.Path(path_type=Path),
    envvar="THINGLINE_REDACT_KEY_FILE",
    help=f"The key of hashes is the text of that file (or the environment has it, in {_KEY}), 16 characters at least."
    " Whoever has the key can find out what was hashed.",
)


def redaction_in(redacted: tuple[str, ...], key_file: Path | None) -> Redaction | None:
    """Make what --redact asks of evidence on its way in; None where it asks nothing. Raises UsageError."""
    if not redacted:
        return None
    from ingest.redact import DROP, HASH, IP, PRINCIPAL, redaction, rules_of

    return redaction(rules_of(redacted, (IP, PRINCIPAL), (HASH, DROP)), key=_key(key_file))


def redaction_out(
    redacted: tuple[str, ...], key_file: Path | None
) -> Callable[[Mapping[str, Collection[str]]], Redaction] | None:
    """Make what --redact asks of an export, once it is known what the store holds; None where it asks nothing.

    Raises UsageError, now and not then.
    """
    if not redacted:
        return None
    from ingest.redact import DROP, HASH, IP, NAME, NUMBER, PRINCIPAL, redaction, rules_of

    rules = rules_of(redacted, (IP, PRINCIPAL, NAME), (NUMBER, HASH, DROP))
    key = _key(key_file)
    redaction(rules, key=key)
    return lambda known: redaction(rules, key=key, known=known)


def _key(key_file: Path | None) -> bytes | None:
    """Read the key of hashes; None where there is none."""
    text = os.environ.get(_KEY)
    if key_file is None:
        return os.fsencode(text) if text else None
    if text:
        raise UsageError(f"There are two keys, {_KEY} and --redact-key-file; give one.")
    try:
        return key_file.read_bytes().strip()
    except OSError as error:
        raise SourceError(f"The key in {key_file} cannot be read: {error.strerror or error}.") from error
