"""Thingline's front door: the command `thingline`, and `import thingline` for Python.

    import thingline

    with thingline.open("store.db") as history:
        answer = history.at("pump-17", "2026-11-01T03:12:00Z")
        print(answer.connected, answer.certainty)

Checks that the packages beside it are its own, adds up the command groups, and turns errors into exit codes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queries.history import History

__version__ = "0.1.0"
__all__ = ["__version__", "main", "open"]

_PARTS = ("ingest", "store", "queries")


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
        _check_parts()
    except ImportError as error:
        print(f"thingline: {error}", file=sys.stderr)
        return 1
    import click

    from queries.output import report_error
    from store.errors import ThinglineError

    try:
        code: Any = command_line().main(args=args, prog_name="thingline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        print("thingline: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except ThinglineError as error:
        report_error(error)
        return error.exit_code
    return code if isinstance(code, int) else 0


def command_line() -> Any:
    """Add up the commands of both sides."""
    import click

    from ingest.commands import COMMANDS as INGESTING
    from queries.commands import COMMANDS as ASKING

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
    for command in (*INGESTING, *ASKING):
        group.add_command(command)
    return group


if __name__ == "__main__":
    sys.exit(main())
