"""A PostgreSQL that goes away and comes back in the midst of an ingest: it waits, and nothing is lost or doubled."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psycopg
import pytest
import sqlalchemy as sa

from ingest.counts import Counts
from ingest.patience import PatientWriter
from ingest.simulate import Choices, simulate
from store.engine import open_reader, open_writer, parse_url, translated
from store.errors import StoreAway, StoreMissing, StoreUnreachable
from store.model import Learned
from tests.builders import T0, connect
from tests.conftest import Server, new_database
from tests.contents import beliefs, connected, contents
from tests.contract.test_crash import held, recorded, unmoved
from tests.processes import LISTENING, finish, here, start

AWAY = "Waiting up to 60 s for it."
BACK = "It answers again; the batch is written."


@pytest.fixture
def fleet(rng: random.Random, tmp_path: Path) -> Path:
    """A fleet's recording in many files, a transaction each."""
    choices = Choices(things=50, days=1, seed=rng.randrange(1_000), check_minutes=240)
    return recorded(tmp_path / "fleet", choices, 18)


def test_a_server_that_is_cut_off_is_waited_for_a_minute_or_as_the_url_says(postgres_store_url: str) -> None:
    with open_writer(parse_url(postgres_store_url)):
        pass

    def patience(url: str) -> dict[str, str]:
        """Give what libpq was told of a reader's connection."""
        with open_reader(parse_url(url)) as store, store.detached() as driver:
            told: dict[str, str] = driver.info.get_parameters()
        names = ("connect_timeout", "keepalives_idle", "tcp_user_timeout")
        return {name: told[name] for name in names}

    ours = {"connect_timeout": "10", "keepalives_idle": "30", "tcp_user_timeout": "60000"}
    assert patience(postgres_store_url) == ours
    joint = "&" if "?" in postgres_store_url else "?"
    theirs = f"{postgres_store_url}{joint}connect_timeout=3&tcp_user_timeout=5000"
    assert patience(theirs) == ours | {"connect_timeout": "3", "tcp_user_timeout": "5000"}


@pytest.fixture
def stoppable(second_server: Server) -> Iterator[Server]:
    """A server that a test may stop."""
    yield second_server
    second_server.start()


@pytest.fixture
def url_there(stoppable: Server) -> Iterator[str]:
    """A new and empty database of the server that a test may stop."""
    with new_database(stoppable.url) as url:
        yield url
        stoppable.start()


def wait_until_held(url: str, count: int) -> None:
    until_s = time.monotonic() + 60
    while held(url) < count:
        assert time.monotonic() < until_s
        time.sleep(0.05)


def throw_out(url: str) -> int:
    """End every connection to a database that is in the midst of a transaction; gives how many were."""
    statement = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    )
    with connected(url) as connection:
        return int(connection.scalar(sa.text(statement)) or 0)


def assert_as_undisturbed(url: str, fleet: Path) -> None:
    """Compare with a store that nothing ever happened to: one of SQLite, where that takes least."""
    other_url = f"sqlite:///{fleet}.db"
    assert here("ingest", str(fleet), "--store", other_url) == 0
    wanted, found = contents(other_url), contents(url)
    for table, rows in wanted.items():
        assert found[table] == rows, table


def test_thrown_out_in_the_midst_of_transactions_it_writes_them_again(
    postgres_store_url: str, fleet: Path
) -> None:
    process = start("ingest", str(fleet), "--store", postgres_store_url)
    wait_until_held(postgres_store_url, 1)
    thrown = 0
    while process.poll() is None and thrown < 5:
        before = held(postgres_store_url)
        if throw_out(postgres_store_url):
            thrown += 1
            while process.poll() is None and held(postgres_store_url) == before:  # the batch is written again
                time.sleep(0.02)
    code, _, err = finish(process)
    assert code == 0, err
    assert thrown >= 3
    assert 3 <= err.count(AWAY) == err.count(BACK) <= thrown, err
    assert_as_undisturbed(postgres_store_url, fleet)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_stopped_and_started_is_waited_for(
    stoppable: Server, url_there: str, fleet: Path, mode: Literal["fast", "immediate"]
) -> None:
    process = start("ingest", str(fleet), "--store", url_there)
    wait_until_held(url_there, 1)
    stoppable.stop(mode)
    time.sleep(1)
    assert process.poll() is None
    stoppable.start()
    code, _, err = finish(process)
    assert code == 0, err
    assert err.count(AWAY) == err.count(BACK) == 1, err
    assert_as_undisturbed(url_there, fleet)


def test_ctrl_c_ends_it_while_the_server_is_at_what_it_was_sent(postgres_store_url: str, fleet: Path) -> None:
    """Somebody else holds the table, for hours: what is written in another thread is given up."""
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'transitions'::regclass"
    assert here("ingest", str(min(fleet.iterdir())), "--store", postgres_store_url) == 0
    before = contents(postgres_store_url)
    with connected(postgres_store_url) as connection:
        connection.execute(sa.text("LOCK TABLE transitions IN EXCLUSIVE MODE"))
        process = start("ingest", str(fleet), "--store", postgres_store_url, command=LISTENING)
        until_s = time.monotonic() + 60
        while not connection.scalar(sa.text(blocked)):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process, timeout_s=20)
        assert connection.scalar(sa.text(blocked)) == 0
    assert code == 130, err
    assert contents(postgres_store_url) == before
    assert here("ingest", str(fleet), "--store", postgres_store_url) == 0
    assert_as_undisturbed(postgres_store_url, fleet)


