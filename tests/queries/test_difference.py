"""What differs between two instants, as an operator would tell it from a drawn line."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import pytest

from queries.difference import Change, difference
from queries.uptime import Counted, Stretch
from store.model import MINUTE_MS

# A letter a minute: up, down (of two reasons), unknown, absent.
LETTERS = {
    "U": (Counted.CONNECTED, None),
    "D": (Counted.DISCONNECTED, "CONNECTION_LOST"),
    "K": (Counted.DISCONNECTED, "MQTT_KEEP_ALIVE_TIMEOUT"),
    "?": (Counted.UNKNOWN, None),
    "-": (Counted.NOT_REGISTERED, None),
}


def line(drawn: str) -> list[Stretch]:
    """Read a line; the first instant is its beginning, the second the beginning of its last minute."""
    found, at_ms = [], 0
    for letter, run in groupby(drawn[:-1]):
        counted, reason = LETTERS[letter]
        to_ms = at_ms + len(list(run)) * MINUTE_MS
        found.append(Stretch(at_ms, to_ms, counted, observed=True, reason=reason, turn=True))
        at_ms = to_ms
    counted, reason = LETTERS[drawn[-1]]
    found.append(Stretch(at_ms, at_ms + 1, counted, observed=True, reason=reason, turn=True))
    return found


class Case(NamedTuple):
    """A line, and how it differs: what, the minutes of the first change and of the last, changes, minutes down."""

    drawn: str
    change: Change | None
    first: int = 0
    at: int = 0
    changes: int = 0
    down: int = 0


CASES = [
    Case("UUUUUU", None),
    Case("DDDDDD", None),
    Case("UUDDDD", Change.WENT_DOWN, first=2, at=2, changes=1, down=3),
    Case("UDUUDD", Change.WENT_DOWN, first=1, at=4, changes=3, down=2),
    Case("UUUUUD", Change.WENT_DOWN, first=5, at=5, changes=1, down=0),  # the very instant
    Case("UD??DD", Change.WENT_DOWN, first=1, at=1, changes=1, down=2),  # unknown interrupts no state
    Case("U???DD", Change.WENT_DOWN, first=4, at=4, changes=1, down=1),
    Case("DDUUUU", Change.CAME_UP, first=2, at=2, changes=1, down=2),
    Case("UUDDUU", Change.FLAPPED, first=2, at=4, changes=2, down=2),
    Case("DDUUDD", Change.FLAPPED, first=2, at=4, changes=2, down=3),
    Case("KKUUDD", Change.FLAPPED, first=2, at=4, changes=2, down=3),  # ... and the reason differs
    Case("KKKDDD", Change.REASON_CHANGED, first=3, at=3, down=5),
    Case("KK??DD", Change.REASON_CHANGED, first=4, at=4, down=3),
    Case("U????U", None),  # nobody saw it change
    Case("UU????", Change.BECAME_UNKNOWN, first=2, at=2),
    Case("UUD???", Change.BECAME_UNKNOWN, first=2, at=3, changes=1, down=1),
    Case("??UUUU", Change.BECAME_KNOWN, first=2, at=2),
    Case("??UUDU", Change.BECAME_KNOWN, first=4, at=5, changes=2, down=1),
    Case("?UUDD?", Change.FLAPPED, first=3, at=3, changes=1, down=2),
    Case("--UUUU", Change.NEW, first=2, at=2),
    Case("--UDDU", Change.NEW, first=3, at=2, changes=2, down=2),
    Case("UUU---", Change.DELETED, first=3, at=3),
    Case("UUDD--", Change.DELETED, first=2, at=4, changes=1, down=2),
    Case("UU--UU", Change.RECREATED, first=4, at=4),
    Case("------", None),
    Case("--UU--", None),  # there at neither
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.drawn)
def test_what_differs(case: Case) -> None:
    found = difference(line(case.drawn))
    if found is None:
        assert case.change is None
        return
    assert found.change is case.change
    told = (found.first_ms, found.at_ms, found.down_ms)
    assert told == (case.first * MINUTE_MS, case.at * MINUTE_MS, case.down * MINUTE_MS)
    assert found.changes == case.changes
    assert (found.before, found.reason_before) == LETTERS[case.drawn[0]]
    assert (found.after, found.reason_after) == LETTERS[case.drawn[-1]]


def test_the_reasons_are_those_between_in_their_order() -> None:
    found = difference(line("UKUDUKU"))
    assert found is not None
    assert found.reasons == ("MQTT_KEEP_ALIVE_TIMEOUT", "CONNECTION_LOST")
