"""Which documents a query matches, and which it may match while only a part of them is known. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from queries.documents import Document, Values, everywhere, indexed_number, values_of
from queries.search_query import (
    PRESENT,
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
    words_of,
)

Matches = Callable[[Document], bool]
Partly = Callable[[Document], bool | None]


def matching(query: Query) -> Matches:
    """Give what tells whether a query matches a document."""
    match query:
        case And(parts):
            every = [matching(part) for part in parts]
            return lambda one: all(matches(one) for matches in every)
        case Or(parts):
            some = [matching(part) for part in parts]
            return lambda one: any(matches(one) for matches in some)
        case Not(part):
            no = matching(part)
            return lambda one: not no(one)
        case Term(field, pattern) if pattern == PRESENT:
            held = _values(field)
            return lambda one: bool(held(one))
        case Term(field, pattern):
            return _some_word(_values(field), like(pattern))
        case Phrase(field, words):
            return _some_run(_values(field), words)
        case Range():
            return _some_word(_values(query.field), _within(query))


def partly(query: Query, known: Container[str]) -> Partly:
    """Give what tells of a document, of which only the fields of `known` were read, whether the query matches it.

    None: that depends on the others. Its name is always among those that were read.
    """
    match query:
        case And(parts):
            every = [partly(part, known) for part in parts]
            return lambda one: _all_of(told(one) for told in every)
        case Or(parts):
            some = [partly(part, known) for part in parts]
            return lambda one: _not(_all_of(_not(told(one)) for told in some))
        case Not(part):
            no = partly(part, known)
            return lambda one: _not(no(one))
        case Term(None, pattern) if pattern == PRESENT:
            return lambda one: True
        case Term(str() as field) | Phrase(str() as field) | Range(str() as field) if field in known:
            return matching(query)
    return lambda one: None


class Beginning(NamedTuple):
    """How a name begins, its case folded; `is_whole`: and nothing follows."""

    text: str
    is_whole: bool


def beginning(query: Query) -> Beginning | None:
    """Give how the name of every thing begins that the query matches; None: in no one way."""
    match query:
        case Term("thingName", (str() as text, *rest)):
            return Beginning(text, not rest)
        case Phrase("thingName", (word,)):
            return Beginning(word, True)
        case And(parts):
            found = [each for part in parts if (each := beginning(part)) is not None]
            return max(found, key=lambda each: (each.is_whole, len(each.text)), default=None)
    return None


def like(pattern: Pattern) -> Callable[[str], bool]:
    """Give what tells whether a word, its case folded, is like a pattern; costs one length times the other at most."""
    match pattern:
        case (str() as text,):
            return lambda word: word == text
        case (str() as text, Wild.ANY):
            return lambda word: word.startswith(text)
        case (Wild.ANY, str() as text):
            return lambda word: word.endswith(text)
        case (Wild.ANY, str() as text, Wild.ANY):
            return lambda word: text in word
    return lambda word: _is_like(word, pattern)


def _is_like(word: str, pattern: Pattern) -> bool:
    """Match one after the other, and let the last `*` take in one more character where that fails."""
    steps: list[str | Wild] = []
    for piece in pattern:
        steps += [piece] if isinstance(piece, Wild) else list(piece)
    at = step = 0
    resume: tuple[int, int] | None = None
    while at < len(word):
        if step < len(steps) and steps[step] is Wild.ANY:
            step += 1
            resume = at, step
        elif step < len(steps) and (steps[step] is Wild.ONE or steps[step] == word[at]):
            at, step = at + 1, step + 1
        elif resume is not None:
            at, step = resume[0] + 1, resume[1]
            resume = at, step
        else:
            return False
    return all(each is Wild.ANY for each in steps[step:])


def _within(wanted: Range) -> Callable[[str], bool]:
    low, high = wanted.low, wanted.high
    low_included, high_included = wanted.low_included, wanted.high_included
    is_text = isinstance(low, str) or isinstance(high, str)

    def within(word: str) -> bool:
        value: Bound = word if is_text else indexed_number(word)
        if value is None:
            return False
        if low is not None and not (_less(low, value) or (low_included and low == value)):
            return False
        return high is None or _less(value, high) or (high_included and high == value)

    return within


def _less(one: Bound, other: Bound) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one < other
    return one is not None and other is not None and one < other


def _values(field: str | None) -> Values:
    return everywhere if field is None else values_of(field)


def _some_word(held: Values, is_wanted: Callable[[str], bool]) -> Matches:
    return lambda one: any(is_wanted(word) for value in held(one) for word in words_of(value.casefold()))


def _some_run(held: Values, words: tuple[str, ...]) -> Matches:
    wanted, count = list(words), len(words)

    def matches(one: Document) -> bool:
        for value in held(one):
            found = words_of(value.casefold())
            if count == 0 and not found:
                return True
            if count and any(found[at : at + count] == wanted for at in range(len(found) - count + 1)):
                return True
        return False

    return matches


def _not(told: bool | None) -> bool | None:
    return None if told is None else not told


def _all_of(told: Iterable[bool | None]) -> bool | None:
    """Tell whether all hold: False where one does not, None where that is open."""
    answer: bool | None = True
    for each in told:
        if each is False:
            return False
        if each is None:
            answer = None
    return answer
