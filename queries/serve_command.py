"""The command that serves: `thingline serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from queries.commands import tz_option
from store.errors import UsageError
from store.options import described, realm_option, store_option


@click.command(
    "serve",
    **described(
        "Answer AWS clients about the past: GetThingConnectivityData, SearchIndex, ListThings, DescribeThing and"
        " aggregations as of any instant, to AWS CLI, boto3 and AWS's SDKs as they are (docs/search.md). The instant,"
        " and that of knowing, stand in the endpoint's URL: http://HOST:PORT[/at/TIME][/known-at/TIME]. What the"
        " commands print with --json, reports too, is at /api/v1. On loopback no credentials are needed; anywhere else,"
        " signatures of key pairs or bearer tokens (docs/serve.md).",
        "thingline serve",
        "thingline serve --port 0 --access-log --redact-names",
        "thingline serve --host 0.0.0.0 --credentials credentials.toml --region eu-west-1",
        "aws iot get-thing-connectivity-data --thing-name pump-17"
        " --endpoint-url http://localhost:8080/at/2026-11-01T03:12:00Z --no-sign-request --region eu-west-1",
        "curl 'http://localhost:8080/api/v1/outages?from=-24h'",
    ),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 chooses one that is free.",
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Who may ask: TOML that nobody else can read, with [keys] ID = "SECRET" and [tokens] NAME = "TOKEN".'
    " THINGLINE_SERVE_KEY_PAIRS and THINGLINE_SERVE_TOKENS add to it (ID:SECRET, NAME:TOKEN).",
)
@click.option(
    "--region",
    envvar=["THINGLINE_SERVE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"],
    help="The Region that signatures must be made for.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="Requests a second of one caller; more get ThrottlingException. 0: no limit.",
)
@click.option("--access-log", is_flag=True, help="Write a line of JSON to stderr for each request.")
@click.option("--redact-names", is_flag=True, help="Leave the names of things, and times, out of that log.")
@store_option
@realm_option
@tz_option
def serve(
    host: str,
    port: int,
    credentials: Path | None,
    region: str | None,
    rate: float,
    access_log: bool,
    redact_names: bool,
    url: str | None,
    realm: str,
    tz: str | None,
) -> int:
    from queries.history import open_history
    from queries.http.auth import is_loopback
    from queries.http.credentials import read_credentials

    known = read_credentials(credentials, os.environ)
    if known.secrets and not region:
        raise UsageError("Signatures are made for a Region; give --region eu-west-1, or set AWS_REGION.")
    try:
        import granian  # noqa: F401

        from queries.http.server import place_of, run
    except ImportError as error:
        raise UsageError("Serving needs a server: pip install 'thingline[serve]'.") from error
    place = place_of(host, port)
    if not known and not is_loopback(place.host):
        raise UsageError(
            f"{place.host} is not loopback, and there are no credentials: everybody on the network could ask. Give"
            " --credentials FILE (docs/serve.md)."
        )

    from store.connections import Connections

    connections = Connections()

    def open_one() -> Any:
        return open_history(url, realm=realm, tz=tz, connections=connections)

    with open_one() as first:  # a store that cannot be opened is told now
        realms = first.realms()
    from secrets import token_bytes
    from time import monotonic

    from queries.fleet_reads import FleetReads
    from queries.http.api import Api
    from queries.http.app import App
    from queries.http.auth import Gate
    from queries.http.endpoints import ENDPOINTS
    from queries.http.event_stream import EventStream
    from queries.http.fleet import fleet_operations
    from queries.http.limits import Rate
    from queries.http.log import AccessLog
    from queries.http.operations import OPERATIONS
    from queries.http.readers import Readers
    from queries.output import say
    from queries.receipts import version
    from store.clock import system_clock
    from store.engine import masked, parse_url

    if realms and realm not in realms:
        say(f"the store holds nothing of realm {realm} yet: no thing is found. It holds {', '.join(realms)}")
    readers = Readers(open_one, parse_url(url), connections)
    events = EventStream(readers)
    gate = Gate(known, region=region, clock=system_clock)
    app = App(
        readers,
        gate,
        rate=Rate(rate, max(1.0, rate), monotonic) if rate else None,
        api=Api(readers, ENDPOINTS, events, version=version()),
        log=AccessLog(sys.stderr, redact_names=redact_names, clock=system_clock).write
        if access_log
        else None,
        operations=(*OPERATIONS, *fleet_operations(FleetReads(token_bytes(32)))),
    )
    who = "signatures and tokens" if known else "this machine alone, without credentials"
    try:
        run(
            app,
            place,
            listening=lambda: say(f"listening at {place.url}: {masked(parse_url(url))}, to {who}"),
            stopping=events.close,
        )
    finally:
        is_over = readers.close()
    if not is_over:  # a report that nobody waits for any more reads on; it holds nothing that must be kept
        sys.stderr.flush()
        os._exit(0)
    return 0


COMMANDS = (serve,)
