"""What is wrong with a file, a store or a question: a clear error, the exit code, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import socket
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

import thingline
from store.engine import masked, open_writer, parse_url
from store.errors import ResourceNotFound
from store.schema import metadata
from tests.builders import T0, connect
from tests.contract.test_commands import (
    AT,
    SAMPLE,
    Done,
    Run,
    event_json,
    execute,
    ndjson,
    on_any,
    run,
    sampled,
)

__all__ = ["on_any", "run", "sampled"]  # fixtures

TABLES = sorted(metadata.tables.keys() - {"rules", "care"})
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
def postgres_store_url(database_url: str) -> str:
    """URL of what is no store yet."""
    return database_url


def rows(url: str) -> dict[str, int]:
    """Count the rows of every table."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        count = sa.select(sa.func.count())
        found = {name: connection.scalar(count.select_from(metadata.tables[name])) or 0 for name in TABLES}
    engine.dispose()
    return found


def lines(numbers: range) -> list[str]:
    events = [connect(T0 + n, session=f"s{n}", version=0, client_id=f"client-{n}") for n in numbers]
    return [json.dumps(event_json(event)) + "\n" for event in events]


def complaint(done: Done) -> str:
    """Give the message of a failed command: one line that names us, and no traceback."""
    said = [line for line in done.err.splitlines() if line.startswith("thingline: ")]
    assert len(said) == 1, done
    assert "Traceback" not in done.err
    return said[0]


# --- Files --------------------------------------------------------------------------------------------------


