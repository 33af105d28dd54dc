"""The commands of the ingester that runs for ever: run, and config for the file that it may read."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.check_commands import profile_option, region_option
from ingest.redact_options import key_file_option, redact_ingest_option, redaction_in
from store.clock import system_clock
from store.engine import masked, open_writer, parse_url
from store.errors import UsageError
from store.options import described, json_option, store_option

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from ingest.inbox import Source
    from ingest.kinesis import KinesisSource
    from ingest.lister import Lister
    from ingest.mqtt import MqttSource
    from ingest.poller import Poller
    from ingest.s3 import S3Source
    from ingest.settings import Settings
    from ingest.sqs import SqsSource
    from ingest.tally import Tally
    from store.engine import Store

_FOR_EVER_S = float("inf")


@click.command(
    "run",
    **described(
        "Take events in as they come, for ever: from the SQS queues, Kinesis streams and S3 buckets that AWS IoT"
        " rules write to, or from an MQTT broker, AWS IoT Core itself; and ask AWS's API about the fleet meanwhile,"
        " which finds what events were lost (docs/checks.md). What was received is deleted from its queue, or"
        " acknowledged to its broker, once it is committed; killed at any point, nothing is lost and nothing doubled."
        " It waits for a PostgreSQL that goes away and for an AWS that does not answer. SIGTERM and Ctrl-C end it in"
        " seconds. AWS credentials and the Region are found as the AWS CLI finds them.",
        "thingline run --sqs https://sqs.eu-west-1.amazonaws.com/123456789012/iot-events --check-every 15m",
        "thingline run --kinesis iot-events --store postgresql://HOST/DB",
        "thingline run --s3 's3://BUCKET/iot/?notices=https://sqs.eu-west-1.amazonaws.com/123456789012/new-objects'",
        "thingline run --config thingline.toml --log-format json",
        "thingline run --sqs URL --store postgresql://HOST/DB --metrics-port 9464",
    ),
)
@click.option("--config", "config", type=click.Path(path_type=Path), help="Settings in TOML: docs/run.md.")
@click.option(
    "--sqs", "queues", multiple=True, metavar="URL", help="A queue to receive from; may be repeated."
)
@click.option(
    "--kinesis", "streams", multiple=True, metavar="STREAM", help="A stream to read; may be repeated."
)
@click.option(
    "--s3",
    "prefixes",
    multiple=True,
    metavar="URL",
    help="Objects to read, s3://BUCKET/PREFIX?notices=QUEUE_URL, as Firehose writes them; may be repeated.",
)
@click.option(
    "--mqtt",
    "brokers",
    multiple=True,
    metavar="URL",
    help="A broker to subscribe to, mqtts://HOST?client_id=NAME&ca=FILE&cert=FILE&key=FILE, or AWS IoT Core by AWS"
    " credentials, wss://HOST/mqtt?client_id=NAME: docs/run.md.",
)
@click.option(
    "--check-every", metavar="DURATION", help="Ask AWS about every thing once in that time: 15m, 1h."
)
@profile_option
@region_option
@click.option(
    "--metrics-port",
    type=int,
    metavar="PORT",
    help="Serve /metrics, /healthz, /readyz on 127.0.0.1; 0: on a free port, which the log tells.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log is written to standard error.",
)
@redact_ingest_option
@key_file_option
@store_option
@click.option("--realm", metavar="NAME", help="The AWS account and Region that names belong to ('default').")
def run(
    config: Path | None,
    queues: tuple[str, ...],
    streams: tuple[str, ...],
    prefixes: tuple[str, ...],
    brokers: tuple[str, ...],
    check_every: str | None,
    profile: str | None,
    region: str | None,
    metrics_port: int | None,
    log_format: str,
    redacted: tuple[str, ...],
    key_file: Path | None,
    url: str | None,
    realm: str | None,
) -> int:
    from ingest.ledger import Ledger
    from ingest.patience import PatientWriter
    from ingest.positions import saved
    from ingest.run import Runner
    from ingest.tally import Tally
    from store.model import DEFAULT_REALM

    settings = _settings(
        config,
        {
            "store": url,
            "realm": realm,
            "profile": profile,
            "region": region,
            "sqs": [{"url": each} for each in queues],
            "kinesis": [{"stream": each} for each in streams],
            "s3": prefixes,
            "mqtt": brokers,
            "checks": check_every and {"every": check_every},
            "metrics": None if metrics_port is None else {"port": metrics_port},
        },
    )
    redact = redaction_in(redacted, key_file)
    place = parse_url(settings.store)
    with _logging(log_format) as log, ExitStack() as stack:
        tally = Tally()
        received, (poller, lister) = _queues(settings, tally), _checks(settings, place, log.warning)
        store = stack.enter_context(open_writer(place))
        sources: list[Source] = [
            *received,
            *_streams(settings, tally, store),
            *_prefixes(settings, tally, store),
            *_brokers(settings, tally),
        ]
        if poller is not None:
            poller.resume(saved(store, poller.name))
        sweeping = [each for each in (poller, lister) if each is not None]
        sources += sweeping

        def on_gap() -> None:
            for each in sweeping:
                each.sweep_soon()

        runner = Runner(sources, Ledger(store), tally, redact=redact, on_gap=on_gap)
        stack.enter_context(_stopping(runner.stop))
        writer = stack.enter_context(
            PatientWriter(
                store,
                realm=settings.realm or DEFAULT_REALM,
                wait_s=_FOR_EVER_S,
                say=log.warning,
                pause=runner.pause,
            )
        )
        if settings.metrics is not None:
            from ingest.metrics import serving

            port = stack.enter_context(
                serving(settings.metrics.port, tally, runner.inbox, system_clock, poller)
            )
            log.info("metrics at http://127.0.0.1:%d/metrics", port)
        log.info("store: %s", masked(place))
        log.info("receiving from %s", ", ".join(source.name for source in sources))
        runner.run(writer)
        written = tally.written
        log.info(
            "ended: %d records, %d new, %d duplicates, %d quarantined",
            written.read,
            written.stored,
            written.duplicates,
            written.quarantined,
        )
    return 0


def _settings(config: Path | None, said: Mapping[str, Any]) -> Settings:
    """Lay what the command line said over the file. Raises UsageError where nothing is left to receive from."""
    import msgspec

    from ingest.settings import Settings, mqtt_of, read_settings, s3_of

    settings = Settings() if config is None else read_settings(config)
    said = {name: value for name, value in said.items() if value}
    try:
        said["s3"] = [s3_of(each) for each in said.get("s3", ())]
        said["mqtt"] = [mqtt_of(each) for each in said.get("mqtt", ())]
        given = msgspec.convert(said, Settings)
    except ValueError as error:  # of which msgspec's is one
        raise UsageError(f"That cannot be run: {error}.") from error
    over = {name: getattr(given, name) for name in said if said[name]}
    settings = msgspec.structs.replace(settings, **over)
    if not settings.has_sources:
        raise UsageError(
            "There is nothing to receive from; give --sqs URL, --kinesis STREAM, --s3 URL, --mqtt URL"
            " or --check-every, or --config FILE."
        )
    return settings


def _queues(settings: Settings, tally: Tally) -> list[SqsSource]:
    """Make the queues' sources. Raises SourceError where one can be seen not to work."""
    from ingest.aws import Account
    from ingest.sqs import SqsSource

    account = Account(profile=settings.profile, region=settings.region)
    queues = [
        SqsSource(each.url, account=account, tally=tally, receivers=each.receivers) for each in settings.sqs
    ]
    for queue in queues:
        queue.check()
    return queues


