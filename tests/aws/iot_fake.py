"""AWS IoT's reads, faked: what GetThingConnectivityData and its siblings answer, over real HTTP for real boto3.

The paths come from botocore's service model, and every answer is held to it (`unlike_model`), so that the fake
cannot drift from what boto3 understands. What is true of a thing at an instant is told by a function, so that a
simulated fleet can stand behind it. moto has no GetThingConnectivityData, and its SearchIndex always agrees.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import botocore.session

from ingest.scoring import Answered
from store.clock import Clock, system_clock

GET_THING, SEARCH, LIST_THINGS = "GetThingConnectivityData", "SearchIndex", "ListThings"
GET_CONNECTION, DESCRIBE_INDEX = "GetConnection", "DescribeIndex"
GET_INDEXING, DESCRIBE_EVENTS = "GetIndexingConfiguration", "DescribeEventConfigurations"
LIST_RULES, GET_RULE, GET_IDENTITY = "ListTopicRules", "GetTopicRule", "GetCallerIdentity"
SERVICES = {
    "iot": (
        *(GET_THING, SEARCH, LIST_THINGS, DESCRIBE_INDEX, GET_INDEXING, DESCRIBE_EVENTS),
        *(LIST_RULES, GET_RULE),
    ),
    "iot-data": (GET_CONNECTION,),
    "sts": (GET_IDENTITY,),
}
KEPT_MS = 30 * 60_000  # GetConnection keeps a disconnect so long


class Said(NamedTuple):
    """What is true of a connection, in the words of the API."""

    connected: bool
    timestamp_ms: int | None
    reason: str


NEVER = Said(False, None, "UNKNOWN")

Truth = Callable[[str, int], Said]  # thing, instant


class Fault(NamedTuple):
    """What a call meets instead of its answer, or on its way."""

    status: int = 200
    code: str = ""
    message: str = ""
    delay_s: float = 0
    cut: bool = False  # the connection breaks in the midst of the body
    body: bytes | None = None  # sent in place of the answer


THROTTLED = Fault(400, "ThrottlingException", "Rate exceeded")
INTERNAL = Fault(500, "InternalFailureException", "An unexpected error has occurred.")
UNAVAILABLE = Fault(503, "ServiceUnavailableException", "The service is temporarily unavailable.")
EXPIRED = Fault(403, "ExpiredTokenException", "The security token included in the request is expired")
DENIED = Fault(403, "AccessDeniedException", "User is not authorized to perform: iot:SearchIndex")
CUT = Fault(cut=True)
NO_SUCH_THING = Fault(404, "ResourceNotFoundException", "Thing not found")
NO_INDEX = Fault(404, "ResourceNotFoundException", "Index AWS_Things does not exist")
NOT_READY = Fault(400, "IndexNotReadyException", "Index AWS_Things is not ready")


class _Failed(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


@dataclass(slots=True)
class Call:
    """One call that arrived, and when."""

    api: str
    at_ms: int  # by the account's clock
    asked: dict[str, Any]


@dataclass
class State:
    """What the account holds, and how its API behaves; a test changes it as it likes."""

    things: Sequence[str] = ()  # registered, in the order of pages
    truth: Truth = lambda thing, now_ms: NEVER
    described: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # type, attributes, groups, id
    clock: Clock = system_clock
    lag_ms: int = 0  # the index is so far behind the broker
    whole_seconds: bool = False
    index: str = "ACTIVE"  # or BUILDING, or OFF
    connectivity_indexed: bool = True
    events: Mapping[str, bool] = field(default_factory=lambda: {"THING": False})
    rules: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # what GetTopicRule tells, by name
    faults: dict[str, deque[Fault]] = field(default_factory=dict)  # of the calls to come, by API
    fault_of: Callable[[str], Fault | None] = lambda api: None  # ... and of those that these leave alone
    calls: list[Call] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)  # answers that were not as the model says


class IotFake:
    """The server. `state` is replaced as a whole by a test; calls of all services are told apart by their path."""

    def __init__(self) -> None:
        self.state = State()
        self._lock = threading.Lock()
        self._routes = list(_routes())
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """Give what leads boto3 here."""
        return {
            "AWS_ENDPOINT_URL_IOT": self.url,
            "AWS_ENDPOINT_URL_IOT_DATA_PLANE": self.url,
            "AWS_ENDPOINT_URL_STS": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }

    def fail(self, api: str, fault: Fault, times: int = 1) -> None:
        """Let the next calls of an API meet a fault."""
        self.state.faults.setdefault(api, deque()).extend([fault] * times)

    def counts(self) -> Counter[str]:
        """Count the calls that arrived, by API."""
        return Counter(call.api for call in self.state.calls)

    # --- Answering ------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, body: bytes) -> tuple[Fault, bytes]:
        """Answer a request; gives what happened to it, and the body as it would be without."""
        path, query = urlsplit(target)[2:4]
        for api, operation, wanted, pattern in self._routes:
            found = pattern.fullmatch(path)
            if found is None or wanted != method:
                continue
            asked: dict[str, Any] = {name: unquote(text) for name, text in found.groupdict().items()}
            asked |= {name: values[0] for name, values in parse_qs(query).items()}
            is_query = operation.service_model.protocol == "query"
            asked |= dict(parse_qsl(body.decode())) if is_query else json.loads(body or b"{}")
            with self._lock:
                state = self.state
                state.calls.append(Call(api, state.clock(), asked))
                waiting = state.faults.get(api)
                fault = waiting.popleft() if waiting else state.fault_of(api)
            if fault is not None and fault.code:
                return fault, _error(fault, is_query)
            try:
                said = getattr(self, f"_{_snake(api)}")(state, asked)
            except _Failed as failed:
                return failed.fault, _error(failed.fault, is_query)
            state.unlike += unlike_model(operation.output_shape, said, api)
            return fault or Fault(), _xml(api, said) if is_query else json.dumps(said).encode()
        unknown = Fault(404, "UnknownOperationException", f"no such route: {method} {path}")
        return unknown, _error(unknown, is_query=False)

    def _known(self, state: State, thing: str) -> Said:
        """Give what the index holds of a thing."""
        if state.index == "OFF" or not state.connectivity_indexed:
            raise _Failed(NO_INDEX)
        if state.index != "ACTIVE":
            raise _Failed(NOT_READY)
        if thing not in state.things:
            raise _Failed(NO_SUCH_THING)
        return state.truth(thing, state.clock() - state.lag_ms)

    def _get_thing_connectivity_data(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        thing = asked["thingName"]
        said = self._known(state, thing)
        found: dict[str, Any] = {"thingName": thing, "connected": said.connected}
        if said.timestamp_ms is not None:
            ms = said.timestamp_ms
            found["timestamp"] = ms // 1000 if state.whole_seconds else ms / 1000
        elif len(thing) % 2:
            found["timestamp"] = 0  # both are seen of what never connected
        return {**found, "disconnectReason": said.reason}

    def _search_index(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        if state.index != "ACTIVE":
            raise _Failed(NO_INDEX if state.index == "OFF" else NOT_READY)
        most = asked.get("maxResults", 100)
        if not 1 <= most <= 100:
            raise _Failed(Fault(400, "InvalidRequestException", "maxResults is 1 to 100"))
        pattern = _pattern(asked["queryString"])
        names = (
            state.things if pattern is None else [name for name in state.things if pattern.fullmatch(name)]
        )
        page, token = _page(names, asked.get("nextToken"), most)
        things = []
        for name in page:
            thing: dict[str, Any] = {"thingName": name, "thingId": f"id-of-{name}"}
            thing |= state.described.get(name, {})
            if state.connectivity_indexed:
                said = state.truth(name, state.clock() - state.lag_ms)
                connectivity: dict[str, Any] = {"connected": said.connected}
                if said.timestamp_ms is not None or len(name) % 2:
                    connectivity["timestamp"] = said.timestamp_ms or 0
                if not said.connected:
                    connectivity["disconnectReason"] = said.reason
                thing["connectivity"] = connectivity
            things.append(thing)
        return {"things": things, **token}

    def _list_things(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        most = int(asked.get("maxResults", 250))
        if not 1 <= most <= 250:
            raise _Failed(Fault(400, "InvalidRequestException", "maxResults is 1 to 250"))
        page, token = _page(state.things, asked.get("nextToken"), most)
        arn = "arn:aws:iot:eu-central-1:123456789012:thing/"
        things = []
        for name in page:
            said = state.described.get(name, {})
            told = {each: said[each] for each in ("thingTypeName", "attributes") if each in said}
            things.append({"thingName": name, "thingArn": arn + name, "attributes": {}, "version": 1, **told})
        return {"things": things, **token}

    def _describe_index(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        if state.index == "OFF":
            raise _Failed(NO_INDEX)
        schema = "REGISTRY_AND_CONNECTIVITY_STATUS" if state.connectivity_indexed else "REGISTRY"
        return {"indexName": asked["indexName"], "indexStatus": state.index, "schema": schema}

    def _get_indexing_configuration(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        on = state.index != "OFF"
        return {
            "thingIndexingConfiguration": {
                "thingIndexingMode": "REGISTRY" if on else "OFF",
                "thingConnectivityIndexingMode": "STATUS" if on and state.connectivity_indexed else "OFF",
            },
            "thingGroupIndexingConfiguration": {"thingGroupIndexingMode": "OFF"},
        }

    def _describe_event_configurations(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        return {
            "eventConfigurations": {name: {"Enabled": on} for name, on in state.events.items()},
            "creationDate": 1_700_000_000.25,
            "lastModifiedDate": 1_700_000_000.5,
        }

    def _list_topic_rules(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        """Two rules a page."""
        page, token = _page(list(state.rules), asked.get("nextToken"), 2)
        rules = []
        for name in page:
            found = re.search(r"FROM\s+'([^']*)'", state.rules[name]["sql"])
            rule = {"ruleName": name, "ruleDisabled": state.rules[name]["ruleDisabled"]}
            rules.append({**rule, "topicPattern": found[1]} if found else rule)
        return {"rules": rules, **token}

    def _get_topic_rule(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        rule = state.rules.get(asked["ruleName"])
        if rule is None:  # so AWS says of a rule that is not there
            raise _Failed(Fault(401, "UnauthorizedException", "Access to topic rule was denied"))
        return {"ruleArn": f"arn:aws:iot:eu-central-1:123456789012:rule/{asked['ruleName']}", "rule": rule}

    def _get_caller_identity(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        arn = "arn:aws:sts::123456789012:assumed-role/ingester/i-1"
        return {"UserId": "AROA:i-1", "Account": "123456789012", "Arn": arn}

    def _get_connection(self, state: State, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer for a client id; it needs no index, and has forgotten who is off for half an hour."""
        client, now_ms = asked["clientId"], state.clock()
        said = state.truth(client, now_ms)
        if client not in state.things or said.timestamp_ms is None:
            raise _Failed(Fault(404, "ResourceNotFoundException", "No connection of that client"))
        if said.connected:
            return {"clientId": client, "connected": True, "connectedSince": said.timestamp_ms}
        if now_ms - said.timestamp_ms > KEPT_MS:
            raise _Failed(Fault(404, "ResourceNotFoundException", "No connection of that client"))
        since = {"disconnectedSince": said.timestamp_ms, "disconnectReason": said.reason}
        return {"clientId": client, "connected": False, **since}


