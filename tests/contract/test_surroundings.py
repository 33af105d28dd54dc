"""Bad surroundings: a full disk, a limit, a file or a folder that may not be written, another writer.

Each ends with one clear line and the right exit code, nothing half-written; once it is mended, ingesting again
completes the store. Real limits, real file systems and real users, on the real command as a process.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from ingest.files import FIRST
from tests.contents import contents
from tests.contract.test_bad_input import lines
from tests.contract.test_crash import held
from tests.processes import COMMAND, HOME, here, run

AT = "2026-10-01T00:00:00Z"
MEBIBYTE = 1 << 20


def said(err: str) -> str:
    """Give the one line of a complaint."""
    (line,) = err.splitlines()
    assert line.startswith("thingline: "), err
    return line


def is_sound(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of events, a transaction each, more than a mebibyte of store in all."""
    folder = tmp_path / "events"
    folder.mkdir()
    told = lines(range(6_000))
    for number in range(6):
        (folder / f"{number}.ndjson").write_text("".join(told[number::6]))
    return folder


def assert_completed(store: Path, folder: Path, tmp_path: Path) -> None:
    """Ingest again, and compare with a store that nothing ever happened to."""
    for path in (store, tmp_path / "undisturbed.db"):
        assert here("ingest", str(folder), "--store", str(path)) == 0
    assert is_sound(store)
    assert contents(f"sqlite:///{store}") == contents(f"sqlite:///{tmp_path / 'undisturbed.db'}")


# --- A full disk --------------------------------------------------------------------------------------------


def limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


# 20 kB: the schema does not fit; 400 kB: the first transactions do.
@pytest.mark.parametrize(("size", "some"), [(20_000, False), (400_000, True)])
def test_a_limit_on_the_size_of_files_is_an_error_and_leaves_a_sound_store(
    folder: Path, tmp_path: Path, size: int, some: bool
) -> None:
    store = tmp_path / "store.db"
    code, out, err = run("ingest", str(folder), "--store", str(store), preexec_fn=limited(size))
    assert (code, out) == (3, "")
    assert "nothing of the last batch is kept. Check the disk, its quota and limits" in said(err)
    assert is_sound(store)
    assert (0 < held(f"sqlite:///{store}") < 6_000) == some
    assert_completed(store, folder, tmp_path)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte, where we may mount one; the limit above is tested everywhere."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts; the limit on file sizes stands for it")
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "size=1m"):
        yield place


def test_a_full_disk_is_an_error_and_leaves_a_sound_store(
    small_disk: Path, folder: Path, tmp_path: Path
) -> None:
    store = small_disk / "store.db"
    code, out, err = run("ingest", str(folder), "--store", str(store))
    assert (code, out) == (3, "")
    assert said(err) == (
        f"thingline: The disk that holds sqlite:///{store} is full; nothing of the last batch is kept."
    )
    assert is_sound(store)
    some = held(f"sqlite:///{store}")
    assert 0 < some < 6_000
    code, out, _ = run("export", "evidence", "--store", str(store))  # a full disk still answers
    assert (code, out.count("\n")) == (0, some + 1)
    roomy = tmp_path / "roomy"
    shutil.copytree(small_disk, roomy)
    assert_completed(roomy / "store.db", folder, tmp_path)


# --- Other users' files -------------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach, with a store and a file of events in it; pytest's own are its user's."""
    folder = Path(tempfile.mkdtemp(prefix="thingline-test-"))
    (folder / "events.ndjson").write_text("".join(lines(range(50))))
    (folder / "more.ndjson").write_text("".join(lines(range(50, 60))))
    assert here("ingest", str(folder / "events.ndjson"), "--store", str(folder / "store.db")) == 0
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