def _streams(settings: Settings, tally: Tally, store: Store) -> list[KinesisSource]:
    """Make the streams' sources. Raises SourceError where one can be seen not to work."""
    if not settings.kinesis:
        return []
    from ingest.aws import Account
    from ingest.kinesis import KinesisSource

    account = Account(profile=settings.profile, region=settings.region)
    streams = [
        KinesisSource(
            each.stream,
            account=account,
            tally=tally,
            store=store,
            start=int(each.start) if each.start.isdecimal() else each.start,
        )
        for each in settings.kinesis
    ]
    for stream in streams:
        stream.check()
    return streams


def _prefixes(settings: Settings, tally: Tally, store: Store) -> list[S3Source]:
    """Make the prefixes' sources. Raises SourceError where one can be seen not to work."""
    if not settings.s3:
        return []
    from ingest.aws import Account
    from ingest.s3 import S3Source

    account = Account(profile=settings.profile, region=settings.region)
    prefixes = [S3Source(each, account=account, tally=tally, store=store) for each in settings.s3]
    for prefix in prefixes:
        prefix.check()
    return prefixes


def _brokers(settings: Settings, tally: Tally) -> list[MqttSource]:
    """Connect to the brokers. Raises SourceError where one cannot be connected to."""
    if not settings.mqtt:
        return []
    from ingest.aws import Account
    from ingest.mqtt import MqttSource

    account = Account(profile=settings.profile, region=settings.region)
    brokers = [MqttSource(each, tally=tally, account=account) for each in settings.mqtt]
    for broker in brokers:
        broker.check()
    return brokers


