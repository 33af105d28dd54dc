"""A store of every earlier schema is brought to the newest with all its rows, after a copy."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.check import faults
from ingest.writer import Writer
from queries.fleet import names_like
from queries.history import Question, open_history
from queries.output import reply_json
from queries.search_match import Beginning
from store.backup import back_up
from store.engine import SCHEMA_REVISION, locked_store, open_reader, open_writer, parse_url
from store.errors import StoreTooOld
from store.migrate import upgrade, upgrade_existing
from store.model import Learned, Observation
from store.schema import metadata
from tests.builders import T0, connect
from tests.property.test_check_laws import histories as checked_histories
from tests.property.test_check_laws import in_turn, ingest, learned
from tests.property.test_store_laws import NOW, cut

EARLIER = [f"{number:04}" for number in range(1, int(SCHEMA_REVISION))]
FIRST_WITH_CHECKS = "0003"


@pytest.fixture
def postgres_store_url(database_url: str) -> str:
    """URL of what is no store yet: tests of this file make one of an earlier schema."""
    return database_url


def built(url: str, revision: str, like: str) -> None:
    """Build a store at an earlier revision that holds the rows of another one, as far as it has places for them."""
    with locked_store(parse_url(url)) as store:
        upgrade(store, revision)
        with open_reader(parse_url(like)) as source, source.reading() as rows, store.engine.begin() as target:
            inspector = sa.inspect(target)
            tables = set(inspector.get_table_names())
            for table in metadata.sorted_tables:
                if table.name not in tables or table.name == "rules":
                    continue
                there = {column["name"] for column in inspector.get_columns(table.name)}
                columns = [column for column in table.columns if column.name in there]
                found = [dict(row._mapping) for row in rows.execute(sa.select(*columns))]
                if found:
                    target.execute(sa.delete(table))
                    target.execute(sa.insert(table), found)


def answers(url: str, asked: list[Question]) -> list[dict[str, Any]]:
    with open_history(url) as history:
        return [reply_json(reply) for reply in history.ask(asked)]


@pytest.mark.parametrize("revision", EARLIER)
def test_an_upgrade_keeps_every_answer(
    store_url: str, tmp_path: Path, rng: random.Random, revision: str
) -> None:
    drawn = checked_histories(rng, 6)
    told = in_turn(rng, drawn)
    if revision < FIRST_WITH_CHECKS:
        told = [each for one in drawn for each in one.events]
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    ingest(whole, cut(rng, learned(told, range(NOW - len(told), NOW)), 3))
    built(store_url, revision, whole)
    with pytest.raises(StoreTooOld):
        open_reader(parse_url(store_url))
    before, after, copy = upgrade_existing(parse_url(store_url))
    assert (before, after) == (revision, SCHEMA_REVISION)
    asked = [
        Question(rng.choice(drawn).client_id, T0 + rng.randrange(60 * 86_400_000), known_at)
        for known_at in rng.choices([None, *range(NOW - len(told), NOW)], k=300)
    ]
    assert answers(store_url, asked) == answers(whole, asked)
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []
    with open_writer(parse_url(store_url)):
        pass
    if not store_url.startswith("sqlite"):
        assert copy is None
        return
    assert copy is not None
    with pytest.raises(StoreTooOld):
        open_reader(parse_url(copy))
    assert upgrade_existing(parse_url(copy))[0] == revision
    assert answers(copy, asked) == answers(whole, asked)


def test_a_copy_that_an_interrupted_upgrade_left_is_not_written_over(
    sqlite_store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    ingest(whole, [learned(in_turn(rng, checked_histories(rng, 2)))])
    built(sqlite_store_url, "0004", whole)
    left = tmp_path / "store.db.0004.bak"
    left.write_bytes(b"left")
    _, _, copy = upgrade_existing(parse_url(sqlite_store_url))
    assert copy == f"{left}.2"
    assert left.read_bytes() == b"left"
    with open_reader(parse_url(sqlite_store_url)) as store:
        assert back_up(store, tmp_path / "again.db").rows > 0


def test_an_upgrade_finds_the_names_that_it_came_upon_in_any_case(store_url: str, tmp_path: Path) -> None:
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    with open_writer(parse_url(whole)) as store, Writer(store, clock=lambda: T0) as writer:
        bound = connect(T0, client_id="Pump-I")._replace(thing_name="Boiler-1")
        told = Observation("registry", "Spare-3", T0, '{"eventType":"THING_EVENT","operation":"CREATED"}')
        writer.write(
            [Learned(one, 0) for one in (bound, connect(T0, client_id="PUMP-2"), told)], source="test"
        )
    built(store_url, "0011", whole)
    upgrade_existing(parse_url(store_url))
    with open_history(store_url) as history, history.reading() as reading:
        for text, names in (
            ("boiler-1", ["Boiler-1"]),
            ("pump-i", []),
            ("pump-2", ["PUMP-2"]),
            ("spare-3", ["Spare-3"]),
        ):
            assert names_like(reading.asker, Beginning(text, True), reading.known_at) == names
