"""Thingline's front door: the command `thingline`, and `import thingline` for Python.

    import thingline

    with thingline.open("store.db") as history:
        answer = history.at("pump-17", "2026-11-01T03:12:00Z")
        print(answer.connected, answer.certainty)

Checks that the packages beside it are its own, adds up the command groups, and turns errors into exit codes.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queries.history import History

__version__ = "0.1.0"
__all__ = ["__version__", "main", "open"]

_PARTS = ("ingest", "store", "queries")
# What a disk says of what is written to it.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def _check_parts() -> None:
    """Refuse to run with a stranger's package of one of our names. Raises ImportError naming it."""
    home = Path(__file__).resolve().parent
    for part in _PARTS:
        spec = importlib.util.find_spec(part)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
        if found != home / part:
            raise ImportError(
                f"thingline needs its own package '{part}' from {home}, but Python finds "
                f"{found or 'none'}; another distribution took the name. Install thingline in a virtual"
                " environment of its own."
            )


def open(url: str | None = None, *, realm: str = "default", tz: str | None = None) -> History:
    """Open a store for questions: a path, `sqlite:///PATH` or `postgresql://...`; None: this user's own store.

    `realm` is the AWS account and Region that names belong to; `tz` the zone of times that name none. Close the
    history, or use it as a context. Raises a subclass of `store.errors.StoreError` where it cannot be opened.
    """
    _check_parts()
    from queries.history import open_history

    return open_history(url, realm=realm, tz=tz)