def _checks(
    settings: Settings, place: URL, say: Callable[[str], None]
) -> tuple[Poller, Lister] | tuple[None, None]:
    """Make what asks AWS's API, by one client: about connections, and for all things."""
    if settings.checks is None:
        return None, None
    from ingest.aws import Account
    from ingest.iot import Iot
    from ingest.lister import Lister
    from ingest.poller import AT_ONCE, SLICE, Poller
    from ingest.settings import duration_ms
    from store.doubt import looking
    from store.model import DEFAULT_REALM
    from store.registered import knowing

    iot = Iot(Account(profile=settings.profile, region=settings.region), connections=AT_ONCE + 2)
    realm = settings.realm or DEFAULT_REALM
    poller = Poller(
        iot,
        every_ms=duration_ms(settings.checks.every),
        look=looking(place, most=SLICE, realm=realm),
        say=say,
        realm=realm,
    )
    every_ms = duration_ms(settings.checks.list_every)
    return poller, Lister(iot, known=knowing(place, realm=realm), every_ms=every_ms, say=say)


@contextmanager
def _stopping(stop: Any) -> Iterator[None]:
    """End on SIGTERM and SIGINT; on a second one at once."""

    def begin(number: int, _: object) -> None:
        stop()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, begin) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logging(form: str) -> Iterator[logging.Logger]:
    """Write the log to standard error, a line an entry."""
    log = logging.getLogger("thingline")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_AsJson() if form == "json" else _AsText("thingline: %(message)s"))
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


class _AsText(logging.Formatter):
    """Text without control characters: what AWS says may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _iso(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _iso(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@click.group("config", help="The file that `thingline run --config` reads: docs/run.md.")
def config_group() -> None:
    pass


@config_group.command(
    "check",
    **described(
        "Read a file of settings, and say what is wrong with it or what it would run.",
        "thingline config check thingline.toml",
    ),
)
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
@json_option
def config_check(path: Path, as_json: bool) -> int:
    import msgspec

    from ingest.settings import read_settings

    settings = read_settings(path)
    place = masked(parse_url(settings.store))
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(settings), "store": place}))
        return 0
    click.echo(f"store: {place}")
    for each in settings.sqs:
        click.echo(f"sqs: {each.url} ({each.receivers} receivers)")
    for stream in settings.kinesis:
        click.echo(f"kinesis: {stream.stream} (from {stream.start}, where it was never read)")
    for prefix in settings.s3:
        told = "" if prefix.notices is None else f"; notices from {prefix.notices}"
        start = f"from {prefix.start}, where it was never read"
        click.echo(f"s3: s3://{prefix.bucket}/{prefix.prefix} ({start}{told})")
    for broker in settings.mqtt:
        click.echo(f"mqtt: {broker.place} as {broker.client_id}, {', '.join(broker.topics)}")
    if settings.checks is not None:
        click.echo(
            f"checks: every thing once in {settings.checks.every}, all listed once in {settings.checks.list_every}"
        )
    if settings.metrics is not None:
        click.echo(f"metrics: 127.0.0.1:{settings.metrics.port}")
    if not settings.has_sources:
        raise UsageError(
            f"{path} names nothing to receive from; add [[sqs]], [[kinesis]], [[s3]], [[mqtt]] or [checks]."
        )
    return 0


COMMANDS = (run, config_group)
