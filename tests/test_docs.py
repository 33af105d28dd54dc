"""Reference pages cannot go stale: docs/commands.md is what the commands say, docs/views.md what the views hold.

`python -m tests.test_docs` writes docs/commands.md anew.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

import thingline
from store import errors
from store.engine import open_reader, open_writer, parse_url

DOCS = Path(__file__).parent.parent / "docs"


def commands(group: Any, name: str) -> list[str]:
    """Render a command's help, and that of the commands below it."""
    context = click.Context(group, info_name=name, terminal_width=100, max_content_width=100)
    if not isinstance(group, click.Group):
        return [f"## {name}\n\n```\n{group.get_help(context)}\n```\n"]
    return [page for one in sorted(group.commands) for page in commands(group.commands[one], f"{name} {one}")]


def reference() -> str:
    said = "".join(f"{page}\n" for page in commands(thingline.command_line(), "thingline"))
    rows = "".join(
        f"| {error.slug} | {error.exit_code} | {inspect.cleandoc(error.__doc__ or '')} |\n"
        for error in family(errors.ThinglineError)
    )
    return (
        "# The commands\n\nWhat `--help` says, written by `python -m tests.test_docs`. Every option is also an"
        " environment variable:\n`--known-at` of `at` is `THINGLINE_AT_KNOWN_AT`, `--store` of any command"
        f" `THINGLINE_STORE`.\n\n{said}## Errors\n\n| slug | exit code | what it says |\n|---|---|---|\n{rows}"
    )


def family(error: type[errors.ThinglineError]) -> list[type[errors.ThinglineError]]:
    return [error, *(below for child in error.__subclasses__() for below in family(child))]


def test_the_reference_of_the_commands_is_what_they_say() -> None:
    assert (DOCS / "commands.md").read_text() == reference(), "run python -m tests.test_docs"


def test_every_error_has_a_slug_of_its_own() -> None:
    slugs = [error.slug for error in family(errors.ThinglineError)]
    assert sorted(slugs) == sorted(set(slugs))


def test_the_page_of_the_views_names_their_columns(store_url: str) -> None:
    open_writer(parse_url(store_url)).close()
    told = {
        name: re.findall(r"([a-z_]+)(?: \([^)]*\))?(?:, |$)", columns)
        for name, columns in re.findall(
            r"^\| `(\w+)` \|[^|]*\| (.*?) \|$", (DOCS / "views.md").read_text(), re.M
        )
    }
    with open_reader(parse_url(store_url)) as store, store.reading() as connection:
        inspector = sa.inspect(connection)
        held = {
            view: [column["name"] for column in inspector.get_columns(view)]
            for view in inspector.get_view_names()
            if view != "stretches"  # a step on the way to periods and outages
        }
    assert told == held


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(reference())
