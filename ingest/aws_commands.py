"""The commands about the AWS account itself: aws setup, aws doctor."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from ingest.check_commands import profile_option, region_option
from store.errors import UsageError
from store.options import described, json_option

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


@aws_group.command(
    "doctor",
    **described(
        "Look at the AWS account, and say what is missing for a whole history: fleet indexing, registry events, the"
        " rules and what their SQL lets through, how long queues and streams keep events, permissions. A line a"
        " finding: ok, warning or missing, what it means, and what mends it. It reads, and changes nothing; what it"
        " may not read is a finding too. With --config it looks at the queues and streams of that file. Credentials"
        " and the Region are found as the AWS CLI finds them. Ends with 1 where something is missing, with 4 where"
        " AWS does not answer.",
        "thingline aws doctor --sqs https://sqs.eu-west-1.amazonaws.com/123456789012/iot-events",
        "thingline aws doctor --config thingline.toml --json",
    ),
)
@click.option(
    "--config", "config", type=click.Path(path_type=Path), help="Settings of `thingline run`: docs/run.md."
)
@click.option("--sqs", "queues", multiple=True, metavar="URL", help="A queue to look at; may be repeated.")
@click.option(
    "--kinesis", "streams", multiple=True, metavar="STREAM", help="A stream to look at; may be repeated."
)
@profile_option
@region_option
@json_option
def doctor(
    config: Path | None,
    queues: tuple[str, ...],
    streams: tuple[str, ...],
    profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    from ingest.aws import Account
    from ingest.doctor import Level, findings
    from ingest.doctor_reads import read_facts
    from ingest.settings import Settings, read_settings

    settings = Settings() if config is None else read_settings(config)
    facts = read_facts(
        Account(profile=profile or settings.profile, region=region or settings.region),
        queues=queues or [each.url for each in settings.sqs],
        streams=streams or [each.stream for each in settings.kinesis],
    )
    is_missing = False
    for level, about, message, mend in findings(facts, by_mqtt=bool(settings.mqtt)):
        is_missing = is_missing or level is Level.MISSING
        if as_json:
            said = {"level": level.value, "about": about, "message": message, "mend": mend}
            click.echo(json.dumps(said))
        else:
            line = f"{level.value:<7}  {about}: {message}{f'. To mend it: {mend}' if mend else ''}"
            click.echo("".join(each if each.isprintable() else "\ufffd" for each in line))
    return 1 if is_missing else 0


COMMANDS = (aws_group,)
