"""The reports of the fleet under /api/v1: the commands themselves, with their own options as parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import click

from queries.history import History
from queries.http.declarations import KNOWN_AT, TZ, Endpoint, Kind, Param, Row, Take
from queries.http.messages import as_parameters, camel
from queries.receipts import Asked, Receipt
from queries.uptime import Span
from store.errors import BadTime, UsageError

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reporting(Asked):
    """Asks a report of a history that is open, and hands over its NDJSON, whatever the command would print."""

    history: History
    take: Take

    def open(self) -> Any:
        @contextmanager
        def opened() -> Iterator[History]:
            yield self.history

        return opened()

    def everywhere(self, history: History) -> Iterator[tuple[str, History]]:
        """Refuse: whoever may ask a server may ask about its realm. Raises UsageError."""
        raise UsageError(f"This server answers of one realm, {self.realm}; the command tells of all of them.")

    @property
    def zone(self) -> tzinfo | None:
        return self.history.zone(self.tz)

    def moment(self, history: History) -> int:
        return history.known_at(None if self.known_at is None else history.milliseconds(self.known_at))

    def window(self, history: History, from_: str | None, to: str | None, month_: str | None) -> Span:
        window = self._window(history, from_, to, month_)
        now_ms = history.milliseconds("now")
        if window[1] <= window[0] or window[0] >= now_ms:
            raise BadTime("The window ends before it begins, or lies in the future.")
        return window[0], min(window[1], now_ms)

    def hand_over(self, receipt: Receipt, types: Any, *, rows: Iterable[Row], table: Any, words: Any) -> None:
        self.take(receipt.as_json(), rows)


# Of every report, and answered by the server itself.
_OURS = {"known_at", "tz", "realm", "url", "as_json", "as_csv", "parquet"}
_TIMES = {"from_", "to", "time", "t1", "t2"}
_NAMES = {"things": "thing", "time": "at", "t1": "from", "t2": "to"}


def _param(option: click.Parameter) -> Param:
    """Declare an option of a command as a parameter."""
    assert option.name is not None
    name = _NAMES.get(option.name) or camel(option.opts[0].removeprefix("--"))
    kind, least, most = Kind.TEXT, None, None
    choices: tuple[str, ...] = ()
    if option.name in _TIMES:
        kind = Kind.TIME
    elif isinstance(option.type, click.types.IntParamType):
        kind = Kind.WHOLE
        least, most = getattr(option.type, "min", None), getattr(option.type, "max", None)
    elif isinstance(option.type, click.Choice):
        choices = tuple(map(str, option.type.choices))
    elif isinstance(option.type, click.types.BoolParamType):
        kind = Kind.TRUTH
    return Param(
        name=name,
        text=as_parameters(getattr(option, "help", None) or _ARGUMENTS[option.name]),
        kind=kind,
        is_needed=option.required and option.nargs == 1,
        is_many=option.multiple or option.nargs == -1,
        choices=choices,
        least=None if least is None else int(least),
        most=None if most is None else int(most),
    )


_ARGUMENTS = {
    "things": "The name of a thing; may come more than once. Default: all.",
    "time": "The instant.",
    "t1": "The earlier instant.",
    "t2": "The later instant.",
}


def report_of(command: click.Command) -> Endpoint:
    """Make an endpoint of a report's command."""
    options = {option.name: option for option in command.params if option.name not in _OURS}
    params = {name: _param(option) for name, option in options.items() if name is not None}
    run = command.callback.__wrapped__  # type: ignore[union-attr]

    def rows(history: History, values: Values, take: Take) -> None:
        asked = _Reporting(
            known_at=values.get("knownAt"),
            tz=values.get("tz"),
            realm=history.realm,
            url=None,
            as_json=True,
            as_csv=False,
            parquet=None,
            history=history,
            take=take,
        )
        given: dict[str, Any] = {}
        for name, option in options.items():
            assert name is not None
            value = values.get(params[name].name)
            if params[name].is_many:
                value = tuple(value or ())
            elif value is None:
                value = option.default if isinstance(option.default, str | int | float) else None
            given[name] = value
        run(asked=asked, **given)

    assert command.name is not None
    assert command.help is not None
    summary = as_parameters(command.help.partition("\n")[0])
    return Endpoint(name=command.name, summary=summary, params=(*params.values(), KNOWN_AT, TZ), rows=rows)
