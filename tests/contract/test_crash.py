"""Law 7: killed at any point and started again, the store ends as if it had never been stopped.

The real command is killed by SIGKILL, again and again, and then left to run to its end. What it leaves is compared
with what an undisturbed run leaves, every table and every column in names (tests/contents.py). Moments of learning
are compared by their rank, for the clock of the second run is another; which slot of `watermarks` a writer of
PostgreSQL used, and when a client was last told of without anything new, are left out.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.simulate import Choices, simulate
from tests.conftest import new_database
from tests.contents import connected, contents, fingerprint
from tests.processes import finish, here, start

NewUrl = Callable[[], str]

EVENTS = int(os.environ.get("THINGLINE_BENCH_EVENTS", "1000000"))
RUBBISH = b'{"clientId": "no end\n'


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewUrl]:
    """Give the URL of another new store at each call, all of one engine."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
        return
    server: str = request.getfixturevalue("postgres_url")
    with ExitStack() as databases:
        yield lambda: databases.enter_context(new_database(server))


def recorded(folder: Path, choices: Choices, pieces: int) -> Path:
    """Write a fleet's recording in many files, a transaction each, so that a small one has many commits.

    Late, doubled and lost events and checks are in it. The first files are a recording whose moments of
    learning are honoured, the next are learned as they are read, the last come with moments that are only
    claims by then. Each holds a line that goes to quarantine.
    """
    folder.mkdir()
    lines = list(simulate(choices).lines())
    at = 0
    for number in range(pieces):
        to = (number + 1) * len(lines) // pieces
        while (
            0 < to < len(lines) and b'"event"' not in lines[to]
        ):  # no sweep in two files, for its one moment
            to += 1
        piece, at = lines[at:to], to
        if pieces // 3 <= number < 2 * pieces // 3:
            piece = [unmoved(line) for line in piece]
        if piece:
            (folder / f"{number:05}.ndjson").write_bytes(b"".join([*piece, RUBBISH]))
    return folder


def unmoved(line: bytes) -> bytes:
    """Take the moment of learning out of a line of a recording."""
    told = json.loads(line)
    told.pop("knownAt", None)
    return json.dumps(told).encode() + b"\n"


def held(url: str) -> int:
    """Count the evidence of a store that may not be there yet."""
    try:
        with connected(url) as connection:
            return int(connection.scalar(sa.text("SELECT count(*) FROM evidence")) or 0)
    except sa.exc.DBAPIError:
        return 0


def kill_again_and_again(url: str, folder: Path, rng: random.Random, *, whole: int, kills: int) -> list[int]:
    """Start `ingest` and kill it, at its start and then ever later; gives what each kill in the midst left.

    The moment of each is drawn from the work that is left: so much evidence must be there, and then any
    time may pass that a few transactions take.
    """
    left: list[int] = []
    for number in range(kills + 1):
        process = start("ingest", str(folder), "--store", url)
        if number:
            share = (number - 1 + rng.random()) / (kills + 0.5)
            while process.poll() is None and held(url) < share * whole:
                time.sleep(0.05)
        time.sleep(rng.random() * (0.05 if number else 1.0))
        process.send_signal(signal.SIGKILL)
        code, _, err = finish(process)
        assert code in (0, -signal.SIGKILL), err
        if code and 0 < (found := held(url)) < whole:
            left.append(found)
    return left


def undisturbed_and_killed(
    new_url: NewUrl, folder: Path, rng: random.Random, *, kills: int
) -> tuple[str, str]:
    """Ingest a folder into two stores, into the second with kills; gives both URLs."""
    undisturbed, killed = new_url(), new_url()
    assert here("ingest", str(folder), "--store", undisturbed) == 0
    whole = held(undisturbed)
    left = kill_again_and_again(killed, folder, rng, whole=whole, kills=kills)
    print(f"\n{whole:,} events; killed with {', '.join(f'{count:,}' for count in left)} of them committed")
    assert 2 * len(left) > kills, left  # else it was not killed in the midst, and this shows nothing
    assert here("ingest", str(folder), "--store", killed) == 0
    return undisturbed, killed


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_again_and_again_it_ends_as_if_never_stopped(
    new_url: NewUrl, rng: random.Random, tmp_path: Path, kills: int, capfd: pytest.CaptureFixture[str]
) -> None:
    seed = rng.randrange(1_000)
    choices = Choices(things=120, days=1, seed=seed, late=0.1, duplicates=0.2, check_minutes=240)
    folder = recorded(tmp_path / "fleet", choices, 24)
    undisturbed, killed = undisturbed_and_killed(new_url, folder, rng, kills=kills)
    wanted, found = contents(undisturbed), contents(killed)
    for table, rows in wanted.items():
        assert found[table] == rows, table
    for table in ("evidence", "quarantine", "checks", "sweeps", "confirmations"):
        assert len(wanted[table]) >= 24, table
    capfd.readouterr()
    assert here("rebuild", "--store", killed) == 0
    assert capfd.readouterr().out.endswith(" 0 clients differed\n")


@pytest.mark.soak
def test_a_million_events_and_twenty_kills_end_as_if_never_stopped(
    new_url: NewUrl, rng: random.Random, tmp_path: Path
) -> None:
    """THINGLINE_BENCH_EVENTS says how many events instead."""
    things = max(1, EVENTS // 64)  # a thing has about 34 events a day
    choices = Choices(things=things, days=2, seed=rng.randrange(1_000), late=0.05, check_minutes=480)
    folder = recorded(tmp_path / "fleet", choices, 80)
    undisturbed, killed = undisturbed_and_killed(new_url, folder, rng, kills=20)
    assert held(undisturbed) > 0.8 * EVENTS
    assert fingerprint(killed) == fingerprint(undisturbed)