def test_an_empty_file_is_an_error_that_leaves_nothing(run: Run, store_url: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = run("ingest", str(tmp_path / "empty"))
    assert (done.code, complaint(done)) == (4, f"thingline: {tmp_path / 'empty'}: it is empty")
    assert rows(store_url) == NOTHING


def test_a_binary_file_goes_to_quarantine_whole(
    run: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + rng.randbytes(300_000))
    done = run("ingest", str(tmp_path / "photo.jpg"))
    assert done.code == 4
    assert "nothing in it could be read as evidence" in complaint(done)
    held = rows(store_url)["quarantine"]
    assert 1 <= held <= 30  # stretches of it, and not every byte that looks like a line's end
    assert rows(store_url) | NOTHING | {"quarantine": held} | kept_beside(store_url) == rows(store_url)
    found = run("quarantine", "list", "--json").objects
    assert found[0]["position"] == 0
    assert 300_011 - held <= sum(one["length"] for one in found) <= 300_011  # but for line ends between them


def kept_beside(url: str) -> dict[str, int]:
    """Give the counts of tables that hold names and the watermark, where these are as they should be."""
    found = rows(url)
    assert (found["realms"], found["texts"], found["watermarks"]) == (1, 1, 1)
    return {name: found[name] for name in ("realms", "texts", "watermarks")}


def test_of_a_truncated_gzip_what_came_before_the_break_is_kept(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    whole = gzip.compress("".join(lines(range(5_000))).encode())
    cut = whole[: len(whole) * 6 // 10]
    (tmp_path / "events.gz").write_bytes(cut)
    before = zlib.decompressobj(31).decompress(cut).count(b"\n")
    assert 1_000 < before < 4_000
    done = run("ingest", str(tmp_path / "events.gz"))
    assert (done.code, "the gzip stream stops before its end" in complaint(done)) == (4, True)
    found = rows(store_url)
    assert [found[name] for name in ("evidence", "clients", "session_rows", "transitions")] == [before] * 4
    reasons = {one["reason"] for one in run("quarantine", "list", "--json").objects}
    assert "truncated-gzip" in reasons
    # The whole file, fetched again, brings the rest.
    (tmp_path / "events.gz").write_bytes(whole)
    assert run("ingest", str(tmp_path / "events.gz")).code == 0
    assert rows(store_url)["evidence"] == 5_000


@pytest.mark.parametrize(
    "shape", ["garbage", "an object", "an object without end", "a string without end", "brackets"]
)
def test_a_line_of_100_mb_costs_itself_only(run: Run, store_url: str, tmp_path: Path, shape: str) -> None:
    begins, filling, ends = {
        "garbage": (b"", b"x", b""),
        "an object": (b'{"clientId":"', b"x", b'"}'),
        "an object without end": (b'{"clientId":', b"1", b""),
        "a string without end": (b'{"clientId":"', b"x", b""),
        "brackets": (b"", b"[", b""),
    }[shape]
    size = 100_000_000
    with (tmp_path / "huge.ndjson").open("wb") as file:
        file.write("".join(lines(range(3))).encode())
        file.write(begins)
        for _ in range(size // 1_000_000):
            file.write(filling * 1_000_000)
        file.write(ends + b"\n")
        file.write("".join(lines(range(3, 7))).encode())
    done = run("ingest", str(tmp_path / "huge.ndjson"), "--json")
    (tmp_path / "huge.ndjson").unlink()
    assert done.code == 0, done
    assert (done.objects[0]["stored"], done.objects[0]["quarantined"]) == (7, 1)
    (one,) = run("quarantine", "list", "--json").objects
    assert one["length"] == len(begins) + size + len(ends)
    assert len(run("quarantine", "show", str(one["id"])).out) == 64 << 10
    assert rows(store_url)["evidence"] == 7


def test_a_missing_file_is_found_missing_before_anything_is_read(
    run: Run, on_any: Run, sqlite_store_url: str, tmp_path: Path
) -> None:
    done = on_any("ingest", "--store", sqlite_store_url, SAMPLE, str(tmp_path / "none.ndjson"))
    assert (done.code, complaint(done)) == (4, f"thingline: There is no file {tmp_path / 'none.ndjson'}.")
    assert not (tmp_path / "store.db").exists()
    (tmp_path / "folder").mkdir()
    assert run("ingest", str(tmp_path / "folder")).code == 4
    assert run("ask", str(tmp_path / "none.ndjson")).code == 2


def test_one_bad_file_among_good_ones_is_named_and_the_others_are_taken(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.ndjson").write_text("".join(lines(range(3))))
    (folder / "2.ndjson").touch()
    (folder / "3.ndjson").write_text("".join(lines(range(3, 5))))
    done = run("ingest", str(folder))
    assert (done.code, complaint(done)) == (4, f"thingline: {folder / '2.ndjson'}: it is empty")
    assert rows(store_url)["evidence"] == 5


INDEXED = (
    "clientId",
    "sessionIdentifier",
    "principalIdentifier",
    "ipAddress",
    "thingName",
    "disconnectReason",
)


def test_a_text_that_no_index_takes_costs_its_own_record_only(
    run: Run, store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    """Found where it stopped a batch on PostgreSQL. What is as long as may be is stored, though it does not shrink."""

    def text(size: int) -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=size))

    def of_size(size: int) -> list[dict[str, object]]:
        said = {"eventType": "disconnected", "timestamp": T0, "clientId": "c", "sessionIdentifier": "s"}
        stamp = {"eventType": "THING_EVENT", "timestamp": T0}
        watch = {"source": text(size), "from": T0, "to": T0 + 1}
        named = {"thingName": text(size), "connected": False, "timestamp": T0 / 1000}
        told = {"thingName": "c", "connected": False, "timestamp": T0 / 1000, "disconnectReason": text(size)}
        return [
            *({**said, name: text(size)} for name in INDEXED),
            {**stamp, "thingName": text(size)},
            {"knownAt": T0, "watch": watch},
            named,
            told,
        ]

    good, bad = of_size(1_024), of_size(1_025)
    done = run("ingest", ndjson(tmp_path / "mixed.ndjson", [*good[:5], *bad, *good[5:]]), "--json")
    assert (done.code, done.objects[0]["stored"], done.objects[0]["quarantined"]) == (0, len(good), len(bad))
    found = run("quarantine", "list", "--json").objects
    assert [one["reason"] for one in found] == ["too-long"] * len(bad)
    details = [one["detail"] for one in found]
    names = [*INDEXED, "thingName", "source", "thingName", "disconnectReason"]
    assert details == [f"{name} is longer than 1,024 bytes; shorten it at its source" for name in names]
    assert json.loads(run("quarantine", "show", str(found[0]["id"])).out) == bad[0]
    held = rows(store_url)
    assert run("quarantine", "replay").out == f"{len(bad)} tried, 0 read, 0 new pieces of evidence\n"
    assert rows(store_url) == held
    exported = run("export", "evidence").out
    assert len(exported.splitlines()) == 1 + len(good)
    assert run("db", "check").code == 0


def test_the_path_of_a_file_may_hold_any_bytes_but_not_too_many(
    run: Run, store_url: str, tmp_path: Path
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ndjson")
    Path(odd).write_text(lines(range(1))[0])
    deep = tmp_path.joinpath(*["d" * 200] * 6)
    deep.mkdir(parents=True)
    (deep / "events.ndjson").write_text(lines(range(1, 2))[0])
    done = run("ingest", odd, str(deep))
    assert (done.code, complaint(done)) == (
        4,
        f"thingline: {deep / 'events.ndjson'}: its path is longer than 1,024 bytes; change to its folder, and name"
        " it from there",
    )
    assert rows(store_url)["evidence"] == 1
    Path(odd).write_text("no evidence\n")
    assert run("ingest", odd).code == 4
    (one,) = run("quarantine", "list", "--json").objects
    assert one["source"] == f"{tmp_path}/\\xff.ndjson"


@pytest.mark.parametrize("realm", ["", "a\0", "a\udcff", "é" * 513])
def test_a_realm_that_no_store_can_hold_is_refused(run: Run, store_url: str, realm: str) -> None:
    for command in (("ingest", SAMPLE), ("at", "pump-17", AT), ("forget", "pump-17", "--yes")):
        done = run(*command, "--realm", realm)
        assert (done.code, complaint(done)) == (
            2,
            "thingline: --realm is a name of 1 to 1,024 bytes in UTF-8, without NUL.",
        )


# --- Stores -------------------------------------------------------------------------------------------------

COMMANDS = [
    ("ingest", SAMPLE),
    ("at", "pump-17", AT),
    ("history", "pump-17"),
    ("explain", "pump-17", AT),
    ("rebuild",),
    ("export", "evidence"),
    ("quarantine", "list"),
    ("quarantine", "replay"),
    ("db", "status"),
    ("db", "upgrade"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_store_of_a_newer_schema_is_left_alone(
    sampled: Run, store_url: str, command: tuple[str, ...]
) -> None:
    before = rows(store_url)
    execute(store_url, "UPDATE alembic_version SET version_num = '9999'")
    done = sampled(*command)
    assert (done.code, done.out) == (3, "")
    assert "newer" in complaint(done)
    assert rows(store_url) == before


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
def test_where_there_is_no_store_none_is_made_by_asking(
    run: Run, store_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(*command)
    assert (done.code, done.out) == (3, "")
    assert "`thingline ingest` makes one" in complaint(done)
    if store_url.startswith("sqlite"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_that_is_no_database_is_left_alone(
    on_any: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing that SQLite ever wrote\n" * 500)
    done = on_any(*command, "--store", str(path))
    assert (done.code, done.out) == (3, "")
    assert (
        complaint(done) == f"thingline: sqlite:///{path} is not a store of thingline: file is not a database."
    )
    assert path.read_text() == "nothing that SQLite ever wrote\n" * 500


def test_a_database_where_our_names_are_taken_is_left_as_it_was(run: Run, store_url: str) -> None:
    execute(store_url, "CREATE TABLE sessions (theirs INTEGER)")
    done = run("ingest", SAMPLE)
    assert (done.code, done.out) == (3, "")
    assert "sessions" in complaint(done)
    engine = sa.create_engine(store_url, poolclass=sa.NullPool)
    assert sa.inspect(engine).get_table_names() == ["sessions"]
    engine.dispose()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port of loopback that is held, but where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_postgresql_that_does_not_answer_is_named_without_its_password(
    on_any: Run, closed_port: int, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for url in (
        f"postgresql://someone:hunter2@127.0.0.1:{closed_port}/things",
        f"postgresql://someone:hunter2@/things?host={tmp_path}/none",
    ):
        done = on_any(*command, "--store", url)
        assert (done.code, done.out) == (3, "")
        assert f"{masked(parse_url(url))} does not answer" in complaint(done)
        assert "hunter2" not in done.err


def test_a_database_that_a_server_does_not_have_is_an_error(on_any: Run, postgres_store_url: str) -> None:
    name = sa.make_url(postgres_store_url).database
    done = on_any("at", "pump-17", AT, "--store", postgres_store_url.replace(f"/{name}", "/none_such"))
    assert (done.code, done.out) == (3, "")
    assert "none_such" in complaint(done)


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "post gres://x"])
def test_a_url_of_no_store_is_not_understood(on_any: Run, url: str) -> None:
    done = on_any("at", "pump-17", AT, "--store", url)
    assert (done.code, done.out) == (2, "")
    assert "postgresql://HOST/DB" in complaint(done) or "sqlite:///PATH" in complaint(done)


def test_a_second_writer_of_a_sqlite_store_is_turned_away(on_any: Run, sqlite_store_url: str) -> None:
    with open_writer(parse_url(sqlite_store_url)):
        for command in (("ingest", SAMPLE), ("rebuild",), ("quarantine", "replay"), ("db", "upgrade")):
            done = on_any(*command, "--store", sqlite_store_url)
            assert (done.code, done.out) == (3, "")
            assert "Another process is writing to this store" in complaint(done)
        assert on_any("at", "pump-17", AT, "--store", sqlite_store_url).code == 5  # readers are not
    assert rows(sqlite_store_url) == NOTHING
    assert on_any("ingest", SAMPLE, "--store", sqlite_store_url).code == 0


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's power over files, where we have it."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach; pytest's own are its user's."""
    folder = Path(tempfile.mkdtemp(prefix="thingline-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def warm(on_any: Run, open_folder: Path) -> Callable[[], None]:
    """Import now what the commands import when they run: nobody may not read our home."""

    def imports() -> None:
        url = str(open_folder / "warm.db")
        assert on_any("ingest", SAMPLE, "--store", url).code == 0
        assert on_any("at", "pump-17", AT, "--store", url).code == 0
        assert on_any("at", "nope", AT, "--store", url).code == 5
        assert on_any("at", "nope", AT, "--store", url + ".none").code == 3

    return imports


def test_a_folder_that_may_not_be_written_is_an_error(
    on_any: Run, open_folder: Path, warm: Callable[[], None]
) -> None:
    warm()
    path = open_folder / "events.ndjson"
    path.write_text("".join(lines(range(2))))
    path.chmod(0o644)
    before = sorted(open_folder.iterdir())
    open_folder.chmod(0o555)
    with as_nobody():
        new = on_any("ingest", str(path), "--store", str(open_folder / "store.db"))
        deep = on_any("ingest", str(path), "--store", str(open_folder / "a" / "b" / "store.db"))
    for done in (new, deep):
        assert (done.code, done.out) == (3, "")
        assert "cannot be written: Permission denied" in complaint(done)
    assert sorted(open_folder.iterdir()) == before


def test_a_file_that_may_not_be_read_is_an_error(
    on_any: Run, open_folder: Path, warm: Callable[[], None]
) -> None:
    warm()
    path = open_folder / "secret.ndjson"
    path.write_text("".join(lines(range(2))))
    path.chmod(0o000)
    open_folder.chmod(0o777)
    with as_nobody():
        done = on_any("ingest", str(path), "--store", str(open_folder / "store.db"))
    assert (done.code, complaint(done)) == (4, f"thingline: {path} cannot be read: Permission denied.")
    assert rows(f"sqlite:///{open_folder / 'store.db'}") == NOTHING


def test_a_store_whose_file_is_damaged_is_an_error(on_any: Run, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert on_any("ingest", SAMPLE, "--store", str(path)).code == 0
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xaa" * len(content[4096 * 2 :])
    path.write_bytes(content)
    done = on_any("at", "pump-17", AT, "--store", str(path))
    assert (done.code, done.out) == (3, "")
    assert "malformed" in complaint(done)


# --- Questions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "time", "code", "says"),
    [
        ("pump-17", "2026-11-01T03:12:00", 2, "has no zone"),
        ("pump-17", "yesterday 03:12", 2, "has no zone"),
        ("pump-17", "soon", 2, "is not a time"),
        ("pump-17", "2026-02-30T00:00:00Z", 2, "is not on the calendar"),
        ("pump-17", "2099-01-01T00:00:00Z", 5, "The time asked for lies in the future."),
        ("pump-17", "2020-01-01T00:00:00Z", 5, "The history of this store begins later"),
        ("pump/17", AT, 5, "failed to satisfy constraint"),
        ("", AT, 5, "failed to satisfy constraint"),
        ("x" * 129, AT, 5, "failed to satisfy constraint"),
        ("x" * 128, AT, 5, "was not known at that time"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    sampled: Run, thing: str, time: str, code: int, says: str
) -> None:
    done = sampled("at", thing, time)
    assert (done.code, done.out) == (code, "")
    assert says in complaint(done)


@pytest.mark.parametrize("name", ["a\0", "\0", "a\udcff", "x" * 10_000, "é" * 2_000])
def test_a_client_that_no_store_can_hold_is_as_unknown_as_any_other(
    sampled: Run, store_url: str, name: str
) -> None:
    for command, code in (
        (("at", name, AT, "--client"), 5),
        (("explain", name, AT, "--client"), 5),
        (("history", name, "--client"), 5),
        (("history", name, "--client", "--sessions"), 5),
        (("at", name, AT), 5),
        (("forget", name, "--client", "--yes"), 0),
        (("forget", name, "--yes"), 0),
    ):
        done = sampled(*command)
        assert done.code == code, done
        if code:
            assert ("was not known" in done.err or "never heard of" in done.err) == ("--client" in command)
    with thingline.open(store_url) as store:
        for _ in range(2):
            with pytest.raises(ResourceNotFound):
                store.at(name, AT, by_client=True)
        with pytest.raises(ResourceNotFound):
            store.sessions(name, by_client=True)


def test_a_store_without_evidence_has_no_history_yet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    run("ingest", str(tmp_path / "empty"))
    done = run("at", "pump-17", AT)
    assert (done.code, "begins later" in complaint(done)) == (5, True)
    assert run("history", "--all", "--json") == Done(0, "", "")
    assert run("rebuild").out == "0 clients, 0 transitions derived again; 0 clients differed\n"
    assert run("export", "evidence").objects == [{"thingline": "recording", "version": 1}]


def test_a_control_character_in_a_name_does_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    name = "pump\x1b[2J\n"
    event = event_json(connect(T0, session="s", version=0, client_id=name))
    assert run("ingest", ndjson(tmp_path / "events.ndjson", [event])).code == 0
    for done in (run("at", name, AT, "--client"), run("history", name, "--client"), run("at", name, AT)):
        assert "\x1b" not in done.out + done.err


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(thingline, "command_line", interrupted)
    assert thingline.main(["db", "status"]) == 130
    assert capsys.readouterr().err == "thingline: interrupted\n"