AS_NOBODY = """
import contextlib, io, os, sys, tempfile
sys.path.insert(0, sys.argv[1])
import thingline
# What the commands import when they run must be imported now: nobody may not read our home.
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as _:
    with contextlib.redirect_stdout(io.StringIO()) as _:
        for store in (folder + "/warm.db", folder + "/events/no.db"):
            for command in (["ingest", sys.argv[2]], ["at", "client-1", sys.argv[3], "--client"]):
                thingline.main([*command, "--store", store])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
sys.exit(thingline.main(sys.argv[4:]))
"""


def by_nobody(public: Path, *args: str) -> tuple[int, str, str]:
    """Run a command as a user who owns nothing; as ourselves, where we are not root."""
    known = (str(HOME), str(public / "events.ndjson"), AT)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *known, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("closed", ["file", "folder", "both"])
def test_a_store_that_may_not_be_written_is_an_error_and_stays_as_it_is(public: Path, closed: str) -> None:
    store = public / "store.db"
    for path in public.iterdir():
        path.chmod(0o444 if closed != "folder" else 0o666)
    public.chmod(0o777 if closed == "file" else 0o555)
    before = store.read_bytes()
    code, out, err = by_nobody(public, "ingest", str(public / "more.ndjson"), "--store", str(store))
    assert (code, out) == (3, ""), err
    assert "cannot be written" in said(err)
    assert store.read_bytes() == before
    assert is_sound(store)
    code, out, err = by_nobody(public, "at", "client-1", AT, "--client", "--store", str(store))
    if closed == "file":
        assert (code, err) == (0, "")
    else:  # a reader has to make the files beside it that a writer would have made
        assert (code, out) == (3, "")
        assert "for a reader too" in said(err)
    public.chmod(0o755)
    assert here("ingest", str(public / "more.ndjson"), "--store", str(store)) == 0
    assert held(f"sqlite:///{store}") == 60


@pytest.mark.parametrize(
    "command", ["at client-1 {at} --client", "export evidence", "history --all --json", "--help"]
)
def test_an_answer_that_finds_no_room_is_told_in_a_line(folder: Path, tmp_path: Path, command: str) -> None:
    store = tmp_path / "store.db"
    assert here("ingest", str(folder), "--store", str(store)) == 0
    args = command.format(at=AT).split()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *args, *(["--store", str(store)] if len(args) > 1 else [])],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == (
        "thingline: the output cannot be written: No space left on device."
    )
    assert b"Traceback" not in done.stderr
    assert b"ignored" not in done.stderr


# --- Another writer -----------------------------------------------------------------------------------------


