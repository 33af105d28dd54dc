"""What is counted over a field, by AWS's documented examples and what they leave open."""

from __future__ import annotations

import math
from typing import Any

import pytest

from queries.aggregates import aggregated, buckets, cardinality, percentiles, statistics
from queries.documents import Document
from store.errors import InvalidAggregation


def holding(*values: str) -> list[Document]:
    """Make a thing of each value of the attribute `a`."""
    return [Document(f"t{number}", attributes=(("a", value),)) for number, value in enumerate(values)]


WITHOUT = Document("without")


def test_statistics_of_a_number_are_those_of_the_documented_example() -> None:
    told = statistics([*holding("-125", "75", "150"), WITHOUT], "attributes.a")
    assert told == {
        "count": 3,
        "average": pytest.approx(33.333333333333336),
        "sum": 100.0,
        "minimum": -125.0,
        "maximum": 150.0,
        "sumOfSquares": 43750.0,
        "variance": pytest.approx(13472.22222222222),
        "stdDeviation": pytest.approx(116.06990230986766),
    }


def test_statistics_of_a_text_count_the_things_that_hold_one() -> None:
    assert statistics([*holding("x", "5", "y"), WITHOUT], "attributes.a") == {"count": 3}
    assert statistics([Document("t", groups=("a", "b")), WITHOUT], "thingGroupNames") == {"count": 1}
    assert statistics(holding("x", "y"), None) == {"count": 2}
    assert statistics([WITHOUT], "attributes.a") == {"count": 0}


def test_statistics_of_truth_count_true_as_one() -> None:
    told = statistics(
        [Document(str(value), connected=value) for value in (True, False, None, True)],
        "connectivity.connected",
    )
    assert (told["count"], told["sum"], told["minimum"], told["maximum"]) == (3, 2.0, 0.0, 1.0)
    assert told["average"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("values", [("1e308", "1e308"), ("1e200", "2"), ("-1e308", "1e308")])
def test_beyond_a_double_only_the_count_is_given(values: tuple[str, ...]) -> None:
    assert statistics(holding(*values), "attributes.a") == {"count": 2}
    assert all(math.isfinite(one["value"]) for one in percentiles(holding(*values), "attributes.a"))


@pytest.mark.parametrize(
    ("values", "percents", "expected"),
    [
        ("70 71 72 73 74 75 47 97 98 99", (10, 25, 50, 75, 90), (67.7, 71.25, 73.5, 91.5, 98.1)),
        ("1 1 1 2 2 2 3 3 3", (10, 20, 30, 40, 70, 99), (1, 1, 1.4, 2, 2.5999999999999996, 3)),
        ("5 none", (0, 50, 100), (5, 5, 5)),
        ("", (50,), ()),
    ],
)
def test_percentiles_are_those_of_the_documented_examples(
    values: str, percents: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    told = percentiles([*holding(*values.split()), WITHOUT], "attributes.a", percents)
    assert [one["value"] for one in told] == pytest.approx(list(expected))
    assert [one["percent"] for one in told] == list(percents)[: len(expected)]


@pytest.mark.parametrize("field", ["thingName", "connectivity.connected", "thingGroupNames", "attributes.a"])
def test_what_is_no_number_has_no_percentiles(field: str) -> None:
    with pytest.raises(InvalidAggregation, match="no number"):
        percentiles(holding("x", "y"), field)


def test_buckets_come_by_count_and_then_by_value() -> None:
    things = [*holding("90", "100", "75", "100", "90", "80"), WITHOUT]
    told: dict[str, Any] = buckets(things, "attributes.a", 3)
    assert told["totalCount"] == 7
    assert [tuple(one.values()) for one in told["buckets"]] == [("100", 2), ("90", 2), ("75", 1)]
    assert cardinality(things, "attributes.a") == 4


@pytest.mark.parametrize("field", ["shadow.reported.battery", "registry.version", "nonsense", "attributes."])
def test_a_field_that_is_not_kept_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(InvalidAggregation, match=field):
        aggregated(field)
