"""Options that the commands of both sides share."""

from __future__ import annotations

from typing import Any

import click

from store.errors import UsageError
from store.model import DEFAULT_REALM, MOST_TEXT_BYTES, bytes_of


def _realm(context: click.Context, option: click.Parameter, name: str) -> str:
    """Refuse a realm that no store can hold. Raises UsageError."""
    size = bytes_of(name)
    if not size or size > MOST_TEXT_BYTES:
        raise UsageError(f"--realm is a name of 1 to {MOST_TEXT_BYTES:,} bytes in UTF-8, without NUL.")
    return name


store_option = click.option(
    "--store",
    "url",
    metavar="URL",
    envvar="THINGLINE_STORE",
    help="Where the history is: a path, sqlite:///PATH or postgresql://HOST/DB."
    " Default: a SQLite file in your data folder.",
)
realm_option = click.option(
    "--realm",
    default=DEFAULT_REALM,
    callback=_realm,
    show_default=True,
    envvar="THINGLINE_REALM",
    help="The AWS account and Region that names belong to, where one store holds several.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def described(text: str, *examples: str) -> dict[str, Any]:
    """Give a command its help: a text, and examples that can be typed."""
    lines = "".join(f"  {example}\n" for example in examples)
    return {"help": f"{text}\n\n\b\nExamples:\n{lines}" if examples else text}