def _error(fault: Fault, is_query: bool) -> bytes:
    if not is_query:
        return json.dumps({"message": fault.message}).encode()
    said = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
    return f"<ErrorResponse>{said}<RequestId>0</RequestId></ErrorResponse>".encode()


def _xml(api: str, said: Mapping[str, str]) -> bytes:
    """Write a flat answer of the query protocol."""
    members = "".join(f"<{name}>{text}</{name}>" for name, text in said.items())
    return f"<{api}Response><{api}Result>{members}</{api}Result></{api}Response>".encode()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _page(names: Sequence[str], token: str | None, most: int) -> tuple[Sequence[str], dict[str, str]]:
    begin = 0
    if token is not None:
        try:
            begin = int(base64.b64decode(token, validate=True))
        except ValueError:
            raise _Failed(Fault(400, "InvalidRequestException", "Invalid nextToken")) from None
    more = begin + most < len(names)
    following = {"nextToken": base64.b64encode(b"%d" % (begin + most)).decode()} if more else {}
    return names[begin : begin + most], following


def _pattern(query: str) -> re.Pattern[str] | None:
    """Read a query: `*`, or `thingName:NAME` joined by OR, `*` standing for anything."""
    if query == "*":
        return None
    terms = query.split(" OR ")
    found = [re.fullmatch(r"thingName:([a-zA-Z0-9:_*-]+)", term) for term in terms]
    if None in found or len(terms) > 12 or len(query) > 1000:
        raise _Failed(Fault(400, "InvalidQueryException", f"cannot be understood: {query}"))
    names = [re.escape(one[1]).replace(r"\*", ".*") for one in found if one is not None]
    return re.compile("|".join(names))


