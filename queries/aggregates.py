"""What AWS's index counts over a field: statistics, distinct values, percentiles, buckets. Pure, and never estimated.

AWS is told the type of each attribute that it aggregates; here the values tell: an attribute is a number where all its
values are. A sum of doubles is rounded once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from queries.documents import ATTRIBUTE, Document, UnknownField, field_named, indexed_number, values_of
from store.errors import InvalidAggregation

DEFAULT_PERCENTS = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
_TRUTH = {"true": 1, "false": 0}
Number = int | float


def aggregated(name: str) -> str:
    """Give the one name of a field that is to be aggregated. Raises InvalidAggregation."""
    try:
        return field_named(name)
    except UnknownField as error:
        raise InvalidAggregation(f"The field cannot be aggregated: {error}.") from None


def statistics(documents: Iterable[Document], field: str | None) -> dict[str, Any]:
    """Count and measure a field; of texts only how many things hold one. None: how many things there are.

    Truth counts as 1 and 0. Where a figure is beyond a double, only the count is given, as AWS does.
    """
    if field is None:
        return {"count": sum(1 for _ in documents)}
    told = values_of(field)
    held = [values for one in documents if (values := told(one))]
    numbers: Sequence[Number] = ()
    if field == "connectivity.connected":
        numbers = [_TRUTH[value] for (value,) in held]
    elif _may_be_number(field):
        numbers = _all_numbers(held)
    return {"count": len(held), **_measured(numbers)} if numbers else {"count": len(held)}


def _measured(values: Sequence[Number]) -> dict[str, float]:
    try:
        total = math.fsum(values)
        average = total / len(values)
        squares = math.fsum(value * value for value in values)
        variance = math.fsum((value - average) ** 2 for value in values) / len(values)
    except OverflowError:
        return {}
    told = {
        "average": average,
        "sum": total,
        "minimum": float(min(values)),
        "maximum": float(max(values)),
        "sumOfSquares": squares,
        "variance": variance,
        "stdDeviation": math.sqrt(variance),
    }
    return told if all(math.isfinite(value) for value in told.values()) else {}


def cardinality(documents: Iterable[Document], field: str) -> int:
    """Count the distinct values of a field."""
    held = values_of(field)
    return len({value for one in documents for value in held(one)})


def percentiles(
    documents: Iterable[Document], field: str, percents: Sequence[float] = DEFAULT_PERCENTS
) -> list[dict[str, float]]:
    """Give the values below which so many percent of a number lie, between two by the line between them.

    As AWS's examples have it. Values that are no numbers are left out. Raises InvalidAggregation where none is.
    """
    told = [value for one in documents for value in values_of(field)(one)]
    numbers = [value for each in told if (value := indexed_number(each)) is not None]
    if not _may_be_number(field) or (told and not numbers):
        raise InvalidAggregation(f"{field} is no number; only numbers have percentiles.")
    numbers.sort()
    return [
        {"percent": float(percent), "value": _quantile(numbers, percent)} for percent in percents if numbers
    ]


def _quantile(ascending: Sequence[Number], percent: float) -> float:
    place = (len(ascending) - 1) * percent / 100
    below = math.floor(place)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    value = low + (high - low) * (place - below)
    return float(value if math.isfinite(value) else low / 2 + high / 2)  # too far apart for a double


def buckets(documents: Iterable[Document], field: str, most: int) -> dict[str, Any]:
    """Count things by the values of a field, most first and equals by value; `totalCount` is of all that match."""
    held = values_of(field)
    counted: Counter[str] = Counter()
    total = 0
    for one in documents:
        total += 1
        counted.update(set(held(one)))
    ranked = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    return {
        "totalCount": total,
        "buckets": [{"keyValue": value, "count": count} for value, count in ranked[:most]],
    }


def _may_be_number(field: str) -> bool:
    return field == "connectivity.timestamp" or field.startswith(ATTRIBUTE)


def _all_numbers(held: Sequence[tuple[str, ...]]) -> Sequence[Number]:
    """Read all values as numbers; nothing where one of them is none."""
    numbers = [indexed_number(value) for values in held for value in values]
    told = [value for value in numbers if value is not None]
    return told if len(told) == len(numbers) else ()
