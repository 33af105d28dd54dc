"""Annotations as they are typed, on both engines: what is said, withdrawn, listed, cared for; beside a writer."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.annotate import Said, annotate, withdraw
from ingest.check import faults
from ingest.purge import purge
from ingest.writer import Writer
from queries.history import open_history
from store.annotations import Note, Scope
from store.backup import back_up
from store.engine import open_beside, open_reader, open_writer, parse_url
from store.errors import ResourceNotFound, StoreMissing, StoreUnfinished, UsageError
from store.model import HOUR_MS, Learned
from tests.builders import T0, connect
from tests.contract.test_commands import Run, on_any, run, sampled
from tests.contract.test_forget import holdings
from tests.contract.test_views import rows

__all__ = ["on_any", "run", "sampled"]  # fixtures

NIGHT = ("--from", "2026-11-01T02:00Z", "--to", "2026-11-01T04:00Z")
EVER = (T0 - HOUR_MS, T0 + HOUR_MS)


def said(kind: Note = Note.MAINTENANCE, subject: str | None = "pump-17", **more: Any) -> Said:
    scope = Scope.ALL if subject is None else Scope.THING
    return Said(kind, scope, subject, *EVER, **more)


def annotated(url: str, *what: Said, now: int = T0 + 5) -> list[int]:
    with open_beside(parse_url(url)) as store:
        return [one.number for one in annotate(store, what, realm="default", clock=lambda: now)]


def known(url: str, known_at: int | None = None) -> list[int]:
    with open_history(url, clock=lambda: T0 + 100 * HOUR_MS) as history:
        return [one.number for one in history.annotations(known_at=known_at)]


def write(url: str, *at: int, session: str = "s") -> None:
    with open_writer(parse_url(url)) as store, Writer(store, clock=lambda: T0 + at[-1]) as writer:
        writer.write([Learned(connect(T0 + each, session=f"{session}{each}"), 0) for each in at], source="t")


def test_what_is_said_is_listed_and_counts_from_then_on(sampled: Run) -> None:
    done = sampled("annotate", "pump-17", "pump-18", *NIGHT, "--maintenance", "--ticket", "CHG-12", "--json")
    assert (done.code, [one["annotation"] for one in done.objects]) == (0, [1, 2])
    done = sampled("annotate", "--all", *NIGHT, "--false-alarm", "--note", "two\nlines", "--author", "Ada")
    assert (
        done.out == "3: annotated: false-alarm of all, 2026-11-01T02:00:00.000Z .. 2026-11-01T04:00:00.000Z\n"
    )
    receipt, *listed = sampled("annotate", "list", "--json").objects
    assert [(one["kind"], one["subject"], one["ticket"], one["note"]) for one in listed] == [
        ("maintenance", "pump-17", "CHG-12", None),
        ("maintenance", "pump-18", "CHG-12", None),
        ("false-alarm", None, None, "two\nlines"),
    ]
    assert listed[2]["author"] == "Ada"
    assert listed[0]["author"]  # whoever is logged in
    assert "\n".join(sampled("annotate", "list").out.splitlines()).count("two\\nlines") == 1

    assert sampled("annotate", "withdraw", "1", "--note", "wrong night", "--author", "Bob").code == 0
    _, *now = sampled("annotate", "list", "--json").objects
    assert [one["annotation"] for one in now] == [2, 3]
    assert [
        one["annotation"] for one in sampled(*shlex.split(receipt["again"])[1:], "--json").objects[1:]
    ] == [1, 2, 3]
    _, *versions = sampled("annotate", "list", "--withdrawn", "--json").objects
    first, withdrawn, *_ = versions
    assert first["supersededAt"] == withdrawn["recordedAt"]
    assert (withdrawn["withdrawn"], withdrawn["note"], withdrawn["author"]) == (True, "wrong night", "Bob")
    assert "(withdrawn)" in sampled("annotate", "list", "--withdrawn").out
    assert sampled("db", "check").code == 0


def test_a_window_lists_what_speaks_of_it(run: Run, store_url: str) -> None:
    write(store_url, 0)
    annotated(store_url, said())
    for window, found in (
        ((T0 - 9 * HOUR_MS, T0 - HOUR_MS), []),
        ((T0 - 9 * HOUR_MS, T0 - HOUR_MS + 1), [1]),
        ((T0 + HOUR_MS - 1, T0 + 9 * HOUR_MS), [1]),
        ((T0 + HOUR_MS, T0 + 9 * HOUR_MS), []),
    ):
        with open_history(store_url) as history:
            assert [one.number for one in history.annotations(*window)] == found


def test_each_moment_of_learning_sees_what_was_said_by_then(store_url: str) -> None:
    """Law of two clocks: nothing said later leaks in, and nothing said then is lost."""
    write(store_url, 0, 10)
    first = annotated(store_url, said(), now=T0 + 20)
    with open_beside(parse_url(store_url)) as store:
        withdraw(store, first, realm="default", clock=lambda: T0 + 30)
    second = annotated(store_url, said(Note.TICKET, ticket="INC-1"), now=T0 + 40)
    assert [known(store_url, T0 + at) for at in (19, 20, 29, 30, 39, 40)] == [[], [1], [1], [], [], second]
    with open_history(store_url) as history:
        (one,) = history.annotations(known_at=T0 + 25, versions=True)
        assert (one.superseded_at, one.withdrawn) == (None, False)  # nobody knew then


def test_a_moment_is_later_than_all_that_was_learned_whatever_the_clock_says(store_url: str) -> None:
    write(store_url, 0, 10)
    annotated(store_url, said(), now=T0 - 99)
    with open_history(store_url) as history:
        assert history.known_at() == T0 + 11
        assert [one.recorded_at for one in history.annotations()] == [T0 + 11]
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_it_runs_beside_a_writer_which_goes_on_later(store_url: str) -> None:
    """The writer keeps its newest moment in mind; what it learns next is known after the annotation all the same."""
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0) as writer:
        for turn in range(3):
            event = connect(T0 + turn, session=f"s{turn}")
            assert writer.write([Learned(event, 0)], source="t").stored == 1
            annotated(store_url, said(), now=T0 + 1_000 * (turn + 1))
        counts = list(
            writer.write_all(
                ([Learned(connect(T0 + 50 + each, session=f"t{each}"), 0)] for each in range(5)), source="t"
            )
        )
        assert [each.stored for each in counts] == [1] * 5
    moments = [row[0] for row in rows(store_url, "SELECT known_at FROM evidence ORDER BY at_ms")]
    assert moments[0] < T0 + 1_000 < moments[1] < T0 + 2_000 < moments[2] < T0 + 3_000 < moments[3]
    with open_history(store_url) as history:
        assert history.known_at() == moments[-1]
    assert known(store_url) == [1, 2, 3]
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_a_writer_that_never_rests_lets_it_in(store_url: str) -> None:
    """Batch after batch, as of a large file: between two of them there is room."""
    write(store_url, 0)
    done = threading.Event()

    def batches() -> Iterator[list[Learned]]:
        at_ms = T0
        while not done.is_set():
            yield [Learned(connect(at_ms + each, session=f"n{at_ms + each}"), 0) for each in range(1, 500)]
            at_ms += 500

    def keep_writing() -> None:
        with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
            for _ in writer.write_all(batches(), source="t"):
                pass

    writing = threading.Thread(target=keep_writing)
    writing.start()
    try:
        for turn in range(3):
            assert annotated(store_url, said(), now=T0) == [turn + 1]
    finally:
        done.set()
        writing.join()
    assert known(store_url) == [1, 2, 3]
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_a_recording_is_not_honoured_over_an_annotation(store_url: str) -> None:
    """What a replay says it was known at lies before the annotation, which some question may have seen already."""
    told = [Learned(connect(T0 + at, session=f"s{at}"), 0, known_at_ms=T0 + 100 * at) for at in (1, 2, 3)]
    with open_writer(parse_url(store_url)) as store, Writer(store, clock=lambda: T0 + 900) as writer:
        writer.write(told[:2], source="recording")
        annotated(store_url, said(), now=T0 + 800)
        writer.write(told[2:], source="recording")
    found = rows(store_url, "SELECT known_at, claimed_at FROM evidence ORDER BY at_ms")
    assert found == [(T0 + 100, None), (T0 + 200, None), (T0 + 900, T0 + 300)]


def test_many_annotate_at_once_and_each_gets_a_number_of_its_own(store_url: str) -> None:
    write(store_url, 0)
    found: list[int] = []

    def some() -> None:
        for _ in range(5):
            found.extend(annotated(store_url, said()))

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 21))
    assert known(store_url) == sorted(found)


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("pump-17", *NIGHT), "Say what"),
    ((*NIGHT, "--maintenance"), "Say of whom"),
    (("pump-17", "--all", *NIGHT, "--maintenance"), "Say of whom"),
    (("pump-17", *NIGHT, "--maintenance", "--false-alarm"), "two annotations"),
    (("pump-17", "--from", "-1h", "--to", "-2h", "--maintenance"), "ends before it begins"),
    (("pump-17", "--from", "02:00", "--to", "-2h", "--maintenance"), "not a time"),
    (("pump-17", *NIGHT, "--ticket", ""), "needs the id"),
    (("pump-17", *NIGHT, "--maintenance", "--note", "x" * 5_000), "at most 4,096 bytes"),
    (("pump-71", *NIGHT, "--maintenance"), "pump-71 was never heard of"),
    (("pump-17", *NIGHT, "--maintenance", "--realm", "other"), "realm other"),
    (("withdraw", "7"), "no annotation 7"),
]


def test_what_makes_no_sense_is_refused_and_leaves_nothing(sampled: Run) -> None:
    for words, complaint in REFUSED:
        done = sampled("annotate", *words)
        assert done.code != 0
        assert complaint in done.err, done.err
    assert sampled("annotate", "list", "--withdrawn", "--json").objects[1:] == []


def test_a_thing_may_be_called_like_a_subcommand(run: Run, store_url: str) -> None:
    with open_writer(parse_url(store_url)) as store, Writer(store) as writer:
        writer.write([Learned(connect(T0, session="s", client_id="list"), 0)], source="t")
    assert run("annotate", "add", "list", *NIGHT, "--maintenance").code == 0
    assert run("annotate", "list", "--json").objects[1]["subject"] == "list"


def test_an_unknown_group_is_annotated_and_noted(sampled: Run) -> None:
    done = sampled("annotate", "--group", "nrth", *NIGHT, "--maintenance")
    assert (done.code, "nothing was told of a group 'nrth'" in done.err) == (0, True)


def test_withdrawing_is_all_or_none(store_url: str) -> None:
    write(store_url, 0)
    annotated(store_url, said(), said())
    with open_beside(parse_url(store_url)) as store:
        with pytest.raises(ResourceNotFound):
            withdraw(store, [1, 9], realm="default")
        assert known(store_url) == [1, 2]
        withdraw(store, [1, 1], realm="default")
        with pytest.raises(UsageError, match="already"):
            withdraw(store, [2, 1], realm="default")
    assert known(store_url) == [2]


def test_there_must_be_a_store_and_no_back_filling(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        open_beside(parse_url(str(tmp_path / "none.db")))
    assert not (tmp_path / "none.db").exists()
    write(store_url, 0)
    with open_writer(parse_url(store_url)) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO backfills VALUES (1, 5, 6, NULL, 0)")
    with pytest.raises(StoreUnfinished):
        annotated(store_url, said())
    assert known(store_url) == []


def test_the_view_shows_what_is_said_now(store_url: str) -> None:
    write(store_url, 0)
    first, _ = annotated(store_url, said(), said(Note.FALSE_ALARM, None, note="n", author="a"))
    with open_beside(parse_url(store_url)) as store:
        withdraw(store, [first], realm="default")
    columns = "realm, annotation_no, kind, scope, subject, from_ms, to_ms, ticket, note, author, recorded_ms"
    assert rows(store_url, f"SELECT {columns} FROM annotations") == [  # noqa: S608
        ("default", 2, "false-alarm", "all", None, *EVER, None, "n", "a", T0 + 5)
    ]


def test_a_purge_deletes_what_ended_before_its_horizon(store_url: str) -> None:
    write(store_url, 0, HOUR_MS, 5 * HOUR_MS)
    early = said()._replace(to_ms=T0 + HOUR_MS)
    late = said()._replace(to_ms=T0 + HOUR_MS + 1)
    annotated(store_url, early, late, now=T0 + 6 * HOUR_MS)
    with open_writer(parse_url(store_url)) as store:
        assert purge(store, T0 + HOUR_MS, dry_run=True).annotations == 1
        assert purge(store, T0 + HOUR_MS).annotations == 1
    assert known(store_url) == [2]
    with open_reader(parse_url(store_url)) as store:
        assert list(faults(store)) == []


def test_a_backup_holds_them(store_url: str, tmp_path: Path) -> None:
    write(store_url, 0)
    annotated(store_url, said(), said())
    with open_beside(parse_url(store_url)) as store:
        withdraw(store, [1], realm="default")
    with open_reader(parse_url(store_url)) as store:
        back_up(store, tmp_path / "copy.db")
    query = "SELECT annotation_no, version, recorded_at, superseded_at FROM annotation_rows ORDER BY 1, 2"
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert rows(copy, query) == rows(store_url, query)
    assert len(rows(copy, query)) == 3


def test_forgetting_a_device_takes_it_out_of_annotations(run: Run, store_url: str) -> None:
    write(store_url, 0, HOUR_MS)
    secrets = ("pump-17", "owner Eve", "INC-EVE")
    annotated(
        store_url,
        said(Note.TICKET, ticket="INC-EVE", note="the pump of its owner Eve", author="Eve"),
        said(Note.MAINTENANCE, None, note="all but pump-17", author="Ada"),
    )
    assert all(secret in holdings(store_url) for secret in secrets)
    done = run("forget", "pump-17", "--yes", "--json")
    assert (done.code, done.objects[0]["annotations"]) == (0, 2), done.err
    held = holdings(store_url)
    assert [secret for secret in (*secrets, "Eve") if secret in held] == []
    found = rows(store_url, "SELECT kind, scope, author FROM annotations ORDER BY annotation_no")
    assert found == [("ticket", "thing", None), ("maintenance", "all", "Ada")]
    assert run("db", "check").code == 0


def test_forgetting_an_author_leaves_what_they_said(run: Run, store_url: str) -> None:
    write(store_url, 0, HOUR_MS)
    annotated(store_url, said(author="Ada Lovelace"), said(author="Bob"), said(author="Ada Lovelace"))
    done = run("forget", "Ada Lovelace", "--author", "--yes", "--json")
    assert (done.code, done.objects[0]["annotations"], done.objects[0]["names"]) == (0, 2, 1)
    assert "Lovelace" not in holdings(store_url)
    first, second, third = (
        row[0] for row in rows(store_url, "SELECT author FROM annotations ORDER BY annotation_no")
    )
    assert (first == third, second) == (True, "Bob")
    assert run("forget", "x", "--author", "--client", "--yes").code == 2


def test_an_export_of_evidence_holds_none(run: Run, store_url: str) -> None:
    write(store_url, 0)
    annotated(store_url, said(note="not evidence"))
    assert "not evidence" not in run("export", "evidence").out
    assert json.loads(run("db", "status", "--json").out)["annotations"] == 1


def test_versions_that_do_not_follow_one_another_are_found(store_url: str) -> None:
    write(store_url, 0)
    annotated(store_url, said(), said())
    with open_writer(parse_url(store_url)) as store:
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE annotation_rows SET superseded_at = 1 WHERE annotation_no = 2")
        assert [(each.kind, "annotation 2" in each.detail) for each in faults(store)] == [
            ("annotation", True)
        ]