def truth_of(fleet: Iterable[tuple[str, list[Answered]]]) -> tuple[list[str], Truth]:
    """Let a simulated fleet stand behind the fake: its things, and what is true of each at an instant."""
    lives = dict(fleet)

    def truth(thing: str, now_ms: int) -> Said:
        answers = lives[thing]
        place = bisect_right(answers, now_ms, key=attrgetter("at_ms"))
        if place == 0:
            return NEVER
        found = answers[place - 1]
        return Said(found.connected, found.timestamp_ms, found.reason or "NONE")

    return sorted(lives), truth


# --- The model ----------------------------------------------------------------------------------------------


def _routes() -> Iterator[tuple[str, Any, str, re.Pattern[str]]]:
    """Give `(operation, its model, method, pattern of the path)` of all that this botocore has of ours."""
    session = botocore.session.get_session()
    for service, operations in SERVICES.items():
        model = session.get_service_model(service)
        for name in operations:
            if name not in model.operation_names:
                continue
            operation = model.operation_model(name)
            uri = operation.http["requestUri"].partition("?")[0]
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(uri))
            yield name, operation, operation.http["method"], re.compile(pattern)


def unlike_model(shape: Any, value: Any, where: str) -> list[str]:
    """List how an answer differs from what botocore's model of it allows."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        names = {
            member.serialization.get("name", name): (name, member) for name, member in shape.members.items()
        }
        lacking = [name for name in shape.required_members if name not in value]
        said = [f"{where} lacks {name}" for name in lacking]
        for name, inner in value.items():
            if name not in names:
                said.append(f"{where}.{name} is not in the model")
            else:
                said += unlike_model(names[name][1], inner, f"{where}.{name}")
        return said
    if kind == "list":
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [fault for inner in value for fault in unlike_model(shape.member, inner, f"{where}[]")]
    if kind == "map":
        if not isinstance(value, dict):
            return [f"{where} is no map"]
        return [
            fault for inner in value.values() for fault in unlike_model(shape.value, inner, f"{where}{{}}")
        ]
    wanted = _TYPES[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        return [f"{where} is {value!r}, no {kind}"]
    if getattr(shape, "enum", None) and value not in shape.enum:
        return [f"{where} is {value!r}, none of the enumeration"]
    return []


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "blob": (str,),  # base64
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "double": (int, float),
    "timestamp": (int, float),  # rest-json: epoch seconds
}


# --- HTTP ---------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet of clients that went away."""


def _handler(fake: IotFake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault, said = fake.answer(self.command, self.path, body)
            if fault.delay_s:
                time.sleep(fault.delay_s)
            if fault.body is not None:
                said = fault.body
            head = (
                f"HTTP/1.1 {fault.status} X\r\nContent-Type: application/json\r\n"
                f"x-amzn-RequestId: 00000000-0000-0000-0000-000000000000\r\nContent-Length: {len(said)}\r\n"
            )
            if fault.code:
                head += f"x-amzn-ErrorType: {fault.code}\r\n"
            if fault.cut:
                said = said[: len(said) // 2]
            self.wfile.write(head.encode() + b"\r\n" + said)
            if fault.cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_WR)

    return Handler


@contextmanager
def serving() -> Iterator[IotFake]:
    """Serve for a while."""
    fake = IotFake()
    try:
        yield fake
    finally:
        fake.close()
