"""What is read for many keys at once is what asking for each of them gives."""

from __future__ import annotations

import pytest

from store.ahead import for_many
from store.seeks import prepared
from tests.store.test_plans import KEYS


@pytest.mark.parametrize("name", KEYS)
def test_the_keys_have_a_name_that_no_statement_uses(name: str) -> None:
    assert "wanted" not in prepared("postgresql")[name]


def test_a_statement_for_many_keys_takes_them_as_arrays_of_their_type() -> None:
    keys = [{"name": "a", "small": 1, "large": 1 << 40}, {"name": "b", "small": 2, "large": 0}]
    statement = "SELECT 1 WHERE %(name)s = 'a' AND %(small)s = %(large)s AND %(other)s = 1"
    many, told = for_many(statement, keys)
    assert many == (
        "SELECT wanted.*, s.* FROM unnest(%(all_name)s::text[], %(all_small)s::integer[], %(all_large)s::bigint[])"
        " AS wanted(name, small, large) CROSS JOIN LATERAL"
        " (SELECT 1 WHERE wanted.name = 'a' AND wanted.small = wanted.large AND %(other)s = 1) s"
    )
    assert told == {"all_name": ["a", "b"], "all_small": [1, 2], "all_large": [1 << 40, 0]}