@pytest.mark.parametrize("wait", ["0", "0.5"])
def test_a_server_that_stays_away_is_an_error_and_what_is_missing_is_brought_by_the_next_run(
    stoppable: Server, url_there: str, fleet: Path, wait: str
) -> None:
    process = start("ingest", str(fleet), "--store", url_there, "--wait", wait)
    wait_until_held(url_there, 1)
    stoppable.stop("immediate")
    code, out, err = finish(process)
    assert (code, out) == (3, "")
    *waited, complaint = err.splitlines()
    assert complaint.startswith("thingline: postgresql+psycopg://")
    assert " does not answer: " in complaint
    assert [line.endswith("Waiting up to 0.5 s for it.") for line in waited] == (
        [] if wait == "0" else [True]
    )
    stoppable.start()
    assert here("ingest", str(fleet), "--store", url_there) == 0
    assert_as_undisturbed(url_there, fleet)


def test_only_what_passes_is_waited_for(postgres_store_url: str) -> None:
    """A wrong statement, or a store that is gone after all, will not be right in a minute."""
    learned = [Learned(connect(T0, session="a", version=0), 0, None)]
    pauses: list[float] = []
    said: list[str] = []
    with (
        open_writer(parse_url(postgres_store_url)) as store,
        PatientWriter(store, wait_s=60, say=said.append, pause=pauses.append) as writer,
    ):
        with connected(postgres_store_url) as connection:
            connection.execute(sa.text("ALTER TABLE evidence RENAME TO elsewhere"))
            connection.commit()
        with pytest.raises(StoreUnreachable) as wrong:
            writer.write(learned, source="test")
        assert not isinstance(wrong.value, StoreAway)
        with connected(postgres_store_url) as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO evidence"))
            connection.execute(sa.text("ALTER TABLE alembic_version RENAME TO elsewhere"))
            connection.commit()
        assert (writer.write(learned, source="test").stored, pauses, said) == (1, [], [])
        with connected(postgres_store_url) as connection:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        with pytest.raises(StoreMissing):
            writer.write(learned, source="test")
    assert (len(pauses), len(said)) == (1, 1)


def test_a_pipeline_that_is_broken_off_is_an_absence_and_no_other_writer() -> None:
    """In one of some 150 breaks psycopg says this of its own connection; "busy" is SQLite's word for a lock."""
    with pytest.raises(StoreAway), translated(parse_url("postgresql://db.example/fleet")):
        raise psycopg.OperationalError("cannot exit pipeline mode while busy")


def test_the_absence_of_another_server_is_no_reason_to_wait_for_this_one(store_url: str) -> None:
    def batches() -> Iterator[list[Learned]]:
        for number in range(2):
            yield [Learned(connect(T0 + number, session=f"s{number}", version=number), 0, None)]
        raise StoreAway("theirs")

    pauses: list[float] = []
    given: list[Counts] = []
    with (
        open_writer(parse_url(store_url)) as store,
        PatientWriter(store, wait_s=60, pause=pauses.append) as writer,
    ):
        with pytest.raises(StoreAway, match="theirs"):
            given.extend(writer.write_all(batches(), source="test"))
        given += writer.write_all([[Learned(connect(T0 + 9, session="s9"), 0, None)]], source="test")
    assert ([each.stored for each in given], pauses) == ([1, 1, 1], [])


def test_the_pauses_double_and_end_with_the_wait(stoppable: Server, url_there: str) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds / 10)

    with (
        open_writer(parse_url(url_there)) as store,
        PatientWriter(store, wait_s=1, pause=pause) as writer,
    ):
        stoppable.stop("fast")
        with pytest.raises(StoreAway):
            writer.write([Learned(connect(T0, session="a", version=0), 0, None)], source="test")
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert all(0 < seconds <= 1 for seconds in pauses)


def test_of_two_writers_of_one_store_one_is_killed_and_the_other_goes_on(
    postgres_store_url: str, rng: random.Random, tmp_path: Path
) -> None:
    """Law 8 in the face of law 7: both tell of the same clients, and the killed one begins anew."""
    choices = Choices(things=100, days=1, seed=rng.randrange(1_000), check_minutes=0, late=0.2)
    lines = [unmoved(line) for line in simulate(choices).lines()]
    for name, part in (("one", lines[::2]), ("other", lines[1::2]), ("all", lines)):
        (tmp_path / name).mkdir()
        for number in range(8):
            piece = part[number * len(part) // 8 : (number + 1) * len(part) // 8]
            (tmp_path / name / f"{number}.ndjson").write_bytes(b"".join(piece))
    open_writer(parse_url(postgres_store_url)).close()
    one, other = (
        start("ingest", str(tmp_path / name), "--store", postgres_store_url) for name in ("one", "other")
    )
    wait_until_held(postgres_store_url, 1 + rng.randrange(len(lines) // 3))
    one.send_signal(signal.SIGKILL)
    assert finish(one)[0] == -signal.SIGKILL
    code, _, err = finish(other)
    assert (code, "Waiting" in err) == (0, False), err
    assert here("ingest", str(tmp_path / "one"), "--store", postgres_store_url) == 0
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    assert here("ingest", str(tmp_path / "all"), "--store", undisturbed) == 0
    wanted, found = beliefs(undisturbed), beliefs(postgres_store_url)
    for table in wanted.keys() - {"texts"}:  # names of sources are among them
        assert found[table] == wanted[table], table
