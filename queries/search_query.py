"""The query language of AWS's fleet index, read as a tree. Pure; nothing that a user wrote becomes a pattern of `re`.

    query   = any                          any   = all ("OR" all)*
    all     = one (["AND"] one)*           one   = ("NOT" | "-")* plain
    plain   = "(" any ")"  |  [FIELD ":"] value  |  FIELD (">" | ">=" | "<" | "<=") NUMBER
    value   = WORD  |  PHRASE  |  range  |  "(" any ")"
    range   = ("[" | "{") bound "TO" bound ("]" | "}")          bound = WORD | PHRASE | "*"

What AWS says of it (developer guide: Query syntax; Example thing queries): terms side by side mean AND; `*` stands for
any characters, `?` for one; fields are case sensitive and values are not; a bare bound is a number, a quoted one text;
`\\` takes a special character for itself. AWS does not say which of AND and OR binds closer: here AND does.

Limits: 1,000 characters, 12 terms, one term that begins with a wildcard (and 100 characters then), and as AWS names no
depth, ours: parentheses 12 deep, which is a term for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from queries.documents import UnknownField, field_named, number
from store.errors import InvalidQuery

MOST_CHARACTERS = 1_000
MOST_CHARACTERS_LEADING = 100  # of a query with a leading wildcard
MOST_TERMS = 12
MOST_DEPTH = 12

# Java's Character.isWhitespace, which AWS names: the separators but those that do not break, and some controls.
WHITESPACE = frozenset(
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u205f\u3000"
)


class Wild(Enum):
    """A wildcard in a pattern."""

    ANY = "*"
    ONE = "?"


Pattern = tuple[str | Wild, ...]  # texts with their case folded, none beside another; no ANY beside another
Bound = int | float | str | None  # text with its case folded; None: no end


@dataclass(frozen=True, slots=True)
class Term:
    """Some word of a field is like a pattern. `field` None: of any field of the registry."""

    field: str | None
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Phrase:
    """These words, their case folded, stand side by side in a field."""

    field: str | None
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Some word of a field lies between two bounds, at least one given: both numbers, or both texts."""

    field: str | None
    low: Bound
    high: Bound
    low_included: bool
    high_included: bool


@dataclass(frozen=True, slots=True)
class Not:
    """All but what a part matches."""

    part: Query


@dataclass(frozen=True, slots=True)
class And:
    """What every part matches; two parts at least, none an And."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What some part matches; two parts at least, none an Or."""

    parts: tuple[Query, ...]


Query = Term | Phrase | Range | Not | And | Or

PRESENT: Pattern = (Wild.ANY,)

_ENDS = WHITESPACE | frozenset('()[]{}:<>"')  # of a word
_KEYWORDS = ("AND", "OR", "NOT")
_COMPARISONS = (">=", "<=", ">", "<")
_UNSUPPORTED = {
    **dict.fromkeys("`@#%/';,", "is a special character that is not supported; put \\ before it"),
    "^": "asks for boosting, which is not supported",
    "~": "asks for a fuzzy or proximity search, which is not supported",
    **dict.fromkeys("!&|", "is no operator; use AND, OR, NOT, or put \\ before it"),
}


