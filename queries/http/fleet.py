"""The reads of a fleet as operations of the server: by which method and path AWS's service model has them."""

from __future__ import annotations

from queries.fleet_reads import FleetReads
from queries.http.operations import Operation

_PAGE = {"nextToken": str, "maxResults": str}
_LISTED = {
    **_PAGE,
    "attributeName": str,
    "attributeValue": str,
    "thingTypeName": str,
    "usePrefixAttributeValue": str,
}


def fleet_operations(reads: FleetReads) -> tuple[Operation, ...]:
    """Give the operations of one server; what is read of the fleet is remembered for all of them."""
    things, indices = ("things",), ("indices",)
    return (
        Operation("SearchIndex", "POST", (*indices, "search"), reads.search_index),
        Operation("ListThings", "GET", things, reads.list_things, members_in_query=_LISTED),
        Operation("DescribeThing", "GET", (*things, "{thingName}"), reads.describe_thing, is_quick=True),
        Operation("DescribeIndex", "GET", (*indices, "{indexName}"), reads.describe_index, is_quick=True),
        Operation("GetStatistics", "POST", (*indices, "statistics"), reads.get_statistics),
        Operation("GetCardinality", "POST", (*indices, "cardinality"), reads.get_cardinality),
        Operation("GetPercentiles", "POST", (*indices, "percentiles"), reads.get_percentiles),
        Operation("GetBucketsAggregation", "POST", (*indices, "buckets"), reads.get_buckets_aggregation),
    )
