"""Kills what takes records in while they come, again and again; the tests of each source bring their own source."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from tests.processes import finish

PIECES = 10  # in which the records of one life are given
_WAIT_S = 60


class Kill(NamedTuple):
    """What a kill met."""

    given: int  # records so far, those that were being given included
    left: int  # of them, not taken in for good
    code: int  # by which the process ended


def killed_under_load(
    *,
    begin: Callable[[], subprocess.Popen[bytes]],
    give: Callable[[list[str]], None],
    progress: Sequence[Callable[[], int]],
    left: Callable[[list[str]], int],
    records: list[str],
    kills: int,
    rng: random.Random,
    between: Callable[[int], object] = lambda number: None,
) -> list[Kill]:
    """Give all records, piece by piece, killing the process at `kills` random moments; none runs at the end.

    Each of `progress` rises while the process works, as what it has received, or what is in for good; one or another of
    them has risen before a kill. `left` tells how many of the records given are not in for good. A kill
    strikes while a piece is given, at a moment when some records are left. `between` is called with the
    number of each life after its kill.
    """
    seen: list[Kill] = []
    given: list[str] = []
    for number in range(kills):
        process = begin()
        life = records[number * len(records) // kills : (number + 1) * len(records) // kills]
        pieces = [life[at * len(life) // PIECES : (at + 1) * len(life) // PIECES] for at in range(PIECES)]
        strike = rng.randrange(1, PIECES // 2)
        works, is_alive = rng.choice(progress), True
        before = works()
        for at, piece in enumerate(pieces):
            given += piece
            giving = threading.Thread(target=give, args=(piece,))
            giving.start()
            if at == 0:
                _until(partial(_has_risen, works, before), process)
            elif is_alive and at >= strike:
                time.sleep(rng.choice((0, 0.005, 0.02, 0.1, 0.3)) if at < PIECES - 3 else 0)
                if waiting := left(given):
                    assert process.poll() is None, process.communicate()
                    process.kill()
                    seen.append(Kill(len(given), waiting, finish(process)[0]))
                    is_alive = False
            giving.join()
        assert not is_alive, "whatever was given was taken in at once: nothing was left to be killed at"
        between(number)
    assert len(seen) == kills
    assert all(each.left > 0 and each.code == -signal.SIGKILL for each in seen), seen
    print(f"\n{kills} kills, each of a live process with work left: {[each.left for each in seen]} of the records"
          f" given by then ({len(records):,} in all) were not in")  # fmt: skip
    return seen


def _has_risen(works: Callable[[], int], before: int) -> bool:
    return works() > before


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + _WAIT_S
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.002)
