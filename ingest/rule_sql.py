"""What a topic rule of AWS IoT lets through, read from its SQL. Pure.

Only so much of the language is read as says which events a rule delivers and which of their members: the list, the
filter, whether there is a condition. What is not of that form is given as None, and a person has to look at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SELECT = re.compile(
    r"\s*SELECT\s+(?P<list>.+?)\s+FROM\s+(?P<quote>['\"])(?P<filter>[^'\"]+)(?P=quote)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_AS = re.compile(r"(?P<said>.+?)\s+AS\s+(?P<name>\w+)", re.IGNORECASE | re.DOTALL)
_WHERE = re.compile(r"(?:\s+AS\s+\w+)?(?P<where>\s+WHERE\s.+)?\s*", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """What a rule reads and lets through."""

    topic_filter: str
    is_whole: bool  # every member gets through
    kept: frozenset[str]  # members that get through as they are, where not all do
    made: frozenset[str]  # members whose content the rule makes up
    has_condition: bool

    def lets_through(self, *names: str) -> bool:
        """Tell whether something comes under one of these names, be it made up."""
        return self.is_whole or not self.kept.isdisjoint(names) or not self.made.isdisjoint(names)


def read_sql(sql: str) -> Select | None:
    """Read a rule's SQL; None: it is not understood."""
    found = _SELECT.fullmatch(sql)
    rest = None if found is None else _WHERE.fullmatch(found["rest"])
    if found is None or rest is None:
        return None
    kept: set[str] = set()
    made: set[str] = set()
    is_whole = False
    for item in _items(found["list"]):
        if item == "*":
            is_whole = True
        elif (renamed := _AS.fullmatch(item)) is not None:
            (kept if renamed["said"] == renamed["name"] else made).add(renamed["name"])
        elif _NAME.fullmatch(item):
            kept.add(item)
        # else a call or a path, under a name that no event has
    return Select(
        topic_filter=found["filter"],
        is_whole=is_whole,
        kept=frozenset(kept),
        made=frozenset(made),
        has_condition=rest["where"] is not None,
    )


def _items(text: str) -> Iterator[str]:
    """Split a list at the commas that stand in no bracket and no quotes."""
    depth, quote, begin = 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()


def hears(topic_filter: str, topic: str) -> bool:
    """Tell whether a filter takes a topic: `+` stands for one level, `#` at the end for all that follow.

    A wildcard as the first level takes no topic that begins with $.
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(
        one in ("+", level) for one, level in zip(wanted, levels, strict=True)
    )
