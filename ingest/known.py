"""Texts that are known, found wherever they stand in other text.

Owns the search for many names at once, in time that does not grow with their number. It must never decide
what stands in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

_SHORT = 4  # shorter names are found as words only: a thing may be called "a"


class Known:
    """Finds the longest of `names` at every place of a text, from its left to its right."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names) - {""}
        lengths: dict[str, set[int]] = {}
        for name in self._names:
            lengths.setdefault(name[:_SHORT], set()).add(len(name))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self._sizes = sorted({len(start) for start in lengths}, reverse=True)

    def replaced(self, text: str, substitute: Callable[[str], str], *, words: bool = False) -> str:
        """Replace each name in `text`; with `words`, only where letters and digits do not run on around it."""
        if text in self._names:
            return substitute(text)
        starts, sizes = self._lengths, self._sizes
        places = [at for at in range(len(text)) for size in sizes if text[at : at + size] in starts]
        pieces: list[str] = []
        done = 0
        for at in places:
            if at >= done and (name := self._at(text, at, words)):
                pieces += (text[done:at], substitute(name))
                done = at + len(name)
        return "".join([*pieces, text[done:]]) if pieces else text

    def _at(self, text: str, at: int, words: bool) -> str | None:
        for size in self._sizes:
            for length in self._lengths.get(text[at : at + size], ()):
                name = text[at : at + length]
                if name not in self._names or len(name) < length:
                    continue
                if (length >= _SHORT and not words) or _is_word(text, at, length):
                    return name
        return None


def _is_word(text: str, at: int, length: int) -> bool:
    end = at + length
    starts = at == 0 or not (text[at].isalnum() and text[at - 1].isalnum())
    return starts and (end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum()))
