"""The command that asks AWS now: check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from store.clock import system_clock
from store.engine import masked, open_reader, open_writer, parse_url
from store.errors import SourceError, UsageError
from store.options import described, json_option, realm_option, store_option

if TYPE_CHECKING:
    from ingest.iot import Iot
    from store.model import Learned, Rejected

_T = TypeVar("_T")

SOURCE = "checks"  # as the poller's: both ask the same
_TOGETHER = 100  # answers that are compared and written at once
# ... of which those that agree wait for more of their kind: see ingest/poller.py.
_HELD = 50_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0

profile_option = click.option("--profile", metavar="NAME", help="The AWS profile, as for the AWS CLI.")
region_option = click.option("--region", metavar="REGION", help="The AWS Region, as for the AWS CLI.")


@click.command(
    "check",
    **described(
        "Ask AWS now whether things are connected, and take the answers into the store: each THING by"
        " GetThingConnectivityData, or without any name the whole fleet by SearchIndex, a hundred things a call."
        " Prints how far AWS and the store agreed just before, and where they did not. A check repairs the history"
        " where events were lost. Credentials are found as the AWS CLI finds them; it needs"
        " iot:GetThingConnectivityData, iot:SearchIndex or iot:GetConnection, and fleet indexing with connectivity"
        " switched on in the account (GetConnection does without). Half of AWS's default quotas is left to others;"
        " see docs/checks.md. With --json the last line holds the counts.",
        "thingline check pump-17 pump-18",
        "thingline check --profile plant --region eu-central-1",
        "thingline check --client gateway/7",
        "thingline check --json pump-17",
    ),
)
@click.argument("names", nargs=-1, metavar="[THING]...")
@click.option(
    "--client",
    "by_client",
    is_flag=True,
    help="The names are client ids, asked by GetConnection; of who is off, AWS keeps that for half an hour.",
)
@profile_option
@region_option
@click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to go on where AWS throttles or does not answer; 0: not at all.",
)
@store_option
@realm_option
@json_option
def check(
    names: tuple[str, ...],
    by_client: bool,
    profile: str | None,
    region: str | None,
    wait_s: float,
    url: str | None,
    realm: str,
    as_json: bool,
) -> int:
    from ingest.asked import Told
    from ingest.aws import Account
    from ingest.iot import Iot
    from ingest.patience import PatientWriter
    from store.answer import Asker

    if by_client and not names:
        raise UsageError("--client needs client ids; AWS lists no clients.")
    wanted = list(dict.fromkeys(names))
    asking = _Asking(Iot(Account(profile=profile, region=region)), wait_s=wait_s)
    answers = asking.named(wanted, by_client=by_client) if wanted else asking.fleet()
    place = parse_url(url)
    told = Told(len(wanted), listed=bool(wanted), as_json=as_json)
    with (
        open_writer(place) as store,
        PatientWriter(store, realm=realm, wait_s=wait_s, say=told.say) as writer,
        open_reader(place) as readable,
    ):
        asking.say = told.say
        held: list[Learned | Rejected] = []
        failure: SourceError | None = None
        try:
            for items in answers:
                with readable.detached() as driver:
                    agreed, others = told.compare(
                        Asker(driver, is_sqlite=store.is_sqlite, realm=realm), items
                    )
                if others:
                    told.wrote(writer.write(others, source=SOURCE))
                held += agreed
                if len(held) >= _HELD:
                    told.wrote(writer.write(held, source=SOURCE))
                    held = []
        except SourceError as error:  # what was learned before it stays learned, and is told
            failure = error
        if held:
            told.wrote(writer.write(held, source=SOURCE))
    if failure is None or told.sums.asked:
        told.end(masked(place))
    if failure is not None:
        raise failure
    return 0


class _Asking:
    """Asks within AWS's quotas, and again where that may help. Raises SourceError where it does not."""

    def __init__(self, iot: Iot, *, wait_s: float) -> None:
        from ingest.budget import Budget

        self._iot = iot
        self._wait_s = wait_s
        self._budget = Budget()
        self.say: Callable[[str], None] = lambda text: None

    def named(self, names: list[str], *, by_client: bool) -> Iterator[list[Learned | Rejected]]:
        """Yield answers about names, some at a time. Raises UsageError before anything is asked."""
        from ingest.checks import GET_CONNECTION, GET_THING_CONNECTIVITY_DATA
        from ingest.iot import check_client_id, check_thing_name

        api, legal = (
            (GET_CONNECTION, check_client_id)
            if by_client
            else (GET_THING_CONNECTIVITY_DATA, check_thing_name)
        )
        for name in names:
            legal(name)
        ask = self._iot.connection if by_client else self._iot.thing
        return _together(self._answer(api, ask, name) for name in names)

    def fleet(self) -> Iterator[list[Learned | Rejected]]:
        """Yield answers about every thing that the index holds, page by page."""
        from ingest.checks import SEARCH_INDEX

        token = None
        while True:
            page = self._answer(SEARCH_INDEX, self._iot.page, token)
            if page.items:
                yield page.items
            token = page.token
            if token is None:
                return

    def _answer(self, api: str, ask: Callable[[Any], _T], about: object) -> _T:
        from ingest.aws import Trouble
        from ingest.iot import NoAnswer

        begun_s = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        told = False
        while True:
            if not self._budget.left_today(api, system_clock()):
                raise SourceError(f"The day's calls of {api} are used up; go on after 00:00 UTC.")
            time.sleep(self._budget.wait_ms(api, system_clock()) / 1_000)
            self._budget.spend(api, system_clock())
            try:
                return ask(about)
            except NoAnswer as error:
                if error.trouble is Trouble.THROTTLED:
                    self._budget.throttled(api, system_clock())
                left_s = self._wait_s - (time.monotonic() - begun_s)
                if error.trouble not in (Trouble.THROTTLED, Trouble.AWAY) or left_s <= 0:
                    raise SourceError(f"{api} gives no answer: {error}") from error
                if not told:
                    self.say(f"{api} gives no answer: {error} Asking on for up to {self._wait_s:g} s.")
                    told = True
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _together(items: Iterable[Learned]) -> Iterator[list[Learned | Rejected]]:
    """Yield items some at a time; those before a failure are yielded before it is raised."""
    held: list[Learned | Rejected] = []
    failure: SourceError | None = None
    try:
        for item in items:
            held.append(item)
            if len(held) == _TOGETHER:
                yield held
                held = []
    except SourceError as error:
        failure = error
    if held:
        yield held
    if failure is not None:
        raise failure


COMMANDS = (check,)
