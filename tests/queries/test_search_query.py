"""The query language: AWS's documented examples by a table, and laws of the parser on random text and random trees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.documents import NAMING, STANDING, Document, everywhere, values_of
from queries.search_match import beginning, matching, partly
from queries.search_query import (
    MOST_CHARACTERS,
    PRESENT,
    WHITESPACE,
    And,
    Bound,
    Not,
    Or,
    Pattern,
    Phrase,
    Query,
    Range,
    Term,
    Wild,
    parse,
)
from store.errors import InvalidQuery

ANY, ONE = Wild.ANY, Wild.ONE


def found(query: str, *documents: Document) -> list[str]:
    matches = matching(parse(query))
    return [one.thing_name for one in documents if matches(one)]


def attributes(name: str, **values: str) -> Document:
    return Document(name, attributes=tuple(sorted(values.items())))


FLEET = (
    Document("my1", "id-1", "aa", ("a", "b"), (("model", "legacy"), ("my", "75")), True, 1_557_651_600_001),
    Document(
        "my2", None, None, ("ab",), (("attr1", "abc"), ("attr2", "4"), ("attr3", "10")), False, 5, "X_Y"
    ),
    Document(
        "aba", None, "AA", (), (("my", "80"), ("serial", "abce"), ("word", "input")), False, None, "UNKNOWN"
    ),
    Document("ab", None, None, (), (("my", "80.5"), ("serial", "ABCG"))),
    Document("Tv-plasma", "my-id", "abc", (), (("attr1", "abc"), ("attr2", "4"), ("attr3", "11"))),
    Document("tv-lcd", None, None, (), (("my", "-7.5e1"), ("text", "new york city"))),
)

# As AWS's developer guide has them (Example thing queries; Query syntax), its shadow replaced by an attribute.
EXAMPLES = [
    ("abc", "my2 Tv-plasma", "in any field of the registry"),
    ("thingName:my1", "my1", ""),
    ("thingName:MY1", "my1", "search is case insensitive"),
    ("thingName:my*", "my1 my2", ""),
    ("thingName:*a", "aba Tv-plasma", ""),
    ("thingName:*v-*", "Tv-plasma tv-lcd", ""),
    ("thingName:ab?", "aba", "one additional character"),
    ("thingName:(tv* AND -tv-plasma)", "tv-lcd", "the hyphen excludes; field grouping"),
    ("thingTypeName:aa", "my1 aba", ""),
    ("registry.thingTypeName:aa", "my1 aba", "as the managed fields are named"),
    ("thingGroupNames:a", "my1", "one of its groups"),
    ("thingGroupNames:a*", "my1 my2", ""),
    ("attributes.my:75", "my1", ""),
    ("attributes.My:75", "", "fields are case sensitive"),
    ("attributes.my:[75 TO 80]", "my1 aba", "a numeric range, inclusive"),
    ("attributes.my:{75 TO 80]", "aba", ""),
    ("attributes.my:[75 TO 80}", "my1", ""),
    ("attributes.my:[-100 TO 75]", "my1 tv-lcd", ""),
    ("attributes.my:[* TO 75]", "my1 tv-lcd", ""),
    ("attributes.my:-7.5e1", "tv-lcd", "after a colon the hyphen is a sign"),
    ('attributes.serial:["abcd" TO "abcf"]', "aba", "an alphanumeric string range"),
    ('attributes.serial:["abcd" TO *]', "aba ab", "text beyond a bound"),
    ("attributes.word:i*t", "aba", ""),
    ("attributes.attr1:abc AND attributes.attr2<5 NOT attributes.attr3>10", "my2", ""),
    ("attributes.attr3 >= 11", "Tv-plasma", ""),
    ("attributes.attr3<=10", "my2", ""),
    ("NOT attributes.model:legacy", "my2 aba ab Tv-plasma tv-lcd", ""),
    ("attributes.my:{70 TO 100} (aa OR ab) NOT attributes.model:legacy", "aba ab", ""),
    ("attributes.my:* NOT attributes.serial:*", "my1 tv-lcd", "a field is present, another is not"),
    ("connectivity.connected:true", "my1", ""),
    ("connectivity.connected:false", "my2 aba", ""),
    ("connectivity.connected:*", "my1 my2 aba", "connectivity information is present"),
    ("connectivity.connected:true AND connectivity.timestamp : [1557651600000 TO 1557867600000]", "my1", ""),
    ("connectivity.connected:true AND connectivity.timestamp > 1557651600000", "my1", ""),
    ("connectivity.connected:true AND connectivity.timestamp > 1557651600001", "", ""),
    ("connectivity.disconnectReason:x_y", "my2", ""),
    ("*", "my1 my2 aba ab Tv-plasma tv-lcd", "matches all things"),
    ("thingId:*", "my1 Tv-plasma", ""),
    ("thingName:my1 thingTypeName:aa", "my1", "the default operator is AND"),
    ("thingName:my1 OR thingName:my2 connectivity.connected:true", "my1", "AND binds closer than OR"),
    ("(thingName:my1 OR thingName:my2) connectivity.connected:false", "my2", ""),
    ("NOT NOT thingName:ab", "ab", ""),
    ("- thingName:a* -thingName:my*", "Tv-plasma tv-lcd", ""),
    ('attributes.text:"new york"', "tv-lcd", "words side by side"),
    ('attributes.text:"york new"', "", ""),
    ("attributes.text:york", "tv-lcd", "words are separated by white space"),
    ('attributes.text:"new *"', "", "in a phrase a wildcard is a character"),
    ("attributes.text:and", "", "only in capitals are operators operators"),
    (r"attributes.my:\75", "my1", "any character may be escaped"),
]


@pytest.mark.parametrize(("query", "names", "rule"), EXAMPLES, ids=[each[0] for each in EXAMPLES])
def test_a_documented_query_finds_what_aws_says(query: str, names: str, rule: str) -> None:
    assert found(query, *FLEET) == names.split(), rule
    assert parse(unparse(parse(query))) == parse(query)


def test_every_query_of_the_page_of_searches_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/search.md").read_text()
    table = page[page.index("| query | finds") : page.index("- Names of fields")]
    queries = [
        query for line in table.splitlines()[2:] for query in re.findall("`([^`]+)`", line.split(" | ")[0])
    ]
    assert len(queries) > 20
    for query in queries:
        parse(query)


def test_special_characters_are_taken_after_a_backslash_or_between_quotes() -> None:
    hostile = attributes("a:b", **{"p/q": 'x*y"z', "r": "a\\b", "s": "[1]"})
    assert found(r"thingName:a\:b", hostile) == ["a:b"]
    assert found(r"attributes.p\/q:x\*y\"z", hostile) == ["a:b"]
    assert found(r"attributes.p\/q:x\?y*", hostile) == []
    assert found('attributes.r:"a\\\\b"', hostile) == ["a:b"]
    assert found(r"attributes.s:\[1\]", hostile) == ["a:b"]


REFUSED = [
    ("", "the query is empty"),
    ("  ", "the query is empty"),
    ("thingName:", "a value is missing"),
    ("AND x", "a term is missing"),
    ("x OR", "a term is missing"),
    ("NOT", "a term is missing"),
    ("(x", ") is missing"),
    ("x)", ") is not expected"),
    ("()", "a term is missing"),
    ("a:b:c", "there is no field a"),
    ("thingName:a:b", ": is not expected"),
    ("thingname:x", "case matters"),
    ("attributes.:x", "there is no field attributes."),
    ("attributes.*:x", "no wildcards"),
    ("shadow.reported.battery:{70 TO 100}", "shadow.reported.battery is not supported"),
    ("shadow.name.config.hasDelta:true", "not supported"),
    ("shadow.reported.location:geo_distance,47.6204,-122.3491,15.5km", "not supported"),
    ("deviceDefender.violationCount>1", "not supported"),
    ("registry.version:3", "not supported"),
    ("attributes.a:[1 TO", "a bound of a range is missing"),
    ("attributes.a:[1 2]", "[LOW TO HIGH]"),
    ("attributes.a:[1 TO 2", "] or } is missing"),
    ("attributes.a:[1* TO 2]", "no wildcards"),
    ("attributes.a>b", "compares numbers"),
    ("attributes.a>", "compares numbers"),
    ("attributes.a=b", "= is no operator"),
    ('"open', '" is missing'),
    ("end\\", "stands before the end"),
    ("x~", "fuzzy"),
    ('"a b"~2', "proximity"),
    ("x^2", "boosting"),
    ("/re/", "special character"),
    ("a,b", "special character"),
    ("a && b", "no operator"),
    ("+a", "+ is no operator"),
    ("thingName:*my thingGroupNames:*echo", "in one term"),
    (f"thingName:*my OR {'x' * 100}", "100 characters"),
    (" ".join(["x"] * 13), "12 terms"),
    ("(" * 13 + "x" + ")" * 13, "12 deep"),
    ("x" * 1001, "1,001 characters"),
]


@pytest.mark.parametrize(("query", "why"), REFUSED, ids=[each[0][:40] for each in REFUSED])
def test_what_is_no_query_is_refused_with_the_reason(query: str, why: str) -> None:
    with pytest.raises(InvalidQuery, match=re.escape(why)):
        parse(query)


def test_the_limits_themselves_are_taken() -> None:
    parse(" ".join(["x"] * 12))
    parse("x" * 1000)
    parse("(" * 12 + "x" + ")" * 12)
    parse("thingName:*" + "m" * 89)
    assert parse("thingName:* shadow OR attributes.b:*")  # * alone is no leading wildcard
    assert parse("-" * 999 + "x") == Not(Term(None, ("x",)))


# --- Back to text -------------------------------------------------------------------------------------------

SPECIAL = frozenset('()[]{}:<>"*?\\=+-`@#%/;,^~!&|' + "'") | WHITESPACE


def unparse(query: Query) -> str:
    """Write a query that is read as the same tree."""
    match query:
        case And(parts):
            return " AND ".join(
                f"({unparse(part)})" if isinstance(part, Or) else unparse(part) for part in parts
            )
        case Or(parts):
            return " OR ".join(unparse(part) for part in parts)
        case Not(part):
            return f"NOT ({unparse(part)})" if isinstance(part, And | Or) else f"NOT {unparse(part)}"
        case Term(field, pattern):
            return prefix(field) + "".join(
                piece.value if isinstance(piece, Wild) else escaped(piece) for piece in pattern
            )
        case Phrase(field, words):
            return f"{prefix(field)}{quote(' '.join(words))}"
        case Range(field, low, high, low_included, high_included):
            opening, closing = "[" if low_included else "{", "]" if high_included else "}"
            return f"{prefix(field)}{opening}{bound_text(low)} TO {bound_text(high)}{closing}"


def prefix(field: str | None) -> str:
    return "" if field is None else f"{escaped(field)}:"


def escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in SPECIAL else char for char in text)


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bound_text(bound: Bound) -> str:
    if bound is None:
        return "*"
    return quote(bound) if isinstance(bound, str) else repr(bound)


# --- Laws ---

ODD = "abAZ019 \t\u00a0\u2003ßΣ.:<>=()[]{}\"\\*?-+!&|~^/`@#%';,_$\ud800\0é"
NASTY = st.text(st.sampled_from(ODD) | st.characters(), max_size=60)
PIECES = st.sampled_from(
    [
        "AND",
        "OR",
        "NOT",
        "TO",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "thingName:",
        "attributes.a",
        ":",
        ">",
        "<=",
        "-",
        '"',
        "*",
        "?",
        "\\",
        "5",
        "-1.5e+3",
        "x",
        "connectivity.connected:true",
    ]
)


@given(NASTY | st.lists(PIECES, max_size=30).map("".join) | st.lists(PIECES, max_size=30).map(" ".join))
def test_any_text_is_a_query_or_is_refused_and_a_query_is_read_again_as_itself(text: str) -> None:
    try:
        query = parse(text)
    except InvalidQuery:
        return
    written = unparse(query)
    if len(written) <= MOST_CHARACTERS:  # escapes make it longer
        assert parse(written) == query


# --- Trees, and a slow and obvious reading of them ----------------------------------------------------------

FIELDS = st.none() | st.sampled_from(
    [
        "thingName",
        "thingTypeName",
        "thingGroupNames",
        "attributes.a",
        "attributes.B/c",
        "connectivity.connected",
        "connectivity.timestamp",
        "connectivity.disconnectReason",
    ]
)
TEXTS = st.text(st.sampled_from("ab1-:*? \\"), min_size=1, max_size=4)
NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, 1e22, -2.5, 1 << 70])


WILD: st.SearchStrategy[str | Wild] = st.sampled_from([ANY, ONE, "a", "1"])


def pattern_of(pieces: tuple[str, list[str | Wild]]) -> Pattern:
    told: list[str | Wild] = [pieces[0]]
    for piece in pieces[1]:
        last = told[-1]
        if isinstance(piece, str) and isinstance(last, str):
            told[-1] = last + piece
        elif piece is not ANY or last is not ANY:
            told.append(piece)
    return tuple(told)


def range_of(field: str | None, bounds: tuple[object, object], included: tuple[bool, bool]) -> Query:
    low, high = bounds
    return Range(field, low, high, included[0] or low is None, included[1] or high is None)  # type: ignore[arg-type]


LEAVES: st.SearchStrategy[Query] = st.one_of(
    st.builds(Term, FIELDS, st.just(PRESENT) | st.tuples(TEXTS, st.lists(WILD, max_size=3)).map(pattern_of)),
    st.builds(Phrase, FIELDS, st.lists(st.sampled_from(["a", "b1", "*"]), max_size=2).map(tuple)),
    st.builds(
        range_of,
        FIELDS,
        st.tuples(NUMBERS | st.none(), NUMBERS) | st.tuples(TEXTS, TEXTS | st.none()),
        st.tuples(st.booleans(), st.booleans()),
    ),
)


def joined(kind: type[And] | type[Or], parts: list[Query]) -> Query:
    flat = [each for part in parts for each in (part.parts if isinstance(part, kind) else (part,))]
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def negated(part: Query) -> Query:
    return part.part if isinstance(part, Not) else Not(part)


TREES = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.lists(below, min_size=2, max_size=3).map(lambda parts: joined(And, parts)),
        st.lists(below, min_size=2, max_size=3).map(lambda parts: joined(Or, parts)),
        below.map(negated),
    ),
    max_leaves=8,
)
VALUES = st.text(st.sampled_from("abAB1-:*? ."), max_size=4)
NAMES = st.text(st.sampled_from("abAB1-:"), min_size=1, max_size=3)
DOCUMENTS = st.builds(
    Document,
    NAMES,
    st.none() | NAMES,
    st.none() | NAMES,
    st.lists(NAMES, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(["a", "B/c", "c"]), VALUES | st.integers(-3, 3).map(str)).map(
        lambda told: tuple(sorted(told.items()))
    ),
    st.none() | st.booleans(),
    st.none() | st.integers(-3, 3),
    st.none() | NAMES,
)


def obviously(query: Query, one: Document) -> bool:
    if isinstance(query, And):
        return all(obviously(part, one) for part in query.parts)
    if isinstance(query, Or):
        return any(obviously(part, one) for part in query.parts)
    if isinstance(query, Not):
        return not obviously(query.part, one)
    values = everywhere(one) if query.field is None else values_of(query.field)(one)
    words = [value.lower().split() for value in values]
    if isinstance(query, Phrase):
        wanted = f" {' '.join(query.words)} "
        return any(wanted in f" {' '.join(found)} " if query.words else not found for found in words)
    if isinstance(query, Range):
        return any(inside(query, word) for found in words for word in found)
    if query.pattern == PRESENT:
        return bool(values)
    shape = "".join(
        re.escape(piece) if isinstance(piece, str) else ".*" if piece is ANY else "."
        for piece in query.pattern
    )
    return any(re.fullmatch(shape, word) for found in words for word in found)


def inside(query: Range, word: str) -> bool:
    value: object = word
    if not isinstance(query.low, str) and not isinstance(query.high, str):
        if not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", word):
            return False
        value = float(word)
    low, high = query.low, query.high
    return (low is None or low < value or (query.low_included and low == value)) and (  # type: ignore[operator]
        high is None or value < high or (query.high_included and high == value)  # type: ignore[operator]
    )


@given(TREES)
def test_a_tree_that_is_written_is_read_as_itself(query: Query) -> None:
    assert parse(unparse(query)) == query


def standing(one: Document) -> Document:
    """Leave out what the registry tells."""
    return Document(one.thing_name, connected=one.connected, timestamp_ms=one.timestamp_ms, reason=one.reason)


@given(TREES, DOCUMENTS)
def test_a_query_matches_what_a_slow_and_obvious_reading_says(query: Query, one: Document) -> None:
    expected = obviously(query, one)
    assert matching(query)(one) is expected
    assert partly(query, NAMING)(Document(one.thing_name)) in (None, expected)
    assert partly(query, STANDING)(standing(one)) in (None, expected)
    begins = beginning(query)
    if expected and begins is not None:
        name = one.thing_name.casefold()
        assert name == begins.text if begins.is_whole else name.startswith(begins.text)
