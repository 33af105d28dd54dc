"""AWS IoT asked about connections, and its answers as evidence: the same as a recording of these calls would give.

Owns the calls. One call is one request: nothing is tried again here, so that who has a budget can count. An
answer is evidence of the moment just before its call was sent. What is no answer is raised as NoAnswer and says
nothing of any device: throttling, a network that is away, credentials, an index that is off. That a thing does not
exist is an answer, and registry evidence.

The answer is read from its own bytes, not from what boto3 makes of them: of half an answer that is an empty one, of
`"connected": "yes"` it is False, and members that are newer than the SDK are gone.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ingest.aws import Account, Failure, Trouble, failure_of
from ingest.checks import (
    GET_CONNECTION,
    GET_THING_CONNECTIVITY_DATA,
    SEARCH_INDEX,
    Result,
    read_check,
    recorded,
)
from ingest.refusal import Unreadable, rejected
from ingest.syntax import parse
from store.clock import Clock, system_clock
from store.errors import UsageError
from store.model import Learned, Rejected
from store.registry import NO_INDEX

PAGE = 100  # things a page of SearchIndex has at most
LISTED_PAGE = 250  # ... and of ListThings
LIST_THINGS = "ListThings"
EVERYTHING = "*"

TURN_ON = (
    "aws iot update-indexing-configuration --thing-indexing-configuration"
    " thingIndexingMode=REGISTRY,thingConnectivityIndexingMode=STATUS"
)
# What a page says beside that speaks of no connection, may be large, and changes by itself: with it no answer would
# be the one before.
_OTHER_MATTERS = frozenset({"shadow", "deviceDefender"})
_THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}", re.ASCII)

# What a person is told beside AWS's own words.
_ADVICE = {
    Trouble.OFF: f"fleet indexing is switched off, so AWS keeps no connectivity; switch it on with `{TURN_ON}`"
    " (a mode that is set already, as REGISTRY_AND_SHADOW, has to be said again), then wait while it builds",
    Trouble.NOT_READY: "fleet indexing was just switched on and is being built, which takes minutes to hours;"
    " `aws iot describe-index --index-name AWS_Things` says when it is ACTIVE",
    Trouble.THROTTLED: "the account's quota of this call is used up, by whatever else calls it too",
    Trouble.DENIED: "allow iot:GetThingConnectivityData, iot:SearchIndex, iot:ListThings and iot:GetConnection to this"
    " role",
    Trouble.CREDENTIALS: "renew the credentials (`aws sts get-caller-identity` tests them)",
}


class NoAnswer(Exception):
    """AWS gave no answer, and nothing was learned of any device; its text says what to do about it."""

    def __init__(self, failure: Failure) -> None:
        advice = _ADVICE.get(failure.trouble)
        if failure.trouble is Trouble.CREDENTIALS and "`" in failure.message:
            advice = None  # for it says what to do already
        super().__init__(f"{failure.message.rstrip('.')}{f'; {advice}' if advice else ''}.")
        self.failure = failure

    @property
    def trouble(self) -> Trouble:
        """Say what the failure asks of us."""
        return self.failure.trouble


class Page(NamedTuple):
    """A page of the index, in AWS's order."""

    names: list[str | None]  # of the things, None where that cannot be read
    items: list[Learned | Rejected]  # what was said of each
    token: str | None  # of the page after it; None: there is none


class Listed(NamedTuple):
    """A page of all things, in AWS's order and as AWS describes them."""

    asked_ms: int
    things: list[dict[str, Any]]
    token: str | None  # of the page after it; None: there is none


def weight(item: Learned | Rejected) -> int:
    """Give about how many bytes an item holds."""
    return item.length if isinstance(item, Rejected) else len(getattr(item.evidence, "body", ""))


def is_thing_name(text: str) -> bool:
    """Tell whether a thing may be called that; AWS follows no client whose id is no such name."""
    return _THING_NAME.fullmatch(text) is not None


def check_thing_name(name: str) -> None:
    """Raise UsageError for what no thing is called."""
    if not is_thing_name(name):
        raise UsageError(f"{name!r} is no thing's name; it is 1 to 128 of A-Z a-z 0-9 : _ -.")


def check_client_id(client_id: str) -> None:
    """Raise UsageError for what GetConnection takes for no client's id."""
    if not 1 <= len(client_id) <= 128 or client_id.startswith("$"):
        raise UsageError(f"{client_id!r} is no client's id; it has 1 to 128 characters, and no $ first.")


