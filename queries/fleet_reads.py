"""AWS's reads of a fleet, as of any instant: SearchIndex, ListThings, DescribeThing, DescribeIndex, the aggregations.

Requests come as the members that AWS's service model gives them, responses go as such members. What is wrong with a
request is said in AWS's words where they are known. Knows no HTTP, and no rule of what is true of a thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from queries.aggregates import (
    DEFAULT_PERCENTS,
    aggregated,
    buckets,
    cardinality,
    percentiles,
    statistics,
)
from queries.documents import STANDING, Document, described_json, listed_json, search_json
from queries.fleet import Fleet, check
from queries.history import History, Reading
from queries.page_token import Asked, Place, place_of, token_of
from queries.search_query import PRESENT, Query, Term, parse
from store.answer import check_name
from store.errors import InvalidAggregation, InvalidRequest, ResourceNotFound

INDEX = "AWS_Things"
SCHEMA = "REGISTRY_AND_CONNECTIVITY_STATUS"
QUERY_VERSION = "2017-09-30"
MOST_SEARCHED = 100  # a page of SearchIndex
MOST_LISTED = 250  # ... and of ListThings
MOST_BUCKETS = 10_000
BUCKETS = 10  # where the request does not say
MOST_PERCENTS = 100
EVERYTHING = Term(None, PRESENT)

Members = Mapping[str, Any]
T = TypeVar("T")


class FleetReads:
    """Answers the reads about the fleet of one store. `key` signs tokens of pages. Threads may share it."""

    def __init__(self, key: bytes, *, fleet: Fleet | None = None) -> None:
        self._key = key
        self._fleet = Fleet() if fleet is None else fleet

    # Each takes the instant, and the moment of learning (None: now), in ms; raises AnswerError, as AWS would.

    def search_index(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer SearchIndex: things by name, a page at a time."""
        query = _query(request)
        most = _whole(request, "maxResults", 1, MOST_SEARCHED) or MOST_SEARCHED
        asked = {"queryString": request["queryString"]}
        return self._page(
            history, "SearchIndex", asked, at, known_at, request, query, most, search_json, lambda one: True
        )

    def list_things(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer ListThings: things by name, a page at a time; here case matters."""
        most = _whole(request, "maxResults", 1, MOST_LISTED) or MOST_LISTED
        wanted, asked = _listed(request)
        return self._page(
            history, "ListThings", asked, at, known_at, request, EVERYTHING, most, listed_json, wanted
        )

    def describe_thing(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer DescribeThing. Its ARN, version and billing group are left out: no evidence tells them."""
        name = _text(request, "thingName") or ""
        check_name(name)
        with history.reading(known_at) as reading:
            return described_json(self._fleet.document(reading, name, at))

    def describe_index(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer DescribeIndex: there is one, and it is active at every instant that can be asked for."""
        _check_index(request)
        with history.reading(known_at) as reading:
            check(reading, at)
        return {"indexName": INDEX, "indexStatus": "ACTIVE", "schema": SCHEMA}

    def get_statistics(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer GetStatistics; without a field, how many things match."""
        query, name = _query(request), _text(request, "aggregationField")
        # What AWS takes where none is named; of the registry's versions nothing is kept.
        field = None if name in (None, "registry.version") else aggregated(name or "")
        return {
            "statistics": self._over(
                history, at, known_at, query, field, lambda found: statistics(found, field)
            )
        }

    def get_cardinality(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer GetCardinality."""
        query, field = _query(request), _field(request)
        return {
            "cardinality": self._over(
                history, at, known_at, query, field, lambda found: cardinality(found, field)
            )
        }

    def get_percentiles(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer GetPercentiles."""
        query, field, percents = _query(request), _field(request), _percents(request)
        return {
            "percentiles": self._over(
                history, at, known_at, query, field, lambda found: percentiles(found, field, percents)
            )
        }

    def get_buckets_aggregation(
        self, history: History, at: int, known_at: int | None, request: Members
    ) -> dict[str, Any]:
        """Answer GetBucketsAggregation."""
        query, field = _query(request), _field(request)
        kind = request.get("bucketsAggregationType")
        terms = kind.get("termsAggregation") if isinstance(kind, Mapping) else None
        if not isinstance(terms, Mapping):
            raise InvalidRequest("bucketsAggregationType must hold termsAggregation.")
        most = _whole(terms, "maxBuckets", 1, MOST_BUCKETS) or BUCKETS
        return self._over(history, at, known_at, query, field, lambda found: buckets(found, field, most))

    def _over(
        self,
        history: History,
        at: int,
        known_at: int | None,
        query: Query,
        field: str | None,
        aggregate: Callable[[Iterator[Document]], T],
    ) -> T:
        described = field is not None and field not in STANDING
        with history.reading(known_at) as reading:
            return aggregate(self._fleet.matching(reading, query, at, described=described))

    def _page(
        self,
        history: History,
        operation: str,
        members: Mapping[str, object],
        at: int,
        known_at: int | None,
        request: Members,
        query: Query,
        most: int,
        shape: Callable[[Document], dict[str, Any]],
        wanted: Callable[[Document], bool],
    ) -> dict[str, Any]:
        token = _text(request, "nextToken")
        asked = Asked(operation, members, at, known_at, history.milliseconds("now"))
        place = None
        if token:
            place, asked = place_of(token, asked, self._key)
        with history.reading(known_at if place is None else place.known_at) as reading:
            found, place = self._found(reading, query, wanted, place or Place("", at, reading.known_at), most)
        answer: dict[str, Any] = {"things": [shape(one) for one in found]}
        if place is not None:
            answer["nextToken"] = token_of(place, asked, self._key)
        return answer

    def _found(
        self, reading: Reading, query: Query, wanted: Callable[[Document], bool], place: Place, most: int
    ) -> tuple[list[Document], Place | None]:
        """Give a page, and where the next begins; None: there is no more."""
        all_found = self._fleet.matching(reading, query, place.at_ms, after=place.after)
        found = list(islice(filter(wanted, all_found), most + 1))
        if len(found) <= most:
            return found, None
        return found[:most], place._replace(after=found[most - 1].thing_name)


# --- Members of requests ------------------------------------------------------------------------------------


def _query(request: Members) -> Query:
    _check_index(request)
    if (_text(request, "queryVersion") or QUERY_VERSION) != QUERY_VERSION:
        raise InvalidRequest(f"The queryVersion is {QUERY_VERSION}; there is no other.")
    text = _text(request, "queryString")
    if not text:
        raise InvalidRequest("queryString is missing; * matches all things.")
    return parse(text)


def _check_index(request: Members) -> None:
    name = _text(request, "indexName") or INDEX
    if name != INDEX:
        raise ResourceNotFound(f"Index {name[:128]} does not exist; there is {INDEX}.")


def _field(request: Members) -> str:
    name = _text(request, "aggregationField")
    if name is None or name == "registry.version":
        raise InvalidAggregation("aggregationField is missing: of the registry's versions nothing is kept.")
    return aggregated(name)


def _percents(request: Members) -> list[float]:
    percents = request.get("percents")
    if percents is None or percents == []:
        return list(DEFAULT_PERCENTS)
    if not isinstance(percents, list) or len(percents) > MOST_PERCENTS:
        raise InvalidRequest(f"percents is a list of {MOST_PERCENTS} numbers at most.")
    if any(type(each) not in (int, float) or not 0 <= each <= 100 for each in percents):
        raise InvalidRequest("Each of percents is a number from 0 to 100.")
    return [float(each) for each in percents]


def _listed(request: Members) -> tuple[Callable[[Document], bool], dict[str, object]]:
    """Read what ListThings filters by: what tells whether a thing is wanted, and the members that say so."""
    name, value = _text(request, "attributeName"), _text(request, "attributeValue")
    type_name, is_prefix = _text(request, "thingTypeName"), _truth(request, "usePrefixAttributeValue")
    if (name is None) != (value is None):
        raise InvalidRequest("attributeName and attributeValue go together.")

    def wanted(one: Document) -> bool:
        if type_name is not None and one.type_name != type_name:
            return False
        if name is None or value is None:
            return True
        held = dict(one.attributes).get(name)
        return held is not None and (held.startswith(value) if is_prefix else held == value)

    return wanted, {"attribute": [name, value, is_prefix], "thingTypeName": type_name}


def _text(request: Members, member: str) -> str | None:
    value = request.get(member)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{member} is a text.")
    return value


def _whole(request: Members, member: str, least: int, most: int) -> int | None:
    """Read a whole number; of a query of a URL it comes as text."""
    value = request.get(member)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise InvalidRequest(f"{member} is a whole number from {least} to {most:,}.")
    return value


def _truth(request: Members, member: str) -> bool:
    value = request.get(member)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
        if value is None:
            raise InvalidRequest(f"{member} is true or false.")
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{member} is true or false.")
    return bool(value)
