"""The search for garbage in cycles, kept out of work on many rows: they are in none, and it looks at each many times.

A third of ingesting an event was that search. What is in no cycle is freed as ever, once nobody holds it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 20_000  # objects that a search right after the work would notice
_MOST_UNSEEN = 20_000_000  # ... that were made since the last search, at most, so that cycles do not pile up

_unseen = 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of cycles out meanwhile, and from what was made until then as well. May be nested."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            try:
                _grow_old()
            finally:  # a signal may have come
                gc.enable()


def _grow_old() -> None:
    """Count all that is there as old: the collector looks at that only once there is much more of it."""
    global _unseen
    young = gc.get_count()[0]
    if young < _MANY:
        return
    _unseen += young
    if _unseen > _MOST_UNSEEN:
        gc.collect()
        _unseen = 0
    else:
        gc.freeze()
        gc.unfreeze()  # to the oldest generation