def parse(text: str) -> Query:
    """Read a query. Raises InvalidQuery that says where and why; never anything else, in time linear in its length."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidQuery(f"The query has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken.")
    parser = _Parser(text)
    query = parser.whole()
    if parser.leading > 1:
        raise InvalidQuery("A leading wildcard (* or ?) is taken in one term of a query only.")
    if parser.leading and len(text) > MOST_CHARACTERS_LEADING:
        raise InvalidQuery(
            f"A query with a leading wildcard has at most {MOST_CHARACTERS_LEADING} characters; this has {len(text)}."
        )
    return query


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._terms = 0
        self.leading = 0  # terms that begin with a wildcard

    # --- Grammar ---

    def whole(self) -> Query:
        self._skip()
        if self._at == len(self._text):
            raise self._wrong("the query is empty; * matches all things")
        query = self._any(None)
        if self._at < len(self._text):
            raise self._wrong(f"{self._text[self._at]} is not expected here")
        return query

    def _any(self, field: str | None) -> Query:
        parts = [self._all(field)]
        while self._keyword("OR"):
            parts.append(self._all(field))
        return _joined(Or, parts)

    def _all(self, field: str | None) -> Query:
        parts = [self._one(field)]
        while True:
            if not self._keyword("AND") and (self._peek() in ("", ")") or self._is_keyword("OR")):
                return _joined(And, parts)
            parts.append(self._one(field))

    def _one(self, field: str | None) -> Query:
        negated = False
        while self._keyword("NOT") or self._take("-"):
            negated = not negated
        part = self._plain(field)
        if not negated:
            return part
        return part.part if isinstance(part, Not) else Not(part)

    def _plain(self, field: str | None) -> Query:
        first = self._peek()
        if first in ("", ")") or self._is_keyword("AND") or self._is_keyword("OR"):
            raise self._wrong("a term is missing here")
        if first in '([{"':
            return self._value(field)
        began = self._at
        pattern, raw = self._word()
        self._skip()
        comparison = next((each for each in _COMPARISONS if self._text.startswith(each, self._at)), None)
        if comparison is None and self._peek() != ":":
            if "=" in raw.replace("\\=", ""):
                raise self._wrong("= is no operator: write FIELD:VALUE, or put \\ before it", began)
            return self._term(field, pattern)
        named = self._field(pattern, raw, began)
        self._at += len(comparison or ":")
        if comparison is None:
            return self._value(named)
        return self._compared(named, comparison)

    def _field(self, pattern: Pattern, raw: str, began: int) -> str:
        if any(isinstance(piece, Wild) for piece in pattern):
            raise self._wrong("the name of a field has no wildcards", began)
        try:
            return field_named(_unescaped(raw))
        except UnknownField as error:
            raise self._wrong(str(error), began) from None

    def _compared(self, field: str, comparison: str) -> Query:
        self._skip()
        began = self._at
        word = "" if self._peek() in _ENDS or not self._peek() else self._word()[1]
        value = number(word)
        if value is None:
            raise self._wrong(f'{comparison} compares numbers; for text write {field}:["a" TO *]', began)
        self._count()
        included = comparison.endswith("=")
        if comparison.startswith(">"):
            return Range(field, value, None, included, True)
        return Range(field, None, value, True, included)

    def _value(self, field: str | None) -> Query:
        match self._peek():
            case "(":
                return self._group(field)
            case "[" | "{":
                return self._range(field)
            case '"':
                self._count()
                return Phrase(field, tuple(words_of(self._quoted())))
            case "" | ")" | "]" | "}" | ":" | "<" | ">":
                raise self._wrong("a value is missing here")
        return self._term(field, self._word()[0])

    def _group(self, field: str | None) -> Query:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._wrong(f"parentheses go {MOST_DEPTH} deep at most")
        self._at += 1
        query = self._any(field)
        if not self._take(")"):
            raise self._wrong(") is missing")
        self._depth -= 1
        return query

    def _range(self, field: str | None) -> Query:
        self._count()
        low_included = self._text[self._at] == "["
        self._at += 1
        low = self._bound()
        if not self._keyword("TO"):
            raise self._wrong("a range is written [LOW TO HIGH]")
        high = self._bound()
        end = self._peek()
        if end not in ("]", "}") or not end:
            raise self._wrong("] or } is missing after a range")
        self._at += 1
        return _range(field, low, high, low_included, end == "]")

    def _bound(self) -> str | tuple[str, int | float] | None:
        """Read a bound: a text, a number with the text that it was written as, or None for `*`."""
        first = self._peek()
        if first == '"':
            return self._quoted()
        if not first or first in _ENDS:
            raise self._wrong("a bound of a range is missing")
        began = self._at
        pattern, raw = self._word()
        if pattern == PRESENT:
            return None
        if len(pattern) != 1 or not isinstance(pattern[0], str):
            raise self._wrong("a bound of a range has no wildcards; * alone means no bound", began)
        value = number(raw)
        return pattern[0] if value is None else (pattern[0], value)

    def _term(self, field: str | None, pattern: Pattern) -> Query:
        self._count()
        if isinstance(pattern[0], Wild) and pattern != PRESENT:
            self.leading += 1
        return Term(field, pattern)

    def _count(self) -> None:
        self._terms += 1
        if self._terms > MOST_TERMS:
            raise self._wrong(f"a query has {MOST_TERMS} terms at most")

    # --- Words ---

    def _word(self) -> tuple[Pattern, str]:
        """Read a word: as a pattern, and as it was written. There is one here."""
        text, began = self._text, self._at
        pieces: list[str | Wild] = []
        if text[began] == "+":
            raise self._wrong("+ is no operator here; put \\ before it")
        while self._at < len(text) and text[self._at] not in _ENDS:
            char = text[self._at]
            if char in _UNSUPPORTED:
                raise self._wrong(f"{char} {_UNSUPPORTED[char]}")
            if char == "\\":
                self._at += 1
                if self._at == len(text):
                    raise self._wrong("\\ stands before the end; it takes the character after it for itself")
                char = text[self._at]
            elif char in "*?":
                if Wild(char) is Wild.ONE or pieces[-1:] != [Wild.ANY]:
                    pieces.append(Wild(char))
                self._at += 1
                continue
            self._at += 1
            if pieces and isinstance(pieces[-1], str):
                pieces[-1] += char.casefold()
            else:
                pieces.append(char.casefold())
        if self._at == began:
            raise self._wrong(f"{text[began]} is not expected here")
        return tuple(pieces), text[began : self._at]

    def _quoted(self) -> str:
        began = self._at
        self._at += 1
        chars: list[str] = []
        while True:
            if self._at >= len(self._text):
                raise self._wrong('" is missing after a phrase', began)
            char = self._text[self._at]
            self._at += 1
            if char == '"':
                break
            if char == "\\" and self._at < len(self._text):
                char = self._text[self._at]
                self._at += 1
            chars.append(char)
        if self._at < len(self._text) and self._text[self._at] == "~":
            raise self._wrong(f"~ {_UNSUPPORTED['~']}")
        return "".join(chars).casefold()

    # --- Characters ---

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in WHITESPACE:
            self._at += 1

    def _peek(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _take(self, char: str) -> bool:
        taken = self._peek() == char
        self._at += taken
        return taken

    def _is_keyword(self, word: str) -> bool:
        self._skip()
        end = self._at + len(word)
        return self._text.startswith(word, self._at) and (
            end == len(self._text) or self._text[end] in WHITESPACE or self._text[end] in '()[]{}"'
        )

    def _keyword(self, word: str) -> bool:
        found = self._is_keyword(word)
        self._at += len(word) * found
        return found

    def _wrong(self, why: str, at: int | None = None) -> InvalidQuery:
        return InvalidQuery(f"At character {(self._at if at is None else at) + 1} of the query: {why}.")


def _joined(kind: type[And] | type[Or], parts: Sequence[Query]) -> Query:
    flat: list[Query] = []
    for part in parts:
        flat += part.parts if isinstance(part, And | Or) and isinstance(part, kind) else [part]
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _range(
    field: str | None,
    low: str | tuple[str, int | float] | None,
    high: str | tuple[str, int | float] | None,
    low_included: bool,
    high_included: bool,
) -> Query:
    if low is None and high is None:
        return Term(field, PRESENT)
    is_text = isinstance(low, str) or isinstance(high, str)
    bounds = [each[0 if is_text else 1] if isinstance(each, tuple) else each for each in (low, high)]
    return Range(field, bounds[0], bounds[1], low_included or low is None, high_included or high is None)


def _unescaped(raw: str) -> str:
    chars = iter(raw)
    return "".join(next(chars, "") if char == "\\" else char for char in chars)


def words_of(text: str) -> list[str]:
    """Cut a text into words, as AWS does."""
    if not WHITESPACE.isdisjoint(text):
        for char in WHITESPACE:
            text = text.replace(char, " ")
    return [word for word in text.split(" ") if word]