class Iot:
    """Asks one account. May be used by several threads.

    `clock` gives the moments of asking; `read_s` is how long an answer may take. Raises SourceError where the
    profile or the Region is missing.
    """

    def __init__(
        self, account: Account, *, clock: Clock = system_clock, read_s: float = 30, connections: int = 10
    ) -> None:
        self._account = account
        self._clock = clock
        self._read_s = read_s
        self._connections = connections
        self._answers = threading.local()
        self._index = self._client("iot")
        self._plane: Any = None

    def _client(self, service: str) -> Any:
        client = self._account.client(service, connections=self._connections, attempts=1, read_s=self._read_s)
        client.meta.events.register("response-received", self._received)
        return client

    def _received(self, response_dict: dict[str, Any] | None, **_: object) -> None:
        """Take the bytes of an answer; boto3 calls it in the thread that asks."""
        self._answers.body = None if response_dict is None else response_dict["body"]

    def thing(self, name: str) -> Learned:
        """Ask GetThingConnectivityData about a thing. Raises NoAnswer; UsageError for what no thing is called."""
        check_thing_name(name)
        ask = self._index.get_thing_connectivity_data
        check = self._asked(GET_THING_CONNECTIVITY_DATA, ask, {"thingName": name})
        answer = check.get("response")
        if answer is not None and (answer.get("thingName") != name or answer.get("connected") is None):
            raise _nonsense("no connectivity of that thing is in the answer")
        return self._alone(check)

    def connection(self, client_id: str) -> Learned:
        """Ask GetConnection about a client. Raises NoAnswer; UsageError where the SDK is older than the call."""
        check_client_id(client_id)
        if self._plane is None:
            self._plane = self._client("iot-data")
        if not hasattr(self._plane, "get_connection"):
            raise UsageError("This boto3 has no GetConnection; upgrade it: pip install -U boto3.")
        check = self._asked(GET_CONNECTION, self._plane.get_connection, {"clientId": client_id})
        answer = check.get("response")
        if answer is not None and (
            answer.get("clientId", client_id) != client_id or answer.get("connected") is None
        ):
            raise _nonsense("no connection of that client is in the answer")
        return self._alone(check)

    def page(self, token: str | None = None, *, query: str = EVERYTHING) -> Page:
        """Ask SearchIndex for a page of things, `token` being that of the page before. Raises NoAnswer.

        What is wrong with one thing costs the others nothing; it is rejected, and goes to quarantine.
        """
        asked: dict[str, Any] = {"queryString": query, "maxResults": PAGE}
        if token is not None:
            asked["nextToken"] = token
        check = self._asked(SEARCH_INDEX, self._index.search_index, asked)
        response = check["response"]
        following = response.get("nextToken")
        if not isinstance(response.get("things"), list) or not isinstance(following, str | None):
            raise _nonsense("no list of things is in the answer")
        if following is not None and following == token:
            raise _nonsense("the page after this one is said to be this one")
        response["things"] = [_of_connection(thing) for thing in response["things"]]
        try:
            found = recorded(check, {})
        except Unreadable:
            failure = Failure(Trouble.OFF, "NoConnectivity", "SearchIndex gave things without `connectivity`")
            raise NoAnswer(failure) from None
        receipt_ms = self._clock()
        names = [name if isinstance(name := each.body["thingName"], str) else None for each in found]
        return Page(names, [_read(each, receipt_ms) for each in found], following)

    def listed(self, token: str | None = None) -> Listed:
        """Ask ListThings for a page of all things, `token` being that of the page before. Raises NoAnswer."""
        asked: dict[str, Any] = {"maxResults": LISTED_PAGE}
        if token is not None:
            asked["nextToken"] = token
        said = self._asked(LIST_THINGS, self._index.list_things, asked)
        things, following = said["response"].get("things"), said["response"].get("nextToken")
        if not isinstance(things, list) or not isinstance(following, str | None):
            raise _nonsense("no list of things is in the answer")
        if following is not None and following == token:
            raise _nonsense("the page after this one is said to be this one")
        if not all(
            isinstance(thing, dict) and is_thing_name(str(thing.get("thingName"))) for thing in things
        ):
            raise _nonsense("a thing without a name is in the list")
        return Listed(said["askedAt"], things, following)

    def _asked(self, api: str, ask: Callable[..., Any], asked: dict[str, Any]) -> dict[str, Any]:
        """Send a call; gives the check that a recording would hold of it."""
        from botocore.exceptions import BotoCoreError, ClientError

        about: dict[str, Any] = {name: asked[name] for name in ("thingName", "clientId") if name in asked}
        asked_ms = self._clock()
        check: dict[str, Any] = {"api": api, "askedAt": asked_ms, **about}
        self._answers.body = b""
        try:
            ask(**asked)
            response = parse(self._answers.body)
        except (BotoCoreError, ClientError) as error:
            failure = _failure(error)
            if failure.trouble is Trouble.GONE and about:
                return {**check, "error": failure.code}
            raise NoAnswer(failure) from error
        except Unreadable as error:
            raise _nonsense(f"{error.reason}, {error.detail}") from None
        except (
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
        ) as error:  # boto3, of what has another shape
            raise _nonsense(str(error) or type(error).__name__) from error
        if not isinstance(response, dict):
            raise _nonsense("it is no JSON object")
        return {**check, "response": response}

    def _alone(self, check: dict[str, Any]) -> Learned:
        try:
            return Learned(read_check(check, self._clock(), None), 0)
        except Unreadable as error:
            raise _nonsense(f"{error.reason}, {error.detail}") from None


def _of_connection(thing: Any) -> Any:
    if not isinstance(thing, dict):
        return thing
    return {name: value for name, value in thing.items() if name not in _OTHER_MATTERS}


def _read(result: Result, receipt_ms: int) -> Learned | Rejected:
    try:
        return Learned(read_check(result.body, receipt_ms, None), 0)
    except Unreadable as error:
        # Of the thing's own JSON: without the moment of asking, which would make it another each time.
        whole = json.dumps(result.body["response"], sort_keys=True, separators=(",", ":")).encode()
        return rejected(error.reason, error.detail, whole, 0)


def _failure(error: Exception) -> Failure:
    """Read what a call raised; an index that is off is told from a thing that is not there."""
    failure = failure_of(error)
    if failure.trouble is Trouble.GONE and NO_INDEX.search(failure.message):
        return Failure(Trouble.OFF, failure.code, failure.message)
    return failure


def _nonsense(what: str) -> NoAnswer:
    """Make the error of an answer that cannot be one; asking again may give a whole one."""
    return NoAnswer(Failure(Trouble.AWAY, "BrokenAnswer", f"AWS's answer is broken: {what}"))