def test_a_second_writer_is_turned_away_at_once_and_the_first_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first is fed line by line, so that it is at work while others come; readers read on meanwhile."""
    store = tmp_path / "store.db"
    url = f"sqlite:///{store}"
    told = lines(range(40_000))
    (tmp_path / "other.ndjson").write_text("".join(told[:10]))
    with subprocess.Popen(
        [*COMMAND, "ingest", "-", "--store", str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as first:
        assert first.stdin is not None
        first.stdin.write("".join(told[:35_000]).encode())
        first.stdin.flush()
        until_s = time.monotonic() + 60
        while held(url) < FIRST:
            assert first.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.05)
        for command in (("ingest", str(tmp_path / "other.ndjson")), ("rebuild",)):
            capfd.readouterr()
            assert here(*command, "--store", str(store)) == 3
            out, err = capfd.readouterr()
            assert (out, "Another process is writing to this store" in said(err)) == ("", True)
            assert here("at", "client-1", AT, "--client", "--store", str(store)) == 0
            assert first.poll() is None  # it waits for more
        out_bytes, err_bytes = first.communicate("".join(told[35_000:]).encode(), timeout=60)
    assert (first.returncode, out_bytes[:34]) == (0, b"40,000 records: 40,000 events, 0 c"), err_bytes
    assert held(url) == 40_000
    assert here("ingest", str(tmp_path / "other.ndjson"), "--store", str(store)) == 0


# --- A source that trickles ---------------------------------------------------------------------------------


@contextmanager
def piped(store_url: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Ingest what comes through a pipe, which is given as well."""
    with subprocess.Popen(
        [*COMMAND, "ingest", "-", "--store", store_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ingesting:
        assert ingesting.stdin is not None
        yield ingesting, ingesting.stdin


def test_what_comes_through_a_pipe_is_answerable_soon_though_more_may_come(store_url: str) -> None:
    """Neither a pause nor an end is waited for: a line at a time, more often than a source is said to pause."""
    told = lines(range(2_000))
    with piped(store_url) as (ingesting, pipe):
        until_s = time.monotonic() + 60
        written = 0
        while held(store_url) < 10:
            assert ingesting.poll() is None
            assert time.monotonic() < until_s
            if written < len(told):
                pipe.write(told[written].encode())
                pipe.flush()
                written += 1
            time.sleep(0.01)
        seen = held(store_url)
        pipe.write(told[written].encode().rstrip())  # as much of a line as says all
        pipe.flush()
        while held(store_url) <= max(seen, written):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        out, _ = ingesting.communicate(b"\n" + "".join(told[written + 1 :]).encode(), timeout=60)
    assert (ingesting.returncode, out[:13]) == (0, b"2,000 records")
    assert held(store_url) == 2_000


def test_a_pipe_that_stalls_keeps_nobody_from_writing(store_url: str) -> None:
    """Late events make it look into the store, and a recording may go on with the moment that it stopped in."""
    told = lines(range(200))
    recorded = [f'{{"knownAt": 1793500000000, "event": {line.strip()}}}\n' for line in told[100:]]
    with piped(store_url) as (ingesting, pipe):
        until_s = time.monotonic() + 60
        sent = 0
        for part in ([*told[50:100], *told[:50]], recorded):
            for line in part:
                pipe.write(line.encode())
            pipe.flush()
            sent += len(part)
            while held(store_url) < sent:
                assert time.monotonic() < until_s
                time.sleep(0.05)
            window = ("--from", "2026-10-01T00:00:00Z", "--to", "2026-10-02T00:00:00Z")
            assert here("annotate", "--all", *window, "--ticket", "T-1", "--store", store_url) == 0
        out, _ = ingesting.communicate(timeout=60)
    assert (ingesting.returncode, out[:11]) == (0, b"200 records")


def test_no_standard_input_and_the_same_twice_are_told(tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "ingest", "-", "--store", store],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said(done.stderr.decode())[:35]) == (4, "thingline: Standard input is closed"), (
        done
    )
    done = subprocess.run(
        [*COMMAND, "ingest", "-", "-", "--store", store],
        input="".join(lines(range(3))).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith(b"3 records"), done
    assert b"thingline: -: it is empty" in done.stderr


# --- A copy that cannot be written --------------------------------------------------------------------------


@pytest.fixture
def roomy_store(folder: Path, tmp_path: Path) -> Path:
    """A store of more than a mebibyte."""
    store = tmp_path / "store.db"
    assert here("ingest", str(folder), "--store", str(store)) == 0
    assert store.stat().st_size > MEBIBYTE
    return store


def assert_the_copy_is_blamed(err: str, copy: Path, why: str) -> None:
    assert said(err) == (
        f"thingline: The copy {copy} cannot be written: {why}. Nothing of it was kept, and the store is as it was."
    )


def test_a_full_disk_of_a_backup_is_not_said_of_the_store(small_disk: Path, roomy_store: Path) -> None:
    copy = small_disk / "copy.db"
    code, out, err = run("db", "backup", str(copy), "--store", str(roomy_store))
    assert (code, out) == (3, "")
    assert_the_copy_is_blamed(err, copy, "database or disk is full")
    assert list(small_disk.iterdir()) == []
    assert is_sound(roomy_store)


def test_a_limit_on_the_size_of_a_backup_is_not_said_of_the_store(roomy_store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    code, out, err = run("db", "backup", str(copy), "--store", str(roomy_store), preexec_fn=limited(400_000))
    assert (code, out) == (3, "")
    assert_the_copy_is_blamed(err, copy, "disk I/O error")
    assert list(tmp_path.glob("*copy*")) == []


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that we may not write to; root may write to each that is not mounted so."""
    place = tmp_path / "closed"
    place.mkdir()
    if os.geteuid() != 0:
        place.chmod(0o555)
        yield place
        place.chmod(0o755)
        return
    with mounted(place, "ro"):
        yield place


def test_a_folder_that_takes_no_backup_is_not_said_of_the_store(
    closed_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.ndjson").write_text("".join(lines(range(10))))
    assert here("ingest", str(tmp_path / "events.ndjson"), "--store", str(tmp_path / "store.db")) == 0
    capfd.readouterr()
    copy = closed_folder / "copy.db"
    assert here("db", "backup", str(copy), "--store", str(tmp_path / "store.db")) == 3
    out, err = capfd.readouterr()
    assert out == ""
    why = "Read-only file system" if os.geteuid() == 0 else "Permission denied"
    assert_the_copy_is_blamed(err, copy, why)


def test_what_is_forgotten_on_a_full_disk_is_said_to_be_forgotten(small_disk: Path, tmp_path: Path) -> None:
    """To rewrite a row takes little room, to write the file anew takes all of it once more."""
    store = small_disk / "store.db"
    (tmp_path / "events.ndjson").write_text("".join(lines(range(1_500))))
    assert run("ingest", str(tmp_path / "events.ndjson"), "--store", str(store))[0] == 0
    code, out, err = run("forget", "client-1", "--client", "--yes", "--store", str(store))
    assert (code, out) == (3, "")
    assert said(err).startswith("thingline: It is forgotten, but the file could not be written anew (")
    assert "run this again" in err
    assert is_sound(store)
    assert run("at", "client-1", AT, "--client", "--store", str(store))[0] == 5
    roomy = tmp_path / "roomy"
    shutil.copytree(small_disk, roomy)
    assert here("forget", "client-1", "--client", "--yes", "--store", str(roomy / "store.db")) == 0
    assert b"client-1\0" not in (roomy / "store.db").read_bytes()


# --- What is no store ---------------------------------------------------------------------------------------

ON_A_STORE = (
    ("ingest", "-"),
    ("db", "status"),
    ("db", "upgrade"),
    ("db", "backup", "copy.db"),
    ("at", "client-1", AT, "--client"),
)


@pytest.mark.parametrize("command", ON_A_STORE, ids=" ".join)
def test_a_folder_is_said_to_be_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert here(*command, "--store", str(place)) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{place} is a folder; a store needs a file: {place / 'store.db'}, say." in err
    assert [path.name for path in tmp_path.rglob("*")] == ["place"]


ALEMBIC = "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0004');"


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE clients (name TEXT)",
        "CREATE TABLE invoices (name TEXT)",
        f"CREATE TABLE invoices (name TEXT); {ALEMBIC}",
    ],
    ids=["alike", "unlike", "versioned"],
)
@pytest.mark.parametrize("command", ON_A_STORE, ids=" ".join)
def test_somebody_elses_file_is_refused_and_not_written_to(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    tables: str,
    journal: str,
) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.executescript(tables)
    connection.close()
    before = path.read_bytes()
    assert here(*command, "--store", str(path)) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert f"sqlite:///{path} is not a store of thingline: it holds somebody else's tables ('" in err
    assert path.read_bytes() == before
    if command[0] == "ingest":
        assert [each.name for each in tmp_path.iterdir()] == ["theirs.db"]


def test_somebody_elses_file_is_refused_while_they_write_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path, isolation_level=None)
    theirs.execute("PRAGMA journal_mode=WAL")
    theirs.execute("CREATE TABLE invoices (name TEXT)")  # is in the write-ahead log only
    assert here("ingest", "-", "--store", str(path)) == 3
    assert "it holds somebody else's tables" in capfd.readouterr().err
    assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    theirs.close()
