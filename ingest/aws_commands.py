"""The commands about the AWS account itself: aws setup."""

from __future__ import annotations

import json
import re

import click

from store.errors import UsageError
from store.options import described

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,59}")


@click.group("aws", help="What the AWS account needs for `thingline run`.")
def aws_group() -> None:
    pass


@aws_group.command(
    "setup",
    **described(
        "Print a CloudFormation template of what `thingline run` needs: rules for lifecycle and registry events, the"
        " queue that they write to, a queue for what they could not write, a dead-letter queue, the rules' role, and a"
        " policy for the ingester. Makes nothing; with --commands it prints the AWS CLI commands that do, and those"
        " that switch on registry events and fleet indexing, which no template can.",
        "thingline aws setup > thingline.json",
        "thingline aws setup --commands",
    ),
)
@click.option("--name", default="thingline", show_default=True, help="Begins the names of all that is made.")
@click.option("--commands", "as_commands", is_flag=True, help="Print the commands instead.")
def setup(name: str, as_commands: bool) -> int:
    from ingest.setup_template import commands, template

    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for AWS; give a letter, then letters, digits and hyphens, 60 at most."
        )
    for line in commands(name) if as_commands else [json.dumps(template(name), indent=2)]:
        click.echo(line)
    return 0


COMMANDS = (aws_group,)