def main(args: list[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    try:
        return _run(args)
    except KeyboardInterrupt:  # while there is nobody yet who hears it
        print("thingline: interrupted", file=sys.stderr)
        return 130


def _run(args: list[str] | None) -> int:
    try:
        _check_parts()
    except ImportError as error:
        print(f"thingline: {error}", file=sys.stderr)
        return 1
    import click

    from queries.output import report_error
    from store.errors import ThinglineError

    try:
        code: Any = command_line().main(args=args, prog_name="thingline", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        print("thingline: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        print(f"thingline: the output cannot be written: {error.strerror}.", file=sys.stderr)
        # Python writes what is left of it when it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ThinglineError as error:
        report_error(error)
        return error.exit_code
    return code if isinstance(code, int) else 0


def command_line() -> Any:
    """Add up the commands of both sides."""
    import click

    from ingest.annotate_commands import annotate_command
    from ingest.aws_commands import COMMANDS as SETTING_UP
    from ingest.care_commands import COMMANDS as CARING
    from ingest.care_commands import LOOKING_AFTER
    from ingest.check_commands import COMMANDS as CHECKING
    from ingest.commands import COMMANDS as INGESTING
    from ingest.run_commands import COMMANDS as RUNNING
    from ingest.simulate_commands import COMMANDS as SIMULATING
    from queries.annotation_command import list_annotations
    from queries.commands import COMMANDS as ASKING
    from queries.coverage_command import COMMANDS as COVERING
    from queries.outage_commands import COMMANDS as FALLING
    from queries.registry_command import COMMANDS as REGISTERING
    from queries.report_command import COMMANDS as COMPARING
    from queries.series_command import COMMANDS as DRAWING
    from queries.serve_command import COMMANDS as SERVING
    from queries.snapshot_commands import COMMANDS as STANDING
    from queries.sql_command import COMMANDS as SELECTING
    from queries.takeover_command import COMMANDS as TAKING
    from queries.uptime_command import COMMANDS as COUNTING

    group = click.Group(
        help=(
            "The connectivity history of AWS IoT things: what was connected when, as known when, and how"
            " sure that is.\n\n\b\n"
            "  thingline ingest events.ndjson\n"
            "  thingline at pump-17 2026-11-01T03:12:00Z\n"
            "  thingline history pump-17 --from -24h\n"
        ),
        context_settings={"auto_envvar_prefix": "THINGLINE", "help_option_names": ["--help"]},
    )
    group = click.version_option(__version__, prog_name="thingline")(group)
    for command in (
        *INGESTING,
        *RUNNING,
        *CHECKING,
        *ASKING,
        *COVERING,
        *REGISTERING,
        *COUNTING,
        *STANDING,
        *FALLING,
        *TAKING,
        *DRAWING,
        *COMPARING,
        *SELECTING,
        *SERVING,
        *SIMULATING,
        *CARING,
        *SETTING_UP,
        annotate_command(_read_time, list_annotations),
        selftest_command(),
    ):
        group.add_command(command)
    for command in LOOKING_AFTER:
        group.commands["db"].add_command(command)  # type: ignore[attr-defined]
    return group


def _read_time(text: str, now_ms: int, tz: str | None) -> int:
    """Read a time for a command that writes, as those that ask read it."""
    from queries.times import parse_time

    return parse_time(text, now_ms=now_ms, tz=tz)


def selftest_command() -> Any:
    """Make the one command that needs both sides: what is ingested is asked, and compared with the truth."""
    import click

    from ingest.simulate_commands import choice_options, choices_of
    from store.options import described, json_option

    @click.command(
        "selftest",
        **described(
            "Measure how right the history is under conditions of your choice: make up a fleet with known"
            " truth, ingest what a consumer would have received of it, ask for everything, and compare. Beside"
            " it, on the same recording, four usual methods: latest timestamp wins, arrival order wins, highest"
            " version wins, checks only; and the first three where they hear the checks as well."
            " Shares are of the time from each client's first evidence to its last."
            " Ends with 1 where a bound does not hold the truth, or a stretch called observed is not true.",
            "thingline selftest",
            "thingline selftest --loss 0 --days 2",
            "thingline selftest --loss 0.05 --check-every 60 --api SearchIndex --json",
        ),
    )
    @click.option("--store", "url", metavar="URL", help="Keep the store there; it must be new.")
    @choice_options
    @json_option
    def selftest(url: str | None, as_json: bool, **chosen: Any) -> int:
        import json
        from tempfile import TemporaryDirectory

        from ingest.scoring import table

        choices = choices_of(**chosen)
        with TemporaryDirectory(prefix="thingline-") as folder:
            scores = _selftest(url or f"sqlite:///{folder}/selftest.db", choices)
        ours = scores["thingline"]
        if as_json:
            click.echo(json.dumps({method: score.as_json() for method, score in scores.items()}))
        else:
            click.echo(table(scores))
        return 1 if ours.bounds_true < ours.bounded or ours.observed_untrue else 0

    return selftest


def _selftest(url: str, choices: Any) -> dict[str, Any]:
    """Score a new store and the usual methods on one made-up recording, by method."""
    from itertools import groupby, islice

    from ingest.decode import decode_stream
    from ingest.files import BATCH
    from ingest.scoring import Reported, Score, periods_of
    from ingest.simulate import simulate
    from ingest.usual import Usual
    from ingest.writer import Writer
    from queries.history import open_history
    from queries.reports import status
    from store.answer import bounds_of
    from store.clock import system_clock
    from store.engine import open_writer, parse_url
    from store.errors import UsageError
    from store.model import Certainty, Learned

    simulated, usual = simulate(choices), Usual()
    with open_writer(parse_url(url)) as store, Writer(store) as writer:
        if status(store)["clients"]:
            raise UsageError("The store must be new, or what it holds would be compared with another truth.")
        records = decode_stream(simulated.lines(), now=system_clock)
        while batch := list(islice(records, BATCH)):
            writer.write(batch, source="selftest")
            for record in batch:
                if isinstance(record, Learned):
                    usual.take(record)
    scores = {method: Score() for method in ("thingline", *usual.methods)}
    window = (simulated.from_ms, simulated.to_ms)
    with open_history(url) as history:
        reported = groupby(history.all_periods(by_client=True), key=lambda one: one.client_id)
        client_id, periods = next(reported, (None, iter(())))
        for client, truth in simulated.truth():
            evidence = usual.evidence(client)
            told = []
            if client == client_id:
                for _, _, period in periods:
                    known = period.certainty is not Certainty.UNKNOWN
                    told.append(
                        Reported(
                            period.from_ms,
                            period.to_ms,
                            period.seen.state.connected if known else None,
                            period.seen.timestamp_ms,
                            period.seen.reason,
                            period.certainty,
                            *bounds_of(period.seen),
                        )
                    )
                client_id, periods = next(reported, (None, iter(())))
            scores["thingline"].add(truth, told, evidence=evidence, window=window)
            for method in usual.methods:
                found = periods_of(usual.answers(method, client))
                scores[method].add(truth, found, evidence=evidence, window=window)
    return scores


if __name__ == "__main__":
    sys.exit(main())
