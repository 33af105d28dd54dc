"""The documents of a fleet as of any instant, as known at any: read as far as a query needs them, and remembered.

What was known at a moment never changes, so that the pages of one query, and the queries about one incident, read each
thing once. How a thing is read is for queries/sketches.py. Memory: MOST_REMEMBERED things, of MOST_INSTANTS instants,
and the names of the fleet as known at MOST_MOMENTS moments. Threads may share it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from queries.documents import NAMING, STANDING, Document
from queries.history import Reading
from queries.search_match import Beginning, Partly, beginning, matching, partly
from queries.search_query import Query
from queries.sketches import Depth, Sketch, Told, deepened, sketched
from queries.standing import check_begun, names_of
from store.answer import Asker, check_past, is_legal
from store.care import NO_CARE
from store.errors import ResourceNotFound

MOST_REMEMBERED = 200_000  # things, of all instants together
MOST_MOMENTS = 4
MOST_INSTANTS = 64
CHUNK = 250  # things read at a time, to begin with: a first page is wanted soon
MOST_CHUNK = 4_000

_FIRST, _LAST = "\x01", "\x7f"  # before and after any character of a legal name

_Key = tuple[int, int]  # instant, moment of learning


class Fleet:
    """Remembers what was read of one store; give it readings of that one only."""

    def __init__(self, *, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._care = NO_CARE
        self._names: OrderedDict[int, list[str]] = OrderedDict()  # by moment of learning
        self._told: OrderedDict[_Key, Told] = OrderedDict()
        self._count = 0

    def matching(
        self, reading: Reading, query: Query, at_ms: int, *, after: str = "", described: bool = True
    ) -> Iterator[Document]:
        """List the documents that a query matches, by name, of names later than `after`; as far as they are taken.

        Without `described` a document may lack all that the registry tells. Raises InvalidRequest for the future,
        IndexNotReady before the history begins or before what a purge left.
        """
        check(reading, at_ms)
        search = _Search(query, described)
        begins = beginning(query)
        if begins is not None and begins.is_whole:
            like = [each for each in names_like(reading.asker, begins, reading.known_at) if each > after]
            yield from self._found(reading, search, like, at_ms, remember=False)
            return
        names = self._names_of(reading, begins)
        may_match = partly(query, NAMING)
        wanted: list[str] = []
        most = CHUNK
        for each in names[bisect_right(names, after) :]:
            if may_match(Document(each)) is not False:
                wanted.append(each)
                if len(wanted) == most:
                    yield from self._found(reading, search, wanted, at_ms)
                    wanted = []
                    most = min(2 * most, MOST_CHUNK)
        yield from self._found(reading, search, wanted, at_ms)

    def document(self, reading: Reading, name: str, at_ms: int) -> Document:
        """Describe one thing, by its name as it is. Raises ResourceNotFound, and as `matching` does."""
        check(reading, at_ms)
        for found in deepened(
            reading, [*sketched(reading, [name], at_ms).values()], at_ms, Depth.WHOLE
        ).values():
            if found is not None:
                return found.document
        raise ResourceNotFound(f"Thing {name} was not found at that time.")

    @property
    def remembered(self) -> int:
        """Tell how many things are remembered, of all instants together."""
        return sum(map(len, self._told.values()))

    def holds(self, name: str) -> bool:
        """Tell whether anything of a name is remembered."""
        return any(name in told for told in self._told.values()) or any(
            name in names for names in self._names.values()
        )

    def _found(
        self, reading: Reading, search: _Search, names: Sequence[str], at_ms: int, *, remember: bool = True
    ) -> Iterator[Document]:
        """Read things as far as the search needs each of them, and give those that it finds."""
        key = (at_ms, reading.known_at)
        with self._lock:
            told = self._told.get(key, {}) if self._is_of(reading) else {}
            if told:
                self._told.move_to_end(key)
        read: Told = {**sketched(reading, [name for name in names if name not in told], at_ms)}
        candidates: list[tuple[str, bool | None]] = []
        shallow: dict[Depth, list[Sketch]] = {Depth.THERE: [], Depth.WHOLE: []}
        for name in names:
            sketch = read[name] if name in read else told[name]
            if sketch is None or (is_match := search.by_standing(sketch.document)) is False:
                continue
            candidates.append((name, is_match))
            wanted = Depth.WHOLE if search.described or is_match is None else Depth.THERE
            if sketch.depth < wanted:
                shallow[wanted].append(sketch)
        for depth, sketches in shallow.items():
            read |= deepened(reading, sketches, at_ms, depth)
        if remember:
            self._remember(reading, key, read)
        for name, is_match in candidates:
            sketch = read[name] if name in read else told[name]
            if sketch is not None and (is_match or search.matches(sketch.document)):
                yield sketch.document

    def _is_of(self, reading: Reading) -> bool:
        """Tell whether what is remembered is of the store as it is read; forget it all once more was taken out."""
        care = reading.asker.care
        if care > self._care:  # each of its members only grows
            self._care = care
            self._names.clear()
            self._told.clear()
            self._count = 0
        return care == self._care

    def _remember(self, reading: Reading, key: _Key, read: Told) -> None:
        """Keep what was read, and let go of the instants asked for longest ago."""
        with self._lock:
            if not read or not self._is_of(reading):
                return
            told = self._told.get(key, {})
            if len(told) + sum(name not in told for name in read) > self._most:
                return
            self._told[key] = told
            self._told.move_to_end(key)
            self._count -= len(told)
            told.update(read)
            self._count += len(told)
            while self._count > self._most or len(self._told) > MOST_INSTANTS:
                _, gone = self._told.popitem(last=False)
                self._count -= len(gone)

    def _names_of(self, reading: Reading, begins: Beginning | None) -> list[str]:
        """List the names of the fleet, or those at least that begin so; ascending."""
        with self._lock:
            names = self._names.get(reading.known_at) if self._is_of(reading) else None
        if names is not None:
            return (
                names if begins is None else [each for each in names if each.lower().startswith(begins.text)]
            )
        if begins is not None:
            return names_like(reading.asker, begins, reading.known_at)
        names = all_names(reading.asker, reading.known_at)
        with self._lock:
            if self._is_of(reading):
                self._names[reading.known_at] = names
                while len(self._names) > MOST_MOMENTS:
                    self._names.popitem(last=False)
        return names


class _Search:
    """A query, as what is asked of a document while it is read; `described`: all of it is wanted of what is found."""

    __slots__ = ("by_standing", "described", "matches")

    def __init__(self, query: Query, described: bool) -> None:
        self.by_standing: Partly = partly(query, STANDING)
        self.matches = matching(query)
        self.described = described


def check(reading: Reading, at_ms: int) -> None:
    """Refuse an instant that nothing can be said of. Raises InvalidRequest, IndexNotReady."""
    check_past(at_ms, reading.now_ms)
    check_begun(reading.asker, at_ms, reading.known_at)


def all_names(asker: Asker, known_at: int) -> list[str]:
    """List the names that things may have had, ascending: those that connected, and those that the registry told of."""
    names = {name for name, as_client in names_of(asker, known_at) if not as_client}
    told = asker.rows("registry_names", realm=asker.realm, known_at=known_at)
    return sorted(names.union(name for (name,) in told if is_legal(name)))


def names_like(asker: Asker, begins: Beginning, known_at: int) -> list[str]:
    """List the names that begin so, whatever their case, ascending; there may have been no such thing.

    The same as `all_names` has, sought by the indexes of folded names.
    """
    if not is_legal(begins.text):
        return []
    high = begins.text + (_FIRST if begins.is_whole else _LAST)
    like = {"realm": asker.realm, "low": begins.text, "high": high}
    names = {name for (name,) in asker.rows("things_like", **like)}
    names |= {name for (name,) in asker.rows("registry_names_like", **like, known_at=known_at)}
    clients = [each for each in asker.rows("clients_like", **like) if each[1] not in names]
    if begins.is_whole:
        own = [each for each in clients if not asker.rows("is_bound", client_no=each[0], known_at=known_at)]
    else:
        bound = {number for (number,) in asker.rows("bound_clients", known_at=known_at)} if clients else set()
        own = [each for each in clients if each[0] not in bound]
    return sorted(name for name in names.union(name for _, name in own) if is_legal(name))
